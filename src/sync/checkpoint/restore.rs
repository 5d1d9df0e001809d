//! A restore of staging, and what a run remembers of Neon's work on it.

use serde::{Deserialize, Serialize};

use crate::id::{BranchId, BranchName, Lsn, OperationId};
use crate::neon::wire::Branch;
use crate::time::{Timestamp, millis};

/// A restore of staging.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// The name under which the old state is kept.
    pub displaced_name: BranchName,
    /// The branch that holds the old state, once seen.
    pub displaced_id: Option<BranchId>,
    /// When Neon accepted it; `None` when that was not seen by this checkpoint.
    #[serde(with = "millis::option")]
    pub accepted_at: Option<Timestamp>,
    /// The operations that do it; empty when the reply was lost.
    pub operations: Vec<OperationId>,
    /// Whether its operations are done.
    pub is_done: bool,
    /// Where staging's content came from before; missing where that was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Origin>,
}

/// Where the content of a branch came from.
///
/// Shape: `{"parent":"br-…","lsn":"0/1DE2850"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The branch.
    pub parent: BranchId,
    /// The position in it, where Neon tells one.
    pub lsn: Option<Lsn>,
}

impl Origin {
    /// Returns that of a branch; `None` for a root.
    pub fn of(branch: &Branch) -> Option<Self> {
        Some(Self { parent: branch.parent_id.clone()?, lsn: branch.parent_lsn })
    }
}

/// An operation of Neon's that failed and that Neon may try again.
///
/// Shape: `{"operation":"1e604957-…","seen_at":"2026-11-21T10:05:30.000Z"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// Its id.
    pub operation: OperationId,
    /// When this run first saw it so.
    #[serde(with = "millis")]
    pub seen_at: Timestamp,
}
