//! What a tick knows of the notices that are on their way, of channels and of incidents.
//!
//! Invariants: of one incident a channel is given an earlier notice before a later one, as far as
//! KV lets this tick know. A channel that is slow or gone delays no other.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Context;
use crate::config::{NoticeKind, Pair};
use crate::id::{ChannelName, PairName, RunId};
use crate::ordered;
use crate::port::{Level, Recall as _, World};
use crate::record::{self, Channels};
use crate::sync::checkpoint::{Checkpoint, History, RunStatus};
use crate::sync::incident::{self, Incident, Resolution};
use crate::sync::notice::{self, Notice, Outgoing};
use crate::time::{Timestamp, between};

/// How long a notice is looked for that is listed and was never found: its write was refused.
const NOT_STORED: Duration = Duration::from_mins(30);

/// The state of a tick beside its run.
#[derive(Default)]
pub(super) struct Desk {
    /// The last incident of each pair that could be read.
    pub(super) incidents: RefCell<BTreeMap<PairName, Option<Incident>>>,
    /// Notices that some channel has not taken, in no order.
    pub(super) waiting: RefCell<Vec<Outgoing>>,
    /// The ids of notices that were read or told in this tick. One that was not may be there all
    /// the same: a read may be a minute old.
    pub(super) found: RefCell<BTreeSet<String>>,
    /// Notices that were taken while a run was driven, and are stored as they were before that. The
    /// checkpoint of the run has them as well, for whoever asks before they are stored.
    pub(super) settled: RefCell<Vec<Outgoing>>,
    /// Whether what is known of channels was read.
    pub(super) is_channels_known: Cell<bool>,
    /// What is known of channels.
    pub(super) channels: RefCell<Channels>,
    /// The pairs whose incident has changed since it was stored.
    pub(super) unstored: RefCell<BTreeSet<PairName>>,
    /// When the last run of each pair was begun, and when a tick last left it.
    pub(super) driven: RefCell<Vec<(PairName, Timestamp, Timestamp)>>,
    /// How long runs take, of the pairs of which enough are known.
    pub(super) lengths: RefCell<BTreeMap<PairName, Duration>>,
}

impl Desk {
    /// Returns the pair's last incident; `None` where there is none, or where it could not be read.
    pub(super) fn incident(&self, pair: &PairName) -> Option<Incident> {
        self.incidents.borrow().get(pair).cloned().flatten()
    }

    /// Returns what comes before a notice in its incident and one of these channels did not take,
    /// the oldest first.
    pub(super) fn ahead_of(&self, outgoing: &Outgoing, channels: &[&ChannelName]) -> Vec<Outgoing> {
        let waiting = self.waiting.borrow();
        let is_ahead = |earlier: &&Outgoing| {
            channels.iter().any(|channel| outgoing.waits_for(earlier, channel))
        };
        let mut ahead: Vec<Outgoing> = waiting.iter().filter(is_ahead).cloned().collect();
        ordered::sort_by(&mut ahead, |left, right| left.order().cmp(&right.order()));
        ahead
    }

    /// Remembers notices that were read after the beginning of the tick, where this tick does not
    /// know better.
    pub(super) fn meet(&self, read: &[Outgoing]) {
        for outgoing in read {
            if self.found.borrow_mut().insert(outgoing.notice.id.clone())
                && !outgoing.is_delivered()
            {
                self.waiting.borrow_mut().push(outgoing.clone());
            }
        }
    }

    /// Returns the other pairs whose run was driven at some time between two instants.
    pub(super) fn driven_between(
        &self,
        pair: &PairName,
        from: Timestamp,
        until: Timestamp,
    ) -> Vec<PairName> {
        let driven = self.driven.borrow();
        let is_between = |(name, began, left): &&(PairName, Timestamp, Timestamp)| {
            name != pair && *began <= until && *left > from
        };
        driven.iter().filter(is_between).map(|(name, ..)| name.clone()).collect()
    }

