//! Runs a scenario: the scheduler, the calendar of a simulated day, and what has to be true at its
//! end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Waker};

use chrono::TimeDelta;
use firstlight::api::{self, ApiRequest};
use firstlight::config::Config;
use firstlight::record::Report;
use firstlight::sync::checkpoint::RunStatus;
use firstlight::sync::notice::Outgoing;
use firstlight::tick::{Context, Summary};
use firstlight::time::{Timestamp, after};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::faults::Kind;
use crate::kv::View;
use crate::scene::Scene;
use crate::world::{Event, Sim, TaskState, TaskWorld};

/// The run of the simulated day.
pub const TODAY: &str = "20261121";
/// When it is to be done: 06:00 in New York.
pub(crate) const DEADLINE: &str = "2026-11-21T11:00:00Z";
/// Tables of the simulated production.
pub const TABLES: u64 = 5;
/// Ticks within which the day's run ends after the last fault has passed.
///
/// A tick that was killed keeps others away for its wall budget (1 tick). Twelve attempts of a step
/// take eight minutes (2). Looking at the end and storing the result may each be tried again (2). A
/// run that gets nowhere is given up after three more (4). Three ticks in a row may be missed: 12.
/// A manual run that is under way is ended first, in another 6 where an invocation has the smallest
/// budget.
pub const TICKS_TO_END: u32 = 18;
/// Polls of one scenario; a run takes a few hundred.
const POLLS: u32 = 200_000;
/// Ticks of a scenario; a request that lives for fifty minutes takes ten, an outage of three hours
/// thirty-six.
const MOST_TICKS: u32 = 60;
/// The cron interval.
const INTERVAL: TimeDelta = TimeDelta::minutes(5);

/// An action of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Its name, such as `restoreProjectBranch`.
    pub name: &'static str,
    /// Which of that name, counted from one.
    pub nth: u32,
    /// What can go wrong with it.
    pub kind: Kind,
    /// The step, as people are told it.
    pub step: String,
}

/// A notice that reached the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whose run.
    pub run: String,
    /// What kind.
    pub kind: String,
    /// What it says.
    pub text: String,
}

/// What a tick of the cron did.
#[derive(Clone, Debug)]
pub struct TickRecord {
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// What it says of itself.
    pub summary: Summary,
}

/// What came of a scenario.
pub struct Outcome {
    /// How today's run ended.
    pub status: Option<RunStatus>,
    /// What people were told of it, in order.
    pub story: Vec<String>,
    /// Every notice that reached the webhook on this day.
    pub told: Vec<Told>,
    /// What each tick of the cron did.
    pub ticks: Vec<TickRecord>,
    /// Writes that the store refused because they came too fast.
    pub refused_writes: u32,
    /// The names of the branches that are left.
    pub branches: Vec<String>,
    /// What must not have happened.
    pub violations: Vec<String>,
    /// Every action, when nothing goes wrong.
    pub actions: Vec<Action>,
    /// What happened, when wanted.
    pub trace: Vec<String>,
    /// What the store holds at the end, when wanted.
    pub stored: BTreeMap<String, String>,
    /// The password of staging's first role at the end.
    pub staging_password: Option<String>,
    /// The rows of staging's tables at the end, all together.
    pub staging_rows: u64,
    /// Requests and store operations.
    pub action_count: u64,
    /// Ticks of each run that ended, with whether it succeeded.
    pub runs: Vec<(u32, bool)>,
    /// Cron ticks after the last fault.
    pub ticks_to_end: u32,
    /// Backups, restores and roll-backs of today's run.
    pub deeds: (u32, u32, u32),
}

pub(crate) fn instant(text: &str) -> Timestamp {
    text.parse().expect("a literal")
}

/// The few facts of a checkpoint that say whether anything is left to do.
#[derive(Deserialize)]
struct Remembered {
    run: String,
    verdict: Option<IgnoredAny>,
    is_published: bool,
    prune: Pruned,
    outbox: Vec<String>,
}

#[derive(Deserialize)]
struct Pruned {
    is_done: bool,
}

impl Remembered {
    fn is_over(&self) -> bool {
        self.verdict.is_some() && self.is_published && self.prune.is_done && self.outbox.is_empty()
    }
}

type Tick = Pin<Box<dyn Future<Output = ()>>>;

/// A running scenario.
pub(crate) struct Simulation<'a> {
    scene: &'a Scene,
    sim: Rc<RefCell<Sim>>,
    tasks: Vec<Option<Tick>>,
    pub(crate) config: Rc<Config>,
    polls: u32,
}

