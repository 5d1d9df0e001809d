//! The rules of Neon's snapshots, as the reference gives them, with real data.

use anyhow::{Context as _, Result};
use harness::emulator::Emulator;
use serde_json::{Value, json};

use crate::{emulator, make_branch, settle};

fn call(
    emulator: &Emulator,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<(u16, Value)> {
    let answer = emulator.call(method, path, body.map(Value::to_string).as_deref())?;
    Ok((answer.status, answer.json()))
}

/// Takes a snapshot of production and returns its id.
fn take(emulator: &Emulator, query: &str) -> Result<String> {
    let (status, body) = call(
        emulator,
        "POST",
        &format!("/branches/{}/snapshot?{query}", emulator.production),
        None,
    )?;
    anyhow::ensure!(status == 200, "take a snapshot: {status} {body}");
    settle(emulator)?;
    body["snapshot"]["id"].as_str().map(str::to_owned).context("read the id")
}

/// Makes a branch of a snapshot, to be looked at.
fn preview(emulator: &Emulator, snapshot: &str, name: &str) -> Result<String> {
    let body = json!({"name": name, "target_branch_id": emulator.staging});
    let (status, body) =
        call(emulator, "POST", &format!("/snapshots/{snapshot}/restore"), Some(&body))?;
    anyhow::ensure!(status == 200, "restore the snapshot: {status} {body}");
    settle(emulator)?;
    body["branch"]["id"].as_str().map(str::to_owned).context("read the id")
}

fn count(emulator: &Emulator, branch: &str) -> Result<String> {
    Ok(emulator.sql(branch, &["select count(*) from users"])?[0][0].clone().unwrap_or_default())
}

#[test]
fn a_snapshot_at_the_position_of_a_branch_holds_what_the_branch_holds() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let backup = make_branch(&emulator, &json!({"branch": {"name": "backup-1"}}))?;
    let (_, shown) = call(&emulator, "GET", &format!("/branches/{backup}"), None)?;
    let lsn = shown["branch"]["parent_lsn"].as_str().context("the position")?.to_owned();
    emulator.sql(&emulator.production, &["insert into users values (3, 'three')"])?;
    // What is asked for stands in the query: a body is not looked at.
    let path = format!("/branches/{}/snapshot?name=weekly&lsn={lsn}", emulator.production);
    let (_, taken) = call(&emulator, "POST", &path, Some(&json!({"name": "other"})))?;
    settle(&emulator)?;
    assert_eq!(
        (&taken["snapshot"]["name"], &taken["snapshot"]["lsn"]),
        (&json!("weekly"), &json!(lsn))
    );
    let snapshot = taken["snapshot"]["id"].as_str().context("the snapshot's id")?;
    let preview = preview(&emulator, snapshot, "preview")?;
    let reader = json!({"endpoint": {"branch_id": preview, "type": "read_write"}});
    call(&emulator, "POST", "/endpoints", Some(&reader))?;
    settle(&emulator)?;
    assert_eq!(
        (count(&emulator, &preview)?.as_str(), count(&emulator, &emulator.production)?.as_str()),
        ("2", "3")
    );
    // A branch that was made from a snapshot is a root, and not one that cannot be deleted.
    let (_, shown) = call(&emulator, "GET", &format!("/branches/{preview}"), None)?;
    assert_eq!(
        (&shown["branch"]["parent_id"], &shown["branch"]["restored_from"]),
        (&Value::Null, &json!(snapshot))
    );
    assert_eq!(call(&emulator, "DELETE", &format!("/branches/{preview}"), None)?.0, 200);
    Ok(())
}

