//! What an outcome means for the run.

use std::collections::BTreeMap;

use super::answers::{queried, query_failed, read};
use super::prune::Deletion;
use super::{Action, Ledger, Outcome, Run, compute, posture, snapshot};
use crate::config::{Pair, Policy, SmokeTest};
use crate::id::{OperationId, RunId};
use crate::neon::message::is_quota;
use crate::neon::wire::{Branch, Endpoint, Operation};
use crate::neon::{Call, EndpointKind, NeonError, Reply};
use crate::ordered::IntoOrdered as _;
use crate::sync::checkpoint::{Backup, Ending, Origin, Restore, RunStatus};
use crate::sync::retention::Known;
use crate::sync::retry::{Disposition, RUN_FAILED, disposition, wait_after};
use crate::sync::step::{ATTEMPTS_PER_STEP, BETWEEN_DELETIONS, FIRST_LOOK_CREATE};
use crate::sync::verify::{Check, CheckKind, CheckOutcome};
use crate::time::{Timestamp, after};

/// Looks at the end of a run, or at pruning, that may fail before they are given up.
///
/// The verdict waits for them: 2 + 4 + 8 = 14 s at most, and a notice that is late is worse than
/// one that says "could not be observed".
const LOOKS_AT_THE_END: u32 = 4;

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
            call_failed(run, call, &error, pair, now);
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
        (Action::Smoke(index), Outcome::Smoked(check, captured)) => {
            run.seen.captured.extend(captured);
            smoked(run, pair.smoke_tests.get(*index), check, now);
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
        (Action::Publish, Outcome::Published(None)) => {
            // What was seen of staging is too old by the next attempt.
            run.seen.forget();
            run.checkpoint.attempt += 1;
            run.checkpoint.not_before = Some(after(now, wait_after(run.checkpoint.attempt, None)));
            Ok(())
        }
        (Action::Publish, Outcome::Published(Some(outbox))) => {
            run.checkpoint.is_published = true;
            run.checkpoint.attempt = 1;
            run.checkpoint.outbox = outbox;
            run.wants_save = true;
            Ok(())
        }
        _ => Err(IllegalTransition),
    }
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
        Reply::Permissions(permissions) => {
            let before = run
                .seen
                .orders
                .as_ref()
                .and_then(|orders| orders.baseline.as_ref())
                .and_then(|baseline| baseline.people.as_ref());
            let (check, people) =
                posture::judge_people(&permissions, before, pair.verification.people);
            run.checkpoint.checks.push(check);
            run.checkpoint.people = Some(people);
        }
        Reply::Operation(operation) => run.seen.operations.told(operation),
        Reply::Operations(operations, next) => {
            let Call::ListOperations(from) = call else { return Err(IllegalTransition) };
            run.seen.operations.listed(operations, from.is_some(), next);
        }
        Reply::Created(branch, endpoints, operations) => {
            created(run, &branch, endpoints, &operations, now);
        }
        Reply::EndpointCreated(endpoint) => {
            if let Some(backup) =
                run.checkpoint.backup.as_mut().filter(|backup| backup.id == endpoint.branch_id)
            {
                backup.endpoints.get_or_insert_default().insert(endpoint.id.clone());
            }
            run.seen.endpoints.get_or_insert_default().push(endpoint);
        }
        Reply::Restored(_, operations) => {
            let Call::RestoreBranch(call) = call else { return Err(IllegalTransition) };
            let before =
                run.seen.branches.as_ref().and_then(|branches| branches.by_id(&call.branch));
            let restore = Restore {
                before: before.and_then(Origin::of),
                displaced_name: call.displaced_name.clone(),
                displaced_id: None,
                accepted_at: Some(now),
                operations: ids(&operations),
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

/// A call failed: what that means is decided by `sync::retry`, except for the few calls whose
/// refusal is an answer.
fn call_failed(run: &mut Run, call: &Call, error: &NeonError, pair: &Pair, now: Timestamp) {
    let meaning = disposition(error, call);
    if is_told_and_no_more(run, call, error, meaning) {
        return;
    }
    let policy = pair.verification.people;
    if *call == Call::ListPermissions
        && (policy != Policy::Fail || matches!(meaning, Disposition::Fail(_)))
    {
        // A key of one project may not be told; that stops nothing.
        run.checkpoint.checks.push(posture::unknown_people(&error.to_string(), policy));
        return;
    }
    if let (Call::RevealPassword(branch, role), NeonError::Status { status: 404 | 412, .. }) =
        (call, error)
    {
        run.seen.passwords.insert((branch.clone(), role.clone()), None);
        return;
    }
    if let (Call::ListRoles(branch), NeonError::Status { status: 404, .. }) = (call, error)
        && let Some(restore) = run
            .checkpoint
            .restore
            .as_mut()
            .filter(|restore| restore.displaced_id.as_ref() == Some(branch))
    {
        // Somebody has deleted it since it was listed; where the next listing shows none, that is
        // said.
        restore.displaced_id = None;
        run.seen.forget();
        retry(run, &error.to_string(), Some(error), now);
        return;
    }
    if let (Call::GetOperation(id), NeonError::Status { status: 404, .. }) = (call, error) {
        run.seen.operations.is_unknown(id.clone());
        return;
    }
    if asks_for_a_reader(call) && may_be_about_the_reader(error, meaning) {
        // Unverified: Neon may not give a branch a read-only endpoint alone, and nobody knows in
        // which words it would say so. A read-write one is read just as well; what was meant
        // otherwise is refused again.
        run.checkpoint.reads_by_writer = true;
        run.checkpoint.warn(format!(
            "a read-write endpoint is asked for instead of a read-only one: {error}"
        ));
        run.seen.forget_all_but_endpoints();
        return;
    }
    if snapshot::is_under_way(run) {
        return snapshot::call_failed(run, call, error, meaning, now);
    }
    if matches!(call, Call::DeleteBranch(_) | Call::DeleteEndpoint(_) | Call::DeleteSnapshot(_)) {
        delete_failed(run, error, meaning, now);
        return;
    }
    if let Some(ending) = &run.checkpoint.ending {
        // Nothing can fail any more; what cannot be seen is said to be unseen. A success is worth
        // waiting for until it is late.
        let is_good = ending.status == RunStatus::Succeeded && run.checkpoint.verdict.is_none();
        let is_enough = run.checkpoint.attempt >= LOOKS_AT_THE_END
            && !(is_good && run.checkpoint.may_try_again(now));
        run.seen.is_blind = !matches!(meaning, Disposition::Retry) || is_enough;
        run.checkpoint.not_before = (!run.seen.is_blind)
            .then(|| after(now, wait_after(run.checkpoint.attempt, Some(error))));
        run.checkpoint.attempt += 1;
        return;
    }
    if matches!(call, Call::RestoreBranch(_))
        && is_refusal(error)
        && !run.checkpoint.is_restore_in_doubt
    {
        run.checkpoint.intended_name = None;
    }
    match meaning {
        Disposition::Retry | Disposition::Observe => {
            if call.is_write() || meaning == Disposition::Observe {
                // The world has moved on by the time of the next attempt: look at all of it again.
                run.seen.forget();
            }
            if call.is_write() {
                // And so may people have.
                run.seen.orders = None;
            }
            retry(run, &error.to_string(), Some(error), now);
        }
        Disposition::Fail(runbook) => {
            run.checkpoint.record_error(error.to_string(), now);
            end(run, RunStatus::Failed, error.to_string(), runbook);
        }
    }
}

/// Takes up that snapshots or their schedule could not be read, which stops nothing. Returns
/// whether that is so.
fn is_told_and_no_more(
    run: &mut Run,
    call: &Call,
    error: &NeonError,
    meaning: Disposition,
) -> bool {
    let is_last =
        matches!(meaning, Disposition::Fail(_)) || run.checkpoint.attempt >= LOOKS_AT_THE_END;
    if !is_last {
        return false;
    }
    if *call == Call::ListSnapshots {
        run.seen.snapshots = Some(Vec::new());
        run.seen.snapshots_unseen = Some(error.to_string());
    } else if matches!(call, Call::ListSchedule(_)) {
        run.seen.schedule = Some(Vec::new());
    } else {
        return false;
    }
    run.checkpoint.attempt = 1;
    run.checkpoint.warn(error.to_string());
    true
}

/// Returns whether Neon certainly did not do what it was asked.
fn is_refusal(error: &NeonError) -> bool {
    match error {
        NeonError::Status { status, .. } => {
            (*status != 408 && (400..500).contains(status)) || *status == 503
        }
        NeonError::NoReply { .. } | NeonError::Undecodable { .. } => false,
    }
}

/// Returns whether a call asks for a read-only endpoint.
fn asks_for_a_reader(call: &Call) -> bool {
    matches!(call, Call::CreateBranch(create) if create.endpoint == EndpointKind::ReadOnly)
        || matches!(call, Call::CreateEndpoint(_, EndpointKind::ReadOnly, _))
}

/// Returns whether a refusal may mean that there is no read-only endpoint without a read-write one.
///
/// It is told by what it cannot mean, and not by its words: a key, a project that is gone, a name
/// that is taken, a limit and a lock are refused in other ways that are known.
fn may_be_about_the_reader(error: &NeonError, meaning: Disposition) -> bool {
    match error {
        NeonError::Status { status: 401..=404 | 408, .. } => false,
        NeonError::Status { status: 409, code, .. } => code != "BRANCH_ALREADY_EXISTS",
        NeonError::Status { status: 400..=499, code, message, .. } => {
            matches!(meaning, Disposition::Fail(_))
                && !code.contains("EXCEEDED")
                && !is_quota(message)
        }
        NeonError::Status { .. } | NeonError::NoReply { .. } | NeonError::Undecodable { .. } => {
            false
        }
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

/// A deletion was refused: it is tried a few times while the project is locked, then left for the
/// next run. Before the backup it is tried for longer, because what goes instead is worth more.
fn delete_failed(run: &mut Run, error: &NeonError, meaning: Disposition, now: Timestamp) {
    let most = if run.checkpoint.verdict.is_some() { LOOKS_AT_THE_END } else { ATTEMPTS_PER_STEP };
    if meaning != Disposition::Retry && meaning != Disposition::Observe
        || run.checkpoint.attempt >= most
    {
        let skipped = run.seen.prune_plan.as_mut().and_then(|plan| plan.left.pop());
        let name = match skipped {
            Some(Deletion::Endpoint(id)) => id.to_string(),
            Some(Deletion::Branch(_, name, _) | Deletion::Snapshot(_, name)) => name,
            None => return,
        };
        run.checkpoint.prune.skipped.push((name, error.to_string()));
        run.checkpoint.attempt = 1;
        return;
    }
    run.checkpoint.not_before = Some(after(now, wait_after(run.checkpoint.attempt, Some(error))));
    run.checkpoint.attempt += 1;
}

#[cfg(test)]
mod tests;
