//! Sends notices, and keeps those that a channel has not taken.
//!
//! In: a notice to be told, or what earlier ticks have left. Out: the ids of what some channel has
//! not taken. The parts are what is due (`due`), what is sent (`sending`), and what became of it
//! (`taken`, and `gone` for a channel that is no more).
//!
//! Invariants: a notice is stored before it is sent. Channels are called side by side, and of one
//! channel what comes after a notice that it did not take is left for a later tick.
//!
//! Failure: what the store does not take is sent all the same, to each channel once an hour as far
//! as this instance remembers.

mod due;
mod gone;
mod sending;
mod taken;

use super::Context;
use crate::config::Channel;
use crate::id::ChannelName;
use crate::ordered;
use crate::port::{Level, World};
use crate::sync::notice::{Attempt, Delivery, Notice, Outgoing};
use crate::time::Timestamp;

impl<W: World> Context<'_, W> {
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
        let parcels = self.affordable(self.parcels(&waiting, now));
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
            // A retry must not restart the waits of earlier notices; only a first attempt does.
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
}
