//! What is on record of notices and of who was told, as the API shows it.

use firstlight::port::Method;
use serde_json::{Value, json};
use simulation::fleet::Fleet;

/// Returns what the API answers.
fn get(fleet: &mut Fleet, path: &str) -> (u16, Value) {
    let (status, body) = fleet.ask(Method::Get, path, "");
    (status, serde_json::from_str(&body).expect("JSON"))
}

/// Issue 19 H: one 410 silenced the only channel for ever.
#[test]
fn the_only_channel_that_is_gone_is_tried_once_a_day_until_it_is_back() {
    let mut fleet = Fleet::new(1, &|_| {});
    fleet.receiver_answers(410);
    fleet.ticks("2026-11-21T10:00:00Z", "2026-11-21T14:00:00Z");
    assert_eq!(fleet.receiver_answers(410), 1, "{:#?}", fleet.log());
    let (status, health) = get(&mut fleet, "/health");
    assert_eq!(
        (status, &health["reason"]),
        (503, &json!("no channel of a pair takes notices: every one has answered 410"))
    );
    let (_, shown) = get(&mut fleet, "/notices/pair-0/20261121/succeeded");
    assert_eq!(shown["deliveries"][0]["state"], "waiting", "{shown:#}");

    fleet.ticks("2026-11-22T10:00:00Z", "2026-11-22T14:00:00Z");
    assert_eq!(
        fleet.receiver_answers(200),
        1,
        "once on the next day, whatever there is to tell: {:#?}",
        fleet.log()
    );

    fleet.ticks("2026-11-23T10:00:00Z", "2026-11-23T14:00:00Z");
    assert_eq!(
        fleet.kinds("pair-0"),
        ["succeeded", "succeeded", "succeeded"],
        "of all three days: {:#?}",
        fleet.log()
    );
    assert_eq!(get(&mut fleet, "/health").0, 200);
    assert!(
        fleet.log().iter().any(|line| line.contains("channel enabled again")),
        "{:#?}",
        fleet.log()
    );
}

/// Issue 19 H: a notice that was delivered at once said `waiting`, and had an empty log afterwards.
#[test]
fn a_notice_that_was_taken_at_once_is_shown_as_such_by_the_end_of_its_tick() {
    let mut seen = 0;
    for budget in (20..80).step_by(3) {
        let mut fleet = Fleet::new(1, &|value| value["subrequest_budget"] = json!(budget));
        let start =
            "2026-11-21T10:00:00Z".parse::<firstlight::time::Timestamp>().expect("an instant");
        for step in 0..12 {
            fleet.tick(start + chrono::TimeDelta::minutes(5) * step);
            if fleet.kinds("pair-0").is_empty() {
                continue;
            }
            let (status, shown) = get(&mut fleet, "/notices/pair-0/20261121/succeeded");
            assert_eq!(
                (status, &shown["deliveries"][0]["state"]),
                (200, &json!("delivered")),
                "{budget}, {step}: {:#?}",
                fleet.log()
            );
            assert_eq!(
                shown["deliveries"][0]["log"].as_array().map(Vec::len),
                Some(1),
                "{budget}, {step}: {shown:#}"
            );
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen}");
}

/// Issue 19 H: `notices.md` showed by whom a run was cancelled, and nothing could say so.
#[test]
fn a_run_that_somebody_cancels_says_by_whom_and_why() {
    for (body, expected) in [
        (
            r#"{"by":"Dana","reason":"production is being migrated"}"#,
            "cancelled by Dana before staging was restored: production is being migrated.",
        ),
        (r#"{"by":"Dana"}"#, "cancelled by Dana before staging was restored."),
        (
            r#"{"reason":"a demo"}"#,
            "somebody cancelled the run before staging was restored: a demo.",
        ),
        ("", "somebody cancelled the run before staging was restored."),
    ] {
        let mut fleet = Fleet::new(1, &|value| value["subrequest_budget"] = json!(20));
        let start =
            "2026-11-21T10:00:00Z".parse::<firstlight::time::Timestamp>().expect("an instant");
        fleet.tick(start);
        let (status, answer) = fleet.ask(Method::Post, "/runs/20261121/cancel", body);
        assert_eq!(status, 202, "{answer}");
        fleet.tick(start + chrono::TimeDelta::minutes(5));
        let told = fleet.told("pair-0");
        assert_eq!(
            told.iter().map(|told| told.kind.as_str()).collect::<Vec<_>>(),
            ["cancelled"],
            "{:#?}",
            fleet.log()
        );
        assert!(told[0].text.contains(expected), "{}", told[0].text);
    }
    let mut fleet = Fleet::new(1, &|value| value["subrequest_budget"] = json!(20));
    fleet.ticks("2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z");
    for body in [r#"{"by":7}"#, r#"{"by":""}"#, r#"{"reason":" "}"#, r#"{"who":"Dana"}"#] {
        assert_eq!(fleet.ask(Method::Post, "/runs/20261121/cancel", body).0, 400, "{body}");
    }
    assert!(fleet.keys("cancel/").is_empty());
}
