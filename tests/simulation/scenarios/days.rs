//! The calendar of a pair: days that are missed, starts that are late, the deadline.

use firstlight::id::RunId;
use firstlight::record;
use firstlight::sync::checkpoint::{Pace, RunStatus};
use simulation::faults::Fault;
use simulation::plan::Planned;
use simulation::run::Outcome;
use simulation::script::{Happening, Script};

use crate::ticks::{ended, kinds};
use crate::{planned, play};

/// Plays crons at these seconds after 05:05 in New York.
fn crons(seconds: &[i64]) -> Outcome {
    play(&Script {
        happenings: seconds.iter().map(|at| (*at, Happening::Cron)).collect(),
        ..Script::default()
    })
}

#[test]
fn a_day_without_a_tick_in_its_time_is_missed_and_told_once() {
    // 06:00:00 is in time, a millisecond later is not; the sixth decimal of a second is not told
    // apart.
    let outcome = crons(&[3_301, 3_600, 3_900]);
    assert_eq!((outcome.status, kinds(&outcome)), (Some(RunStatus::Missed), vec!["missed"]));
    assert_eq!(outcome.deeds, (0, 0, 0));
    assert!(
        outcome.told[0].text.contains("was not started between 05:00 and 06:00 ET"),
        "{}",
        outcome.told[0].text
    );
    assert_eq!(kinds(&crons(&[3_300])), ["late_start", "late", "succeeded", "resolved"]);
}

#[test]
fn a_day_without_any_tick_is_told_as_missed_the_next_morning() {
    let outcome = crons(&[86_400]);
    let told: Vec<(&str, &str)> =
        outcome.told.iter().map(|told| (told.run.as_str(), told.kind.as_str())).collect();
    assert_eq!(told, [("20261121", "missed"), ("20261122", "succeeded"), ("20261121", "resolved")]);
}

#[test]
fn a_day_that_was_missed_is_told_once_however_many_ticks_there_are_before_the_next_run() {
    let outcome = crons(&[79_200, 79_500, 79_800, 86_100]);
    let told: Vec<(&str, &str)> =
        outcome.told.iter().map(|told| (told.run.as_str(), told.kind.as_str())).collect();
    assert_eq!(told, [("20261121", "missed"), ("20261122", "succeeded"), ("20261121", "resolved")]);
}

#[test]
fn yesterday_was_missed_where_the_last_run_began_before_it_and_no_result_of_it_is_there() {
    let yesterday_is_missed = |last: &str, started_at: &str| {
        let mut last = ended(last, started_at);
        last.prune.is_done = true;
        let happenings = vec![
            (-5, Happening::Stored("checkpoint/hub", Some(record::encode(&last)))),
            (-5, Happening::Stored("result/hub/20261120", None)),
            (0, Happening::Cron),
        ];
        let outcome = play(&Script { happenings, ..Script::default() });
        outcome
            .told
            .iter()
            .any(|told| (told.run.as_str(), told.kind.as_str()) == ("20261120", "missed"))
    };
    assert!(yesterday_is_missed("20261119", "2026-11-19T10:00:00Z"));
    assert!(yesterday_is_missed("20261120T095959Z", "2026-11-20T09:59:59.999Z"));
    assert!(
        !yesterday_is_missed("20261120T100000Z", "2026-11-20T10:00:00Z"),
        "the pair came to be at that instant"
    );
    assert!(!yesterday_is_missed("20261120", "2026-11-20T09:59:00Z"), "its run was there");
}

#[test]
fn a_start_after_the_latest_one_is_told_as_late_and_the_latest_one_is_not() {
    assert_eq!(kinds(&crons(&[1_500])), ["succeeded"]);
    let late = crons(&[1_501]);
    assert_eq!(kinds(&late), ["late_start", "succeeded"]);
    assert!(
        late.told[0].text.contains("was to start by 05:30 ET and starts at 5:30 AM ET"),
        "{}",
        late.told[0].text
    );
}

#[test]
fn a_run_under_way_after_its_deadline_is_told_as_late_once() {
    // Neon is out for three hours; the run tries until 06:00 and is given up by the first tick
    // after that.
    let outage = planned("createProjectBranch", 1, Fault::LongOutage);
    let told = |first: i64, faults: Vec<Planned>| {
        let outcome = play(&Script {
            faults,
            happenings: vec![(first, Happening::Cron)],
            ..Script::default()
        });
        let texts: Vec<(String, String)> =
            outcome.told.iter().map(|told| (told.kind.clone(), told.text.clone())).collect();
        texts
    };
    let kinds =
        |told: &[(String, String)]| told.iter().map(|(kind, _)| kind.clone()).collect::<Vec<_>>();
    assert_eq!(
        kinds(&told(0, vec![outage.clone()])),
        ["late", "failed"],
        "the tick of 06:00:00 goes on after that"
    );
    let late = told(60, vec![outage.clone()]);
    assert_eq!(kinds(&late), ["late", "failed"]);
    assert!(late[0].1.contains("has passed its deadline of 06:00 ET"), "{}", late[0].1);
    let refused_first = told(60, vec![outage, planned("webhook", 1, Fault::Refused(500))]);
    assert_eq!(
        kinds(&refused_first),
        ["late", "failed"],
        "it is sent again, before what came after it"
    );
}

#[test]
fn the_days_run_is_not_repeated_after_a_manual_one() {
    let happenings = vec![
        (0, Happening::Cron),
        (300, Happening::Cron),
        (400, Happening::Start),
        (700, Happening::Cron),
    ];
    let outcome = play(&Script { happenings, ..Script::default() });
    assert_eq!(outcome.deeds, (1, 1, 0));
    assert_eq!(kinds(&outcome), ["succeeded", "succeeded"], "one each");
}

/// Plays a morning after three good ones, each of whose steps took so many seconds.
fn after_runs_of(steps: [u64; 6]) -> Outcome {
    let mut last = ended("20261120", "2026-11-20T10:05:00Z");
    last.prune.is_done = true;
    last.history.paces = ["20261118", "20261119", "20261120"]
        .map(|run| Pace {
            run: RunId::decode(run).expect("a date"),
            seconds: steps.iter().sum(),
            steps: steps.to_vec(),
        })
        .into();
    // A minute before the deadline of 06:00 no step of this morning's run is late by itself.
    let happenings = vec![
        (0, Happening::Stored("checkpoint/hub", Some(record::encode(&last)))),
        (1_500, Happening::Cron),
        (1_800, Happening::Cron),
    ];
    play(&Script { happenings, ..Script::default() })
}

#[test]
fn a_run_that_usually_takes_longer_than_there_is_time_is_told_as_at_risk_once() {
    // At 05:30 it begins, and needs forty minutes for the restore alone.
    let outcome = after_runs_of([2, 10, 60, 2_400, 60, 2]);
    assert_eq!(kinds(&outcome), ["at_risk", "succeeded"]);
    let told = &outcome.told[0].text;
    assert!(told.contains("expected to be done at 6:1") && told.contains("06:00 ET"), "{told}");
    // It was quicker than usual, which the success says.
    assert!(outcome.told[1].text.contains("30 minutes early"), "{}", outcome.told[1].text);
}

#[test]
fn a_run_that_usually_ends_in_time_is_not_told_as_at_risk() {
    let outcome = after_runs_of([2, 10, 60, 600, 60, 2]);
    assert_eq!(kinds(&outcome), ["succeeded"]);
}
