//! What Neon does to computes meanwhile, and what a failed operation leaves. Facts that nobody
//! could confirm are tried both ways.

use firstlight::sync::checkpoint::RunStatus;
use neon_emulator::model::{FailedBranchState, Finish, Locks, Model, Switches};
use simulation::faults::Fault;
use simulation::script::{Happening, Script};

use crate::{count, planned, play, report, succeeded};

#[test]
fn a_morning_succeeds_whatever_neon_does_with_computes() {
    let default = Switches::default;
    let table = [
        ("no operations of its own", Switches { compute_operations: false, ..default() }),
        (
            "the old compute is gone at once",
            Switches { old_compute_serves_until_suspended: false, ..default() },
        ),
        ("a restore deletes nothing", Switches { restore_deletes_timeline: false, ..default() }),
        ("the lock is the branch's", Switches { locks: Locks::Branch, ..default() }),
        ("every third fails", Switches { compute_operations_fail_every: 3, ..default() }),
        (
            "every third errs",
            Switches {
                compute_operations_fail_every: 3,
                compute_operations_end: Finish::Error,
                ..default()
            },
        ),
    ];
    for (name, switches) in table {
        let outcome = play(&Script { switches, ..Script::default() });
        assert!(succeeded(&outcome), "{name}: {:?}", outcome.told);
        assert_eq!(outcome.deeds, (1, 1, 0), "{name}");
    }
}

/// Neon's page: 423 comes for operations that we did not start, too.
#[test]
fn an_operation_that_somebody_else_started_is_waited_for_before_a_write() {
    let project: fn(&mut Model) = |model| model.durations.wake_lingers_ms = 20_000;
    let outcome = play(&Script { project, ..Script::default() });
    assert!(succeeded(&outcome), "{:?}", outcome.told);
    assert!(
        count(&outcome, "createProjectBranch") > 1,
        "preflight's own query woke production, whose start is under way"
    );
    for (branch, call) in
        [("production", "createProjectBranch"), ("staging", "restoreProjectBranch")]
    {
        for locks in [Locks::Project, Locks::Branch] {
            // The first query has woken neither of them yet, and the check takes half a minute.
            let check = (-1, Happening::Check(branch, Finish::Finished, 30_000));
            let switches = Switches { locks, ..Switches::default() };
            let outcome = play(&Script {
                switches,
                happenings: vec![check, (0, Happening::Cron)],
                ..Script::default()
            });
            assert!(succeeded(&outcome), "{branch} {locks:?}: {:?}", outcome.told);
            let is_shut_out = locks == Locks::Project || count(&outcome, call) > 1;
            assert!(
                is_shut_out && outcome.deeds == (1, 1, 0),
                "{branch} {locks:?}: {:?}",
                outcome.deeds
            );
        }
    }
}

/// It is no business of the run's, and nothing that it waits for.
#[test]
fn a_check_of_a_compute_that_hangs_or_fails_ends_no_run_whose_reply_was_lost() {
    for finish in [Finish::Hangs, Finish::Failed, Finish::Error, Finish::Cancelled] {
        for (call, branch) in
            [("createProjectBranch", "backup-20261121"), ("restoreProjectBranch", "staging")]
        {
            // While the operations of the call are under way.
            let trace = play(&Script::default()).trace;
            let line = trace
                .iter()
                .find(|line| line.contains(&format!("] {call}#1")))
                .expect("it is sent");
            let second: i64 = line[6..8].parse().expect("seconds");
            let check = (second + 1, Happening::Check(branch, finish, 500));
            let faults = vec![planned(call, 1, Fault::AppliedAndLost)];
            let switches = Switches { locks: Locks::Branch, ..Switches::default() };
            let happenings = vec![(0, Happening::Cron), check];
            let outcome = play(&Script { faults, switches, happenings, ..Script::default() });
            // What hangs on a branch keeps later writes to it out; none is needed for a success but
            // the restore itself.
            assert!(succeeded(&outcome), "{call} {finish:?}: {:?}", outcome.told);
        }
    }
}

#[test]
fn a_restore_that_fails_is_told_as_failed_with_what_it_has_left() {
    let table = [
        (
            FailedBranchState::Stuck,
            "Staging is being restored from backup-20261121 and is not ready.",
        ),
        (
            FailedBranchState::Old,
            "Staging is what it was before this run, whose restore did not end well (child \
                of backup-20261120).",
        ),
    ];
    for (failed_branch_state, staging) in table {
        for fault in [
            Fault::OperationFails,
            Fault::OperationErrs,
            Fault::OperationCancelled,
            Fault::OperationCancelling,
        ] {
            let switches = Switches { failed_branch_state, ..Switches::default() };
            let faults = vec![planned("restoreProjectBranch", 1, fault)];
            let outcome = play(&Script { faults, switches, ..Script::default() });
            assert_eq!(outcome.status, Some(RunStatus::Failed), "{fault}: {:?}", outcome.told);
            assert_eq!(report(&outcome).staging.as_deref(), Some(staging), "{fault}");
            assert_eq!(outcome.told[0].kind, "failed", "{fault}");
        }
    }
}

#[test]
fn a_backup_that_could_not_be_made_fails_the_run_whatever_it_has_left() {
    for failed_branch_state in [FailedBranchState::Stuck, FailedBranchState::Old] {
        for fault in [Fault::OperationFails, Fault::OperationErrs, Fault::OperationCancelling] {
            let switches = Switches { failed_branch_state, ..Switches::default() };
            let faults = vec![planned("createProjectBranch", 1, fault)];
            let outcome = play(&Script { faults, switches, ..Script::default() });
            assert_eq!(
                (outcome.status, outcome.deeds.1),
                (Some(RunStatus::Failed), 0),
                "{fault}: {:?}",
                outcome.told
            );
            assert_eq!(
                report(&outcome).staging.as_deref(),
                Some("Staging is untouched."),
                "{fault}"
            );
            assert!(
                outcome.told[0].text.contains("expected \"finished\""),
                "{fault}: {:?}",
                outcome.told
            );
        }
    }
}

/// A run that was told as failed, and whose restore lands afterwards, would leave staging
/// unverified.
#[test]
fn an_operation_that_failed_and_finishes_later_without_a_word_is_no_failure() {
    for call in ["createProjectBranch", "restoreProjectBranch"] {
        for fault in
            [Fault::OperationFinishesLater, Fault::OperationRetried, Fault::OperationSkipped]
        {
            let outcome =
                play(&Script { faults: vec![planned(call, 1, fault)], ..Script::default() });
            assert!(succeeded(&outcome), "{call} {fault}: {:?}", outcome.told);
            assert_eq!(outcome.deeds, (1, 1, 0), "{call} {fault}");
        }
    }
}

#[test]
fn a_compute_that_starts_slowly_costs_a_query_and_no_run() {
    for wake_ms in [0, 6_900, 7_100, 20_000] {
        let project: fn(&mut Model) = match wake_ms {
            0 => |model| model.durations.wake_ms = 0,
            6_900 => |model| model.durations.wake_ms = 6_900,
            7_100 => |model| model.durations.wake_ms = 7_100,
            _ => |model| model.durations.wake_ms = 20_000,
        };
        let outcome = play(&Script { project, ..Script::default() });
        assert!(succeeded(&outcome), "{wake_ms}: {:?}", outcome.told);
    }
}
