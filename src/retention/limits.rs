//! Rules that the project's plan cannot hold, and what keeps backups beside them.

use crate::config::{KeepRules, Rule};
use crate::neon::wire::{BranchList, Owner, Project, ScheduleItem};

/// Branches that a project has beside those that are kept: production, staging, and the two that a
/// run makes before it deletes any.
const BESIDE: usize = 4;

/// Seconds that a run may take before a snapshot is taken at the backup's position: the hour from
/// start to deadline that runs are given as a rule, and the hour after it in which they are given
/// up.
const HISTORY_NEEDED: u32 = 2 * 3_600;

/// The part of what a branch may hold, in percent, from which on people are told: a tenth is left
/// for the days until they look.
const NEARLY_FULL: u64 = 90;

/// Returns what people should know of the rules and the project's limits before anything is
/// deleted, each with the key's name.
pub fn limits(
    rules: &KeepRules,
    project: &Project,
    branches: &BranchList,
    schedule: &[ScheduleItem],
) -> Vec<String> {
    let owner = project.owner.as_ref();
    let beside = BESIDE + rules.displaced as usize;
    let floor = owner
        .and_then(Owner::limit)
        .filter(|limit| rules.at_least as usize + beside > *limit)
        .map(|limit| {
            let floor = rules.at_least;
            format!(
                "keep_at_least: {floor} backups that no rule may delete, and {beside} branches \
                 beside them, do not fit into the plan's {limit} branches"
            )
        });
    let wanted = rules.as_snapshots.iter().filter_map(|rule| too_many(rules, *rule, owner?));
    let of_snapshots = if rules.has_snapshots() {
        of_snapshots(rules, project, branches, schedule)
    } else {
        Vec::new()
    };
    floor
        .into_iter()
        .chain(wanted)
        .chain(of_snapshots)
        .chain(nearly_full(project, branches))
        .collect()
}

/// Returns that a rule wants more snapshots than the plan lets people ask for.
fn too_many(rules: &KeepRules, rule: Rule, owner: &Owner) -> Option<String> {
    let limit = owner.snapshot_limit()?;
    let count = count(rules, rule).filter(|count| *count > limit)?;
    let (key, tier_key, plan) = (rule.key(), rule.tier_key(), &owner.subscription_type);
    Some(format!(
        "{tier_key}: {key} = {count} wants more snapshots than plan {plan} lets people ask for \
         ({limit})"
    ))
}

/// Returns what stands in the way of snapshots.
fn of_snapshots(
    rules: &KeepRules,
    project: &Project,
    branches: &BranchList,
    schedule: &[ScheduleItem],
) -> Vec<String> {
    let keys = rules.as_snapshots.iter().map(|rule| rule.key()).collect::<Vec<_>>().join(", ");
    let history = project
        .history_retention_seconds
        .filter(|seconds| *seconds < HISTORY_NEEDED)
        .map(|seconds| {
            format!(
                "history_retention_seconds of the project is {seconds}: a run that takes longer \
                 cannot have a snapshot of its backup ({keys}); set it to {HISTORY_NEEDED} at least"
            )
        });
    let roots = branches.branches.iter().filter(|branch| branch.parent_id.is_none()).count();
    let roots =
        project.owner.as_ref().and_then(Owner::root_limit).filter(|limit| roots >= *limit).map(
            |limit| {
                format!(
                    "the project has {roots} of {limit} root branches, and a snapshot is compared \
                     on one more ({keys}); delete one that nobody needs"
                )
            },
        );
    let schedule = (!schedule.is_empty()).then(|| {
        let times: Vec<&str> = schedule.iter().map(|item| item.frequency.as_str()).collect();
        let times = times.join(", ");
        format!(
            "Neon takes snapshots of production by itself as well ({times}): nobody compares them, \
             and they are paid for beside those of {keys}"
        )
    });
    history.into_iter().chain(roots).chain(schedule).collect()
}

