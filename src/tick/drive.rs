//! Drives runs: one at a time, and while one waits, the next.
//!
//! In: the candidates of a tick, in their order. Out: runs that are over, and runs that are left
//! for the next tick.
//!
//! Invariants: what is begun first comes first. Another run is begun only while every open one
//! waits, and only with subrequests that no open run is about to need: half a run twice costs more
//! than one run. Every open run keeps back the subrequests that hand it over. A run that was not
//! the first of its tick has used what was left over: such a tick is not counted against it.
//!
//! Failure: a candidate that another tick has taken since the records were read is left to it.

use std::time::Duration;

use serde_json::json;

use super::{Candidate, Context, RESERVE, Summary, act};
use crate::config::{Pair, secret};
use crate::port::{Clock as _, Level, Store as _, World};
use crate::record;
use crate::sync::capacity::WHOLE_RUN;
use crate::sync::checkpoint::{Checkpoint, Ending, RunStatus};
use crate::sync::machine::{self, Action, Conclusion, Decision, Run};
use crate::sync::retry::RUN_FAILED;
use crate::sync::step::{ACTIONS_PER_TICK, TICKS_WITHOUT_PROGRESS};
use crate::time::{Timestamp, after, between, render};

/// The time between two saves of a run.
///
/// Source: Workers KV, limits, 2026-09-05: "1 write/s per key (429 error)"; a tenth is left for
/// clocks that differ.
const BETWEEN_SAVES: Duration = Duration::from_millis(1_100);

/// Subrequests with which a further run is begun: the look at its records, its first save, and the
/// six requests of preflight. With fewer it could do nothing but hand over.
const WORTH_BEGINNING: u32 = 12;

/// A further run is begun only where it has this time: preflight and the making of a backup.
const TIME_TO_BEGIN: Duration = Duration::from_secs(20);

/// A run that waits for longer than this is between two attempts, and what it will need is not
/// known.
const LONG_WAIT: Duration = Duration::from_secs(20);

/// Records that were read longer ago than this are looked at again before a run is begun.
const FRESH: Duration = Duration::from_secs(5);

/// A run that is driven.
struct Driving<'p> {
    pair: &'p Pair,
    run: Run,
    /// When its checkpoint was last saved, or was last refused.
    saved_at: Timestamp,
    /// Doubled after each save that failed: a store that takes no writes must not eat the budget.
    between_saves: Duration,
    /// Nothing is to be done before this.
    resumes_at: Timestamp,
    /// The time that this tick had for it.
    wall_budget: Duration,
    actions_left: u32,
    /// Subrequests that it has made in this tick.
    used: u32,
    is_first: bool,
}

/// Why a run is not driven further for now.
enum Pause {
    /// It is over.
    Over,
    /// It waits, within this tick.
    Waiting,
    /// It is left for the next tick.
    Spent(&'static str),
}

impl<W: World> Context<'_, W> {
    /// Drives candidates, the first first, until all are over or the budget is spent.
    pub(super) async fn drive_all(
        &self,
        candidates: Vec<Candidate<'_>>,
        read_at: Timestamp,
        summary: &mut Summary,
    ) {
        let mut queue = candidates.into_iter().peekable();
        let mut open: Vec<Driving<'_>> = Vec::new();
        let mut is_first = true;
        loop {
            let now = self.world.now();
            let ready = open.iter().position(|driving| driving.resumes_at <= now);
            let index = if let Some(index) = ready {
                index
            } else if let Some(candidate) =
                queue.next_if(|_| is_first || self.may_begin(&open, now))
            {
                if !is_first && !self.is_still_there(&candidate, read_at).await {
                    continue;
                }
                let pair = candidate.pair;
                self.kept_back.set(RESERVE * (count(&open) + 1));
                // What is late is judged by the instant at which a tick begins.
                let checkpoint =
                    Box::pin(self.begin(candidate, if is_first { read_at } else { now })).await;
                open.push(self.enter(pair, checkpoint, std::mem::take(&mut is_first)).await);
                open.len() - 1
            } else if let Some(at) = open.iter().map(|driving| driving.resumes_at).min() {
                self.world.sleep(at).await;
                continue;
            } else {
                return;
            };
            let before = self.world.total();
            let driving = &mut open[index];
            let pause = self.advance(driving).await;
            driving.used += self.world.total() - before;
            if matches!(pause, Pause::Waiting) {
                continue;
            }
            let driving = open.remove(index);
            let is_led = driving.is_first;
            let (checkpoint, is_over) = self.leave(driving, pause).await;
            self.kept_back.set(RESERVE * count(&open).max(1));
            summary.is_handed_over |= !is_over;
            let driven = (checkpoint.run.clone(), checkpoint.status());
            if is_led { summary.driven = Some(driven) } else { summary.also_driven.push(driven) }
        }
    }

