//! Carries out on real data what the model decided, answers queries, and offers `/_emulator/…`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::client::Client;
use crate::faults::Planned;
use crate::model::{Durations, Effect, Request, Switches, Wake, Work};
use crate::passwords::{learn, tell_passwords};
use crate::server::{State, lock};
use crate::sql::{self, Answer};
use crate::wire::Connection;

/// How long a query waits for a branch that is being restored. Source: PROXY: `wake_compute` is
/// retried for about 7 s.
const WAKE_PATIENCE: Duration = Duration::from_secs(7);

/// Does the work of operations, one after the other.
pub(crate) async fn carry_out(state: Arc<State>, effects: Vec<Effect>) {
    for effect in effects {
        if !is_to_be_done(&state, &effect).await {
            // It ends, or hangs, without having done anything.
            lock(&state.model).work_done(effect.operation(), Ok(()), state.now());
            continue;
        }
        let (operation, result) = match effect {
            Effect::Branch { operation, branch, source, point } => {
                (operation, make_branch(&state, &branch, &source, point).await)
            }
            Effect::Restore { operation, branch, source, point, .. } => {
                (operation, restore(&state, &branch, &source, point).await)
            }
            Effect::Start { operation, endpoint } => (operation, start(&state, &endpoint).await),
            Effect::Suspend { operation, endpoint } => {
                state.data.lock().await.stop(&endpoint);
                (operation, Ok(()))
            }
            Effect::Delete { operation, branch } => {
                let data = lock(&state.model).branch(&branch).map(|branch| branch.data.clone());
                if let Some(data) = data {
                    state.data.lock().await.remove(&data);
                    lock(&state.model).forget_history(&data);
                }
                (operation, Ok(()))
            }
            Effect::SetPassword { operation, branch, .. } => {
                (operation, tell_passwords(&state, &branch).await)
            }
            Effect::Snapshot { operation, snapshot, source, point } => {
                (operation, take_snapshot(&state, &snapshot, &source, point).await)
            }
            Effect::Unpack { operation, branch, source } => {
                (operation, unpack(&state, &branch, &source).await)
            }
            Effect::Discard { operation, data } => {
                state.data.lock().await.remove(&data);
                (operation, Ok(()))
            }
        };
        let result = result.map_err(|error| format!("{error:#}"));
        if let Err(error) = &result {
            eprintln!("neon-emulator: operation {operation} failed: {error}");
            state.note(json!({"kind": "failure", "operation": operation, "error": error}));
        }
        lock(&state.model).work_done(&operation, result, state.now());
    }
}

