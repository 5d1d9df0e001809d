//! `cargo xtask bench alarms`: many runs while an application with a password of its own writes to
//! staging. None of them may fail, or tell that a table is changed which nobody changes. As many
//! runs have one change that the restore brought, of a row that the application never touches: all
//! of them must warn and name it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use harness::emulator::Options;
use harness::stack::Stack;
use serde_json::{Value, json};

use crate::shell::say;

/// The production: tables that the application writes to, and one that it only reads.
const SEED: &str = "\
create table public.events(id bigint generated always as identity primary key, at timestamptz \
default now(), kind text);
insert into public.events(kind) select 'seed' from generate_series(1, 2000);
create table public.users(id int primary key, name text, score float8);
insert into public.users select g, 'user ' || g, g / 3.0 from generate_series(1, 1000) g;
create table public.seen(id int primary key, at timestamptz);
insert into public.seen select g, now() from generate_series(1, 1000) g;
create role app login password 'app_secret';
grant select, insert, update, delete on all tables in schema public to app;
";

/// What the application does to staging, all the time.
const WRITES: [&str; 3] = [
    "insert into events(kind) values ('from the application')",
    "update seen set at = clock_timestamp() where id % 10 = 0",
    "delete from events where id in (select id from events order by id limit 1)",
];

/// Changes that a restore makes, of a row that the application never touches; the number of the
/// round stands for the row.
const PLANTED: [&str; 4] = [
    "update users set score = null where id = {row}",
    "delete from users where id = {row}",
    "update users set name = name || ' ' where id = {row}",
    "update users set id = -id where id = {row}",
];

/// Does `count` runs of each kind, and prints how they went.
pub(crate) fn alarms(count: u64) -> Result<()> {
    let options =
        Options { seed: SEED.to_owned(), create_ms: 100, restore_ms: 100, ..Options::default() };
    let stack = Stack::start_with(&options, &|settings, _, _| {
        settings["pairs"][0]["keep_last"] = json!(2);
        settings["subrequest_budget"] = json!(1_000);
    })?;
    stack.emulator.control("PUT", "project", Some(r#"{"branches_limit": 10000}"#))?;
    let (is_over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let counted = std::thread::scope(|scope| {
        scope.spawn(|| keep_writing(&stack, &is_over, &written));
        let counted = both(&stack, count);
        is_over.store(true, Ordering::SeqCst);
        counted
    });
    let (false_alarms, drifted, missed) = counted?;
    println!("{} statements were written to staging meanwhile", written.load(Ordering::SeqCst));
    println!("{count} runs without a change: {false_alarms} failed, {drifted} told drift");
    println!("{count} runs with one planted change: {missed} did not warn or did not name the row");
    if false_alarms + missed > 0 {
        bail!("{false_alarms} false alarms, {missed} changes missed");
    }
    Ok(())
}

fn both(stack: &Stack, count: u64) -> Result<(u64, u64, u64)> {
    let (mut false_alarms, mut drifted, mut missed) = (0, 0, 0);
    for round in 0..count {
        let report = run(stack)?;
        // What the application writes is told as drift; what nobody writes must be equal.
        let is_alarm = report["status"] != "succeeded" || users(&report)["outcome"] != "passed";
        false_alarms += u64::from(is_alarm);
        drifted += u64::from(report["checks"].to_string().contains("drift"));
        if is_alarm {
            say(&format!("round {round}: a false alarm: {} {}", report["reason"], users(&report)));
        }
        let row = 1 + round % 99;
        let sql =
            PLANTED[usize::try_from(round)? % PLANTED.len()].replace("{row}", &row.to_string());
        stack.emulator.fault("restoreProjectBranch", 1, &json!({"kind": "tamper", "sql": sql}))?;
        let report = run(stack)?;
        let found = users(&report);
        let is_named = found["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains(&format!("{{\"id\": {row}}}")));
        if found["outcome"] != "warned" || !is_named {
            missed += 1;
            say(&format!("round {round}: missed {sql}: {} {found}", report["status"]));
        }
        if round % 10 == 9 {
            say(&format!("{} of {count} rounds", round + 1));
        }
    }
    Ok((false_alarms, drifted, missed))
}

/// Returns the check of the table that the application only reads.
fn users(report: &Value) -> Value {
    let mut checks = report["checks"].as_array().into_iter().flatten();
    checks
        .find(|check| check["name"] == "neondb: content of public.users")
        .cloned()
        .unwrap_or_default()
}

/// Does a manual run and returns its report.
fn run(stack: &Stack) -> Result<Value> {
    let id = stack.worker.run_now()?;
    for _ in 0..5 {
        let report = stack.worker.report(&id)?;
        if report["status"] != "running" && !report["prune"].is_null() {
            return Ok(report);
        }
        stack.worker.cron()?;
    }
    bail!("run {id} does not end")
}

/// Writes to staging until it is told to stop.
fn keep_writing(stack: &Stack, is_over: &AtomicBool, written: &AtomicU64) {
    // Bounded: two hours at fifty a second.
    for round in 0..360_000_usize {
        if is_over.load(Ordering::SeqCst) {
            return;
        }
        if stack.emulator.sql(&stack.emulator.staging, &[WRITES[round % WRITES.len()]]).is_ok() {
            written.fetch_add(1, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
