//! The persisted state of a run.
//!
//! Shape: `{"format":1,"pair":"hub","run":"20261121","tick_count":3,"step":"restore",…}`, under
//! `checkpoint/<pair>`.
//!
//! Invariants: it holds no secret. Nothing becomes unsafe when an old checkpoint is read, or none:
//! names in Neon are the locks, the checkpoint is a memory.

mod ending;
mod history;
mod prune;
mod restore;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::ending::{Ending, RunStatus, Verdict};
pub use self::history::{History, Pace};
pub use self::prune::Prune;
pub use self::restore::{Failing, Origin, Restore};
pub use self::snapshot::{RestoreTest, SnapshotOutcome, SnapshotWork};
use crate::config::{LONGEST_WALL_BUDGET, NoticeKind};
use crate::id::{
    BranchId, BranchName, DatabaseName, EndpointId, Lsn, OperationId, PairName, ProjectId,
    RoleName, RunId,
};
use crate::sync::notice::Outgoing;
use crate::sync::retry::LONGEST_WAIT;
use crate::sync::step::{ATTEMPTS_PER_STEP, RUN_GRACE, Step};
use crate::time::{Timestamp, between, millis};
use crate::verify::{Check, Fingerprint, Probe};

/// The format that is written.
pub const FORMAT: u32 = 1;

/// The longest time that a tick may drive a run: the largest wall budget, and a minute for clocks
/// that differ.
const LONGEST_WALL: Duration = Duration::from_secs(LONGEST_WALL_BUDGET.as_secs() + 60);

