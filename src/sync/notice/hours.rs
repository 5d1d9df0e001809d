//! When a channel is told: at once, after its quiet hours, or with its digest.
//!
//! Invariants: what is urgent never waits for a digest, and waits for the end of quiet hours only
//! where that is configured. The end of an incident is as urgent as its beginning.

use chrono::Days;

use crate::config::{Channel, NoticeKind, Quiet, Severity};
use crate::time::{TimeOfDay, Timestamp, Zone};

/// Returns when a channel is first told, and whether that is with its digest.
pub fn first_attempt(channel: &Channel, kind: NoticeKind, now: Timestamp) -> (Timestamp, bool) {
    // Somebody waits for the answer to a test.
    if kind == NoticeKind::Test {
        return (now, false);
    }
    // What belongs to an incident holds up what comes after it.
    let is_urgent =
        kind.severity() == Severity::Urgent || kind.is_trouble() || kind == NoticeKind::Resolved;
    if let Some(digest) = channel.digest.as_ref().filter(|_| !is_urgent) {
        return (next(&digest.zone, digest.at, now), true);
    }
    let quiet = channel.quiet.as_ref().filter(|quiet| quiet.is_for_urgent || !is_urgent);
    (quiet.and_then(|quiet| end(quiet, now)).unwrap_or(now), false)
}

/// Returns the next instant after `now` at which it is this time of day.
fn next(zone: &Zone, time: TimeOfDay, now: Timestamp) -> Timestamp {
    let today = zone.date(now);
    let days = (0..3).filter_map(|days| today.checked_add_days(Days::new(days)));
    days.map(|date| zone.instant(date, time)).find(|at| *at > now).unwrap_or(now)
}

/// Returns when the quiet hours end that it is at `now`.
fn end(quiet: &Quiet, now: Timestamp) -> Option<Timestamp> {
    let time = quiet.zone.time_of_day(now);
    let is_quiet = if quiet.from < quiet.until {
        (quiet.from..quiet.until).contains(&time)
    } else {
        time >= quiet.from || time < quiet.until
    };
    // Where the clocks go back, a time of day comes twice: the hours end the first time.
    let is_over =
        time < quiet.until && quiet.zone.instant(quiet.zone.date(now), quiet.until) <= now;
    (is_quiet && !is_over).then(|| next(&quiet.zone, quiet.until, now))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Config;
    use crate::fixtures::settings;

    fn channel(more: &Value) -> Channel {
        let mut channel = json!({"name": "team", "kind": "slack", "url_secret": "SLACK",
                "timezone": "America/New_York"});
        channel
            .as_object_mut()
            .expect("a table")
            .extend(more.as_object().cloned().unwrap_or_default());
        let value = json!({"pairs": [settings()], "channels": [channel]});
        Config::from_value(&value).expect("the configuration is complete").channels.remove(0)
    }

    fn told(channel: &Channel, kind: NoticeKind, now: &str) -> (String, bool) {
        let (at, is_digest) = first_attempt(channel, kind, now.parse().expect("an instant"));
        (at.to_rfc3339(), is_digest)
    }

    #[test]
    fn quiet_hours_hold_back_what_is_not_urgent_until_they_end() {
        let channel = channel(&json!({"quiet_from": "22:00", "quiet_until": "07:00"}));
        let at = |kind, now| told(&channel, kind, now).0;
        assert_eq!(
            at(NoticeKind::Succeeded, "2026-11-21T10:04:00Z"),
            "2026-11-21T12:00:00+00:00",
            "5:04 in the morning"
        );
        assert_eq!(
            at(NoticeKind::Succeeded, "2026-11-21T03:00:00Z"),
            "2026-11-21T12:00:00+00:00",
            "10 in the evening"
        );
        assert_eq!(
            at(NoticeKind::Succeeded, "2026-11-21T12:00:00Z"),
            "2026-11-21T12:00:00+00:00",
            "7 sharp"
        );
        assert_eq!(at(NoticeKind::Failed, "2026-11-21T10:04:00Z"), "2026-11-21T10:04:00+00:00");
        assert_eq!(at(NoticeKind::Resolved, "2026-11-21T10:04:00Z"), "2026-11-21T10:04:00+00:00");
    }

    #[test]
    fn quiet_hours_within_a_day_hold_back_what_is_urgent_where_that_is_configured() {
        let channel = channel(
            &json!({"quiet_from": "12:00", "quiet_until": "13:00", "quiet_for_urgent": true}),
        );
        assert_eq!(
            told(&channel, NoticeKind::Failed, "2026-11-21T17:30:00Z").0,
            "2026-11-21T18:00:00+00:00"
        );
        assert_eq!(
            told(&channel, NoticeKind::Failed, "2026-11-21T16:30:00Z").0,
            "2026-11-21T16:30:00+00:00"
        );
    }

    #[test]
    fn quiet_hours_end_at_the_local_time_also_when_the_clocks_change() {
        let channel = channel(&json!({"quiet_from": "22:00", "quiet_until": "07:00"}));
        assert_eq!(
            told(&channel, NoticeKind::Succeeded, "2026-11-01T04:30:00Z").0,
            "2026-11-01T12:00:00+00:00"
        );
        assert_eq!(
            told(&channel, NoticeKind::Succeeded, "2026-03-08T04:30:00Z").0,
            "2026-03-08T11:00:00+00:00"
        );
    }

    #[test]
    fn quiet_hours_end_once_where_their_end_comes_twice() {
        let channel = channel(&json!({"quiet_from": "22:00", "quiet_until": "01:30"}));
        assert_eq!(
            told(&channel, NoticeKind::Succeeded, "2026-11-01T05:10:00Z").0,
            "2026-11-01T05:30:00+00:00"
        );
        assert_eq!(
            told(&channel, NoticeKind::Succeeded, "2026-11-01T06:10:00Z").0,
            "2026-11-01T06:10:00+00:00",
            "the second 01:10"
        );
    }

    #[test]
    fn a_digest_gathers_what_is_not_urgent() {
        let channel = channel(&json!({"digest_at": "09:00"}));
        assert_eq!(
            told(&channel, NoticeKind::Succeeded, "2026-11-21T10:04:00Z"),
            ("2026-11-21T14:00:00+00:00".to_owned(), true)
        );
        assert_eq!(
            told(&channel, NoticeKind::AtRisk, "2026-11-21T14:00:00Z"),
            ("2026-11-22T14:00:00+00:00".to_owned(), true)
        );
        assert_eq!(
            told(&channel, NoticeKind::Missed, "2026-11-21T10:04:00Z"),
            ("2026-11-21T10:04:00+00:00".to_owned(), false)
        );
        assert!(!told(&channel, NoticeKind::Test, "2026-11-21T10:04:00Z").1);
    }
}
