//! One invocation of the cron, or of a request that drives a run: load, deliver, next, act, apply, save.
//!
//! In: the world, the settings, the secrets. Out: a [`Summary`].
//!
//! Invariants: an idle tick makes one KV read and calls nobody; a run is driven by one tick at a time as far as KV can tell, and nothing
//! breaks when it cannot; the tick stops before its budget is spent and hands over.
//!
//! Failure: where the store does not answer, nothing starts.

mod act;
mod desk;
mod memory;
mod meter;
mod outbox;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use self::desk::Desk;
use self::memory::{Memory, Unreadable};
use self::meter::Meter;
use crate::config::{Config, NoticeKind, Pair, secret};
use crate::id::{RunId, Secret};
use crate::ordered;
use crate::port::{Level, Metadata, StoreFailure, World};
use crate::record::{self, Report};
use crate::sync::checkpoint::{Checkpoint, Ending, Goal, RunStatus, Start};
use crate::sync::machine::{self, Conclusion, Decision, Run};
use crate::sync::notice;
use crate::sync::retry::RUN_FAILED;
use crate::sync::schedule::{self, Due};
use crate::sync::step::{ACTIONS_PER_TICK, TICKS_WITHOUT_PROGRESS};
use crate::time::{Timestamp, after, between, render};

/// Subrequests that are kept back when the tick decides whether to act: one for the save that hands over, one for its repetition.
const RESERVE: u32 = 2;

/// The time between two saves of a run.
///
/// Source: Workers KV, limits, 2026-09-05: "1 write/s per key (429 error)"; a tenth is left for clocks that differ.
const BETWEEN_SAVES: Duration = Duration::from_millis(1_100);

/// The secrets that the settings name. Missing ones are absent.
pub type Secrets = BTreeMap<String, Secret>;

/// Sees what a run does, as it does it.
pub type Watch<'a> = &'a dyn Fn(&str, Value);

/// What a tick has to work with.
pub struct Context<'a, W: World> {
    world: Meter<'a, W>,
    config: &'a Config,
    secrets: &'a Secrets,
    /// The instant at which it hands over.
    wall: Timestamp,
    watch: Watch<'a>,
    desk: Desk,
}

/// What a tick did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// HTTP requests that were sent.
    pub http_count: u32,
    /// KV operations.
    pub store_count: u32,
    /// How the run that was driven stands; `None` when none was.
    pub driven: Option<(RunId, RunStatus)>,
    /// Whether a run was left for the next tick.
    pub is_handed_over: bool,
}

/// A run that wants to be driven.
struct Candidate<'p> {
    /// What comes first is driven first: what was not told yet, then the earliest deadline.
    order: (bool, Timestamp),
    pair: &'p Pair,
    checkpoint: Checkpoint,
    /// The run that gives way to it, at its snapshot.
    left: Option<Checkpoint>,
}

impl<'a, W: World> Context<'a, W> {
    /// Prepares a tick that hands over at `wall`.
    pub fn new(world: &'a W, config: &'a Config, secrets: &'a Secrets, wall: Timestamp, watch: Watch<'a>) -> Self {
        Self { world: Meter::new(world), config, secrets, wall, watch, desk: Desk::default() }
    }

