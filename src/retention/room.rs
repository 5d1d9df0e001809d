//! What gives way to a run that finds no room for its backup, and in which order.
//!
//! A run needs two free branches, and a backup that is not made is worse than an old one that is
//! gone. Where rules, a failed run or runs that people have started leave less, branches give way
//! in this order, one after the other, until there is room, and the run tells the name of each:
//!
//! 1. what no rule keeps;
//! 2. backups that stay branches only while there is no verified snapshot of them;
//! 3. what only its age of less than 24 hours keeps: what staging held before a run, and backups;
//! 4. backups that were not verified;
//! 5. verified backups that a keep rule holds, above `keep_at_least`. One whose record is lost is
//!    taken for one of them, and never counted as one of the newer ones;
//! 6. the newest backup, where it is not known to be verified and no rule holds it.
//!
//! Of each the oldest goes first, and children before their parents.
//!
//! Invariants: never one of the newest `keep_at_least` verified backups. Never the newest
//! `keep_displaced` of what staging held. Never what is pinned, protected, foreign, of this run, or
//! has a child or an endpoint that stays (staging is such a child). Never what was made within the
//! last hour, or since a manual run began of which it is not known that it has ended.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Kind, PrunePlan};
use crate::config::{KeepRules, Pair};
use crate::neon::wire::{BranchList, CLOCKS_APART};
use crate::ordered::{self, IntoOrdered as _};
use crate::time::{Timestamp, after, render};

/// Nothing younger than this gives way: the call that made it, or the next one of its run, may
/// still arrive.
///
/// Source: design §4: "a zombie request is assumed to live an hour at most". By Neon's clock it may
/// look older than it is.
pub(super) const SETTLED: Duration = Duration::from_hours(1).saturating_add(CLOCKS_APART);

/// The time after which a manual run is over, whatever is on record: it is given up after two
/// hours, and its last request may live for one.
pub(super) const UNFINISHED: Duration = Duration::from_hours(3);

/// Names that a reason tells of each kind.
const NAMED: usize = 3;

/// What holds a branch that may give way, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// Nothing: it goes anyway.
    Nothing,
    /// It has no verified snapshot yet.
    Snapshot,
    /// It is younger than 24 hours.
    Day,
    /// It was not verified, and somebody may look into it.
    Inspection,
    /// A keep rule.
    Rule,
    /// It was not verified, and is the newest.
    Newest,
}

/// Why a branch never gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Firm {
    /// `keep_at_least`.
    Floor,
    /// `keep_displaced`.
    Displaced,
    /// Somebody has pinned it.
    Pin,
    /// Neon protects it, or it is the default branch.
    Protected,
    /// It has an endpoint of somebody's.
    Endpoint,
    /// It has a name like ours, and is not.
    Foreign,
    /// It was made within the hour.
    Hour,
    /// A manual run that may not have ended has made it.
    Unfinished,
    /// This run has made it.
    OfRun,
}

impl Firm {
    /// Tells what these branches are, and what to do about them, where that is anything but to
    /// wait.
    fn told(self, rules: &KeepRules) -> (String, Option<&'static str>) {
        let (what, remedy) = match self {
            Self::Floor => {
                return (format!("of keep_at_least = {}", rules.at_least), Some("lower it"));
            }
            Self::Displaced => {
                return (format!("of keep_displaced = {}", rules.displaced), Some("lower it"));
            }
            Self::Pin => ("pinned", Some("release those that nobody needs")),
            Self::Protected => {
                ("protected in Neon, or its default branch", Some("change that there"))
            }
            Self::Endpoint => {
                ("with a compute that somebody has added", Some("delete the compute"))
            }
            Self::Foreign => (
                "with a name like ours that this pair has not given",
                Some("rename or delete them"),
            ),
            Self::Hour => ("made within the hour", None),
            Self::Unfinished => ("made since a manual run began that may not have ended", None),
            Self::OfRun => ("of this run", None),
        };
        (what.to_owned(), remedy)
    }
}

/// Tells what takes the places that a run does not find, by kinds, the largest first, each with
/// what to do about it.
pub fn shortage(
    plan: &PrunePlan,
    pair: &Pair,
    rules: &KeepRules,
    branches: &BranchList,
    now: Timestamp,
) -> String {
    let mut kinds: BTreeMap<(String, Option<&'static str>), Vec<&str>> = BTreeMap::new();
    let firm: BTreeMap<usize, Firm> = plan.firm.iter().copied().into_map();
    let gives_way: BTreeSet<usize> = plan.room.iter().map(|(index, _)| *index).into_set();
    let mut known = BTreeSet::new();
    for (index, entry) in
        plan.entries.iter().enumerate().filter(|(_, entry)| entry.kind.is_branch())
    {
        known.insert(entry.id.as_str());
        let told = match firm.get(&index) {
            Some(firm) => firm.told(rules),
            None if gives_way.contains(&index) => continue,
            None if entry.kind == Kind::Orphan => (
                "of pairs that are not configured any more".to_owned(),
                Some("delete what nobody needs"),
            ),
            None => ("with a child that stays".to_owned(), Some("delete the child first")),
        };
        kinds.entry(told).or_default().push(&entry.name);
    }
    let own = [&pair.production_branch, &pair.staging_branch];
    for branch in branches
        .branches
        .iter()
        .filter(|branch| !own.contains(&&branch.id) && !known.contains(branch.id.as_str()))
    {
        let told = ("not Firstlight's".to_owned(), Some("delete what nobody needs"));
        kinds.entry(told).or_default().push(branch.name.as_str());
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    ordered::sort_by_key(&mut kinds, |(_, names)| Reverse(names.len()));
    let mut parts: Vec<String> =
        kinds.iter().map(|((what, remedy), names)| part(what, *remedy, names)).collect();
    let young = plan
        .firm
        .iter()
        .filter(|(_, firm)| *firm == Firm::Hour)
        .filter_map(|(index, _)| plan.entries.get(*index));
    if let Some(first) =
        young.map(|entry| after(entry.created_at, SETTLED)).filter(|at| *at > now).min()
    {
        parts.push(format!(
            "the first of those that were made within the hour may go at {}: start a run after \
             that",
            render(first)
        ));
    }
    parts.join("; ")
}

/// Tells how many branches something holds, and the names of some.
fn part(what: &str, remedy: Option<&str>, names: &[&str]) -> String {
    let more = if names.len() > NAMED { ", …" } else { "" };
    let shown = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let remedy = remedy.map(|remedy| format!(": {remedy}")).unwrap_or_default();
    format!("{} {what} ({shown}{more}){remedy}", names.len())
}

#[cfg(test)]
mod tests;
