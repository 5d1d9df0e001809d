//! What it means for the run that Neon refused a call, or that nobody knows what came of it.
//!
//! In: a call, its error, the run. Out: the run, changed: a refusal that is an answer, another
//! attempt, a deletion that is left for the next run, or the end.
//!
//! Invariants: `sync::retry` alone decides what an error means; here is what follows for the run.
//! After a write, or after a call of which nobody knows what came of it, everything is looked at
//! again.

use super::{end, retry};
use crate::config::{Pair, Policy};
use crate::neon::message::is_quota;
use crate::neon::{Call, EndpointKind, NeonError};
use crate::sync::checkpoint::RunStatus;
use crate::sync::machine::prune::Deletion;
use crate::sync::machine::{Run, posture, snapshot};
use crate::sync::retry::{Disposition, disposition, wait_after};
use crate::sync::step::ATTEMPTS_PER_STEP;
use crate::time::{Timestamp, after};

/// Looks at the end of a run, or at pruning, that may fail before they are given up.
///
/// The verdict waits for them: 2 + 4 + 8 = 14 s at most, and a notice that is late is worse than
/// one that says "could not be observed".
const LOOKS_AT_THE_END: u32 = 4;

/// A call failed: what that means is decided by `sync::retry`, except for the few calls whose
/// refusal is an answer.
pub(super) fn call_failed(
    run: &mut Run,
    call: &Call,
    error: &NeonError,
    pair: &Pair,
    now: Timestamp,
) {
    let meaning = disposition(error, call);
    if is_told_and_no_more(run, call, error, meaning)
        || is_answer(run, call, error, meaning, pair.verification.people, now)
    {
        return;
    }
    if snapshot::is_under_way(run) {
        return snapshot::call_failed(run, call, error, meaning, now);
    }
    if matches!(call, Call::DeleteBranch(_) | Call::DeleteEndpoint(_) | Call::DeleteSnapshot(_)) {
        delete_failed(run, error, meaning, now);
        return;
    }
    if run.checkpoint.ending.is_some() {
        unseen_at_the_end(run, error, meaning, now);
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

/// Handles a failure that is itself an answer to what was asked. Returns whether it is one.
fn is_answer(
    run: &mut Run,
    call: &Call,
    error: &NeonError,
    meaning: Disposition,
    policy: Policy,
    now: Timestamp,
) -> bool {
    if *call == Call::ListPermissions
        && (policy != Policy::Fail || matches!(meaning, Disposition::Fail(_)))
    {
        // A key of one project may not be told; that stops nothing.
        run.checkpoint.checks.push(posture::unknown_people(&error.to_string(), policy));
        return true;
    }
    if let (Call::RevealPassword(branch, role), NeonError::Status { status: 404 | 412, .. }) =
        (call, error)
    {
        run.seen.passwords.insert((branch.clone(), role.clone()), None);
        return true;
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
        return true;
    }
    if let (Call::GetOperation(id), NeonError::Status { status: 404, .. }) = (call, error) {
        run.seen.operations.is_unknown(id.clone());
        return true;
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
        return true;
    }
    false
}

/// Counts a look at the end of a run that failed. Nothing can fail any more; what cannot be seen is
/// said to be unseen.
fn unseen_at_the_end(run: &mut Run, error: &NeonError, meaning: Disposition, now: Timestamp) {
    // A success is worth waiting for until it is late.
    let has_succeeded =
        run.checkpoint.ending.as_ref().is_some_and(|ending| ending.status == RunStatus::Succeeded);
    let is_good = has_succeeded && run.checkpoint.verdict.is_none();
    let is_enough = run.checkpoint.attempt >= LOOKS_AT_THE_END
        && !(is_good && run.checkpoint.may_try_again(now));
    run.seen.is_blind = !matches!(meaning, Disposition::Retry) || is_enough;
    run.checkpoint.not_before =
        (!run.seen.is_blind).then(|| after(now, wait_after(run.checkpoint.attempt, Some(error))));
    run.checkpoint.attempt += 1;
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
