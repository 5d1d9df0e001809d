//! The pure model of one Neon project: states, names, rules and time. It serves requests without
//! any server.
//!
//! In: a [`Request`] and `now`. Out: a [`Response`] and the [`Effect`]s that a server has to carry
//! out on real data.
//!
//! Invariants: nothing here reads a clock, a file or a socket. An operation ends when its time has
//! come *and* the server has reported its work done; without a server there is no work to wait for.
//!
//! Source: Neon API v2, OpenAPI document of 2026-07-13; each rule names what it follows.

mod archive;
mod branches;
mod computes;
mod decode;
mod effects;
mod endpoints;
mod history;
mod objects;
mod operations;
mod render;
mod restores;
mod routes;
mod secrets;
mod settings;
mod snapshots;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;
use serde_json::{Value, json};

pub use self::archive::Archiving;
pub use self::computes::Wake;
pub use self::decode::body_of_route;
pub use self::effects::{Effect, Point};
pub use self::objects::{Branch, Database, Endpoint, Role, Snapshot, Unpacked};
pub use self::operations::{Finish, Operation, Work};
pub use self::routes::route_name;
pub use self::secrets::Remembered;
pub use self::settings::{Durations, FailedBranchState, Limits, Locks, Refusal, Switches};

/// An instant.
pub type Timestamp = DateTime<Utc>;

/// A position in the write-ahead log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let bad = || ApiError::new(400, "", format!("invalid lsn {text:?}"));
        let (high, low) = text.split_once('/').ok_or_else(bad)?;
        let part = |digits: &str| u32::from_str_radix(digits, 16).map_err(|_| bad());
        Ok(Self(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

/// A request of the API, without its base path.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST`, ….
    pub method: String,
    /// The path after `/api/v2`, such as `/projects/p/branches`.
    pub path: String,
    /// The query's parameters.
    pub query: BTreeMap<String, String>,
    /// The body; null when there is none.
    pub body: Value,
}

/// What the API answers.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body, JSON; empty for none.
    pub body: String,
    /// What has to be done to real data.
    pub effects: Vec<Effect>,
}

impl Response {
    fn new(status: u16, body: impl Serialize, effects: Vec<Effect>) -> Self {
        Self { status, body: serde_json::to_string(&body).unwrap_or_default(), effects }
    }

    fn ok(body: impl Serialize) -> Self {
        Self::new(200, body, Vec::new())
    }

    /// What was to be deleted is not there.
    fn gone() -> Self {
        Self { status: 204, body: String::new(), effects: Vec::new() }
    }

    /// Reads the body; null for none.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// An error of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The status code.
    pub status: u16,
    /// Neon's word for it; often empty.
    pub code: &'static str,
    /// Neon's sentence.
    pub message: String,
}

impl ApiError {
    /// Makes an error.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }
}

/// One project.
#[derive(Clone)]
pub struct Model {
    /// Its id.
    pub project: String,
    /// Its name.
    pub project_name: String,
    /// The major version of Postgres.
    pub pg_version: u32,
    /// Whether passwords can be revealed.
    pub store_passwords: bool,
    /// How far back a branch can be made.
    pub history_seconds: i64,
    /// The part of host names after the endpoint's id.
    pub domain: String,
    /// The unconfirmed facts.
    pub switches: Switches,
    /// How long operations take.
    pub durations: Durations,
    /// The plan's limits.
    pub limits: Limits,
    /// The addresses that may connect, and whether that holds for protected branches alone.
    pub allowed_ips: (Vec<String>, bool),
    /// Whether connections from the Internet are refused.
    pub blocks_public: bool,
    /// Who has been given access: an id, an address, and when.
    pub permissions: Vec<(String, String, Timestamp)>,
    /// Every branch, oldest first.
    pub branches: Vec<Branch>,
    /// Every endpoint.
    pub endpoints: Vec<Endpoint>,
    /// Every operation, oldest first.
    pub operations: Vec<Operation>,
    /// Every snapshot, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// When snapshots are taken by themselves: what was set, by branch.
    pub schedules: BTreeMap<String, Value>,
    /// What is done to the next operations that are made: they hang, or fail.
    pub operation_faults: Vec<Finish>,
    /// Whether a server reports work done; without one, operations end by time alone.
    pub has_server: bool,
    history: history::History,
    created_at: Timestamp,
    random: fastrand::Rng,
    /// Draws how long operations take: apart, so that ids are the same however long they take.
    pace: fastrand::Rng,
    last_number: u64,
    /// Branches whose creation has failed, and that are gone with that.
    pub unmade: BTreeSet<String>,
    /// The number of the request that is served, or of what Neon does by itself.
    call: u64,
    /// Operations that Neon has started by itself.
    own_operations: u32,
    /// When a sleeping compute was checked last.
    checked_at: Timestamp,
}

