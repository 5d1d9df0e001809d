//! Neon's asynchronous work.
//!
//! Operations on one branch run one after the other; those on different branches at the same time.
//! Where one of a call ends badly for good, those after it are cancelled, and nothing of what they
//! were to do is done. What the branch is then, nobody could confirm: [`FailedBranchState`].
//!
//! Source: Neon API v2, reference of operations: `scheduling`, `running`, `finished`, `failed`, ….

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::objects::Undo;
use super::settings::{FailedBranchState, Locks};
use super::{ApiError, Model, Timestamp};

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
    /// When Neon tries again, as it tells.
    pub retry_at: Option<Timestamp>,
    /// When Neon tries again, and does not tell.
    pub(super) retries_untold_at: Option<Timestamp>,
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
    /// The request that it belongs to.
    pub(super) call: u64,
    /// How the branch was before.
    pub(super) undo: Option<Box<Undo>>,
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
    /// Badly, as it seems: Neon does not say that it tries again, and succeeds after a while.
    ///
    /// Source: Neon, reference of operations, read 2026-11-21: a failed one may be retried.
    FailedThenFinished,
    /// Badly, with the other word.
    Error,
    /// There was nothing to do for it, which is as good as done.
    Skipped,
    /// Somebody cancels it.
    Cancelled,
    /// Somebody cancels it, which takes as long again.
    Cancelling,
    /// Never.
    Hangs,
}

impl Finish {
    /// Returns whether it does what it is for, sooner or later.
    pub(crate) fn does_its_work(self) -> bool {
        matches!(
            self,
            Self::Finished | Self::FailedThenRetried | Self::FailedThenFinished | Self::Skipped
        )
    }
}

/// What real work an operation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// It is not its turn.
    NotYet,
    /// It is to be done.
    ToDo,
    /// It will never be done.
    Never,
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
    /// Adds an operation; it runs when those before it on its branch have ended.
    pub(super) fn start_operation(&mut self, start: Start, now: Timestamp) -> String {
        let finish = if self.operation_faults.is_empty() {
            Finish::Finished
        } else {
            self.operation_faults.remove(0)
        };
        self.add_operation(start, finish, now)
    }

    /// Adds an operation that ends like this.
    pub(super) fn add_operation(&mut self, start: Start, finish: Finish, now: Timestamp) -> String {
        let id = self.uuid();
        let is_first = !self
            .operations
            .iter()
            .any(|other| other.branch == start.branch && other.is_under_way());
        let is_blocked = start.has_work && self.has_server;
        self.operations.push(Operation {
            status: if is_first { "running" } else { "scheduling" },
            started_at: is_first.then_some(now),
            duration: self.durations.draw(start.milliseconds, &mut self.pace),
            endpoint: start.endpoint,
            then: start.then,
            call: self.call,
            is_blocked,
            ..Operation::new(id.clone(), start.branch, start.action, finish, now)
        });
        id
    }

    /// Says how the branch of an operation was before it.
    pub(super) fn may_undo(&mut self, operation: &str, undo: Undo) {
        if let Some(found) = self.operations.iter_mut().find(|found| found.id == operation) {
            found.undo = Some(Box::new(undo));
        }
    }

    /// Adds operations of somebody else's on a branch that are done already.
    pub fn has_done(&mut self, branch: &str, action: &'static str, count: usize, now: Timestamp) {
        for _ in 0..count {
            let new = Operation::new(self.uuid(), branch.to_owned(), action, Finish::Finished, now);
            self.operations.push(Operation { status: "finished", started_at: Some(now), ..new });
        }
    }

    /// Returns whether an operation is under way.
    pub fn is_busy(&self) -> bool {
        self.operations.iter().any(Operation::is_under_way)
    }

    /// Refuses while an operation is under way that conflicts with what is asked of these branches,
    /// whoever started it.
    ///
    /// Source: Neon API v2, read 2026-11-21: "project already has running conflicting operations".
    /// Which conflict is not said: [`Locks`].
    pub(super) fn check_idle(&self, branches: &[&str]) -> Result<(), ApiError> {
        let conflicts = |operation: &&Operation| match self.switches.locks {
            Locks::Project => true,
            Locks::Branch => branches.contains(&operation.branch.as_str()),
        };
        if self
            .operations
            .iter()
            .filter(|operation| operation.is_under_way())
            .any(|operation| conflicts(&operation))
        {
            let text = "project already has running conflicting operations, scheduling of new ones \
                is prohibited";
            return Err(ApiError::new(423, "", text));
        }
        Ok(())
    }

    /// Refuses a change that starts no operation while one is under way, where [`Switches`] say so.
    ///
    /// [`Switches`]: super::Switches
    pub(super) fn check_unchanging(&self, branches: &[&str]) -> Result<(), ApiError> {
        if self.switches.changes_conflict { self.check_idle(branches) } else { Ok(()) }
    }

    /// Returns what is to be done for an operation now; `until_due` where its work is its end.
    pub fn work_of(&self, id: &str, until_due: bool, now: Timestamp) -> Work {
        let Some(operation) = self.operation(id) else { return Work::Never };
        let Some(started_at) = operation.started_at else {
            return if operation.is_open() { Work::NotYet } else { Work::Never };
        };
        if !operation.finish.does_its_work() || !operation.is_open() {
            return Work::Never;
        }
        let begins = if until_due { started_at + operation.duration } else { started_at };
        let has_failed =
            operation.finish != Finish::Finished && operation.finish != Finish::Skipped;
        if has_failed || now < begins { Work::NotYet } else { Work::ToDo }
    }

    /// Reports that the real work of an operation is done.
    pub fn work_done(&mut self, id: &str, result: Result<(), String>, now: Timestamp) {
        let Some(operation) = self.operations.iter_mut().find(|operation| operation.id == id)
        else {
            return;
        };
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
    fn new(
        id: String,
        branch: String,
        action: &'static str,
        finish: Finish,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            branch,
            endpoint: None,
            action,
            status: "scheduling",
            error: None,
            retry_at: None,
            retries_untold_at: None,
            failures: 0,
            created_at: now,
            updated_at: now,
            duration: TimeDelta::zero(),
            started_at: None,
            is_blocked: false,
            finish,
            then: Vec::new(),
            call: 0,
            undo: None,
        }
    }

    /// Returns whether it has not ended, as far as Neon tells.
    pub fn is_under_way(&self) -> bool {
        matches!(self.status, "scheduling" | "running" | "cancelling") || self.retry_at.is_some()
    }

    /// Returns whether it has not ended, whatever Neon tells.
    pub fn is_open(&self) -> bool {
        self.is_under_way() || self.retries_untold_at.is_some()
    }

    fn end(&mut self, status: &'static str, now: Timestamp) {
        self.status = status;
        self.updated_at = now;
        (self.retry_at, self.retries_untold_at) = (None, None);
    }

    /// Fails, and is tried again at an instant.
    fn fail_until(&mut self, at: Timestamp, is_told: bool, now: Timestamp) {
        self.failures += 1;
        self.status = "failed";
        self.updated_at = now;
        if is_told {
            self.retry_at = Some(at);
        } else {
            self.retries_untold_at = Some(at);
        }
        self.started_at = Some(at);
        self.finish = Finish::Finished;
    }
}

