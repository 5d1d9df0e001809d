//! Roles and passwords of healthy productions: those that may not log in, read only, or enter one
//! database alone, and a protected production, whose branches have new passwords.

use anyhow::{Context as _, Result};
use harness::emulator::{Login, Options, Protection};
use harness::stack::Stack;
use serde_json::{Value, json};

use crate::sync::{options, small};

/// Runs statements as the owner of a branch, each by itself.
pub(crate) fn as_owner(stack: &Stack, branch: &str, statements: &[&str]) -> Result<()> {
    let password = stack.emulator.owner_password(branch)?;
    let login = Login { branch, role: "neondb_owner", password: &password, database: "neondb" };
    statements.iter().try_for_each(|sql| stack.emulator.alone(&login, sql))
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .map(|entry| entry.as_str().or_else(|| entry[0].as_str()).unwrap_or_default())
        .collect()
}

const REAL_LIFE: &str = "\
create role app login password 'production-app';
create role reporting login password 'production-reporting';
alter role reporting set default_transaction_read_only = on;
create role retired login password 'production-retired' connection limit 0;
create role contractor login password 'production-contractor' valid until '2020-01-01';
create table public.users (id int primary key, name text);
insert into public.users values (1, 'one'), (2, 'two');
grant select on all tables in schema public to reporting;
";

/// As in case 06 and case 33b: a role that is read only gets its password back. One that may not
/// log in is told once and holds nothing up. (The emulator lists no role that has NOLOGIN;
/// `machine/passwords.rs` asks for it all the same.)
#[test]
fn roles_of_real_life_have_their_passwords_and_those_that_may_not_log_in_hold_nothing_up()
-> Result<()> {
    let stack = Stack::start(&Options { seed: REAL_LIFE.to_owned(), ..Options::default() })?;
    let staging = stack.emulator.staging.clone();
    let own = ["app", "reporting", "retired", "contractor"]
        .map(|role| format!("alter role {role} password 'staging-{role}'"));
    as_owner(&stack, &staging, &own.iter().map(String::as_str).collect::<Vec<_>>())?;

    let report = stack.run_to_end(2)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    let kept = names(&report["passwords"]["kept"]);
    assert!(kept.contains(&"app") && kept.contains(&"reporting"), "{report:#}");
    for role in ["app", "reporting"] {
        let login = Login {
            branch: &staging,
            role,
            password: &format!("staging-{role}"),
            database: "neondb",
        };
        stack.emulator.alone(&login, "select 1")?;
    }
    let warnings = report["warnings"].to_string();
    for (role, why) in [("retired", "CONNECTION LIMIT 0"), ("contractor", "VALID UNTIL")] {
        assert_eq!(warnings.matches(&format!("{role} (")).count(), 1, "{warnings}");
        assert!(warnings.contains(why), "{warnings}");
    }
    Ok(())
}

/// As in case 33a: a role is tried in a database that lets it in, which need not be the first.
#[test]
fn a_role_that_may_enter_the_second_database_alone_is_tried_there() -> Result<()> {
    let stack = small()?;
    let production = stack.emulator.production.clone();
    as_owner(
        &stack,
        &production,
        &["create database shop", "create role svc login password 'production-svc'"],
    )?;
    as_owner(
        &stack,
        &production,
        &[
            "revoke connect on database neondb from public",
            "grant connect on database neondb to app",
        ],
    )?;
    let staging = stack.emulator.staging.clone();
    as_owner(
        &stack,
        &staging,
        &["create database shop", "create role svc login password 'staging-svc'"],
    )?;

    let report = stack.run_to_end(3)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    assert!(!report.to_string().contains("42501"), "{report:#}");
    stack.emulator.alone(
        &Login { branch: &staging, role: "svc", password: "staging-svc", database: "shop" },
        "select 1",
    )
}

/// As in case 36: which of the passwords a branch of a protected production takes is not known:
/// each way succeeds.
#[test]
fn a_protected_production_is_copied_whichever_password_its_branches_take() -> Result<()> {
    for (readers, proxy) in [(true, true), (true, false), (false, true), (false, false)] {
        let stack = Stack::start(&Options { protection: Protection::On, ..options() })?;
        let switches =
            json!({"readers_take_new_passwords": readers, "proxy_asks_control_plane": proxy});
        stack.emulator.control("PUT", "switches", Some(&switches.to_string()))?;
        let staging = stack.emulator.staging.clone();
        as_owner(&stack, &staging, &["alter role app password 'staging-app'"])?;

        let report = stack.run_to_end(3)?;

        assert_eq!(report["status"], "succeeded", "{switches}: {report:#}");
        stack.emulator.alone(
            &Login { branch: &staging, role: "app", password: "staging-app", database: "neondb" },
            "select 1",
        )?;
    }
    Ok(())
}

/// As in case 33c: staging's verifying role has a password of its own, and its application writes
/// while it is compared.
#[test]
fn a_staging_with_a_password_of_its_own_that_is_written_to_is_drift_and_no_refusal() -> Result<()> {
    let stack = small()?;
    let staging = stack.emulator.staging.clone();
    as_owner(&stack, &staging, &["alter role neondb_owner password 'staging only'"])?;
    let write = "insert into users(name, score) values ('written', 1)";
    stack.emulator.fault(
        "restoreProjectBranch",
        1,
        &json!({"kind": "tamper", "where": "after", "sql": write}),
    )?;

    let report = stack.run_to_end(2)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    let users = report["checks"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|check| check["name"] == "neondb: content of public.users");
    assert_eq!(users.context("it is compared")?["rows"]["counts"]["added"], 1, "{report:#}");
    Ok(())
}

#[test]
fn passwords_are_given_back_whichever_clock_is_ahead() -> Result<()> {
    for clock_offset_s in [-300, 300] {
        let stack = Stack::start(&Options { clock_offset_s, ..options() })?;
        stack
            .emulator
            .sql(&stack.emulator.staging, &["alter role neondb_owner password 'staging only'"])?;
        let report = stack.run_to_end(3)?;
        assert_eq!(report["status"], "succeeded", "{clock_offset_s}: {report:#}");
        let kept = report["passwords"]["kept"].as_array().map_or(0, Vec::len);
        assert_eq!(kept, 2, "{clock_offset_s}: {report:#}");
        let told = stack.emulator.owner_password(&stack.emulator.staging)?;
        assert_eq!(told, "staging only", "{clock_offset_s}");
    }
    Ok(())
}
