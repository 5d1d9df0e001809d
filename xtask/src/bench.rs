//! `cargo xtask bench cost`: what a run costs, in CPU, requests and time that is ours.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use harness::emulator::Options;
use harness::stack::Stack;
use serde_json::Value;

use crate::demo::{millis_between, neon_time};
use crate::shell::say;

/// Runs and idle ticks that are measured.
const COUNT: u32 = 20;

/// Ticks of the clock that `/proc` counts in a second.
///
/// Source: Linux, `proc(5)`: `sysconf(_SC_CLK_TCK)`, 100 on every architecture that Linux has had
/// for years.
const TICKS_PER_SECOND: u64 = 100;

/// A production of a hundred tables.
const TABLES: &str = "do $$ begin for i in 1..100 loop \
    execute format('create table public.t%s(id int primary key, v text); \
    insert into public.t%s select g, md5(g::text) from generate_series(1, 200) g', i, i); \
    end loop; end $$;";

/// Measures and prints.
pub(crate) fn cost() -> Result<()> {
    say("starting a stack with a production of 100 tables and Neon's usual durations");
    let stack = Stack::start(&Options {
        seed: TABLES.to_owned(),
        create_ms: 3_000,
        restore_ms: 6_100,
        ..Options::default()
    })?;
    // Each run leaves a backup and a displaced branch, none older than a day.
    stack.emulator.control("PUT", "project", Some(r#"{"branches_limit": 1000}"#))?;
    stack.run_to_end(3)?;
    let idle = measure(&stack, || stack.worker.cron())?;
    say(&format!("{COUNT} idle ticks: {} ms of CPU each", idle / u64::from(COUNT)));
    let mut shares = Vec::new();
    let mut requests = Vec::new();
    let runs = measure(&stack, || {
        let (share, count) = run(&stack)?;
        shares.push(share);
        requests.push(count);
        Ok(())
    })?;
    shares.sort_unstable();
    requests.sort_unstable();
    let each = runs.saturating_sub(idle) / u64::from(COUNT);
    println!(
        "CPU of workerd, user and system, of a run less an idle tick: {each} ms (mean of {COUNT})"
    );
    println!("CPU of workerd of an idle tick: {} ms (mean of {COUNT})", idle / u64::from(COUNT));
    println!("subrequests of a run: {} to {}", requests[0], requests[requests.len() - 1]);
    println!(
        "time of a run that is neither Neon's operations nor SQL: {} % (median), {} % (most)",
        shares[shares.len() / 2],
        shares[shares.len() - 1]
    );
    Ok(())
}

/// Does a manual run, and returns the share of its time that is ours, in percent, and its
/// subrequests.
fn run(stack: &Stack) -> Result<(u64, u64)> {
    stack.emulator.control("DELETE", "journal", None)?;
    let id = stack.worker.run_now()?;
    // What was left to the next tick, if anything, belongs to the run.
    for _ in 0..3 {
        if !stack.worker.report(&id)?["prune"].is_null() {
            break;
        }
        stack.worker.cron()?;
    }
    let report = stack.worker.report(&id)?;
    if report["status"] != "succeeded" {
        bail!("run {id} ended {}: {}", report["status"], report["reason"]);
    }
    let (operations, sql) = neon_time(&stack.emulator)?;
    let text = |name: &str| report[name].as_str().unwrap_or_default().to_owned();
    let total = millis_between(&text("started_at"), &text("ended_at")).max(1);
    let logged = harness::wait_for(Duration::from_secs(5), || {
        let lines: Vec<Value> = stack
            .worker
            .log()
            .into_iter()
            .filter(|line| line["run"] == id.as_str() && !line["subrequests"].is_null())
            .collect();
        (!lines.is_empty()).then_some(lines)
    });
    let requests = logged
        .unwrap_or_default()
        .iter()
        .filter_map(|line| line["subrequests"].as_str()?.parse::<u64>().ok())
        .sum();
    Ok((total.saturating_sub(operations + sql) * 100 / total, requests))
}

/// Does something several times, and returns the CPU time of workerd for it in milliseconds.
fn measure(stack: &Stack, mut act: impl FnMut() -> Result<()>) -> Result<u64> {
    let before = cpu_ms(stack.worker.id())?;
    for _ in 0..COUNT {
        act()?;
    }
    Ok(cpu_ms(stack.worker.id())?.saturating_sub(before))
}

/// Returns the CPU time of every workerd in the process group of `wrangler dev`.
fn cpu_ms(group: u32) -> Result<u64> {
    let mut ticks = 0;
    let mut found = false;
    for entry in
        fs::read_dir("/proc").context("read /proc; this measurement works on Linux only")?.flatten()
    {
        let Ok(text) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((name, rest)) = text.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'))
        else {
            continue;
        };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // Source: Linux, `proc(5)`: after the name come state, parent, process group, …; utime and
        // stime are the 12th and 13th.
        let number = |index: usize| {
            fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0)
        };
        if name == "workerd" && number(2) == u64::from(group) {
            found = true;
            ticks += number(11) + number(12);
        }
    }
    if !found {
        bail!("find workerd in process group {group}");
    }
    Ok(ticks * 1_000 / TICKS_PER_SECOND)
}
