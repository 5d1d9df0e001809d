//! The Neon emulator as a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::http;
use crate::paths;
use crate::process::Process;

/// The key that requests to the emulator must have.
pub const API_KEY: &str = "neon_emulator_key";

/// How the emulator is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// SQL for production.
    pub seed: String,
    /// How long making a branch takes, in milliseconds.
    pub create_ms: u32,
    /// How long a restore takes, in milliseconds.
    pub restore_ms: u32,
    /// How many seconds Neon's clock is ahead of everybody else's; behind where it is negative.
    pub clock_offset_s: i64,
    /// Whether production is protected.
    pub protection: Protection,
    /// Where `initdb` and `postgres` are; missing for those that npm has installed.
    pub postgres_bin: Option<PathBuf>,
}

impl Default for Options {
    /// Fast operations, for tests that are not about time.
    fn default() -> Self {
        let protection = Protection::ByName;
        Self {
            seed: String::new(),
            create_ms: 300,
            restore_ms: 400,
            clock_offset_s: 0,
            protection,
            postgres_bin: None,
        }
    }
}

/// Whether production is protected, as Neon advises: its branches have new passwords then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// It is not.
    Off,
    /// It is.
    On,
    /// In about half of the tests, by the test's name; `FIRSTLIGHT_PROTECTION=on` or `off` decides
    /// for all.
    ByName,
}

impl Protection {
    fn is_on(self) -> bool {
        if self != Self::ByName {
            return self == Self::On;
        }
        match std::env::var("FIRSTLIGHT_PROTECTION").as_deref() {
            Ok("on") => true,
            Ok("off") => false,
            Ok(_) | Err(_) => {
                let current = std::thread::current();
                let name = current.name().filter(|name| *name != "main");
                name.is_some_and(|name| name.bytes().map(u32::from).sum::<u32>().is_multiple_of(2))
            }
        }
    }
}

/// A running emulator with production and staging.
pub struct Emulator {
    process: Process,
    /// The address, such as `http://127.0.0.1:41237`.
    pub url: String,
    /// The project's id.
    pub project: String,
    /// The production branch's id.
    pub production: String,
    /// The staging branch's id.
    pub staging: String,
}

/// Returns the emulator's binary, which `cargo xtask` builds before any test.
fn binary() -> Result<PathBuf> {
    // Tests run from target/<profile>/deps, xtask from target/<profile>.
    let here = std::env::current_exe().context("find this program")?;
    let found = here
        .ancestors()
        .skip(1)
        .take(3)
        .map(|folder| folder.join("neon-emulator"))
        .find(|path| path.exists());
    found.context(
        "find the binary neon-emulator; run `cargo build -p neon-emulator`, or the tests by \
            `cargo xtask test`",
    )
}

impl Emulator {
    /// Starts the emulator with its data in `folder`.
    ///
    /// # Errors
    ///
    /// When it does not become ready.
    pub fn start(folder: &Path, options: &Options) -> Result<Self> {
        let seed = folder.join("seed.sql");
        std::fs::write(&seed, &options.seed)?;
        let mut command = Command::new(binary()?);
        command
            .args([
                "--listen",
                "127.0.0.1:0",
                "--staging",
                "staging",
                "--until-eof",
                "--api-key",
                API_KEY,
                "--data",
            ])
            .arg(folder.join("neon"))
            .arg("--postgres-bin")
            .arg(match &options.postgres_bin {
                Some(folder) => folder.clone(),
                None => paths::embedded_postgres()?.join("native/bin"),
            })
            .args([
                "--create-ms",
                &options.create_ms.to_string(),
                "--restore-ms",
                &options.restore_ms.to_string(),
            ])
            .args(["--other-ms", "100", "--clock-offset-s", &options.clock_offset_s.to_string()]);
        if !options.seed.is_empty() {
            command.arg("--seed").arg(&seed);
        }
        let mut process = Process::start("neon-emulator", &mut command)?;
        let line = process.wait_for_line("listening on ", Duration::from_mins(2))?;
        let url = format!("http://{}", line.rsplit(' ').next().unwrap_or_default());
        let project = http::get(&format!("{url}/_emulator/project"))?;
        let branch = |name: &str| {
            let found = project["branches"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|branch| branch["name"] == name);
            found
                .and_then(|branch| branch["id"].as_str())
                .map(str::to_owned)
                .with_context(|| format!("find branch {name}"))
        };
        let emulator = Self {
            project: project["id"].as_str().context("read the project's id")?.to_owned(),
            production: branch("production")?,
            staging: branch("staging")?,
            process,
            url,
        };
        if options.protection.is_on() {
            let (path, body) = (
                format!("/branches/{}", emulator.production),
                r#"{"branch": {"protected": true}}"#,
            );
            let answer = emulator.call("PATCH", &path, Some(body))?;
            anyhow::ensure!(answer.status == 200, "protect production: {}", answer.body);
        }
        Ok(emulator)
    }

    /// Returns what the emulator printed.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Returns the base address of the API.
    pub fn api(&self) -> String {
        format!("{}/api/v2", self.url)
    }

    /// Calls the API and returns its answer.
    ///
    /// # Errors
    ///
    /// When no answer came.
    pub fn call(&self, method: &str, path: &str, body: Option<&str>) -> Result<http::Answer> {
        http::send(
            method,
            &format!("{}/projects/{}{path}", self.api(), self.project),
            Some(API_KEY),
            body,
        )
    }

