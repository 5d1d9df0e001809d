//! The plan, case by case; `tests/simulation/src/histories.rs` draws histories at random.

mod snapshots;

use chrono::TimeDelta;

use super::*;
use crate::config::Rule;
use crate::fixtures::pair;
use crate::id::PairName;
use crate::neon::wire::Annotation;

pub(super) struct World {
    pub(super) branches: BranchList,
    pub(super) records: Records,
}

pub(super) fn now() -> Timestamp {
    "2026-11-21T10:10:00Z".parse().expect("an instant")
}

pub(super) fn branch(id: &str, name: &str, parent: Option<&str>, days_old: i64) -> Branch {
    Branch {
        id: id.into(),
        name: name.into(),
        parent_id: parent.map(BranchId::from),
        parent_lsn: Some(Lsn(256)),
        current_state: "ready".into(),
        default: false,
        protected: false,
        created_at: now() - TimeDelta::days(days_old),
        expires_at: None,
        restored_from: None,
        restored_as: None,
        restore_status: None,
        logical_size: None,
    }
}

/// Production, staging as a child of today's backup, and a verified backup for each of the last
/// days.
pub(super) fn world(days: i64) -> World {
    let pair = pair();
    let production = pair.production_branch.as_str();
    let mut branches = vec![
        branch(production, "production", None, 400),
        branch(pair.staging_branch.as_str(), "staging", Some("br-backup-0"), 300),
    ];
    let mut annotations = BTreeMap::new();
    for day in 0..days {
        let date = pair.zone.date(now() - TimeDelta::days(day));
        let run = RunId::scheduled(date);
        let id = format!("br-backup-{day}");
        branches.push(branch(&id, &format!("backup-{run}"), Some(production), day));
        let value =
            [("firstlight".to_owned(), "hub".to_owned()), ("run".to_owned(), run.to_string())]
                .into();
        annotations.insert(BranchId::from(id.as_str()), Annotation { value });
    }
    let known = annotations
        .values()
        .filter_map(|annotation: &Annotation| RunId::decode(annotation.value.get("run")?));
    let records =
        Records { known: known.map(|run| (run, Known::Verified)).collect(), ..Records::default() };
    World { branches: BranchList { branches, annotations }, records }
}

fn planned(world: &World) -> PrunePlan {
    planned_by(world, &pair().keep)
}

fn planned_by(world: &World, rules: &KeepRules) -> PrunePlan {
    let inventory = Inventory {
        branches: &world.branches,
        endpoints: &[],
        snapshots: &[],
        records: &world.records,
    };
    plan(&inventory, &pair(), rules, Some(&run(0)), now())
}

/// The run of so many days ago.
pub(super) fn run(days_old: i64) -> RunId {
    RunId::scheduled(pair().zone.date(now() - TimeDelta::days(days_old)))
}

fn deleted(world: &World) -> Vec<String> {
    planned(world).branches().map(|entry| entry.name.clone()).collect()
}

#[test]
fn the_newest_verified_backups_stay_and_older_ones_go() {
    assert_eq!(deleted(&world(4)), ["backup-20261119", "backup-20261118"]);
}

#[test]
fn an_unverified_backup_neither_goes_nor_displaces_a_good_one() {
    let mut world = world(4);
    world.records.known.insert(run(1), Known::Unverified);
    assert_eq!(deleted(&world), ["backup-20261118"]);
}

#[test]
fn a_backup_without_our_annotation_is_foreign() {
    let mut world = world(4);
    world.branches.annotations.remove(&BranchId::from("br-backup-3"));
    assert_eq!(deleted(&world), ["backup-20261119"]);
    assert!(
        planned(&world)
            .kept()
            .iter()
            .any(|(name, why)| name == "backup-20261118" && why.starts_with("foreign"))
    );
}

#[test]
fn a_backup_with_a_child_that_stays_is_kept_and_the_child_named() {
    let mut world = world(4);
    world.branches.branches.push(branch("br-inspect", "inspect", Some("br-backup-3"), 1));
    assert_eq!(deleted(&world), ["backup-20261119"]);
    let kept = planned(&world).kept();
    let (_, why) = kept.iter().find(|(name, _)| name == "backup-20261118").expect("kept");
    assert!(why.contains("inspect"), "{why}");
}

