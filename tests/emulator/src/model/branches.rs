//! Branches: create, list, change, delete, restore.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::TimeDelta;
use serde::Serialize;
use serde_json::{Value, json};

use super::objects::Undo;
use super::operations::{Start, Then};
use super::render::BranchBody;
use super::{ApiError, Branch, Effect, Model, Point, Request, Response, Timestamp, seconds};

/// Source: Neon API v2, `BranchCreateRequest`: name has 1 to 256 characters.
pub(super) const NAME_LENGTH: usize = 256;

/// Source: Neon guides, branch expiration, 2026-07-15: at most 30 days.
const LONGEST_EXPIRY: TimeDelta = TimeDelta::days(30);

/// How long a child cannot be reset after its parent was restored from a snapshot.
///
/// Source: Neon guides, reset from parent, 2026-09-24: "up to 24 hours".
const UNSETTLED: TimeDelta = TimeDelta::hours(24);

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
        branch.roles.clone_from(&parent.roles);
        for role in &mut branch.roles {
            if point != Point::Head {
                // The data is older than the last change of a password, and the control plane is
                // not.
                role.as_at_first();
            }
            role.at_first.clone_from(&role.in_data);
        }
        branch.databases.clone_from(&parent.databases);
        if let Some(map) = body["annotation_value"].as_object() {
            branch.annotation = map
                .iter()
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect();
        }
        if parent.is_protected {
            // Source: Neon guides, protected branches: branches made from a protected branch get
            // new passwords.
            for role in &mut branch.roles {
                role.password = Some(self.password());
            }
        }
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
                    "role": role.name, "host": host,
                                          "pooler_host": pooler},
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

    /// Overwrites a branch. It becomes a child of its source; the old state lives on under another
    /// name, if one is given.
    pub(super) fn restore_branch(
        &mut self,
        id: &str,
        body: &Value,
        now: Timestamp,
    ) -> Result<Response, ApiError> {
        let target = self.find_branch(id)?.clone();
        let source =
            self.find_branch(body["source_branch_id"].as_str().unwrap_or_default())?.clone();
        let point = point(&body["source_lsn"], &body["source_timestamp"])?;
        let name = body["preserve_under_name"].as_str().filter(|name| !name.is_empty());
        let point = self.check_restore(&target, &source, point, name, now)?;
        let woken = self.unarchive(&source.id, now);
        let preserved = name.map(|name| self.preserve(&target, name, now));
        let is_self = source.id == target.id;
        let new_parent = self.parent_after(&target, &source, preserved.as_deref());
        let at_once = self.switches.parent_changes_at_once;
        let (from_source, survive) =
            (self.switches.passwords_from_source, self.switches.annotations_survive);
        let data = format!("data-{}", self.number());
        let old_data = target.data.clone();
        if let Some(branch) = self.branch_mut(id) {
            branch.state = "resetting";
            branch.pending_state = Some("ready");
            branch.state_changed_at = now;
            branch.updated_at = now;
            branch.last_reset_at = Some(now);
            branch.databases.clone_from(&source.databases);
            branch.roles = restored_roles(&target, &source, point, from_source);
            branch.remember_before(&target.roles, now);
            branch.data = data;
            if !survive {
                branch.annotation.clear();
            }
            if at_once {
                branch.parent.clone_from(&new_parent);
            }
        }
        let mut then = vec![Then::BranchReady(id.to_owned())];
        if !at_once && let Some(parent) = new_parent {
            then.insert(0, Then::Reparent(id.to_owned(), parent));
        }
        then.extend(preserved.iter().map(|id| Then::BranchReady(id.clone())));
        let source_data = if is_self { old_data } else { source.data };
        let kept = preserved.clone();
        let (operations, effects) =
            self.restore_operations(&target, preserved, then, now, |operation, preserved| {
                Effect::Restore {
                    operation,
                    branch: target.id.clone(),
                    source: source_data,
                    preserved,
                    point,
                }
            });
        let created = operations
            .iter()
            .find(|id| self.operation(id).is_some_and(|found| found.action == "create_branch"))
            .cloned();
        self.may_undo(&created.unwrap_or_default(), Undo::Restored(Box::new(target.clone()), kept));
        let rendered = self.find_branch(id).map(|branch| self.render_branch(branch))?;
        let operations: Vec<String> = woken.into_iter().chain(operations).collect();
        Ok(Response::new(
            200,
            json!({"branch": rendered, "operations": self.render_operations(&operations, now)}),
            effects,
        ))
    }

    /// Starts the operations of a restore: running computes are suspended, the branch is made anew,
    /// and what it was goes. No compute is started: the next query does that.
    ///
    /// Source: recorded, restore §1.2: `suspend_compute` (running, with its endpoint),
    /// `create_branch`, `delete_timeline` (scheduling).
    fn restore_operations(
        &mut self,
        target: &Branch,
        preserved: Option<String>,
        then: Vec<Then>,
        now: Timestamp,
        effect: impl FnOnce(String, Option<String>) -> Effect,
    ) -> (Vec<String>, Vec<Effect>) {
        let (mut operations, mut effects) = (Vec::new(), Vec::new());
        let awake: Vec<String> = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.branch == target.id && endpoint.state == "active")
            .map(|endpoint| endpoint.id.clone())
            .collect();
        for endpoint in awake {
            if self.switches.old_compute_serves_until_suspended {
                self.endpoint_mut(&endpoint)
                    .into_iter()
                    .for_each(|found| found.serves.clone_from(&preserved));
            }
            let operation = self.suspend_operation(&endpoint, &target.id, Vec::new(), now);
            effects.push(Effect::Suspend { operation: operation.clone(), endpoint });
            operations.push(operation);
        }
        let (all, other) = (self.durations.restore_ms, self.durations.other_ms);
        let deletes = preserved.is_none() || self.switches.restore_deletes_timeline;
        let count = i64::from(!operations.is_empty()) + i64::from(deletes);
        let start =
            |action: &'static str, milliseconds: i64, then: Vec<Then>, has_work: bool| Start {
                branch: target.id.clone(),
                endpoint: None,
                action,
                milliseconds,
                then,
                has_work,
            };
        // All of them take as long as a restore was measured to take.
        let operation = self
            .start_operation(start("create_branch", (all - other * count).max(0), then, true), now);
        effects.push(effect(operation.clone(), preserved));
        operations.push(operation);
        if deletes {
            operations.push(
                self.start_operation(start("delete_timeline", other, Vec::new(), false), now),
            );
        }
        (operations, effects)
    }

    /// Makes a branch what it was before an operation that has failed.
    pub(super) fn undo(&mut self, undo: Undo, now: Timestamp) {
        match undo {
            Undo::Made(id) => {
                self.forget_branch(&id);
                self.unmade.insert(id);
            }
            Undo::Restored(before, preserved) => {
                let id = before.id.clone();
                if let Some(branch) = self.branch_mut(&id) {
                    let Branch { name, is_protected, is_default, annotation, expires_at, .. } =
                        branch.clone();
                    *branch = Branch {
                        name,
                        is_protected,
                        is_default,
                        annotation,
                        expires_at,
                        updated_at: now,
                        ..*before
                    };
                }
                for child in self
                    .branches
                    .iter_mut()
                    .filter(|child| child.parent.is_some() && child.parent == preserved)
                {
                    child.parent = Some(id.clone());
                }
                self.endpoints
                    .iter_mut()
                    .filter(|endpoint| endpoint.branch == id)
                    .for_each(|endpoint| endpoint.serves = None);
                if let Some(preserved) = preserved {
                    self.forget_branch(&preserved);
                }
            }
        }
    }

    /// Returns the parent that a restored branch gets.
    ///
    /// A root stays one, and so is what it displaces. Restored from another branch, it stands on
    /// its old state for ever, because the other branch does; so it does on a root that it is
    /// restored from.
    ///
    /// Source: Neon, branch restore, 2026-09-24: "restoring a root branch from another branch"
    /// makes the old root one that cannot be deleted.
    fn parent_after(
        &mut self,
        target: &Branch,
        source: &Branch,
        preserved: Option<&str>,
    ) -> Option<String> {
        let is_self = source.id == target.id;
        if target.parent.is_some() {
            return if is_self { preserved.map(str::to_owned) } else { Some(source.id.clone()) };
        }
        for id in preserved
            .into_iter()
            .chain(source.parent.is_none().then_some(source.id.as_str()))
            .filter(|_| !is_self)
        {
            self.branch_mut(id).into_iter().for_each(|branch| branch.is_for_ever = true);
        }
        None
    }

    /// Refuses what cannot be restored; returns the point as a position.
    fn check_restore(
        &self,
        target: &Branch,
        source: &Branch,
        point: Point,
        name: Option<&str>,
        now: Timestamp,
    ) -> Result<Point, ApiError> {
        if target.is_protected {
            return Err(self.switches.protected_target.error());
        }
        self.check_idle(&[&target.id, &source.id])?;
        self.check_source(source)?;
        if !matches!(target.state, "ready" | "archived") {
            return Err(ApiError::new(422, "", "branch not ready yet"));
        }
        if source.expires_at.is_some() && self.switches.refuse_expiring_source {
            return Err(ApiError::new(
                422,
                "",
                "cannot create a child branch from a branch with an expiration time",
            ));
        }
        let is_unpacked = |branch: &Branch| branch.unpacked.is_some();
        let since = now - UNSETTLED;
        let is_unsettled = source
            .unpacked
            .as_ref()
            .is_some_and(|from| from.finalized_at.is_some_and(|at| at > since));
        if point != Point::Head && (is_unpacked(target) || is_unpacked(source))
            || is_unsettled && target.parent.as_ref() == Some(&source.id)
        {
            return Err(ApiError::new(
                422,
                "",
                "restore from snapshot on target branch is still ongoing",
            ));
        }
        if target.parent.is_some() && point != Point::Head && !self.switches.child_point_in_time {
            return Err(ApiError::new(422, "", "source branch must be a root branch"));
        }
        if source.id == target.id && (point == Point::Head || name.is_none()) {
            let text = "restoring a branch to itself requires source_lsn or source_timestamp, and \
                preserve_under_name";
            return Err(ApiError::new(400, "", text));
        }
        let has_children =
            self.branches.iter().any(|branch| branch.parent.as_ref() == Some(&target.id));
        let point = self.locate(source, point, "source_", now)?;
        let Some(name) = name else {
            if has_children {
                return Err(ApiError::new(
                    422,
                    "",
                    "Branch has children, preserve_under_name is required",
                ));
            }
            return Ok(point);
        };
        if self.branch_named(name).is_some() {
            return Err(exists(name));
        }
        if self.branches.len() >= self.limits.branches {
            return Err(ApiError::new(422, "BRANCHES_LIMIT_EXCEEDED", "branches limit exceeded"));
        }
        if target.parent.is_none() {
            self.check_roots()?;
        }
        Ok(point)
    }

    /// Makes the branch that keeps the old state: it takes over the data, the parent and the
    /// children.
    fn preserve(&mut self, target: &Branch, name: &str, now: Timestamp) -> String {
        let id = self.id("br");
        let mut preserved = self.blank_branch(id.clone(), name.to_owned(), now);
        preserved.parent.clone_from(&target.parent);
        preserved.parent_lsn = target.parent_lsn;
        preserved.parent_timestamp = target.parent_timestamp;
        preserved.roles.clone_from(&target.roles);
        preserved.databases.clone_from(&target.databases);
        preserved.data.clone_from(&target.data);
        for child in
            self.branches.iter_mut().filter(|branch| branch.parent.as_ref() == Some(&target.id))
        {
            child.parent = Some(id.clone());
        }
        self.branches.push(preserved);
        id
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

/// Returns the roles that a restored branch has, with the passwords that the switch says.
fn restored_roles(
    target: &Branch,
    source: &Branch,
    point: Point,
    from_source: bool,
) -> Vec<super::Role> {
    let mut roles = source.roles.clone();
    for role in &mut roles {
        if point != Point::Head {
            role.as_at_first();
        }
        role.at_first.clone_from(&role.in_data);
        let own = target.roles.iter().find(|own| own.name == role.name).filter(|_| !from_source);
        if let Some(own) = own {
            role.password.clone_from(&own.password);
        }
    }
    roles
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
