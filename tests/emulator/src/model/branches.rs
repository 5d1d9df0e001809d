//! Branches: create, list, change, delete.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::TimeDelta;
use serde::Serialize;
use serde_json::{Value, json};

use super::objects::Undo;
use super::operations::{Start, Then};
use super::render::BranchBody;
use super::{ApiError, Branch, Effect, Model, Point, Request, Response, Role, Timestamp, seconds};

/// Source: Neon API v2, `BranchCreateRequest`: name has 1 to 256 characters.
pub(super) const NAME_LENGTH: usize = 256;

/// Source: Neon guides, branch expiration, 2026-07-15: at most 30 days.
const LONGEST_EXPIRY: TimeDelta = TimeDelta::days(30);

/// A listing of branches.
#[derive(Serialize)]
struct Listing<'a> {
    branches: Vec<BranchBody<'a>>,
    annotations: BTreeMap<&'a str, Value>,
    pagination: Value,
}

pub(super) fn exists(name: &str) -> ApiError {
    ApiError::new(
        409,
        "BRANCH_ALREADY_EXISTS",
        format!("branch already exists; branch_name:\"{name}\""),
    )
}

impl Model {
    pub(super) fn find_branch(&self, id: &str) -> Result<&Branch, ApiError> {
        self.branch(id).ok_or_else(|| ApiError::new(404, "", "branch not found"))
    }

    /// Lists branches. A page that is not empty always has a `next`, the last one too.
    pub(super) fn list_branches(&self, request: &Request) -> Result<Response, ApiError> {
        let query = |name: &str| request.query.get(name).map(String::as_str);
        let sort_by = query("sort_by").unwrap_or("updated_at");
        if !matches!(sort_by, "name" | "created_at" | "updated_at") {
            return Err(ApiError::new(400, "", "invalid request: sort_by"));
        }
        let is_ascending =
            query("sort_order").is_some_and(|order| order.eq_ignore_ascii_case("asc"));
        let limit = match query("limit").map(str::parse::<usize>) {
            None => 10_000,
            Some(Ok(limit)) if (1..=10_000).contains(&limit) => limit,
            Some(_) => return Err(ApiError::new(400, "", "invalid request: limit")),
        };
        let search = query("search").unwrap_or_default();
        let mut found: Vec<&Branch> = self
            .branches
            .iter()
            .filter(|branch| branch.name.contains(search) || branch.id.contains(search))
            .collect();
        found.sort_by(|left, right| {
            let order = match sort_by {
                "name" => left.name.cmp(&right.name),
                "created_at" => left.created_at.cmp(&right.created_at),
                _ => left.updated_at.cmp(&right.updated_at),
            };
            let order = order.then_with(|| left.id.cmp(&right.id));
            if is_ascending { order } else { order.reverse() }
        });
        if let Some(cursor) = query("cursor") {
            let decoded = BASE64
                .decode(cursor)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
            let last =
                decoded.as_ref().and_then(|value| value["branch_id"].as_str()).map(str::to_owned);
            let last = last.ok_or_else(|| ApiError::new(400, "", "invalid request: cursor"))?;
            let index = found
                .iter()
                .position(|branch| branch.id == last)
                .map_or(found.len(), |index| index + 1);
            found.drain(..index);
        }
        found.truncate(limit);
        let annotations = found
            .iter()
            .filter(|branch| !branch.annotation.is_empty())
            .map(|branch| (branch.id.as_str(), Self::render_annotation(branch)))
            .collect();
        let order = if is_ascending { "ASC" } else { "DESC" };
        let mut pagination = json!({"sort_by": sort_by, "sort_order": order});
        if let Some(last) = found.last() {
            let cursor = json!({"branch_id": last.id, "sort_by": sort_by,
                "sort_by_value": last.name, "sort_order": order});
            pagination["next"] = json!(BASE64.encode(cursor.to_string()));
        }
        let branches = found.iter().map(|branch| self.render_branch(branch)).collect();
        Ok(Response::ok(Listing { branches, annotations, pagination }))
    }

