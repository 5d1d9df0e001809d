//! The simulated world: what it holds, and the ports of one tick in it.
//!
//! Every port waits at least once, so that the scheduler decides who goes on. A request is applied
//! when it arrives, which is after it was sent and before its reply is read.
//!
//! Invariants: nothing here reads a clock or draws from anything but the seed.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use chrono::TimeDelta;
use firstlight::api::ApiRequest;
use firstlight::port::{Clock, Level, Log, Notes, Recall};
use firstlight::tick::Summary;
use firstlight::time::Timestamp;
use neon_emulator::model::Finish;
use neon_emulator::simulated::Simulated;

use crate::faults::{Fault, Kind};
use crate::kv::{Kv, View};
use crate::oracle::{Oracle, Sight};
use crate::plan::{Crash, Memory, Planned};
use crate::run::{Action, TickRecord};

/// Everything that is simulated.
#[derive(Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fact of a scenario, and they are independent"
)]
pub(crate) struct Sim {
    /// The time.
    pub(crate) now: Timestamp,
    /// Neon.
    pub(crate) neon: Simulated,
    /// Workers KV.
    pub(crate) kv: Kv,
    /// The judge.
    pub(crate) oracle: Oracle,
    /// What will go wrong.
    pub(crate) plan: Vec<Planned>,
    /// Where the Worker will be killed.
    pub(crate) crash: Crash,
    /// What the store remembers from the first fault on.
    pub(crate) memory: Memory,
    /// Whether a second tick starts at the first fault.
    pub(crate) is_doubled: bool,
    /// What will happen, by itself.
    pub(crate) events: Vec<(Timestamp, Event)>,
    /// Draws whatever is drawn.
    pub(crate) random: fastrand::Rng,
    /// How ticks see the store.
    pub(crate) view: View,
    /// Whether latencies are drawn; otherwise they are all the same.
    pub(crate) is_jittery: bool,
    /// Whether applications write to staging whenever it is ready.
    pub(crate) is_in_use: bool,
    /// Whether restores from a backup are damaged.
    pub(crate) damages: bool,
    /// Whether an application writes to what a branch was just made of.
    pub(crate) is_live: bool,
    /// Whether another configuration is deployed.
    pub(crate) is_deployed: bool,
    /// Of a hundred requests to receivers, how many fail.
    pub(crate) receivers_fail: u8,
    /// Requests that a receiver failed because of that.
    pub(crate) failed_letters: u32,
    /// What receivers got; only when it is wanted.
    pub(crate) letters: Option<Vec<crate::receivers::Letterbox>>,
    /// How often each action was taken.
    pub(crate) counts: Vec<(&'static str, u32)>,
    /// Every action; only when it is wanted.
    pub(crate) actions: Option<Vec<Action>>,
    /// What happened, for people; only when it is wanted.
    pub(crate) trace: Option<Vec<String>>,
    /// Requests and store operations.
    pub(crate) action_count: u64,
    /// Until when Neon is out.
    pub(crate) neon_out_until: Option<Timestamp>,
    /// Until when the store is out.
    pub(crate) store_out_until: Option<Timestamp>,
    /// Until when the store takes no writes, and answers reads.
    pub(crate) writes_refused_until: Option<Timestamp>,
    /// What the instance remembers; every tick is run by the same one.
    pub(crate) notes: Notes,
    /// Queries that find the compute asleep.
    pub(crate) asleep: u32,
    /// Whether the next save is the one at which the Worker is killed, and in which task.
    doomed: Option<usize>,
    /// The last handed-over reason, for liveness failures.
    pub(crate) last_wait: String,
    /// When the last fault stops.
    pub(crate) faulty_until: Timestamp,
    /// Cron ticks since then that found something to do.
    pub(crate) ticks_to_end: u32,
    /// What each tick did, with when it began and ended.
    pub(crate) summaries: Vec<TickRecord>,
    /// Writes that the store refused because they came too fast.
    pub(crate) refused_writes: u32,
    /// Every tick so far.
    pub(crate) tasks: Vec<TaskState>,
}

/// A query on its way, and what staging was when it was sent.
#[derive(Clone)]
pub(crate) struct LateQuery {
    pub(crate) connection: String,
    pub(crate) is_read_only: bool,
    pub(crate) body: String,
    /// The data of staging.
    pub(crate) meant_for: Option<String>,
}

/// What happens by itself.
#[derive(Clone)]
pub(crate) enum Event {
    /// The cron fires.
    Cron,
    /// Somebody sends a request to the Worker.
    Api(Box<ApiRequest>),
    /// A request arrives that nobody waits for any more.
    Zombie(neon_emulator::model::Request),
    /// A query arrives that nobody waits for any more.
    ZombieQuery(Box<LateQuery>),
    /// An application writes to production and to staging.
    Application,
    /// Somebody empties staging.
    Emptied,
    /// Somebody suspends the compute of staging, and that operation fails.
    SuspendInVain,
    /// Neon does so many operations on branches of somebody else's.
    Bustle(usize),
    /// Neon checks the compute of the branch of this name, and that ends like this after so many
    /// milliseconds.
    Check(&'static str, Finish, i64),
    /// Somebody does something to the project.
    Outside(Fault),
    /// The store takes no writes for so long.
    WritesRefused(TimeDelta),
    /// What the instance remembers is forgotten.
    NewInstance,
    /// Somebody writes a key of the store by hand, or removes it.
    Stored(&'static str, Option<String>),
}

/// One tick, or one request that drives a run.
#[derive(Clone, Default)]
pub(crate) struct TaskState {
    /// When it wants to go on.
    pub(crate) wake: Option<Timestamp>,
    /// Whether it was killed.
    pub(crate) is_killed: bool,
    /// How far its clock is ahead.
    pub(crate) skew: TimeDelta,
    /// Subrequests so far.
    pub(crate) subrequests: u32,
    /// What it saw of staging last.
    pub(crate) sight: Option<Sight>,
    /// The step that it is at.
    pub(crate) step: String,
}

impl Sim {
    /// Returns a world in which nothing goes wrong.
    pub(crate) fn new(now: Timestamp, neon: Simulated, oracle: Oracle) -> Self {
        Self {
            now,
            neon,
            kv: Kv::default(),
            oracle,
            plan: Vec::new(),
            crash: Crash::Never,
            memory: Memory::Fresh,
            is_doubled: false,
            events: Vec::new(),
            random: fastrand::Rng::with_seed(0),
            view: View::Fresh,
            is_jittery: false,
            is_in_use: false,
            damages: false,
            is_live: false,
            is_deployed: false,
            receivers_fail: 0,
            failed_letters: 0,
            letters: None,
            counts: Vec::new(),
            actions: None,
            trace: None,
            action_count: 0,
            neon_out_until: None,
            store_out_until: None,
            writes_refused_until: None,
            notes: Notes::default(),
            asleep: 0,
            doomed: None,
            last_wait: String::new(),
            faulty_until: now,
            ticks_to_end: 0,
            summaries: Vec::new(),
            refused_writes: 0,
            tasks: Vec::new(),
        }
    }

    /// Returns the id of the branch of a name.
    pub(crate) fn branch(&self, name: &str) -> Option<String> {
        self.neon.model.branch_named(name).map(|branch| branch.id.clone())
    }

    /// Writes down what happens, if that is wanted.
    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{} {}", self.now.format("%H:%M:%S%.3f"), text()));
        }
    }

