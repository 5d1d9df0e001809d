//! Mornings that are lived through ahead.

use super::*;
use crate::config::Rule;
use crate::fixtures::pair;

fn project(others: usize) -> BranchList {
    let pair = pair();
    let branch = |id: &str, name: &str, parent: Option<&BranchId>| Branch {
        id: id.into(),
        name: name.into(),
        parent_id: parent.cloned(),
        parent_lsn: None,
        current_state: "ready".into(),
        default: parent.is_none(),
        protected: false,
        created_at: "2026-01-01T00:00:00Z".parse().expect("an instant"),
        expires_at: None,
        restored_from: None,
        restored_as: None,
        restore_status: None,
        logical_size: None,
    };
    let production = pair.production_branch.clone();
    let mut branches = vec![
        branch(production.as_str(), "production", None),
        branch(pair.staging_branch.as_str(), "staging", Some(&production)),
    ];
    branches.extend((0..others).map(|number| {
        branch(&format!("br-other-{number}"), &format!("feature-{number}"), Some(&production))
    }));
    BranchList { branches, ..BranchList::default() }
}

/// Lives through so many mornings of a project with so many branches of other people's, from the
/// 21st of November on.
fn seen(rules: &KeepRules, room: Room, others: usize, mornings: usize) -> Forecast {
    let (branches, records) = (project(others), Records::default());
    let inventory =
        Inventory { branches: &branches, endpoints: &[], snapshots: &[], records: &records };
    let now = "2026-11-21T12:00:00Z".parse().expect("an instant");
    let look = Look { pair: &pair(), rules, room, run: None, now };
    if mornings == MORNINGS {
        forecast(&inventory, look.pair, rules, room, None, now)
    } else {
        look.ahead(&inventory, mornings, First::Succeeds)
    }
}

fn told(rules: &KeepRules, limit: usize, others: usize) -> (usize, Option<String>) {
    let forecast = seen(rules, Room { branches: limit, snapshots: None }, others, MORNINGS);
    (forecast.most, forecast.warnings().pop())
}

#[test]
fn the_day_is_told_on_which_there_will_be_no_room_and_the_rule_to_lower() {
    let rules = KeepRules {
        daily: 30,
        at_least: 3,
        displaced: 1,
        failed_days: Some(3),
        ..KeepRules::default()
    };
    let expected = "on 2026-11-28 there will be no room for all that the rules keep: the project \
        may have 10 branches, and backup-20261122 will give way to that day's backup; lower \
        keep_daily (runbooks/retention-blocked.md)";
    assert_eq!(told(&rules, 10, 0).1.as_deref(), Some(expected));
    let floor = KeepRules { last: 1, at_least: 30, daily: 0, ..rules.clone() };
    let expected = "on 2026-11-28 there will be no room for a backup: the project may have 10 \
        branches; 6 of keep_at_least = 30 (backup-20261127, backup-20261126, backup-20261125, …): \
        lower it; 1 of keep_displaced = 1 (staging-of-20261126): lower it \
        (runbooks/retention-blocked.md)";
    assert_eq!(told(&floor, 10, 0).1.as_deref(), Some(expected));
    assert_eq!(told(&rules, 100, 0).1, None);
}

