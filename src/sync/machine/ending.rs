//! The end of a run: one last look at staging, then the verdict.

use super::{Action, Conclusion, Decision, View, need};
use crate::neon::wire::{Branch, BranchList};
use crate::sync::checkpoint::{Ending, Origin, RunStatus};
use crate::sync::retry::RUN_FAILED;

const UNSEEN: &str = "look at staging once more before calling it a copy: Neon did not answer";
const UNKNOWN: &str = "What staging holds could not be observed; look before using it.";
const DELETED: &str = "somebody deleted staging after this run had restored it; make it again and \
    name it in staging_branch";
const GONE: &str = "Staging is gone.";
const OVERTAKEN: &str =
    "staging was restored from another backup meanwhile, or is being restored again";

/// Ends a run that has done all its steps.
pub(super) fn succeed() -> Decision {
    Decision::Conclude(Conclusion::End(Ending {
        status: RunStatus::Succeeded,
        reason: String::new(),
        runbook: String::new(),
    }))
}

/// Looks at staging and gives the verdict.
pub(super) fn next(view: &View<'_>) -> Decision {
    let Some(ending) = &view.checkpoint.ending else { return succeed() };
    if view.checkpoint.restore.is_none() && view.checkpoint.backup.is_none() {
        return Decision::Conclude(Conclusion::Verdict("Staging is untouched.".to_owned()));
    }
    let claims_a_copy = ending.status == RunStatus::Succeeded && view.checkpoint.restore.is_some();
    if view.seen.is_blind && claims_a_copy {
        return super::fail(UNSEEN.to_owned());
    }
    if view.seen.is_blind {
        return Decision::Conclude(Conclusion::Verdict(UNKNOWN.to_owned()));
    }
    let branches = need!(view.branches());
    let Some(staging) = branches.by_id(&view.pair.staging_branch) else {
        // Nobody has put anything in its place: that is no business of another run's.
        return if claims_a_copy {
            super::fail(DELETED.to_owned())
        } else {
            Decision::Conclude(Conclusion::Verdict(GONE.to_owned()))
        };
    };
    let is_ours = is_our_copy(view, staging);
    if claims_a_copy && !(is_ours && is_ready(staging)) {
        return super::end(RunStatus::Superseded, OVERTAKEN.to_owned());
    }
    let made_a_copy = view.checkpoint.restore.is_some() && view.checkpoint.roll_back.is_none();
    if ending.status == RunStatus::Failed && made_a_copy && !is_ours && !is_as_before(view, staging)
    {
        // What went wrong went wrong with what somebody else has made of staging since.
        return super::end(RunStatus::Superseded, format!("{OVERTAKEN} ({})", ending.reason));
    }
    Decision::Conclude(Conclusion::Verdict(describe(view, branches, staging, ending.status)))
}

/// Tells the verdict. A success that was not told at once, because the tick or the store ended
/// first, needs another look.
pub(super) fn publish(view: &View<'_>) -> Decision {
    let claims_a_copy =
        view.checkpoint.status() == RunStatus::Succeeded && view.checkpoint.restore.is_some();
    if !claims_a_copy {
        return Decision::Act(Action::Publish);
    }
    let overtaken = |status, reason: &str, staging| {
        let ending = Ending { status, reason: reason.to_owned(), runbook: RUN_FAILED.to_owned() };
        Decision::Conclude(Conclusion::Overtaken(ending, staging))
    };
    if view.seen.is_blind {
        return overtaken(RunStatus::Failed, UNSEEN, UNKNOWN.to_owned());
    }
    let branches = need!(view.branches());
    let Some(staging) = branches.by_id(&view.pair.staging_branch) else {
        return overtaken(RunStatus::Failed, DELETED, GONE.to_owned());
    };
    if is_our_copy(view, staging) && is_ready(staging) {
        return Decision::Act(Action::Publish);
    }
    overtaken(
        RunStatus::Superseded,
        OVERTAKEN,
        describe(view, branches, staging, RunStatus::Superseded),
    )
}

/// Returns whether staging is a child of this run's backup.
fn is_our_copy(view: &View<'_>, staging: &Branch) -> bool {
    staging.parent_id.is_some()
        && staging.parent_id.as_ref() == view.checkpoint.backup.as_ref().map(|backup| &backup.id)
}

/// Returns whether staging is what it was before this run's restore was accepted: a restore that
/// failed may leave the old state.
fn is_as_before(view: &View<'_>, staging: &Branch) -> bool {
    let before = view.checkpoint.restore.as_ref().and_then(|restore| restore.before.as_ref());
    before.is_some_and(|before| Origin::of(staging).as_ref() == Some(before))
}

/// Returns whether nobody is overwriting staging at this moment.
fn is_ready(staging: &Branch) -> bool {
    staging.is_at_rest()
}

/// Says what staging holds.
fn describe(view: &View<'_>, branches: &BranchList, staging: &Branch, status: RunStatus) -> String {
    let is_ours = is_our_copy(view, staging);
    let backup = view
        .checkpoint
        .backup
        .as_ref()
        .map_or_else(|| "the backup".to_owned(), |backup| backup.name.to_string());
    let parent = staging.parent_id.as_ref().and_then(|id| branches.by_id(id));
    let parent = parent.map_or_else(|| "a root".to_owned(), |parent| parent.name.to_string());
    if is_ours && !is_ready(staging) {
        return format!("Staging is being restored from {backup} and is not ready.");
    }
    match (
        is_ours,
        status == RunStatus::Succeeded,
        &view.checkpoint.restore,
        &view.checkpoint.roll_back,
    ) {
        (true, true, ..) => format!("Staging holds {backup}, verified."),
        (true, false, ..) => format!("Staging holds {backup}, not verified."),
        (false, _, _, Some(roll_back)) if !roll_back.is_done => {
            format!("Staging was being rolled back, which did not end well (child of {parent}).")
        }
        (false, _, _, Some(_)) => {
            format!("Staging was rolled back to the state before this run (child of {parent}).")
        }
        (false, _, None, None) => "Staging is untouched.".to_owned(),
        (false, _, Some(_), None) if is_as_before(view, staging) => {
            format!(
                "Staging is what it was before this run, whose restore did not end well (child of \
                 {parent})."
            )
        }
        (false, _, Some(_), None) => {
            format!("Staging is a child of {parent}, not of this run's backup.")
        }
    }
}