#[test]
fn a_displaced_branch_goes_before_the_backup_it_pins() {
    let mut world = world(4);
    world.branches.branches.push(branch(
        "br-displaced-2",
        "staging-of-20261119",
        Some("br-backup-2"),
        2,
    ));
    world.branches.branches.push(branch(
        "br-displaced-1",
        "staging-of-20261120",
        Some("br-backup-1"),
        1,
    ));
    assert_eq!(deleted(&world), ["staging-of-20261119", "backup-20261119", "backup-20261118"]);
}

#[test]
fn a_branch_with_a_displaced_name_in_another_place_is_foreign() {
    let mut world = world(2);
    world.branches.branches.push(branch("br-other", "staging-of-20261119", Some("br-backup-1"), 9));
    world.branches.branches.push(branch("br-newer", "staging-of-20261120", Some("br-backup-1"), 8));
    assert!(deleted(&world).is_empty());
    assert!(
        planned(&world)
            .kept()
            .iter()
            .any(|(name, why)| name == "staging-of-20261119" && why.starts_with("foreign"))
    );
}

#[test]
fn a_protected_backup_stays() {
    let mut world = world(4);
    world
        .branches
        .branches
        .iter_mut()
        .filter(|branch| branch.id.as_str() == "br-backup-3")
        .for_each(|branch| branch.protected = true);
    assert_eq!(deleted(&world), ["backup-20261119"]);
}

pub(super) fn why(world: &World, rules: &KeepRules, name: &str) -> (bool, String) {
    let plan = planned_by(world, rules);
    let entry = plan.entries.iter().find(|entry| entry.name == name).expect("it is in the plan");
    (entry.is_kept, entry.reasons.join("; "))
}

pub(super) fn rules() -> KeepRules {
    KeepRules { at_least: 1, displaced: 1, failed_days: Some(7), ..KeepRules::default() }
}

#[test]
fn rules_add_up_and_each_backup_is_told_which_of_them_keep_it() {
    let rules = KeepRules { last: 2, daily: 3, weekly: 2, monthly: 2, yearly: 1, ..rules() };
    let world = world(60);
    let kept: Vec<(String, String)> = planned_by(&world, &rules).kept();
    assert_lines(
        &kept,
        "\
backup-20261121: backup of this run; keep_last: number 1 of 2; keep_daily: 2026-11-21; \
keep_weekly: 2026-W47; keep_monthly: 2026-11; keep_yearly: 2026
backup-20261120: keep_last: number 2 of 2; keep_daily: 2026-11-20
backup-20261119: keep_daily: 2026-11-19
backup-20261115: keep_weekly: 2026-W46
backup-20261031: keep_monthly: 2026-10",
    );
}

/// Compares what is kept with a text of a line for each.
fn assert_lines(kept: &[(String, String)], expected: &str) {
    let lines: Vec<String> = kept.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    assert_eq!(lines.join("\n"), expected);
}

#[test]
fn a_span_is_counted_from_the_newest_backup_and_not_from_now() {
    let mut world = world(30);
    world.branches.branches.retain(|branch| {
        !branch.name.as_str().starts_with("backup-")
            || branch.created_at < now() - TimeDelta::days(9)
    });
    let rules = KeepRules { within: "3d".parse().ok(), ..rules() };
    let names: Vec<String> =
        planned_by(&world, &rules).kept().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["backup-20261111", "backup-20261110", "backup-20261109", "backup-20261108"]);
}

#[test]
fn an_unverified_backup_is_kept_for_inspection_and_then_goes() {
    let mut world = world(12);
    world.records.known.insert(run(6), Known::Unverified);
    world.records.known.insert(run(8), Known::Unverified);
    let rules = KeepRules { daily: 20, ..rules() };
    let reason = "not verified: kept for 7 days by keep_failed, until 2026-11-22";
    assert_eq!(why(&world, &rules, "backup-20261115"), (true, reason.to_owned()));
    assert_eq!(
        why(&world, &rules, "backup-20261113"),
        (false, "not verified, and older than keep_failed".to_owned())
    );
    let endless = KeepRules { failed_days: None, ..rules };
    assert!(why(&world, &endless, "backup-20261113").1.contains("keep_failed is not set"));
}

