//! The process killed with SIGKILL in every step, zombies, hanging operations and overlapping
//! ticks, against the built wasm.
//!
//! The simulation proves this for every action; here the same is seen with the real platform's KV,
//! timers and processes.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};
use harness::emulator::Options;
use harness::stack::Stack;
use harness::wait_for;
use serde_json::json;

use crate::sync::SEED;

/// Starts a stack whose ticks are short, and whose application does not answer while the receiver
/// of notices does not.
fn short_ticks() -> Result<Stack> {
    let options =
        Options { seed: SEED.to_owned(), create_ms: 200, restore_ms: 200, ..Options::default() };
    Stack::start_with(&options, &|settings, _, sink| {
        settings["wall_budget_s"] = json!(10);
        settings["pairs"][0]["smoke_tests"] = json!([{"name": "sign-in",
            "url": format!("{}/sign-in", sink.url), "expect_status": 204}]);
    })
}

/// Fires the cron on a thread, and kills the Worker as soon as `is_there` says that it is where it
/// should be.
pub(crate) fn kill_when(stack: &mut Stack, is_there: &dyn Fn(&Stack) -> bool) -> Result<()> {
    let url = format!("{}/__scheduled?cron=*/5+*+*+*+*", stack.worker.url);
    // A tick may hand over before it gets there, more than one where the machine is slow; once the
    // Worker is killed, no request is answered.
    let cron = std::thread::spawn(move || {
        (0..6).try_for_each(|_| harness::http::send("GET", &url, None, None).map(drop))
    });
    let arrived = wait_for(Duration::from_mins(1), || is_there(stack).then_some(()));
    stack.worker.kill();
    let _ = cron.join();
    if arrived.is_none() {
        bail!("the run did not get there:\n{}", stack.worker.output());
    }
    Ok(())
}

/// Waits until no tick can be driving any more.
pub(crate) fn wait_until_undriven() {
    // The wall budget is 10 s; a checkpoint of a killed tick keeps others away that long.
    std::thread::sleep(Duration::from_secs(10));
}

/// Kills the Worker as [`kill_when`] does, and starts it again when no other tick would leave the
/// run alone.
fn kill_and_restart_when(stack: &mut Stack, is_there: &dyn Fn(&Stack) -> bool) -> Result<()> {
    kill_when(stack, is_there)?;
    stack.emulator.control("DELETE", "faults", None)?;
    stack.sink.respond(204);
    wait_until_undriven();
    stack.restart_worker()
}

/// Kills the Worker while the n-th request of a route is not answered.
fn kill_at(stack: &mut Stack, route: &str, nth: u32) -> Result<()> {
    stack.emulator.control("DELETE", "journal", None)?;
    stack.emulator.fault(route, nth, &json!({"kind": "hang"}))?;
    kill_and_restart_when(stack, &|stack| {
        stack
            .emulator
            .journal()
            .is_ok_and(|journal| journal.iter().any(|entry| entry["fault"] == "hang"))
    })
}

/// One backup and one restore, and people were told one thing.
fn assert_once(stack: &Stack) -> Result<()> {
    let branches = stack.emulator.branches()?;
    let count = |part: &str| {
        branches
            .iter()
            .filter(|branch| branch["name"].as_str().is_some_and(|name| name.contains(part)))
            .count()
    };
    assert_eq!((count("backup-"), count("staging-of-")), (1, 1), "{branches:#?}");
    let told: BTreeSet<Option<String>> =
        stack.sink.taken("/webhook").into_iter().map(|hook| hook.id).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    Ok(())
}

// Three ticks that were killed before they could save a step forward are given up, so no run is
// killed more often than twice.

#[test]
fn a_run_killed_in_step_1_and_in_step_2_is_finished_with_one_backup() -> Result<()> {
    let mut stack = short_ticks()?;
    kill_at(&mut stack, "getProject", 1)?;
    // The branch is made, and nobody knows its operations.
    kill_at(&mut stack, "getProjectOperation", 1)?;

    let report = stack.run_to_end(4)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    assert_once(&stack)
}

#[test]
fn a_run_killed_in_step_3_and_in_step_5_is_finished_with_one_restore() -> Result<()> {
    let mut stack = short_ticks()?;
    // Step 1 asks production once; the backup is read by two queries, two roles log in, staging is
    // read by two.
    kill_at(&mut stack, "sql", 2)?;
    kill_at(&mut stack, "sql", 6)?;

    let report = stack.run_to_end(4)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    assert_once(&stack)
}

#[test]
fn a_run_killed_in_step_6_and_in_step_7_is_told_once() -> Result<()> {
    let mut stack = short_ticks()?;
    // The application does not answer; then people are told, and the endpoint of the backup is to
    // be deleted.
    stack.sink.respond(0);
    kill_and_restart_when(&mut stack, &|stack| {
        stack.sink.received().iter().any(|received| received.path == "/sign-in")
    })?;
    kill_at(&mut stack, "deleteProjectEndpoint", 1)?;

    let report = stack.run_to_end(4)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    assert_once(&stack)
}

#[test]
fn a_restore_that_arrives_after_it_was_given_up_finds_its_name_taken() -> Result<()> {
    let stack = short_ticks()?;
    stack.emulator.fault(
        "createProjectBranch",
        1,
        &json!({"kind": "later", "milliseconds": 1_500}),
    )?;
    stack.emulator.fault(
        "restoreProjectBranch",
        1,
        &json!({"kind": "later", "milliseconds": 4_000}),
    )?;

    let report = stack.run_to_end(4)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    assert_once(&stack)
}

#[test]
fn an_operation_that_hangs_ends_the_run_after_three_ticks_without_a_step_forward() -> Result<()> {
    let stack = short_ticks()?;
    stack.emulator.fault(
        "restoreProjectBranch",
        1,
        &json!({"kind": "operation", "finish": "hangs"}),
    )?;

    for _ in 0..6 {
        stack.worker.cron()?;
        if !stack.sink.taken("/webhook").is_empty() {
            break;
        }
    }

    let told = stack.sink.taken("/webhook");
    let text = told
        .first()
        .map(|hook| hook.body["data"]["text"].as_str().unwrap_or_default().to_owned())
        .unwrap_or_default();
    assert!(
        text.contains("restore staging made no step forward in 3 ticks"),
        "{text}\n{}",
        stack.worker.output()
    );
    assert!(text.contains("Staging is being restored from backup-"), "{text}");
    assert_eq!(stack.emulator.count("restoreProjectBranch")?, 1);
    Ok(())
}

#[test]
fn crons_that_fire_at_the_same_time_make_one_backup_and_one_restore() -> Result<()> {
    let stack = short_ticks()?;
    let url = format!("{}/__scheduled?cron=*/5+*+*+*+*", stack.worker.url);
    std::thread::scope(|scope| {
        let crons: Vec<_> =
            (0..3).map(|_| scope.spawn(|| harness::http::send("GET", &url, None, None))).collect();
        crons.into_iter().try_for_each(|cron| {
            cron.join().map_err(|_| anyhow::anyhow!("a cron panicked"))?.map(drop)
        })
    })?;

    let report = stack.run_to_end(4)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    assert_once(&stack)
}
