//! Backups that are snapshots, and branches that one makes needless.

use super::*;

/// A snapshot of the backup of so many days ago, at its position.
fn snapshot(days_old: i64) -> Snapshot {
    Snapshot {
        id: format!("snap-{days_old}").as_str().into(),
        name: format!("backup-{}", run(days_old)).as_str().into(),
        slug: None,
        source_branch_id: Some(pair().production_branch),
        lsn: Some(Lsn(256)),
        created_at: now() - TimeDelta::days(days_old),
        manual: Some(true),
        full_size: None,
    }
}

/// Plans by rules of which some keep snapshots, and returns what goes: branches, then snapshots.
fn gone(world: &World, snapshots: &[Snapshot], rules: &KeepRules) -> Vec<String> {
    let inventory =
        Inventory { branches: &world.branches, endpoints: &[], snapshots, records: &world.records };
    let plan = plan(&inventory, &pair(), rules, Some(&run(0)), now());
    plan.branches()
        .map(|entry| entry.name.clone())
        .chain(plan.snapshots().map(|entry| format!("{} (snapshot)", entry.name)))
        .collect()
}

fn record(days_old: i64, known: Known) -> (RunId, SnapshotRecord) {
    let id = Some(format!("snap-{days_old}").as_str().into());
    (
        run(days_old),
        SnapshotRecord { id, lsn: None, made_at: now() - TimeDelta::days(days_old), known },
    )
}

/// Days as snapshots, and the last two as branches.
fn tiered() -> KeepRules {
    KeepRules {
        last: 2,
        daily: 4,
        at_least: 1,
        displaced: 1,
        failed_days: Some(3),
        as_snapshots: [Rule::Daily].into(),
        ..KeepRules::default()
    }
}

#[test]
fn a_backup_with_a_verified_snapshot_needs_no_branch_and_one_without_stays_until_room_is_needed() {
    let mut world = world(5);
    world.records.snapshots = [record(2, Known::Verified), record(4, Known::Verified)].into();
    let snapshots = [snapshot(2), snapshot(4)];
    assert_eq!(
        gone(&world, &snapshots, &tiered()),
        ["backup-20261119", "backup-20261117", "backup-20261117 (snapshot)"]
    );
    let expected = [
        "backup-20261119: Nothing",
        "backup-20261117: Nothing",
        "backup-20261118: Snapshot",
        "backup-20261120: Rule",
    ];
    assert_eq!(gives_way(&world, &snapshots, &tiered()), expected);
}

/// Returns what gives way to a run that finds no room, the first first, each with what holds it.
fn gives_way(world: &World, snapshots: &[Snapshot], rules: &KeepRules) -> Vec<String> {
    let inventory =
        Inventory { branches: &world.branches, endpoints: &[], snapshots, records: &world.records };
    // The run of tomorrow asks, at five.
    let asks = (run(-1), now() + TimeDelta::hours(24) - TimeDelta::minutes(10));
    let plan = plan(&inventory, &pair(), rules, Some(&asks.0), asks.1);
    plan.branches_for_room().map(|(entry, hold)| format!("{}: {hold:?}", entry.name)).collect()
}

#[test]
fn a_snapshot_that_was_not_compared_neither_counts_nor_lets_the_branch_go() {
    let mut world = world(4);
    world.records.snapshots = [record(2, Known::Unverified), record(3, Known::Unverified)].into();
    assert_eq!(
        gone(&world, &[snapshot(2), snapshot(3)], &tiered()),
        ["backup-20261118 (snapshot)"],
        "after keep_failed days"
    );
}

#[test]
fn of_a_branch_and_a_snapshot_whose_records_are_lost_neither_goes_where_the_floor_needs_one() {
    let mut world = world(4);
    world.records.known.clear();
    let rules = KeepRules { last: 1, daily: 0, at_least: 4, as_snapshots: [].into(), ..tiered() };
    assert_eq!(gone(&world, &[snapshot(3)], &rules), Vec::<String>::new());
    world.records.snapshots = [record(3, Known::Verified)].into();
    assert_eq!(
        gone(&world, &[snapshot(3)], &rules),
        ["backup-20261118"],
        "it is known now which is verified"
    );
}

#[test]
fn a_snapshot_of_somebody_else_stays_and_so_does_one_that_a_branch_was_made_from() {
    let mut world = world(2);
    world.records.snapshots = [record(30, Known::Verified), record(31, Known::Verified)].into();
    let foreign = Snapshot { lsn: Some(Lsn(7)), ..snapshot(40) };
    let scheduled = Snapshot { manual: Some(false), ..snapshot(31) };
    let of_staging = Snapshot { source_branch_id: Some(pair().staging_branch), ..snapshot(31) };
    let all = [snapshot(30), foreign, scheduled, of_staging];
    let rules = KeepRules { daily: 1, as_snapshots: [].into(), ..tiered() };
    assert_eq!(gone(&world, &all, &rules), ["backup-20261022 (snapshot)"]);
    let made =
        Branch { restored_from: Some("snap-30".into()), ..branch("br-look", "look", None, 0) };
    world.branches.branches.push(made);
    assert_eq!(gone(&world, &all, &rules), Vec::<String>::new());
}

#[test]
fn a_snapshot_that_was_taken_twice_goes_once() {
    let mut world = world(3);
    world.records.snapshots = [record(2, Known::Verified)].into();
    let second = Snapshot { id: "snap-second".into(), ..snapshot(2) };
    for snapshots in [[snapshot(2), second.clone()], [second, snapshot(2)]] {
        let inventory = Inventory {
            branches: &world.branches,
            endpoints: &[],
            snapshots: &snapshots,
            records: &world.records,
        };
        let plan = plan(&inventory, &pair(), &tiered(), Some(&run(0)), now());
        assert_eq!(
            plan.snapshots().map(|entry| entry.id.clone()).collect::<Vec<_>>(),
            ["snap-second"]
        );
    }
}

#[test]
fn a_restore_test_that_a_run_has_left_goes_and_one_of_another_snapshot_stays() {
    let mut world = world(3);
    world.records.snapshots = [record(2, Known::Verified)].into();
    let left = |from: &str, days: i64| Branch {
        restored_from: Some(from.into()),
        ..branch("br-test", &format!("restore-test-backup-{}", run(2)), None, days)
    };
    let goes = |world: &World| {
        gone(world, &[snapshot(2)], &tiered()).contains(&"restore-test-backup-20261119".to_owned())
    };
    for (test, expected) in
        [(left("snap-2", 2), true), (left("snap-2", 0), true), (left("snap-other", 2), false)]
    {
        world.branches.branches.push(test);
        assert_eq!(goes(&world), expected);
        world.branches.branches.pop();
    }
}

#[test]
fn what_is_on_record_of_backups_that_are_gone_is_forgotten_after_a_week() {
    let mut world = world(3);
    let known = [8, 9, 30, 31].map(|days| (run(days), Known::Verified));
    world.records.known.extend(known);
    world.records.known.insert(run(5), Known::Verified);
    world.records.snapshots = [record(31, Known::Verified), record(40, Known::Verified)].into();
    let snapshots = [snapshot(31)];
    let inventory = Inventory {
        branches: &world.branches,
        endpoints: &[],
        snapshots: &snapshots,
        records: &world.records,
    };
    assert_eq!(
        forgotten(&inventory, &pair(), now()),
        [run(40), run(30), run(9)],
        "the snapshot of 31 days ago is there"
    );
}
