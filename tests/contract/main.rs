//! The emulator against other people's clients: the `neon` command line,
//! `@neondatabase/serverless`, `psql`, and Neon's OpenAPI document as a schema for every reply.
//!
//! A client that is missing fails its test; `cargo xtask test` installs them or names the command
//! that does.

mod bad_input;
mod bodies;
mod catalogues;
mod clients;
mod clocks_and_clients;
mod defects;
mod odd_databases;
mod openapi;
mod parity;
mod receivers;
mod rules;
mod schema;
mod snapshots;
mod tenants;
mod verification;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use harness::emulator::{Emulator, Options, Protection};
use harness::paths;
use tempfile::TempDir;

/// Starts an emulator with a small production.
fn emulator() -> Result<(TempDir, Emulator)> {
    emulator_with(Options::default())
}

/// Starts one with the same production, otherwise as it is told.
fn emulator_with(options: Options) -> Result<(TempDir, Emulator)> {
    let folder = tempfile::Builder::new().prefix("firstlight-").tempdir()?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    let seed =
        "create table public.users(id int primary key, name text); insert into public.users \
            values (1, 'one'), (2, 'two');"
            .to_owned();
    let emulator = Emulator::start(
        folder.path(),
        &Options { seed, create_ms: 200, restore_ms: 200, protection: Protection::Off, ..options },
    )?;
    Ok((folder, emulator))
}

/// Runs a script beside this file with the node of the project; one that fails fails the test.
/// Returns what it wrote.
fn script(name: &str, arguments: &[&str]) -> Result<String> {
    let file = paths::root().join("tests/contract").join(name);
    let output =
        Command::new(paths::node()).arg(file).args(arguments).output().context("start node")?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{text}");
    Ok(text)
}

/// Has a script judge values, which it reads from a file.
fn judge(name: &str, values: &[serde_json::Value]) -> Result<String> {
    let file = tempfile::Builder::new().prefix("firstlight-").suffix(".json").tempfile()?;
    std::fs::write(&file, serde_json::to_string(values)?)?;
    script(name, &[&file.path().to_string_lossy()])
}

/// Waits until no operation is under way.
fn settle(emulator: &Emulator) -> Result<()> {
    let settled = harness::wait_for(std::time::Duration::from_secs(30), || {
        let answer = emulator.call("GET", "/operations", None).ok()?.json();
        let is_busy = answer["operations"].as_array()?.iter().any(|operation| {
            operation["status"] == "running" || operation["status"] == "scheduling"
        });
        (!is_busy).then_some(())
    });
    settled.context("operations have not ended")
}

/// Makes a branch and returns its id.
fn make_branch(emulator: &Emulator, body: &serde_json::Value) -> Result<String> {
    let answer = emulator.call("POST", "/branches", Some(&body.to_string()))?;
    if answer.status != 201 {
        bail!("make a branch: {} {}", answer.status, answer.body);
    }
    settle(emulator)?;
    answer.json()["branch"]["id"].as_str().map(str::to_owned).context("read the id")
}
