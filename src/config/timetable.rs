//! The local times of a pair, and the days on which it has a run.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{Datelike as _, NaiveDate, Weekday};

use super::reader::{Fields, shown_text};
use crate::ordered::IntoOrdered as _;
use crate::time::{TimeOfDay, Zone, read_date};

/// What is added to the usual length of a run, where nothing else is configured.
const MARGIN_MIN: u32 = 10;

/// The way out of a window across midnight: a run is named by one date, and days off are dates.
const ONE_DATE: &str = "; a window lies within one date, so one across midnight ends by 23:59, \
    begins at 00:00, or has another timezone, such as \"Etc/GMT+6\" for UTC-6, in which midnight \
    is elsewhere";

/// The days of a week, as they are written.
const WEEKDAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Mon),
    ("tue", Weekday::Tue),
    ("wed", Weekday::Wed),
    ("thu", Weekday::Thu),
    ("fri", Weekday::Fri),
    ("sat", Weekday::Sat),
    ("sun", Weekday::Sun),
];

/// The times of day, all in the pair's zone, and the days.
#[derive(Clone, Debug)]
pub struct Timetable {
    /// A start is never moved before this.
    pub earliest_start: TimeOfDay,
    /// A run starts at this time, or earlier where its usual length and the margin do not fit
    /// before the deadline.
    pub start_at: TimeOfDay,
    /// A start after this time is late.
    pub latest_start: TimeOfDay,
    /// The run is to be done by this time.
    pub deadline: TimeOfDay,
    /// After this time the day is missed.
    pub catch_up_until: TimeOfDay,
    /// People begin to work: an open incident is told again.
    pub business_day_starts: TimeOfDay,
    /// What is added to the usual length of a run when its start is moved.
    pub start_margin: Duration,
    /// The days of the week that have a run.
    weekdays: [bool; 7],
    /// Dates without a run.
    holidays: BTreeSet<NaiveDate>,
    /// Days without a run in every year, as month and day.
    yearly_holidays: BTreeSet<(u32, u32)>,
}

impl Timetable {
    /// Returns whether a date has a run.
    pub fn has_run(&self, date: NaiveDate) -> bool {
        let is_weekday = WEEKDAYS
            .iter()
            .zip(self.weekdays)
            .any(|((_, day), has_run)| has_run && *day == date.weekday());
        is_weekday
            && !self.holidays.contains(&date)
            && !self.yearly_holidays.contains(&(date.month(), date.day()))
    }
}

/// Reads the times, which must come in this order, and the days.
pub(super) fn timetable(fields: &mut Fields<'_>) -> Option<Timetable> {
    let (weekdays, holidays) = (weekdays(fields), holidays(fields));
    let start_margin =
        Duration::from_mins(fields.number("start_margin_min", 0, 240).unwrap_or(MARGIN_MIN).into());
    let [earliest_start, start_at, latest_start, deadline, catch_up_until] = times(fields)?;
    let business_day_starts =
        fields.parsed("business_day_starts", "a local time such as \"09:00\"");
    let (holidays, yearly_holidays) = holidays?;
    Some(Timetable {
        earliest_start,
        start_at,
        latest_start,
        deadline,
        catch_up_until,
        business_day_starts: business_day_starts.or_else(|| "09:00".parse().ok())?,
        start_margin,
        weekdays,
        holidays,
        yearly_holidays,
    })
}

fn times(fields: &mut Fields<'_>) -> Option<[TimeOfDay; 5]> {
    const ALLOWED: &str = "a local time such as \"05:30\"";
    for (key, example) in
        [("start_at", "\"05:00\""), ("latest_start", "\"05:30\""), ("deadline", "\"06:00\"")]
    {
        fields.need(key, example);
    }
    let start_at: Option<TimeOfDay> = fields.parsed("start_at", ALLOWED);
    let latest_start: Option<TimeOfDay> = fields.parsed("latest_start", ALLOWED);
    let deadline: Option<TimeOfDay> = fields.parsed("deadline", ALLOWED);
    let earliest_start: Option<TimeOfDay> = if fields.value("earliest_start").is_some() {
        fields.parsed("earliest_start", ALLOWED)
    } else {
        start_at
    };
    let catch_up_until: Option<TimeOfDay> = if fields.value("catch_up_until").is_some() {
        fields.parsed("catch_up_until", ALLOWED)
    } else {
        deadline
    };
    let (start_at, latest_start, deadline) = (start_at?, latest_start?, deadline?);
    let (earliest_start, catch_up_until) = (earliest_start?, catch_up_until?);
    if earliest_start > start_at {
        let text = format!(
            "is {earliest_start}, after start_at {start_at}; allowed is that time or \
             earlier{ONE_DATE}"
        );
        fields.problem("earliest_start", text);
    }
    if start_at > latest_start {
        let text = format!(
            "is {latest_start}, before start_at {start_at}; allowed is that time or later{ONE_DATE}"
        );
        fields.problem("latest_start", text);
    }
    if latest_start >= deadline {
        let text = format!(
            "is {deadline}, not after latest_start {latest_start}; allowed is a later \
             time{ONE_DATE}"
        );
        fields.problem("deadline", text);
    }
    if catch_up_until < latest_start && fields.value("catch_up_until").is_some() {
        let text = format!(
            "is {catch_up_until}, before latest_start {latest_start}; allowed is that time or \
             later{ONE_DATE}"
        );
        fields.problem("catch_up_until", text);
    }
    Some([earliest_start, start_at, latest_start, deadline, catch_up_until])
}

/// Reads the days of the week that have a run; all of them where nothing is configured.
fn weekdays(fields: &mut Fields<'_>) -> [bool; 7] {
    let Some(words) = fields.texts("weekdays") else { return [true; 7] };
    if let Some(bad) = words.iter().find(|word| !WEEKDAYS.iter().any(|(name, _)| name == word)) {
        let allowed = WEEKDAYS.map(|(name, _)| name).join(", ");
        fields.problem("weekdays", format!("has {bad:?}; allowed are {allowed}"));
    }
    if words.is_empty() {
        fields.problem("weekdays", "is empty; name at least one day, or leave the key out for all");
    }
    WEEKDAYS.map(|(name, _)| words.iter().any(|word| word == name))
}

/// Dates without a run, and those of every year.
type Holidays = (BTreeSet<NaiveDate>, BTreeSet<(u32, u32)>);

fn holidays(fields: &mut Fields<'_>) -> Option<Holidays> {
    let words = fields.texts("holidays").unwrap_or_default();
    let date = read_date;
    // Of a leap year, so that the 29th of February is one.
    let yearly = |text: &str| {
        date(&format!("2024-{text}"))
            .filter(|_| text.len() == 5)
            .map(|date| (date.month(), date.day()))
    };
    if let Some(bad) = words.iter().find(|word| date(word).is_none() && yearly(word).is_none()) {
        let text = format!(
            "has {bad:?}; allowed are dates such as \"2026-11-26\", and days of every year such as \
             \"12-25\""
        );
        fields.problem("holidays", text);
        return None;
    }
    Some((
        words.iter().filter_map(|word| date(word)).into_set(),
        words.iter().filter_map(|word| yearly(word)).into_set(),
    ))
}

/// Reads the zone of times of day.
pub(super) fn zone(fields: &mut Fields<'_>) -> Option<Zone> {
    let name = fields.text("timezone")?;
    let zone = Zone::get(&name);
    if zone.is_none() {
        fields.problem(
            "timezone",
            format!(
                "is {}; allowed is an IANA name; for example \"America/New_York\"",
                shown_text(&name)
            ),
        );
    }
    zone
}
