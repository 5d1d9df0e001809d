//! Neon's objects as they travel, reduced to the fields that decide something.
//!
//! Invariants: unknown fields and unknown words are accepted, because Neon adds some without
//! notice; a field that we need and that is missing is an error, never a default.
//!
//! Invariants of the two clocks; whoever compares instants keeps them:
//!
//! - Every instant in a reply is Neon's: by Neon's clock, in whole seconds. `now` is the Worker's,
//!   in milliseconds. The two may be seconds or minutes apart, either way.
//! - What came first is decided by two instants of Neon's, which lie on one clock, and never by one
//!   of each.
//! - Where an age has to be told by one of each and decides what may be lost, [`CLOCKS_APART`] is
//!   given to the side that keeps.
//!
//! Source: Neon API v2, OpenAPI document of 2026-07-13.

mod operation;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::operation::{Operation, OperationPage, OperationStatus, Pagination, Progress};
use crate::id::{
    BranchId, BranchName, DatabaseName, EndpointId, Lsn, ProjectId, RoleName, SnapshotId,
};
use crate::time::{Timestamp, millis};

/// How far Neon's clock and ours may be apart, either way.
///
/// Nobody promises it. Servers that keep time at all are within a second. One that has lost its
/// source drifts by a second or two a day, and ten minutes are a year of that.
pub const CLOCKS_APART: Duration = Duration::from_mins(10);

/// A project.
///
/// # Source
///
/// Neon API v2, getProject, read 2026-11-21: `owner.branches_limit` is "the only branch-limit
/// number in a published response".
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// The major version of Postgres.
    pub pg_version: u32,
    /// Whether Neon can tell a role's password.
    pub store_passwords: bool,
    /// The owner, with the plan's limits; missing in some replies.
    #[serde(default)]
    pub owner: Option<Owner>,
    /// Its settings; missing in some replies.
    #[serde(default)]
    pub settings: Option<ProjectSettings>,
    /// How far back it can be read, in seconds; missing in some replies.
    #[serde(default)]
    pub history_retention_seconds: Option<u32>,
    /// Bytes that a branch may hold; missing or 0 for no limit.
    #[serde(default)]
    pub branch_logical_size_limit_bytes: Option<u64>,
}

/// The settings of a project that say who may connect.
///
/// # Source
///
/// Neon API v2, `ProjectSettingsData`, read 2026-11-21.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProjectSettings {
    /// The addresses that may connect.
    pub allowed_ips: Option<AllowedIps>,
    /// Whether connections from the Internet are refused, whatever the list says.
    pub block_public_connections: bool,
}

/// The addresses that may connect; an empty list lets everybody in.
///
/// # Source
///
/// Neon API v2, `AllowedIps`, read 2026-11-21.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AllowedIps {
    /// Addresses and ranges.
    pub ips: Vec<String>,
    /// Whether the list holds for protected branches alone.
    pub protected_branches_only: bool,
}

/// Somebody who has been given access to a project.
///
/// # Source
///
/// Neon API v2, `ProjectPermission`, read 2026-11-21.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Permission {
    /// Who.
    pub granted_to_email: String,
    /// When it was taken back; missing while it holds.
    #[serde(default)]
    pub revoked_at: Option<String>,
}

/// The owner of a project.
///
/// # Source
///
/// Neon API v2, getProject, read 2026-11-21: "`branches_limit`*: integer".
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Owner {
    /// How many branches a project may have.
    pub branches_limit: i64,
    /// The plan, such as `launch_v3`.
    #[serde(default)]
    pub subscription_type: String,
}

impl Owner {
    /// Returns how many branches the plan includes; more are billed. `None` where that is not
    /// known.
    ///
    /// # Source
    ///
    /// Neon plans, 2026-03-20: 10 on Free and Launch, 25 on Scale.
    pub fn included_branches(&self) -> Option<usize> {
        self.plan([("free", 10), ("launch", 10), ("scale", 25)])
    }

