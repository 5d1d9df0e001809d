//! Several pairs in one Worker, each with a project of its own, through many ticks one after the
//! other.
//!
//! [`crate::run`] puts one pair through every fault. This is the other question: what do pairs take
//! from each other? Nothing goes wrong here but what a test asks for: a project whose databases let
//! nobody in, one whose queries are slow, a store that does not answer. Time goes on with every
//! request and every wait, so that a tick lasts as long as it would; ticks do not overlap.
//!
//! Who judges: an `Oracle` of each project after every request that Neon applied, and the tests, by
//! what people were told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, Waker};

use chrono::TimeDelta;
use firstlight::api::{self, ApiRequest};
use firstlight::config::Config;
use firstlight::id::Secret;
use firstlight::port::{
    Clock, Http, HttpFailure, HttpRequest, HttpResponse, Level, Log, Metadata, Method, Notes, Page,
    Recall, Store, StoreFailure,
};
use firstlight::tick::{Context, Secrets, Summary};
use firstlight::time::{Timestamp, after};
use neon_emulator::model::Model;
use neon_emulator::simulated::{Contents, Simulated};
use serde_json::{Value, json};

use crate::kv::{Kv, View};
use crate::oracle::Oracle;
use crate::requests::{action_of, api_request, tables_in};
use crate::run::{Told, instant};
use crate::scene::ADMIN;

/// The time that a request or a KV operation takes.
const LATENCY: TimeDelta = TimeDelta::milliseconds(80);

/// The cron interval.
const INTERVAL: TimeDelta = TimeDelta::minutes(5);

/// What one project does to those who read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// Its computes do not start: every query is answered with an error that passes.
    Asleep,
    /// Every query takes so many seconds.
    Slow(i64),
}

/// A project and who judges it.
struct Project {
    neon: Simulated,
    oracle: Oracle,
    trouble: Trouble,
}

/// Everything that ticks see.
struct World {
    now: Cell<Timestamp>,
    projects: RefCell<Vec<Project>>,
    kv: RefCell<Kv>,
    is_store_out: Cell<bool>,
    keys_read: Cell<usize>,
    subrequests: Cell<u32>,
    told: RefCell<Vec<Told>>,
    /// What the channel answers, and how often it was asked.
    receiver: Cell<(u16, u32)>,
    notes: RefCell<Notes>,
    log: RefCell<Vec<String>>,
}

/// Several pairs, and the ticks that drive them.
pub struct Fleet {
    world: Rc<World>,
    config: Config,
    secrets: Secrets,
    /// Whether each tick is run by an instance of its own, which remembers nothing.
    pub forgets: bool,
}

impl World {
    fn pass(&self, time: TimeDelta) {
        self.now.set(self.now.get() + time);
    }

    fn count(&self) {
        self.subrequests.set(self.subrequests.get() + 1);
        self.pass(LATENCY);
    }

    fn store(&self) -> Result<(), StoreFailure> {
        self.count();
        if self.is_store_out.get() {
            Err(StoreFailure::Unavailable("KV failed: 500".to_owned()))
        } else {
            Ok(())
        }
    }

    /// Answers a query, with the trouble that its project makes.
    fn query(&self, request: &HttpRequest) -> (u16, String) {
        let now = self.now.get();
        let connection =
            request.secret_headers.first().map(|(_, secret)| secret.reveal()).unwrap_or_default();
        let host = connection.rsplit_once('@').map(|(_, rest)| rest).unwrap_or_default();
        let endpoint = host.split('.').next().unwrap_or_default();
        let is_read_only = request
            .headers
            .iter()
            .any(|(name, value)| name == "Neon-Batch-Read-Only" && value == "true");
        let mut projects = self.projects.borrow_mut();
        let project =
            projects.iter_mut().find(|project| project.neon.model.endpoint(endpoint).is_some());
        let Some(project) = project else {
            return (400, json!({"message": "endpoint cannot be found"}).to_string());
        };
        match project.trouble {
            Trouble::None => {}
            Trouble::Asleep => {
                return (500, json!({"message": "Control plane request failed"}).to_string());
            }
            Trouble::Slow(seconds) => self.pass(TimeDelta::seconds(seconds)),
        }
        let branch = project.neon.model.endpoint(endpoint).map(|endpoint| endpoint.branch.clone());
        project.oracle.asked(branch.as_deref(), is_read_only);
        let (status, body) = project.neon.query(connection, is_read_only, &request.body, now);
        if let Some(branch) = branch.filter(|_| status == 200) {
            project.oracle.read(&branch, tables_in(&request.body).into_iter());
        }
        (status, body)
    }

