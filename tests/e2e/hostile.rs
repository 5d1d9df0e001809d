//! A production whose database tries to run as us, or to decide for us (promise G8).
//!
//! Every function, operator, cast, type, domain and catalogue that our SQL names has a double in a
//! schema that comes before `pg_catalog` on the path of the database and of the verifying role. The
//! names are taken from our sources, so that a statement that somebody adds is tried as well. A
//! double raises an error that names it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use harness::emulator::{Emulator, Options};
use harness::paths;
use harness::stack::Stack;
use serde_json::{Value, json};

/// How the error of a double begins.
const CAUGHT: &str = "a double was called";

/// Returns the text of every source that holds SQL of ours.
fn sources(folder: &Path, text: &mut String) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, text)?;
        } else if path.extension().is_some_and(|ending| ending == "sql" || ending == "rs") {
            text.push_str(&std::fs::read_to_string(&path)?);
            text.push('\n');
        }
    }
    Ok(())
}

/// Returns the words of a text that can be names in SQL, and the runs of letters that can be
/// operators.
fn words(text: &str) -> (String, String) {
    let names = text
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty() && word.len() < 64);
    let is_operator = |c: char| "+-*/<>=~!@#%^&|`?".contains(c);
    let operators =
        text.split(|c: char| !is_operator(c)).filter(|word| !word.is_empty() && word.len() < 5);
    let list = |words: BTreeSet<&str>| json!(words.into_iter().collect::<Vec<_>>()).to_string();
    (list(names.collect()), list(operators.collect()))
}

/// Makes the doubles.
fn doubles(names: &str, operators: &str) -> String {
    include_str!("hostile.sql").replace("@NAMES@", names).replace("@OPERATORS@", operators)
}

/// Starts everything with a production that holds the doubles.
fn hostile(postgres_bin: Option<std::path::PathBuf>) -> Result<Stack> {
    let mut text = String::new();
    sources(&paths::root().join("src"), &mut text)?;
    let (names, operators) = words(&text);
    let seed = doubles(&names, &operators);
    let options = Options { seed, postgres_bin, ..Options::default() };
    Stack::start_with(&options, &|settings, _, _| {
        settings["pairs"][0]["verification"] = json!({
            "freshness": [{"schema": "public", "table": "news", "column": "seen", "max_age_h": 1}],
            "assertions": [{"name": "news", "sql": "select pg_catalog.count(*) from public.news",
                "expect": "1", "on": "both"}],
            "after_restore": {"sql": ["update public.news set seen = null"]},
            "tenants": {"role": "app", "setting": "app.org", "column": "org", "values": ["1", "2"]},
            "production_counts": "warn", "row_loss": "warn",
        });
    })
}

/// The control: the doubles are in the way of whoever trusts the path.
fn assert_that_doubles_are_called(emulator: &Emulator) -> Result<()> {
    let production = &emulator.production;
    let count = "select kind, count(*)::text from trap.made group by kind order by kind";
    let made = emulator.sql(
        production,
        &["select pg_catalog.set_config('search_path', 'pg_catalog', true)", count],
    )?;
    let kinds: Vec<&str> = made.iter().filter_map(|row| row[0].as_deref()).collect();
    assert_eq!(kinds, ["domain", "function", "operator", "relation"], "{made:?}");
    assert!(
        made.iter()
            .filter_map(|row| row[1].as_deref()?.parse::<u32>().ok())
            .all(|count| count > 10),
        "{made:?}"
    );
    for sql in ["select format('%s', 'x')", "select 1 = 1"] {
        let refused = emulator.sql(production, &[sql]);
        let trapped = refused.expect_err("a double is called").to_string();
        assert!(trapped.contains(CAUGHT), "{sql}: {trapped}");
    }
    Ok(())
}

/// Runs a morning, and judges it.
fn morning(postgres_bin: Option<std::path::PathBuf>) -> Result<()> {
    let stack = hostile(postgres_bin)?;
    let staging = &stack.emulator.staging;
    assert_that_doubles_are_called(&stack.emulator)?;
    stack.emulator.sql(staging, &["alter role app password 'Staging-Password-1'"])?;

    let report = stack.run_to_end(4)?;

    let whole = format!("{report:#}");
    assert!(!whole.contains(CAUGHT), "{whole}");
    assert_eq!(report["status"], "succeeded", "{whole}");
    let bad = |check: &&Value| {
        !["passed", "skipped"].contains(&check["outcome"].as_str().unwrap_or_default())
    };
    let optional = [
        "neondb: structure of indexes",
        "neondb: foreign keys",
        "neondb: rows since the last verified run",
    ];
    let bad: Vec<&Value> =
        report["checks"].as_array().context("checks")?.iter().filter(bad).collect();
    assert!(
        bad.iter().all(|check| optional.contains(&check["name"].as_str().unwrap_or_default())),
        "{bad:#?}"
    );
    // The marker that production brought decides nothing.
    let emptied = stack.emulator.sql(staging, &["select seen from public.news"])?;
    assert_eq!(emptied, vec![vec![None]], "after_restore was run");
    // Every kind of question was asked.
    let asked: BTreeSet<&str> = report["checks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|check| check["kind"].as_str())
        .collect();
    for kind in [
        "content",
        "foreign_keys",
        "freshness",
        "assertion",
        "after_restore",
        "tenants",
        "production_counts",
    ] {
        assert!(asked.contains(kind), "{kind} is not in {asked:?}");
    }
    // A log-in is told only where it fails; the password that staging had was given back, which is
    // what runs as each role.
    let kept = report["passwords"]["kept"].as_array().context("the passwords that were kept")?;
    assert!(kept.contains(&json!("app")), "{:#}", report["passwords"]);
    Ok(())
}

/// As in case 31, on the newest PostgreSQL that Neon has.
#[test]
fn nothing_of_a_hostile_production_is_called_in_a_whole_run_on_postgresql_18() -> Result<()> {
    morning(None)
}

/// As in case 31, on the PostgreSQL that the machine has beside it; 14 and 15 let more roles create
/// objects.
#[test]
fn nothing_of_a_hostile_production_is_called_in_a_whole_run_on_the_other_postgresql() -> Result<()>
{
    morning(Some(paths::postgres_on_path()?))
}
