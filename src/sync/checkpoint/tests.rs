//! What a checkpoint keeps, and what of it an older version reads.

use super::*;
use crate::fixtures::started;

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

#[test]
fn a_run_is_left_to_the_tick_that_drives_it_for_the_longest_wall_budget_and_a_minute() {
    let now = at("2026-11-21T10:00:00Z");
    let is_driven =
        |until: &str| Checkpoint { driven_until: Some(at(until)), ..started() }.is_driven(now);
    assert!(!started().is_driven(now), "nobody drives it");
    assert_eq!(
        (is_driven("2026-11-21T10:00:00Z"), is_driven("2026-11-21T10:00:00.001Z")),
        (false, true)
    );
    assert_eq!(
        (is_driven("2026-11-21T10:15:00Z"), is_driven("2026-11-21T10:15:00.001Z")),
        (true, false)
    );
}

#[test]
fn a_hold_lasts_until_its_end_or_until_it_is_released() {
    let now = at("2026-11-21T10:00:00Z");
    let is_in_force = |until: Option<&str>| {
        Hold { reason: "demo".to_owned(), until: until.map(at) }.is_in_force(now)
    };
    assert!(is_in_force(None) && is_in_force(Some("2026-11-21T10:00:00.001Z")));
    assert!(
        !is_in_force(Some("2026-11-21T10:00:00Z")) && !is_in_force(Some("2026-11-20T10:00:00Z"))
    );
}

#[test]
fn a_step_is_tried_until_the_deadline_and_no_longer() {
    let waiting = Checkpoint { not_before: Some(at("2026-11-21T10:59:00Z")), ..started() };
    assert!(waiting.is_trying(at("2026-11-21T10:59:59.999Z")));
    assert!(!waiting.is_trying(at("2026-11-21T11:00:00Z")));
    assert!(!started().is_trying(at("2026-11-21T10:30:00Z")), "it is not waiting");
}
