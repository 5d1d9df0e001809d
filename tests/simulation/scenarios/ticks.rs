//! What a tick does and says: its budgets, its notices, other ticks.

use chrono::TimeDelta;
use firstlight::id::RunId;
use firstlight::record::{self, VerifiedBackup};
use firstlight::sync::checkpoint::{Checkpoint, Goal, Prune, RunStatus, Start, Verdict};
use firstlight::sync::notice::Outgoing;
use firstlight::sync::step::Step;
use firstlight::time::Timestamp;
use simulation::faults::Fault;
use simulation::plan::Crash;
use simulation::run::{Outcome, TickRecord};
use simulation::script::{Happening, Script, Settings};

use crate::{count, planned, play, report, run, stored};

/// The kinds of notices, in the order in which they came.
pub(crate) fn kinds(outcome: &Outcome) -> Vec<&str> {
    outcome.told.iter().map(|told| told.kind.as_str()).collect()
}

#[test]
fn a_tick_says_what_it_drove_and_an_idle_one_reads_once_and_says_so() {
    let happenings = [0, 300, 600].map(|at| (at, Happening::Cron)).to_vec();
    // One more than an invocation has: what is pruned last falls to the next tick otherwise.
    let outcome = play(&Script { happenings, subrequests: Some(52), ..Script::default() });
    let [driving, marking, idle] = &outcome.ticks[..3] else {
        panic!("three ticks, not {}", outcome.ticks.len())
    };
    let driven = |tick: &TickRecord| {
        let driven =
            tick.summary.driven.as_ref().map(|(run, status)| (run.as_str().to_owned(), *status));
        (driven, tick.summary.is_handed_over)
    };
    assert_eq!(driven(driving), (Some(("20261121".to_owned(), RunStatus::Succeeded)), false));
    // That every channel has taken the notice is written down by the next tick.
    assert_eq!(
        (marking.summary.http_count, marking.summary.store_count, driven(marking)),
        (0, 2, (None, false))
    );
    assert!(
        driving.summary.http_count > 30 && driving.summary.store_count > 8,
        "{:?}",
        driving.summary
    );
    assert_eq!(
        (idle.summary.http_count, idle.summary.store_count, driven(idle)),
        (0, 1, (None, false))
    );
}

#[test]
fn a_plain_run_fits_one_tick_and_the_store_refuses_none_of_its_writes() {
    let outcome = run("plain/-/no_crash/fresh/one_tick");
    assert_eq!((outcome.runs.as_slice(), outcome.refused_writes), ([(1, true)].as_slice(), 0));
}

#[test]
fn a_tick_whose_budget_is_spent_hands_over_and_says_so() {
    let outcome = run("in_use/-/no_crash/fresh/one_tick");
    assert!(
        outcome.ticks[0].summary.is_handed_over && !outcome.ticks[1].summary.is_handed_over,
        "{:?}",
        outcome.ticks
    );
    assert_eq!(outcome.runs, [(1, true)], "it is told in the first");
}

#[test]
fn a_run_that_a_person_started_is_driven_by_the_request_and_by_the_ticks_after_it() {
    let outcome = play(&Script {
        happenings: vec![(0, Happening::Start), (200, Happening::Cron)],
        ..Script::default()
    });
    let ended: Vec<&String> = outcome
        .trace
        .iter()
        .filter(|line| line.contains("tick ended: run=20261121T100500Z"))
        .collect();
    assert_eq!(ended.len(), 2, "{ended:?}");
    assert!(
        ended[0].contains("status=succeeded") && ended[0].contains("handed_over=true"),
        "{ended:?}"
    );
    assert!(
        ended[1].contains("status=succeeded") && ended[1].contains("handed_over=false"),
        "{ended:?}"
    );
}

#[test]
fn a_notice_that_was_refused_waits_for_its_time() {
    let faults = vec![planned("webhook", 1, Fault::Refused(500))];
    let crons = [0, 300, 305].map(|at| (at, Happening::Cron)).to_vec();
    let outcome = play(&Script {
        faults: [faults, vec![planned("webhook", 2, Fault::Refused(500))]].concat(),
        happenings: crons,
        subrequests: Some(54),
        ..Script::default()
    });
    let made = |tick: &TickRecord| (tick.summary.http_count, tick.summary.store_count);
    // The one before may still be at its deletions, where a compute is just being suspended.
    let soon_after = outcome.ticks.iter().find(|tick| {
        tick.began_at == "2026-11-21T10:10:05Z".parse::<Timestamp>().expect("an instant")
    });
    assert_eq!(
        soon_after.map(made),
        Some((0, 1)),
        "five seconds after an attempt: {:?}",
        outcome.ticks
    );
    assert_eq!(kinds(&outcome), ["succeeded"]);
    let notice: Outgoing = stored(&outcome, "notice/hub/20261121/succeeded");
    assert_eq!(
        notice.deliveries.iter().map(|delivery| delivery.attempts).collect::<Vec<_>>(),
        [3, 1]
    );
}