    pub(crate) fn latency(&mut self) -> TimeDelta {
        TimeDelta::milliseconds(if self.is_jittery { self.random.i64(1..=400) } else { 20 })
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&mut self) {
        self.plan.clear();
        self.asleep = 0;
        self.view = View::Fresh;
        self.damages = false;
    }

    /// Counts an action, and returns what goes wrong with it.
    pub(crate) fn begin(&mut self, task: usize, action: &'static str, kind: Kind) -> Fault {
        self.action_count += 1;
        self.tasks[task].subrequests += 1;
        let nth = if let Some((_, count)) = self.counts.iter_mut().find(|(name, _)| *name == action)
        {
            *count += 1;
            *count
        } else {
            self.counts.push((action, 1));
            1
        };
        if let Some(actions) = &mut self.actions {
            actions.push(Action { name: action, nth, kind, step: self.tasks[task].step.clone() });
        }
        let found =
            self.plan.iter().position(|planned| planned.nth == nth && planned.action == action);
        let fault = found.map(|index| self.plan.remove(index).fault);
        self.note(|| {
            format!(
                "[{task}] {action}#{nth}{}",
                fault.map(|fault| format!(" — {fault}")).unwrap_or_default()
            )
        });
        if fault.is_some() {
            self.struck(task);
        }
        fault.unwrap_or(Fault::Nothing)
    }

    /// Returns how often an action was taken.
    pub(crate) fn count_of(&self, action: &str) -> u32 {
        self.counts.iter().find(|(name, _)| *name == action).map_or(0, |(_, count)| *count)
    }

