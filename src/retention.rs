//! Decides what is deleted.
//!
//! In: every branch and endpoint, what is on record of backups, the keep rules, `now`. Out: a
//! [`PrunePlan`] that gives everything of ours a reason to stay or to go.
//!
//! Invariants: only what is ours by name *and* by annotation, record or place in the tree ever
//! goes. The newest `keep_at_least` verified backups never do. Only verified backups count towards
//! a rule. A backup of which nothing is on record, because the store lost it, is treated as if it
//! were verified where that keeps it, and as if it were not where that keeps another. Children go
//! before their parents. After its verdict a run deletes what no rule keeps and is older than 24
//! hours. Before its backup it deletes more where it finds no room, in the order that `room`
//! states.
//!
//! Nothing here deletes; `sync::machine` turns the plan into calls.

mod backups;
mod forecast;
mod judge;
mod limits;
mod order;
mod ours;
mod price;
mod room;
mod rules;

use crate::ordered::{self, IntoOrdered as _};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use self::forecast::{After, Forecast, Room, always_has_room, forecast};
use self::judge::{Judge, Judged};
pub use self::limits::limits;
use self::order::Tree;
pub use self::ours::{is_our_snapshot, marked_run};
pub use self::price::{Storage, size_of_production, storage};
use self::room::Firm;
pub use self::room::{Hold, shortage};
use crate::config::{KeepRules, Pair};
use crate::id::{BranchId, BranchName, EndpointId, Lsn, RunId, SnapshotId};
use crate::names::{RESTORE_TEST, is_our_backup, run_of_backup, run_of_slug};
use crate::neon::wire::{Branch, BranchList, Endpoint, Snapshot};
use crate::time::Timestamp;

/// Nothing of a run younger than this is deleted, unless a run finds no room.
///
/// A day leaves time to look at what staging held before a run that somebody has started again. It
/// is a day by Neon's clock: to people a few minutes are nothing, and the next morning's run needs
/// the place.
const YOUNG: Duration = Duration::from_hours(24);

/// An endpoint that was made this soon after its backup was made in the same call, where nothing is
/// remembered of what its run has made.
///
/// Neon writes both times with seconds, one after the other. An endpoint that was made later may be
/// somebody's.
const ENDPOINT_OF_CALL: Duration = Duration::from_secs(5);

/// Results that are read because nothing else is on record of a backup. A result is large, and
/// reading it is CPU.
const ENDINGS_READ: usize = 10;

/// The time for which records of a backup that is gone are kept.
const FORGOTTEN_AFTER_DAYS: i64 = 7;

/// Records of backups that are gone which a run removes: each is a write, and more than one a day
/// is made only by many manual runs.
const FORGOTTEN_AT_ONCE: usize = 3;

/// What there is.
pub struct Inventory<'a> {
    /// Every branch of the project.
    pub branches: &'a BranchList,
    /// Every endpoint of the project.
    pub endpoints: &'a [Endpoint],
    /// Every snapshot of the project; none where no rule keeps any.
    pub snapshots: &'a [Snapshot],
    /// What is on record.
    pub records: &'a Records,
}

/// What is on record of a pair's backups, by their runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// What is known of them; nothing of one whose record is lost.
    pub known: BTreeMap<RunId, Known>,
    /// Those that somebody wants kept.
    pub pins: BTreeMap<RunId, Pin>,
    /// What is known of their snapshots.
    pub snapshots: BTreeMap<RunId, SnapshotRecord>,
    /// Manual runs of which it is not known that they have ended.
    pub unfinished: BTreeSet<RunId>,
    /// The endpoints that runs have made on their backups; nothing of a run of which that is not
    /// known.
    pub endpoints: BTreeMap<RunId, BTreeSet<EndpointId>>,
    /// Names that staging had.
    pub staging_names: Vec<BranchName>,
}

/// What is on record of a backup's snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// Its id; `None` where it may not have been taken.
    pub id: Option<SnapshotId>,
    /// Its position in production.
    pub lsn: Option<Lsn>,
    /// When the backup was made, by Neon's clock.
    pub made_at: Timestamp,
    /// Whether it was restored and compared.
    pub known: Known,
}

/// What is known of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It was read without objection.
    Verified,
    /// Its run ended without that.
    Unverified,
}

/// Somebody wants a backup kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Why.
    pub reason: String,
    /// Until when; `None` until it is released.
    pub until: Option<Timestamp>,
}

/// What an entry of a plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A backup, and what is known of it.
    Backup(Option<Known>),
    /// What staging held before a restore.
    Displaced,
    /// A snapshot of a backup, and what is known of it.
    Snapshot(Option<Known>),
    /// A branch that tables were compared on.
    Check,
    /// A branch that was made from a snapshot to compare it.
    RestoreTest,
    /// An endpoint of a backup.
    Endpoint,
    /// A branch of a pair that is not configured any more.
    Orphan,
}

