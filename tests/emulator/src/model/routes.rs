//! Which path does what.
//!
//! Source: Neon API v2, OpenAPI document of 2026-07-13, `operationId`s.

use serde::Serialize;
use serde_json::{Value, json};

use super::render::OperationBody;
use super::{ApiError, Model, Request, Response, Timestamp, micros, seconds};

/// Returns the name of a route, as Neon's OpenAPI document has it; `unknown` for none.
pub fn route_name(method: &str, path: &str) -> &'static str {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match (method, parts.as_slice()) {
        ("GET", ["auth"]) => "getAuthDetails",
        ("GET", ["users", "me"]) => "getCurrentUserInfo",
        ("GET", ["users", "me", "organizations"]) => "getCurrentUserOrganizations",
        ("GET", ["projects"]) => "listProjects",
        ("GET", ["projects", "shared"]) => "listSharedProjects",
        ("GET", ["projects", _]) => "getProject",
        ("PATCH", ["projects", _]) => "updateProject",
        ("GET", ["projects", _, "branches"]) => "listProjectBranches",
        ("POST", ["projects", _, "branches"]) => "createProjectBranch",
        ("GET", ["projects", _, "branches", "count"]) => "countProjectBranches",
        ("GET", ["projects", _, "branches", _]) => "getProjectBranch",
        ("PATCH", ["projects", _, "branches", _]) => "updateProjectBranch",
        ("DELETE", ["projects", _, "branches", _]) => "deleteProjectBranch",
        ("POST", ["projects", _, "branches", _, "restore"]) => "restoreProjectBranch",
        ("POST", ["projects", _, "branches", _, "set_as_default"]) => "setDefaultProjectBranch",
        ("POST", ["projects", _, "branches", _, "finalize_restore"]) => "finalizeRestoreBranch",
        ("POST", ["projects", _, "branches", _, "snapshot"]) => "createSnapshot",
        ("GET", ["projects", _, "branches", _, "backup_schedule"]) => "getSnapshotSchedule",
        ("PUT", ["projects", _, "branches", _, "backup_schedule"]) => "setSnapshotSchedule",
        ("GET", ["projects", _, "snapshots"]) => "listSnapshots",
        ("PATCH", ["projects", _, "snapshots", _]) => "updateSnapshot",
        ("DELETE", ["projects", _, "snapshots", _]) => "deleteSnapshot",
        ("POST", ["projects", _, "snapshots", _, "restore"]) => "restoreSnapshot",
        ("GET", ["projects", _, "branches", _, "endpoints"]) => "listProjectBranchEndpoints",
        ("GET", ["projects", _, "branches", _, "databases"]) => "listProjectBranchDatabases",
        ("GET", ["projects", _, "branches", _, "roles"]) => "listProjectBranchRoles",
        ("GET", ["projects", _, "branches", _, "roles", _]) => "getProjectBranchRole",
        ("GET", ["projects", _, "branches", _, "roles", _, "reveal_password"]) => {
            "getProjectBranchRolePassword"
        }
        ("POST", ["projects", _, "branches", _, "roles", _, "reset_password"]) => {
            "resetProjectBranchRolePassword"
        }
        ("GET", ["projects", _, "endpoints"]) => "listProjectEndpoints",
        ("POST", ["projects", _, "endpoints"]) => "createProjectEndpoint",
        ("GET", ["projects", _, "endpoints", _]) => "getProjectEndpoint",
        ("PATCH", ["projects", _, "endpoints", _]) => "updateProjectEndpoint",
        ("DELETE", ["projects", _, "endpoints", _]) => "deleteProjectEndpoint",
        ("POST", ["projects", _, "endpoints", _, "start"]) => "startProjectEndpoint",
        ("POST", ["projects", _, "endpoints", _, "suspend"]) => "suspendProjectEndpoint",
        ("POST", ["projects", _, "endpoints", _, "restart"]) => "restartProjectEndpoint",
        ("GET", ["projects", _, "permissions"]) => "listProjectPermissions",
        ("POST", ["projects", _, "permissions"]) => "grantPermissionToProject",
        ("DELETE", ["projects", _, "permissions", _]) => "revokePermissionFromProject",
        ("GET", ["projects", _, "connection_uri"]) => "getConnectionURI",
        ("GET", ["projects", _, "operations"]) => "listProjectOperations",
        ("GET", ["projects", _, "operations", _]) => "getProjectOperation",
        _ => "unknown",
    }
}

