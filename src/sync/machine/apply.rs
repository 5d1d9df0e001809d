//! What an outcome means for the run.

mod failed;

use std::collections::BTreeMap;

use super::answers::{queried, query_failed, read};
use super::prune::Deletion;
use super::{Action, Ledger, Outcome, Run, compute, posture, snapshot};
use crate::config::{Pair, SmokeTest};
use crate::id::{OperationId, RunId};
use crate::neon::wire::{Branch, Endpoint, Operation, Permission};
use crate::neon::{Call, NeonError, Reply, RestoreBranch};
use crate::ordered::IntoOrdered as _;
use crate::retention::Known;
use crate::sync::checkpoint::{Backup, Ending, Origin, Restore, RunStatus};
use crate::sync::retry::{RUN_FAILED, wait_after};
use crate::sync::step::{BETWEEN_DELETIONS, FIRST_LOOK_CREATE};
use crate::time::{Timestamp, after};
use crate::verify::{Check, CheckKind, CheckOutcome};

/// An outcome does not belong to its action: our own assumption is false.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("take up the outcome of an action: it is not one that the action can have")]
pub struct IllegalTransition;

/// Changes the run by what came of an action.
///
/// # Errors
///
/// [`IllegalTransition`] when the outcome is not one of that action's.
pub fn apply(
    run: &mut Run,
    action: &Action,
    outcome: Outcome,
    pair: &Pair,
    now: Timestamp,
) -> Result<(), IllegalTransition> {
    match (action, outcome) {
        (Action::Call(call), Outcome::Replied(reply)) => replied(run, call, *reply, pair, now),
        (Action::Call(call), Outcome::Failed(error)) => {
            failed::call_failed(run, call, &error, pair, now);
            Ok(())
        }
        (Action::Query(query), Outcome::Queried(rows)) => {
            if queried(run, query, &rows, pair, now).is_none() {
                retry(
                    run,
                    &format!("query {}: the answer makes no sense", query.database),
                    None,
                    now,
                );
            }
            Ok(())
        }
        (Action::Query(query), Outcome::QueryFailed(error)) => {
            query_failed(run, query, &error, pair, now);
            Ok(())
        }
        (Action::Read(queries), Outcome::Read(answers)) if queries.len() == answers.len() => {
            read(run, queries, answers, pair, now);
            Ok(())
        }
        (Action::Smoke(index), Outcome::Smoked(check, captured)) => {
            run.seen.captured.extend(captured);
            smoked(run, pair.smoke_tests.get(*index), check, now);
            Ok(())
        }
        (action, outcome) => recorded(run, action, outcome, now),
    }
}

/// Changes the run by what came of an action on what is on record, and not on Neon or staging.
fn recorded(
    run: &mut Run,
    action: &Action,
    outcome: Outcome,
    now: Timestamp,
) -> Result<(), IllegalTransition> {
    match (action, outcome) {
        (Action::ReadOrders(_), Outcome::Orders(orders)) => {
            if orders.is_none() {
                retry(
                    run,
                    "read whether the run was cancelled: the store did not answer",
                    None,
                    now,
                );
            }
            run.seen.orders = orders;
            Ok(())
        }
        (Action::ReadEndings(_), Outcome::Endings(known)) => {
            endings(run, known);
            Ok(())
        }
        (Action::ReadLedger, Outcome::Ledger(found)) => {
            ledger(run, found, now);
            Ok(())
        }
        (Action::Close(closed), Outcome::Closed(waiting)) => {
            run.checkpoint.outbox.extend(waiting);
            run.seen
                .ledger
                .iter_mut()
                .for_each(|ledger| ledger.unfinished.retain(|run| run != closed));
            Ok(())
        }
        (Action::Forget(_), Outcome::Forgotten) => {
            run.seen.prune_plan.iter_mut().for_each(|plan| plan.forgotten.clear());
            Ok(())
        }
        (Action::NoteSnapshot, Outcome::SnapshotNoted(is_stored, waiting)) => {
            snapshot::noted(run, is_stored, waiting, now);
            Ok(())
        }
        (Action::Publish, Outcome::Published(outbox)) => {
            published(run, outbox, now);
            Ok(())
        }
        _ => Err(IllegalTransition),
    }
}

/// Notes whether how the run ended is published, with what waits for its channels; `None` where the
/// store did not take it.
fn published(run: &mut Run, outbox: Option<Vec<String>>, now: Timestamp) {
    let Some(outbox) = outbox else {
        // What was seen of staging is too old by the next attempt.
        run.seen.forget();
        run.checkpoint.attempt += 1;
        run.checkpoint.not_before = Some(after(now, wait_after(run.checkpoint.attempt, None)));
        return;
    };
    run.checkpoint.is_published = true;
    run.checkpoint.attempt = 1;
    run.checkpoint.outbox = outbox;
    run.wants_save = true;
}

