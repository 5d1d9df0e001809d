//! Decides what is deleted.
//!
//! In: every branch and endpoint, the names of verified backups, the keep rules, `now`. Out: a [`PrunePlan`] that gives everything of
//! ours a reason to stay or to go.
//!
//! Invariants: only what is ours by name *and* by annotation or place in the tree is ever in the plan; the newest `keep_at_least`
//! verified backups never are; nothing of a run younger than 24 hours is; children come before their parents.
//!
//! Nothing here deletes; `sync::machine` turns the plan into calls.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::Pair;
use crate::id::{BranchId, BranchName, EndpointId, RunId};
use crate::neon::wire::{Branch, BranchList, Endpoint};
use crate::sync::machine::{is_our_backup, run_of_backup};
use crate::time::{Timestamp, between};

/// Nothing of a run younger than this is deleted.
///
/// Source: design §4: "a zombie request is assumed to live an hour at most"; a day leaves room for a run that was started again.
const YOUNG: Duration = Duration::from_hours(24);

/// An endpoint that was made this soon after its backup was made by us.
///
/// A manual run is given up after two hours; until then it may have had to make the endpoint anew.
const ENDPOINT_OF_RUN: Duration = Duration::from_hours(2);

/// A read-write endpoint that was made this soon after its backup was made in the same call.
///
/// Neon writes both times with seconds, one after the other.
const ENDPOINT_OF_CALL: Duration = Duration::from_secs(5);

/// What there is.
pub struct Inventory<'a> {
    /// Every branch of the project.
    pub branches: &'a BranchList,
    /// Every endpoint of the project.
    pub endpoints: &'a [Endpoint],
    /// The names of backups with a record of being verified.
    pub verified: &'a [BranchName],
}

/// What will be deleted, and what is kept, each with its reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrunePlan {
    /// Endpoints of backups that no run reads any more.
    pub endpoints: Vec<EndpointId>,
    /// Branches, in the order of deletion.
    pub delete: Vec<(BranchId, String, &'static str)>,
    /// What stays.
    pub kept: Vec<(String, String)>,
}

/// Makes the plan.
pub fn plan(inventory: &Inventory<'_>, pair: &Pair, run: &RunId, now: Timestamp) -> PrunePlan {
    let mut plan = PrunePlan::default();
    let mut candidates: Vec<(&Branch, &'static str)> = Vec::new();
    judge_backups(inventory, pair, run, now, &mut candidates, &mut plan);
    judge_displaced(inventory, pair, now, &mut candidates, &mut plan);
    judge_checks(inventory, pair, run, now, &mut candidates);
    candidates.retain(|(branch, _)| {
        let reason = match (branch.protected, branch.default) {
            (true, _) => "protected in Neon",
            (false, true) => "the project's default branch",
            (false, false) => return true,
        };
        plan.kept.push((branch.name.to_string(), reason.to_owned()));
        false
    });
    drop_pinned(inventory.branches, &mut candidates, &mut plan);
    plan.delete = children_first(candidates);
    plan.endpoints = endpoints(inventory, pair, run, now);
    plan
}

fn is_young(branch: &Branch, now: Timestamp) -> bool {
    between(branch.created_at, now) < YOUNG
}

fn judge_backups<'a>(
    inventory: &Inventory<'a>,
    pair: &Pair,
    run: &RunId,
    now: Timestamp,
    candidates: &mut Vec<(&'a Branch, &'static str)>,
    plan: &mut PrunePlan,
) {
    let named = inventory.branches.branches.iter().filter(|branch| run_of_backup(pair, &branch.name).is_some());
    let (mut ours, foreign): (Vec<&Branch>, Vec<&Branch>) = named.partition(|branch| is_our_backup(pair, inventory.branches, branch));
    for branch in foreign {
        plan.kept.push((branch.name.to_string(), "foreign: has a backup's name but was not made by this pair".to_owned()));
    }
    ours.sort_by_key(|branch| std::cmp::Reverse((branch.created_at, branch.name.clone())));
    let mut verified_before = 0_u32;
    for branch in ours {
        let is_verified = inventory.verified.contains(&branch.name);
        let rank = verified_before;
        verified_before += u32::from(is_verified);
        let reason = if run_of_backup(pair, &branch.name).as_ref() == Some(run) {
            "backup of this run".to_owned()
        } else if !is_verified {
            "unverified: kept and reported".to_owned()
        } else if rank < pair.keep_last {
            format!("keep_last: number {} of {}", rank + 1, pair.keep_last)
        } else if rank < pair.keep_at_least {
            format!("keep_at_least: number {} of {}", rank + 1, pair.keep_at_least)
        } else if branch.created_at > now || is_young(branch, now) {
            "younger than 24 hours".to_owned()
        } else {
            candidates.push((branch, "older than every keep rule"));
            continue;
        };
        plan.kept.push((branch.name.to_string(), reason));
    }
}

