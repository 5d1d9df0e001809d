//! The port of the store, with whatever goes wrong.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use firstlight::port::{Metadata, Page, Store, StoreFailure};

use crate::faults::{Fault, Kind};
use crate::plan::Crash;
use crate::world::{Sim, TaskWorld};

impl Store for TaskWorld {
    async fn read(
        &self,
        keys: &[String],
    ) -> Result<BTreeMap<String, Option<String>>, StoreFailure> {
        let travel = self.latency();
        self.pause(travel).await;
        let found = self.sim.borrow_mut().store_read(self.task, keys);
        let travel = self.latency();
        self.pause(travel).await;
        found
    }

    async fn write(
        &self,
        key: &str,
        value: &str,
        metadata: Option<Metadata>,
    ) -> Result<(), StoreFailure> {
        let travel = self.latency();
        self.pause(travel).await;
        let written = self.sim.borrow_mut().store_write(self.task, key, Some(value), metadata);
        let travel = self.latency();
        self.pause(travel).await;
        written
    }

    async fn remove(&self, key: &str) -> Result<(), StoreFailure> {
        let travel = self.latency();
        self.pause(travel).await;
        let removed = self.sim.borrow_mut().store_write(self.task, key, None, None);
        let travel = self.latency();
        self.pause(travel).await;
        removed
    }

    async fn list(&self, prefix: &str, cursor: Option<String>) -> Result<Page, StoreFailure> {
        let travel = self.latency();
        self.pause(travel).await;
        let page = self.sim.borrow_mut().store_list(self.task, prefix, cursor.as_deref());
        let travel = self.latency();
        self.pause(travel).await;
        page
    }
}

fn unavailable() -> StoreFailure {
    StoreFailure::Unavailable("KV failed: 500 Internal Server Error".to_owned())
}

impl Sim {
    fn is_store_out(&mut self, fault: Fault) -> bool {
        if fault == Fault::StoreOut {
            let until = self.now + TimeDelta::minutes(10);
            self.store_out_until = Some(until);
            self.faulty_until = self.faulty_until.max(until);
        }
        self.store_out_until.is_some_and(|until| self.now < until)
    }

    fn store_read(
        &mut self,
        task: usize,
        keys: &[String],
    ) -> Result<BTreeMap<String, Option<String>>, StoreFailure> {
        let fault = self.begin(task, "kv:read", Kind::StoreRead);
        if self.is_doomed(task, Crash::AtOnce) {
            self.kill(task);
        }
        if self.is_store_out(fault) || fault == Fault::StoreFails {
            return Err(unavailable());
        }
        Ok(self.kv.read(keys, self.view, self.now, &mut self.random))
    }

    fn store_list(
        &mut self,
        task: usize,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<Page, StoreFailure> {
        let fault = self.begin(task, "kv:list", Kind::StoreRead);
        if self.is_doomed(task, Crash::AtOnce) {
            self.kill(task);
        }
        if self.is_store_out(fault) || fault == Fault::StoreFails {
            return Err(unavailable());
        }
        Ok(self.kv.list(prefix, cursor, self.view, self.now))
    }

    fn store_write(
        &mut self,
        task: usize,
        key: &str,
        value: Option<&str>,
        metadata: Option<Metadata>,
    ) -> Result<(), StoreFailure> {
        let action = match key.split('/').next() {
            Some("checkpoint") => "kv:checkpoint",
            Some("result") => "kv:result",
            Some("notice") => "kv:notice",
            Some("backup") if key.ends_with("/snapshot") => "kv:snapshot",
            Some("backup") => "kv:backup",
            Some("prune") => "kv:prune",
            _ => "kv:other",
        };
        let is_save = action == "kv:checkpoint";
        let fault = self.begin(task, action, Kind::StoreWrite);
        if self.is_doomed(task, Crash::AtOnce)
            || (is_save && self.is_doomed(task, Crash::BeforeSave))
        {
            self.kill(task);
            return Err(unavailable());
        }
        let is_refused = self.writes_refused_until.is_some_and(|until| self.now < until);
        if self.is_store_out(fault) || is_refused || fault == Fault::StoreFails {
            return Err(unavailable());
        }
        if fault == Fault::TooFast {
            return Err(StoreFailure::TooFast);
        }
        let now = self.now;
        let written = self.kv.write(key, value, metadata, now);
        self.refused_writes += u32::from(written.is_err());
        if written.is_ok() {
            let text = value.unwrap_or_default();
            self.judge_secrets("KV", text);
            if action == "kv:notice" {
                let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
                self.judge_claim(task, &value["notice"]);
            }
            if key.ends_with("/snapshot") {
                let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
                self.oracle.claimed_snapshot(key, &value, &self.neon);
            }
        }
        if is_save && self.is_doomed(task, Crash::AfterSave) {
            self.kill(task);
        }
        if fault == Fault::StoreFailsButWrites { Err(unavailable()) } else { written }
    }
}
