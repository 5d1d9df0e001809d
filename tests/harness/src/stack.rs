//! Emulator, Worker and receiver together.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::emulator::{self, API_KEY, Emulator};
use crate::sink::{APP_SECRET, SIGNING_SECRET, Sink};
use crate::worker::{self, ADMIN_TOKEN, READ_TOKEN, Worker};

/// Everything that a run needs, on loopback.
pub struct Stack {
    /// The Worker. First, so that it ends before what it talks to.
    pub worker: Worker,
    /// Neon.
    pub emulator: Emulator,
    /// The receiver of notices.
    pub sink: Sink,
    folder: TempDir,
}

/// A change of the Worker's settings.
pub type Change<'a> = &'a dyn Fn(&mut Value, &Emulator, &Sink);

impl Stack {
    /// Starts all three. The pair is called `hub`; a scheduled run is due the whole day.
    ///
    /// # Errors
    ///
    /// When one of them does not become ready.
    pub fn start(options: &emulator::Options) -> Result<Self> {
        Self::start_with(options, &|_, _, _| {})
    }

    /// Starts all three with changed settings.
    ///
    /// # Errors
    ///
    /// When one of them does not become ready.
    pub fn start_with(options: &emulator::Options, change: Change<'_>) -> Result<Self> {
        Self::begin(options, change, &[])
    }

    /// Starts all three with other secrets.
    ///
    /// # Errors
    ///
    /// When one of them does not become ready.
    pub fn start_with_secrets(
        options: &emulator::Options,
        others: &[(&'static str, &str)],
    ) -> Result<Self> {
        Self::begin(options, &|_, _, _| {}, others)
    }

    fn begin(
        options: &emulator::Options,
        change: Change<'_>,
        others: &[(&'static str, &str)],
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("firstlight-").tempdir()?;
        // As root, postgres runs as another user, who must be able to reach the data.
        open(folder.path())?;
        let emulator = Emulator::start(folder.path(), options)?;
        let sink = Sink::start()?;
        let mut settings = settings(&emulator);
        change(&mut settings, &emulator, &sink);
        let mut secrets = secrets(&sink);
        for (name, value) in others {
            secrets.retain(|(known, _)| known != name);
            secrets.push((name, (*value).to_owned()));
        }
        worker::configure(folder.path(), &settings, &secrets)?;
        let worker = Worker::start(folder.path())?;
        Ok(Self { worker, emulator, sink, folder })
    }

    /// Starts the Worker again with the same KV, after it was killed.
    ///
    /// # Errors
    ///
    /// When it does not become ready.
    pub fn restart_worker(&mut self) -> Result<()> {
        self.worker.kill();
        self.worker = Worker::start(self.folder.path())?;
        Ok(())
    }

    /// Gives the Worker another secret, and starts it again, as a deploy does.
    ///
    /// # Errors
    ///
    /// When there is no such secret, or the Worker does not become ready.
    pub fn put_secret(&mut self, name: &str, value: &str) -> Result<()> {
        let file = self.folder.path().join(".dev.vars");
        let text = std::fs::read_to_string(&file)?;
        let is_it = |line: &&str| line.starts_with(&format!("{name}="));
        anyhow::ensure!(text.lines().filter(is_it).count() == 1, "there is one secret {name}");
        let others = text.lines().filter(|line| !is_it(line)).map(|line| format!("{line}\n"));
        std::fs::write(&file, others.chain([format!("{name}=\"{value}\"\n")]).collect::<String>())?;
        self.restart_worker()
    }

    /// Removes everything that the Worker remembers. It must be killed first.
    ///
    /// # Errors
    ///
    /// When the files cannot be removed.
    pub fn forget_kv(&self) -> Result<()> {
        Ok(std::fs::remove_dir_all(self.folder.path().join("state"))?)
    }

    /// Writes a key of KV, as `wrangler kv key put` does. The Worker must be killed first.
    ///
    /// # Errors
    ///
    /// When wrangler refuses.
    pub fn put_kv(&self, key: &str, value: &str) -> Result<()> {
        worker::put_kv(self.folder.path(), key, value)
    }

    /// Returns the id that today's scheduled run has.
    pub fn today(&self) -> String {
        // The emulator's clock is the Worker's; its branches were made today.
        let created = self
            .emulator
            .call("GET", "/branches", None)
            .map(|answer| answer.json()["branches"][0]["created_at"].clone());
        created
            .ok()
            .and_then(|at| Some(at.as_str()?.get(..10)?.replace('-', "")))
            .unwrap_or_default()
    }

    /// Returns everything that KV has written to its files, as text.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn stored_text(&self) -> Result<String> {
        let mut text = String::new();
        let mut folders = vec![self.folder.path().join("state")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    text.push_str(&String::from_utf8_lossy(&std::fs::read(path)?));
                }
            }
        }
        Ok(text)
    }

    /// Returns the ids of the pair's runs, newest first, with their status.
    ///
    /// # Errors
    ///
    /// When no answer came.
    pub fn runs(&self) -> Result<Vec<(String, String)>> {
        let answer = self.worker.call("GET", "/runs", None)?.json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(answer["runs"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|run| (text(&run["run"]), text(&run["status"])))
            .collect())
    }

    /// Fires the cron until no run is under way, at most `ticks` times. Returns the newest run's
    /// report.
    ///
    /// # Errors
    ///
    /// When a tick fails, or the run does not end.
    pub fn run_to_end(&self, ticks: u32) -> Result<Value> {
        for _ in 0..ticks {
            self.worker.cron()?;
            let Some((run, _)) = self.runs()?.into_iter().next() else { continue };
            let report = self.worker.report(&run)?;
            // Pruning comes last, after the verdict and the notices.
            if report["status"] != "running" && !report["prune"].is_null() {
                return Ok(report);
            }
        }
        anyhow::bail!("the run has not ended after {ticks} ticks:\n{}", self.worker.output())
    }
}

/// Lets every user look into a folder.
fn open(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?)
}

