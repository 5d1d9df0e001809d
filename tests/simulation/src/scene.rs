//! What every scenario begins with: a project with two good mornings behind it, and the third about
//! to begin.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use chrono::TimeDelta;
use firstlight::config::Config;
use firstlight::id::Secret;
use firstlight::tick::Secrets;
use neon_emulator::model::{Durations, Model, Role};
use neon_emulator::simulated::{Contents, Simulated};
use serde_json::{Value, json};

use crate::oracle::{KEEP_AT_LEAST, Oracle};
use crate::plan::{Day, Plan};
use crate::run::{Outcome, Simulation, TABLES, instant};
use crate::script::Script;
use crate::world::Sim;

/// The token of those who may start a run.
pub(crate) const ADMIN: &str = "admin-0123456789ab";

/// Everything that a scenario begins with, and that does not change.
pub struct Scene {
    pub(crate) base: Sim,
    config: Rc<Config>,
    pub(crate) deployed: Rc<Config>,
    rolls_back: Rc<Config>,
    takes_snapshots: Rc<Config>,
    pub(crate) secrets: Rc<Secrets>,
    small: Vec<Rc<Config>>,
    pair: Ids,
}

/// The project and the branches of the configured pair.
struct Ids {
    project: String,
    production: String,
    staging: String,
}

fn config(ids: &Ids, change: &dyn Fn(&mut Value)) -> Rc<Config> {
    let mut value = json!({
        "label": "Example", "allow_insecure": true,
        "pairs": [{
            "name": "hub", "project": ids.project, "production_branch": ids.production,
            "staging_branch": ids.staging,
            "role": "neondb_owner", "timezone": "America/New_York", "zone_label": "ET",
            "start_at": "05:00", "latest_start": "05:30", "deadline": "06:00",
            "keep_last": 2, "keep_displaced": 1, "keep_at_least": KEEP_AT_LEAST,
            "smoke_tests": [{"name": "sign-in", "url": "https://staging.example.test/health"}],
        }],
        "channels": [
            {"name": "on-call", "kind": "webhook", "url_secret": "WEBHOOK_URL",
                "signing_secret": "WEBHOOK_SECRET"},
            {"name": "team", "kind": "slack", "url_secret": "SLACK_URL"},
        ],
    });
    change(&mut value);
    Rc::new(Config::from_value(&value).expect("the configuration is complete"))
}

/// Makes the project: production, a staging whose role has a password of its own, and a branch of
/// somebody else's.
fn project() -> (Model, Ids) {
    let start = instant("2026-11-01T00:00:00Z");
    let mut model = Model::new(1, start);
    let production = model.branches[0].id.clone();
    let staging = model.add_child(&production, "staging", start).expect("production is there");
    let roles = model.branch_mut(&staging).into_iter().flat_map(|branch| &mut branch.roles);
    roles.for_each(|role| role.password = Some("npg_stagingsown".to_owned()));
    let foreign = model.add_child(&production, "backup-20260101", start);
    assert!(foreign.is_some(), "a branch of somebody else's that looks like ours");
    // The proxy hears of new passwords at once, as it mostly does; days with a protected
    // production and seeds have it later. Operations take what they mostly take; uneven days,
    // seeds and seasons have them shorter, longer and very long. What somebody does takes place
    // when it is done; seeds have it refused while Neon is at work.
    model.switches.changes_conflict = false;
    // A compute that sleeps costs nothing more than every query does; named scenarios and seeds
    // have it start slowly.
    model.durations = Durations { secret_cache_ms: 0, wake_ms: 0, ..Durations::default() }.exact();
    let ids = Ids { project: model.project.clone(), production, staging };
    (model, ids)
}

fn secrets(production_password: &str) -> Secrets {
    let secrets = [
        ("NEON_API_KEY", "neon_emulator_key"),
        ("ADMIN_TOKEN", ADMIN),
        ("READ_TOKEN", "reader-0123456789ab"),
        ("WEBHOOK_URL", "https://hooks.example.test/webhook"),
        ("ROUTING_KEY", "0123456789abcdef0123456789abcdef"),
        ("WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("SLACK_URL", "https://hooks.example.test/slack"),
        ("DISCORD_URL", "https://hooks.example.test/discord"),
        ("TEAMS_URL", "https://hooks.example.test/teams"),
        ("HTTP_URL", "https://hooks.example.test/http"),
        ("HEALTHCHECK_URL", "https://hooks.example.test/healthcheck"),
        ("ROLE_PASSWORD", production_password),
    ];
    secrets.map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned()))).into()
}

