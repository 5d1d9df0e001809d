//! What is ours, whatever somebody has renamed or added.

use chrono::TimeDelta;

use super::super::tests::{World, branch, now, rules, run, why, world};
use super::super::{Inventory, Kind, Pin, PrunePlan, forgotten, plan};
use super::*;
use crate::config::KeepRules;
use crate::fixtures::pair;

fn planned(world: &World, pair: &Pair, endpoints: &[Endpoint]) -> PrunePlan {
    let inventory =
        Inventory { branches: &world.branches, endpoints, snapshots: &[], records: &world.records };
    plan(&inventory, pair, &KeepRules { last: 1, ..rules() }, Some(&run(0)), now())
}

/// An endpoint of the backup of so many days ago, made so long after it.
fn endpoint(id: &str, days_old: i64, later: TimeDelta) -> Endpoint {
    Endpoint {
        id: id.into(),
        branch_id: format!("br-backup-{days_old}").as_str().into(),
        host: format!("{id}.us-east-2.aws.neon.tech"),
        kind: "read_only".to_owned(),
        disabled: false,
        passwordless_access: false,
        created_at: now() - TimeDelta::days(days_old) + later,
    }
}

#[test]
fn an_endpoint_that_somebody_adds_to_a_backup_stays_however_soon_that_was() {
    let mut world = world(4);
    let endpoints = [
        endpoint("ep-ours", 2, TimeDelta::zero()),
        endpoint("ep-anew", 2, TimeDelta::minutes(50)),
        endpoint("ep-theirs", 2, TimeDelta::seconds(2)),
        endpoint("ep-call", 3, TimeDelta::seconds(2)),
        endpoint("ep-later", 3, TimeDelta::minutes(10)),
    ];
    world.records.endpoints.insert(run(2), ["ep-ours".into(), "ep-anew".into()].into());
    let plan = planned(&world, &pair(), &endpoints);
    // Of the other run nothing is remembered: only what was there from the same call on is ours.
    assert_eq!(
        plan.endpoints().collect::<Vec<_>>(),
        ["ep-ours".into(), "ep-anew".into(), "ep-call".into()]
    );
    let kept = plan.kept();
    for (name, theirs) in [("backup-20261119", "ep-theirs"), ("backup-20261118", "ep-later")] {
        let (_, why) = kept
            .iter()
            .find(|(kept, _)| kept == name)
            .expect("it stays, or the compute would go with it");
        assert_eq!(*why, format!("has the endpoint {theirs}, which Firstlight did not make"));
    }
}

#[test]
fn what_staging_held_is_known_after_it_has_another_name() {
    let mut world = world(4);
    world.branches.branches[1].name = "preview".into();
    world.branches.branches.push(branch("br-old", "staging-of-20261118", Some("br-backup-3"), 2));
    world.branches.branches.push(branch("br-new", "preview-of-20261119", Some("br-backup-2"), 1));
    world.branches.branches.push(branch("br-mine", "mine-of-20261120", Some("br-backup-1"), 1));
    let displaced = |world: &World| {
        let entries = planned(world, &pair(), &[])
            .entries
            .into_iter()
            .filter(|entry| entry.kind == Kind::Displaced);
        entries
            .map(|entry| format!("{}: {}", entry.name, entry.reasons.join("; ")))
            .collect::<Vec<_>>()
    };
    let unknown = "foreign: has a displaced branch's place, after a name that staging had not, as \
        far as is known";
    let kept = "preview-of-20261119: keep_displaced: number 1 of 1".to_owned();
    let mine = format!("mine-of-20261120: {unknown}");
    assert_eq!(
        displaced(&world),
        [kept.clone(), format!("staging-of-20261118: {unknown}"), mine.clone()],
        "told, and left alone"
    );
    world.records.staging_names = vec!["staging".into(), "preview".into()];
    assert_eq!(
        displaced(&world),
        [kept, "staging-of-20261118: displaced longer ago than keep_displaced".to_owned(), mine]
    );
}

#[test]
fn a_pin_outlives_another_name_and_another_prefix() {
    let mut world = world(20);
    world
        .branches
        .branches
        .iter_mut()
        .filter(|branch| branch.id.as_str() == "br-backup-12")
        .for_each(|branch| branch.name = "keep-me".into());
    world
        .branches
        .branches
        .iter_mut()
        .filter(|branch| branch.id.as_str() == "br-backup-13")
        .for_each(|branch| {
            branch.name = "backup-20250101".into();
        });
    for days in [12, 13, 14, 30] {
        world.records.pins.insert(run(days), Pin { reason: "audit".to_owned(), until: None });
    }
    assert_eq!(
        why(&world, &rules(), "keep-me").1,
        "renamed: was the backup of run 20261109; pinned: audit"
    );
    assert_eq!(
        why(&world, &rules(), "backup-20250101").1,
        "renamed: was the backup of run 20261108; pinned: audit"
    );
    let gone = |pair: &Pair| {
        let inventory = Inventory {
            branches: &world.branches,
            endpoints: &[],
            snapshots: &[],
            records: &world.records,
        };
        forgotten(&inventory, pair, now())
    };
    assert_eq!(gone(&pair()), [run(30)], "its backup is gone");
    let other = Pair { backup_prefix: "copy".to_owned(), ..pair() };
    assert_eq!(gone(&other), [run(30)], "what has the old prefix is there");
    assert!(planned(&world, &other, &[]).entries.iter().any(|entry| {
        entry.reasons.contains(&"renamed: was the backup of run 20261107; pinned: audit".to_owned())
    }));
    assert_eq!(planned(&world, &other, &[]).branches().count(), 0, "and nothing of it goes");
}
