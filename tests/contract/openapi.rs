//! Every reply of the emulator against Neon's OpenAPI document.

use anyhow::{Context as _, Result};
use harness::emulator::{API_KEY, Emulator};
use harness::paths;
use serde_json::{Value, json};

use crate::{emulator, judge, make_branch, settle};

/// Somebody who calls routes, and the replies.
struct Caller<'a> {
    emulator: &'a Emulator,
    project: String,
    replies: Vec<Value>,
}

impl Caller<'_> {
    /// Calls a route and notes its reply.
    fn call(
        &mut self,
        operation: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value> {
        let url = format!("{}{path}", self.emulator.api());
        let body = body.map(|body| body.to_string());
        let answer = harness::http::send(method, &url, Some(API_KEY), body.as_deref())?;
        let (status, body) = (answer.status, answer.json());
        self.replies.push(json!({"operation": operation, "status": status, "body": body}));
        settle(self.emulator)?;
        Ok(body)
    }
}

/// Returns the routes that the emulator has and that no reply is of.
fn unjudged(replies: &[Value]) -> Result<Vec<String>> {
    let routes = std::fs::read_to_string(paths::root().join("tests/emulator/src/model/routes.rs"))?;
    let arms = routes.lines().filter_map(|line| {
        line.trim().strip_prefix("(\"")?.rsplit_once("=> \"")?.1.split_once('"')
    });
    let all: Vec<String> = arms.map(|(operation, _)| operation.to_owned()).collect();
    anyhow::ensure!(all.len() > 25, "only {} routes were found", all.len());
    Ok(all
        .into_iter()
        .filter(|operation| !replies.iter().any(|reply| reply["operation"] == operation.as_str()))
        .collect())
}

/// Reads the id of something in a reply.
fn id(reply: &Value) -> Result<String> {
    reply["id"].as_str().map(str::to_owned).with_context(|| format!("find an id in {reply}"))
}

/// Asks who asks, gives somebody else access to the project, and takes it back.
fn people(caller: &mut Caller<'_>) -> Result<()> {
    caller.call("getAuthDetails", "GET", "/auth", None)?;
    caller.call("getCurrentUserInfo", "GET", "/users/me", None)?;
    caller.call("getCurrentUserOrganizations", "GET", "/users/me/organizations", None)?;
    let path = format!("{}/permissions", caller.project);
    let person = json!({"email": "ann@example.com"});
    let granted = id(&caller.call("grantPermissionToProject", "POST", &path, Some(person))?)?;
    caller.call("listProjectPermissions", "GET", &path, None)?;
    let granted = format!("{path}/{granted}");
    caller.call("revokePermissionFromProject", "DELETE", &granted, None)?;
    Ok(())
}

/// Lists projects, and changes one.
fn projects(caller: &mut Caller<'_>) -> Result<()> {
    let project = caller.project.clone();
    caller.call("listProjects", "GET", "/projects", None)?;
    caller.call("listSharedProjects", "GET", "/projects/shared", None)?;
    caller.call("getProject", "GET", &project, None)?;
    let settings = json!({"project": {"history_retention_seconds": 3600}});
    caller.call("updateProject", "PATCH", &project, Some(settings))?;
    Ok(())
}

/// Makes a branch with an endpoint and restores staging from it. Returns the ids of both.
fn branches(caller: &mut Caller<'_>) -> Result<(String, String)> {
    let path = format!("{}/branches", caller.project);
    let staging = format!("{path}/{}", caller.emulator.staging);
    caller.call("listProjectBranches", "GET", &path, None)?;
    caller.call("countProjectBranches", "GET", &format!("{path}/count"), None)?;
    let backup = json!({
        "branch": {"name": "backup-1"}, "endpoints": [{"type": "read_only"}],
        "annotation_value": {"firstlight": "hub"},
    });
    let created = caller.call("createProjectBranch", "POST", &path, Some(backup))?;
    let (backup, reader) = (id(&created["branch"])?, id(&created["endpoints"][0])?);
    caller.call("getProjectBranch", "GET", &format!("{path}/{backup}"), None)?;
    let named = json!({"branch": {"name": "staging"}});
    caller.call("updateProjectBranch", "PATCH", &staging, Some(named))?;
    let restore = json!({"source_branch_id": backup, "preserve_under_name": "before"});
    caller.call("restoreProjectBranch", "POST", &format!("{staging}/restore"), Some(restore))?;
    Ok((backup, reader))
}

/// Lists what staging has, and gives its role another password.
fn roles(caller: &mut Caller<'_>) -> Result<()> {
    let project = caller.project.clone();
    let staging = format!("{project}/branches/{}", caller.emulator.staging);
    let role = format!("{staging}/roles/neondb_owner");
    caller.call("listProjectBranchEndpoints", "GET", &format!("{staging}/endpoints"), None)?;
    caller.call("listProjectBranchDatabases", "GET", &format!("{staging}/databases"), None)?;
    caller.call("listProjectBranchRoles", "GET", &format!("{staging}/roles"), None)?;
    caller.call("getProjectBranchRole", "GET", &role, None)?;
    let reveal = format!("{role}/reveal_password");
    caller.call("getProjectBranchRolePassword", "GET", &reveal, None)?;
    let reset = format!("{role}/reset_password");
    caller.call("resetProjectBranchRolePassword", "POST", &reset, None)?;
    let uri = format!("{project}/connection_uri?database_name=neondb&role_name=neondb_owner");
    caller.call("getConnectionURI", "GET", &uri, None)?;
    Ok(())
}

