//! Does what the machine asks for.

use crate::ordered::IntoOrdered as _;
use std::collections::{BTreeMap, BTreeSet};

use std::time::Duration;

use serde_json::json;

use super::{Context, RESERVE};
use crate::config::{NoticeKind, Pair, SmokeTest, secret};
use crate::id::{RunId, Secret};
use crate::neon::sql::{Login, Rows, SqlError};
use crate::neon::{Api, Call};
use crate::port::{Clock as _, Http as _, Level, Recall as _, Store as _, World};
use crate::record::{self, CancelOrder, Compared, Report, TakenSnapshot, VerifiedBackup};
use crate::sync::checkpoint::{Checkpoint, FORMAT, Goal, Hold, RunStatus};
use crate::sync::machine::{Action, Cancelled, Orders, Outcome, Purpose, Query, Run, SECRET_AT};
use crate::sync::notice::{self, Outgoing};
use crate::sync::smoke::{self, Captured, Sent};
use crate::sync::verify::{Baseline, Check, CheckKind, CheckOutcome};
use crate::time::{Timestamp, between};

/// The attempt to store a result after which people are told that it cannot be stored.
const TELL_DIRECTLY: u32 = 3;

/// Returns the subrequests that an action may take.
pub(super) fn cost(action: &Action, channel_count: u32, is_manual: bool) -> u32 {
    match action {
        // A record, a pin and a snapshot of each.
        Action::Forget(runs) => 3 * u32::try_from(runs.len()).unwrap_or(u32::MAX),
        // What is known of it, the notice twice, the incident; one request for each channel.
        Action::NoteSnapshot => 4 + channel_count,
        // The intent is saved before the call; backups and manual runs are listed apart.
        Action::Call(Call::RestoreBranch(_)) | Action::ReadLedger => 2,
        // Result read and written, notice written before and after, the mark of a manual run; one
        // request for each channel.
        Action::Publish => 4 + channel_count + u32::from(is_manual),
        // What is known of it, the notice twice, the result, the mark; one request for each
        // channel.
        Action::Close(_) => 5 + channel_count,
        Action::Read(queries) => u32::try_from(queries.len()).unwrap_or(u32::MAX),
        Action::Call(_)
        | Action::Query(_)
        | Action::ReadOrders(_)
        | Action::ReadEndings(_)
        | Action::Smoke(_) => 1,
    }
}

/// Returns whether so many subrequests are left of a budget beside those that are kept back.
pub(super) fn fits(used: u32, count: u32, budget: u32) -> bool {
    used + count + RESERVE <= budget
}

