//! The second reading: what the rules keep, looking at one day after the other, and whether a plan
//! deletes just the rest.

use std::collections::BTreeSet;

use chrono::{Datelike as _, Days, NaiveDate, TimeDelta};
use firstlight::config::{KeepRules, Tier};
use firstlight::id::BranchId;
use firstlight::retention::{Hold, PrunePlan, plan};
use firstlight::time::{Timestamp, Zone};

use super::{Backup, CLOCKS_APART, Counts, Form, History};

/// Judges the plan of one history.
pub(super) fn judge(history: &History) -> Result<(), String> {
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
    judge_forms(history, &past, &gone)?;
    let ages =
        deleted.iter().filter_map(|id| history.branches.by_id(id)).map(|branch| branch.created_at);
    must(
        ages.is_sorted_by(|left, right| left >= right),
        "an older backup goes before a newer one",
    )?;
    judge_room(history, &plan, &deleted)
}

fn must(is_so: bool, otherwise: &str) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(otherwise.to_owned()) }
}

/// Judges each form of each backup: it stays where a rule, the floor, its age, a child or a pin
/// keeps it, and goes everywhere else.
fn judge_forms(history: &History, past: &[&Backup], gone: &Gone<'_>) -> Result<(), String> {
    let sure = by_rules(history, past, Form::is_sure);
    let perhaps = by_rules(history, past, Form::is_possible);
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
    Ok(())
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
        let is_enough = surely_newer(&past, backup) >= history.rules.at_least as usize;
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
        let is_floor =
            form.is_possible() && surely_newer(&past, backup) < history.rules.at_least as usize;
        let is_settled = form.made_at + (TimeDelta::hours(1) + CLOCKS_APART) <= history.now;
        if is_settled && !is_floor && !backup.is_pinned && !has_child(&backup.id) {
            return fail(&backup.id, "could give way and does not");
        }
    }
    Ok(())
}

/// Counts the backups that are newer and surely verified.
fn surely_newer(past: &[&Backup], backup: &Backup) -> usize {
    let is_newer = |other: &Backup| (other.made_at, &other.run) > (backup.made_at, &backup.run);
    past.iter().filter(|other| other.any(Form::is_sure) && is_newer(other)).count()
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
