//! Scenarios by name: what the design promises, and every bug that the simulation found.
//!
//! Each fails with the command that replays it. None of them looks at the Worker's own records.

mod calendar;
mod clocks;
mod comparison;
mod computes;
mod days;
mod delivery;
mod drift;
mod endings;
mod errors;
mod fleets;
mod full;
mod late_sql;
mod lost;
mod operations;
mod overtaken;
mod passwords;
mod post;
mod refused;
mod snapshots;
mod ticks;
mod versions;

use std::sync::LazyLock;

use firstlight::record::{self, Report};
use firstlight::sync::checkpoint::RunStatus;
use serde::de::DeserializeOwned;
use simulation::faults::Fault;
use simulation::grid::{self, Next};
use simulation::outcomes;
use simulation::plan::{Crash, Day, Memory, Plan, Planned};
use simulation::run::Outcome;
use simulation::scene::Scene;
use simulation::script::{Answers, Happening, Script};

/// The base of every scenario is made once for each thread of the tests.
fn with_scene<T>(act: impl FnOnce(&Scene) -> T) -> T {
    thread_local! {
        static SCENE: LazyLock<Scene> = LazyLock::new(Scene::new);
    }
    SCENE.with(|scene| act(scene))
}

/// Runs a plan; a violation fails the test.
fn run(plan: &str) -> Outcome {
    run_with(plan, false)
}

/// Does the same, and keeps what happened and what the store holds.
fn run_traced(plan: &str) -> Outcome {
    run_with(plan, true)
}

fn run_with(plan: &str, is_traced: bool) -> Outcome {
    let parsed: Plan = plan.parse().expect("the plan is written as it is printed");
    let outcome = with_scene(|scene| scene.run(&parsed, is_traced));
    assert!(
        outcome.violations.is_empty(),
        "{:#?}\ncargo xtask sim --replay '{plan}'",
        outcome.violations
    );
    outcome
}

/// Plays a script; a violation fails the test.
fn play(script: &Script) -> Outcome {
    let outcome = with_scene(|scene| scene.play(script));
    assert!(outcome.violations.is_empty(), "{:#?}\n{script:?}", outcome.violations);
    outcome
}

/// Reads what the store holds under a key at the end.
fn stored<T: DeserializeOwned>(outcome: &Outcome, key: &str) -> T {
    let text = outcome
        .stored
        .get(key)
        .unwrap_or_else(|| panic!("{key} is not in {:?}", outcome.stored.keys()));
    record::decode(key, text).expect("a record of ours")
}

/// Returns what is recorded of today's run.
fn report(outcome: &Outcome) -> Report {
    stored(outcome, "result/hub/20261121")
}

/// Counts the actions of a name.
fn count(outcome: &Outcome, action: &str) -> usize {
    outcome.trace.iter().filter(|line| line.contains(&format!("] {action}#"))).count()
}

fn planned(action: &str, nth: u32, fault: Fault) -> Planned {
    Planned { action: action.to_owned(), nth, fault }
}

fn succeeded(outcome: &Outcome) -> bool {
    outcome.status == Some(RunStatus::Succeeded) && outcome.story == ["succeeded"]
}

#[test]
fn a_morning_on_which_nothing_goes_wrong_succeeds_with_one_backup_and_one_restore() {
    let outcome = run("plain/-/no_crash/fresh/one_tick");
    assert!(succeeded(&outcome), "{:?}", outcome.story);
    assert_eq!(outcome.deeds, (1, 1, 0));
}

#[test]
fn a_staging_that_is_written_to_is_compared_as_it_is_and_succeeds() {
    let outcome = run("in_use/-/no_crash/fresh/one_tick");
    assert!(succeeded(&outcome), "{:?}", outcome.story);
    assert!(
        !outcome.branches.iter().any(|name| name.contains("-check-")),
        "{:?}",
        outcome.branches
    );
}

#[test]
fn a_copy_that_is_no_copy_is_rolled_back_once_and_told_as_failed() {
    let outcome = run("roll_back/-/no_crash/fresh/one_tick");
    assert_eq!((outcome.status, outcome.deeds), (Some(RunStatus::Failed), (1, 1, 1)));
    assert_eq!(outcome.story, ["failed"]);
}

