//! The rules of the house, as tests: layers, sizes, documents that agree with the code.

mod pages;
mod rooms;
mod size;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every file below a folder with one of the endings.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// Returns the pages that people read.
fn pages() -> Vec<PathBuf> {
    let folders = ["runbooks", "docs"].iter().flat_map(|folder| files(folder, &["md"]));
    let roots = ["README.md", "HACKING.md", "CHANGELOG.md"].map(|page| root().join(page));
    folders.chain(roots).collect()
}

#[test]
fn nothing_is_left_to_be_mended_and_no_path_of_a_machine_is_written_down() -> Result<()> {
    let marks = [concat!("FIX", "ME"), concat!("/wo", "rk/"), concat!("XX", "X")];
    let all = files("src", &["rs"])
        .into_iter()
        .chain(files("tests", &["rs", "mjs"]))
        .chain(files("xtask", &["rs", "sql"]));
    for path in all.chain(pages()) {
        let text = read(&path)?;
        for mark in marks {
            assert!(!text.contains(mark), "{} contains {mark}", path.display());
        }
    }
    Ok(())
}
