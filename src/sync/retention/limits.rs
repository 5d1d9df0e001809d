//! Rules that the project's plan cannot hold, and what keeps backups beside them.

use crate::config::{KeepRules, Rule};
use crate::neon::wire::{Owner, ScheduleItem};

/// Branches that a project has beside backups: production, staging, what staging held before, and the backup that a run makes.
const BESIDE: usize = 4;

/// Returns what people should know of the rules before anything is deleted by them, each with the key's name.
pub fn limits(rules: &KeepRules, owner: Option<&Owner>, schedule: &[ScheduleItem]) -> Vec<String> {
    let branches = owner.and_then(Owner::limit).filter(|limit| rules.at_least as usize + BESIDE > *limit).map(|limit| {
        let floor = rules.at_least;
        format!("keep_at_least: {floor} backups that no rule may delete, and {BESIDE} branches beside them, do not fit into the plan's {limit} branches")
    });
    let wanted = rules.as_snapshots.iter().filter_map(|rule| Some((*rule, owner?.snapshot_limit()?))).filter_map(|(rule, limit)| {
        let plan = owner.map(|owner| owner.subscription_type.as_str()).unwrap_or_default();
        let count = count(rules, rule).filter(|count| *count > limit)?;
        let (key, tier_key) = (rule.key(), rule.tier_key());
        Some(format!("{tier_key}: {key} = {count} wants more snapshots than plan {plan} lets people ask for ({limit})"))
    });
    let schedule = (rules.has_snapshots() && !schedule.is_empty()).then(|| {
        let keys: Vec<&str> = rules.as_snapshots.iter().map(|rule| rule.key()).collect();
        let times: Vec<&str> = schedule.iter().map(|item| item.frequency.as_str()).collect();
        format!(
            "Neon takes snapshots of production by itself as well ({}): nobody compares them, and they are paid for beside those of {}",
            times.join(", "),
            keys.join(", ")
        )
    });
    branches.into_iter().chain(wanted).chain(schedule).collect()
}

/// Returns how many a rule keeps; `None` where that is a span.
fn count(rules: &KeepRules, rule: Rule) -> Option<usize> {
    let count = match rule {
        Rule::Last => rules.last,
        Rule::Daily => rules.daily,
        Rule::Weekly => rules.weekly,
        Rule::Monthly => rules.monthly,
        Rule::Yearly => rules.yearly,
        Rule::Within => return None,
    };
    usize::try_from(count).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(plan: &str, branches_limit: i64) -> Owner {
        Owner { branches_limit, subscription_type: plan.to_owned() }
    }

    #[test]
    fn a_floor_above_the_quota_a_tier_that_the_plan_has_not_and_a_schedule_beside_ours_are_told_by_name() {
        let rules = KeepRules { last: 3, weekly: 8, at_least: 3, as_snapshots: [Rule::Weekly].into(), ..KeepRules::default() };
        let daily = ScheduleItem { frequency: "daily".to_owned(), retention_seconds: None };
        assert_eq!(limits(&rules, Some(&owner("launch_v3", 10)), &[]), Vec::<String>::new());
        assert_eq!(limits(&rules, None, &[]), Vec::<String>::new());
        let told = limits(&KeepRules { at_least: 7, ..rules.clone() }, Some(&owner("free_v3", 10)), &[daily]);
        assert_eq!(
            told,
            [
                "keep_at_least: 7 backups that no rule may delete, and 4 branches beside them, do not fit into the plan's 10 branches",
                "keep_weekly_tier: keep_weekly = 8 wants more snapshots than plan free_v3 lets people ask for (1)",
                "Neon takes snapshots of production by itself as well (daily): nobody compares them, and they are paid for beside those of keep_weekly",
            ]
        );
        let branches = KeepRules { as_snapshots: [].into(), ..rules };
        assert_eq!(limits(&branches, Some(&owner("free_v3", 10)), &[]), Vec::<String>::new());
    }
}
