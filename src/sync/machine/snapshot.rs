//! The snapshot of a backup that only a rule of the snapshot tier keeps: taken, restored to a
//! branch of its own, compared, and that branch deleted.
//!
//! Invariants: production is only read, and nothing takes anything's place: a restore is never
//! finalized. What is to be taken is on record before it is asked for. It counts as verified only
//! after it was restored and was equal to what the backup held. What goes wrong here ends nothing:
//! it is told, and tried again.

use super::operations::Awaited;
use super::{Action, Conclusion, Decision, Run, View, act, contents, fail, need, prune, shortened};
use crate::config::Pair;
use crate::id::{BranchId, OperationId, SnapshotId};
use crate::names::snapshot_slug;
use crate::neon::sql::SqlError;
use crate::neon::wire::{Branch, CLOCKS_APART, Snapshot};
use crate::neon::{Call, CreateSnapshot, NeonError, RestoreSnapshot};
use crate::ordered;
use crate::retention::is_our_snapshot;
use crate::sync::checkpoint::{Checkpoint, RestoreTest, Side, SnapshotOutcome, SnapshotWork};
use crate::sync::retry::{Disposition, wait_after};
use crate::sync::step::{ATTEMPTS_PER_STEP, FIRST_LOOK_CREATE};
use crate::time::{Timestamp, after, before, between, render_duration};
use crate::verify::{Fingerprint, Unread, compare};

/// How long a snapshot may take to be taken, restored and compared.
///
/// Reading a terabyte takes about two hours; what takes longer would run into the next morning.
const WITHIN: std::time::Duration = std::time::Duration::from_hours(6);

/// How long Neon may take to take a snapshot and to make a branch of it: both are made of what is
/// there, in seconds whatever the size, as branches are.
const OPERATIONS_WITHIN: std::time::Duration = std::time::Duration::from_mins(30);

/// How the snapshot has come further.
#[derive(Debug)]
pub enum SnapshotProgress {
    /// One is wanted.
    Needed,
    /// It was taken before.
    Found(SnapshotId),
    /// Its operations are done.
    Taken,
    /// A branch was made of it before.
    RestoreTestFound(BranchId),
    /// The operations of that branch are done.
    RestoreTestReady,
    /// There is no such branch.
    RestoreTestGone,
    /// It was compared, or cannot be.
    Judged(SnapshotOutcome),
}

/// Decides the next action for the snapshot; `Ok` when there is nothing to do, or nothing any more.
pub(super) fn next(view: &View<'_>, wants_snapshot: bool) -> Result<(), Decision> {
    let Some(work) = &view.checkpoint.prune.snapshot else {
        let has_position =
            view.checkpoint.backup.as_ref().is_some_and(|backup| backup.lsn.is_some());
        return if wants_snapshot && has_position {
            Err(progress(SnapshotProgress::Needed))
        } else {
            Ok(())
        };
    };
    if work.is_told {
        return Ok(());
    }
    let decision = step(view, work);
    // What would end a run ends this alone. A snapshot whose operation failed is there all the
    // same, and will not become one.
    let is_final = !work.operations.is_empty() && work.id.is_some() && !work.is_taken;
    Err(if let Decision::Conclude(Conclusion::End(ending)) = decision {
        give_up(ending.reason, is_final)
    } else {
        decision
    })
}

fn progress(progress: SnapshotProgress) -> Decision {
    Decision::Conclude(Conclusion::Snapshot(progress))
}

fn give_up(reason: String, is_final: bool) -> Decision {
    progress(SnapshotProgress::Judged(SnapshotOutcome::Failed { reason, is_final }))
}

/// Returns an instant of Neon's before which nothing of this snapshot was begun, whichever clock is
/// ahead.
fn begun_before(work: &SnapshotWork) -> Timestamp {
    before(work.begun_at, CLOCKS_APART)
}

fn step(view: &View<'_>, work: &SnapshotWork) -> Decision {
    if work.outcome.is_some() {
        return clean_up(view, work);
    }
    let took = between(work.begun_at, view.now);
    if !work.test.is_ready && took > OPERATIONS_WITHIN {
        return give_up(
            format!(
                "Neon did not take and restore it within {}",
                render_duration(OPERATIONS_WITHIN)
            ),
            false,
        );
    }
    if took > WITHIN {
        return give_up(format!("it was not compared within {}", render_duration(WITHIN)), false);
    }
    let Some(id) = &work.id else { return take(view, work) };
    if !work.is_taken {
        let (branch, named) = (&view.pair.production_branch, &work.operations);
        need!(view.await_all(&Awaited {
            branch,
            named,
            since: begun_before(work),
            first_look: view.now,
            why: "take the snapshot"
        }));
        return progress(SnapshotProgress::Taken);
    }
    let Some(test) = &work.test.id else { return restore(view, work, id) };
    if !work.test.is_ready {
        return await_test(view, work, test);
    }
    judge(view, test)
}

