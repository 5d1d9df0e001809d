//! `cargo xtask demo`: does the main job before your eyes, and `cargo xtask dev`: starts the same
//! and stays.
//!
//! With `--seed` the production is a dump of somebody's own ([`seed`]).
//!
//! Failure: the exit status is 0 only if everything that is reported held.

pub(crate) mod seed;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use harness::emulator::{API_KEY, Emulator, Options};
use harness::paths;
use harness::stack::Stack;
use harness::worker::{ADMIN_TOKEN, READ_TOKEN};
use serde_json::{Value, json};

use crate::shell::say;

/// The production that is demonstrated.
const PRODUCTION: &str = include_str!("production.sql");

/// What makes staging differ from production before the run.
const DRIFT: [&str; 4] = [
    "delete from \"UserProfile\" where \"userId\" > 90000; delete from users where id > 90000",
    "update organizations set name = name || ' (test)' where id <= 10",
    "create table debris(id int); insert into debris select generate_series(1, 100)",
    "insert into events(at, organization_id, kind, payload) select now(), 1, 'test', '{}' \
        from generate_series(1, 500)",
];

/// Digests a table in another way than the Worker does: every row as text, in order.
const INDEPENDENT: &str = "select count(*)::text || ' ' || \
    coalesce(md5(string_agg(md5(t::text), '' order by md5(t::text))), '') from ";

/// The tables that are compared independently at the end.
const COMPARED: [&str; 8] = [
    "organizations",
    "users",
    "projects",
    "secrets",
    "\"Company\"",
    "\"UserProfile\"",
    "\"Invitation\"",
    "events_2026_10",
];

/// How the demonstration is shown.
#[derive(Clone, Copy)]
pub(crate) struct Shown {
    /// Leave everything up until a key is pressed.
    pub(crate) keep: bool,
    /// Print the report as one line of JSON.
    pub(crate) json: bool,
}

/// Starts emulator, Worker and receiver with the large production.
fn start() -> Result<Stack> {
    say("starting the Neon emulator with a production of about 200 MB");
    start_with(PRODUCTION)
}

/// Starts emulator, Worker and receiver; Neon's operations take what they mostly take.
fn start_with(production: &str) -> Result<Stack> {
    let options = Options {
        seed: production.to_owned(),
        create_ms: 3_000,
        restore_ms: 6_100,
        ..Options::default()
    };
    Stack::start_with(&options, &|settings, _, sink| {
        settings["pairs"][0]["smoke_tests"] =
            json!([{"name": "sign-in page", "url": format!("{}/app/login", sink.url)}]);
    })
}

/// Runs the demonstration.
pub(crate) fn demo(shown: Shown) -> Result<()> {
    let stack = start()?;
    let emulator = &stack.emulator;
    let compared = COMPARED.map(str::to_owned);
    say("letting staging drift, as staging does");
    for statement in DRIFT {
        for part in statement.split(';') {
            emulator.sql(&emulator.staging, &[part])?;
        }
    }
    emulator.sql(&emulator.staging, &["alter role app password 'staging_application_secret'"])?;
    let before = summary(emulator, &emulator.staging, &compared)?;
    emulator.control("DELETE", "journal", None)?;
    let stop = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    say("firing the cron, while an application keeps writing to production");
    let began = Instant::now();
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| keep_writing(emulator, &stop, &written));
        let outcome = watch(&stack, began);
        stop.store(true, Ordering::SeqCst);
        outcome
    });
    let elapsed = began.elapsed();
    outcome?;
    let mut report = report(&stack, &before, elapsed)?;
    let written = written.load(Ordering::SeqCst);
    report["written_to_production"] = json!(written);
    demand(&mut report, written > 0, "nothing was written to production meanwhile");
    let login = emulator.control("GET", "endpoints", None)?;
    let kept =
        password(&login, &emulator.staging, "app") == Some("staging_application_secret".to_owned());
    demand(&mut report, kept, "the application's password on staging was not kept");
    finish(&stack, &report, shown)
}

