//! The data of branches and the computes that serve it.
//!
//! A branch's data is a directory with `pg` (the cluster), `archive` (its log) and `base` (a copy
//! from before its first write).
//!
//! Invariants: a cluster that no compute runs on was stopped cleanly; starting, stopping and
//! copying are done by one at a time.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use crate::faults::Place;
use crate::model::{Lsn, Point};
use crate::postgres::{Installation, Mode, Server, control_lsn};

/// All data and all computes.
pub(crate) struct Data {
    pub(crate) installation: Installation,
    root: PathBuf,
    computes: HashMap<String, Compute>,
    ports: HashMap<String, u16>,
    /// Where each data forked from its source: a position of the source.
    forks: HashMap<String, Lsn>,
}

/// A running compute.
pub(crate) struct Compute {
    pub(crate) server: Server,
    pub(crate) data: String,
    pub(crate) is_read_write: bool,
    pub(crate) used_at: Instant,
}

impl Data {
    pub(crate) fn new(installation: Installation, root: PathBuf) -> Self {
        Self {
            installation,
            root,
            computes: HashMap::new(),
            ports: HashMap::new(),
            forks: HashMap::new(),
        }
    }

    fn dir(&self, data: &str) -> PathBuf {
        self.root.join("branches").join(data)
    }

    fn cluster(&self, data: &str) -> PathBuf {
        self.dir(data).join("pg")
    }

    fn archive(&self, data: &str) -> PathBuf {
        self.dir(data).join("archive")
    }

    /// Makes an empty cluster.
    pub(crate) fn create(&mut self, data: &str) -> Result<()> {
        self.installation.make_dir(&self.root.join("branches"))?;
        self.installation.initdb(&self.cluster(data))?;
        self.installation.make_dir(&self.archive(data))
    }

    /// Returns the compute of an endpoint, if it runs.
    pub(crate) fn compute(&self, endpoint: &str) -> Option<&Compute> {
        self.computes.get(endpoint)
    }

    /// Notes that a compute was used, and returns its port.
    pub(crate) fn touch(&mut self, endpoint: &str) -> Option<u16> {
        let compute = self.computes.get_mut(endpoint)?;
        compute.used_at = Instant::now();
        Some(compute.server.port)
    }

    /// Returns every running compute.
    pub(crate) fn computes(&self) -> impl Iterator<Item = (&String, &Compute)> {
        self.computes.iter()
    }

    fn writer(&self, data: &str) -> Option<&Compute> {
        self.computes.values().find(|compute| compute.data == data && compute.is_read_write)
    }

    /// Starts a compute, unless it runs. A read-only one is a hot standby on a copy of its own.
    pub(crate) async fn start(
        &mut self,
        endpoint: &str,
        data: &str,
        is_read_write: bool,
    ) -> Result<()> {
        if self.computes.contains_key(endpoint) {
            return Ok(());
        }
        let port = self.ports.get(endpoint).copied();
        let archive = self.archive(data);
        let server = if is_read_write {
            self.keep_base(data)?;
            self.installation.start(&self.cluster(data), port, &Mode::Primary { archive }).await?
        } else {
            let dir = self.root.join("endpoints").join(endpoint);
            self.installation.make_dir(&self.root.join("endpoints"))?;
            let primary = self.writer(data).map(|writer| writer.server.port);
            if primary.is_some() {
                self.back_up(data, &dir).await?;
            } else {
                self.installation.copy_cold(&self.cluster(data), &dir)?;
            }
            self.installation.start(&dir, port, &Mode::Standby { archive, primary }).await?
        };
        self.ports.insert(endpoint.to_owned(), server.port);
        if is_read_write {
            // Who began to read before there was a writer follows it from here on, as on Neon all
            // read one storage.
            for reader in self.computes.values().filter(|compute| compute.data == data) {
                self.installation.follow(reader.server.port, server.port).await?;
            }
        }
        let compute =
            Compute { server, data: data.to_owned(), is_read_write, used_at: Instant::now() };
        self.computes.insert(endpoint.to_owned(), compute);
        Ok(())
    }

    /// Stops a compute, if it runs.
    pub(crate) fn stop(&mut self, endpoint: &str) {
        let Some(mut compute) = self.computes.remove(endpoint) else { return };
        compute.server.stop(if compute.is_read_write { Signal::SIGINT } else { Signal::SIGQUIT });
        if !compute.is_read_write {
            let _ = fs::remove_dir_all(&compute.server.dir);
            let _ = fs::remove_file(compute.server.dir.with_extension("log"));
        }
    }