    /// Answers a call of the API, and lets the judge of its project see it.
    fn call(&self, request: &HttpRequest) -> (u16, String) {
        let now = self.now.get();
        let asked = api_request(request);
        let id = asked.path.split('/').nth(2).unwrap_or_default().to_owned();
        let mut projects = self.projects.borrow_mut();
        let Some(project) = projects.iter_mut().find(|project| project.neon.model.project == id)
        else {
            return (404, json!({"message": "project not found"}).to_string());
        };
        project.neon.advance(now);
        let staging = project.oracle.staging_id().to_owned();
        let before = project.neon.model.branch(&staging).cloned();
        let response = project.neon.serve(&asked, now);
        if asked.method == "GET" && asked.path.ends_with("/branches") && response.status == 200 {
            project.oracle.listed();
        }
        project.oracle.applied(&asked, &response, before.as_ref(), &project.neon, now);
        (response.status, response.body)
    }

    /// Takes a notice, or refuses it where the channel does.
    fn hear(&self, request: &HttpRequest) -> (u16, String) {
        let (status, count) = self.receiver.get();
        self.receiver.set((status, count + 1));
        if status >= 300 {
            return (status, String::new());
        }
        let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let text = |name: &str| body["data"][name].as_str().unwrap_or_default().to_owned();
        let run = format!("{}/{}", text("pair"), text("run"));
        self.told.borrow_mut().push(Told { run, kind: text("kind"), text: text("text") });
        (200, "ok".to_owned())
    }
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        self.now.get()
    }

    async fn sleep(&self, until: Timestamp) {
        self.now.set(self.now.get().max(until));
    }
}

impl Http for World {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpFailure> {
        self.count();
        let (status, body) = if request.url.ends_with("/sql") {
            self.query(&request)
        } else if request.url.contains("/api/v2") {
            self.call(&request)
        } else if action_of(&request) == "webhook" {
            self.hear(&request)
        } else {
            (200, "ok".to_owned())
        };
        Ok(HttpResponse { status, body, ..HttpResponse::default() })
    }
}

impl Store for World {
    async fn read(
        &self,
        keys: &[String],
    ) -> Result<BTreeMap<String, Option<String>>, StoreFailure> {
        self.store()?;
        self.keys_read.set(self.keys_read.get() + keys.len());
        Ok(self.kv.borrow().read(
            keys,
            View::Fresh,
            self.now.get(),
            &mut fastrand::Rng::with_seed(0),
        ))
    }

    async fn write(
        &self,
        key: &str,
        value: &str,
        metadata: Option<Metadata>,
    ) -> Result<(), StoreFailure> {
        self.store()?;
        self.kv.borrow_mut().write(key, Some(value), metadata, self.now.get())
    }

    async fn remove(&self, key: &str) -> Result<(), StoreFailure> {
        self.store()?;
        self.kv.borrow_mut().write(key, None, None, self.now.get())
    }

    async fn list(&self, prefix: &str, cursor: Option<String>) -> Result<Page, StoreFailure> {
        self.store()?;
        Ok(self.kv.borrow().list(prefix, cursor.as_deref(), View::Fresh, self.now.get()))
    }
}

impl Log for World {
    fn log(&self, level: Level, event: &str, facts: &[(&str, String)]) {
        let facts: Vec<String> =
            facts.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.log.borrow_mut().push(format!(
            "{} {level:?} {event}: {}",
            self.now.get().format("%H:%M:%S"),
            facts.join(" ")
        ));
    }
}

impl Recall for World {
    fn note(&self, what: &str, at: Timestamp) {
        self.notes.borrow_mut().note(what, at);
    }

    fn noted_at(&self, what: &str) -> Option<Timestamp> {
        self.notes.borrow().noted_at(what)
    }
}