/// Waits until the turn of an operation has come. Returns whether it does its work at all: one that
/// fails for good, is cancelled or hangs does not.
async fn is_to_be_done(state: &State, effect: &Effect) -> bool {
    // A compute is stopped when its operation ends, and answers until then.
    let until_due = matches!(effect, Effect::Suspend { .. });
    loop {
        let work = {
            let mut model = lock(&state.model);
            model.advance(state.now());
            model.work_of(effect.operation(), until_due, state.now())
        };
        match work {
            Work::ToDo => return true,
            Work::Never => return false,
            Work::NotYet => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn make_branch(
    state: &State,
    branch: &str,
    source: &str,
    point: crate::model::Point,
) -> Result<()> {
    let data = lock(&state.model)
        .branch(branch)
        .map(|branch| branch.data.clone())
        .context("find the branch")?;
    let (lsn, size) = {
        let mut store = state.data.lock().await;
        (store.branch(source, &data, point).await?, store.size(&data))
    };
    let mut model = lock(&state.model);
    model.saw(&data, state.now(), lsn);
    if let Some(branch) = model.branch_mut(branch) {
        branch.parent_lsn = Some(lsn);
        branch.parent_timestamp = Some(state.now());
        branch.logical_size = Some(size);
    }
    Ok(())
}

/// Notes where the branch is now of which a request asks for a point, so that the model can tell
/// whether it has it.
pub(crate) async fn note_position(state: &State, route: &str, request: &Request) {
    let body = |key: &str| request.body[key].as_str().map(str::to_owned);
    let branch = match route {
        "createProjectBranch" => {
            let asked = &request.body["branch"];
            if asked["parent_lsn"].is_null() && asked["parent_timestamp"].is_null() {
                return;
            }
            asked["parent_id"].as_str().map(str::to_owned)
        }
        "restoreProjectBranch"
            if body("source_lsn").or_else(|| body("source_timestamp")).is_some() =>
        {
            body("source_branch_id")
        }
        "createSnapshot"
            if ["lsn", "timestamp"].iter().any(|key| request.query.contains_key(*key)) =>
        {
            request.path.split('/').nth(4).map(str::to_owned)
        }
        _ => return,
    };
    let data = {
        let model = lock(&state.model);
        let found = model
            .branches
            .iter()
            .find(|found| branch.as_ref().map_or(found.is_default, |id| found.id == *id));
        found.filter(|found| found.state == "ready").map(|found| found.data.clone())
    };
    let Some(data) = data else { return };
    if let Ok(lsn) = state.data.lock().await.head(&data).await {
        lock(&state.model).saw(&data, state.now(), lsn);
    }
}

async fn take_snapshot(
    state: &State,
    snapshot: &str,
    source: &str,
    point: crate::model::Point,
) -> Result<()> {
    let data = lock(&state.model)
        .snapshot(snapshot)
        .map(|snapshot| snapshot.data.clone())
        .context("find the snapshot")?;
    let (lsn, size) = {
        let mut store = state.data.lock().await;
        (store.branch(source, &data, point).await?, store.size(&data))
    };
    let mut model = lock(&state.model);
    if let Some(found) = model.snapshots.iter_mut().find(|found| found.id == snapshot) {
        found.lsn = Some(lsn);
        found.full_size = Some(size);
    }
    Ok(())
}

/// Gives a branch the data of a snapshot.
async fn unpack(state: &State, branch: &str, source: &str) -> Result<()> {
    let data = lock(&state.model)
        .branch(branch)
        .map(|branch| branch.data.clone())
        .context("find the branch")?;
    let mut store = state.data.lock().await;
    let lsn = store.branch(source, &data, crate::model::Point::Head).await?;
    lock(&state.model).saw(&data, state.now(), lsn);
    let tampering = lock(&state.tampering).take();
    if let Some((sql, place)) = tampering {
        store.tamper(&data, &sql, place).await?;
    }
    Ok(())
}

/// Gives a branch its new data. The old data went to the preserved branch in the model already.
async fn restore(
    state: &State,
    branch: &str,
    source: &str,
    point: crate::model::Point,
) -> Result<()> {
    let (data, endpoints, kept) = {
        let model = lock(&state.model);
        let found = model.branch(branch).context("find the branch")?;
        let endpoints: Vec<String> = model
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.branch == branch)
            .map(|endpoint| endpoint.id.clone())
            .collect();
        let kept: Vec<String> = model.branches.iter().map(|branch| branch.data.clone()).collect();
        (found.data.clone(), endpoints, kept)
    };
    let mut store = state.data.lock().await;
    let mut old = Vec::new();
    // None is started again: the next query does that.
    for endpoint in endpoints {
        if let Some(compute) = store.compute(&endpoint) {
            old.push(compute.data.clone());
            store.stop(&endpoint);
        }
    }
    let lsn = store.branch(source, &data, point).await?;
    let tampering = lock(&state.tampering).take();
    if let Some((sql, place)) = tampering {
        store.tamper(&data, &sql, place).await?;
    }
    for data in old.into_iter().filter(|data| !kept.contains(data) && data != source) {
        store.remove(&data);
    }
    let mut model = lock(&state.model);
    model.saw(&data, state.now(), lsn);
    if let Some(branch) = model.branch_mut(branch) {
        branch.parent_lsn = Some(lsn);
        branch.parent_timestamp = Some(state.now());
    }
    Ok(())
}

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

/// Runs a script on production as its owner, before anything is served.
pub(crate) async fn seed(state: &State, branch: &str, script: &str) -> Result<()> {
    let (endpoint, password) = {
        let model = lock(&state.model);
        let found = model.branch(branch).context("find the branch")?;
        let role = found
            .roles
            .first()
            .and_then(|role| role.password.clone())
            .context("find the owner's password")?;
        (
            model
                .writer_of(branch)
                .map(|endpoint| endpoint.id.clone())
                .context("find the endpoint")?,
            role,
        )
    };
    start(state, &endpoint).await?;
    let (port, installation) = {
        let store = state.data.lock().await;
        (
            store.compute(&endpoint).context("find the compute")?.server.port,
            store.installation.clone(),
        )
    };
    let mut owner = Connection::connect(port, "neondb_owner", &password, "neondb", &[])
        .await
        .context("log in to seed")?;
    owner.script(script).await.context("run the seed")?;
    learn(state, branch, port, &installation, &sql::literals_of_sql(script)).await
}

/// Answers `POST /sql`; nothing that is not running yet is begun for a client that is gone.
pub(crate) async fn query(
    state: &Arc<State>,
    headers: &BTreeMap<String, String>,
    body: &str,
    mut client: Client,
) -> Answer {
    let header = |name: &str| headers.get(name).cloned();
    let options = match sql::Options::new(&header) {
        Ok(options) => options,
        Err(answer) => return answer,
    };
    let mut target = match sql::target(headers.get("neon-connection-string").map(String::as_str)) {
        Ok(target) => target,
        Err(answer) => return answer,
    };
    let kept_out = sql::kept_out(&lock(&state.model), &target.endpoint);
    if let Some(answer) = kept_out {
        return answer;
    }
    let began = Instant::now();
    if let Err(answer) = wake(state, &target.endpoint).await {
        return answer;
    }
    if client.is_gone() {
        return sql::error(500, "the client went away");
    }
    let waking = began.elapsed();
    let (port, installation) = {
        let mut store = state.data.lock().await;
        let Some(port) = store.touch(&target.endpoint) else {
            return sql::error(500, "Control plane request failed");
        };
        (port, store.installation.clone())
    };
    let admitted = {
        let model = lock(&state.model);
        model
            .endpoint(&target.endpoint)
            .map(|endpoint| model.admits(endpoint, &target.role, &target.password, state.now()))
    };
    let Some(Some(password)) = admitted else { return sql::wrong_password(&target.role) };
    if target.is_untriggered && lock(&state.model).switches.sql_passes_options {
        // Neon's own setting is a placeholder here; PostgreSQL's does what it does, from 17 on.
        let own = if installation.major >= 17 { " -c event_triggers=off" } else { "" };
        target.parameters.push(("options".to_owned(), format!("-c neon.event_triggers=off{own}")));
    }
    let connected =
        Connection::connect(port, &target.role, &password, &target.database, &target.parameters)
            .await;
    let mut connection = match connected {
        Ok(connection) => connection,
        Err(failure) => return sql::postgres_error(&failure, true),
    };
    let answer = Answer { waking, ..client.hears(&mut connection, body, &options).await };
    // A role or a database may have been made or changed; the control plane learns of it, whoever
    // hears the answer.
    let lower = body.to_ascii_lowercase();
    if ["role", "user", "database", "password"].iter().any(|word| lower.contains(word))
        && !options.is_read_only()
    {
        let branch = lock(&state.model)
            .endpoint(&target.endpoint)
            .filter(|endpoint| endpoint.is_read_write)
            .map(|endpoint| endpoint.branch.clone());
        if let Some(branch) = branch {
            let _ = learn(state, &branch, port, &installation, &sql::literals(body)).await;
        }
    }
    answer
}

/// Makes sure that a compute runs.
async fn wake(state: &Arc<State>, endpoint: &str) -> Result<(), Answer> {
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
                "Control plane request failed: endpoint is temporarily unavailable. Check \
                    your quotas and/or contact our support.",
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
        let is_it = |operation: &&crate::model::Operation| {
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
    let sql = "select count(*)::text from pg_stat_activity where backend_type = 'client \
        backend' and \
        state <> 'idle' and pid <> pg_backend_pid()";
    admin.value(sql).await.map_or(true, |count| count != "0")
}

/// Answers `/_emulator/…`.
pub(crate) async fn answer(
    state: &Arc<State>,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, Value) {
    let bad = |error: &dyn std::fmt::Display| (400, json!({"message": error.to_string()}));
    match (method, path) {
        ("GET", "health") => (200, json!({"status": "ok"})),
        ("GET", "faults") => (200, json!({"faults": lock(&state.faults).list()})),
        ("POST", "faults") => match serde_json::from_str::<Planned>(body) {
            Ok(planned) => {
                lock(&state.faults).add(planned);
                (201, json!({}))
            }
            Err(error) => bad(&error),
        },
        ("DELETE", "faults") => {
            lock(&state.faults).clear();
            (200, json!({}))
        }
        ("GET", "journal") => (200, json!({"entries": *lock(&state.journal)})),
        ("DELETE", "journal") => {
            lock(&state.journal).clear();
            (200, json!({}))
        }
        ("GET", "endpoints") => (200, endpoints(state).await),
        ("GET", "project") => (200, project(state)),
        ("PUT", "switches") => match serde_json::from_str::<Switches>(body) {
            Ok(switches) => {
                lock(&state.model).switches = switches;
                (200, json!({}))
            }
            Err(error) => bad(&error),
        },
        ("PUT", "durations") => match serde_json::from_str::<Durations>(body) {
            Ok(durations) => {
                lock(&state.model).durations = durations;
                (200, json!({}))
            }
            Err(error) => bad(&error),
        },
        ("PUT", "project") => match serde_json::from_str::<Value>(body) {
            Ok(value) => {
                let mut model = lock(&state.model);
                model.store_passwords =
                    value["store_passwords"].as_bool().unwrap_or(model.store_passwords);
                let limit = |key: &str, present: usize| {
                    value[key]
                        .as_u64()
                        .and_then(|limit| usize::try_from(limit).ok())
                        .unwrap_or(present)
                };
                model.limits.branches = limit("branches_limit", model.limits.branches);
                model.limits.root_branches =
                    limit("root_branches_limit", model.limits.root_branches);
                model.limits.snapshots = limit("snapshots_limit", model.limits.snapshots);
                if let Some(plan) = value["subscription_type"].as_str() {
                    plan.clone_into(&mut model.limits.subscription);
                }
                (200, json!({}))
            }
            Err(error) => bad(&error),
        },
        _ => (404, json!({"message": "this route does not exist"})),
    }
}

/// Lists every endpoint with the process that serves it, if one does.
async fn endpoints(state: &State) -> Value {
    let store = state.data.lock().await;
    let model = lock(&state.model);
    let listed: Vec<Value> = model
        .endpoints
        .iter()
        .map(|endpoint| {
            let compute = store.compute(&endpoint.id);
            let branch = model.branch(&endpoint.branch);
            json!({
                "id": endpoint.id, "host": model.host(&endpoint.id), "branch_id": endpoint.branch,
                "branch_name": branch.map(|branch| branch.name.clone()),
                "type": if endpoint.is_read_write { "read_write" } else { "read_only" },
                "address": "127.0.0.1", "port": compute.map(|compute| compute.server.port),
                "pid": compute.map(|compute| compute.server.pid()),
                "data": branch.map(|branch| branch.data.clone()),
                "roles": branch.map(|branch| branch.roles.iter().map(|role| json!({"name": role.name, "password": role.password})).collect::<Vec<_>>()),
                "databases": branch.map(|branch| branch.databases.iter().map(|database| database.name.clone()).collect::<Vec<_>>()),
            })
        })
        .collect();
    json!({"endpoints": listed})
}

/// Tells the ids that a test begins with, and the operations with their exact times.
fn project(state: &State) -> Value {
    let mut model = lock(&state.model);
    model.advance(state.now());
    let branches: Vec<Value> = model
        .branches
        .iter()
        .map(|branch| {
            json!({"id": branch.id, "name": branch.name, "parent_id": branch.parent,
                    "parent_lsn": branch.parent_lsn.map(|lsn| lsn.to_string())})
        })
        .collect();
    let operations: Vec<Value> = model
        .operations
        .iter()
        .map(|operation| {
            json!({
                "id": operation.id, "action": operation.action, "branch_id": operation.branch,
                "status": operation.status,
                "created_at_ms": operation.created_at.timestamp_millis(),
                "ended_at_ms": operation.updated_at.timestamp_millis(),
            })
        })
        .collect();
    json!({"id": model.project, "branches": branches, "operations": operations})
}