    /// Returns how many root branches a project of this plan may have; `None` where that is not
    /// known.
    ///
    /// # Source
    ///
    /// Neon plans, 2026-03-20: 3 on Free, 5 on Launch, 25 on Scale. No reply of Neon's has the
    /// number.
    pub fn root_limit(&self) -> Option<usize> {
        self.plan([("free", 3), ("launch", 5), ("scale", 25)])
    }

    fn plan(&self, numbers: [(&str, usize); 3]) -> Option<usize> {
        let plan = self.subscription_type.split('_').next().unwrap_or_default();
        numbers.into_iter().find(|(name, _)| *name == plan).map(|(_, number)| number)
    }

    /// Returns how many snapshots that people asked for a project of this plan may have; `None`
    /// where that is not known.
    ///
    /// # Source
    ///
    /// Neon plans, 2026-03-20: 1 on Free, 100 on Launch and Scale. No reply of Neon's has the
    /// number.
    pub fn snapshot_limit(&self) -> Option<usize> {
        self.plan([("free", 1), ("launch", 100), ("scale", 100)])
    }

    /// Returns how many branches a project may have; `None` where there is no limit.
    pub fn limit(&self) -> Option<usize> {
        usize::try_from(self.branches_limit).ok().filter(|limit| *limit > 0)
    }
}

/// A branch.
///
/// # Source
///
/// Neon API v2, listProjectBranches, read 2026-11-21: "After a restore, `parent_lsn` /
/// `parent_timestamp` are not final until the operations finish."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Its id; a restore keeps it.
    pub id: BranchId,
    /// Its name; unique in the project.
    pub name: BranchName,
    /// The branch it was made from; missing on a root.
    #[serde(default)]
    pub parent_id: Option<BranchId>,
    /// The position in the parent at which it begins.
    #[serde(default)]
    pub parent_lsn: Option<Lsn>,
    /// `init`, `resetting`, `ready`, `archived`, or a word that Neon has added.
    pub current_state: String,
    /// Whether it is the project's default branch.
    pub default: bool,
    /// Whether it is protected.
    pub protected: bool,
    /// When it was made.
    #[serde(with = "millis")]
    pub created_at: Timestamp,
    /// When Neon will delete it; missing for never.
    #[serde(default, with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The snapshot that it was made from; missing for most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_from: Option<SnapshotId>,
    /// The branch whose place it took when a restore of a snapshot was finalized; missing for most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_as: Option<BranchId>,
    /// `restored` while it is only looked at, `finalized` once it took that place; missing for
    /// most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_status: Option<String>,
    /// Bytes of its databases; missing while they are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logical_size: Option<u64>,
}

impl Branch {
    /// Returns whether Neon is not at work on it, so that it can be used.
    ///
    /// # Source
    ///
    /// Neon, branch archiving, read 2026-11-30: a branch that nobody uses is archived, on the Free
    /// plan after 14 days and 24 hours without access, and wakes with the next query.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.current_state.as_str(), "ready" | "archived")
    }
}

/// A snapshot of a root branch.
///
/// # Source
///
/// Neon API v2, `Snapshot`, read 2026-11-22; `slug` from `@neon/sdk` 6.1.2: "unique per project,
/// immutable".
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// Its name; several may have the same.
    pub name: BranchName,
    /// A name that no other has and that never changes; missing where it has none.
    #[serde(default)]
    pub slug: Option<String>,
    /// The branch that it was taken of.
    #[serde(default)]
    pub source_branch_id: Option<BranchId>,
    /// The position in that branch.
    #[serde(default)]
    pub lsn: Option<Lsn>,
    /// When it was made.
    #[serde(with = "millis")]
    pub created_at: Timestamp,
    /// Whether somebody asked for it; `false` for one of a schedule.
    #[serde(default)]
    pub manual: Option<bool>,
    /// Bytes of the branch when it was taken; missing while they are not counted.
    #[serde(default)]
    pub full_size: Option<u64>,
}

