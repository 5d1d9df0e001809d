//! Databases and tables that refuse, and a plan that is used up: told within minutes, by name, and
//! the rest is verified.

use anyhow::{Context as _, Result};
use harness::emulator::Options;
use harness::stack::Stack;
use serde_json::{Value, json};

use crate::roles::as_owner;
use crate::sync::{options, small};

fn outcome(report: &Value, name: &str) -> Value {
    let found =
        report["checks"].as_array().into_iter().flatten().find(|check| check["name"] == name);
    found.map(|check| check["outcome"].clone()).unwrap_or_default()
}

/// As in case 09: a database that is retired, one that is full, and one that only its owner may
/// use.
#[test]
fn databases_that_let_nobody_in_are_told_by_name_and_the_others_are_verified() -> Result<()> {
    let stack = Stack::start_with(&options(), &|settings, _, _| {
        settings["pairs"][0]["verification"] = json!({"on_not_checked": "warn"});
    })?;
    let statements = [
        "create database retired",
        "alter database retired with allow_connections false",
        "create database full_up",
        "alter database full_up connection limit 0",
        "create database private",
        "revoke connect on database private from public",
    ];
    as_owner(&stack, &stack.emulator.production, &statements)?;

    let report = stack.run_to_end(6)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    for closed in ["retired", "full_up"] {
        let check = report["checks"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|check| check["kind"] == "database" && check["database"] == closed);
        let check = check.with_context(|| format!("{closed} is told: {report:#}"))?;
        assert_eq!(check["outcome"], "not_checked", "{check}");
        let detail = check["detail"].as_str().unwrap_or_default();
        assert!(
            detail.contains(if closed == "retired" { "55000" } else { "53300" })
                && detail.contains(closed),
            "{detail}"
        );
    }
    assert_eq!(outcome(&report, "private: schemas"), "passed", "{report:#}");
    assert_eq!(outcome(&report, "neondb: content of public.users"), "passed");
    let hook = stack.sink.taken("/webhook").into_iter().next().context("a notice")?;
    let warnings = hook.body["data"]["warnings"].to_string();
    assert!(
        warnings.contains("retired: database: not checked")
            && warnings.contains("full_up: database: not checked"),
        "{warnings}"
    );
    Ok(())
}

/// A database that is closed fails the run where nothing else is configured, and the reason says
/// what to do.
#[test]
fn a_database_that_lets_nobody_in_fails_the_run_within_minutes_and_says_how_to_leave_it_out()
-> Result<()> {
    let stack = small()?;
    let statements =
        ["create database retired", "alter database retired with allow_connections false"];
    as_owner(&stack, &stack.emulator.production, &statements)?;

    let report = stack.run_to_end(4)?;

    assert_eq!(
        (&report["status"], &report["step"]),
        (&json!("failed"), &json!("verify_backup")),
        "{report:#}"
    );
    let reason = report["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("not checked: retired (")
            && reason.contains("leave one out with databases"),
        "{reason}"
    );
    assert_eq!(stack.emulator.count("restoreProjectBranch")?, 0);
    Ok(())
}

/// Seeds so many tenants, each a schema with thirty tables.
fn tenants(count: usize) -> String {
    let columns = "f1 text, f2 integer, f3 timestamptz, f4 numeric(12,2), f5 boolean, f6 jsonb, \
        f7 text, f8 integer, f9 timestamptz";
    let block = |first: usize| {
        format!(
            "do $$ declare t int; n int; begin for t in {first}..{last} loop \
                execute format('create schema tenant_%s', t); \
                execute format('create table tenant_%s.account_1 (id bigserial primary key, \
                name text not null, parent_id bigint, {columns})', t); \
                for n in 2..30 loop \
                execute format('create table tenant_%1$s.account_%2$s (id bigserial primary key, \
                name text not null, parent_id bigint references tenant_%1$s.account_%3$s (id), \
                {columns})', t, n, n - 1); end loop; \
                execute format('insert into tenant_%s.account_1 (name) values (''a'')', t); \
                end loop; end $$;\ncommit;\n",
            last = (first + 9).min(count)
        )
    };
    (1..=count).step_by(10).map(block).collect()
}

/// As in case 02: a schema for each tenant. Neon refuses a reply of more than 10 MiB.
#[test]
fn six_thousand_tables_in_two_hundred_schemas_are_verified() -> Result<()> {
    let stack = Stack::start(&Options { seed: tenants(200), ..Options::default() })?;

    let report = stack.run_to_end(8)?;

    assert_eq!(report["status"], "succeeded", "{}", report["reason"]);
    assert_eq!(outcome(&report, "neondb: content of tenant_200.account_30"), "passed");
    let tables = report["checks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|check| check["kind"] == "content")
        .count();
    assert_eq!(tables, 6_000);
    let sizes = stack
        .emulator
        .journal()?
        .into_iter()
        .filter(|entry| entry["kind"] == "sql")
        .filter_map(|entry| entry["bytes"].as_u64());
    let largest = sizes.max().context("a reply")?;
    assert!((1_000_000..8_000_000).contains(&largest), "{largest} bytes, of 10,485,760");
    Ok(())
}

/// A quota is used up until somebody acts: nothing is tried until the deadline.
#[test]
fn a_plan_that_is_used_up_is_told_at_once_in_neons_words() -> Result<()> {
    let stack = small()?;
    let message = "Your account or project has exceeded the compute time quota. Upgrade your plan \
        to increase limits.";
    stack.emulator.fault(
        "sql",
        1,
        &json!({"kind": "refuse", "status": 500, "body": {"message": message}}),
    )?;

    let report = stack.run_to_end(1)?;

    assert_eq!(report["status"], "failed", "{report:#}");
    assert!(
        report["reason"].as_str().unwrap_or_default().contains("exceeded the compute time quota"),
        "{}",
        report["reason"]
    );
    assert_eq!(stack.emulator.journal()?.iter().filter(|entry| entry["kind"] == "sql").count(), 1);
    Ok(())
}
