//! The Worker's HTTP interface in workerd.

use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::http::{send, send_with};
use harness::stack::Stack;
use harness::wait_for;
use harness::worker::{ADMIN_TOKEN, READ_TOKEN};
use serde_json::{Value, json};

use crate::sync::{options, small};

/// Waits until a run has ended, and returns its report.
fn ended(stack: &Stack, run: &str) -> Result<Value> {
    wait_for(Duration::from_mins(1), || {
        let report = stack.worker.report(run).ok()?;
        (report["status"] != "running").then_some(report)
    })
    .with_context(|| format!("run {run} has not ended:\n{}", stack.worker.output()))
}

#[test]
fn tokens_and_unknown_runs_are_refused() -> Result<()> {
    let stack = small()?;
    let url = &stack.worker.url;
    // A Worker that has not yet done what it is for is not well.
    let health = send("GET", &format!("{url}/health"), None, None)?;
    assert_eq!(
        (health.status, health.json()["reason"].as_str()),
        (503, Some("no run of a pair has succeeded yet"))
    );
    assert_eq!(send("GET", &format!("{url}/runs"), None, None)?.status, 401);
    assert_eq!(send("GET", &format!("{url}/runs"), Some("wrong"), None)?.status, 401);
    assert_eq!(send("POST", &format!("{url}/runs"), Some(READ_TOKEN), None)?.status, 403);
    assert_eq!(send("GET", &format!("{url}/runs"), Some(READ_TOKEN), None)?.status, 200);
    let unknown = send("GET", &format!("{url}/runs/20200101"), Some(READ_TOKEN), None)?;
    assert_eq!(
        (unknown.status, unknown.json()["title"].as_str()),
        (404, Some("There is no such run"))
    );
    let malformed =
        send("POST", &format!("{url}/runs"), Some(ADMIN_TOKEN), Some("{\"until\": 7}"))?;
    assert_eq!(malformed.status, 400);
    assert!(
        malformed.json()["detail"]
            .as_str()
            .unwrap_or_default()
            .contains("allowed is \"verify_backup\"")
    );
    assert!(stack.runs()?.is_empty());
    Ok(())
}

#[test]
fn a_rehearsal_makes_and_verifies_a_backup_and_leaves_staging_alone() -> Result<()> {
    let stack = small()?;
    let answer = stack.worker.call("POST", "/runs", Some(r#"{"until": "verify_backup"}"#))?;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let run = answer.json()["run"].as_str().context("the run's id")?.to_owned();
    let again = stack.worker.call("POST", "/runs", None)?;
    assert_eq!((again.status, again.json()["run"].as_str()), (409, Some(run.as_str())));

    let report = ended(&stack, &run)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    assert_eq!(report["backup"]["is_verified"], true);
    assert_eq!(stack.emulator.count("restoreProjectBranch")?, 0);
    Ok(())
}

#[test]
fn the_same_idempotency_key_starts_one_run() -> Result<()> {
    let stack = small()?;
    let post = || {
        let headers = [("idempotency-key", "deploy-17")];
        send_with(
            "POST",
            &format!("{}/runs", stack.worker.url),
            Some(ADMIN_TOKEN),
            &headers,
            Some(r#"{"until": "verify_backup"}"#),
        )
    };
    let first = post()?;
    let second = post()?;
    assert_eq!((first.status, second.status), (202, 202));
    assert_eq!(first.json()["run"], second.json()["run"]);
    ended(&stack, first.json()["run"].as_str().unwrap_or_default())?;
    assert_eq!(stack.emulator.count("createProjectBranch")?, 1);
    Ok(())
}

#[test]
fn a_followed_run_shows_its_steps_until_it_ends() -> Result<()> {
    // With the usual budget a slow machine hands over to the next tick, which is no end.
    let stack = Stack::start_with(&options(), &|settings, _, _| {
        settings["subrequest_budget"] = json!(200);
    })?;
    let answer = stack.worker.call("POST", "/runs?follow", None)?;
    let events: Vec<&str> =
        answer.body.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(events.first(), Some(&"started"), "{}", answer.body);
    assert!(events.iter().filter(|event| **event == "step").count() >= 6, "{}", answer.body);
    assert!(events.contains(&"verdict") && events.last() == Some(&"ended"), "{}", answer.body);
    assert!(answer.body.contains("\"status\":\"succeeded\""), "{}", answer.body);
    Ok(())
}

#[test]
fn a_held_staging_is_kept_while_the_backup_is_still_made_and_told() -> Result<()> {
    let stack = small()?;
    let hold = stack.worker.call(
        "PUT",
        "/pairs/hub/hold",
        Some(r#"{"reason": "customer demo", "until": "2099-01-01T00:00:00Z"}"#),
    )?;
    assert_eq!(hold.status, 200, "{}", hold.body);

    let report = stack.run_to_end(3)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    assert_eq!(stack.emulator.count("restoreProjectBranch")?, 0);
    let text = stack.sink.taken("/webhook")[0].body["data"]["text"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        text.contains("Staging is held as it is until 2099-01-01 00:00 UTC: customer demo."),
        "{text}"
    );
    assert_eq!(stack.worker.call("DELETE", "/pairs/hub/hold", None)?.status, 200);
    Ok(())
}

#[test]
fn a_cancelled_run_ends_before_its_next_write() -> Result<()> {
    let stack = small()?;
    let answer = stack.worker.call("POST", "/runs", None)?;
    let run = answer.json()["run"].as_str().context("the run's id")?.to_owned();
    let cancel = stack.worker.call("POST", &format!("/runs/{run}/cancel"), None)?;
    assert_eq!(cancel.status, 202, "{}", cancel.body);
    assert_eq!(cancel.json()["staging"], "Staging is untouched so far.");

    let report = ended(&stack, &run)?;

    assert_eq!(report["status"], "cancelled", "{report:#}");
    assert_eq!(stack.emulator.count("restoreProjectBranch")?, 0);
    assert_eq!(stack.worker.call("POST", &format!("/runs/{run}/cancel"), None)?.status, 409);
    Ok(())
}

#[test]
fn a_notice_that_nobody_took_is_kept_and_delivered_later() -> Result<()> {
    let stack = small()?;
    stack.sink.respond(500);
    let report = stack.run_to_end(3)?;
    assert_eq!(report["status"], "succeeded", "{report:#}");
    assert!(stack.sink.taken("/webhook").is_empty());

    stack.sink.respond(204);
    let delivered = wait_for(Duration::from_secs(20), || {
        stack.worker.cron().ok()?;
        (stack.sink.taken("/webhook").len() == 1 && stack.sink.taken("/slack").len() == 1)
            .then_some(())
    });
    stack.worker.cron()?;

    assert!(delivered.is_some(), "{}", stack.worker.output());
    assert_eq!(stack.sink.taken("/webhook").len(), 1);
    let ids: Vec<_> = stack
        .sink
        .received()
        .into_iter()
        .filter(|received| received.path == "/webhook")
        .map(|received| received.id)
        .collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    Ok(())
}

#[test]
fn a_receiver_that_hangs_neither_stops_the_run_nor_loses_the_notice() -> Result<()> {
    let stack = small()?;
    stack.sink.respond(0);
    let report = stack.run_to_end(3)?;
    assert_eq!(report["status"], "succeeded", "{report:#}");

    stack.sink.respond(204);
    let delivered = wait_for(Duration::from_secs(40), || {
        stack.worker.cron().ok()?;
        (stack.sink.taken("/webhook").len() == 1).then_some(())
    });

    assert!(delivered.is_some(), "{}", stack.worker.output());
    Ok(())
}
