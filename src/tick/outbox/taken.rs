//! What became of notices: who has taken them, on record and in the memory of the instance.
//!
//! In: notices after they were sent, and what the store and this instance know of them. Out: the
//! same notices, with the deliveries that are done.
//!
//! Failure: where the store does not take who has taken a notice, the instance remembers it for an
//! hour, so that a channel is told once in that time.

use std::time::Duration;

use crate::id::ChannelName;
use crate::port::{Level, Recall as _, World};
use crate::record;
use crate::sync::notice::{Notice, Outgoing};
use crate::tick::{Context, Memory};
use crate::time::{Timestamp, between};

/// The time after which what could not be stored is told to a channel again.
const UNSTORED_AGAIN: Duration = Duration::from_hours(1);

/// Notices that are listed beside those of runs and incidents.
const MOST_LISTED: usize = 30;

impl<W: World> Context<'_, W> {
    /// Stores a notice before it is sent, with who is remembered to have taken it while the store
    /// could not note that.
    pub(in crate::tick) async fn put_up(&self, outgoing: &mut Outgoing, now: Timestamp) {
        self.recall_taken(outgoing, now);
        self.store_notice(outgoing).await;
    }

    /// Stores a notice, and returns whether that succeeded. Where it fails the notice is sent all
    /// the same.
    pub(in crate::tick) async fn store_notice(&self, outgoing: &Outgoing) -> bool {
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

    /// Notes who has taken a notice, for as long as this instance lives.
    pub(in crate::tick) fn note_taken(&self, outgoing: &Outgoing) {
        for delivery in &outgoing.deliveries {
            if let Some(at) = delivery.delivered_at {
                self.world.note(&taken_by(&outgoing.notice, &delivery.channel), at);
            }
        }
    }

    /// Marks deliveries as done that this instance made within the last hour and the store refused
    /// to record. Returns whether it marked any.
    pub(in crate::tick) fn recall_taken(&self, outgoing: &mut Outgoing, now: Timestamp) -> bool {
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

    /// Takes over what other ticks have settled of these notices since this one read them, minutes
    /// ago where it drives a run.
    pub(super) async fn settle_as_stored(&self, notices: &mut [Outgoing]) {
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

    /// Writes down that notices were taken: once another run is remembered, nobody knows it any
    /// more.
    pub(in crate::tick) async fn mark_taken(&self, memory: &Memory, now: Timestamp) {
        for outgoing in &memory.taken {
            let mut outgoing = outgoing.clone();
            for delivery in outgoing.deliveries.iter_mut().filter(|delivery| !delivery.is_settled())
            {
                delivery.delivered_at = Some(now);
            }
            self.store_notice(&outgoing).await;
        }
    }

    /// Strikes off what was taken from the list of the pair's last run.
    pub(in crate::tick) async fn strike_taken(&self, memory: &mut Memory) {
        let Some(checkpoint) = memory.checkpoint.as_mut() else { return };
        let before = checkpoint.outbox.len();
        checkpoint.outbox.retain(|id| !self.desk.is_settled(id));
        if checkpoint.outbox.len() < before && checkpoint.is_over() {
            self.save(checkpoint).await;
        }
    }

    /// Remembers a notice that some channel has not taken, and that neither a run nor an incident
    /// lists.
    pub(in crate::tick) async fn list_waiting(&self, id: Option<String>) {
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
    pub(in crate::tick) async fn forget_listed(&self) {
        let before = self.desk.channels.borrow().outbox.len();
        self.desk.channels.borrow_mut().outbox.retain(|id| !self.desk.is_settled(id));
        if self.desk.channels.borrow().outbox.len() < before {
            self.store_channels().await;
        }
    }
}

/// What is noted of a channel that has taken a notice.
fn taken_by(notice: &Notice, channel: &ChannelName) -> String {
    format!("{} taken by {channel}", notice.id)
}
