//! What people are told, and how far its delivery is.
//!
//! In: a run that ended, a day that was missed, an incident. Out: a [`Notice`] with a deterministic
//! id; [`encode()`] writes it for a channel.
//!
//! Invariants: a notice holds no secret. Its id is derived from pair, run and kind, so that a
//! receiver can drop a second copy. Of one incident a channel is given an earlier notice before a
//! later one.

mod channels;
mod drift;
mod encode;
mod hours;
mod incidents;
mod words;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::channels::{of_digest, of_disabled_channel, of_misconfigured, of_test};
pub use self::encode::{
    Letter, Unsendable, encode, refusal, report_link, run_uuid, runbook_link, sign, start_ping,
};
pub use self::hours::first_attempt;
pub use self::incidents::{of_escalation, of_resolution};
pub use self::words::{
    crowded_out, of_at_risk, of_contradiction, of_crowded_out_day, of_late_run, of_late_start,
    of_missed_day, of_missed_deadline, of_overtaken_run, of_run, of_silent_store, of_snapshot,
    of_stuck_pair, of_unrecorded_run, stuck_id,
};
use crate::config::{Channel, NoticeKind, Severity};
use crate::id::{ChannelName, PairName, RunId};
use crate::time::{Timestamp, after, millis};

/// Attempts to deliver a notice to one channel.
///
/// Source: Standard Webhooks 1.0, "Retry schedule": immediately, then after each of the waits of
/// [`redelivery_wait`].
pub const MOST_ATTEMPTS: u32 = 10;

/// Attempts of one channel that are remembered: those of the schedule, and as many that people have
/// asked for.
const ATTEMPTS_LOGGED: usize = 20;

/// The longest wait that a receiver may ask for: the longest of the schedule.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// Something people are told.
///
/// Shape:
/// `{"id":"hub/20261121/failed","kind":"failed","pair":"hub","run":"20261121","at":"…","subject":"…","text":"…","warnings":[],"runbook":"…","incident":"hub-20261121"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// `<pair>/<run>/<kind>`.
    pub id: String,
    /// What it is about.
    pub kind: NoticeKind,
    /// Whose run.
    pub pair: PairName,
    /// Which run.
    pub run: RunId,
    /// When it happened.
    #[serde(with = "millis")]
    pub at: Timestamp,
    /// One line.
    pub subject: String,
    /// A few sentences.
    pub text: String,
    /// What people should know although it stopped nothing.
    pub warnings: Vec<String>,
    /// The page of `runbooks/` to open; missing when there is nothing to do.
    pub runbook: Option<String>,
    /// The incident that it opens, joins, escalates or resolves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
}

impl Notice {
    /// Returns how much it matters.
    pub fn severity(&self) -> Severity {
        self.kind.severity()
    }
}

/// A notice and how far its delivery is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// The version of this shape.
    pub format: u32,
    /// The notice.
    pub notice: Notice,
    /// One for each channel.
    pub deliveries: Vec<Delivery>,
}

/// How far the delivery to one channel is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Which channel.
    pub channel: ChannelName,
    /// Attempts so far.
    pub attempts: u32,
    /// When it was taken; missing while it was not.
    #[serde(with = "millis::option")]
    pub delivered_at: Option<Timestamp>,
    /// The next attempt is at this instant or later.
    #[serde(with = "millis")]
    pub next_at: Timestamp,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// The digest that it waits for; missing where it goes alone.
    #[serde(default, with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub digest_at: Option<Timestamp>,
    /// Why it is not tried any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<String>,
    /// Every attempt, the oldest first; at most twenty.
    #[serde(default)]
    pub log: Vec<Attempt>,
}

/// One attempt to deliver.
///
/// Shape: `{"at":"2026-11-21T10:04:00.000Z","took_ms":182,"answered":204}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began.
    #[serde(with = "millis")]
    pub at: Timestamp,
    /// How long it took.
    pub took_ms: u64,
    /// The status that the receiver answered with; missing when it did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<u16>,
    /// What went wrong; missing when the notice was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Attempt {
    /// Returns when it was over.
    fn ended_at(&self) -> Timestamp {
        after(self.at, Duration::from_millis(self.took_ms))
    }
}