/// Takes up how runs ended of whose backups nothing else is on record. Without an answer they stay
/// unknown, and are kept as long as they may be verified.
fn endings(run: &mut Run, known: Option<BTreeMap<RunId, Known>>) {
    if let Some(ledger) = &mut run.seen.ledger {
        ledger.records.known.extend(known.unwrap_or_default());
        ledger.is_complete = true;
    }
}

/// Takes up what is on record of backups.
fn ledger(run: &mut Run, found: Option<Ledger>, now: Timestamp) {
    if found.is_none() && run.checkpoint.verdict.is_none() {
        return retry(run, "read which backups are verified: the store did not answer", None, now);
    }
    if found.is_none() {
        run.checkpoint.warn(
            "pruning: the store did not say which backups are verified; nothing was deleted"
                .to_owned(),
        );
        run.seen.is_blind = true;
    }
    run.seen.ledger = Some(found.unwrap_or_default());
}

/// Takes up a smoke test; one that went wrong is tried again, because the application may not be
/// back yet.
fn smoked(run: &mut Run, test: Option<&SmokeTest>, check: Check, now: Timestamp) {
    if check.outcome != CheckOutcome::Passed
        && run.checkpoint.attempt < test.map_or(0, |test| test.attempts)
    {
        run.checkpoint.not_before = Some(after(now, wait_after(run.checkpoint.attempt, None)));
        run.checkpoint.attempt += 1;
        return;
    }
    run.checkpoint.attempt = 1;
    run.checkpoint.idle_tick_count = 0;
    // A test is called again where another one needs what it captures and this tick has not seen
    // it.
    run.checkpoint
        .checks
        .retain(|other| other.kind != CheckKind::SmokeTest || other.object != check.object);
    run.checkpoint.checks.push(check);
}

/// Takes up a reply of Neon's.
fn replied(
    run: &mut Run,
    call: &Call,
    reply: Reply,
    pair: &Pair,
    now: Timestamp,
) -> Result<(), IllegalTransition> {
    match reply {
        Reply::Project(project) => run.seen.project = Some(project),
        Reply::Branches(branches) => {
            run.seen.branches = Some(branches);
            compute::listed(run);
        }
        Reply::Endpoints(endpoints) => run.seen.endpoints = Some(endpoints),
        Reply::Databases(databases) => run.seen.databases = Some(databases),
        Reply::Roles(branch, roles) => {
            run.seen.roles.insert(branch, roles);
        }
        Reply::Password(branch, role, password) => {
            run.seen.passwords.insert((branch, role), Some(password));
        }
        Reply::Permissions(permissions) => people_listed(run, &permissions, pair),
        Reply::Operation(operation) => run.seen.operations.told(operation),
        Reply::Operations(operations, next) => {
            let Call::ListOperations(from) = call else { return Err(IllegalTransition) };
            run.seen.operations.listed(operations, from.is_some(), next);
        }
        Reply::Created(branch, endpoints, operations) => {
            created(run, &branch, endpoints, &operations, now);
        }
        Reply::EndpointCreated(endpoint) => endpoint_created(run, endpoint),
        Reply::Restored(_, operations) => {
            let Call::RestoreBranch(call) = call else { return Err(IllegalTransition) };
            restored(run, call, &operations, now);
        }
        Reply::Deleted => {
            if !snapshot::deleted(run, call) {
                deleted(run, now);
            }
        }
        Reply::Snapshots(snapshots) => {
            (run.seen.snapshots, run.seen.snapshots_unseen) = (Some(snapshots), None);
        }
        Reply::Schedule(schedule) => run.seen.schedule = Some(schedule),
        Reply::SnapshotCreated(taken, operations) => {
            snapshot::accepted(run, taken, ids(&operations), now);
        }
        Reply::SnapshotRestored(branch, endpoints, operations) => {
            run.seen.endpoints.iter_mut().for_each(|known| known.extend(endpoints.iter().cloned()));
            snapshot::restored(run, branch.id, ids(&operations), now);
        }
    }
    Ok(())
}

/// Judges who has access to the project, beside who had it when the newest of the earlier runs
/// looked.
fn people_listed(run: &mut Run, permissions: &[Permission], pair: &Pair) {
    let before = run
        .seen
        .orders
        .as_ref()
        .and_then(|orders| orders.baseline.as_ref())
        .and_then(|baseline| baseline.people.as_ref());
    let (check, people) = posture::judge_people(permissions, before, pair.verification.people);
    run.checkpoint.checks.push(check);
    run.checkpoint.people = Some(people);
}

