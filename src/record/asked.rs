//! What people have asked for, as long as it is not done: runs, and their end.

use serde::{Deserialize, Serialize};

use crate::id::{PairName, RunId};
use crate::sync::checkpoint::{FORMAT, Goal};
use crate::time::{Timestamp, millis};

/// Returns the key of the order to cancel a run.
pub fn cancel_key(pair: &PairName, run: &RunId) -> String {
    format!("cancel/{pair}/{run}")
}

/// Somebody wants a run to end.
///
/// Shape: `{"format":1,"at":"2026-11-21T10:02:00.000Z","by":"Dana","reason":"production is being
/// migrated"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelOrder {
    /// The version of this shape.
    pub format: u32,
    /// When.
    #[serde(with = "millis")]
    pub at: Timestamp,
    /// Who, in their words; missing where they did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, in their words; missing where they did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Returns the key that says that a manual run was accepted; with an empty run, the prefix of all
/// of a pair.
pub fn accepted_key(pair: &PairName, run: &str) -> String {
    format!("accepted/{pair}/{run}")
}

/// A manual run was accepted, and has not told how it ended.
///
/// Shape: `{"format":1,"at":"2026-11-21T14:30:00.000Z","goal":"staging"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The version of this shape.
    #[serde(default = "current_format")]
    pub format: u32,
    /// When; missing in what earlier versions have written.
    #[serde(default, with = "millis::option")]
    pub at: Option<Timestamp>,
    /// How far it was to go; missing in what earlier versions have written.
    #[serde(default)]
    pub goal: Option<Goal>,
}

/// Returns the version of a record that names none.
fn current_format() -> u32 {
    FORMAT
}

/// Returns the key of a request that was made with an `Idempotency-Key`.
pub fn request_key(pair: &PairName, key: &str) -> String {
    format!("request/{pair}/{key}")
}
