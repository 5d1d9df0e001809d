//! An incident from its first notice to its end.

use serde_json::{Value, json};

use super::*;
use crate::fixtures::started;
use crate::fixtures::{pair, settings};
use crate::sync::checkpoint::{Restore, Verdict};
use crate::sync::notice::{of_late_run, of_missed_day};
use crate::sync::step::Step;

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

fn missed(date: &str, told_at: &str) -> Notice {
    of_missed_day(&pair(), &RunId::decode(date).expect("a date"), "Hub", at(told_at))
}

fn opened() -> Incident {
    take_up(None, &missed("20261121", "2026-11-21T11:05:00Z")).expect("a missed day is trouble")
}

/// Reads a configuration with escalations after 15 and 45 minutes, and whatever else is given.
fn config(more: &Value) -> Config {
    let mut value = json!({
        "pairs": [settings()],
        "channels": [
            {"name": "on-call", "kind": "slack", "url_secret": "SLACK"},
            {"name": "director", "kind": "slack", "url_secret": "SLACK"}
        ],
        "escalations": [{"after_min": 15, "channels": ["on-call"]},
            {"after_min": 45, "channels": ["on-call", "director"]}]
    });
    value.as_object_mut().expect("a table").extend(more.as_object().cloned().unwrap_or_default());
    Config::from_value(&value).expect("the configuration is complete")
}

/// Lets time pass in steps of five minutes, and returns what people are told, with the minutes
/// since the incident was opened.
fn told(incident: &mut Incident, config: &Config, hours: i64) -> Vec<(i64, String)> {
    let mut told = Vec::new();
    for minutes in (0..hours * 60).step_by(5) {
        let now = incident.opened_at + chrono::TimeDelta::minutes(minutes);
        while let Some(due) = due(incident, &config.pairs[0], config, now) {
            told.push((minutes, due.occasion.word()));
            incident.escalated(&due, now, now);
        }
    }
    told
}

#[test]
fn repeated_failures_join_the_incident_that_is_open() {
    let first = opened();
    assert_eq!((first.id.as_str(), first.joined.len()), ("hub-20261121", 1));
    let late = of_late_run(&started(), &pair(), "Hub", at("2026-11-21T11:10:00Z"));
    let second = take_up(Some(&first), &late).expect("it joins");
    assert_eq!((second.id.as_str(), second.joined.len()), ("hub-20261121", 2));
    let again = take_up(Some(&second), &late).expect("it is known");
    assert_eq!(again, second);
    assert_eq!(second.outbox, ["hub/20261121/missed", "hub/20261121/late"]);
    let taken = Incident { outbox: Vec::new(), ..second.clone() };
    assert_eq!(take_up(Some(&taken), &late), Some(taken), "every channel has taken it");
    assert_eq!(take_up(Some(&second), &Notice { kind: NoticeKind::Succeeded, ..late }), None);
}

#[test]
fn an_incident_after_one_that_is_over_has_an_id_of_its_own() {
    let over = Incident {
        resolution: Some(Resolution { at: at("2026-11-21T12:00:00Z"), run: started().run }),
        ..opened()
    };
    let next = take_up(Some(&over), &missed("20261122", "2026-11-22T11:05:00Z")).expect("another");
    assert_eq!(next.id, "hub-20261122");
    let same_day = take_up(Some(&over), &missed("20261121", "2026-11-21T12:05:00Z"))
        .expect("another of the day");
    assert_eq!(
        (same_day.id.as_str(), same_day.notice_id("resolved").as_str()),
        ("hub-20261121-2", "hub/20261121/resolved-2")
    );
}