    /// Drives one run, as [`Context::tick`] does, and logs what it cost.
    pub async fn drive_one(&self, pair: &Pair, checkpoint: Checkpoint) -> (Checkpoint, bool) {
        // Without it no incident is changed: what is told now joins the next tick's.
        if let Err(error) = self.load_desk(pair).await {
            self.log(Level::Warn, "incident not read", &[("error", error.to_string())]);
        }
        let mut driving = self.enter(pair, checkpoint, true).await;
        let pause = loop {
            match self.advance(&mut driving).await {
                Pause::Waiting => self.world.sleep(driving.resumes_at).await,
                pause @ (Pause::Over | Pause::Spent(_)) => break pause,
            }
        };
        let (checkpoint, is_over) = self.leave(driving, pause).await;
        let driven = Some((checkpoint.run.clone(), checkpoint.status()));
        self.finish(Summary { driven, is_handed_over: !is_over, ..Summary::default() });
        (checkpoint, is_over)
    }

    /// Returns whether there is time and room for a further run, beside what the open ones may
    /// need.
    fn may_begin(&self, open: &[Driving<'_>], now: Timestamp) -> bool {
        let is_waiting_long = |driving: &&Driving<'_>| between(now, driving.resumes_at) > LONG_WAIT;
        let needed: u32 = open
            .iter()
            .filter(|driving| !is_waiting_long(driving))
            .map(|driving| WHOLE_RUN.saturating_sub(driving.used))
            .sum();
        after(now, TIME_TO_BEGIN) < self.wall && self.has_room(needed + RESERVE + WORTH_BEGINNING)
    }

    /// Returns whether the pair's checkpoint is as it was when this tick read it. While this one
    /// drove other pairs, a person or another tick may have begun a run.
    async fn is_still_there(&self, candidate: &Candidate<'_>, read_at: Timestamp) -> bool {
        let now = self.world.now();
        if between(read_at, now) < FRESH {
            return true;
        }
        let key = record::checkpoint_key(&candidate.pair.name);
        let Ok(found) = self.world.read(std::slice::from_ref(&key)).await else { return false };
        let stored = found.get(&key).and_then(Option::as_ref);
        let stored =
            stored.map_or(Ok(None), |text| record::decode_or_lose::<Checkpoint>(&key, text));
        let is_same = stored.is_ok_and(|stored| {
            stored.map(|stored| (stored.run, stored.tick_count)) == candidate.seen
        });
        if !is_same {
            self.log(
                Level::Info,
                "left to another tick",
                &[("pair", candidate.pair.name.to_string())],
            );
        }
        is_same
    }

    /// Begins to drive a run in this tick.
    async fn enter<'p>(
        &self,
        pair: &'p Pair,
        mut checkpoint: Checkpoint,
        is_first: bool,
    ) -> Driving<'p> {
        let now = self.world.now();
        checkpoint.tick_count += 1;
        if is_first {
            checkpoint.idle_tick_count += 1;
            checkpoint.turns += 1;
        }
        checkpoint.driven_until = Some(self.wall);
        let password =
            pair.role_password_secret.as_ref().and_then(|name| self.secrets.get(name)).cloned();
        let mut run = Run::new(checkpoint, password);
        self.refuse_hopeless(pair, &mut run, now);
        self.log(
            Level::Info,
            "tick drives",
            &[
                ("pair", pair.name.to_string()),
                ("run", run.checkpoint.run.to_string()),
                ("step", run.checkpoint.step.name().to_owned()),
                ("tick", run.checkpoint.tick_count.to_string()),
            ],
        );
        let before = self.world.total();
        let (saved_at, _) = self.save(&run.checkpoint).await;
        self.ping_start(pair, &run.checkpoint).await;
        let used = self.world.total() - before;
        Driving {
            pair,
            run,
            saved_at,
            between_saves: BETWEEN_SAVES,
            resumes_at: now,
            wall_budget: between(now, self.wall),
            actions_left: ACTIONS_PER_TICK,
            used,
            is_first,
        }
    }

    /// Drives a run until it is over, waits, or has to be left.
    async fn advance(&self, driving: &mut Driving<'_>) -> Pause {
        let Driving { pair, run, .. } = driving;
        let pair: &Pair = pair;
        while driving.actions_left > 0 {
            driving.actions_left -= 1;
            let now = self.world.now();
            if run.wants_save
                && now >= after(driving.saved_at, driving.between_saves)
                && self.has_room(1)
            {
                let (at, is_saved) = self.save(&run.checkpoint).await;
                driving.saved_at = at;
                run.wants_save = !is_saved;
                driving.between_saves =
                    if is_saved { BETWEEN_SAVES } else { driving.between_saves * 2 };
            }
            let step = run.checkpoint.step;
            self.tell_lateness(pair, &mut run.checkpoint, now).await;
            match machine::next(run, pair, now) {
                Decision::Done => return Pause::Over,
                Decision::Wait { until, why } => {
                    // A clock that has jumped back must not make this tick act on what it saw long
                    // ago.
                    if until >= self.wall || between(now, until) > driving.wall_budget {
                        return Pause::Spent(why);
                    }
                    (self.watch)("waiting", json!({"until": render(until), "why": why}));
                    // What is worth a save is saved during the wait, as soon as the key takes
                    // another write.
                    let earliest_save = after(driving.saved_at, driving.between_saves);
                    // Where no save fits any more, waiting for one would be waiting for nothing,
                    // again and again.
                    driving.resumes_at = if run.wants_save && self.has_room(1) {
                        until.min(earliest_save)
                    } else {
                        until
                    };
                    return Pause::Waiting;
                }
                Decision::Conclude(conclusion) => self.conclude(pair, run, conclusion).await,
                Decision::Act(action) => {
                    if now >= self.wall
                        || !self.has_room(act::cost(
                            &action,
                            self.channel_count(),
                            run.checkpoint.is_manual,
                        ))
                    {
                        return Pause::Spent("the budget of this invocation is spent");
                    }
                    if let Action::Query(query) = &action
                        && let Some(longest) = self.longest(run, query)
                        && self.has_room(2)
                    {
                        // No other tick takes the run up while PostgreSQL is at it, also beyond the
                        // time of this one.
                        run.checkpoint.driven_until = Some(self.wall.max(after(now, longest)));
                        (driving.saved_at, _) =
                            self.save_after(driving.saved_at, &run.checkpoint).await;
                    }
                    let outcome = self.act(pair, run, &action, &mut driving.saved_at).await;
                    if machine::apply(run, &action, outcome, pair, self.world.now()).is_err() {
                        let ending = hopeless(format!(
                            "{}: the outcome does not belong to the action (a fault of Firstlight)",
                            action.name()
                        ));
                        machine::conclude(run, Conclusion::End(ending), pair, self.world.now());
                    }
                }
            }
            self.tell_step(&run.checkpoint, step);
        }
        Pause::Spent("the actions of this invocation are spent")
    }

    /// Saves a run that is over or is left for the next tick, and settles its incident. Returns it,
    /// and whether it is over.
    async fn leave(&self, driving: Driving<'_>, pause: Pause) -> (Checkpoint, bool) {
        let Driving { pair, mut run, saved_at, .. } = driving;
        run.checkpoint.driven_until = None;
        run.checkpoint.left_at = Some(self.world.now());
        let is_over = match pause {
            Pause::Over => {
                self.store_pruned(&run.checkpoint).await;
                self.save_last(saved_at, &run.checkpoint).await;
                true
            }
            Pause::Waiting => false,
            Pause::Spent(why) => {
                self.save_last(saved_at, &run.checkpoint).await;
                let facts = [("run", run.checkpoint.run.to_string()), ("why", why.to_owned())];
                self.log(Level::Info, "handed over", &facts);
                (self.watch)("handed_over", json!({"why": why}));
                false
            }
        };
        self.settle_incident(pair, &run.checkpoint).await;
        (run.checkpoint, is_over)
    }

    /// Ends a run that cannot get anywhere.
    fn refuse_hopeless(&self, pair: &Pair, run: &mut Run, now: Timestamp) {
        if run.checkpoint.verdict.is_some() {
            // Pruning that makes no progress is left for the next run.
            // A snapshot has a time of its own, and an end that is told.
            let is_at_snapshot = run.checkpoint.prune.is_at_snapshot();
            let is_idle =
                run.checkpoint.idle_tick_count > TICKS_WITHOUT_PROGRESS && !is_at_snapshot;
            run.checkpoint.prune.is_done |= run.checkpoint.is_published && is_idle;
            return;
        }
        let mut missing = vec![secret::NEON_API_KEY];
        missing.extend(pair.role_password_secret.as_deref());
        missing.retain(|name| !self.secrets.contains_key(*name));
        let reason = if !missing.is_empty() {
            format!(
                "secret {} is not set; set it with `wrangler secret put`",
                missing.join(" and ")
            )
        } else if run.checkpoint.idle_tick_count > TICKS_WITHOUT_PROGRESS
            && !run.checkpoint.is_trying(now)
        {
            let last = run
                .checkpoint
                .errors
                .last()
                .map(|error| format!("; last error: {}", error.text))
                .unwrap_or_default();
            format!(
                "{} made no step forward in {TICKS_WITHOUT_PROGRESS} ticks{last}",
                run.checkpoint.step.name()
            )
        } else {
            return;
        };
        if run.checkpoint.ending.is_none() {
            machine::conclude(run, Conclusion::End(hopeless(reason)), pair, now);
        }
    }

    /// Takes up a conclusion; a backup that was verified is recorded.
    async fn conclude(&self, pair: &Pair, run: &mut Run, conclusion: Conclusion) {
        let is_backup_read = matches!(conclusion, Conclusion::BackupRead(_));
        machine::conclude(run, conclusion, pair, self.world.now());
        if is_backup_read {
            self.store_verified(&run.checkpoint).await;
        }
    }

    fn tell_step(&self, checkpoint: &Checkpoint, before: crate::sync::step::Step) {
        if checkpoint.step != before {
            let (number, name) = (checkpoint.step.number(), checkpoint.step.name());
            (self.watch)("step", json!({"step": number, "name": name}));
            let facts = [("run", checkpoint.run.to_string()), ("step", name.to_owned())];
            self.log(Level::Info, "step started", &facts);
        }
    }

    /// Saves the checkpoint as soon as its key takes another write: a write that is refused costs a
    /// subrequest all the same.
    pub(super) async fn save_after(
        &self,
        saved_at: Timestamp,
        checkpoint: &Checkpoint,
    ) -> (Timestamp, bool) {
        self.wait_for_key(saved_at).await;
        self.save(checkpoint).await
    }

    /// Saves the checkpoint at the end of a tick, with the subrequests that were kept back for
    /// that.
    async fn save_last(&self, saved_at: Timestamp, checkpoint: &Checkpoint) {
        self.wait_for_key(saved_at).await;
        self.save_where(checkpoint, || {
            self.world.total() + self.kept_back.get() < self.config.subrequest_budget + RESERVE
        })
        .await;
    }

    /// Waits until the checkpoint's key takes another write.
    async fn wait_for_key(&self, saved_at: Timestamp) {
        let now = self.world.now();
        let wait = between(now, after(saved_at, BETWEEN_SAVES)).min(BETWEEN_SAVES);
        if !wait.is_zero() {
            self.world.sleep(after(now, wait)).await;
        }
    }

    /// Saves the checkpoint, and returns when and whether that succeeded. One that fails is
    /// skipped: names in Neon remember the rest.
    pub(super) async fn save(&self, checkpoint: &Checkpoint) -> (Timestamp, bool) {
        let is_saved = self.save_where(checkpoint, || self.has_room(1)).await;
        (self.world.now(), is_saved)
    }

    /// Saves the checkpoint, once more where it was refused as too fast and there is room; returns
    /// whether it is saved.
    async fn save_where(&self, checkpoint: &Checkpoint, has_room: impl Fn() -> bool) -> bool {
        let key = record::checkpoint_key(&checkpoint.pair);
        let saved =
            record::write(&self.world, &key, &record::encode(checkpoint), None, has_room).await;
        if let Err(error) = &saved {
            self.log(
                Level::Warn,
                "checkpoint not saved",
                &[("key", key), ("error", error.to_string())],
            );
        }
        saved.is_ok()
    }
}

fn hopeless(reason: String) -> Ending {
    Ending { status: RunStatus::Failed, reason, runbook: RUN_FAILED.to_owned() }
}

/// Returns how many runs are open.
fn count(open: &[Driving<'_>]) -> u32 {
    u32::try_from(open.len()).unwrap_or(u32::MAX)
}
