//! Whether the next thirty mornings find room: each is lived through with the keep rules as they are.
//!
//! In: what there is, the rules, how many branches the project may have. Out: the most that there will be, and the first day on which a backup would be refused,
//! with the rule to change.
//!
//! Invariants: a morning adds a backup and a displaced branch, which are verified and used; branches of other people stay as they are.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::NaiveDate;

use super::{Inventory, Kind, Known, PrunePlan, Records, SnapshotRecord, plan};
use crate::config::{KeepRules, Pair};
use crate::id::{BranchId, RunId, SnapshotId};
use crate::neon::wire::{Annotation, Branch, BranchList, Snapshot};
use crate::sync::machine::{backup_name, is_our_backup, run_of_backup};
use crate::time::{Timestamp, after};

/// Mornings that are looked ahead.
const MORNINGS: usize = 30;

/// Branches that a run makes before it deletes any: the backup and what staging held before.
const BRANCHES_OF_A_RUN: usize = 2;

/// How long a run takes, at most, before it prunes.
const UNTIL_PRUNED: Duration = Duration::from_hours(1);

/// How full the project will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Branches that the project may have.
    pub limit: usize,
    /// The most that it will have, in the middle of a run.
    pub most: usize,
    /// The first day on which it has so many.
    pub most_on: NaiveDate,
    /// The first day on which there is no room for a run.
    pub blocked_on: Option<NaiveDate>,
    /// The rule that alone keeps most backups on that day.
    pub rule: Option<String>,
    /// Backups and displaced branches that are kept at the end.
    pub kept: usize,
    /// The snapshots; `None` where no rule keeps any.
    pub snapshots: Option<SnapshotForecast>,
}

/// How many snapshots there will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotForecast {
    /// Snapshots that people asked for that the project may have; `None` where that is not known.
    pub limit: Option<usize>,
    /// The most that it will have in those mornings, other people's included.
    pub most: usize,
    /// The first day on which there is no room for one.
    pub blocked_on: Option<NaiveDate>,
    /// The rule that alone keeps most of them on that day.
    pub rule: Option<String>,
}

impl Forecast {
    /// Tells people what to do; nothing where there is room.
    pub fn warnings(&self) -> Vec<String> {
        let branches = self.blocked_on.map(|day| {
            let rule = self.rule.as_ref().map_or_else(|| "delete branches that nobody needs".to_owned(), |rule| format!("lower {rule}"));
            format!(
                "on {day} there will be no room for a backup: the project may have {} branches; {rule} (runbooks/retention-blocked.md)",
                self.limit
            )
        });
        let snapshots = self.snapshots.as_ref().and_then(|stock| {
            let (day, limit) = stock.blocked_on.zip(stock.limit)?;
            let rule = stock.rule.as_ref().map_or_else(|| "delete snapshots that nobody needs".to_owned(), |rule| format!("lower {rule}"));
            Some(format!(
                "on {day} there will be no room for a snapshot: the plan has {limit} that people may ask for; {rule}, or let it keep branches \
                 (runbooks/retention-blocked.md)"
            ))
        });
        branches.into_iter().chain(snapshots).collect()
    }
}

/// What a project may have.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Branches.
    pub branches: usize,
    /// Snapshots that people asked for, as far as that is known.
    pub snapshots: Option<usize>,
}

/// Returns whether there is room for what the next mornings make, and for today's run, even if none of it went.
pub fn always_has_room(branches: &BranchList, limit: usize) -> bool {
    branches.branches.len() + (MORNINGS + 1) * BRANCHES_OF_A_RUN <= limit
}

/// Lives through the next mornings.
pub fn forecast(inventory: &Inventory<'_>, pair: &Pair, rules: &KeepRules, room: Room, now: Timestamp) -> Forecast {
    look_ahead(inventory, pair, rules, room, now, MORNINGS)
}