#[test]
fn a_run_that_has_forgotten_its_own_roll_back_does_not_restore_again() {
    for place in ["deleteProjectEndpoint#1", "kv:result#1", "webhook#1", "restoreProjectBranch#2"] {
        let outcome = run(&format!("roll_back/{place}=nothing/crash_at_once/empty/one_tick"));
        assert_eq!(outcome.deeds, (1, 1, 1), "{place}");
    }
}

#[test]
fn a_restore_that_was_applied_and_lost_is_not_repeated() {
    for memory in ["fresh", "stale", "empty"] {
        for crash in ["no_crash", "crash_at_once", "crash_before_save", "crash_after_save"] {
            let outcome = run(&format!(
                "plain/restoreProjectBranch#1=applied_and_lost/{crash}/{memory}/two_ticks"
            ));
            assert_eq!(
                (outcome.deeds, outcome.status),
                ((1, 1, 0), Some(RunStatus::Succeeded)),
                "{crash} {memory}"
            );
        }
    }
}

#[test]
fn a_zombie_of_the_create_or_the_restore_finds_its_name_taken() {
    for call in ["createProjectBranch", "restoreProjectBranch"] {
        for fault in ["zombie", "old_zombie"] {
            let outcome = run(&format!("plain/{call}#1={fault}/no_crash/fresh/one_tick"));
            assert_eq!(
                (outcome.deeds, outcome.status),
                ((1, 1, 0), Some(RunStatus::Succeeded)),
                "{call} {fault}"
            );
        }
    }
}

/// Plays a morning whose success is told by a later tick, because the budget of the one before is
/// spent with the verdict.
fn told_late(fault: Fault, crash: Crash) -> Outcome {
    let faults = vec![planned("listProjectBranches", 7, fault)];
    play(&Script { faults, crash, subrequests: Some(23), ..Script::default() })
}

#[test]
fn a_success_that_was_not_told_at_once_is_looked_at_again_before_it_is_told() {
    // The budget is spent between the verdict and the notice; meanwhile somebody restores staging.
    let outcome = told_late(Fault::StagingRestored, Crash::Never);
    assert_eq!(outcome.status, Some(RunStatus::Superseded), "{:?}", outcome.story);
    assert_eq!(outcome.story, ["superseded"]);
}

#[test]
fn yesterdays_notice_is_not_sent_again_this_morning() {
    let outcome = run("plain/-/no_crash/fresh/one_tick");
    let told: Vec<(&str, &str)> =
        outcome.told.iter().map(|told| (told.run.as_str(), told.kind.as_str())).collect();
    assert_eq!(told, [("20261121", "succeeded")]);
}

#[test]
fn a_backup_is_deleted_on_the_day_on_which_the_branch_that_pinned_it_is() {
    let outcome = run("plain/-/no_crash/fresh/one_tick");
    assert!(!outcome.branches.contains(&"backup-20261119".to_owned()), "{:?}", outcome.branches);
    assert!(
        outcome.branches.contains(&"backup-20260101".to_owned()),
        "somebody else's stays: {:?}",
        outcome.branches
    );
}

#[test]
fn a_success_beside_a_failure_that_another_tick_has_told_is_corrected() {
    let outcome = run("plain/getProject#1=refused_401/crash_before_save/stale/one_tick");
    assert_eq!(outcome.story, ["failed", "succeeded", "resolved", "corrected"]);
}

#[test]
fn a_success_after_a_failure_is_told_as_a_correction_of_that_instant() {
    let outcome = told_late(Fault::Refused(412), Crash::BeforeSave);
    assert_eq!(outcome.story, ["failed", "corrected"]);
}

/// Found by the grid when the listing came before the look at roles: the run failed, and staging
/// stayed unverified.
#[test]
fn a_displaced_branch_that_is_deleted_before_its_roles_are_read_costs_the_passwords_alone() {
    let outcome =
        run_traced("plain/listProjectEndpoints#3=displaced_deleted/no_crash/fresh/one_tick");
    assert_eq!(
        (outcome.deeds, outcome.status),
        ((1, 1, 0), Some(RunStatus::Succeeded)),
        "{:?}",
        outcome.story
    );
    let warnings = report(&outcome).warnings;
    assert!(
        warnings.iter().any(|text| text.contains("the displaced branch was not found")),
        "{warnings:?}"
    );
}

