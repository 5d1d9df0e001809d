//! The machine of a run: what to do next, and what an outcome means.
//!
//! In: a [`Run`] (the checkpoint and what this tick has seen), the pair's settings, `now`. Out: a
//! [`Decision`]; then, for its [`Outcome`], the changed run.
//!
//! Invariants: every step begins by observing. A restore that Neon has accepted is not sent again.
//! What was seen is forgotten whenever something may have changed it, so that the next decision is
//! an observation.
//!
//! Failure: an error is classified by `sync::retry` alone. A run that has to end first looks at
//! what staging holds.

mod action;
mod answers;
mod apply;
mod backup;
mod closed;
mod compute;
mod conclude;
mod contents;
mod differences;
mod ending;
mod login;
mod operations;
mod passwords;
mod posture;
mod preflight;
mod prepare;
mod probing;
mod prune;
mod restore;
mod snapshot;
mod staging;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use self::action::{Action, Purpose, Query};
pub use self::apply::{IllegalTransition, apply};
pub use self::conclude::conclude;
pub use self::passwords::SECRET_AT;
pub use self::prepare::after_restore_batch;
pub use self::prune::recall;
pub use self::snapshot::SnapshotProgress;
use crate::config::{Pair, Policy};
use crate::id::{BranchId, BranchName, DatabaseName, OperationId, RoleName, RunId, Secret};
use crate::names::{backup_name, free_name};
use crate::neon::sql::{Rows, SqlError};
use crate::neon::wire::{
    Branch, BranchList, Database, Endpoint, Project, Role, ScheduleItem, Snapshot,
};
use crate::neon::{Call, EndpointKind, NeonError, Reply};
use crate::retention::{Known, Records};
use crate::sync::checkpoint::{Checkpoint, Ending, Hold, RunStatus, Side};
use crate::sync::retry::{LONGEST_WAIT, RUN_FAILED};
use crate::sync::smoke::Captured;
use crate::sync::step::{LONGEST_LOOK, Step};
use crate::time::{Timestamp, between};
use crate::verify::{Baseline, Check, Fingerprint, TOLD};

/// A run as a tick holds it.
pub struct Run {
    /// What is persisted.
    pub checkpoint: Checkpoint,
    /// What this tick has seen, and forgets at its end.
    pub seen: Seen,
    /// Whether the last outcome is worth a save by itself.
    pub wants_save: bool,
}

/// What this tick has seen of the world. It holds passwords and is never persisted.
#[derive(Default)]
pub struct Seen {
    project: Option<Project>,
    branches: Option<BranchList>,
    endpoints: Option<Vec<Endpoint>>,
    databases: Option<Vec<Database>>,
    roles: BTreeMap<BranchId, Vec<Role>>,
    /// `None` where Neon has no password to tell.
    passwords: BTreeMap<(BranchId, RoleName), Option<Secret>>,
    /// Which roles may log in to staging, and to which database.
    doors: Option<passwords::Doors>,
    /// Which compute serves staging.
    compute: Option<compute::Compute>,
    /// Roles whose password staging has refused: the others come first.
    refused: BTreeSet<RoleName>,
    operations: operations::Operations,
    looks: u32,
    look_at: Option<Timestamp>,
    sees_all_rows: Option<RoleSight>,
    /// What was found out about each database.
    looked: BTreeMap<DatabaseName, differences::Looked>,
    orders: Option<Orders>,
    /// Whether nothing was under way on a staging that was not ready.
    is_at_rest: bool,
    /// Whether looking at the end has failed for good.
    is_blind: bool,
    prune_plan: Option<prune::Plan>,
    snapshots: Option<Vec<Snapshot>>,
    /// Why the snapshots could not be listed.
    snapshots_unseen: Option<String>,
    /// When Neon takes snapshots of production by itself.
    schedule: Option<Vec<ScheduleItem>>,
    ledger: Option<Ledger>,
    /// What smoke tests have captured.
    pub captured: Captured,
    /// The password of the verifying role, when a secret holds it.
    pub configured_password: Option<Secret>,
}

/// Which rows the verifying role sees.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RoleSight {
    /// Every row.
    All,
    /// Those that row-level security lets through.
    Filtered,
    /// Production could not be asked; the backup will be.
    Unknown,
    /// Nobody may log in as it: these login event triggers would run.
    Watched(String),
}

