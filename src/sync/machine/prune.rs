//! Step 7: carries out the prune plan. A refusal is a warning in the record and never fails a run.

use std::time::Duration;

use super::{Action, Conclusion, Decision, View, act, need, snapshot};
use crate::id::{BranchId, EndpointId, RunId, SnapshotId};
use crate::neon::Call;
use crate::ordered::IntoOrdered as _;
use crate::retention::{self, Entry, Hold, Inventory, Known, Records, SnapshotRecord};
use crate::sync::checkpoint::{Checkpoint, History};
use crate::time::after;

/// The time after which nobody drives a manual run whose place in the store another run has taken.
///
/// An invocation that answered drives for 25 s, a cron invocation for its wall budget, 4 minutes by
/// default; a minute is left for a store that is stale.
const ABANDONED_AFTER: Duration = Duration::from_mins(6);

/// The time after which this run sees what was told of a run before it.
///
/// Source: Workers KV, "how KV works", 2026-09-05: a read may be 60 seconds old; a quarter is left
/// for clocks that differ.
const KNOWN_AFTER: Duration = Duration::from_secs(75);

/// What is deleted, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is still to be deleted; the next is the last.
    pub(super) left: Vec<Deletion>,
    /// What is kept, with the reason.
    pub(super) kept: Vec<(String, String)>,
    /// What takes the places that a run does not find; empty after its verdict.
    pub(super) shortage: String,
    /// Whether the backup of this run is to be kept by a snapshot.
    pub(super) wants_snapshot: bool,
    /// Runs whose records are not needed any more.
    pub(super) forgotten: Vec<RunId>,
}

/// One deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deletion {
    /// An endpoint of a backup.
    Endpoint(EndpointId),
    /// A branch, by id and name, with why it would have been kept if the run had found room.
    Branch(BranchId, String, Option<String>),
    /// A snapshot, by id and name.
    Snapshot(SnapshotId, String),
}

/// Decides the next deletion.
pub(super) fn next(view: &View<'_>) -> Decision {
    let Some(plan) = &view.seen.prune_plan else { return plan(view) };
    match plan.left.last() {
        Some(Deletion::Endpoint(id)) => act(Call::DeleteEndpoint(id.clone())),
        Some(Deletion::Branch(id, ..)) => act(Call::DeleteBranch(id.clone())),
        Some(Deletion::Snapshot(id, _)) => act(Call::DeleteSnapshot(id.clone())),
        None if view.checkpoint.verdict.is_some() => {
            need!(snapshot::next(view, plan.wants_snapshot));
            if plan.forgotten.is_empty() {
                close(view)
            } else {
                Decision::Act(Action::Forget(plan.forgotten.clone()))
            }
        }
        None => Decision::Conclude(Conclusion::Pruned),
    }
}

/// Sees that people are told how manual runs ended whose place this run took, once no tick can be
/// driving them any more.
fn close(view: &View<'_>) -> Decision {
    let unfinished = view.seen.ledger.iter().flat_map(|ledger| &ledger.unfinished);
    let Some(run) = unfinished.filter(|run| **run != view.checkpoint.run).min() else {
        return Decision::Conclude(Conclusion::Pruned);
    };
    let abandoned_at = run.started_at().map_or(view.now, |at| after(at, ABANDONED_AFTER));
    let known_at = abandoned_at.max(after(view.checkpoint.started_at, KNOWN_AFTER));
    if view.now < known_at {
        return Decision::Wait {
            until: known_at,
            why: "another run was accepted meanwhile and may still end by itself",
        };
    }
    Decision::Act(Action::Close(run.clone()))
}

fn plan(view: &View<'_>) -> Decision {
    if view.seen.is_blind {
        // Nothing is deleted without having looked; people are told all the same.
        if view.seen.ledger.is_none() {
            return Decision::Act(Action::ReadLedger);
        }
        // What was begun is brought to an end, and told.
        need!(snapshot::next(view, false));
        return close(view);
    }
    let branches = need!(view.branches());
    let endpoints = need!(view.endpoints());
    let Some(ledger) = &view.seen.ledger else { return Decision::Act(Action::ReadLedger) };
    let mut unknown = retention::unknown(view.pair, branches, &ledger.records);
    unknown.retain(|run| *run != view.checkpoint.run);
    if !ledger.is_complete && !unknown.is_empty() {
        return Decision::Act(Action::ReadEndings(unknown));
    }
    let has_snapshots = view.pair.keep.has_snapshots() || !ledger.records.snapshots.is_empty();
    let snapshots = if has_snapshots { need!(view.snapshots()) } else { &[] };
    // Before the backup, room is what it is about; a snapshot takes none of it.
    let is_short = view.checkpoint.verdict.is_none();
    let records = records(view);
    let inventory = Inventory { branches, endpoints, snapshots, records: &records };
    let plan = retention::plan(
        &inventory,
        view.pair,
        &view.pair.keep,
        Some(&view.checkpoint.run),
        view.now,
    );
    let deletion = |entry: &Entry, held: Option<String>| {
        Deletion::Branch(entry.id.as_str().into(), entry.name.clone(), held)
    };
    let mut left: Vec<Deletion> = plan.endpoints().map(Deletion::Endpoint).collect();
    let mut shortage = String::new();
    if is_short {
        shortage = retention::shortage(&plan, view.pair, &view.pair.keep, branches, view.now);
        left.extend(plan.branches_for_room().map(|(entry, hold)| {
            deletion(entry, (hold > Hold::Nothing).then(|| entry.reasons.join("; ")))
        }));
    } else {
        left.extend(plan.branches().map(|entry| deletion(entry, None)));
        left.extend(
            plan.snapshots()
                .map(|entry| Deletion::Snapshot(entry.id.as_str().into(), entry.name.clone())),
        );
    }
    left.reverse();
    // What cannot be seen may be there.
    let sees_all = !is_short
        && view.seen.snapshots_unseen.is_none()
        && (has_snapshots || ledger.records.snapshots.is_empty());
    let forgotten =
        if sees_all { retention::forgotten(&inventory, view.pair, view.now) } else { Vec::new() };
    Decision::Conclude(Conclusion::PrunePlanned(Plan {
        left,
        kept: plan.kept(),
        shortage,
        wants_snapshot: plan.wants_snapshot,
        forgotten,
    }))
}

/// Adds to what is on record of backups what the last checkpoint remembers of what runs have made.
pub fn recall(records: &mut Records, last: &Checkpoint) {
    let history = History::after(Some(last));
    (records.endpoints, records.staging_names) = (history.endpoints, history.staging_names);
}

/// Returns what is on record of backups, with what this run knows: a listing may be older than what
/// it has stored.
pub(super) fn records(view: &View<'_>) -> Records {
    let mut records =
        view.seen.ledger.as_ref().map(|ledger| ledger.records.clone()).unwrap_or_default();
    recall(&mut records, view.checkpoint);
    records.unfinished =
        view.seen.ledger.iter().flat_map(|ledger| ledger.unfinished.iter().cloned()).into_set();
    let run = &view.checkpoint.run;
    if let Some(backup) = &view.checkpoint.backup {
        records.known.insert(
            run.clone(),
            if backup.is_verified { Known::Verified } else { Known::Unverified },
        );
    }
    if let Some(work) = &view.checkpoint.prune.snapshot {
        let known = if work.is_verified() { Known::Verified } else { Known::Unverified };
        records.snapshots.insert(
            run.clone(),
            SnapshotRecord {
                id: work.id.clone(),
                lsn: Some(work.lsn),
                made_at: work.made_at,
                known,
            },
        );
    }
    records
}
