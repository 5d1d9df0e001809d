//! Sends notices, and keeps those that a channel has not taken.
//!
//! Invariants: a notice is stored before it is sent; channels are called side by side, and of one
//! channel what comes after a notice that it did not take is left for a later tick.
//!
//! Failure: what the store does not take is sent all the same, to each channel once an hour as far
//! as this instance remembers.

use std::time::Duration;

use serde_json::json;

use super::{Context, Memory};
use crate::config::{Channel, NoticeKind, Pair, Receiver};
use crate::id::ChannelName;
use crate::ordered;
use crate::port::{Clock as _, Http as _, Level, Recall as _, World};
use crate::record::{self, Disabled};
use crate::sync::checkpoint::{Checkpoint, Goal};
use crate::sync::notice::{
    self, Attempt, Delivery, Letter, Notice, Outgoing, Unsendable, encode, refusal,
};
use crate::sync::schedule;
use crate::time::{Timestamp, after, between, render_duration};

/// Requests for notices of earlier ticks that a tick makes before it sees to a run. One for each
/// channel that may be configured.
const REQUESTS_BEFORE_A_RUN: usize = 10;

/// Notices that one digest gathers: each of them is written down afterwards, so that one digest
/// fits [`WRITES_BEFORE_A_RUN`].
const MOST_GATHERED: usize = 10;

/// Writes of notices of earlier ticks before a tick sees to a run: with ten requests half of the 50
/// subrequests of an invocation.
const WRITES_BEFORE_A_RUN: usize = 15;

/// The time after which what could not be stored is told to a channel again.
const UNSTORED_AGAIN: Duration = Duration::from_hours(1);

/// How long a channel is left alone that answered 410 (gone), where nobody else hears what it would
/// be told.
const GONE_AGAIN: Duration = Duration::from_hours(24);

/// Notices that are listed beside those of runs and incidents.
const MOST_LISTED: usize = 30;

/// What is noted of a channel that has taken a notice.
fn taken_by(notice: &Notice, channel: &ChannelName) -> String {
    format!("{} taken by {channel}", notice.id)
}

/// What goes to a channel in one request: deliveries, by the place of the notice and of the
/// delivery.
struct Parcel {
    channel: ChannelName,
    places: Vec<(usize, usize)>,
    letter: Notice,
}

impl Parcel {
    fn holds(&self, place: usize) -> bool {
        self.places.iter().any(|(other, _)| *other == place)
    }
}

/// Returns how many parcels before this one go to its channel.
fn same_channel(parcels: &[Parcel], place: usize) -> usize {
    parcels[..place].iter().filter(|parcel| parcel.channel == parcels[place].channel).count()
}

/// What came of a request.
struct Answer {
    attempt: Attempt,
    wait: Option<Duration>,
    is_gone: bool,
}

