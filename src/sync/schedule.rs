//! Says what the calendar asks for: is a run due, is it late, was the day missed?
//!
//! In: a pair's local times, how long its runs take, and `now`. Out: a [`Due`], pure.
//!
//! Invariants: a civil date has one scheduled run; nothing starts before `earliest_start` or after
//! `catch_up_until`; a day off has none. Where the clocks skip the end of a window, the window is
//! as long as ever. Where they skip its start as well, it begins at the first instant after the
//! gap. Before midnight that is on the next date, and the run has the name of the date that it
//! belongs to.

use std::time::Duration;

use chrono::{Days, NaiveDate};

use crate::config::{Config, Pair};
use crate::id::RunId;
use crate::sync::checkpoint::{Checkpoint, History};
use crate::sync::step::RUN_GRACE;
use crate::time::{TimeOfDay, Timestamp, after, before, between};

/// What the calendar asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// The date has no run.
    Off,
    /// Today's run is not due before `at`.
    Later {
        /// When it will be.
        at: Timestamp,
    },
    /// Today's run may start.
    Start,
    /// Today's run may not start any more.
    Missed,
}

/// The instants of one date of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    /// The civil date.
    pub date: NaiveDate,
    /// The run of that date.
    pub run: RunId,
    /// Whether the date has a run.
    pub has_run: bool,
    /// A run starts at this instant or later: at `start_at`, or earlier where runs are too long for
    /// that.
    pub start_at: Timestamp,
    /// A start after this is late.
    pub latest_start: Timestamp,
    /// The run is to be done.
    pub deadline: Timestamp,
    /// After this the day is missed.
    pub catch_up_until: Timestamp,
}

/// Returns the instants of a date.
pub fn day(pair: &Pair, date: NaiveDate, history: &History) -> Day {
    let times = &pair.times;
    let civil = |time| pair.zone.instant(date, time);
    let configured_start = civil(times.start_at);
    // Skipped times are one instant. A window whose end is skipped would have no time left, or too
    // little.
    let is_skipped = pair.zone.skips(date, times.deadline);
    let at = |time: TimeOfDay| {
        let whole = after(configured_start, times.start_at.until(time));
        if is_skipped { civil(time).max(whole) } else { civil(time) }
    };
    let deadline = at(times.deadline);
    // Early enough for a long run, where the runs so far tell how long that is.
    let needed = history.long_run().map(|long| before(deadline, long + times.start_margin));
    let start_at = needed.map_or(configured_start, |needed| {
        configured_start.min(needed).max(civil(times.earliest_start))
    });
    Day {
        date,
        run: RunId::scheduled(date),
        has_run: times.has_run(date),
        start_at,
        latest_start: at(times.latest_start),
        deadline,
        catch_up_until: at(times.catch_up_until),
    }
}

/// Returns when a scheduled run is to be done.
pub fn deadline(pair: &Pair, run: &RunId) -> Timestamp {
    day(pair, run.date(), &History::default()).deadline
}

/// Returns the date whose run is seen to at `now`: the pair's present civil date, or the one before
/// while its window, which the clocks have moved over midnight, is open.
fn present(pair: &Pair, now: Timestamp) -> NaiveDate {
    let today = pair.zone.date(now);
    let before = day_before(today);
    let is_open = before < today && now <= day(pair, before, &History::default()).catch_up_until;
    if is_open { before } else { today }
}

fn day_before(date: NaiveDate) -> NaiveDate {
    date.pred_opt().unwrap_or(date)
}

/// Returns the instants of the pair's present date.
pub fn today(pair: &Pair, history: &History, now: Timestamp) -> Day {
    day(pair, present(pair, now), history)
}

/// Returns the run of the pair's present date, and of the one before.
pub fn recent_runs(pair: &Pair, now: Timestamp) -> [RunId; 2] {
    let today = present(pair, now);
    [today, day_before(today)].map(RunId::scheduled)
}

/// Returns the instants of the date before the present one.
pub fn yesterday(pair: &Pair, history: &History, now: Timestamp) -> Day {
    day(pair, day_before(present(pair, now)), history)
}

impl Day {
    /// Says what this date asks for at `now`.
    pub fn due(&self, now: Timestamp) -> Due {
        if !self.has_run {
            Due::Off
        } else if now < self.start_at {
            Due::Later { at: self.start_at }
        } else if now <= self.catch_up_until {
            Due::Start
        } else {
            Due::Missed
        }
    }

    /// Returns when a scheduled run that starts at `now` is given up.
    pub fn give_up_at(&self, now: Timestamp) -> Timestamp {
        after(self.deadline.max(now), RUN_GRACE)
    }
}

