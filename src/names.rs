//! What Firstlight's branches are called, and how it knows them again: names are the locks.
//!
//! Invariants: every name that is asked for fits into what Neon takes. Those that begin with
//! `backup_prefix` are held against it by `config.rs`, those that begin with staging's name by
//! `too_long_to_keep` in preflight: a name that Neon refuses is found before anything is made.

use crate::config::Pair;
use crate::id::{BranchId, BranchName, LONGEST_NAME, Lsn, RunId};
use crate::neon::wire::{Annotation, Branch, BranchList};
use crate::ordered;

/// How the names of branches begin that are made from a snapshot to compare it.
pub const RESTORE_TEST: &str = "restore-test-";

/// Returns the name of a run's backup.
pub fn backup_name(pair: &Pair, run: &RunId) -> BranchName {
    format!("{}-{run}", pair.backup_prefix).as_str().into()
}

/// Returns the run in the name of a backup; `None` when the name is not one that this pair gives.
pub fn run_of_backup(pair: &Pair, name: &BranchName) -> Option<RunId> {
    let rest = name.as_str().strip_prefix(pair.backup_prefix.as_str())?.strip_prefix('-')?;
    RunId::decode(rest)
}

/// Returns the slug of a run's snapshot, which nobody gives by chance; `None` where it would be
/// longer than Neon takes.
///
/// Source: `@neon/sdk` 6.1.2: `^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`.
pub fn snapshot_slug(pair: &Pair, run: &RunId) -> Option<String> {
    const MOST: usize = 63;
    Some(format!("{}{}", slug_stem(pair), run.as_str().to_ascii_lowercase()))
        .filter(|slug| slug.len() <= MOST)
}

/// Returns the run in a slug of this pair's.
pub fn run_of_slug(pair: &Pair, slug: &str) -> Option<RunId> {
    RunId::decode(&slug.strip_prefix(&slug_stem(pair))?.to_ascii_uppercase())
}

fn slug_stem(pair: &Pair) -> String {
    format!("firstlight-{}-", pair.name)
}

/// Returns the name of the branch that is made from a run's snapshot to compare it.
pub(crate) fn test_name(pair: &Pair, run: &RunId) -> BranchName {
    format!("{RESTORE_TEST}{}", backup_name(pair, run)).as_str().into()
}

/// Returns the run in the name of such a branch.
pub fn run_of_test(pair: &Pair, name: &BranchName) -> Option<RunId> {
    run_of_backup(pair, &name.as_str().strip_prefix(RESTORE_TEST)?.into())
}

/// Returns whether a branch with a backup's name is a backup of ours: annotation and parent agree
/// with the name.
pub fn is_our_backup(pair: &Pair, branches: &BranchList, branch: &Branch) -> bool {
    run_of_backup(pair, &branch.name).is_some_and(|run| is_marked(pair, branches, branch, &run))
}

/// Returns the runs before a run whose backups are there, newest first, at most ten.
pub(crate) fn earlier_runs(pair: &Pair, branches: &BranchList, run: &RunId) -> Vec<RunId> {
    const MOST: usize = 10;
    let mut ours: Vec<&Branch> =
        branches.branches.iter().filter(|branch| is_our_backup(pair, branches, branch)).collect();
    ordered::sort_by_key(&mut ours, |branch| std::cmp::Reverse(branch.created_at));
    ours.into_iter()
        .filter_map(|branch| run_of_backup(pair, &branch.name))
        .filter(|other| other != run)
        .take(MOST)
        .collect()
}

/// Returns a branch that somebody has renamed although it is the backup of this run: its annotation
/// says so.
pub(crate) fn renamed_backup<'a>(
    pair: &Pair,
    branches: &'a BranchList,
    run: &RunId,
) -> Option<&'a Branch> {
    let marked = branches.branches.iter().find(|branch| is_marked(pair, branches, branch, run));
    marked.filter(|branch| branch.name != backup_name(pair, run))
}

/// Returns whether a branch of production is marked as the backup of a run.
pub fn is_marked(pair: &Pair, branches: &BranchList, branch: &Branch, run: &RunId) -> bool {
    let written = |annotation: &Annotation| {
        let is =
            |key: &str, value: &str| annotation.value.get(key).is_some_and(|found| found == value);
        is("firstlight", pair.name.as_str()) && is("run", run.as_str())
    };
    branch.parent_id.as_ref() == Some(&pair.production_branch)
        && branches.annotations.get(&branch.id).is_some_and(written)
}