fn judge_displaced<'a>(
    inventory: &Inventory<'a>,
    pair: &Pair,
    now: Timestamp,
    candidates: &mut Vec<(&'a Branch, &'static str)>,
    plan: &mut PrunePlan,
) {
    let Some(staging) = inventory.branches.by_id(&pair.staging_branch) else { return };
    let stem = format!("{}-of-", staging.name);
    let mut displaced: Vec<&Branch> = Vec::new();
    for branch in inventory.branches.branches.iter().filter(|branch| branch.name.as_str().starts_with(&stem)) {
        if is_our_displaced(inventory.branches, pair, &stem, branch) {
            displaced.push(branch);
        } else {
            plan.kept.push((branch.name.to_string(), "foreign: has a displaced branch's name but not its place".to_owned()));
        }
    }
    displaced.sort_by_key(|branch| std::cmp::Reverse((branch.created_at, branch.name.clone())));
    for (rank, branch) in displaced.into_iter().enumerate() {
        let reason = if rank < pair.keep_displaced as usize {
            format!("keep_displaced: number {} of {}", rank + 1, pair.keep_displaced)
        } else if branch.created_at > now || is_young(branch, now) {
            "younger than 24 hours".to_owned()
        } else {
            candidates.push((branch, "displaced longer ago than keep_displaced"));
            continue;
        };
        plan.kept.push((branch.name.to_string(), reason));
    }
}

/// Returns whether the name of a displaced branch agrees with its place in the tree: it keeps the parent that staging had.
fn is_our_displaced(branches: &BranchList, pair: &Pair, stem: &str, branch: &Branch) -> bool {
    let Some(rest) = branch.name.as_str().strip_prefix(stem) else { return false };
    let Some(parent) = branch.parent_id.as_ref() else { return false };
    // A second displacement of the same state ends in `-2`, `-3`, ….
    let expected = |base: &str| {
        rest == base
            || rest
                .strip_prefix(base)
                .and_then(|tail| tail.strip_prefix('-'))
                .is_some_and(|number| number.parse::<u32>().is_ok_and(|number| number >= 2))
    };
    let backup = branches.by_id(parent).filter(|parent| is_our_backup(pair, branches, parent));
    if let Some(run) = backup.and_then(|parent| run_of_backup(pair, &parent.name)) {
        expected(run.as_str())
    } else {
        let lsn = branch.parent_lsn.map_or_else(|| "0".to_owned(), |lsn| lsn.to_string().replace('/', "-"));
        expected(&format!("{}-{lsn}", parent.tail()))
    }
}

fn judge_checks<'a>(inventory: &Inventory<'a>, pair: &Pair, run: &RunId, now: Timestamp, candidates: &mut Vec<(&'a Branch, &'static str)>) {
    let Some(staging) = inventory.branches.by_id(&pair.staging_branch) else { return };
    let stem = format!("{}-check-", staging.name);
    for branch in &inventory.branches.branches {
        let Some(of) = branch.name.as_str().strip_prefix(&stem).and_then(RunId::decode) else { continue };
        let is_ours = inventory.branches.annotation(&branch.id, "firstlight") == Some(pair.name.as_str())
            && inventory.branches.annotation(&branch.id, "run") == Some(of.as_str());
        if is_ours && (of == *run || !is_young(branch, now)) {
            candidates.push((branch, "check branch of a run that is over"));
        }
    }
}

