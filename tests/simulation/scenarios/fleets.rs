//! Several pairs in one Worker: what one of them takes from the others.

use chrono::TimeDelta;
use firstlight::port::Method;
use firstlight::record;
use firstlight::sync::capacity;
use firstlight::sync::checkpoint::Checkpoint;
use firstlight::time::Timestamp;
use serde_json::{Value, json};
use simulation::fleet::{Fleet, Trouble};

/// A plan that is paid for: the budget of subrequests is no limit.
fn paid(value: &mut Value) {
    value["subrequest_budget"] = json!(1_000);
}

fn is_good(fleet: &Fleet, pair: &str) -> bool {
    fleet.kinds(pair).last().is_some_and(|kind| kind == "succeeded")
}

/// Counts the pairs whose run has succeeded.
fn good(fleet: &Fleet, count: usize) -> usize {
    (0..count).filter(|number| is_good(fleet, &format!("pair-{number}"))).count()
}

/// As in case 34: two pairs with the same times, the first of which never gets through.
#[test]
fn a_pair_that_nobody_can_read_does_not_take_the_morning_of_another() {
    for trouble in [Trouble::Asleep, Trouble::Slow(45)] {
        for change in [(|_| {}) as fn(&mut Value), paid] {
            let mut fleet = Fleet::new(2, &change);
            fleet.trouble(0, trouble);
            fleet.ticks("2026-11-21T10:00:00Z", "2026-11-21T13:00:00Z");
            assert!(
                is_good(&fleet, "pair-1"),
                "{trouble:?}: {:?} {:#?}",
                fleet.told("pair-1"),
                fleet.log()
            );
            assert_eq!(
                fleet.kinds("pair-1"),
                ["succeeded"],
                "{trouble:?}: in time, and nothing else is told"
            );
            assert!(
                !fleet.kinds("pair-0").contains(&"missed".to_owned()),
                "{trouble:?}: {:?}",
                fleet.told("pair-0")
            );
            assert_eq!(fleet.violations(), Vec::<String>::new(), "{trouble:?}");
        }
    }
}

/// As in case 34: twenty-five healthy pairs with one window of an hour.
#[test]
fn twenty_five_pairs_of_one_window_are_all_driven_where_the_plan_has_room() {
    let mut fleet = Fleet::new(25, &paid);
    fleet.ticks("2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z");
    assert_eq!(good(&fleet, 25), 25, "{:#?}", fleet.log());
    assert_eq!(fleet.violations(), Vec::<String>::new());
}

/// Returns the keys that are read in a whole day, the runs of the morning with their notices
/// included.
fn keys_of_a_day(count: u64) -> usize {
    let mut fleet = Fleet::new(count, &paid);
    fleet.ticks("2026-11-21T09:30:00Z", "2026-11-22T09:25:00Z").into_iter().sum()
}

/// Workers KV bills each key of a bulk read: 1 + 32 a pair were 33, 161 and 801.
#[test]
fn an_idle_tick_reads_two_keys_of_each_pair_and_one_of_all() {
    for (count, keys) in [(1, 3), (5, 11), (25, 51)] {
        let mut fleet = Fleet::new(count, &paid);
        let before = fleet.ticks("2026-11-21T09:30:00Z", "2026-11-21T09:55:00Z");
        assert_eq!(before, vec![keys; 6], "{count} pairs that have never had a run");
        fleet.ticks("2026-11-21T10:00:00Z", "2026-11-21T12:00:00Z");
        assert_eq!(good(&fleet, 25), usize::try_from(count).expect("a few"));
        let (summary, read) = fleet.tick("2026-11-21T15:00:00Z".parse().expect("an instant"));
        assert_eq!(
            (read, summary.http_count, summary.store_count),
            (keys, 0, 1),
            "{count} pairs after their runs"
        );
    }
}

#[test]
fn the_keys_of_a_day_are_as_many_as_is_said() {
    for count in [1, 5, 25] {
        let read = u64::try_from(keys_of_a_day(count)).expect("not that many");
        let said = capacity::reads_a_day(Fleet::new(count, &paid).config(), capacity::INTERVAL);
        assert!(
            read <= said && said <= read * 11 / 10,
            "{count} pairs read {read} keys, and {said} are said"
        );
    }
}

