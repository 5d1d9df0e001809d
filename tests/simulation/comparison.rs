//! Passwords, the comparison with the backup, and what follows from it.

use firstlight::sync::checkpoint::RunStatus;
use firstlight::sync::verify::{CheckKind, CheckOutcome};
use neon_emulator::model::Switches;
use serde_json::json;
use simulation::faults::Fault;
use simulation::plan::Crash;
use simulation::run::Outcome;
use simulation::script::{Happening, Script};

use crate::{count, planned, play, report, run_traced};

/// The password that staging's role had yesterday.
const OWN: &str = "npg_stagingsown";

fn kept(outcome: &Outcome) -> Vec<String> {
    report(outcome).passwords.kept.iter().map(ToString::to_string).collect()
}

/// Returns how the check of a table went.
fn check(outcome: &Outcome, table: &str) -> (CheckOutcome, String) {
    let name = format!("neondb: content of public.{table}");
    let report = report(outcome);
    let check = report
        .checks
        .iter()
        .find(|check| check.name == name)
        .unwrap_or_else(|| panic!("{name} is not in {:#?}", report.checks));
    (check.outcome, check.detail.clone())
}

fn gave_a_password(outcome: &Outcome) -> bool {
    count(outcome, "give_password") > 0
}

#[test]
fn a_role_of_staging_has_the_password_that_it_had_whichever_the_restore_brings() {
    for passwords_from_source in [true, false] {
        let switches = Switches { passwords_from_source, ..Switches::default() };
        let outcome = play(&Script { switches, ..Script::default() });
        assert_eq!(outcome.staging_password.as_deref(), Some(OWN), "{passwords_from_source}");
        assert_eq!(
            (kept(&outcome), gave_a_password(&outcome)),
            (vec!["neondb_owner".to_owned()], passwords_from_source)
        );
        assert_eq!(
            report(&outcome).passwords.logged_in,
            report(&outcome).passwords.kept,
            "and it logs in with it"
        );
    }
}

#[test]
fn a_password_that_neon_does_not_tell_is_not_kept_and_that_is_said() {
    // The first three are production's, the backup's and staging's; the fourth is that of the
    // branch that keeps what staging held.
    let faults = vec![planned("getProjectBranchRolePassword", 4, Fault::Refused(404))];
    let outcome = play(&Script { faults, ..Script::default() });
    assert_eq!((outcome.status, kept(&outcome)), (Some(RunStatus::Succeeded), Vec::new()));
    let report = report(&outcome);
    assert_eq!(report.passwords.not_kept.len(), 1, "{:?}", report.passwords);
    assert!(
        report
            .warnings
            .iter()
            .any(|warning| warning == "roles of staging without their old password: neondb_owner"),
        "{report:?}"
    );
}

