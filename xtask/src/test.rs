//! `cargo xtask test`, `cargo xtask gallery` and `cargo xtask check`.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Result, bail};
use harness::paths;

use crate::setup::require_client;
use crate::shell::{loudly, say};

/// Tests that run at the same time: each waits for processes most of the time, and has a Postgres
/// and a workerd.
const TESTS_AT_ONCE: &str = "4";

/// Runs every test.
pub(crate) fn all() -> Result<()> {
    require_client("psql")?;
    say("running every test");
    loudly(
        Command::new("cargo")
            .args(["test", "--workspace", "--", "--test-threads", TESTS_AT_ONCE])
            .current_dir(paths::root())
            .env("PATH", paths::path_with_node()),
    )?;
    say("simulating every scenario of one fault");
    simulate(&["--exhaustive"])
}

/// Writes the page of every notice anew.
pub(crate) fn gallery() -> Result<()> {
    say("writing runbooks/notices.md");
    let mut command = Command::new("cargo");
    loudly(
        command
            .args(["test", "--quiet", "--test", "gallery"])
            .current_dir(paths::root())
            .env("FIRSTLIGHT_WRITE_GALLERY", "1"),
    )
}

/// Runs the simulation, optimised: it runs thousands of mornings a second.
pub(crate) fn simulate<S: AsRef<OsStr>>(arguments: &[S]) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args([
        "run",
        "--quiet",
        "--profile",
        "sim",
        "--package",
        "simulation",
        "--bin",
        "sim",
        "--",
    ]);
    loudly(command.args(arguments).current_dir(paths::root()))
}

/// Runs `cargo mutants` over the machine and the tick; `.cargo/mutants.toml` says which tests are
/// asked.
pub(crate) fn mutants(arguments: &[String]) -> Result<()> {
    if !Command::new("cargo")
        .args(["mutants", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
    {
        bail!("`cargo mutants` is needed. To get it: cargo install --locked cargo-mutants");
    }
    let mut command = Command::new("cargo");
    // The tests of another package are asked, so there is no baseline of this package's own;
    // `cargo xtask test` is the baseline.
    command.args([
        "mutants",
        "--baseline",
        "skip",
        "--timeout",
        "60",
        "--test-package",
        "firstlight",
        "--test-package",
        "simulation",
    ]);
    loudly(command.args(arguments).current_dir(paths::root()))
}

/// Checks formatting, lints and documentation, natively and for wasm32.
pub(crate) fn check() -> Result<()> {
    let cargo = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = Command::new("cargo");
        command.args(arguments).current_dir(paths::root());
        command.envs(environment.iter().copied());
        say(&format!("cargo {}", arguments.join(" ")));
        loudly(&mut command)
    };
    cargo(&["fmt", "--all", "--check"], &[])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])?;
    cargo(
        &[
            "clippy",
            "--package",
            "firstlight-worker",
            "--target",
            "wasm32-unknown-unknown",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    )?;
    cargo(&["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")])
}
