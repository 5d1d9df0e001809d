//! Plans that are full: no run is blocked by what another has left. `cargo xtask sim --rows` tries
//! every trouble in every row.

use simulation::rows::{FAILURES, LONGEST, ROWS, Trouble};
use simulation::season::{Outsider, days_with_an_outsider};

use super::with_scene;

/// Lives through trouble in a row, and returns the branches of which people were told that they
/// gave way.
fn lived(row: &str, troubles: impl IntoIterator<Item = Trouble>) -> Vec<Vec<String>> {
    with_scene(|scene| {
        let row = ROWS.iter().find(|other| other.name == row).expect("a row of the table");
        let full = row.fill(scene);
        let mut told = Vec::new();
        for trouble in troubles {
            let aftermath = full.live(&trouble);
            assert!(aftermath.violations.is_empty(), "{trouble:?}: {:#?}", aftermath.violations);
            told.push(aftermath.gave_way);
        }
        told
    })
}

fn fails(which: usize, times: u32) -> Trouble {
    Trouble { failing: Some((which, times)), ..Trouble::default() }
}

fn started_at(manual: &[u32]) -> Trouble {
    Trouble { manual: manual.to_vec(), ..Trouble::default() }
}

/// As in case 10: three failed mornings in a row under the README's own Free plan, of each step.
#[test]
fn failures_of_any_step_on_up_to_three_mornings_in_a_row_never_block_a_later_run_on_free() {
    lived("Free", (0..FAILURES.len()).map(|which| fails(which, LONGEST)));
}

/// As in case 10, on the other rows.
#[test]
fn three_mornings_that_fail_never_block_a_later_run_on_launch_and_scale() {
    let cannot_be_read = FAILURES
        .iter()
        .position(|failure| failure.name == "the backup cannot be read")
        .expect("it is there");
    let differs = FAILURES
        .iter()
        .position(|failure| failure.name == "staging differs and is rolled back")
        .expect("it is there");
    for row in ["Launch", "Scale"] {
        lived(row, [fails(cannot_be_read, LONGEST), fails(differs, LONGEST)]);
    }
}

/// As in case 39: one run that somebody starts at ten, and the next morning at five. At other hours
/// as well.
#[test]
fn a_run_that_somebody_starts_at_any_hour_never_blocks_the_next_morning() {
    lived("Free", [4, 10, 23].map(|hour| started_at(&[hour])));
    lived("Launch", [started_at(&[10])]);
}

/// As in case 39: eleven runs within a day on Scale, and one at every hour where there is room for
/// none.
#[test]
fn runs_that_people_start_at_every_hour_block_neither_each_other_nor_the_next_morning() {
    lived("Scale", [started_at(&[8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18])]);
    lived("Free", [started_at(&(0..24).collect::<Vec<_>>())]);
}

/// A morning that fails, what `run-failed.md` recommends then, and a second time within the hour.
#[test]
fn a_failed_morning_and_the_runs_that_people_start_after_it_never_block_the_next() {
    let cannot_be_read = FAILURES
        .iter()
        .position(|failure| failure.name == "the backup cannot be read")
        .expect("it is there");
    lived(
        "Free",
        [Trouble {
            failing: Some((cannot_be_read, 2)),
            manual: vec![5, 6],
            rehearsed: vec![6, 10],
        }],
    );
}

/// As in case 10: one failed morning.
#[test]
fn people_are_told_the_name_of_what_gave_way_and_why_it_was_kept() {
    let cannot_be_read = FAILURES
        .iter()
        .position(|failure| failure.name == "the backup cannot be read")
        .expect("it is there");
    let told = lived("Free", [fails(cannot_be_read, 1)]);
    let told: Vec<&str> = told[0].iter().map(String::as_str).collect();
    let expected = [
        "backup-20261124 was deleted to make room for this run; it was kept because of: \
            keep_last: number 5 of 5",
        "backup-20261129 was deleted to make room for this run; it was kept because of: not \
            verified: kept until somebody deletes it, because keep_failed is not set",
    ];
    assert_eq!(
        told, expected,
        "on the next morning, and on the one after that, when there is a newer one"
    );
}

/// Letter G: the sweep in the evening took a read-only endpoint for the run's own, because it was
/// made within two hours of the backup.
#[test]
fn an_endpoint_that_somebody_adds_an_hour_after_a_backup_is_not_swept_with_the_runs_own() {
    let left = with_scene(|scene| days_with_an_outsider(scene, 6, Outsider::AddsEndpoint));
    assert!(left.violations.is_empty(), "{:#?}", left.violations);
    assert_eq!(
        left.with_readers,
        ["backup-20261121"],
        "of the six days nothing of ours is left, and what holds the compute stays"
    );
}

/// Letter G: what staging held before is named after the name that it had then.
#[test]
fn what_staging_held_goes_by_the_rules_after_somebody_has_renamed_staging() {
    let left = with_scene(|scene| days_with_an_outsider(scene, 6, Outsider::RenamesStaging));
    assert!(left.violations.is_empty(), "{:#?}", left.violations);
    let displaced: Vec<&String> =
        left.branches.iter().filter(|name| name.contains("-of-")).collect();
    assert_eq!(displaced, ["preview-of-20261125"], "{:?}", left.branches);
}
