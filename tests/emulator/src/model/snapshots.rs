//! Snapshots: take, list, change, delete, restore to a new branch, and the schedule that takes some
//! by itself.
//!
//! UNVERIFIED: every code and sentence of a refusal here, that deleting one that is gone answers
//! 404, and that a slug is given only when it is asked for.
//!
//! Source: Neon API v2, OpenAPI document of 2026-07-13, `createSnapshot`, …; Neon guides, backup
//! and restore, 2026.

use serde_json::{Value, json};

use super::branches::{NAME_LENGTH, exists, expiry, point};
use super::endpoints::Asked;
use super::operations::{Start, Then};
use super::{ApiError, Effect, Model, Request, Response, Snapshot, Timestamp, Unpacked};

/// Source: Neon API v2, `BackupScheduleItem`.
const FREQUENCIES: [&str; 5] = ["hourly", "daily", "weekly", "monthly", "yearly"];

impl Model {
    fn find_snapshot(&self, id: &str) -> Result<&Snapshot, ApiError> {
        self.snapshot(id).ok_or_else(|| ApiError::new(404, "", "snapshot not found"))
    }

    /// Takes a snapshot of a root branch. What is asked for stands in the query; a body is not
    /// looked at.
    pub(super) fn create_snapshot(
        &mut self,
        branch: &str,
        request: &Request,
        now: Timestamp,
    ) -> Result<Response, ApiError> {
        let source = self.find_branch(branch)?.clone();
        let asked =
            |key: &str| request.query.get(key).map_or(Value::Null, |text| text.clone().into());
        let point = point(&asked("lsn"), &asked("timestamp"))?;
        let expires_at = expiry(&asked("expires_at"), now)?;
        if source.parent.is_some() {
            return Err(ApiError::new(422, "", "snapshots can only be created from root branches"));
        }
        self.check_source(&source)?;
        if source.unpacked.is_some() && point != super::Point::Head {
            return Err(ApiError::new(
                422,
                "",
                "restore from snapshot on target branch is still ongoing",
            ));
        }
        let asked_lsn = if let super::Point::Lsn(lsn) = point { Some(lsn) } else { None };
        let point = self.locate(&source, point, "", now)?;
        let slug = request.query.get("slug").filter(|_| self.switches.snapshot_slugs).cloned();
        if let Some(slug) = &slug {
            self.check_slug(slug)?;
        }
        self.check_idle(&[&source.id])?;
        if self.snapshots.iter().filter(|snapshot| snapshot.is_manual).count()
            >= self.limits.snapshots
        {
            return Err(ApiError::new(422, "SNAPSHOTS_LIMIT_EXCEEDED", "snapshots limit exceeded"));
        }
        let id = self.id("snap");
        let name = match request.query.get("name") {
            Some(name) if (1..=NAME_LENGTH).contains(&name.chars().count()) => name.clone(),
            Some(_) => return Err(ApiError::new(400, "", "invalid request: name")),
            None => id.clone(),
        };
        let start = Start {
            branch: source.id.clone(),
            endpoint: None,
            action: "create_timeline",
            milliseconds: self.durations.create_ms,
            then: Vec::new(),
            has_work: true,
        };
        self.unarchive(&source.id, now);
        let operation = self.start_operation(start, now);
        let lsn = asked_lsn;
        let snapshot = Snapshot {
            id: id.clone(),
            name,
            slug,
            source: source.id,
            lsn,
            created_at: now,
            expires_at,
            is_manual: true,
            operation: operation.clone(),
            roles: source.roles,
            databases: source.databases,
            data: format!("data-{}", self.number()),
            full_size: None,
        };
        let body = json!({"snapshot": self.render_snapshot(&snapshot),
            "operations": self.render_operations(std::slice::from_ref(&operation), now)});
        self.snapshots.push(snapshot);
        Ok(Response::new(
            200,
            body,
            vec![Effect::Snapshot { operation, snapshot: id, source: source.data, point }],
        ))
    }

