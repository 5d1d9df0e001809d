//! Sends notices, and keeps those that a channel has not taken.

use serde_json::json;

use super::{Context, Memory};
use crate::config::{Pair, address_problem};
use crate::port::{Clock as _, Http as _, Level, World};
use crate::record;
use crate::sync::notice::{self, Delivery, Outgoing, redelivery_wait};
use crate::time::{Timestamp, after, render_duration};

impl<W: World> Context<'_, W> {
    /// Sends what is due of one pair.
    pub(super) async fn deliver_due(&self, memory: &mut Memory, now: Timestamp) {
        let mut notices = std::mem::take(&mut memory.notices);
        for outgoing in &mut notices {
            let is_due = |delivery: &Delivery| delivery.delivered_at.is_none() && delivery.next_at <= now;
            if !outgoing.deliveries.iter().any(is_due) {
                continue;
            }
            self.deliver(outgoing, now).await;
            self.store_notice(outgoing).await;
            if outgoing.is_delivered() {
                memory.delivered.push(outgoing.notice.id.clone());
            }
        }
        let Some(checkpoint) = memory.checkpoint.as_mut() else { return };
        let before = checkpoint.outbox.len();
        checkpoint.outbox.retain(|id| !memory.delivered.contains(id));
        if checkpoint.outbox.len() < before && checkpoint.is_over() {
            self.save(checkpoint).await;
        }
    }

    /// Writes down that notices were taken: once another run is remembered, nobody knows it any more.
    pub(super) async fn mark_taken(&self, memory: &Memory, now: Timestamp) {
        for outgoing in &memory.taken {
            let mut outgoing = outgoing.clone();
            for delivery in outgoing.deliveries.iter_mut().filter(|delivery| delivery.delivered_at.is_none()) {
                delivery.delivered_at = Some(now);
            }
            self.store_notice(&outgoing).await;
        }
    }

    /// Tells what is true of a run that two ticks have told differently, because one of them could not see the other.
    pub(super) async fn correct(&self, memory: &Memory, now: Timestamp) {
        for contradiction in &memory.contradicted {
            self.tell(notice::of_contradiction(&contradiction.success, &contradiction.others, now), now).await;
        }
    }

    /// Tells, once, that a run under way has passed its deadline.
    pub(super) async fn tell_lateness(&self, pair: &Pair, memory: &mut Memory, now: Timestamp) {
        let Some(checkpoint) = memory.checkpoint.as_mut() else { return };
        let is_of_today = checkpoint.run == memory.day.run;
        let is_late = is_of_today && checkpoint.verdict.is_none() && now > memory.day.deadline;
        if !is_late || memory.is_late_told {
            return;
        }
        let id = self.tell(notice::of_late_run(checkpoint, pair, &self.config.label, now), now).await;
        checkpoint.outbox.extend(id);
    }

    /// Stores and sends a notice. Returns its id when some channel has not taken it.
    pub(super) async fn tell(&self, told: notice::Notice, now: Timestamp) -> Option<String> {
        let mut outgoing = Outgoing::new(told, &self.config.channels, now);
        self.store_notice(&outgoing).await;
        self.deliver(&mut outgoing, now).await;
        // What every channel has taken is stored as such: the next tick would send it again.
        self.store_notice(&outgoing).await;
        (!outgoing.is_delivered()).then(|| outgoing.notice.id.clone())
    }

    /// Stores a notice, and returns whether that succeeded. Where it fails the notice is sent all the same.
    pub(super) async fn store_notice(&self, outgoing: &Outgoing) -> bool {
        let key = record::notice_key(&outgoing.notice.id);
        let stored = self.write(&key, &record::encode(outgoing), None).await;
        if let Err(error) = &stored {
            self.log(Level::Error, "notice not stored", &[("key", key), ("error", error.to_string())]);
        }
        stored.is_ok()
    }

    /// Tries every channel that has not taken the notice and is due.
    pub(super) async fn deliver(&self, outgoing: &mut Outgoing, now: Timestamp) {
        let Outgoing { notice, deliveries, .. } = outgoing;
        let due = deliveries.iter_mut().filter(|delivery| delivery.delivered_at.is_none() && delivery.next_at <= now);
        // At once, so that a channel that hangs delays no other; there are few channels.
        let attempts = due.map(|delivery| self.attempt(notice, delivery));
        futures_util::future::join_all(attempts).await;
    }

    async fn attempt(&self, notice: &notice::Notice, delivery: &mut Delivery) {
        let result = self.send_notice(notice, delivery).await;
        let now = self.world.now();
        delivery.attempts += 1;
        match result {
            Ok(()) => {
                delivery.delivered_at = Some(now);
                delivery.last_error = None;
                (self.watch)("notice", json!({"channel": delivery.channel, "subject": notice.subject}));
            }
            Err(error) => {
                let wait = redelivery_wait(delivery.attempts);
                delivery.next_at = after(now, wait);
                let facts = [
                    ("notice", notice.id.clone()),
                    ("channel", delivery.channel.to_string()),
                    ("error", error.clone()),
                    ("again_in", render_duration(wait)),
                ];
                self.log(Level::Warn, "notice not taken", &facts);
                delivery.last_error = Some(error);
            }
        }
    }

    async fn send_notice(&self, notice: &notice::Notice, delivery: &Delivery) -> Result<(), String> {
        let Some(channel) = self.config.channels.iter().find(|channel| channel.name == delivery.channel) else {
            return Err("the channel is not configured any more".to_owned());
        };
        let not_set = |name: &str| format!("secret {name} is not set");
        let url = self.secrets.get(&channel.url_secret).ok_or_else(|| not_set(&channel.url_secret))?;
        if let Some(problem) = address_problem(url.reveal(), self.config.allow_insecure) {
            return Err(format!("secret {}: {problem}", channel.url_secret));
        }
        let signing = match &channel.signing_secret {
            Some(name) => Some(self.secrets.get(name).ok_or_else(|| not_set(name))?),
            None => None,
        };
        let request = notice::encode(notice, channel.kind, url, signing, self.world.now());
        match self.world.send(request).await {
            Ok(response) if (200..300).contains(&response.status) => Ok(()),
            Ok(response) => Err(format!("answered {}", response.status)),
            Err(failure) => Err(failure.to_string()),
        }
    }
}
