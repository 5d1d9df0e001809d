//! `cargo xtask check-config` as people run it: a process, its output, its exit status.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Runs `check-config` with some arguments.
fn check(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("check-config").args(arguments).current_dir(root());
    command.output().expect("xtask is there")
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn said(output: &Output) -> String {
    let texts = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    texts.concat()
}

/// Writes the repository's own `wrangler.toml` with a change; returns the folder and the file.
fn changed(change: impl Fn(String) -> String) -> (TempDir, String) {
    let folder = TempDir::with_prefix("firstlight-").expect("a folder");
    let text = fs::read_to_string(root().join("wrangler.toml")).expect("the example");
    let text = change(text);
    let file = folder.path().join("wrangler.toml");
    fs::write(&file, text).expect("it is written");
    let name = file.to_str().expect("a name").to_owned();
    (folder, name)
}

/// Returns the example with one key of its pair set to something else.
fn with_key(key: &str, value: &str) -> (TempDir, String) {
    changed(|text| {
        let is_key = |line: &&str| line.starts_with(&format!("{key} = "));
        assert_eq!(text.lines().filter(is_key).count(), 1, "the example sets {key} once");
        let changed = format!("{key} = {value}");
        let lines = text.lines().map(|line| if is_key(&line) { changed.as_str() } else { line });
        lines.collect::<Vec<_>>().join("\n")
    })
}

#[test]
fn the_example_is_good_and_its_next_seven_days_are_shown() {
    let output = check(&[]);
    assert!(output.status.success(), "{}", said(&output));
    let runs = said(&output).lines().filter(|line| line.starts_with("  20")).count();
    assert_eq!(runs, 7, "{}", said(&output));
}

#[test]
fn every_fault_is_named_with_its_key_and_what_is_allowed() {
    for (key, value, told) in [
        ("timezone", "\"America/Newyork\"", "pairs[0].timezone"),
        ("deadline", "\"25:00\"", "pairs[0].deadline"),
        ("keep_last", "-1", "pairs[0].keep_last"),
        ("keep_displaced", "\"one\"", "pairs[0].keep_displaced"),
        ("staging_branch", "\"staging\"", "pairs[0].staging_branch"),
        ("role", "7", "pairs[0].role"),
    ] {
        let (_folder, file) = with_key(key, value);
        let output = check(&[&file]);
        assert_eq!(output.status.code(), Some(1), "{key}: {}", said(&output));
        let text = said(&output);
        let line = text.lines().find(|line| line.starts_with(told));
        let line = line.unwrap_or_else(|| panic!("{key}: {text}"));
        assert!(line.contains("allowed") || line.contains("expected"), "{line}");
        assert!(text.contains("has 1 fault\n"), "{key}: {text}");
    }
}

#[test]
fn all_faults_of_a_file_are_named_at_once() {
    let (_folder, file) = changed(|text| {
        text.replace("timezone = ", "timezon = ").replace("keep_displaced = ", "keep_displace = ")
    });
    let output = check(&[&file]);
    let text = said(&output);
    for key in ["timezon", "timezone", "keep_displace", "keep_displaced"] {
        let path = format!("pairs[0].{key}:");
        assert!(text.lines().any(|line| line.starts_with(&path)), "{key}: {text}");
    }
}

#[test]
fn secrets_are_checked_by_name_and_never_printed() {
    let folder = TempDir::with_prefix("firstlight-").expect("a folder");
    let file = folder.path().join(".dev.vars");
    let secrets = "ADMIN_TOKEN=short-and-known\nREAD_TOKEN=short-and-known\nNEON_API_KEY=\n";
    fs::write(&file, secrets).expect("it is written");
    let output = check(&["--secrets", file.to_str().expect("a name")]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("READ_TOKEN") && text.contains("NEON_API_KEY"), "{text}");
    assert!(!text.contains("short-and-known"), "{text}");
}

#[test]
fn a_file_that_cannot_be_read_is_told_by_its_name() {
    let output = check(&["nothing-of-this-name.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("read nothing-of-this-name.toml"), "{}", said(&output));
    let (_folder, file) = changed(|text| format!("{text}\n[[[\n"));
    let output = check(&[&file]);
    assert!(said(&output).contains(&file), "{}", said(&output));
}
