//! Real clients drive the emulator.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use harness::emulator::{API_KEY, Emulator};
use harness::paths;
use serde_json::Value;

use crate::{emulator, script, settle};

/// Runs the `neon` command line and returns what it prints.
fn neon(emulator: &Emulator, arguments: &[&str]) -> Result<Value> {
    let home = tempfile::tempdir()?;
    let output = Command::new(paths::node())
        .arg(paths::root().join("node_modules/.bin/neon"))
        .args(arguments)
        .args([
            "--project-id",
            &emulator.project,
            "--output",
            "json",
            "--no-analytics",
            "--no-color",
        ])
        .env("NEON_API_HOST", emulator.api())
        .env("NEON_API_KEY", API_KEY)
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .env("CI", "1")
        .output()
        .context("start the neon command line")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("neon {}: {text}{}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_str(&text).unwrap_or(Value::String(text.trim().to_owned())))
}

/// Does the same, and waits until Neon has done what it was told.
fn change(emulator: &Emulator, arguments: &[&str]) -> Result<Value> {
    let answer = neon(emulator, arguments)?;
    settle(emulator)?;
    Ok(answer)
}

#[test]
fn the_neon_command_line_creates_restores_lists_and_deletes() -> Result<()> {
    let (_folder, emulator) = emulator()?;

    let created = neon(&emulator, &["branches", "create", "--name", "backup-1", "--no-compute"])?;
    settle(&emulator)?;
    assert_eq!(created["name"], "backup-1", "{created:#}");
    neon(
        &emulator,
        &["branches", "restore", "staging", "backup-1", "--preserve-under-name", "staging-before"],
    )?;
    settle(&emulator)?;
    let listed = neon(&emulator, &["branches", "list"])?;
    let parent = |name: &str| {
        let found = listed.as_array().into_iter().flatten().find(|branch| branch["name"] == name);
        found.map(|branch| branch["parent_id"].clone()).unwrap_or_default()
    };
    assert_eq!(parent("staging"), created["id"], "{listed:#}");
    assert_eq!(parent("staging-before"), emulator.production.as_str());
    let refused = neon(&emulator, &["branches", "delete", "backup-1"]).map(drop);
    assert!(
        refused.is_err_and(|error| error
            .to_string()
            .contains("cannot delete branch that has children"))
    );
    neon(&emulator, &["branches", "delete", "staging-before"])?;
    settle(&emulator)?;
    let operations = neon(&emulator, &["operations", "list"])?;
    let actions: Vec<&str> = operations
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|operation| operation["action"].as_str())
        .collect();
    assert!(
        actions.contains(&"create_branch") && actions.contains(&"delete_timeline"),
        "{actions:?}"
    );
    Ok(())
}

#[test]
fn the_neon_command_line_reads_and_changes_every_kind_of_object() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let change = |arguments: &[&str]| change(&emulator, arguments);
    let names = |list: &Value| -> Vec<String> {
        list.as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| item["name"].as_str().map(str::to_owned))
            .collect()
    };

    assert_eq!(
        neon(&emulator, &["projects", "get", &emulator.project])?["id"],
        emulator.project.as_str()
    );
    assert_eq!(
        names(&neon(&emulator, &["roles", "list", "--branch", "staging"])?),
        ["neondb_owner"]
    );
    assert_eq!(names(&neon(&emulator, &["databases", "list", "--branch", "staging"])?), ["neondb"]);
    change(&["branches", "create", "--name", "feature", "--parent", "staging", "--no-compute"])?;
    change(&["branches", "add-compute", "feature", "--type", "read_only"])?;
    change(&["branches", "rename", "feature", "renamed"])?;
    change(&["branches", "set-expiration", "renamed", "--expires-at", &expiry()])?;
    assert!(neon(&emulator, &["branches", "get", "renamed"])?["expires_at"].is_string());
    // Staging has a child, so that its old state has to be kept.
    change(&[
        "branches",
        "reset",
        "staging",
        "--parent",
        "--preserve-under-name",
        "staging-before",
    ])?;
    assert_eq!(
        neon(&emulator, &["branches", "get", "staging"])?["parent_id"],
        emulator.production.as_str()
    );
    let before = neon(&emulator, &["branches", "get", "staging-before"])?;
    assert_eq!(neon(&emulator, &["branches", "get", "renamed"])?["parent_id"], before["id"]);
    change(&["branches", "set-default", "staging"])?;
    assert_eq!(neon(&emulator, &["branches", "get", "staging"])?["default"], true);
    Ok(())
}

