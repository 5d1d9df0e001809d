//! Manual runs of which the store forgets something: everything, or only the checkpoint.

use chrono::TimeDelta;
use firstlight::port::Method;
use firstlight::time::Timestamp;
use serde_json::{Value, json};
use simulation::fleet::Fleet;

/// So few subrequests that a run takes several ticks: the store is emptied between any two of them.
fn poor(value: &mut Value) {
    value["subrequest_budget"] = json!(32);
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

/// Starts a manual run at an instant, lets `ticks` of them pass, lets the store forget, and goes on
/// for an hour. Returns the run and what people were told of it.
fn lost_after(
    fleet: &mut Fleet,
    body: &Value,
    ticks: i32,
    forget: &dyn Fn(&mut Fleet),
) -> (String, Vec<String>) {
    let start = at("2026-11-21T08:00:00Z");
    fleet.tick(start);
    let (status, answer) = fleet.ask(Method::Post, "/runs", &body.to_string());
    assert_eq!(status, 202, "{answer}");
    let run = serde_json::from_str::<Value>(&answer).expect("JSON")["run"]
        .as_str()
        .expect("a run")
        .to_owned();
    for number in 1..=14 {
        if number == ticks + 1 {
            forget(fleet);
        }
        fleet.tick(start + TimeDelta::minutes(5) * number);
    }
    let mut kinds: Vec<_> = fleet
        .told("pair-0")
        .into_iter()
        .filter(|told| told.run.ends_with(&run))
        .map(|told| told.kind)
        .collect();
    // A store that has forgotten that it was told lets it be told again, under the same id.
    kinds.dedup();
    (run, kinds)
}

/// Issue 19 F: in 2 of 5 tries staging held an unverified restore, and nobody heard of it.
#[test]
fn a_manual_run_that_an_emptied_store_has_forgotten_is_taken_up_or_told() {
    let (mut verified, mut told) = (0, 0);
    let places = (0..4).flat_map(|ticks| [20, 24, 32].map(|budget| (ticks, budget)));
    for (ticks, budget) in places {
        let mut fleet = Fleet::new(1, &|value| value["subrequest_budget"] = json!(budget));
        let (run, kinds) = lost_after(&mut fleet, &json!({}), ticks, &|fleet| fleet.wipe());
        assert_eq!(
            kinds.len(),
            1,
            "{ticks}: run {run} is told once: {:?} {:#?}",
            fleet.told("pair-0"),
            fleet.log()
        );
        assert_eq!(fleet.violations(), Vec::<String>::new(), "{ticks}");
        match kinds[0].as_str() {
            "succeeded" => verified += 1,
            "failed" => {
                told += 1;
                assert!(
                    fleet.told("pair-0")[0].text.contains("start it again"),
                    "{:?}",
                    fleet.told("pair-0")
                );
            }
            other => panic!("{ticks}: {other}"),
        }
        let (status, report) = fleet.ask(Method::Get, &format!("/runs/{run}"), "");
        assert!(status == 200 && !report.contains("running"), "{ticks}: {report}");
    }
    assert!(verified > 0 && told > 0, "{verified} were verified, {told} told");
}

#[test]
fn a_manual_run_whose_checkpoint_alone_was_lost_goes_on_to_where_it_was_to_go() {
    for (body, is_rehearsal) in [(json!({}), false), (json!({"until": "verify_backup"}), true)] {
        for ticks in 0..3 {
            for lost in [None, Some("{")] {
                let mut fleet = Fleet::new(1, &poor);
                let forget = |fleet: &mut Fleet| fleet.write("checkpoint/pair-0", lost);
                let (run, kinds) = lost_after(&mut fleet, &body, ticks, &forget);
                assert_eq!(
                    kinds,
                    ["succeeded"],
                    "{body} {ticks} {lost:?}: run {run} {:#?}",
                    fleet.log()
                );
                let (_, report) = fleet.ask(Method::Get, &format!("/runs/{run}"), "");
                let report: Value = serde_json::from_str(&report).expect("JSON");
                assert_eq!(report["displaced"].is_null(), is_rehearsal, "{report}");
                assert_eq!(fleet.violations(), Vec::<String>::new(), "{body} {ticks} {lost:?}");
            }
        }
    }
}

/// A pair that never had a run has no checkpoint either: that is not looked into in every tick.
#[test]
fn a_pair_whose_first_run_is_still_to_come_is_looked_at_twice_an_hour() {
    let mut fleet = Fleet::new(1, &|_| {});
    let start = at("2026-11-21T06:00:00Z");
    let requests: u32 =
        (0..24).map(|number| fleet.tick(start + TimeDelta::minutes(5) * number).0.http_count).sum();
    assert_eq!(requests, 4, "{:#?}", fleet.log());
    assert!(fleet.told("pair-0").is_empty());
}
