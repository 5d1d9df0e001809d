//! One invocation of the cron, or of a request that drives a run: load, deliver, next, act, apply,
//! save.
//!
//! In: the world, the settings, the secrets. Out: a [`Summary`].
//!
//! Invariants: an idle tick makes one KV read of 1 + 2 keys a pair (`waking` says why) and calls
//! nobody. A run is driven by one tick at a time as far as KV can tell, and nothing breaks when it
//! cannot. The tick stops before its budget is spent and hands over.
//!
//! Failure: where the store does not answer, nothing starts, and people hear of it after an hour.

mod act;
mod backups;
mod desk;
mod drive;
mod lost;
mod memory;
mod meter;
mod outbox;
mod publish;
mod silence;
mod telling;
mod waking;

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::Value;

use self::desk::Desk;
use self::memory::{Memory, Unreadable};
use self::meter::Meter;
use crate::config::{Config, NoticeKind, Pair};
use crate::id::{RunId, Secret};
use crate::ordered;
use crate::port::{Level, Metadata, StoreFailure, World};
use crate::record::{self, Report};
use crate::sync::capacity;
use crate::sync::checkpoint::{Checkpoint, Goal, RunStatus, Start};
use crate::sync::notice;
use crate::sync::schedule::{self, Day, Due};
use crate::time::Timestamp;

/// Subrequests that are kept back when the tick decides whether to act.
const RESERVE: u32 = capacity::HAND_OVER;

/// Ticks that a run leads one after the other, before every run that has led fewer times three
/// comes first.
///
/// A plain run takes one or two. One that hangs must not take the morning of the others, and two
/// that are as far are not driven in turn, for each hand-over costs both.
const TICKS_IN_A_ROW: u32 = 3;

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
    /// Subrequests that are kept back to hand over the runs that are open.
    kept_back: Cell<u32>,
}

/// What a tick did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// HTTP requests that were sent.
    pub http_count: u32,
    /// KV operations.
    pub store_count: u32,
    /// How the run that was driven first stands; `None` when none was.
    pub driven: Option<(RunId, RunStatus)>,
    /// How the runs of other pairs stand that were driven with what was left.
    pub also_driven: Vec<(RunId, RunStatus)>,
    /// Whether a run was left for the next tick.
    pub is_handed_over: bool,
}

/// What comes first is driven first. In this order: whether people were told its end, for what
/// comes after that waits for every run. Whether it still waits for another attempt. How often it
/// has led [`TICKS_IN_A_ROW`] ticks. Whether a person started it. Its deadline.
type Order = (bool, bool, u32, bool, Timestamp);

/// A run that wants to be driven.
struct Candidate<'p> {
    order: Order,
    pair: &'p Pair,
    checkpoint: Checkpoint,
    /// What the store held of the pair: the last run, and the ticks that have driven it.
    seen: Option<(RunId, u32)>,
    /// The run that gives way to it, at its snapshot.
    left: Option<Checkpoint>,
}

impl<'a, W: World> Context<'a, W> {
    /// Prepares a tick that hands over at `wall`.
    pub fn new(
        world: &'a W,
        config: &'a Config,
        secrets: &'a Secrets,
        wall: Timestamp,
        watch: Watch<'a>,
    ) -> Self {
        Self {
            world: Meter::new(world),
            config,
            secrets,
            wall,
            watch,
            desk: Desk::default(),
            kept_back: Cell::new(RESERVE),
        }
    }

    /// Does what is due: delivers notices, then drives runs, one first and others while it waits
    /// and with what it leaves.
    pub async fn tick(&self) -> Summary {
        use crate::port::Clock as _;
        let now = self.world.now();
        let mut summary = Summary::default();
        let memories = match self.load(now).await {
            Ok(memories) => memories,
            Err(error) => {
                self.log(Level::Error, "nothing started", &[("error", error.to_string())]);
                self.tell_silence(&error, now).await;
                return self.finish(summary);
            }
        };
        self.note_answer(now);
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
        // That those will be late that may have to wait for a later tick is told before the budget
        // is spent.
        for waiting in candidates.iter_mut().skip(1) {
            let known = waiting.checkpoint.outbox.len();
            self.tell_lateness(waiting.pair, &mut waiting.checkpoint, now).await;
            for id in waiting.checkpoint.outbox.split_off(known) {
                self.list_waiting(Some(id)).await;
            }
        }
        // A run that waits until after this tick is left alone.
        candidates.retain(|candidate| !candidate.checkpoint.waits_beyond(self.wall, now));
        self.drive_all(candidates, now, &mut summary).await;
        self.finish(summary)
    }

