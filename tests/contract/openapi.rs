//! Every reply of the emulator against Neon's OpenAPI document.

use anyhow::{Context as _, Result};
use harness::emulator::{API_KEY, Emulator};
use harness::paths;
use serde_json::{Value, json};

use crate::{emulator, judge, make_branch, settle};

/// Calls a route and notes its reply.
fn call(
    emulator: &Emulator,
    replies: &mut Vec<Value>,
    operation: &str,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> Result<Value> {
    let url = format!("{}{path}", emulator.api());
    let body = body.map(|body| body.to_string());
    let answer = harness::http::send(method, &url, Some(API_KEY), body.as_deref())?;
    replies.push(json!({"operation": operation, "status": answer.status, "body": answer.json()}));
    settle(emulator)?;
    Ok(answer.json())
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

/// Asks who asks, gives somebody else access to the project, and takes it back.
fn people(emulator: &Emulator, replies: &mut Vec<Value>, project: &str) -> Result<()> {
    call(emulator, replies, "getAuthDetails", "GET", "/auth", None)?;
    call(emulator, replies, "getCurrentUserInfo", "GET", "/users/me", None)?;
    let path = format!("{project}/permissions");
    let granted = call(
        emulator,
        replies,
        "grantPermissionToProject",
        "POST",
        &path,
        Some(json!({"email": "ann@example.com"})),
    )?;
    call(emulator, replies, "listProjectPermissions", "GET", &path, None)?;
    let granted = granted["id"].as_str().context("the permission's id")?;
    call(
        emulator,
        replies,
        "revokePermissionFromProject",
        "DELETE",
        &format!("{path}/{granted}"),
        None,
    )?;
    Ok(())
}

/// Takes a snapshot, restores it and lets it take staging's place, and sets a schedule.
fn snapshots(emulator: &Emulator, replies: &mut Vec<Value>, project: &str) -> Result<()> {
    let production = format!("{project}/branches/{}", emulator.production);
    let schedule = format!("{production}/backup_schedule");
    let daily =
        json!({"schedule": [{"frequency": "daily", "hour": 5, "retention_seconds": 604_800}]});
    call(emulator, replies, "setSnapshotSchedule", "PUT", &schedule, Some(daily))?;
    call(emulator, replies, "getSnapshotSchedule", "GET", &schedule, None)?;
    let taken = call(
        emulator,
        replies,
        "createSnapshot",
        "POST",
        &format!("{production}/snapshot?name=weekly&slug=weekly"),
        None,
    )?;
    let snapshot = format!(
        "{project}/snapshots/{}",
        taken["snapshot"]["id"].as_str().context("the snapshot's id")?
    );
    call(emulator, replies, "listSnapshots", "GET", &format!("{project}/snapshots"), None)?;
    call(
        emulator,
        replies,
        "updateSnapshot",
        "PATCH",
        &snapshot,
        Some(json!({"snapshot": {"name": "first of the week"}})),
    )?;
    let preview = json!({"name": "preview", "target_branch_id": emulator.staging});
    let restored = call(
        emulator,
        replies,
        "restoreSnapshot",
        "POST",
        &format!("{snapshot}/restore"),
        Some(preview),
    )?;
    let preview = format!(
        "{project}/branches/{}",
        restored["branch"]["id"].as_str().context("the branch's id")?
    );
    call(
        emulator,
        replies,
        "finalizeRestoreBranch",
        "POST",
        &format!("{preview}/finalize_restore"),
        None,
    )?;
    call(emulator, replies, "listProjectBranches", "GET", &format!("{project}/branches"), None)?;
    call(emulator, replies, "deleteSnapshot", "DELETE", &snapshot, None)?;
    call(emulator, replies, "deleteSnapshot", "DELETE", &snapshot, None)?;
    Ok(())
}

#[test]
fn every_reply_matches_neons_openapi_document() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let mut replies = Vec::new();
    let project = format!("/projects/{}", emulator.project);
    let staging = format!("{project}/branches/{}", emulator.staging);
    people(&emulator, &mut replies, &project)?;
    let mut reply = |operation: &str, method: &str, path: &str, body: Option<Value>| {
        call(&emulator, &mut replies, operation, method, path, body)
    };

    reply("getCurrentUserOrganizations", "GET", "/users/me/organizations", None)?;
    reply("listProjects", "GET", "/projects", None)?;
    reply("listSharedProjects", "GET", "/projects/shared", None)?;
    reply("getProject", "GET", &project, None)?;
    reply(
        "updateProject",
        "PATCH",
        &project,
        Some(json!({"project": {"history_retention_seconds": 3600}})),
    )?;
    reply("listProjectBranches", "GET", &format!("{project}/branches"), None)?;
    reply("countProjectBranches", "GET", &format!("{project}/branches/count"), None)?;
    let created = reply(
        "createProjectBranch",
        "POST",
        &format!("{project}/branches"),
        Some(json!({
            "branch": {"name": "backup-1"}, "endpoints": [{"type": "read_only"}],
            "annotation_value": {"firstlight": "hub"},
        })),
    )?;
    let backup = created["branch"]["id"].as_str().context("the branch's id")?.to_owned();
    let reader = created["endpoints"][0]["id"].as_str().context("the endpoint's id")?.to_owned();
    reply("getProjectBranch", "GET", &format!("{project}/branches/{backup}"), None)?;
    reply("updateProjectBranch", "PATCH", &staging, Some(json!({"branch": {"name": "staging"}})))?;
    reply(
        "restoreProjectBranch",
        "POST",
        &format!("{staging}/restore"),
        Some(json!({"source_branch_id": backup, "preserve_under_name": "before"})),
    )?;
    reply("listProjectBranchEndpoints", "GET", &format!("{staging}/endpoints"), None)?;
    reply("listProjectBranchDatabases", "GET", &format!("{staging}/databases"), None)?;
    reply("listProjectBranchRoles", "GET", &format!("{staging}/roles"), None)?;
    reply("getProjectBranchRole", "GET", &format!("{staging}/roles/neondb_owner"), None)?;
    reply(
        "getProjectBranchRolePassword",
        "GET",
        &format!("{staging}/roles/neondb_owner/reveal_password"),
        None,
    )?;
    reply(
        "resetProjectBranchRolePassword",
        "POST",
        &format!("{staging}/roles/neondb_owner/reset_password"),
        None,
    )?;
    reply(
        "getConnectionURI",
        "GET",
        &format!("{project}/connection_uri?database_name=neondb&role_name=neondb_owner"),
        None,
    )?;
    reply("listProjectEndpoints", "GET", &format!("{project}/endpoints"), None)?;
    let other = reply(
        "createProjectEndpoint",
        "POST",
        &format!("{project}/endpoints"),
        Some(json!({"endpoint": {"branch_id": backup, "type": "read_only"}})),
    )?;
    let other = other["endpoint"]["id"].as_str().context("the endpoint's id")?.to_owned();
    reply("getProjectEndpoint", "GET", &format!("{project}/endpoints/{other}"), None)?;
    reply(
        "updateProjectEndpoint",
        "PATCH",
        &format!("{project}/endpoints/{other}"),
        Some(json!({"endpoint": {"name": "reader"}})),
    )?;
    reply("suspendProjectEndpoint", "POST", &format!("{project}/endpoints/{other}/suspend"), None)?;
    reply("startProjectEndpoint", "POST", &format!("{project}/endpoints/{other}/start"), None)?;
    reply("restartProjectEndpoint", "POST", &format!("{project}/endpoints/{other}/restart"), None)?;
    reply("deleteProjectEndpoint", "DELETE", &format!("{project}/endpoints/{reader}"), None)?;
    let operations = reply("listProjectOperations", "GET", &format!("{project}/operations"), None)?;
    let operation =
        operations["operations"][0]["id"].as_str().context("an operation's id")?.to_owned();
    reply("getProjectOperation", "GET", &format!("{project}/operations/{operation}"), None)?;
    let spare = make_branch(&emulator, &json!({"branch": {"name": "spare"}}))?;
    reply("deleteProjectBranch", "DELETE", &format!("{project}/branches/{spare}"), None)?;
    reply(
        "setDefaultProjectBranch",
        "POST",
        &format!("{project}/branches/{backup}/set_as_default"),
        None,
    )?;
    reply("getProjectBranch", "GET", &format!("{project}/branches/br-gone-gone-00000000"), None)?;
    snapshots(&emulator, &mut replies, &project)?;

    assert_eq!(
        unjudged(&replies)?,
        Vec::<String>::new(),
        "routes of the emulator that no reply was judged of"
    );

    let text = judge("openapi.mjs", &replies)?;
    assert!(text.contains(&format!("ok {} replies", replies.len())), "{text}");
    Ok(())
}