/// Answers a request.
pub(super) fn serve(
    model: &mut Model,
    request: &Request,
    now: Timestamp,
) -> Result<Response, ApiError> {
    let path = request.path.clone();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let body = &request.body;
    let name = route_name(&request.method, &path);
    super::decode::check(name, body)?;
    if name != "unknown" {
        check_project(model, &parts)?;
    }
    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    match name {
        "getAuthDetails" => Ok(Response::ok(authentication())),
        "getCurrentUserInfo" => Ok(Response::ok(user())),
        "getCurrentUserOrganizations" => Ok(Response::ok(organizations())),
        "listProjects" => Ok(list_projects(model, request)),
        "listSharedProjects" => Ok(Response::ok(json!({"projects": []}))),
        "getProject" => Ok(Response::ok(json!({"project": model.render_project()}))),
        "updateProject" => update_project(model, body),
        "listProjectBranches" => model.list_branches(request),
        "createProjectBranch" => model.create_branch(body, now),
        "countProjectBranches" => Ok(count(model, request)),
        "getProjectBranch" => model.show_branch(part(3)),
        "updateProjectBranch" => model.update_branch(part(3), body, now),
        "deleteProjectBranch" => model.delete_branch(part(3), now),
        "restoreProjectBranch" => model.restore_branch(part(3), body, now),
        "setDefaultProjectBranch" => model.set_default(part(3), now),
        "finalizeRestoreBranch" => model.finalize_restore(part(3), body, now),
        "createSnapshot" => model.create_snapshot(part(3), request, now),
        "getSnapshotSchedule" => model.show_schedule(part(3)),
        "setSnapshotSchedule" => model.set_schedule(part(3), body),
        "listSnapshots" => Ok(model.list_snapshots()),
        "updateSnapshot" => model.update_snapshot(part(3), body, now),
        "deleteSnapshot" => model.delete_snapshot(part(3), now),
        "restoreSnapshot" => model.restore_snapshot(part(3), request, now),
        "listProjectBranchEndpoints" => model.list_endpoints(Some(part(3))),
        "listProjectBranchDatabases" => {
            let branch = model.find_branch(part(3))?;
            Ok(Response::ok(json!({"databases": Model::render_databases(branch)})))
        }
        "listProjectBranchRoles" => model.list_roles(part(3)),
        "getProjectBranchRole" => model.show_role(part(3), &decode(part(5))),
        "getProjectBranchRolePassword" => model.reveal_password(part(3), &decode(part(5))),
        "resetProjectBranchRolePassword" => model.reset_password(part(3), &decode(part(5)), now),
        "listProjectEndpoints" => model.list_endpoints(None),
        "createProjectEndpoint" => model.create_endpoint(body, now),
        "getProjectEndpoint" => model.show_endpoint(part(3)),
        "updateProjectEndpoint" => model.update_endpoint(part(3), body, now),
        "deleteProjectEndpoint" => model.delete_endpoint(part(3), now),
        "startProjectEndpoint" | "suspendProjectEndpoint" | "restartProjectEndpoint" => {
            model.drive_endpoint(part(3), part(4), now)
        }
        "listProjectPermissions" => {
            let permissions: Vec<Value> = model.permissions.iter().map(permission).collect();
            Ok(Response::ok(json!({"project_permissions": permissions})))
        }
        "grantPermissionToProject" => grant(model, body, now),
        "revokePermissionFromProject" => revoke(model, part(3), now),
        "getConnectionURI" => model.connection_uri(request),
        "listProjectOperations" => list_operations(model, request, now),
        "getProjectOperation" => {
            let operation = model
                .operation(part(3))
                .ok_or_else(|| ApiError::new(404, "", "operation not found"))?;
            Ok(Response::ok(json!({"operation": model.render_operation(operation, now)})))
        }
        _ => Err(ApiError::new(404, "", "this route does not exist")),
    }
}

/// Refuses a path of another project.
fn check_project(model: &Model, parts: &[&str]) -> Result<(), ApiError> {
    match parts {
        ["projects", project, ..] if *project != "shared" && *project != model.project => {
            Err(ApiError::new(404, "", "project not found"))
        }
        _ => Ok(()),
    }
}

/// Decodes one part of a path.
fn decode(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits: String = rest.by_ref().take(2).map(char::from).collect();
        bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'%'));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn authentication() -> Value {
    json!({"account_id": "user-emulated", "auth_method": "api_key_user", "auth_data": "1"})
}

fn user() -> Value {
    json!({
        "active_seconds_limit": 0,
        "billing_account": {
            "state": "active", "payment_source": {"type": ""}, "subscription_type": "scale_v3",
            "payment_method": "none", "quota_reset_at_last": "2025-01-01T00:00:00Z",
            "name": "Owner", "email": "owner@example.com",
            "address_city": "", "address_country": "", "address_line1": "", "address_line2": "",
            "address_postal_code": "", "address_state": "",
        },
        "auth_accounts": [], "email": "owner@example.com", "id": "user-emulated", "image": "",
        "login": "owner", "name": "Owner", "last_name": "", "projects_limit": 100,
        "branches_limit": 25, "max_autoscaling_limit": 8, "plan": "scale_v3",
    })
}

fn organizations() -> Value {
    json!({"organizations": [{
        "id": "org-emulated-00000000", "name": "Emulated", "handle": "emulated",
        "plan": "scale_v3", "managed_by": "console",
        "created_at": "2025-01-01T00:00:00Z", "updated_at": "2025-01-01T00:00:00Z",
        "require_mfa": false,
    }]})
}