    /// Does what is due: delivers notices, then advances one pair, the one with the earliest deadline first.
    pub async fn tick(&self) -> Summary {
        use crate::port::Clock as _;
        let now = self.world.now();
        let mut summary = Summary::default();
        let memories = match self.load(now).await {
            Ok(memories) => memories,
            Err(error) => {
                self.log(Level::Error, "nothing started", &[("error", error.to_string())]);
                return self.finish(summary);
            }
        };
        self.deliver_waiting(now).await;
        self.forget_listed().await;
        let mut candidates = Vec::new();
        for (pair, memory) in self.config.pairs.iter().zip(memories) {
            match memory {
                Ok(memory) => candidates.extend(self.see_to(pair, memory, now).await),
                Err(unreadable) => self.leave_alone(pair, &unreadable, now).await,
            }
        }
        ordered::sort_by_key(&mut candidates, |candidate: &Candidate<'_>| candidate.order);
        let mut candidates = candidates.into_iter();
        let first = candidates.next();
        // The others wait for a later tick; that they will be late is told by this one.
        for mut waiting in candidates {
            let known = waiting.checkpoint.outbox.len();
            self.tell_lateness(waiting.pair, &mut waiting.checkpoint, now).await;
            for id in waiting.checkpoint.outbox.split_off(known) {
                self.list_waiting(Some(id)).await;
            }
        }
        if let Some(candidate) = first {
            let pair = candidate.pair;
            let checkpoint = self.begin(candidate, now).await;
            let (checkpoint, is_over) = self.drive(pair, checkpoint).await;
            self.settle_incident(pair, &checkpoint).await;
            summary.driven = Some((checkpoint.run.clone(), checkpoint.status()));
            summary.is_handed_over = !is_over;
        }
        self.finish(summary)
    }

    /// Sees to what a pair is owed before a run, and returns the run that wants to be driven, with its place in the order.
    async fn see_to<'p>(&self, pair: &'p Pair, mut memory: Memory, now: Timestamp) -> Option<Candidate<'p>> {
        self.mark_taken(&memory, now).await;
        self.strike_taken(&mut memory).await;
        self.correct(&memory, now).await;
        self.see_to_incident(pair, memory.checkpoint.as_ref(), &memory.told, now).await;
        self.tell_misconfigured(pair, &memory, now).await;
        self.tell_missed_deadline(pair, &memory, now).await;
        let (mut checkpoint, left) = self.candidate(pair, &memory, now).await?;
        // A checkpoint that was lost or is old does not make people hear it twice.
        let told = memory.told.iter().filter(|notice| notice.run == checkpoint.run).map(|notice| notice.kind);
        checkpoint.lateness_told.extend(told);
        // What comes after a run that was told waits for every run.
        Some(Candidate { order: (checkpoint.is_published, memory.day.deadline), pair, checkpoint, left })
    }

    /// Tells what there is to tell of a run that begins, and of the one that gives way to it.
    async fn begin(&self, candidate: Candidate<'_>, now: Timestamp) -> Checkpoint {
        let Candidate { pair, mut checkpoint, left, .. } = candidate;
        if checkpoint.tick_count > 0 || checkpoint.is_manual {
            return checkpoint;
        }
        self.log_warnings(now);
        if let Some(left) = left {
            checkpoint.outbox.extend(self.leave_snapshot(pair, &left, now).await);
        }
        let latest = pair.zone.instant(checkpoint.run.date(), pair.times.latest_start);
        if now > latest && checkpoint.lateness_told.insert(NoticeKind::LateStart) {
            checkpoint.outbox.extend(self.tell(notice::of_late_start(&checkpoint, pair, &self.config.label, now), now).await);
        }
        checkpoint
    }

    /// Does nothing for a pair of which a record cannot be read, and says so once a day and as often as its incident is escalated.
    async fn leave_alone(&self, pair: &Pair, unreadable: &Unreadable, now: Timestamp) {
        let error = unreadable.error.to_string();
        self.log(Level::Error, "pair left alone", &[("pair", pair.name.to_string()), ("error", error.clone())]);
        self.see_to_incident(pair, None, &unreadable.told, now).await;
        let [run, _] = schedule::recent_runs(pair, now);
        let is_told = unreadable.told.iter().any(|notice| notice.run == run && notice.kind == NoticeKind::Stuck);
        if !is_told && self.has_room_to_tell() {
            let waiting = self.tell(notice::of_stuck_pair(pair, &run, &error, &self.config.label, now), now).await;
            self.list_waiting(waiting).await;
        }
    }

    /// Tells, once a day, what is configured and cannot be used. It is told with the first pair.
    async fn tell_misconfigured(&self, pair: &Pair, memory: &Memory, now: Timestamp) {
        let is_first = self.config.pairs.first().is_some_and(|first| first.name == pair.name);
        if !is_first || memory.is_told(NoticeKind::Misconfigured) {
            return;
        }
        let problems: Vec<String> = self.config.secret_problems(self.secrets).iter().map(ToString::to_string).collect();
        if problems.is_empty() || !self.has_room_to_tell() {
            return;
        }
        self.log(Level::Error, "configuration cannot be used", &[("problems", problems.join("; "))]);
        let waiting = self.tell(notice::of_misconfigured(pair, &memory.day.run, &problems, &self.config.label, now), now).await;
        self.list_waiting(waiting).await;
    }

    fn finish(&self, mut summary: Summary) -> Summary {
        summary.http_count = self.world.http_count();
        summary.store_count = self.world.store_count();
        if summary.driven.is_none() {
            let facts = [("http", summary.http_count.to_string()), ("kv", summary.store_count.to_string())];
            self.log(Level::Info, "idle tick ended", &facts);
        }
        if let Some((run, status)) = &summary.driven {
            self.log(
                Level::Info,
                "tick ended",
                &[
                    ("run", run.to_string()),
                    ("status", status.as_str().to_owned()),
                    ("http", summary.http_count.to_string()),
                    ("kv", summary.store_count.to_string()),
                    ("subrequests", (summary.http_count + summary.store_count).to_string()),
                    ("handed_over", summary.is_handed_over.to_string()),
                ],
            );
        }
        summary
    }

    fn log(&self, level: Level, event: &str, facts: &[(&str, String)]) {
        use crate::port::Log as _;
        self.world.log(level, event, facts);
    }

    /// Returns the run of a pair that wants to be driven: the one under way, or today's when it is due, with the one that gives way to it.
    async fn candidate(&self, pair: &Pair, memory: &Memory, now: Timestamp) -> Option<(Checkpoint, Option<Checkpoint>)> {
        let under_way = memory.checkpoint.as_ref().filter(|checkpoint| !checkpoint.is_over());
        if let Some(checkpoint) = under_way.filter(|checkpoint| checkpoint.is_driven(now) || !Self::gives_way(checkpoint, memory, now)) {
            return (!checkpoint.is_driven(now)).then(|| (checkpoint.clone(), None));
        }
        if let Some(day) = &memory.unjudged {
            self.miss(pair, &day.run, memory, now).await;
        }
        let run = &memory.day.run;
        let is_done = memory.is_ended || memory.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.run == *run);
        if is_done {
            return self.swept(memory, now).map(|swept| (swept, None));
        }
        match memory.day.due(now) {
            Due::Later { .. } | Due::Off => self.swept(memory, now).map(|swept| (swept, None)),
            Due::Start => {
                let start = Start {
                    pair: pair.name.clone(),
                    run: run.clone(),
                    is_manual: false,
                    goal: Goal::Staging,
                    hold: memory.hold.clone(),
                    give_up_at: memory.day.give_up_at(now),
                    settings: pair.settings.clone(),
                    history: memory.history.clone(),
                };
                let mut checkpoint = Checkpoint::start(start, now);
                // Notices of the run before that are still on their way must not be forgotten with it.
                checkpoint.outbox = memory.checkpoint.as_ref().map(|last| last.outbox.clone()).unwrap_or_default();
                Some((checkpoint, under_way.cloned()))
            }
            Due::Missed => {
                self.miss(pair, run, memory, now).await;
                None
            }
        }
    }

    /// Writes down what deserves a look in the settings, once for each scheduled run.
    fn log_warnings(&self, now: Timestamp) {
        for warning in schedule::warnings(self.config, now) {
            self.log(Level::Warn, "configuration deserves a look", &[("warning", warning)]);
        }
    }

    /// Returns whether a run is only at the snapshot of its backup, which may take hours, while another is due.
    fn gives_way(checkpoint: &Checkpoint, memory: &Memory, now: Timestamp) -> bool {
        let is_due = checkpoint.run != memory.day.run && !memory.is_ended && memory.day.due(now) == Due::Start;
        is_due && checkpoint.is_published && checkpoint.prune.is_at_snapshot()
    }

    /// Tells that the snapshot of a run was not compared because another run is due. What is left of it is pruned by that one.
    /// Returns the notice's id when some channel has not taken it.
    async fn leave_snapshot(&self, pair: &Pair, checkpoint: &Checkpoint, now: Timestamp) -> Option<String> {
        let mut left = checkpoint.clone();
        left.prune.leave_snapshot("the next run was due before it was compared");
        self.tell(notice::of_snapshot(&left, pair, &self.config.label, now)?, now).await
    }

    /// Returns the last run when it is to prune once more.
    fn swept(&self, memory: &Memory, now: Timestamp) -> Option<Checkpoint> {
        let mut checkpoint = memory.checkpoint.as_ref().filter(|checkpoint| checkpoint.wants_sweep(now))?.clone();
        checkpoint.sweep(now);
        self.log(Level::Info, "pruning once more", &[("run", checkpoint.run.to_string())]);
        Some(checkpoint)
    }

    /// Records a day on which no run was started, and tells people.
    async fn miss(&self, pair: &Pair, run: &RunId, memory: &Memory, now: Timestamp) {
        // Told first, and not again where only the result could not be stored.
        if !memory.told.iter().any(|notice| notice.run == *run && notice.kind == NoticeKind::Missed) {
            self.tell(notice::of_missed_day(pair, run, &self.config.label, now), now).await;
        }
        let report = Report::of_missed_day(pair, run, now);
        let key = record::result_key(&pair.name, run);
        if let Err(error) = self.write(&key, &record::encode(&report), Some(report.metadata())).await {
            self.log(Level::Error, "result not stored", &[("key", key), ("error", error.to_string())]);
        }
        self.log(Level::Warn, "day missed", &[("pair", pair.name.to_string()), ("run", run.to_string())]);
    }

    /// Drives one run, as [`Context::tick`] does, and logs what it cost.
    pub async fn drive_one(&self, pair: &Pair, checkpoint: Checkpoint) -> (Checkpoint, bool) {
        // Without it no incident is changed: what is told now joins the next tick's.
        if let Err(error) = self.load_desk(pair).await {
            self.log(Level::Warn, "incident not read", &[("error", error.to_string())]);
        }
        let (checkpoint, is_over) = self.drive(pair, checkpoint).await;
        self.settle_incident(pair, &checkpoint).await;
        let driven = Some((checkpoint.run.clone(), checkpoint.status()));
        self.finish(Summary { driven, is_handed_over: !is_over, ..Summary::default() });
        (checkpoint, is_over)
    }

    /// Drives a run until it is over or the budget is spent. Returns its state and whether it is over.
    async fn drive(&self, pair: &Pair, mut checkpoint: Checkpoint) -> (Checkpoint, bool) {
        use crate::port::Clock as _;
        let now = self.world.now();
        checkpoint.tick_count += 1;
        checkpoint.idle_tick_count += 1;
        checkpoint.driven_until = Some(self.wall);
        let password = pair.role_password_secret.as_ref().and_then(|name| self.secrets.get(name)).cloned();
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
        let wall_budget = between(now, self.wall);
        let (mut saved_at, _) = self.save(&run.checkpoint).await;
        self.ping_start(pair, &run.checkpoint).await;
        // Doubled after each save that failed: a store that takes no writes must not eat the budget.
        let mut between_saves = BETWEEN_SAVES;
        for _ in 0..ACTIONS_PER_TICK {
            let now = self.world.now();
            if run.wants_save && now >= after(saved_at, between_saves) && self.has_room(1) {
                let (at, is_saved) = self.save(&run.checkpoint).await;
                saved_at = at;
                run.wants_save = !is_saved;
                between_saves = if is_saved { BETWEEN_SAVES } else { between_saves * 2 };
            }
            let step = run.checkpoint.step;
            self.tell_lateness(pair, &mut run.checkpoint, now).await;
            match machine::next(&run, pair, now) {
                Decision::Done => {
                    run.checkpoint.driven_until = None;
                    self.store_pruned(&run.checkpoint).await;
                    self.save_last(saved_at, &run.checkpoint).await;
                    return (run.checkpoint, true);
                }
                Decision::Wait { until, why } => {
                    // A clock that has jumped back must not make this tick act on what it saw long ago.
                    if until >= self.wall || between(now, until) > wall_budget {
                        return (self.hand_over(run, saved_at, why).await, false);
                    }
                    (self.watch)("waiting", json!({"until": render(until), "why": why}));
                    // What is worth a save is saved during the wait, as soon as the key takes another write.
                    let earliest_save = after(saved_at, between_saves);
                    // Where no save fits any more, waiting for one would be waiting for nothing, again and again.
                    let sleep_until = if run.wants_save && self.has_room(1) { until.min(earliest_save) } else { until };
                    self.world.sleep(sleep_until).await;
                }
                Decision::Conclude(conclusion) => self.conclude(pair, &mut run, conclusion).await,
                Decision::Act(action) => {
                    if now >= self.wall || !self.has_room(act::cost(&action, self.channel_count(), run.checkpoint.is_manual)) {
                        return (self.hand_over(run, saved_at, "the budget of this invocation is spent").await, false);
                    }
                    let outcome = self.act(pair, &mut run, &action, &mut saved_at).await;
                    if machine::apply(&mut run, &action, outcome, pair, self.world.now()).is_err() {
                        let ending =
                            hopeless(format!("{}: the outcome does not belong to the action (a fault of Firstlight)", action.name()));
                        machine::conclude(&mut run, Conclusion::End(ending), pair, self.world.now());
                    }
                }
            }
            self.tell_step(&run.checkpoint, step);
        }
        (self.hand_over(run, saved_at, "the actions of this invocation are spent").await, false)
    }

    /// Ends a run that cannot get anywhere.
    fn refuse_hopeless(&self, pair: &Pair, run: &mut Run, now: Timestamp) {
        if run.checkpoint.verdict.is_some() {
            // Pruning that makes no progress is left for the next run.
            // A snapshot has a time of its own, and an end that is told.
            let is_at_snapshot = run.checkpoint.prune.is_at_snapshot();
            let is_idle = run.checkpoint.idle_tick_count > TICKS_WITHOUT_PROGRESS && !is_at_snapshot;
            run.checkpoint.prune.is_done |= run.checkpoint.is_published && is_idle;
            return;
        }
        let mut missing = vec![secret::NEON_API_KEY];
        missing.extend(pair.role_password_secret.as_deref());
        missing.retain(|name| !self.secrets.contains_key(*name));
        let reason = if !missing.is_empty() {
            format!("secret {} is not set; set it with `wrangler secret put`", missing.join(" and "))
        } else if run.checkpoint.idle_tick_count > TICKS_WITHOUT_PROGRESS && !run.checkpoint.is_trying(now) {
            let last = run.checkpoint.errors.last().map(|error| format!("; last error: {}", error.text)).unwrap_or_default();
            format!("{} made no step forward in {TICKS_WITHOUT_PROGRESS} ticks{last}", run.checkpoint.step.name())
        } else {
            return;
        };
        if run.checkpoint.ending.is_none() {
            machine::conclude(run, Conclusion::End(hopeless(reason)), pair, now);
        }
    }

    /// Takes up a conclusion; a backup that was verified is recorded.
    async fn conclude(&self, pair: &Pair, run: &mut Run, conclusion: Conclusion) {
        use crate::port::Clock as _;
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

    /// Leaves the run for the next tick.
    async fn hand_over(&self, mut run: Run, saved_at: Timestamp, why: &str) -> Checkpoint {
        run.checkpoint.driven_until = None;
        self.save_last(saved_at, &run.checkpoint).await;
        let facts = [("run", run.checkpoint.run.to_string()), ("why", why.to_owned())];
        self.log(Level::Info, "handed over", &facts);
        (self.watch)("handed_over", json!({"why": why}));
        run.checkpoint
    }

    /// Returns whether so many subrequests are left beside those that are kept back.
    fn has_room(&self, count: u32) -> bool {
        act::fits(self.world.total(), count, self.config.subrequest_budget)
    }

    /// Writes a record; one that is refused as too fast is repeated where the save that hands over does not need the subrequest.
    async fn write(&self, key: &str, value: &str, metadata: Option<Metadata>) -> Result<(), StoreFailure> {
        record::write(&self.world, key, value, metadata, || self.has_room(1)).await
    }

    /// Saves the checkpoint as soon as its key takes another write: a write that is refused costs a subrequest all the same.
    async fn save_after(&self, saved_at: Timestamp, checkpoint: &Checkpoint) -> (Timestamp, bool) {
        self.wait_for_key(saved_at).await;
        self.save(checkpoint).await
    }

    /// Saves the checkpoint at the end of a tick, with the subrequests that were kept back for that.
    async fn save_last(&self, saved_at: Timestamp, checkpoint: &Checkpoint) {
        self.wait_for_key(saved_at).await;
        self.save_where(checkpoint, || self.world.total() < self.config.subrequest_budget).await;
    }

    /// Waits until the checkpoint's key takes another write.
    async fn wait_for_key(&self, saved_at: Timestamp) {
        use crate::port::Clock as _;
        let now = self.world.now();
        let wait = between(now, after(saved_at, BETWEEN_SAVES)).min(BETWEEN_SAVES);
        if !wait.is_zero() {
            self.world.sleep(after(now, wait)).await;
        }
    }

    /// Saves the checkpoint, and returns when and whether that succeeded. One that fails is skipped: names in Neon remember the rest.
    async fn save(&self, checkpoint: &Checkpoint) -> (Timestamp, bool) {
        use crate::port::Clock as _;
        let is_saved = self.save_where(checkpoint, || self.has_room(1)).await;
        (self.world.now(), is_saved)
    }

    /// Saves the checkpoint, once more where it was refused as too fast and there is room; returns whether it is saved.
    async fn save_where(&self, checkpoint: &Checkpoint, has_room: impl Fn() -> bool) -> bool {
        let key = record::checkpoint_key(&checkpoint.pair);
        let saved = record::write(&self.world, &key, &record::encode(checkpoint), None, has_room).await;
        if let Err(error) = &saved {
            self.log(Level::Warn, "checkpoint not saved", &[("key", key), ("error", error.to_string())]);
        }
        saved.is_ok()
    }
}

fn hopeless(reason: String) -> Ending {
    Ending { status: RunStatus::Failed, reason, runbook: RUN_FAILED.to_owned() }
}
