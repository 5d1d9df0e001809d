//! A staging that is not what its backup holds: it is named, told first, and rolled back where that
//! is configured and safe.

use firstlight::sync::checkpoint::RunStatus;
use firstlight::verify::CheckOutcome;
use serde_json::json;
use simulation::faults::Fault;
use simulation::plan::Crash;
use simulation::run::Outcome;
use simulation::script::{Happening, Script};

use crate::comparison::check;
use crate::{count, planned, play, report, run_traced};

/// Returns the text of the day's success.
fn told(outcome: &Outcome) -> String {
    outcome
        .told
        .iter()
        .find(|told| told.kind == "succeeded")
        .map(|told| told.text.clone())
        .unwrap_or_default()
}

/// Plays a morning on which staging is emptied as soon as it is restored.
fn emptied(settings: simulation::script::Settings) -> Outcome {
    let faults = vec![planned("restoreProjectBranch", 1, Fault::Nothing)];
    play(&Script {
        settings,
        faults,
        happenings: vec![(0, Happening::Cron), (12, Happening::Emptied)],
        ..Script::default()
    })
}

#[test]
fn an_object_that_is_changed_on_staging_is_named_with_both_definitions() {
    let report =
        report(&run_traced("plain/restoreProjectBranch#1=damaged/no_crash/fresh/one_tick"));
    let check = report
        .checks
        .iter()
        .find(|check| check.name == "neondb: triggers")
        .expect("triggers are compared");
    let text = "drift: backup has 1, staging 1; definitions differ; 1 of the backup gone or \
        changed, 0 added; public.t1.noted: in the backup \"after insert\", on staging \"after \
        insert (disabled)\"";
    assert_eq!((check.outcome, check.detail.as_str()), (CheckOutcome::Warned, text));
    let [found] = check.differences.as_slice() else { panic!("{check:?}") };
    assert_eq!(
        (found.name.as_str(), found.staging.as_deref()),
        ("public.t1.noted", Some("after insert (disabled)"))
    );
}

#[test]
fn a_difference_that_cannot_be_looked_into_is_told_as_one_all_the_same() {
    for (faults, is_named) in [("rows#1=refused_401", true), ("items#1=refused_401", false)] {
        let outcome = run_traced(&format!(
            "plain/restoreProjectBranch#1=damaged+{faults}/no_crash/fresh/one_tick"
        ));
        assert_eq!(
            (outcome.status, outcome.deeds),
            (Some(RunStatus::Succeeded), (1, 1, 0)),
            "{faults}"
        );
        let (found, detail) = check(&outcome, "t4");
        assert_eq!(found, CheckOutcome::Warned, "{faults}");
        let bound =
            "at least 1 row is changed; the rows were not looked into: query neondb: answered 401";
        assert!(detail.contains(bound), "{faults}: {detail}");
        let report = report(&outcome);
        let triggers = report
            .checks
            .iter()
            .find(|check| check.name == "neondb: triggers")
            .expect("triggers are compared");
        assert_eq!(
            (triggers.outcome, triggers.differences.is_empty()),
            (CheckOutcome::Warned, !is_named),
            "{faults}: {triggers:?}"
        );
    }
    // What passes is asked again; what stays is given up after three times.
    let detail = |faults: &str| {
        check(
            &run_traced(&format!(
                "plain/restoreProjectBranch#1=damaged+{faults}/no_crash/fresh/one_tick"
            )),
            "t4",
        )
        .1
    };
    assert!(detail("rows#1=refused_503").ends_with("1 row is changed; changed: {\"id\": 1}"));
    let refused = "rows#1=refused_503+rows#2=refused_503+rows#3=refused_503";
    assert!(detail(refused).contains("the rows were not looked into: query neondb: answered 503"));
}

#[test]
fn a_difference_in_a_large_table_is_located_by_its_ranges_and_counted() {
    let faults = vec![planned("restoreProjectBranch", 1, Fault::Damaged)];
    let outcome = play(&Script {
        rows: Some(200_000_000),
        subrequests: Some(1_000),
        faults,
        ..Script::default()
    });
    let (found, detail) = check(&outcome, "t5");
    assert_eq!(found, CheckOutcome::Warned);
    let told = "drift: backup has 200000000 rows, staging 199999999; 1 row of the backup is \
        gone; gone: {\"id\": 200000000}";
    assert_eq!(detail, told);
    let parts = outcome.trace.iter().filter(|line| line.contains("] parts#")).count();
    assert_eq!(parts, 2, "one look on each side");
}

#[test]
fn rows_that_an_application_adds_are_noted_and_warn_nobody() {
    let outcome = run_traced("in_use/-/no_crash/fresh/one_tick");
    let (found, detail) = check(&outcome, "t1");
    assert_eq!(
        (outcome.status, found),
        (Some(RunStatus::Succeeded), CheckOutcome::Passed),
        "{detail}"
    );
    assert!(
        detail.starts_with("drift: backup has 100 rows, staging ")
            && detail.contains(" rows were added; added: "),
        "{detail}"
    );
    assert_eq!(check(&outcome, "t5"), (CheckOutcome::Passed, "500 rows equal".to_owned()));
    assert!(
        told(&outcome).contains(". Staging data verified; public.t1: ")
            && told(&outcome).ends_with(" were added since."),
        "{:?}",
        outcome.told
    );
    assert_eq!(report(&outcome).warnings, Vec::<String>::new());
}