#[test]
fn backups_whose_records_are_lost_are_kept_where_they_may_be_the_ones_that_count() {
    let mut world = world(12);
    // The store was lost three days ago.
    world.records.known.retain(|of, _| *of >= run(2));
    let rules = KeepRules { last: 3, weekly: 2, at_least: 5, failed_days: Some(1), ..rules() };
    let lost = "its record is lost, it may be verified";
    assert_eq!(
        why(&world, &rules, "backup-20261115"),
        (true, format!("{lost}: keep_weekly: 2026-W46"))
    );
    assert_eq!(
        why(&world, &rules, "backup-20261114").1,
        format!("keep_at_least: {lost}, and too few newer ones are")
    );
    let floor_of_three = KeepRules { at_least: 3, ..rules };
    assert_eq!(
        why(&world, &floor_of_three, "backup-20261114"),
        (false, "not verified, and older than keep_failed".to_owned())
    );
    assert!(
        why(&world, &floor_of_three, "backup-20261119").0,
        "three newer ones are known to be verified"
    );
}

#[test]
fn a_backup_that_is_ahead_by_what_clocks_differ_counts_as_any_other() {
    let mut world = world(9);
    let made_at = |world: &mut World, ahead: TimeDelta| {
        let is_it = |branch: &&mut Branch| branch.name.as_str() == "backup-20261120";
        world
            .branches
            .branches
            .iter_mut()
            .filter(is_it)
            .for_each(|branch| branch.created_at = now() + ahead);
    };
    let rules = KeepRules { last: 2, at_least: 1, ..rules() };
    made_at(&mut world, TimeDelta::minutes(10));
    assert_eq!(
        why(&world, &rules, "backup-20261120"),
        (true, "keep_last: number 1 of 2".to_owned())
    );
    made_at(&mut world, TimeDelta::minutes(11));
    assert_eq!(
        why(&world, &rules, "backup-20261120"),
        (true, "made in the future, at 2026-11-21T10:21:00.000Z".to_owned())
    );
    assert_eq!(
        why(&world, &rules, "backup-20261119"),
        (true, "keep_last: number 2 of 2".to_owned())
    );
}

#[test]
fn a_pin_holds_until_its_end_and_a_backup_of_the_future_holds_no_place() {
    let mut world = world(9);
    let pin = |until: Option<Timestamp>| Pin { reason: "audit 2026".to_owned(), until };
    world.records.pins.insert(run(7), pin(None));
    world.records.pins.insert(run(6), pin(Some(now() + TimeDelta::hours(1))));
    world.records.pins.insert(run(5), pin(Some(now())));
    world
        .branches
        .branches
        .iter_mut()
        .filter(|branch| branch.name.as_str() == "backup-20261118")
        .for_each(|branch| {
            branch.created_at = now() + TimeDelta::days(400);
        });
    let rules = KeepRules { last: 3, ..rules() };
    assert_eq!(why(&world, &rules, "backup-20261114"), (true, "pinned: audit 2026".to_owned()));
    assert_eq!(
        why(&world, &rules, "backup-20261115"),
        (true, "pinned until 2026-11-21T11:10:00.000Z: audit 2026".to_owned())
    );
    assert!(!why(&world, &rules, "backup-20261116").0, "its pin has ended");
    assert_eq!(
        why(&world, &rules, "backup-20261118"),
        (true, "made in the future, at 2027-12-26T10:10:00.000Z".to_owned())
    );
    assert_eq!(why(&world, &rules, "backup-20261119").1, "keep_last: number 3 of 3");
}

#[test]
fn what_somebody_has_renamed_or_misnamed_is_kept_and_told() {
    let mut world = world(9);
    let renamed = world
        .branches
        .branches
        .iter_mut()
        .find(|branch| branch.name.as_str() == "backup-20261114")
        .expect("it is there");
    renamed.name = "before-the-migration".into();
    world.branches.branches.push(branch(
        "br-odd",
        "backup-2026113x",
        Some(pair().production_branch.as_str()),
        9,
    ));
    world.branches.branches.push(branch(
        "br-mine",
        "backups",
        Some(pair().production_branch.as_str()),
        9,
    ));
    assert_eq!(
        why(&world, &rules(), "before-the-migration"),
        (true, "renamed: was the backup of run 20261114".to_owned())
    );
    let unreadable =
        "unreadable: \"2026113x\" is no run; a backup is named by its date or its start";
    assert_eq!(why(&world, &rules(), "backup-2026113x"), (true, unreadable.to_owned()));
    assert!(
        planned_by(&world, &rules()).entries.iter().all(|entry| entry.name != "backups"),
        "that is not our business"
    );
}

