//! Offers `/_emulator/…`: faults, the journal, switches, and what a test begins with.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::faults::Planned;
use crate::model::{Durations, Switches};
use crate::server::{State, lock};

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
