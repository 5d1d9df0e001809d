//! Neon's asynchronous work, as its replies tell it.
//!
//! Invariants: a word that is not known is work under way; only a status that no document calls
//! passing is an end that is bad for good.
//!
//! Source: Neon API v2, listProjectOperations and getProjectOperation, read 2026-11-21.

use serde::Deserialize;

use crate::id::{BranchId, OperationId};
use crate::time::{Timestamp, millis};

/// Actions that start, stop or set up a compute: none of them changes what a branch holds, and
/// most are Neon's own doing.
///
/// Source: Neon API v2, `OperationAction`, read 2026-11-21; an open set.
const OF_A_COMPUTE: [&str; 9] = [
    "create_compute",
    "start_compute",
    "start_reserved_compute",
    "suspend_compute",
    "check_availability",
    "apply_config",
    "apply_storage_config",
    "disable_maintenance",
    "sync_dbs_and_roles_from_compute",
];

/// An asynchronous piece of work of Neon's.
///
/// # Source
///
/// Neon API v2, listProjectOperations, read 2026-11-21: status is one of "scheduling running
/// finished failed error cancelling cancelled skipped".
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// The branch it works on.
    #[serde(default)]
    pub branch_id: Option<BranchId>,
    /// What it does, such as `create_branch`.
    #[serde(default)]
    pub action: String,
    /// How far it is.
    pub status: OperationStatus,
    /// When it was made.
    #[serde(with = "millis")]
    pub created_at: Timestamp,
    /// When Neon tries again; present on a failure that is not final.
    #[serde(default, with = "millis::option")]
    pub retry_at: Option<Timestamp>,
}

/// A page of operations, newest first.
#[derive(Deserialize)]
pub struct OperationPage {
    /// Those of this page.
    pub operations: Vec<Operation>,
    /// Where it ends.
    #[serde(default)]
    pub pagination: Option<Pagination>,
}

/// Where a page ends.
#[derive(Deserialize)]
pub struct Pagination {
    /// Where the next page begins; missing on the last one.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// How far an operation is.
///
/// # Source
///
/// Neon API v2, `OperationStatus`, read 2026-11-21; treated as an open set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum OperationStatus {
    /// Done.
    Finished,
    /// Not needed.
    Skipped,
    /// Ended badly, as far as known: Neon may try again, and need not say when.
    Failed,
    /// Ended badly.
    Error,
    /// Ended by somebody.
    Cancelled,
    /// Under way: `scheduling`, `running`, `cancelling`, or a word that Neon has added.
    UnderWay(String),
}

/// What the status of an operation means for who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has not ended.
    UnderWay,
    /// It has done what it was for.
    EndedWell,
    /// It failed, and Neon may still try again.
    MayBeRetried,
    /// It will not be done.
    EndedBadly,
}

impl From<String> for OperationStatus {
    fn from(text: String) -> Self {
        match text.as_str() {
            "finished" => Self::Finished,
            "skipped" => Self::Skipped,
            "failed" => Self::Failed,
            "error" => Self::Error,
            "cancelled" => Self::Cancelled,
            _ => Self::UnderWay(text),
        }
    }
}

impl Operation {
    /// Returns what its status means.
    ///
    /// # Source
    ///
    /// Documents disagree about `failed`: Neon, reference of operations, read 2026-11-21, calls
    /// `finished`, `skipped` and `cancelled` final and says that a failed one may be tried again.
    /// Its SDK takes `failed` for an end. With `retry_at` it is certainly under way.
    pub fn progress(&self) -> Progress {
        match (&self.status, self.retry_at) {
            (OperationStatus::Finished | OperationStatus::Skipped, _) => Progress::EndedWell,
            (OperationStatus::Failed, Some(_)) | (OperationStatus::UnderWay(_), _) => {
                Progress::UnderWay
            }
            (OperationStatus::Failed, None) => Progress::MayBeRetried,
            (OperationStatus::Error | OperationStatus::Cancelled, _) => Progress::EndedBadly,
        }
    }

    /// Returns whether it works on a compute alone. Such an operation is mostly Neon's own, and
    /// says nothing about what its branch holds.
    pub fn is_of_a_compute(&self) -> bool {
        OF_A_COMPUTE.contains(&self.action.as_str())
    }

    /// Returns the status as Neon writes it.
    pub fn status_text(&self) -> &str {
        match &self.status {
            OperationStatus::Finished => "finished",
            OperationStatus::Skipped => "skipped",
            OperationStatus::Failed => "failed",
            OperationStatus::Error => "error",
            OperationStatus::Cancelled => "cancelled",
            OperationStatus::UnderWay(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_says_whether_it_is_waited_for() {
        let read = |status: &str, retry_at: &str| {
            let text = format!(
                r#"{{"id":"o","action":"create_branch","status":"{status}","created_at":"2026-11-21T10:00:00Z"{retry_at}}}"#
            );
            serde_json::from_str::<Operation>(&text).expect("an operation").progress()
        };
        let retried = r#","retry_at":"2026-11-21T10:00:30Z""#;
        let table = [
            ("scheduling", Progress::UnderWay),
            ("running", Progress::UnderWay),
            ("cancelling", Progress::UnderWay),
            ("a new word", Progress::UnderWay),
            ("finished", Progress::EndedWell),
            ("skipped", Progress::EndedWell),
            ("failed", Progress::MayBeRetried),
            ("error", Progress::EndedBadly),
            ("cancelled", Progress::EndedBadly),
        ];
        for (status, progress) in table {
            assert_eq!(read(status, ""), progress, "{status}");
        }
        assert_eq!(read("failed", retried), Progress::UnderWay);
    }
}