#[test]
fn a_role_that_only_staging_had_is_gone_and_that_is_said() {
    let outcome = play(&Script { staging_role: Some("preview"), ..Script::default() });
    assert_eq!(
        (outcome.status, kept(&outcome)),
        (Some(RunStatus::Succeeded), vec!["neondb_owner".to_owned()])
    );
    let report = report(&outcome);
    assert_eq!(
        report.warnings,
        ["roles that staging had and production does not have are gone: preview"]
    );
    assert_eq!(
        report.passwords.gone.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["preview"]
    );
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
        changed, 0 \
        added; \
        public.t1.noted: in the backup \"after insert\", on staging \"after insert \
        (disabled)\"";
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
fn a_plain_run_warns_of_nothing() {
    let report = report(&play(&Script::default()));
    assert_eq!((report.warnings, report.passwords.gone), (Vec::new(), Vec::new()));
}

#[test]
fn a_production_that_one_invocation_cannot_read_is_read_by_several_and_nothing_twice() {
    // Twenty gigabytes: pieces grow from 256 MB, four at once, and an invocation has 24
    // subrequests.
    let large = Script { rows: Some(200_000_000), subrequests: Some(24), ..Script::default() };
    let happenings: Vec<(i64, Happening)> =
        (0..6).map(|tick| (tick * 300, Happening::Cron)).collect();
    let outcome = play(&Script { happenings: happenings.clone(), ..large.clone() });
    assert_eq!(outcome.status, Some(RunStatus::Succeeded), "{:?}", outcome.told);
    assert_eq!(check(&outcome, "t5"), (CheckOutcome::Passed, "200000000 rows equal".to_owned()));
    let asked = count(&outcome, "content");
    assert!(
        outcome.ticks.iter().filter(|tick| tick.summary.is_handed_over).count() >= 2,
        "{:#?}",
        outcome.ticks
    );
    let at_once =
        play(&Script { rows: Some(200_000_000), subrequests: Some(1_000), ..Script::default() });
    assert_eq!(
        (at_once.status, count(&at_once, "content")),
        (Some(RunStatus::Succeeded), asked),
        "nothing is read twice"
    );
}

#[test]
fn a_piece_that_is_refused_or_lost_is_asked_for_again_and_the_others_are_not() {
    let large = Script { rows: Some(200_000_000), subrequests: Some(1_000), ..Script::default() };
    let asked = count(&play(&large), "content");
    for fault in [Fault::Lost, Fault::Refused(503), Fault::Cut] {
        let outcome = play(&Script { faults: vec![planned("content", 3, fault)], ..large.clone() });
        assert_eq!(outcome.status, Some(RunStatus::Succeeded), "{fault}");
        assert!(
            count(&outcome, "content") <= asked + 1,
            "{fault}: {} requests, {asked} without it",
            count(&outcome, "content")
        );
    }
}

#[test]
fn what_does_not_fit_the_time_budget_fails_the_run_unless_that_is_configured() {
    let run = |settings: simulation::script::Settings| {
        // The second piece does not answer in time.
        let faults = vec![planned("content", 2, Fault::Late)];
        play(&Script {
            rows: Some(200_000_000),
            subrequests: Some(1_000),
            settings,
            faults,
            ..Script::default()
        })
    };
    let outcome = run(|value| value["pairs"][0]["verification"] = json!({"time_budget_s": 60}));
    assert_eq!(outcome.status, Some(RunStatus::Failed));
    let reason = report(&outcome).reason.unwrap_or_default();
    assert!(
        reason.contains("not checked: neondb: public.t5 (did not fit the time budget of 60 s)"),
        "{reason}"
    );
    let outcome = run(|value| {
        value["pairs"][0]["verification"] = json!({"time_budget_s": 60, "on_not_checked": "warn"});
    });
    assert_eq!(outcome.status, Some(RunStatus::Succeeded));
    assert_eq!(
        check(&outcome, "t5"),
        (CheckOutcome::NotChecked, "did not fit the time budget of 60 s".to_owned())
    );
    assert_eq!(check(&outcome, "t4").0, CheckOutcome::Passed, "the small tables were read first");
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
        gone; gone: \
        {\"id\": 200000000}";
    assert_eq!(detail, told);
    let parts = outcome.trace.iter().filter(|line| line.contains("] parts#")).count();
    assert_eq!(parts, 2, "one look on each side");
}

#[test]
fn a_rehearsal_leaves_staging_alone() {
    let outcome = play(&Script { happenings: vec![(0, Happening::Rehearse)], ..Script::default() });
    let of_rehearsal =
        outcome.trace.iter().take_while(|line| !line.contains("tick ended: run=20261121T100500Z"));
    let calls: Vec<&String> =
        of_rehearsal.filter(|line| line.contains("] restoreProjectBranch#")).collect();
    assert_eq!(
        (calls.len(), outcome.told[0].kind.as_str(), outcome.told[0].run.as_str()),
        (0, "succeeded", "20261121T100500Z"),
        "{calls:?}"
    );
}

#[test]
fn passwords_are_left_alone_where_that_is_configured() {
    let settings =
        |value: &mut serde_json::Value| value["pairs"][0]["keep_passwords"] = json!(false);
    let outcome = play(&Script { settings, ..Script::default() });
    assert_eq!(
        (outcome.status, kept(&outcome), gave_a_password(&outcome)),
        (Some(RunStatus::Succeeded), Vec::new(), false)
    );
    assert_eq!(report(&outcome).warnings, Vec::<String>::new());
}

/// Returns the text of the day's success.
fn told(outcome: &Outcome) -> String {
    outcome
        .told
        .iter()
        .find(|told| told.kind == "succeeded")
        .map(|told| told.text.clone())
        .unwrap_or_default()
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
            changed: {\"id\": \
            1}";
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
            public.t5: \
            1 row of the backup is gone; \
            triggers: definitions of the backup are gone or changed. Production";
        assert!(told(&outcome).starts_with(first), "{fault}: {}", told(&outcome));
    }
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

/// As in case 37.
#[test]
fn a_staging_that_is_emptied_after_its_restore_is_told_first_and_warns() {
    let outcome = emptied(|_| {});
    assert_eq!(outcome.status, Some(RunStatus::Succeeded), "{:?}", outcome.told);
    let first = "Staging is not what was restored any more: public.t1: 100 rows of the backup \
        are gone; \
        public.t2: 200 rows are changed. ";
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

#[test]
fn every_smoke_test_is_called_and_one_that_is_not_fatal_warns() {
    let settings = |value: &mut serde_json::Value| {
        let url = |name: &str| format!("https://staging.example.test/{name}");
        value["pairs"][0]["smoke_tests"] = json!([
            {"name": "health", "url": url("health")},
            {"name": "page", "url": url("page"), "on_failure": "warn"},
            {"name": "sign-in", "url": url("sign-in")},
        ]);
    };
    let with = |failing: &[u32]| {
        let faults =
            failing.iter().map(|nth| planned("smoke", *nth, Fault::Refused(500))).collect();
        let outcome = play(&Script { settings, faults, ..Script::default() });
        let report = report(&outcome);
        let smoked = report.checks.iter().filter(|check| check.name.starts_with("smoke test: "));
        (
            outcome.status,
            smoked.map(|check| check.outcome).collect::<Vec<_>>(),
            report.reason.unwrap_or_default(),
        )
    };
    let (passed, failed, warned) =
        (CheckOutcome::Passed, CheckOutcome::Failed, CheckOutcome::Warned);
    assert_eq!(
        with(&[]),
        (Some(RunStatus::Succeeded), vec![passed, passed, passed], String::new())
    );
    assert_eq!(
        with(&[2, 3, 4]),
        (Some(RunStatus::Succeeded), vec![warned, passed, passed], String::new())
    );
    let (status, outcomes, reason) = with(&[3, 4, 5]);
    assert_eq!((status, outcomes), (Some(RunStatus::Failed), vec![failed, passed, passed]));
    let told =
        "smoke test: sign-in: GET https://staging.example.test/sign-in: expected 200, answered 500";
    assert!(reason.starts_with(told), "{reason}");
}

fn with_after_restore(value: &mut serde_json::Value) {
    value["pairs"][0]["verification"] =
        json!({"after_restore": {"sql": ["update users set mail = null"]}});
}

#[test]
fn what_is_configured_is_run_on_staging_once_whatever_happens_to_the_request() {
    let plain = play(&Script::default());
    let mut cases = vec![(Vec::new(), Crash::Never)];
    for fault in [
        Fault::Lost,
        Fault::AppliedAndLost,
        Fault::Late,
        Fault::Cut,
        Fault::Refused(503),
        Fault::Asleep,
    ] {
        cases.push((vec![planned("after_restore", 1, fault)], Crash::Never));
    }
    for crash in [Crash::AtOnce, Crash::BeforeSave, Crash::AfterSave] {
        cases.push((vec![planned("after_restore", 1, Fault::Nothing)], crash));
        cases.push((vec![planned("after_restore", 1, Fault::AppliedAndLost)], crash));
    }
    for (faults, crash) in cases {
        let outcome = play(&Script {
            settings: with_after_restore,
            faults: faults.clone(),
            crash,
            ..Script::default()
        });
        assert_eq!(
            outcome.status,
            Some(RunStatus::Succeeded),
            "{faults:?} {crash:?}: {:?}",
            outcome.told
        );
        assert_eq!(
            outcome.staging_rows,
            plain.staging_rows + 1,
            "{faults:?} {crash:?}: it was not run once"
        );
    }
}

#[test]
fn nothing_is_run_on_a_staging_that_somebody_else_has_restored_or_that_is_no_copy() {
    // The listing before it is written to shows another parent.
    let faults = vec![planned("content", 2, Fault::StagingRestored)];
    let outcome = play(&Script { settings: with_after_restore, faults, ..Script::default() });
    assert_eq!(
        (outcome.status, count(&outcome, "after_restore")),
        (Some(RunStatus::Superseded), 0)
    );
    let faults = vec![planned("restoreProjectBranch", 1, Fault::Behind)];
    let outcome = play(&Script { settings: with_after_restore, faults, ..Script::default() });
    assert_eq!((outcome.status, count(&outcome, "after_restore")), (Some(RunStatus::Failed), 0));
}

#[test]
fn what_is_refused_on_staging_fails_the_run() {
    let faults = vec![planned("after_restore", 1, Fault::Refused(401))];
    let outcome = play(&Script { settings: with_after_restore, faults, ..Script::default() });
    let reason = report(&outcome).reason.unwrap_or_default();
    assert_eq!(outcome.status, Some(RunStatus::Failed));
    assert!(
        reason.starts_with("verify staging: neondb: after_restore: query neondb: answered 401"),
        "{reason}"
    );
}

#[test]
fn what_a_notice_tells_beside_a_success_is_what_somebody_should_look_at() {
    let settings = |value: &mut serde_json::Value| {
        let url = |name: &str| format!("https://staging.example.test/{name}");
        value["pairs"][0]["smoke_tests"] =
            json!([{"name": "page", "url": url("page"), "on_failure": "warn", "attempts": 1}]);
    };
    let text = |faults: Vec<simulation::plan::Planned>| {
        let outcome = play(&Script { settings, faults, ..Script::default() });
        assert_eq!(outcome.status, Some(RunStatus::Succeeded));
        outcome.told[0].text.clone()
    };
    assert!(
        text(Vec::new()).ends_with(" early. Staging data verified."),
        "one line when all is well"
    );
    assert!(
        text(vec![planned("smoke", 1, Fault::Refused(500))])
            .ends_with(" early. Staging data verified. There is one warning.")
    );
}

#[test]
fn people_who_may_not_be_listed_stop_nothing_unless_that_is_configured() {
    let with = |settings: simulation::script::Settings, faults: Vec<simulation::plan::Planned>| {
        let outcome = play(&Script { settings, faults, ..Script::default() });
        let report = report(&outcome);
        let people = report
            .checks
            .iter()
            .find(|check| check.kind == CheckKind::People)
            .map(|check| check.outcome);
        (outcome.status, people)
    };
    let warn: simulation::script::Settings =
        |value| value["pairs"][0]["verification"] = json!({"people": "warn"});
    let fail: simulation::script::Settings =
        |value| value["pairs"][0]["verification"] = json!({"people": "fail"});
    let refused = || vec![planned("listProjectPermissions", 1, Fault::Refused(404))];
    let (good, bad, unknown) =
        (Some(RunStatus::Succeeded), Some(RunStatus::Failed), Some(CheckOutcome::NotChecked));
    assert_eq!(with(warn, Vec::new()), (good, Some(CheckOutcome::Passed)));
    assert_eq!(with(warn, refused()), (good, unknown));
    assert_eq!(with(fail, refused()), (bad, unknown));
    // What passes is asked again where it matters.
    assert_eq!(
        with(fail, vec![planned("listProjectPermissions", 1, Fault::Refused(503))]),
        (good, Some(CheckOutcome::Passed))
    );
}

#[test]
fn a_question_that_fails_is_asked_again_and_given_up_where_it_stops_nothing() {
    let outcome = |faults: &[u32], settings: simulation::script::Settings| {
        let faults =
            faults.iter().map(|nth| planned("probes", *nth, Fault::Refused(503))).collect();
        let outcome = play(&Script { settings, faults, ..Script::default() });
        let report = report(&outcome);
        let check = report
            .checks
            .iter()
            .find(|check| check.kind == CheckKind::ForeignKeys)
            .expect("it is in the report")
            .clone();
        (outcome.status, check.outcome, count(&outcome, "probes"))
    };
    let succeeded = Some(RunStatus::Succeeded);
    assert_eq!(outcome(&[1, 2], |_| {}), (succeeded, CheckOutcome::Passed, 3));
    assert_eq!(outcome(&[1, 2, 3], |_| {}), (succeeded, CheckOutcome::NotChecked, 3));
    let strict: simulation::script::Settings =
        |value| value["pairs"][0]["verification"] = json!({"foreign_keys": "fail"});
    assert_eq!(
        outcome(&[1, 2, 3, 4], strict),
        (succeeded, CheckOutcome::Passed, 5),
        "what must hold is asked until the deadline"
    );
}