    /// Refuses a slug that is malformed or taken.
    fn check_slug(&self, slug: &str) -> Result<(), ApiError> {
        let is_inside = slug
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !is_inside
            || slug.len() > 63
            || !slug.starts_with(|first: char| first.is_ascii_lowercase())
            || slug.ends_with('-')
        {
            return Err(ApiError::new(400, "", "invalid request: slug"));
        }
        if self.snapshots.iter().any(|snapshot| snapshot.slug.as_deref() == Some(slug)) {
            return Err(ApiError::new(
                409,
                "SNAPSHOT_ALREADY_EXISTS",
                format!("snapshot already exists; slug:\"{slug}\""),
            ));
        }
        Ok(())
    }

    pub(super) fn list_snapshots(&self) -> Response {
        let snapshots: Vec<_> =
            self.snapshots.iter().map(|snapshot| self.render_snapshot(snapshot)).collect();
        Response::ok(json!({"snapshots": snapshots}))
    }

    pub(super) fn update_snapshot(
        &mut self,
        id: &str,
        body: &Value,
        now: Timestamp,
    ) -> Result<Response, ApiError> {
        self.find_snapshot(id)?;
        let asked = &body["snapshot"];
        let expires_at = expiry(&asked["expires_at"], now)?;
        if let Some(snapshot) = self.snapshots.iter_mut().find(|snapshot| snapshot.id == id) {
            if let Some(name) = asked["name"].as_str() {
                name.clone_into(&mut snapshot.name);
            }
            if asked.get("expires_at").is_some() {
                snapshot.expires_at = expires_at;
            }
        }
        Ok(Response::ok(json!({"snapshot": self.render_snapshot(self.find_snapshot(id)?)})))
    }

    /// Deletes a snapshot for good.
    pub(super) fn delete_snapshot(
        &mut self,
        id: &str,
        now: Timestamp,
    ) -> Result<Response, ApiError> {
        let (source, data) = self
            .find_snapshot(id)
            .map(|snapshot| (snapshot.source.clone(), snapshot.data.clone()))?;
        self.check_idle(&[&source])?;
        let start = Start {
            branch: source,
            endpoint: None,
            action: "delete_timeline",
            milliseconds: self.durations.other_ms,
            then: vec![Then::ForgetSnapshot(id.to_owned())],
            has_work: true,
        };
        let operation = self.start_operation(start, now);
        let body =
            json!({"operations": self.render_operations(std::slice::from_ref(&operation), now)});
        Ok(Response::new(202, body, vec![Effect::Discard { operation, data }]))
    }

