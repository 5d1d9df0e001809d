//! Branches that nobody uses are archived, and wake when somebody asks for them.
//!
//! Invariants: a protected branch is never archived, nor one with a child that is not. An archived
//! branch keeps its data, its endpoints and its place in every listing.
//!
//! Source: Neon, branch archiving, read 2026-11-30: on the Free plan a branch is archived that is
//! older than 14 days and was not used for 24 hours. It wakes with the next query, restore or
//! child, and is slower then. UNVERIFIED: whether a branch of an archived parent is refused
//! (neondatabase/neon, `AncestorArchived`) or wakes it, and what is answered.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::operations::{Start, Then};
use super::{ApiError, Branch, Model, Timestamp};

/// When Neon archives a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archiving {
    /// How old it is at least, seconds.
    pub after_age_s: i64,
    /// For how long nobody has used it, seconds.
    pub after_idle_s: i64,
}

impl Archiving {
    /// What the Free plan does.
    const FREE: Self = Self { after_age_s: 14 * 86_400, after_idle_s: 86_400 };
}

impl Model {
    /// Archives what nobody uses.
    pub(super) fn archive_idle(&mut self, now: Timestamp) {
        let free = self.limits.subscription.starts_with("free").then_some(Archiving::FREE);
        let Some(rule) = self.switches.archives.or(free) else { return };
        let is_due = |model: &Self, branch: &Branch| {
            let used = model
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.branch == branch.id)
                .filter_map(|endpoint| endpoint.last_active);
            let used = used.chain([branch.created_at, branch.state_changed_at]).max();
            let is_idle = used.is_none_or(|at| now - at >= TimeDelta::seconds(rule.after_idle_s));
            is_idle && now - branch.created_at >= TimeDelta::seconds(rule.after_age_s)
        };
        // Children come after their parents in the list, so one pass from its end archives both.
        for index in (0..self.branches.len()).rev() {
            let branch = &self.branches[index];
            let has_child = self.branches.iter().any(|other| {
                other.parent.as_ref() == Some(&branch.id) && other.state != "archived"
            });
            if branch.state == "ready" && !branch.is_protected && !has_child && is_due(self, branch)
            {
                let branch = &mut self.branches[index];
                (branch.state, branch.state_changed_at, branch.updated_at) = ("archived", now, now);
            }
        }
    }

    /// Refuses a source that is not ready, or that is archived where Neon does not wake it.
    pub(super) fn check_source(&self, source: &Branch) -> Result<(), ApiError> {
        match (source.state, &self.switches.archived_source) {
            ("archived", Some(refusal)) => Err(refusal.error()),
            ("ready" | "archived", _) => Ok(()),
            _ => Err(ApiError::new(422, "", "branch not ready yet")),
        }
    }

    /// Wakes a branch that is archived. Returns the operation that does it; `None` where there is
    /// nothing to do, or it is done already.
    pub fn unarchive(&mut self, id: &str, now: Timestamp) -> Option<String> {
        let is_waking = |model: &Self| {
            let mut waking = model
                .operations
                .iter()
                .filter(|operation| operation.action == "timeline_unarchive");
            waking.any(|operation| operation.branch == id && operation.is_under_way())
        };
        if self.branch(id)?.state != "archived" || is_waking(self) {
            return None;
        }
        let start = Start {
            branch: id.to_owned(),
            endpoint: None,
            action: "timeline_unarchive",
            milliseconds: self.durations.create_ms,
            then: vec![Then::BranchReady(id.to_owned())],
            has_work: false,
        };
        Some(self.start_operation(start, now))
    }
}