/// Somebody wants a run to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cancelled {
    /// Who, in their words.
    pub by: Option<String>,
    /// Why, in their words.
    pub reason: Option<String>,
}

impl Cancelled {
    /// Says who has cancelled the run, and why. `when` is how far it was.
    fn told(&self, when: &str) -> String {
        let who = match &self.by {
            Some(by) => format!("cancelled by {by} {when}"),
            None => format!("somebody cancelled the run {when}"),
        };
        self.reason.as_ref().map_or(who.clone(), |reason| format!("{who}: {reason}"))
    }
}

/// What people have asked for since the run started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Somebody wants the run to end.
    pub cancelled: Option<Cancelled>,
    /// Somebody wants staging kept.
    pub hold: Option<Hold>,
    /// What the last verified run counted.
    pub baseline: Option<Baseline>,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Decision {
    /// Do this and tell what came of it.
    Act(Action),
    /// Nothing is to be done outside; the run changes by this.
    Conclude(Conclusion),
    /// Come back at `until`.
    Wait {
        /// When.
        until: Timestamp,
        /// What is waited for.
        why: &'static str,
    },
    /// The run is over.
    Done,
}

/// What came of an action.
pub enum Outcome {
    /// Neon answered.
    Replied(Box<Reply>),
    /// Neon refused, or no reply came.
    Failed(NeonError),
    /// The rows of each statement.
    Queried(Vec<Rows>),
    /// The batch failed.
    QueryFailed(SqlError),
    /// What came of each batch, and how long it took.
    Read(Vec<Answer>),
    /// What people have asked for; `None` when the store did not answer.
    Orders(Option<Orders>),
    /// What is on record; `None` when the store did not answer.
    Ledger(Option<Ledger>),
    /// What became of backups; `None` when the store did not answer.
    Endings(Option<BTreeMap<RunId, Known>>),
    /// People were told, or these notices wait for their channels.
    Closed(Vec<String>),
    /// How the smoke test went.
    Smoked(Check, Captured),
    /// The result is stored; these notices wait for their channels. `None` when it could not be
    /// stored.
    Published(Option<Vec<String>>),
    /// Records were removed, as far as the store let them be.
    Forgotten,
    /// Whether what is known of the snapshot is on record; these notices wait for their channels.
    SnapshotNoted(bool, Vec<String>),
}

/// The rows of each statement, or why there are none, and how long that took.
pub type Answer = (Result<Vec<Rows>, SqlError>, Duration);

/// What is on record of backups and of manual runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// What is on record of backups.
    pub records: Records,
    /// Manual runs that were accepted, and of which it is not known that people were told how they
    /// ended.
    pub unfinished: Vec<RunId>,
    /// Whether the results were asked, too, of whose backups nothing else is on record.
    pub is_complete: bool,
}

/// A change of the run that needs nothing from outside.
#[derive(Debug)]
pub enum Conclusion {
    /// Preflight has no objection.
    Cleared,
    /// The backup of this run exists already.
    BackupFound(Box<Branch>),
    /// The operations of the backup are done.
    BackupReady,
    /// The backup was read.
    BackupRead(Fingerprint),
    /// A side was asked everything.
    Probed(Side, Vec<Check>),
    /// Staging was looked at as the application sees it.
    LookedAt(Vec<Check>),
    /// The backup was read again, because another version of Firstlight had read it.
    BackupReadAgain(Fingerprint),
    /// Staging is left as it is, by request.
    Held(Hold),
    /// Staging is a child of this run's backup already.
    RestoreFound,
    /// The operations of the restore are done.
    RestoreDone,
    /// The displaced branch was looked for.
    DisplacedFound(Option<BranchId>),
    /// A role has the password it had, or why it cannot get it.
    PasswordSettled(RoleName, Result<(), String>),
    /// A role may not log in.
    LockedOut(RoleName, String),
    /// The passwords of all roles were looked at.
    PasswordsDone,
    /// Staging was compared with the backup.
    Compared(Vec<Check>),
    /// Staging is to be rolled back, and that is impossible or was done.
    RollBackDone(String),
    /// The step is done.
    StepDone,
    /// The operations are not done; look again later.
    LookAgain,
    /// An operation failed, and Neon may try again; look again later.
    Failing(OperationId),
    /// Nothing is under way on a staging that was not ready when it was listed before; look at it
    /// again.
    AtRest,
    /// The run will end; look at staging first.
    End(Ending),
    /// The run has ended; this is what staging holds.
    Verdict(String),
    /// The run was about to be called a success, and is none any more; this is what staging holds.
    Overtaken(Ending, String),
    /// The snapshot of the backup has come further.
    Snapshot(SnapshotProgress),
    /// The plan for pruning is made.
    PrunePlanned(prune::Plan),
    /// Pruning is over.
    Pruned,
}

