//! What a run has pruned, right after its verdict and once more later.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{SnapshotOutcome, SnapshotWork};
use crate::id::EndpointId;
use crate::time::{Timestamp, between, millis};

/// How long after its end a run prunes once more: what Neon refused then, what a killed tick left,
/// and what has become old enough meanwhile goes half a day before the next run needs the room.
const SWEEP_AFTER: Duration = Duration::from_hours(12);

/// What was pruned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prune {
    /// Whether everything was tried.
    pub is_done: bool,
    /// Whether the plan was carried out before the backup, to make room.
    pub made_room: bool,
    /// Branches that are gone.
    pub deleted: Vec<String>,
    /// Endpoints that are gone.
    pub deleted_endpoints: Vec<EndpointId>,
    /// Snapshots that are gone.
    #[serde(default)]
    pub deleted_snapshots: Vec<String>,
    /// What could not be deleted, with the reason.
    pub skipped: Vec<(String, String)>,
    /// What is kept, with the reason.
    pub kept: Vec<(String, String)>,
    /// What took the places that the run did not find, and what to do about it; empty where it
    /// found them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub shortage: String,
    /// When it was looked again; missing until then.
    #[serde(default, with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub swept_at: Option<Timestamp>,
    /// The snapshot of the run's backup; missing where no rule wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Box<SnapshotWork>>,
}

impl Prune {
    /// Returns whether it is time to look again at what can go, once for each run.
    pub(super) fn is_due_again(&self, ended_at: Timestamp, now: Timestamp) -> bool {
        self.is_done && self.swept_at.is_none() && between(ended_at, now) >= SWEEP_AFTER
    }

    /// Returns whether a snapshot is being taken or compared.
    pub fn is_at_snapshot(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|work| !work.is_told)
    }

    /// Gives the snapshot up.
    pub fn leave_snapshot(&mut self, reason: &str) {
        let outcome = || SnapshotOutcome::Failed { reason: reason.to_owned(), is_final: false };
        self.snapshot
            .iter_mut()
            .filter(|work| work.outcome.is_none())
            .for_each(|work| work.outcome = Some(outcome()));
    }

    /// Begins again: what was skipped is tried once more.
    pub(super) fn begin_again(&mut self, now: Timestamp) {
        self.is_done = false;
        self.swept_at = Some(now);
        self.skipped.clear();
        self.snapshot.iter_mut().for_each(|work| work.try_again(now));
    }
}