impl Kind {
    /// Returns whether it takes the place of a branch.
    pub fn is_branch(self) -> bool {
        match self {
            Self::Backup(_) | Self::Displaced | Self::Check | Self::RestoreTest | Self::Orphan => {
                true
            }
            Self::Snapshot(_) | Self::Endpoint => false,
        }
    }
}

/// Something of ours, or with a name like ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its id in Neon.
    pub id: String,
    /// Its name; an endpoint's id.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether it stays.
    pub is_kept: bool,
    /// Why it stays, or goes.
    pub reasons: Vec<String>,
}

/// What will be deleted, and what is kept, each with its reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrunePlan {
    /// Everything, the branches as Neon lists them.
    pub entries: Vec<Entry>,
    /// The branches that go, in the order of deletion: places in `entries`.
    pub order: Vec<usize>,
    /// The branches that may go where a run finds no room, the first to go first, with what holds
    /// each: places in `entries`.
    pub room: Vec<(usize, Hold)>,
    /// The others, with what holds each.
    pub firm: Vec<(usize, Firm)>,
    /// Whether the backup of the run that asks is to be kept by a snapshot, and there is none yet.
    pub wants_snapshot: bool,
}

impl PrunePlan {
    /// Returns the endpoints that go.
    pub fn endpoints(&self) -> impl Iterator<Item = EndpointId> {
        self.entries
            .iter()
            .filter(|entry| entry.kind == Kind::Endpoint && !entry.is_kept)
            .map(|entry| entry.id.as_str().into())
    }

    /// Returns the branches that go, in the order of deletion.
    pub fn branches(&self) -> impl Iterator<Item = &Entry> {
        self.order.iter().filter_map(|index| self.entries.get(*index))
    }

    /// Returns the branches that may go where a run finds no room, the first to go first, with what
    /// holds each. No more of them go than it needs.
    pub fn branches_for_room(&self) -> impl Iterator<Item = (&Entry, Hold)> {
        self.room.iter().filter_map(|(index, hold)| Some((self.entries.get(*index)?, *hold)))
    }

    /// Returns the snapshots that go, newest first.
    pub fn snapshots(&self) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(|entry| matches!(entry.kind, Kind::Snapshot(_)) && !entry.is_kept)
    }

    /// Returns the branches and snapshots that stay, with the reasons.
    pub fn kept(&self) -> Vec<(String, String)> {
        let kept =
            self.entries.iter().filter(|entry| entry.is_kept && entry.kind != Kind::Endpoint);
        kept.map(|entry| (entry.name.clone(), entry.reasons.join("; "))).collect()
    }
}

/// Returns the oldest runs of whose backups nothing is on record.
pub fn unknown(pair: &Pair, branches: &BranchList, records: &Records) -> Vec<RunId> {
    let ours = branches.branches.iter().filter(|branch| is_our_backup(pair, branches, branch));
    let mut unknown: Vec<RunId> = ours
        .filter_map(|branch| run_of_backup(pair, &branch.name))
        .filter(|run| !records.known.contains_key(run))
        .collect();
    ordered::sort_by(&mut unknown, Ord::cmp);
    unknown.truncate(ENDINGS_READ);
    unknown
}

/// Returns runs of which something is on record and nothing is left in Neon, the oldest first.
/// Young ones stay: a listing may be older than they are.
pub fn forgotten(inventory: &Inventory<'_>, pair: &Pair, now: Timestamp) -> Vec<RunId> {
    let records = inventory.records;
    let today = pair.zone.date(now);
    let (branches, snapshots) = (inventory.branches, inventory.snapshots);
    let names = branches
        .branches
        .iter()
        .map(|branch| &branch.name)
        .chain(snapshots.iter().map(|snapshot| &snapshot.name));
    let by_name = names.filter_map(|name| run_of_backup(pair, name));
    // What somebody has renamed is there, and so is what was made under another prefix: it keeps
    // its pin.
    let marked = branches.branches.iter().filter_map(|branch| marked_run(pair, branches, branch));
    let slugs =
        snapshots.iter().filter_map(|snapshot| run_of_slug(pair, snapshot.slug.as_deref()?));
    let is_there = |record: &SnapshotRecord| {
        record.id.as_ref().is_some_and(|id| snapshots.iter().any(|snapshot| snapshot.id == *id))
    };
    let recorded =
        records.snapshots.iter().filter(|(_, record)| is_there(record)).map(|(run, _)| run.clone());
    let present: BTreeSet<RunId> = by_name.chain(marked).chain(slugs).chain(recorded).into_set();
    let on_record: BTreeSet<&RunId> =
        records.known.keys().chain(records.pins.keys()).chain(records.snapshots.keys()).into_set();
    let is_old = |run: &RunId| (today - run.date()).num_days() > FORGOTTEN_AFTER_DAYS;
    on_record
        .into_iter()
        .filter(|run| !present.contains(*run) && is_old(run))
        .take(FORGOTTEN_AT_ONCE)
        .cloned()
        .collect()
}