fn look_ahead(inventory: &Inventory<'_>, pair: &Pair, rules: &KeepRules, room: Room, now: Timestamp, mornings: usize) -> Forecast {
    let (branches, snapshots) = (inventory.branches.clone(), inventory.snapshots.to_vec());
    let mut project = Project { branches, snapshots, records: inventory.records.clone() };
    let today = pair.zone.date(now);
    let limit = room.branches;
    let stock = SnapshotForecast { limit: room.snapshots, most: project.asked_for(), ..SnapshotForecast::default() };
    let snapshots = rules.has_snapshots().then_some(stock);
    let mut forecast =
        Forecast { limit, most: project.branches.branches.len(), most_on: today, blocked_on: None, rule: None, kept: 0, snapshots };
    let mut last = now;
    for date in today.iter_days().take(mornings) {
        let at = pair.zone.instant(date, pair.times.start_at);
        let run = RunId::scheduled(date);
        if at < now || !pair.times.has_run(date) || project.branches.by_name(&backup_name(pair, &run)).is_some() {
            continue;
        }
        if project.branches.branches.len() + BRANCHES_OF_A_RUN > limit {
            project.prune(pair, rules, None, at, true);
        }
        let used = project.branches.branches.len() + BRANCHES_OF_A_RUN;
        if used > limit {
            let plan = project.plan(pair, rules, None, at, true);
            return Forecast {
                blocked_on: Some(date),
                kept: limit,
                rule: heaviest(&plan, |kind| matches!(kind, Kind::Backup(_))),
                ..forecast
            };
        }
        if used > forecast.most {
            (forecast.most, forecast.most_on) = (used, date);
        }
        project.live(pair, &run, at);
        let end = after(at, UNTIL_PRUNED);
        project.prune(pair, rules, Some(&run), end, false);
        last = end;
        if let Some(stock) = &mut forecast.snapshots {
            project.take_snapshot(pair, rules, &run, end, stock);
        }
    }
    let left = project.plan(pair, rules, None, last, false).entries;
    forecast.kept = left.iter().filter(|entry| entry.is_kept && matches!(entry.kind, Kind::Backup(_) | Kind::Displaced)).count();
    forecast
}

/// A project as it will be.
struct Project {
    branches: BranchList,
    snapshots: Vec<Snapshot>,
    records: Records,
}

impl Project {
    /// A run makes a backup and restores staging from it.
    fn live(&mut self, pair: &Pair, run: &RunId, at: Timestamp) {
        let backup = BranchId::from(format!("br-forecast-{run}").as_str());
        let branch = |id: BranchId, name: &str, parent: Option<BranchId>| Branch {
            id,
            name: name.into(),
            parent_id: parent,
            parent_lsn: None,
            current_state: "ready".into(),
            default: false,
            protected: false,
            created_at: at,
            expires_at: None,
            restored_from: None,
            restored_as: None,
            restore_status: None,
            logical_size: None,
        };
        let staging = self.branches.by_id(&pair.staging_branch).cloned();
        if let Some(staging) = staging {
            let parent = staging.parent_id.as_ref().and_then(|id| self.branches.by_id(id));
            let of =
                parent.filter(|parent| is_our_backup(pair, &self.branches, parent)).and_then(|parent| run_of_backup(pair, &parent.name));
            let rest = of.map_or_else(|| format!("{}-0", staging.parent_id.as_ref().map_or("root", BranchId::tail)), |of| of.to_string());
            let displaced = BranchId::from(format!("br-displaced-{run}").as_str());
            self.branches.branches.push(branch(displaced, &format!("{}-of-{rest}", staging.name), staging.parent_id.clone()));
        }
        let name = backup_name(pair, run);
        self.branches.branches.push(branch(backup.clone(), name.as_str(), Some(pair.production_branch.clone())));
        let value = [("firstlight".to_owned(), pair.name.to_string()), ("run".to_owned(), run.to_string())].into();
        self.branches.annotations.insert(backup.clone(), Annotation { value });
        self.branches.branches.iter_mut().filter(|branch| branch.id == pair.staging_branch).for_each(|staging| {
            staging.parent_id = Some(backup.clone());
        });
        self.records.known.insert(run.clone(), Known::Verified);
    }

    fn plan(&self, pair: &Pair, rules: &KeepRules, run: Option<&RunId>, at: Timestamp, is_short: bool) -> PrunePlan {
        let Self { branches, snapshots, records } = self;
        plan(&Inventory { branches, endpoints: &[], snapshots, records, is_short }, pair, rules, run, at)
    }

    fn prune(&mut self, pair: &Pair, rules: &KeepRules, run: Option<&RunId>, at: Timestamp, is_short: bool) {
        let plan = self.plan(pair, rules, run, at, is_short);
        let gone: Vec<&str> = plan.branches().chain(plan.snapshots()).map(|entry| entry.id.as_str()).collect();
        self.branches.branches.retain(|branch| !gone.contains(&branch.id.as_str()));
        self.snapshots.retain(|snapshot| !gone.contains(&snapshot.id.as_str()));
    }

    /// Counts the snapshots that people asked for.
    fn asked_for(&self) -> usize {
        self.snapshots.iter().filter(|snapshot| snapshot.manual != Some(false)).count()
    }