#[test]
fn two_ticks_that_did_not_see_each_other_put_together_what_they_know() {
    let (mut ours, mut theirs) = (opened(), opened());
    ours.joined.push("hub/20261121/late".to_owned());
    ours.list("hub/20261121/late", at("2026-11-21T12:00:00Z"));
    let due = Due { occasion: Occasion::Level(2), at: at("2026-11-21T11:50:00Z"), channels: None };
    theirs.escalated(&due, at("2026-11-21T11:50:01Z"), at("2026-11-21T11:50:00Z"));
    theirs.list("hub/20261121/escalated-2", at("2026-11-21T11:50:00Z"));
    let (mut one, mut other) = (ours.clone(), theirs.clone());
    one.catch_up(theirs.clone());
    other.catch_up(ours.clone());
    assert_eq!(
        (one.escalations, one.escalated_at, one.told_at),
        (2, theirs.escalated_at, theirs.told_at)
    );
    assert_eq!((one.listed_at, one.joined.len()), (ours.listed_at, ours.joined.len()));
    assert!(
        one.outbox.contains(&"hub/20261121/escalated-2".to_owned())
            && one.outbox.contains(&"hub/20261121/late".to_owned())
    );
    one.outbox.sort();
    other.outbox.sort();
    assert_eq!(one, other);
    let before = one.clone();
    one.catch_up(Incident { id: "hub-20261122".to_owned(), escalations: 9, ..theirs });
    assert_eq!(one, before, "it is another");
}

#[test]
fn an_incident_whose_record_was_lost_is_opened_again_under_its_id() {
    let notice = Notice {
        incident: Some("hub-20261121-2".to_owned()),
        ..missed("20261121", "2026-11-21T11:05:00Z")
    };
    assert_eq!(Incident::recover(&notice, None).expect("it is opened").id, "hub-20261121-2");
    let known = Incident { id: "hub-20261121-2".to_owned(), ..opened() };
    assert_eq!(Incident::recover(&notice, Some(&known)), None);
    let later = take_up(None, &missed("20261122", "2026-11-22T11:05:00Z")).expect("a later one");
    assert_eq!(Incident::recover(&notice, Some(&later)), None, "a later one is known");
    assert_eq!(
        Incident::recover(&missed("20261121", "2026-11-21T11:05:00Z"), None),
        None,
        "it names none"
    );
}

#[test]
fn what_is_on_its_way_of_the_incident_before_is_not_forgotten_when_one_is_opened_again() {
    let resolution = Some(Resolution { at: at("2026-11-21T12:00:00Z"), run: started().run });
    let before =
        Incident { resolution, outbox: vec!["hub/20261121/resolved".to_owned()], ..opened() };
    let notice = Notice {
        incident: Some("hub-20261122".to_owned()),
        ..missed("20261122", "2026-11-22T11:05:00Z")
    };
    let again = Incident::recover(&notice, Some(&before)).expect("it is opened");
    assert_eq!(again.outbox, ["hub/20261121/resolved", "hub/20261122/missed"]);
}

#[test]
fn its_own_last_notices_are_looked_at_for_an_hour_whether_they_are_listed_or_not() {
    let listed_at = at("2026-11-21T12:00:00Z");
    let now = after(listed_at, RECENT);
    assert!(
        Incident { listed_at, ..opened() }.recent_notices(now).is_empty(),
        "it has told nothing of its own"
    );
    let resolution = Some(Resolution { at: listed_at, run: started().run });
    let business_day = NaiveDate::from_ymd_opt(2026, 11, 23);
    let incident =
        Incident { escalations: 2, business_day, resolution, number: 1, listed_at, ..opened() };
    let expected = [
        "hub/20261121/escalated-2-2",
        "hub/20261121/escalated-20261123-2",
        "hub/20261121/resolved-2",
    ];
    assert_eq!(incident.recent_notices(now), expected);
    assert!(incident.recent_notices(after(now, Duration::from_millis(1))).is_empty());
}

#[test]
fn what_joins_an_incident_is_listed_once_and_up_to_a_limit() {
    let mut incident = opened();
    for minute in 0..2 * JOINED {
        for _ in 0..2 {
            incident.join(&Notice {
                id: format!("hub/20261121/{minute}"),
                ..missed("20261121", "2026-11-21T11:05:00Z")
            });
        }
    }
    assert_eq!(
        (incident.joined.len(), incident.joined[JOINED - 1].as_str()),
        (JOINED, "hub/20261121/48")
    );
}

#[test]
fn a_snapshot_that_is_verified_after_all_ends_what_nothing_else_belongs_to() {
    let (run, now) = (started().run, at("2026-11-21T18:00:00Z"));
    let of = |ids: &[&str]| Incident {
        joined: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..opened()
    };
    let alone = of(&["hub/20261121/snapshot_failed"]);
    assert!(alone.resolution_by_snapshot(&run, now).is_some());
    assert_eq!(
        of(&["hub/20261121/snapshot_failed", "hub/20261122/missed"])
            .resolution_by_snapshot(&run, now),
        None
    );
    let resolution = alone.resolution_by_snapshot(&run, now);
    assert_eq!(
        Incident { resolution, ..alone }.resolution_by_snapshot(&run, now),
        None,
        "it is over"
    );
}

