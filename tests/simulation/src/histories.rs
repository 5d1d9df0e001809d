//! Random histories, judged by the plan and by a second, simple reading of the rules that walks
//! over days.
//!
//! A history has what a year of mornings leaves. There are days without a run, and runs that
//! failed, six in a row among them. Records were lost, and a clock was ahead. There are pins,
//! branches and snapshots of other people with our names, and children that somebody made. Backups
//! are branches, snapshots or both, in zones whose days are 23 and 25 hours long or are skipped.

mod drawn;
mod judged;

use std::collections::BTreeSet;
use std::ops::Range;

use chrono::TimeDelta;
use firstlight::config::{KeepRules, Pair, Rule, Tier};
use firstlight::id::{BranchId, RunId};
use firstlight::neon::wire::{Annotation, BranchList, Snapshot};
use firstlight::retention::{Inventory, Known, Records, plan};
use firstlight::time::{Timestamp, Zone};

use self::drawn::{history, push};
use self::judged::judge;

/// How far Neon's clock may be from ours.
const CLOCKS_APART: TimeDelta = TimeDelta::minutes(10);

/// Zones with both kinds of changes, half hours, and one that has skipped a day.
const ZONES: [&str; 8] = [
    "America/New_York",
    "Europe/London",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Pacific/Apia",
    "Pacific/Chatham",
    "UTC",
];

/// A backup of a history, and what is true of it.
struct Backup {
    id: BranchId,
    made_at: Timestamp,
    run: RunId,
    branch: Option<Form>,
    snapshot: Option<Form>,
    is_pinned: bool,
}

/// What is true of a branch or a snapshot.
#[derive(Clone, Copy)]
struct Form {
    made_at: Timestamp,
    is_verified: bool,
    /// Whether the store still knows.
    is_on_record: bool,
}

impl Form {
    fn is_sure(self) -> bool {
        self.is_on_record && self.is_verified
    }

    fn is_possible(self) -> bool {
        !self.is_on_record || self.is_verified
    }
}

/// Whether a form counts, as far as is known.
type Counts = fn(Form) -> bool;

impl Backup {
    fn form(&self, tier: Tier) -> Option<Form> {
        match tier {
            Tier::Branch => self.branch,
            Tier::Snapshot => self.snapshot,
        }
    }

    fn counts(&self, tier: Tier, counts: Counts) -> bool {
        self.form(tier).is_some_and(counts)
    }

    fn any(&self, counts: Counts) -> bool {
        self.counts(Tier::Branch, counts) || self.counts(Tier::Snapshot, counts)
    }
}

struct History {
    pair: Pair,
    rules: KeepRules,
    now: Timestamp,
    branches: BranchList,
    snapshots: Vec<Snapshot>,
    records: Records,
    backups: Vec<Backup>,
    foreign: BTreeSet<BranchId>,
    foreign_snapshots: BTreeSet<String>,
}

impl History {
    fn inventory(&self) -> Inventory<'_> {
        let Self { branches, snapshots, records, .. } = self;
        Inventory { branches, endpoints: &[], snapshots, records }
    }

    /// Returns whether something may have been made by now; what was made later has another clock.
    fn is_past(&self, made_at: Timestamp) -> bool {
        made_at <= self.now + CLOCKS_APART
    }
}

/// A project with many backups, all verified, six hours apart.
pub struct Large(History);

impl Large {
    /// Makes one with so many.
    ///
    /// # Panics
    ///
    /// Never: the zone is in the database.
    pub fn new(count: usize) -> Self {
        let zone = Zone::get("America/New_York").expect("a zone");
        let mut history = History {
            now: "2026-11-21T10:00:00Z".parse().expect("an instant"),
            ..history(0, std::slice::from_ref(&zone))
        };
        let as_snapshots = [Rule::Monthly, Rule::Yearly].into();
        history.rules = KeepRules {
            last: 7,
            daily: 30,
            weekly: 12,
            monthly: 24,
            yearly: 5,
            at_least: 3,
            displaced: 1,
            as_snapshots,
            ..history.rules
        };
        (history.branches, history.records, history.snapshots) =
            (BranchList::default(), Records::default(), Vec::new());
        let production = history.pair.production_branch.clone();
        for number in 0..count {
            let at = history.now - TimeDelta::hours(6 * i64::try_from(number).unwrap_or(0));
            let (id, run) =
                (BranchId::from(format!("br-backup-{number}").as_str()), RunId::manual(at));
            push(&mut history, &id, &format!("backup-{run}"), Some(&production), at);
            let value =
                [("firstlight".to_owned(), "hub".to_owned()), ("run".to_owned(), run.to_string())]
                    .into();
            history.branches.annotations.insert(id, Annotation { value });
            history.records.known.insert(run, Known::Verified);
        }
        Self(history)
    }

    /// Plans what is deleted, and returns how many that are.
    pub fn plan(&self) -> usize {
        let Self(history) = self;
        plan(&history.inventory(), &history.pair, &history.rules, None, history.now).order.len()
    }
}

/// Judges histories, on all cores, and returns what is wrong with them.
pub fn judge_all(seeds: &Range<u64>) -> Vec<String> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let zones: Vec<Zone> =
                        ZONES.iter().filter_map(|name| Zone::get(name)).collect();
                    let seeds = seeds.clone().skip(thread).step_by(threads);
                    seeds
                        .filter_map(|seed| {
                            judge(&history(seed, &zones))
                                .err()
                                .map(|fault| format!("history {seed}: {fault}"))
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        tasks
            .into_iter()
            .flat_map(|task| task.join().unwrap_or_else(|_| vec!["a thread panicked".to_owned()]))
            .collect()
    })
}
