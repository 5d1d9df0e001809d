//! Bad input: each is refused with a clear message, and nothing is changed in Neon.

use anyhow::Result;
use harness::emulator::{Emulator, Options, Protection};
use harness::sink::Sink;
use harness::stack::Stack;
use serde_json::{Value, json};

use crate::sync::{SEED, small};

/// Runs once and returns why it failed. Nothing may have been written to Neon.
fn refused(stack: &Stack) -> Result<String> {
    stack.emulator.control("DELETE", "journal", None)?;
    stack.worker.cron()?;
    let (run, status) = stack.runs()?.into_iter().next().unwrap_or_default();
    let report = stack.worker.report(&run)?;
    assert_eq!(status, "failed", "{report:#}");
    let writes: Vec<Value> = stack
        .emulator
        .journal()?
        .into_iter()
        .filter(|entry| entry["kind"] == "api" && entry["method"] != "GET")
        .collect();
    assert!(writes.is_empty(), "{writes:#?}");
    assert_eq!(report["staging"], "Staging is untouched.");
    Ok(report["reason"].as_str().unwrap_or_default().to_owned())
}

fn with(change: &dyn Fn(&mut Value, &Emulator, &Sink)) -> Result<String> {
    let stack =
        Stack::start_with(&Options { seed: SEED.to_owned(), ..Options::default() }, change)?;
    refused(&stack)
}

