//! What a tick tells of a run before its end, and of a day whose run is over.
//!
//! Invariants: each is told once. Where there is no room for it in this tick, the next one tells
//! it.

use super::{Context, Memory};
use crate::config::{NoticeKind, Pair, Receiver};
use crate::port::{Http as _, Level, World};
use crate::sync::checkpoint::{Checkpoint, Goal};
use crate::sync::notice::{self, refusal};
use crate::sync::schedule;
use crate::time::Timestamp;

impl<W: World> Context<'_, W> {
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
}