/// Waits for what never has to wait: every port answers at once, and time is what it says.
fn finished<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => unreachable!("no port of a fleet waits"),
    }
}

impl Fleet {
    /// Makes so many pairs, called `pair-0`, `pair-1`, …, all to start at five in New York and to
    /// be done by six. `change` may change each, and the whole.
    ///
    /// # Panics
    ///
    /// Where the changed settings cannot be used.
    pub fn new(count: u64, change: &dyn Fn(&mut Value)) -> Self {
        let start = instant("2026-11-01T00:00:00Z");
        let mut pairs = Vec::new();
        let mut projects = Vec::new();
        for number in 0..count {
            let mut model = Model::new(number + 1, start);
            // Each request takes as long as every other one, also the one that wakes a compute.
            model.durations.wake_ms = 0;
            let production = model.branches[0].id.clone();
            let staging =
                model.add_child(&production, "staging", start).expect("production is there");
            pairs.push(json!({
                "name": format!("pair-{number}"), "project": model.project,
                "production_branch": production, "staging_branch": staging,
                "role": "neondb_owner", "timezone": "America/New_York", "zone_label": "ET",
                "start_at": "05:00", "latest_start": "05:30",
                "deadline": "06:00", "keep_last": 2, "keep_displaced": 1,
            }));
            let oracle = Oracle::new(&model, &production, &staging);
            let neon = Simulated::new(model, &Contents::with_tables(3));
            projects.push(Project { neon, oracle, trouble: Trouble::None });
        }
        let mut value = json!({
            "label": "Example", "allow_insecure": true, "pairs": pairs,
            "channels": [{"name": "on-call", "kind": "webhook", "url_secret": "WEBHOOK_URL",
                "signing_secret": "WEBHOOK_SECRET"}],
        });
        change(&mut value);
        let secrets = [
            ("NEON_API_KEY", "neon_emulator_key"),
            ("ADMIN_TOKEN", ADMIN),
            ("WEBHOOK_URL", "https://hooks.example.test/webhook"),
            ("WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ];
        let world = World {
            now: Cell::new(instant("2026-11-20T09:00:00Z")),
            projects: RefCell::new(projects),
            kv: RefCell::default(),
            is_store_out: Cell::new(false),
            keys_read: Cell::new(0),
            subrequests: Cell::new(0),
            told: RefCell::default(),
            receiver: Cell::new((200, 0)),
            notes: RefCell::default(),
            log: RefCell::default(),
        };
        Self {
            world: Rc::new(world),
            config: Config::from_value(&value).expect("the configuration is complete"),
            secrets: secrets
                .map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned())))
                .into(),
            forgets: false,
        }
    }

    /// Returns the instant at which the last tick ended.
    pub fn now(&self) -> Timestamp {
        self.world.now.get()
    }

    /// Returns the settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Lets a project make trouble from now on.
    pub fn trouble(&mut self, number: usize, trouble: Trouble) {
        self.world.projects.borrow_mut()[number].trouble = trouble;
    }

    /// Lets the channel answer with a status from now on. Returns how often it was asked since the
    /// last time.
    pub fn receiver_answers(&mut self, status: u16) -> u32 {
        self.world.receiver.replace((status, 0)).1
    }

    /// Lets the store answer nothing, or answer again.
    pub fn store_is_out(&mut self, is_out: bool) {
        self.world.is_store_out.set(is_out);
    }

    /// Lets one tick run at an instant, or at the end of the one before it. Returns what it did and
    /// the KV keys that it read.
    ///
    /// # Panics
    ///
    /// When it makes more subrequests than it may, or goes on for longer.
    pub fn tick(&mut self, at: Timestamp) -> (Summary, usize) {
        let world = &*self.world;
        if self.forgets {
            *world.notes.borrow_mut() = Notes::default();
        }
        world.now.set(world.now.get().max(at));
        world.keys_read.set(0);
        world.subrequests.set(0);
        let began = world.now.get();
        let wall = after(began, self.config.wall_budget);
        let summary = finished(Box::pin(
            Context::new(world, &self.config, &self.secrets, wall, &|_, _| {}).tick(),
        ));
        let used = world.subrequests.get();
        assert!(used <= self.config.subrequest_budget, "{used} subrequests at {began}");
        // A single request may outlast the budget of time; the one that it is told by may follow.
        assert!(
            world.now.get() - wall < TimeDelta::minutes(3),
            "a tick of {began} goes on until {}",
            world.now.get()
        );
        (summary, world.keys_read.get())
    }

    /// Lets the cron fire every five minutes from one instant to another. Returns the KV keys that
    /// each tick read.
    pub fn ticks(&mut self, from: &str, until: &str) -> Vec<usize> {
        let (mut at, until) = (instant(from), instant(until));
        let mut read = Vec::new();
        while at <= until {
            read.push(self.tick(at).1);
            at += INTERVAL;
        }
        read
    }

    /// Lets somebody start a run of a pair; it is driven for 25 seconds, as `worker/lib.rs` does.
    /// Returns the status of the answer and its body.
    pub fn start(&mut self, pair: &str) -> (u16, String) {
        self.ask(Method::Post, "/runs", &json!({"pair": pair}).to_string())
    }

    /// Lets somebody send a request.
    ///
    /// # Panics
    ///
    /// When it starts a run of a pair that is not configured.
    pub fn ask(&mut self, method: Method, path: &str, body: &str) -> (u16, String) {
        let world = &*self.world;
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let request = ApiRequest {
            method,
            path: path.to_owned(),
            query: query.collect(),
            authorization: Some(format!("Bearer {ADMIN}")),
            idempotency_key: None,
            body: body.to_owned(),
        };
        let answer =
            finished(Box::pin(api::answer(world, Ok(&self.config), &self.secrets, &request)));
        if let Some(drive) = answer.drive {
            let pair = self.config.pair(drive.pair.as_str()).expect("the pair was asked for");
            let wall = after(world.now.get(), std::time::Duration::from_secs(25));
            let context = Context::new(world, &self.config, &self.secrets, wall, &|_, _| {});
            finished(Box::pin(context.drive_one(pair, *drive.checkpoint)));
        }
        (answer.response.status, answer.response.body)
    }

    /// Returns what people were told of a pair, in order: the run, the kind and the text.
    pub fn told(&self, pair: &str) -> Vec<Told> {
        let told = self.world.told.borrow();
        let of = |told: &&Told| told.run.split_once('/').is_some_and(|(name, _)| name == pair);
        told.iter().filter(of).cloned().collect()
    }

    /// Returns the kinds of what people were told of a pair, in order.
    pub fn kinds(&self, pair: &str) -> Vec<String> {
        self.told(pair).into_iter().map(|told| told.kind).collect()
    }

    /// Reads what the store holds.
    pub fn stored(&self, key: &str) -> Option<String> {
        self.world.kv.borrow().get(key).map(str::to_owned)
    }

    /// Returns the keys of the store that begin so.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.world.kv.borrow().keys(prefix).map(str::to_owned).collect()
    }

    /// Writes a key of the store by hand, or removes it.
    ///
    /// # Panics
    ///
    /// When the key was written less than a second ago.
    pub fn write(&mut self, key: &str, value: Option<&str>) {
        self.world.pass(TimeDelta::seconds(2));
        self.world
            .kv
            .borrow_mut()
            .write(key, value, None, self.world.now.get())
            .expect("two seconds have passed");
    }

    /// Writes a key of the store by hand and leaves the facts that a listing shows of it.
    ///
    /// # Panics
    ///
    /// When the key was written less than a second ago.
    pub fn rewrite(&mut self, key: &str, value: &str) {
        self.world.pass(TimeDelta::seconds(2));
        let facts = self.world.kv.borrow().metadata(key).cloned();
        self.world
            .kv
            .borrow_mut()
            .write(key, Some(value), facts, self.world.now.get())
            .expect("two seconds have passed");
    }

    /// Removes everything from the store.
    pub fn wipe(&mut self) {
        self.world.kv.borrow_mut().wipe();
    }

    /// Returns what was logged.
    pub fn log(&self) -> Vec<String> {
        self.world.log.borrow().clone()
    }

    /// Returns what must not have happened in any project.
    pub fn violations(&self) -> Vec<String> {
        self.world
            .projects
            .borrow()
            .iter()
            .flat_map(|project| project.oracle.violations.clone())
            .collect()
    }
}