/// Makes an endpoint of a branch and drives it, and deletes another one.
fn endpoints(caller: &mut Caller<'_>, branch: &str, reader: &str) -> Result<()> {
    let path = format!("{}/endpoints", caller.project);
    caller.call("listProjectEndpoints", "GET", &path, None)?;
    let other = json!({"endpoint": {"branch_id": branch, "type": "read_only"}});
    let created = caller.call("createProjectEndpoint", "POST", &path, Some(other))?;
    let other = format!("{path}/{}", id(&created["endpoint"])?);
    caller.call("getProjectEndpoint", "GET", &other, None)?;
    let named = json!({"endpoint": {"name": "reader"}});
    caller.call("updateProjectEndpoint", "PATCH", &other, Some(named))?;
    caller.call("suspendProjectEndpoint", "POST", &format!("{other}/suspend"), None)?;
    caller.call("startProjectEndpoint", "POST", &format!("{other}/start"), None)?;
    caller.call("restartProjectEndpoint", "POST", &format!("{other}/restart"), None)?;
    caller.call("deleteProjectEndpoint", "DELETE", &format!("{path}/{reader}"), None)?;
    Ok(())
}

/// Reads the operations of all that.
fn operations(caller: &mut Caller<'_>) -> Result<()> {
    let path = format!("{}/operations", caller.project);
    let listed = caller.call("listProjectOperations", "GET", &path, None)?;
    let operation = format!("{path}/{}", id(&listed["operations"][0])?);
    caller.call("getProjectOperation", "GET", &operation, None)?;
    Ok(())
}

/// Deletes a branch, makes another one the default, and looks for one that is not there.
fn last_branches(caller: &mut Caller<'_>, backup: &str) -> Result<()> {
    let path = format!("{}/branches", caller.project);
    let spare = make_branch(caller.emulator, &json!({"branch": {"name": "spare"}}))?;
    caller.call("deleteProjectBranch", "DELETE", &format!("{path}/{spare}"), None)?;
    let default = format!("{path}/{backup}/set_as_default");
    caller.call("setDefaultProjectBranch", "POST", &default, None)?;
    caller.call("getProjectBranch", "GET", &format!("{path}/br-gone-gone-00000000"), None)?;
    Ok(())
}

/// Takes a snapshot, restores it and lets it take staging's place, and sets a schedule.
fn snapshots(caller: &mut Caller<'_>) -> Result<()> {
    let (project, staging) = (caller.project.clone(), &caller.emulator.staging);
    let production = format!("{project}/branches/{}", caller.emulator.production);
    let schedule = format!("{production}/backup_schedule");
    let daily =
        json!({"schedule": [{"frequency": "daily", "hour": 5, "retention_seconds": 604_800}]});
    let preview = json!({"name": "preview", "target_branch_id": staging});
    caller.call("setSnapshotSchedule", "PUT", &schedule, Some(daily))?;
    caller.call("getSnapshotSchedule", "GET", &schedule, None)?;
    let take = format!("{production}/snapshot?name=weekly&slug=weekly");
    let taken = caller.call("createSnapshot", "POST", &take, None)?;
    let snapshot = format!("{project}/snapshots/{}", id(&taken["snapshot"])?);
    caller.call("listSnapshots", "GET", &format!("{project}/snapshots"), None)?;
    let named = json!({"snapshot": {"name": "first of the week"}});
    caller.call("updateSnapshot", "PATCH", &snapshot, Some(named))?;
    let restore = format!("{snapshot}/restore");
    let restored = caller.call("restoreSnapshot", "POST", &restore, Some(preview))?;
    let finalize = format!("{project}/branches/{}/finalize_restore", id(&restored["branch"])?);
    caller.call("finalizeRestoreBranch", "POST", &finalize, None)?;
    caller.call("listProjectBranches", "GET", &format!("{project}/branches"), None)?;
    caller.call("deleteSnapshot", "DELETE", &snapshot, None)?;
    caller.call("deleteSnapshot", "DELETE", &snapshot, None)?;
    Ok(())
}

#[test]
fn every_reply_matches_neons_openapi_document() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let project = format!("/projects/{}", emulator.project);
    let mut caller = Caller { emulator: &emulator, project, replies: Vec::new() };

    people(&mut caller)?;
    projects(&mut caller)?;
    let (backup, reader) = branches(&mut caller)?;
    roles(&mut caller)?;
    endpoints(&mut caller, &backup, &reader)?;
    operations(&mut caller)?;
    last_branches(&mut caller, &backup)?;
    snapshots(&mut caller)?;

    let replies = caller.replies;
    assert_eq!(
        unjudged(&replies)?,
        Vec::<String>::new(),
        "routes of the emulator that no reply was judged of"
    );

    let text = judge("openapi.mjs", &replies)?;
    assert!(text.contains(&format!("ok {} replies", replies.len())), "{text}");
    Ok(())
}
