//! What can go wrong: the fault model in prose, then as code.
//!
//! # The fault model
//!
//! **A request that leaves the Worker** (Neon's API, SQL, a receiver of notices, the staging
//! application)
//!
//! - is *refused* with a status, and nothing is done: 401, 404, 409, 412, 422, 423, 429, 500, 503,
//!   or a page of HTML with 524;
//! - is *lost* before it arrives: nothing is done, the connection fails;
//! - is *applied and lost*: it is done, the connection fails before the reply;
//! - is *late*: it is done at once, and the reply comes after the caller has given up;
//! - is a *zombie*: the caller gives up, and it is applied half a minute or fifty minutes later
//!   (the design assumes an hour at most);
//! - is applied, and the body of the reply is *cut*, or is a page that is *not JSON*.
//!
//! A query is a zombie as well: whoever has gone away may not have been noticed, and what it asked
//! for commits late. Where it was noticed, the query is cancelled, which is the same as lost.
//!
//! A cut body is a failed connection to the Worker's HTTP port, which compares the announced
//! length. The simulation also shows the core a body that is shorter than it should be, as a proxy
//! that re-encodes it would.
//!
//! **An operation of Neon's** ends `failed`, is `failed` with `retry_at` and then succeeds, *hangs*
//! for ever, or is `cancelled`. It ends `error`, is `skipped`, is `cancelling` for a while, or is
//! `failed` and finishes later without a word. A restore may end well and be *damaged*: a copy that
//! is no copy.
//!
//! **Somebody else** deletes or renames the backup or gives it an end, deletes the displaced
//! branch, renames, protects or deletes staging, makes it the default branch, restores it from
//! production, fills the branch quota, deletes the endpoint of the backup. A compute does not wake
//! for three queries, or for ever, was started anew since it was asked last, or does not let our
//! address in. Neon is out for 20 minutes, or for three hours. Applications write to production and
//! to staging all the time.
//!
//! **The Worker** is killed at an action, or before or after the save that follows it. A
//! configuration is deployed between two ticks. The clock of the machine jumps by 40 minutes, or
//! back by 20. A cron tick is missed, doubled, late, or overlaps with a request.
//!
//! **The clock** of Neon is ahead of the Worker's, or behind, by seconds or by minutes, all day.
//!
//! **Workers KV** answers with what was true up to a minute ago, absence included. Takes one write
//! a second for each key. Does not answer. Says that it did not write although it did. Has lost
//! everything.
//!
//! # Not in the model
//!
//! Somebody else removes a lock (deletes or renames the backup, or the branch that keeps what
//! staging held), and what else would know is gone as well. A request that was given up arrives
//! after that, or the store has lost everything. Then something is done a second time, and only
//! that is forgiven.
//!
//! Neon answers a read with something that was never true. A listing older than the reply that was
//! read before it (Neon's API is believed to read its own writes). A zombie of more than an hour.
//! KV older than a minute for more than a tick. Two Workers that are configured for the same pair.

use std::fmt;
use std::str::FromStr;

