//! Does what the machine asks for.

use std::time::Duration;

use serde_json::json;

use super::{Context, RESERVE};
use crate::config::{Pair, SmokeTest, secret};
use crate::id::{RunId, Secret};
use crate::neon::sql::{Login, Rows, SqlError};
use crate::neon::{Api, Call};
use crate::port::{Clock as _, Http as _, Level, Store as _, World};
use crate::record::{self, CancelOrder, VerifiedBackup};
use crate::sync::checkpoint::Hold;
use crate::sync::machine::{Action, Cancelled, Orders, Outcome, Purpose, Query, Run, SECRET_AT};
use crate::sync::smoke::{self, Captured, Sent};
use crate::time::{Timestamp, between};
use crate::verify::{Baseline, Check, CheckKind, CheckOutcome};

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
