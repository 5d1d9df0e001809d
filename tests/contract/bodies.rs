//! Bodies that Neon would not decode, and names that it would not take.

use anyhow::Result;
use harness::emulator::Emulator;
use serde_json::{Value, json};

use crate::{emulator, make_branch, settle};

fn send(emulator: &Emulator, method: &str, path: &str, body: &str) -> Result<(u16, Value)> {
    let answer = emulator.call(method, path, Some(body))?;
    settle(emulator)?;
    Ok((answer.status, answer.json()["message"].clone()))
}

/// The names of all branches.
fn names(emulator: &Emulator) -> Result<Vec<String>> {
    let listed = emulator.call("GET", "/branches?sort_by=name&sort_order=asc", None)?.json();
    Ok(listed["branches"].as_array().into_iter().flatten().filter_map(|branch| branch["name"].as_str().map(str::to_owned)).collect())
}

#[test]
fn a_body_that_neon_cannot_decode_is_refused_and_nothing_is_done() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    emulator.sql(&emulator.staging, &["delete from users"])?;
    let restore = format!("/branches/{}/restore", emulator.staging);
    let at = |lsn: Value| json!({"source_branch_id": emulator.production, "source_lsn": lsn}).to_string();
    for (method, path, body) in [
        ("POST", "/branches", "{broken".to_owned()),
        ("POST", "/branches", json!({"branch": {"name": "x", "parent_id": 5}}).to_string()),
        ("POST", "/branches", json!({"branch": {"name": "x", "expires_at": 9}}).to_string()),
        ("POST", "/branches", json!({"branch": {"name": "x", "protected": "yes"}}).to_string()),
        ("POST", restore.as_str(), at(json!(123))),
        ("POST", restore.as_str(), at(Value::Null)),
        ("POST", restore.as_str(), String::new()),
        ("PATCH", "", json!({"project": {"history_retention_seconds": 2_592_001}}).to_string()),
    ] {
        let (status, message) = send(&emulator, method, path, &body)?;
        assert_eq!(status, 400, "{path} {body}");
        let message = message.as_str().unwrap_or_default();
        assert!(message.starts_with("invalid request: decode application/json: "), "{path} {body}: {message}");
    }
    assert_eq!(names(&emulator)?, ["production", "staging"]);
    assert_eq!(emulator.sql(&emulator.staging, &["select count(*) from users"])?, vec![vec![Some("0".to_owned())]]);
    Ok(())
}

#[test]
fn an_empty_name_keeps_nothing_of_what_is_overwritten_and_one_of_257_characters_is_refused() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let backup = make_branch(&emulator, &json!({"branch": {"name": "b".repeat(256)}}))?;
    let restore = format!("/branches/{}/restore", emulator.staging);
    let under =
        |name: &str| send(&emulator, "POST", &restore, &json!({"source_branch_id": backup, "preserve_under_name": name}).to_string());
    let (status, message) = under(&"k".repeat(257))?;
    assert!(status == 400 && message.as_str().is_some_and(|text| text.contains("preserve_under_name")), "{status} {message}");
    assert_eq!(under("")?.0, 200);
    assert_eq!(names(&emulator)?, ["b".repeat(256), "production".to_owned(), "staging".to_owned()]);
    Ok(())
}
