//! The order of the rooms, and what each may use.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use super::{files, read, root};

/// The rooms of the crate, lowest first. A room uses those before it. `fixtures` is for unit tests,
/// which use it in every room.
const LAYERS: [&[&str]; 11] = [
    &["ordered"],
    &["time"],
    &["id"],
    &["port", "notice_kind"],
    &["config", "neon"],
    &["names", "verify"],
    &["retention"],
    &["sync"],
    &["record"],
    &["tick"],
    &["api"],
];

/// The rooms that have no clock, no randomness, no `async` and no ports.
const CORE: [&str; 10] = [
    "ordered",
    "time",
    "id",
    "notice_kind",
    "config",
    "neon",
    "names",
    "verify",
    "retention",
    "sync",
];

/// Returns the top module that a file belongs to.
fn module(path: &Path) -> String {
    let relative = path.strip_prefix(root().join("src")).unwrap_or(path);
    let first = relative
        .components()
        .next()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .unwrap_or_default();
    first.trim_end_matches(".rs").to_owned()
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn every_room_has_its_place() {
    let rooms: BTreeSet<String> = files("src", &["rs"]).iter().map(|path| module(path)).collect();
    let exempt = ["lib", "fixtures", "worker"];
    let lost: Vec<&String> = rooms
        .iter()
        .filter(|room| rank(room).is_none() && !exempt.contains(&room.as_str()))
        .collect();
    assert!(lost.is_empty(), "LAYERS does not know {lost:?}");
    assert!(LAYERS.iter().flat_map(|layer| layer.iter()).all(|room| rooms.contains(*room)));
    assert!(CORE.iter().all(|room| rooms.contains(*room)));
}

#[test]
fn a_module_uses_lower_layers_only() -> Result<()> {
    let mut faults = Vec::new();
    for path in files("src", &["rs"]) {
        let own = module(&path);
        let Some(own_rank) = rank(&own) else { continue };
        for (number, line) in read(&path)?.lines().enumerate() {
            for (at, _) in line.match_indices("crate::") {
                let rest = &line[at + "crate::".len()..];
                let used: String =
                    rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                let is_higher = rank(&used)
                    .is_some_and(|rank| rank > own_rank || (rank == own_rank && used != own));
                if is_higher && !line.trim_start().starts_with("//") {
                    faults.push(format!("{}:{}: {own} uses {used}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    Ok(())
}

#[test]
fn the_core_has_no_clock_no_async_and_no_ports() -> Result<()> {
    let mut faults = Vec::new();
    for path in files("src", &["rs"]) {
        if !CORE.contains(&module(&path).as_str()) {
            continue;
        }
        for (number, line) in read(&path)?.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let awaits = code.split(".await").skip(1).any(|rest| !rest.starts_with('_'));
            if awaits
                || ["async ", "::now()", "impl Clock", "impl World", "impl Store", "impl Http"]
                    .iter()
                    .any(|word| code.contains(word))
            {
                faults.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    Ok(())
}

/// As in case 35a: two versions read the same records, and neither may refuse what the other has
/// added.
#[test]
fn no_record_refuses_fields_that_it_does_not_know() -> Result<()> {
    for path in files("src", &["rs"]) {
        assert!(
            !read(&path)?.contains("deny_unknown_fields"),
            "{}: see src/record.rs, two versions at once",
            path.display()
        );
    }
    Ok(())
}

#[test]
fn every_module_says_what_it_owns() -> Result<()> {
    for path in files("src", &["rs"])
        .into_iter()
        .chain(files("tests", &["rs"]))
        .chain(files("xtask", &["rs"]))
    {
        assert!(
            read(&path)?.starts_with("//!"),
            "{} does not begin with a module doc",
            path.display()
        );
    }
    Ok(())
}