/// Waits for the branch that is made of the snapshot.
fn await_test(view: &View<'_>, work: &SnapshotWork, test: &BranchId) -> Decision {
    let awaited = Awaited {
        branch: test,
        named: &work.test.operations,
        since: begun_before(work),
        first_look: view.now,
        why: "make a branch of the snapshot",
    };
    need!(view.await_last(&awaited));
    match need!(view.branches()).by_id(test) {
        Some(branch) if !is_test(view, work, branch) => {
            fail(format!("branch {} ({test}) was not made from the snapshot", branch.name))
        }
        Some(branch) if branch.is_at_rest() => progress(SnapshotProgress::RestoreTestReady),
        Some(_) => {
            need!(view.await_all(&awaited));
            Decision::Conclude(Conclusion::LookAgain)
        }
        None => {
            fail(format!("branch {} was made to compare the snapshot and is gone", work.test.name))
        }
    }
}

/// Reads the branch that was made of the snapshot, and compares it with what the backup held.
fn judge(view: &View<'_>, test: &BranchId) -> Decision {
    let Some(expected) =
        view.checkpoint.fingerprint.as_ref().filter(|expected| expected.is_current())
    else {
        return fail("another version of Firstlight has read the backup".to_owned());
    };
    let seen = need!(contents::read(view, Side::Snapshot, test));
    let checks = compare(expected, &seen, !view.pair.verification.is_not_checked_fatal);
    let unread = unread(expected, &seen);
    if !unread.is_empty() {
        return give_up(
            format!("restored, it could not be compared: {}", shortened(&unread)),
            false,
        );
    }
    let objections: Vec<String> =
        checks.iter().filter(|check| check.is_objection()).map(ToString::to_string).collect();
    if objections.is_empty() {
        let outcome =
            SnapshotOutcome::Verified { tables: seen.table_count(), rows: seen.row_count() };
        return progress(SnapshotProgress::Judged(outcome));
    }
    give_up(format!("restored, it differs from the backup: {}", shortened(&objections)), true)
}

/// Returns what was read of the backup and could not be read of its snapshot: that is not equal,
/// whatever is to become of a run for it.
fn unread(expected: &Fingerprint, seen: &Fingerprint) -> Vec<String> {
    let was_read = |unread: &Unread<'_>| {
        expected.databases.get(unread.database).is_none_or(|print| match unread.table {
            Some(table) => !print.not_checked.contains_key(table),
            None => print.closed.is_none(),
        })
    };
    seen.unread().filter(was_read).map(|unread| unread.to_string()).collect()
}

/// Takes the snapshot, unless it was taken.
fn take(view: &View<'_>, work: &SnapshotWork) -> Decision {
    let snapshots = need!(view.snapshots());
    if let Some(reason) = &view.seen.snapshots_unseen {
        return fail(reason.clone());
    }
    let branches = need!(view.branches());
    let records = prune::records(view);
    let run = &view.checkpoint.run;
    let mut ours: Vec<&Snapshot> = snapshots
        .iter()
        .filter(|snapshot| is_our_snapshot(view.pair, branches, &records, snapshot, run))
        .collect();
    ordered::sort_by(&mut ours, |left, right| {
        (left.created_at, &left.id).cmp(&(right.created_at, &right.id))
    });
    if let Some(found) = ours.first() {
        return progress(SnapshotProgress::Found(found.id.clone()));
    }
    let Some(project) = &view.seen.project else { return act(Call::GetProject) };
    let history = project
        .history_retention_seconds
        .map(|seconds| std::time::Duration::from_secs(seconds.into()));
    if let Some(history) = history.filter(|history| between(work.made_at, view.now) >= *history) {
        let text = format!(
            "its position {} is outside the history of production, which goes back {}",
            work.lsn,
            render_duration(history)
        );
        return give_up(
            format!(
                "{text}; a snapshot can be taken only of what is inside (history_retention_seconds \
                 of the project)"
            ),
            true,
        );
    }
    if !work.is_noted {
        return Decision::Act(Action::NoteSnapshot);
    }
    act(Call::CreateSnapshot(CreateSnapshot {
        branch: view.pair.production_branch.clone(),
        lsn: work.lsn,
        name: work.name.clone(),
        slug: work.slug.clone(),
    }))
}

