//! What can be set: the unconfirmed facts about Neon, how long operations take, the plan's limits.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::archive::Archiving;
use super::{ApiError, Finish};

/// The facts about Neon that nobody could confirm; each can be switched, and the Worker is tested
/// both ways.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one unverified fact, and they are independent"
)]
pub struct Switches {
    /// Reference §7.1: a child may be restored to a point in time.
    pub child_point_in_time: bool,
    /// Reference §7.2: a branch with `expires_at` is refused as a source.
    pub refuse_expiring_source: bool,
    /// Reference §7.9: after a restore, roles have the passwords of the source; otherwise their
    /// own.
    pub passwords_from_source: bool,
    /// Reference §7.10: a branch may be made at the position where its parent's restore ended.
    pub branch_at_restore_lsn: bool,
    /// Reference §7.11: a branch may have a read-only endpoint and no read-write one.
    pub reader_without_writer: bool,
    /// What that endpoint is refused with, where it is.
    pub lonely_reader: Refusal,
    /// Reference §7.4: what a restore onto a protected branch is refused with.
    pub protected_target: Refusal,
    /// When branches are archived; `None` leaves it to the plan, of which Free does it.
    pub archives: Option<Archiving>,
    /// What a branch of an archived one, or a restore from it, is refused with; `None` where that
    /// wakes it.
    pub archived_source: Option<Refusal>,
    /// A branch that is made from a snapshot comes with a read-write endpoint of its own.
    pub snapshots_have_endpoints: bool,
    /// That endpoint stays when the branch takes its target's place; otherwise it is deleted.
    pub preview_keeps_endpoint: bool,
    /// Reference §7.13: `parent_id` changes when the restore is accepted; otherwise when its
    /// operations finish.
    pub parent_changes_at_once: bool,
    /// Reference §7.14: annotations survive a restore.
    pub annotations_survive: bool,
    /// Neon's proxy passes the `options` of a connection string on over HTTP, as it does for the
    /// PostgreSQL protocol.
    pub sql_passes_options: bool,
    /// Reference §1.1: a snapshot may be given a `slug`, which no other has; otherwise it is not
    /// looked at.
    pub snapshot_slugs: bool,
    /// Reference §1.2: a snapshot tells its `lsn`, which is optional.
    pub snapshots_tell_lsn: bool,
    /// A read-only compute knows the passwords that its branch got from the control plane, as those
    /// of a protected branch's children. Otherwise it has those of its data, which it cannot
    /// change.
    pub readers_take_new_passwords: bool,
    /// The proxy lets nobody through who has not the control plane's password; otherwise the
    /// compute alone decides.
    pub proxy_asks_control_plane: bool,
    /// What a branch is after the operation that makes or restores it has failed for good.
    pub failed_branch_state: FailedBranchState,
    /// What an operation that is under way conflicts with.
    pub locks: Locks,
    /// Computes wake, sleep and are checked by operations, which Neon starts.
    pub compute_operations: bool,
    /// Of the operations that Neon starts every so many fails; 0 for none.
    pub compute_operations_fail_every: u32,
    /// How those end that fail.
    pub compute_operations_end: Finish,
    /// The compute of a branch that is being restored serves the old state until it is suspended.
    pub old_compute_serves_until_suspended: bool,
    /// Reference, restore §1.2: a restore that keeps the old state lists `delete_timeline` all the
    /// same; recorded is one that keeps nothing.
    pub restore_deletes_timeline: bool,
    /// A change that starts no operation waits for those under way as well: a name, a protection,
    /// the default branch, an endpoint's settings, a schedule.
    pub changes_conflict: bool,
}

/// What a branch is after the operation that makes or restores it has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailedBranchState {
    /// As it was while that was under way, for ever.
    #[default]
    Stuck,
    /// As it was before: a new one is gone, a restored one holds what it held.
    Old,
}

/// What an operation that is under way conflicts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Locks {
    /// Every request that starts operations.
    #[default]
    Project,
    /// Those that concern its branch.
    Branch,
}

/// A refusal whose status and words nobody has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    /// The sentence.
    pub message: String,
}

impl Refusal {
    /// Makes a refusal.
    pub fn new(status: u16, message: &str) -> Self {
        Self { status, message: message.to_owned() }
    }