    /// Stops everything.
    pub(crate) fn stop_all(&mut self) {
        let endpoints: Vec<String> = self.computes.keys().cloned().collect();
        for endpoint in endpoints {
            self.stop(&endpoint);
        }
    }

    /// Removes data that no branch has any more.
    pub(crate) fn remove(&mut self, data: &str) {
        self.forks.remove(data);
        let _ = fs::remove_dir_all(self.dir(data));
    }

    /// Keeps a copy from before the first write, from which earlier positions can be reached.
    fn keep_base(&self, data: &str) -> Result<()> {
        let base = self.dir(data).join("base");
        if base.exists() {
            return Ok(());
        }
        self.installation.copy_cold(&self.cluster(data), &base)?;
        // The log of this data continues the history of the branch it came from.
        for entry in fs::read_dir(self.cluster(data).join("pg_wal"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "history") {
                let name = path.file_name().context("read the name of a history file")?;
                fs::copy(&path, self.archive(data).join(name))?;
            }
        }
        Ok(())
    }

    /// Takes the base anew, from a cluster that is stopped.
    pub(crate) fn refresh_base(&mut self, data: &str) -> Result<()> {
        self.forks.remove(data);
        let _ = fs::remove_dir_all(self.dir(data).join("base"));
        self.keep_base(data)
    }

    /// Returns where the history of data begins that is stopped and has its base.
    pub(crate) fn begin(&self, data: &str) -> Result<Lsn> {
        control_lsn(&self.dir(data).join("base"))
    }

    /// Copies a running cluster, with the label that recovery needs. Returns where the copy becomes
    /// consistent.
    async fn back_up(&self, data: &str, to: &Path) -> Result<Lsn> {
        let port = self.writer(data).context("find the compute of the source")?.server.port;
        // One session: a backup belongs to the session that started it.
        let mut admin = self.installation.admin(port, "postgres").await?;
        admin.value("select pg_backup_start('branch', true)::text").await?;
        let (installation, from, target) =
            (self.installation.clone(), self.cluster(data), to.to_path_buf());
        tokio::task::spawn_blocking(move || installation.copy_hot(&from, &target)).await??;
        let result = admin
            .query("select lsn::text, labelfile, spcmapfile from pg_backup_stop(true)", &[])
            .await?;
        let row = result.rows.into_iter().next().context("end the backup: no row")?;
        let [Some(lsn), Some(label), tablespaces] =
            <[Option<String>; 3]>::try_from(row).ok().context("end the backup: columns")?
        else {
            bail!("end the backup: a value is missing");
        };
        if tablespaces.is_some_and(|map| !map.trim().is_empty()) {
            bail!("tablespaces cannot be branched");
        }
        self.installation.write(&to.join("backup_label"), &label)?;
        lsn.parse().map_err(|_| anyhow::anyhow!("end the backup: {lsn:?} is no position"))
    }

    /// Makes new data from existing data at a point. Returns the position at which it begins.
    ///
    /// The position is one of the source's, at or before its head. At the fork of the source itself
    /// nothing of its own is seen: that is what the source was made with.
    pub(crate) async fn branch(&mut self, source: &str, new: &str, point: Point) -> Result<Lsn> {
        let lsn = self.make(source, new, point).await?;
        self.forks.insert(new.to_owned(), lsn);
        Ok(lsn)
    }

    async fn make(&mut self, source: &str, new: &str, point: Point) -> Result<Lsn> {
        let target = self.cluster(new);
        self.installation.make_dir(&self.dir(new))?;
        self.installation.make_dir(&self.archive(new))?;
        if let Point::Lsn(lsn) = point
            && self.forks.get(source) == Some(&lsn)
        {
            let base = self.dir(source).join("base");
            let from = if base.exists() { base } else { self.cluster(source) };
            self.installation.copy_cold(&from, &target)?;
            return Ok(lsn);
        }
        match self.locate(source, point).await? {
            None if self.writer(source).is_some() => {
                let lsn = self.back_up(source, &target).await?;
                self.recover(source, &target, vec!["recovery_target=immediate".to_owned()]).await?;
                Ok(lsn)
            }
            None => {
                self.installation.copy_cold(&self.cluster(source), &target)?;
                control_lsn(&target)
            }
            Some(lsn) => {
                self.branch_at(source, &target, lsn).await?;
                Ok(lsn)
            }
        }
    }

