//! What has to be done to real data, for a server that has some.

use super::{Lsn, Timestamp};

/// What has to be done to real data. The operation in it is blocked until
/// [`super::Model::work_done`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make the data of a branch from that of another.
    Branch {
        /// The operation that waits for it.
        operation: String,
        /// The branch that gets the data.
        branch: String,
        /// The data that the source has now.
        source: String,
        /// At which point.
        point: Point,
    },
    /// Give a branch new data, and its old data to the preserved branch, if there is one.
    Restore {
        /// The operation that waits for it.
        operation: String,
        /// The branch that is overwritten.
        branch: String,
        /// Where the new data comes from.
        source: String,
        /// The branch that keeps the old data.
        preserved: Option<String>,
        /// At which point.
        point: Point,
    },
    /// Start a compute.
    Start {
        /// The operation that waits for it.
        operation: String,
        /// The endpoint.
        endpoint: String,
    },
    /// Stop a compute.
    Suspend {
        /// The operation that waits for it.
        operation: String,
        /// The endpoint.
        endpoint: String,
    },
    /// Remove the data of a branch.
    Delete {
        /// The operation that waits for it.
        operation: String,
        /// The branch.
        branch: String,
    },
    /// Make the data of a snapshot from that of a branch.
    Snapshot {
        /// The operation that waits for it.
        operation: String,
        /// The snapshot that gets the data.
        snapshot: String,
        /// The data that the source has now.
        source: String,
        /// At which point.
        point: Point,
    },
    /// Make the data of a branch from that of a snapshot.
    Unpack {
        /// The operation that waits for it.
        operation: String,
        /// The branch that gets the data.
        branch: String,
        /// The data of the snapshot.
        source: String,
    },
    /// Remove the data of a snapshot.
    Discard {
        /// The operation that waits for it.
        operation: String,
        /// The data.
        data: String,
    },
    /// Give a role its new password.
    SetPassword {
        /// The operation that waits for it.
        operation: String,
        /// The branch.
        branch: String,
        /// The role.
        role: String,
    },
}

impl Effect {
    /// Returns the operation that waits for it.
    pub fn operation(&self) -> &str {
        match self {
            Self::Branch { operation, .. }
            | Self::Restore { operation, .. }
            | Self::Start { operation, .. }
            | Self::Suspend { operation, .. }
            | Self::Delete { operation, .. }
            | Self::Snapshot { operation, .. }
            | Self::Unpack { operation, .. }
            | Self::Discard { operation, .. }
            | Self::SetPassword { operation, .. } => operation,
        }
    }
}

/// Which state of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The newest.
    Head,
    /// The one at a position.
    Lsn(Lsn),
    /// The one at a time.
    Time(Timestamp),
}
