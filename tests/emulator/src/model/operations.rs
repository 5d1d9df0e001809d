//! Neon's asynchronous work.
//!
//! Source: Neon API v2, reference of operations: `scheduling`, `running`, `finished`, `failed`, ….

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::{Model, Timestamp, milliseconds};

/// An operation.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its id.
    pub id: String,
    /// The branch it works on.
    pub branch: String,
    /// The endpoint it works on.
    pub endpoint: Option<String>,
    /// What it does.
    pub action: &'static str,
    /// How far it is.
    pub status: &'static str,
    /// What went wrong.
    pub error: Option<String>,
    /// When Neon tries again.
    pub retry_at: Option<Timestamp>,
    /// How often it failed.
    pub failures: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
    /// How long it takes once it runs.
    pub(super) duration: TimeDelta,
    /// When it began to run.
    pub(super) started_at: Option<Timestamp>,
    /// Whether real work is still to be done.
    pub(super) is_blocked: bool,
    /// How it will end.
    pub(super) finish: Finish,
    /// What changes when it ends well.
    pub(super) then: Vec<Then>,
}

/// How an operation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// Well.
    Finished,
    /// Badly.
    Failed,
    /// Badly, but Neon tries again and succeeds.
    FailedThenRetried,
    /// Somebody cancels it.
    Cancelled,
    /// Never.
    Hangs,
}

/// What changes when an operation ends well.
#[derive(Clone, Debug)]
pub(super) enum Then {
    /// A branch can be used.
    BranchReady(String),
    /// A restored branch has its new parent.
    Reparent(String, String),
    /// A branch is archived as soon as it is made.
    Archive(String),
    /// A compute runs.
    Active(String),
    /// A compute sleeps.
    Idle(String),
    /// A branch is gone.
    Forget(String),
    /// An endpoint is gone.
    ForgetEndpoint(String),
    /// A snapshot is gone.
    ForgetSnapshot(String),
    /// A branch that was made from a snapshot takes the place of its target, which gets this name.
    TakePlace(String, String),
}

/// What starts an operation.
pub(super) struct Start {
    pub(super) branch: String,
    pub(super) endpoint: Option<String>,
    pub(super) action: &'static str,
    pub(super) milliseconds: i64,
    pub(super) then: Vec<Then>,
    pub(super) has_work: bool,
}

impl Model {
    /// Adds an operation; it runs when the one before it has ended.
    pub(super) fn start_operation(&mut self, start: Start, now: Timestamp) -> String {
        let id = self.uuid();
        let is_first = !self.is_busy();
        let finish = if self.operation_faults.is_empty() { Finish::Finished } else { self.operation_faults.remove(0) };
        self.operations.push(Operation {
            id: id.clone(),
            branch: start.branch,
            endpoint: start.endpoint,
            action: start.action,
            status: if is_first { "running" } else { "scheduling" },
            error: None,
            retry_at: None,
            failures: 0,
            created_at: now,
            updated_at: now,
            duration: milliseconds(start.milliseconds),
            started_at: is_first.then_some(now),
            is_blocked: start.has_work && self.has_server,
            finish,
            then: start.then,
        });
        id
    }

    /// Adds operations of somebody else's on a branch that are done already.
    pub fn has_done(&mut self, branch: &str, action: &'static str, count: usize, now: Timestamp) {
        for _ in 0..count {
            let id = self.uuid();
            self.operations.push(Operation {
                id,
                branch: branch.to_owned(),
                endpoint: None,
                action,
                status: "finished",
                error: None,
                retry_at: None,
                failures: 0,
                created_at: now,
                updated_at: now,
                duration: TimeDelta::zero(),
                started_at: Some(now),
                is_blocked: false,
                finish: Finish::Finished,
                then: Vec::new(),
            });
        }
    }

    /// Returns whether an operation is under way: the project is then locked.
    pub fn is_busy(&self) -> bool {
        self.operations.iter().any(Operation::is_under_way)
    }

