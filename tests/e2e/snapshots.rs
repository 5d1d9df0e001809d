//! Backups that a rule keeps as snapshots, with real data.

use anyhow::{Context as _, Result};
use harness::stack::Stack;
use serde_json::{Value, json};

use crate::sync::options;

/// Starts a stack whose pair keeps days as snapshots.
pub(crate) fn with_snapshots() -> Result<Stack> {
    Stack::start_with(&options(), &|settings, _, _| {
        let pair = &mut settings["pairs"][0];
        pair["keep_daily"] = json!(30);
        pair["keep_daily_tier"] = json!("snapshot");
        settings["subrequest_budget"] = json!(200);
    })
}

/// Ticks until what is known of the day's snapshot is told, and returns the run.
pub(crate) fn run_until_judged(stack: &Stack) -> Result<Value> {
    let report = stack.run_to_end(3)?;
    let run = report["run"].as_str().context("the run's id")?.to_owned();
    // Taking, restoring and comparing may take more than the tick that ended the run.
    for _ in 0..6 {
        let report = stack.worker.report(&run)?;
        if report["prune"]["snapshot"]["is_told"] == true {
            return Ok(report);
        }
        stack.worker.cron()?;
    }
    anyhow::bail!("the snapshot was not judged: {}", stack.worker.output())
}

fn snapshots(stack: &Stack) -> Result<Vec<Value>> {
    let answer = stack.emulator.call("GET", "/snapshots", None)?.json();
    Ok(answer["snapshots"].as_array().cloned().unwrap_or_default())
}

#[test]
fn a_backup_is_kept_as_a_snapshot_that_was_restored_and_compared() -> Result<()> {
    let stack = with_snapshots()?;
    let report = run_until_judged(&stack)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    let work = &report["prune"]["snapshot"];
    assert_eq!(work["outcome"]["status"], "verified", "{work:#}");
    assert_eq!(work["outcome"]["rows"], report["compared"]["rows"]);
    let taken = snapshots(&stack)?;
    let backup = report["backup"]["name"].clone();
    assert_eq!(
        (taken.len(), &taken[0]["name"], &taken[0]["lsn"]),
        (1, &backup, &report["backup"]["lsn"]),
        "{taken:#?}"
    );
    let names: Vec<Value> =
        stack.emulator.branches()?.iter().map(|branch| branch["name"].clone()).collect();
    assert!(
        !names.iter().any(|name| name.as_str().unwrap_or_default().starts_with("restore-test-")),
        "{names:?}"
    );
    let journal = stack.emulator.journal()?;
    assert_eq!(journal.iter().filter(|entry| entry["route"] == "finalizeRestoreBranch").count(), 0);

    let listed = stack.worker.call("GET", "/backups", None)?.json();
    let find = |kind: &str| {
        listed["backups"]
            .as_array()
            .and_then(|all| all.iter().find(|entry| entry["kind"] == kind).cloned())
    };
    let snapshot =
        find("snapshot").with_context(|| format!("the snapshot is listed: {listed:#}"))?;
    assert_eq!(
        (&snapshot["name"], &snapshot["state"], &snapshot["kept"]),
        (&backup, &json!("verified"), &json!(true)),
        "{listed:#}"
    );
    assert!(
        snapshot["reasons"][0].as_str().is_some_and(|reason| reason.starts_with("keep_daily: ")),
        "{snapshot:#}"
    );
    Ok(())
}

#[test]
fn a_snapshot_that_differs_is_told_with_the_table_and_does_not_count() -> Result<()> {
    let stack = with_snapshots()?;
    stack.emulator.fault(
        "restoreSnapshot",
        1,
        &json!({"kind": "tamper", "sql": "update users set name = 'other' where id = 7"}),
    )?;
    let report = run_until_judged(&stack)?;

    assert_eq!(report["status"], "succeeded", "staging is a copy all the same: {report:#}");
    let reason =
        report["prune"]["snapshot"]["outcome"]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(
        reason.contains("restored, it differs from the backup: neondb: content of public.users"),
        "{reason}"
    );
    let hooks = stack.sink.taken("/webhook");
    let kinds: Vec<&Value> = hooks.iter().map(|hook| &hook.body["data"]["kind"]).collect();
    assert_eq!(kinds, ["succeeded", "snapshot_failed"]);
    let listed = stack.worker.call("GET", "/backups", None)?.json();
    let states: Vec<(&Value, &Value)> = listed["backups"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| (&entry["kind"], &entry["state"]))
        .collect();
    assert_eq!(
        states,
        [(&json!("backup"), &json!("verified")), (&json!("snapshot"), &json!("unverified"))],
        "{listed:#}"
    );
    Ok(())
}