/// Makes the plan. `run` is the run that asks, whose check branches and endpoints are not needed
/// any more.
pub fn plan(
    inventory: &Inventory<'_>,
    pair: &Pair,
    rules: &KeepRules,
    run: Option<&RunId>,
    now: Timestamp,
) -> PrunePlan {
    let mut judge = Judge {
        inventory,
        pair,
        rules,
        run,
        now,
        judged: Vec::new(),
        snapshots: Vec::new(),
        wants_snapshot: false,
        endpoints: BTreeMap::new(),
        backups: BTreeMap::new(),
    };
    for endpoint in inventory.endpoints {
        judge.endpoints.entry(&endpoint.branch_id).or_default().push(endpoint);
    }
    judge.backups();
    judge.displaced();
    judge.checks();
    judge.restore_tests();
    judge.keep_what_others_need();
    let tree = Tree::new(&inventory.branches.branches);
    let mut judged_at = vec![None; inventory.branches.branches.len()];
    let mut holds: Vec<Option<Hold>> = vec![None; inventory.branches.branches.len()];
    for (index, judged) in judge.judged.iter().enumerate() {
        // A branch that is two things by its name goes only where both say so.
        let is_new = judged_at[judged.place].replace(index).is_none();
        let hold = judged.hold.ok();
        holds[judged.place] = if is_new {
            hold
        } else {
            holds[judged.place].zip(hold).map(|(first, second)| first.max(second))
        };
    }
    let room = tree
        .give_way(&holds)
        .into_iter()
        .filter_map(|place| Some((judged_at[place]?, holds[place]?)))
        .collect();
    let mut goes: Vec<bool> = holds.iter().map(|hold| *hold == Some(Hold::Nothing)).collect();
    for (place, child) in tree.drop_pinned(&mut goes) {
        let child = &inventory.branches.branches[child].name;
        if let Some(judged) = judged_at[place].and_then(|index| judge.judged.get_mut(index)) {
            judged
                .reasons
                .push(format!("has the child {child}, and Neon deletes no branch with children"));
        }
    }
    let order: Vec<usize> =
        tree.children_first(&goes).into_iter().filter_map(|place| judged_at[place]).collect();
    let firm = judge
        .judged
        .iter()
        .enumerate()
        .filter_map(|(index, judged)| Some((index, judged.hold.err()?)))
        .collect();
    let mut entries: Vec<Entry> = judge.judged.iter().map(Judged::entry).collect();
    entries.extend(judge.endpoints());
    entries.append(&mut judge.snapshots);
    entries.extend(orphans(pair, inventory.branches).map(|(branch, of)| Entry {
        kind: Kind::Orphan,
        id: branch.id.to_string(),
        name: branch.name.to_string(),
        created_at: branch.created_at,
        is_kept: true,
        reasons: vec![format!(
            "{of}; its pair is not configured any more: delete it by hand when nobody needs it{}",
            served(inventory.endpoints, branch)
        )],
    }));
    PrunePlan { entries, order, room, firm, wants_snapshot: judge.wants_snapshot }
}

/// Tells how many endpoints a branch has, as far as they were listed.
fn served(endpoints: &[Endpoint], branch: &Branch) -> String {
    match endpoints.iter().filter(|endpoint| endpoint.branch_id == branch.id).count() {
        0 => String::new(),
        count => format!(" (it has {count} endpoints)"),
    }
}

/// Returns what pairs that are not configured any more have left, each with what it is: branches
/// that they marked, what their staging held before, and branches that were made to compare a
/// snapshot of theirs.
pub fn orphans<'a>(
    pair: &'a Pair,
    branches: &'a BranchList,
) -> impl Iterator<Item = (&'a Branch, String)> {
    let is_configured = |of: &str| pair.configured.keys().any(|name| name.as_str() == of);
    let marked = |branch: &Branch| {
        branches.annotation(&branch.id, "firstlight").filter(|of| !is_configured(of))
    };
    let left: BTreeMap<&BranchId, (&str, &str)> = branches
        .branches
        .iter()
        .filter_map(|branch| {
            Some((
                &branch.id,
                (marked(branch)?, branches.annotation(&branch.id, "run").unwrap_or_default()),
            ))
        })
        .into_map();
    branches.branches.iter().filter_map(move |branch| {
        if let Some((of, _)) = left.get(&branch.id) {
            return Some((branch, format!("of pair {of}")));
        }
        let parent = branch.parent_id.as_ref().and_then(|parent| left.get(parent));
        // Staging itself may be a child of such a backup; what it held before is named after it.
        if let Some((of, run)) = parent.filter(|(_, run)| {
            !run.is_empty() && branch.name.as_str().contains(&format!("-of-{run}"))
        }) {
            return Some((
                branch,
                format!("what staging of pair {of} held before run {run} was displaced"),
            ));
        }
        let of = branch
            .name
            .as_str()
            .strip_prefix(RESTORE_TEST)
            .filter(|_| branch.restored_from.is_some())?;
        let is_known = pair.configured.values().any(|prefix| {
            of.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('-'))
        });
        (!is_known).then(|| (branch, "made to compare a snapshot".to_owned()))
    })
}

#[cfg(test)]
mod tests;
