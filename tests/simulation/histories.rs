//! Random histories, judged by the plan and by a second, simple reading of the rules that walks over days.
//!
//! A history has what a year of mornings leaves: days without a run, runs that failed, six in a row among them, records that were lost, backups of a clock
//! that was ahead, pins, branches of other people with our names, children that somebody made, in zones whose days are 23 and 25 hours long or are skipped.

use std::collections::BTreeSet;
use std::ops::Range;

use chrono::{Datelike as _, Days, NaiveDate, TimeDelta};
use firstlight::config::{Config, KeepRules, Pair, Span};
use firstlight::id::{BranchId, RunId};
use firstlight::neon::wire::{Annotation, Branch, BranchList, Snapshot};
use firstlight::sync::retention::{Inventory, Known, Pin, Records, plan};
use firstlight::time::{Timestamp, Zone};
use serde_json::json;

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
    is_verified: bool,
    /// Whether the store still knows.
    is_on_record: bool,
    is_pinned: bool,
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
}

fn pair() -> Pair {
    let value = json!({"pairs": [{
        "name": "hub", "project": "old-violet-32930710", "production_branch": "br-noisy-breeze-a5e59rrb",
        "staging_branch": "br-calm-river-a5x0q1zz", "role": "neondb_owner", "timezone": "UTC",
        "start_at": "05:00", "latest_start": "05:30", "deadline": "06:00", "keep_last": 1, "keep_displaced": 1,
    }]});
    Config::from_value(&value).expect("the configuration is complete").pairs.remove(0)
}

fn history(seed: u64, zones: &[Zone]) -> History {
    let mut draw = fastrand::Rng::with_seed(seed);
    let mut pair = pair();
    pair.zone = zones[draw.usize(..zones.len())].clone();
    let mut rule = |most: u32| if draw.bool() { draw.u32(1..=most) } else { 0 };
    let mut rules = KeepRules { last: rule(6), daily: rule(8), weekly: rule(5), monthly: rule(4), yearly: rule(3), ..KeepRules::default() };
    rules.within = draw.bool().then(|| Span { days: draw.u32(0..20), hours: draw.u32(1..30), ..Span::default() });
    rules.at_least = draw.u32(1..5);
    rules.failed_days = draw.bool().then(|| draw.u32(1..15));
    rules.displaced = 1;
    // Between 2024 and 2030, and often near a change of the clocks.
    let start: Timestamp = "2024-01-01T00:00:00Z".parse().expect("an instant");
    let now = start + TimeDelta::days(draw.i64(60..2_500)) + TimeDelta::seconds(draw.i64(0..86_400));
    let mut history = History {
        pair,
        rules,
        now,
        branches: BranchList::default(),
        snapshots: Vec::new(),
        records: Records::default(),
        backups: Vec::new(),
        foreign: BTreeSet::new(),
    };
    fill(&mut history, &mut draw);
    history
}

fn fill(history: &mut History, draw: &mut fastrand::Rng) {
    let (production, staging) = (history.pair.production_branch.clone(), history.pair.staging_branch.clone());
    let (mut at, mut failing, step) = (history.now, 0_u32, draw.i64(6..80));
    let count = draw.usize(1..24);
    for number in 0..count {
        if failing == 0 && draw.u32(..20) == 0 {
            failing = 6;
        }
        let is_verified = failing == 0 && draw.u32(..8) > 0;
        failing = failing.saturating_sub(1);
        // A clock that was ahead made this one.
        let made_at = if draw.u32(..40) == 0 { history.now + TimeDelta::hours(draw.i64(1..500)) } else { at };
        let run = RunId::manual(at);
        let id = BranchId::from(format!("br-backup-{number}").as_str());
        let (is_foreign, is_on_record, is_pinned) = (draw.u32(..15) == 0, draw.u32(..10) > 0, draw.u32(..25) == 0);
        push(history, &id, &format!("backup-{run}"), Some(&production), made_at);
        if is_foreign {
            history.foreign.insert(id.clone());
        } else {
            let value = [("firstlight".to_owned(), "hub".to_owned()), ("run".to_owned(), run.to_string())].into();
            history.branches.annotations.insert(id.clone(), Annotation { value });
        }
        if is_on_record {
            history.records.known.insert(run.clone(), if is_verified { Known::Verified } else { Known::Unverified });
        }
        if is_pinned {
            history.records.pins.insert(run.clone(), Pin { reason: "drawn".to_owned(), until: None });
        }
        if draw.u32(..20) == 0 {
            let child = BranchId::from(format!("br-child-{number}").as_str());
            push(history, &child, &format!("work-{number}"), Some(&id), made_at);
            history.foreign.insert(child);
        }
        if !is_foreign {
            history.backups.push(Backup { id, made_at, run, is_verified, is_on_record, is_pinned });
        }
        at -= TimeDelta::hours(draw.i64(1..=step)) + TimeDelta::seconds(draw.i64(0..7_200));
    }
    let parent = history.backups.first().map(|backup| backup.id.clone());
    push(history, &staging, "staging", parent.as_ref(), history.now - TimeDelta::days(900));
    push(history, &production, "production", None, history.now - TimeDelta::days(900));
    history.foreign.extend([production, staging]);
    draw.shuffle(&mut history.branches.branches);
}

