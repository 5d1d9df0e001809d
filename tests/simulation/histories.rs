//! Random histories, judged by the plan and by a second, simple reading of the rules that walks
//! over days.
//!
//! A history has what a year of mornings leaves: days without a run, runs that failed, six in a row
//! among them, records that were lost, backups of a clock that was ahead, pins, branches and
//! snapshots of other people with our names, children that somebody made, backups that are
//! branches, snapshots or both, in zones whose days are 23 and 25 hours long or are skipped.

use std::collections::BTreeSet;
use std::ops::Range;

use chrono::{Datelike as _, Days, NaiveDate, TimeDelta};
use firstlight::config::{Config, KeepRules, Pair, Rule, Span, Tier};
use firstlight::id::{BranchId, RunId};
use firstlight::neon::wire::{Annotation, Branch, BranchList, Snapshot};
use firstlight::sync::machine::snapshot_slug;
use firstlight::sync::retention::{
    Hold, Inventory, Known, Pin, PrunePlan, Records, SnapshotRecord, plan,
};
use firstlight::time::{Timestamp, Zone};
use serde_json::json;

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

fn pair() -> Pair {
    let value = json!({"pairs": [{
        "name": "hub", "project": "old-violet-32930710",
        "production_branch": "br-noisy-breeze-a5e59rrb",
        "staging_branch": "br-calm-river-a5x0q1zz", "role": "neondb_owner", "timezone": "UTC",
        "start_at": "05:00", "latest_start": "05:30", "deadline": "06:00", "keep_last": 1,
        "keep_displaced": 1,
    }]});
    Config::from_value(&value).expect("the configuration is complete").pairs.remove(0)
}

fn history(seed: u64, zones: &[Zone]) -> History {
    let mut draw = fastrand::Rng::with_seed(seed);
    let mut pair = pair();
    pair.zone = zones[draw.usize(..zones.len())].clone();
    let mut rule = |most: u32| if draw.bool() { draw.u32(1..=most) } else { 0 };
    let mut rules = KeepRules {
        last: rule(6),
        daily: rule(8),
        weekly: rule(5),
        monthly: rule(4),
        yearly: rule(3),
        ..KeepRules::default()
    };
    rules.within = draw.bool().then(|| Span {
        days: draw.u32(0..20),
        hours: draw.u32(1..30),
        ..Span::default()
    });
    rules.at_least = draw.u32(1..5);
    rules.failed_days = draw.bool().then(|| draw.u32(1..15));
    rules.displaced = 1;
    if draw.bool() {
        rules.as_snapshots = Rule::ALL.into_iter().filter(|_| draw.bool()).collect();
    }
    // Between 2024 and 2030, and often near a change of the clocks.
    let start: Timestamp = "2024-01-01T00:00:00Z".parse().expect("an instant");
    let now =
        start + TimeDelta::days(draw.i64(60..2_500)) + TimeDelta::seconds(draw.i64(0..86_400));
    let mut history = History {
        pair,
        rules,
        now,
        branches: BranchList::default(),
        snapshots: Vec::new(),
        records: Records::default(),
        backups: Vec::new(),
        foreign: BTreeSet::new(),
        foreign_snapshots: BTreeSet::new(),
    };
    fill(&mut history, &mut draw);
    history
}