#[test]
fn a_backup_that_somebody_renamed_is_known_by_its_annotation_and_not_made_again() {
    let outcome = run("plain/content#1=backup_renamed/no_crash/empty/two_ticks");
    assert_eq!(outcome.deeds.0, 1);
}

#[test]
fn a_renamed_staging_is_restored_once_though_the_first_restore_arrives_late() {
    let outcome = run(
        "plain/listProjectEndpoints#2=staging_renamed+restoreProjectBranch#1=zombie/no_crash/fresh/one_tick",
    );
    assert_eq!((outcome.deeds, outcome.status), ((1, 1, 0), Some(RunStatus::Succeeded)));
}

#[test]
fn a_refusal_says_nothing_of_the_restore_that_was_sent_before() {
    // The first has an hour to arrive; the second is refused, because somebody's own restore is
    // under way, and the third would have another name.
    let outcome = run(
        "plain/restoreProjectBranch#1=old_zombie+listProjectEndpoints#3=staging_restored/no_crash/fresh/one_tick",
    );
    assert_eq!(
        (outcome.status, outcome.deeds),
        (Some(RunStatus::Cancelled), (1, 1, 0)),
        "{:?}",
        outcome.story
    );
    // Nothing was applied when every request was refused: the next may have another name.
    let outcome = run(
        "plain/restoreProjectBranch#1=refused_423+listProjectEndpoints#3=staging_restored/no_crash/fresh/one_tick",
    );
    assert_eq!(
        (outcome.status, outcome.deeds),
        (Some(RunStatus::Succeeded), (1, 1, 0)),
        "{:?}",
        outcome.story
    );
}

#[test]
fn a_backup_that_somebody_deletes_while_another_is_being_deleted_is_not_our_doing() {
    run(
        "plain/listProjectBranches#5=staging_deleted+deleteProjectBranch#2=backup_deleted/no_crash/fresh/one_tick",
    );
}

#[test]
fn a_restore_that_may_still_arrive_is_not_sent_under_another_name() {
    let outcome = run(
        "plain/listProjectEndpoints#2=staging_restored+restoreProjectBranch#1=zombie/no_crash/fresh/one_tick",
    );
    assert_eq!(outcome.deeds, (1, 1, 0), "the late one alone");
    assert_eq!(outcome.status, Some(RunStatus::Cancelled));
}

#[test]
fn an_endpoint_that_somebody_deleted_is_made_again() {
    let outcome = run("plain/content#1=reader_deleted/no_crash/fresh/one_tick");
    assert!(succeeded(&outcome), "{:?}", outcome.story);
}

#[test]
fn a_run_whose_staging_somebody_restored_sends_no_failure() {
    let outcome = run("plain/catalogue#2=staging_restored/no_crash/fresh/one_tick");
    assert_eq!(outcome.story, ["superseded"]);
}

#[test]
fn an_outage_of_twenty_minutes_is_waited_for_as_long_as_the_deadline_allows() {
    for place in
        ["getProject#1", "createProjectBranch#1", "restoreProjectBranch#1", "listProjectBranches#5"]
    {
        let outcome = run(&format!("plain/{place}=outage/no_crash/fresh/one_tick"));
        assert!(succeeded(&outcome), "{place}: {:?}", outcome.story);
    }
}

#[test]
fn an_outage_beyond_the_deadline_fails_the_run_at_the_deadline() {
    let outcome = run("plain/createProjectBranch#1=long_outage/no_crash/fresh/one_tick");
    assert_eq!(outcome.status, Some(RunStatus::Failed));
    assert_eq!(outcome.deeds, (0, 0, 0));
}

#[test]
fn a_smoke_test_that_fails_once_is_tried_again() {
    assert!(succeeded(&run("plain/smoke#1=lost/no_crash/fresh/one_tick")));
    assert!(succeeded(&run("plain/smoke#1=refused_500/no_crash/fresh/one_tick")));
}