#[test]
fn a_staging_that_must_not_be_overwritten_is_refused() -> Result<()> {
    let mut stack = small()?;
    let staging = stack.emulator.staging.clone();
    stack.emulator.call(
        "PATCH",
        &format!("/branches/{staging}"),
        Some(r#"{"branch":{"protected":true}}"#),
    )?;
    let reason = refused(&stack)?;
    assert!(reason.contains("staging (") && reason.contains("is protected"), "{reason}");

    stack.emulator.call(
        "PATCH",
        &format!("/branches/{staging}"),
        Some(r#"{"branch":{"protected":false}}"#),
    )?;
    stack.emulator.call("POST", &format!("/branches/{staging}/set_as_default"), None)?;
    stack.worker.kill();
    stack.forget_kv()?;
    stack.restart_worker()?;
    let reason = refused(&stack)?;
    assert!(reason.contains("is the project's default branch"), "{reason}");
    Ok(())
}

#[test]
fn a_branch_that_is_not_there_is_named() -> Result<()> {
    let reason = with(&|settings, _, _| {
        settings["pairs"][0]["staging_branch"] = json!("br-gone-gone-00000000");
    })?;
    assert!(
        reason.starts_with("staging_branch: br-gone-gone-00000000 is not in project"),
        "{reason}"
    );
    Ok(())
}

#[test]
fn a_project_that_is_not_there_is_named() -> Result<()> {
    let reason =
        with(&|settings, _, _| settings["pairs"][0]["project"] = json!("gone-gone-00000000"))?;
    assert_eq!(reason, "read project gone-gone-00000000: Neon answered 404 \"project not found\"");
    Ok(())
}

#[test]
fn a_database_and_a_role_that_are_not_there_are_named_with_those_that_are() -> Result<()> {
    let reason =
        with(&|settings, _, _| settings["pairs"][0]["databases"] = json!(["neondb", "shop"]))?;
    assert!(
        reason.contains("databases: shop is not on production") && reason.contains("it has neondb"),
        "{reason}"
    );
    let reason = with(&|settings, _, _| settings["pairs"][0]["role"] = json!("verifier"))?;
    assert!(
        reason.contains("role: \"verifier\" is not on production")
            && reason.contains("it has neondb_owner, app"),
        "{reason}"
    );
    Ok(())
}

#[test]
fn a_role_that_row_level_security_filters_is_refused() -> Result<()> {
    let reason = with(&|settings, _, _| settings["pairs"][0]["role"] = json!("app"))?;
    assert!(
        reason.contains("role: app does not see every row") && reason.contains("BYPASSRLS"),
        "{reason}"
    );
    Ok(())
}

#[test]
fn a_project_that_stores_no_passwords_needs_a_configured_one() -> Result<()> {
    let stack = small()?;
    stack.emulator.control("PUT", "project", Some(r#"{"store_passwords": false}"#))?;
    let reason = refused(&stack)?;
    assert!(reason.contains("role_password_secret"), "{reason}");
    Ok(())
}

#[test]
fn a_foreign_branch_with_a_name_of_ours_is_left_alone() -> Result<()> {
    let stack = small()?;
    let name = format!("backup-{}", stack.today());
    let body =
        json!({"branch": {"name": name, "parent_id": stack.emulator.production}}).to_string();
    assert_eq!(stack.emulator.call("POST", "/branches", Some(&body))?.status, 201);
    let reason = refused(&stack)?;
    assert!(reason.contains(&name) && reason.contains("was not made by this pair"), "{reason}");
    assert!(stack.emulator.branches()?.iter().any(|branch| branch["name"] == name.as_str()));
    Ok(())
}

#[test]
fn a_wrong_key_is_told_as_neon_tells_it() -> Result<()> {
    let stack = Stack::start_with_secrets(
        &Options { seed: SEED.to_owned(), ..Options::default() },
        &[("NEON_API_KEY", "wrong")],
    )?;
    let reason = refused(&stack)?;
    assert!(
        reason.contains("Neon answered 401 \"supplied credentials do not pass authentication\""),
        "{reason}"
    );
    Ok(())
}

#[test]
fn an_invalid_configuration_starts_nothing_and_names_every_fault() -> Result<()> {
    let stack = Stack::start_with(&Options::default(), &|settings, emulator, _| {
        settings["pairs"][0]["staging_branch"] = json!(emulator.production);
        settings["colour"] = json!("red");
    })?;
    stack.emulator.control("DELETE", "journal", None)?;
    stack.worker.cron()?;
    let log = harness::wait_for(std::time::Duration::from_secs(10), || {
        Some(stack.worker.output()).filter(|log| log.contains("nothing started"))
    });
    let log = log.unwrap_or_default();
    assert!(
        log.contains("pairs[0].staging_branch: is the production branch")
            && log.contains("colour: is not a key"),
        "{log}"
    );
    assert!(stack.emulator.journal()?.is_empty());
    assert_eq!(
        harness::http::send("GET", &format!("{}/health", stack.worker.url), None, None)?.status,
        503
    );
    assert_eq!(stack.worker.call("GET", "/runs", None)?.status, 500);
    Ok(())
}

/// As in case 33d: a Worker has no fixed address. It is told before anything is made, and names the
/// way out.
#[test]
fn a_project_that_lets_no_address_of_ours_in_is_refused_before_anything_is_made() -> Result<()> {
    for (settings, word) in [
        (
            json!({"allowed_ips": {"ips": ["203.0.113.9"], "protected_branches_only": false}}),
            "IP Allow of the project has 1 addresses",
        ),
        (json!({"block_public_connections": true}), "blocks public connections"),
    ] {
        let stack = small()?;
        stack.emulator.call(
            "PATCH",
            "",
            Some(&json!({"project": {"settings": settings}}).to_string()),
        )?;
        let reason = refused(&stack)?;
        assert!(reason.contains(word) && reason.contains("sql_url"), "{reason}");
        assert_eq!(stack.emulator.count("createProjectBranch")?, 0);
    }
    Ok(())
}

/// Neon's advice: the list holds for protected branches, and production is one. Its backup is none
/// and can be asked.
#[test]
fn a_list_of_addresses_for_protected_branches_alone_stops_nothing() -> Result<()> {
    let options = Options { protection: Protection::On, ..crate::sync::options() };
    let stack = Stack::start(&options)?;
    let settings =
        json!({"allowed_ips": {"ips": ["203.0.113.9"], "protected_branches_only": true}});
    stack.emulator.call(
        "PATCH",
        "",
        Some(&json!({"project": {"settings": settings}}).to_string()),
    )?;

    let report = stack.run_to_end(3)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("production could not be asked whether"), "{warnings}");
    Ok(())
}