#[test]
fn a_good_run_resolves_and_no_other_does() {
    let restore = Restore {
        displaced_name: "staging-of-20261120".into(),
        displaced_id: None,
        accepted_at: None,
        before: None,
        operations: Vec::new(),
        is_done: true,
    };
    let ended = |status, ended_at: &str| {
        let verdict = Verdict {
            status,
            at: at(ended_at),
            step: Step::Prune,
            reason: None,
            runbook: None,
            staging: String::new(),
        };
        Checkpoint {
            verdict: Some(verdict),
            restore: Some(restore.clone()),
            is_published: true,
            ..started()
        }
    };
    let is_over = |run: &Checkpoint| opened().resolution_by(run).is_some();
    let good = ended(RunStatus::Succeeded, "2026-11-21T12:00:00Z");
    assert!(is_over(&good));
    assert!(!is_over(&ended(RunStatus::Failed, "2026-11-21T12:00:00Z")));
    assert!(!is_over(&Checkpoint { restore: None, ..good.clone() }), "staging was left as it was");
    assert!(!is_over(&ended(RunStatus::Succeeded, "2026-11-21T11:00:00Z")), "it was before");
    assert!(!is_over(&Checkpoint { is_published: false, ..good }), "nobody was told of it yet");
}

#[test]
fn people_are_told_again_at_the_configured_times_and_when_the_business_day_begins() {
    let mut incident = opened();
    let expected = [
        (15, "escalated-1"),
        (45, "escalated-2"),
        (175, "escalated-20261121"),
        (1_615, "escalated-20261122"),
    ];
    assert_eq!(
        told(&mut incident, &config(&json!({})), 30),
        expected.map(|(minutes, word)| (minutes, word.to_owned()))
    );
    let nine = at("2026-11-21T14:00:00Z");
    assert_eq!(
        due(&Incident { opened_at: nine, ..opened() }, &pair(), &config(&json!({})), nine),
        None,
        "it was told a moment ago"
    );
}

#[test]
fn the_last_escalation_is_repeated_where_that_is_configured_and_not_for_ever() {
    let mut incident = opened();
    let told = told(&mut incident, &config(&json!({"escalate_again_min": 60})), 100);
    let levels: Vec<i64> =
        told.iter().filter(|(_, word)| word.len() < 13).map(|(minutes, _)| *minutes).collect();
    assert_eq!(levels[..4], [15, 45, 105, 165]);
    assert_eq!(levels.len(), 48);
}

#[test]
fn who_has_acknowledged_is_told_again_only_when_the_business_day_begins() {
    let by = Acknowledgement {
        format: 1,
        incident: "hub-20261121".to_owned(),
        at: at("2026-11-21T11:06:00Z"),
        by: "Dana".to_owned(),
    };
    let mut incident = Incident { acknowledged: Some(by), ..opened() };
    assert_eq!(
        told(&mut incident, &config(&json!({})), 4),
        [(175, "escalated-20261121".to_owned())]
    );
}

#[test]
fn of_escalations_that_were_missed_the_last_is_told() {
    let incident = opened();
    let due = due(&incident, &pair(), &config(&json!({})), at("2026-11-21T12:30:00Z"))
        .expect("two have passed");
    assert_eq!(due.occasion, Occasion::Level(2));
    assert_eq!(due.channels.expect("configured").len(), 2);
}

#[test]
fn a_day_off_has_no_business_day() {
    let with = |days: Value| {
        let mut table = settings();
        table["weekdays"] = days;
        config(&json!({"pairs": [table], "escalations": []}))
    };
    // The 21st is a Saturday.
    assert_eq!(
        told(&mut opened(), &with(json!(["mon", "sat"])), 60),
        [(175, "escalated-20261121".to_owned()), (3_055, "escalated-20261123".to_owned())]
    );
    assert_eq!(
        told(&mut opened(), &with(json!(["mon"])), 60),
        [(3_055, "escalated-20261123".to_owned())]
    );
}
