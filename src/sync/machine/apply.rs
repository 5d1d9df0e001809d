//! What an outcome means for the run.

use super::prune::Deletion;
use super::{Action, Conclusion, Outcome, Purpose, Query, Reading, RoleSight, Run, Side};
use crate::config::Pair;
use crate::id::{BranchId, OperationId, RoleName};
use crate::neon::sql::{Rows, SqlError};
use crate::neon::wire::{Branch, Endpoint, Operation};
use crate::neon::{Call, EndpointKind, NeonError, Reply};
use crate::sync::checkpoint::{Backup, CheckBranch, Ending, Pins, Restore, RunStatus, Verdict};
use crate::sync::retry::{Disposition, RUN_FAILED, disposition, wait_after};
use crate::sync::step::{ATTEMPTS_PER_STEP, FIRST_LOOK_CREATE, Step, look_gap};
use crate::sync::verify::{Check, CheckOutcome, content_batches, decode_catalogue, sees_all_rows};
use crate::time::{Timestamp, after};

/// Looks at the end of a run, or at pruning, that may fail before they are given up.
///
/// The verdict waits for them: 2 + 4 + 8 = 14 s at most, and a notice that is late is worse than one that says "could not be
/// observed".
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
pub fn apply(run: &mut Run, action: &Action, outcome: Outcome, pair: &Pair, now: Timestamp) -> Result<(), IllegalTransition> {
    match (action, outcome) {
        (Action::Call(call), Outcome::Replied(reply)) => replied(run, call, *reply, now),
        (Action::Call(call), Outcome::Failed(error)) => {
            call_failed(run, call, &error, now);
            Ok(())
        }
        (Action::Query(query), Outcome::Queried(rows)) => {
            if queried(run, query, &rows).is_none() {
                retry(run, &format!("query {}: the answer makes no sense", query.database), None, now);
            }
            Ok(())
        }
        (Action::Query(query), Outcome::QueryFailed(error)) => {
            query_failed(run, query, &error, pair, now);
            Ok(())
        }
        (Action::ReadOrders, Outcome::Orders(orders)) => {
            if orders.is_none() {
                retry(run, "read whether the run was cancelled: the store did not answer", None, now);
            }
            run.seen.orders = orders;
            Ok(())
        }
        (Action::ReadVerified(_), Outcome::Verified(verified)) => {
            if verified.is_none() {
                run.checkpoint.warn("pruning: the store did not say which backups are verified; nothing was deleted".to_owned());
                run.seen.is_blind = true;
            }
            run.seen.verified_backups = verified;
            Ok(())
        }
        (Action::Smoke(_), Outcome::Smoked(check)) => {
            run.checkpoint.checks.push(check);
            Ok(())
        }
        (Action::Publish, Outcome::Published(outbox)) => {
            run.checkpoint.is_published = true;
            run.checkpoint.outbox = outbox;
            run.wants_save = true;
            Ok(())
        }
        _ => Err(IllegalTransition),
    }
}

