//! The calls of Neon's API that Firstlight makes, as values.

use crate::id::{BranchId, BranchName, EndpointId, Lsn, OperationId, RoleName, SnapshotId};

/// One call of Neon's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Reads the project. Repeatable.
    GetProject,
    /// Lists every branch. Repeatable.
    ListBranches,
    /// Lists every endpoint of the project. Repeatable.
    ListEndpoints,
    /// Lists the databases of a branch. Repeatable.
    ListDatabases(BranchId),
    /// Lists the roles of a branch. Repeatable.
    ListRoles(BranchId),
    /// Asks for a role's password. Repeatable.
    RevealPassword(BranchId, RoleName),
    /// Reads one operation. Repeatable; one that Neon does not know is answered with 404.
    GetOperation(OperationId),
    /// Lists operations, newest first, from the position where an earlier page ended. Repeatable.
    ListOperations(Option<String>),
    /// Lists who has been given access to the project. Repeatable.
    ListPermissions,
    /// Makes a branch. A second call is refused, because the name is taken.
    CreateBranch(CreateBranch),
    /// Gives a branch an endpoint of this size, in hundredths of a compute unit. Not repeatable: a
    /// second call makes a second read-only one, so it is sent only after a listing shows none.
    CreateEndpoint(BranchId, EndpointKind, u32),
    /// Overwrites a branch. Not repeatable; see [`RestoreBranch`].
    RestoreBranch(RestoreBranch),
    /// Deletes a branch. Repeatable: deleting what is gone answers 204.
    DeleteBranch(BranchId),
    /// Deletes an endpoint. Repeatable: deleting what is gone answers 204.
    DeleteEndpoint(EndpointId),
    /// Lists every snapshot of the project. Repeatable.
    ListSnapshots,
    /// Reads when Neon takes snapshots of a branch by itself. Repeatable.
    ListSchedule(BranchId),
    /// Takes a snapshot. Not repeatable where slugs are not looked at, so it is sent only after a
    /// listing shows none.
    CreateSnapshot(CreateSnapshot),
    /// Makes a branch of a snapshot, to be looked at. A second call is refused, because the name is
    /// taken.
    RestoreSnapshot(RestoreSnapshot),
    /// Deletes a snapshot for good. Repeatable: one that is gone answers 404.
    DeleteSnapshot(SnapshotId),
}

/// What an endpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    /// Reads a branch; several may.
    ReadOnly,
    /// Reads and writes it; one may.
    ReadWrite,
}

impl EndpointKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::ReadWrite => "read_write",
        }
    }
}

/// Makes a branch with one small endpoint.
///
/// # Repeating
///
/// Refused with 409 `BRANCH_ALREADY_EXISTS`, because names are unique in a project.
///
/// # Source
///
/// Neon API v2, createProjectBranch, read 2026-11-21: no endpoint is created unless `endpoints` is
/// given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateBranch {
    /// The branch it is made from.
    pub parent: BranchId,
    /// The position in the parent; `None` for its head.
    pub parent_lsn: Option<Lsn>,
    /// Its name.
    pub name: BranchName,
    /// What kind of endpoint it gets.
    pub endpoint: EndpointKind,
    /// The size of the endpoint in hundredths of a compute unit.
    pub endpoint_cu_hundredths: u32,
    /// What is written on it.
    pub annotation: Vec<(&'static str, String)>,
}

/// Overwrites a branch with the head of another.
///
/// # Repeating
///
/// Not repeatable by itself. With `displaced_name` derived from the state that is displaced, a
/// second call asks for a name that is taken and is refused with 409.
///
/// # Source
///
/// Neon API v2, restoreProjectBranch, read 2026-11-21: "If `source_timestamp` and `source_lsn` are
/// omitted, the branch will be restored to head."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreBranch {
    /// The branch that is overwritten. Never production; preflight refuses that.
    pub branch: BranchId,
    /// The branch whose head is taken.
    pub source: BranchId,
    /// The name under which Neon keeps the overwritten state.
    pub displaced_name: BranchName,
}

/// Takes a snapshot of a root branch.
///
/// # Repeating
///
/// A name may be given twice. A slug may not, where Neon looks at it (UNVERIFIED): a second call is
/// then refused with 409.
///
/// # Source
///
/// Neon API v2, createSnapshot, read 2026-11-22: everything stands in the query; "must fall within
/// the restore window".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSnapshot {
    /// The branch: production, which this only reads.
    pub branch: BranchId,
    /// The position in it.
    pub lsn: Lsn,
    /// Its name.
    pub name: BranchName,
    /// A name that no other snapshot has and that never changes; `None` where it would be too long.
    pub slug: Option<String>,
}

/// Makes a root branch of a snapshot. Nothing takes anything's place: that is finalizing, which
/// Firstlight never asks for.
///
/// # Repeating
///
/// Refused with 409 `BRANCH_ALREADY_EXISTS`, because names are unique in a project.
///
/// # Source
///
/// Neon API v2, restoreSnapshot, read 2026-11-22: "Defaults to `false` to allow previewing the
/// restored snapshot data first". Without a target, "the branch from which the snapshot was
/// originally created will be used".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreSnapshot {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The name of the new branch.
    pub name: BranchName,
    /// Whose place somebody who finalized it by hand would give it: a backup, so that it is never
    /// production or staging.
    pub target: BranchId,
}
