//! What Neon refuses, or does where a kinder emulator would refuse: names, points in time, readers,
//! and a staging that has become the project's default branch.

use firstlight::sync::checkpoint::RunStatus;
use neon_emulator::model::{Archiving, Refusal, Switches};
use simulation::faults::Fault;
use simulation::scene::keeps_weeks_as_snapshots;
use simulation::script::Script;

use crate::{count, planned, play, report, run_traced};

#[test]
fn a_staging_whose_name_leaves_no_room_for_what_it_held_is_refused_before_anything_is_made() {
    let named = |project| play(&Script { project, ..Script::default() });
    let outcome = named(|model| model.branches[1].name = "s".repeat(240));
    assert_eq!(
        (outcome.status, outcome.deeds),
        (Some(RunStatus::Failed), (0, 0, 0)),
        "{:?}",
        outcome.told
    );
    let reason = report(&outcome).reason.unwrap_or_default();
    assert!(reason.starts_with("staging_branch: the name of br-"), "{reason}");
    assert!(reason.contains("has 240 characters; allowed are up to 221"), "{reason}");
    // The longest that is allowed; characters count, not bytes.
    let outcome = named(|model| model.branches[1].name = "ß".repeat(221));
    assert_eq!(
        (outcome.status, outcome.deeds),
        (Some(RunStatus::Succeeded), (1, 1, 0)),
        "{:?}",
        outcome.told
    );
}

#[test]
fn a_backup_that_may_not_have_a_reader_alone_is_read_by_a_writer_whatever_words_refuse_it() {
    for (status, message) in [
        (422, "a read-only endpoint requires a read-write endpoint"),
        (400, "compute type is not allowed"),
        (409, "primary compute not found"),
        (412, "no primary"),
    ] {
        let lonely_reader = Refusal::new(status, message);
        let switches =
            Switches { reader_without_writer: false, lonely_reader, ..Switches::default() };
        let outcome = play(&Script { switches, ..Script::default() });
        assert_eq!(
            (outcome.status, outcome.deeds),
            (Some(RunStatus::Succeeded), (1, 1, 0)),
            "{status} {message}: {:?}",
            outcome.told
        );
        let warnings = report(&outcome).warnings;
        let is_told = |warning: &String| {
            warning.contains("a read-write endpoint is asked for instead")
                && warning.contains(message)
        };
        assert!(warnings.iter().any(is_told), "{warnings:?}");
    }
}

#[test]
fn a_refusal_that_cannot_be_about_the_reader_is_no_reason_to_try_a_writer() {
    let refused = |status| {
        play(&Script {
            faults: vec![planned("createProjectBranch", 1, Fault::Refused(status))],
            ..Script::default()
        })
    };
    for status in [401, 404] {
        let outcome = refused(status);
        assert_eq!(
            (outcome.status, count(&outcome, "createProjectBranch")),
            (Some(RunStatus::Failed), 1),
            "{status}"
        );
    }
    // Whatever else it was about is refused again, and fails the run with its own words.
    let faults =
        (1..=2).map(|nth| planned("createProjectBranch", nth, Fault::Refused(422))).collect();
    let outcome = play(&Script { faults, ..Script::default() });
    assert_eq!(
        (outcome.status, count(&outcome, "createProjectBranch")),
        (Some(RunStatus::Failed), 2)
    );
    assert!(
        report(&outcome).reason.is_some_and(|reason| reason.contains("refused by the simulation"))
    );
}

#[test]
fn a_staging_that_is_the_default_branch_by_now_is_neither_restored_nor_rolled_back() {
    // Neon would do it: the default branch can be restored onto, and this one may be production by
    // now.
    let outcome = run_traced("plain/content#1=staging_default/no_crash/fresh/one_tick");
    assert_eq!(
        (outcome.status, outcome.deeds),
        (Some(RunStatus::Cancelled), (1, 0, 0)),
        "{:?}",
        outcome.told
    );
    let outcome = run_traced("roll_back/catalogue#2=staging_default/no_crash/fresh/one_tick");
    assert_eq!(
        (outcome.status, outcome.deeds),
        (Some(RunStatus::Failed), (1, 1, 0)),
        "{:?}",
        outcome.told
    );
    let reason = report(&outcome).reason.unwrap_or_default();
    assert!(
        reason.contains("not rolled back, because it is the project's default branch by now"),
        "{reason}"
    );
}

