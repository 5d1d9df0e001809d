//! What is ours, and what of it is in somebody else's hands.

use std::collections::BTreeSet;

use super::{ENDPOINT_OF_CALL, Records};
use crate::config::Pair;
use crate::id::{EndpointId, RunId};
use crate::names::{
    backup_name, is_marked, is_our_backup, run_of_backup, run_of_slug, run_of_test, snapshot_slug,
};
use crate::neon::wire::{Branch, BranchList, Endpoint, Snapshot};
use crate::time::between;

const FOREIGN: &str = "foreign: has a backup's name but was not made by this pair";

/// What a branch is to a pair's retention.
pub(super) enum Standing {
    /// A backup of ours.
    Backup(RunId),
    /// Something of ours under a name that is not ours any more: kept whatever the rules say, and
    /// reported with its pin.
    Renamed(RunId, String),
    /// Something that is kept whatever the rules say, and reported.
    Odd(String),
    /// Not our business.
    Other,
}

/// Returns what a branch is.
pub(super) fn standing(pair: &Pair, branches: &BranchList, branch: &Branch) -> Standing {
    if branch.id == pair.production_branch
        || branch.id == pair.staging_branch
        || run_of_test(pair, &branch.name).is_some()
    {
        return Standing::Other;
    }
    let named = run_of_backup(pair, &branch.name);
    match (marked_run(pair, branches, branch), &named) {
        (Some(run), Some(named)) if run == *named => return Standing::Backup(run),
        (Some(run), _) => {
            let reason = format!("renamed: was the backup of run {run}");
            return Standing::Renamed(run, reason);
        }
        (None, Some(_)) => return Standing::Odd(FOREIGN.to_owned()),
        (None, None) => {}
    }
    let owner = branches.annotation(&branch.id, "firstlight");
    let rest = branch
        .name
        .as_str()
        .strip_prefix(pair.backup_prefix.as_str())
        .and_then(|rest| rest.strip_prefix('-'));
    match rest {
        Some(rest) if owner.is_none() => Standing::Odd(format!(
            "unreadable: {rest:?} is no run; a backup is named by its date or its start"
        )),
        Some(_) | None => Standing::Other,
    }
}

/// Returns the run whose backup a branch of production is by what is written on it, whatever it is
/// called.
pub fn marked_run(pair: &Pair, branches: &BranchList, branch: &Branch) -> Option<RunId> {
    let run = branches.annotation(&branch.id, "run").and_then(RunId::decode)?;
    is_marked(pair, branches, branch, &run).then_some(run)
}

/// Returns what a snapshot is.
pub(super) fn standing_of_snapshot(
    pair: &Pair,
    branches: &BranchList,
    records: &Records,
    snapshot: &Snapshot,
) -> Standing {
    let is_of_production = snapshot.source_branch_id.as_ref() == Some(&pair.production_branch);
    if !is_of_production || snapshot.manual == Some(false) {
        return Standing::Other;
    }
    let named = run_of_backup(pair, &snapshot.name);
    if let Some(run) = snapshot.slug.as_deref().and_then(|slug| run_of_slug(pair, slug)) {
        let is_renamed = named.as_ref() != Some(&run);
        let reason = format!("renamed: was the snapshot of run {run}");
        return if is_renamed { Standing::Renamed(run, reason) } else { Standing::Backup(run) };
    }
    match named {
        Some(run) if is_our_snapshot(pair, branches, records, snapshot, &run) => {
            Standing::Backup(run)
        }
        Some(_) => Standing::Odd(FOREIGN.to_owned()),
        None => Standing::Other,
    }
}

/// Returns whether a snapshot is that of a run's backup: its slug, its recorded id or its position
/// agrees with its name.
pub fn is_our_snapshot(
    pair: &Pair,
    branches: &BranchList,
    records: &Records,
    snapshot: &Snapshot,
    run: &RunId,
) -> bool {
    let is_named = snapshot.name == backup_name(pair, run);
    let is_of_production = snapshot.source_branch_id.as_ref() == Some(&pair.production_branch);
    let has_slug = snapshot.slug.is_some() && snapshot.slug == snapshot_slug(pair, run);
    let record = records.snapshots.get(run);
    let is_recorded = record.is_some_and(|record| match &record.id {
        Some(id) => *id == snapshot.id,
        None => record.lsn.is_some() && record.lsn == snapshot.lsn,
    });
    let backup =
        branches.by_name(&snapshot.name).filter(|branch| is_our_backup(pair, branches, branch));
    let is_at_backup =
        snapshot.lsn.is_some() && backup.is_some_and(|backup| backup.parent_lsn == snapshot.lsn);
    is_named
        && is_of_production
        && snapshot.manual != Some(false)
        && (has_slug || is_recorded || is_at_backup)
}

/// Returns whether the name of a displaced branch agrees with its place in the tree: it keeps the
/// parent that staging had.
pub(super) fn is_our_displaced(
    branches: &BranchList,
    pair: &Pair,
    stem: &str,
    branch: &Branch,
) -> bool {
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
        let lsn = branch
            .parent_lsn
            .map_or_else(|| "0".to_owned(), |lsn| lsn.to_string().replace('/', "-"));
        expected(&format!("{}-{lsn}", parent.tail()))
    }
}

/// Returns whether a branch has the place and the end of a displaced branch's name, whatever
/// staging was called: somebody may have named their own so.
pub(super) fn is_displaced_of_another(branches: &BranchList, pair: &Pair, branch: &Branch) -> bool {
    let backup = branch
        .parent_id
        .as_ref()
        .and_then(|parent| branches.by_id(parent))
        .filter(|parent| is_our_backup(pair, branches, parent));
    let run = backup.and_then(|backup| run_of_backup(pair, &backup.name));
    let is_other = branch.id != pair.staging_branch && branch.id != pair.production_branch;
    is_other && run.is_some_and(|run| branch.name.as_str().contains(&format!("-of-{run}")))
}

/// Returns whether an endpoint of a backup was made by the run that made it. `made` are those that
/// it has made; `None` where nothing is remembered of it.
pub(super) fn is_our_endpoint(
    branch: &Branch,
    endpoint: &Endpoint,
    made: Option<&BTreeSet<EndpointId>>,
) -> bool {
    made.map_or_else(
        || between(branch.created_at, endpoint.created_at) < ENDPOINT_OF_CALL,
        |made| made.contains(&endpoint.id),
    )
}

#[cfg(test)]
mod tests;