fn ids(operations: &[Operation]) -> Vec<OperationId> {
    operations.iter().map(|operation| operation.id.clone()).collect()
}

/// The backup was made.
fn created(
    run: &mut Run,
    branch: &Branch,
    endpoints: Vec<Endpoint>,
    operations: &[Operation],
    now: Timestamp,
) {
    let operations = ids(operations);
    let made = endpoints.iter().map(|endpoint| endpoint.id.clone()).into_set();
    run.seen.forget_all_but_endpoints();
    if let Some(known) = run.seen.endpoints.as_mut() {
        known.extend(endpoints);
    }
    run.checkpoint.backup =
        Some(Backup { endpoints: Some(made), ..new_backup(branch, operations) });
    run.seen.look_at = Some(after(now, FIRST_LOOK_CREATE));
}

/// An endpoint was made. One of the backup's is noted with it.
fn endpoint_created(run: &mut Run, endpoint: Endpoint) {
    if let Some(backup) =
        run.checkpoint.backup.as_mut().filter(|backup| backup.id == endpoint.branch_id)
    {
        backup.endpoints.get_or_insert_default().insert(endpoint.id.clone());
    }
    run.seen.endpoints.get_or_insert_default().push(endpoint);
}

/// Neon has accepted a restore of staging: the run's own, or the one that rolls it back.
fn restored(run: &mut Run, call: &RestoreBranch, operations: &[Operation], now: Timestamp) {
    let before = run.seen.branches.as_ref().and_then(|branches| branches.by_id(&call.branch));
    let restore = Restore {
        before: before.and_then(Origin::of),
        displaced_name: call.displaced_name.clone(),
        displaced_id: None,
        accepted_at: Some(now),
        operations: ids(operations),
        is_done: false,
    };
    if run.checkpoint.restore.is_some() {
        run.checkpoint.roll_back = Some(restore);
    } else {
        run.checkpoint.restore = Some(restore);
    }
    run.seen.forget();
    run.wants_save = true;
}

/// Returns the record of a backup that is being made.
pub(super) fn new_backup(branch: &Branch, operations: Vec<OperationId>) -> Backup {
    let (id, name, made_at) = (branch.id.clone(), branch.name.clone(), branch.created_at);
    Backup {
        id,
        name,
        lsn: None,
        made_at,
        operations,
        is_ready: false,
        is_verified: false,
        endpoints: None,
    }
}

/// Counts an attempt and waits, or ends the run when there were enough.
pub(super) fn retry(run: &mut Run, text: &str, error: Option<&NeonError>, now: Timestamp) {
    if snapshot::is_under_way(run) {
        return snapshot::try_again(run, text, error, now);
    }
    run.checkpoint.record_error(text.to_owned(), now);
    if !run.checkpoint.may_try_again(now) {
        let reason = format!("{text} (after {} attempts)", run.checkpoint.attempt);
        end(run, RunStatus::Failed, reason, RUN_FAILED);
        return;
    }
    run.checkpoint.not_before = Some(after(now, wait_after(run.checkpoint.attempt, error)));
    run.checkpoint.attempt += 1;
}

pub(super) fn end(run: &mut Run, status: RunStatus, reason: String, runbook: &str) {
    let ending = Ending { status, reason, runbook: runbook.to_owned() };
    run.checkpoint.ending = Some(ending);
    // Whatever was seen before is not what staging holds at the end; the endpoints are those that
    // are pruned.
    run.seen.forget_all_but_endpoints();
    if status != RunStatus::Succeeded {
        run.seen.endpoints = None;
    }
    run.checkpoint.attempt = 1;
    run.checkpoint.not_before = None;
}

/// Something of ours is gone.
fn deleted(run: &mut Run, now: Timestamp) {
    let Some(plan) = run.seen.prune_plan.as_mut() else { return };
    let Some(deletion) = plan.left.pop() else { return };
    if !plan.left.is_empty() || plan.wants_snapshot {
        run.checkpoint.not_before = Some(after(now, BETWEEN_DELETIONS));
    }
    match deletion {
        Deletion::Endpoint(id) => run.checkpoint.prune.deleted_endpoints.push(id),
        Deletion::Branch(_, name, held) => {
            if let Some(held) = held {
                run.checkpoint.warn(format!(
                    "{name} was deleted to make room for this run; it was kept because of: {held}"
                ));
            }
            run.checkpoint.prune.deleted.push(name);
        }
        Deletion::Snapshot(_, name) => run.checkpoint.prune.deleted_snapshots.push(name),
    }
    run.checkpoint.attempt = 1;
}
