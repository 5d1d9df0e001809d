//! SQL that arrives when nobody waits for it any more: staging may be another run's by then.

use neon_emulator::model::Switches;
use serde_json::json;
use simulation::faults::Fault;
use simulation::run::Outcome;
use simulation::script::{Happening, Script};

use crate::{count, planned, play, report, succeeded};

const OWN: &str = "npg_stagingsown";

/// The day's run, and one that somebody starts twenty minutes later: what the first has sent may
/// arrive after that.
fn two_runs() -> Script {
    let crons = [0, 300, 600, 1_260].map(|second| (second, Happening::Cron));
    let happenings = crons.into_iter().chain([(1_200, Happening::Start)]).collect();
    Script { happenings, ..Script::default() }
}

fn with_after_restore(value: &mut serde_json::Value) {
    value["pairs"][0]["verification"] =
        json!({"after_restore": {"sql": ["update t1 set id = id"]}});
}

/// Returns how many runs of the day succeeded.
fn good_runs(outcome: &Outcome) -> usize {
    outcome.runs.iter().filter(|(_, is_good)| *is_good).count()
}

#[test]
fn configured_sql_that_arrives_after_the_next_restore_changes_nothing() {
    for fault in [Fault::Zombie, Fault::OldZombie] {
        let faults = vec![planned("after_restore", 1, fault)];
        let outcome = play(&Script { settings: with_after_restore, faults, ..two_runs() });
        assert_eq!(good_runs(&outcome), 2, "{fault}: {:?}", outcome.runs);
        assert_eq!(count(&outcome, "after_restore"), 3, "once in vain, once in each run");
        assert!(
            outcome.trace.iter().any(|line| line.contains("zombie query")),
            "{fault}: it has arrived"
        );
    }
}

/// The first run gives up on a role. The second finds production's password on both sides, and
/// leaves it: what the first has sent logs in with that one.
#[test]
fn a_password_that_arrives_after_the_next_restore_is_not_set() {
    let faults = vec![
        planned("give_password", 1, Fault::OldZombie),
        planned("give_password", 2, Fault::NotAllowed),
        planned("give_password", 3, Fault::NotAllowed),
    ];
    let outcome = play(&Script { faults, ..two_runs() });
    assert_eq!(good_runs(&outcome), 2, "{:#?}", outcome.trace);
    assert_ne!(outcome.staging_password.as_deref(), Some(OWN));
}

#[test]
fn a_password_that_arrives_while_its_own_run_has_staging_is_set_once() {
    for passwords_from_source in [true, false] {
        let switches = Switches { passwords_from_source, ..Switches::default() };
        let faults = vec![planned("give_password", 1, Fault::Zombie)];
        let outcome = play(&Script { faults, switches, ..Script::default() });
        assert!(succeeded(&outcome), "{:?}", outcome.story);
        assert_eq!(outcome.staging_password.as_deref(), Some(OWN));
    }
}

/// The compute falls asleep between the look at it and what is sent to it: another one answers, and
/// refuses.
#[test]
fn a_compute_that_was_started_anew_is_asked_again_before_it_is_written_to() {
    for action in ["give_password", "after_restore"] {
        let faults = vec![planned(action, 1, Fault::Restarted)];
        let outcome = play(&Script { settings: with_after_restore, faults, ..Script::default() });
        assert!(succeeded(&outcome), "{action}: {:?} {:?}", outcome.story, report(&outcome).reason);
        assert_eq!(outcome.staging_password.as_deref(), Some(OWN), "{action}");
        let refused =
            outcome.trace.iter().filter(|line| line.contains("another compute answers")).count();
        assert_eq!(refused, 1, "{action}");
    }
}
