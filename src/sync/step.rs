//! The steps of a run and the limits of its loops.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A stage of a run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Reads the project and refuses what is unsafe.
    Preflight,
    /// Makes a branch of production.
    Backup,
    /// Reads the backup.
    VerifyBackup,
    /// Overwrites staging with the backup.
    Restore,
    /// Compares staging with the backup.
    VerifyStaging,
    /// Calls the staging application.
    SmokeTest,
    /// Deletes what no keep rule holds.
    Prune,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 7] = [
        Self::Preflight,
        Self::Backup,
        Self::VerifyBackup,
        Self::Restore,
        Self::VerifyStaging,
        Self::SmokeTest,
        Self::Prune,
    ];

    /// Returns the number that people are told, counted from one.
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|step| *step == self).map_or(0, |index| index + 1)
    }

    /// Returns the name that people are told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Backup => "backup",
            Self::VerifyBackup => "verify backup",
            Self::Restore => "restore staging",
            Self::VerifyStaging => "verify staging",
            Self::SmokeTest => "smoke test",
            Self::Prune => "prune",
        }
    }

    /// Returns the step after this one.
    pub fn following(self) -> Option<Self> {
        Self::ALL.get(self.number()).copied()
    }
}

/// Attempts of one step before the run fails, once its deadline has passed; until then it is tried
/// as long as the deadline allows.
///
/// Waits double from two seconds to one minute (2, 4, 8, 16, 32, 60, 60, …), so the twelfth attempt
/// starts after about 7 minutes: longer than Neon's own availability checks hold a project. An hour
/// to the deadline is worth about 65.
///
/// Source: design §4: "A failed attempt is retried with growing waits as long as the deadline
/// allows".
pub const ATTEMPTS_PER_STEP: u32 = 12;

/// Actions of one tick.
///
/// A run of one database takes about 45. A tick that wants 400 is in a loop that no other limit has
/// seen.
pub const ACTIONS_PER_TICK: u32 = 400;

/// Ticks without a step forward before the run fails. A step that is tried again because Neon does
/// not answer waits for the deadline instead.
///
/// Source: design §4: "Three ticks without a step forward, or an impossible transition, end the run
/// as failed".
pub const TICKS_WITHOUT_PROGRESS: u32 = 3;

/// How long a roll-back is allowed after the restore was accepted.
///
/// Source: design §4: "only if this checkpoint itself recorded the accepted restore less than 30
/// minutes ago".
pub const ROLL_BACK_WITHIN: Duration = Duration::from_mins(30);

/// How long a scheduled run may go on after its deadline, and a manual one after its start.
pub const RUN_GRACE: Duration = Duration::from_hours(1);

/// The first look at an operation after it was accepted.
///
/// Measured by others at Neon, 2026-07-29: create 3.0 s, restore 6.1 s. A look just after that
/// finds it done.
pub const FIRST_LOOK_CREATE: Duration = Duration::from_millis(3_100);
/// As [`FIRST_LOOK_CREATE`], for a restore.
pub const FIRST_LOOK_RESTORE: Duration = Duration::from_millis(6_250);
/// The wait after the first look in vain; it grows by half each time.
const LOOK_AGAIN: Duration = Duration::from_millis(400);

/// The wait after a deletion that was accepted: until it is done, Neon refuses the next with 423,
/// which costs a subrequest all the same.
pub const BETWEEN_DELETIONS: Duration = Duration::from_secs(2);

/// The longest wait between two looks.
///
/// An operation of two minutes then costs about 14 looks of the 50 subrequests of an invocation.
pub const LONGEST_LOOK: Duration = Duration::from_secs(15);

/// Looks in vain after which the wait is the longest: 400 ms times 1.5 to the ninth are 15.4 s.
pub const LOOKS_UNTIL_RARE: u32 = 10;

/// Returns the wait before the next look, after `looks` looks in vain.
pub fn look_gap(looks: u32) -> Duration {
    let mut gap = LOOK_AGAIN;
    for _ in 1..looks.min(20) {
        gap = (gap * 3 / 2).min(LONGEST_LOOK);
    }
    gap
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_from_one_to_seven() {
        let numbers: Vec<usize> = Step::ALL.iter().map(|step| step.number()).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(Step::Prune.following(), None);
    }

    #[test]
    fn looks_become_rarer_up_to_a_limit() {
        assert_eq!(look_gap(1), Duration::from_millis(400));
        assert_eq!(look_gap(2), Duration::from_millis(600));
        assert_eq!(look_gap(30), LONGEST_LOOK);
        assert!(
            look_gap(LOOKS_UNTIL_RARE) == LONGEST_LOOK
                && look_gap(LOOKS_UNTIL_RARE - 1) < LONGEST_LOOK
        );
    }
}
