//! Our reading of Neon: the API v2 and the SQL proxy, over real PostgreSQL.
//!
//! The [`model`] is pure: states, names, rules and time; with contents, in memory, it is
//! [`simulated::Simulated`]. Around it, [`Emulator`] serves it over HTTP, keeps each branch as a
//! PostgreSQL data directory and each endpoint as a `postgres` process, and misbehaves on request.
//!
//! Invariants: it never depends on `firstlight`; each fact about Neon that could not be confirmed
//! is a switch ([`model::Switches`]).
//!
//! Failure: an operation whose real work fails ends `failed`, with the reason in its `error`.

mod client;
mod computes;
mod control;
mod data;
mod faults;
pub mod model;
mod passwords;
mod postgres;
mod queries;
mod scram;
mod server;
pub mod simulated;
mod sql;
mod wire;
mod work;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::TimeDelta;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::data::Data;
use crate::model::{Durations, Model};
use crate::postgres::{ADMIN, Installation};
use crate::server::{State, lock};

/// How the emulator is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address to listen on, such as `127.0.0.1:0`.
    pub listen: String,
    /// The folder for data; made if it is not there, and not removed.
    pub data: PathBuf,
    /// The folder of PostgreSQL's binaries.
    pub postgres_bin: PathBuf,
    /// The key that requests must have.
    pub api_key: String,
    /// SQL that is run on production as `neondb_owner` before anything is served.
    pub seed: Option<PathBuf>,
    /// The name of a child of production that is made after the seed; `None` for none.
    pub staging: Option<String>,
    /// How long operations take.
    pub durations: Durations,
    /// How long a compute that nobody uses stays awake.
    pub suspend_after: Duration,
    /// How many seconds Neon's clock is ahead of everybody else's; behind where it is negative.
    pub clock_offset_s: i64,
    /// The seed of the ids.
    pub random_seed: u64,
}

impl Options {
    /// Returns how far Neon's clock is ahead.
    pub(crate) fn clock_offset(&self) -> TimeDelta {
        TimeDelta::seconds(self.clock_offset_s)
    }
}

/// A running emulator. Its processes end with [`Emulator::stop`].
pub struct Emulator {
    state: Arc<State>,
    /// The address it listens on, such as `127.0.0.1:41237`.
    pub address: String,
    stop: watch::Sender<bool>,
}

impl Emulator {
    /// Makes production, seeds it, and starts to serve.
    ///
    /// # Errors
    ///
    /// When PostgreSQL cannot be started, the seed fails, or the address is taken.
    pub async fn start(options: Options) -> Result<Self> {
        let listener = TcpListener::bind(&options.listen)
            .await
            .with_context(|| format!("listen on {}", options.listen))?;
        let address = listener.local_addr()?.to_string();
        let installation = Installation::new(&options.postgres_bin, &options.data)?;
        let mut model = Model::new(options.random_seed, server::clock() + options.clock_offset());
        model.has_server = true;
        model.durations = options.durations;
        model.durations.suspend_after_s =
            i64::try_from(options.suspend_after.as_secs()).unwrap_or(i64::MAX);
        model.pg_version = installation.major;
        let data = Data::new(installation, options.data.clone());
        let state = Arc::new(State::new(model, data, &options));
        if let Err(error) = prepare(&state, &options).await {
            state.data.lock().await.stop_all();
            return Err(error);
        }
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(server::serve(listener, Arc::clone(&state), stopped.clone()));
        tokio::spawn(tend(Arc::clone(&state), stopped));
        Ok(Self { state, address, stop })
    }

    /// Stops serving and ends every process.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let state = self.state;
        let mut data = state.data.lock().await;
        data.stop_all();
    }
}

async fn tend(state: Arc<State>, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => computes::tend(&state).await,
            _ = stopped.changed() => return,
        }
    }
}

/// Makes the cluster of production, runs the seed, and makes staging.
async fn prepare(state: &Arc<State>, options: &Options) -> Result<()> {
    let (production, data, endpoint, owner) = {
        let model = lock(&state.model);
        let branch = model.branches.first().context("find production")?;
        let endpoint = model
            .writer_of(&branch.id)
            .map(|endpoint| endpoint.id.clone())
            .context("find production's endpoint")?;
        let owner = branch
            .roles
            .first()
            .and_then(|role| role.password.clone())
            .context("find the owner's password")?;
        (branch.id.clone(), branch.data.clone(), endpoint, owner)
    };
    {
        let mut store = state.data.lock().await;
        store.create(&data)?;
        store.start(&endpoint, &data, true).await?;
        let port = store.compute(&endpoint).context("find production's compute")?.server.port;
        let mut admin = store.installation.admin(port, "postgres").await?;
        for statement in first_statements(&owner) {
            admin.script(&statement).await.context("prepare production")?;
        }
        let mut admin = store.installation.admin(port, "neondb").await?;
        admin
            .script(
                "create schema neon; create table neon.health_check(id int primary key, updated_at \
                    timestamptz)",
            )
            .await?;
    }
    if let Some(seed) = &options.seed {
        run_seed(state, &production, seed).await?;
    }
    // What follows begins here: earlier positions are outside the history, and recovery is short.
    let mut store = state.data.lock().await;
    store.stop(&endpoint);
    store.refresh_base(&data)?;
    lock(&state.model).saw(&data, state.now(), store.begin(&data)?);
    store.start(&endpoint, &data, true).await?;
    if let Some(name) = &options.staging {
        let new = {
            let mut model = lock(&state.model);
            let id = model.add_child(&production, name, state.now()).context("make staging")?;
            model
                .branch(&id)
                .map(|branch| (id.clone(), branch.data.clone()))
                .context("find staging")?
        };
        let lsn = store.branch(&data, &new.1, model::Point::Head).await?;
        let mut model = lock(&state.model);
        model.saw(&new.1, state.now(), lsn);
        if let Some(branch) = model.branch_mut(&new.0) {
            branch.parent_lsn = Some(lsn);
        }
    }
    Ok(())
}

async fn run_seed(state: &Arc<State>, production: &str, seed: &Path) -> Result<()> {
    let script = std::fs::read_to_string(seed)
        .with_context(|| format!("read the seed {}", seed.display()))?;
    queries::seed(state, production, &script).await
}

/// Makes the roles and the database that a new project of Neon's has.
///
/// Source: Neon, manage roles: roles made through the API are members of `neon_superuser` and have
/// CREATEDB, CREATEROLE, BYPASSRLS.
fn first_statements(owner: &str) -> Vec<String> {
    vec![
        "create role neon_superuser nologin createdb createrole bypassrls replication".to_owned(),
        "grant pg_read_all_data, pg_write_all_data to neon_superuser".to_owned(),
        format!(
            "create role neondb_owner login createdb createrole bypassrls replication in role \
                neon_superuser password '{owner}'"
        ),
        "create database neondb owner neondb_owner".to_owned(),
        // Neon lets everybody switch event triggers off for a session of their own.
        "do $$ begin if current_setting('server_version_num')::int >= 170000 then execute \
            'grant set on parameter event_triggers to public'; \
            end if; end $$"
            .to_owned(),
        format!(
            "revoke connect on database postgres from public; grant connect on database postgres \
                to {ADMIN}"
        ),
    ]
}
