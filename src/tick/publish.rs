//! How a run ends for people: its result on record, and the notice that tells it.
//!
//! In: a checkpoint with a verdict, or a manual run whose place another took. Out: the ids of the
//! notices that some channel has not taken; `None` where the store did not take it all.
//!
//! Invariants: a notice is stored first, then the result, and only then is the notice sent. A
//! result is never replaced; what is told later says so where it contradicts it.
//!
//! Failure: all of it is repeated until the store takes it. From the third attempt on people are
//! told that it does not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::Context;
use crate::config::{Channel, NoticeKind, Pair, Receiver};
use crate::id::{ChannelName, RunId};
use crate::ordered::IntoOrdered as _;
use crate::port::{Clock as _, Level, Recall as _, Store as _, World};
use crate::record::{self, Report};
use crate::sync::checkpoint::{Checkpoint, Goal, RunStatus};
use crate::sync::notice::{self, Notice, Outgoing};
use crate::time::Timestamp;

/// The attempt to store a result after which people are told that it cannot be stored.
const TELL_DIRECTLY: u32 = 3;

/// What is on record of how a run ended.
struct EndOnRecord {
    /// Its result.
    result: Option<Report>,
    /// The notice that tells it, with how far its delivery has come.
    notice: Option<Outgoing>,
    /// Whether people were told that it succeeded.
    is_success_told: bool,
    /// The ids of the run's notices that some channel has not taken.
    outbox: BTreeSet<String>,
}