    pub(super) fn show_branch(&self, id: &str) -> Result<Response, ApiError> {
        let branch = self.find_branch(id)?;
        let mut body = json!({"branch": self.render_branch(branch)});
        if !branch.annotation.is_empty() {
            body["annotation"] = Self::render_annotation(branch);
        }
        Ok(Response::ok(body))
    }

    /// Makes a branch, with the endpoints that are asked for.
    pub(super) fn create_branch(
        &mut self,
        body: &Value,
        now: Timestamp,
    ) -> Result<Response, ApiError> {
        let asked = &body["branch"];
        let parent = match asked["parent_id"].as_str() {
            Some(id) => self.find_branch(id)?.clone(),
            None => self
                .branches
                .iter()
                .find(|branch| branch.is_default)
                .cloned()
                .ok_or_else(|| ApiError::new(404, "", "branch not found"))?,
        };
        let point = point(&asked["parent_lsn"], &asked["parent_timestamp"])?;
        check_init_source(asked)?;
        let id = self.id("br");
        let name = asked["name"].as_str().unwrap_or(&id).to_owned();
        let point = self.check_new_branch(&parent, &name, point, now)?;
        let readers = self.asked_endpoints(&body["endpoints"])?;
        let mut branch = self.blank_branch(id.clone(), name, now);
        branch.parent = Some(parent.id.clone());
        branch.is_protected = asked["protected"].as_bool().unwrap_or(false);
        branch.expires_at = expiry(&asked["expires_at"], now)?;
        branch.roles = self.inherited_roles(&parent, point);
        branch.databases.clone_from(&parent.databases);
        branch.annotation = annotation(&body["annotation_value"]);
        self.branches.push(branch);
        let mut operations: Vec<String> = self.unarchive(&parent.id, now).into_iter().collect();
        let mut then = vec![Then::BranchReady(id.clone())];
        then.extend((asked["archived"] == json!(true)).then(|| Then::Archive(id.clone())));
        let has_endpoints = !readers.is_empty();
        let share =
            if has_endpoints { self.durations.create_ms * 2 / 3 } else { self.durations.create_ms };
        let operation = self.start_operation(
            Start {
                branch: id.clone(),
                endpoint: None,
                action: "create_branch",
                milliseconds: share,
                then,
                has_work: true,
            },
            now,
        );
        self.may_undo(&operation, Undo::Made(id.clone()));
        operations.push(operation.clone());
        let mut effects =
            vec![Effect::Branch { operation, branch: id.clone(), source: parent.data, point }];
        let mut endpoints = Vec::new();
        for asked in readers {
            let (endpoint, operation) =
                self.create_endpoint_on(&id, asked, self.durations.create_ms - share, now);
            effects
                .push(Effect::Start { operation: operation.clone(), endpoint: endpoint.clone() });
            operations.push(operation);
            endpoints.push(endpoint);
        }
        Ok(self.created(&id, &endpoints, &operations, effects, now))
    }

    /// Returns the roles of a branch that is made at a point of its parent.
    fn inherited_roles(&mut self, parent: &Branch, point: Point) -> Vec<Role> {
        let mut roles = parent.roles.clone();
        for role in &mut roles {
            if point != Point::Head {
                // The data is older than the last change of a password, and the control plane is
                // not.
                role.as_at_first();
            }
            role.at_first.clone_from(&role.in_data);
            if parent.is_protected {
                // Source: Neon guides, protected branches: branches made from a protected branch
                // get new passwords.
                role.password = Some(self.password());
            }
        }
        roles
    }