/// Adds an objection to a report, where something did not hold.
fn demand(report: &mut Value, held: bool, objection: &str) {
    if !held && let Some(objections) = report["objections"].as_array_mut() {
        objections.push(json!(objection));
        report["status"] = json!("failed");
    }
}

/// Shows a report, and stays where that is asked. The exit status says whether everything held.
fn finish(stack: &Stack, report: &Value, shown: Shown) -> Result<()> {
    if shown.json {
        println!("{report}");
    } else {
        print_report(report);
    }
    if shown.keep {
        say(&format!(
            "everything stays up: Worker {}, emulator {}; press Enter to end it",
            stack.worker.url, stack.emulator.url
        ));
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
    }
    if report["status"] != "succeeded" {
        bail!("the demonstration did not hold: {}", report["objections"]);
    }
    Ok(())
}

/// Starts everything and stays until it is interrupted or its input ends.
pub(crate) fn dev() -> Result<()> {
    let stack = start()?;
    let emulator = &stack.emulator;
    // Asleep until somebody asks: its port would not be known.
    emulator.sql(&emulator.staging, &["select 1"])?;
    let described = json!({
        "worker": {"url": stack.worker.url, "admin_token": ADMIN_TOKEN, "read_token": READ_TOKEN},
        "neon": {"api_base": emulator.api(), "api_key": API_KEY,
            "sql_url": format!("{}/sql", emulator.url), "project": emulator.project,
                 "production_branch": emulator.production, "staging_branch": emulator.staging},
        "endpoints": described_endpoints(&emulator.control("GET", "endpoints", None)?),
        "receiver": stack.sink.url,
    });
    let file = paths::root().join("target/dev.json");
    std::fs::write(&file, format!("{described:#}\n"))
        .with_context(|| format!("write {}", file.display()))?;
    say(&format!(
        "Worker {}, emulator {}; details in target/dev.json; press Enter to end it",
        stack.worker.url, emulator.url
    ));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}

/// Returns one entry for each endpoint, database and role.
fn described_endpoints(listed: &Value) -> Vec<Value> {
    let mut described = Vec::new();
    for endpoint in listed["endpoints"].as_array().into_iter().flatten() {
        for database in endpoint["databases"].as_array().into_iter().flatten() {
            for role in endpoint["roles"].as_array().into_iter().flatten() {
                described.push(json!({
                    "id": endpoint["id"], "host": endpoint["host"],
                    "branch": endpoint["branch_name"], "address": endpoint["address"],
                    "port": endpoint["port"], "database": database, "role": role["name"],
                    "password": role["password"],
                }));
            }
        }
    }
    described
}

/// Inserts into production until it is told to stop.
fn keep_writing(emulator: &Emulator, stop: &AtomicBool, written: &AtomicU64) {
    let insert = "insert into events(at, organization_id, kind, payload) values (now(), 1, 'live', \
        '{\"live\": true}')";
    // Bounded: ten minutes at twenty a second.
    for _ in 0..12_000 {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        if emulator.sql(&emulator.production, &[insert]).is_ok() {
            written.fetch_add(1, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Fires the cron and shows the steps as the Worker logs them.
fn watch(stack: &Stack, began: Instant) -> Result<()> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut shown = 0;
            while !done.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(100));
                let log = stack.worker.log();
                for line in log.iter().skip(shown) {
                    show(line, began.elapsed());
                }
                shown = log.len();
            }
        });
        let ended = stack.run_to_end(3);
        std::thread::sleep(Duration::from_millis(300));
        done.store(true, Ordering::SeqCst);
        ended.map(drop)
    })
}

fn show(line: &Value, elapsed: Duration) {
    let text = |name: &str| line[name].as_str().unwrap_or_default();
    let told = match text("event") {
        "tick drives" => format!("run {} begins with {}", text("run"), text("step")),
        "step started" => text("step").to_owned(),
        "call accepted" => format!("  Neon accepted: {}", text("call")),
        "run ended" => format!("{}: {}", text("status"), text("text")),
        "tick ended" => format!(
            "tick ended after {} subrequests ({} http, {} KV)",
            text("subrequests"),
            text("http"),
            text("kv")
        ),
        "handed over" => format!("handed over to the next tick: {}", text("why")),
        "call failed" | "query failed" => format!("  {}", text("error")),
        _ => return,
    };
    eprintln!("  {:>6.1} s  {told}", elapsed.as_secs_f64());
}

