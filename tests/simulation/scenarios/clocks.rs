//! Two clocks: Neon's is not the Worker's. And operations that take as long as they like.

use firstlight::sync::checkpoint::RunStatus;
use neon_emulator::model::Finish;
use simulation::faults::Fault;
use simulation::plan::CLOCKS_APART;
use simulation::script::{Happening, Script};

use crate::{planned, play, report, succeeded};

/// Seconds by which Neon's clock is ahead or behind.
fn offsets() -> [i64; 6] {
    let most = CLOCKS_APART.num_seconds();
    [-most, -60, -3, 3, 60, most]
}

#[test]
fn a_morning_succeeds_whichever_clock_is_ahead() {
    for clock_offset_s in offsets() {
        let outcome = play(&Script { clock_offset_s, ..Script::default() });
        assert!(succeeded(&outcome), "{clock_offset_s}: {:?}", outcome.story);
        assert_eq!(
            outcome.staging_password.as_deref(),
            Some("npg_stagingsown"),
            "{clock_offset_s}"
        );
    }
}

/// The reply to the restore is lost, so that no operation is known by its id: somebody's suspension
/// that failed half a minute before the backup was taken for the restore where Neon's clock was
/// ahead.
#[test]
fn an_operation_of_somebody_elses_is_not_taken_for_ours_whichever_clock_is_ahead() {
    for clock_offset_s in offsets() {
        let outcome = play(&Script {
            clock_offset_s,
            happenings: vec![(0, Happening::SuspendInVain), (30, Happening::Cron)],
            faults: vec![planned("restoreProjectBranch", 1, Fault::AppliedAndLost)],
            ..Script::default()
        });
        assert!(
            succeeded(&outcome),
            "{clock_offset_s}: {:?} {:?}",
            outcome.story,
            report(&outcome).reason
        );
    }
}

/// The reply to the restore is lost and its operation fails: it is the run's own, also where Neon's
/// clock is behind and shows it as older than everything that the run has done.
#[test]
fn a_restore_that_fails_after_its_reply_was_lost_is_told_by_its_operation_whichever_clock_is_ahead()
{
    for clock_offset_s in offsets() {
        let outcome = play(&Script {
            clock_offset_s,
            faults: vec![planned("restoreProjectBranch", 1, Fault::AppliedAndLost)],
            // The backup has two operations, the restore is the third.
            project: |model| {
                model.operation_faults.extend([Finish::Finished, Finish::Finished, Finish::Failed]);
            },
            ..Script::default()
        });
        assert_eq!(outcome.status, Some(RunStatus::Failed), "{clock_offset_s}");
        let reason = report(&outcome).reason.unwrap_or_default();
        assert!(reason.starts_with("restore staging: operation "), "{clock_offset_s}: {reason}");
    }
}

#[test]
fn a_morning_succeeds_although_every_operation_takes_twenty_times_as_long() {
    let outcome = play(&Script {
        project: |model| model.durations.tail_per_mille = 1_000,
        ..Script::default()
    });
    assert!(succeeded(&outcome), "{:?}", outcome.story);
    assert_eq!(outcome.deeds, (1, 1, 0));
}