/// A pair that sleeps is woken by whatever a tick has to see to.
#[test]
fn a_day_that_was_missed_while_no_tick_ran_is_told_by_the_first_one_however_late() {
    for at in ["2026-11-21T12:30:00Z", "2026-11-21T20:00:00Z", "2026-11-22T08:00:00Z"] {
        let mut fleet = Fleet::new(2, &paid);
        fleet.ticks("2026-11-20T10:00:00Z", "2026-11-20T12:00:00Z");
        fleet.ticks(at, at);
        assert_eq!(
            fleet.kinds("pair-1").last().map(String::as_str),
            Some("missed"),
            "{at}: {:?}",
            fleet.told("pair-1")
        );
        let told = fleet.kinds("pair-1").len();
        fleet.tick("2026-11-22T08:30:00Z".parse().expect("an instant"));
        assert_eq!(fleet.kinds("pair-1").len(), told, "{at}: and once");
    }
}

#[test]
fn a_deadline_that_passed_after_a_failure_is_told_by_the_first_tick_however_late() {
    let mut fleet = Fleet::new(1, &|value| {
        value["pairs"][0]["role_password_secret"] = json!("MISSING_PASSWORD");
    });
    fleet.ticks("2026-11-21T10:00:00Z", "2026-11-21T10:10:00Z");
    assert!(fleet.kinds("pair-0").contains(&"failed".to_owned()), "{:?}", fleet.told("pair-0"));
    let late = |fleet: &Fleet| fleet.kinds("pair-0").iter().filter(|kind| *kind == "late").count();
    assert_eq!(late(&fleet), 0, "before its deadline: {:?}", fleet.told("pair-0"));
    fleet.ticks("2026-11-21T13:00:00Z", "2026-11-21T13:00:00Z");
    assert_eq!(late(&fleet), 1, "{:?}", fleet.told("pair-0"));
    let read = fleet.ticks("2026-11-21T13:05:00Z", "2026-11-21T13:15:00Z");
    assert_eq!(late(&fleet), 1);
    assert!(read.iter().all(|keys| *keys <= 5), "once, and for one key more: {read:?}");
}

#[test]
fn settings_that_cannot_be_used_are_told_once_a_day_also_while_nothing_is_due() {
    let mut fleet = Fleet::new(2, &|value| {
        let team = json!({"name": "team", "kind": "slack", "url_secret": "SLACK_URL",
            "pairs": ["pair-1"]});
        value["channels"].as_array_mut().expect("a list").push(team);
    });
    let read = fleet.ticks("2026-11-21T15:00:00Z", "2026-11-21T16:00:00Z");
    assert_eq!(
        fleet.kinds("pair-0").iter().filter(|kind| *kind == "misconfigured").count(),
        1,
        "{:?}",
        fleet.told("pair-0")
    );
    assert!(
        read.last().is_some_and(|last| *last <= 10),
        "one key more, and one for each day without a result: {read:?}"
    );
}

#[test]
fn an_escalation_is_told_to_nobody_after_somebody_has_acknowledged_it() {
    let escalates = |value: &mut Value| {
        value["escalations"] = json!([{"after_min": 90, "channels": ["on-call"]}]);
    };
    for is_acknowledged in [false, true] {
        let mut fleet = Fleet::new(1, &escalates);
        fleet.trouble(0, Trouble::Asleep);
        fleet.ticks("2026-11-21T10:00:00Z", "2026-11-21T12:20:00Z");
        assert!(
            !fleet.kinds("pair-0").contains(&"escalated".to_owned()),
            "{:?}",
            fleet.told("pair-0")
        );
        if is_acknowledged {
            let (status, body) =
                fleet.ask(Method::Post, "/incidents/pair-0-20261121/acknowledge", "{}");
            assert_eq!(status, 200, "{body}");
        }
        fleet.ticks("2026-11-21T12:25:00Z", "2026-11-21T13:55:00Z");
        let is_told_again = fleet.kinds("pair-0").contains(&"escalated".to_owned());
        assert_eq!(is_told_again, !is_acknowledged, "{:?}", fleet.told("pair-0"));
    }
}