/// Counts what a branch holds.
fn summary(
    emulator: &Emulator,
    branch: &str,
    tables: &[String],
) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for table in tables {
        let rows = emulator
            .sql(branch, &["set local row_security = off", &format!("{INDEPENDENT}{table} t")])?;
        found
            .insert(table.clone(), rows.into_iter().flatten().flatten().next().unwrap_or_default());
    }
    Ok(found)
}

/// Puts the report together, with objections where something did not hold. `before` is what staging
/// held in each table that is compared.
fn report(stack: &Stack, before: &BTreeMap<String, String>, elapsed: Duration) -> Result<Value> {
    let emulator = &stack.emulator;
    let (operations, sql) = neon_time(emulator)?;
    let (run, _) = stack.runs()?.into_iter().next().context("find the run")?;
    let result = stack.worker.report(&run)?;
    let compared: Vec<String> = before.keys().cloned().collect();
    let after = summary(emulator, &emulator.staging, &compared)?;
    let production = summary(emulator, &emulator.production, &compared)?;
    let notices = stack.sink.taken("/webhook");
    let notice = notices.last().context("find the notice")?;
    let started = result["started_at"].as_str().unwrap_or_default();
    let run_ms = millis_between(started, result["ended_at"].as_str().unwrap_or_default());
    let ours = run_ms.saturating_sub(operations + sql);
    let steps: Vec<Value> = result["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|step| {
            let ended = step["ended_at"].as_str().unwrap_or_default();
            json!({"step": step["step"],
                "ms": millis_between(step["started_at"].as_str().unwrap_or_default(), ended),
                "attempts": step["attempts"]})
        })
        .collect();
    let mut report = json!({
        "status": "succeeded", "run": run, "backup": result["backup"]["name"],
        "compared": result["compared"], "steps": steps, "run_ms": run_ms,
        "operations_ms": operations, "sql_ms": sql, "ours_ms": ours,
        "ours_percent": ours * 100 / run_ms.max(1), "wall_ms": u64::try_from(elapsed.as_millis())?,
        "written_to_production": 0,
        "notice": {"subject": notice.body["data"]["subject"], "text": notice.body["data"]["text"],
            "is_signed": notice.is_signed},
        "staging_before": before, "staging_after": after, "objections": [],
    });
    let succeeded = result["status"] == "succeeded";
    let ended = format!("the run ended {}: {}", result["status"], result["reason"]);
    demand(&mut report, succeeded, &ended);
    // Nobody writes to these tables of production, so that staging must equal it in them.
    let differs =
        format!("staging differs from production by another digest: {after:?}, {production:?}");
    demand(&mut report, after == production, &differs);
    demand(&mut report, before != &after, "staging did not change");
    let signed = notice.is_signed;
    let told = format!("{} notices, signed: {signed:?}", notices.len());
    demand(&mut report, notices.len() == 1 && signed == Some(true), &told);
    Ok(report)
}

fn password(endpoints: &Value, branch: &str, role: &str) -> Option<String> {
    let endpoint = endpoints["endpoints"]
        .as_array()?
        .iter()
        .find(|endpoint| endpoint["branch_id"] == branch)?;
    let found = endpoint["roles"].as_array()?.iter().find(|found| found["name"] == role)?;
    found["password"].as_str().map(str::to_owned)
}