    /// Makes a root branch of a snapshot, to be looked at; it takes the place of its target at once
    /// where that is asked for.
    pub(super) fn restore_snapshot(
        &mut self,
        id: &str,
        request: &Request,
        now: Timestamp,
    ) -> Result<Response, ApiError> {
        let snapshot = self.find_snapshot(id)?.clone();
        let body = &request.body;
        let target = self
            .find_branch(body["target_branch_id"].as_str().unwrap_or(&snapshot.source))?
            .id
            .clone();
        self.check_idle(&[&target])?;
        self.check_unpacking(&snapshot)?;
        let id = self.id("br");
        // The parameter was to go in 2025.
        let name = body["name"]
            .as_str()
            .or(request.query.get("name").map(String::as_str))
            .unwrap_or(&id)
            .to_owned();
        if self.branch_named(&name).is_some() {
            return Err(exists(&name));
        }
        let mut branch = self.blank_branch(id.clone(), name, now);
        branch.roles.clone_from(&snapshot.roles);
        branch.roles.iter_mut().for_each(|role| role.at_first.clone_from(&role.in_data));
        branch.databases.clone_from(&snapshot.databases);
        branch.parent_lsn = snapshot.lsn;
        branch.unpacked = Some(Unpacked { snapshot: snapshot.id, target, finalized_at: None });
        self.branches.push(branch);
        let unarchive = Start {
            branch: id.clone(),
            endpoint: None,
            action: "timeline_unarchive",
            milliseconds: 0,
            then: Vec::new(),
            has_work: false,
        };
        let mut operations = vec![self.start_operation(unarchive, now)];
        let start = Start {
            branch: id.clone(),
            endpoint: None,
            action: "create_branch",
            milliseconds: self.durations.create_ms,
            then: vec![Then::BranchReady(id.clone())],
            has_work: true,
        };
        let operation = self.start_operation(start, now);
        operations.push(operation.clone());
        let mut effects =
            vec![Effect::Unpack { operation, branch: id.clone(), source: snapshot.data }];
        let is_at_once = body["finalize_restore"] == json!(true);
        let own = (!is_at_once && self.switches.snapshots_have_endpoints)
            .then(|| self.create_endpoint_on(&id, Asked::writer(), self.durations.other_ms, now));
        if let Some((endpoint, operation)) = own.clone() {
            operations.push(operation.clone());
            effects.push(Effect::Start { operation, endpoint });
        }
        if is_at_once {
            let (more, moved) = self.begin_to_take_place(&id, &Value::Null, now);
            operations.extend(more);
            effects.extend(moved);
        }
        let rendered = self.find_branch(&id).map(|branch| self.render_branch(branch))?;
        let endpoint = own
            .and_then(|(endpoint, _)| self.endpoint(&endpoint))
            .map(|endpoint| self.render_endpoint(endpoint));
        let endpoints: Vec<_> = endpoint.into_iter().collect();
        let body = json!({"branch": rendered, "endpoints": endpoints,
            "operations": self.render_operations(&operations, now)});
        Ok(Response::new(200, body, effects))
    }

    /// Refuses a snapshot that is not taken yet, and one more branch than the plan has.
    fn check_unpacking(&self, snapshot: &Snapshot) -> Result<(), ApiError> {
        if self
            .operation(&snapshot.operation)
            .is_none_or(|operation| operation.status != "finished")
        {
            return Err(ApiError::new(422, "", "snapshot not ready yet"));
        }
        if self.branches.len() >= self.limits.branches {
            return Err(ApiError::new(422, "BRANCHES_LIMIT_EXCEEDED", "branches limit exceeded"));
        }
        self.check_roots()
    }

    /// Lets a branch that was made from a snapshot take the place of its target.
    pub(super) fn finalize_restore(
        &mut self,
        id: &str,
        body: &Value,
        now: Timestamp,
    ) -> Result<Response, ApiError> {
        let branch = self.find_branch(id)?;
        if branch.unpacked.as_ref().is_none_or(|from| from.finalized_at.is_some()) {
            return Err(ApiError::new(422, "", "branch has no restore to finalize"));
        }
        if branch.state != "ready" {
            return Err(ApiError::new(422, "", "branch not ready yet"));
        }
        let target = branch.unpacked.as_ref().map(|from| from.target.clone()).unwrap_or_default();
        self.check_idle(&[id, &target])?;
        self.check_place(id, &body["name"])?;
        let (operations, effects) = self.begin_to_take_place(id, &body["name"], now);
        Ok(Response::new(
            200,
            json!({"operations": self.render_operations(&operations, now)}),
            effects,
        ))
    }

    /// Refuses a target that is gone, and a name that is taken.
    fn check_place(&self, id: &str, old_name: &Value) -> Result<(), ApiError> {
        let target = self
            .branch(id)
            .and_then(|branch| branch.unpacked.as_ref())
            .map(|from| from.target.clone())
            .unwrap_or_default();
        let old = self.find_branch(&target)?;
        let old_name =
            old_name.as_str().map_or_else(|| format!("{} (old)", old.name), str::to_owned);
        if self.branch_named(&old_name).is_some() {
            return Err(exists(&old_name));
        }
        Ok(())
    }

