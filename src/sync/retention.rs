//! Decides what is deleted.
//!
//! In: every branch and endpoint, what is on record of backups, the keep rules, `now`. Out: a [`PrunePlan`] that gives everything of
//! ours a reason to stay or to go.
//!
//! Invariants: only what is ours by name *and* by annotation, record or place in the tree ever goes; the newest `keep_at_least` verified backups never do, nor
//! does anything of a run younger than 24 hours; only verified backups count towards a rule; a backup of which nothing is on record, because the store lost it,
//! is treated as if it were verified where that keeps it, and as if it were not where that keeps another; children go before their parents; a backup that only a
//! rule of the snapshot tier keeps stays a branch while there is no verified snapshot of its time, until a run needs the room.
//!
//! Nothing here deletes; `sync::machine` turns the plan into calls.

mod backups;
mod forecast;
mod limits;
mod order;
mod ours;
mod price;
mod rules;

use crate::ordered::{self, IntoOrdered as _};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use self::forecast::{Forecast, Room, always_has_room, forecast};
pub use self::limits::limits;
use self::order::Tree;
pub use self::ours::is_our_snapshot;
use self::ours::{is_our_displaced, is_our_endpoint};
pub use self::price::{Storage, size_of_production, storage};
use crate::config::{KeepRules, Pair};
use crate::id::{BranchId, EndpointId, Lsn, RunId, SnapshotId};
use crate::neon::wire::{Branch, BranchList, Endpoint, Snapshot};
use crate::sync::machine::{RESTORE_TEST, is_our_backup, run_of_backup, run_of_test};
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

/// Results that are read because nothing else is on record of a backup. A result is large, and reading it is CPU.
const ENDINGS_READ: usize = 10;

/// The time for which records of a backup that is gone are kept.
const FORGOTTEN_AFTER_DAYS: i64 = 7;

/// Records of backups that are gone which a run removes: each is a write, and more than one a day is made only by many manual runs.
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
    /// Whether a run needs room: what stays a branch only because it has no snapshot then goes.
    pub is_short: bool,
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
}

/// What is on record of a backup's snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// Its id; `None` where it may not have been taken.
    pub id: Option<SnapshotId>,
    /// Its position in production.
    pub lsn: Option<Lsn>,
    /// When the backup was made.
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
    /// Of those, the ones that go only because a run needs room.
    pub last_resort: BTreeSet<usize>,
    /// Whether the backup of the run that asks is to be kept by a snapshot, and there is none yet.
    pub wants_snapshot: bool,
}

impl PrunePlan {
    /// Returns the endpoints that go.
    pub fn endpoints(&self) -> impl Iterator<Item = EndpointId> {
        self.entries.iter().filter(|entry| entry.kind == Kind::Endpoint && !entry.is_kept).map(|entry| entry.id.as_str().into())
    }

    /// Returns the branches that go, in the order of deletion.
    pub fn branches(&self) -> impl Iterator<Item = &Entry> {
        self.order.iter().filter_map(|index| self.entries.get(*index))
    }

    /// Returns the branches that go, where no more is to go than a run needs room: what goes only for that comes last, the oldest first.
    pub fn branches_for_room(&self) -> impl Iterator<Item = &Entry> {
        let (anyway, last): (Vec<usize>, Vec<usize>) = self.order.iter().partition(|index| !self.last_resort.contains(index));
        anyway.into_iter().chain(last.into_iter().rev()).filter_map(|index| self.entries.get(index))
    }

    /// Returns the snapshots that go, newest first.
    pub fn snapshots(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| matches!(entry.kind, Kind::Snapshot(_)) && !entry.is_kept)
    }

    /// Returns the branches and snapshots that stay, with the reasons.
    pub fn kept(&self) -> Vec<(String, String)> {
        let kept = self.entries.iter().filter(|entry| entry.is_kept && entry.kind != Kind::Endpoint);
        kept.map(|entry| (entry.name.clone(), entry.reasons.join("; "))).collect()
    }
}