/// Takes up a reply of Neon's.
fn replied(run: &mut Run, call: &Call, reply: Reply, now: Timestamp) -> Result<(), IllegalTransition> {
    match reply {
        Reply::Project(project) => run.seen.project = Some(project),
        Reply::Branches(branches) => run.seen.branches = Some(branches),
        Reply::Endpoints(endpoints) => run.seen.endpoints = Some(endpoints),
        Reply::Databases(databases) => run.seen.databases = Some(databases),
        Reply::Roles(branch, roles) => {
            run.seen.roles.insert(branch, roles);
        }
        Reply::Password(branch, role, password) => {
            run.seen.passwords.insert((branch, role), Some(password));
        }
        Reply::Operations(operations) => run.seen.operations = Some(operations),
        Reply::Created(branch, endpoints, operations) => created(run, branch, endpoints, &operations, now),
        Reply::EndpointCreated(endpoint) => run.seen.endpoints.get_or_insert_default().push(endpoint),
        Reply::Restored(_, operations) => {
            let Call::RestoreBranch(call) = call else { return Err(IllegalTransition) };
            let restore = Restore {
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
        Reply::Deleted => deleted(run),
    }
    Ok(())
}

fn ids(operations: &[Operation]) -> Vec<OperationId> {
    operations.iter().map(|operation| operation.id.clone()).collect()
}

/// A branch was made: the backup, or the one on which tables are compared again.
fn created(run: &mut Run, branch: Branch, endpoints: Vec<Endpoint>, operations: &[Operation], now: Timestamp) {
    let operations = ids(operations);
    let known = run.seen.endpoints.take();
    run.seen.forget();
    run.seen.endpoints = known.map(|mut known| {
        known.extend(endpoints);
        known
    });
    if let Some(check) = run.checkpoint.check.as_mut() {
        check.id = Some(branch.id);
        check.operations = operations;
        run.seen.look_at = Some(after(now, FIRST_LOOK_CREATE));
        return;
    }
    run.checkpoint.backup = Some(new_backup(&branch, now, operations));
}

/// Returns the record of a backup that is being made.
fn new_backup(branch: &Branch, accepted_at: Timestamp, operations: Vec<OperationId>) -> Backup {
    let (id, name) = (branch.id.clone(), branch.name.clone());
    Backup { id, name, lsn: None, accepted_at, operations, is_ready: false, is_verified: false }
}

/// A call failed: what that means is decided by `sync::retry`, except for the few calls whose refusal is an answer.
fn call_failed(run: &mut Run, call: &Call, error: &NeonError, now: Timestamp) {
    let meaning = disposition(error, call);
    if let (Call::RevealPassword(branch, role), NeonError::Status { status: 404 | 412, .. }) = (call, error) {
        run.seen.passwords.insert((branch.clone(), role.clone()), None);
        return;
    }
    if let (Call::CreateBranch(_), Some(check), Disposition::Fail(_)) = (call, run.checkpoint.check.as_mut(), meaning) {
        check.refusal = Some(error.to_string());
        return;
    }
    if let (Call::CreateBranch(create), Disposition::Fail(_)) = (call, meaning)
        && create.endpoint == EndpointKind::ReadOnly
        && is_about_the_endpoint(error)
    {
        // Unverified: Neon may not give a branch a read-only endpoint alone. A read-write one is read just as well.
        run.checkpoint.reads_by_writer = true;
        run.checkpoint.warn(format!("the backup has a read-write endpoint: {error}"));
        return;
    }
    if matches!(call, Call::DeleteBranch(_) | Call::DeleteEndpoint(_)) {
        delete_failed(run, error, meaning, now);
        return;
    }
    if run.checkpoint.ending.is_some() {
        // Nothing can fail any more; what cannot be seen is said to be unseen.
        run.checkpoint.attempt += 1;
        run.seen.is_blind = !matches!(meaning, Disposition::Retry) || run.checkpoint.attempt > LOOKS_AT_THE_END;
        run.checkpoint.not_before = (!run.seen.is_blind).then(|| after(now, wait_after(run.checkpoint.attempt - 1, Some(error))));
        return;
    }
    match meaning {
        Disposition::Retry => retry(run, &error.to_string(), Some(error), now),
        Disposition::Observe => {
            run.seen.forget();
            retry(run, &error.to_string(), Some(error), now);
        }
        Disposition::Fail(runbook) => {
            run.checkpoint.record_error(error.to_string(), now);
            end(run, RunStatus::Failed, error.to_string(), runbook);
        }
    }
}

/// Returns whether a refusal to make a branch may be about its endpoint.
fn is_about_the_endpoint(error: &NeonError) -> bool {
    match error {
        NeonError::Status { status: 400 | 422, code, message, .. } => !code.contains("EXCEEDED") && message.contains("endpoint"),
        NeonError::Status { .. } | NeonError::NoReply { .. } | NeonError::Undecodable { .. } => false,
    }
}

/// Counts an attempt and waits, or ends the run when there were enough.
fn retry(run: &mut Run, text: &str, error: Option<&NeonError>, now: Timestamp) {
    run.checkpoint.record_error(text.to_owned(), now);
    if run.checkpoint.attempt >= ATTEMPTS_PER_STEP {
        let reason = format!("{text} (after {} attempts)", run.checkpoint.attempt);
        end(run, RunStatus::Failed, reason, RUN_FAILED);
        return;
    }
    run.checkpoint.not_before = Some(after(now, wait_after(run.checkpoint.attempt, error)));
    run.checkpoint.attempt += 1;
}

fn end(run: &mut Run, status: RunStatus, reason: String, runbook: &str) {
    let ending = Ending { status, reason, runbook: runbook.to_owned() };
    run.checkpoint.ending = Some(ending);
    // Whatever was seen before is not what staging holds at the end.
    run.seen.forget();
    run.checkpoint.attempt = 1;
    run.checkpoint.not_before = None;
}

/// Something of ours is gone.
fn deleted(run: &mut Run) {
    let Some(deletion) = run.seen.prune_plan.as_mut().and_then(|plan| plan.left.pop()) else { return };
    match deletion {
        Deletion::Endpoint(id) => run.checkpoint.prune.deleted_endpoints.push(id),
        Deletion::Branch(_, name) => run.checkpoint.prune.deleted.push(name),
    }
    run.checkpoint.attempt = 1;
}

/// A deletion was refused: it is tried a few times while the project is locked, then left for the next run.
fn delete_failed(run: &mut Run, error: &NeonError, meaning: Disposition, now: Timestamp) {
    if meaning != Disposition::Retry && meaning != Disposition::Observe || run.checkpoint.attempt >= LOOKS_AT_THE_END {
        let skipped = run.seen.prune_plan.as_mut().and_then(|plan| plan.left.pop());
        let name = match skipped {
            Some(Deletion::Endpoint(id)) => id.to_string(),
            Some(Deletion::Branch(_, name)) => name,
            None => return,
        };
        run.checkpoint.prune.skipped.push((name, error.to_string()));
        run.checkpoint.attempt = 1;
        return;
    }
    run.checkpoint.not_before = Some(after(now, wait_after(run.checkpoint.attempt, Some(error))));
    run.checkpoint.attempt += 1;
}

/// Takes up the rows of a query; `None` when they make no sense.
fn queried(run: &mut Run, query: &Query, rows: &[Rows]) -> Option<()> {
    match &query.purpose {
        Purpose::SeesAllRows => {
            let sight = if sees_all_rows(rows)? { RoleSight::All } else { RoleSight::Filtered };
            run.seen.sees_all_rows = Some(sight);
        }
        Purpose::Catalogue(side) => {
            let catalogue = decode_catalogue(rows)?;
            let only = (*side == Side::Check).then(|| run.checkpoint.check.as_ref().map(|check| check.tables.clone())).flatten();
            let batches = content_batches(&catalogue, only.as_deref());
            let mut print = catalogue.print.clone();
            print.bytes = catalogue.bytes();
            let reading = Reading { batches, next: 0, print };
            run.seen.readings.insert((*side, query.database.clone()), reading);
            finish_reading(run, *side, query);
        }
        Purpose::Content(side, _) => {
            let reading = run.seen.readings.get_mut(&(*side, query.database.clone()))?;
            reading.batches.decode(rows, &mut reading.print)?;
            reading.next += 1;
            finish_reading(run, *side, query);
        }
        Purpose::GivePassword(displaced) => {
            let old = run.seen.passwords.get(&(displaced.clone(), query.role.clone())).cloned()?;
            run.seen.passwords.insert((query.branch.clone(), query.role.clone()), old);
            run.checkpoint.passwords.kept.push(query.role.clone());
        }
        Purpose::LogIn => run.checkpoint.passwords.logged_in.push(query.role.clone()),
    }
    Some(())
}

/// Moves a database that was read completely to the fingerprint of its side.
fn finish_reading(run: &mut Run, side: Side, query: &Query) {
    let key = (side, query.database.clone());
    let is_complete = run
        .seen
        .readings
        .get(&key)
        .is_some_and(|reading| reading.next == reading.batches.batches.len() && reading.batches.is_complete(&reading.print));
    if !is_complete {
        return;
    }
    if let Some(reading) = run.seen.readings.remove(&key) {
        run.seen.prints.entry(side).or_default().databases.insert(query.database.clone(), reading.print);
    }
}

fn query_failed(run: &mut Run, query: &Query, error: &SqlError, pair: &Pair, now: Timestamp) {
    // What was read before the error may not fit what is read after it.
    if let Purpose::Catalogue(side) | Purpose::Content(side, _) = query.purpose {
        run.seen.readings.remove(&(side, query.database.clone()));
    }
    let is_last = run.checkpoint.attempt >= ATTEMPTS_PER_STEP;
    if error.is_passing() && !is_last {
        retry(run, &error.to_string(), None, now);
        return;
    }
    match &query.purpose {
        Purpose::SeesAllRows if is_about_the_network(error) => {
            run.checkpoint.warn(format!("production could not be asked whether {} sees every row: {error}", pair.role));
            run.seen.sees_all_rows = Some(RoleSight::Unknown);
        }
        Purpose::GivePassword(_) => run.checkpoint.passwords.not_kept.push((query.role.clone(), error.to_string())),
        Purpose::LogIn => {
            run.checkpoint.passwords.logged_in.push(query.role.clone());
            let name = format!("staging: role {} logs in", query.role);
            run.checkpoint.checks.push(Check::new(name, CheckOutcome::Failed, error.to_string()));
        }
        Purpose::SeesAllRows | Purpose::Catalogue(_) | Purpose::Content(..) => {
            run.checkpoint.record_error(error.to_string(), now);
            let text = format!("{error} (as role {} on {})", query.role, query.branch);
            end(run, RunStatus::Failed, text, RUN_FAILED);
        }
    }
}

/// Returns whether the proxy would not let us in, whoever we are.
///
/// Source: neondatabase/neon `proxy`, read 2026-11-21: "This IP address … is not allowed to connect to this endpoint", "…from a
/// blocked network".
fn is_about_the_network(error: &SqlError) -> bool {
    match error {
        SqlError::Answered { message, .. } => message.contains("not allowed to connect") || message.contains("blocked network"),
        SqlError::NoReply { .. } | SqlError::Undecodable { .. } => true,
    }
}

/// Changes the run by a conclusion.
pub fn conclude(run: &mut Run, conclusion: Conclusion, pair: &Pair, now: Timestamp) {
    match conclusion {
        Conclusion::Cleared => cleared(run, pair, now),
        Conclusion::BackupFound(branch) => run.checkpoint.backup = Some(new_backup(&branch, branch.created_at, Vec::new())),
        Conclusion::BackupReady => backup_ready(run, now),
        Conclusion::BackupRead(print) => {
            run.checkpoint.fingerprint = Some(print);
            if let Some(backup) = run.checkpoint.backup.as_mut() {
                backup.is_verified = true;
            }
            run.wants_save = true;
        }
        Conclusion::Held(hold) => {
            run.checkpoint.hold = Some(hold);
            end(run, RunStatus::Succeeded, String::new(), "");
        }
        Conclusion::RestoreFound => restore_found(run),
        Conclusion::RestoreDone | Conclusion::DisplacedFound(_) => restore_progress(run, conclusion),
        Conclusion::PasswordsDone => passwords_done(run, pair),
        Conclusion::CheckNeeded(..) | Conclusion::CheckFound(_) | Conclusion::CheckReady => check_progress(run, conclusion),
        Conclusion::Compared(checks) => {
            run.checkpoint.checks.extend(checks);
            run.checkpoint.is_compared = true;
            run.seen.forget();
        }
        Conclusion::RollBackDone(reason) => end(run, RunStatus::Failed, reason, RUN_FAILED),
        Conclusion::StepDone => step_done(run, now),
        Conclusion::LookAgain => {
            run.seen.looks += 1;
            run.seen.operations = None;
            run.seen.branches = None;
            run.seen.look_at = Some(after(now, look_gap(run.seen.looks)));
        }
        Conclusion::End(ending) => {
            if !ending.reason.is_empty() {
                run.checkpoint.record_error(ending.reason.clone(), now);
            }
            end(run, ending.status, ending.reason, &ending.runbook);
        }
        Conclusion::Verdict(staging) => verdict(run, staging, now),
        Conclusion::PrunePlanned(plan) => {
            run.checkpoint.prune.kept.clone_from(&plan.kept);
            run.seen.prune_plan = Some(plan);
        }
        Conclusion::Pruned => pruned(run, now),
    }
}

/// The restore has come further.
fn restore_progress(run: &mut Run, conclusion: Conclusion) {
    let Some(restore) = run.checkpoint.restore.as_mut() else { return };
    if let Conclusion::DisplacedFound(id) = conclusion {
        restore.displaced_id = id;
        return;
    }
    restore.is_done = true;
    run.seen.forget();
}

/// The branch on which tables are compared again has come further.
fn check_progress(run: &mut Run, conclusion: Conclusion) {
    if let Conclusion::CheckNeeded(name, tables) = conclusion {
        run.checkpoint.check = Some(CheckBranch { name, id: None, operations: Vec::new(), is_ready: false, refusal: None, tables });
        run.seen.forget();
        return;
    }
    let Some(check) = run.checkpoint.check.as_mut() else { return };
    if let Conclusion::CheckFound(id) = conclusion {
        check.id = Some(id);
        return;
    }
    check.is_ready = true;
    run.seen.forget();
}

fn cleared(run: &mut Run, pair: &Pair, now: Timestamp) {
    let staging = run.seen.branches.as_ref().and_then(|branches| branches.by_id(&pair.staging_branch));
    run.checkpoint.pins = staging.map(|staging| Pins {
        project: pair.project.clone(),
        production: pair.production_branch.clone(),
        staging: staging.id.clone(),
        staging_name: staging.name.clone(),
    });
    let listed = run.seen.databases.iter().flatten().map(|database| database.name.clone());
    run.checkpoint.databases = pair.databases.clone().unwrap_or_else(|| listed.collect());
    run.checkpoint.advance(now);
}

fn backup_ready(run: &mut Run, now: Timestamp) {
    if let Some(backup) = run.checkpoint.backup.as_mut() {
        let branch = run.seen.branches.as_ref().and_then(|branches| branches.by_id(&backup.id));
        backup.lsn = branch.and_then(|branch| branch.parent_lsn);
        backup.is_ready = true;
    }
    run.seen.looks = 0;
    run.seen.look_at = None;
    run.seen.operations = None;
    run.checkpoint.advance(now);
}

/// The restore of this run was done although this checkpoint did not see it being accepted.
fn restore_found(run: &mut Run) {
    let staging_name = run.checkpoint.pins.as_ref().map(|pins| pins.staging_name.to_string()).unwrap_or_default();
    let made_at = run.checkpoint.backup.as_ref().map(|backup| backup.accepted_at);
    let mut candidates = run.seen.branches.iter().flat_map(|list| &list.branches).filter(|branch| {
        branch.name.as_str().starts_with(&format!("{staging_name}-of-")) && made_at.is_some_and(|at| branch.created_at >= at)
    });
    let only = candidates.next().filter(|_| candidates.next().is_none());
    let name = run.checkpoint.intended_name.clone().or_else(|| only.map(|branch| branch.name.clone()));
    let displaced_name = name.unwrap_or_else(|| "(unknown)".into());
    run.checkpoint.restore =
        Some(Restore { displaced_name, displaced_id: None, accepted_at: None, operations: Vec::new(), is_done: false });
    run.wants_save = true;
}

/// Writes down what became of each role.
fn passwords_done(run: &mut Run, pair: &Pair) {
    run.checkpoint.passwords.is_done = true;
    let displaced = run.checkpoint.restore.as_ref().and_then(|restore| restore.displaced_id.clone());
    if displaced.is_none() && pair.keep_passwords {
        run.checkpoint.warn("the displaced branch was not found; the passwords of staging's roles were not looked at".to_owned());
    }
    let Some(displaced) = displaced.filter(|_| pair.keep_passwords) else { return };
    let staging = &pair.staging_branch;
    let (before, present) = (run.seen.roles.get(&displaced), run.seen.roles.get(staging));
    let (Some(before), Some(present)) = (before, present) else { return };
    let gone: Vec<RoleName> =
        before.iter().filter(|role| !present.iter().any(|other| other.name == role.name)).map(|role| role.name.clone()).collect();
    let tells = |branch: &BranchId, role: &RoleName| run.seen.passwords.get(&(branch.clone(), role.clone())).is_some_and(Option::is_some);
    for role in super::passwords::common(before, present) {
        let passwords = &mut run.checkpoint.passwords;
        if passwords.kept.contains(role) || passwords.not_kept.iter().any(|(name, _)| name == role) {
            continue;
        }
        if tells(&displaced, role) && tells(staging, role) {
            passwords.kept.push(role.clone());
        } else {
            passwords.not_kept.push((role.clone(), "Neon does not tell its password".to_owned()));
        }
    }
    let list = |roles: &[RoleName]| roles.iter().map(RoleName::as_str).collect::<Vec<_>>().join(", ");
    if !gone.is_empty() {
        run.checkpoint.warn(format!("roles that staging had and production does not have are gone: {}", list(&gone)));
    }
    let not_kept: Vec<RoleName> = run.checkpoint.passwords.not_kept.iter().map(|(name, _)| name.clone()).collect();
    if !not_kept.is_empty() {
        run.checkpoint.warn(format!("roles of staging without their old password: {}", list(&not_kept)));
    }
    run.checkpoint.passwords.gone = gone;
}

fn step_done(run: &mut Run, now: Timestamp) {
    if run.checkpoint.step == Step::VerifyBackup && run.checkpoint.leaves_staging() {
        end(run, RunStatus::Succeeded, String::new(), "");
        return;
    }
    run.checkpoint.advance(now);
    if run.checkpoint.step == Step::Restore {
        // The restore looks at everything again.
        run.seen.forget();
        run.seen.orders = None;
    }
}

fn verdict(run: &mut Run, staging: String, now: Timestamp) {
    let Some(ending) = &run.checkpoint.ending else { return };
    let is_good = ending.status == RunStatus::Succeeded;
    run.checkpoint.verdict = Some(Verdict {
        status: ending.status,
        at: now,
        step: run.checkpoint.step,
        reason: (!is_good).then(|| ending.reason.clone()),
        runbook: (!is_good).then(|| ending.runbook.clone()),
        staging,
    });
    if run.checkpoint.step == Step::Prune {
        run.checkpoint.attempt = 1;
    } else {
        run.checkpoint.enter(Step::Prune, now);
    }
}

fn pruned(run: &mut Run, now: Timestamp) {
    run.seen.prune_plan = None;
    run.seen.verified_backups = None;
    if run.checkpoint.verdict.is_none() {
        run.checkpoint.prune.made_room = true;
        run.seen.forget();
        return;
    }
    run.checkpoint.prune.is_done = true;
    run.wants_save = true;
    if let Some(last) = run.checkpoint.steps.last_mut() {
        last.ended_at = Some(now);
    }
}
