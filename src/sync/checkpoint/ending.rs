//! How a run ends.

use serde::{Deserialize, Serialize};

use crate::sync::step::Step;
use crate::time::{Timestamp, millis};

/// Why a run will end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// How it will end.
    pub status: RunStatus,
    /// Why; fits after "Error:".
    pub reason: String,
    /// The page of `runbooks/` to open.
    pub runbook: String,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How.
    pub status: RunStatus,
    /// When.
    #[serde(with = "millis")]
    pub at: Timestamp,
    /// At which step.
    pub step: Step,
    /// Why, when it did not succeed.
    pub reason: Option<String>,
    /// The page of `runbooks/` to open, when it did not succeed.
    pub runbook: Option<String>,
    /// What staging holds, as observed.
    pub staging: String,
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Under way.
    Running,
    /// Every check named in the report was run and was equal.
    Succeeded,
    /// It ended without that.
    Failed,
    /// Somebody ended it, or what it was started with has changed.
    Cancelled,
    /// Another run has restored staging since.
    Superseded,
    /// It was never started.
    Missed,
}

impl RunStatus {
    /// Returns the word that is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Missed => "missed",
        }
    }
}