fn fill(history: &mut History, draw: &mut fastrand::Rng) {
    let (production, staging) =
        (history.pair.production_branch.clone(), history.pair.staging_branch.clone());
    let (mut at, mut failing, step) = (history.now, 0_u32, draw.i64(6..80));
    let count = draw.usize(1..24);
    for number in 0..count {
        if failing == 0 && draw.u32(..20) == 0 {
            failing = 6;
        }
        let is_verified = failing == 0 && draw.u32(..8) > 0;
        failing = failing.saturating_sub(1);
        // A clock that was ahead made this one.
        let made_at =
            if draw.u32(..40) == 0 { history.now + TimeDelta::hours(draw.i64(1..500)) } else { at };
        let run = RunId::manual(at);
        let id = BranchId::from(format!("br-backup-{number}").as_str());
        let (is_foreign, is_on_record, is_pinned) =
            (draw.u32(..15) == 0, draw.u32(..10) > 0, draw.u32(..25) == 0);
        let known =
            |is_verified: bool| if is_verified { Known::Verified } else { Known::Unverified };
        let form = Form { made_at, is_verified, is_on_record };
        let (mut branch, mut snapshot) = (None, None);
        if history.rules.as_snapshots.is_empty() || draw.u32(..3) > 0 {
            push(history, &id, &format!("backup-{run}"), Some(&production), made_at);
            if is_foreign {
                history.foreign.insert(id.clone());
            } else {
                let value = [
                    ("firstlight".to_owned(), "hub".to_owned()),
                    ("run".to_owned(), run.to_string()),
                ]
                .into();
                history.branches.annotations.insert(id.clone(), Annotation { value });
                branch = Some(form);
            }
            if draw.u32(..20) == 0 {
                let child = BranchId::from(format!("br-child-{number}").as_str());
                push(history, &child, &format!("work-{number}"), Some(&id), made_at);
                history.foreign.insert(child);
            }
        }
        if is_on_record {
            history.records.known.insert(run.clone(), known(is_verified));
        }
        if is_pinned {
            history
                .records
                .pins
                .insert(run.clone(), Pin { reason: "drawn".to_owned(), until: None });
        }
        if !history.rules.as_snapshots.is_empty() && draw.bool() {
            let form = Form {
                made_at: made_at + TimeDelta::minutes(3),
                is_verified: draw.bool(),
                is_on_record: draw.u32(..8) > 0,
            };
            let is_ours = draw.u32(..12) > 0;
            push_snapshot(history, &format!("snap-{number}"), &run, form.made_at, is_ours);
            if is_ours && form.is_on_record {
                let id = Some(format!("snap-{number}").as_str().into());
                let record =
                    SnapshotRecord { id, lsn: None, made_at, known: known(form.is_verified) };
                history.records.snapshots.insert(run.clone(), record);
            }
            // One of the future is told, and is no backup that could be kept by a rule.
            snapshot = Some(form).filter(|form| is_ours && history.is_past(form.made_at));
        }
        let made_at = match (branch, snapshot) {
            (None, Some(form)) if !form.is_on_record => form.made_at,
            (Some(_) | None, _) => made_at,
        };
        if branch.is_some() || snapshot.is_some() {
            history.backups.push(Backup { id, made_at, run, branch, snapshot, is_pinned });
        }
        at -= TimeDelta::hours(draw.i64(1..=step)) + TimeDelta::seconds(draw.i64(0..7_200));
    }
    let parent = history
        .backups
        .first()
        .filter(|backup| backup.branch.is_some())
        .map(|backup| backup.id.clone());
    push(history, &staging, "staging", parent.as_ref(), history.now - TimeDelta::days(900));
    push(history, &production, "production", None, history.now - TimeDelta::days(900));
    history.foreign.extend([production, staging]);
    draw.shuffle(&mut history.branches.branches);
}

fn push(
    history: &mut History,
    id: &BranchId,
    name: &str,
    parent: Option<&BranchId>,
    created_at: Timestamp,
) {
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
        restored_as: None,
        restore_status: None,
        logical_size: None,
    });
}

/// Adds a snapshot: one of ours says so by its slug.
fn push_snapshot(
    history: &mut History,
    id: &str,
    run: &RunId,
    created_at: Timestamp,
    is_ours: bool,
) {
    if !is_ours {
        history.foreign_snapshots.insert(id.to_owned());
    }
    history.snapshots.push(Snapshot {
        id: id.into(),
        name: format!("backup-{run}").as_str().into(),
        slug: snapshot_slug(&history.pair, run).filter(|_| is_ours),
        source_branch_id: Some(history.pair.production_branch.clone()),
        lsn: None,
        created_at,
        manual: Some(true),
        full_size: None,
    });
}

