//! Carries out on real data what the model decided: the work of operations.
//!
//! Failure: what could not be done is reported to the model, whose operation fails with it, and is
//! noted in the journal.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::computes::start;
use crate::model::{Effect, Point, Request, Work};
use crate::passwords::tell_passwords;
use crate::server::{State, lock};

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

async fn make_branch(state: &State, branch: &str, source: &str, point: Point) -> Result<()> {
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

async fn take_snapshot(state: &State, snapshot: &str, source: &str, point: Point) -> Result<()> {
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
    let lsn = store.branch(source, &data, Point::Head).await?;
    lock(&state.model).saw(&data, state.now(), lsn);
    let tampering = lock(&state.tampering).take();
    if let Some((sql, place)) = tampering {
        store.tamper(&data, &sql, place).await?;
    }
    Ok(())
}

/// Gives a branch its new data. The old data went to the preserved branch in the model already.
async fn restore(state: &State, branch: &str, source: &str, point: Point) -> Result<()> {
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