#[test]
fn only_roots_have_snapshots_and_a_position_outside_the_history_is_refused() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let refused = |path: &str| -> Result<(u16, Value)> {
        let (status, body) = call(&emulator, "POST", path, None)?;
        Ok((status, body["message"].clone()))
    };
    let production = format!("/branches/{}/snapshot", emulator.production);
    assert_eq!(refused(&format!("/branches/{}/snapshot", emulator.staging))?.0, 422);
    assert_eq!(refused(&format!("{production}?lsn=0/1&timestamp=2026-01-01T00:00:00Z"))?.0, 400);
    let backup = make_branch(&emulator, &json!({"branch": {"name": "backup-1"}}))?;
    let (_, shown) = call(&emulator, "GET", &format!("/branches/{backup}"), None)?;
    let lsn = shown["branch"]["parent_lsn"].as_str().context("the position")?.to_owned();
    let (status, _) =
        call(&emulator, "PATCH", "", Some(&json!({"project": {"history_retention_seconds": 0}})))?;
    assert_eq!(status, 200);
    assert_eq!(
        refused(&format!("{production}?lsn={lsn}"))?,
        (400, json!("lsn is not within the history window"))
    );
    Ok(())
}

#[test]
fn a_slug_is_given_once_and_snapshots_are_counted() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let production = format!("/branches/{}/snapshot", emulator.production);
    let first = take(&emulator, "name=weekly&slug=weekly-1")?;
    let refused = |query: &str| -> Result<(u16, Value)> {
        let (status, body) = call(&emulator, "POST", &format!("{production}?{query}"), None)?;
        settle(&emulator)?;
        Ok((status, body["code"].clone()))
    };
    assert_eq!(refused("name=weekly&slug=weekly-1")?, (409, json!("SNAPSHOT_ALREADY_EXISTS")));
    assert_eq!(refused("slug=Weekly")?.0, 400);
    take(&emulator, "name=weekly")?;
    emulator.control(
        "PUT",
        "project",
        Some(r#"{"snapshots_limit": 2, "root_branches_limit": 2}"#),
    )?;
    assert_eq!(refused("name=weekly")?, (422, json!("SNAPSHOTS_LIMIT_EXCEEDED")));
    preview(&emulator, &first, "preview")?;
    let (status, body) = call(
        &emulator,
        "POST",
        &format!("/snapshots/{first}/restore"),
        Some(&json!({"name": "another"})),
    )?;
    assert_eq!((status, &body["code"]), (422, &json!("ROOT_BRANCHES_LIMIT_EXCEEDED")));
    assert_eq!(call(&emulator, "DELETE", &format!("/snapshots/{first}"), None)?.0, 202);
    settle(&emulator)?;
    assert_eq!(call(&emulator, "DELETE", &format!("/snapshots/{first}"), None)?.0, 404);
    Ok(())
}

#[test]
fn a_finalized_restore_gives_the_name_and_the_computes_to_another_branch() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let snapshot = take(&emulator, "name=weekly")?;
    emulator.sql(&emulator.staging, &["delete from users"])?;
    let host = emulator.writer(&emulator.staging)?["host"].clone();
    let preview = preview(&emulator, &snapshot, "preview")?;
    assert_eq!(count(&emulator, &emulator.staging)?, "0", "a preview changes nothing");
    assert_eq!(
        call(&emulator, "POST", &format!("/branches/{preview}/finalize_restore"), None)?.0,
        200
    );
    settle(&emulator)?;
    let (_, shown) = call(&emulator, "GET", &format!("/branches/{preview}"), None)?;
    assert_eq!(
        (&shown["branch"]["name"], &shown["branch"]["restored_as"]),
        (&json!("staging"), &json!(emulator.staging))
    );
    let (_, old) = call(&emulator, "GET", &format!("/branches/{}", emulator.staging), None)?;
    assert_eq!(old["branch"]["name"], "staging (old)");
    assert_eq!(
        (count(&emulator, &preview)?.as_str(), &emulator.writer(&preview)?["host"]),
        ("2", &host)
    );
    // What was restored from a snapshot cannot be taken back to a point in time.
    let body = json!({"source_branch_id": preview, "source_timestamp": "2026-01-01T00:00:00Z",
        "preserve_under_name": "before"});
    let (status, body) =
        call(&emulator, "POST", &format!("/branches/{preview}/restore"), Some(&body))?;
    assert_eq!(
        (status, &body["message"]),
        (422, &json!("restore from snapshot on target branch is still ongoing"))
    );
    Ok(())
}