    /// Starts what moves the computes of the target: each is stopped and moved, and starts with the
    /// next query.
    fn begin_to_take_place(
        &mut self,
        id: &str,
        old_name: &Value,
        now: Timestamp,
    ) -> (Vec<String>, Vec<Effect>) {
        let target = self
            .branch(id)
            .and_then(|branch| branch.unpacked.as_ref())
            .map(|from| from.target.clone())
            .unwrap_or_default();
        let name = self.branch(&target).map(|branch| branch.name.clone()).unwrap_or_default();
        let old_name = old_name.as_str().map_or_else(|| format!("{name} (old)"), str::to_owned);
        let computes: Vec<String> = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.branch == target)
            .map(|endpoint| endpoint.id.clone())
            .collect();
        let (mut operations, mut effects) = (Vec::new(), Vec::new());
        let is_own = |endpoint: &&super::Endpoint| {
            endpoint.branch == id && !self.switches.preview_keeps_endpoint
        };
        let own: Vec<String> =
            self.endpoints.iter().filter(is_own).map(|endpoint| endpoint.id.clone()).collect();
        for endpoint in own {
            let operation = self.suspend_operation(
                &endpoint,
                id,
                vec![Then::ForgetEndpoint(endpoint.clone())],
                now,
            );
            effects.push(Effect::Suspend { operation: operation.clone(), endpoint });
            operations.push(operation);
        }
        for endpoint in &computes {
            let operation = self.suspend_operation(endpoint, &target, Vec::new(), now);
            effects
                .push(Effect::Suspend { operation: operation.clone(), endpoint: endpoint.clone() });
            operations.push(operation);
        }
        let start = Start {
            branch: id.to_owned(),
            endpoint: None,
            action: "swap_binding_id",
            milliseconds: self.durations.other_ms,
            then: vec![Then::TakePlace(id.to_owned(), old_name)],
            has_work: false,
        };
        operations.push(self.start_operation(start, now));
        (operations, effects)
    }

    /// A branch that was made from a snapshot takes the place of its target: its name, its
    /// computes, its protection.
    pub(super) fn take_place(&mut self, id: &str, old_name: &str, now: Timestamp) {
        let Some(target) = self
            .branch(id)
            .and_then(|branch| branch.unpacked.as_ref())
            .map(|from| from.target.clone())
        else {
            return;
        };
        let Some(old) = self.branch_mut(&target) else { return };
        let (name, is_default, is_protected) = (
            std::mem::replace(&mut old.name, old_name.to_owned()),
            old.is_default,
            old.is_protected,
        );
        (old.is_default, old.is_protected, old.updated_at) = (false, false, now);
        if let Some(branch) = self.branch_mut(id) {
            (branch.name, branch.is_default, branch.is_protected, branch.updated_at) =
                (name, is_default, is_protected, now);
            branch.unpacked.iter_mut().for_each(|from| from.finalized_at = Some(now));
        }
        self.endpoints
            .iter_mut()
            .filter(|endpoint| endpoint.branch == target)
            .for_each(|endpoint| id.clone_into(&mut endpoint.branch));
    }

    pub(super) fn show_schedule(&self, branch: &str) -> Result<Response, ApiError> {
        self.find_branch(branch)?;
        Ok(Response::ok(
            json!({"schedule": self.schedules.get(branch).cloned().unwrap_or_else(|| json!([]))}),
        ))
    }

    pub(super) fn set_schedule(
        &mut self,
        branch: &str,
        body: &Value,
    ) -> Result<Response, ApiError> {
        if self.find_branch(branch)?.parent.is_some() {
            return Err(ApiError::new(422, "", "backup schedules are only for root branches"));
        }
        self.check_unchanging(&[branch])?;
        let items = body["schedule"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_known = |item: &Value| {
            item["frequency"].as_str().is_some_and(|frequency| FREQUENCIES.contains(&frequency))
        };
        if !items.iter().all(is_known) {
            return Err(ApiError::new(400, "", "invalid request: schedule"));
        }
        if !items.is_empty() && self.limits.subscription.starts_with("free") {
            return Err(ApiError::new(422, "", "backup schedules are not available on this plan"));
        }
        if items.is_empty() {
            self.schedules.remove(branch);
        } else {
            self.schedules.insert(branch.to_owned(), body["schedule"].clone());
        }
        Ok(Response::ok(json!({})))
    }
}