/// Returns the first part of the name under which staging's present state would be kept.
///
/// It is derived from the state that is displaced: `<staging>-of-<run>` when staging is a child of
/// a backup of ours, else `<staging>-of-<tail of the parent's id>-<position>`. Whoever saw the same
/// state therefore asks for the same name. Staging has the name that preflight saw: a run whose
/// restore may still arrive must not ask under another when somebody has renamed staging since.
pub(crate) fn displaced_stem(
    pair: &Pair,
    branches: &BranchList,
    staging: &Branch,
    staging_name: &BranchName,
) -> String {
    let parent = staging.parent_id.as_ref().and_then(|id| branches.by_id(id));
    let run = parent
        .filter(|parent| is_our_backup(pair, branches, parent))
        .and_then(|parent| run_of_backup(pair, &parent.name));
    if let Some(run) = run {
        format!("{staging_name}-of-{run}")
    } else {
        let tail = staging.parent_id.as_ref().map_or("root", BranchId::tail);
        format!("{staging_name}-of-{tail}-{}", lsn_in_name(staging.parent_lsn))
    }
}

/// Returns why what staging holds could not be kept: the name under which it would be is longer
/// than Neon takes.
///
/// The longest is `<staging>-of-<tail of an id>-FFFFFFFF-FFFFFFFF-5000`, where that many names are
/// taken: a project has at most 5,000 branches. A run in the place of tail and position is shorter.
pub(crate) fn too_long_to_keep(staging: &Branch) -> Option<String> {
    let tail = staging.parent_id.as_ref().map_or("root", BranchId::tail).len().max(NEONS_TAIL);
    let most = LONGEST_NAME
        .saturating_sub("-of-".len() + tail + "-FFFFFFFF-FFFFFFFF".len() + "-5000".len());
    let length = staging.name.as_str().chars().count();
    (length > most).then(|| {
        format!(
            "staging_branch: the name of {} has {length} characters; allowed are up to {most}, \
             because what it holds is kept as <name>-of-… and Neon takes names of {LONGEST_NAME}; \
             rename the branch in Neon",
            staging.id
        )
    })
}

/// Characters of the last part of Neon's ids. Observed: 2025-01-16, `br-noisy-breeze-a5e59rrb`.
const NEONS_TAIL: usize = 8;

/// Writes a position without the slash, which a path would not survive.
fn lsn_in_name(lsn: Option<Lsn>) -> String {
    lsn.map_or_else(|| "0".to_owned(), |lsn| lsn.to_string().replace('/', "-"))
}