/// Returns the oldest runs of whose backups nothing is on record.
pub fn unknown(pair: &Pair, branches: &BranchList, records: &Records) -> Vec<RunId> {
    let ours = branches.branches.iter().filter(|branch| is_our_backup(pair, branches, branch));
    let mut unknown: Vec<RunId> =
        ours.filter_map(|branch| run_of_backup(pair, &branch.name)).filter(|run| !records.known.contains_key(run)).collect();
    ordered::sort_by(&mut unknown, Ord::cmp);
    unknown.truncate(ENDINGS_READ);
    unknown
}

/// Returns runs of which something is on record and nothing is left in Neon, the oldest first. Young ones stay: a listing may be older than they are.
pub fn forgotten(inventory: &Inventory<'_>, pair: &Pair, now: Timestamp) -> Vec<RunId> {
    let records = inventory.records;
    let today = pair.zone.date(now);
    let names =
        inventory.branches.branches.iter().map(|branch| &branch.name).chain(inventory.snapshots.iter().map(|snapshot| &snapshot.name));
    let present: BTreeSet<RunId> = names.filter_map(|name| run_of_backup(pair, name)).into_set();
    let on_record: BTreeSet<&RunId> = records.known.keys().chain(records.pins.keys()).chain(records.snapshots.keys()).into_set();
    let is_old = |run: &RunId| (today - run.date()).num_days() > FORGOTTEN_AFTER_DAYS;
    on_record.into_iter().filter(|run| !present.contains(*run) && is_old(run)).take(FORGOTTEN_AT_ONCE).cloned().collect()
}

/// Makes the plan. `run` is the run that asks, whose check branches and endpoints are not needed any more.
pub fn plan(inventory: &Inventory<'_>, pair: &Pair, rules: &KeepRules, run: Option<&RunId>, now: Timestamp) -> PrunePlan {
    let mut judge = Judge {
        inventory,
        pair,
        rules,
        run,
        now,
        judged: Vec::new(),
        snapshots: Vec::new(),
        wants_snapshot: false,
        waiting: BTreeSet::new(),
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
    let mut goes = vec![false; inventory.branches.branches.len()];
    for (index, judged) in judge.judged.iter().enumerate() {
        // A branch that is two things by its name goes only where both say so.
        let is_new = judged_at[judged.place].replace(index).is_none();
        goes[judged.place] = judged.reasons.is_empty() && (is_new || goes[judged.place]);
    }
    for (place, child) in tree.drop_pinned(&mut goes) {
        let child = &inventory.branches.branches[child].name;
        if let Some(judged) = judged_at[place].and_then(|index| judge.judged.get_mut(index)) {
            judged.reasons.push(format!("has the child {child}, and Neon deletes no branch with children"));
        }
    }
    let order: Vec<usize> = tree.children_first(&goes).into_iter().filter_map(|place| judged_at[place]).collect();
    let last_resort = order.iter().copied().filter(|index| judge.waiting.contains(&judge.judged[*index].place)).into_set();
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
    PrunePlan { entries, order, last_resort, wants_snapshot: judge.wants_snapshot }
}

/// Tells how many endpoints a branch has, as far as they were listed.
fn served(endpoints: &[Endpoint], branch: &Branch) -> String {
    match endpoints.iter().filter(|endpoint| endpoint.branch_id == branch.id).count() {
        0 => String::new(),
        count => format!(" (it has {count} endpoints)"),
    }
}

/// Returns what pairs that are not configured any more have left, each with what it is: branches that they marked, what their staging held before, and
/// branches that were made to compare a snapshot of theirs.
pub fn orphans<'a>(pair: &'a Pair, branches: &'a BranchList) -> impl Iterator<Item = (&'a Branch, String)> {
    let is_configured = |of: &str| pair.configured.keys().any(|name| name.as_str() == of);
    let marked = |branch: &Branch| branches.annotation(&branch.id, "firstlight").filter(|of| !is_configured(of));
    let left: BTreeMap<&BranchId, (&str, &str)> = branches
        .branches
        .iter()
        .filter_map(|branch| Some((&branch.id, (marked(branch)?, branches.annotation(&branch.id, "run").unwrap_or_default()))))
        .into_map();
    branches.branches.iter().filter_map(move |branch| {
        if let Some((of, _)) = left.get(&branch.id) {
            return Some((branch, format!("of pair {of}")));
        }
        let parent = branch.parent_id.as_ref().and_then(|parent| left.get(parent));
        // Staging itself may be a child of such a backup; what it held before is named after it.
        if let Some((of, run)) = parent.filter(|(_, run)| !run.is_empty() && branch.name.as_str().contains(&format!("-of-{run}"))) {
            return Some((branch, format!("what staging of pair {of} held before run {run} was displaced")));
        }
        let of = branch.name.as_str().strip_prefix(RESTORE_TEST).filter(|_| branch.restored_from.is_some())?;
        let is_known = pair.configured.values().any(|prefix| of.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('-')));
        (!is_known).then(|| (branch, "made to compare a snapshot".to_owned()))
    })
}

