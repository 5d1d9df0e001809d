//! What a project is made of: branches, their roles and databases, endpoints, snapshots.

use std::collections::BTreeMap;

use serde_json::Value;

use super::secrets::Remembered;
use super::{Lsn, Timestamp};

/// A branch.
#[derive(Clone, Debug)]
pub struct Branch {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The branch it was made from.
    pub parent: Option<String>,
    /// Where in the parent it begins; known when its data is there.
    pub parent_lsn: Option<Lsn>,
    /// The time of that position.
    pub parent_timestamp: Option<Timestamp>,
    /// `init`, `resetting`, `ready` or `archived`.
    pub state: &'static str,
    /// The state it is going to have.
    pub pending_state: Option<&'static str>,
    /// Whether it is the default branch.
    pub is_default: bool,
    /// Whether it is protected.
    pub is_protected: bool,
    /// Whether it can never be deleted: it is the project's first branch, or what a root was
    /// restored from another branch with stands on it.
    pub is_for_ever: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
    /// When its state changed last.
    pub state_changed_at: Timestamp,
    /// When it was restored last.
    pub last_reset_at: Option<Timestamp>,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// What is written on it.
    pub annotation: BTreeMap<String, String>,
    /// Its roles, with their passwords where they are known.
    pub roles: Vec<Role>,
    /// Passwords that the proxy still has although they were changed, by role.
    pub remembered: BTreeMap<String, Remembered>,
    /// Its databases.
    pub databases: Vec<Database>,
    /// Which data it has: changes with each restore.
    pub data: String,
    /// Where it came from, if that was a snapshot.
    pub unpacked: Option<Unpacked>,
    /// Bytes of its databases, once they were counted.
    pub logical_size: Option<u64>,
}

/// A branch was made from a snapshot, to be looked at or to take another branch's place.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// The snapshot.
    pub snapshot: String,
    /// The branch whose place it is to take, or has taken.
    pub target: String,
    /// When it took that place; `None` while it is only looked at.
    pub finalized_at: Option<Timestamp>,
}

/// A snapshot of a root branch.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// Its name; several may have the same.
    pub name: String,
    /// A name that no other has and that never changes, if it was given one.
    pub slug: Option<String>,
    /// The branch it was taken of.
    pub source: String,
    /// Which position of that branch; known when its data is there.
    pub lsn: Option<Lsn>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When Neon deletes it.
    pub expires_at: Option<Timestamp>,
    /// Whether somebody asked for it; otherwise a schedule did.
    pub is_manual: bool,
    /// The operation that makes it.
    pub operation: String,
    /// The roles of the branch.
    pub roles: Vec<Role>,
    /// The databases of the branch.
    pub databases: Vec<Database>,
    /// Which data it has.
    pub data: String,
    /// Bytes of its databases, once they were counted.
    pub full_size: Option<u64>,
}

/// A role of a branch.
#[derive(Clone, Debug)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Its password; `None` where it was set without the control plane seeing it.
    pub password: Option<String>,
    /// The password that the data holds, as far as known.
    pub in_data: Option<String>,
    /// The password that the data held when the branch was made or restored last.
    pub at_first: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A database of a branch.
#[derive(Clone, Debug)]
pub struct Database {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// The role that owns it.
    pub owner: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its id.
    pub id: String,
    /// The branch it serves.
    pub branch: String,
    /// Whether it accepts writes.
    pub is_read_write: bool,
    /// `init`, `active` or `idle`.
    pub state: &'static str,
    /// The state it is going to have.
    pub pending_state: Option<&'static str>,
    /// The smallest and the largest size, as the caller wrote them.
    pub size: (Value, Value),
    /// Seconds until it sleeps; 0 means the default.
    pub suspend_timeout_seconds: i64,
    /// Whether connections are refused.
    pub is_disabled: bool,
    /// Whether who has an account of Neon's may connect without a password.
    pub is_passwordless: bool,
    /// A name that somebody gave it.
    pub name: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
    /// When it was used last.
    pub last_active: Option<Timestamp>,
    /// The branch that its compute still serves, which is another than its own until it is
    /// suspended.
    pub serves: Option<String>,
}

/// How a branch was before an operation that may fail.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    /// It was not there.
    Made(String),
    /// It held something else, which a branch keeps that was made for it.
    Restored(Box<Branch>, Option<String>),
}
