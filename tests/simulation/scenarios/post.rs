//! What people are told, and how often: receivers that fail, a store that takes no writes, ticks
//! that did not see each other.

use chrono::TimeDelta;
use firstlight::config::NoticeKind;
use firstlight::id::RunId;
use firstlight::record;
use firstlight::sync::incident::Incident;
use firstlight::sync::notice::{Notice, Outgoing};
use serde_json::{Value, json};
use simulation::faults::Fault;
use simulation::plan::{Memory, Planned};
use simulation::receivers;
use simulation::run::Outcome;
use simulation::script::{Happening, Script, Settings};

use crate::ticks::ended;
use crate::{planned, play, stored, with_scene};

#[test]
fn nothing_is_lost_told_under_another_id_or_out_of_order_whatever_receivers_do() {
    with_scene(|scene| {
        let mut all = receivers::Post::default();
        for seed in 0..6 {
            let post = receivers::run(scene, 5, 35, seed);
            assert!(post.violations.is_empty(), "seed {seed}: {:#?}", post.violations);
            all.notices += post.notices;
            all.failed += post.failed;
            all.incidents.0 += post.incidents.0;
            all.incidents.1 += post.incidents.1;
        }
        // There was something to tell, and something went wrong with it.
        assert!(
            all.notices > 60 && all.failed > 200 && all.incidents.0 > 5 && all.incidents.1 > 20,
            "{all:?}"
        );
    });
}

/// The crons of so many seconds after 05:05 in New York.
fn crons(seconds: impl IntoIterator<Item = i64>) -> Vec<(i64, Happening)> {
    seconds.into_iter().map(|at| (at, Happening::Cron)).collect()
}

/// The kinds of notices, in the order in which they came.
fn kinds(outcome: &Outcome) -> Vec<&str> {
    outcome.told.iter().map(|told| told.kind.as_str()).collect()
}

/// When the webhook took a notice.
fn taken_at(outgoing: &Outgoing) -> Option<String> {
    outgoing.deliveries[0].delivered_at.map(|at| at.format("%H:%M").to_string())
}

/// A run that fails at once.
fn failing() -> Planned {
    planned("getProject", 1, Fault::Refused(401))
}

fn escalates_after_29_minutes(value: &mut Value) {
    value["escalations"] = json!([{"after_min": 29, "channels": ["on-call"]}]);
}

#[test]
fn an_escalation_tries_what_came_before_it_again_at_once() {
    // Refused at 10:05, 10:10 and 10:15; by itself the failure would be tried again at 10:45, and
    // the escalation of 10:35 would wait for it.
    let refused = |count: u32| (1..=count).map(|nth| planned("webhook", nth, Fault::Refused(500)));
    let play = |count: u32| {
        let faults = std::iter::once(failing()).chain(refused(count)).collect();
        let happenings = crons((0..=2_700).step_by(300));
        play(&Script {
            faults,
            happenings,
            settings: escalates_after_29_minutes,
            ..Script::default()
        })
    };
    let taken_at = |outcome: &Outcome, word: &str| {
        taken_at(&stored(outcome, &format!("notice/hub/20261121/{word}")))
    };
    let outcome = play(3);
    assert_eq!(kinds(&outcome), ["failed", "escalated"]);
    assert_eq!(
        ["failed", "escalated-1"].map(|word| taken_at(&outcome, word)),
        [Some("10:35".to_owned()), Some("10:35".to_owned())]
    );
    // Refused again, the waits begin again: seconds, not hours.
    let outcome = play(4);
    assert_eq!(kinds(&outcome), ["failed", "escalated"]);
    assert_eq!(
        ["failed", "escalated-1"].map(|word| taken_at(&outcome, word)),
        [Some("10:40".to_owned()), Some("10:40".to_owned())]
    );
    let failed: Outgoing = stored(&outcome, "notice/hub/20261121/failed");
    assert_eq!(failed.deliveries[0].log.len(), 5, "every attempt is in the log");
}