    /// Counts the bytes of the databases of a cluster.
    pub(crate) fn size(&self, data: &str) -> u64 {
        let databases = fs::read_dir(self.cluster(data).join("base"))
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        let files = databases.flat_map(|database| {
            fs::read_dir(database.path()).into_iter().flatten().filter_map(Result::ok)
        });
        files.filter_map(|file| file.metadata().ok()).map(|facts| facts.len()).sum()
    }

    /// Changes data that no compute serves, below or above the position at which it forked.
    pub(crate) async fn tamper(&self, data: &str, sql: &str, place: Place) -> Result<()> {
        if place == Place::After {
            self.keep_base(data)?;
        }
        let mode = Mode::Primary { archive: self.archive(data) };
        let mut server = self.installation.start(&self.cluster(data), None, &mode).await?;
        let changed = async {
            self.installation
                .admin(server.port, "neondb")
                .await?
                .script(sql)
                .await
                .map_err(anyhow::Error::from)
        }
        .await;
        tokio::task::spawn_blocking(move || server.stop(Signal::SIGINT)).await?;
        changed.context("tamper")?;
        Ok(())
    }

    /// Returns the position that a point means; `None` for the head.
    async fn locate(&self, source: &str, point: Point) -> Result<Option<Lsn>> {
        let lsn = match point {
            Point::Head => return Ok(None),
            Point::Lsn(lsn) => lsn,
            Point::Time(at) => bail!("nobody knows where the branch was at {at}"),
        };
        match self.head(source).await? {
            head if lsn > head => bail!("position {lsn} is after the head {head} of the branch"),
            head if lsn == head && self.writer(source).is_none() => Ok(None),
            _ => Ok(Some(lsn)),
        }
    }

    /// Returns the newest position.
    pub(crate) async fn head(&self, data: &str) -> Result<Lsn> {
        match self.writer(data) {
            Some(writer) => {
                let mut admin = self.installation.admin(writer.server.port, "postgres").await?;
                let text = admin.value("select pg_current_wal_insert_lsn()::text").await?;
                text.parse().map_err(|_| anyhow::anyhow!("{text:?} is no position"))
            }
            None => control_lsn(&self.cluster(data)),
        }
    }

    /// Makes a cluster as it was at a position: the base, and the archived log up to there.
    async fn branch_at(&mut self, source: &str, target: &Path, lsn: Lsn) -> Result<()> {
        let base = self.dir(source).join("base");
        let base = if base.exists() { base } else { self.cluster(source) };
        let begins = control_lsn(&base)?;
        self.installation.copy_cold(&base, target)?;
        // The request was held against the history: nothing was written between the fork and the
        // first start.
        if lsn <= begins {
            return Ok(());
        }
        if let Some(writer) = self.writer(source) {
            let mut admin = self.installation.admin(writer.server.port, "postgres").await?;
            let segment = admin.value("select pg_walfile_name(pg_switch_wal())").await?;
            let archived = self.archive(source).join(segment);
            // The archiver runs at once; 10 s at 20 ms.
            for _ in 0..500 {
                if archived.exists() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        self.recover(
            source,
            target,
            vec![format!("recovery_target_lsn={lsn}"), "recovery_target_inclusive=off".to_owned()],
        )
        .await
    }

    /// Lets a copy recover to its point, and stops it cleanly.
    async fn recover(&self, source: &str, target: &Path, point: Vec<String>) -> Result<()> {
        let mode = Mode::Recovery { archive: self.archive(source), target: point };
        let mut server = self.installation.start(target, None, &mode).await?;
        tokio::task::spawn_blocking(move || server.stop(Signal::SIGINT)).await?;
        Ok(())
    }

    /// Returns where each written branch is now.
    pub(crate) async fn heads(&self) -> Vec<(String, Lsn)> {
        let mut heads = Vec::new();
        for compute in self.computes.values().filter(|compute| compute.is_read_write) {
            // One that is about to stop says nothing.
            if let Ok(lsn) = self.head(&compute.data).await {
                heads.push((compute.data.clone(), lsn));
            }
        }
        heads
    }
}