const WORDS: [&str; 16] = [
    "autumn",
    "billowing",
    "calm",
    "damp",
    "early",
    "falling",
    "gentle",
    "hidden",
    "icy",
    "late",
    "misty",
    "noisy",
    "old",
    "polished",
    "quiet",
    "royal",
];
const THINGS: [&str; 16] = [
    "art", "boat", "cloud", "dew", "feather", "field", "fire", "frog", "glade", "lake", "leaf",
    "meadow", "moon", "night", "river", "sea",
];

impl Model {
    /// Makes a project with one branch, `production`, with one database and one role.
    pub fn new(seed: u64, now: Timestamp) -> Self {
        let mut model = Self {
            project: String::new(),
            project_name: "emulated".to_owned(),
            pg_version: 18,
            store_passwords: true,
            history_seconds: 86_400,
            domain: "us-east-2.neon.test".to_owned(),
            switches: Switches::default(),
            durations: Durations::default(),
            limits: Limits::default(),
            allowed_ips: (Vec::new(), false),
            blocks_public: false,
            permissions: Vec::new(),
            branches: Vec::new(),
            endpoints: Vec::new(),
            operations: Vec::new(),
            snapshots: Vec::new(),
            schedules: BTreeMap::new(),
            operation_faults: Vec::new(),
            has_server: false,
            history: BTreeMap::new(),
            created_at: now,
            random: fastrand::Rng::with_seed(seed),
            pace: fastrand::Rng::with_seed(seed ^ 0x9ace),
            last_number: 1_000,
            unmade: BTreeSet::new(),
            call: 0,
            own_operations: 0,
            checked_at: now,
        };
        let (word, thing, number) =
            (model.word(&WORDS), model.word(&THINGS), model.random.u32(10_000_000..99_999_999));
        model.project = format!("{word}-{thing}-{number}");
        let id = model.id("br");
        let role = Role {
            name: "neondb_owner".to_owned(),
            password: Some(model.password()),
            in_data: None,
            at_first: None,
            created_at: now,
        };
        let database = Database {
            id: model.number(),
            name: "neondb".to_owned(),
            owner: role.name.clone(),
            created_at: now,
        };
        let mut branch = model.blank_branch(id.clone(), "production".to_owned(), now);
        branch.is_default = true;
        branch.is_for_ever = true;
        branch.state = "ready";
        branch.pending_state = None;
        branch.roles.push(role);
        branch.databases.push(database);
        model.branches.push(branch);
        model.add_endpoint(&id, true, now);
        model
    }

    fn word(&mut self, words: &[&'static str]) -> &'static str {
        words[self.random.usize(0..words.len())]
    }

    /// Draws an id such as `br-noisy-sea-a5e59rrb`.
    ///
    /// Source: neon 6.2.3 takes a text for a branch id only when it looks like
    /// `br-word-word-xxxxxxxx`.
    fn id(&mut self, prefix: &str) -> String {
        let (word, thing) = (self.word(&WORDS), self.word(&THINGS));
        let tail: String = (0..8)
            .map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[self.random.usize(0..36)]))
            .collect();
        format!("{prefix}-{word}-{thing}-{tail}")
    }

    /// Draws a UUID.
    fn uuid(&mut self) -> String {
        let number = self.random.u128(..);
        let hex = format!("{number:032x}");
        format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
    }