/// A branch, after its place in Neon's listing.
type Placed<'a> = (usize, &'a Branch);

/// A branch, and why it stays.
struct Judged<'a> {
    branch: &'a Branch,
    /// Where Neon lists it.
    place: usize,
    kind: Kind,
    reasons: Vec<String>,
    /// Why it goes where there is no reason to stay.
    otherwise: &'static str,
}

impl Judged<'_> {
    fn entry(&self) -> Entry {
        let is_kept = !self.reasons.is_empty();
        let reasons = if is_kept { self.reasons.clone() } else { vec![self.otherwise.to_owned()] };
        let (id, name) = (self.branch.id.to_string(), self.branch.name.to_string());
        Entry { kind: self.kind, id, name, created_at: self.branch.created_at, is_kept, reasons }
    }
}

/// Judges one kind after the other.
struct Judge<'a> {
    inventory: &'a Inventory<'a>,
    pair: &'a Pair,
    rules: &'a KeepRules,
    run: Option<&'a RunId>,
    now: Timestamp,
    judged: Vec<Judged<'a>>,
    /// The snapshots, with the reasons.
    snapshots: Vec<Entry>,
    wants_snapshot: bool,
    /// Where Neon lists the backups that stay only until a run needs their place.
    waiting: BTreeSet<usize>,
    endpoints: BTreeMap<&'a BranchId, Vec<&'a Endpoint>>,
    /// The backups of ours, with their runs.
    backups: BTreeMap<&'a BranchId, (&'a Branch, RunId)>,
}

impl<'a> Judge<'a> {
    /// Returns whether a branch is younger than a day; one of the future is.
    fn is_young(&self, branch: &Branch) -> bool {
        self.young(branch.created_at).is_some()
    }

    /// Returns why what was made within a day stays; what was made in the future does.
    fn young(&self, made_at: Timestamp) -> Option<String> {
        (between(made_at, self.now) < YOUNG).then(|| "younger than 24 hours".to_owned())
    }

    fn judge(&mut self, (place, branch): Placed<'a>, kind: Kind, mut reasons: Vec<String>, otherwise: &'static str) {
        if reasons.is_empty() {
            reasons.extend(self.young(branch.created_at));
        }
        self.judged.push(Judged { branch, place, kind, reasons, otherwise });
    }

    /// Displaced branches, newest first.
    fn displaced(&mut self) {
        let branches = self.inventory.branches;
        let Some(staging) = branches.by_id(&self.pair.staging_branch) else { return };
        let stem = format!("{}-of-", staging.name);
        let named = branches.branches.iter().enumerate().filter(|(_, branch)| branch.name.as_str().starts_with(&stem));
        let (mut ours, foreign): (Vec<Placed<'_>>, Vec<Placed<'_>>) =
            named.partition(|(_, branch)| is_our_displaced(branches, self.pair, &stem, branch));
        ordered::sort_by(&mut ours, |(_, left), (_, right)| (right.created_at, &right.name).cmp(&(left.created_at, &left.name)));
        for (rank, branch) in ours.into_iter().enumerate() {
            let most = self.rules.displaced;
            let reason = (rank < most as usize).then(|| format!("keep_displaced: number {} of {most}", rank + 1));
            self.judge(branch, Kind::Displaced, reason.into_iter().collect(), "displaced longer ago than keep_displaced");
        }
        for branch in foreign {
            self.judge(branch, Kind::Displaced, vec!["foreign: has a displaced branch's name but not its place".to_owned()], "");
        }
    }