    /// The place of a fault is reached: a crash, a second tick, a loss of memory begin here.
    fn struck(&mut self, task: usize) {
        self.faulty_until = self.faulty_until.max(self.now);
        if std::mem::take(&mut self.is_doubled) {
            self.events.push((self.now, Event::Cron));
        }
        match std::mem::replace(&mut self.memory, Memory::Fresh) {
            Memory::Fresh => {}
            Memory::Stale => {
                self.view = View::Stale;
                self.oracle.is_memory_stale = true;
            }
            Memory::Empty => {
                self.kv.wipe();
                self.oracle.is_memory_lost = true;
            }
        }
        if self.crash != Crash::Never && self.doomed.is_none() {
            self.doomed = Some(task);
        }
    }

    /// Kills a task. The cron fires again soon after.
    pub(crate) fn kill(&mut self, task: usize) {
        self.note(|| format!("[{task}] killed"));
        self.tasks[task].is_killed = true;
        self.crash = Crash::Never;
        self.doomed = None;
        self.events.push((self.now + TimeDelta::seconds(20), Event::Cron));
    }

    pub(crate) fn is_doomed(&self, task: usize, crash: Crash) -> bool {
        self.doomed == Some(task) && self.crash == crash
    }
}

/// The ports of one task.
pub(crate) struct TaskWorld {
    pub(crate) sim: Rc<RefCell<Sim>>,
    pub(crate) task: usize,
}

impl TaskWorld {
    /// Returns the ports of a task.
    pub(crate) fn new(sim: Rc<RefCell<Sim>>, task: usize) -> Self {
        Self { sim, task }
    }

    /// A tick has ended: within its budgets, or the simulation fails.
    pub(crate) fn ended(&self, began_at: Timestamp, summary: Summary, subrequest_budget: u32) {
        let mut sim = self.sim.borrow_mut();
        let ended_at = sim.now;
        let used = sim.tasks[self.task].subrequests;
        if used > subrequest_budget {
            sim.oracle.violations.push(format!(
                "budget: a tick made {used} subrequests, allowed are {subrequest_budget}"
            ));
        }
        sim.summaries.push(TickRecord { began_at, ended_at, summary });
    }

    /// Somebody was answered that a run has started.
    pub(crate) fn accepted(&self, run: &str) {
        self.sim.borrow_mut().oracle.accepted(run);
    }

    pub(crate) fn pause(&self, time: TimeDelta) -> Pause<'_> {
        Pause { world: self, until: self.sim.borrow().now + time }
    }

    pub(crate) fn latency(&self) -> TimeDelta {
        self.sim.borrow_mut().latency()
    }
}

/// Waits; for ever when the task was killed.
pub(crate) struct Pause<'a> {
    world: &'a TaskWorld,
    until: Timestamp,
}

impl Future for Pause<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let mut sim = self.world.sim.borrow_mut();
        let now = sim.now;
        let task = &mut sim.tasks[self.world.task];
        if task.is_killed {
            return Poll::Pending;
        }
        if now >= self.until {
            return Poll::Ready(());
        }
        task.wake = Some(task.wake.map_or(self.until, |wake| wake.min(self.until)));
        Poll::Pending
    }
}

impl Clock for TaskWorld {
    fn now(&self) -> Timestamp {
        let sim = self.sim.borrow();
        sim.now + sim.tasks[self.task].skew
    }

    async fn sleep(&self, until: Timestamp) {
        let time = until - self.now();
        self.pause(time.max(TimeDelta::milliseconds(1))).await;
    }
}

impl Recall for TaskWorld {
    fn note(&self, what: &str, at: Timestamp) {
        self.sim.borrow_mut().notes.note(what, at);
    }

    fn noted_at(&self, what: &str) -> Option<Timestamp> {
        self.sim.borrow().notes.noted_at(what)
    }
}

impl Log for TaskWorld {
    fn log(&self, level: Level, event: &str, facts: &[(&str, String)]) {
        let mut sim = self.sim.borrow_mut();
        let task = self.task;
        let fact =
            |name: &str| facts.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
        if let Some(step) = fact("step").filter(|_| matches!(event, "tick drives" | "step started"))
        {
            sim.tasks[task].step = step;
        }
        if event == "handed over" {
            sim.last_wait = fact("why").unwrap_or_default();
        }
        sim.note(|| {
            let facts: Vec<String> =
                facts.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{task}]   {level:?} {event}: {}", facts.join(" "))
        });
    }
}