/// Takes out of the plan what has a child that stays; what that frees is looked at again.
fn drop_pinned(branches: &BranchList, candidates: &mut Vec<(&Branch, &'static str)>, plan: &mut PrunePlan) {
    loop {
        let going: BTreeSet<&BranchId> = candidates.iter().map(|(branch, _)| &branch.id).collect();
        let pinned = candidates.iter().position(|(branch, _)| branches.children(&branch.id).any(|child| !going.contains(&child.id)));
        let Some(index) = pinned else { return };
        let (branch, _) = candidates.remove(index);
        let child = branches.children(&branch.id).map(|child| child.name.to_string()).next().unwrap_or_default();
        plan.kept.push((branch.name.to_string(), format!("has the child {child}, and Neon deletes no branch with children")));
    }
}

/// Orders deletions: children before parents, newest first, so that an abort leaves a usable set.
fn children_first(candidates: Vec<(&Branch, &'static str)>) -> Vec<(BranchId, String, &'static str)> {
    let mut left = candidates;
    left.sort_by_key(|(branch, _)| std::cmp::Reverse((branch.created_at, branch.name.clone())));
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let leaf = left.iter().position(|(branch, _)| !left.iter().any(|(other, _)| other.parent_id.as_ref() == Some(&branch.id)));
        // A tree always has a leaf; should Neon ever answer with a circle, nothing of it is deleted.
        let Some(index) = leaf else { break };
        let (branch, reason) = left.remove(index);
        ordered.push((branch.id.clone(), branch.name.to_string(), reason));
    }
    ordered
}

/// Returns the endpoints of backups that were made with them: this run's, and those of runs that are long over.
fn endpoints(inventory: &Inventory<'_>, pair: &Pair, run: &RunId, now: Timestamp) -> Vec<EndpointId> {
    let is_due = |branch: &Branch, endpoint: &Endpoint| {
        let of = run_of_backup(pair, &branch.name);
        is_our_backup(pair, inventory.branches, branch)
            && (of.as_ref() == Some(run) || !is_young(branch, now))
            && between(branch.created_at, endpoint.created_at) < if endpoint.is_read_write() { ENDPOINT_OF_CALL } else { ENDPOINT_OF_RUN }
    };
    inventory
        .endpoints
        .iter()
        .filter(|endpoint| inventory.branches.by_id(&endpoint.branch_id).is_some_and(|branch| is_due(branch, endpoint)))
        .map(|endpoint| endpoint.id.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::neon::wire::Annotation;
    use crate::sync::schedule::tests::pair;

    struct World {
        branches: BranchList,
        verified: Vec<BranchName>,
    }

    fn now() -> Timestamp {
        "2026-11-21T10:10:00Z".parse().expect("an instant")
    }

    fn branch(id: &str, name: &str, parent: Option<&str>, days_old: i64) -> Branch {
        Branch {
            id: id.into(),
            name: name.into(),
            parent_id: parent.map(BranchId::from),
            parent_lsn: Some(crate::id::Lsn(256)),
            current_state: "ready".into(),
            default: false,
            protected: false,
            created_at: now() - TimeDelta::days(days_old),
            expires_at: None,
        }
    }

    /// Production, staging as a child of today's backup, and a verified backup for each of the last days.
    fn world(days: i64) -> World {
        let pair = pair();
        let production = pair.production_branch.as_str();
        let mut branches =
            vec![branch(production, "production", None, 400), branch(pair.staging_branch.as_str(), "staging", Some("br-backup-0"), 300)];
        let mut annotations = std::collections::BTreeMap::new();
        for day in 0..days {
            let date = pair.zone.date(now() - TimeDelta::days(day));
            let run = RunId::scheduled(date);
            let id = format!("br-backup-{day}");
            branches.push(branch(&id, &format!("backup-{run}"), Some(production), day));
            let value = [("firstlight".to_owned(), "hub".to_owned()), ("run".to_owned(), run.to_string())].into();
            annotations.insert(BranchId::from(id.as_str()), Annotation { value });
        }
        let verified = branches.iter().map(|branch| branch.name.clone()).collect();
        World { branches: BranchList { branches, annotations }, verified }
    }

    fn planned(world: &World) -> PrunePlan {
        let inventory = Inventory { branches: &world.branches, endpoints: &[], verified: &world.verified };
        plan(&inventory, &pair(), &RunId::decode("20261121").expect("a date"), now())
    }

    fn deleted(world: &World) -> Vec<String> {
        planned(world).delete.into_iter().map(|(_, name, _)| name).collect()
    }

    #[test]
    fn the_newest_verified_backups_stay_and_older_ones_go() {
        assert_eq!(deleted(&world(4)), ["backup-20261119", "backup-20261118"]);
    }

    #[test]
    fn an_unverified_backup_neither_goes_nor_displaces_a_good_one() {
        let mut world = world(4);
        world.verified.retain(|name| name.as_str() != "backup-20261120");
        assert_eq!(deleted(&world), ["backup-20261118"]);
    }

    #[test]
    fn a_backup_without_our_annotation_is_foreign() {
        let mut world = world(4);
        world.branches.annotations.remove(&BranchId::from("br-backup-3"));
        assert_eq!(deleted(&world), ["backup-20261119"]);
        assert!(planned(&world).kept.iter().any(|(name, why)| name == "backup-20261118" && why.starts_with("foreign")));
    }

    #[test]
    fn a_backup_with_a_child_that_stays_is_kept_and_the_child_named() {
        let mut world = world(4);
        world.branches.branches.push(branch("br-inspect", "inspect", Some("br-backup-3"), 1));
        assert_eq!(deleted(&world), ["backup-20261119"]);
        let plan = planned(&world);
        let (_, why) = plan.kept.iter().find(|(name, _)| name == "backup-20261118").expect("kept");
        assert!(why.contains("inspect"), "{why}");
    }

    #[test]
    fn a_displaced_branch_goes_before_the_backup_it_pins() {
        let mut world = world(4);
        world.branches.branches.push(branch("br-displaced-2", "staging-of-20261119", Some("br-backup-2"), 2));
        world.branches.branches.push(branch("br-displaced-1", "staging-of-20261120", Some("br-backup-1"), 1));
        assert_eq!(deleted(&world), ["staging-of-20261119", "backup-20261119", "backup-20261118"]);
    }

    #[test]
    fn a_branch_with_a_displaced_name_in_another_place_is_foreign() {
        let mut world = world(2);
        world.branches.branches.push(branch("br-other", "staging-of-20261119", Some("br-backup-1"), 9));
        world.branches.branches.push(branch("br-newer", "staging-of-20261120", Some("br-backup-1"), 8));
        assert!(deleted(&world).is_empty());
        assert!(planned(&world).kept.iter().any(|(name, why)| name == "staging-of-20261119" && why.starts_with("foreign")));
    }

    #[test]
    fn a_protected_backup_stays() {
        let mut world = world(4);
        world.branches.branches.iter_mut().filter(|branch| branch.id.as_str() == "br-backup-3").for_each(|branch| branch.protected = true);
        assert_eq!(deleted(&world), ["backup-20261119"]);
    }
}