    pub(super) fn error(&self) -> ApiError {
        ApiError::new(self.status, "", self.message.clone())
    }
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            child_point_in_time: true,
            refuse_expiring_source: true,
            passwords_from_source: true,
            branch_at_restore_lsn: true,
            reader_without_writer: true,
            lonely_reader: Refusal::new(422, "a read-only endpoint requires a read-write endpoint"),
            protected_target: Refusal::new(422, "cannot restore a protected branch"),
            archives: None,
            archived_source: None,
            snapshots_have_endpoints: true,
            preview_keeps_endpoint: false,
            parent_changes_at_once: true,
            annotations_survive: true,
            sql_passes_options: true,
            snapshot_slugs: true,
            snapshots_tell_lsn: true,
            readers_take_new_passwords: false,
            proxy_asks_control_plane: true,
            failed_branch_state: FailedBranchState::Stuck,
            locks: Locks::Project,
            compute_operations: true,
            compute_operations_fail_every: 0,
            compute_operations_end: Finish::Failed,
            old_compute_serves_until_suspended: true,
            restore_deletes_timeline: true,
            changes_conflict: true,
        }
    }
}

/// How long operations take.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Durations {
    /// Making a branch, milliseconds. Source: measured by others at Neon, 2026-07-29: 3.0 s.
    pub create_ms: i64,
    /// Restoring a branch, milliseconds. Source: measured by others at Neon, 2026-07-29: 6.1 s.
    pub restore_ms: i64,
    /// Everything else, milliseconds.
    pub other_ms: i64,
    /// By how much of a hundred an operation takes more or less than that, at most: as the seed
    /// draws it.
    pub spread_percent: u32,
    /// How many of a thousand operations take twenty times as long.
    ///
    /// Observed by others at Neon: most operations take seconds, and a few take minutes; how many,
    /// no document says.
    pub tail_per_mille: u32,
    /// How long the proxy goes on with a password that was changed, milliseconds.
    ///
    /// Source: neondatabase/neon `proxy`, read 2026-11-21: the cache keeps a secret for 4 minutes,
    /// and is told of most changes. How soon is not known.
    pub secret_cache_ms: i64,
    /// Starting a compute that sleeps, milliseconds. Source: Neon, compute lifecycle, read
    /// 2026-11-21: "a few hundred milliseconds".
    pub wake_ms: i64,
    /// How long a start of a compute is under way after it has answered, milliseconds.
    pub wake_lingers_ms: i64,
    /// How long a compute that nobody uses stays awake, seconds, where its endpoint does not say.
    ///
    /// Source: Neon, scale to zero, read 2026-11-21: 300 by default.
    pub suspend_after_s: i64,
    /// How often a compute that sleeps is checked, seconds; 0 for never.
    ///
    /// UNVERIFIED: Neon, reference of operations, read 2026-11-21, says only that it is done.
    pub checks_every_s: i64,
    /// When an operation that failed is tried again without a word, milliseconds. UNVERIFIED.
    pub retry_ms: i64,
}

impl Durations {
    /// Returns the same durations, which are exact: what a scenario tells is then told by nothing
    /// else.
    #[must_use]
    pub fn exact(self) -> Self {
        Self { spread_percent: 0, tail_per_mille: 0, ..self }
    }

    /// Draws how long an operation takes that mostly takes so many milliseconds.
    pub(super) fn draw(self, mostly: i64, pace: &mut fastrand::Rng) -> TimeDelta {
        let spread = mostly * i64::from(self.spread_percent) / 100;
        let times = if pace.u32(..1_000) < self.tail_per_mille { TAIL } else { 1 };
        TimeDelta::milliseconds((mostly + pace.i64(-spread..=spread)) * times)
    }
}

/// How many times as long an operation of the tail takes.
const TAIL: i64 = 20;

impl Default for Durations {
    fn default() -> Self {
        Self {
            spread_percent: 30,
            tail_per_mille: 10,
            create_ms: 3_000,
            restore_ms: 6_100,
            other_ms: 500,
            secret_cache_ms: 1_500,
            wake_ms: 300,
            wake_lingers_ms: 0,
            suspend_after_s: 300,
            checks_every_s: 3_600,
            retry_ms: 30_000,
        }
    }
}

/// What a project is made of at the start.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Branches in the project. Source: Neon plans, 2026-03-20: 10 on Free and Launch, 25 on Scale.
    pub branches: usize,
    /// Protected branches.
    pub protected_branches: usize,
    /// Root branches. Source: Neon plans, 2026-03-20: 3 on Free, 5 on Launch, 25 on Scale.
    pub root_branches: usize,
    /// Snapshots that somebody asked for. Source: Neon plans, 2026-03-20: 1 on Free, 100 on Launch
    /// and Scale.
    pub snapshots: usize,
    /// The plan.
    pub subscription: String,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            branches: 25,
            protected_branches: 5,
            root_branches: 25,
            snapshots: 100,
            subscription: "scale_v3".to_owned(),
        }
    }
}