/// The state of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own that is persisted under its name"
)]
pub struct Checkpoint {
    /// The version of this shape.
    pub format: u32,
    /// Whose run it is.
    pub pair: PairName,
    /// Which run.
    pub run: RunId,
    /// Whether the schedule or a person started it.
    pub is_manual: bool,
    /// How far it is to go.
    pub goal: Goal,
    /// Whether who started it has said that the rows which are gone since the last verified run
    /// were to go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepts_row_loss: bool,
    /// Why staging is kept as it is, if somebody asked for that.
    pub hold: Option<Hold>,
    /// When it started.
    #[serde(with = "millis")]
    pub started_at: Timestamp,
    /// When it is given up.
    #[serde(with = "millis")]
    pub give_up_at: Timestamp,
    /// A digest of the pair's settings at the start.
    pub settings: String,
    /// Until when a tick drives it; another tick leaves it alone until then.
    #[serde(with = "millis::option")]
    pub driven_until: Option<Timestamp>,
    /// When a tick last left it; missing while it is driven for the first time.
    #[serde(default, with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub left_at: Option<Timestamp>,
    /// Ticks that have driven it.
    pub tick_count: u32,
    /// Ticks since the last step forward.
    pub idle_tick_count: u32,
    /// Ticks of the cron that it has led: others were driven with what it left.
    #[serde(default)]
    pub turns: u32,
    /// The step it is at.
    pub step: Step,
    /// The attempt of this step, counted from one.
    pub attempt: u32,
    /// Nothing is tried before this.
    #[serde(with = "millis::option")]
    pub not_before: Option<Timestamp>,
    /// Every step so far.
    pub steps: Vec<StepRecord>,
    /// The ids that preflight saw.
    pub pins: Option<Pins>,
    /// The databases that are compared.
    pub databases: Vec<DatabaseName>,
    /// The backup, once it exists.
    pub backup: Option<Backup>,
    /// The databases that were read completely, of each side. A tick whose budget is spent leaves
    /// the others to the next.
    pub prints: BTreeMap<Side, Fingerprint>,
    /// What was asked beside the content, of each side and database.
    #[serde(default)]
    pub probes: BTreeMap<Side, BTreeMap<DatabaseName, Vec<Probe>>>,
    /// The sides that were asked everything.
    #[serde(default)]
    pub probed: BTreeSet<Side>,
    /// What the backup holds, once it was read.
    pub fingerprint: Option<Fingerprint>,
    /// The restore, once it was accepted or seen.
    pub restore: Option<Restore>,
    /// The roll-back, once it was accepted or seen.
    pub roll_back: Option<Restore>,
    /// The operation that failed last and is waited for all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<Failing>,
    /// What became of the passwords of staging's roles.
    pub passwords: Passwords,
    /// How many ways in each helper branch has refused.
    #[serde(default)]
    pub refused_logins: BTreeMap<BranchId, u32>,
    /// Databases that refused us, by side.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub closed: BTreeMap<Side, BTreeMap<DatabaseName, Closed>>,
    /// How often it was looked into what differs on staging, by every tick.
    #[serde(default)]
    pub looks: u32,
    /// Whether helper branches get a read-write endpoint, because Neon refused a read-only one
    /// alone.
    pub reads_by_writer: bool,
    /// The displaced name that the restore was, or may have been, sent with; missing when it was
    /// refused.
    pub intended_name: Option<BranchName>,
    /// Whether the restore was sent more than once: that a later request was refused says nothing
    /// of the first.
    #[serde(default)]
    pub is_restore_in_doubt: bool,
    /// Whether staging was compared with the backup.
    pub is_compared: bool,
    /// Questions beside the content that were refused, one after the other.
    #[serde(default)]
    pub refusals: u32,
    /// The people who have been given access to the project; missing where that was not asked.
    #[serde(default)]
    pub people: Option<BTreeSet<String>>,
    /// Whether the configured SQL was run on staging.
    #[serde(default)]
    pub is_prepared: bool,
    /// Whether staging was looked at as the application sees it.
    #[serde(default)]
    pub is_looked_at: bool,
    /// What was checked, and how it went.
    pub checks: Vec<Check>,
    /// What people should know although it stops nothing.
    pub warnings: Vec<String>,
    /// What went wrong on the way.
    pub errors: Vec<RecordedError>,
    /// Why it will end, while staging is still being looked at.
    pub ending: Option<Ending>,
    /// How it ended.
    pub verdict: Option<Verdict>,
    /// Whether the result was stored and the notices were queued.
    pub is_published: bool,
    /// What was pruned.
    pub prune: Prune,
    /// Notices that some channel has not taken.
    pub outbox: Vec<String>,
    /// What became of its notices that were taken at once: they are stored as they were before that
    /// until their keys take another write, which may be the next tick's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<Outgoing>,
    /// What is remembered of the runs before it.
    #[serde(default)]
    pub history: History,
    /// What people were told of its being late.
    #[serde(default)]
    pub lateness_told: BTreeSet<NoticeKind>,
}

/// How far a run is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// A verified copy on staging.
    Staging,
    /// A verified backup; staging is not touched.
    VerifyBackup,
}

/// Somebody asked to keep staging as it is.
///
/// Shape: `{"reason":"customer demo","until":"2026-11-22T12:00:00.000Z"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Why.
    pub reason: String,
    /// Until when; missing means until it is released.
    #[serde(default, with = "millis::option")]
    pub until: Option<Timestamp>,
}

impl Hold {
    /// Returns whether staging is still held.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

/// One step of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Which.
    pub step: Step,
    /// When it began.
    #[serde(with = "millis")]
    pub started_at: Timestamp,
    /// When it ended; missing while it is under way.
    #[serde(with = "millis::option")]
    pub ended_at: Option<Timestamp>,
    /// Attempts, counted from one.
    pub attempts: u32,
}

/// The ids that preflight saw; a later step refuses others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    /// The project.
    pub project: ProjectId,
    /// Never written to.
    pub production: BranchId,
    /// The branch that is overwritten.
    pub staging: BranchId,
    /// Its name.
    pub staging_name: BranchName,
}