impl<W: World> Context<'_, W> {
    /// Does one action.
    pub(super) async fn act(
        &self,
        pair: &Pair,
        run: &mut Run,
        action: &Action,
        saved_at: &mut Timestamp,
    ) -> Outcome {
        match action {
            Action::Call(call) => {
                if let Call::RestoreBranch(restore) = call {
                    // Saved first: a crash during the call then costs a look-up, not the knowledge
                    // of what was displaced.
                    run.checkpoint.is_restore_in_doubt |= run.checkpoint.intended_name.is_some();
                    run.checkpoint.intended_name = Some(restore.displaced_name.clone());
                    *saved_at = self.save_after(*saved_at, &run.checkpoint).await.0;
                    run.wants_save = false;
                }
                self.call(pair, call).await
            }
            Action::Query(query) => match self.query(run, query).await {
                Ok(rows) => Outcome::Queried(rows),
                Err(error) => Outcome::QueryFailed(error),
            },
            Action::Read(queries) => {
                let run = &*run;
                let answers = queries.iter().map(|query| async move {
                    let began = self.world.now();
                    let result = self.query(run, query).await;
                    (result, between(began, self.world.now()))
                });
                Outcome::Read(futures_util::future::join_all(answers).await)
            }
            Action::ReadOrders(earlier) => {
                Outcome::Orders(self.orders(pair, &run.checkpoint.run, earlier).await)
            }
            Action::ReadLedger => {
                Outcome::Ledger(record::ledger(&self.world, &pair.name).await.ok())
            }
            Action::ReadEndings(runs) => {
                Outcome::Endings(record::endings(&self.world, &pair.name, runs).await.ok())
            }
            Action::Close(closed) => {
                Outcome::Closed(self.close(pair, closed, &run.checkpoint.run).await)
            }
            Action::Smoke(index) => match pair.smoke_tests.get(*index) {
                Some(test) => {
                    let (check, captured) = self.smoke(test, &run.seen.captured).await;
                    Outcome::Smoked(check, captured)
                }
                None => Outcome::Orders(None),
            },
            Action::Publish => {
                let published = self.publish(pair, &run.checkpoint).await;
                // The next save of the run tells what the notice itself cannot say yet.
                run.checkpoint.settled.extend(
                    self.desk
                        .settled
                        .borrow()
                        .iter()
                        .filter(|taken| taken.notice.run == run.checkpoint.run)
                        .cloned(),
                );
                Outcome::Published(published)
            }
            Action::Forget(runs) => {
                self.forget(pair, runs).await;
                Outcome::Forgotten
            }
            Action::NoteSnapshot => Box::pin(self.note_snapshot(pair, &run.checkpoint)).await,
        }
    }

    pub(super) async fn call(&self, pair: &Pair, call: &Call) -> Outcome {
        let key = self
            .secrets
            .get(secret::NEON_API_KEY)
            .cloned()
            .unwrap_or_else(|| Secret::new(String::new()));
        let api = Api { base: self.config.neon_api_base.clone(), key };
        let what = call.describe(&pair.project);
        if call.is_write() {
            (self.watch)("call", json!({"call": what}));
        }
        let result = self.world.send(call.encode(&api, &pair.project)).await;
        match call.decode(&pair.project, result) {
            Ok(reply) => {
                if call.is_write() {
                    self.log(Level::Info, "call accepted", &[("call", what)]);
                }
                Outcome::Replied(Box::new(reply))
            }
            Err(error) => {
                self.log(Level::Warn, "call failed", &[("error", error.to_string())]);
                (self.watch)("error", json!({"error": error.to_string()}));
                Outcome::Failed(error)
            }
        }
    }

    /// Returns how long a query may take that may take longer than others: what people have
    /// configured to be run on staging.
    pub(super) fn longest(&self, run: &Run, query: &Query) -> Option<Duration> {
        /// For the answer to come back after PostgreSQL has given up.
        const BACK: Duration = Duration::from_secs(15);
        let pair = self
            .config
            .pair(run.checkpoint.pair.as_str())
            .filter(|_| query.purpose == Purpose::AfterRestore)?;
        Some(pair.verification.after_restore.as_ref()?.timeout + BACK)
    }

    async fn query(&self, run: &Run, query: &Query) -> Result<Vec<Rows>, SqlError> {
        let seen = &run.seen;
        let verifying =
            self.config.pair(run.checkpoint.pair.as_str()).map_or(&query.role, |pair| &pair.role);
        let password = seen
            .password(&query.password_of, &query.role, verifying)
            .unwrap_or_else(|| Secret::new(String::new()));
        let login = Login {
            host: query.host.clone(),
            database: query.database.clone(),
            role: query.role.clone(),
            password,
        };
        let displaced = if let Purpose::GivePassword(displaced) = &query.purpose {
            Some(displaced)
        } else {
            None
        };
        let old = displaced.and_then(|displaced| seen.password(displaced, &query.role, verifying));
        let secret = old.as_ref().map(|old| (SECRET_AT, old));
        let mut request = query.batch.encode(&login, self.config.sql_url.as_deref(), secret);
        if let Some(longest) = self.longest(run, query) {
            request.timeout = longest;
        }
        let result = query.batch.decode(&login, self.world.send(request).await);
        if let Err(error) = &result {
            self.log(Level::Warn, "query failed", &[("error", error.to_string())]);
        }
        result
    }

    /// Reads whether somebody has cancelled the run or holds staging, and what the newest of the
    /// earlier runs counted that is on record; `None` when the store did not answer.
    async fn orders(&self, pair: &Pair, run: &RunId, earlier: &[RunId]) -> Option<Orders> {
        let (cancel, hold) = (record::cancel_key(&pair.name, run), record::hold_key(&pair.name));
        let records = earlier.iter().map(|run| record::backup_key(&pair.name, run));
        let keys: Vec<String> = [cancel.clone(), hold.clone()].into_iter().chain(records).collect();
        let found = self.world.read(&keys).await.ok()?;
        let text = |key: &str| found.get(key).and_then(Option::as_ref);
        let hold: Option<Hold> = match text(&hold) {
            Some(value) => Some(record::decode(&hold, value).ok()?),
            None => None,
        };
        let now = self.world.now();
        let records: Vec<(&RunId, VerifiedBackup)> = earlier
            .iter()
            .filter_map(|run| {
                let key = record::backup_key(&pair.name, run);
                // A record that cannot be read is one that is not there: it protects nothing.
                Some((run, record::decode(&key, text(&key)?).ok()?))
            })
            .collect();
        // Each from the newest that has it: a run that could not list the people must not make the
        // next one forget them.
        let counted = records.iter().find(|(_, record)| !record.counts.is_empty());
        let people = records.iter().find_map(|(_, record)| record.people.clone());
        let baseline = counted.or(records.first()).map(|(run, record)| Baseline {
            run: (*run).clone(),
            counts: record.counts.clone(),
            people,
        });
        // An order is one whatever stands in it.
        let cancelled = text(&cancel).map(|text| {
            let order = record::decode::<CancelOrder>(&cancel, text).ok();
            order.map_or_else(Cancelled::default, |order| Cancelled {
                by: order.by,
                reason: order.reason,
            })
        });
        Some(Orders { cancelled, hold: hold.filter(|hold| hold.is_in_force(now)), baseline })
    }

    /// Calls the staging application.
    async fn smoke(&self, test: &SmokeTest, captured: &Captured) -> (Check, Captured) {
        match smoke::request(test, self.secrets, captured) {
            Ok(request) => smoke::judge(
                test,
                Sent { secrets: self.secrets, captured },
                &self.world.send(request).await,
            ),
            Err(missing) => (
                Check::of_pair(
                    CheckKind::SmokeTest,
                    &test.name,
                    CheckOutcome::Failed,
                    missing.to_string(),
                ),
                Captured::new(),
            ),
        }
    }

    /// Ends a manual run whose place another run took: tells how it ended, or that it never did.
    /// Returns what waits for its channels.
    ///
    /// # Repeating
    ///
    /// A notice that was taken is not sent again. What could not be stored is repeated by the next
    /// run.
    async fn close(&self, pair: &Pair, run: &RunId, by: &RunId) -> Vec<String> {
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

    /// Stores the notice and the result, then sends the notice. Returns the ids of those that some
    /// channel has not taken.
    ///
    /// # Repeating
    ///
    /// The result is written once. A notice that is stored already goes on from where its delivery
    /// was.
    async fn publish(&self, pair: &Pair, checkpoint: &Checkpoint) -> Option<Vec<String>> {
        let published = self.try_publish(pair, checkpoint).await;
        if published.is_none()
            && checkpoint.attempt >= TELL_DIRECTLY
            && self.has_room(self.channel_count())
        {
            // People must not wait for the store. What cannot be recorded is not called an end: the
            // next tick may come to another.
            let now = self.world.now();
            if let Some(mut stuck) =
                notice::of_unrecorded_run(checkpoint, pair, &self.config.label, now)
            {
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
        }
        published
    }

    async fn try_publish(&self, pair: &Pair, checkpoint: &Checkpoint) -> Option<Vec<String>> {
        let now = self.world.now();
        let Some(mut told) = notice::of_run(checkpoint, pair, &self.config.label) else {
            return Some(checkpoint.outbox.clone());
        };
        let mut report = Report::of(checkpoint);
        let (result_key, notice_key) =
            (record::result_key(&pair.name, &checkpoint.run), record::notice_key(&told.id));
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
        let earlier: Option<Report> =
            text(&result_key).and_then(|text| record::decode(&result_key, text).ok());
        // What another tick of this run has told and not every channel has taken, as far as is
        // known, is not forgotten with it.
        let waiting = self.undelivered(&found, now);
        self.desk.meet(&waiting);
        let waiting = waiting.into_iter().map(|outgoing| outgoing.notice.id);
        let mut outbox: BTreeSet<String> =
            checkpoint.outbox.iter().cloned().chain(waiting).into_set();
        let mut stored: Option<Outgoing> =
            text(&notice_key).and_then(|text| record::decode(&notice_key, text).ok());
        if let Some(stored) = &mut stored {
            self.recall_taken(stored, now);
        }
        let is_success_told = text(&success_key).is_some();
        if report.status != RunStatus::Succeeded && is_success_told && earlier.is_none() {
            // People were told of the success before its result could be stored: it held then, and
            // is what is kept.
            report.status = RunStatus::Succeeded;
            return self
                .store_result(&result_key, &report)
                .await
                .then(|| outbox.into_iter().collect());
        }
        if let Some(earlier) = earlier.as_ref().filter(|earlier| earlier.status != report.status) {
            // The result is never replaced. What is told must not contradict it without saying so.
            if report.status != RunStatus::Succeeded {
                return Some(outbox.into_iter().collect());
            }
            told.kind = NoticeKind::Corrected;
            told.at = now;
            told.id = format!("{}/{}/corrected", checkpoint.pair, checkpoint.run);
            told.text = format!(
                "Earlier this run was told as {}; it has succeeded since. {}",
                earlier.status.as_str(),
                told.text
            );
            stored = None;
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
        let is_stored = stored.is_some();
        let mut outgoing = stored.unwrap_or_else(|| {
            self.take_up(&mut told);
            let mut outgoing = Outgoing::new(told, &self.config.channels, now);
            if checkpoint.goal == Goal::VerifyBackup {
                // A rehearsal is not what a check waits for.
                outgoing.deliveries.retain(|delivery| !self.is_healthcheck(&delivery.channel));
            }
            outgoing
        });
        // The notice first: a tick that dies between the two would otherwise end the run in
        // silence. What nobody will remember is not told.
        if !is_stored && !self.store_notice(&outgoing).await {
            return None;
        }
        let mut is_safe = true;
        if earlier.is_none() {
            is_safe = self.store_result(&result_key, &report).await;
        }
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

    /// Records that the backup of this run was read without objection.
    pub(super) async fn store_verified(&self, checkpoint: &Checkpoint) {
        let (Some(backup), Some(print)) = (&checkpoint.backup, &checkpoint.fingerprint) else {
            return;
        };
        let record = VerifiedBackup {
            format: FORMAT,
            id: backup.id.clone(),
            name: backup.name.clone(),
            verified_at: self.world.now(),
            compared: Compared {
                tables: print.table_count(),
                rows: print.row_count(),
                bytes: print.bytes(),
            },
            counts: print.counts(),
            people: checkpoint.people.clone(),
        };
        let key = record::backup_key(&checkpoint.pair, &checkpoint.run);
        if let Err(error) = self.write(&key, &record::encode(&record), None).await {
            self.log(
                Level::Warn,
                "backup not recorded as verified",
                &[("key", key), ("error", error.to_string())],
            );
        }
    }

    /// Removes what is on record of backups that are gone. What the store keeps is tried again by
    /// the next run.
    async fn forget(&self, pair: &Pair, runs: &[RunId]) {
        for run in runs {
            for key in [
                record::snapshot_key(&pair.name, run),
                record::pin_key(&pair.name, run),
                record::backup_key(&pair.name, run),
            ] {
                if let Err(error) = self.world.remove(&key).await {
                    self.log(
                        Level::Warn,
                        "record not removed",
                        &[("key", key), ("error", error.to_string())],
                    );
                }
            }
        }
    }

    /// Records what is known of the snapshot, and tells people when it is not what it should be.
    ///
    /// # Repeating
    ///
    /// The record is replaced; a notice has the same id each time.
    async fn note_snapshot(&self, pair: &Pair, checkpoint: &Checkpoint) -> Outcome {
        let Some(work) = &checkpoint.prune.snapshot else {
            return Outcome::SnapshotNoted(true, Vec::new());
        };
        let (key, record) = (
            record::snapshot_key(&pair.name, &checkpoint.run),
            TakenSnapshot { format: FORMAT, work },
        );
        let stored = self.write(&key, &record::encode(&record), Some(record.facts())).await;
        if let Err(error) = &stored {
            self.log(
                Level::Warn,
                "snapshot not recorded",
                &[("key", key), ("error", error.to_string())],
            );
            return Outcome::SnapshotNoted(false, Vec::new());
        }
        let now = self.world.now();
        let waiting = match notice::of_snapshot(checkpoint, pair, &self.config.label, now) {
            Some(notice) => {
                self.log(
                    Level::Warn,
                    "snapshot told",
                    &[("run", checkpoint.run.to_string()), ("text", notice.text.clone())],
                );
                let is_verified = notice.kind == NoticeKind::SnapshotVerified;
                let waiting = self.tell(notice, now).await;
                if is_verified {
                    self.resolve_by_snapshot(pair, checkpoint, now).await;
                }
                waiting
            }
            None => None,
        };
        Outcome::SnapshotNoted(true, waiting.into_iter().collect())
    }

    /// Records what was pruned, where there is something to say.
    pub(super) async fn store_pruned(&self, checkpoint: &Checkpoint) {
        let prune = &checkpoint.prune;
        for (name, reason) in &prune.skipped {
            self.log(
                Level::Warn,
                "not pruned",
                &[("name", name.clone()), ("reason", reason.clone())],
            );
        }
        // The last save may go without its repetition for this: a prune that is not known to be
        // done is done again, and finds nothing.
        if !self.has_room(0) {
            return;
        }
        let key = record::prune_key(&checkpoint.pair, &checkpoint.run);
        if let Err(error) = self.write(&key, &record::encode(prune), None).await {
            self.log(
                Level::Warn,
                "pruning not recorded",
                &[("key", key), ("error", error.to_string())],
            );
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neon::RestoreBranch;

    #[test]
    fn two_subrequests_are_kept_back() {
        let left = |used: u32| (0..=3).filter(|count| fits(used, *count, 50)).max();
        assert_eq!(
            [left(44), left(45), left(46), left(47), left(48), left(49)],
            [Some(3), Some(3), Some(2), Some(1), Some(0), None]
        );
    }

    #[test]
    fn an_action_costs_the_subrequests_that_it_may_take() {
        let restore = RestoreBranch {
            branch: "br-staging".into(),
            source: "br-backup".into(),
            displaced_name: "staging-of-20261121".into(),
        };
        let run = RunId::decode("20261121T100500Z").expect("an instant");
        let costs = [
            (cost(&Action::Call(Call::ListBranches), 2, false), 1),
            (cost(&Action::Call(Call::RestoreBranch(restore)), 2, false), 2),
            (cost(&Action::ReadOrders(Vec::new()), 2, false), 1),
            (cost(&Action::Smoke(0), 2, false), 1),
            (cost(&Action::ReadLedger, 2, false), 2),
            (cost(&Action::ReadEndings(Vec::new()), 2, false), 1),
            (cost(&Action::NoteSnapshot, 2, false), 6),
            (cost(&Action::Forget(vec![run.clone(); 2]), 2, false), 6),
            (cost(&Action::Publish, 0, false), 4),
            (cost(&Action::Publish, 3, false), 7),
            (cost(&Action::Publish, 3, true), 8),
            (cost(&Action::Close(run.clone()), 0, true), 5),
            (cost(&Action::Close(run), 3, true), 8),
        ];
        for (index, (found, expected)) in costs.into_iter().enumerate() {
            assert_eq!(found, expected, "{index}");
        }
    }
}