/// Makes a branch of the snapshot, unless there is one.
fn restore(view: &View<'_>, work: &SnapshotWork, id: &SnapshotId) -> Decision {
    let branches = need!(view.branches());
    if let Some(found) = branches.by_name(&work.test.name) {
        if is_test(view, work, found) {
            return progress(SnapshotProgress::RestoreTestFound(found.id.clone()));
        }
        return fail(format!(
            "branch {} ({}) exists and was not made from snapshot {id}, expected the name to be \
             free",
            found.name, found.id
        ));
    }
    // Its place would be taken by who finalized it by hand: a backup's, never production's or
    // staging's.
    let Some(backup) =
        view.checkpoint.backup.as_ref().filter(|backup| branches.by_id(&backup.id).is_some())
    else {
        return fail(format!("backup {} is gone", work.name));
    };
    let restore = RestoreSnapshot {
        snapshot: id.clone(),
        name: work.test.name.clone(),
        target: backup.id.clone(),
    };
    act(Call::RestoreSnapshot(restore))
}

/// Deletes the branch that was compared, then writes down what came of it.
fn clean_up(view: &View<'_>, work: &SnapshotWork) -> Decision {
    if work.test.is_gone {
        return Decision::Act(Action::NoteSnapshot);
    }
    if let Some(test) = &work.test.id {
        // What somebody has renamed or finalized meanwhile is not ours to delete.
        let is_there =
            need!(view.branches()).by_id(test).is_some_and(|branch| is_test(view, work, branch));
        return if is_there {
            act(Call::DeleteBranch(test.clone()))
        } else {
            progress(SnapshotProgress::RestoreTestGone)
        };
    }
    let found =
        need!(view.branches()).by_name(&work.test.name).filter(|found| is_test(view, work, found));
    progress(found.map_or(SnapshotProgress::RestoreTestGone, |found| {
        SnapshotProgress::RestoreTestFound(found.id.clone())
    }))
}

/// Returns whether a branch is the one that was made from the snapshot, whatever a reply said.
fn is_test(view: &View<'_>, work: &SnapshotWork, branch: &Branch) -> bool {
    let is_other =
        branch.id == view.pair.production_branch || branch.id == view.pair.staging_branch;
    !is_other
        && branch.name == work.test.name
        && branch.restored_from.is_some()
        && branch.restored_from == work.id
}

/// Begins with the snapshot of a run's backup.
fn begin(checkpoint: &mut Checkpoint, pair: &Pair, now: Timestamp) {
    let Some((name, lsn, made_at)) = checkpoint
        .backup
        .as_ref()
        .and_then(|backup| Some((backup.name.clone(), backup.lsn?, backup.made_at)))
    else {
        return;
    };
    checkpoint.prune.snapshot = Some(Box::new(SnapshotWork {
        name,
        slug: snapshot_slug(pair, &checkpoint.run),
        lsn,
        made_at,
        begun_at: now,
        is_noted: false,
        id: None,
        operations: Vec::new(),
        is_taken: false,
        test: RestoreTest::new(crate::names::test_name(pair, &checkpoint.run)),
        outcome: None,
        is_told: false,
        has_failed: false,
    }));
    // The fingerprint of staging is not needed any more, and takes room.
    checkpoint.prints.clear();
}

/// Takes up how the snapshot has come further.
pub(super) fn conclude(run: &mut Run, progress: SnapshotProgress, pair: &Pair, now: Timestamp) {
    if matches!(progress, SnapshotProgress::Needed) {
        begin(&mut run.checkpoint, pair, now);
    }
    let Some(work) = run.checkpoint.prune.snapshot.as_mut() else { return };
    match progress {
        SnapshotProgress::Needed => {}
        SnapshotProgress::Found(id) => work.id = Some(id),
        SnapshotProgress::Taken => work.is_taken = true,
        SnapshotProgress::RestoreTestFound(id) => work.test.id = Some(id),
        SnapshotProgress::RestoreTestReady => work.test.is_ready = true,
        SnapshotProgress::RestoreTestGone => work.test.is_gone = true,
        SnapshotProgress::Judged(outcome) => {
            work.outcome = Some(outcome);
            run.checkpoint.prints.remove(&Side::Snapshot);
            run.wants_save = true;
        }
    }
    went_on(run);
}

/// The snapshot, or the branch that is made of it, has come further.
fn went_on(run: &mut Run) {
    run.checkpoint.attempt = 1;
    run.checkpoint.not_before = None;
    run.checkpoint.idle_tick_count = 0;
    run.seen.forget_all_but_endpoints();
}

