//! The rules of Neon that the Worker relies on, as the reference gives them.

use anyhow::Result;
use harness::emulator::Emulator;
use serde_json::{Value, json};

use crate::{emulator, make_branch, settle};

fn post(emulator: &Emulator, path: &str, body: &Value) -> Result<(u16, Value)> {
    let answer = emulator.call("POST", path, Some(&body.to_string()))?;
    Ok((answer.status, answer.json()))
}

#[test]
fn a_name_is_taken_once_a_locked_project_answers_423_and_a_second_delete_204() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let (status, created) = post(&emulator, "/branches", &json!({"branch": {"name": "backup-1"}}))?;
    assert_eq!((status, &created["branch"]["current_state"]), (201, &json!("init")));
    let (status, error) = post(&emulator, "/branches", &json!({"branch": {"name": "backup-2"}}))?;
    assert_eq!(status, 423, "{error}");
    settle(&emulator)?;
    let (status, error) = post(&emulator, "/branches", &json!({"branch": {"name": "backup-1"}}))?;
    assert_eq!((status, &error["code"]), (409, &json!("BRANCH_ALREADY_EXISTS")));
    let path = format!("/branches/{}", created["branch"]["id"].as_str().unwrap_or_default());
    assert_eq!(emulator.call("DELETE", &path, None)?.status, 200);
    settle(&emulator)?;
    assert_eq!(emulator.call("DELETE", &path, None)?.status, 204);
    Ok(())
}

#[test]
fn a_restored_branch_becomes_a_child_of_its_source_and_keeps_its_address() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    emulator.sql(&emulator.staging, &["delete from users"])?;
    let host = emulator.writer(&emulator.staging)?["host"].clone();
    let backup = make_branch(&emulator, &json!({"branch": {"name": "backup-1"}}))?;
    let restore = format!("/branches/{}/restore", emulator.staging);
    let (status, restored) = post(
        &emulator,
        &restore,
        &json!({"source_branch_id": backup, "preserve_under_name": "before"}),
    )?;
    assert_eq!((status, &restored["branch"]["id"]), (200, &json!(emulator.staging)));
    settle(&emulator)?;
    let staging = emulator.call("GET", &format!("/branches/{}", emulator.staging), None)?.json();
    assert_eq!(staging["branch"]["parent_id"], backup.as_str());
    assert_eq!(emulator.writer(&emulator.staging)?["host"], host);
    assert_eq!(
        emulator.sql(&emulator.staging, &["select count(*) from users"])?,
        vec![vec![Some("2".to_owned())]]
    );
    let (status, error) = post(
        &emulator,
        &restore,
        &json!({"source_branch_id": backup, "preserve_under_name": "before"}),
    )?;
    assert_eq!((status, &error["code"]), (409, &json!("BRANCH_ALREADY_EXISTS")));
    let deleted = emulator.call("DELETE", &format!("/branches/{backup}"), None)?;
    assert_eq!(deleted.status, 422);
    assert!(deleted.body.contains("cannot delete branch that has children"), "{}", deleted.body);
    Ok(())
}

#[test]
fn a_branch_of_a_production_that_is_written_to_begins_at_its_parent_lsn() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let made = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Bounded: a branch is made long before 2,000 inserts.
            for number in 10..2_010 {
                if stop.load(std::sync::atomic::Ordering::SeqCst) {
                    break;
                }
                let insert = format!("insert into users values ({number}, 'live')");
                let _ = emulator.sql(&emulator.production, &[insert.as_str()]);
            }
        });
        let made = make_branch(
            &emulator,
            &json!({"branch": {"name": "live"}, "endpoints": [{"type": "read_write"}]}),
        );
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        made
    })?;
    let count = |branch: &str| -> Result<u64> {
        let rows = emulator.sql(branch, &["select count(*), coalesce(max(id), 0) from users"])?;
        Ok(rows[0][0].as_deref().unwrap_or_default().parse()?)
    };
    let (branched, production) = (count(&made)?, count(&emulator.production)?);
    assert!(branched >= 2 && branched <= production, "{branched} of {production}");
    // Every insert up to the branch's beginning is there: the ids have no gap.
    let gaps = emulator
        .sql(&made, &["select count(*) = coalesce(max(id), 0) - 9 from users where id >= 10"])?;
    assert!(branched == 2 || gaps == vec![vec![Some("t".to_owned())]], "{gaps:?}");
    Ok(())
}