fn list_projects(model: &Model, request: &Request) -> Response {
    let search = request.query.get("search").map(String::as_str).unwrap_or_default();
    let is_after = request.query.contains_key("cursor");
    if is_after || !(model.project_name.contains(search) || model.project.contains(search)) {
        return Response::ok(json!({"projects": [], "applications": {}, "integrations": {}}));
    }
    Response::ok(json!({
        "projects": [model.render_project_item()], "pagination": {"cursor": model.project},
        "applications": {}, "integrations": {},
    }))
}

/// How long a history may be. Source: `@neon/sdk` 6.1.2: 21,600 s on Free, 604,800 on Launch,
/// 2,592,000 on Scale.
fn longest_history(plan: &str) -> i64 {
    match plan.split('_').next() {
        Some("free") => 21_600,
        Some("launch") => 604_800,
        _ => 2_592_000,
    }
}

fn update_project(model: &mut Model, body: &Value) -> Result<Response, ApiError> {
    let asked = &body["project"];
    if asked["history_retention_seconds"]
        .as_i64()
        .is_some_and(|seconds| seconds > longest_history(&model.limits.subscription))
    {
        return Err(ApiError::new(
            422,
            "",
            "history_retention_seconds exceeds what the plan allows",
        ));
    }
    if let Some(name) = asked["name"].as_str() {
        name.clone_into(&mut model.project_name);
    }
    if let Some(seconds) = asked["history_retention_seconds"].as_i64() {
        model.history_seconds = seconds;
    }
    let list = &asked["settings"]["allowed_ips"];
    if let Some(ips) = list["ips"].as_array() {
        model.allowed_ips.0 = ips.iter().filter_map(|ip| ip.as_str().map(str::to_owned)).collect();
    }
    model.allowed_ips.1 = list["protected_branches_only"].as_bool().unwrap_or(model.allowed_ips.1);
    model.blocks_public =
        asked["settings"]["block_public_connections"].as_bool().unwrap_or(model.blocks_public);
    Ok(Response::ok(json!({"project": model.render_project(), "operations": []})))
}

fn count(model: &Model, request: &Request) -> Response {
    let search = request.query.get("search").map(String::as_str).unwrap_or_default();
    let count = model
        .branches
        .iter()
        .filter(|branch| branch.name.contains(search) || branch.id.contains(search))
        .count();
    Response::ok(json!({"count": count}))
}

fn permission((id, email, at): &(String, String, Timestamp)) -> Value {
    json!({"id": id, "granted_to_email": email, "granted_at": seconds(*at)})
}

/// Gives somebody access.
fn grant(model: &mut Model, body: &Value, now: Timestamp) -> Result<Response, ApiError> {
    let email = body["email"].as_str().filter(|email| email.contains('@'));
    let email = email.ok_or_else(|| {
        ApiError::new(
            400,
            "",
            "invalid request: decode application/json: invalid: email (no address)",
        )
    })?;
    if model.permissions.iter().any(|(_, other, _)| other == email) {
        return Err(ApiError::new(409, "", "permission already granted"));
    }
    let granted = (format!("permission-{}", model.permissions.len() + 1), email.to_owned(), now);
    model.permissions.push(granted.clone());
    Ok(Response::ok(permission(&granted)))
}

/// Takes access back.
fn revoke(model: &mut Model, id: &str, now: Timestamp) -> Result<Response, ApiError> {
    let found = model
        .permissions
        .iter()
        .position(|(other, ..)| other == id)
        .ok_or_else(|| ApiError::new(404, "", "permission not found"))?;
    let mut body = permission(&model.permissions.remove(found));
    body["revoked_at"] = seconds(now).into();
    Ok(Response::ok(body))
}

/// Lists operations, newest first; the cursor is the instant of the last one.
fn list_operations(model: &Model, request: &Request, now: Timestamp) -> Result<Response, ApiError> {
    let limit = match request.query.get("limit").map(|text| text.parse::<usize>()) {
        None => 1_000,
        Some(Ok(limit)) if (1..=1_000).contains(&limit) => limit,
        Some(_) => return Err(ApiError::new(400, "", "invalid request: limit")),
    };
    let before = request.query.get("cursor");
    let found: Vec<_> = model
        .operations
        .iter()
        .rev()
        .filter(|operation| before.is_none_or(|cursor| micros(operation.created_at) < *cursor))
        .take(limit)
        .collect();
    let operations = found.iter().map(|operation| model.render_operation(operation, now)).collect();
    let pagination = found.last().map(|last| json!({"cursor": micros(last.created_at)}));
    Ok(Response::ok(Operations { operations, pagination }))
}

/// A listing of operations.
#[derive(Serialize)]
struct Operations<'a> {
    operations: Vec<OperationBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pagination: Option<Value>,
}