    /// Check branches, which a run needs only itself.
    fn checks(&mut self) {
        let branches = self.inventory.branches;
        let Some(staging) = branches.by_id(&self.pair.staging_branch) else { return };
        let stem = format!("{}-check-", staging.name);
        for (place, branch) in branches.branches.iter().enumerate() {
            let Some(of) = branch.name.as_str().strip_prefix(&stem).and_then(RunId::decode) else { continue };
            let is_ours = branches.annotation(&branch.id, "firstlight") == Some(self.pair.name.as_str())
                && branches.annotation(&branch.id, "run") == Some(of.as_str());
            if !is_ours {
                self.judge(
                    (place, branch),
                    Kind::Check,
                    vec!["foreign: has a check branch's name but was not made by this pair".to_owned()],
                    "",
                );
            } else if self.run == Some(&of) {
                self.judged.push(Judged { branch, place, kind: Kind::Check, reasons: Vec::new(), otherwise: "check branch of this run" });
            } else {
                self.judge((place, branch), Kind::Check, Vec::new(), "check branch of a run that is over");
            }
        }
    }

    /// Branches that were made from a snapshot to compare it, which the run that made them deletes itself.
    fn restore_tests(&mut self) {
        let branches = self.inventory.branches;
        for (place, branch) in branches.branches.iter().enumerate() {
            let Some(of) = run_of_test(self.pair, &branch.name) else { continue };
            let from = branch.restored_from.as_ref();
            let snapshot = self.inventory.snapshots.iter().find(|snapshot| Some(&snapshot.id) == from);
            let on_record = self.inventory.records.snapshots.get(&of).and_then(|record| record.id.as_ref());
            let is_ours = snapshot.is_some_and(|snapshot| is_our_snapshot(self.pair, branches, self.inventory.records, snapshot, &of))
                || from.is_some() && from == on_record;
            let foreign = "foreign: has a restore test's name but was not made from a snapshot of ours";
            let of_run = self.run == Some(&of);
            let reasons: Vec<String> = if is_ours {
                of_run.then(|| "restore test of this run".to_owned()).into_iter().collect()
            } else {
                vec![foreign.to_owned()]
            };
            // Not as young as a day: where a run has left it, the next one needs its place.
            self.judged.push(Judged { branch, place, kind: Kind::RestoreTest, reasons, otherwise: "restore test of a run that is over" });
        }
    }

    /// Keeps what Neon or somebody else holds on to.
    fn keep_what_others_need(&mut self) {
        for judged in &mut self.judged {
            if judged.branch.protected {
                judged.reasons.push("protected in Neon".to_owned());
            } else if judged.branch.default {
                judged.reasons.push("the project's default branch".to_owned());
            }
            let is_ours = |endpoint: &&&Endpoint| match judged.kind {
                Kind::Backup(_) => is_our_endpoint(judged.branch, endpoint),
                Kind::Displaced | Kind::Snapshot(_) => false,
                Kind::Check | Kind::RestoreTest | Kind::Endpoint | Kind::Orphan => true,
            };
            let foreign = self.endpoints.get(&judged.branch.id).into_iter().flatten().find(|endpoint| !is_ours(endpoint));
            judged.reasons.extend(foreign.map(|endpoint| format!("has the endpoint {}, which Firstlight did not make", endpoint.id)));
        }
    }

    /// Endpoints of backups: those that were made with them go once their run is over.
    fn endpoints(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (id, endpoints) in &self.endpoints {
            let Some((branch, of)) = self.backups.get(id) else { continue };
            let is_over = self.run == Some(of) || !self.is_young(branch);
            for endpoint in endpoints {
                let (is_kept, reason) = match (is_our_endpoint(branch, endpoint), is_over) {
                    (false, _) => (true, "not made by Firstlight"),
                    (true, false) => (true, "its run is younger than 24 hours"),
                    (true, true) => (false, "no run reads it any more"),
                };
                let (id, name) = (endpoint.id.to_string(), endpoint.id.to_string());
                let reasons = vec![format!("{reason}; of {}", branch.name)];
                entries.push(Entry { kind: Kind::Endpoint, id, name, created_at: endpoint.created_at, is_kept, reasons });
            }
        }
        entries
    }
}

#[cfg(test)]
mod tests;