    /// Reports that the real work of an operation is done.
    pub fn work_done(&mut self, id: &str, result: Result<(), String>, now: Timestamp) {
        let Some(operation) = self.operations.iter_mut().find(|operation| operation.id == id) else { return };
        operation.is_blocked = false;
        operation.updated_at = now;
        if let Err(error) = result {
            operation.finish = Finish::Failed;
            operation.error = Some(error);
        }
    }

    /// Returns an operation.
    pub fn operation(&self, id: &str) -> Option<&Operation> {
        self.operations.iter().find(|operation| operation.id == id)
    }
}

impl Operation {
    /// Returns whether it has not ended.
    pub fn is_under_way(&self) -> bool {
        matches!(self.status, "scheduling" | "running") || self.retry_at.is_some()
    }

    fn end(&mut self, status: &'static str, now: Timestamp) {
        self.status = status;
        self.updated_at = now;
        self.retry_at = None;
    }
}

/// Ends the operations whose time has come, each after the one before it.
pub(super) fn advance(model: &mut Model, now: Timestamp) {
    let mut at = None;
    for index in 0..model.operations.len() {
        let operation = &mut model.operations[index];
        if !operation.is_under_way() {
            continue;
        }
        if operation.started_at.is_none() {
            operation.started_at = Some(at.unwrap_or(now));
            operation.status = "running";
        }
        let due = operation.started_at.unwrap_or(now) + operation.duration;
        if now < due || operation.is_blocked || operation.finish == Finish::Hangs {
            return;
        }
        // It ended when its time had come and its work was done, not when somebody looked.
        let ended = due.max(operation.updated_at);
        at = Some(ended);
        let operation = &mut model.operations[index];
        match operation.finish {
            Finish::Finished => {
                operation.end("finished", ended);
                let then = std::mem::take(&mut operation.then);
                for change in then {
                    model.carry_out(change, ended);
                }
            }
            Finish::Failed => {
                operation.failures += 1;
                operation.end("failed", ended);
            }
            Finish::FailedThenRetried => {
                operation.failures += 1;
                operation.status = "failed";
                operation.updated_at = ended;
                operation.retry_at = Some(ended + operation.duration);
                operation.started_at = operation.retry_at;
                operation.finish = Finish::Finished;
                return;
            }
            Finish::Cancelled => operation.end("cancelled", ended),
            Finish::Hangs => return,
        }
    }
}

impl Model {
    fn carry_out(&mut self, change: Then, now: Timestamp) {
        match change {
            Then::BranchReady(id) => {
                if let Some(branch) = self.branch_mut(&id) {
                    branch.state = "ready";
                    branch.pending_state = None;
                    branch.state_changed_at = now;
                    branch.updated_at = now;
                }
                self.restored_secrets(&id, now);
            }
            Then::Reparent(id, parent) => {
                if let Some(branch) = self.branch_mut(&id) {
                    branch.parent = Some(parent);
                }
            }
            Then::Archive(id) => {
                if let Some(branch) = self.branch_mut(&id) {
                    branch.state = "archived";
                }
            }
            Then::Active(id) => self.set_endpoint_state(&id, "active", now),
            Then::Idle(id) => self.set_endpoint_state(&id, "idle", now),
            Then::Forget(id) => self.forget_branch(&id),
            Then::ForgetEndpoint(id) => self.endpoints.retain(|endpoint| endpoint.id != id),
            Then::ForgetSnapshot(id) => self.snapshots.retain(|snapshot| snapshot.id != id),
            Then::TakePlace(id, old_name) => self.take_place(&id, &old_name, now),
        }
    }

    /// Says that a compute runs or sleeps.
    pub fn set_endpoint_state(&mut self, id: &str, state: &'static str, now: Timestamp) {
        if let Some(endpoint) = self.endpoint_mut(id) {
            endpoint.state = state;
            endpoint.pending_state = None;
            endpoint.updated_at = now;
            if state == "active" {
                endpoint.last_active = Some(now);
            }
        }
    }
}
