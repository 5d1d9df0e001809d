//! A backup that a rule keeps as a snapshot.

use firstlight::sync::checkpoint::RunStatus;
use neon_emulator::model::Switches;
use serde_json::{Value, json};
use simulation::faults::Fault;
use simulation::plan::Planned;
use simulation::run::Outcome;
use simulation::scene::keeps_weeks_as_snapshots;
use simulation::script::Script;

use crate::{count, planned, play, report, with_scene};

fn script() -> Script {
    Script { settings: keeps_weeks_as_snapshots, is_live: true, ..Script::default() }
}

fn with(faults: &[(&str, u32, Fault)]) -> Outcome {
    let faults: Vec<Planned> =
        faults.iter().map(|(action, nth, fault)| planned(action, *nth, *fault)).collect();
    play(&Script { faults, ..script() })
}

/// Returns what is on record of today's snapshot.
fn record(outcome: &Outcome) -> Value {
    serde_json::from_str(
        outcome.stored.get("backup/hub/20261121/snapshot").map_or("null", String::as_str),
    )
    .expect("we wrote it")
}

/// Returns what people were told of the snapshot.
fn told(outcome: &Outcome) -> Option<&str> {
    outcome.told.iter().find(|told| told.kind == "snapshot_failed").map(|told| told.text.as_str())
}

/// How often a snapshot was taken, restored, and the branch for that is left.
fn deeds(outcome: &Outcome) -> (usize, usize, bool) {
    let is_left = outcome.branches.iter().any(|name| name.starts_with("restore-test-"));
    (count(outcome, "createSnapshot"), count(outcome, "restoreSnapshot"), is_left)
}

#[test]
fn a_backup_that_a_rule_keeps_as_a_snapshot_is_taken_restored_compared_and_nothing_is_left_of_that()
{
    let outcome = play(&script());
    assert_eq!(outcome.status, Some(RunStatus::Succeeded));
    assert_eq!((deeds(&outcome), told(&outcome)), ((1, 1, false), None));
    let record = record(&outcome);
    assert_eq!(record["outcome"], json!({"status": "verified", "tables": 5, "rows": 1_500}));
    assert_eq!(
        (&record["name"], &record["slug"]),
        (&json!("backup-20261121"), &json!("firstlight-hub-20261121"))
    );
}

#[test]
fn a_snapshot_that_is_no_copy_is_told_and_does_not_count() {
    let outcome = with(&[("restoreSnapshot", 1, Fault::Damaged)]);
    assert_eq!(outcome.status, Some(RunStatus::Succeeded), "staging is a copy all the same");
    assert_eq!(
        (deeds(&outcome), &record(&outcome)["outcome"]["status"]),
        ((1, 1, false), &json!("failed"))
    );
    let text = told(&outcome).expect("it is told");
    assert!(
        text.starts_with(
            "backup-20261121 was to be kept by a snapshot, and is not: restored, it differs from \
                the backup: "
        ),
        "{text}"
    );
    assert!(text.contains("neondb: content of public.t5"), "{text}");
}