#[test]
fn a_pair_that_is_left_alone_is_escalated_like_any_other() {
    let newer = Happening::Stored("checkpoint/hub", Some(r#"{"format":99}"#.to_owned()));
    let removed = Happening::Stored("checkpoint/hub", None);
    let happenings = [(-5, newer), (2_350, removed)]
        .into_iter()
        .chain(crons((0..=2_400).step_by(300)))
        .collect();
    let outcome =
        play(&Script { happenings, settings: escalates_after_29_minutes, ..Script::default() });
    assert_eq!(kinds(&outcome), ["stuck", "escalated", "late_start", "succeeded", "resolved"]);
    let escalated: Outgoing = stored(&outcome, "notice/hub/20261121/escalated-1");
    assert_eq!(taken_at(&escalated).as_deref(), Some("10:35"), "while it was left alone");
}

#[test]
fn a_pair_that_was_left_alone_yesterday_is_told_as_stuck_today_as_well() {
    let mut told: Outgoing = stored(
        &play(&Script { faults: vec![failing()], ..Script::default() }),
        "notice/hub/20261121/failed",
    );
    told.notice.id = "hub/20261120/stuck".to_owned();
    (told.notice.kind, told.notice.run) =
        (NoticeKind::Stuck, RunId::decode("20261120").expect("a date"));
    let happenings = [
        (-5, Happening::Stored("notice/hub/20261120/stuck", Some(record::encode(&told)))),
        (-5, Happening::Stored("notice/hub/20261120/succeeded", None)),
        (-5, Happening::Stored("checkpoint/hub", Some(r#"{"format":99}"#.to_owned()))),
        (400, Happening::Stored("checkpoint/hub", None)),
    ];
    let happenings = happenings.into_iter().chain(crons([0, 300, 600])).collect();
    assert_eq!(
        kinds(&play(&Script { happenings, ..Script::default() })),
        ["stuck", "succeeded", "resolved"]
    );
}

#[test]
fn an_incident_whose_record_cannot_be_read_is_not_written_over() {
    let newer = r#"{"format":99}"#;
    // Yesterday's trouble names an incident, which would be opened again where there was none.
    let mut told: Outgoing = stored(
        &play(&Script { faults: vec![failing()], ..Script::default() }),
        "notice/hub/20261121/failed",
    );
    told.notice.id = "hub/20261120/snapshot_failed".to_owned();
    (told.notice.kind, told.notice.run) =
        (NoticeKind::SnapshotFailed, RunId::decode("20261120").expect("a date"));
    told.notice.incident = Some("hub-20261120".to_owned());
    let happenings = [
        (-5, Happening::Stored("incident/hub", Some(newer.to_owned()))),
        (-5, Happening::Stored("notice/hub/20261120/snapshot_failed", Some(record::encode(&told)))),
        (400, Happening::Stored("incident/hub", None)),
    ];
    let happenings = happenings.into_iter().chain(crons([0, 300, 600])).collect();
    let outcome = play(&Script { happenings, ..Script::default() });
    assert_eq!(kinds(&outcome), ["stuck", "succeeded", "resolved"]);
    let opened: Vec<&str> = outcome
        .trace
        .iter()
        .filter(|line| line.contains("incident opened again"))
        .map(|line| &line[..5])
        .collect();
    assert_eq!(opened, ["10:15"], "after somebody has removed the record");
}

#[test]
fn what_a_channel_did_not_take_of_a_pair_that_is_left_alone_is_sent_again() {
    let newer = Happening::Stored("checkpoint/hub", Some(r#"{"format":99}"#.to_owned()));
    let faults = vec![planned("webhook", 1, Fault::Refused(500))];
    let removed = Happening::Stored("checkpoint/hub", None);
    let happenings =
        [(-5, newer), (850, removed)].into_iter().chain(crons([0, 300, 900])).collect();
    let outcome = play(&Script { faults, happenings, ..Script::default() });
    assert_eq!(kinds(&outcome), ["stuck", "succeeded", "resolved"]);
    assert_eq!(
        taken_at(&stored(&outcome, "notice/hub/20261121/stuck")).as_deref(),
        Some("10:10"),
        "while it was left alone"
    );
}

#[test]
fn what_cannot_be_stored_is_told_once_an_hour_and_not_in_every_tick() {
    let told = |faults: Vec<Planned>, happenings: Vec<(i64, Happening)>| {
        let outcome = play(&Script {
            faults,
            happenings,
            settings: escalates_after_29_minutes,
            ..Script::default()
        });
        outcome.told.into_iter().map(|told| told.kind).collect::<Vec<String>>()
    };
    let count = |told: &[String], kind: &str| told.iter().filter(|known| *known == kind).count();
    // The store takes nothing from 05:06 on, for three hours.
    let refused = (60, Happening::WritesRefused(180));
    let escalated = told(
        vec![failing()],
        std::iter::once(refused.clone()).chain(crons((0..=9_000).step_by(300))).collect(),
    );
    assert_eq!(count(&escalated, "failed"), 1);
    // Due at 05:35; the last cron is at 07:35.
    assert_eq!(count(&escalated, "escalated"), 3, "{escalated:?}");
    // A day without any tick before 06:00, told at 06:05 and at 07:05.
    let missed = told(
        Vec::new(),
        std::iter::once(refused).chain(crons((3_600..=7_200).step_by(300))).collect(),
    );
    assert_eq!(count(&missed, "missed"), 2, "{missed:?}");
    // The end of a run that cannot be recorded.
    let refused = (1, Happening::WritesRefused(180));
    let stuck =
        told(Vec::new(), std::iter::once(refused).chain(crons((0..=7_200).step_by(300))).collect());
    assert!((1..=3).contains(&count(&stuck, "stuck")), "{stuck:?}");
}

#[test]
fn an_end_that_was_told_as_stuck_while_the_store_took_nothing_is_resolved_at_every_channel() {
    let happenings = [(1, Happening::WritesRefused(12))]
        .into_iter()
        .chain(crons((0..=1_500).step_by(300)))
        .collect();
    let outcome = play(&Script { happenings, ..Script::default() });
    assert_eq!(kinds(&outcome), ["stuck", "succeeded", "resolved"]);
    let incident: Incident = stored(&outcome, "incident/hub");
    assert_eq!((incident.id.as_str(), incident.is_open()), ("hub-20261121", false));
}

#[test]
fn what_cannot_be_stored_and_was_not_taken_is_sent_again_to_that_channel_alone() {
    let faults = vec![planned("webhook", 1, Fault::Refused(500))];
    let happenings = std::iter::once((60, Happening::WritesRefused(60)))
        .chain(crons([3_600, 3_650, 3_655]))
        .collect();
    let outcome = play(&Script { faults, happenings, ..Script::default() });
    let sent = |receiver: &str| {
        outcome.trace.iter().filter(|line| line.contains(&format!("] {receiver}#"))).count()
    };
    assert_eq!((kinds(&outcome), sent("webhook"), sent("slack")), (vec!["missed"], 2, 1));
}

#[test]
fn a_run_of_yesterday_that_ended_after_midnight_is_no_success_of_today() {
    let yesterday = |ended_at: &str| {
        let mut last = ended("20261120", "2026-11-21T04:30:00Z");
        last.verdict
            .iter_mut()
            .for_each(|verdict| verdict.at = ended_at.parse().expect("an instant"));
        last.prune.is_done = true;
        last
    };
    // It ended at 00:30 in New York; today's may begin at 00:05.
    let stored = Happening::Stored(
        "checkpoint/hub",
        Some(record::encode(&yesterday("2026-11-21T05:30:00Z"))),
    );
    let happenings = std::iter::once((-5, stored)).chain(crons([0, 3_600])).collect();
    let settings: Settings = |value| value["pairs"][0]["earliest_start"] = json!("00:05");
    let outcome =
        play(&Script { faults: vec![failing()], happenings, settings, ..Script::default() });
    assert_eq!(kinds(&outcome), ["failed", "late"]);
}

#[test]
fn the_end_of_an_incident_waits_for_a_failure_that_only_publishing_has_seen() {
    // Yesterday's incident is open. One tick tells a failure, which the webhook refuses; the other
    // sees a minute-old store, and succeeds.
    let mut told: Outgoing = stored(
        &play(&Script { faults: vec![failing()], ..Script::default() }),
        "notice/hub/20261121/failed",
    );
    (told.notice.id, told.notice.run) =
        ("hub/20261120/snapshot_failed".to_owned(), RunId::decode("20261120").expect("a date"));
    told.notice.at -= TimeDelta::hours(12);
    let open = Happening::Stored(
        "incident/hub",
        Some(record::encode(&Incident::open(&told.notice, None))),
    );
    let faults = vec![failing(), planned("webhook", 1, Fault::Refused(500))];
    let happenings = std::iter::once((0, open)).chain(crons([0, 60])).collect();
    let outcome = play(&Script {
        faults,
        happenings,
        memory: Memory::Stale,
        subrequests: Some(100),
        ..Script::default()
    });
    assert_eq!(kinds(&outcome), ["corrected", "failed", "resolved"]);
}

#[test]
fn what_a_run_tells_late_is_not_told_again_by_what_the_cron_has_told_meanwhile() {
    // The cron of 10:10 delivers the failure of 10:05 while a manual run is driven, which then
    // fails as well.
    let faults = vec![
        failing(),
        planned("webhook", 1, Fault::Refused(500)),
        planned("restoreProjectBranch", 1, Fault::Refused(422)),
    ];
    let happenings = [
        (0, Happening::Cron),
        (298, Happening::Start),
        (300, Happening::Cron),
        (400, Happening::Cron),
    ]
    .to_vec();
    let outcome = play(&Script { faults, happenings, ..Script::default() });
    let told: Vec<(&str, &str)> =
        outcome.told.iter().map(|told| (told.run.as_str(), told.kind.as_str())).collect();
    assert_eq!(told, [("20261121", "failed"), ("20261121T100958Z", "failed")]);
}

#[test]
fn a_result_that_cannot_be_stored_has_nobody_told_again() {
    // The notice is stored, then neither who has taken it nor the result.
    let results = (1..=6).map(|nth| planned("kv:result", nth, Fault::StoreFails));
    let faults =
        results.chain((2..=8).map(|nth| planned("kv:notice", nth, Fault::StoreFails))).collect();
    let happenings = [(0, Happening::Cron), (300, Happening::Cron)].to_vec();
    let outcome = play(&Script { faults, happenings, ..Script::default() });
    assert_eq!(
        kinds(&outcome).iter().filter(|kind| **kind == "succeeded").count(),
        1,
        "{:?}",
        kinds(&outcome)
    );
}

#[test]
fn an_incident_of_a_failure_that_was_told_after_the_success_of_its_run_ends_with_the_correction() {
    let failed = |outcome: &Outcome| {
        let success: Outgoing = stored(outcome, "notice/hub/20261121/succeeded");
        let notice = Notice {
            id: "hub/20261121/failed".to_owned(),
            kind: NoticeKind::Failed,
            at: success.notice.at + TimeDelta::seconds(20),
            incident: Some("hub-20261121".to_owned()),
            ..success.notice.clone()
        };
        let incident = Incident::open(&notice, None);
        (Outgoing { notice, ..success }, incident)
    };
    let (failed, incident) = failed(&play(&Script::default()));
    let happenings = |incident: &Incident| {
        [
            (120, Happening::Stored("notice/hub/20261121/failed", Some(record::encode(&failed)))),
            (120, Happening::Stored("incident/hub", Some(record::encode(incident)))),
        ]
        .into_iter()
        .chain(crons([0, 300, 600]))
        .collect()
    };
    let outcome = play(&Script { happenings: happenings(&incident), ..Script::default() });
    assert_eq!(kinds(&outcome), ["succeeded", "corrected", "resolved"]);
    // What else is wrong is not mended by it.
    for other in ["hub/20261120/failed", "hub/20261121/snapshot_failed"] {
        let joined = vec![incident.joined[0].clone(), other.to_owned()];
        let outcome = play(&Script {
            happenings: happenings(&Incident { joined, ..incident.clone() }),
            ..Script::default()
        });
        assert_eq!(kinds(&outcome), ["succeeded", "corrected"], "{other}");
    }
}

#[test]
fn an_escalation_that_another_tick_has_struck_off_the_record_is_sent_again() {
    // At 10:35 the escalation is refused. The tick that did not see the one that told it then
    // writes the incident as it knows it.
    let script = |happenings: Vec<(i64, Happening)>| Script {
        faults: vec![failing(), planned("webhook", 2, Fault::Refused(500))],
        happenings: crons((0..=1_800).step_by(300)).into_iter().chain(happenings).collect(),
        settings: escalates_after_29_minutes,
        ..Script::default()
    };
    let incident: Incident = stored(&play(&script(Vec::new())), "incident/hub");
    assert_eq!((incident.escalations, incident.outbox.len()), (1, 0));
    let outcome = play(&script(vec![(
        1_900,
        Happening::Stored("incident/hub", Some(record::encode(&incident))),
    )]));
    assert_eq!(kinds(&outcome), ["failed", "escalated"]);
    let escalated: Outgoing = stored(&outcome, "notice/hub/20261121/escalated-1");
    assert_eq!(escalated.deliveries[0].log.len(), 2, "refused at first");
}