#[test]
fn a_backup_that_somebody_has_given_an_endpoint_stays_and_ours_goes() {
    let world = world(4);
    let endpoint = |id: &str, branch: &str, days_old: i64| Endpoint {
        id: id.into(),
        branch_id: branch.into(),
        host: format!("{id}.us-east-2.aws.neon.tech"),
        kind: "read_only".to_owned(),
        disabled: false,
        passwordless_access: false,
        created_at: now() - TimeDelta::days(days_old),
    };
    let endpoints = [
        endpoint("ep-theirs", "br-backup-3", 1),
        endpoint("ep-ours", "br-backup-2", 2),
        endpoint("ep-of-run", "br-backup-0", 0),
    ];
    let inventory = Inventory {
        branches: &world.branches,
        endpoints: &endpoints,
        snapshots: &[],
        records: &world.records,
    };
    let plan = plan(&inventory, &pair(), &rules(), Some(&run(0)), now());
    let deleted: Vec<&str> = plan.branches().map(|entry| entry.name.as_str()).collect();
    assert_eq!(deleted, ["backup-20261120", "backup-20261119"]);
    let kept = plan.kept();
    let (_, why) = kept.iter().find(|(name, _)| name == "backup-20261118").expect("kept");
    assert_eq!(why, "has the endpoint ep-theirs, which Firstlight did not make");
    assert_eq!(plan.endpoints().collect::<Vec<_>>(), ["ep-of-run".into(), "ep-ours".into()]);
}

#[test]
fn a_branch_that_is_a_backup_and_a_check_branch_by_its_name_goes_only_where_both_say_so() {
    let mut world = world(4);
    let mut pair = pair();
    pair.backup_prefix = "staging-check".to_owned();
    world
        .branches
        .branches
        .iter_mut()
        .filter(|branch| branch.name.as_str().starts_with("backup-"))
        .for_each(|branch| {
            branch.name = branch.name.as_str().replace("backup-", "staging-check-").as_str().into();
        });
    let inventory = Inventory {
        branches: &world.branches,
        endpoints: &[],
        snapshots: &[],
        records: &world.records,
    };
    let rules = KeepRules { last: 9, ..rules() };
    assert_eq!(plan(&inventory, &pair, &rules, Some(&run(0)), now()).branches().count(), 0);
}

#[test]
fn what_a_pair_that_is_not_configured_any_more_has_left_stays_and_is_told() {
    let mut world = world(2);
    let test = Branch {
        restored_from: Some("snap-old".into()),
        ..branch("br-test", "restore-test-old-20260101", None, 300)
    };
    let others = [
        branch("br-old", "old-20260101", Some("br-other"), 300),
        branch("br-of", "staging2-of-20260101", Some("br-old"), 300),
        branch("br-staging2", "staging2", Some("br-old"), 300),
        branch("br-own", "restore-test-of-mine", None, 300),
        test,
    ];
    world.branches.branches.extend(others);
    let value =
        [("firstlight".to_owned(), "old".to_owned()), ("run".to_owned(), "20260101".to_owned())]
            .into();
    world.branches.annotations.insert("br-old".into(), Annotation { value });
    let left = |pair: &Pair| {
        orphans(pair, &world.branches)
            .map(|(branch, of)| format!("{}: {of}", branch.name))
            .collect::<Vec<_>>()
    };
    let expected = [
        "old-20260101: of pair old",
        "staging2-of-20260101: what staging of pair old held before run 20260101 was displaced",
        "restore-test-old-20260101: made to compare a snapshot",
    ];
    assert_eq!(left(&pair()), expected);
    let told: Vec<Entry> =
        planned(&world).entries.into_iter().filter(|entry| entry.kind == Kind::Orphan).collect();
    assert!(told.len() == 3 && told.iter().all(|entry| entry.is_kept), "{told:?}");
    assert!(
        told[0].reasons[0]
            .starts_with("of pair old; its pair is not configured any more: delete it by hand"),
        "{told:?}"
    );
    let both = [("hub", "backup"), ("old", "old")]
        .map(|(name, prefix)| (PairName::from(name), prefix.to_owned()))
        .into();
    assert_eq!(left(&Pair { configured: both, ..pair() }), Vec::<String>::new());
}
