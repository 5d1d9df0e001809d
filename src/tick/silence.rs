//! Tells people that the store cannot be read, when nothing that is told can be recorded.
//!
//! Invariants: what is known is in the memory of the instance: since when no read was answered, and
//! when people were last told. An instance tells it once an hour at most, always under the same id,
//! so that a receiver takes the next one, or that of another instance, as the same.
//!
//! Failure: an instance that lives for less than an hour tells nothing. `GET /health` is 503
//! meanwhile, and whoever watches from outside sees it at once.

use std::time::Duration;

use super::Context;
use crate::config::{Channel, NoticeKind};
use crate::port::{Level, Recall as _, World};
use crate::record::RecordError;
use crate::sync::notice::{self, Outgoing};
use crate::time::{Timestamp, between};

/// How long the store may be silent before people hear of it, and again.
const SILENT: Duration = Duration::from_hours(1);

/// Noted when a read was answered.
const ANSWERED: &str = "the store has answered";
/// Noted at the first read after that which was not.
const SINCE: &str = "the store is silent";
/// Noted when people were told.
const TOLD: &str = "the silence of the store was told";

impl<W: World> Context<'_, W> {
    /// Notes that the store can be read.
    pub(super) fn note_answer(&self, now: Timestamp) {
        self.world.note(ANSWERED, now);
    }

    /// Tells that the store cannot be read, where that has lasted for an hour and was not told for
    /// an hour.
    pub(super) async fn tell_silence(&self, error: &RecordError, now: Timestamp) {
        let answered_at = self.world.noted_at(ANSWERED);
        let noted = |what: &str| {
            self.world.noted_at(what).filter(|at| answered_at.is_none_or(|answered| *at > answered))
        };
        let Some(since) = noted(SINCE) else { return self.world.note(SINCE, now) };
        let is_told = noted(TOLD).is_some_and(|at| between(at, now) < SILENT);
        let Some(first) =
            self.config.pairs.first().filter(|_| between(since, now) >= SILENT && !is_told)
        else {
            return;
        };
        // It is about every pair, and each channel hears it once.
        let hears = |channel: &&Channel| {
            self.config.pairs.iter().any(|pair| channel.hears(&pair.name, NoticeKind::Stuck))
        };
        let channels: Vec<&Channel> = self.config.channels.iter().filter(hears).collect();
        let notice =
            notice::of_silent_store(first, &error.to_string(), since, &self.config.label, now);
        self.log(
            Level::Error,
            "store silent",
            &[("since", crate::time::render(since)), ("error", error.to_string())],
        );
        let mut outgoing = Outgoing::to(notice, &channels, now);
        self.send(&mut outgoing, now).await;
        // Where no channel has taken it, the next tick tries again.
        if outgoing.deliveries.iter().any(|delivery| delivery.delivered_at.is_some()) {
            self.world.note(TOLD, now);
        }
    }
}