/// Returns whether the snapshot is what the run is at.
pub(super) fn is_under_way(run: &Run) -> bool {
    let is_pruned = run.seen.prune_plan.as_ref().is_some_and(|plan| plan.left.is_empty());
    (is_pruned || run.seen.is_blind)
        && run.checkpoint.verdict.is_some()
        && run.checkpoint.prune.is_at_snapshot()
}

/// Neon takes the snapshot.
pub(super) fn accepted(
    run: &mut Run,
    snapshot: Snapshot,
    operations: Vec<OperationId>,
    now: Timestamp,
) {
    let Some(work) = run.checkpoint.prune.snapshot.as_mut() else { return };
    (work.id, work.operations) = (Some(snapshot.id), operations);
    await_first_look(run, now);
}

/// Neon makes a branch of the snapshot.
pub(super) fn restored(
    run: &mut Run,
    branch: BranchId,
    operations: Vec<OperationId>,
    now: Timestamp,
) {
    let Some(work) = run.checkpoint.prune.snapshot.as_mut() else { return };
    (work.test.id, work.test.operations) = (Some(branch), operations);
    await_first_look(run, now);
}

/// Neon is at work on what was asked for.
fn await_first_look(run: &mut Run, now: Timestamp) {
    went_on(run);
    run.wants_save = true;
    run.seen.look_at = Some(after(now, FIRST_LOOK_CREATE));
}

/// The branch that was compared is being deleted. Returns whether it was that one.
pub(super) fn deleted(run: &mut Run, call: &Call) -> bool {
    let Some(work) = run.checkpoint.prune.snapshot.as_mut() else { return false };
    let is_open = work.outcome.is_some() && !work.test.is_gone;
    let is_test =
        matches!(call, Call::DeleteBranch(id) if work.test.id.as_ref() == Some(id)) && is_open;
    if is_test {
        work.test.is_gone = true;
        went_on(run);
    }
    is_test
}

/// What is on record of the snapshot was written.
pub(super) fn noted(run: &mut Run, is_stored: bool, waiting: Vec<String>, now: Timestamp) {
    run.checkpoint.outbox.extend(waiting);
    if !is_stored {
        return try_again(
            run,
            "write down what is known of the snapshot: the store did not answer",
            None,
            now,
        );
    }
    let Some(work) = run.checkpoint.prune.snapshot.as_mut() else { return };
    if work.outcome.is_some() {
        work.is_told = true;
        work.has_failed |= !work.is_verified();
    } else {
        work.is_noted = true;
    }
    run.checkpoint.attempt = 1;
    run.wants_save = true;
}

/// A call failed.
pub(super) fn call_failed(
    run: &mut Run,
    call: &Call,
    error: &NeonError,
    meaning: Disposition,
    now: Timestamp,
) {
    match meaning {
        Disposition::Retry | Disposition::Observe => {
            if call.is_write() || meaning == Disposition::Observe {
                run.seen.forget();
            }
            try_again(run, &error.to_string(), Some(error), now);
        }
        Disposition::Fail(_) => leave(run, error.to_string()),
    }
}

/// A query failed.
pub(super) fn query_failed(run: &mut Run, error: &SqlError, now: Timestamp) {
    let text = error.to_string();
    if error.is_passing() { try_again(run, &text, None, now) } else { leave(run, text) }
}

/// Counts an attempt and waits, or gives up when there were enough.
pub(super) fn try_again(run: &mut Run, text: &str, error: Option<&NeonError>, now: Timestamp) {
    if run.checkpoint.attempt >= ATTEMPTS_PER_STEP {
        return leave(run, format!("{text} (after {ATTEMPTS_PER_STEP} attempts)"));
    }
    run.checkpoint.not_before = Some(after(now, wait_after(run.checkpoint.attempt, error)));
    run.checkpoint.attempt += 1;
}

/// Goes on without what cannot be had: to cleaning up, and from there to the end.
pub(super) fn leave(run: &mut Run, reason: String) {
    let Some(work) = run.checkpoint.prune.snapshot.as_mut() else { return };
    if work.outcome.is_none() {
        work.outcome = Some(SnapshotOutcome::Failed { reason, is_final: false });
    } else if work.test.is_gone {
        work.is_told = true;
        let warning = format!("snapshot {}: {reason}", work.name);
        run.checkpoint.warn(warning);
    } else {
        // The next run finds it by its name and the snapshot that it was made from.
        work.test.is_gone = true;
        run.checkpoint.prune.skipped.push((work.test.name.to_string(), reason));
    }
    went_on(run);
}