#[test]
fn a_position_outside_the_history_is_refused_by_name_before_anything_is_taken() {
    let outcome = play(&Script { project: |model| model.history_seconds = 5, ..script() });
    assert_eq!(outcome.status, Some(RunStatus::Succeeded));
    assert_eq!(deeds(&outcome), (0, 0, false));
    let text = told(&outcome).expect("it is told");
    let expected = "backup-20261121 was to be kept by a snapshot, and is not: its position \
        0/1000000 is outside the history of production, which goes back 5.0 s";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_plan_without_room_for_a_snapshot_is_told_with_the_name_of_the_key() {
    let outcome = play(&Script {
        project: |model| {
            model.limits.snapshots = 0;
            "free_v3".clone_into(&mut model.limits.subscription);
        },
        ..script()
    });
    assert_eq!(outcome.status, Some(RunStatus::Succeeded));
    let expected = "keep_weekly_tier: keep_weekly = 8 wants more snapshots than plan free_v3 \
        lets people ask for (1)";
    assert!(
        report(&outcome).warnings.iter().any(|warning| warning == expected),
        "{:?}",
        report(&outcome).warnings
    );
    assert_eq!(
        (
            deeds(&outcome),
            told(&outcome).is_some_and(|text| text.contains("SNAPSHOTS_LIMIT_EXCEEDED"))
        ),
        ((1, 0, false), true)
    );
}

#[test]
fn a_project_that_takes_snapshots_by_itself_is_told_of_the_overlap() {
    let outcome = play(&Script {
        project: |model| {
            let production = model.branches[0].id.clone();
            model.schedules.insert(production, json!([{"frequency": "daily", "hour": 5}]));
        },
        ..script()
    });
    assert_eq!(outcome.status, Some(RunStatus::Succeeded));
    let warnings = report(&outcome).warnings;
    assert!(
        warnings.iter().any(|warning| warning
            .contains("Neon takes snapshots of production by itself as well (daily)")),
        "{warnings:?}"
    );
}

#[test]
fn a_project_whose_snapshots_cannot_be_listed_syncs_and_prunes_all_the_same() {
    let refused: Vec<(&str, u32, Fault)> =
        (1..=6).map(|nth| ("listSnapshots", nth, Fault::Refused(404))).collect();
    let outcome = with(&refused);
    assert_eq!(outcome.status, Some(RunStatus::Succeeded));
    assert_eq!((deeds(&outcome), outcome.deeds), ((0, 0, false), (1, 1, 0)));
    assert!(
        !outcome.branches.iter().any(|name| name == "backup-20261119"),
        "what no rule holds goes: {:?}",
        outcome.branches
    );
    assert!(
        told(&outcome).is_some_and(|text| text.contains("list snapshots of")),
        "{:?}",
        told(&outcome)
    );
}

#[test]
fn a_snapshot_whose_reply_was_lost_is_found_by_its_slug_or_by_its_position() {
    for (snapshot_slugs, snapshots_tell_lsn) in [(true, false), (false, true)] {
        let switches = Switches { snapshot_slugs, snapshots_tell_lsn, ..Switches::default() };
        let faults = vec![
            planned("createSnapshot", 1, Fault::AppliedAndLost),
            planned("restoreSnapshot", 1, Fault::AppliedAndLost),
        ];
        let outcome = play(&Script { switches, faults, ..script() });
        assert_eq!((deeds(&outcome), told(&outcome)), ((1, 1, false), None), "{snapshot_slugs}");
        assert_eq!(record(&outcome)["outcome"]["status"], "verified", "{snapshot_slugs}");
    }
}

#[test]
fn a_snapshot_is_read_by_a_writer_where_neon_gives_no_reader_alone() {
    let switches = Switches { reader_without_writer: false, ..Switches::default() };
    let outcome = play(&Script { switches, ..script() });
    assert_eq!((deeds(&outcome), told(&outcome)), ((1, 1, false), None));
}

#[test]
fn what_goes_wrong_with_a_snapshot_changes_nothing_of_how_the_run_ended() {
    for fault in [Fault::Refused(422), Fault::OperationFails, Fault::OperationCancelled] {
        for action in ["createSnapshot", "restoreSnapshot"] {
            let outcome = with(&[(action, 1, fault)]);
            assert_eq!(
                (outcome.status, outcome.story.first().map(String::as_str)),
                (Some(RunStatus::Succeeded), Some("succeeded"))
            );
            assert!(told(&outcome).is_some(), "{action} {fault}");
        }
    }
}

#[test]
fn a_snapshot_that_failed_in_the_morning_is_tried_again_in_the_evening_and_that_is_told_once() {
    let told = |faults: Vec<Planned>| {
        with_scene(|scene| simulation::season::day_with_an_evening(scene, faults))
    };
    let once = told(vec![planned("restoreSnapshot", 1, Fault::Refused(422))]);
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    // A restore test that failed is an incident: the business day begins, then the snapshot is
    // verified after all.
    assert_eq!(
        once,
        (
            words(&["succeeded", "snapshot_failed", "escalated", "snapshot_verified", "resolved"]),
            Vec::new()
        )
    );
    let twice = told(vec![
        planned("restoreSnapshot", 1, Fault::Refused(422)),
        planned("restoreSnapshot", 2, Fault::Refused(422)),
    ]);
    assert_eq!(twice, (words(&["succeeded", "snapshot_failed", "escalated"]), Vec::new()));
}