/// Returns the dates from the present one on, as they will be if runs stay as long as they are.
pub fn days(pair: &Pair, history: &History, now: Timestamp) -> impl Iterator<Item = Day> {
    let first = present(pair, now);
    let dates = (0..DAYS_AHEAD).filter_map(move |days| first.checked_add_days(Days::new(days)));
    dates.map(|date| day(pair, date, history))
}

/// Days that are looked at when the next run, or the last that was to be done, is looked for: a
/// year of holidays.
const DAYS_AHEAD: u64 = 366;

/// Returns the next date with a run that can still start and is none of `done`.
pub fn next_run(
    pair: &Pair,
    history: &History,
    done: Option<&RunId>,
    now: Timestamp,
) -> Option<Day> {
    days(pair, history, now)
        .find(|day| day.has_run && Some(&day.run) != done && now <= day.catch_up_until)
}

/// Returns the last date whose run should have succeeded by now, `grace` after its deadline.
pub fn last_expected(
    pair: &Pair,
    history: &History,
    grace: Duration,
    now: Timestamp,
) -> Option<Day> {
    let today = pair.zone.date(now);
    let dates = (0..DAYS_AHEAD).filter_map(|days| today.checked_sub_days(Days::new(days)));
    dates
        .map(|date| day(pair, date, history))
        .find(|day| day.has_run && after(day.deadline, grace) <= now)
}

/// Returns when a scheduled run that is under way is expected to be done; `None` where too few runs
/// tell how long they take.
pub fn expected_end(run: &Checkpoint, now: Timestamp) -> Option<Timestamp> {
    let since = run.steps.last().map_or(run.started_at, |step| step.started_at);
    // A step that is to be tried again does nothing until then.
    let from = run.not_before.map_or(now, |not_before| not_before.max(now));
    let remaining = run.history.remaining(run.step, between(since, now))?;
    Some(after(from, remaining))
}

/// Returns what deserves a look although it can be carried out, each with its path: local times
/// that do not exist on some day of the year ahead, and pairs whose runs are due at the same time.
pub fn warnings(config: &Config, now: Timestamp) -> Vec<String> {
    let skipped =
        config.pairs.iter().enumerate().flat_map(|(index, pair)| skipped_times(index, pair, now));
    skipped.chain(overlaps(config, now)).collect()
}

fn skipped_times(index: usize, pair: &Pair, now: Timestamp) -> Vec<String> {
    let times = &pair.times;
    let named = [
        ("earliest_start", times.earliest_start),
        ("start_at", times.start_at),
        ("latest_start", times.latest_start),
        ("deadline", times.deadline),
        ("catch_up_until", times.catch_up_until),
    ];
    let none = History::default();
    let dates: Vec<NaiveDate> = days(pair, &none, now).map(|day| day.date).collect();
    // One that was not set is another.
    let is_own = |(key, time): &(&str, TimeOfDay)| {
        *key == "start_at" || ![times.start_at, times.deadline].contains(time) || *key == "deadline"
    };
    let found = named.into_iter().filter(is_own).filter_map(|(key, time)| {
        let date = dates.iter().find(|date| pair.zone.skips(**date, time))?;
        let day = day(pair, *date, &none);
        let at = match key {
            "latest_start" => day.latest_start,
            "deadline" => day.deadline,
            "catch_up_until" => day.catch_up_until,
            _ => pair.zone.instant(*date, time),
        };
        let instead = pair.zone.time_of_day(at);
        Some(format!(
            "pairs[{index}].{key}: {time} does not exist in {} on {date}: it is {instead} there",
            pair.zone.name()
        ))
    });
    found.collect()
}

/// Finds pairs whose windows overlap on one of the next seven days: one of them is driven first,
/// and the other with what it leaves.
fn overlaps(config: &Config, now: Timestamp) -> Vec<String> {
    let none = History::default();
    let week = |pair: &'_ Pair| -> Vec<Day> {
        days(pair, &none, now).take(7).filter(|day| day.has_run).collect()
    };
    let weeks: Vec<Vec<Day>> = config.pairs.iter().map(week).collect();
    let mut found = Vec::new();
    for (index, days) in weeks.iter().enumerate() {
        for (other, earlier) in weeks.iter().enumerate().take(index) {
            let meets = |day: &&Day| {
                earlier.iter().any(|one| day.start_at < one.deadline && one.start_at < day.deadline)
            };
            if let Some(day) = days.iter().find(meets) {
                found.push(format!(
                    "pairs[{index}].start_at: on {} the run of {} may be under way at the same \
                     time as that of {} (pairs[{other}]); an invocation drives one first, and the \
                     other with the subrequests and the time that are left, so leave each the time \
                     that it takes",
                    day.date, config.pairs[index].name, config.pairs[other].name
                ));
            }
        }
    }
    found
}

