//! The commands of the runbooks, run as they stand there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use harness::emulator::API_KEY;
use harness::paths;
use harness::stack::Stack;
use harness::worker::{ADMIN_TOKEN, READ_TOKEN};

use crate::sync::{options, small};

/// Returns the blocks of commands of a page, without those that reach hosts of Neon's by name.
fn blocks(page: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(paths::root().join("runbooks").join(page))?;
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    Ok(blocks
        .filter(|block| !block.contains("psql ") && !block.contains("export "))
        .map(str::to_owned)
        .collect())
}

/// Returns what the block at the top of the first page sets, with the values of this stack: a name
/// that it does not set is not set here.
fn environment(stack: &Stack, run: &str) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(paths::root().join("runbooks/README.md"))?;
    let names = text.lines().filter_map(|line| line.strip_prefix("export ")?.split('=').next());
    let value = |name: &str| {
        Ok(match name {
            "NEON_API_KEY" => API_KEY.to_owned(),
            "NEON_API_HOST" => stack.emulator.api(),
            "PROJECT" => stack.emulator.project.clone(),
            "PRODUCTION" => stack.emulator.production.clone(),
            "STAGING" => stack.emulator.staging.clone(),
            "RUN" => run.to_owned(),
            "WORKER" => stack.worker.url.clone(),
            "ADMIN_TOKEN" => ADMIN_TOKEN.to_owned(),
            "READ_TOKEN" => READ_TOKEN.to_owned(),
            _ => anyhow::bail!("runbooks/README.md sets {name}, of which no command is known"),
        })
    };
    names.map(|name| Ok((name.to_owned(), value(name)?))).collect()
}