impl Delivery {
    /// Begins the delivery to a channel.
    fn new(channel: &Channel, notice: &Notice, now: Timestamp) -> Self {
        let (next_at, is_digest) = first_attempt(channel, notice.kind, now);
        Self {
            channel: channel.name.clone(),
            attempts: 0,
            delivered_at: None,
            next_at,
            last_error: None,
            digest_at: is_digest.then_some(next_at),
            given_up: None,
            log: Vec::new(),
        }
    }

    /// Returns whether nothing more is tried.
    pub fn is_settled(&self) -> bool {
        self.delivered_at.is_some() || self.given_up.is_some()
    }

    /// Returns whether it is to be tried.
    pub fn is_due(&self, now: Timestamp) -> bool {
        !self.is_settled() && self.next_at <= now
    }

    /// Notes an attempt. `wait` is what the receiver asked for; `is_final` says that trying again
    /// is in vain.
    pub fn note(&mut self, attempt: Attempt, wait: Option<Duration>, is_final: bool) {
        let ended_at = attempt.ended_at();
        self.attempts += 1;
        self.last_error.clone_from(&attempt.error);
        match &attempt.error {
            None => self.delivered_at = Some(ended_at),
            Some(error) if is_final || self.attempts >= MOST_ATTEMPTS => {
                self.given_up = Some(format!("{error}; after {} attempts", self.attempts));
            }
            Some(_) => {
                self.next_at = after(
                    ended_at,
                    redelivery_wait(self.attempts).max(wait.unwrap_or_default().min(LONGEST_WAIT)),
                );
            }
        }
        if self.log.len() == ATTEMPTS_LOGGED {
            self.log.remove(0);
        }
        self.log.push(attempt);
    }

    /// Makes it due at once, and begins its attempts again: something is to be told that comes
    /// after it.
    fn hasten(&mut self, now: Timestamp) {
        // One that was never tried waits for an end of quiet hours or for its turn.
        let Some(last) = self.log.last().filter(|_| !self.is_settled() && self.attempts > 0) else {
            return;
        };
        let is_asked_to_wait =
            self.next_at > after(last.ended_at(), redelivery_wait(self.attempts));
        if !is_asked_to_wait {
            (self.attempts, self.next_at) = (0, self.next_at.min(now));
        }
    }

    /// Takes over that it is settled, where another tick has seen to it.
    fn settle_as(&mut self, other: &Self) {
        if other.is_settled() && !self.is_settled() {
            self.clone_from(other);
        }
    }

    /// Begins again, because somebody asked for it.
    pub fn redeliver(&mut self, now: Timestamp) {
        (self.delivered_at, self.given_up, self.digest_at) = (None, None, None);
        (self.attempts, self.next_at) = (0, now);
    }
}

impl Outgoing {
    /// Puts a notice up for delivery to every channel that hears of it.
    pub fn new(notice: Notice, channels: &[Channel], now: Timestamp) -> Self {
        let hearing = channels.iter().filter(|channel| channel.hears(&notice.pair, notice.kind));
        let deliveries = hearing.map(|channel| Delivery::new(channel, &notice, now)).collect();
        Self { format: 1, notice, deliveries }
    }

    /// Puts a notice up for delivery to these channels, whatever else they hear.
    pub fn to(notice: Notice, channels: &[&Channel], now: Timestamp) -> Self {
        let deliveries =
            channels.iter().map(|channel| Delivery::new(channel, &notice, now)).collect();
        Self { format: 1, notice, deliveries }
    }

    /// Returns whether every channel has taken it, or will not be tried any more.
    pub fn is_delivered(&self) -> bool {
        self.deliveries.iter().all(Delivery::is_settled)
    }

    /// Takes over what another tick has settled, as it stored it.
    pub fn settle_as(&mut self, stored: &Self) {
        for delivery in &mut self.deliveries {
            if let Some(other) =
                stored.deliveries.iter().find(|other| other.channel == delivery.channel)
            {
                delivery.settle_as(other);
            }
        }
    }