/// When Neon takes snapshots of a branch by itself.
///
/// # Source
///
/// Neon API v2, `BackupScheduleItem`, read 2026-11-22.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ScheduleItem {
    /// `hourly`, `daily`, `weekly`, `monthly`, `yearly`, or a word that Neon has added.
    pub frequency: String,
    /// How long each is kept; missing for ever.
    #[serde(default)]
    pub retention_seconds: Option<u64>,
}

/// An endpoint: a compute with an address.
///
/// # Source
///
/// Neon API v2, listProjectEndpoints, read 2026-11-21: "type*(`read_only|read_write`)".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// The branch it serves.
    pub branch_id: BranchId,
    /// Its host name; the first label is the endpoint's id.
    pub host: String,
    /// `read_write` or `read_only`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether connections are refused.
    #[serde(default)]
    pub disabled: bool,
    /// Whether who has an account of Neon's may connect without a password.
    #[serde(default)]
    pub passwordless_access: bool,
    /// When it was made.
    #[serde(with = "millis")]
    pub created_at: Timestamp,
}

impl Endpoint {
    /// Returns whether it accepts writes.
    pub fn is_read_write(&self) -> bool {
        self.kind == "read_write"
    }
}

/// A role.
///
/// # Source
///
/// Neon API v2, listProjectBranchRoles, read 2026-11-21:
/// "`authentication_method`?(`password|oauth|no_login`)".
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Role {
    /// Its name.
    pub name: RoleName,
    /// How it logs in; missing means by password.
    #[serde(default)]
    pub authentication_method: Option<String>,
}

impl Role {
    /// Returns whether it logs in with a password.
    pub fn has_password(&self) -> bool {
        self.authentication_method.as_deref().is_none_or(|method| method == "password")
    }
}

/// A database.
///
/// # Source
///
/// Neon API v2, listProjectBranchDatabases, read 2026-11-21.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Database {
    /// Its name.
    pub name: DatabaseName,
}

/// What somebody wrote on a branch.
///
/// # Source
///
/// Neon API v2, listProjectBranches, read 2026-11-21: `annotations` maps branch ids to
/// `{"object", "value"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Annotation {
    /// The texts, by name.
    #[serde(default)]
    pub value: BTreeMap<String, String>,
}

/// Every branch of a project, with what is written on them.
///
/// # Source
///
/// Neon API v2, listProjectBranches, read 2026-11-21: "limit 1–10000"; a project has at most 5,000
/// branches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct BranchList {
    /// The branches.
    pub branches: Vec<Branch>,
    /// What is written on them, by branch id.
    #[serde(default)]
    pub annotations: BTreeMap<BranchId, Annotation>,
}

impl BranchList {
    /// Returns the branch of an id.
    pub fn by_id(&self, id: &BranchId) -> Option<&Branch> {
        self.branches.iter().find(|branch| branch.id == *id)
    }

    /// Returns the branch that took the place of another when a restore of a snapshot was
    /// finalized.
    pub fn successor(&self, id: &BranchId) -> Option<&Branch> {
        // UNVERIFIED: whether a branch that is only looked at names a place, too; it has taken
        // none.
        let has_taken = |branch: &&Branch| branch.restore_status.as_deref() != Some("restored");
        self.branches
            .iter()
            .filter(has_taken)
            .find(|branch| branch.restored_as.as_ref() == Some(id))
    }

    /// Returns the branch of a name.
    pub fn by_name(&self, name: &BranchName) -> Option<&Branch> {
        self.branches.iter().find(|branch| branch.name == *name)
    }

    /// Returns a text of a branch's annotation.
    pub fn annotation(&self, id: &BranchId, key: &str) -> Option<&str> {
        self.annotations.get(id)?.value.get(key).map(String::as_str)
    }

    /// Returns the branches whose parent is the given one.
    pub fn children<'a>(&'a self, id: &'a BranchId) -> impl Iterator<Item = &'a Branch> {
        self.branches.iter().filter(move |branch| branch.parent_id.as_ref() == Some(id))
    }
}
