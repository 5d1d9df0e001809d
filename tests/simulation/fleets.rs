//! Several pairs in one Worker: what one of them takes from the others.

use serde_json::{Value, json};
use simulation::fleet::{Fleet, Trouble};

/// A plan that is paid for: the budget of subrequests is no limit.
fn paid(value: &mut Value) {
    value["subrequest_budget"] = json!(1_000);
}

fn is_good(fleet: &Fleet, pair: &str) -> bool {
    fleet.kinds(pair).last().is_some_and(|kind| kind == "succeeded")
}

/// Counts the pairs whose run has succeeded.
fn good(fleet: &Fleet, count: usize) -> usize {
    (0..count).filter(|number| is_good(fleet, &format!("pair-{number}"))).count()
}

/// Case 34: two pairs with the same times, the first of which never gets through.
#[test]
fn a_pair_that_nobody_can_read_does_not_take_the_morning_of_another() {
    for trouble in [Trouble::Asleep, Trouble::Slow(45)] {
        for change in [(|_| {}) as fn(&mut Value), paid] {
            let mut fleet = Fleet::new(2, &change);
            fleet.trouble(0, trouble);
            fleet.ticks("2026-11-21T10:00:00Z", "2026-11-21T13:00:00Z");
            assert!(is_good(&fleet, "pair-1"), "{trouble:?}: {:?} {:#?}", fleet.told("pair-1"), fleet.log());
            assert_eq!(fleet.kinds("pair-1"), ["succeeded"], "{trouble:?}: in time, and nothing else is told");
            assert!(!fleet.kinds("pair-0").contains(&"missed".to_owned()), "{trouble:?}: {:?}", fleet.told("pair-0"));
            assert_eq!(fleet.violations(), Vec::<String>::new(), "{trouble:?}");
        }
    }
}

/// Case 34: twenty-five healthy pairs with one window of an hour.
#[test]
fn twenty_five_pairs_of_one_window_are_all_driven_where_the_plan_has_room() {
    let mut fleet = Fleet::new(25, &paid);
    fleet.ticks("2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z");
    assert_eq!(good(&fleet, 25), 25, "{:#?}", fleet.log());
    assert_eq!(fleet.violations(), Vec::<String>::new());
}