/// Returns how long Neon's own work (operations, and starting the computes that queries waited for)
/// and the queries of the run took, in milliseconds, as the emulator has them.
pub(crate) fn neon_time(emulator: &Emulator) -> Result<(u64, u64)> {
    let project = emulator.control("GET", "project", None)?;
    let journal = emulator.journal()?;
    let named = |route: &str| {
        let entries = journal.iter().filter(move |entry| entry["route"] == route);
        entries
            .flat_map(|entry| entry["operations"].as_array().cloned().unwrap_or_default())
            .collect::<Vec<Value>>()
    };
    let groups = [named("createProjectBranch"), named("restoreProjectBranch")];
    let mut works = Vec::new();
    for group in groups.iter().filter(|group| !group.is_empty()) {
        let of_group: Vec<&Value> = project["operations"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|operation| group.contains(&operation["id"]))
            .collect();
        let number = |operation: &&Value, name: &str| operation[name].as_i64().unwrap_or(0);
        let begin =
            of_group.iter().map(|operation| number(operation, "created_at_ms")).min().unwrap_or(0);
        let end =
            of_group.iter().map(|operation| number(operation, "ended_at_ms")).max().unwrap_or(0);
        works.push((begin, end));
    }
    let live = emulator.writer(&emulator.production)?["id"].clone();
    let mut queries = Vec::new();
    // The writer's own queries are not the run's.
    for entry in journal.iter().filter(|entry| entry["kind"] == "sql" && entry["endpoint"] != live)
    {
        let at = entry["at"].as_str().and_then(|at| at.parse::<firstlight::time::Timestamp>().ok());
        let (Some(at), Some(took)) = (at, entry["duration_ms"].as_i64()) else { continue };
        let began = at.timestamp_millis();
        let woken = began + entry["waking_ms"].as_i64().unwrap_or(0);
        works.push((began, woken));
        queries.push((woken, began + took));
    }
    Ok((covered(works), covered(queries)))
}

/// Returns how many milliseconds spans cover: those that overlap are counted once.
fn covered(mut spans: Vec<(i64, i64)>) -> u64 {
    spans.sort_unstable();
    let (mut sum, mut until) = (0, i64::MIN);
    for (began, ended) in spans {
        sum += u64::try_from(ended - began.max(until)).unwrap_or(0);
        until = until.max(ended);
    }
    sum
}

/// Returns the milliseconds between two instants in RFC 3339.
pub(crate) fn millis_between(start: &str, end: &str) -> u64 {
    let at = |text: &str| {
        text.parse::<firstlight::time::Timestamp>()
            .map(|at| at.timestamp_millis())
            .unwrap_or_default()
    };
    u64::try_from(at(end) - at(start)).unwrap_or(0)
}

fn print_report(report: &Value) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    println!();
    println!("{}", text(&report["notice"]["subject"]));
    println!("{}", text(&report["notice"]["text"]));
    println!();
    println!("run         {} ({})", text(&report["run"]), text(&report["status"]));
    println!("backup      {}", text(&report["backup"]));
    let compared = &report["compared"];
    let megabytes = compared["bytes"].as_u64().unwrap_or(0) / (1 << 20);
    println!(
        "compared    {} tables, {} rows, {megabytes} MB, on both sides",
        compared["tables"], compared["rows"]
    );
    println!(
        "production  {} rows were written while the run was under way",
        report["written_to_production"]
    );
    println!(
        "notice      received, signature {}",
        if report["notice"]["is_signed"] == true { "right" } else { "WRONG" }
    );
    println!(
        "time        {} ms: {} Neon's operations, {} SQL, {} ours ({} %)",
        report["run_ms"],
        report["operations_ms"],
        report["sql_ms"],
        report["ours_ms"],
        report["ours_percent"]
    );
    for step in report["steps"].as_array().into_iter().flatten() {
        println!("              {:<16} {:>6} ms", text(&step["step"]), step["ms"]);
    }
    println!("staging       before                after");
    let count = |side: &Value| {
        side.as_str().and_then(|text| text.split(' ').next()).unwrap_or("-").to_owned()
    };
    for (table, after) in report["staging_after"].as_object().into_iter().flatten() {
        let before = &report["staging_before"][table];
        let changed = if before == after { "" } else { "  changed" };
        println!("  {table:<16} {:>8} rows {:>10} rows{changed}", count(before), count(after));
    }
    for objection in report["objections"].as_array().into_iter().flatten() {
        println!("OBJECTION   {}", text(objection));
    }
}
