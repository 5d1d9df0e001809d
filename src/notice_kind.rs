//! What notices are about, and how much they matter: a channel chooses among these.

use serde::{Deserialize, Serialize};

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// Staging is a verified copy, or the backup is verified where that was the goal.
    Succeeded,
    /// The run failed.
    Failed,
    /// The run was ended by somebody or by a changed configuration.
    Cancelled,
    /// Another run has restored staging since.
    Superseded,
    /// The day's run was never started.
    Missed,
    /// The run starts later than it should.
    LateStart,
    /// The run is under way and not expected to be done by its deadline.
    AtRisk,
    /// The deadline has passed and the run is not done.
    Late,
    /// A success after a failure was told for the same run.
    Corrected,
    /// A record of the pair cannot be read, so that nothing is done for it.
    Stuck,
    /// The backup is not kept by a snapshot, although a rule wants one.
    SnapshotFailed,
    /// It is, after that was told otherwise.
    SnapshotVerified,
    /// A channel cannot be used as it is configured.
    Misconfigured,
    /// An incident is open and nobody has acknowledged it, or the business day begins.
    Escalated,
    /// An incident is over.
    Resolved,
    /// A channel has said that its address is gone.
    ChannelDisabled,
    /// Somebody tries a channel.
    Test,
}

/// How much a notice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Worth a look before something goes wrong.
    Warning,
    /// Somebody has to act.
    Urgent,
}

impl Severity {
    /// Every severity, the least first.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Urgent];

    /// Returns the word that is configured.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Urgent => "urgent",
        }
    }
}

impl NoticeKind {
    /// Every kind; those that a run has first.
    pub const ALL: [Self; 17] = [
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Superseded,
        Self::Missed,
        Self::LateStart,
        Self::AtRisk,
        Self::Late,
        Self::Corrected,
        Self::Stuck,
        Self::SnapshotFailed,
        Self::SnapshotVerified,
        Self::Misconfigured,
        Self::Escalated,
        Self::Resolved,
        Self::ChannelDisabled,
        Self::Test,
    ];

    /// The kinds of which a run has at most one each, so that their ids are known before they are
    /// told: those up to [`Self::Misconfigured`]. The others are listed where they are told from.
    pub const OF_RUN: &'static [Self] = Self::ALL.split_at(13).0;

    /// Returns the word that stands in ids and is configured.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Missed => "missed",
            Self::LateStart => "late_start",
            Self::AtRisk => "at_risk",
            Self::Late => "late",
            Self::Corrected => "corrected",
            Self::Stuck => "stuck",
            Self::SnapshotFailed => "snapshot_failed",
            Self::SnapshotVerified => "snapshot_verified",
            Self::Misconfigured => "misconfigured",
            Self::Escalated => "escalated",
            Self::Resolved => "resolved",
            Self::ChannelDisabled => "channel_disabled",
            Self::Test => "test",
        }
    }

    /// Returns how much it matters.
    pub fn severity(self) -> Severity {
        match self {
            Self::Succeeded | Self::SnapshotVerified | Self::Resolved | Self::Test => {
                Severity::Info
            }
            Self::Cancelled
            | Self::Superseded
            | Self::LateStart
            | Self::AtRisk
            | Self::Corrected
            | Self::SnapshotFailed
            | Self::Misconfigured
            | Self::ChannelDisabled => Severity::Warning,
            Self::Failed | Self::Missed | Self::Late | Self::Stuck | Self::Escalated => {
                Severity::Urgent
            }
        }
    }

    /// Returns whether it opens an incident, or joins the one that is open.
    pub fn is_trouble(self) -> bool {
        match self {
            Self::Failed | Self::Missed | Self::Late | Self::Stuck | Self::SnapshotFailed => true,
            Self::Succeeded
            | Self::Cancelled
            | Self::Superseded
            | Self::LateStart
            | Self::AtRisk
            | Self::Corrected
            | Self::SnapshotVerified
            | Self::Misconfigured
            | Self::Escalated
            | Self::Resolved
            | Self::ChannelDisabled
            | Self::Test => false,
        }
    }

    /// Returns whether it says that a run has not succeeded.
    pub fn is_opposite_of_success(self) -> bool {
        matches!(self, Self::Failed | Self::Cancelled | Self::Superseded | Self::Missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_of_a_run_are_those_up_to_the_last_of_them() {
        assert_eq!(NoticeKind::OF_RUN.last(), Some(&NoticeKind::Misconfigured));
        assert!(!NoticeKind::OF_RUN.contains(&NoticeKind::Escalated));
    }
}