/// Returns when a manual run that starts at `now` is given up: after two hours, or after one where
/// it would keep the next scheduled run, which is none of `done`, from starting in time.
pub fn manual_give_up_at(
    pair: &Pair,
    history: &History,
    done: Option<&RunId>,
    now: Timestamp,
) -> Timestamp {
    let in_time =
        next_run(pair, history, done, now).map(|day| day.latest_start.max(after(now, RUN_GRACE)));
    let longest = after(now, RUN_GRACE + Duration::from_hours(1));
    in_time.map_or(longest, |in_time| in_time.min(longest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;
    use crate::fixtures::pair;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    #[test]
    fn a_manual_run_is_given_up_in_time_for_the_scheduled_one() {
        // From 05:00 to 06:00 in New York, five hours behind; a start after 05:30 is late.
        let given_up = |now: &str, done: Option<&str>| {
            let done = done.and_then(RunId::decode);
            crate::time::render(manual_give_up_at(
                &pair(),
                &History::default(),
                done.as_ref(),
                at(now),
            ))
        };
        assert_eq!(
            given_up("2026-11-21T07:00:00Z", None),
            "2026-11-21T09:00:00.000Z",
            "long before"
        );
        assert_eq!(
            given_up("2026-11-21T09:00:00Z", None),
            "2026-11-21T10:30:00.000Z",
            "at the latest start"
        );
        assert_eq!(
            given_up("2026-11-21T10:10:00Z", None),
            "2026-11-21T11:10:00.000Z",
            "it has its hour"
        );
        assert_eq!(
            given_up("2026-11-21T10:10:00Z", Some("20261121")),
            "2026-11-21T12:10:00.000Z",
            "the day's run is done"
        );
        assert_eq!(
            given_up("2026-11-21T15:00:00Z", None),
            "2026-11-21T17:00:00.000Z",
            "after the window"
        );
    }

    #[test]
    fn a_run_is_due_between_its_start_and_the_end_of_catching_up() {
        let due = |now: &str| today(&pair(), &History::default(), at(now)).due(at(now));
        assert_eq!(due("2026-11-21T09:59:59Z"), Due::Later { at: at("2026-11-21T10:00:00Z") });
        assert_eq!(due("2026-11-21T10:00:00Z"), Due::Start);
        assert_eq!(due("2026-11-21T11:00:00Z"), Due::Start);
        assert_eq!(due("2026-11-21T11:00:01Z"), Due::Missed);
    }

    #[test]
    fn the_date_is_the_pairs_own() {
        assert_eq!(
            today(&pair(), &History::default(), at("2026-11-22T02:00:00Z")).run.as_str(),
            "20261121"
        );
    }

    #[test]
    fn the_schedule_follows_daylight_saving() {
        assert_eq!(
            today(&pair(), &History::default(), at("2026-07-01T12:00:00Z")).start_at,
            at("2026-07-01T09:00:00Z")
        );
    }

    #[test]
    fn times_that_a_day_skips_and_windows_that_overlap_are_named() {
        let value = |second: &str| {
            let pair = |name: &str, start: &str, deadline: &str| {
                json!({
                    "name": name, "project": "old-violet-32930710",
                    "production_branch": "br-noisy-breeze-a5e59rrb",
                    "staging_branch": format!("br-{name}"), "role": "neondb_owner",
                    "timezone": "America/New_York", "start_at": start,
                    "latest_start": start, "deadline": deadline, "backup_prefix": name,
                    "keep_last": 2, "keep_displaced": 1
                })
            };
            Config::from_value(
                &json!({"pairs": [pair("hub", "02:30", "03:30"), pair("shop", second, "05:00")]}),
            )
            .expect("it is complete")
        };
        let found = warnings(&value("03:00"), at("2026-11-21T12:00:00Z"));
        assert_eq!(
            found[0],
            "pairs[0].start_at: 02:30 does not exist in America/New_York on 2027-03-14: it is \
             03:00 there"
        );
        assert!(
            found.last().is_some_and(|last| last
                .starts_with("pairs[1].start_at: on 2026-11-21 the run of shop may be under way")),
            "{found:#?}"
        );
        assert!(
            !warnings(&value("03:30"), at("2026-11-21T12:00:00Z"))
                .iter()
                .any(|text| text.starts_with("pairs[1]"))
        );
    }
}
