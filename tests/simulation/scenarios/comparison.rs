//! The comparison with the backup, the questions beside it, smoke tests, and what is run on staging
//! afterwards.

use firstlight::sync::checkpoint::RunStatus;
use firstlight::verify::{CheckKind, CheckOutcome};
use serde_json::json;
use simulation::faults::Fault;
use simulation::plan::Crash;
use simulation::run::Outcome;
use simulation::script::{Happening, Script};

use crate::{count, planned, play, report};

/// Returns how the check of a table went.
pub(crate) fn check(outcome: &Outcome, table: &str) -> (CheckOutcome, String) {
    let name = format!("neondb: content of public.{table}");
    let report = report(outcome);
    let check = report
        .checks
        .iter()
        .find(|check| check.name == name)
        .unwrap_or_else(|| panic!("{name} is not in {:#?}", report.checks));
    (check.outcome, check.detail.clone())
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