    /// Sees to what a pair is owed before a run, and returns the run that wants to be driven, with
    /// its place in the order.
    async fn see_to<'p>(
        &self,
        pair: &'p Pair,
        mut memory: Memory,
        now: Timestamp,
    ) -> Option<Candidate<'p>> {
        self.mark_taken(&memory, now).await;
        self.strike_taken(&mut memory).await;
        self.correct(&memory, now).await;
        self.see_to_incident(pair, memory.checkpoint.as_ref(), &memory.told, now).await;
        let (mut checkpoint, left) = if memory.is_asleep {
            // Where there is no checkpoint, nothing else says that a manual run was forgotten.
            (self.lost_run(pair, &memory, now).await?, None)
        } else {
            self.tell_misconfigured(pair, &memory, now).await;
            self.tell_missed_deadline(pair, &memory, now).await;
            self.candidate(pair, &memory, now).await?
        };
        // A checkpoint that was lost or is old does not make people hear it twice.
        let told = memory
            .told
            .iter()
            .filter(|notice| notice.run == checkpoint.run)
            .map(|notice| notice.kind);
        checkpoint.lateness_told.extend(told);
        let deadline =
            if checkpoint.is_manual { checkpoint.deadline() } else { memory.day.deadline };
        let waits = checkpoint.not_before.is_some_and(|until| until > now);
        let order = (
            checkpoint.is_published,
            waits,
            checkpoint.turns / TICKS_IN_A_ROW,
            checkpoint.is_manual,
            deadline,
        );
        let seen = memory.checkpoint.map(|last| (last.run, last.tick_count));
        Some(Candidate { order, pair, checkpoint, seen, left })
    }

    /// Tells what there is to tell of a run that begins, and of the one that gives way to it.
    async fn begin(&self, candidate: Candidate<'_>, now: Timestamp) -> Checkpoint {
        let Candidate { pair, mut checkpoint, left, .. } = candidate;
        if checkpoint.tick_count > 0 || checkpoint.is_manual {
            return checkpoint;
        }
        self.log_warnings(now);
        if let Some(left) = left {
            let why = "the next run was due before it was compared";
            checkpoint.outbox.extend(self.leave_snapshot(pair, &left, why, now).await);
        }
        let latest = schedule::day(pair, checkpoint.run.date(), &checkpoint.history).latest_start;
        if now > latest && checkpoint.lateness_told.insert(NoticeKind::LateStart) {
            checkpoint.outbox.extend(
                self.tell(notice::of_late_start(&checkpoint, pair, &self.config.label, now), now)
                    .await,
            );
        }
        checkpoint
    }

    /// Does nothing for a pair of which a record cannot be read, and says so once a day and as
    /// often as its incident is escalated.
    async fn leave_alone(&self, pair: &Pair, unreadable: &Unreadable, now: Timestamp) {
        let error = unreadable.error.to_string();
        self.log(
            Level::Error,
            "pair left alone",
            &[("pair", pair.name.to_string()), ("error", error.clone())],
        );
        self.see_to_incident(pair, None, &unreadable.told, now).await;
        let [run, _] = schedule::recent_runs(pair, now);
        let is_told = unreadable
            .told
            .iter()
            .any(|notice| notice.run == run && notice.kind == NoticeKind::Stuck);
        if !is_told && self.has_room_to_tell() {
            let waiting = self
                .tell(notice::of_stuck_pair(pair, &run, &error, &self.config.label, now), now)
                .await;
            self.list_waiting(waiting).await;
        }
    }

    /// Tells, once a day, what is configured and cannot be used. It is told with the first pair.
    async fn tell_misconfigured(&self, pair: &Pair, memory: &Memory, now: Timestamp) {
        let is_first = self.config.pairs.first().is_some_and(|first| first.name == pair.name);
        if !is_first || memory.is_told(NoticeKind::Misconfigured) {
            return;
        }
        let problems: Vec<String> =
            self.config.secret_problems(self.secrets).iter().map(ToString::to_string).collect();
        if problems.is_empty() || !self.has_room_to_tell() {
            return;
        }
        self.log(
            Level::Error,
            "configuration cannot be used",
            &[("problems", problems.join("; "))],
        );
        let waiting = self
            .tell(
                notice::of_misconfigured(pair, &memory.day.run, &problems, &self.config.label, now),
                now,
            )
            .await;
        self.list_waiting(waiting).await;
    }

    fn finish(&self, mut summary: Summary) -> Summary {
        summary.http_count = self.world.http_count();
        summary.store_count = self.world.store_count();
        if summary.driven.is_none() {
            let keys = self.world.key_count().to_string();
            let facts = [
                ("http", summary.http_count.to_string()),
                ("kv", summary.store_count.to_string()),
                ("keys", keys),
            ];
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
                    ("keys", self.world.key_count().to_string()),
                    ("subrequests", (summary.http_count + summary.store_count).to_string()),
                    ("handed_over", summary.is_handed_over.to_string()),
                    ("also_driven", summary.also_driven.len().to_string()),
                ],
            );
        }
        summary
    }

    fn log(&self, level: Level, event: &str, facts: &[(&str, String)]) {
        use crate::port::Log as _;
        self.world.log(level, event, facts);
    }

    /// Returns the run of a pair that wants to be driven: the one under way, or today's when it is
    /// due, with the one that gives way to it.
    async fn candidate(
        &self,
        pair: &Pair,
        memory: &Memory,
        now: Timestamp,
    ) -> Option<(Checkpoint, Option<Checkpoint>)> {
        let under_way = memory.checkpoint.as_ref().filter(|checkpoint| !checkpoint.is_over());
        if let Some(checkpoint) = under_way.filter(|checkpoint| {
            checkpoint.is_driven(now) || !Self::gives_way(checkpoint, memory, now)
        }) {
            return (!checkpoint.is_driven(now)).then(|| (checkpoint.clone(), None));
        }
        if let Some(day) = &memory.unjudged
            && !self.miss(pair, day, memory, now).await
        {
            return None;
        }
        let run = &memory.day.run;
        let is_done = memory.is_ended
            || memory.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.run == *run);
        if is_done {
            return self.leftover(pair, memory, now).await.map(|leftover| (leftover, None));
        }
        match memory.day.due(now) {
            Due::Later { .. } | Due::Off => {
                self.leftover(pair, memory, now).await.map(|leftover| (leftover, None))
            }
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
                // Notices of the run before that are still on their way must not be forgotten with
                // it.
                checkpoint.outbox =
                    memory.checkpoint.as_ref().map(|last| last.outbox.clone()).unwrap_or_default();
                Some((checkpoint, under_way.cloned()))
            }
            Due::Missed => {
                self.miss(pair, &memory.day, memory, now).await;
                None
            }
        }
    }

    /// Writes down what deserves a look in the settings, once for each scheduled run.
    fn log_warnings(&self, now: Timestamp) {
        let crowded =
            capacity::crowded(self.config, &self.desk.lengths.borrow(), capacity::INTERVAL, now);
        let reads = capacity::too_many_reads(self.config, capacity::INTERVAL);
        for warning in schedule::warnings(self.config, now).into_iter().chain(crowded).chain(reads)
        {
            self.log(Level::Warn, "configuration deserves a look", &[("warning", warning)]);
        }
    }

    /// Returns whether a run is only at the snapshot of its backup, which may take hours, while
    /// another is due.
    fn gives_way(checkpoint: &Checkpoint, memory: &Memory, now: Timestamp) -> bool {
        let is_due = checkpoint.run != memory.day.run
            && !memory.is_ended
            && memory.day.due(now) == Due::Start;
        is_due && checkpoint.is_published && checkpoint.prune.is_at_snapshot()
    }

    /// Tells that the snapshot of a run was not compared because of another run. What is left of it
    /// is pruned by that one. Returns the notice's id when some channel has not taken it.
    async fn leave_snapshot(
        &self,
        pair: &Pair,
        checkpoint: &Checkpoint,
        why: &str,
        now: Timestamp,
    ) -> Option<String> {
        let mut left = checkpoint.clone();
        left.prune.leave_snapshot(why);
        self.tell(notice::of_snapshot(&left, pair, &self.config.label, now)?, now).await
    }

    /// Does the same for a run that somebody starts, where no tick drives the one at its snapshot.
    pub async fn give_way(
        &self,
        pair: &Pair,
        checkpoint: &Checkpoint,
        now: Timestamp,
    ) -> Option<String> {
        if let Err(error) = self.load_desk(pair).await {
            self.log(Level::Warn, "incident not read", &[("error", error.to_string())]);
        }
        self.leave_snapshot(pair, checkpoint, "somebody started a run before it was compared", now)
            .await
    }

    /// Returns what there is to drive beside the day's run: the last one that is to prune once
    /// more, or a manual one that nothing remembers.
    async fn leftover(&self, pair: &Pair, memory: &Memory, now: Timestamp) -> Option<Checkpoint> {
        match self.swept(memory, now) {
            Some(swept) => Some(swept),
            None => self.lost_run(pair, memory, now).await,
        }
    }

    /// Returns the last run when it is to prune once more.
    fn swept(&self, memory: &Memory, now: Timestamp) -> Option<Checkpoint> {
        let mut checkpoint =
            memory.checkpoint.as_ref().filter(|checkpoint| checkpoint.wants_sweep(now))?.clone();
        checkpoint.sweep(now);
        self.log(Level::Info, "pruning once more", &[("run", checkpoint.run.to_string())]);
        Some(checkpoint)
    }

    /// Records a day on which no run was started, and tells people, with the pairs that were driven
    /// instead. Returns whether there was room for that: many pairs may have missed the same day,
    /// and the next tick tells the others.
    async fn miss(&self, pair: &Pair, day: &Day, memory: &Memory, now: Timestamp) -> bool {
        // Beside the notice its result, each once more where it is refused as too fast.
        if !self.has_room(5 + self.channel_count()) {
            return false;
        }
        let run = &day.run;
        let others = self.desk.driven_between(&pair.name, day.start_at, day.catch_up_until);
        // Told first, and not again where only the result could not be stored.
        if !memory.told.iter().any(|notice| notice.run == *run && notice.kind == NoticeKind::Missed)
        {
            let notice = match others.as_slice() {
                [] => notice::of_missed_day(pair, run, &self.config.label, now),
                others => notice::of_crowded_out_day(pair, run, others, &self.config.label, now),
            };
            self.tell(notice, now).await;
        }
        let mut report = Report::of_missed_day(pair, run, now);
        if !others.is_empty() {
            report.reason = Some(notice::crowded_out(pair, &others));
        }
        let key = record::result_key(&pair.name, run);
        if let Err(error) =
            self.write(&key, &record::encode(&report), Some(report.metadata())).await
        {
            self.log(
                Level::Error,
                "result not stored",
                &[("key", key), ("error", error.to_string())],
            );
        }
        self.log(
            Level::Warn,
            "day missed",
            &[("pair", pair.name.to_string()), ("run", run.to_string())],
        );
        true
    }

    /// Returns whether so many subrequests are left beside those that are kept back.
    fn has_room(&self, count: u32) -> bool {
        act::fits(
            self.world.total(),
            count.saturating_add(self.kept_back.get() - RESERVE),
            self.config.subrequest_budget,
        )
    }

    /// Writes a record; one that is refused as too fast is repeated where the save that hands over
    /// does not need the subrequest.
    async fn write(
        &self,
        key: &str,
        value: &str,
        metadata: Option<Metadata>,
    ) -> Result<(), StoreFailure> {
        record::write(&self.world, key, value, metadata, || self.has_room(1)).await
    }
}