/// One thing that goes wrong, at one action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing; the place is only marked, for a crash or a second tick.
    Nothing,
    /// Refused with this status.
    Refused(u16),
    /// Nothing is done, the connection fails.
    Lost,
    /// It is done, the connection fails.
    AppliedAndLost,
    /// It is done, the reply comes too late.
    Late,
    /// It is applied half a minute after it was sent.
    Zombie,
    /// It is applied fifty minutes after it was sent.
    OldZombie,
    /// It is done, a part of the reply is missing.
    Cut,
    /// It is done, the reply is a page.
    NotJson,
    /// The operation ends `failed`.
    OperationFails,
    /// The operation is `failed` with `retry_at`, then `finished`.
    OperationRetried,
    /// The operation never ends.
    OperationHangs,
    /// The operation ends `cancelled`.
    OperationCancelled,
    /// The operation is `cancelling` for a while, then `cancelled`.
    OperationCancelling,
    /// The operation ends `error`.
    OperationErrs,
    /// The operation is `skipped`: there was nothing to do for it.
    OperationSkipped,
    /// The operation is `failed` without a word more, and `finished` half a minute later.
    OperationFinishesLater,
    /// The restored data is not what it was made from.
    Damaged,
    /// The same, below the position at which the restored branch forked: the source was another.
    DamagedBelow,
    /// It is done, and sequences of the restored branch are behind.
    Behind,
    /// Somebody deletes the backup of this run.
    BackupDeleted,
    /// Somebody renames the backup of this run.
    BackupRenamed,
    /// Somebody gives the backup of this run an end.
    BackupExpires,
    /// Somebody deletes the endpoint of the backup of this run.
    ReaderDeleted,
    /// Somebody deletes the branch that keeps what staging held.
    DisplacedDeleted,
    /// Somebody renames staging.
    StagingRenamed,
    /// Somebody protects staging.
    StagingProtected,
    /// Somebody makes staging the project's default branch.
    StagingDefault,
    /// Somebody deletes staging.
    StagingDeleted,
    /// Somebody restores staging from production.
    StagingRestored,
    /// The project has as many branches as it may.
    QuotaReached,
    /// Computes do not wake for three queries.
    Asleep,
    /// The compute was started anew a moment ago.
    Restarted,
    /// Computes do not wake any more.
    AsleepForEver,
    /// The proxy does not let our address in.
    NotAllowed,
    /// Neon's API answers 503 for 20 minutes.
    Outage,
    /// Neon's API answers 503 for three hours.
    LongOutage,
    /// The store does not answer; a write is not made.
    StoreFails,
    /// The store says that it did not write, and did.
    StoreFailsButWrites,
    /// The store does not answer for ten minutes.
    StoreOut,
    /// The store refuses a write as too fast, the repetition too.
    TooFast,
    /// A configuration is deployed that differs in a keep rule.
    Deployed,
    /// The clock jumps by 40 minutes.
    ClockAhead,
    /// The clock jumps back by 20 minutes.
    ClockBack,
}

/// What an action is, as far as it matters for what can go wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A reading call of Neon's API.
    Reading,
    /// A writing call that starts operations.
    Writing,
    /// A deletion.
    Deletion,
    /// A batch of SQL.
    Query,
    /// A notice.
    Notice,
    /// A call of the staging application.
    Smoke,
    /// A read of the store.
    StoreRead,
    /// A write of the store.
    StoreWrite,
}

const REQUEST: &[Fault] = &[
    Fault::Refused(401),
    Fault::Refused(404),
    Fault::Refused(409),
    Fault::Refused(412),
    Fault::Refused(422),
    Fault::Refused(423),
    Fault::Refused(429),
    Fault::Refused(500),
    Fault::Refused(503),
    Fault::Refused(524),
    Fault::Lost,
    Fault::Late,
    Fault::Cut,
    Fault::NotJson,
];

const WRITE: &[Fault] = &[Fault::AppliedAndLost, Fault::Zombie, Fault::OldZombie];

const OPERATION: &[Fault] = &[
    Fault::OperationFails,
    Fault::OperationRetried,
    Fault::OperationHangs,
    Fault::OperationCancelled,
    Fault::OperationCancelling,
    Fault::OperationErrs,
    Fault::OperationSkipped,
    Fault::OperationFinishesLater,
];

/// What happens around a request, whatever the request is.
const AROUND: &[Fault] = &[
    Fault::BackupDeleted,
    Fault::BackupRenamed,
    Fault::BackupExpires,
    Fault::ReaderDeleted,
    Fault::DisplacedDeleted,
    Fault::StagingRenamed,
    Fault::StagingProtected,
    Fault::StagingDefault,
    Fault::StagingDeleted,
    Fault::StagingRestored,
    Fault::QuotaReached,
    Fault::Outage,
    Fault::LongOutage,
    Fault::Deployed,
    Fault::ClockAhead,
    Fault::ClockBack,
];

const RECEIVER: &[Fault] =
    &[Fault::Refused(500), Fault::Refused(429), Fault::Lost, Fault::AppliedAndLost, Fault::Late];