/// As in case 37, as far as a storage can do it: what a restore brings is not what its backup
/// holds.
#[test]
fn a_copy_that_is_no_copy_is_never_told_without_what_it_has_lost() {
    for fault in ["damaged", "damaged_below"] {
        let outcome =
            run_traced(&format!("in_use/restoreProjectBranch#1={fault}/no_crash/fresh/one_tick"));
        let differs = |text: &str| (CheckOutcome::Warned, text.to_owned());
        let changed = "drift: 400 rows on both sides, content differs; 1 row is changed; \
            changed: {\"id\": 1}";
        assert_eq!(check(&outcome, "t4"), differs(changed));
        let gone = "drift: backup has 500 rows, staging 499; 1 row of the backup is gone; gone: \
            {\"id\": 500}";
        assert_eq!(check(&outcome, "t5"), differs(gone));
        assert_eq!(
            (outcome.status, outcome.deeds),
            (Some(RunStatus::Succeeded), (1, 1, 0)),
            "{fault}"
        );
        let first = "Staging is not what was restored any more: public.t4: 1 row is changed; \
            public.t5: 1 row of the backup is gone; triggers: definitions of the backup are gone \
            or changed. Production";
        assert!(told(&outcome).starts_with(first), "{fault}: {}", told(&outcome));
    }
}

/// As in case 37.
#[test]
fn a_staging_that_is_emptied_after_its_restore_is_told_first_and_warns() {
    let outcome = emptied(|_| {});
    assert_eq!(outcome.status, Some(RunStatus::Succeeded), "{:?}", outcome.told);
    let first = "Staging is not what was restored any more: public.t1: 100 rows of the backup \
        are gone; public.t2: 200 rows are changed. ";
    assert!(
        told(&outcome).starts_with(first) && told(&outcome).ends_with("There are 2 warnings."),
        "{}",
        told(&outcome)
    );
    assert_eq!(
        (check(&outcome, "t1").0, check(&outcome, "t2").0),
        (CheckOutcome::Warned, CheckOutcome::Warned)
    );
}

/// As in case 37, with every word of the configuration.
#[test]
fn what_follows_from_drift_is_configured_and_it_never_rolls_staging_back() {
    let noted = emptied(|value| value["pairs"][0]["verification"] = json!({"on_drift": "note"}));
    assert_eq!(
        (noted.status, check(&noted, "t1").0),
        (Some(RunStatus::Succeeded), CheckOutcome::Passed)
    );
    assert!(
        told(&noted).starts_with("Staging is not what was restored any more: ")
            && told(&noted).ends_with(" verified."),
        "{}",
        told(&noted)
    );
    let failed = emptied(|value| {
        value["pairs"][0]["verification"] = json!({"on_drift": "fail"});
        value["pairs"][0]["on_mismatch"] = json!("roll_back");
    });
    let reason = report(&failed).reason.unwrap_or_default();
    assert_eq!((failed.status, failed.deeds), (Some(RunStatus::Failed), (1, 1, 0)), "{reason}");
    assert!(
        reason.contains("100 rows of the backup are gone")
            && reason.ends_with("does not show a wrong copy"),
        "{reason}"
    );
}

/// As in case 38: a place for a branch to compare on is not there, and none is needed.
#[test]
fn a_staging_in_use_needs_no_more_branches_than_one_that_is_not() {
    let made = |happenings: Vec<(i64, Happening)>| {
        let settings =
            |value: &mut serde_json::Value| value["pairs"][0]["on_mismatch"] = json!("roll_back");
        // Seven are there; the backup and what staging held take the last places.
        let outcome =
            play(&Script { happenings, settings, branch_limit: Some(9), ..Script::default() });
        assert_eq!(
            (outcome.status, outcome.deeds),
            (Some(RunStatus::Succeeded), (1, 1, 0)),
            "{:?}",
            outcome.told
        );
        (count(&outcome, "createProjectBranch"), check(&outcome, "t1").0)
    };
    assert_eq!(made(vec![(0, Happening::Cron)]), (1, CheckOutcome::Passed));
    assert_eq!(
        made(vec![(0, Happening::Cron), (12, Happening::Application)]),
        (1, CheckOutcome::Passed)
    );
}

#[test]
fn staging_is_rolled_back_only_by_a_run_that_saw_its_restore_accepted_within_half_an_hour() {
    // The tick dies with the save after the restore; the next one comes later.
    let after = |minutes: i64| {
        let settings = |value: &mut serde_json::Value| {
            value["pairs"][0]["on_mismatch"] = json!("roll_back");
            value["pairs"][0]["deadline"] = json!("08:00");
        };
        let faults = vec![planned("restoreProjectBranch", 1, Fault::Behind)];
        let happenings = vec![(0, Happening::Cron), (minutes * 60, Happening::Cron)];
        let outcome = play(&Script {
            settings,
            faults,
            crash: Crash::AfterSave,
            happenings,
            ..Script::default()
        });
        assert_eq!(outcome.status, Some(RunStatus::Failed));
        (outcome.deeds.2, report(&outcome).reason.unwrap_or_default())
    };
    assert_eq!(after(10).0, 1);
    assert_eq!(after(29).0, 1);
    let (roll_backs, reason) = after(31);
    assert_eq!(roll_backs, 0);
    assert!(
        reason.ends_with(
            "not rolled back, because this run did not itself see its restore accepted within 30 \
                minutes"
        ),
        "{reason}"
    );
}

#[test]
fn staging_is_not_rolled_back_to_what_is_gone_and_not_over_what_somebody_made_of_it() {
    let reason = |faults: &str| {
        let outcome = run_traced(&format!("roll_back/{faults}/no_crash/fresh/one_tick"));
        assert_eq!(outcome.deeds.2, 0, "{faults}");
        report(&outcome).reason.unwrap_or_default()
    };
    assert!(
        reason("catalogue#2=displaced_deleted")
            .contains("not rolled back, because the displaced branch is gone")
    );
    assert!(
        reason("listProjectBranches#5=staging_restored")
            .contains("not rolled back, because staging is no child of this run's backup any more")
    );
}
