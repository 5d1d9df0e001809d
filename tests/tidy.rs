//! The rules of the house, as tests: layers, sizes, documents that agree with the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

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

/// Lines after which a file holds more than one idea.
const LINES: usize = 560;

/// Columns that an eye reads without moving.
const COLUMNS: usize = 100;

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

#[test]
fn a_file_holds_one_idea() -> Result<()> {
    let mut faults = Vec::new();
    for path in files("src", &["rs"])
        .into_iter()
        .chain(files("tests", &["rs"]))
        .chain(files("xtask", &["rs"]))
    {
        let lines = read(&path)?.lines().count();
        if lines > LINES {
            faults.push(format!("{} has {lines} lines; allowed are {LINES}", path.display()));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    Ok(())
}

/// Returns whether a line may be wider: a string, a table, an example in a comment.
fn may_be_wide(line: &str) -> bool {
    let line = line.trim_start();
    let comment = ["//! ", "/// ", "// "].iter().find_map(|mark| line.strip_prefix(mark));
    match comment {
        Some(text) => text.starts_with(['|', '`']),
        None => line.contains('"'),
    }
}

#[test]
fn a_line_is_read_at_one_glance() -> Result<()> {
    let mut faults = Vec::new();
    for path in ["src", "tests", "xtask"].iter().flat_map(|folder| files(folder, &["rs"])) {
        for (number, line) in read(&path)?.lines().enumerate() {
            if line.chars().count() > COLUMNS && !may_be_wide(line) {
                faults.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "wider than {COLUMNS} columns: {faults:#?}");
    Ok(())
}

/// Returns the pages that people read.
fn pages() -> Vec<PathBuf> {
    let folders = ["runbooks", "docs"].iter().flat_map(|folder| files(folder, &["md"]));
    let roots = ["README.md", "HACKING.md", "CHANGELOG.md"].map(|page| root().join(page));
    folders.chain(roots).collect()
}

#[test]
fn a_line_of_a_page_is_read_at_one_glance() -> Result<()> {
    let mut faults = Vec::new();
    // The page of notices shows them as they are sent.
    for path in pages().into_iter().filter(|path| !path.ends_with("notices.md")) {
        let mut is_example = false;
        for (number, line) in read(&path)?.lines().enumerate() {
            is_example ^= line.trim_start().starts_with("```");
            let is_free = is_example || line.trim_start().starts_with(['|', '>', '#']);
            if line.chars().count() > COLUMNS && !is_free {
                faults.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "wider than {COLUMNS} columns: {faults:#?}");
    Ok(())
}

#[test]
fn the_changelog_begins_with_the_version_that_is_built() -> Result<()> {
    let page = read(&root().join("CHANGELOG.md"))?;
    let newest = page.lines().find_map(|line| line.strip_prefix("## ")).context("a version")?;
    let newest = newest.split(' ').next().unwrap_or_default();
    assert_eq!(newest, firstlight::api::VERSION);
    let worker: toml::Value = toml::from_str(&read(&root().join("src/worker/Cargo.toml"))?)?;
    assert_eq!(worker["package"]["version"].as_str(), Some(newest), "the Worker's own");
    Ok(())
}

/// Returns the anchor that a heading of a page has.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

#[test]
fn every_link_of_a_page_leads_to_a_page_and_to_a_section_of_it() -> Result<()> {
    let mut faults = Vec::new();
    let mut followed = 0;
    for page in pages() {
        let text = read(&page)?;
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://") && !link.contains(' ')) {
            followed += 1;
            let (path, section) = link.split_once('#').unwrap_or((link, ""));
            let folder = page.parent().context("a page is in a folder")?;
            let target = if path.is_empty() { page.clone() } else { folder.join(path) };
            let there = fs::read_to_string(&target);
            let has_section = |text: &String| {
                text.lines().any(|line| line.starts_with('#') && anchor(line) == section)
            };
            if !there.is_ok_and(|text| section.is_empty() || has_section(&text)) {
                faults.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(faults.is_empty() && followed > 50, "{followed} links: {faults:#?}");
    Ok(())
}

/// Returns the blocks of commands of a page.
fn commands(text: &str) -> impl Iterator<Item = &str> {
    text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next())
}

/// At three in the morning nobody looks for what a name stands for.
#[test]
fn every_name_in_a_command_of_a_runbook_is_set_or_explained() -> Result<()> {
    let first = read(&root().join("runbooks/README.md"))?;
    let set: BTreeSet<&str> = commands(&first)
        .flat_map(str::lines)
        .filter_map(|line| line.strip_prefix("export ")?.split('=').next())
        .collect();
    assert!(set.contains("WORKER") && set.contains("ADMIN_TOKEN"), "{set:?}");
    let mut lost = Vec::new();
    for path in files("runbooks", &["md"]) {
        let text = read(&path)?;
        for command in commands(&text) {
            for rest in command.split('$').skip(1) {
                let end = rest.find(|letter: char| !letter.is_ascii_uppercase() && letter != '_');
                let name = &rest[..end.unwrap_or(rest.len())];
                if !name.is_empty() && !set.contains(name) && !text.contains(&format!("`{name}`")) {
                    lost.push(format!("{}: ${name}", path.display()));
                }
            }
        }
    }
    assert!(lost.is_empty(), "{lost:#?}");
    Ok(())
}

#[test]
fn every_file_that_the_page_for_developers_names_exists() -> Result<()> {
    let text = read(&root().join("HACKING.md"))?;
    let named =
        text.split('`').filter(|part| part.contains('/') && !part.contains([' ', '<', '(']));
    let is_there = |path: &str| {
        [root().to_owned(), root().join("src")].iter().any(|at| at.join(path).exists())
    };
    let missing: Vec<&str> = named.clone().filter(|path| !is_there(path)).collect();
    assert!(missing.is_empty() && named.count() > 30, "{missing:?}");
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

#[test]
fn every_runbook_that_the_code_names_exists() -> Result<()> {
    let mut named = BTreeSet::new();
    for path in files("src", &["rs"]) {
        let text = read(&path)?;
        for part in text.split('"').chain(text.split_whitespace()) {
            let page = part.rsplit('/').next().unwrap_or(part);
            let page = page.split('#').next().unwrap_or(page);
            if Path::new(page).extension().is_some_and(|ending| ending == "md")
                && page.len() > 3
                && page.bytes().all(|byte| byte.is_ascii_lowercase() || b"-.".contains(&byte))
            {
                named.insert(page.to_owned());
            }
        }
    }
    assert!(named.contains("run-failed.md"), "no page was found: {named:?}");
    for page in named {
        assert!(root().join("runbooks").join(&page).exists(), "runbooks/{page} does not exist");
    }
    Ok(())
}

/// Returns the keys that `config.rs` and its parts read.
fn keys_of_the_code() -> Result<BTreeSet<String>> {
    let mut code = String::new();
    let parts = [
        "address",
        "channels",
        "keep",
        "pairs",
        "prices",
        "receivers",
        "smoke",
        "timetable",
        "verification",
    ]
    .map(|part| format!("config/{part}.rs"));
    for file in std::iter::once("config.rs".to_owned()).chain(parts) {
        let text = read(&root().join("src").join(file))?;
        code.push_str(text.split("#[cfg(test)]").next().unwrap_or_default());
    }
    // A call may stand on several lines.
    let code = code.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(");
    let mut keys = BTreeSet::new();
    let calls = [
        "text(\"",
        "required(\"",
        "parsed(\"",
        "word(\"",
        "number(\"",
        "flag(\"",
        "objects(\"",
        "texts(\"",
        "value(\"",
        "need(\"",
        "object(\"",
        "map(\"",
        "scalar(\"",
        "float(\"",
        "thousandths(&mut fields, \"",
    ];
    for call in calls {
        keys.extend(
            code.split(call).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned),
        );
    }
    // Each keep rule and its tier stand side by side.
    keys.extend(
        code.split("\", \"keep_")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .map(|rest| format!("keep_{rest}")),
    );
    let others = [
        ("address", "address(&mut fields, \""),
        ("address", "address(test, \""),
        ("address", "address(one, \""),
        ("secret_name", "secret_name(one, \""),
        ("optional_secret_name", "optional_secret_name(test, \""),
        ("optional_secret_name", "optional_secret_name(fields, \""),
        ("id", "id(&mut fields, \""),
    ];
    for (name, call) in others {
        let found: Vec<String> = code
            .split(call)
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .map(str::to_owned)
            .collect();
        assert!(!found.is_empty(), "config.rs does not call {name} as expected");
        keys.extend(found);
    }
    Ok(keys)
}

#[test]
fn the_tables_of_the_documents_have_every_key_of_the_configuration_and_no_other() -> Result<()> {
    let mut told = BTreeSet::new();
    for page in ["docs/configuration.md", "runbooks/verification.md", "runbooks/channels.md"] {
        let text = read(&root().join(page))?;
        let table = text
            .split("## Configuration")
            .nth(1)
            .and_then(|rest| rest.split("\n## ").next())
            .context("find the table")?;
        let keys = table
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|line| line.split('`').next());
        told.extend(
            keys.map(|key| key.rsplit('.').next().unwrap_or(key).trim_end_matches("[]").to_owned()),
        );
    }
    assert_eq!(told, keys_of_the_code()?);
    Ok(())
}

#[test]
fn every_test_that_the_documents_name_exists() -> Result<()> {
    let mut code = String::new();
    for path in files("src", &["rs"]).into_iter().chain(files("tests", &["rs"])) {
        code.push_str(&read(&path)?);
    }
    let mut named = 0;
    for path in pages().into_iter().chain([root().join("src/lib.rs")]) {
        for name in read(&path)?
            .split('`')
            .filter(|part| part.matches('_').count() >= 4 && !part.contains(['/', ' ', '.', '=']))
        {
            named += 1;
            assert!(
                code.contains(&format!("fn {name}(")),
                "{} names the test {name}, which does not exist",
                path.display()
            );
        }
    }
    assert!(named >= 7, "only {named} tests are named");
    Ok(())
}

#[test]
fn the_readme_is_short_enough_to_be_read() -> Result<()> {
    let words = read(&root().join("README.md"))?.split_whitespace().count();
    assert!(words <= 1_600, "README.md has {words} words; allowed are 1,600");
    Ok(())
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

#[test]
fn the_example_of_the_runbook_is_a_configuration() -> Result<()> {
    let page = read(&root().join("runbooks/verification.md"))?;
    let example = page
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .context("find the example")?;
    let pair = "[[vars.FIRSTLIGHT.pairs]]\nname = \"hub\"\nproject = \"old-violet-32930710\"\n\
        production_branch = \"br-noisy-breeze-a5e59rrb\"\n\
        staging_branch = \"br-calm-river-a5x0q1zz\"\nrole = \"neondb_owner\"\n\
        timezone = \"America/New_York\"\n\
        start_at = \"05:00\"\nlatest_start = \"05:30\"\ndeadline = \"06:00\"\n\
        keep_last = 7\nkeep_displaced = 1\n\n";
    let value: serde_json::Value = toml::from_str(&format!("{pair}{example}"))?;
    let config = firstlight::config::Config::from_value(&value["vars"]["FIRSTLIGHT"])?;
    let pair = config.pair("hub").context("the pair")?;
    assert_eq!(
        (
            pair.smoke_tests.len(),
            pair.verification.freshness.len(),
            pair.verification.tenants.is_some()
        ),
        (2, 1, true)
    );
    assert!(config.secret_names().contains("STAGING_LOGIN_FORM"));
    Ok(())
}