#[test]
fn an_end_that_cannot_be_recorded_is_told_as_stuck_and_ends_when_the_store_is_back() {
    let outcome =
        run("plain/getProject#1=refused_401+kv:notice#1=store_out/no_crash/fresh/one_tick");
    assert_eq!(outcome.story.first().map(String::as_str), Some("stuck"), "{:?}", outcome.story);
    assert_eq!(
        outcome.told.iter().filter(|told| told.kind == "stuck").count(),
        1,
        "{:?}",
        outcome.told
    );
    assert_eq!(outcome.status, Some(RunStatus::Succeeded), "the next tick took it up again");
}

#[test]
fn a_notice_whose_tick_was_killed_is_forgotten_by_no_outbox() {
    run("plain/webhook#1=refused_500/crash_after_save/fresh/two_ticks");
}

#[test]
fn a_clock_that_was_ahead_holds_nobody_up() {
    for place in [
        "createProjectBranch#1",
        "restoreProjectBranch#1",
        "deleteProjectBranch#1",
        "listProjectBranches#1",
    ] {
        for crash in ["no_crash", "crash_after_save"] {
            let outcome = run(&format!("plain/{place}=clock_ahead/{crash}/fresh/one_tick"));
            assert!(succeeded(&outcome), "{place} {crash}: {:?}", outcome.story);
            let last = outcome
                .ticks
                .iter()
                .filter(|tick| tick.summary.driven.is_some())
                .map(|tick| tick.began_at)
                .max();
            assert!(
                last < Some("2026-11-21T10:20:00Z".parse().expect("an instant")),
                "{place} {crash}: {last:?}"
            );
        }
    }
}

#[test]
fn a_clock_that_jumps_back_does_not_make_a_tick_act_on_what_it_saw_long_ago() {
    let outcome = run(
        "plain/kv:checkpoint#2=nothing+listProjectEndpoints#2=clock_back/no_crash/fresh/one_tick",
    );
    assert!(succeeded(&outcome), "{:?}", outcome.story);
}

#[test]
fn a_configuration_that_is_deployed_before_the_restore_cancels_the_run_in_its_next_tick() {
    let outcome = run("plain/content#1=deployed/crash_after_save/fresh/one_tick");
    assert_eq!(outcome.status, Some(RunStatus::Cancelled));
    assert_eq!(outcome.deeds, (1, 0, 0));
}

#[test]
fn two_ticks_at_once_make_one_backup_and_one_restore_though_the_store_shows_neither_the_other() {
    for place in [
        "createProjectBranch#1",
        "restoreProjectBranch#1",
        "content#1",
        "give_password#1",
        "catalogue#2",
        "webhook#1",
    ] {
        let outcome = run(&format!("plain/{place}=nothing/no_crash/stale/two_ticks"));
        assert_eq!(outcome.deeds, (1, 1, 0), "{place}");
        assert!(outcome.story.contains(&"succeeded".to_owned()), "{place}: {:?}", outcome.story);
    }
}

#[test]
fn two_runs_at_once_never_mix_and_the_one_that_is_overtaken_says_so() {
    let mut overtaken = 0;
    for delay in 0..20 {
        let happenings = vec![(0, Happening::Cron), (delay, Happening::Start)];
        let outcome = play(&Script { view: Answers::Stale, happenings, ..Script::default() });
        let mut ends: Vec<(&str, &str)> =
            outcome.told.iter().map(|told| (told.run.as_str(), told.kind.as_str())).collect();
        ends.sort_unstable();
        ends.dedup();
        // One that restores after the other was told of its success has not been at once with it.
        // One whose checkpoint the store refused was answered with 503 and never began.
        let is_good = |(_, kind): &(&str, &str)| matches!(*kind, "succeeded" | "superseded");
        assert!(!ends.is_empty() && ends.iter().all(is_good), "{delay}: {ends:?}");
        overtaken += usize::from(ends.iter().any(|(_, kind)| *kind == "superseded"));
    }
    assert!(overtaken >= 2, "{overtaken} of 20 were overtaken");
}

