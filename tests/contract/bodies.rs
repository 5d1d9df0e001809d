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
    Ok(listed["branches"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|branch| branch["name"].as_str().map(str::to_owned))
        .collect())
}

#[test]
fn a_body_that_neon_cannot_decode_is_refused_and_nothing_is_done() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    emulator.sql(&emulator.staging, &["delete from users"])?;
    let restore = format!("/branches/{}/restore", emulator.staging);
    let at = |lsn: Value| {
        json!({"source_branch_id": emulator.production, "source_lsn": lsn}).to_string()
    };
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
        assert!(
            message.starts_with("invalid request: decode application/json: "),
            "{path} {body}: {message}"
        );
    }
    assert_eq!(names(&emulator)?, ["production", "staging"]);
    assert_eq!(
        emulator.sql(&emulator.staging, &["select count(*) from users"])?,
        vec![vec![Some("0".to_owned())]]
    );
    Ok(())
}

#[test]
fn an_empty_name_keeps_nothing_of_what_is_overwritten_and_one_of_257_characters_is_refused()
-> Result<()> {
    let (_folder, emulator) = emulator()?;
    let backup = make_branch(&emulator, &json!({"branch": {"name": "b".repeat(256)}}))?;
    let restore = format!("/branches/{}/restore", emulator.staging);
    let under = |name: &str| {
        send(
            &emulator,
            "POST",
            &restore,
            &json!({"source_branch_id": backup, "preserve_under_name": name}).to_string(),
        )
    };
    let (status, message) = under(&"k".repeat(257))?;
    assert!(
        status == 400 && message.as_str().is_some_and(|text| text.contains("preserve_under_name")),
        "{status} {message}"
    );
    assert_eq!(under("")?.0, 200);
    assert_eq!(names(&emulator)?, ["b".repeat(256), "production".to_owned(), "staging".to_owned()]);
    Ok(())
}

#[test]
fn the_default_branch_is_restored_and_a_point_outside_the_history_is_refused_at_once() -> Result<()>
{
    let (_folder, emulator) = emulator()?;
    let backup = make_branch(&emulator, &json!({"branch": {"name": "backup-1"}}))?;
    emulator.sql(&emulator.production, &["insert into users values (3, 'three')"])?;
    for (body, word) in [
        (json!({"branch": {"name": "x", "parent_lsn": "F/0"}}), "parent_lsn"),
        (json!({"branch": {"name": "x", "parent_lsn": "0/1"}}), "parent_lsn"),
        (
            json!({"branch": {"name": "x", "parent_timestamp": "2100-01-01T00:00:00Z"}}),
            "parent_timestamp",
        ),
    ] {
        let (status, message) = send(&emulator, "POST", "/branches", &body.to_string())?;
        assert_eq!(
            (status, message),
            (400, json!(format!("{word} is not within the history window"))),
            "{body}"
        );
    }
    let restore = format!("/branches/{}/restore", emulator.production);
    let (status, message) = send(
        &emulator,
        "POST",
        &restore,
        &json!({"source_branch_id": backup, "source_lsn": "F/0"}).to_string(),
    )?;
    assert_eq!((status, message), (400, json!("source_lsn is not within the history window")));
    let body = json!({"source_branch_id": backup, "preserve_under_name": "production-before"});
    assert_eq!(send(&emulator, "POST", &restore, &body.to_string())?.0, 200);
    assert_eq!(
        emulator.sql(&emulator.production, &["select count(*) from users"])?,
        vec![vec![Some("2".to_owned())]]
    );
    Ok(())
}

#[test]
fn a_reader_that_began_before_the_writer_sees_what_the_writer_writes() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let branch = make_branch(
        &emulator,
        &json!({"branch": {"name": "both"}, "endpoints": [{"type": "read_only"}]}),
    )?;
    let listed = emulator.control("GET", "endpoints", None)?;
    let endpoints = listed["endpoints"].as_array().cloned().unwrap_or_default();
    let reader = endpoints
        .iter()
        .find(|endpoint| endpoint["branch_id"] == branch.as_str())
        .cloned()
        .unwrap_or_default();
    let (host, password) = (
        reader["host"].as_str().unwrap_or_default(),
        reader["roles"][0]["password"].as_str().unwrap_or_default(),
    );
    let connection = format!("postgresql://neondb_owner:{password}@{host}/neondb");
    let count = || -> Result<Value> {
        let headers = [("neon-connection-string", connection.as_str())];
        let body = r#"{"query": "select count(*)::int as n from users"}"#;
        let answer = harness::http::send_with(
            "POST",
            &format!("{}/sql", emulator.url),
            None,
            &headers,
            Some(body),
        )?;
        Ok(answer.json()["rows"][0]["n"].clone())
    };
    assert_eq!(count()?, json!(2));
    send(
        &emulator,
        "POST",
        "/endpoints",
        &json!({"endpoint": {"branch_id": branch, "type": "read_write"}}).to_string(),
    )?;
    emulator.sql(&branch, &["insert into users values (3, 'three')"])?;
    let seen = harness::wait_for(std::time::Duration::from_secs(20), || {
        count().ok().filter(|rows| *rows == json!(3))
    });
    assert!(seen.is_some(), "the reader shows {} rows, and the writer has 3", count()?);
    Ok(())
}

#[test]
fn an_archived_branch_wakes_with_the_first_query() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    emulator.control(
        "PUT",
        "switches",
        Some(r#"{"archives": {"after_age_s": 0, "after_idle_s": 1}}"#),
    )?;
    let state = || -> Result<Value> {
        let shown = emulator.call("GET", &format!("/branches/{}", emulator.staging), None)?.json();
        Ok(shown["branch"]["current_state"].clone())
    };
    let archived = harness::wait_for(std::time::Duration::from_secs(20), || {
        state().ok().filter(|state| state == "archived")
    });
    assert!(archived.is_some(), "{}", state()?);
    emulator.control("PUT", "switches", Some("{}"))?;
    assert_eq!(
        emulator.sql(&emulator.staging, &["select count(*) from users"])?,
        vec![vec![Some("2".to_owned())]]
    );
    assert_eq!(state()?, "ready");
    let operations = emulator.call("GET", "/operations", None)?.json();
    let is_woken = |operation: &Value| {
        operation["action"] == "timeline_unarchive"
            && operation["branch_id"] == emulator.staging.as_str()
    };
    assert!(
        operations["operations"].as_array().is_some_and(|all| all.iter().any(is_woken)),
        "{operations}"
    );
    Ok(())
}