fn push(history: &mut History, id: &BranchId, name: &str, parent: Option<&BranchId>, created_at: Timestamp) {
    history.branches.branches.push(Branch {
        id: id.clone(),
        name: name.into(),
        parent_id: parent.cloned(),
        parent_lsn: None,
        current_state: "ready".into(),
        default: false,
        protected: false,
        created_at,
        expires_at: None,
        restored_from: None,
    });
}

/// The second reading: which backups the rules keep, looking at one day after the other.
fn kept_by_days(rules: &KeepRules, zone: &Zone, backups: &[&Backup]) -> BTreeSet<BranchId> {
    let Some(newest) = backups.iter().map(|backup| backup.made_at).max() else { return BTreeSet::new() };
    let oldest = backups.iter().map(|backup| backup.made_at).min().unwrap_or(newest);
    let mut kept = BTreeSet::new();
    let mut by_age: Vec<&&Backup> = backups.iter().collect();
    by_age.sort_by_key(|backup| backup.made_at);
    kept.extend(by_age.iter().rev().take(rules.last as usize).map(|backup| backup.id.clone()));
    if let Some(span) = rules.within {
        let since = zone.earlier(newest, 0, 0, span.days, span.hours);
        kept.extend(backups.iter().filter(|backup| backup.made_at >= since).map(|backup| backup.id.clone()));
    }
    let dated: Vec<(NaiveDate, &Backup)> = by_age.iter().map(|backup| (zone.date(backup.made_at), **backup)).collect();
    let newest_of =
        |is_in: &dyn Fn(NaiveDate) -> bool| dated.iter().rev().find(|(date, _)| is_in(*date)).map(|(_, backup)| backup.id.clone());
    let (last_day, first_day) = (zone.date(newest), zone.date(oldest));
    let monday = |date: NaiveDate| date - Days::new(date.weekday().num_days_from_monday().into());
    let mut left = [rules.daily, rules.weekly, rules.monthly, rules.yearly];
    let mut day = last_day;
    let end = monday(first_day).min(first_day.with_ordinal(1).expect("every year has a first day"));
    while day >= end && left.iter().any(|left| *left > 0) {
        let is_first = [true, day.weekday().num_days_from_monday() == 0, day.day() == 1, day.ordinal() == 1];
        let within: [&dyn Fn(NaiveDate) -> bool; 4] =
            [&|date| date == day, &|date| monday(date) == day, &|date| (date.year(), date.month()) == (day.year(), day.month()), &|date| {
                date.year() == day.year()
            }];
        // A week, month or year is looked at when its first day is come to, and that is never before one of its days with a backup.
        for (kind, left) in left.iter_mut().enumerate().filter(|(kind, left)| is_first[*kind] && **left > 0) {
            if let Some(id) = newest_of(within[kind]) {
                kept.insert(id);
                *left -= 1;
            }
        }
        day = day - Days::new(1);
    }
    kept
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
        let mut history = History { now: "2026-11-21T10:00:00Z".parse().expect("an instant"), ..history(0, std::slice::from_ref(&zone)) };
        history.rules = KeepRules { last: 7, daily: 30, weekly: 12, monthly: 24, yearly: 5, at_least: 3, displaced: 1, ..history.rules };
        (history.branches, history.records) = (BranchList::default(), Records::default());
        let production = history.pair.production_branch.clone();
        for number in 0..count {
            let at = history.now - TimeDelta::hours(6 * i64::try_from(number).unwrap_or(0));
            let (id, run) = (BranchId::from(format!("br-backup-{number}").as_str()), RunId::manual(at));
            push(&mut history, &id, &format!("backup-{run}"), Some(&production), at);
            let value = [("firstlight".to_owned(), "hub".to_owned()), ("run".to_owned(), run.to_string())].into();
            history.branches.annotations.insert(id, Annotation { value });
            history.records.known.insert(run, Known::Verified);
        }
        Self(history)
    }

    /// Plans what is deleted, and returns how many that are.
    pub fn plan(&self) -> usize {
        let Self(history) = self;
        let inventory = Inventory {
            branches: &history.branches,
            endpoints: &[],
            snapshots: &history.snapshots,
            records: &history.records,
            is_short: false,
        };
        plan(&inventory, &history.pair, &history.rules, None, history.now).order.len()
    }
}

