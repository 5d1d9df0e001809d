//! A morning that is told event by event: for named scenarios with people in them.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use firstlight::api::ApiRequest;
use firstlight::port::Method;
use neon_emulator::model::{Finish, Model, Switches};
use serde_json::{Value, json};

use crate::faults::Fault;
use crate::kv::View;
use crate::plan::{Crash, Memory, Planned};
use crate::run::TODAY;
use crate::scene::ADMIN;
use crate::world::Event;

/// Changes the configuration.
pub type Settings = fn(&mut Value);

/// Changes the project.
pub type Change = fn(&mut Model);

/// What happens, and what goes wrong.
#[derive(Clone, Debug)]
pub struct Script {
    /// How old the answers of the store are.
    pub view: Answers,
    /// What happens, in seconds after 05:05 in New York.
    pub happenings: Vec<(i64, Happening)>,
    /// What goes wrong.
    pub faults: Vec<Planned>,
    /// Where the Worker is killed.
    pub crash: Crash,
    /// What the store remembers from the first fault on.
    pub memory: Memory,
    /// Whether the project stores no passwords, and a secret holds the verifying role's.
    pub has_configured_password: bool,
    /// Subrequests of an invocation; 50 where missing.
    pub subrequests: Option<u32>,
    /// Changes the configuration.
    pub settings: Settings,
    /// The facts about Neon that nobody could confirm.
    pub switches: Switches,
    /// How many seconds Neon's clock is ahead; behind where negative.
    pub clock_offset_s: i64,
    /// Whether an application writes to production as soon as the backup is made.
    pub is_live: bool,
    /// Changes the project before the day begins.
    pub project: Change,
    /// Whether production is protected, and has a role beside the owner.
    pub protects_production: bool,
    /// Branches that the project may have; there are seven, and one for each older backup.
    pub branch_limit: Option<usize>,
    /// A role of staging's that production does not have.
    pub staging_role: Option<&'static str>,
    /// Rows of the last table, of a hundred bytes each; 500 where missing.
    pub rows: Option<u64>,
    /// Runs whose verified backups are still there although no keep rule holds them.
    pub older_backups: Vec<&'static str>,
}

/// How old the answers of the store are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// As new as can be.
    Fresh,
    /// A minute old.
    Stale,
}

impl From<Answers> for View {
    fn from(answers: Answers) -> Self {
        match answers {
            Answers::Fresh => Self::Fresh,
            Answers::Stale => Self::Stale,
        }
    }
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The cron fires.
    Cron,
    /// Somebody starts a run.
    Start,
    /// Somebody starts a run that leaves staging alone.
    Rehearse,
    /// Somebody cancels the day's run.
    Cancel,
    /// Somebody holds staging.
    Hold,
    /// Somebody does something to the project, as the fault of that name.
    Outside(Fault),
    /// An application writes to production and to staging.
    Application,
    /// Staging is emptied: all rows of the first table are removed, all of the second changed.
    Emptied,
    /// Somebody suspends the compute of staging, and that operation fails.
    SuspendInVain,
    /// Neon does so many operations on branches of somebody else's.
    Bustle(usize),
    /// Neon checks the compute of the branch of this name, and that ends like this after so many
    /// milliseconds.
    Check(&'static str, Finish, i64),
    /// From here on another instance of the program answers, which remembers nothing.
    NewInstance,
    /// The store takes no writes for so many minutes.
    WritesRefused(i64),
    /// Somebody writes a key of the store by hand, or removes it.
    Stored(&'static str, Option<String>),
}

impl Happening {
    pub(crate) fn event(&self) -> Event {
        let (method, path, body) = match self {
            Self::Cron => return Event::Cron,
            Self::Application => return Event::Application,
            Self::Emptied => return Event::Emptied,
            Self::SuspendInVain => return Event::SuspendInVain,
            Self::Bustle(count) => return Event::Bustle(*count),
            Self::Check(name, finish, milliseconds) => {
                return Event::Check(name, *finish, *milliseconds);
            }
            Self::Outside(fault) => return Event::Outside(*fault),
            Self::NewInstance => return Event::NewInstance,
            Self::WritesRefused(minutes) => {
                return Event::WritesRefused(TimeDelta::minutes(*minutes));
            }
            Self::Stored(key, value) => return Event::Stored(key, value.clone()),
            Self::Start => (Method::Post, "/runs".to_owned(), ""),
            Self::Rehearse => (Method::Post, "/runs".to_owned(), r#"{"until":"verify_backup"}"#),
            Self::Cancel => (Method::Post, format!("/runs/{TODAY}/cancel"), ""),
            Self::Hold => (Method::Put, "/pairs/hub/hold".to_owned(), r#"{"reason":"demo"}"#),
        };
        Event::Api(Box::new(ApiRequest {
            method,
            path,
            query: BTreeMap::new(),
            authorization: Some(format!("Bearer {ADMIN}")),
            idempotency_key: None,
            body: body.to_owned(),
        }))
    }
}

impl Script {
    pub(crate) fn configure(&self, value: &mut Value) {
        if self.has_configured_password {
            value["pairs"][0]["role_password_secret"] = json!("ROLE_PASSWORD");
        }
        if let Some(budget) = self.subrequests {
            value["subrequest_budget"] = json!(budget);
        }
        (self.settings)(value);
    }
}

impl Default for Script {
    /// A morning with one tick, on which nothing goes wrong.
    fn default() -> Self {
        Self {
            view: Answers::Fresh,
            happenings: vec![(0, Happening::Cron)],
            faults: Vec::new(),
            crash: Crash::Never,
            memory: Memory::Fresh,
            has_configured_password: false,
            subrequests: None,
            settings: |_| {},
            switches: Switches::default(),
            clock_offset_s: 0,
            is_live: false,
            project: |_| {},
            protects_production: false,
            branch_limit: None,
            staging_role: None,
            rows: None,
            older_backups: Vec::new(),
        }
    }
}
