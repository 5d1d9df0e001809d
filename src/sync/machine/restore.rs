//! Step 4: overwrites staging with the backup, and gives its roles the passwords they had.

use super::operations::{Awaited, CLEANING_UP};
use super::{
    Conclusion, Decision, Orders, View, act, compute, end, fail, need, passwords, preflight,
};
use crate::id::BranchName;
use crate::names::{displaced_stem, free_name, is_our_backup};
use crate::neon::wire::{Branch, BranchList, Endpoint, Operation, Progress};
use crate::neon::{Call, RestoreBranch};
use crate::sync::checkpoint::{Backup, Restore, RunStatus};
use crate::sync::step::FIRST_LOOK_RESTORE;
use crate::time::after;

/// Looks at a staging that is not ready before it is asked whether Neon is still at work on it:
/// five seconds, as the gaps between looks grow.
const LOOKS_IN_VAIN: u32 = 5;

/// How long before this run somebody may have begun what Neon is still at on staging: an operation
/// takes seconds, one that takes an hour hangs.
const BEFORE_THE_RUN: chrono::TimeDelta = chrono::TimeDelta::hours(1);

/// Decides the next action of the restore.
pub(super) fn next(view: &View<'_>) -> Decision {
    let Some(backup) = &view.checkpoint.backup else {
        return fail("restore staging: this run has no backup".to_owned());
    };
    let Some(restore) = &view.checkpoint.restore else { return look_and_restore(view, backup) };
    if !restore.is_done {
        need!(view.await_last(&awaited(view, backup, restore, "restore staging")));
        return Decision::Conclude(Conclusion::RestoreDone);
    }
    after_restore(view, backup, restore)
}

/// Returns what a restore of staging has started. Where its reply was lost, that began after the
/// backup was made.
pub(super) fn awaited<'a>(
    view: &View<'a>,
    backup: &Backup,
    restore: &'a Restore,
    why: &'static str,
) -> Awaited<'a> {
    let first_look = restore.accepted_at.map_or(view.now, |at| after(at, FIRST_LOOK_RESTORE));
    // Neon's instants are compared with each other alone: what a restore has started is younger
    // than its backup.
    let since = backup.made_at;
    Awaited {
        branch: &view.pair.staging_branch,
        named: &restore.operations,
        since,
        first_look,
        why,
    }
}

/// Looks at everything again, and restores if nothing objects.
fn look_and_restore(view: &View<'_>, backup: &Backup) -> Decision {
    let branches = need!(view.branches());
    let endpoints = need!(view.endpoints());
    let orders = need!(view.orders());
    need!(is_still_wanted(view, branches, endpoints, orders));
    need!(can_be_restored_from(branches, backup));
    let Some(staging) = branches.by_id(&view.pair.staging_branch) else {
        return fail("look again before restoring: staging is gone".to_owned());
    };
    if staging.parent_id.as_ref() == Some(&backup.id) {
        return Decision::Conclude(Conclusion::RestoreFound);
    }
    if is_changing(staging) {
        // A restore is under way, perhaps our own whose reply was lost: what it makes decides what
        // is to be done.
        return wait_until_ready(view, staging);
    }
    if let Some(name) = displaced_since(branches, staging, backup) {
        let reason = format!(
            "{name} is a child of this run's backup: this run has restored staging already, and \
             that state was displaced since"
        );
        return end(RunStatus::Superseded, reason);
    }
    if let Some(hold) = &orders.hold {
        return Decision::Conclude(Conclusion::Held(hold.clone()));
    }
    if let Some(newer) = newer_restore(view, branches, staging, backup) {
        return end(
            RunStatus::Superseded,
            format!("staging was restored from the newer backup {newer} meanwhile"),
        );
    }
    let staging_name =
        view.checkpoint.pins.as_ref().map_or(&staging.name, |pins| &pins.staging_name);
    let displaced_name =
        free_name(branches, &displaced_stem(view.pair, branches, staging, staging_name));
    if let Some(intended) =
        view.checkpoint.intended_name.as_ref().filter(|intended| **intended != displaced_name)
    {
        let reason = format!(
            "somebody has changed staging while a restore of this run may still arrive (under \
             {intended}); a second one, under {displaced_name}, could overwrite staging twice"
        );
        return end(RunStatus::Cancelled, reason);
    }
    act(Call::RestoreBranch(RestoreBranch {
        branch: view.pair.staging_branch.clone(),
        source: backup.id.clone(),
        displaced_name,
    }))
}

/// Returns the end of the run where somebody or something objects to what it was started for.
fn is_still_wanted(
    view: &View<'_>,
    branches: &BranchList,
    endpoints: &[Endpoint],
    orders: &Orders,
) -> Result<(), Decision> {
    if let Some(cancelled) = &orders.cancelled {
        return Err(end(RunStatus::Cancelled, cancelled.told("before staging was restored")));
    }
    if view.pair.settings != view.checkpoint.settings {
        let reason = "the pair's configuration has changed since the run started".to_owned();
        return Err(end(RunStatus::Cancelled, reason));
    }
    if let Some(objection) = preflight::objection(view, branches, endpoints) {
        let reason = format!("look again before restoring: {objection}");
        return Err(end(RunStatus::Cancelled, reason));
    }
    if let Some(pins) =
        view.checkpoint.pins.as_ref().filter(|pins| pins.staging != view.pair.staging_branch)
    {
        let reason =
            format!("look again before restoring: staging was {}, expected the same", pins.staging);
        return Err(end(RunStatus::Cancelled, reason));
    }
    Ok(())
}

