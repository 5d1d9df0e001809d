//! Real PostgreSQL processes and their data directories.
//!
//! Invariants: postgres never runs as root; it listens on loopback only; every process that was
//! started is stopped.
//!
//! Source: PostgreSQL, chapters 25.3 "Continuous Archiving and Point-in-Time Recovery" and 26.4
//! "Hot Standby".

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, User};

use crate::model::Lsn;
use crate::wire::Connection;

/// Ports that are tried, beside the last, when somebody else listens on them.
const PORTS_TRIED: u32 = 4;

/// The superuser, as Neon calls it.
pub(crate) const ADMIN: &str = "cloud_admin";

/// The settings of every server: small, on loopback, ready to be branched and read by a standby.
/// Data need not outlive the machine.
const SETTINGS: [&str; 17] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "wal_level=replica",
    "max_connections=60",
    "max_wal_senders=4",
    "shared_buffers=64MB",
    "fsync=off",
    "synchronous_commit=off",
    "max_wal_size=256MB",
    "min_wal_size=32MB",
    "hot_standby=on",
    "password_encryption=scram-sha-256",
    "log_min_messages=warning",
    "logging_collector=off",
    "timezone=UTC",
    "log_timezone=UTC",
    "autovacuum_naptime=60s",
];

/// Where PostgreSQL is and as whom it runs.
#[derive(Clone)]
pub(crate) struct Installation {
    bin: PathBuf,
    user: Option<(Uid, Gid)>,
    /// The major version.
    pub(crate) major: u32,
    /// The superuser's password.
    pub(crate) password: String,
}

/// How a server is started.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    /// Accepts writes and archives its log.
    Primary {
        /// Where the log goes.
        archive: PathBuf,
    },
    /// Recovers to a point, then accepts writes; the log is not archived.
    Recovery {
        /// Where the log comes from.
        archive: PathBuf,
        /// The settings that name the point.
        target: Vec<String>,
    },
    /// A hot standby.
    Standby {
        /// Where the log comes from.
        archive: PathBuf,
        /// The primary's port, when it runs.
        primary: Option<u16>,
    },
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// Its port.
    pub(crate) port: u16,
    /// Its directory.
    pub(crate) dir: PathBuf,
}

impl Installation {
    /// Finds PostgreSQL in a directory of binaries. As root, another user is chosen to run it.
    pub(crate) fn new(bin: &Path, data: &Path) -> Result<Self> {
        let user = if Uid::effective().is_root() {
            let user =
                ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
            let user = user.context(
                "find a user to run postgres as: neither `postgres` nor `nobody` exists",
            )?;
            Some((user.uid, user.gid))
        } else {
            None
        };
        fs::create_dir_all(data).with_context(|| format!("create {}", data.display()))?;
        let password = format!("admin_{}", fastrand::Rng::new().u64(..));
        let mut installation = Self { bin: bin.to_path_buf(), user, password, major: 0 };
        installation.own(data)?;
        if installation.command("postgres").arg("--version").output().is_err() {
            // The other user cannot reach the binaries where they are; a copy beside the data can
            // be reached.
            let prefix = bin.parent().context("find the folder above the binaries")?;
            let copy = data.join("postgresql");
            installation.copy(prefix, &copy, &|_| false)?;
            installation.bin = copy.join("bin");
        }
        let version =
            installation.command("postgres").arg("--version").output().context("start postgres")?;
        if !version.status.success() {
            bail!(
                "start postgres in {}: {}",
                installation.bin.display(),
                String::from_utf8_lossy(&version.stderr).trim()
            );
        }
        let text = String::from_utf8_lossy(&version.stdout).into_owned();
        let number = text.split_whitespace().find_map(|word| word.split('.').next()?.parse().ok());
        installation.major = number.with_context(|| format!("read the version in {text:?}"))?;
        Ok(installation)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.stdin(Stdio::null()).env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
        if let Some((uid, gid)) = self.user {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        command
    }

    /// Gives a path to the user that postgres runs as.
    fn own(&self, path: &Path) -> Result<()> {
        if let Some((uid, gid)) = self.user {
            chown(path, Some(uid.as_raw()), Some(gid.as_raw()))
                .with_context(|| format!("give {} to postgres", path.display()))?;
        }
        Ok(())
    }

    /// Makes a directory that postgres can write to.
    pub(crate) fn make_dir(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        self.own(path)
    }

    /// Writes a file that postgres can read.
    pub(crate) fn write(&self, path: &Path, text: &str) -> Result<()> {
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        self.own(path)
    }

    /// Makes an empty cluster.
    pub(crate) fn initdb(&self, dir: &Path) -> Result<()> {
        let parent = dir.parent().context("find the folder above the cluster")?;
        self.make_dir(parent)?;
        let secret = parent.join("password");
        self.write(&secret, &self.password)?;
        let output = self
            .command("initdb")
            .arg("-D")
            .arg(dir)
            .args([
                "-U",
                ADMIN,
                "--auth=scram-sha-256",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
                "--pwfile",
            ])
            .arg(&secret)
            .output()
            .context("start initdb")?;
        fs::remove_file(&secret)?;
        if !output.status.success() {
            bail!("make a cluster: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        self.write(
            &dir.join("pg_hba.conf"),
            "host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 \
                scram-sha-256\n",
        )
    }

    /// Copies a tree; a file that vanishes meanwhile is left out, as a running server may remove
    /// files.
    pub(crate) fn copy(&self, from: &Path, to: &Path, skip: &dyn Fn(&Path) -> bool) -> Result<()> {
        self.make_dir(to)?;
        let entries = match fs::read_dir(from) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.with_context(|| format!("read {}", from.display()))?,
        };
        for entry in entries {
            let entry = entry?;
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            if skip(&source) {
                continue;
            }
            let kind = match entry.file_type() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                kind => kind?,
            };
            if kind.is_dir() {
                self.copy(&source, &target, skip)?;
            } else if kind.is_symlink() {
                let link = fs::read_link(&source)?;
                if source.parent().is_some_and(|parent| parent.ends_with("pg_tblspc")) {
                    bail!("tablespaces cannot be branched: {}", source.display());
                }
                std::os::unix::fs::symlink(link, &target)?;
            } else {
                match fs::copy(&source, &target) {
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    copied => copied.with_context(|| format!("copy {}", source.display()))?,
                };
                self.own(&target)?;
            }
        }
        Ok(())
    }