#[test]
fn a_run_that_gets_nowhere_is_given_up_in_the_fourth_tick() {
    let faults = vec![planned("restoreProjectBranch", 1, Fault::OperationHangs)];
    let outcome = play(&Script { faults, ..Script::default() });
    assert_eq!(kinds(&outcome), ["failed"]);
    assert!(
        outcome.told[0].text.contains("restore staging made no step forward in 3 ticks"),
        "{}",
        outcome.told[0].text
    );
    let last = outcome
        .ticks
        .iter()
        .filter(|tick| tick.summary.driven.is_some())
        .map(|tick| tick.began_at)
        .next_back();
    assert_eq!(
        last.map(|at| at.format("%H:%M").to_string()).as_deref(),
        Some("10:25"),
        "the fourth after the one that restored"
    );
}

#[test]
fn a_tick_leaves_a_run_alone_until_the_one_that_drives_it_must_have_ended() {
    // Killed at 10:05; its wall budget is four minutes.
    let faults = vec![planned("getProject", 1, Fault::Nothing)];
    let happenings = vec![
        (0, Happening::Cron),
        (100, Happening::Cron),
        (239, Happening::Cron),
        (240, Happening::Cron),
    ];
    let outcome = play(&Script { faults, crash: Crash::AtOnce, happenings, ..Script::default() });
    let drove = |seconds: i64| {
        let at = "2026-11-21T10:05:00Z".parse::<Timestamp>().expect("an instant")
            + TimeDelta::seconds(seconds);
        outcome
            .ticks
            .iter()
            .find(|tick| tick.began_at == at)
            .map(|tick| tick.summary.driven.is_some())
    };
    assert_eq!(
        (drove(100), drove(239), drove(240)),
        (Some(false), Some(false), Some(true)),
        "{:?}",
        outcome.ticks
    );
}

#[test]
fn no_tick_goes_on_for_longer_than_its_wall_budget() {
    let outcome = run("plain/createProjectBranch#1=long_outage/no_crash/fresh/one_tick");
    let longest =
        outcome.ticks.iter().map(|tick| tick.ended_at - tick.began_at).max().unwrap_or_default();
    assert!(longest <= TimeDelta::seconds(242), "{longest}");
    assert!(longest > TimeDelta::seconds(120), "{longest}: a tick waits as long as it may");
}

#[test]
fn a_tick_whose_clock_jumps_back_does_not_wait_for_an_instant_that_is_far_again() {
    // At 10:06:30 the run would close a lost one; then it is 09:45 for this tick.
    let accepted = Happening::Stored("accepted/hub/20261121T100030Z", Some("{}".to_owned()));
    let faults = vec![planned("deleteProjectBranch", 2, Fault::ClockBack)];
    let outcome = play(&Script {
        faults,
        happenings: vec![(-200, accepted), (0, Happening::Cron)],
        ..Script::default()
    });
    assert!(
        outcome.trace.iter().any(|line| line.contains("may still end by itself")),
        "{:#?}",
        outcome.trace
    );
    let longest =
        outcome.ticks.iter().map(|tick| tick.ended_at - tick.began_at).max().unwrap_or_default();
    assert!(longest <= TimeDelta::seconds(242), "{longest}");
}

#[test]
fn a_tick_says_how_many_subrequests_it_made() {
    let outcome = play(&Script::default());
    let number = |line: &str, name: &str| -> u32 {
        let after = line.split_once(&format!(" {name}=")).map(|(_, rest)| rest).unwrap_or_default();
        after.split(' ').next().and_then(|digits| digits.parse().ok()).unwrap_or_default()
    };
    let line = outcome
        .trace
        .iter()
        .find(|line| line.contains("tick ended"))
        .expect("the first tick drives");
    let (http, kv) = (number(line, "http"), number(line, "kv"));
    assert!(http > 0 && kv > 0 && number(line, "subrequests") == http + kv, "{line}");
    assert_eq!(
        (outcome.ticks[0].summary.http_count, outcome.ticks[0].summary.store_count),
        (http, kv)
    );
}

