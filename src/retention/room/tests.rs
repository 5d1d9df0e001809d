//! What gives way, and what does not.

use chrono::TimeDelta;

use super::super::tests::{World, branch, now, rules, run, world};
use super::super::{Inventory, Known, Pin, PrunePlan, plan};
use super::*;
use crate::fixtures::pair;

/// The run of tomorrow asks, at five; it may be earlier or later by so much.
fn asked_at(world: &World, rules: &KeepRules, later: TimeDelta) -> PrunePlan {
    let inventory = Inventory {
        branches: &world.branches,
        endpoints: &[],
        snapshots: &[],
        records: &world.records,
    };
    plan(
        &inventory,
        &pair(),
        rules,
        Some(&run(-1)),
        now() + TimeDelta::hours(24) - TimeDelta::minutes(10) + later,
    )
}

fn gives_way(world: &World, rules: &KeepRules) -> Vec<String> {
    asked_at(world, rules, TimeDelta::zero())
        .branches_for_room()
        .map(|(entry, hold)| format!("{}: {hold:?}", entry.name))
        .collect()
}

fn told(world: &World, rules: &KeepRules) -> String {
    let at = now() + TimeDelta::hours(24) - TimeDelta::minutes(10);
    shortage(&asked_at(world, rules, TimeDelta::zero()), &pair(), rules, &world.branches, at)
}

/// What staging held before a run of so many days ago, which was a child of the backup of the day
/// before.
fn displaced(world: &mut World, days_old: i64) {
    let name = format!("staging-of-{}", run(days_old + 1));
    let parent = format!("br-backup-{}", days_old + 1);
    let mut made = branch(&format!("br-displaced-{days_old}"), &name, Some(&parent), days_old);
    made.created_at += TimeDelta::seconds(40);
    world.branches.branches.push(made);
}

/// As in case 10: the rules of the README's row Free, on the day after a backup that was not
/// verified.
#[test]
fn one_failed_morning_leaves_room_for_the_next() {
    let mut world = world(6);
    world.records.known.insert(run(0), Known::Unverified);
    // Staging hangs on the last good one.
    world.branches.branches[1].parent_id = Some("br-backup-1".into());
    displaced(&mut world, 1);
    let rules = KeepRules { last: 5, at_least: 3, failed_days: None, ..rules() };
    assert_eq!(world.branches.branches.len(), 9, "two of ten are wanted, so that one gives way");
    let expected = ["backup-20261116: Rule", "backup-20261117: Rule", "backup-20261121: Newest"];
    assert_eq!(
        gives_way(&world, &rules),
        expected,
        "the newest is what people look into: it goes last"
    );
    assert_eq!(
        asked_at(&world, &rules, TimeDelta::zero()).branches().count(),
        0,
        "a run that finds room deletes none of them"
    );
}

/// As in case 39: what staging held before yesterday's run is some seconds short of a day old.
#[test]
fn what_only_a_day_keeps_gives_way_from_the_second_hour_on() {
    let mut world = world(3);
    displaced(&mut world, 1);
    displaced(&mut world, 0);
    // People started a run at ten past four.
    let mut manual = branch("br-manual", "staging-of-20261121", Some("br-backup-0"), 0);
    manual.created_at += TimeDelta::hours(22) + TimeDelta::minutes(50);
    world.branches.branches.push(manual);
    let rules = KeepRules { last: 9, at_least: 3, ..rules() };
    assert_eq!(
        gives_way(&world, &rules),
        ["staging-of-20261119: Nothing", "staging-of-20261120: Day"]
    );
    // Of two that are younger than an hour the second is kept by no rule.
    let mut another = branch("br-another", "staging-of-20261121-2", Some("br-backup-0"), 0);
    another.created_at += TimeDelta::hours(23);
    world.branches.branches.push(another);
    assert_eq!(
        gives_way(&world, &rules),
        ["staging-of-20261119: Nothing", "staging-of-20261120: Day"]
    );
    let soon = asked_at(&world, &rules, TimeDelta::minutes(9));
    assert!(
        !soon.branches_for_room().any(|(entry, _)| entry.name == "staging-of-20261121"),
        "Neon's clock may be ten minutes behind"
    );
    let later = asked_at(&world, &rules, TimeDelta::minutes(10));
    assert!(
        later
            .branches_for_room()
            .any(|(entry, hold)| entry.name == "staging-of-20261121" && hold == Hold::Day)
    );
}