impl Kind {
    /// Returns every fault that can happen at an action of this kind.
    pub fn faults(self) -> Vec<Fault> {
        let groups: &[&[Fault]] = match self {
            Self::Reading => &[REQUEST, AROUND],
            Self::Writing => &[
                REQUEST,
                WRITE,
                OPERATION,
                AROUND,
                &[Fault::Damaged, Fault::DamagedBelow, Fault::Behind],
            ],
            Self::Deletion => &[REQUEST, WRITE, OPERATION, AROUND],
            Self::Query => &[
                REQUEST,
                AROUND,
                WRITE,
                &[Fault::Asleep, Fault::Restarted, Fault::AsleepForEver, Fault::NotAllowed],
            ],
            Self::Notice | Self::Smoke => &[RECEIVER],
            Self::StoreRead => &[&[Fault::StoreFails, Fault::StoreOut]],
            Self::StoreWrite => {
                &[&[Fault::StoreFails, Fault::StoreFailsButWrites, Fault::StoreOut, Fault::TooFast]]
            }
        };
        std::iter::once(Fault::Nothing)
            .chain(groups.iter().flat_map(|group| group.iter().copied()))
            .collect()
    }
}

const NAMES: &[(Fault, &str)] = &[
    (Fault::Nothing, "nothing"),
    (Fault::Lost, "lost"),
    (Fault::AppliedAndLost, "applied_and_lost"),
    (Fault::Late, "late"),
    (Fault::Zombie, "zombie"),
    (Fault::OldZombie, "old_zombie"),
    (Fault::Cut, "cut"),
    (Fault::NotJson, "not_json"),
    (Fault::OperationFails, "operation_fails"),
    (Fault::OperationRetried, "operation_retried"),
    (Fault::OperationHangs, "operation_hangs"),
    (Fault::OperationCancelled, "operation_cancelled"),
    (Fault::OperationCancelling, "operation_cancelling"),
    (Fault::OperationErrs, "operation_errs"),
    (Fault::OperationSkipped, "operation_skipped"),
    (Fault::OperationFinishesLater, "operation_finishes_later"),
    (Fault::Damaged, "damaged"),
    (Fault::DamagedBelow, "damaged_below"),
    (Fault::Behind, "behind"),
    (Fault::BackupDeleted, "backup_deleted"),
    (Fault::BackupRenamed, "backup_renamed"),
    (Fault::BackupExpires, "backup_expires"),
    (Fault::ReaderDeleted, "reader_deleted"),
    (Fault::DisplacedDeleted, "displaced_deleted"),
    (Fault::StagingRenamed, "staging_renamed"),
    (Fault::StagingProtected, "staging_protected"),
    (Fault::StagingDefault, "staging_default"),
    (Fault::StagingDeleted, "staging_deleted"),
    (Fault::StagingRestored, "staging_restored"),
    (Fault::QuotaReached, "quota_reached"),
    (Fault::Asleep, "asleep"),
    (Fault::Restarted, "restarted"),
    (Fault::AsleepForEver, "asleep_for_ever"),
    (Fault::NotAllowed, "not_allowed"),
    (Fault::Outage, "outage"),
    (Fault::LongOutage, "long_outage"),
    (Fault::StoreFails, "store_fails"),
    (Fault::StoreFailsButWrites, "store_fails_but_writes"),
    (Fault::StoreOut, "store_out"),
    (Fault::TooFast, "too_fast"),
    (Fault::Deployed, "deployed"),
    (Fault::ClockAhead, "clock_ahead"),
    (Fault::ClockBack, "clock_back"),
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Refused(status) = self {
            return write!(f, "refused_{status}");
        }
        let name = NAMES.iter().find(|(fault, _)| fault == self).map_or("?", |(_, name)| *name);
        f.write_str(name)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(status) = text.strip_prefix("refused_") {
            return status
                .parse()
                .map(Self::Refused)
                .map_err(|_| format!("{text:?} has no status"));
        }
        NAMES
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(fault, _)| *fault)
            .ok_or_else(|| format!("{text:?} is no fault"))
    }
}
