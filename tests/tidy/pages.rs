//! Pages say what is there: links, commands, keys, tests, files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{files, pages, read, root};

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