#[test]
fn a_manual_run_in_the_afternoon_is_driven_to_its_end_by_ticks() {
    let mut fleet = Fleet::new(2, &|_| {});
    fleet.ticks("2026-11-21T10:00:00Z", "2026-11-21T12:30:00Z");
    fleet.ticks("2026-11-21T18:00:00Z", "2026-11-21T18:00:00Z");
    let (status, body) = fleet.start("pair-1");
    assert_eq!(status, 202, "{body}");
    fleet.ticks("2026-11-21T18:05:00Z", "2026-11-21T18:30:00Z");
    assert!(
        is_good(&fleet, "pair-1") && fleet.kinds("pair-1").len() == 2,
        "{:?}",
        fleet.told("pair-1")
    );
}

/// Returns how often and when people were told that the store cannot be read.
fn silences(fleet: &Fleet) -> Vec<String> {
    let told = fleet.told("pair-0");
    told.into_iter()
        .filter(|told| told.text.contains("Workers KV cannot be read since"))
        .map(|told| told.run + &told.kind)
        .collect()
}

#[test]
fn a_store_that_cannot_be_read_for_an_hour_is_told_once_an_hour_until_it_can() {
    let mut fleet = Fleet::new(3, &|_| {});
    fleet.ticks("2026-11-21T07:00:00Z", "2026-11-21T07:55:00Z");
    fleet.store_is_out(true);
    fleet.ticks("2026-11-21T08:00:00Z", "2026-11-21T08:55:00Z");
    assert_eq!(silences(&fleet), Vec::<String>::new(), "not before an hour is over");
    fleet.ticks("2026-11-21T09:00:00Z", "2026-11-21T10:55:00Z");
    assert_eq!(
        silences(&fleet),
        ["pair-0/20261121stuck"; 2],
        "once an hour, of all pairs together: {:?}",
        fleet.told("pair-0")
    );
    let others = [fleet.told("pair-1").len(), fleet.told("pair-2").len()];
    assert_eq!(others, [0, 0]);
    fleet.store_is_out(false);
    fleet.ticks("2026-11-21T11:00:00Z", "2026-11-21T11:00:00Z");
    fleet.store_is_out(true);
    fleet.ticks("2026-11-21T11:05:00Z", "2026-11-21T11:55:00Z");
    assert_eq!(silences(&fleet).len(), 2, "an hour begins again after an answer");
    fleet.ticks("2026-11-21T12:05:00Z", "2026-11-21T12:05:00Z");
    assert_eq!(silences(&fleet).len(), 3);
}

#[test]
fn an_instance_that_remembers_nothing_tells_nothing_of_a_silent_store() {
    let mut fleet = Fleet::new(1, &|_| {});
    fleet.forgets = true;
    fleet.store_is_out(true);
    fleet.ticks("2026-11-21T08:00:00Z", "2026-11-21T12:00:00Z");
    assert_eq!(fleet.told("pair-0").len(), 0);
    let (status, _) = fleet.ask(Method::Get, "/health", "");
    assert_eq!(status, 503, "whoever watches from outside sees it");
}

#[test]
fn a_day_that_is_missed_because_others_were_driven_says_so() {
    let mut fleet = Fleet::new(25, &|_| {});
    fleet.ticks("2026-11-21T10:00:00Z", "2026-11-21T13:00:00Z");
    let missed: Vec<_> = (0..25)
        .flat_map(|number| fleet.told(&format!("pair-{number}")))
        .filter(|told| told.kind == "missed")
        .collect();
    assert!(
        (8..=16).contains(&missed.len()),
        "an invocation of the Free plan drives one: {}",
        missed.len()
    );
    for told in &missed {
        let text = "was not started: the invocations between 05:00 and 06:00 ET drove the runs of \
            pair-0, pair-1, pair-2, pair-3, pair-4 and ";
        assert!(
            told.text.contains(text) && told.text.contains("more and had no room for this one."),
            "{}",
            told.text
        );
        let report = fleet
            .stored(&format!("result/{}", told.run))
            .expect("a day that was missed has a result");
        assert!(report.contains("had no room for this one"), "{report}");
    }
    // The last that was begun may come too late, and says so itself.
    let is_driven =
        |kinds: &[String]| kinds.iter().any(|kind| kind == "succeeded" || kind == "failed");
    let driven =
        (0..25).filter(|number| is_driven(&fleet.kinds(&format!("pair-{number}")))).count();
    assert_eq!(driven + missed.len(), 25);
    assert_eq!(fleet.violations(), Vec::<String>::new());
}