/// Judges histories, on all cores, and returns what is wrong with them.
pub fn judge_all(seeds: &Range<u64>) -> Vec<String> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let zones: Vec<Zone> = ZONES.iter().filter_map(|name| Zone::get(name)).collect();
                    let seeds = seeds.clone().skip(thread).step_by(threads);
                    seeds
                        .filter_map(|seed| judge(&history(seed, &zones)).err().map(|fault| format!("history {seed}: {fault}")))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        tasks.into_iter().flat_map(|task| task.join().unwrap_or_else(|_| vec!["a thread panicked".to_owned()])).collect()
    })
}

/// Judges the plan of one history.
fn judge(history: &History) -> Result<(), String> {
    let must = |is_so: bool, otherwise: &str| if is_so { Ok(()) } else { Err(otherwise.to_owned()) };
    let inventory = Inventory {
        branches: &history.branches,
        endpoints: &[],
        snapshots: &history.snapshots,
        records: &history.records,
        is_short: false,
    };
    let plan = plan(&inventory, &history.pair, &history.rules, None, history.now);
    let deleted: Vec<BranchId> = plan.branches().map(|entry| entry.id.as_str().into()).collect();
    let is_deleted = |backup: &Backup| deleted.contains(&backup.id);

    must(deleted.iter().all(|id| !history.foreign.contains(id)), "a foreign branch goes")?;
    let past: Vec<&Backup> = history.backups.iter().filter(|backup| backup.made_at <= history.now).collect();
    let mut verified: Vec<&Backup> = past.iter().copied().filter(|backup| backup.is_verified).collect();
    verified.sort_by_key(|backup| std::cmp::Reverse(backup.made_at));
    let mut floor = verified.iter().take(history.rules.at_least as usize);
    must(floor.all(|backup| !is_deleted(backup)), "the floor does not hold")?;

    let select = |is_in: &dyn Fn(&Backup) -> bool| past.iter().copied().filter(|backup| is_in(backup)).collect::<Vec<&Backup>>();
    let sure = kept_by_days(&history.rules, &history.pair.zone, &select(&|backup| backup.is_on_record && backup.is_verified));
    let perhaps = kept_by_days(&history.rules, &history.pair.zone, &select(&|backup| !backup.is_on_record || backup.is_verified));
    let known = select(&|backup| backup.is_on_record && backup.is_verified);
    for backup in &history.backups {
        let newer = known.iter().filter(|other| other.made_at > backup.made_at).count();
        let by_rules = match (backup.is_on_record, backup.is_verified) {
            (true, true) => sure.contains(&backup.id) || newer < history.rules.at_least as usize,
            (true, false) => false,
            (false, _) => perhaps.contains(&backup.id) || newer < history.rules.at_least as usize,
        };
        let is_counted = backup.is_on_record && backup.is_verified;
        let inspected = history.rules.failed_days.is_none_or(|days| backup.made_at + TimeDelta::days(days.into()) > history.now);
        let is_young = backup.made_at + TimeDelta::days(1) > history.now;
        let has_child = history.branches.children(&backup.id).next().is_some();
        let stays = by_rules || (!is_counted && inspected) || is_young || has_child || backup.is_pinned;
        must(is_deleted(backup) != stays, &format!("run {}: {stays} is to stay with {:?}", backup.run, history.rules))?;
    }
    let ages = deleted.iter().filter_map(|id| history.branches.by_id(id)).map(|branch| branch.created_at);
    must(ages.is_sorted_by(|left, right| left >= right), "an older backup goes before a newer one")
}