#[test]
fn a_pair_whose_state_a_newer_version_wrote_is_left_alone_and_told_as_stuck_once() {
    let newer = Happening::Stored("checkpoint/hub", Some(r#"{"format":99}"#.to_owned()));
    let removed = Happening::Stored("checkpoint/hub", None);
    let crons = [0, 300, 600, 900].map(|at| (at, Happening::Cron));
    let happenings = [(-5, newer), (800, removed)].into_iter().chain(crons).collect();
    let outcome = play(&Script { happenings, ..Script::default() });
    assert_eq!(kinds(&outcome), ["stuck", "succeeded", "resolved"]);
    assert!(outcome.told[0].text.contains("format 99"), "{}", outcome.told[0].text);
    let driven: Vec<bool> =
        outcome.ticks.iter().map(|tick| tick.summary.driven.is_some()).collect();
    assert_eq!(driven[..4], [false, false, false, true]);
}

#[test]
fn a_small_budget_is_never_overspent_although_the_store_refuses_saves() {
    for budget in (22..=36).step_by(2) {
        for nth in 1..=16 {
            let faults = vec![planned("kv:checkpoint", nth, Fault::TooFast)];
            let outcome = play(&Script { faults, subrequests: Some(budget), ..Script::default() });
            assert_eq!(
                outcome.status,
                Some(RunStatus::Succeeded),
                "{budget} subrequests, save {nth} refused"
            );
        }
    }
}

#[test]
fn a_hold_that_begins_during_the_run_keeps_staging_unless_it_has_ended_by_then() {
    let held = |until: &str| {
        let stored = format!(r#"{{"reason":"demo","until":"2026-11-21T10:05:{until}Z"}}"#);
        let happenings =
            vec![(0, Happening::Cron), (1, Happening::Stored("hold/hub", Some(stored)))];
        play(&Script { happenings, ..Script::default() }).deeds
    };
    assert_eq!(held("02.000"), (1, 1, 0), "over before staging is looked at");
    assert_eq!(held("59.000"), (1, 0, 0));
}

#[test]
fn a_smoke_test_that_fails_three_times_fails_the_run_and_says_what_it_answered() {
    let faults = [1, 2, 3].map(|nth| planned("smoke", nth, Fault::Refused(500))).to_vec();
    let outcome = play(&Script { faults, ..Script::default() });
    assert_eq!(kinds(&outcome), ["failed"]);
    assert!(
        outcome.told[0].text.contains("expected 200, answered 500"),
        "{}",
        outcome.told[0].text
    );
}

#[test]
fn a_notice_that_a_channel_refuses_is_sent_to_that_channel_alone_by_the_next_tick() {
    for start in [Happening::Cron, Happening::Start] {
        let faults = vec![planned("webhook", 1, Fault::Refused(500))];
        let happenings = vec![(0, start.clone()), (300, Happening::Cron)];
        let outcome = play(&Script { faults, happenings, ..Script::default() });
        assert_eq!(kinds(&outcome)[0], "succeeded", "{start:?}");
        let runs = outcome.told.len();
        assert_eq!(
            (count(&outcome, "webhook"), count(&outcome, "slack")),
            (runs + 1, runs),
            "{start:?}"
        );
        let checkpoint: Checkpoint = stored(&outcome, "checkpoint/hub");
        assert_eq!(checkpoint.outbox, Vec::<String>::new(), "{start:?}");
    }
}

#[test]
fn a_run_is_not_over_before_its_result_is_stored_although_its_notice_waits() {
    let faults = vec![
        planned("kv:result", 1, Fault::StoreFails),
        planned("webhook", 1, Fault::Refused(500)),
    ];
    let outcome = play(&Script { faults, ..Script::default() });
    assert_eq!((outcome.status, kinds(&outcome)), (Some(RunStatus::Succeeded), vec!["succeeded"]));
}

#[test]
fn a_success_that_people_were_told_is_recorded_as_one_whatever_became_of_staging_since() {
    let faults = vec![
        planned("kv:result", 1, Fault::StoreFails),
        planned("listProjectBranches", 9, Fault::StagingRestored),
    ];
    let outcome = play(&Script { faults, ..Script::default() });
    assert_eq!((outcome.status, kinds(&outcome)), (Some(RunStatus::Succeeded), vec!["succeeded"]));
}

#[test]
fn a_run_that_ends_well_is_logged_as_information_and_another_as_an_error() {
    let line = |outcome: &Outcome| {
        outcome.trace.iter().find(|line| line.contains(" run ended: ")).cloned().unwrap_or_default()
    };
    let good = play(&Script::default());
    assert!(
        line(&good).contains("Info run ended: run=20261121 status=succeeded"),
        "{}",
        line(&good)
    );
    assert!(
        !good.trace.iter().any(|line| line.contains("kv:other")),
        "a scheduled run has nothing to strike off"
    );
    let bad = play(&Script {
        faults: vec![planned("getProject", 1, Fault::Refused(401))],
        ..Script::default()
    });
    assert!(line(&bad).contains("Error run ended: run=20261121 status=failed"), "{}", line(&bad));
}

#[test]
fn a_run_that_ends_records_what_it_compared_verified_and_pruned() {
    let outcome = play(&Script::default());
    let report = report(&outcome);
    assert_eq!(
        (report.status, report.compared.tables, report.compared.rows),
        (RunStatus::Succeeded, 5, 1_500)
    );
    let backup: VerifiedBackup = stored(&outcome, "backup/hub/20261121");
    assert_eq!((backup.name.as_str(), backup.compared), ("backup-20261121", report.compared));
    let pruned: Prune = stored(&outcome, "prune/hub/20261121");
    assert_eq!(pruned.deleted, ["staging-of-20261119", "backup-20261119"]);
}

/// A run that has ended well and that people were told of.
pub(crate) fn ended(run: &str, started_at: &str) -> Checkpoint {
    let at = |text: &str| text.parse::<Timestamp>().expect("an instant");
    let start = Start {
        pair: "hub".into(),
        run: RunId::decode(run).expect("a run"),
        is_manual: run.contains('T'),
        goal: Goal::Staging,
        hold: None,
        give_up_at: at("2026-11-21T12:00:00Z"),
        settings: String::new(),
        history: firstlight::sync::checkpoint::History::default(),
    };
    let started_at = at(started_at);
    let mut checkpoint = Checkpoint::start(start, started_at);
    let (status, step, staging) = (RunStatus::Succeeded, Step::Prune, String::new());
    checkpoint.verdict = Some(Verdict {
        status,
        at: started_at + TimeDelta::minutes(1),
        step,
        reason: None,
        runbook: None,
        staging,
    });
    checkpoint.is_published = true;
    checkpoint
}

#[test]
fn the_last_save_of_a_tick_is_repeated_where_a_subrequest_is_left_and_not_where_none_is() {
    let saves = |outcome: &Outcome| {
        outcome.trace.iter().filter(|line| line.contains("[0] kv:checkpoint#")).count()
    };
    let play = |settings: Settings, refused: Option<usize>| {
        let number = refused.map(|nth| u32::try_from(nth).expect("a few"));
        let faults =
            number.map(|nth| planned("kv:checkpoint", nth, Fault::TooFast)).into_iter().collect();
        play(&Script { settings, faults, ..Script::default() })
    };
    // With two channels and a smoke test fifty-one are used.
    let full: Settings = |value| value["subrequest_budget"] = serde_json::json!(51);
    let roomy: Settings = |value| value["subrequest_budget"] = serde_json::json!(60);
    let used = |outcome: &Outcome| {
        outcome.ticks[0].summary.http_count + outcome.ticks[0].summary.store_count
    };
    let last = saves(&play(full, None));
    let refused = play(full, Some(last));
    assert_eq!((saves(&refused), used(&refused)), (last, 51));
    let last = saves(&play(roomy, None));
    let refused = play(roomy, Some(last));
    assert_eq!(saves(&refused), last + 1);
}

#[test]
fn pruning_that_gets_nowhere_is_left_for_the_next_run_in_the_fourth_tick() {
    let first_tick = |idle_tick_count| {
        let stored = record::encode(&Checkpoint {
            idle_tick_count,
            ..ended("20261121", "2026-11-21T10:00:00Z")
        });
        let happenings =
            vec![(-5, Happening::Stored("checkpoint/hub", Some(stored))), (0, Happening::Cron)];
        let outcome = play(&Script { happenings, ..Script::default() });
        (outcome.ticks[0].summary.http_count > 0, outcome.ticks[0].summary.is_handed_over)
    };
    assert_eq!(first_tick(2), (true, false), "the third that gets nowhere still looks");
    assert_eq!(first_tick(3), (false, false), "the fourth does not");
}

#[test]
fn an_operation_of_this_run_that_failed_is_told_though_its_reply_was_lost_and_an_older_one_is_not()
{
    // Yesterday somebody suspended staging's compute in vain: that operation is in every listing,
    // and stops no run.
    for call in ["createProjectBranch", "restoreProjectBranch"] {
        for crash in ["no_crash", "crash_at_once"] {
            let outcome = run(&format!("plain/{call}#1=operation_fails/{crash}/fresh/one_tick"));
            assert_eq!(kinds(&outcome), ["failed"], "{call} {crash}");
            assert!(
                outcome.told[0].text.contains("ended \"failed\", expected \"finished\""),
                "{call} {crash}: {}",
                outcome.told[0].text
            );
        }
    }
}

#[test]
fn a_store_that_takes_no_writes_is_not_written_to_all_the_time() {
    let faults = vec![planned("kv:checkpoint", 2, Fault::StoreOut)];
    let outcome = play(&Script { faults, ..Script::default() });
    let saves = outcome.trace.iter().filter(|line| line.contains("[0] kv:checkpoint#")).count();
    assert!((3..=9).contains(&saves), "{saves} saves in the first tick");
}

#[test]
fn a_project_that_stores_no_passwords_is_read_with_the_configured_one() {
    let outcome = play(&Script { has_configured_password: true, ..Script::default() });
    assert_eq!(outcome.status, Some(RunStatus::Succeeded), "{:?}", outcome.told);
}