impl<W: World> Context<'_, W> {
    /// Stores the notice and the result, then sends the notice. Returns the ids of those that some
    /// channel has not taken.
    ///
    /// # Repeating
    ///
    /// The result is written once. A notice that is stored already goes on from where its delivery
    /// was.
    pub(super) async fn publish(
        &self,
        pair: &Pair,
        checkpoint: &Checkpoint,
    ) -> Option<Vec<String>> {
        let published = self.try_publish(pair, checkpoint).await;
        if published.is_none()
            && checkpoint.attempt >= TELL_DIRECTLY
            && self.has_room(self.channel_count())
        {
            self.tell_stuck(pair, checkpoint).await;
        }
        published
    }

    /// Publishes the end; `None` when the store did not answer, or did not take all of it.
    async fn try_publish(&self, pair: &Pair, checkpoint: &Checkpoint) -> Option<Vec<String>> {
        let now = self.world.now();
        let Some(mut told) = notice::of_run(checkpoint, pair, &self.config.label) else {
            return Some(checkpoint.outbox.clone());
        };
        let mut report = Report::of(checkpoint);
        let result_key = record::result_key(&pair.name, &checkpoint.run);
        let EndOnRecord { result, mut notice, is_success_told, mut outbox } =
            self.end_on_record(pair, checkpoint, &told.id, now).await?;
        if report.status != RunStatus::Succeeded && is_success_told && result.is_none() {
            // People were told of the success before its result could be stored: it held then, and
            // is what is kept.
            report.status = RunStatus::Succeeded;
            return self
                .store_result(&result_key, &report)
                .await
                .then(|| outbox.into_iter().collect());
        }
        if let Some(earlier) = result.as_ref().filter(|earlier| earlier.status != report.status) {
            // The result is never replaced. What is told must not contradict it without saying so.
            if report.status != RunStatus::Succeeded {
                return Some(outbox.into_iter().collect());
            }
            turn_into_correction(&mut told, checkpoint, earlier.status, now);
            notice = None;
        }
        self.log(
            if report.status == RunStatus::Succeeded { Level::Info } else { Level::Error },
            "run ended",
            &[
                ("run", report.run.to_string()),
                ("status", report.status.as_str().to_owned()),
                ("text", told.text.clone()),
            ],
        );
        (self.watch)("verdict", json!({"status": report.status.as_str(), "text": told.text}));
        let is_stored = notice.is_some();
        let mut outgoing = notice.unwrap_or_else(|| self.addressed(told, checkpoint.goal, now));
        // The notice first: a tick that dies between the two would otherwise end the run in
        // silence. What nobody will remember is not told.
        if !is_stored && !self.store_notice(&outgoing).await {
            return None;
        }
        let mut is_safe = result.is_some() || self.store_result(&result_key, &report).await;
        self.send(&mut outgoing, now).await;
        self.desk.keep(&outgoing);
        if outgoing.is_delivered() && is_safe {
            // What came of it is stored after the run: the key takes one write a second.
            self.desk.settled.borrow_mut().push(outgoing.clone());
            outbox.remove(&outgoing.notice.id);
            if checkpoint.is_manual {
                self.strike_off(pair, &checkpoint.run).await;
            }
        } else {
            // Also where the result has to be tried again: nobody is to get the notice twice for
            // that.
            is_safe &= self.store_notice(&outgoing).await;
            outbox.insert(outgoing.notice.id);
        }
        is_safe.then(|| outbox.into_iter().collect())
    }

    /// Reads what is on record of how the run ended; `None` when the store did not answer.
    async fn end_on_record(
        &self,
        pair: &Pair,
        checkpoint: &Checkpoint,
        notice_id: &str,
        now: Timestamp,
    ) -> Option<EndOnRecord> {
        let result_key = record::result_key(&pair.name, &checkpoint.run);
        let notice_key = record::notice_key(notice_id);
        let success_key = record::notice_key(&format!(
            "{}/{}/{}",
            pair.name,
            checkpoint.run,
            NoticeKind::Succeeded.as_str()
        ));
        let keys: Vec<String> = std::iter::once(result_key.clone())
            .chain(record::notice_keys(&pair.name, &checkpoint.run))
            .collect();
        let found = self.world.read(&keys).await.ok()?;
        let text = |key: &String| found.get(key).and_then(Option::as_ref);
        let result = text(&result_key).and_then(|text| record::decode(&result_key, text).ok());
        // What another tick of this run has told and not every channel has taken, as far as is
        // known, is not forgotten with it.
        let waiting = self.undelivered(&found, now);
        self.desk.meet(&waiting);
        let waiting = waiting.into_iter().map(|outgoing| outgoing.notice.id);
        let outbox = checkpoint.outbox.iter().cloned().chain(waiting).into_set();
        let mut notice: Option<Outgoing> =
            text(&notice_key).and_then(|text| record::decode(&notice_key, text).ok());
        if let Some(stored) = &mut notice {
            self.recall_taken(stored, now);
        }
        let is_success_told = text(&success_key).is_some();
        Some(EndOnRecord { result, notice, is_success_told, outbox })
    }

    /// Addresses the notice of the end to the channels that hear of it.
    fn addressed(&self, mut told: Notice, goal: Goal, now: Timestamp) -> Outgoing {
        self.take_up(&mut told);
        let mut outgoing = Outgoing::new(told, &self.config.channels, now);
        if goal == Goal::VerifyBackup {
            // A rehearsal is not what a check waits for.
            outgoing.deliveries.retain(|delivery| !self.is_healthcheck(&delivery.channel));
        }
        outgoing
    }

    /// Returns whether a channel is a check of a healthchecks-style service.
    fn is_healthcheck(&self, name: &ChannelName) -> bool {
        let is = |channel: &Channel| {
            channel.name == *name && matches!(channel.receiver, Receiver::Healthcheck { .. })
        };
        self.config.channels.iter().any(is)
    }

    /// Stores how a run ended, and returns whether that succeeded.
    async fn store_result(&self, key: &str, report: &Report) -> bool {
        let stored = self.write(key, &record::encode(report), Some(report.metadata())).await;
        if let Err(error) = &stored {
            self.log(
                Level::Error,
                "result not stored",
                &[("key", key.to_owned()), ("error", error.to_string())],
            );
        }
        stored.is_ok()
    }

    /// Tells that the end of the run cannot be recorded: people must not wait for the store. It is
    /// not called an end, because the next tick may come to another.
    async fn tell_stuck(&self, pair: &Pair, checkpoint: &Checkpoint) {
        let now = self.world.now();
        let Some(mut stuck) = notice::of_unrecorded_run(checkpoint, pair, &self.config.label, now)
        else {
            return;
        };
        self.take_up(&mut stuck);
        let mut outgoing = Outgoing::new(stuck, &self.config.channels, now);
        self.recall_taken(&mut outgoing, now);
        self.send(&mut outgoing, now).await;
        self.note_taken(&outgoing);
        if let Some(at) =
            outgoing.deliveries.iter().filter_map(|delivery| delivery.delivered_at).min()
        {
            self.world.note(&outgoing.notice.id, at);
        }
    }

    /// Ends a manual run whose place another run took: tells how it ended, or that it never did.
    /// Returns what waits for its channels.
    ///
    /// # Repeating
    ///
    /// A notice that was taken is not sent again. What could not be stored is repeated by the next
    /// run.
    pub(super) async fn close(&self, pair: &Pair, run: &RunId, by: &RunId) -> Vec<String> {
        let now = self.world.now();
        let result_key = record::result_key(&pair.name, run);
        let keys: Vec<String> = std::iter::once(result_key.clone())
            .chain(record::notice_keys(&pair.name, run))
            .collect();
        let Ok(found) = self.world.read(&keys).await else { return Vec::new() };
        let mut waiting = Vec::new();
        let mut is_settled = true;
        if found.get(&result_key).is_none_or(Option::is_none) {
            // What people were told holds, also where its result could not be stored.
            let told = told(&found);
            let report = Report::of_overtaken_run(pair, run, by, told, now);
            if told.is_none() {
                waiting.extend(
                    self.tell(
                        notice::of_overtaken_run(pair, run, by, &self.config.label, now),
                        now,
                    )
                    .await,
                );
            }
            is_settled = self.store_result(&result_key, &report).await;
        }
        for mut outgoing in self.undelivered(&found, now) {
            self.deliver(&mut outgoing, now).await;
            waiting.extend((!outgoing.is_delivered()).then_some(outgoing.notice.id));
        }
        // What waits for a channel is only in this tick's hands so far: where it dies, the next run
        // has to find the lost one again.
        if is_settled && waiting.is_empty() {
            self.strike_off(pair, run).await;
        }
        waiting
    }

    /// Returns the notices among what was read that some channel has not taken.
    fn undelivered(
        &self,
        found: &BTreeMap<String, Option<String>>,
        now: Timestamp,
    ) -> Vec<Outgoing> {
        let mut notices = self.recalled(found, now);
        notices.retain(|outgoing| !outgoing.is_delivered());
        notices
    }

    /// Forgets that a manual run was accepted. What stays is looked at again by the next run.
    async fn strike_off(&self, pair: &Pair, run: &RunId) {
        let key = record::accepted_key(&pair.name, run.as_str());
        if let Err(error) = self.world.remove(&key).await {
            self.log(
                Level::Warn,
                "manual run not struck off",
                &[("key", key), ("error", error.to_string())],
            );
        }
    }
}