    /// Answers with a branch that was made.
    fn created(
        &self,
        id: &str,
        endpoints: &[String],
        operations: &[String],
        effects: Vec<Effect>,
        now: Timestamp,
    ) -> Response {
        let Some(branch) = self.branch(id) else { return Response::ok(json!({})) };
        let rendered: Vec<_> = endpoints
            .iter()
            .filter_map(|id| self.endpoint(id))
            .map(|endpoint| self.render_endpoint(endpoint))
            .collect();
        let mut body = json!({
            "branch": self.render_branch(branch), "endpoints": rendered,
            "operations": self.render_operations(operations, now),
            "roles": Self::render_roles(branch), "databases": Self::render_databases(branch),
        });
        // Source: OpenAPI: omitted when the parent has more than one role or database, or no
        // endpoint.
        if let ([endpoint, ..], [role], [database]) =
            (endpoints, branch.roles.as_slice(), branch.databases.as_slice())
        {
            let (host, password) = (self.host(endpoint), role.password.clone().unwrap_or_default());
            let pooler = host.replacen('.', "-pooler.", 1);
            body["connection_uris"] = json!([{
                "connection_uri": format!("postgresql://{}:{password}@{host}/{}?sslmode=require",
                    role.name, database.name),
                "connection_parameters": {"database": database.name, "password": password,
                    "role": role.name, "host": host, "pooler_host": pooler},
            }]);
        }
        Response::new(201, body, effects)
    }

    /// Refuses what cannot be made; returns the point as a position.
    fn check_new_branch(
        &self,
        parent: &Branch,
        name: &str,
        point: Point,
        now: Timestamp,
    ) -> Result<Point, ApiError> {
        self.check_idle(&[&parent.id])?;
        if self.branch_named(name).is_some() {
            return Err(exists(name));
        }
        if self.branches.len() >= self.limits.branches {
            return Err(ApiError::new(422, "BRANCHES_LIMIT_EXCEEDED", "branches limit exceeded"));
        }
        self.check_source(parent)?;
        if parent.expires_at.is_some() {
            return Err(ApiError::new(
                422,
                "",
                "cannot create a child branch from a branch with an expiration time",
            ));
        }
        if let Point::Lsn(lsn) = point
            && parent.parent_lsn == Some(lsn)
            && !self.switches.branch_at_restore_lsn
        {
            return Err(ApiError::new(
                400,
                "",
                "parent_lsn is not within the history of the parent branch",
            ));
        }
        self.locate(parent, point, "parent_", now)
    }

    pub(super) fn update_branch(
        &mut self,
        id: &str,
        body: &Value,
        now: Timestamp,
    ) -> Result<Response, ApiError> {
        self.find_branch(id)?;
        self.check_unchanging(&[id])?;
        let asked = &body["branch"];
        if let Some(name) = asked["name"].as_str()
            && self.branch_named(name).is_some_and(|other| other.id != id)
        {
            return Err(exists(name));
        }
        let expires_at = expiry(&asked["expires_at"], now)?;
        let has_children = self.branches.iter().any(|branch| branch.parent.as_deref() == Some(id));
        let protected =
            self.branches.iter().filter(|branch| branch.is_protected && branch.id != id).count();
        if asked["protected"] == json!(true) && protected >= self.limits.protected_branches {
            return Err(ApiError::new(
                422,
                "BRANCHES_PROTECTED_LIMIT_EXCEEDED",
                "protected branches limit exceeded",
            ));
        }
        let branch =
            self.branch_mut(id).ok_or_else(|| ApiError::new(404, "", "branch not found"))?;
        if expires_at.is_some() && (branch.is_protected || branch.is_default || has_children) {
            return Err(ApiError::new(
                422,
                "",
                "cannot set an expiration time on a protected, default or parent branch",
            ));
        }
        if let Some(name) = asked["name"].as_str() {
            name.clone_into(&mut branch.name);
        }
        if let Some(is_protected) = asked["protected"].as_bool() {
            branch.is_protected = is_protected;
        }
        if asked.get("expires_at").is_some() {
            branch.expires_at = expires_at;
        }
        branch.updated_at = now;
        let rendered = self.find_branch(id).map(|branch| self.render_branch(branch))?;
        Ok(Response::ok(json!({"branch": rendered, "operations": []})))
    }

