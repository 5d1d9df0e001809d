//! Why a backup stays: the keep rules, one after the other.
//!
//! In: when backups were made, newest first. Out: for each the reasons to keep it; none where no
//! rule does.
//!
//! Invariants: the rules add up; a day, week, month or year counts only when it has a backup, and
//! its newest is the one that stays, unless another is preferred. Unlike restic's, the oldest
//! backup is not kept beside them while a rule is not filled: what a rule keeps does not depend on
//! what is deleted later.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use chrono::{Datelike as _, NaiveDate};

use crate::config::KeepRules;
use crate::time::{Timestamp, Zone};

/// Numbers the day, week, month or year of a date, and names it.
type Period = (fn(NaiveDate) -> (i32, u32), fn(NaiveDate) -> String);

/// When a backup was made, and whether it comes before others of its day, week, month or year.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) at: Timestamp,
    pub(super) is_preferred: bool,
}

/// Returns why each backup stays.
pub(super) fn reasons(rules: &KeepRules, zone: &Zone, newest_first: &[Made]) -> Vec<Vec<String>> {
    let mut reasons = vec![Vec::new(); newest_first.len()];
    for (index, reasons) in reasons.iter_mut().enumerate().take(rules.last as usize) {
        reasons.push(format!("keep_last: number {} of {}", index + 1, rules.last));
    }
    if let Some((span, newest)) = rules.within.zip(newest_first.first()) {
        let since = zone.earlier(newest.at, span.years, span.months, span.days, span.hours);
        for (_, reasons) in
            newest_first.iter().zip(&mut reasons).take_while(|(made, _)| made.at >= since)
        {
            reasons.push(format!("keep_within: {span} before the newest"));
        }
    }
    let dates: Vec<NaiveDate> = newest_first.iter().map(|made| zone.date(made.at)).collect();
    let periods: [(&str, u32, Period); 4] = [
        (
            "keep_daily",
            rules.daily,
            (|date| (date.year(), date.ordinal()), |date| date.to_string()),
        ),
        (
            "keep_weekly",
            rules.weekly,
            (
                |date| (date.iso_week().year(), date.iso_week().week()),
                |date| format!("{}-W{:02}", date.iso_week().year(), date.iso_week().week()),
            ),
        ),
        (
            "keep_monthly",
            rules.monthly,
            (
                |date| (date.year(), date.month()),
                |date| format!("{}-{:02}", date.year(), date.month()),
            ),
        ),
        ("keep_yearly", rules.yearly, (|date| (date.year(), 0), |date| date.year().to_string())),
    ];
    for (key, count, (number, name)) in periods {
        // By number, because a zone that moves to the other side of the date line has a date twice,
        // with another between.
        let mut chosen: BTreeMap<(i32, u32), usize> = BTreeMap::new();
        for (index, date) in dates.iter().enumerate() {
            let is_full = chosen.len() == count as usize;
            if is_full && chosen.values().all(|index| newest_first[*index].is_preferred) {
                break;
            }
            match chosen.entry(number(*date)) {
                Entry::Occupied(mut earlier) => {
                    if newest_first[index].is_preferred
                        && !newest_first[*earlier.get()].is_preferred
                    {
                        earlier.insert(index);
                    }
                }
                Entry::Vacant(free) if !is_full => drop(free.insert(index)),
                Entry::Vacant(_) => {}
            }
        }
        for index in chosen.into_values() {
            reasons[index].push(format!("{key}: {}", name(dates[index])));
        }
    }
    reasons
}