#[test]
fn of_two_runs_that_are_accepted_at_once_the_one_that_loses_its_place_is_told_as_well() {
    // Two requests that reach two instances: one that knows of the first refuses the second.
    let happenings =
        vec![(0, Happening::Rehearse), (1, Happening::NewInstance), (2, Happening::Rehearse)];
    let outcome = play(&Script { view: Answers::Stale, happenings, ..Script::default() });
    let mut runs: Vec<&str> =
        outcome.told.iter().map(|told| told.run.as_str()).filter(|run| run.contains('T')).collect();
    runs.sort_unstable();
    runs.dedup();
    assert_eq!(runs.len(), 2, "{:?}", outcome.told);
}

#[test]
fn a_run_that_is_cancelled_before_its_restore_leaves_staging_alone() {
    let happenings = vec![(0, Happening::Cron), (2, Happening::Cancel)];
    let outcome = play(&Script { happenings, ..Script::default() });
    assert_eq!((outcome.status, outcome.deeds.1), (Some(RunStatus::Cancelled), 0));
}

#[test]
fn a_staging_that_is_held_is_not_restored_and_the_backup_is_made_all_the_same() {
    let happenings = vec![(-60, Happening::Hold), (0, Happening::Cron)];
    let outcome = play(&Script { happenings, ..Script::default() });
    assert_eq!((outcome.status, outcome.deeds), (Some(RunStatus::Succeeded), (1, 0, 0)));
}

#[test]
fn a_store_that_lost_everything_in_the_middle_costs_no_second_restore() {
    let faults = vec![planned("content", 2, Fault::Nothing)];
    let outcome =
        play(&Script { faults, crash: Crash::AtOnce, memory: Memory::Empty, ..Script::default() });
    assert_eq!((outcome.status, outcome.deeds), (Some(RunStatus::Succeeded), (1, 1, 0)));
}

#[test]
fn a_sample_of_scenarios_of_one_fault_goes_as_it_must() {
    // `cargo xtask test` runs all of them, optimised; this is what a plain `cargo test` has time
    // for.
    let plans = with_scene(grid::singles);
    let step = plans.len() / 400;
    let tally =
        grid::run_all(&|index| plans.get(index * step).cloned().map_or(Next::End, Next::Run));
    assert!(tally.failures.is_empty(), "{}", tally.render_failures().unwrap_or_default());
}

#[test]
fn a_plan_is_read_as_it_is_printed() {
    for day in Day::ALL {
        let plan = Plan::Said {
            day,
            faults: vec![
                planned("kv:read", 2, Fault::StoreFails),
                planned("sql", 1, Fault::Refused(423)),
            ],
            crash: Crash::AfterSave,
            memory: Memory::Stale,
            is_doubled: true,
        };
        assert_eq!(plan.to_string().parse(), Ok(plan));
    }
    assert_eq!("seed-7".parse(), Ok(Plan::Seed(7)));
    assert!("plain/x/no_crash/fresh/one_tick".parse::<Plan>().is_err());
}

#[test]
fn the_table_of_outcomes_is_what_the_simulation_makes() {
    let written = include_str!("../outcomes.md");
    assert!(
        with_scene(outcomes::render).trim_end() == written.trim_end(),
        "tests/simulation/outcomes.md is old; run `cargo xtask sim --table > \
            tests/simulation/outcomes.md`"
    );
}

#[test]
fn the_plan_of_a_history_keeps_what_a_second_reading_of_the_rules_keeps() {
    let faults = simulation::histories::judge_all(&(0..3_000));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // The newest branch is a backup whose record is lost, and a newer one is a snapshot alone.
    for seed in [10_258, 23_342, 35_491, 84_497, 90_848] {
        assert_eq!(simulation::histories::judge_all(&(seed..seed + 1)), Vec::<String>::new());
    }
}

#[test]
fn sixty_mornings_with_faults_leave_what_the_rules_give_and_three_more_at_most() {
    for seed in [4, 5] {
        let season = simulation::season::run(&Scene::new(), 60, seed);
        assert!(season.violations.is_empty(), "{:#?}", season.violations);
        assert!(season.good_days > 45, "{} days succeeded", season.good_days);
        assert_eq!(
            season.snapshots.1 > 8,
            seed == 5,
            "{} snapshots were taken",
            season.snapshots.1
        );
    }
}