/// As in case 10 and case 39: what a run that fails, and one more, would leave is looked at before
/// it happens.
#[test]
fn what_gives_way_after_a_failed_run_or_one_more_is_known_before_it_happens() {
    let rules = KeepRules { last: 5, at_least: 3, displaced: 1, ..KeepRules::default() };
    let (branches, records) = (project(0), Records::default());
    let inventory =
        Inventory { branches: &branches, endpoints: &[], snapshots: &[], records: &records };
    let start: Timestamp = "2026-11-21T12:00:00Z".parse().expect("an instant");
    let room = Room { branches: 10, snapshots: None };
    // Seven good days.
    let mut full =
        Project { branches: branches.clone(), snapshots: Vec::new(), records: records.clone() };
    let look = Look { pair: &pair(), rules: &rules, room, run: None, now: start };
    for Coming { at, run, .. } in look.coming(&branches, 8, First::Succeeds) {
        assert_eq!(full.make_room(look.pair, &rules, at, 10), Ok(None), "{run}");
        full.live(look.pair, &run, at, true);
        full.prune(look.pair, &rules, &run, after(at, UNTIL_PRUNED));
    }
    let inventory = Inventory { branches: &full.branches, records: &full.records, ..inventory };
    let seen = forecast(
        &inventory,
        look.pair,
        &rules,
        room,
        None,
        "2026-11-28T12:00:00Z".parse().expect("an instant"),
    );
    assert_eq!((seen.most, &seen.short, seen.warnings()), (10, &None, Vec::new()));
    let gives_way: Vec<(First, Option<String>)> = seen
        .after
        .iter()
        .map(|after| {
            (
                after.first,
                after.short.as_ref().map(|short| format!("{} on {}", short.gives_way, short.on)),
            )
        })
        .collect();
    let expected = [
        (First::Fails, Some("backup-20261124 on 2026-11-30".to_owned())),
        (First::IsFollowed, None),
    ];
    assert_eq!(
        gives_way, expected,
        "one that failed takes a place of five; what only a day keeps gives way to a morning"
    );
}

#[test]
fn the_examples_of_the_readme_fill_their_plans_and_never_overflow_in_three_years() {
    let of = |last, daily, weekly, monthly| KeepRules {
        last,
        daily,
        weekly,
        monthly,
        at_least: 3,
        displaced: 1,
        failed_days: Some(7),
        ..KeepRules::default()
    };
    let launch = KeepRules {
        daily: 30,
        weekly: 13,
        monthly: 12,
        as_snapshots: [Rule::Daily, Rule::Weekly, Rule::Monthly].into(),
        ..of(5, 0, 0, 0)
    };
    let scale = KeepRules { as_snapshots: [Rule::Monthly].into(), ..of(0, 14, 8, 12) };
    let examples = [(of(5, 0, 0, 0), 10, 0), (launch, 10, 49), (scale, 25, 12)];
    for (rules, limit, snapshots) in examples {
        let seen = seen(&rules, Room { branches: limit, snapshots: Some(100) }, 0, 1_100);
        let room = Room { branches: limit, snapshots: Some(100) };
        assert_eq!(
            self::seen(&rules, room, 0, MORNINGS).warnings(),
            Vec::<String>::new(),
            "one run that fails, or one more, blocks none"
        );
        let most = seen.snapshots.as_ref().map_or(0, |stock| stock.most);
        assert_eq!(
            (seen.most, most, seen.warnings()),
            (limit, snapshots, Vec::<String>::new()),
            "{rules:?}"
        );
    }
}

#[test]
fn the_day_is_told_on_which_there_will_be_no_room_for_a_snapshot() {
    let rules = KeepRules {
        last: 2,
        daily: 30,
        at_least: 1,
        displaced: 1,
        failed_days: Some(3),
        as_snapshots: [Rule::Daily].into(),
        ..KeepRules::default()
    };
    let told = |snapshots: usize| {
        seen(&rules, Room { branches: 25, snapshots: Some(snapshots) }, 0, MORNINGS).warnings()
    };
    assert_eq!(told(100), Vec::<String>::new());
    let expected = "on 2026-11-23 there will be no room for a snapshot: the plan has 1 that people \
        may ask for; lower keep_daily, or let it keep branches (runbooks/retention-blocked.md)";
    assert_eq!(told(1).first().map(String::as_str), Some(expected));
}

#[test]
fn rules_that_fit_a_plan_never_run_out_of_room_and_branches_of_others_take_theirs() {
    let rules = KeepRules {
        last: 5,
        at_least: 3,
        displaced: 1,
        failed_days: Some(3),
        ..KeepRules::default()
    };
    assert_eq!(told(&rules, 10, 0), (10, None));
    assert!(told(&rules, 10, 1).1.is_some());
    let crowded = told(&KeepRules { last: 1, at_least: 1, ..rules }, 10, 8);
    assert!(
        crowded.1.is_some_and(|text| text.contains("2026-11-22")),
        "there is no room for anything"
    );
}