/// Returns the end of the run where its backup cannot be restored from.
fn can_be_restored_from(branches: &BranchList, backup: &Backup) -> Result<(), Decision> {
    match branches.by_id(&backup.id) {
        None => Err(fail(format!(
            "backup {} ({}) was made by this run and is gone",
            backup.name, backup.id
        ))),
        Some(branch) if branch.expires_at.is_some() => Err(fail(format!(
            "backup {} has been given an end, and Neon does not restore from such a branch",
            backup.name
        ))),
        Some(_) => Ok(()),
    }
}

/// Looks again while Neon is at work on staging. Where it is not, staging will not become ready by
/// itself, and somebody has to look.
fn wait_until_ready(view: &View<'_>, staging: &Branch) -> Decision {
    if view.seen.looks < LOOKS_IN_VAIN {
        return Decision::Conclude(Conclusion::LookAgain);
    }
    let since = view.checkpoint.started_at - BEFORE_THE_RUN;
    let of_staging =
        need!(view.listed_of(&staging.id, since, view.now, "looking at what Neon does to staging"));
    if of_staging.iter().any(|operation| operation.progress() == Progress::UnderWay) {
        return Decision::Conclude(Conclusion::LookAgain);
    }
    // What follows one that has failed is cancelled.
    let is_told = |operation: &&&Operation| {
        operation.progress() != Progress::EndedWell && operation.action != CLEANING_UP
    };
    let failed = of_staging.iter().find(is_told);
    if let Some(operation) = failed {
        need!(view.await_late_retry(operation));
    }
    if !view.seen.is_at_rest {
        // The branches were listed before: what was under way then may have made it ready since.
        return Decision::Conclude(Conclusion::AtRest);
    }
    let failed = failed.map_or_else(String::new, |operation| {
        format!("; operation {} on it ended {:?}", operation.id, operation.status_text())
    });
    let (name, state) = (&staging.name, &staging.current_state);
    fail(format!(
        "{name} ({}) is {state:?}, expected \"ready\", and no operation of Neon's is under way on \
         it{failed}; restore it by hand, or ask Neon",
        staging.id
    ))
}

/// Why nothing is written any more to a staging that somebody has made the default branch.
pub(super) const DEFAULT_BY_NOW: &str = "it is the project's default branch by now";

/// Returns why staging may not be overwritten any more: who reads it may have changed since the run
/// began.
///
/// Neon itself restores onto a default branch, so nothing but this look stands before one that
/// somebody has made production meanwhile.
pub(super) fn is_taken(staging: &Branch) -> Option<&'static str> {
    let is_default = staging.default.then_some(DEFAULT_BY_NOW);
    is_default.or_else(|| staging.protected.then_some("it is protected by now"))
}

/// Returns whether Neon is making a branch what it is going to be.
pub(super) fn is_changing(branch: &Branch) -> bool {
    matches!(branch.current_state.as_str(), "init" | "resetting")
}

/// Returns a branch that may keep what this run once made of staging: a run that has forgotten that
/// must not restore again.
///
/// A displaced branch keeps its parent, so any other child of this run's backup may be one,
/// whatever somebody called it.
fn displaced_since<'a>(
    branches: &'a BranchList,
    staging: &Branch,
    backup: &'a Backup,
) -> Option<&'a BranchName> {
    branches.children(&backup.id).find(|branch| branch.id != staging.id).map(|branch| &branch.name)
}

/// Returns the backup of ours that staging is a child of, when it is newer than this run's.
fn newer_restore(
    view: &View<'_>,
    branches: &BranchList,
    staging: &Branch,
    backup: &Backup,
) -> Option<String> {
    let parent = branches.by_id(staging.parent_id.as_ref()?)?;
    let ours = branches.by_id(&backup.id)?;
    (is_our_backup(view.pair, branches, parent) && parent.created_at > ours.created_at)
        .then(|| parent.name.to_string())
}

/// Sees that staging is what the restore made, finds the displaced branch, and looks after the
/// passwords.
fn after_restore(view: &View<'_>, backup: &Backup, restore: &Restore) -> Decision {
    // Its operations were seen to end well, so that it can be asked.
    let is_ready = !restore.operations.is_empty();
    if is_ready && view.pair.keep_passwords && !view.checkpoint.passwords.is_done {
        need!(compute::ask_first(view));
    }
    let branches = need!(view.branches());
    let Some(staging) = branches.by_id(&view.pair.staging_branch) else {
        return fail("look at staging after its restore: it is gone".to_owned());
    };
    if staging.parent_id.as_ref() != Some(&backup.id) {
        return end(
            RunStatus::Superseded,
            "staging is no child of this run's backup any more".to_owned(),
        );
    }
    if !staging.is_at_rest() {
        need!(view.await_all(&awaited(view, backup, restore, "restore staging")));
        return wait_until_ready(view, staging);
    }
    if restore.displaced_id.is_none() && !view.checkpoint.passwords.is_done {
        let found = branches.by_name(&restore.displaced_name).map(|branch| branch.id.clone());
        if found.is_some() {
            return Decision::Conclude(Conclusion::DisplacedFound(found));
        }
    }
    if !view.checkpoint.passwords.is_done {
        return passwords::next(view, restore);
    }
    Decision::Conclude(Conclusion::StepDone)
}