/// Everything that a decision is made from.
struct View<'a> {
    checkpoint: &'a Checkpoint,
    seen: &'a Seen,
    pair: &'a Pair,
    now: Timestamp,
}

impl Run {
    /// Takes up a run.
    pub fn new(checkpoint: Checkpoint, configured_password: Option<Secret>) -> Self {
        let seen = Seen { configured_password, ..Seen::default() };
        Self { checkpoint, seen, wants_save: false }
    }
}

impl Seen {
    /// Forgets what a writing call may have changed.
    fn forget(&mut self) {
        self.forget_all_but_endpoints();
        self.endpoints = None;
        self.compute = None;
    }

    /// Forgets what a writing call may have changed that makes, changes and deletes no endpoint but
    /// those that it tells of.
    fn forget_all_but_endpoints(&mut self) {
        self.branches = None;
        self.snapshots = None;
        self.operations.forget();
        self.look_at = None;
        self.looks = 0;
    }

    /// Returns the password that a query logs in with.
    pub fn password(
        &self,
        branch: &BranchId,
        role: &RoleName,
        verifying: &RoleName,
    ) -> Option<Secret> {
        if let Some(Some(secret)) = self.passwords.get(&(branch.clone(), role.clone())) {
            return Some(secret.clone());
        }
        self.configured_password.clone().filter(|_| role == verifying)
    }
}

/// Decides what is to be done next.
pub fn next(run: &Run, pair: &Pair, now: Timestamp) -> Decision {
    let checkpoint = &run.checkpoint;
    let view = View { checkpoint, seen: &run.seen, pair, now };
    if checkpoint.is_over() {
        return Decision::Done;
    }
    // A longer wait than any of ours was written by a clock that was ahead.
    if let Some(until) =
        checkpoint.not_before.filter(|until| *until > now && between(now, *until) <= LONGEST_WAIT)
    {
        return Decision::Wait { until, why: "waiting before the next attempt" };
    }
    if checkpoint.verdict.is_some() {
        return if checkpoint.is_published { prune::next(&view) } else { ending::publish(&view) };
    }
    if checkpoint.ending.is_some() {
        return ending::next(&view);
    }
    if now >= checkpoint.give_up_at {
        let reason =
            format!("{} was not done before the run's time was up", checkpoint.step.name());
        return fail(reason);
    }
    match checkpoint.step {
        Step::Preflight => preflight::next(&view),
        Step::Backup => backup::next(&view),
        Step::VerifyBackup => contents::next_backup(&view),
        Step::Restore => restore::next(&view),
        Step::VerifyStaging => staging::next(&view),
        Step::SmokeTest => staging::next_smoke(&view),
        Step::Prune => ending::succeed(),
    }
}

/// Ends the run as failed.
fn fail(reason: String) -> Decision {
    end(RunStatus::Failed, reason)
}

/// Ends the run.
fn end(status: RunStatus, reason: String) -> Decision {
    Decision::Conclude(Conclusion::End(Ending { status, reason, runbook: RUN_FAILED.to_owned() }))
}

fn act(call: Call) -> Decision {
    Decision::Act(Action::Call(call))
}