/// The backup of this run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Its id.
    pub id: BranchId,
    /// Its name.
    pub name: BranchName,
    /// Where in production it begins; known once its operations are done.
    pub lsn: Option<Lsn>,
    /// When it was made, by Neon's clock: what Neon has done since for this run is not older.
    #[serde(rename = "accepted_at", with = "millis")]
    pub made_at: Timestamp,
    /// The operations that make it; empty when the reply was lost.
    pub operations: Vec<OperationId>,
    /// Whether its operations are done.
    pub is_ready: bool,
    /// Whether this run has read it without objection.
    pub is_verified: bool,
    /// The endpoints that this run has made on it; missing where the reply was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<BTreeSet<EndpointId>>,
}

/// Whose content is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The backup.
    Backup,
    /// Staging, which may be in use.
    Staging,
    /// Staging once what is configured was run on it.
    Prepared,
    /// A branch that was made from the snapshot of the backup.
    Snapshot,
    /// Production as it is; it is only counted, and only where that is configured.
    Production,
}

/// A database that refused us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// How often.
    pub tries: u32,
    /// Why it is left out; missing while it is asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of the passwords of staging's roles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passwords {
    /// Whether all of them were looked at.
    pub is_done: bool,
    /// Roles that have the password they had.
    pub kept: Vec<RoleName>,
    /// Roles that staging had and production does not have.
    pub gone: Vec<RoleName>,
    /// Roles whose password could not be given back, with the reason.
    pub not_kept: Vec<(RoleName, String)>,
    /// Roles that have logged in after the restore.
    pub logged_in: Vec<RoleName>,
    /// Roles with a password that may not log in, with the reason.
    #[serde(default)]
    pub locked_out: Vec<(RoleName, String)>,
    /// When a password of staging changed last: by its restore, or because a role got its own back.
    #[serde(default, with = "millis::option")]
    pub changed_at: Option<Timestamp>,
}

/// An error as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedError {
    /// During which step.
    pub step: Step,
    /// During which attempt.
    pub attempt: u32,
    /// When.
    #[serde(with = "millis")]
    pub at: Timestamp,
    /// What; fits after "failed to".
    pub text: String,
}

/// What starts a run.
#[derive(Clone, Debug)]
pub struct Start {
    /// Whose run.
    pub pair: PairName,
    /// Which run.
    pub run: RunId,
    /// Whether a person started it.
    pub is_manual: bool,
    /// How far it is to go.
    pub goal: Goal,
    /// Why staging is kept as it is.
    pub hold: Option<Hold>,
    /// When it is given up.
    pub give_up_at: Timestamp,
    /// A digest of the pair's settings.
    pub settings: String,
    /// What is remembered of the runs before it.
    pub history: History,
}

impl Checkpoint {
    /// Returns the state of a run that has done nothing yet.
    pub fn start(start: Start, now: Timestamp) -> Self {
        Self {
            format: FORMAT,
            pair: start.pair,
            run: start.run,
            is_manual: start.is_manual,
            goal: start.goal,
            accepts_row_loss: false,
            hold: start.hold,
            started_at: now,
            give_up_at: start.give_up_at,
            settings: start.settings,
            driven_until: None,
            left_at: None,
            tick_count: 0,
            idle_tick_count: 0,
            turns: 0,
            step: Step::Preflight,
            attempt: 1,
            not_before: None,
            steps: vec![StepRecord {
                step: Step::Preflight,
                started_at: now,
                ended_at: None,
                attempts: 1,
            }],
            pins: None,
            databases: Vec::new(),
            backup: None,
            prints: BTreeMap::new(),
            probes: BTreeMap::new(),
            probed: BTreeSet::new(),
            fingerprint: None,
            restore: None,
            roll_back: None,
            passwords: Passwords::default(),
            refused_logins: BTreeMap::new(),
            closed: BTreeMap::new(),
            looks: 0,
            reads_by_writer: false,
            failing: None,
            intended_name: None,
            is_restore_in_doubt: false,
            is_compared: false,
            refusals: 0,
            people: None,
            is_prepared: false,
            is_looked_at: false,
            checks: Vec::new(),
            warnings: Vec::new(),
            errors: Vec::new(),
            ending: None,
            verdict: None,
            is_published: false,
            prune: Prune::default(),
            outbox: Vec::new(),
            settled: Vec::new(),
            history: start.history,
            lateness_told: BTreeSet::new(),
        }
    }