#[test]
fn nothing_is_run_on_a_staging_that_is_the_default_branch_by_now() {
    let settings = |value: &mut serde_json::Value| {
        value["pairs"][0]["verification"]["after_restore"] =
            serde_json::json!({"sql": ["delete from public.t1"]});
    };
    let faults = vec![planned("catalogue", 2, Fault::StagingDefault)];
    let outcome = play(&Script { settings, faults, ..Script::default() });
    assert_eq!(
        (outcome.status, count(&outcome, "after_restore")),
        (Some(RunStatus::Failed), 0),
        "{:?}",
        outcome.told
    );
    assert!(
        report(&outcome)
            .reason
            .is_some_and(|reason| reason.contains("it is the project's default branch by now"))
    );
}

#[test]
fn a_staging_that_is_protected_by_now_ends_the_run_whatever_status_refuses_it() {
    for status in [400, 422, 423] {
        let switches =
            Switches { protected_target: Refusal::new(status, "no"), ..Switches::default() };
        for (action, nth) in [("listProjectEndpoints", 2), ("restoreProjectBranch", 1)] {
            let faults = vec![planned(action, nth, Fault::StagingProtected)];
            let outcome = play(&Script { switches: switches.clone(), faults, ..Script::default() });
            let ended = matches!(outcome.status, Some(RunStatus::Cancelled | RunStatus::Failed));
            assert!(
                ended && outcome.deeds == (1, 0, 0),
                "{status} {action}: {:?} {:?}",
                outcome.status,
                outcome.told
            );
        }
        let rolls_back = |value: &mut serde_json::Value| {
            value["pairs"][0]["on_mismatch"] = serde_json::json!("roll_back");
        };
        let faults = vec![
            planned("restoreProjectBranch", 1, Fault::Behind),
            planned("catalogue", 2, Fault::StagingProtected),
        ];
        let outcome = play(&Script {
            switches: switches.clone(),
            settings: rolls_back,
            faults,
            ..Script::default()
        });
        assert_eq!(outcome.deeds, (1, 1, 0), "{status}: {:?}", outcome.told);
        let reason = report(&outcome).reason.unwrap_or_default();
        assert!(
            reason.contains("not rolled back, because it is protected by now"),
            "{status}: {reason}"
        );
    }
}

#[test]
fn a_snapshot_is_compared_whether_or_not_its_branch_comes_with_an_endpoint() {
    for (snapshots_have_endpoints, made) in [(true, 0), (false, 1)] {
        for faults in [vec![], vec![planned("restoreSnapshot", 1, Fault::AppliedAndLost)]] {
            let switches = Switches { snapshots_have_endpoints, ..Switches::default() };
            let outcome = play(&Script {
                switches,
                faults,
                settings: keeps_weeks_as_snapshots,
                is_live: true,
                ..Script::default()
            });
            let record =
                outcome.stored.get("backup/hub/20261121/snapshot").map_or("", String::as_str);
            assert!(
                record.contains("\"status\":\"verified\""),
                "{snapshots_have_endpoints}: {record}"
            );
            assert_eq!(
                count(&outcome, "createProjectEndpoint"),
                made,
                "{snapshots_have_endpoints}"
            );
            assert!(
                !outcome.branches.iter().any(|name| name.starts_with("restore-test-")),
                "{:?}",
                outcome.branches
            );
        }
    }
}

#[test]
fn a_project_that_neon_has_archived_wakes_and_is_synced_as_ever() {
    for archived_source in [None, Some(Refusal::new(400, "ancestor is archived"))] {
        let archives = Some(Archiving { after_age_s: 3_600, after_idle_s: 3_600 });
        let switches = Switches { archives, archived_source, ..Switches::default() };
        let outcome = play(&Script { switches, ..Script::default() });
        assert_eq!(
            (outcome.status, outcome.deeds),
            (Some(RunStatus::Succeeded), (1, 1, 0)),
            "{:?}",
            outcome.told
        );
    }
}