impl<'a> View<'a> {
    /// Returns every branch, or how to come to know them: at once, or after the wait that was
    /// decided on.
    fn branches(&self) -> Result<&'a BranchList, Decision> {
        self.seen.branches.as_ref().ok_or_else(|| {
            match self.seen.look_at.filter(|at| self.is_ahead(*at)) {
                Some(until) => Decision::Wait { until, why: "looking at the branches again" },
                None => act(Call::ListBranches),
            }
        })
    }

    /// Returns whether a look is to be waited for. One that is further away than any of ours was
    /// written by a clock that was ahead.
    fn is_ahead(&self, look_at: Timestamp) -> bool {
        look_at > self.now && between(self.now, look_at) <= LONGEST_LOOK
    }

    /// Tells a few of the checks that stand in the way of a success, and how many more there are: a
    /// notice has room for no more, the record has all. `None` when there is none.
    fn objections(&self) -> Option<String> {
        let all: Vec<String> = self
            .checkpoint
            .checks
            .iter()
            .filter(|check| check.is_objection())
            .map(ToString::to_string)
            .collect();
        (!all.is_empty()).then(|| shortened(&all))
    }

    /// Returns every snapshot, or the call that reads them.
    fn snapshots(&self) -> Result<&'a [Snapshot], Decision> {
        self.seen.snapshots.as_deref().ok_or_else(|| act(Call::ListSnapshots))
    }

    /// Returns every endpoint, or the call that reads them.
    fn endpoints(&self) -> Result<&'a [Endpoint], Decision> {
        self.seen.endpoints.as_deref().ok_or_else(|| act(Call::ListEndpoints))
    }

    /// Returns the roles of a branch, or the call that reads them.
    fn roles(&self, branch: &BranchId) -> Result<&'a [Role], Decision> {
        self.seen
            .roles
            .get(branch)
            .map(Vec::as_slice)
            .ok_or_else(|| act(Call::ListRoles(branch.clone())))
    }

    /// Returns what people have asked for and what the last verified run counted, or the action
    /// that reads it.
    fn orders(&self) -> Result<&'a Orders, Decision> {
        if let Some(orders) = &self.seen.orders {
            return Ok(orders);
        }
        let settings = &self.pair.verification;
        let wants_baseline = (settings.row_loss != Policy::Off || settings.people != Policy::Off)
            && !self.checkpoint.probed.contains(&Side::Backup);
        let runs = if wants_baseline {
            crate::names::earlier_runs(self.pair, self.branches()?, &self.checkpoint.run)
        } else {
            Vec::new()
        };
        Err(Decision::Act(Action::ReadOrders(runs)))
    }

    /// Makes sure that a role's password on a branch was asked for. `Ok(false)` means that there is
    /// none to be had.
    fn has_password(&self, branch: &BranchId, role: &RoleName) -> Result<bool, Decision> {
        if *role == self.pair.role && self.seen.configured_password.is_some() {
            return Ok(true);
        }
        match self.seen.passwords.get(&(branch.clone(), role.clone())) {
            Some(password) => Ok(password.is_some()),
            None => Err(act(Call::RevealPassword(branch.clone(), role.clone()))),
        }
    }

    /// Makes sure that Neon was asked for a role's password on a branch, also where a secret holds
    /// one.
    fn tells_password(&self, branch: &BranchId, role: &RoleName) -> Result<(), Decision> {
        let is_known = self.seen.passwords.contains_key(&(branch.clone(), role.clone()));
        if is_known { Ok(()) } else { Err(act(Call::RevealPassword(branch.clone(), role.clone()))) }
    }

    /// Returns the kind of endpoint that helper branches get.
    fn endpoint_kind(&self) -> EndpointKind {
        if self.checkpoint.reads_by_writer {
            EndpointKind::ReadWrite
        } else {
            EndpointKind::ReadOnly
        }
    }

    /// Returns the name of this run's backup.
    fn backup_name(&self) -> BranchName {
        backup_name(self.pair, &self.checkpoint.run)
    }
}

/// Tells a few of a list and how many more there are.
fn shortened(list: &[String]) -> String {
    let shown = list.iter().take(TOLD).cloned().collect::<Vec<_>>().join("; ");
    match list.len().saturating_sub(TOLD) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

/// Returns the read-only endpoint of a branch.
fn reader<'a>(endpoints: &'a [Endpoint], branch: &BranchId) -> Option<&'a Endpoint> {
    endpoints.iter().find(|endpoint| endpoint.branch_id == *branch && !endpoint.disabled)
}

/// Returns the read-write endpoint of a branch.
fn writer<'a>(endpoints: &'a [Endpoint], branch: &BranchId) -> Option<&'a Endpoint> {
    endpoints.iter().find(|endpoint| {
        endpoint.branch_id == *branch && endpoint.is_read_write() && !endpoint.disabled
    })
}

/// Unwraps a decision that came early.
macro_rules! need {
    ($value:expr) => {
        match $value {
            Ok(value) => value,
            Err(decision) => return decision,
        }
    };
}
use need;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_objections_are_told_and_the_others_counted() {
        let objections: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let told: Vec<String> = (1..=5).map(|count| shortened(&objections[..count])).collect();
        assert_eq!(told, ["a", "a; b", "a; b; c", "a; b; c; and 1 more", "a; b; c; and 2 more"]);
    }
}