/// Sets a budget of subrequests; with every other a rule keeps snapshots.
fn small(value: &mut Value, budget: u32) {
    value["subrequest_budget"] = json!(budget);
    if budget.is_multiple_of(4) {
        keeps_weeks_as_snapshots(value);
    }
}

/// Lets a rule keep snapshots.
pub fn keeps_weeks_as_snapshots(value: &mut Value) {
    let pair = &mut value["pairs"][0];
    pair["keep_weekly"] = json!(8);
    pair["keep_weekly_tier"] = json!("snapshot");
}

impl Scene {
    /// Makes the scene: two mornings on which nothing went wrong, some foreign branches, an
    /// operation of somebody else's that failed, and the third morning about to begin.
    ///
    /// # Panics
    ///
    /// When something goes wrong on those two mornings.
    #[expect(
        clippy::new_without_default,
        reason = "this is hours of simulated work, not a default"
    )]
    pub fn new() -> Self {
        let (model, pair) = project();
        let (production, staging) = (pair.production.clone(), pair.staging.clone());
        let role = model.branch(&production).and_then(|branch| branch.roles.first());
        let password = role.and_then(|role| role.password.clone()).expect("a new role has one");
        let oracle = Oracle::new(&model, &production, &staging);
        let neon = Simulated::new(model, &Contents::with_tables(TABLES));
        let plain = |change: &dyn Fn(&mut Value)| config(&pair, change);
        let mut scene = Self {
            base: Sim::new(instant("2026-11-19T09:59:00Z"), neon, oracle),
            config: plain(&|_| {}),
            deployed: plain(&|value| value["pairs"][0]["keep_last"] = json!(3)),
            rolls_back: plain(&|value| value["pairs"][0]["on_mismatch"] = json!("roll_back")),
            takes_snapshots: plain(&keeps_weeks_as_snapshots),
            secrets: Rc::new(secrets(&password)),
            small: (22..=44)
                .step_by(2)
                .map(|budget| plain(&|value| small(value, budget)))
                .collect(),
            pair,
        };
        for morning in ["2026-11-19T10:00:00Z", "2026-11-20T10:00:00Z"] {
            let mut simulation = scene.simulation(scene.base.clone(), Day::Plain);
            simulation.jump(instant(morning));
            simulation.cron();
            simulation.settle();
            simulation.end();
            scene.base = simulation.into_sim();
            assert!(scene.base.oracle.violations.is_empty(), "{:#?}", scene.base.oracle.violations);
        }
        let inspected = scene
            .base
            .neon
            .model
            .branch_named("backup-20261120")
            .map(|branch| branch.id.clone())
            .expect("made yesterday");
        scene.base.neon.model.add_child(&inspected, "inspect", scene.base.now);
        let yesterday = scene.base.now;
        crate::outside::suspends_in_vain(&mut scene.base.neon, &staging, yesterday);
        scene.base.kv.settle();
        scene.base.now = instant("2026-11-21T10:04:00Z");
        scene
    }

    fn simulation(&self, mut sim: Sim, day: Day) -> Simulation<'_> {
        sim.tasks.clear();
        sim.counts.clear();
        sim.action_count = 0;
        sim.summaries.clear();
        sim.refused_writes = 0;

        let config = match day {
            Day::Plain | Day::InUse | Day::Protected | Day::Ahead | Day::Behind | Day::Uneven => {
                &self.config
            }
            Day::RollBack => &self.rolls_back,
            Day::Snapshot => &self.takes_snapshots,
        };
        Simulation::new(self, Rc::new(RefCell::new(sim)), Rc::clone(config))
    }

    /// Runs a scenario.
    pub fn run(&self, plan: &Plan, is_traced: bool) -> Outcome {
        match plan {
            Plan::Said { day, faults, crash, memory, is_doubled } => {
                let mut sim = self.base.clone();
                sim.plan.clone_from(faults);
                sim.crash = *crash;
                sim.memory = *memory;
                sim.is_doubled = *is_doubled;
                sim.is_in_use = *day == Day::InUse;
                sim.damages = *day == Day::RollBack;
                sim.is_live = *day == Day::Snapshot;
                sim.neon.clock_offset = day.clock_offset();
                if *day == Day::Uneven {
                    let durations = &mut sim.neon.model.durations;
                    (durations.spread_percent, durations.tail_per_mille) = (90, 300);
                }
                if *day == Day::Protected {
                    self.protects_production(&mut sim);
                }
                sim.actions = faults.is_empty().then(Vec::new);
                sim.trace = is_traced.then(Vec::new);
                let mut simulation = self.simulation(sim, *day);
                simulation.jump(instant("2026-11-21T10:05:00Z"));
                simulation.cron();
                simulation.finish()
            }
            Plan::Seed(seed) => crate::random::run(self, *seed, is_traced),
        }
    }

    /// Protects production, and gives it and staging a role beside the owner.
    pub(crate) fn protects_production(&self, sim: &mut Sim) {
        for (branch, password) in [
            (&self.pair.production, "npg_appofproduction"),
            (&self.pair.staging, "npg_appofstaging"),
        ] {
            let Some(branch) = sim.neon.model.branch_mut(branch) else { continue };
            branch.is_protected = *branch.id == self.pair.production;
            let (name, password, created_at) =
                ("app".to_owned(), Some(password.to_owned()), branch.created_at);
            branch.roles.push(Role {
                name,
                in_data: password.clone(),
                at_first: password.clone(),
                password,
                created_at,
            });
        }
        sim.neon.model.durations.secret_cache_ms = Durations::default().secret_cache_ms;
        sim.oracle.takes_production_as_it_is(&sim.neon.model);
    }

    /// Runs a script: what happens when, and what goes wrong.
    ///
    /// # Panics
    ///
    /// When the script writes a key twice in a second.
    pub fn play(&self, script: &Script) -> Outcome {
        let mut sim = self.base.clone();
        let start = instant("2026-11-21T10:05:00Z");
        sim.view = script.view.into();
        sim.plan.clone_from(&script.faults);
        sim.crash = script.crash;
        sim.memory = script.memory;
        sim.events = script
            .happenings
            .iter()
            .map(|(seconds, what)| (start + TimeDelta::seconds(*seconds), what.event()))
            .collect();
        sim.trace = Some(Vec::new());
        sim.neon.model.store_passwords = !script.has_configured_password;
        sim.neon.model.limits.branches =
            script.branch_limit.unwrap_or(sim.neon.model.limits.branches);
        sim.neon.model.switches = script.switches.clone();
        sim.neon.clock_offset = TimeDelta::seconds(script.clock_offset_s);
        (script.project)(&mut sim.neon.model);
        if script.protects_production {
            self.protects_production(&mut sim);
        }
        sim.is_live = script.is_live;
        let staging = sim.neon.model.branch_mut(&self.pair.staging);
        if let (Some(name), Some(branch)) = (script.staging_role, staging) {
            let (password, created_at) = (Some("npg_stagingsown".to_owned()), branch.created_at);
            branch.roles.push(Role {
                name: name.to_owned(),
                in_data: password.clone(),
                at_first: None,
                password,
                created_at,
            });
        }
        if let Some(rows) = script.rows {
            sim.neon.grow(rows);
        }
        for run in &script.older_backups {
            let at = instant(&format!("{}-{}-{}T10:01:00Z", &run[..4], &run[4..6], &run[6..]));
            crate::outside::has_older_backup(&mut sim.neon, &mut sim.oracle, run, at);
            let written = sim.kv.write(&format!("backup/hub/{run}"), Some("{}"), None, at);
            assert!(written.is_ok(), "there is one of {run} already");
        }
        let mut simulation = self.configured(sim, &self.config(&|value| script.configure(value)));
        simulation.jump(start);
        simulation.finish()
    }

    /// Returns a simulation with another configuration.
    pub(crate) fn configured(&self, sim: Sim, config: &Rc<Config>) -> Simulation<'_> {
        let mut simulation = self.simulation(sim, Day::Plain);
        simulation.config = Rc::clone(config);
        simulation
    }

    /// Returns the plain configuration, changed.
    pub(crate) fn config(&self, change: &dyn Fn(&mut Value)) -> Rc<Config> {
        config(&self.pair, change)
    }

    /// Returns the secrets.
    pub(crate) fn secrets(&self) -> &BTreeMap<String, Secret> {
        &self.secrets
    }

    /// Returns the world at the beginning of the day.
    pub(crate) fn base(&self) -> Sim {
        self.base.clone()
    }

    /// Returns a simulation whose ticks have a budget of 22, 24, … 44 subrequests.
    pub(crate) fn small(&self, sim: Sim, number: usize) -> Simulation<'_> {
        let config = Rc::clone(&self.small[number % self.small.len()]);
        let mut simulation = self.simulation(sim, Day::Plain);
        simulation.config = config;
        simulation
    }
}
