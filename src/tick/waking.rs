//! Says of which pairs a tick reads everything, and of which no more than it has to.
//!
//! In: a pair, its checkpoint and its incident. Out: a [`Glance`].
//!
//! KV bills each key that is read, also one that is not there. All that is remembered of a pair are
//! 32 keys. A tick that has nothing to do reads two of them, the checkpoint and the incident, and
//! one for all channels: 1 + 2 keys a pair. Everything is read of a pair that is *awake*:
//!
//! - a run is under way, wants its second pruning, or was left by a tick within the last hour;
//! - the day's run may start, or was to start and is not the last one, until an hour after its
//!   window;
//! - the deadline has passed within the last hour, and nothing has succeeded;
//! - its incident was opened within the last hour, or is about to be resolved;
//! - the checkpoint or the incident cannot be read.
//!
//! Of one that sleeps, single keys are read where checkpoint, incident or settings ask for them.
//! These are notices that they list, who knows of an incident that is to be escalated, and
//! *doubts*. A doubt is the result of a day that should have one, or a notice that should have been
//! told of a deadline that has passed or of settings that cannot be used. A doubt that is not there
//! wakes the pair.
//!
//! Invariants: nobody waits for a tick that does not look. A tick acts on a record only if the
//! clock, the checkpoint, the incident or `channels` says that it may be there. The API keeps to
//! that: `POST /runs` writes the checkpoint, `redeliver` lists its notice in `channels`. An order
//! to cancel and a hold are read by the run itself before it writes. An acknowledgement only keeps
//! people from being told, and is read when they are about to be.
//!
//! Failure: a notice that a killed tick has stored and listed nowhere is found within the hour, by
//! an awake pair. Where no tick ran for that hour, by the first one of the next window.
//!
//! Source: Workers KV, pricing, 2026-09-05: "all operations made against your KV namespaces are
//! billed"; bulk reads are billed per key. Free: 100,000 reads a day.

use std::time::Duration;

use crate::config::{Config, NoticeKind, Pair};
use crate::record;
use crate::sync::checkpoint::{Checkpoint, History};
use crate::sync::incident::{self, Incident};
use crate::sync::schedule::{self, Day};
use crate::time::{Timestamp, after, between};

/// How long everything is read of a pair after something has happened: longer than a read may be
/// old.
const RECENT: Duration = Duration::from_hours(1);

/// What a tick reads of a pair beside its checkpoint and its incident.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Glance {
    /// Everything.
    Awake,
    /// Single keys.
    Asleep {
        /// What wakes it where it is not there.
        doubts: Vec<String>,
        /// Keys that are looked at.
        keys: Vec<String>,
    },
}

/// For how long after its start a pair is taken to be awake by the clock alone: three ticks.
const STARTING: Duration = Duration::from_mins(15);

/// Returns whether the day's run is about to start, by the clock alone. Its records are then read
/// in the first request: a second one costs a subrequest, of which a run needs every one.
pub(super) fn is_starting(pair: &Pair, now: Timestamp) -> bool {
    let day = schedule::today(pair, &History::default(), now);
    let until = day.latest_start.min(after(day.start_at, STARTING));
    day.has_run && (day.start_at..=until).contains(&now)
}

/// Says what is to be read of a pair.
pub(super) fn glance(
    pair: &Pair,
    config: &Config,
    last: Option<&Checkpoint>,
    incident: Option<&Incident>,
    now: Timestamp,
) -> Glance {
    let history = History::after(last);
    let day = schedule::today(pair, &history, now);
    if is_recent(last, now)
        || is_in_window(pair, &day, last, &history, now)
        || is_unsettled(incident, last, now)
    {
        return Glance::Awake;
    }
    let yesterday = schedule::yesterday(pair, &history, now);
    let mut doubts: Vec<String> = Vec::new();
    if is_owed(&yesterday, last) {
        doubts.push(record::result_key(&pair.name, &yesterday.run));
    }
    let is_over = now > day.catch_up_until.max(day.deadline);
    if day.has_run && is_over && last.is_none_or(|last| last.run != day.run) {
        doubts.push(record::result_key(&pair.name, &day.run));
    }
    // A deadline that passed after the day's run had failed is told, also where no tick ran for
    // hours after it.
    let is_failed =
        day.has_run && now > day.deadline && last.is_some_and(|last| last.run == day.run);
    if is_failed && !history.has_succeeded(begins(pair, &day)) {
        doubts.push(record::notice_key(&format!(
            "{}/{}/{}",
            pair.name,
            day.run,
            NoticeKind::Late.as_str()
        )));
    }
    let is_escalated =
        incident.is_some_and(|incident| incident::due(incident, pair, config, now).is_some());
    let keys = if is_escalated { vec![record::acknowledged_key(&pair.name)] } else { Vec::new() };
    Glance::Asleep { doubts, keys }
}

/// Returns the key of the notice that tells of settings that cannot be used.
pub(super) fn misconfigured_key(pair: &Pair, now: Timestamp) -> String {
    let [run, _] = schedule::recent_runs(pair, now);
    record::notice_key(&format!("{}/{run}/{}", pair.name, NoticeKind::Misconfigured.as_str()))
}

/// Returns whether a date should have a result: the pair was there, had a run to do, and its last
/// run is an earlier one.
pub(super) fn is_owed(day: &Day, last: Option<&Checkpoint>) -> bool {
    day.has_run && last.is_some_and(|last| last.started_at < day.start_at && last.run != day.run)
}

/// Returns whether a run is under way, is to prune again, or was left a moment ago.
fn is_recent(last: Option<&Checkpoint>, now: Timestamp) -> bool {
    last.is_some_and(|last| {
        let ended_at = last.verdict.as_ref().map(|verdict| verdict.at);
        let since = last.left_at.max(ended_at).unwrap_or(last.started_at);
        !last.is_over() || last.wants_sweep(now) || between(since, now) < RECENT
    })
}

/// Returns whether the day's run may have to be started, told as missed or as late.
fn is_in_window(
    pair: &Pair,
    day: &Day,
    last: Option<&Checkpoint>,
    history: &History,
    now: Timestamp,
) -> bool {
    let is_started = last.is_some_and(|last| last.run == day.run);
    let ends_at = after(day.catch_up_until.max(day.deadline), RECENT);
    let may_start = !is_started && (day.start_at..ends_at).contains(&now);
    let is_failed = (day.deadline..after(day.deadline, RECENT)).contains(&now)
        && !history.has_succeeded(begins(pair, day));
    day.has_run && (may_start || is_failed)
}

/// Returns since when a success is one of the day.
fn begins(pair: &Pair, day: &Day) -> Timestamp {
    pair.zone.instant(day.date, pair.times.earliest_start)
}

/// Returns whether an incident may have to be resolved by what was told, or by the last run.
fn is_unsettled(incident: Option<&Incident>, last: Option<&Checkpoint>, now: Timestamp) -> bool {
    incident.filter(|incident| incident.is_open()).is_some_and(|incident| {
        let is_resolved = last.is_some_and(|last| incident.resolution_by(last).is_some());
        is_resolved || between(incident.opened_at, now) < RECENT
    })
}