    /// Makes what these channels did not take due at once, and begins its attempts again; but where
    /// a receiver has asked for time.
    pub fn hasten(&mut self, channels: &[&ChannelName], now: Timestamp) {
        for delivery in
            self.deliveries.iter_mut().filter(|delivery| channels.contains(&&delivery.channel))
        {
            delivery.hasten(now);
        }
    }

    /// Returns what puts notices in the order in which they happened.
    pub fn order(&self) -> (Timestamp, &str) {
        (self.notice.at, &self.notice.id)
    }

    /// Returns whether it waits for an earlier notice of its incident that the channel has not
    /// taken.
    pub fn waits_for(&self, earlier: &Self, channel: &ChannelName) -> bool {
        let is_of_same =
            self.notice.incident.is_some() && self.notice.incident == earlier.notice.incident;
        is_of_same
            && earlier.order() < self.order()
            && earlier
                .deliveries
                .iter()
                .any(|delivery| delivery.channel == *channel && !delivery.is_settled())
    }
}

/// Returns the wait after an attempt that failed.
///
/// Source: Standard Webhooks 1.0, "Retry schedule": 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h,
/// 24 h.
pub fn redelivery_wait(attempts: u32) -> Duration {
    const SECONDS: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
    let index =
        usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX).min(SECONDS.len() - 1);
    Duration::from_secs(SECONDS[index])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::fixtures::{pair, settings};

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    fn channel() -> Channel {
        let value = serde_json::json!({"pairs": [settings()],
                "channels": [{"name": "on-call", "kind": "slack", "url_secret": "SLACK"}]});
        Config::from_value(&value).expect("the configuration is complete").channels.remove(0)
    }

    fn outgoing(kind: &str, told_at: &str) -> Outgoing {
        let now = at(told_at);
        let run = RunId::decode("20261121").expect("a date");
        let notice = of_missed_day(&pair(), &run, "Hub", now);
        let notice = Notice {
            id: format!("hub/20261121/{kind}"),
            incident: Some("hub-20261121".to_owned()),
            ..notice
        };
        Outgoing::new(notice, &[channel()], now)
    }

    fn refused(at: Timestamp) -> Attempt {
        Attempt { at, took_ms: 1_000, answered: Some(500), error: Some("answered 500".to_owned()) }
    }

    #[test]
    fn a_notice_is_tried_ten_times_over_three_days_and_then_given_up() {
        let mut delivery = outgoing("missed", "2026-11-21T11:00:00Z").deliveries.remove(0);
        let mut now = at("2026-11-21T11:00:00Z");
        for number in 1..=MOST_ATTEMPTS {
            assert!(delivery.is_due(now), "attempt {number}");
            delivery.note(refused(now), None, false);
            now = delivery.next_at;
        }
        assert_eq!(
            now - at("2026-11-21T11:00:00Z"),
            chrono::TimeDelta::seconds(
                9 + 5 + 300 + 1_800 + 7_200 + 18_000 + 36_000 + 50_400 + 72_000 + 86_400
            )
        );
        assert_eq!(delivery.given_up.as_deref(), Some("answered 500; after 10 attempts"));
        assert!(!delivery.is_due(at("2026-12-21T11:00:00Z")));
        delivery.redeliver(now);
        assert!(delivery.is_due(now));
        assert_eq!(delivery.log.len(), 10, "what was tried stays known");
    }

    #[test]
    fn a_receiver_that_asks_for_time_gets_it() {
        let now = at("2026-11-21T11:00:00Z");
        let mut delivery = outgoing("missed", "2026-11-21T11:00:00Z").deliveries.remove(0);
        delivery.note(refused(now), Some(Duration::from_secs(90)), false);
        assert_eq!(delivery.next_at, at("2026-11-21T11:01:31Z"));
        delivery.note(refused(now), Some(Duration::from_secs(u64::MAX)), false);
        assert_eq!(delivery.next_at, at("2026-11-22T11:00:01Z"), "and no more than a day");
    }

    #[test]
    fn the_attempts_that_are_remembered_do_not_grow_without_end() {
        let now = at("2026-11-21T11:00:00Z");
        let mut delivery = outgoing("missed", "2026-11-21T11:00:00Z").deliveries.remove(0);
        for _ in 0..50 {
            delivery.redeliver(now);
            delivery.note(refused(now), None, false);
        }
        assert_eq!(delivery.log.len(), ATTEMPTS_LOGGED);
    }

    #[test]
    fn the_waits_begin_again_of_what_was_tried_and_of_nothing_else() {
        let now = at("2026-11-21T11:00:00Z");
        let fresh = outgoing("missed", "2026-11-21T11:00:00Z");
        let name = fresh.deliveries[0].channel.clone();
        let after = |change: &dyn Fn(&mut Delivery), channels: &[&ChannelName]| {
            let mut outgoing = fresh.clone();
            change(&mut outgoing.deliveries[0]);
            let before = outgoing.deliveries[0].clone();
            outgoing.hasten(channels, at("2026-11-21T11:10:00Z"));
            (before, outgoing.deliveries.remove(0))
        };
        let (tried, hastened) = after(
            &|delivery| (0..3).for_each(|_| delivery.note(refused(now), None, false)),
            &[&name],
        );
        assert_eq!(
            (hastened.attempts, hastened.next_at, hastened.log.len()),
            (0, at("2026-11-21T11:10:00Z"), 3)
        );
        assert!(tried.next_at > hastened.next_at);
        let is_left = |change: &dyn Fn(&mut Delivery), channels: &[&ChannelName]| {
            let (before, after) = after(change, channels);
            before == after
        };
        assert!(
            is_left(&|delivery| delivery.next_at = at("2026-11-21T12:00:00Z"), &[&name]),
            "it waits for the end of quiet hours"
        );
        assert!(
            is_left(
                &|delivery| delivery.note(Attempt { error: None, ..refused(now) }, None, false),
                &[&name]
            ),
            "it is taken"
        );
        assert!(
            is_left(&|delivery| delivery.note(refused(now), None, false), &[]),
            "another channel is asked"
        );
        assert!(
            is_left(
                &|delivery| delivery.note(refused(now), Some(Duration::from_hours(1)), false),
                &[&name]
            ),
            "it has asked for time"
        );
    }

    #[test]
    fn what_another_tick_has_settled_is_taken_over_and_nothing_else() {
        let now = at("2026-11-21T11:00:00Z");
        let mut ours = outgoing("missed", "2026-11-21T11:00:00Z");
        ours.deliveries[0].note(refused(now), None, false);
        let (before, mut stored) = (ours.clone(), outgoing("missed", "2026-11-21T11:00:00Z"));
        ours.settle_as(&stored);
        assert_eq!(ours, before, "it is older than ours");
        stored.deliveries[0].note(Attempt { error: None, ..refused(now) }, None, false);
        ours.settle_as(&stored);
        assert_eq!(ours, stored);
    }

    #[test]
    fn of_one_incident_a_channel_is_given_the_earlier_notice_first() {
        let mut opened = outgoing("missed", "2026-11-21T11:00:00Z");
        let escalated = outgoing("escalated-1", "2026-11-21T11:15:00Z");
        let name = escalated.deliveries[0].channel.clone();
        assert!(escalated.waits_for(&opened, &name) && !opened.waits_for(&escalated, &name));
        opened.deliveries[0].note(
            Attempt { error: None, ..refused(at("2026-11-21T11:20:00Z")) },
            None,
            false,
        );
        assert!(!escalated.waits_for(&opened, &name));
        let mut other = outgoing("missed", "2026-11-21T11:00:00Z");
        other.notice.incident = Some("hub-20261120".to_owned());
        assert!(!escalated.waits_for(&other, &name), "it is of another incident");
    }

    #[test]
    fn redelivery_waits_longer_each_time() {
        assert_eq!(redelivery_wait(1), Duration::from_secs(5));
        assert_eq!(redelivery_wait(40), Duration::from_hours(24));
    }
}
