//! Says what the calendar asks for: is a run due, is it late, was the day missed?
//!
//! In: a pair's local times and `now`. Out: a [`Due`], pure.
//!
//! Invariants: a civil date has one scheduled run; nothing starts before `start_at` or after `catch_up_until`.

use std::time::Duration;

use chrono::{Days, NaiveDate};

use crate::config::Pair;
use crate::id::RunId;
use crate::sync::step::RUN_GRACE;
use crate::time::{Timestamp, after};

/// What the calendar asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
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
    /// A run starts at this instant or later.
    pub start_at: Timestamp,
    /// A start after this is late.
    pub latest_start: Timestamp,
    /// The run is to be done.
    pub deadline: Timestamp,
    /// After this the day is missed.
    pub catch_up_until: Timestamp,
}

/// Returns the instants of a date.
pub fn day(pair: &Pair, date: NaiveDate) -> Day {
    let at = |time| pair.zone.instant(date, time);
    Day {
        date,
        run: RunId::scheduled(date),
        start_at: at(pair.start_at),
        latest_start: at(pair.latest_start),
        deadline: at(pair.deadline),
        catch_up_until: at(pair.catch_up_until),
    }
}

/// Returns the instants of the pair's present civil date.
pub fn today(pair: &Pair, now: Timestamp) -> Day {
    day(pair, pair.zone.date(now))
}

/// Returns the instants of the civil date before the present one.
pub fn yesterday(pair: &Pair, now: Timestamp) -> Day {
    let today = pair.zone.date(now);
    day(pair, today.pred_opt().unwrap_or(today))
}

impl Day {
    /// Says what this date asks for at `now`.
    pub fn due(&self, now: Timestamp) -> Due {
        if now < self.start_at {
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

/// Returns the dates whose schedule `check-config` shows: today and the six that follow.
pub fn week(pair: &Pair, now: Timestamp) -> Vec<Day> {
    let first = pair.zone.date(now);
    (0..7).filter_map(|days| first.checked_add_days(Days::new(days))).map(|date| day(pair, date)).collect()
}

/// Returns when a manual run that starts at `now` is given up.
pub fn manual_give_up_at(now: Timestamp) -> Timestamp {
    after(now, RUN_GRACE + Duration::from_hours(1))
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;

    /// A pair of New York, from 05:00 to 06:00.
    pub(crate) fn pair() -> Pair {
        let value = json!({"pairs": [{
            "name": "hub", "project": "old-violet-32930710", "production_branch": "br-noisy-breeze-a5e59rrb",
            "staging_branch": "br-calm-river-a5x0q1zz", "role": "neondb_owner", "timezone": "America/New_York",
            "zone_label": "ET", "start_at": "05:00", "latest_start": "05:30", "deadline": "06:00",
            "keep_last": 2, "keep_displaced": 1, "keep_at_least": 2
        }]});
        Config::from_value(&value).expect("the configuration is complete").pairs.remove(0)
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    #[test]
    fn a_run_is_due_between_its_start_and_the_end_of_catching_up() {
        let due = |now: &str| today(&pair(), at(now)).due(at(now));
        assert_eq!(due("2026-11-21T09:59:59Z"), Due::Later { at: at("2026-11-21T10:00:00Z") });
        assert_eq!(due("2026-11-21T10:00:00Z"), Due::Start);
        assert_eq!(due("2026-11-21T11:00:00Z"), Due::Start);
        assert_eq!(due("2026-11-21T11:00:01Z"), Due::Missed);
    }

    #[test]
    fn the_date_is_the_pairs_own() {
        assert_eq!(today(&pair(), at("2026-11-22T02:00:00Z")).run.as_str(), "20261121");
    }

    #[test]
    fn the_schedule_follows_daylight_saving() {
        assert_eq!(today(&pair(), at("2026-07-01T12:00:00Z")).start_at, at("2026-07-01T09:00:00Z"));
    }
}
