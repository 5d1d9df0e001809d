//! What Neon does after it has accepted a call, and what others let it do meanwhile.

use firstlight::sync::checkpoint::RunStatus;
use simulation::faults::Fault;
use simulation::run::Outcome;
use simulation::scene::keeps_weeks_as_snapshots;
use simulation::script::{Happening, Script};

use crate::{count, planned, play, report, run_traced, succeeded};

/// More operations than the longest page holds that a listing was ever asked for.
const MANY: usize = 250;

/// Plays a morning in which every few seconds Neon does more operations elsewhere than one page of
/// a listing holds.
fn bustling(script: Script) -> Outcome {
    let bustle = (0..60).map(|number| (2 * number + 1, Happening::Bustle(MANY)));
    let happenings = script.happenings.iter().cloned().chain(bustle).collect();
    play(&Script { happenings, ..script })
}

/// Issue 19 B: a restored staging was told as failed, because a page of the newest hundred did not
/// show its operations.
#[test]
fn a_restore_behind_more_than_a_hundred_newer_operations_is_followed_to_its_end() {
    let outcome = bustling(Script::default());
    assert!(succeeded(&outcome), "{:?}", outcome.told);
    assert_eq!(
        (outcome.deeds, outcome.ticks.len()),
        ((1, 1, 0), 2),
        "the backup, the restore, the pruning: in one tick"
    );
    assert_eq!(count(&outcome, "listProjectOperations"), 0, "what has an id is asked for by it");
}

#[test]
fn a_snapshot_and_its_test_behind_a_hundred_newer_operations_are_followed_to_their_ends() {
    let outcome = bustling(Script { settings: keeps_weeks_as_snapshots, ..Script::default() });
    assert!(succeeded(&outcome), "{:?}", outcome.told);
    assert_eq!((count(&outcome, "createSnapshot"), count(&outcome, "restoreSnapshot")), (1, 1));
    assert_eq!(count(&outcome, "listProjectOperations"), 0);
    assert!(
        !outcome.branches.iter().any(|name| name.starts_with("restore-test-")),
        "{:?}",
        outcome.branches
    );
}

#[test]
fn an_endpoint_that_is_made_again_and_a_pruning_need_no_listing_of_operations() {
    let faults = vec![planned("catalogue", 1, Fault::ReaderDeleted)];
    let outcome = bustling(Script { faults, ..Script::default() });
    assert!(succeeded(&outcome), "{:?}", outcome.told);
    assert_eq!(
        (count(&outcome, "createProjectEndpoint"), count(&outcome, "listProjectOperations")),
        (1, 0)
    );
    assert!(!outcome.branches.contains(&"backup-20261119".to_owned()), "{:?}", outcome.branches);
}

#[test]
fn a_reply_that_was_lost_is_looked_for_on_every_page_since_the_call() {
    for call in ["createProjectBranch", "restoreProjectBranch"] {
        let faults = vec![planned(call, 1, Fault::AppliedAndLost)];
        let outcome = bustling(Script { faults, ..Script::default() });
        assert!(succeeded(&outcome), "{call}: {:?}", outcome.told);
        assert_eq!(outcome.deeds, (1, 1, 0), "{call}");
        assert!(count(&outcome, "listProjectOperations") >= 2, "{call}: a page holds 200");
        // One that failed is found, too, behind those that came later.
        let faults = vec![
            planned(call, 1, Fault::OperationFails),
            planned("getProjectOperation", 1, Fault::Refused(404)),
        ];
        let outcome = bustling(Script { faults, ..Script::default() });
        assert_eq!(outcome.status, Some(RunStatus::Failed), "{call}: {:?}", outcome.told);
        assert!(
            outcome.told[0].text.contains("ended \"failed\", expected \"finished\""),
            "{call}: {:?}",
            outcome.told
        );
    }
}

/// Neon may have purged an operation, or not show it yet: the branch's own operations and its state
/// decide.
#[test]
fn an_operation_that_is_answered_with_404_is_looked_for_in_the_listing() {
    for nth in 1..=2 {
        let outcome = run_traced(&format!(
            "plain/getProjectOperation#{nth}=refused_404/no_crash/fresh/one_tick"
        ));
        assert!(succeeded(&outcome), "{nth}: {:?}", outcome.told);
        assert_eq!(count(&outcome, "listProjectOperations"), 1, "{nth}");
    }
}

#[test]
fn a_plain_morning_asks_for_one_operation_of_each_call() {
    let outcome = run_traced("plain/-/no_crash/fresh/one_tick");
    assert_eq!(
        (count(&outcome, "getProjectOperation"), count(&outcome, "listProjectOperations")),
        (2, 0)
    );
}

/// Returns how long the day's run took.
fn ended_after(outcome: &Outcome) -> chrono::TimeDelta {
    let report = report(outcome);
    report.ended_at.expect("it has ended") - report.started_at
}

/// What Neon says of a failed operation need not be its last word.
#[test]
fn an_operation_that_failed_is_told_after_it_was_waited_for_and_not_before() {
    for call in ["createProjectBranch", "restoreProjectBranch"] {
        let outcome =
            run_traced(&format!("plain/{call}#1=operation_fails/no_crash/fresh/one_tick"));
        assert_eq!(report(&outcome).status, RunStatus::Failed);
        let ended = ended_after(&outcome);
        assert!((180..240).contains(&ended.num_seconds()), "{call}: {ended}");
        // One that was cancelled has ended.
        let outcome =
            run_traced(&format!("plain/{call}#1=operation_cancelled/no_crash/fresh/one_tick"));
        let ended = ended_after(&outcome);
        assert!(ended.num_seconds() < 30, "{call}: {ended}");
    }
}
