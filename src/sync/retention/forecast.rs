//! Whether the next thirty mornings find room: each is lived through with the keep rules as they are.
//!
//! In: what there is, the rules, how many branches the project may have. Out: the most that there will be, and the first day on which a backup would be refused,
//! with the rule to change.
//!
//! Invariants: a morning adds a backup and a displaced branch, which are verified and used; branches of other people stay as they are.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::NaiveDate;

use super::{Inventory, Kind, Known, PrunePlan, Records, plan};
use crate::config::{KeepRules, Pair};
use crate::id::{BranchId, RunId};
use crate::neon::wire::{Annotation, Branch, BranchList};
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
}

impl Forecast {
    /// Tells people what to do; `None` where there is room.
    pub fn warning(&self) -> Option<String> {
        let day = self.blocked_on?;
        let rule = self.rule.as_ref().map_or_else(|| "delete branches that nobody needs".to_owned(), |rule| format!("lower {rule}"));
        Some(format!(
            "on {day} there will be no room for a backup: the project may have {} branches; {rule} (runbooks/retention-blocked.md)",
            self.limit
        ))
    }
}

/// Returns whether there is room for what the next mornings make, and for today's run, even if none of it went.
pub fn always_has_room(branches: &BranchList, limit: usize) -> bool {
    branches.branches.len() + (MORNINGS + 1) * BRANCHES_OF_A_RUN <= limit
}

/// Lives through the next mornings.
pub fn forecast(inventory: &Inventory<'_>, pair: &Pair, rules: &KeepRules, limit: usize, now: Timestamp) -> Forecast {
    look_ahead(inventory, pair, rules, limit, now, MORNINGS)
}

fn look_ahead(inventory: &Inventory<'_>, pair: &Pair, rules: &KeepRules, limit: usize, now: Timestamp, mornings: usize) -> Forecast {
    let mut project = Project { branches: inventory.branches.clone(), records: inventory.records.clone() };
    let today = pair.zone.date(now);
    let mut forecast = Forecast { limit, most: project.branches.branches.len(), most_on: today, blocked_on: None, rule: None };
    for date in today.iter_days().take(mornings) {
        let at = pair.zone.instant(date, pair.start_at);
        let run = RunId::scheduled(date);
        if at < now || project.branches.by_name(&backup_name(pair, &run)).is_some() {
            continue;
        }
        if project.branches.branches.len() + BRANCHES_OF_A_RUN > limit {
            project.prune(pair, rules, None, at);
        }
        let used = project.branches.branches.len() + BRANCHES_OF_A_RUN;
        if used > limit {
            let plan = project.plan(pair, rules, None, at);
            return Forecast { blocked_on: Some(date), rule: heaviest(&plan), ..forecast };
        }
        if used > forecast.most {
            (forecast.most, forecast.most_on) = (used, date);
        }
        project.live(pair, &run, at);
        project.prune(pair, rules, Some(&run), after(at, UNTIL_PRUNED));
    }
    forecast
}

/// A project as it will be.
struct Project {
    branches: BranchList,
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

    fn plan(&self, pair: &Pair, rules: &KeepRules, run: Option<&RunId>, at: Timestamp) -> PrunePlan {
        plan(&Inventory { branches: &self.branches, endpoints: &[], records: &self.records }, pair, rules, run, at)
    }

    fn prune(&mut self, pair: &Pair, rules: &KeepRules, run: Option<&RunId>, at: Timestamp) {
        let plan = self.plan(pair, rules, run, at);
        let gone: Vec<&str> = plan.branches().map(|entry| entry.id.as_str()).collect();
        self.branches.branches.retain(|branch| !gone.contains(&branch.id.as_str()));
    }
}

/// Returns the rule that alone keeps most backups.
fn heaviest(plan: &PrunePlan) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in plan.entries.iter().filter(|entry| entry.is_kept && matches!(entry.kind, Kind::Backup(_))) {
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
        };
        let production = pair.production_branch.clone();
        let mut branches =
            vec![branch(production.as_str(), "production", None), branch(pair.staging_branch.as_str(), "staging", Some(&production))];
        branches.extend((0..others).map(|number| branch(&format!("br-other-{number}"), &format!("feature-{number}"), Some(&production))));
        BranchList { branches, ..BranchList::default() }
    }

    fn told(rules: &KeepRules, limit: usize, others: usize) -> (usize, Option<String>) {
        let (branches, records) = (project(others), Records::default());
        let inventory = Inventory { branches: &branches, endpoints: &[], records: &records };
        let forecast = forecast(&inventory, &pair(), rules, limit, "2026-11-21T12:00:00Z".parse().expect("an instant"));
        (forecast.most, forecast.warning())
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
        let examples = [(of(5, 0, 0, 0), 10), (of(0, 4, 2, 0), 10), (of(0, 6, 4, 12), 25)];
        for (rules, limit) in examples {
            let (branches, records) = (project(0), Records::default());
            let inventory = Inventory { branches: &branches, endpoints: &[], records: &records };
            let now = "2026-11-21T12:00:00Z".parse().expect("an instant");
            let seen = look_ahead(&inventory, &pair(), &rules, limit, now, 1_100);
            assert_eq!((seen.most, seen.warning()), (limit, None), "{rules:?}");
        }
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