impl<'a> Simulation<'a> {
    /// Returns a simulation in which nothing has happened yet.
    pub(crate) fn new(scene: &'a Scene, sim: Rc<RefCell<Sim>>, config: Rc<Config>) -> Self {
        Self { scene, sim, tasks: Vec::new(), config, polls: 0 }
    }

    /// Returns the world.
    pub(crate) fn sim(&self) -> std::cell::RefMut<'_, Sim> {
        self.sim.borrow_mut()
    }

    pub(crate) fn into_sim(self) -> Sim {
        drop(self.tasks);
        Rc::into_inner(self.sim).expect("every task is gone").into_inner()
    }

    /// Lets time pass in which nothing happens.
    pub(crate) fn jump(&mut self, to: Timestamp) {
        let mut sim = self.sim.borrow_mut();
        sim.now = to;
        sim.neon.advance(to);
    }

    fn settings(&self) -> Rc<Config> {
        if self.sim.borrow().is_deployed {
            Rc::clone(&self.scene.deployed)
        } else {
            Rc::clone(&self.config)
        }
    }

    fn task(&mut self) -> TaskWorld {
        let mut sim = self.sim.borrow_mut();
        let now = sim.now;
        sim.tasks.push(TaskState { wake: Some(now), ..TaskState::default() });
        TaskWorld::new(Rc::clone(&self.sim), sim.tasks.len() - 1)
    }

    /// The cron fires.
    pub(crate) fn cron(&mut self) {
        if !self.is_ended() {
            let mut sim = self.sim.borrow_mut();
            sim.ticks_to_end = if sim.now > sim.faulty_until { sim.ticks_to_end + 1 } else { 0 };
        }
        let (config, secrets) = (self.settings(), Rc::clone(&self.scene.secrets));
        let world = self.task();
        self.sim().note(|| "cron".to_owned());
        self.tasks.push(Some(Box::pin(async move {
            use firstlight::port::Clock as _;
            let began_at = world.now();
            let wall = after(began_at, config.wall_budget);
            let summary =
                Box::pin(Context::new(&world, &config, &secrets, wall, &|_, _| {}).tick()).await;
            world.ended(began_at, summary, config.subrequest_budget);
        })));
    }

    /// Somebody sends a request; a run that it starts is driven for 25 seconds, as `worker/lib.rs`
    /// does.
    fn request(&mut self, request: ApiRequest) {
        let (config, secrets) = (self.settings(), Rc::clone(&self.scene.secrets));
        let world = self.task();
        self.sim().note(|| format!("request {} {}", request.method.as_str(), request.path));
        self.tasks.push(Some(Box::pin(async move {
            use firstlight::port::Clock as _;
            let answer = api::answer(&world, Ok(&config), &secrets, &request).await;
            let Some(drive) = answer.drive else { return };
            world.accepted(drive.checkpoint.run.as_str());
            let Some(pair) = config.pair(drive.pair.as_str()) else { return };
            let wall = after(world.now(), std::time::Duration::from_secs(25));
            Context::new(&world, &config, &secrets, wall, &|_, _| {})
                .drive_one(pair, *drive.checkpoint)
                .await;
        })));
    }

    /// Goes on until `until`, or until nothing is left to happen before.
    pub(crate) fn advance(&mut self, until: Timestamp) {
        loop {
            self.polls += 1;
            assert!(self.polls < POLLS, "the scenario does not come to an end");
            let Some(at) = self.next().filter(|at| *at <= until) else { return };
            let event = {
                let mut sim = self.sim.borrow_mut();
                sim.now = sim.now.max(at);
                let now = sim.now;
                let due = sim.events.iter().position(|(at, _)| *at <= now);
                due.map(|index| sim.events.remove(index).1)
            };
            match event {
                Some(event) => self.happen(event),
                None => self.poll_one(),
            }
        }
    }

    /// Returns when something happens next.
    fn next(&self) -> Option<Timestamp> {
        let sim = self.sim.borrow();
        let wakes = sim.tasks.iter().filter(|task| !task.is_killed).filter_map(|task| task.wake);
        sim.events.iter().map(|(at, _)| *at).chain(wakes).min()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Cron => self.cron(),
            Event::Api(request) => self.request(*request),
            Event::Zombie(request) => {
                let mut sim = self.sim.borrow_mut();
                let response = sim.serve(&request);
                sim.note(|| {
                    format!("zombie {} {}: {}", request.method, request.path, response.status)
                });
            }
            Event::ZombieQuery(query) => self.sim().arrives_late(&query),
            Event::Emptied => {
                let mut sim = self.sim.borrow_mut();
                let staging = sim.oracle.staging_id().to_owned();
                sim.neon.empty(&staging);
            }
            Event::SuspendInVain => {
                let mut sim = self.sim.borrow_mut();
                let (now, staging) = (sim.now, sim.oracle.staging_id().to_owned());
                crate::outside::suspends_in_vain(&mut sim.neon, &staging, now);
            }
            Event::Check(name, finish, milliseconds) => {
                let mut sim = self.sim.borrow_mut();
                let now = sim.now;
                let branch = sim.branch(name).unwrap_or_default();
                sim.neon.model.checks(&branch, finish, milliseconds, now);
            }
            Event::Bustle(count) => {
                let mut sim = self.sim.borrow_mut();
                let now = sim.now;
                let other = sim.branch("inspect").unwrap_or_default();
                sim.neon.model.has_done(&other, "check_availability", count, now);
            }
            Event::Outside(fault) => {
                let mut sim = self.sim.borrow_mut();
                let now = sim.now;
                let Sim { neon, oracle, .. } = &mut *sim;
                crate::outside::happens(neon, oracle, fault, now);
            }
            Event::NewInstance => self.sim().notes = firstlight::port::Notes::default(),
            Event::WritesRefused(time) => {
                let mut sim = self.sim.borrow_mut();
                let until = sim.now + time;
                sim.writes_refused_until = Some(until);
                sim.faulty_until = sim.faulty_until.max(until);
            }
            Event::Stored(key, value) => {
                let mut sim = self.sim.borrow_mut();
                let now = sim.now;
                let written = sim.kv.write(key, value.as_deref(), None, now);
                assert!(written.is_ok(), "{key} was written less than a second ago");
            }
            Event::Application => {
                let mut sim = self.sim.borrow_mut();
                for name in ["production", "staging"] {
                    if let Some(id) = sim.branch(name) {
                        sim.neon.write(&id);
                    }
                }
            }
        }
    }

    /// Lets one of the tasks go on that want to; which one is drawn.
    fn poll_one(&mut self) {
        let chosen = {
            let mut sim = self.sim.borrow_mut();
            let now = sim.now;
            let ready: Vec<usize> = (0..sim.tasks.len())
                .filter(|index| {
                    !sim.tasks[*index].is_killed
                        && sim.tasks[*index].wake.is_some_and(|wake| wake <= now)
                })
                .collect();
            let chosen = ready[if ready.len() > 1 { sim.random.usize(..ready.len()) } else { 0 }];
            sim.tasks[chosen].wake = None;
            chosen
        };
        let Some(task) = self.tasks[chosen].as_mut() else { return };
        let is_done = task.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_ready();
        if is_done || self.sim.borrow().tasks[chosen].is_killed {
            self.tasks[chosen] = None;
            self.sim.borrow_mut().tasks[chosen].wake = None;
        }
    }

    /// Lets the cron fire every five minutes until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        let mut before = 0;
        for _ in 0..MOST_TICKS {
            let next = self.sim.borrow().now + INTERVAL;
            self.advance(next);
            // A tick that found nothing to do read once or twice.
            let count = self.sim.borrow().action_count;
            let is_quiet = self.next().is_none() && count - before <= 2;
            before = count;
            self.jump(next);
            if is_quiet && self.is_settled() {
                return;
            }
            self.cron();
        }
    }

    /// Returns whether today's run has ended and its result is stored.
    fn is_ended(&self) -> bool {
        let sim = self.sim.borrow();
        let date = self.date();
        if sim.kv.get(&format!("result/hub/{date}")).is_none() {
            return false;
        }
        let checkpoint: Option<Remembered> =
            sim.kv.get("checkpoint/hub").and_then(|text| serde_json::from_str(text).ok());
        checkpoint.is_none_or(|checkpoint| checkpoint.run != date || checkpoint.is_published)
    }

    fn is_settled(&self) -> bool {
        let sim = self.sim.borrow();
        let checkpoint: Option<Remembered> =
            sim.kv.get("checkpoint/hub").and_then(|text| serde_json::from_str(text).ok());
        // Where the checkpoint was lost, the result alone says that the run is over.
        let is_over = checkpoint.as_ref().is_none_or(Remembered::is_over);
        let is_known = checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.run == self.date());
        if !is_over || !(is_known || sim.kv.get(&format!("result/hub/{}", self.date())).is_some()) {
            return false;
        }
        let is_taken = |key: &str| {
            let outgoing: Option<Outgoing> =
                sim.kv.get(key).and_then(|text| serde_json::from_str(text).ok());
            // The checkpoint of the same run knows better: a notice that it does not list was
            // taken.
            let is_listed = |id: &String| {
                checkpoint
                    .as_ref()
                    .is_some_and(|last| id.starts_with(&format!("hub/{}/", last.run)))
            };
            outgoing
                .is_some_and(|outgoing| outgoing.is_delivered() || is_listed(&outgoing.notice.id))
        };
        sim.kv.keys(&format!("notice/hub/{}/", self.date())).all(is_taken)
    }

    fn date(&self) -> String {
        self.sim.borrow().now.format("%Y%m%d").to_string()
    }

    /// Judges the end: nothing of ours runs once computes had time to fall asleep.
    pub(crate) fn end(&mut self) {
        let now = self.sim.borrow().now + INTERVAL * 2;
        self.jump(now);
        let mut sim = self.sim.borrow_mut();
        sim.neon.advance(now);
        let Sim { neon, oracle, .. } = &mut *sim;
        let neons = now + neon.clock_offset;
        for endpoint in &mut neon.model.endpoints {
            if endpoint.last_active.is_none_or(|at| neons - at >= INTERVAL) {
                endpoint.state = "idle";
            }
        }
        oracle.end(&neon.model);
    }

    /// Lets the day come to its end.
    pub(crate) fn pass(&mut self) {
        let last = self.sim.borrow().events.iter().map(|(at, _)| *at).max();
        self.settle();
        if let Some(last) = last {
            self.advance(last);
            self.settle();
        }
        let mut sim = self.sim.borrow_mut();
        sim.kv.settle();
    }

    /// Lets the day come to its end, and judges it.
    pub(crate) fn finish(mut self) -> Outcome {
        let last = self.sim.borrow().events.iter().map(|(at, _)| *at).max();
        if let Some(last) = last {
            self.advance(last);
        }
        self.settle();
        let is_settled = self.is_settled();
        let runs = self.reports();
        let ticks = self.sim.borrow().ticks_to_end;
        let is_silent = self.sim.borrow().oracle.has_silent_run();
        if is_silent {
            // Two people who start runs within a minute see each other's too late; the next run
            // tells of the one that lost its place.
            self.jump(instant("2026-11-22T10:00:00Z"));
            self.sim().heal();
            self.cron();
            self.settle();
        }
        self.end();
        let mut sim = self.sim.borrow_mut();
        if !is_settled {
            let why = sim.last_wait.clone();
            sim.oracle.violations.push(format!(
                "liveness: the run did not end; the last tick handed over because: {why}"
            ));
        }
        if ticks > TICKS_TO_END {
            sim.oracle.violations.push(format!(
                "liveness: the run took {ticks} ticks to end, allowed are {TICKS_TO_END}"
            ));
        }
        let arrived_before = self.scene.base.oracle.arrival_count();
        let today = runs.iter().find(|report| report.run.as_str() == TODAY);
        let outcome = Outcome {
            status: today.map(|report| report.status),
            story: sim.oracle.story(TODAY),
            told: sim.oracle.told_since(arrived_before),
            ticks: std::mem::take(&mut sim.summaries),
            refused_writes: sim.refused_writes,
            branches: sim.neon.model.branches.iter().map(|branch| branch.name.clone()).collect(),
            violations: std::mem::take(&mut sim.oracle.violations),
            actions: sim.actions.take().unwrap_or_default(),
            stored: if sim.trace.is_some() { sim.kv.everything() } else { BTreeMap::new() },
            trace: sim.trace.take().unwrap_or_default(),
            staging_rows: sim
                .neon
                .contents(sim.oracle.staging_id())
                .map_or(0, |contents| contents.tables.values().map(|table| table.rows).sum()),
            staging_password: sim
                .neon
                .model
                .branch(sim.oracle.staging_id())
                .and_then(|branch| branch.roles.first()?.password.clone()),
            action_count: sim.action_count,
            runs: runs
                .iter()
                .map(|report| (report.tick_count, report.status == RunStatus::Succeeded))
                .collect(),
            ticks_to_end: ticks,
            deeds: sim.oracle.deeds(TODAY),
        };
        drop(sim);
        outcome
    }

    /// Returns what is known of the runs of this day.
    fn reports(&self) -> Vec<Report> {
        let sim = self.sim.borrow();
        let date = self.date();
        let prefix = format!("result/hub/{date}");
        sim.kv.keys(&prefix).filter_map(|key| serde_json::from_str(sim.kv.get(key)?).ok()).collect()
    }
}

/// The view that a seed draws.
pub(crate) fn any_view(random: &mut fastrand::Rng) -> View {
    if random.bool() { View::Any } else { View::Fresh }
}