/// The second reading: which backups the rules keep, looking at one day after the other. Of a day,
/// week, month or year the newest of those that are preferred is kept, if there is one.
fn kept_by_days(
    rules: &KeepRules,
    zone: &Zone,
    backups: &[&Backup],
    is_preferred: &dyn Fn(&Backup) -> bool,
) -> BTreeSet<BranchId> {
    let Some(newest) = backups.iter().map(|backup| backup.made_at).max() else {
        return BTreeSet::new();
    };
    let oldest = backups.iter().map(|backup| backup.made_at).min().unwrap_or(newest);
    let mut kept = BTreeSet::new();
    let mut by_age: Vec<&&Backup> = backups.iter().collect();
    by_age.sort_by_key(|backup| backup.made_at);
    kept.extend(by_age.iter().rev().take(rules.last as usize).map(|backup| backup.id.clone()));
    if let Some(span) = rules.within {
        let since = zone.earlier(newest, 0, 0, span.days, span.hours);
        kept.extend(
            backups.iter().filter(|backup| backup.made_at >= since).map(|backup| backup.id.clone()),
        );
    }
    let dated: Vec<(NaiveDate, &Backup)> =
        by_age.iter().map(|backup| (zone.date(backup.made_at), **backup)).collect();
    let newest_of = |is_in: &dyn Fn(NaiveDate) -> bool| {
        let found =
            || dated.iter().rev().filter(|(date, _)| is_in(*date)).map(|(_, backup)| *backup);
        found()
            .find(|backup| is_preferred(backup))
            .or_else(|| found().next())
            .map(|backup| backup.id.clone())
    };
    let (last_day, first_day) = (zone.date(newest), zone.date(oldest));
    let monday = |date: NaiveDate| date - Days::new(date.weekday().num_days_from_monday().into());
    let mut left = [rules.daily, rules.weekly, rules.monthly, rules.yearly];
    let mut day = last_day;
    let end = monday(first_day).min(first_day.with_ordinal(1).expect("every year has a first day"));
    while day >= end && left.iter().any(|left| *left > 0) {
        let is_first =
            [true, day.weekday().num_days_from_monday() == 0, day.day() == 1, day.ordinal() == 1];
        let within: [&dyn Fn(NaiveDate) -> bool; 4] = [
            &|date| date == day,
            &|date| monday(date) == day,
            &|date| (date.year(), date.month()) == (day.year(), day.month()),
            &|date| date.year() == day.year(),
        ];
        // A week, month or year is looked at when its first day is come to, and that is never
        // before one of its days with a backup.
        for (kind, left) in
            left.iter_mut().enumerate().filter(|(kind, left)| is_first[*kind] && **left > 0)
        {
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

/// Judges the plan of one history.
fn judge(history: &History) -> Result<(), String> {
    let must =
        |is_so: bool, otherwise: &str| if is_so { Ok(()) } else { Err(otherwise.to_owned()) };
    let plan = plan(&history.inventory(), &history.pair, &history.rules, None, history.now);
    let deleted: Vec<BranchId> = plan.branches().map(|entry| entry.id.as_str().into()).collect();
    must(deleted.iter().all(|id| !history.foreign.contains(id)), "a foreign branch goes")?;
    must(
        plan.snapshots().all(|entry| !history.foreign_snapshots.contains(&entry.id)),
        "a foreign snapshot goes",
    )?;
    let gone = Gone {
        branches: &deleted,
        snapshots: &plan.snapshots().map(|entry| entry.name.clone()).collect::<Vec<_>>(),
    };
    let past: Vec<&Backup> =
        history.backups.iter().filter(|backup| history.is_past(backup.made_at)).collect();
    let mut verified: Vec<&Backup> =
        past.iter().copied().filter(|backup| backup.any(|form| form.is_verified)).collect();
    verified.sort_by_key(|backup| std::cmp::Reverse(backup.made_at));
    let mut floor = verified.iter().take(history.rules.at_least as usize);
    must(
        floor.all(|backup| gone.leaves(backup, |form| form.is_verified)),
        "the floor does not hold",
    )?;

    let sure = by_rules(history, &past, Form::is_sure);
    let perhaps = by_rules(history, &past, Form::is_possible);
    let known: Vec<&&Backup> = past.iter().filter(|backup| backup.any(Form::is_sure)).collect();
    let lost: Counts = |form| !form.is_on_record;
    for backup in &history.backups {
        let newer = known.iter().filter(|other| other.made_at > backup.made_at).count();
        let is_floor = newer < history.rules.at_least as usize;
        let tiers = |counts: Counts| {
            [Tier::Branch, Tier::Snapshot]
                .into_iter()
                .filter(move |tier| backup.counts(*tier, counts))
        };
        let is_kept = tiers(Form::is_sure).any(|tier| sure.contains(&(backup.id.clone(), tier)));
        let floor: Vec<Tier> = match (is_floor, backup.any(Form::is_sure)) {
            (false, _) => Vec::new(),
            // Any that is verified will do, a snapshot rather than a branch.
            (true, true) => {
                tiers(Form::is_sure).next_back().filter(|_| !is_kept).into_iter().collect()
            }
            // Nobody knows which is.
            (true, false) => tiers(lost).collect(),
        };
        for tier in [Tier::Branch, Tier::Snapshot] {
            let Some(form) = backup.form(tier) else { continue };
            let key = (backup.id.clone(), tier);
            let by_rules = if form.is_sure() {
                sure.contains(&key)
            } else {
                !form.is_on_record && perhaps.contains(&key)
            };
            let inspected = history
                .rules
                .failed_days
                .is_none_or(|days| form.made_at + TimeDelta::days(days.into()) > history.now);
            let is_young = form.made_at + TimeDelta::days(1) > history.now;
            let has_child =
                tier == Tier::Branch && history.branches.children(&backup.id).next().is_some();
            let stays = by_rules
                || floor.contains(&tier)
                || (!form.is_sure() && inspected)
                || is_young
                || has_child
                || backup.is_pinned;
            must(
                gone.has(backup, tier) != stays,
                &format!(
                    "{tier:?} of run {}: {stays} is to stay with {:?}",
                    backup.run, history.rules
                ),
            )?;
        }
    }
    let ages =
        deleted.iter().filter_map(|id| history.branches.by_id(id)).map(|branch| branch.created_at);
    must(
        ages.is_sorted_by(|left, right| left >= right),
        "an older backup goes before a newer one",
    )?;
    judge_room(history, &plan, &deleted)
}

/// Judges what gives way to a run that finds no room: the second reading of the order that
/// `retention/room.rs` states.
fn judge_room(history: &History, plan: &PrunePlan, deleted: &[BranchId]) -> Result<(), String> {
    let order: Vec<(BranchId, Hold)> =
        plan.branches_for_room().map(|(entry, hold)| (entry.id.as_str().into(), hold)).collect();
    let gives_way: BTreeSet<&BranchId> = order.iter().map(|(id, _)| id).collect();
    let fail =
        |id: &BranchId, what: &str| Err(format!("room: {id} {what} with {:?}", history.rules));
    if gives_way.len() != order.len()
        || !order.iter().take(deleted.len()).all(|(id, _)| deleted.contains(id))
    {
        return Err("room: what no rule keeps does not go first, and once".to_owned());
    }
    let past: Vec<&Backup> =
        history.backups.iter().filter(|backup| history.is_past(backup.made_at)).collect();
    let newest = past
        .iter()
        .filter(|backup| backup.branch.is_some())
        .max_by_key(|backup| (backup.made_at, &backup.run))
        .map(|backup| &backup.id);
    let has_child = |id: &BranchId| history.branches.children(id).next().is_some();
    let mut last: Option<(Hold, Timestamp)> = None;
    for (id, hold) in &order {
        let Some(backup) = past.iter().find(|backup| backup.id == *id) else {
            return fail(id, "is no backup of ours");
        };
        let Some(form) = backup.branch else { return fail(id, "is no branch") };
        let surely_newer = past
            .iter()
            .filter(|other| {
                other.any(Form::is_sure)
                    && (other.made_at, &other.run) > (backup.made_at, &backup.run)
            })
            .count();
        let is_enough = surely_newer >= history.rules.at_least as usize;
        let expected = match hold {
            _ if backup.is_pinned || has_child(id) => false,
            Hold::Nothing => deleted.contains(id),
            _ if form.made_at + (TimeDelta::hours(1) + CLOCKS_APART) > history.now => false,
            Hold::Day => form.made_at + TimeDelta::days(1) > history.now,
            Hold::Inspection => {
                !form.is_sure() && (form.is_on_record || is_enough) && Some(id) != newest
            }
            Hold::Newest => {
                !form.is_sure() && (form.is_on_record || is_enough) && Some(id) == newest
            }
            Hold::Snapshot | Hold::Rule => form.is_possible() && is_enough,
        };
        if !expected {
            return fail(id, &format!("gives way as {hold:?}"));
        }
        let (before, made_at) = last.unwrap_or((Hold::Nothing, Timestamp::MIN_UTC));
        if *hold < before || (*hold == before && before > Hold::Nothing && form.made_at < made_at) {
            return fail(id, "goes too late");
        }
        last = Some((*hold, form.made_at));
    }
    // And everything goes that may: nothing that only this reading would let go stays.
    for backup in
        past.iter().filter(|backup| backup.branch.is_some() && !gives_way.contains(&backup.id))
    {
        let Some(form) = backup.branch else { continue };
        let surely = past
            .iter()
            .filter(|other| {
                other.any(Form::is_sure)
                    && (other.made_at, &other.run) > (backup.made_at, &backup.run)
            })
            .count();
        let is_floor = form.is_possible() && surely < history.rules.at_least as usize;
        let is_settled = form.made_at + (TimeDelta::hours(1) + CLOCKS_APART) <= history.now;
        if is_settled && !is_floor && !backup.is_pinned && !has_child(&backup.id) {
            return fail(&backup.id, "could give way and does not");
        }
    }
    Ok(())
}

/// What a plan deletes.
struct Gone<'a> {
    branches: &'a [BranchId],
    /// By name: of ours there is one for each backup.
    snapshots: &'a [String],
}

impl Gone<'_> {
    fn has(&self, backup: &Backup, tier: Tier) -> bool {
        match tier {
            Tier::Branch => self.branches.contains(&backup.id),
            Tier::Snapshot => self.snapshots.contains(&format!("backup-{}", backup.run)),
        }
    }

    /// Returns whether a form stays that counts.
    fn leaves(&self, backup: &Backup, counts: Counts) -> bool {
        [Tier::Branch, Tier::Snapshot]
            .into_iter()
            .any(|tier| backup.counts(tier, counts) && !self.has(backup, tier))
    }
}

/// Returns which forms of which backups the rules keep, where those count of which this is so.
fn by_rules(history: &History, past: &[&Backup], counts: Counts) -> BTreeSet<(BranchId, Tier)> {
    let (rules, zone) = (&history.rules, &history.pair.zone);
    let all: Vec<&Backup> = past.iter().copied().filter(|backup| backup.any(counts)).collect();
    let mut found = BTreeSet::new();
    for tier in [Tier::Branch, Tier::Snapshot] {
        let has_form = |backup: &Backup| backup.counts(tier, counts);
        let kept = kept_by_days(&rules.of(tier), zone, &all, &has_form);
        for backup in all.iter().filter(|backup| kept.contains(&backup.id)) {
            let form = if has_form(backup) { tier } else { tier.other() };
            found.insert((backup.id.clone(), form));
            // The branch stands in for a snapshot of which nobody knows whether it is verified.
            let is_known = backup.counts(Tier::Snapshot, |form| form.is_on_record);
            if form == Tier::Snapshot && !is_known && backup.counts(Tier::Branch, counts) {
                found.insert((backup.id.clone(), Tier::Branch));
            }
        }
    }
    found
}