    /// Remembers when the last run of a pair was driven, and how long its runs take.
    pub(super) fn learn(&self, last: &Checkpoint) {
        let left_at = last
            .left_at
            .or(last.verdict.as_ref().map(|verdict| verdict.at))
            .unwrap_or(last.started_at);
        // The second pruning comes half a day later, and takes a moment.
        let until = if last.prune.swept_at.is_some() {
            last.verdict.as_ref().map_or(left_at, |verdict| verdict.at)
        } else {
            left_at
        };
        self.driven.borrow_mut().push((last.pair.clone(), last.started_at, until));
        if let Some(long) = History::after(Some(last)).long_run() {
            self.lengths.borrow_mut().insert(last.pair.clone(), long);
        }
    }

    /// Remembers a notice as waiting, or as settled.
    pub(super) fn keep(&self, outgoing: &Outgoing) {
        self.found.borrow_mut().insert(outgoing.notice.id.clone());
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|other| other.notice.id != outgoing.notice.id);
        if !outgoing.is_delivered() {
            waiting.push(outgoing.clone());
        }
    }
}

impl Desk {
    /// Returns whether every channel has taken a notice, as far as this tick has seen.
    pub(super) fn is_settled(&self, id: &String) -> bool {
        self.found.borrow().contains(id)
            && !self.waiting.borrow().iter().any(|waiting| waiting.notice.id == *id)
    }
}

