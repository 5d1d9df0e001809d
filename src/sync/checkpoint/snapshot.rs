//! How far a run is with the snapshot of its backup.

use serde::{Deserialize, Serialize};

use crate::id::{BranchId, BranchName, Lsn, OperationId, SnapshotId};
use crate::time::{Timestamp, millis};

/// The snapshot of a backup: taken of production at the backup's position, restored to a branch of
/// its own, and compared.
///
/// Shape:
/// `{"name":"backup-20261121","lsn":"0/1DE2850","id":"snap-…","is_taken":true,"test":{…},"outcome":{"status":"verified"},…}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own that is persisted under its name"
)]
pub struct SnapshotWork {
    /// Its name: that of the backup.
    pub name: BranchName,
    /// Its slug, if one is given.
    pub slug: Option<String>,
    /// The position in production.
    pub lsn: Lsn,
    /// When the backup was made, by Neon's clock.
    #[serde(with = "millis")]
    pub made_at: Timestamp,
    /// When it was begun.
    #[serde(with = "millis")]
    pub begun_at: Timestamp,
    /// Whether it is on record that it is to be taken.
    pub is_noted: bool,
    /// Its id, once it exists.
    pub id: Option<SnapshotId>,
    /// The operations that take it; empty when the reply was lost.
    pub operations: Vec<OperationId>,
    /// Whether its operations are done.
    pub is_taken: bool,
    /// The branch that it is restored to.
    pub test: RestoreTest,
    /// What came of it.
    pub outcome: Option<SnapshotOutcome>,
    /// Whether what came of it is on record, and people were told what has to be told.
    pub is_told: bool,
    /// Whether people were told that an earlier attempt failed.
    #[serde(default)]
    pub has_failed: bool,
}

/// The branch that a snapshot is restored to, to be compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreTest {
    /// Its name.
    pub name: BranchName,
    /// Its id, once it exists.
    pub id: Option<BranchId>,
    /// The operations that make it; empty when the reply was lost.
    pub operations: Vec<OperationId>,
    /// Whether its operations are done.
    pub is_ready: bool,
    /// Whether it was deleted, or is left to the next pruning.
    pub is_gone: bool,
}

/// What came of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum SnapshotOutcome {
    /// It was restored and is equal to the backup.
    Verified {
        /// Tables that were compared.
        tables: usize,
        /// Rows in them.
        rows: u64,
    },
    /// It is not known to be equal.
    Failed {
        /// Why.
        reason: String,
        /// Whether trying again would come to the same.
        is_final: bool,
    },
}

impl SnapshotWork {
    /// Returns whether it was restored and compared, and was equal.
    pub fn is_verified(&self) -> bool {
        matches!(self.outcome, Some(SnapshotOutcome::Verified { .. }))
    }

    /// Makes ready for another attempt where that may come to something.
    pub(super) fn try_again(&mut self, now: Timestamp) {
        if !matches!(self.outcome, None | Some(SnapshotOutcome::Failed { is_final: false, .. })) {
            return;
        }
        // What was seen of it may be gone: all of it is looked for again.
        (self.outcome, self.is_told, self.begun_at) = (None, false, now);
        (self.id, self.is_taken, self.operations) = (None, false, Vec::new());
        self.test = RestoreTest::new(self.test.name.clone());
    }
}

impl RestoreTest {
    /// Returns one that does not exist yet.
    pub fn new(name: BranchName) -> Self {
        Self { name, id: None, operations: Vec::new(), is_ready: false, is_gone: false }
    }
}