#[test]
fn a_branch_at_an_earlier_position_holds_what_was_there_then() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let position = emulator.sql(&emulator.production, &["select pg_current_wal_insert_lsn()"])?[0]
        [0]
    .clone()
    .unwrap_or_default();
    emulator.sql(&emulator.production, &["delete from users"])?;
    let body = json!({"branch": {"name": "earlier", "parent_lsn": position},
        "endpoints": [{"type": "read_only"}, {"type": "read_write"}]});
    let earlier = make_branch(&emulator, &body)?;
    assert_eq!(
        emulator.sql(&earlier, &["select count(*) from users"])?,
        vec![vec![Some("2".to_owned())]]
    );
    assert_eq!(
        emulator.sql(&emulator.production, &["select count(*) from users"])?,
        vec![vec![Some("0".to_owned())]]
    );
    let shown = emulator.call("GET", &format!("/branches/{earlier}"), None)?.json();
    assert_eq!(shown["branch"]["parent_lsn"], position.as_str());
    Ok(())
}

#[test]
fn protection_quota_and_keys_are_enforced() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let staging = format!("/branches/{}", emulator.staging);
    emulator.call("PATCH", &staging, Some(r#"{"branch":{"protected":true}}"#))?;
    let (status, _) = post(
        &emulator,
        &format!("{staging}/restore"),
        &json!({"source_branch_id": emulator.production}),
    )?;
    assert_eq!(status, 422);
    assert_eq!(emulator.call("DELETE", &staging, None)?.status, 422);
    emulator.control("PUT", "project", Some(r#"{"branches_limit": 2}"#))?;
    let (status, error) = post(&emulator, "/branches", &json!({"branch": {"name": "one-more"}}))?;
    assert_eq!((status, &error["code"]), (422, &json!("BRANCHES_LIMIT_EXCEEDED")));
    let wrong =
        harness::http::send("GET", &format!("{}/projects", emulator.api()), Some("wrong"), None)?;
    assert_eq!(
        (wrong.status, &wrong.json()["message"]),
        (401, &json!("supplied credentials do not pass authentication"))
    );
    Ok(())
}

#[test]
fn more_than_forty_requests_a_second_are_refused() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    (0..12)
                        .filter_map(|_| {
                            emulator.call("GET", "/branches", None).ok().map(|answer| answer.status)
                        })
                        .collect::<Vec<u16>>()
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
    });
    assert!(statuses.contains(&429), "{statuses:?}");
    Ok(())
}