/// What stands before an operation on its branch.
#[derive(Default)]
struct Before {
    /// Branches on which one is under way.
    branches: Vec<String>,
    /// Calls of which one has failed and will be tried again, which Neon does not tell.
    calls: Vec<u64>,
    /// When the last one on a branch ended.
    ended: Vec<(String, Timestamp)>,
}

impl Before {
    fn holds_up(&self, operation: &Operation) -> bool {
        self.branches.contains(&operation.branch) || self.calls.contains(&operation.call)
    }

    /// Notes that an operation is not over.
    fn waits(&mut self, operation: &Operation) {
        if operation.is_under_way() {
            self.branches.push(operation.branch.clone());
        } else {
            self.calls.push(operation.call);
        }
    }
}

/// Ends the operations whose time has come, each after the one before it on its branch.
pub(super) fn advance(model: &mut Model, now: Timestamp) {
    let mut before = Before::default();
    for index in 0..model.operations.len() {
        let operation = &mut model.operations[index];
        if !operation.is_open() || before.holds_up(operation) {
            continue;
        }
        let last = before
            .ended
            .iter()
            .rev()
            .find(|(branch, _)| *branch == operation.branch)
            .map(|(_, at)| *at);
        let started_at = *operation.started_at.get_or_insert(last.unwrap_or(now));
        if operation.status == "scheduling" {
            operation.status = "running";
        }
        let due = started_at + operation.duration;
        if now < due || operation.is_blocked || operation.finish == Finish::Hangs {
            before.waits(operation);
            continue;
        }
        // It ended when its time had come and its work was done, not when somebody looked.
        let ended = due.max(operation.updated_at);
        model.finish(index, ended);
        let operation = &model.operations[index];
        if operation.is_open() {
            before.waits(operation);
        } else {
            before.ended.push((operation.branch.clone(), ended));
        }
    }
}

impl Model {
    /// Ends an operation, or what it has tried so far.
    fn finish(&mut self, index: usize, ended: Timestamp) {
        let retry = TimeDelta::milliseconds(self.durations.retry_ms);
        let operation = &mut self.operations[index];
        match operation.finish {
            Finish::Finished | Finish::Skipped => {
                operation.end(
                    if operation.finish == Finish::Skipped { "skipped" } else { "finished" },
                    ended,
                );
                operation.undo = None;
                let then = std::mem::take(&mut operation.then);
                for change in then {
                    self.carry_out(change, ended);
                }
            }
            Finish::FailedThenRetried => {
                operation.fail_until(ended + operation.duration, true, ended);
            }
            Finish::FailedThenFinished => operation.fail_until(ended + retry, false, ended),
            Finish::Cancelling => {
                operation.status = "cancelling";
                operation.updated_at = ended;
                operation.started_at = Some(ended);
                operation.finish = Finish::Cancelled;
            }
            Finish::Failed => self.end_badly(index, "failed", ended),
            Finish::Error => self.end_badly(index, "error", ended),
            Finish::Cancelled => self.end_badly(index, "cancelled", ended),
            Finish::Hangs => {}
        }
    }

    /// Ends an operation badly, and with it what was to follow in its call.
    fn end_badly(&mut self, index: usize, status: &'static str, ended: Timestamp) {
        let operation = &mut self.operations[index];
        operation.failures += u32::from(status != "cancelled");
        operation.end(status, ended);
        let (call, mut undo) = (operation.call, operation.undo.take());
        let is_next = |other: &&mut Operation| other.call == call && other.is_open();
        for follower in self.operations[index + 1..].iter_mut().filter(is_next) {
            follower.end("cancelled", ended);
            undo = undo.or(follower.undo.take());
        }
        if let Some(undo) =
            undo.filter(|_| self.switches.failed_branch_state == FailedBranchState::Old)
        {
            self.undo(*undo, ended);
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
            Then::Idle(id) => {
                self.endpoint_mut(&id).into_iter().for_each(|endpoint| endpoint.serves = None);
                self.set_endpoint_state(&id, "idle", now);
            }
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

#[cfg(test)]
mod tests;
