//! Brings a machine to the point where the Worker can be built and tested.
//!
//! In: the locked versions in `Cargo.lock`, `package-lock.json` and the constants below. Out: tools
//! under `target/tools`, packages under `node_modules`, the `wasm32-unknown-unknown` standard
//! library in the active toolchain.
//!
//! Invariants: every part looks first whether it is already done, so that a second run starts at
//! once. Nothing outside the project and the Rust toolchain is changed. No root is needed.
//!
//! Failure: a missing tool is named together with the command that installs it.

use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use harness::paths;

use crate::shell::{capture, quietly, say};

/// The builder of the Worker's bundle. Must agree with the `worker` crate in `Cargo.lock`.
const WORKER_BUILD: &str = "0.8.7";

/// Does everything that is missing.
pub(crate) fn all() -> Result<()> {
    crate::wasm_std::ensure()?;
    npm_packages()?;
    cargo_tool("worker-build", WORKER_BUILD, true)?;
    cargo_tool("wasm-bindgen-cli", &locked_version("wasm-bindgen")?, false)?;
    Ok(())
}

/// Installs the npm packages of `package-lock.json`, once for each of its contents.
fn npm_packages() -> Result<()> {
    let root = paths::root();
    let lock =
        fs::read_to_string(root.join("package-lock.json")).context("read package-lock.json")?;
    let stamp = root.join("node_modules/.firstlight-lock");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    require(
        "npm",
        "--version",
        "install Node.js 20 or newer: https://nodejs.org, or `apt-get install nodejs npm`",
    )?;
    say("installing npm packages (wrangler, node 24, esbuild, binaryen, PostgreSQL 18)");
    quietly(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&root))?;
    // npm may have been told to run no install scripts; this one only makes the symbolic links of
    // shared libraries.
    let postgres = paths::embedded_postgres()?;
    let hydrate = postgres.join("scripts/hydrate-symlinks.js");
    if hydrate.exists() {
        quietly(Command::new(paths::node()).arg(&hydrate).current_dir(&postgres))?;
    }
    fs::write(&stamp, lock).context("write the stamp of the npm packages")
}

/// Installs a cargo tool of an exact version under `target/tools`.
///
/// `locked` follows the tool's own lock file; `wasm-bindgen-cli` 0.2.130 does not build with its
/// own.
fn cargo_tool(name: &str, version: &str, locked: bool) -> Result<()> {
    let tools = paths::tools();
    let installed = fs::read_to_string(tools.join(".crates.toml")).unwrap_or_default();
    if installed.contains(&format!("\"{name} {version} ")) {
        return Ok(());
    }
    say(&format!("installing {name} {version} (a few minutes, once)"));
    let mut command = Command::new("cargo");
    command.args(["install", name, "--version", version, "--debug", "--root"]).arg(&tools);
    if locked {
        command.arg("--locked");
    }
    // Its own target folder, so that the tool's build neither waits for nor evicts the project's.
    command.env("CARGO_TARGET_DIR", paths::root().join("target/tools-build"));
    quietly(&mut command)?;
    let _ = fs::remove_dir_all(paths::root().join("target/tools-build"));
    Ok(())
}

/// Returns the version of a crate in `Cargo.lock`.
fn locked_version(name: &str) -> Result<String> {
    let text = fs::read_to_string(paths::root().join("Cargo.lock")).context("read Cargo.lock")?;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == format!("name = \"{name}\"") {
            let version = lines.next().and_then(|line| line.split('"').nth(1));
            return version
                .map(str::to_owned)
                .with_context(|| format!("find the version of {name} in Cargo.lock"));
        }
    }
    bail!("find {name} in Cargo.lock")
}

/// Fails with the way to get a program that cannot be started.
fn require(program: &str, argument: &str, install: &str) -> Result<()> {
    match capture(Command::new(program).arg(argument)) {
        Ok(_) => Ok(()),
        Err(_) => bail!("`{program}` is needed and could not be started. To get it: {install}"),
    }
}

/// Fails with the way to get a client of PostgreSQL that cannot be started.
pub(crate) fn require_client(program: &str) -> Result<()> {
    require(
        program,
        "--version",
        "install PostgreSQL's client: `apt-get install postgresql-client`, or `brew install libpq`",
    )
}

/// Builds `build/index.js` and `build/index_bg.wasm`, unless they were built from the same sources.
pub(crate) fn build_worker() -> Result<()> {
    let root = paths::root();
    let inputs = inputs(&root)?;
    let stamp = root.join("build/.firstlight-inputs");
    if root.join("build/index_bg.wasm").exists()
        && fs::read_to_string(&stamp).is_ok_and(|built| built == inputs)
    {
        return Ok(());
    }
    say("building the Worker");
    let tools = paths::tools().join("bin");
    let mut command = Command::new(tools.join("worker-build"));
    command
        .args(["--release", "--out-dir"])
        .arg(root.join("build"))
        .current_dir(root.join("src/worker"))
        .env("WASM_BINDGEN_BIN", tools.join("wasm-bindgen"))
        .env("WASM_OPT_BIN", root.join("node_modules/binaryen/bin/wasm-opt"))
        .env("ESBUILD_BIN", esbuild(&root)?)
        .env("PATH", paths::path_with_node());
    quietly(&mut command)?;
    fs::write(&stamp, inputs).context("write the stamp of the Worker's build")
}

/// Returns a text that changes when a source of the Worker changes.
fn inputs(root: &Path) -> Result<String> {
    let mut files =
        vec![root.join("Cargo.toml"), root.join("Cargo.lock"), root.join("src/worker/Cargo.toml")];
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut text = format!("worker-build {WORKER_BUILD}\n");
    for file in files {
        let mut hasher = DefaultHasher::new();
        fs::read(&file).with_context(|| format!("read {}", file.display()))?.hash(&mut hasher);
        let _ = writeln!(
            text,
            "{} {:016x}",
            file.strip_prefix(root).unwrap_or(&file).display(),
            hasher.finish()
        );
    }
    Ok(text)
}

/// Returns the native esbuild of this platform, which starts without node.
fn esbuild(root: &Path) -> Result<PathBuf> {
    let folder = root.join("node_modules/@esbuild");
    let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries {
        let binary = entry?.path().join("bin/esbuild");
        if binary.exists() {
            return Ok(binary);
        }
    }
    bail!("find an esbuild for this platform in {}", folder.display())
}