    /// Deletes a branch; one that is gone is 204.
    pub(super) fn delete_branch(&mut self, id: &str, now: Timestamp) -> Result<Response, ApiError> {
        let Some(branch) = self.branch(id).cloned() else {
            return Ok(Response::gone());
        };
        if branch.is_protected {
            return Err(ApiError::new(422, "", "cannot delete a protected branch"));
        }
        // Source: Neon, manage branches: the *original* root cannot be deleted; one that was made
        // from a snapshot can.
        if branch.is_default || branch.is_for_ever {
            return Err(ApiError::new(422, "", "cannot delete the default or root branch"));
        }
        let child = self.branches.iter().find(|other| other.parent.as_deref() == Some(id));
        if let Some(child) = child {
            return Err(ApiError::new(
                422,
                "",
                format!("cannot delete branch that has children: {}", child.id),
            ));
        }
        self.check_idle(&[id])?;
        let computes: Vec<String> = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.branch == id)
            .map(|endpoint| endpoint.id.clone())
            .collect();
        let mut operations = Vec::new();
        let mut effects = Vec::new();
        for endpoint in computes {
            let operation = self.suspend_operation(&endpoint, id, Vec::new(), now);
            effects.push(Effect::Suspend { operation: operation.clone(), endpoint });
            operations.push(operation);
        }
        let operation = self.start_operation(
            Start {
                branch: id.to_owned(),
                endpoint: None,
                action: "delete_timeline",
                milliseconds: self.durations.other_ms,
                then: vec![Then::Forget(id.to_owned())],
                has_work: true,
            },
            now,
        );
        operations.push(operation.clone());
        effects.push(Effect::Delete { operation, branch: id.to_owned() });
        let body = json!({"branch": self.render_branch(&branch),
            "operations": self.render_operations(&operations, now)});
        Ok(Response::new(200, body, effects))
    }

    /// Refuses one more root than the plan has.
    pub(super) fn check_roots(&self) -> Result<(), ApiError> {
        if self.branches.iter().filter(|branch| branch.parent.is_none()).count()
            >= self.limits.root_branches
        {
            return Err(ApiError::new(
                422,
                "ROOT_BRANCHES_LIMIT_EXCEEDED",
                "root branches limit exceeded",
            ));
        }
        Ok(())
    }

    pub(super) fn set_default(&mut self, id: &str, now: Timestamp) -> Result<Response, ApiError> {
        self.find_branch(id)?;
        let default = self.branches.iter().filter(|branch| branch.is_default);
        let concerned: Vec<&str> = default.map(|branch| branch.id.as_str()).chain([id]).collect();
        self.check_unchanging(&concerned)?;
        for branch in &mut self.branches {
            branch.is_default = branch.id == id;
            branch.updated_at = now;
        }
        let rendered = self.find_branch(id).map(|branch| self.render_branch(branch))?;
        Ok(Response::ok(json!({"branch": rendered, "operations": []})))
    }
}

/// Reads what is noted beside a branch; nothing where nothing is given.
fn annotation(value: &Value) -> BTreeMap<String, String> {
    let given = value.as_object().into_iter().flatten();
    given.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Refuses a way to begin that nobody has emulated, rather than to make another branch than was
/// asked for.
fn check_init_source(asked: &Value) -> Result<(), ApiError> {
    match asked["init_source"].as_str() {
        None | Some("parent-data") => Ok(()),
        Some(other) => {
            Err(ApiError::new(400, "", format!("init_source {other:?} is not emulated")))
        }
    }
}

/// Reads which state of a branch is meant.
pub(super) fn point(lsn: &Value, time: &Value) -> Result<Point, ApiError> {
    match (lsn.as_str(), time.as_str()) {
        (None, None) => Ok(Point::Head),
        (Some(lsn), None) => lsn.parse().map(Point::Lsn),
        (None, Some(time)) => {
            let at = time
                .parse()
                .map_err(|_| ApiError::new(400, "", format!("invalid timestamp {time:?}")))?;
            Ok(Point::Time(at))
        }
        (Some(_), Some(_)) => {
            Err(ApiError::new(400, "", "only one of lsn and timestamp can be given"))
        }
    }
}

pub(super) fn expiry(value: &Value, now: Timestamp) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = value.as_str() else { return Ok(None) };
    let at: Timestamp =
        text.parse().map_err(|_| ApiError::new(400, "", format!("invalid timestamp {text:?}")))?;
    if at <= now || at > now + LONGEST_EXPIRY {
        return Err(ApiError::new(
            400,
            "",
            format!("expires_at must be in the future and within 30 days of {}", seconds(now)),
        ));
    }
    Ok(Some(at))
}