    /// Calls the emulator's own interface.
    ///
    /// # Errors
    ///
    /// When it refuses.
    pub fn control(&self, method: &str, path: &str, body: Option<&str>) -> Result<Value> {
        let answer = http::send(method, &format!("{}/_emulator/{path}", self.url), None, body)?;
        if answer.status >= 300 {
            bail!("{method} {path}: {} {}", answer.status, answer.body);
        }
        Ok(answer.json())
    }

    /// Plans a misbehaviour for the n-th request of a route from now on.
    ///
    /// # Errors
    ///
    /// When the emulator does not know it.
    pub fn fault(&self, route: &str, nth: u32, fault: &Value) -> Result<()> {
        let body = serde_json::json!({"route": route, "nth": nth, "fault": fault}).to_string();
        self.control("POST", "faults", Some(&body)).map(drop)
    }

    /// Returns the requests so far.
    ///
    /// # Errors
    ///
    /// When no answer came.
    pub fn journal(&self) -> Result<Vec<Value>> {
        let journal = self.control("GET", "journal", None)?;
        Ok(journal["entries"].as_array().cloned().unwrap_or_default())
    }

    /// Counts the requests of a route that were answered well.
    ///
    /// # Errors
    ///
    /// When no answer came.
    pub fn count(&self, route: &str) -> Result<usize> {
        let entries = self.journal()?;
        let good = |entry: &&Value| {
            entry["route"] == route && entry["status"].as_u64().is_some_and(|status| status < 300)
        };
        Ok(entries.iter().filter(good).count())
    }

    /// Returns the branches, with their parents.
    ///
    /// # Errors
    ///
    /// When no answer came.
    pub fn branches(&self) -> Result<Vec<Value>> {
        let project = self.control("GET", "project", None)?;
        Ok(project["branches"].as_array().cloned().unwrap_or_default())
    }

    /// Returns the read-write endpoint of a branch, as `/_emulator/endpoints` shows it.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn writer(&self, branch: &str) -> Result<Value> {
        let found = self.control("GET", "endpoints", None)?;
        let mut listed = found["endpoints"].as_array().cloned().unwrap_or_default().into_iter();
        listed
            .find(|endpoint| endpoint["branch_id"] == branch && endpoint["type"] == "read_write")
            .context("find the endpoint")
    }

    /// Returns the password of `neondb_owner` on a branch.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn owner_password(&self, branch: &str) -> Result<String> {
        owner_password(&self.writer(branch)?)
    }

    /// Runs one statement by itself, outside of a transaction.
    ///
    /// # Errors
    ///
    /// When Postgres or the proxy answers with an error.
    pub fn alone(&self, login: &Login<'_>, sql: &str) -> Result<()> {
        let Login { branch, role, password, database } = login;
        let writer = self.writer(branch)?;
        let host = writer["host"].as_str().context("read the host")?;
        let connection =
            format!("postgresql://{role}:{}@{host}/{database}", password.replace(' ', "%20"));
        let headers = [("neon-connection-string", connection.as_str())];
        let body = serde_json::json!({"query": sql}).to_string();
        let answer =
            http::send_with("POST", &format!("{}/sql", self.url), None, &headers, Some(&body))?;
        anyhow::ensure!(answer.status == 200, "{role}: {sql}: {} {}", answer.status, answer.body);
        Ok(())
    }

    /// Runs statements on a branch over HTTP, as `neondb_owner`, in one transaction. Returns the
    /// rows of the last.
    ///
    /// # Errors
    ///
    /// When Postgres or the proxy answers with an error.
    pub fn sql(&self, branch: &str, statements: &[&str]) -> Result<Vec<Vec<Option<String>>>> {
        // A password that was changed a moment ago is not known to the proxy yet.
        let answered =
            crate::wait_for(Duration::from_secs(10), || match self.try_sql(branch, statements) {
                Err(error) if error.to_string().contains("password authentication failed") => None,
                answered => Some(answered),
            });
        answered.unwrap_or_else(|| self.try_sql(branch, statements))
    }

    fn try_sql(&self, branch: &str, statements: &[&str]) -> Result<Vec<Vec<Option<String>>>> {
        let endpoint = self.writer(branch)?;
        let password = owner_password(&endpoint)?;
        let host = endpoint["host"].as_str().unwrap_or_default();
        let connection = format!("postgresql://neondb_owner:{password}@{host}/neondb");
        let queries: Vec<Value> =
            statements.iter().map(|sql| serde_json::json!({"query": sql})).collect();
        let headers = [
            ("neon-connection-string", connection.as_str()),
            ("neon-raw-text-output", "true"),
            ("neon-array-mode", "true"),
        ];
        let body = serde_json::json!({"queries": queries}).to_string();
        let answer =
            http::send_with("POST", &format!("{}/sql", self.url), None, &headers, Some(&body))?;
        if answer.status != 200 {
            bail!("query {branch}: {} {}", answer.status, answer.body);
        }
        let last = answer.json()["results"]
            .as_array()
            .and_then(|results| results.last().cloned())
            .unwrap_or_default();
        Ok(serde_json::from_value(last["rows"].clone())?)
    }
}

/// Returns the password of `neondb_owner`, as the emulator shows it with an endpoint.
fn owner_password(endpoint: &Value) -> Result<String> {
    let owner = endpoint["roles"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|role| role["name"] == "neondb_owner");
    owner
        .and_then(|role| role["password"].as_str())
        .map(str::to_owned)
        .context("find the owner's password")
}

/// Who asks, and where.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// The branch that is asked.
    pub branch: &'a str,
    /// The role.
    pub role: &'a str,
    /// Its password.
    pub password: &'a str,
    /// The database.
    pub database: &'a str,
}