#[test]
fn a_day_that_no_tick_saw_blames_no_other_pair() {
    let mut fleet = Fleet::new(2, &|_| {});
    fleet.ticks("2026-11-20T10:00:00Z", "2026-11-20T12:00:00Z");
    fleet.ticks("2026-11-21T11:05:00Z", "2026-11-21T11:20:00Z");
    let told = fleet.told("pair-1").pop().expect("the day is told");
    assert_eq!(told.kind, "missed");
    assert!(told.text.contains("was not started between 05:00 and 06:00 ET"), "{}", told.text);
}

/// As in case 34: a manual run that hangs.
#[test]
fn a_manual_run_that_hangs_gives_way_to_the_scheduled_runs_of_others() {
    for trouble in [Trouble::Asleep, Trouble::Slow(45)] {
        for change in [(|_| {}) as fn(&mut Value), paid] {
            let mut fleet = Fleet::new(4, &change);
            fleet.trouble(0, trouble);
            fleet.ticks("2026-11-21T09:50:00Z", "2026-11-21T09:50:00Z");
            let (status, body) = fleet.start("pair-0");
            assert_eq!(status, 202, "{body}");
            fleet.ticks("2026-11-21T09:55:00Z", "2026-11-21T11:00:00Z");
            for pair in ["pair-1", "pair-2", "pair-3"] {
                assert_eq!(
                    fleet.kinds(pair),
                    ["succeeded"],
                    "{trouble:?}: {:?} {:#?}",
                    fleet.told(pair),
                    fleet.log()
                );
            }
            assert_eq!(fleet.violations(), Vec::<String>::new(), "{trouble:?}");
        }
    }
}

#[test]
fn a_pair_that_waits_takes_no_tick_until_its_time() {
    let mut fleet = Fleet::new(1, &|value| value["wall_budget_s"] = json!(20));
    fleet.trouble(0, Trouble::Asleep);
    let mut at = "2026-11-21T10:00:00Z".parse::<Timestamp>().expect("an instant");
    let mut left_alone = 0;
    for _ in 0..40 {
        let stored = checkpoint(&fleet, "pair-0");
        if stored.as_ref().is_some_and(Checkpoint::is_over) {
            break;
        }
        let wall = at.max(fleet.now()) + TimeDelta::seconds(20);
        let waits = stored.and_then(|stored| stored.not_before).is_some_and(|until| until >= wall);
        let (summary, _) = fleet.tick(at);
        assert_eq!(summary.driven.is_none(), waits, "at {at}");
        left_alone += u32::from(waits);
        at += TimeDelta::seconds(25);
    }
    assert!(left_alone > 0, "it waits between two attempts");
}

fn checkpoint(fleet: &Fleet, pair: &str) -> Option<Checkpoint> {
    let key = format!("checkpoint/{pair}");
    fleet.stored(&key).map(|text| record::decode(&key, &text).expect("it is ours"))
}

#[test]
fn a_pair_that_still_waits_leads_no_tick_of_another_that_is_ready() {
    for waits in [false, true] {
        let mut fleet = Fleet::new(2, &|_| {});
        fleet.trouble(0, Trouble::Asleep);
        fleet.ticks("2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z");
        let mut stored = checkpoint(&fleet, "pair-0").expect("it is under way");
        let at = fleet.now() + TimeDelta::minutes(5);
        let until = if waits { at + TimeDelta::minutes(2) } else { at };
        (stored.turns, stored.not_before) = (0, Some(until));
        fleet.write("checkpoint/pair-0", Some(&record::encode(&stored)));
        fleet.write("checkpoint/pair-1", None);
        fleet.write("result/pair-1/20261121", None);
        let before = fleet.log().len();
        fleet.tick(at);
        let first = fleet
            .log()
            .into_iter()
            .skip(before)
            .find(|line| line.contains("tick drives"))
            .expect("one is driven");
        assert_eq!(first.contains("pair=pair-1"), waits, "{first}");
    }
}
