//! Crashes, lost replies and hanging operations, against the built wasm.

use anyhow::Result;
use harness::emulator::Options;
use harness::stack::Stack;
use serde_json::json;

use crate::kills::{kill_when, wait_until_undriven};
use crate::sync::{SEED, small};

/// Starts a stack whose restore takes long enough to be killed in, and whose ticks are short.
fn slow_restore() -> Result<Stack> {
    let options =
        Options { seed: SEED.to_owned(), create_ms: 300, restore_ms: 8_000, ..Options::default() };
    Stack::start_with(&options, &|settings, _, _| settings["wall_budget_s"] = json!(10))
}

/// Kills the Worker as soon as Neon has accepted the restore.
fn kill_in_step_4(stack: &mut Stack) -> Result<()> {
    kill_when(stack, &|stack| {
        stack.emulator.count("restoreProjectBranch").is_ok_and(|count| count > 0)
    })
}

#[test]
fn a_run_killed_in_step_4_is_finished_with_one_restore() -> Result<()> {
    let mut stack = slow_restore()?;
    kill_in_step_4(&mut stack)?;
    wait_until_undriven();
    stack.restart_worker()?;

    let report = stack.run_to_end(8)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    assert_eq!(stack.emulator.count("restoreProjectBranch")?, 1);
    assert_eq!(stack.emulator.count("createProjectBranch")?, 1);
    assert_eq!(stack.sink.taken("/webhook").len(), 1);
    Ok(())
}

#[test]
fn a_run_killed_in_step_4_is_finished_with_one_restore_though_kv_forgot_everything() -> Result<()> {
    let mut stack = slow_restore()?;
    kill_in_step_4(&mut stack)?;
    stack.forget_kv()?;
    stack.restart_worker()?;

    let report = stack.run_to_end(8)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    assert_eq!(stack.emulator.count("restoreProjectBranch")?, 1);
    assert_eq!(stack.emulator.count("createProjectBranch")?, 1);
    Ok(())
}

#[test]
fn lost_replies_make_neither_a_second_backup_nor_a_second_restore() -> Result<()> {
    let stack = small()?;
    stack.emulator.fault("createProjectBranch", 1, &json!({"kind": "drop_after"}))?;
    stack.emulator.fault("restoreProjectBranch", 1, &json!({"kind": "drop_after"}))?;

    let report = stack.run_to_end(2)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    assert_eq!(stack.emulator.count("createProjectBranch")?, 1);
    assert_eq!(stack.emulator.count("restoreProjectBranch")?, 1);
    Ok(())
}

#[test]
fn a_restore_whose_operation_fails_fails_the_run_and_says_what_staging_holds() -> Result<()> {
    let stack = small()?;
    stack.emulator.fault(
        "restoreProjectBranch",
        1,
        &json!({"kind": "operation", "finish": "failed"}),
    )?;

    let report = stack.run_to_end(2)?;

    assert_eq!(
        (&report["status"], &report["step"]),
        (&json!("failed"), &json!("restore")),
        "{report:#}"
    );
    let told = stack.sink.taken("/webhook");
    let text = told[0].body["data"]["text"].as_str().unwrap_or_default();
    assert!(text.contains("failed at step 4 of 7 (restore staging). Error: "), "{text}");
    assert!(text.contains("Staging is being restored from backup-"), "{text}");
    assert!(text.ends_with("Runbook: runbooks/run-failed.md"), "{text}");
    assert_eq!(stack.emulator.count("restoreProjectBranch")?, 1);
    Ok(())
}

#[test]
fn pages_of_html_and_cut_bodies_are_looked_into_and_outlived() -> Result<()> {
    let stack = small()?;
    stack.emulator.fault(
        "createProjectBranch",
        1,
        &json!({"kind": "refuse", "status": 524, "body": "<html>a timeout occurred</html>"}),
    )?;
    stack.emulator.fault("restoreProjectBranch", 1, &json!({"kind": "cut"}))?;
    stack.emulator.fault("getProjectOperation", 1, &json!({"kind": "drop_before"}))?;
    stack.emulator.fault("sql", 3, &json!({"kind": "drop_before"}))?;

    let report = stack.run_to_end(3)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    assert_eq!(stack.emulator.count("restoreProjectBranch")?, 1);
    Ok(())
}
