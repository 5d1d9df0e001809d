//! Computes: started by an operation or for a query that waits, stopped when nobody uses them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::TimeDelta;

use crate::model::{Effect, Operation, Wake};
use crate::passwords::tell_passwords;
use crate::server::{State, lock};
use crate::sql::{self, Answer};
use crate::work::carry_out;

/// How long a query waits for a branch that is being restored. Source: PROXY: `wake_compute` is
/// retried for about 7 s.
const WAKE_PATIENCE: Duration = Duration::from_secs(7);

/// Starts a compute and tells it the passwords that it does not know.
pub(crate) async fn start(state: &State, endpoint: &str) -> Result<()> {
    let (branch, data, is_read_write) = {
        let model = lock(&state.model);
        let found = model.endpoint(endpoint).context("find the endpoint")?;
        let branch = model.branch(&found.branch).context("find the branch")?;
        (branch.id.clone(), branch.data.clone(), found.is_read_write)
    };
    lock(&state.starting).insert(endpoint.to_owned());
    let started = async {
        state.data.lock().await.start(endpoint, &data, is_read_write).await?;
        if is_read_write {
            tell_passwords(state, &branch).await?;
        }
        Ok(())
    };
    let started: Result<()> = started.await;
    lock(&state.starting).remove(endpoint);
    started?;
    lock(&state.model).set_endpoint_state(endpoint, "active", state.now());
    Ok(())
}

/// Makes sure that a compute runs.
pub(crate) async fn wake(state: &Arc<State>, endpoint: &str) -> Result<(), Answer> {
    let began = Instant::now();
    loop {
        let branch_state = {
            let mut model = lock(&state.model);
            model.advance(state.now());
            let Some(found) = model.endpoint(endpoint) else {
                return Err(sql::error(
                    400,
                    "Control plane request failed: endpoint cannot be found",
                ));
            };
            if found.is_disabled {
                return Err(sql::error(500, "Control plane request failed: endpoint is disabled"));
            }
            if found.serves.is_some() {
                // The compute that is to be suspended answers still.
                break;
            }
            let branch = found.branch.clone();
            model.unarchive(&branch, state.now());
            model.branch(&branch).map_or("init", |branch| branch.state)
        };
        if branch_state == "ready" {
            break;
        }
        if began.elapsed() > WAKE_PATIENCE {
            return Err(sql::error(
                500,
                "Control plane request failed: endpoint is temporarily unavailable. Check your \
                    quotas and/or contact our support.",
            ));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if state.data.lock().await.compute(endpoint).is_some() {
        // It is let in when it has what the control plane knows, as compute_ctl does it.
        while lock(&state.starting).contains(endpoint) && began.elapsed() <= WAKE_PATIENCE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        return Ok(());
    }
    let failed = || sql::error(500, "Control plane request failed");
    let wake = lock(&state.model).wake(endpoint, state.now());
    let (time, operation) = match wake {
        Wake::Awake => (TimeDelta::zero(), None),
        Wake::Starting(time, operation) => (time, operation),
        Wake::Fails(time) => {
            tokio::time::sleep(time.to_std().unwrap_or_default()).await;
            tokio::spawn(starts_late(Arc::clone(state), endpoint.to_owned()));
            return Err(failed());
        }
    };
    tokio::time::sleep(time.to_std().unwrap_or_default()).await;
    let started = start(state, endpoint).await;
    let result = started.as_ref().copied().map_err(|error| format!("{error:#}"));
    if let Some(id) = operation {
        lock(&state.model).work_done(&id, result, state.now());
    }
    started.map_err(|error| {
        eprintln!("neon-emulator: {endpoint} could not be started: {error:#}");
        failed()
    })
}

/// Starts a compute for which a query has waited in vain, once its operation has come to that.
async fn starts_late(state: Arc<State>, endpoint: String) {
    let found = {
        let model = lock(&state.model);
        let is_it = |operation: &&Operation| {
            operation.action == "start_compute"
                && operation.endpoint.as_ref() == Some(&endpoint)
                && operation.is_open()
        };
        model.operations.iter().find(is_it).map(|operation| operation.id.clone())
    };
    let Some(operation) = found else { return };
    carry_out(state, vec![Effect::Start { operation, endpoint }]).await;
}

/// Stops computes that nobody has used for a while, and notes where branches are and how large.
pub(crate) async fn tend(state: &Arc<State>) {
    lock(&state.model).advance(state.now());
    let heads = state.data.lock().await.heads().await;
    for (data, lsn) in heads {
        lock(&state.model).saw(&data, state.now(), lsn);
    }
    let unknown = || {
        lock(&state.model)
            .branches
            .iter()
            .find(|branch| branch.logical_size.is_none())
            .map(|branch| branch.data.clone())
    };
    if let Some(data) = unknown() {
        let size = state.data.lock().await.size(&data);
        lock(&state.model)
            .branches
            .iter_mut()
            .filter(|branch| branch.data == data)
            .for_each(|branch| branch.logical_size = Some(size));
    }
    let idle: Vec<String> = {
        let store = state.data.lock().await;
        let model = lock(&state.model);
        let is_idle = |id: &str, used_at: &Instant| {
            model
                .suspend_after(id)
                .and_then(|time| time.to_std().ok())
                .is_some_and(|time| used_at.elapsed() > time)
        };
        store
            .computes()
            .filter(|(id, compute)| is_idle(id, &compute.used_at))
            .map(|(id, _)| id.clone())
            .collect()
    };
    for endpoint in idle {
        if lock(&state.model).is_busy() || is_in_use(state, &endpoint).await {
            continue;
        }
        let operation = lock(&state.model).falls_asleep(&endpoint, state.now());
        match operation {
            Some(operation) => {
                carry_out(Arc::clone(state), vec![Effect::Suspend { operation, endpoint }]).await;
            }
            None => state.data.lock().await.stop(&endpoint),
        }
    }
}

/// Returns whether a statement runs on a compute. A connection that waits keeps no compute awake.
///
/// Source: Neon, scale to zero, read 2026-11-21: inactive is who runs no query.
async fn is_in_use(state: &State, endpoint: &str) -> bool {
    let (port, installation) = {
        let store = state.data.lock().await;
        let Some(compute) = store.compute(endpoint) else { return false };
        (compute.server.port, store.installation.clone())
    };
    let Ok(mut admin) = installation.admin(port, "postgres").await else { return true };
    let sql = "select count(*)::text from pg_stat_activity \
        where backend_type = 'client backend' and state <> 'idle' and pid <> pg_backend_pid()";
    admin.value(sql).await.map_or(true, |count| count != "0")
}