impl<W: World> Context<'_, W> {
    /// Sends what earlier ticks have left and is due.
    pub(super) async fn deliver_waiting(&self, now: Timestamp) {
        let mut waiting = self.desk.waiting.take();
        ordered::sort_by(&mut waiting, |left, right| left.order().cmp(&right.order()));
        let recalled = waiting
            .iter_mut()
            .enumerate()
            .map(|(place, outgoing)| (place, self.recall_taken(outgoing, now)));
        let recalled: Vec<usize> =
            recalled.filter(|(_, is_changed)| *is_changed).map(|(place, _)| place).collect();
        let mut parcels = self.parcels(&waiting, now);
        // The first of every channel before the second of any: one that is gone for days must not
        // take all the places.
        let ranks: Vec<usize> =
            (0..parcels.len()).map(|place| same_channel(&parcels, place)).collect();
        let mut ranked: Vec<(usize, Parcel)> = ranks.into_iter().zip(parcels).collect();
        // Of those a digest, which takes many writes, after what goes alone.
        ordered::sort_by_key(&mut ranked, |(rank, parcel)| (*rank, parcel.places.len()));
        ranked.truncate(REQUESTS_BEFORE_A_RUN);
        let (mut requests, mut written): (usize, Vec<usize>) = (0, Vec::new());
        let is_within = |(_, parcel): &(usize, Parcel)| {
            requests += 1;
            for (place, _) in &parcel.places {
                if !written.contains(place) {
                    written.push(*place);
                }
            }
            written.len() <= WRITES_BEFORE_A_RUN
                && self.has_room(u32::try_from(requests + written.len()).unwrap_or(u32::MAX))
        };
        parcels = ranked.into_iter().take_while(is_within).map(|(_, parcel)| parcel).collect();
        let sent = self.send_all(&mut waiting, parcels).await;
        let mut is_stored = true;
        for (place, outgoing) in waiting.iter().enumerate() {
            // What is recalled is stored where the store takes it now.
            if sent.contains(&place) || (recalled.contains(&place) && is_stored && self.has_room(1))
            {
                is_stored &= self.store_notice(outgoing).await;
            }
        }
        waiting.retain(|outgoing| !outgoing.is_delivered());
        self.desk.waiting.borrow_mut().extend(waiting);
    }

    /// Strikes off what was taken from the list of the pair's last run.
    pub(super) async fn strike_taken(&self, memory: &mut Memory) {
        let Some(checkpoint) = memory.checkpoint.as_mut() else { return };
        let before = checkpoint.outbox.len();
        checkpoint.outbox.retain(|id| !self.desk.is_settled(id));
        if checkpoint.outbox.len() < before && checkpoint.is_over() {
            self.save(checkpoint).await;
        }
    }

    /// Puts what is due into parcels, for each channel in the order in which it happened.
    fn parcels(&self, waiting: &[Outgoing], now: Timestamp) -> Vec<Parcel> {
        let mut parcels: Vec<Parcel> = Vec::new();
        for (place, outgoing) in waiting.iter().enumerate() {
            for (of, delivery) in
                outgoing.deliveries.iter().enumerate().filter(|(_, delivery)| delivery.is_due(now))
            {
                // One that goes before it in this tick is no reason to wait: nothing more is tried
                // after one that is not taken.
                let is_sent = |earlier: usize| {
                    parcels
                        .iter()
                        .any(|parcel| parcel.channel == delivery.channel && parcel.holds(earlier))
                };
                let is_behind = |(earlier, other): (usize, &Outgoing)| {
                    outgoing.waits_for(other, &delivery.channel) && !is_sent(earlier)
                };
                let is_blocked = waiting.iter().enumerate().any(is_behind);
                let known = delivery.digest_at.and_then(|digest_at| {
                    let is_same = |parcel: &&mut Parcel| {
                        let (other, of) = parcel.places[0];
                        let is_of_digest =
                            waiting[other].deliveries[of].digest_at == Some(digest_at);
                        parcel.channel == delivery.channel
                            && is_of_digest
                            && parcel.places.len() < MOST_GATHERED
                    };
                    parcels.iter_mut().find(is_same)
                });
                if let Some(parcel) = known {
                    parcel.places.push((place, of));
                } else if !is_blocked {
                    let (channel, letter) = (delivery.channel.clone(), outgoing.notice.clone());
                    parcels.push(Parcel { channel, places: vec![(place, of)], letter });
                }
            }
        }
        for parcel in &mut parcels {
            let (first, of) = parcel.places[0];
            let Some(digest_at) = waiting[first].deliveries[of].digest_at else { continue };
            let gathered: Vec<&Notice> =
                parcel.places.iter().map(|(place, _)| &waiting[*place].notice).collect();
            if let Some(digest) =
                notice::of_digest(&gathered, &parcel.channel, &self.config.label, digest_at)
            {
                parcel.letter = digest;
            }
        }
        parcels
    }

    /// Sends parcels of these notices, and notes what came of it. Returns the places of those that
    /// have changed.
    async fn send_all(&self, notices: &mut [Outgoing], parcels: Vec<Parcel>) -> Vec<usize> {
        let mut changed = Vec::new();
        for (parcel, answer) in self.send_parcels(parcels).await {
            for (place, of) in &parcel.places {
                notices[*place].deliveries[*of].note(
                    answer.attempt.clone(),
                    answer.wait,
                    answer.is_gone,
                );
                changed.push(*place);
            }
        }
        changed
    }

    /// Sends parcels, channels side by side. What comes after one that a channel did not take is
    /// left for a later tick.
    async fn send_parcels(&self, parcels: Vec<Parcel>) -> Vec<(Parcel, Answer)> {
        let mut queues: Vec<(ChannelName, Vec<Parcel>)> = Vec::new();
        for parcel in parcels {
            match queues.iter_mut().find(|(channel, _)| *channel == parcel.channel) {
                Some((_, queue)) => queue.push(parcel),
                None => queues.push((parcel.channel.clone(), vec![parcel])),
            }
        }
        let sent = queues.into_iter().map(|(_, queue)| async move {
            let mut sent = Vec::new();
            for parcel in queue {
                let answer = self.attempt(&parcel.letter, &parcel.channel).await;
                let is_taken = answer.attempt.error.is_none();
                sent.push((parcel, answer));
                if !is_taken {
                    break;
                }
            }
            sent
        });
        // All at once: there are few channels, and one that hangs must delay no other.
        futures_util::future::join_all(sent).await.into_iter().flatten().collect()
    }

    /// Writes down that notices were taken: once another run is remembered, nobody knows it any
    /// more.
    pub(super) async fn mark_taken(&self, memory: &Memory, now: Timestamp) {
        for outgoing in &memory.taken {
            let mut outgoing = outgoing.clone();
            for delivery in outgoing.deliveries.iter_mut().filter(|delivery| !delivery.is_settled())
            {
                delivery.delivered_at = Some(now);
            }
            self.store_notice(&outgoing).await;
        }
    }

    /// Tells what is true of a run that two ticks have told differently, because one of them could
    /// not see the other.
    pub(super) async fn correct(&self, memory: &Memory, now: Timestamp) {
        for contradiction in memory.contradicted.iter().filter(|_| self.has_room_to_tell()) {
            let waiting = self
                .tell(
                    notice::of_contradiction(&contradiction.success, &contradiction.others, now),
                    now,
                )
                .await;
            self.list_waiting(waiting).await;
        }
    }

    /// Tells, once each, that the run under way is not expected to meet its deadline, and that it
    /// has passed it.
    pub(super) async fn tell_lateness(
        &self,
        pair: &Pair,
        checkpoint: &mut Checkpoint,
        now: Timestamp,
    ) {
        if checkpoint.is_manual || checkpoint.verdict.is_some() || !self.has_room_to_tell() {
            return;
        }
        let deadline = schedule::deadline(pair, &checkpoint.run);
        let label = &self.config.label;
        let told = |kind| checkpoint.lateness_told.contains(&kind);
        let notice = if now > deadline && !told(NoticeKind::Late) {
            notice::of_late_run(checkpoint, pair, label, now)
        } else if now <= deadline && !told(NoticeKind::AtRisk) {
            match schedule::expected_end(checkpoint, now)
                .filter(|expected_at| *expected_at > deadline)
            {
                Some(expected_at) => notice::of_at_risk(checkpoint, pair, label, expected_at, now),
                None => return,
            }
        } else {
            return;
        };
        checkpoint.lateness_told.insert(notice.kind);
        self.log(
            Level::Warn,
            "run is late",
            &[("run", checkpoint.run.to_string()), ("text", notice.text.clone())],
        );
        let id = self.tell(notice, now).await;
        checkpoint.outbox.extend(id);
    }

    /// Tells, once, that the deadline has passed and no run of the day has succeeded, when the
    /// day's own is over.
    pub(super) async fn tell_missed_deadline(&self, pair: &Pair, memory: &Memory, now: Timestamp) {
        let day = &memory.day;
        let begins = pair.zone.instant(day.date, pair.times.earliest_start);
        // A day that was missed is told as such.
        let is_told =
            [NoticeKind::Late, NoticeKind::Missed, NoticeKind::Succeeded, NoticeKind::Corrected]
                .into_iter()
                .any(|kind| memory.is_told(kind));
        if day.has_run
            && memory.is_ended
            && now > day.deadline
            && !memory.history.has_succeeded(begins)
            && !is_told
            && self.has_room_to_tell()
        {
            self.tell(notice::of_missed_deadline(pair, &day.run, &self.config.label, now), now)
                .await;
        }
    }

    /// Stores and sends a notice. Returns its id when some channel has not taken it.
    pub(super) async fn tell(&self, mut told: Notice, now: Timestamp) -> Option<String> {
        let is_changed = self.take_up(&mut told);
        let pair = told.pair.clone();
        let mut outgoing = Outgoing::new(told, &self.config.channels, now);
        self.put_up(&mut outgoing, now).await;
        if is_changed {
            self.store_incident(&pair).await;
        }
        self.deliver(&mut outgoing, now).await;
        (!outgoing.is_delivered()).then(|| outgoing.notice.id.clone())
    }

    /// Sends a notice again to the channels that its deliveries say, and stores what came of it.
    pub async fn redeliver(&self, outgoing: &mut Outgoing, now: Timestamp) {
        self.load_channels().await;
        self.deliver(outgoing, now).await;
        let waiting = (!outgoing.is_delivered()).then(|| outgoing.notice.id.clone());
        self.list_waiting(waiting).await;
    }

    /// Sends a notice to one channel and stores nothing of it. A channel that takes it is enabled,
    /// if it was not.
    pub async fn try_channel(&self, test: &Notice, channel: &Channel) -> Attempt {
        self.load_channels().await;
        let answer = self.attempt(test, &channel.name).await;
        if answer.attempt.error.is_none() {
            self.enable(&channel.name).await;
        }
        answer.attempt
    }

    /// Stores a notice, and returns whether that succeeded. Where it fails the notice is sent all
    /// the same.
    pub(super) async fn store_notice(&self, outgoing: &Outgoing) -> bool {
        let key = record::notice_key(&outgoing.notice.id);
        let stored = self.write(&key, &record::encode(outgoing), None).await;
        if let Err(error) = &stored {
            self.log(
                Level::Error,
                "notice not stored",
                &[("key", key), ("error", error.to_string())],
            );
            self.note_taken(outgoing);
        }
        stored.is_ok()
    }

    /// Stores a notice before it is sent, with who is remembered to have taken it while the store
    /// could not note that.
    pub(super) async fn put_up(&self, outgoing: &mut Outgoing, now: Timestamp) {
        self.recall_taken(outgoing, now);
        self.store_notice(outgoing).await;
    }

    /// Notes who has taken a notice, for as long as this instance lives.
    pub(super) fn note_taken(&self, outgoing: &Outgoing) {
        for delivery in &outgoing.deliveries {
            if let Some(at) = delivery.delivered_at {
                self.world.note(&taken_by(&outgoing.notice, &delivery.channel), at);
            }
        }
    }

    /// Strikes off who has taken a notice within the hour, where the store did not take that.
    /// Returns whether there was anybody.
    pub(super) fn recall_taken(&self, outgoing: &mut Outgoing, now: Timestamp) -> bool {
        let mut is_changed = false;
        for delivery in outgoing.deliveries.iter_mut().filter(|delivery| !delivery.is_settled()) {
            let noted_at = self.world.noted_at(&taken_by(&outgoing.notice, &delivery.channel));
            // Somebody may have asked for it again since.
            let is_latest =
                |at: &Timestamp| delivery.log.last().is_none_or(|attempt| attempt.at <= *at);
            if let Some(at) =
                noted_at.filter(|at| between(*at, now) < UNSTORED_AGAIN && is_latest(at))
            {
                (delivery.delivered_at, is_changed) = (Some(at), true);
            }
        }
        is_changed
    }

    /// Tries every channel that has not taken the notice, is due and waits for no earlier notice.
    /// What came of it is stored.
    pub(super) async fn deliver(&self, outgoing: &mut Outgoing, now: Timestamp) {
        self.send(outgoing, now).await;
        // What every channel has taken is stored as such: the next tick would send it again.
        self.store_notice(outgoing).await;
        self.desk.keep(outgoing);
    }

    /// As [`Self::deliver`], and stores nothing of it. What came before it in its incident and a
    /// channel did not take is tried once more first.
    pub(super) async fn send(&self, outgoing: &mut Outgoing, now: Timestamp) {
        let is_alone = |delivery: &Delivery| delivery.is_due(now) && delivery.digest_at.is_none();
        let due = || outgoing.deliveries.iter().filter(|delivery| is_alone(delivery));
        let mut known = self
            .desk
            .ahead_of(outgoing, &due().map(|delivery| &delivery.channel).collect::<Vec<_>>());
        // A read, and for each of them a request of every channel and a write; beside that, what
        // telling takes.
        let more =
            u32::try_from(known.iter().map(|earlier| 1 + earlier.deliveries.len()).sum::<usize>())
                .unwrap_or(u32::MAX);
        let has_room =
            !known.is_empty() && self.has_room(more.saturating_add(4 + self.channel_count()));
        if has_room {
            self.settle_as_stored(&mut known).await;
        }
        let mut queue = known.clone();
        if has_room {
            // Only by what is tried for the first time.
            let fresh: Vec<&ChannelName> = due()
                .filter(|delivery| delivery.log.is_empty())
                .map(|delivery| &delivery.channel)
                .collect();
            for earlier in &mut queue {
                earlier.hasten(&fresh, now);
            }
        }
        queue.push(outgoing.clone());
        let mut parcels = self.parcels(&queue, now);
        let is_behind = |channel: &ChannelName| {
            known.iter().any(|earlier| outgoing.waits_for(earlier, channel))
        };
        parcels.retain(|parcel| {
            due().any(|delivery| delivery.channel == parcel.channel)
                && (has_room || !is_behind(&parcel.channel))
        });
        self.send_all(&mut queue, parcels).await;
        *outgoing = queue.remove(known.len());
        for (earlier, before) in
            queue.iter().zip(&known).filter(|(earlier, before)| earlier != before)
        {
            self.log(
                Level::Info,
                "earlier notice taken up again",
                &[("notice", before.notice.id.clone())],
            );
            self.store_notice(earlier).await;
            self.desk.keep(earlier);
        }
    }

    /// Takes over what other ticks have settled of these notices since this one read them, minutes
    /// ago where it drives a run.
    async fn settle_as_stored(&self, notices: &mut [Outgoing]) {
        let keys = notices.iter().map(|outgoing| record::notice_key(&outgoing.notice.id)).collect();
        for stored in self.read_notices(keys).await.unwrap_or_default() {
            if let Some(outgoing) =
                notices.iter_mut().find(|outgoing| outgoing.notice.id == stored.notice.id)
            {
                outgoing.settle_as(&stored);
                self.desk.keep(outgoing);
            }
        }
    }

    /// Sends a notice to one channel.
    async fn attempt(&self, notice: &Notice, name: &ChannelName) -> Answer {
        let at = self.world.now();
        let failed = |error: String| Answer {
            attempt: Attempt { at, took_ms: 0, answered: None, error: Some(error) },
            wait: None,
            is_gone: false,
        };
        let Some(channel) = self.config.channels.iter().find(|channel| channel.name == *name)
        else {
            return Answer {
                is_gone: true,
                ..failed("the channel is not configured any more".to_owned())
            };
        };
        let disabled = self.desk.channels.borrow().disabled.get(name).cloned();
        if let Some(disabled) = disabled.filter(|_| notice.kind != NoticeKind::Test) {
            let error =
                format!("the channel is disabled since it answered 410 to {}", disabled.notice);
            if self.has_another(notice, channel) {
                return Answer { is_gone: true, ..failed(error) };
            }
            // Nobody else would hear it: what is gone may be back, and is tried once a day.
            let next_at = after(disabled.tried_at.unwrap_or(disabled.at), GONE_AGAIN);
            if at < next_at {
                let error = format!("{error}; as nobody else hears this, it is tried once a day");
                return Answer { wait: Some(between(at, next_at)), ..failed(error) };
            }
            self.note_tried(name, at);
        }
        let request = match self.written(notice, channel) {
            Ok(request) => request,
            Err(error) => return self.logged(notice, name, failed(error.to_string())),
        };
        let result = self.world.send(request).await;
        let took_ms = u64::try_from(between(at, self.world.now()).as_millis()).unwrap_or(u64::MAX);
        let answer = match result {
            Ok(response) => {
                let (answered, error) =
                    (Some(response.status), refusal(&channel.receiver, &response, self.secrets));
                if error.is_none() {
                    (self.watch)("notice", json!({"channel": name, "subject": notice.subject}));
                }
                let wait = response.retry_after.filter(|_| error.is_some());
                Answer {
                    attempt: Attempt { at, took_ms, answered, error },
                    wait,
                    is_gone: response.status == 410,
                }
            }
            Err(failure) => {
                let attempt =
                    Attempt { at, took_ms, answered: None, error: Some(failure.to_string()) };
                Answer { attempt, wait: None, is_gone: false }
            }
        };
        if answer.is_gone {
            Box::pin(self.disable(notice, channel)).await;
        } else if answer.attempt.error.is_none() && notice.kind != NoticeKind::Test {
            self.enable(name).await;
        }
        // What nobody else hears is not given up.
        let is_last = answer.is_gone && !self.has_another(notice, channel);
        let answer = if is_last {
            Answer { is_gone: false, wait: Some(GONE_AGAIN), ..answer }
        } else {
            answer
        };
        self.logged(notice, name, answer)
    }

    /// Returns whether another channel hears of the pair's trouble, and is not gone.
    fn has_another(&self, notice: &Notice, channel: &Channel) -> bool {
        let channels = self.desk.channels.borrow();
        let is_another = |other: &Channel| {
            let is_gone = other.name == channel.name || channels.disabled.contains_key(&other.name);
            !is_gone && other.hears(&notice.pair, NoticeKind::Failed)
        };
        self.config.channels.iter().any(is_another)
    }

    /// Notes that a channel is tried although it is gone.
    fn note_tried(&self, name: &ChannelName, at: Timestamp) {
        if let Some(disabled) = self.desk.channels.borrow_mut().disabled.get_mut(name) {
            disabled.tried_at = Some(at);
        }
    }

    /// Enables a channel that takes notices again. Returns whether it was disabled.
    async fn enable(&self, name: &ChannelName) -> bool {
        let is_enabled = self.desk.channels.borrow_mut().disabled.remove(name).is_some();
        if is_enabled {
            self.log(Level::Info, "channel enabled again", &[("channel", name.to_string())]);
            self.store_channels().await;
        }
        is_enabled
    }

    /// Writes a notice for a channel.
    fn written(
        &self,
        notice: &Notice,
        channel: &Channel,
    ) -> Result<crate::port::HttpRequest, Unsendable> {
        let (public_url, runbooks_url) =
            (self.config.public_url.as_deref(), self.config.runbooks_url.as_deref());
        let letter = Letter { notice, label: &self.config.label, public_url, runbooks_url };
        encode(
            &letter,
            &channel.receiver,
            self.secrets,
            self.config.allow_insecure,
            self.world.now(),
        )
    }

    fn logged(&self, notice: &Notice, channel: &ChannelName, answer: Answer) -> Answer {
        if let Some(error) = &answer.attempt.error {
            let took = render_duration(Duration::from_millis(answer.attempt.took_ms));
            let facts = [
                ("notice", notice.id.clone()),
                ("channel", channel.to_string()),
                ("error", error.clone()),
                ("took", took),
            ];
            self.log(Level::Warn, "notice not taken", &facts);
        }
        answer
    }

    /// Stops sending to a channel whose address is gone, and says so on the others.
    async fn disable(&self, lost: &Notice, gone: &Channel) {
        let now = self.world.now();
        if self.desk.channels.borrow().disabled.contains_key(&gone.name) {
            // It was tried once more.
            self.store_channels().await;
            return;
        }
        let disabled = Disabled { at: now, notice: lost.id.clone(), tried_at: None };
        self.desk.channels.borrow_mut().disabled.insert(gone.name.clone(), disabled);
        let told = notice::of_disabled_channel(lost, &gone.name, &self.config.label, now);
        let others: Vec<Channel> = self
            .config
            .channels
            .iter()
            .filter(|channel| channel.name != gone.name)
            .cloned()
            .collect();
        let mut outgoing = Outgoing::new(told, &others, now);
        self.put_up(&mut outgoing, now).await;
        self.desk.channels.borrow_mut().outbox.push(outgoing.notice.id.clone());
        self.store_channels().await;
        self.deliver(&mut outgoing, now).await;
    }

    /// Remembers a notice that some channel has not taken, and that neither a run nor an incident
    /// lists.
    pub(super) async fn list_waiting(&self, id: Option<String>) {
        let Some(id) = id.filter(|id| !self.desk.channels.borrow().outbox.contains(id)) else {
            return;
        };
        {
            let mut channels = self.desk.channels.borrow_mut();
            channels.outbox.push(id);
            // One whose write was refused is never found; the list must not grow with it.
            let surplus = channels.outbox.len().saturating_sub(MOST_LISTED);
            channels.outbox.drain(..surplus);
        }
        self.store_channels().await;
    }

    /// Strikes notices off that list that every channel has taken.
    pub(super) async fn forget_listed(&self) {
        let before = self.desk.channels.borrow().outbox.len();
        self.desk.channels.borrow_mut().outbox.retain(|id| !self.desk.is_settled(id));
        if self.desk.channels.borrow().outbox.len() < before {
            self.store_channels().await;
        }
    }

    /// Stores what is known of channels.
    async fn store_channels(&self) {
        if !self.desk.is_channels_known.get() {
            return;
        }
        let channels = record::Channels {
            format: crate::sync::checkpoint::FORMAT,
            ..self.desk.channels.borrow().clone()
        };
        if let Err(error) = self.write(record::CHANNELS_KEY, &record::encode(&channels), None).await
        {
            self.log(Level::Error, "channels not stored", &[("error", error.to_string())]);
        }
    }

    /// Returns whether a channel is a check of a healthchecks-style service.
    pub(super) fn is_healthcheck(&self, name: &ChannelName) -> bool {
        let is = |channel: &Channel| {
            channel.name == *name && matches!(channel.receiver, Receiver::Healthcheck { .. })
        };
        self.config.channels.iter().any(is)
    }

    /// Tells the checks of healthchecks-style services that a run has started. One that does not
    /// answer learns it from the end of the run.
    pub(super) async fn ping_start(&self, pair: &Pair, checkpoint: &Checkpoint) {
        if checkpoint.tick_count > 1 || checkpoint.goal == Goal::VerifyBackup {
            return;
        }
        for channel in &self.config.channels {
            let Receiver::Healthcheck { url_secret } = &channel.receiver else { continue };
            let is_of_pair = channel.pairs.as_ref().is_none_or(|pairs| pairs.contains(&pair.name));
            let Some(url) = self.secrets.get(url_secret).filter(|_| is_of_pair && self.has_room(1))
            else {
                continue;
            };
            if crate::config::address_problem(url.reveal(), self.config.allow_insecure).is_some() {
                continue;
            }
            let error =
                match self.world.send(notice::start_ping(url, &pair.name, &checkpoint.run)).await {
                    Ok(response) => refusal(&channel.receiver, &response, self.secrets),
                    Err(failure) => Some(failure.to_string()),
                };
            let Some(error) = error else { continue };
            self.log(
                Level::Warn,
                "start not pinged",
                &[("channel", channel.name.to_string()), ("error", error)],
            );
        }
    }
}
