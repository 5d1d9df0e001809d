//! The two forms of the emulated Neon behind one interface: the served one, and the one in memory.

use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, TimeDelta, Utc};
use firstlight::port::HttpRequest;
use harness::emulator::Emulator;
use neon_emulator::model::{Model, Request};
use neon_emulator::simulated::{Contents, Simulated, Table};
use serde_json::Value;

use crate::settle;

/// Longer than the proxy goes on with an old password, where nothing else is set.
const PROXY_HEARS: Duration = Duration::from_secs(2);

/// A project of Neon's, wherever it is.
pub(super) trait Neon {
    /// Calls the API; the path begins after the project.
    fn call(&mut self, method: &str, path: &str, body: Option<Value>) -> Result<(u16, Value)>;
    /// Sends a batch of SQL.
    fn query(&mut self, request: &HttpRequest) -> Result<(u16, String)>;
    /// An application writes a row to staging.
    fn write_to_staging(&mut self) -> Result<()>;
    /// Waits until no operation is under way.
    fn settle(&mut self) -> Result<()>;
    /// Waits until the proxy has heard of a password that was changed.
    fn hear_of_passwords(&mut self);
}

impl Neon for Emulator {
    fn call(&mut self, method: &str, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        let answer =
            Emulator::call(self, method, path, body.map(|body| body.to_string()).as_deref())?;
        Ok((answer.status, answer.json()))
    }

    fn query(&mut self, request: &HttpRequest) -> Result<(u16, String)> {
        let mut headers: Vec<(&str, &str)> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        headers.extend(
            request.secret_headers.iter().map(|(name, value)| (name.as_str(), value.reveal())),
        );
        headers.retain(|(name, _)| *name != "Content-Type");
        let answer = harness::http::send_with(
            "POST",
            &format!("{}/sql", self.url),
            None,
            &headers,
            Some(&request.body),
        )?;
        Ok((answer.status, answer.body))
    }

    fn write_to_staging(&mut self) -> Result<()> {
        self.sql(&self.staging, &["insert into users values (3, 'three')"]).map(drop)
    }

    fn settle(&mut self) -> Result<()> {
        settle(self)
    }

    fn hear_of_passwords(&mut self) {
        std::thread::sleep(PROXY_HEARS);
    }
}

/// The project in memory, and its time.
pub(super) struct InMemory {
    neon: Simulated,
    now: DateTime<Utc>,
}

impl InMemory {
    pub(super) fn new() -> Result<Self> {
        let now = "2026-11-21T10:00:00Z".parse()?;
        let mut model = Model::new(1, now);
        let production = model.branches[0].id.clone();
        model.add_child(&production, "staging", now).context("make staging")?;
        let tables = [("public.users".to_owned(), Table::new(2, 77))].into();
        Ok(Self { neon: Simulated::new(model, &Contents { tables, ..Contents::default() }), now })
    }
}

impl Neon for InMemory {
    fn call(&mut self, method: &str, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        self.now += TimeDelta::milliseconds(20);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let request = Request {
            method: method.to_owned(),
            path: format!("/projects/{}{path}", self.neon.model.project),
            query: query.collect(),
            body: body.unwrap_or_default(),
        };
        let response = self.neon.serve(&request, self.now);
        Ok((response.status, response.value()))
    }

    fn query(&mut self, request: &HttpRequest) -> Result<(u16, String)> {
        let connection = request
            .secret_headers
            .first()
            .map(|(_, secret)| secret.reveal())
            .context("a connection string")?;
        let is_read_only = request
            .headers
            .iter()
            .any(|(name, value)| name == "Neon-Batch-Read-Only" && value == "true");
        let answer = self.neon.query(connection, is_read_only, &request.body, self.now);
        // It is answered when the compute runs.
        self.now += self.neon.waked_for;
        Ok(answer)
    }

    fn write_to_staging(&mut self) -> Result<()> {
        let staging = self
            .neon
            .model
            .branch_named("staging")
            .map(|branch| branch.id.clone())
            .context("find staging")?;
        self.neon.write(&staging);
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        self.now += TimeDelta::minutes(1);
        self.neon.advance(self.now);
        Ok(())
    }

    fn hear_of_passwords(&mut self) {
        self.now += PROXY_HEARS;
    }
}
