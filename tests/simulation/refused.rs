//! What Neon refuses, or does where a kinder emulator would refuse: names, points in time, readers,
//! and a staging that has become the project's default branch.

use firstlight::sync::checkpoint::RunStatus;
use simulation::script::Script;

use crate::{play, report};

#[test]
fn a_staging_whose_name_leaves_no_room_for_what_it_held_is_refused_before_anything_is_made() {
    let named = |project| play(&Script { project, ..Script::default() });
    let outcome = named(|model| model.branches[1].name = "s".repeat(240));
    assert_eq!((outcome.status, outcome.deeds), (Some(RunStatus::Failed), (0, 0, 0)), "{:?}", outcome.told);
    let reason = report(&outcome).reason.unwrap_or_default();
    assert!(reason.starts_with("staging_branch: the name of br-"), "{reason}");
    assert!(reason.contains("has 240 characters; allowed are up to 221"), "{reason}");
    // The longest that is allowed; characters count, not bytes.
    let outcome = named(|model| model.branches[1].name = "ß".repeat(221));
    assert_eq!((outcome.status, outcome.deeds), (Some(RunStatus::Succeeded), (1, 1, 0)), "{:?}", outcome.told);
}