    /// A run takes a snapshot of its backup, where a rule wants one.
    fn take_snapshot(&mut self, pair: &Pair, rules: &KeepRules, run: &RunId, at: Timestamp, stock: &mut SnapshotForecast) {
        let plan = self.plan(pair, rules, Some(run), at, false);
        if !plan.wants_snapshot || stock.blocked_on.is_some() {
            return;
        }
        if stock.limit.is_some_and(|limit| self.asked_for() >= limit) {
            stock.blocked_on = Some(pair.zone.date(at));
            stock.rule = heaviest(&plan, |kind| matches!(kind, Kind::Snapshot(_)));
            return;
        }
        let id = SnapshotId::from(format!("snap-forecast-{run}").as_str());
        self.snapshots.push(Snapshot {
            id: id.clone(),
            name: backup_name(pair, run),
            slug: None,
            source_branch_id: Some(pair.production_branch.clone()),
            lsn: None,
            created_at: at,
            manual: Some(true),
            full_size: None,
        });
        self.records.snapshots.insert(run.clone(), SnapshotRecord { id: Some(id), lsn: None, made_at: at, known: Known::Verified });
        stock.most = stock.most.max(self.asked_for());
    }
}

/// Returns the rule that alone keeps most backups of a kind.
fn heaviest(plan: &PrunePlan, is_of_kind: impl Fn(Kind) -> bool) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in plan.entries.iter().filter(|entry| entry.is_kept && is_of_kind(entry.kind)) {
        let [reason] = entry.reasons.as_slice() else { continue };
        let rule = reason.split(": ").find(|part| part.starts_with("keep_"));
        if let Some(rule) = rule {
            *counts.entry(rule).or_default() += 1;
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(rule, _)| rule.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rule;
    use crate::sync::schedule::tests::pair;

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
        let mut branches =
            vec![branch(production.as_str(), "production", None), branch(pair.staging_branch.as_str(), "staging", Some(&production))];
        branches.extend((0..others).map(|number| branch(&format!("br-other-{number}"), &format!("feature-{number}"), Some(&production))));
        BranchList { branches, ..BranchList::default() }
    }

    /// Lives through so many mornings of a project with so many branches of other people's, from the 21st of November on.
    fn seen(rules: &KeepRules, room: Room, others: usize, mornings: usize) -> Forecast {
        let (branches, records) = (project(others), Records::default());
        let inventory = Inventory { branches: &branches, endpoints: &[], snapshots: &[], records: &records, is_short: false };
        look_ahead(&inventory, &pair(), rules, room, "2026-11-21T12:00:00Z".parse().expect("an instant"), mornings)
    }

    fn told(rules: &KeepRules, limit: usize, others: usize) -> (usize, Option<String>) {
        let forecast = seen(rules, Room { branches: limit, snapshots: None }, others, MORNINGS);
        (forecast.most, forecast.warnings().pop())
    }

    #[test]
    fn the_day_is_told_on_which_there_will_be_no_room_and_the_rule_to_lower() {
        let rules = KeepRules { daily: 30, at_least: 3, displaced: 1, failed_days: Some(3), ..KeepRules::default() };
        let expected = "on 2026-11-28 there will be no room for a backup: the project may have 10 branches; lower keep_daily \
                        (runbooks/retention-blocked.md)";
        assert_eq!(told(&rules, 10, 0).1.as_deref(), Some(expected));
        let floor = KeepRules { last: 1, at_least: 30, daily: 0, ..rules.clone() };
        assert!(told(&floor, 10, 0).1.is_some_and(|text| text.contains("lower keep_at_least")));
        assert_eq!(told(&rules, 100, 0).1, None);
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
            let most = seen.snapshots.as_ref().map_or(0, |stock| stock.most);
            assert_eq!((seen.most, most, seen.warnings()), (limit, snapshots, Vec::<String>::new()), "{rules:?}");
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
        let told = |snapshots: usize| seen(&rules, Room { branches: 25, snapshots: Some(snapshots) }, 0, MORNINGS).warnings();
        assert_eq!(told(100), Vec::<String>::new());
        let expected = "on 2026-11-23 there will be no room for a snapshot: the plan has 1 that people may ask for; lower keep_daily, or let it keep \
                        branches (runbooks/retention-blocked.md)";
        assert_eq!(told(1).first().map(String::as_str), Some(expected));
    }

    #[test]
    fn rules_that_fit_a_plan_never_run_out_of_room_and_branches_of_others_take_theirs() {
        let rules = KeepRules { last: 5, at_least: 3, displaced: 1, failed_days: Some(3), ..KeepRules::default() };
        assert_eq!(told(&rules, 10, 0), (10, None));
        assert!(told(&rules, 10, 1).1.is_some());
        let crowded = told(&KeepRules { last: 1, at_least: 1, ..rules }, 10, 8);
        assert!(crowded.1.is_some_and(|text| text.contains("2026-11-22")), "there is no room for anything");
    }
}
