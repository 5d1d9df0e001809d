//! What somebody else does to the project, in the console or by another tool.

use chrono::TimeDelta;
use firstlight::time::Timestamp;
use neon_emulator::model::{Finish, Request, Response};
use neon_emulator::simulated::Simulated;
use serde_json::{Value, json};

use crate::faults::Fault;
use crate::oracle::Oracle;
use crate::run::TODAY;

/// Somebody at the console of the project.
struct Console<'a> {
    neon: &'a mut Simulated,
    now: Timestamp,
}

impl Console<'_> {
    /// Sends a request; the path begins after the project.
    fn call(&mut self, method: &str, path: &str, body: Value) -> Response {
        let request = Request {
            method: method.to_owned(),
            path: format!("/projects/{}{path}", self.neon.model.project),
            query: [].into(),
            body,
        };
        self.neon.serve(&request, self.now)
    }

    /// Changes settings of a branch.
    fn change(&mut self, branch: &str, settings: &Value) -> Response {
        self.call("PATCH", &format!("/branches/{branch}"), json!({"branch": settings}))
    }

    /// Deletes a branch.
    fn delete(&mut self, branch: &str) {
        self.call("DELETE", &format!("/branches/{branch}"), Value::Null);
    }
}

/// Does it, at once and as far as Neon allows.
pub(crate) fn happens(neon: &mut Simulated, oracle: &mut Oracle, fault: Fault, now: Timestamp) {
    let neons = now + neon.clock_offset;
    let staging = oracle.staging_id().to_owned();
    let mut console = Console { neon, now };
    match (fault, oracle.backup(TODAY)) {
        (Fault::BackupDeleted, Some(id)) => {
            oracle.loses(&id);
            console.delete(&id);
        }
        (Fault::BackupRenamed, Some(id)) => {
            oracle.locks_lost += 1;
            console.change(&id, &json!({"name": "kept-for-later"}));
        }
        (Fault::BackupExpires, Some(id)) => {
            let expires_at = (neons + TimeDelta::days(7)).to_rfc3339();
            console.change(&id, &json!({"expires_at": expires_at}));
        }
        (Fault::ReaderDeleted, Some(id)) => {
            let endpoints = &console.neon.model.endpoints;
            let reader = endpoints.iter().find(|endpoint| endpoint.branch == id);
            if let Some(id) = reader.map(|endpoint| endpoint.id.clone()) {
                console.call("DELETE", &format!("/endpoints/{id}"), Value::Null);
            }
        }
        (Fault::DisplacedDeleted, _) => {
            if let Some(id) = oracle.displaced(TODAY) {
                oracle.loses(&id);
                console.delete(&id);
            }
        }
        (Fault::StagingRenamed, _) => {
            console.change(&staging, &json!({"name": "preview"}));
        }
        (Fault::StagingProtected, _) => {
            console.change(&staging, &json!({"protected": true}));
        }
        (Fault::StagingDefault, _) => {
            console.call("POST", &format!("/branches/{staging}/set_as_default"), Value::Null);
            oracle.takes_production_as_it_is(&console.neon.model);
        }
        (Fault::StagingDeleted, _) => console.delete(&staging),
        (Fault::StagingRestored, _) => {
            let body = json!({"source_branch_id": oracle.production_id(),
                "preserve_under_name": "before-somebody"});
            console.call("POST", &format!("/branches/{staging}/restore"), body);
        }
        // Every other fault is done where the request is.
        _ => {}
    }
}

/// Gives a branch a read-only endpoint.
pub(crate) fn adds_reader(neon: &mut Simulated, branch: &str, now: Timestamp) {
    let body = json!({"endpoint": {"branch_id": branch, "type": "read_only"}});
    let response = Console { neon, now }.call("POST", "/endpoints", body);
    assert_eq!(response.status, 201, "{}", response.body);
}

/// Gives a branch another name.
pub(crate) fn renames(neon: &mut Simulated, branch: &str, name: &str, now: Timestamp) {
    let response = Console { neon, now }.change(branch, &json!({"name": name}));
    assert_eq!(response.status, 200, "{}", response.body);
}

/// Suspends the compute of a branch, which fails: an operation that ended badly stays in the
/// listing.
pub(crate) fn suspends_in_vain(neon: &mut Simulated, branch: &str, now: Timestamp) {
    let Some(endpoint) = neon.model.writer_of(branch).map(|endpoint| endpoint.id.clone()) else {
        return;
    };
    neon.model.operation_faults.push(Finish::Failed);
    let path = format!("/endpoints/{endpoint}/suspend");
    let response = Console { neon, now }.call("POST", &path, Value::Null);
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