/// Returns that a branch nearly holds what one may: writes to production, and its copies, are
/// refused when it does.
fn nearly_full(project: &Project, branches: &BranchList) -> Option<String> {
    let limit = project.branch_logical_size_limit_bytes.filter(|limit| *limit > 0)?;
    let largest = branches
        .branches
        .iter()
        .filter_map(|branch| Some((branch.logical_size?, &branch.name)))
        .max()?;
    let (size, name) = largest;
    (size / 100 * 100 >= limit / 100 * NEARLY_FULL).then(|| {
        format!(
            "branch {name} holds {size} bytes of the {limit} that the plan lets a branch hold \
             (BRANCH_SIZE_LIMIT_EXCEEDED from there on)"
        )
    })
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

    /// A project of a plan, with an hour of history and its production.
    fn project(plan: &str) -> (Project, BranchList) {
        let project = serde_json::json!({
            "id": "old-violet-32930710", "pg_version": 18, "store_passwords": true,
            "history_retention_seconds": 86_400,
            "owner": {"branches_limit": 10, "subscription_type": plan},
            "branch_logical_size_limit_bytes": 1_000_000,
        });
        let branches = serde_json::json!({"branches": [{
            "id": "br-a", "name": "production", "current_state": "ready", "default": true,
            "protected": false, "logical_size": 1_000,
            "created_at": "2026-11-21T10:00:00Z",
        }]});
        (
            serde_json::from_value(project).expect("a project"),
            serde_json::from_value(branches).expect("branches"),
        )
    }

    fn weeks() -> KeepRules {
        KeepRules {
            last: 3,
            weekly: 8,
            at_least: 3,
            displaced: 1,
            as_snapshots: [Rule::Weekly].into(),
            ..KeepRules::default()
        }
    }

    #[test]
    fn a_floor_above_the_quota_a_tier_the_plan_has_not_and_a_schedule_beside_ours_are_told() {
        let daily = ScheduleItem { frequency: "daily".to_owned(), retention_seconds: None };
        let (launch, branches) = project("launch_v3");
        assert_eq!(limits(&weeks(), &launch, &branches, &[]), Vec::<String>::new());
        let (free, _) = project("free_v3");
        assert_eq!(
            limits(&KeepRules { at_least: 5, ..weeks() }, &launch, &branches, &[]),
            Vec::<String>::new(),
            "ten of ten"
        );
        let told = limits(
            &KeepRules { at_least: 6, ..weeks() },
            &free,
            &branches,
            std::slice::from_ref(&daily),
        );
        assert_eq!(
            told,
            [
                "keep_at_least: 6 backups that no rule may delete, and 5 branches beside them, do \
                 not fit into the plan's 10 branches",
                "keep_weekly_tier: keep_weekly = 8 wants more snapshots than plan free_v3 lets \
                 people ask for (1)",
                "Neon takes snapshots of production by itself as well (daily): nobody compares \
                 them, and they are paid for beside those of keep_weekly",
            ]
        );
        let no_snapshots = KeepRules { as_snapshots: [].into(), ..weeks() };
        assert_eq!(limits(&no_snapshots, &free, &branches, &[daily]), Vec::<String>::new());
        let unknown = Project { owner: None, ..free };
        assert_eq!(limits(&weeks(), &unknown, &branches, &[]), Vec::<String>::new());
    }

    #[test]
    fn a_short_history_full_roots_and_a_branch_that_is_nearly_full_are_told_with_their_numbers() {
        let (launch, mut branches) = project("launch_v3");
        let told = |project: &Project, branches: &BranchList| {
            limits(&weeks(), project, branches, &[]).join("; ")
        };
        let short = Project { history_retention_seconds: Some(3_600), ..launch.clone() };
        assert!(
            told(&short, &branches)
                .starts_with("history_retention_seconds of the project is 3600: "),
            "{}",
            told(&short, &branches)
        );
        branches.branches[0].logical_size = Some(899_999);
        assert_eq!(told(&launch, &branches), "");
        branches.branches[0].logical_size = Some(900_000);
        assert!(
            told(&launch, &branches)
                .starts_with("branch production holds 900000 bytes of the 1000000 "),
            "{}",
            told(&launch, &branches)
        );
        branches.branches[0].logical_size = None;
        let root = branches.branches[0].clone();
        branches.branches.extend(std::iter::repeat_n(root, 4));
        assert!(
            told(&launch, &branches).starts_with("the project has 5 of 5 root branches"),
            "{}",
            told(&launch, &branches)
        );
    }
}