#[test]
fn the_neon_command_line_takes_restores_finalizes_and_deletes_a_snapshot() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let change = |arguments: &[&str]| change(&emulator, arguments);
    let taken = change(&["snapshots", "create", "--branch", "production", "--name", "weekly"])?;
    let id = taken["id"].as_str().context("the snapshot's id")?.to_owned();
    let listed = neon(&emulator, &["snapshots", "list"])?;
    assert_eq!(
        (listed[0]["name"].as_str(), listed[0]["id"].as_str()),
        (Some("weekly"), Some(id.as_str())),
        "{listed:#}"
    );
    change(&["snapshots", "restore", &id, "--name", "preview", "--target-branch", "staging"])?;
    let preview = neon(&emulator, &["branches", "get", "preview"])?;
    assert_eq!(
        (&preview["restored_from"], preview["parent_id"].as_str()),
        (&Value::from(id.as_str()), None),
        "{preview:#}"
    );
    change(&["snapshots", "finalize", "preview"])?;
    let staging = neon(&emulator, &["branches", "get", "staging"])?;
    assert_eq!(staging["id"], preview["id"], "another branch has staging's name now");
    assert_eq!(
        neon(&emulator, &["branches", "get", "staging (old)"])?["id"],
        emulator.staging.as_str()
    );
    change(&[
        "snapshots",
        "schedule",
        "set",
        "--branch",
        "production",
        "--frequency",
        "daily",
        "--hour",
        "5",
    ])?;
    assert_eq!(
        neon(&emulator, &["snapshots", "schedule", "get", "--branch", "production"])?[0]["frequency"],
        "daily"
    );
    change(&["snapshots", "delete", &id])?;
    assert_eq!(neon(&emulator, &["snapshots", "list"])?, Value::from(Vec::<Value>::new()));
    Ok(())
}

/// Returns an instant of tomorrow.
fn expiry() -> String {
    let created: chrono::DateTime<chrono::Utc> = std::time::SystemTime::UNIX_EPOCH.into();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    (created + now + chrono::TimeDelta::days(1)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

#[test]
fn the_connection_string_of_the_neon_command_line_logs_in() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let uri = neon(
        &emulator,
        &[
            "connection-string",
            "staging",
            "--role-name",
            "neondb_owner",
            "--database-name",
            "neondb",
        ],
    )?;
    let uri = uri.as_str().context("a connection string")?;
    let headers = [("neon-connection-string", uri)];
    let answer = harness::http::send_with(
        "POST",
        &format!("{}/sql", emulator.url),
        None,
        &headers,
        Some(r#"{"query":"select 1 as one"}"#),
    )?;
    assert_eq!(
        (answer.status, &answer.json()["rows"][0]["one"]),
        (200, &Value::from(1)),
        "{}",
        answer.body
    );
    Ok(())
}

#[test]
fn the_serverless_driver_queries_transacts_and_reads_errors() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let endpoint = emulator.writer(&emulator.staging)?;
    let password = endpoint["roles"][0]["password"].as_str().context("the owner's password")?;
    let uri = format!(
        "postgresql://neondb_owner:{password}@{}/neondb",
        endpoint["host"].as_str().unwrap_or_default()
    );
    let text = script("serverless.mjs", &[&format!("{}/sql", emulator.url), &uri])?;
    assert!(text.contains("ok 5 checks"), "{text}");
    Ok(())
}

#[test]
fn psql_connects_to_the_compute_that_the_emulator_names() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let endpoint = emulator.writer(&emulator.production)?;
    let port = endpoint["port"].as_u64().context("production's compute runs")?.to_string();
    let output = Command::new("psql")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "neondb_owner",
            "-d",
            "neondb",
            "-At",
            "-c",
            "select count(*) from users",
        ])
        .env("PGPASSWORD", endpoint["roles"][0]["password"].as_str().unwrap_or_default())
        .output()
        .context("start psql; install it with `apt-get install postgresql-client`")?;
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "2",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[test]
fn a_compute_whose_port_somebody_has_taken_meanwhile_starts_on_another() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let endpoint = emulator.writer(&emulator.production)?;
    let port = endpoint["port"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .context("production's compute runs")?;
    let path = format!("/endpoints/{}/suspend", endpoint["id"].as_str().unwrap_or_default());
    assert_eq!(emulator.call("POST", &path, None)?.status, 200);
    settle(&emulator)?;
    let taken = harness::wait_for(std::time::Duration::from_secs(10), || {
        std::net::TcpListener::bind(("127.0.0.1", port)).ok()
    });
    let _taken = taken.context("the port is not free although the compute sleeps")?;
    assert_eq!(
        emulator.sql(&emulator.production, &["select count(*) from users"])?,
        vec![vec![Some("2".to_owned())]]
    );
    assert_ne!(emulator.writer(&emulator.production)?["port"], endpoint["port"]);
    Ok(())
}
