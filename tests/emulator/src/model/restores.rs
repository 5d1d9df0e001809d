//! Restores: a branch is overwritten from a source, what it held lives on under another name, and a
//! restore whose operation fails is undone.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::branches::{exists, point};
use super::objects::Undo;
use super::operations::{Start, Then};
use super::{ApiError, Branch, Effect, Model, Point, Response, Role, Timestamp};

/// How long a child cannot be reset after its parent was restored from a snapshot.
///
/// Source: Neon guides, reset from parent, 2026-09-24: "up to 24 hours".
const UNSETTLED: TimeDelta = TimeDelta::hours(24);

impl Model {
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
}

/// Returns the roles that a restored branch has, with the passwords that the switch says.
fn restored_roles(target: &Branch, source: &Branch, point: Point, from_source: bool) -> Vec<Role> {
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