    /// Returns how the run stands.
    pub fn status(&self) -> RunStatus {
        self.verdict.as_ref().map_or(RunStatus::Running, |verdict| verdict.status)
    }

    /// Returns when the run is to be done: a scheduled one at the pair's deadline, a manual one an
    /// hour after its start.
    pub fn deadline(&self) -> Timestamp {
        self.give_up_at - RUN_GRACE
    }

    /// Returns whether a step that failed is worth another attempt at `now`.
    pub fn may_try_again(&self, now: Timestamp) -> bool {
        self.attempt < ATTEMPTS_PER_STEP || now < self.deadline()
    }

    /// Returns whether the run is between two attempts, and its deadline allows more.
    pub fn is_trying(&self, now: Timestamp) -> bool {
        self.not_before.is_some() && now < self.deadline()
    }

    /// Returns whether nothing may be tried before a tick that hands over at `wall` has ended.
    pub fn waits_beyond(&self, wall: Timestamp, now: Timestamp) -> bool {
        // A longer wait than any of ours was written by a clock that was ahead.
        self.not_before.is_some_and(|until| until >= wall && between(now, until) <= LONGEST_WAIT)
    }

    /// Returns whether another tick may be driving the run.
    pub fn is_driven(&self, now: Timestamp) -> bool {
        // A clock that was ahead has written a later instant than any tick may have.
        self.driven_until.is_some_and(|until| until > now && between(now, until) <= LONGEST_WALL)
    }

    /// Returns whether nothing is left to do for the run itself; notices may still be due.
    pub fn is_over(&self) -> bool {
        self.verdict.is_some() && self.is_published && self.prune.is_done
    }

    /// Returns whether it is time to prune once more.
    pub fn wants_sweep(&self, now: Timestamp) -> bool {
        self.is_over()
            && self.verdict.as_ref().is_some_and(|verdict| self.prune.is_due_again(verdict.at, now))
    }

    /// Begins to prune once more.
    pub fn sweep(&mut self, now: Timestamp) {
        self.idle_tick_count = 0;
        self.prune.begin_again(now);
    }

    /// Returns whether staging is left as it is.
    pub fn leaves_staging(&self) -> bool {
        self.goal == Goal::VerifyBackup || self.hold.is_some()
    }

    /// Goes to the next step.
    pub fn advance(&mut self, now: Timestamp) {
        let Some(next) = self.step.following() else { return };
        self.enter(next, now);
    }

    /// Goes to a step.
    pub fn enter(&mut self, step: Step, now: Timestamp) {
        if let Some(last) = self.steps.last_mut() {
            last.ended_at = last.ended_at.or(Some(now));
            last.attempts = self.attempt;
        }
        self.step = step;
        self.attempt = 1;
        self.not_before = None;
        self.idle_tick_count = 0;
        self.steps.push(StepRecord { step, started_at: now, ended_at: None, attempts: 1 });
    }

    /// Remembers an error.
    pub fn record_error(&mut self, text: String, now: Timestamp) {
        // The newest errors explain the end; a run that fails for hours must not outgrow its
        // record.
        const ERRORS_KEPT: usize = 20;
        if self.errors.len() == ERRORS_KEPT {
            self.errors.remove(0);
        }
        self.errors.push(RecordedError { step: self.step, attempt: self.attempt, at: now, text });
    }

    /// Puts into a notice what became of it, where its own record does not say.
    pub fn complete(&self, outgoing: &mut Outgoing) {
        let Some(settled) =
            self.settled.iter().find(|settled| settled.notice.id == outgoing.notice.id)
        else {
            return;
        };
        // One that was tried since, because somebody asked for it, knows better.
        if outgoing.deliveries.iter().all(|delivery| delivery.log.is_empty()) {
            outgoing.settle_as(settled);
        }
    }

    /// Remembers a warning once.
    pub fn warn(&mut self, text: String) {
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }
}

#[cfg(test)]
mod tests;
