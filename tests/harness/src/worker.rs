//! The built Worker under `wrangler dev`.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::http;
use crate::paths;
use crate::process::Process;

/// The token that may write.
pub const ADMIN_TOKEN: &str = "admin-token-of-the-tests";
/// The token that may only read.
pub const READ_TOKEN: &str = "read-token-of-the-tests";

/// A running Worker.
pub struct Worker {
    process: Process,
    /// The address, such as `http://127.0.0.1:41237`.
    pub url: String,
}

impl Worker {
    /// Starts `wrangler dev` in a folder that has `wrangler.toml` and `.dev.vars`; KV is kept in
    /// the folder.
    ///
    /// # Errors
    ///
    /// When it does not become ready.
    pub fn start(folder: &Path) -> Result<Self> {
        if !paths::root().join("build/index.js").exists() {
            bail!(
                "find build/index.js; run the tests by `cargo xtask test`, which builds the \
                    Worker first"
            );
        }
        // A free port may be taken by somebody else before wrangler listens on it; then another one
        // is tried.
        for _ in 0..2 {
            if let Ok(worker) = Self::start_once(folder) {
                return Ok(worker);
            }
        }
        Self::start_once(folder)
    }

    fn start_once(folder: &Path) -> Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut command = wrangler(folder);
        command
            .args([
                "dev",
                "--ip",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--inspector-port",
                "0",
                "--test-scheduled",
            ])
            .args(["--show-interactive-dev-session=false", "--persist-to"])
            .arg(folder.join("state"));
        let mut process = Process::start("wrangler dev", &mut command)?;
        process.wait_for_line("Ready on", Duration::from_mins(1))?;
        Ok(Self { process, url: format!("http://127.0.0.1:{port}") })
    }

    /// Fires the cron and waits for the tick to end.
    ///
    /// # Errors
    ///
    /// When the tick ended with an exception.
    pub fn cron(&self) -> Result<()> {
        let answer =
            http::send("GET", &format!("{}/__scheduled?cron=*/5+*+*+*+*", self.url), None, None)?;
        if answer.status != 200 {
            bail!("fire the cron: {} {}\n{}", answer.status, answer.body, self.process.output());
        }
        Ok(())
    }

    /// Calls the Worker's API as an administrator.
    ///
    /// # Errors
    ///
    /// When no answer came.
    pub fn call(&self, method: &str, path: &str, body: Option<&str>) -> Result<http::Answer> {
        http::send(method, &format!("{}{path}", self.url), Some(ADMIN_TOKEN), body)
    }

    /// Starts a manual run, follows it until its tick ends, and returns its id.
    ///
    /// # Errors
    ///
    /// When the Worker does not answer, or its answer names no run.
    pub fn run_now(&self) -> Result<String> {
        self.run_now_with("")
    }

    /// Does the same with what the request asks for.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn run_now_with(&self, body: &str) -> Result<String> {
        let answer =
            self.call("POST", "/runs?follow", Some(body).filter(|body| !body.is_empty()))?;
        let is_id =
            |part: &&str| part.len() == 16 && part.ends_with('Z') && part.as_bytes()[8] == b'T';
        let id = answer
            .body
            .split('"')
            .find(is_id)
            .with_context(|| format!("find the run's id in {}", answer.body))?;
        Ok(id.to_owned())
    }

    /// Returns a run's report.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn report(&self, run: &str) -> Result<serde_json::Value> {
        let answer = self.call("GET", &format!("/runs/{run}"), None)?;
        if answer.status != 200 {
            bail!("read run {run}: {} {}", answer.status, answer.body);
        }
        Ok(answer.json())
    }

    /// Returns the log lines of the Worker that are JSON.
    pub fn log(&self) -> Vec<serde_json::Value> {
        self.process
            .output()
            .lines()
            .filter_map(|line| serde_json::from_str(line.get(line.find('{')?..)?).ok())
            .collect()
    }

    /// Waits for a line of the log with this event, and returns the newest; null when there is none
    /// within 10 s.
    pub fn logged(&self, event: &str) -> serde_json::Value {
        // The log is read from a pipe and may lag behind the reply that was waited for.
        let newest = || self.log().into_iter().rfind(|line| line["event"] == event);
        crate::wait_for(Duration::from_secs(10), newest).unwrap_or_default()
    }

    /// Returns everything that was printed.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Returns the id of `wrangler`'s process, whose child is workerd.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

/// Returns wrangler in a folder, with everything that it writes kept there and without the network.
fn wrangler(folder: &Path) -> Command {
    let mut command = Command::new(paths::node());
    command
        .arg(paths::root().join("node_modules/wrangler/bin/wrangler.js"))
        .current_dir(folder)
        .env("PATH", paths::path_with_node())
        .env("WRANGLER_SEND_METRICS", "false")
        .env("CLOUDFLARE_CF_FETCH_ENABLED", "false")
        .env("WRANGLER_HIDE_BANNER", "true")
        .env("CI", "1")
        .env("WRANGLER_LOG_PATH", folder.join("logs"))
        .env("XDG_CONFIG_HOME", folder.join("config"))
        .env("WRANGLER_REGISTRY_PATH", folder.join("registry"))
        .env("TMPDIR", folder);
    command
}

/// Writes a key of the local KV.
///
/// # Errors
///
/// When wrangler refuses.
pub fn put_kv(folder: &Path, key: &str, value: &str) -> Result<()> {
    let mut command = wrangler(folder);
    command
        .args(["kv", "key", "put", key, value, "--binding", "STATE", "--local", "--persist-to"])
        .arg(folder.join("state"));
    let output = command.output().context("start wrangler")?;
    if !output.status.success() {
        bail!(
            "put {key}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// Writes `wrangler.toml` and `.dev.vars` for a Worker that talks to loopback.
///
/// # Errors
///
/// When the files cannot be written.
pub fn configure(
    folder: &Path,
    firstlight: &serde_json::Value,
    secrets: &[(&str, String)],
) -> Result<()> {
    let main = paths::root().join("build/index.js");
    let config = serde_json::json!({
        "name": "firstlight",
        "main": main,
        "compatibility_date": "2026-11-01",
        "compatibility_flags": ["global_fetch_strictly_public"],
        "triggers": {"crons": ["*/5 * * * *"]},
        "kv_namespaces": [{"binding": "STATE", "id": "00000000000000000000000000000000"}],
        "send_email": [{"name": "EMAIL"}],
        "vars": {"FIRSTLIGHT": firstlight},
    });
    std::fs::write(folder.join("wrangler.json"), config.to_string())
        .context("write wrangler.json")?;
    let lines: Vec<String> =
        secrets.iter().map(|(name, value)| format!("{name}=\"{value}\"\n")).collect();
    std::fs::write(folder.join(".dev.vars"), lines.concat()).context("write .dev.vars")
}
