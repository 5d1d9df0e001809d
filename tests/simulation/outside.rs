//! What somebody else does to the project, in the console or by another tool.

use chrono::TimeDelta;
use firstlight::time::Timestamp;
use neon_emulator::model::{Finish, Request};
use neon_emulator::simulated::Simulated;
use serde_json::{Value, json};

use crate::faults::Fault;
use crate::oracle::Oracle;
use crate::run::TODAY;

/// Does it, at once and as far as Neon allows.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other fault is done where the request is"
)]
pub(crate) fn happens(neon: &mut Simulated, oracle: &mut Oracle, fault: Fault, now: Timestamp) {
    let (project, neon_offset) = (neon.model.project.clone(), neon.clock_offset);
    let staging = oracle.staging_id().to_owned();
    let production = oracle.production_id().to_owned();
    let endpoints: Vec<(String, String)> = neon
        .model
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.id.clone(), endpoint.branch.clone()))
        .collect();
    let mut call = |method: &str, path: String, body: Value| {
        let request = Request {
            method: method.to_owned(),
            path: format!("/projects/{project}{path}"),
            query: [].into(),
            body,
        };
        neon.serve(&request, now);
    };
    match fault {
        Fault::BackupDeleted => {
            if let Some(id) = oracle.backup(TODAY) {
                oracle.loses(&id);
                call("DELETE", format!("/branches/{id}"), Value::Null);
            }
        }
        Fault::BackupRenamed => {
            if let Some(id) = oracle.backup(TODAY) {
                oracle.locks_lost += 1;
                call(
                    "PATCH",
                    format!("/branches/{id}"),
                    json!({"branch": {"name": "kept-for-later"}}),
                );
            }
        }
        Fault::BackupExpires => {
            if let Some(id) = oracle.backup(TODAY) {
                let expires_at = (now + neon_offset + TimeDelta::days(7)).to_rfc3339();
                call(
                    "PATCH",
                    format!("/branches/{id}"),
                    json!({"branch": {"expires_at": expires_at}}),
                );
            }
        }
        Fault::ReaderDeleted => {
            let reader = oracle
                .backup(TODAY)
                .and_then(|id| Some(endpoints.iter().find(|(_, branch)| *branch == id)?.0.clone()));
            if let Some(id) = reader {
                call("DELETE", format!("/endpoints/{id}"), Value::Null);
            }
        }
        Fault::DisplacedDeleted => {
            if let Some(id) = oracle.displaced(TODAY) {
                oracle.loses(&id);
                call("DELETE", format!("/branches/{id}"), Value::Null);
            }
        }
        Fault::StagingRenamed => {
            call("PATCH", format!("/branches/{staging}"), json!({"branch": {"name": "preview"}}));
        }
        Fault::StagingProtected => {
            call("PATCH", format!("/branches/{staging}"), json!({"branch": {"protected": true}}));
        }
        Fault::StagingDefault => {
            call("POST", format!("/branches/{staging}/set_as_default"), Value::Null);
            oracle.takes_production_as_it_is(&neon.model);
        }
        Fault::StagingDeleted => call("DELETE", format!("/branches/{staging}"), Value::Null),
        Fault::StagingRestored => {
            let body =
                json!({"source_branch_id": production, "preserve_under_name": "before-somebody"});
            call("POST", format!("/branches/{staging}/restore"), body);
        }
        _ => {}
    }
}

/// Gives a branch a read-only endpoint.
pub(crate) fn adds_reader(neon: &mut Simulated, branch: &str, now: Timestamp) {
    let path = format!("/projects/{}/endpoints", neon.model.project);
    let body = json!({"endpoint": {"branch_id": branch, "type": "read_only"}});
    let response =
        neon.serve(&Request { method: "POST".to_owned(), path, query: [].into(), body }, now);
    assert_eq!(response.status, 201, "{}", response.body);
}

/// Gives a branch another name.
pub(crate) fn renames(neon: &mut Simulated, branch: &str, name: &str, now: Timestamp) {
    let path = format!("/projects/{}/branches/{branch}", neon.model.project);
    let body = json!({"branch": {"name": name}});
    let response =
        neon.serve(&Request { method: "PATCH".to_owned(), path, query: [].into(), body }, now);
    assert_eq!(response.status, 200, "{}", response.body);
}

/// Suspends the compute of a branch, which fails: an operation that ended badly stays in the
/// listing.
pub(crate) fn suspends_in_vain(neon: &mut Simulated, branch: &str, now: Timestamp) {
    let Some(endpoint) = neon.model.writer_of(branch).map(|endpoint| endpoint.id.clone()) else {
        return;
    };
    neon.model.operation_faults.push(Finish::Failed);
    let path = format!("/projects/{}/endpoints/{endpoint}/suspend", neon.model.project);
    let response = neon.serve(
        &Request { method: "POST".to_owned(), path, query: [].into(), body: Value::Null },
        now,
    );
    assert_eq!(response.status, 200, "{}", response.body);
}

/// Puts a verified backup of ours into the project that an earlier run has left there; its record
/// in the store is the caller's to write.
pub(crate) fn has_older_backup(
    neon: &mut Simulated,
    oracle: &mut Oracle,
    run: &str,
    at: Timestamp,
) {
    let production =
        neon.model.branches.iter().find(|branch| branch.is_default).map(|branch| branch.id.clone());
    let id = production
        .and_then(|production| neon.model.add_child(&production, &format!("backup-{run}"), at));
    let Some(id) = id else { return };
    // Its endpoint went with the pruning of its own run.
    neon.model.endpoints.retain(|endpoint| endpoint.branch != id);
    let Some(branch) = neon.model.branch_mut(&id) else { return };
    branch.annotation =
        [("firstlight".to_owned(), "hub".to_owned()), ("run".to_owned(), run.to_owned())].into();
    oracle.adopt_backup(&id, run, at);
}