/// Returns the first free name of `stem`, `stem-2`, `stem-3`, ….
pub(crate) fn free_name(branches: &BranchList, stem: &str) -> BranchName {
    let mut name = BranchName::from(stem);
    let mut number = 2_u32;
    while branches.by_name(&name).is_some() {
        name = format!("{stem}-{number}").as_str().into();
        number += 1;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{branch, pair};

    /// One branch, with what is written on it.
    fn list(branch: &Branch, pair: &str, run: &str) -> BranchList {
        let value =
            [("firstlight".to_owned(), pair.to_owned()), ("run".to_owned(), run.to_owned())].into();
        BranchList {
            branches: vec![branch.clone()],
            annotations: [(branch.id.clone(), Annotation { value })].into(),
        }
    }

    fn run() -> RunId {
        RunId::decode("20261121").expect("a date")
    }

    #[test]
    fn a_backup_is_ours_when_name_pair_run_and_parent_all_agree() {
        let (pair, somewhere) = (pair(), BranchId::from("br-else-where-1"));
        let backup = branch("br-a", "backup-20261121", &pair.production_branch);
        let is_ours = |branch: &Branch, of: &str, run: &str| {
            is_our_backup(&pair, &list(branch, of, run), branch)
        };
        assert!(is_ours(&backup, "hub", "20261121"));
        assert!(!is_ours(&backup, "other", "20261121"));
        assert!(!is_ours(&backup, "hub", "20261120"));
        assert!(!is_ours(&branch("br-a", "backup-20261121", &somewhere), "hub", "20261121"));
        assert!(!is_ours(
            &branch("br-a", "backup-of-mine", &pair.production_branch),
            "hub",
            "20261121"
        ));
        assert!(!is_our_backup(&pair, &BranchList::default(), &backup));
    }

    #[test]
    fn a_renamed_backup_is_found_by_what_is_written_on_it_and_one_with_its_name_is_not_renamed() {
        let (pair, somewhere) = (pair(), BranchId::from("br-else-where-1"));
        let renamed = branch("br-a", "keep-me", &pair.production_branch);
        let found = |branch: &Branch, of: &str, at: &str| {
            renamed_backup(&pair, &list(branch, of, at), &run()).is_some()
        };
        assert!(found(&renamed, "hub", "20261121"));
        assert!(!found(&renamed, "other", "20261121"));
        assert!(!found(&renamed, "hub", "20261120"));
        assert!(!found(&branch("br-a", "keep-me", &somewhere), "hub", "20261121"));
        assert!(!found(
            &branch("br-a", "backup-20261121", &pair.production_branch),
            "hub",
            "20261121"
        ));
    }

    #[test]
    fn what_staging_held_is_named_after_the_backup_it_came_from_or_after_its_parent_and_position() {
        let pair = pair();
        let backup = branch("br-a", "backup-20261120", &pair.production_branch);
        let staging = branch("br-s", "staging", &backup.id);
        let name = BranchName::from("staging");
        let stem = |branches: &BranchList, staging: &Branch| {
            displaced_stem(&pair, branches, staging, &name)
        };
        assert_eq!(stem(&list(&backup, "hub", "20261120"), &staging), "staging-of-20261120");
        assert_eq!(
            stem(&list(&backup, "other", "20261120"), &staging),
            "staging-of-a-1-ABC",
            "somebody else's backup"
        );
        let odd = Branch { parent_id: Some("br-calm-river-a5x0q1zz".into()), ..staging.clone() };
        assert_eq!(stem(&BranchList::default(), &odd), "staging-of-a5x0q1zz-1-ABC");
        let young = Branch { parent_id: None, parent_lsn: None, ..staging };
        assert_eq!(stem(&BranchList::default(), &young), "staging-of-root-0");
    }

    #[test]
    fn the_longest_name_of_what_staging_held_is_one_that_neon_takes() {
        let pair = pair();
        let named = |length: usize, parent: &str| {
            let mut staging = branch("br-s", &"ß".repeat(length), &parent.into());
            staging.parent_lsn = Some(Lsn(u64::MAX));
            staging
        };
        for (parent, most) in
            [("br-calm-river-a5x0q1zz", 221), ("br-a-b-c", 221), ("br-calm-river-a5x0q1zz99", 219)]
        {
            let longest = named(most, parent);
            assert_eq!(too_long_to_keep(&longest), None, "{parent}");
            assert!(
                too_long_to_keep(&named(most + 1, parent))
                    .is_some_and(|text| text.contains(&format!("up to {most},"))),
                "{parent}"
            );
            let stems = [
                displaced_stem(&pair, &BranchList::default(), &longest, &longest.name),
                format!("{}-of-20261121T143000Z", longest.name),
            ];
            assert!(
                stems.iter().all(|stem| format!("{stem}-5000").chars().count() <= LONGEST_NAME),
                "{stems:?}"
            );
        }
    }

    #[test]
    fn a_snapshot_and_its_restore_test_name_their_run() {
        let (pair, manual) = (pair(), RunId::decode("20261121T143000Z").expect("an instant"));
        let slug = snapshot_slug(&pair, &manual).expect("it is short");
        assert_eq!(
            (slug.as_str(), run_of_slug(&pair, &slug)),
            ("firstlight-hub-20261121t143000z", Some(manual.clone()))
        );
        assert_eq!(run_of_slug(&pair, "firstlight-other-20261121"), None);
        let long = Pair { name: "a-name-of-as-many-letters-as-is-possible".into(), ..pair.clone() };
        assert_eq!(
            (snapshot_slug(&long, &manual), snapshot_slug(&long, &run()).map(|slug| slug.len())),
            (None, Some(60))
        );
        assert_eq!(test_name(&pair, &manual).as_str(), "restore-test-backup-20261121T143000Z");
        assert_eq!(run_of_test(&pair, &test_name(&pair, &manual)), Some(manual));
        assert_eq!(run_of_test(&pair, &"backup-20261121".into()), None);
    }

    #[test]
    fn the_first_free_name_is_taken() {
        let pair = pair();
        let of = |names: &[&str]| BranchList {
            branches: names
                .iter()
                .map(|name| branch(name, name, &pair.production_branch))
                .collect(),
            ..BranchList::default()
        };
        let free = |names: &[&str]| free_name(&of(names), "x").to_string();
        assert_eq!(
            [free(&[]), free(&["x"]), free(&["x", "x-2", "x-3"]), free(&["x", "x-3"])],
            ["x", "x-2", "x-4", "x-2"]
        );
    }
}