#[test]
fn errors_of_sql_have_the_proxys_shapes() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let endpoint = emulator.writer(&emulator.production)?;
    let host = endpoint["host"].as_str().unwrap_or_default().to_owned();
    let password = endpoint["roles"][0]["password"].as_str().unwrap_or_default().to_owned();
    let ask = |connection: &str, body: &str| -> Result<(u16, Value)> {
        let headers = [("neon-connection-string", connection)];
        let answer = harness::http::send_with(
            "POST",
            &format!("{}/sql", emulator.url),
            None,
            &headers,
            Some(body),
        )?;
        Ok((answer.status, answer.json()))
    };
    let good = format!("postgresql://neondb_owner:{password}@{host}/neondb");
    let one = r#"{"query":"select 1"}"#;

    let (status, error) = ask(&good, r#"{"query":"select * from nowhere"}"#)?;
    let keys: Vec<&str> =
        error.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        (status, keys.len(), &error["code"], &error["position"]),
        (400, 17, &json!("42P01"), &json!("15")),
        "{error}"
    );
    let (status, error) = ask(&good.replace(&password, "wrong"), one)?;
    assert_eq!((status, &error["code"], keys.len()), (400, &json!(""), 17), "{error}");
    assert_eq!(error["message"], "password authentication failed for user 'neondb_owner'");
    let (status, error) = ask(&format!("{}nowhere", good.trim_end_matches("neondb")), one)?;
    assert_eq!((status, &error["code"]), (400, &json!("3D000")), "{error}");
    let (status, error) = ask(&good.replace("ep-", "ep-not-"), one)?;
    assert_eq!(
        (status, &error["message"]),
        (400, &json!("Control plane request failed: endpoint cannot be found"))
    );
    let (status, error) = ask(&good, r#"{"query":"select 1","params":null}"#)?;
    assert!(
        status == 400
            && error["message"]
                .as_str()
                .unwrap_or_default()
                .starts_with("could not parse the HTTP request body"),
        "{error}"
    );
    let (status, error) = ask(&good, r#"{"query":"select array[]::int[] as none"}"#)?;
    assert_eq!((status, &error["message"]), (500, &json!("could not parse postgres response")));
    let (status, error) = ask(&good, r#"{"query":"select repeat('x', 11000000)"}"#)?;
    assert_eq!(
        (status, &error["message"]),
        (507, &json!("response is too large (max is 10485760 bytes)"))
    );
    let (status, error) =
        ask(&good, &json!({"query": "select 1", "params": ["x".repeat(11_000_000)]}).to_string())?;
    assert_eq!(
        (status, &error["message"]),
        (413, &json!("request is too large (max is 10485760 bytes)"))
    );
    Ok(())
}

#[test]
fn a_compute_sleeps_when_nobody_uses_it_and_wakes_on_a_query() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let pid = |branch: &str| -> Result<Value> { Ok(emulator.writer(branch)?["pid"].clone()) };
    assert!(pid(&emulator.staging)?.is_null(), "staging has not been asked anything yet");
    emulator.sql(&emulator.staging, &["select 1"])?;
    let awake = pid(&emulator.staging)?;
    assert!(awake.is_u64());
    let id = emulator.writer(&emulator.staging)?["id"].as_str().unwrap_or_default().to_owned();
    assert_eq!(emulator.call("POST", &format!("/endpoints/{id}/suspend"), None)?.status, 200);
    settle(&emulator)?;
    assert!(pid(&emulator.staging)?.is_null());
    emulator.sql(&emulator.staging, &["select 1"])?;
    assert_ne!(pid(&emulator.staging)?, awake);
    Ok(())
}

#[test]
fn a_branch_at_an_earlier_time_holds_what_was_there_then() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let at = || -> Result<String> {
        let rows = emulator.sql(
            &emulator.production,
            &["select to_char(clock_timestamp() at time zone 'UTC', \
                'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"],
        )?;
        Ok(rows[0][0].clone().unwrap_or_default())
    };
    emulator.sql(&emulator.production, &["insert into users values (3, 'three')"])?;
    // The emulator notes once a second where a branch is.
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    let then = at()?;
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    emulator.sql(&emulator.production, &["delete from users"])?;
    let body = json!({"branch": {"name": "earlier", "parent_timestamp": then},
        "endpoints": [{"type": "read_write"}]});
    let earlier = make_branch(&emulator, &body)?;
    assert_eq!(
        emulator.sql(&earlier, &["select count(*) from users"])?,
        vec![vec![Some("3".to_owned())]]
    );
    let (status, error) = post(
        &emulator,
        "/branches",
        &json!({"branch": {"name": "old", "parent_timestamp": "2020-01-01T00:00:00Z"}}),
    )?;
    assert_eq!(status, 400, "{error}");
    Ok(())
}

#[test]
fn a_listing_is_paged_and_its_last_page_has_a_next_too() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    make_branch(&emulator, &json!({"branch": {"name": "backup-1"}}))?;
    let mut names = Vec::new();
    let mut cursor = String::new();
    for _ in 0..5 {
        let page = emulator
            .call("GET", &format!("/branches?limit=2&sort_by=name&sort_order=asc{cursor}"), None)?
            .json();
        let branches = page["branches"].as_array().cloned().unwrap_or_default();
        if branches.is_empty() {
            break;
        }
        names.extend(
            branches.iter().filter_map(|branch| branch["name"].as_str().map(str::to_owned)),
        );
        let next = page["pagination"]["next"].as_str().unwrap_or_default();
        assert!(!next.is_empty() && page["pagination"]["sort_order"] == "ASC", "{page}");
        cursor = format!("&cursor={}", next.replace('+', "%2B").replace('=', "%3D"));
    }
    assert_eq!(names, ["backup-1", "production", "staging"]);
    let found = emulator.call("GET", "/branches?search=ackup", None)?.json();
    assert_eq!(found["branches"].as_array().map(Vec::len), Some(1));
    assert_eq!(emulator.call("GET", "/branches/count", None)?.json(), json!({"count": 3}));
    Ok(())
}