    /// Copies a cluster that is not running.
    pub(crate) fn copy_cold(&self, from: &Path, to: &Path) -> Result<()> {
        let _ = fs::remove_dir_all(to);
        self.copy(from, to, &|path| {
            path.ends_with("postmaster.pid") || path.ends_with("postmaster.opts")
        })
    }

    /// Copies a cluster that is running, between the start and the end of a backup. Its log comes
    /// from the archive.
    pub(crate) fn copy_hot(&self, from: &Path, to: &Path) -> Result<()> {
        let _ = fs::remove_dir_all(to);
        let emptied = [
            "pg_wal",
            "pg_replslot",
            "pg_stat_tmp",
            "pg_notify",
            "pg_serial",
            "pg_snapshots",
            "pg_subtrans",
            "pg_dynshmem",
        ];
        self.copy(from, to, &|path| {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            let parent = path
                .parent()
                .and_then(Path::file_name)
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            name.starts_with("postmaster.")
                || name.starts_with("pgsql_tmp")
                || emptied.contains(&parent.as_str())
        })?;
        self.make_dir(&to.join("pg_wal/archive_status"))
    }

    /// Starts a server and waits until it accepts connections; on another port than the wanted one
    /// when somebody else listens there.
    pub(crate) async fn start(
        &self,
        dir: &Path,
        wanted: Option<u16>,
        mode: &Mode,
    ) -> Result<Server> {
        let mut port = wanted.map_or_else(free_port, Ok)?;
        for _ in 0..PORTS_TRIED {
            match self.start_on(dir, port, mode).await {
                // Between finding a free port and listening on it, another emulator may have done
                // the same.
                Err(error) if format!("{error:#}").contains("Address already in use") => {
                    port = free_port()?;
                }
                started => return started,
            }
        }
        self.start_on(dir, port, mode).await
    }

    async fn start_on(&self, dir: &Path, port: u16, mode: &Mode) -> Result<Server> {
        for signal in ["recovery.signal", "standby.signal"] {
            let _ = fs::remove_file(dir.join(signal));
        }
        let settings = self.settings(dir, port, mode)?;
        let log =
            fs::OpenOptions::new().create(true).append(true).open(dir.with_extension("log"))?;
        let log_began_at = log.metadata()?.len();
        let mut command = self.command("postgres");
        command.arg("-D").arg(dir).stdout(log.try_clone()?).stderr(log);
        for setting in &settings {
            command.arg("-c").arg(setting);
        }
        // A group of its own: an interrupt of the terminal must not reach postgres before the
        // emulator stops it.
        command.process_group(0);
        let child = command.spawn().context("start postgres")?;
        let mut server = Server { child, port, dir: dir.to_path_buf() };
        match self.wait_until_ready(&mut server, matches!(mode, Mode::Recovery { .. })).await {
            Ok(()) => Ok(server),
            Err(error) => {
                let log = fs::read(dir.with_extension("log")).unwrap_or_default();
                let log = String::from_utf8_lossy(
                    log.get(usize::try_from(log_began_at).unwrap_or_default()..)
                        .unwrap_or_default(),
                );
                let tail: Vec<&str> = log.lines().rev().take(12).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                server.stop(Signal::SIGQUIT);
                Err(error.context(tail.join("\n")))
            }
        }
    }

