//! What is ours, and what of it is in somebody else's hands.

use super::{ENDPOINT_OF_CALL, ENDPOINT_OF_RUN, Records};
use crate::config::Pair;
use crate::id::RunId;
use crate::neon::wire::{Branch, BranchList, Endpoint, Snapshot};
use crate::sync::machine::{backup_name, is_marked, is_our_backup, run_of_backup, run_of_slug, run_of_test, snapshot_slug};
use crate::time::between;

const FOREIGN: &str = "foreign: has a backup's name but was not made by this pair";

/// What a branch is to a pair's retention.
pub(super) enum Standing {
    /// A backup of ours.
    Backup(RunId),
    /// Something that is kept whatever the rules say, and reported.
    Odd(String),
    /// Not our business.
    Other,
}

/// Returns what a branch is.
pub(super) fn standing(pair: &Pair, branches: &BranchList, branch: &Branch) -> Standing {
    if branch.id == pair.production_branch || branch.id == pair.staging_branch || run_of_test(pair, &branch.name).is_some() {
        return Standing::Other;
    }
    if let Some(run) = run_of_backup(pair, &branch.name) {
        if is_marked(pair, branches, branch, &run) {
            return Standing::Backup(run);
        }
        return Standing::Odd(FOREIGN.to_owned());
    }
    let owner = branches.annotation(&branch.id, "firstlight");
    let is_of_production = branch.parent_id.as_ref() == Some(&pair.production_branch);
    if let Some(run) = branches.annotation(&branch.id, "run").filter(|_| owner == Some(pair.name.as_str()) && is_of_production) {
        return Standing::Odd(format!("renamed: was the backup of run {run}"));
    }
    let rest = branch.name.as_str().strip_prefix(pair.backup_prefix.as_str()).and_then(|rest| rest.strip_prefix('-'));
    match rest {
        Some(rest) if owner.is_none() => {
            Standing::Odd(format!("unreadable: {rest:?} is no run; a backup is named by its date or its start"))
        }
        Some(_) | None => Standing::Other,
    }
}

/// Returns what a snapshot is.
pub(super) fn standing_of_snapshot(pair: &Pair, branches: &BranchList, records: &Records, snapshot: &Snapshot) -> Standing {
    let is_of_production = snapshot.source_branch_id.as_ref() == Some(&pair.production_branch);
    if !is_of_production || snapshot.manual == Some(false) {
        return Standing::Other;
    }
    let named = run_of_backup(pair, &snapshot.name);
    if let Some(run) = snapshot.slug.as_deref().and_then(|slug| run_of_slug(pair, slug)) {
        let is_renamed = named.as_ref() != Some(&run);
        return if is_renamed { Standing::Odd(format!("renamed: was the snapshot of run {run}")) } else { Standing::Backup(run) };
    }
    match named {
        Some(run) if is_our_snapshot(pair, branches, records, snapshot, &run) => Standing::Backup(run),
        Some(_) => Standing::Odd(FOREIGN.to_owned()),
        None => Standing::Other,
    }
}

/// Returns whether a snapshot is that of a run's backup: its slug, its recorded id or its position agrees with its name.
pub fn is_our_snapshot(pair: &Pair, branches: &BranchList, records: &Records, snapshot: &Snapshot, run: &RunId) -> bool {
    let is_named = snapshot.name == backup_name(pair, run);
    let is_of_production = snapshot.source_branch_id.as_ref() == Some(&pair.production_branch);
    let has_slug = snapshot.slug.is_some() && snapshot.slug == snapshot_slug(pair, run);
    let record = records.snapshots.get(run);
    let is_recorded = record.is_some_and(|record| match &record.id {
        Some(id) => *id == snapshot.id,
        None => record.lsn.is_some() && record.lsn == snapshot.lsn,
    });
    let backup = branches.by_name(&snapshot.name).filter(|branch| is_our_backup(pair, branches, branch));
    let is_at_backup = snapshot.lsn.is_some() && backup.is_some_and(|backup| backup.parent_lsn == snapshot.lsn);
    is_named && is_of_production && snapshot.manual != Some(false) && (has_slug || is_recorded || is_at_backup)
}

/// Returns whether the name of a displaced branch agrees with its place in the tree: it keeps the parent that staging had.
pub(super) fn is_our_displaced(branches: &BranchList, pair: &Pair, stem: &str, branch: &Branch) -> bool {
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

/// Returns whether an endpoint of a backup was made with it, or by the run that made it.
pub(super) fn is_our_endpoint(branch: &Branch, endpoint: &Endpoint) -> bool {
    between(branch.created_at, endpoint.created_at) < if endpoint.is_read_write() { ENDPOINT_OF_CALL } else { ENDPOINT_OF_RUN }
}