/// Runs commands as a person would paste them.
fn paste(stack: &Stack, run: &str, commands: &str, more: &[(&str, &str)]) -> Result<String> {
    let home = tempfile::tempdir()?;
    let bin = home.path().join("bin");
    fs::create_dir(&bin)?;
    let neon = paths::root().join("node_modules/.bin/neon");
    let script = format!(
        "#!/bin/sh\nexec {} {} --no-analytics \"$@\"\n",
        paths::node().display(),
        neon.display()
    );
    fs::write(bin.join("neon"), script)?;
    fs::set_permissions(bin.join("neon"), fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:{}", bin.display(), paths::path_with_node().to_string_lossy());
    let output = Command::new("sh")
        .args(["-euc", commands])
        .env("PATH", path)
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .env("CI", "1")
        .envs(environment(stack, run)?)
        .envs(more.iter().copied())
        .output()
        .context("start sh")?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    anyhow::ensure!(output.status.success(), "{commands}\n{text}");
    Ok(text)
}

#[test]
fn the_manual_procedure_of_the_runbook_works() -> Result<()> {
    let stack = small()?;
    stack.emulator.sql(&stack.emulator.staging, &["delete from users"])?;
    let blocks = blocks("daily-sync.md")?;
    let wait = blocks
        .iter()
        .find(|block| block.starts_with("until "))
        .context("find the waiting")?
        .clone();
    for block in &blocks {
        paste(&stack, "20261121", block, &[])?;
        paste(&stack, "20261121", &wait, &[])?;
    }
    let count = stack.emulator.sql(&stack.emulator.staging, &["select count(*) from users"])?;
    assert_eq!(count, vec![vec![Some("1000".to_owned())]]);
    let names: Vec<String> = stack
        .emulator
        .branches()?
        .iter()
        .filter_map(|branch| branch["name"].as_str().map(str::to_owned))
        .collect();
    assert!(
        names.contains(&"backup-20261121".to_owned())
            && names.contains(&"staging-before-20261121".to_owned()),
        "{names:?}"
    );
    Ok(())
}

#[test]
fn the_commands_of_the_page_for_failed_runs_work() -> Result<()> {
    // With the usual budget a slow machine leaves pruning to the next tick, and the next run would
    // be refused until then.
    let stack = Stack::start_with(&options(), &|settings, _, _| {
        settings["subrequest_budget"] = serde_json::json!(200);
    })?;
    stack.emulator.fault(
        "restoreProjectBranch",
        1,
        &serde_json::json!({"kind": "refuse", "status": 403}),
    )?;
    let report = stack.run_to_end(2)?;
    assert_eq!(report["status"], "failed", "{report:#}");
    let run = report["run"].as_str().context("the run's id")?.to_owned();
    let blocks = blocks("run-failed.md")?;
    let [read, rehearse, start, back, hold] = blocks.as_slice() else {
        anyhow::bail!("the page has other blocks: {blocks:#?}")
    };

    assert!(
        paste(&stack, &run, &read.replace("20261121", &run), &[])?
            .contains("\"status\":\"failed\"")
    );
    assert!(paste(&stack, &run, rehearse, &[])?.contains("\"status\":\"succeeded\""));
    let started = paste(&stack, &run, start, &[])?;
    assert!(started.contains("\"status\":\"succeeded\""), "{started}");
    let newest = stack.runs()?.into_iter().next().context("a run")?.0;
    let displaced = stack.worker.report(&newest)?["displaced"]
        .as_str()
        .context("the displaced branch")?
        .to_owned();
    let settled = || paste(&stack, &run, back, &[("DISPLACED", displaced.as_str())]).ok();
    harness::wait_for(std::time::Duration::from_secs(30), settled)
        .context("staging could not be restored from the displaced branch")?;
    paste(&stack, &run, hold, &[])?;
    Ok(())
}

#[test]
fn the_commands_of_the_page_for_backups_that_stay_work() -> Result<()> {
    let stack = small()?;
    let report = stack.run_to_end(3)?;
    let backup = report["backup"]["name"].as_str().context("the backup")?.to_owned();
    let displaced = report["displaced"].as_str().context("the displaced branch")?.to_owned();
    let more = [("BACKUP", backup.as_str()), ("BRANCH", displaced.as_str())];
    let blocks = blocks("retention-blocked.md")?;
    let [list, plan, by_other_rules, pin, release, delete] = blocks.as_slice() else {
        anyhow::bail!("the page has other blocks: {blocks:#?}")
    };
    let told = |command: &str| paste(&stack, "20261121", command, &more);
    let reasons = || -> Result<serde_json::Value> {
        let listed: serde_json::Value = serde_json::from_str(&told(list)?)?;
        let found = listed["backups"].as_array().and_then(|backups| {
            backups.iter().find(|entry| entry["name"] == backup.as_str()).cloned()
        });
        found.with_context(|| format!("find {backup} in {listed:#}"))
    };

    let listed = reasons()?;
    assert_eq!(
        (&listed["state"], &listed["kept"]),
        (&serde_json::json!("verified"), &serde_json::json!(true)),
        "{listed:#}"
    );
    assert!(told(plan)?.contains("\"delete\":[]"), "nothing is older than a day");
    assert!(told(by_other_rules)?.contains("\"keep_daily\":7"));
    assert!(told(pin)?.contains("\"reason\":\"audit 2026\""));
    let pinned = harness::wait_for(std::time::Duration::from_mins(1), || {
        reasons().ok().filter(|listed| listed["reasons"][0] == "pinned: audit 2026").map(drop)
    });
    pinned.context("the pin is not in force")?;
    assert!(told(release)?.contains("\"pin\":null"));
    told(delete)?;
    let gone = harness::wait_for(std::time::Duration::from_secs(30), || {
        let branches = stack.emulator.branches().ok()?;
        (!branches.iter().any(|branch| branch["name"] == displaced.as_str())).then_some(())
    });
    gone.context("the branch is still there")
}

#[test]
fn the_commands_of_the_page_for_incidents_work() -> Result<()> {
    // With the usual budget a slow machine leaves the incident to the next tick.
    let stack = Stack::start_with(&options(), &|settings, _, _| {
        settings["subrequest_budget"] = serde_json::json!(200);
    })?;
    stack.emulator.fault(
        "restoreProjectBranch",
        1,
        &serde_json::json!({"kind": "refuse", "status": 403}),
    )?;
    stack.sink.respond(410);
    let report = stack.run_to_end(2)?;
    let run = report["run"].as_str().context("the run's id")?.to_owned();
    let incident = format!("hub-{run}");
    let more = [("RUN", run.as_str()), ("INCIDENT", incident.as_str()), ("CHANNEL", "hook")];
    let blocks = blocks("incident-response.md")?;
    let [incidents, acknowledge, read, start, notices, notice, health, test, redeliver] =
        blocks.as_slice()
    else {
        anyhow::bail!("the page has other blocks: {blocks:#?}")
    };
    let told = |command: &str| paste(&stack, &run, command, &more);
    let told_at_last = |command: &str, text: &str| {
        let found = harness::wait_for(std::time::Duration::from_mins(1), || {
            told(command).ok().filter(|answer| answer.contains(text))
        });
        found.with_context(|| format!("{command} does not answer {text}: {:?}", told(command)))
    };

    assert!(told(incidents)?.contains("\"state\":\"open\""));
    assert!(told(acknowledge)?.contains("\"by\":\"Dana, on call\""));
    told_at_last(incidents, "\"state\":\"acknowledged\"")?;
    assert!(told(read)?.contains("\"status\":\"failed\""));
    told_at_last(notices, &format!("\"id\":\"hub/{run}/failed\""))?;
    told_at_last(notice, "answered 410")?;
    assert!(told(health)?.contains("no run of a pair has succeeded yet"));
    assert!(told(test).is_err(), "the address is still gone");
    stack.sink.respond(204);
    assert!(told(test)?.contains("\"answered\":204"));
    assert!(told(redeliver)?.contains("\"state\":\"delivered\""));
    assert_eq!(
        stack
            .sink
            .taken("/webhook")
            .iter()
            .map(|taken| taken.body["type"].clone())
            .collect::<Vec<_>>(),
        ["sync.test", "sync.failed"]
    );
    assert!(told(start)?.contains("\"status\":\"succeeded\""));
    told_at_last(incidents, "\"state\":\"resolved\"")?;
    told_at_last(health, "\"status\":\"ok\"")?;
    Ok(())
}

#[test]
fn the_commands_of_the_page_for_late_runs_work() -> Result<()> {
    let stack = small()?;
    let report = stack.run_to_end(3)?;
    let run = report["run"].as_str().context("the run's id")?.to_owned();
    let blocks = blocks("late.md")?;
    let [list, read, hold] = blocks.as_slice() else {
        anyhow::bail!("the page has other blocks: {blocks:#?}")
    };
    assert!(paste(&stack, &run, list, &[])?.contains(&format!("\"run\":\"{run}\"")));
    let steps = paste(&stack, &run, read, &[])?;
    assert!(
        ["\"steps\":[", "\"compared\":", "\"tick_count\":"].iter().all(|part| steps.contains(part)),
        "{steps}"
    );
    assert!(paste(&stack, &run, hold, &[])?.contains("late; staging is in use"));
    Ok(())
}

#[test]
fn the_commands_of_the_page_for_channels_work() -> Result<()> {
    let stack = small()?;
    stack.run_to_end(3)?;
    let more = [("CHANNEL", "hook")];
    let blocks = blocks("channels.md")?;
    let [test, key, health] = blocks.as_slice() else {
        anyhow::bail!("the page has other blocks: {blocks:#?}")
    };
    assert!(paste(&stack, "20261121", test, &more)?.contains("\"answered\":204"));
    let tried = stack.sink.taken("/webhook").pop().context("the test")?;
    assert_eq!(
        (tried.is_signed, &tried.body["type"]),
        (Some(true), &serde_json::json!("sync.test"))
    );
    let key = paste(&stack, "20261121", key, &more)?;
    assert_eq!(
        (key.get(..6), key.trim().len()),
        (Some("whsec_"), 50),
        "32 bytes in base64 have 44 characters"
    );
    assert!(paste(&stack, "20261121", health, &more)?.contains("\"status\":\"ok\""));
    Ok(())
}

#[test]
fn the_commands_of_the_page_for_snapshots_work() -> Result<()> {
    let stack = crate::snapshots::with_snapshots()?;
    let report = crate::snapshots::run_until_judged(&stack)?;
    let run = report["run"].as_str().context("the run's id")?.to_owned();
    let id = report["prune"]["snapshot"]["id"].as_str().context("the snapshot's id")?.to_owned();
    let backup = report["backup"]["name"].as_str().context("the backup")?.to_owned();
    let more = [("SNAPSHOT", id.as_str()), ("BACKUP", backup.as_str())];
    let blocks = blocks("snapshots.md")?;
    let [read, list, in_neon, look, compute, hold, to_staging, rescue, finalize] =
        blocks.as_slice()
    else {
        anyhow::bail!("the page has other blocks: {blocks:#?}")
    };
    // Neon refuses while an operation is under way.
    let settled = |command: &str| {
        let told = harness::wait_for(std::time::Duration::from_secs(30), || {
            paste(&stack, &run, command, &more).ok()
        });
        told.with_context(|| format!("{command} is refused"))
    };
    assert!(settled(read)?.contains("\"status\":\"verified\""));
    assert!(settled(list)?.contains("\"kind\":\"snapshot\""));
    assert!(settled(in_neon)?.contains(&backup));
    stack.emulator.sql(&stack.emulator.staging, &["delete from users"])?;
    settled(look)?;
    settled(compute)?;
    assert!(settled(hold)?.contains("staging holds a snapshot"));
    settled(to_staging)?;
    let count = stack.emulator.sql(&stack.emulator.staging, &["select count(*) from users"])?;
    assert_eq!(count, vec![vec![Some("1000".to_owned())]]);
    stack.emulator.sql(&stack.emulator.production, &["delete from users"])?;
    settled(rescue)?;
    settled(finalize)?;
    let named = |name: &str| -> Result<String> {
        let found = stack.emulator.branches()?.into_iter().find(|branch| branch["name"] == name);
        found
            .and_then(|branch| branch["id"].as_str().map(str::to_owned))
            .with_context(|| format!("find {name}"))
    };
    let moved =
        harness::wait_for(std::time::Duration::from_secs(30), || named("production (old)").ok())
            .context("nothing took production's place")?;
    assert_eq!(moved, stack.emulator.production);
    assert_eq!(
        stack.emulator.sql(&named("production")?, &["select count(*) from users"])?,
        vec![vec![Some("1000".to_owned())]]
    );
    // Another branch has production's name: the next run refuses, and says which key to change.
    let refused = stack.worker.run_now()?;
    let report = stack.worker.report(&refused)?;
    assert_eq!(report["status"], "failed", "{report:#}");
    let expected = format!("set production_branch to {} (production)", named("production")?);
    assert!(
        report["reason"].as_str().is_some_and(|reason| reason.contains(&expected)),
        "{report:#}"
    );
    Ok(())
}

#[test]
fn the_commands_of_the_page_for_an_unusable_staging_work() -> Result<()> {
    let stack = small()?;
    let staging = stack.emulator.staging.clone();
    stack.emulator.sql(&staging, &["update users set name = 'of yesterday'"])?;
    let report = stack.run_to_end(3)?;
    let run = report["run"].as_str().context("the run's id")?.to_owned();
    stack.emulator.sql(&staging, &["delete from users"])?;
    let blocks = blocks("staging-unusable.md")?;
    let [hold, read, back, wait, release] = blocks.as_slice() else {
        anyhow::bail!("the page has other blocks: {blocks:#?}")
    };

    assert!(paste(&stack, &run, hold, &[])?.contains("staging cannot be used"));
    let displaced = report["displaced"].as_str().context("the displaced branch")?;
    assert!(paste(&stack, &run, read, &[])?.contains(&format!("\"displaced\":\"{displaced}\"")));
    let more = [("DISPLACED", displaced)];
    let settled = || paste(&stack, &run, back, &more).ok();
    harness::wait_for(std::time::Duration::from_secs(30), settled)
        .context("staging could not be restored from the displaced branch")?;
    paste(&stack, &run, wait, &[])?;
    let count = "select count(*) from users where name = 'of yesterday'";
    let rows = stack.emulator.sql(&staging, &[count])?;
    assert_eq!(rows, vec![vec![Some("1000".to_owned())]]);
    assert!(paste(&stack, &run, release, &[])?.contains("\"hold\":null"));
    Ok(())
}

#[test]
fn a_token_that_was_changed_is_refused_and_the_new_one_is_taken() -> Result<()> {
    let mut stack = small()?;
    let blocks = blocks("rotate-secrets.md")?;
    let [rehearse, draw, old, new] = blocks.as_slice() else {
        anyhow::bail!("the page has other blocks: {blocks:#?}")
    };
    assert!(paste(&stack, "20261121", rehearse, &[])?.contains("\"status\":\"succeeded\""));
    let token = paste(&stack, "20261121", draw, &[])?;
    let token = token.trim();
    assert_eq!(token.len(), 64);
    for (name, before) in [("READ_TOKEN", READ_TOKEN), ("ADMIN_TOKEN", ADMIN_TOKEN)] {
        let more = [("OLD_TOKEN", before)];
        assert_eq!(paste(&stack, "20261121", old, &more)?.trim(), "200", "{name} is in force");
        let fresh = format!("{token}{name}");
        stack.put_secret(name, &fresh)?;
        assert_eq!(paste(&stack, "20261121", old, &more)?.trim(), "401", "{name} was changed");
        let more = [("READ_TOKEN", fresh.as_str())];
        assert!(paste(&stack, "20261121", new, &more)?.contains("\"runs\":["), "{name}");
    }
    Ok(())
}

/// The set-up deploys; here is all of that but Cloudflare's answer.
#[test]
fn wrangler_finds_nothing_to_object_to_in_what_is_deployed() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("firstlight-").tempdir()?;
    let output = Command::new(paths::root().join("node_modules/.bin/wrangler"))
        .args(["deploy", "--dry-run", "--outdir"])
        .arg(folder.path().join("bundle"))
        .current_dir(paths::root())
        .env("PATH", paths::path_with_node())
        .env("CI", "1")
        .env("WRANGLER_SEND_METRICS", "false")
        .env("XDG_CONFIG_HOME", folder.path())
        .output()
        .context("start wrangler")?;
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).concat();
    anyhow::ensure!(output.status.success(), "{text}");
    assert!(text.contains("env.STATE") && text.contains("env.FIRSTLIGHT"), "{text}");
    let has_wasm = fs::read_dir(folder.path().join("bundle"))?
        .filter_map(|entry| entry.ok()?.path().extension().map(std::ffi::OsStr::to_owned))
        .any(|ending| ending == "wasm");
    assert!(has_wasm, "{text}");
    Ok(())
}