/// Returns the settings of a Worker that talks to the emulator.
fn settings(emulator: &Emulator) -> Value {
    json!({
        "label": "CAIO Hub",
        "allow_insecure": true,
        "neon_api_base": emulator.api(),
        "sql_url": format!("{}/sql", emulator.url),
        "pairs": [{
            "name": "hub", "project": emulator.project, "production_branch": emulator.production,
            "staging_branch": emulator.staging,
            "role": "neondb_owner", "timezone": "UTC", "zone_label": "UTC", "start_at": "00:00",
            "latest_start": "23:58",
            "deadline": "23:59", "keep_last": 5, "keep_displaced": 1,
        }],
        "channels": [
            {"name": "hook", "kind": "webhook", "url_secret": "HOOK_URL",
                "signing_secret": "HOOK_SECRET"},
            {"name": "slack", "kind": "slack", "url_secret": "SLACK_URL"},
        ],
    })
}

fn secrets(sink: &Sink) -> Vec<(&'static str, String)> {
    vec![
        ("NEON_API_KEY", API_KEY.to_owned()),
        ("ADMIN_TOKEN", ADMIN_TOKEN.to_owned()),
        ("READ_TOKEN", READ_TOKEN.to_owned()),
        ("HOOK_URL", format!("{}/webhook", sink.url)),
        ("HOOK_SECRET", SIGNING_SECRET.to_owned()),
        ("PREVIEW_TOKEN", APP_SECRET.to_owned()),
        ("SLACK_URL", format!("{}/slack", sink.url)),
        ("DISCORD_URL", format!("{}/discord", sink.url)),
        ("TEAMS_URL", format!("{}/teams", sink.url)),
        ("BOARD_URL", format!("{}/board", sink.url)),
        ("CHECK_URL", format!("{}/check", sink.url)),
        ("ENDLESS_URL", format!("{}/endless", sink.url)),
        ("ROUTING_KEY", "0123456789abcdef0123456789abcdef".to_owned()),
    ]
}