impl<W: World> Context<'_, W> {
    /// Gives a notice the incident that it opens or joins. Returns whether the incident has
    /// changed.
    pub(super) fn take_up(&self, notice: &mut Notice) -> bool {
        let current = self.desk.incident(&notice.pair);
        let Some(incident) = incident::take_up(current.as_ref(), notice) else { return false };
        notice.incident = Some(incident.id.clone());
        let mut incidents = self.desk.incidents.borrow_mut();
        // What could not be read is not written over: the notice names the incident, which is
        // opened again from it.
        let Some(known) = incidents.get_mut(&notice.pair) else { return false };
        let is_changed = known.as_ref() != Some(&incident);
        *known = Some(incident);
        if is_changed {
            self.desk.unstored.borrow_mut().insert(notice.pair.clone());
        }
        is_changed
    }

    /// Stores the incident of a pair as this tick knows it. One that is not stored is opened again
    /// from its notices.
    pub(super) async fn store_incident(&self, pair: &PairName) {
        let Some(incident) = self.desk.incident(pair) else { return };
        let key = record::incident_key(pair);
        match self.write(&key, &record::encode(&incident), None).await {
            Ok(()) => drop(self.desk.unstored.borrow_mut().remove(pair)),
            Err(error) => self.log(
                Level::Error,
                "incident not stored",
                &[("key", key), ("error", error.to_string())],
            ),
        }
    }

    /// Sees to the incident of a pair whose run was driven: stores it, and ends it when the run was
    /// a good one. What the budget leaves no room for, the next tick does from the notices and the
    /// checkpoint.
    pub(super) async fn settle_incident(&self, pair: &Pair, run: &Checkpoint) {
        if self.desk.unstored.borrow().contains(&pair.name) && self.has_room(1) {
            self.store_incident(&pair.name).await;
        }
        for outgoing in self.desk.settled.take() {
            if self.has_room(1) {
                self.store_notice(&outgoing).await;
            }
        }
        let is_resolved = || {
            self.desk
                .incident(&pair.name)
                .is_some_and(|incident| incident.resolution_by(run).is_some())
        };
        if is_resolved() && self.has_room(2) {
            self.catch_up(pair, &run.run).await;
        }
        if is_resolved() && self.has_room_to_tell() {
            self.resolve(pair, run).await;
        }
    }

    /// Reads again what is known of the pair's incident: the run has taken a while, and a tick
    /// before it may not have been seen by this one.
    async fn catch_up(&self, pair: &Pair, run: &RunId) {
        let Some(mut incident) = self.desk.incident(&pair.name) else { return };
        let Ok((_, stored, notices)) = self.read_incident(pair, Some(run)).await else { return };
        if let Some(stored) = stored {
            incident.catch_up(stored);
            self.desk.incidents.borrow_mut().insert(pair.name.clone(), Some(incident));
        }
        self.desk.meet(&notices);
    }

    /// Ends the incident of a run whose end could not be recorded at first: it was told directly
    /// and stands on no record, and now it has succeeded.
    async fn end_unrecorded(&self, pair: &Pair, run: &Checkpoint, now: Timestamp) {
        let Some(told_at) = self
            .world
            .noted_at(&notice::stuck_id(run))
            .filter(|_| run.status() == RunStatus::Succeeded)
        else {
            return;
        };
        let is_known = |incident: Incident| {
            incident.is_open() || incident.joined.contains(&notice::stuck_id(run))
        };
        if self.desk.incident(&pair.name).is_some_and(is_known) || !self.has_room_to_tell() {
            return;
        }
        let Some(mut stuck) = notice::of_unrecorded_run(run, pair, &self.config.label, told_at)
        else {
            return;
        };
        self.take_up(&mut stuck);
        let incident = self.desk.incident(&pair.name);
        self.end_incident(
            pair,
            incident
                .map(|incident| Resolution { at: incident.next_notice(now), run: run.run.clone() }),
        )
        .await;
    }

    /// Returns whether there is room to tell something: the notice twice, the incident, and one
    /// request for each channel. What there is no room for is told by the next tick.
    pub(super) fn has_room_to_tell(&self) -> bool {
        self.has_room(3 + self.channel_count())
    }

    /// Returns how many channels there are, each of which may take a request.
    pub(super) fn channel_count(&self) -> u32 {
        u32::try_from(self.config.channels.len()).unwrap_or(u32::MAX)
    }

    /// Sees to the incident of a pair at the beginning of a tick: opens it again where its record
    /// was lost, resolves it by the last run, tells people again who have not answered.
    pub(super) async fn see_to_incident(
        &self,
        pair: &Pair,
        last: Option<&Checkpoint>,
        told: &[Notice],
        now: Timestamp,
    ) {
        self.recover(pair, told).await;
        if let Some(run) = last.filter(|run| run.is_published) {
            self.end_unrecorded(pair, run, now).await;
            self.resolve(pair, run).await;
        }
        self.resolve_by_told(pair, told, now).await;
        self.forget_taken(pair, now).await;
        let Some(mut incident) = self.desk.incident(&pair.name) else { return };
        let Some(due) =
            incident::due(&incident, pair, self.config, now).filter(|_| self.has_room_to_tell())
        else {
            return;
        };
        let told_at = incident.next_notice(due.at);
        let notice = notice::of_escalation(&incident, &due, pair, &self.config.label, told_at);
        let channels: Vec<_> = match &due.channels {
            Some(names) => self
                .config
                .channels
                .iter()
                .filter(|channel| names.contains(&channel.name))
                .collect(),
            None => self
                .config
                .channels
                .iter()
                .filter(|channel| channel.hears(&pair.name, NoticeKind::Escalated))
                .collect(),
        };
        self.log(
            Level::Warn,
            "incident escalated",
            &[("incident", incident.id.clone()), ("notice", notice.id.clone())],
        );
        incident.escalated(&due, told_at, now);
        self.send_of_incident(incident, Outgoing::to(notice, &channels, now), now).await;
    }

    /// Ends the pair's incident when the run was a good one.
    pub(super) async fn resolve(&self, pair: &Pair, run: &Checkpoint) {
        let resolution =
            self.desk.incident(&pair.name).and_then(|incident| incident.resolution_by(run));
        self.end_incident(pair, resolution).await;
    }

    /// Ends the pair's incident when it was opened by what the success of the same run contradicts.
    pub(super) async fn resolve_by_told(&self, pair: &Pair, told: &[Notice], now: Timestamp) {
        let resolution = self
            .desk
            .incident(&pair.name)
            .and_then(|incident| incident.resolution_by_told(told, now));
        self.end_incident(pair, resolution.filter(|_| self.has_room_to_tell())).await;
    }

    /// Ends the pair's incident when nothing but a snapshot was wrong, which is verified after all.
    pub(super) async fn resolve_by_snapshot(&self, pair: &Pair, run: &Checkpoint, now: Timestamp) {
        let resolution = self
            .desk
            .incident(&pair.name)
            .and_then(|incident| incident.resolution_by_snapshot(&run.run, now));
        let resolution = resolution.filter(|_| self.has_room_to_tell());
        self.end_incident(pair, resolution).await;
    }

    /// Ends the pair's incident, and tells people so.
    async fn end_incident(&self, pair: &Pair, resolution: Option<Resolution>) {
        let (Some(mut incident), Some(resolution)) = (self.desk.incident(&pair.name), resolution)
        else {
            return;
        };
        let notice = notice::of_resolution(&incident, &resolution, pair, &self.config.label);
        let now = resolution.at;
        self.log(
            Level::Info,
            "incident resolved",
            &[("incident", incident.id.clone()), ("run", resolution.run.to_string())],
        );
        incident.resolution = Some(resolution);
        // Who was told of an escalation alone hears that it is over as well.
        let escalated = self.config.escalations.iter().flat_map(|escalation| &escalation.channels);
        let escalated: Vec<_> = escalated
            .filter(|_| incident.escalations > 0 || incident.business_day.is_some())
            .collect();
        let hears = |channel: &&crate::config::Channel| {
            channel.hears(&pair.name, NoticeKind::Resolved) || escalated.contains(&&channel.name)
        };
        let channels: Vec<_> = self.config.channels.iter().filter(hears).collect();
        self.send_of_incident(incident, Outgoing::to(notice, &channels, now), now).await;
    }

    /// Opens the incident again that a notice names and nobody remembers.
    async fn recover(&self, pair: &Pair, told: &[Notice]) {
        // One that cannot be read is not written over.
        if !self.desk.incidents.borrow().contains_key(&pair.name) {
            return;
        }
        for notice in told.iter().filter(|notice| notice.kind.is_trouble()) {
            let current = self.desk.incident(&pair.name);
            let Some(incident) = Incident::recover(notice, current.as_ref()) else { continue };
            self.log(
                Level::Warn,
                "incident opened again",
                &[("incident", incident.id.clone()), ("notice", notice.id.clone())],
            );
            self.desk.incidents.borrow_mut().insert(pair.name.clone(), Some(incident));
            self.store_incident(&pair.name).await;
        }
    }

    /// Sends a notice of an incident. Both are stored first: a tick that dies after that is known
    /// to have told it, and the next one sends the same.
    async fn send_of_incident(
        &self,
        mut incident: Incident,
        mut outgoing: Outgoing,
        now: Timestamp,
    ) {
        self.put_up(&mut outgoing, now).await;
        incident.list(&outgoing.notice.id, now);
        let pair = incident.pair.clone();
        self.desk.incidents.borrow_mut().insert(pair.clone(), Some(incident));
        self.store_incident(&pair).await;
        self.deliver(&mut outgoing, now).await;
    }

    /// Strikes notices off the incident's list that every channel has taken, and lists those that
    /// are missing.
    async fn forget_taken(&self, pair: &Pair, now: Timestamp) {
        let Some(mut incident) = self.desk.incident(&pair.name) else { return };
        let before = incident.outbox.len();
        // One that was never stored is looked for no longer than a read may be old, many times
        // over.
        let listed_at = incident.listed_at;
        let is_given_up = |id: &String| {
            !self.desk.found.borrow().contains(id) && between(listed_at, now) > NOT_STORED
        };
        incident.outbox.retain(|id| !self.desk.is_settled(id) && !is_given_up(id));
        // What another tick has told and this record does not know of, because that tick did not
        // see ours.
        for waiting in self
            .desk
            .waiting
            .borrow()
            .iter()
            .filter(|waiting| waiting.notice.incident.as_ref() == Some(&incident.id))
        {
            if !incident.outbox.contains(&waiting.notice.id) {
                incident.outbox.push(waiting.notice.id.clone());
            }
        }
        if incident.outbox.len() != before {
            self.desk.incidents.borrow_mut().insert(pair.name.clone(), Some(incident));
            self.store_incident(&pair.name).await;
        }
    }
}
