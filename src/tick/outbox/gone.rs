//! Channels whose address is gone (410): nothing more is sent there, and the others hear of it.
//!
//! Invariants: the last channel that hears of a pair's trouble is never given up; it is tried once
//! a day. One that takes a notice again is enabled.

use std::time::Duration;

use super::Context;
use super::sending::Answer;
use crate::config::{Channel, NoticeKind};
use crate::id::ChannelName;
use crate::port::{Clock as _, Level, World};
use crate::record::{self, Disabled};
use crate::sync::checkpoint::FORMAT;
use crate::sync::notice::{self, Notice, Outgoing};
use crate::time::{Timestamp, after, between};

/// How long a channel is left alone that answered 410 (gone), where nobody else hears what it would
/// be told.
pub(super) const GONE_AGAIN: Duration = Duration::from_hours(24);

impl<W: World> Context<'_, W> {
    /// Returns what comes of a notice that is not sent, because the address of its channel is gone.
    /// Where nobody else would hear it, the channel is tried once a day, for it may be back.
    pub(super) fn left_alone(
        &self,
        notice: &Notice,
        channel: &Channel,
        at: Timestamp,
    ) -> Option<Answer> {
        let disabled = self.desk.channels.borrow().disabled.get(&channel.name).cloned();
        let disabled = disabled.filter(|_| notice.kind != NoticeKind::Test)?;
        let error = format!("the channel is disabled since it answered 410 to {}", disabled.notice);
        if self.has_another(notice, channel) {
            return Some(Answer { is_gone: true, ..Answer::failed(at, error) });
        }
        let next_at = after(disabled.tried_at.unwrap_or(disabled.at), GONE_AGAIN);
        if at < next_at {
            let error = format!("{error}; as nobody else hears this, it is tried once a day");
            let wait = Some(between(at, next_at));
            return Some(Answer { wait, ..Answer::failed(at, error) });
        }
        self.note_tried(&channel.name, at);
        None
    }

    /// Notes that a channel is tried although it is gone.
    fn note_tried(&self, name: &ChannelName, at: Timestamp) {
        if let Some(disabled) = self.desk.channels.borrow_mut().disabled.get_mut(name) {
            disabled.tried_at = Some(at);
        }
    }

    /// Returns whether another channel hears of the pair's trouble, and is not gone.
    pub(super) fn has_another(&self, notice: &Notice, channel: &Channel) -> bool {
        let channels = self.desk.channels.borrow();
        let is_another = |other: &Channel| {
            let is_gone = other.name == channel.name || channels.disabled.contains_key(&other.name);
            !is_gone && other.hears(&notice.pair, NoticeKind::Failed)
        };
        self.config.channels.iter().any(is_another)
    }

    /// Stops sending to a channel whose address is gone, and says so on the others.
    pub(super) async fn disable(&self, lost: &Notice, gone: &Channel) {
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

    /// Enables a channel that takes notices again. Returns whether it was disabled.
    pub(super) async fn enable(&self, name: &ChannelName) -> bool {
        let is_enabled = self.desk.channels.borrow_mut().disabled.remove(name).is_some();
        if is_enabled {
            self.log(Level::Info, "channel enabled again", &[("channel", name.to_string())]);
            self.store_channels().await;
        }
        is_enabled
    }

    /// Stores what is known of channels.
    pub(super) async fn store_channels(&self) {
        if !self.desk.is_channels_known.get() {
            return;
        }
        let channels = record::Channels { format: FORMAT, ..self.desk.channels.borrow().clone() };
        if let Err(error) = self.write(record::CHANNELS_KEY, &record::encode(&channels), None).await
        {
            self.log(Level::Error, "channels not stored", &[("error", error.to_string())]);
        }
    }
}
