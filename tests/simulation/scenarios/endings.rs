//! What people are told of how a run ended, and of what staging holds then.

use firstlight::record::Report;
use firstlight::verify::CheckKind;
use simulation::faults::Fault;
use simulation::script::{Happening, Script};

use crate::{planned, play, report, run_traced};

/// Runs a plan, and returns what is recorded of today's run.
fn recorded(faults: &str) -> Report {
    report(&run_traced(&format!("{faults}/no_crash/fresh/one_tick")))
}

/// Returns how today's run ended, and what staging is said to hold.
fn ended(faults: &str) -> (String, String) {
    let report = recorded(faults);
    (report.status.as_str().to_owned(), report.staging.unwrap_or_default())
}

#[test]
fn what_staging_holds_is_said_as_it_was_seen_last() {
    let table = [
        ("plain/-", "succeeded", "Staging holds backup-20261121, verified."),
        ("plain/getProject#1=refused_401", "failed", "Staging is untouched."),
        // Its reply was lost: what it made is seen in Neon alone.
        (
            "plain/restoreProjectBranch#1=applied_and_lost+listProjectBranches#3=refused_401",
            "failed",
            "Staging is untouched.",
        ),
        (
            "plain/restoreProjectBranch#1=applied_and_lost+listProjectBranches#4=refused_401",
            "failed",
            "Staging is being restored from backup-20261121 and is not ready.",
        ),
        (
            "plain/restoreProjectBranch#1=applied_and_lost+listProjectBranches#5=refused_401",
            "failed",
            "Staging holds backup-20261121, not verified.",
        ),
        (
            "plain/restoreProjectBranch#1=operation_fails",
            "failed",
            "Staging is being restored from backup-20261121 and is not ready.",
        ),
        (
            "protected/log_in#1=refused_401",
            "failed",
            "Staging holds backup-20261121, not verified.",
        ),
        (
            "roll_back/-",
            "failed",
            "Staging was rolled back to the state before this run (child of staging-of-20261120).",
        ),
        (
            "roll_back/restoreProjectBranch#2=operation_fails",
            "failed",
            "Staging was being rolled back, which did not end well (child of staging-of-20261120).",
        ),
        (
            "plain/catalogue#2=staging_restored",
            "superseded",
            "Staging is a child of production, not of this run's backup.",
        ),
        ("plain/give_password#1=staging_deleted", "failed", "Staging is gone."),
        ("protected/log_in#1=staging_deleted", "failed", "Staging is gone."),
        (
            "in_use/listProjectBranches#5=refused_401",
            "failed",
            "What staging holds could not be observed; look before using it.",
        ),
    ];
    for (faults, status, staging) in table {
        assert_eq!(
            ended(faults),
            (status.to_owned(), staging.to_owned()),
            "cargo xtask sim --replay '{faults}/no_crash/fresh/one_tick'"
        );
    }
}

#[test]
fn what_happens_to_staging_before_its_success_is_told_is_told_instead() {
    // The notice cannot be stored at first; four seconds later everything is looked at again.
    let told = |fault: Fault| {
        let faults = vec![planned("kv:notice", 1, Fault::StoreFails)];
        let happenings = vec![(0, Happening::Cron), (14, Happening::Outside(fault))];
        let outcome = play(&Script { faults, happenings, ..Script::default() });
        outcome.told.iter().map(|told| (told.kind.clone(), told.text.clone())).collect::<Vec<_>>()
    };
    let tells = |fault: Fault, kind: &str, text: &str| {
        let told = told(fault);
        assert!(
            told.len() == 1 && told[0].0 == kind && told[0].1.contains(text),
            "{fault}: {told:?}"
        );
    };
    tells(Fault::Nothing, "succeeded", "Staging data verified.");
    tells(
        Fault::StagingRestored,
        "superseded",
        "staging was restored from another backup meanwhile",
    );
    tells(
        Fault::StagingDeleted,
        "failed",
        "somebody deleted staging after this run had restored it",
    );
}

#[test]
fn staging_that_holds_something_else_and_is_ready_is_no_success_of_this_run() {
    let smoke_test_hangs = vec![planned("smoke", 1, Fault::Late)];
    let refused = |nth: u32| planned("listProjectBranches", nth, Fault::Refused(503));
    let verdict_waits_for_the_store =
        vec![planned("kv:notice", 1, Fault::StoreFails), refused(6), refused(7)];
    // For as long as somebody's restore takes, so that the next look finds staging ready.
    for faults in [smoke_test_hangs, verdict_waits_for_the_store] {
        let happenings =
            vec![(0, Happening::Cron), (14, Happening::Outside(Fault::StagingRestored))];
        let outcome = play(&Script { faults, happenings, ..Script::default() });
        let told: Vec<&str> = outcome.told.iter().map(|told| told.kind.as_str()).collect();
        assert_eq!(told, ["superseded"], "{:#?}", outcome.trace);
        assert_eq!(
            report(&outcome).staging.as_deref(),
            Some("Staging is a child of production, not of this run's backup.")
        );
    }
}

#[test]
fn a_success_that_people_were_told_stays_one_where_its_result_could_not_be_stored_at_first() {
    // The notice is stored and taken, the result is not; four seconds later everything is looked at
    // again.
    for fault in [Fault::Nothing, Fault::StagingRestored, Fault::StagingDeleted] {
        let faults = vec![planned("kv:result", 1, Fault::StoreFails)];
        let happenings = vec![(0, Happening::Cron), (15, Happening::Outside(fault))];
        let outcome = play(&Script { faults, happenings, ..Script::default() });
        let told: Vec<&str> = outcome.told.iter().map(|told| told.kind.as_str()).collect();
        assert_eq!(
            (told, report(&outcome).status.as_str()),
            (vec!["succeeded"], "succeeded"),
            "{fault}"
        );
    }
}

#[test]
fn a_run_whose_staging_somebody_restored_before_it_was_read_says_no_more_than_that() {
    let report = recorded("plain/listProjectBranches#4=staging_restored");
    assert_eq!(report.reason.as_deref(), Some("staging is no child of this run's backup any more"));
    let is_of_staging = |kind: CheckKind| {
        matches!(
            kind,
            CheckKind::Content | CheckKind::Schema | CheckKind::Sequence | CheckKind::LogIn
        )
    };
    assert!(
        !report.checks.iter().any(|check| is_of_staging(check.kind)),
        "nothing was compared: {:#?}",
        report.checks
    );
}

#[test]
fn a_run_has_each_step_once_and_a_reason_only_where_it_did_not_succeed() {
    let good = recorded("plain/-");
    assert_eq!((good.reason, good.runbook), (None, None));
    let steps: Vec<usize> = good.steps.iter().map(|step| step.step.number()).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6, 7]);
    let bad = recorded("plain/content#1=refused_401");
    assert!(bad.reason.is_some_and(|reason| reason.contains("answered 401")));
    assert_eq!((bad.runbook.as_deref(), bad.step.number()), (Some("run-failed.md"), 3));
    let steps: Vec<usize> = bad.steps.iter().map(|step| step.step.number()).collect();
    assert_eq!(steps, [1, 2, 3, 7]);
}