#[test]
fn what_is_worth_least_goes_first_and_the_oldest_of_it() {
    let mut world = world(9);
    for (days, known) in [(2, Known::Unverified), (4, Known::Unverified)] {
        world.records.known.insert(run(days), known);
    }
    world.branches.branches.push(branch(
        "br-manual",
        "backup-20261121T110000Z",
        Some(pair().production_branch.as_str()),
        0,
    ));
    let value = [
        ("firstlight".to_owned(), "hub".to_owned()),
        ("run".to_owned(), "20261121T110000Z".to_owned()),
    ]
    .into();
    world.branches.annotations.insert("br-manual".into(), crate::neon::wire::Annotation { value });
    world
        .records
        .known
        .insert(crate::id::RunId::decode("20261121T110000Z").expect("an instant"), Known::Verified);
    displaced(&mut world, 0);
    displaced(&mut world, 1);
    let rules = KeepRules {
        daily: 3,
        weekly: 3,
        failed_days: None,
        as_snapshots: [crate::config::Rule::Weekly].into(),
        ..rules()
    };
    let expected = [
        // Kept by no rule, the newest first.
        "staging-of-20261119: Nothing",
        "backup-20261116: Nothing",
        "backup-20261114: Nothing",
        "backup-20261113: Nothing",
        // Of a week that has no snapshot.
        "backup-20261115: Snapshot",
        // Not verified.
        "backup-20261117: Inspection",
        "backup-20261119: Inspection",
        // One of three days. The others are pinned by what staging held, or are the floor.
        "backup-20261118: Rule",
    ];
    assert_eq!(gives_way(&world, &rules), expected);
}

#[test]
fn nothing_that_somebody_holds_gives_way_and_the_reason_tells_who() {
    let mut world = world(6);
    let rules = KeepRules { last: 9, at_least: 1, ..rules() };
    assert_eq!(gives_way(&world, &rules).len(), 5, "the newest is the floor");
    world.records.pins.insert(run(1), Pin { reason: "audit".to_owned(), until: None });
    world
        .branches
        .branches
        .iter_mut()
        .filter(|branch| branch.id.as_str() == "br-backup-2")
        .for_each(|branch| branch.protected = true);
    world.branches.branches.push(branch("br-inspect", "inspect", Some("br-backup-3"), 1));
    world.branches.annotations.remove(&crate::id::BranchId::from("br-backup-4"));
    displaced(&mut world, 0);
    assert_eq!(gives_way(&world, &rules), ["backup-20261116: Rule"]);
    let expected = "1 not Firstlight's (inspect): delete what nobody needs; 1 of keep_at_least = 1 \
        (backup-20261121): lower it; 1 of keep_displaced = 1 (staging-of-20261120): lower it; 1 \
        pinned (backup-20261120): release those that nobody needs; 1 protected in Neon, or its \
        default branch (backup-20261119): change that there; 1 with a child that stays \
        (backup-20261118): delete the child first; 1 with a name like ours that this pair has not \
        given (backup-20261117): rename or delete them";
    assert_eq!(told(&world, &rules), expected);
}

#[test]
fn what_a_run_made_that_may_not_have_ended_stays_for_three_hours() {
    let mut world = world(4);
    let rules = KeepRules { last: 1, at_least: 1, ..rules() };
    let mut made = branch("br-displaced", "staging-of-20261121", Some("br-backup-0"), 0);
    made.created_at += TimeDelta::hours(22);
    world.branches.branches.push(made.clone());
    let mut newer = made;
    newer.id = "br-newer".into();
    newer.name = "staging-of-20261121-2".into();
    newer.created_at += TimeDelta::minutes(1);
    world.branches.branches.push(newer);
    let goes =
        |world: &World| gives_way(world, &rules).contains(&"staging-of-20261121: Day".to_owned());
    assert!(goes(&world));
    let begun = |hours: i64| {
        crate::id::RunId::manual(now() + TimeDelta::hours(24) - TimeDelta::hours(hours))
    };
    world.records.unfinished = [begun(3)].into();
    assert!(!goes(&world), "{:?}", gives_way(&world, &rules));
    world.records.unfinished = [begun(4)].into();
    assert!(goes(&world), "it was given up an hour ago, and its last request has arrived");
    world.records.unfinished = [begun(1)].into();
    assert!(goes(&world), "it began after that was made");
    let begun_after = |minutes: i64| {
        crate::id::RunId::manual(now() + TimeDelta::hours(22) + TimeDelta::minutes(minutes))
    };
    world.records.unfinished = [begun_after(10)].into();
    assert!(
        !goes(&world),
        "by Neon's clock, which may be ten minutes behind, that was made before the run began"
    );
    world.records.unfinished = [begun_after(11)].into();
    assert!(goes(&world));
}

/// A sibling of case 10: a floor that takes every place that is left.
#[test]
fn the_newest_backup_that_was_not_verified_goes_before_a_run_is_blocked() {
    let mut world = world(6);
    world.records.known.insert(run(0), Known::Unverified);
    world.branches.branches[1].parent_id = Some("br-backup-1".into());
    displaced(&mut world, 1);
    let rules = KeepRules { last: 5, at_least: 5, failed_days: None, ..rules() };
    assert_eq!(gives_way(&world, &rules), ["backup-20261121: Newest"]);
}