    fn password(&mut self) -> String {
        let tail: String = (0..12).map(|_| self.random.alphanumeric()).collect();
        format!("npg_{tail}")
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn blank_branch(&mut self, id: String, name: String, now: Timestamp) -> Branch {
        let data = format!("data-{}", self.number());
        Branch {
            id,
            name,
            parent: None,
            parent_lsn: None,
            parent_timestamp: None,
            state: "init",
            pending_state: Some("ready"),
            is_default: false,
            is_protected: false,
            is_for_ever: false,
            created_at: now,
            updated_at: now,
            state_changed_at: now,
            last_reset_at: None,
            expires_at: None,
            annotation: BTreeMap::new(),
            roles: Vec::new(),
            remembered: BTreeMap::new(),
            databases: Vec::new(),
            data,
            unpacked: None,
            logical_size: None,
        }
    }

    /// Gives a branch an endpoint that sleeps.
    fn add_endpoint(&mut self, branch: &str, is_read_write: bool, now: Timestamp) -> String {
        let id = self.id("ep");
        self.endpoints.push(Endpoint {
            id: id.clone(),
            branch: branch.to_owned(),
            is_read_write,
            state: "idle",
            pending_state: None,
            size: (json!(0.25), json!(0.25)),
            suspend_timeout_seconds: 0,
            is_disabled: false,
            is_passwordless: true,
            name: None,
            created_at: now,
            updated_at: now,
            last_active: None,
            serves: None,
        });
        id
    }

    /// Returns a branch.
    pub fn branch(&self, id: &str) -> Option<&Branch> {
        self.branches.iter().find(|branch| branch.id == id)
    }

    /// Returns a branch, to be changed.
    pub fn branch_mut(&mut self, id: &str) -> Option<&mut Branch> {
        self.branches.iter_mut().find(|branch| branch.id == id)
    }

    /// Returns a branch by its name.
    pub fn branch_named(&self, name: &str) -> Option<&Branch> {
        self.branches.iter().find(|branch| branch.name == name)
    }

    /// Returns a snapshot.
    pub fn snapshot(&self, id: &str) -> Option<&Snapshot> {
        self.snapshots.iter().find(|snapshot| snapshot.id == id)
    }

    /// Returns an endpoint.
    pub fn endpoint(&self, id: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.id == id)
    }

    /// Returns an endpoint, to be changed.
    pub fn endpoint_mut(&mut self, id: &str) -> Option<&mut Endpoint> {
        self.endpoints.iter_mut().find(|endpoint| endpoint.id == id)
    }

    /// Returns the read-write endpoint of a branch.
    pub fn writer_of(&self, branch: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.branch == branch && endpoint.is_read_write)
    }

    /// Returns the host name of an endpoint.
    pub fn host(&self, endpoint: &str) -> String {
        format!("{endpoint}.{}", self.domain)
    }

    /// Makes a child of a branch at once, without operations: how a test's staging branch comes to
    /// be.
    pub fn add_child(&mut self, parent: &str, name: &str, now: Timestamp) -> Option<String> {
        let source = self.branch(parent)?.clone();
        let id = self.id("br");
        let mut branch = self.blank_branch(id.clone(), name.to_owned(), now);
        branch.parent = Some(source.id);
        branch.parent_timestamp = Some(now);
        branch.state = "ready";
        branch.pending_state = None;
        branch.roles = source.roles;
        branch.databases = source.databases;
        self.branches.push(branch);
        self.add_endpoint(&id, true, now);
        Some(id)
    }

    /// Ends the operations whose time has come.
    pub fn advance(&mut self, now: Timestamp) {
        operations::advance(self, now);
        self.tend_computes(now);
        let expired: Vec<String> = self
            .branches
            .iter()
            .filter(|branch| branch.expires_at.is_some_and(|at| at <= now))
            .map(|branch| branch.id.clone())
            .collect();
        for id in expired {
            self.forget_branch(&id);
        }
        self.snapshots.retain(|snapshot| snapshot.expires_at.is_none_or(|at| at > now));
        self.archive_idle(now);
    }

    fn forget_branch(&mut self, id: &str) {
        self.branches.retain(|branch| branch.id != id);
        self.endpoints.retain(|endpoint| endpoint.branch != id);
    }

    /// Answers a request.
    pub fn serve(&mut self, request: &Request, now: Timestamp) -> Response {
        self.advance(now);
        self.call += 1;
        routes::serve(self, request, now).unwrap_or_else(|error| self.refuse(&error))
    }

    /// Answers with an error.
    pub fn refuse(&mut self, error: &ApiError) -> Response {
        let body = json!({"request_id": self.uuid(), "code": error.code, "message": error.message});
        Response::new(error.status, body, Vec::new())
    }
}

/// Writes an instant as Neon does: RFC 3339 with seconds.
pub(crate) fn seconds(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Writes an instant with microseconds, as cursors have it.
pub(crate) fn micros(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

pub(crate) fn milliseconds(count: i64) -> TimeDelta {
    TimeDelta::milliseconds(count)
}