    /// Returns the settings of a server, and writes the file that says in which mode it starts.
    fn settings(&self, dir: &Path, port: u16, mode: &Mode) -> Result<Vec<String>> {
        let mut settings: Vec<String> = SETTINGS.map(str::to_owned).to_vec();
        settings.push(format!("port={port}"));
        match mode {
            Mode::Primary { archive } => {
                let archive = archive.display();
                settings.push("archive_mode=on".to_owned());
                settings.push(format!(
                    "archive_command=test -f \"{archive}/%f\" || (cp %p \
                        \"{archive}/%f.part\" && mv \"{archive}/%f.part\" \"{archive}/%f\")"
                ));
            }
            Mode::Recovery { archive, target } => {
                self.write(&dir.join("recovery.signal"), "")?;
                settings.push("archive_mode=off".to_owned());
                settings.push(format!("restore_command=cp \"{}/%f\" \"%p\"", archive.display()));
                settings.push("recovery_target_action=promote".to_owned());
                settings.push("recovery_target_timeline=current".to_owned());
                settings.extend(target.iter().cloned());
            }
            Mode::Standby { archive, primary } => {
                self.write(&dir.join("standby.signal"), "")?;
                settings.push("archive_mode=off".to_owned());
                settings.push(format!("restore_command=cp \"{}/%f\" \"%p\"", archive.display()));
                settings.push("recovery_target_timeline=current".to_owned());
                if let Some(port) = primary {
                    // In the file, and not on the command line: `follow` changes it while the
                    // server runs.
                    let line = format!("primary_conninfo = '{}'\n", self.primary(*port));
                    let file = dir.join("postgresql.auto.conf");
                    let kept = fs::read_to_string(&file).unwrap_or_default();
                    self.write(&file, &format!("{kept}{line}"))?;
                }
            }
        }
        Ok(settings)
    }

    /// How a standby reaches its primary.
    fn primary(&self, port: u16) -> String {
        format!("host=127.0.0.1 port={port} user={ADMIN} password={}", self.password)
    }

    /// Lets a running standby follow a primary.
    pub(crate) async fn follow(&self, standby: u16, primary: u16) -> Result<()> {
        let mut admin = self.admin(standby, "postgres").await?;
        admin
            .script(&format!("alter system set primary_conninfo = '{}'", self.primary(primary)))
            .await?;
        admin.script("select pg_reload_conf()").await?;
        Ok(())
    }

    async fn wait_until_ready(&self, server: &mut Server, must_promote: bool) -> Result<()> {
        // 60 s at 20 ms: recovery of a large log is the longest start there is.
        for _ in 0..3_000 {
            if let Some(status) = server.child.try_wait()? {
                bail!("start postgres in {}: it ended with {status}", server.dir.display());
            }
            // Somebody else may listen there, and never say a word.
            let connected =
                tokio::time::timeout(Duration::from_secs(2), self.admin(server.port, "postgres"))
                    .await;
            if let Ok(Ok(mut admin)) = connected
                && (!must_promote
                    || admin
                        .value("select pg_is_in_recovery()::text")
                        .await
                        .is_ok_and(|value| value == "false"))
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!(
            "start postgres in {}: it did not accept connections within a minute",
            server.dir.display()
        )
    }

    /// Connects as the superuser.
    pub(crate) async fn admin(&self, port: u16, database: &str) -> Result<Connection> {
        Ok(Connection::connect(port, ADMIN, &self.password, database, &[]).await?)
    }
}

impl Server {
    /// Returns the process's id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops the server: SIGINT for a clean stop. One that does not end is killed.
    pub(crate) fn stop(&mut self, signal: Signal) {
        let Ok(id) = i32::try_from(self.child.id()) else { return };
        let _ = kill(Pid::from_raw(id), signal);
        for _ in 0..1_500 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop(Signal::SIGQUIT);
        }
    }
}

/// Returns a port that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Reads where the last Postgres CHECKPOINT of a stopped cluster is.
///
/// Source: PostgreSQL, `src/include/catalog/pg_control.h`: `checkPoint` follows the system
/// identifier (8 bytes), two versions (8), the state (4, padded to 8) and a time (8).
pub(crate) fn control_lsn(dir: &Path) -> Result<Lsn> {
    let bytes = fs::read(dir.join("global/pg_control"))
        .with_context(|| format!("read pg_control of {}", dir.display()))?;
    let field: [u8; 8] = bytes
        .get(32..40)
        .and_then(|part| part.try_into().ok())
        .context("read pg_control: it is too short")?;
    Ok(Lsn(u64::from_le_bytes(field)))
}