/// Makes of the notice of a success one that corrects what was told before.
fn turn_into_correction(
    told: &mut Notice,
    checkpoint: &Checkpoint,
    earlier: RunStatus,
    now: Timestamp,
) {
    told.kind = NoticeKind::Corrected;
    told.at = now;
    told.id = format!("{}/{}/corrected", checkpoint.pair, checkpoint.run);
    told.text = format!(
        "Earlier this run was told as {}; it has succeeded since. {}",
        earlier.as_str(),
        told.text
    );
}

/// Returns how people were told that a run ended; a success where they were told several things.
fn told(found: &BTreeMap<String, Option<String>>) -> Option<RunStatus> {
    let kinds = [
        (NoticeKind::Corrected, RunStatus::Succeeded),
        (NoticeKind::Succeeded, RunStatus::Succeeded),
        (NoticeKind::Superseded, RunStatus::Superseded),
        (NoticeKind::Cancelled, RunStatus::Cancelled),
        (NoticeKind::Failed, RunStatus::Failed),
    ];
    let is_told = |kind: NoticeKind| {
        found
            .iter()
            .any(|(key, text)| text.is_some() && key.ends_with(&format!("/{}", kind.as_str())))
    };
    kinds.into_iter().find(|(kind, _)| is_told(*kind)).map(|(_, status)| status)
}
