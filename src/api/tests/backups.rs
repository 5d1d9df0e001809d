//! What is kept, the plan, pins and snapshots.

use super::*;

/// A pair with a backup for each of the last days; those of the first `verified` days are on
/// record.
fn with_backups(days: i64, verified: i64) -> Memory {
    let (mut branches, mut annotations) = (Vec::new(), serde_json::Map::new());
    let now = Memory::default().now();
    let mut add = |id: &str, name: &str, parent: Option<&str>, at: Timestamp| {
        branches.push(json!({
            "id": id, "name": name, "parent_id": parent, "current_state": "ready",
            "default": parent.is_none(), "protected": false,
            "created_at": crate::time::render(at), "logical_size": 2_000_000_000_u64,
        }));
    };
    add("br-noisy-breeze-a5e59rrb", "production", None, now - chrono::TimeDelta::days(400));
    add(
        "br-calm-river-a5x0q1zz",
        "staging",
        Some("br-backup-0"),
        now - chrono::TimeDelta::days(300),
    );
    let memory = Memory::default();
    for day in 0..days {
        let at = now - chrono::TimeDelta::days(day) - chrono::TimeDelta::hours(4);
        let (id, run) = (format!("br-backup-{day}"), at.format("%Y%m%d").to_string());
        add(&id, &format!("backup-{run}"), Some("br-noisy-breeze-a5e59rrb"), at);
        annotations.insert(id, json!({"value": {"firstlight": "hub", "run": run}}));
        if day < verified {
            memory.values.borrow_mut().insert(format!("backup/hub/{run}"), "{}".to_owned());
        }
    }
    Memory { branches: Some(json!({"branches": branches, "annotations": annotations})), ..memory }
}

#[test]
fn a_hundred_branches_are_listed_with_their_reasons_in_five_requests() {
    let memory = with_backups(98, 90);
    memory.values.borrow_mut().insert(
        "result/hub/20260817".to_owned(),
        r#"{"run":"20260817","backup":{"is_verified":false}}"#.to_owned(),
    );
    let (status, body, _) = ask(&memory, &request(Method::Get, "/backups", Some("reader"), ""));
    assert_eq!(
        (status, memory.asked.get()),
        (200, 5),
        "branches, endpoints, what is on record and remembered, how runs ended"
    );
    let backups = body["backups"].as_array().expect("a list");
    let told = |name: &str| {
        let backup = backups.iter().find(|backup| backup["name"] == name).expect("it is listed");
        (
            backup["state"].clone(),
            backup["kept"].clone(),
            backup["reasons"][0].as_str().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(backups.len(), 98);
    assert_eq!(
        told("backup-20261121"),
        (json!("verified"), json!(true), "keep_last: number 1 of 7".to_owned())
    );
    assert_eq!(
        told("backup-20261101"),
        (json!("verified"), json!(false), "older than every keep rule".to_owned())
    );
    let endless = "not verified: kept until somebody deletes it, because keep_failed is not set";
    assert_eq!(told("backup-20260817"), (json!("unverified"), json!(true), endless.to_owned()));
    assert_eq!(told("backup-20260818").0, "unknown");
}

#[test]
fn the_plan_is_shown_by_other_rules_and_a_rule_that_makes_no_sense_is_refused_by_name() {
    let memory = with_backups(12, 12);
    let plan = |query: &str| {
        ask(&memory, &request(Method::Get, &format!("/backups/plan{query}"), Some("reader"), ""))
    };
    let names = |body: &Value| {
        body["delete"]
            .as_array()
            .map(|list| list.iter().map(|entry| entry["name"].clone()).collect::<Vec<_>>())
    };
    let expected = |days: &[u32]| {
        Some(days.iter().map(|day| json!(format!("backup-202611{day:02}"))).collect::<Vec<_>>())
    };
    assert_eq!(names(&plan("").1), expected(&[14, 13, 12, 11, 10]));
    assert_eq!(
        (&plan("").1["room"]["limit"], &plan("").1["room"]["blocked_on"]),
        (&json!(25), &Value::Null)
    );
    let warning =
        plan("?keep_daily=60").1["room"]["warnings"][0].as_str().unwrap_or_default().to_owned();
    assert!(
        warning.contains(
            "no room for all that the rules keep: the project may have 25 branches, and \
             backup-20261110 will give way to"
        ),
        "{warning}"
    );
    assert!(warning.contains("that day's backup; lower keep_daily"), "{warning}");
    let after = &plan("").1["room"]["after"];
    assert_eq!(
        (&after["failed_run"]["gives_way"], &after["manual_run"]["blocked_on"]),
        (&Value::Null, &Value::Null)
    );
    let (_, weekly, _) = plan("?keep_weekly=1&keep_at_least=9");
    assert_eq!(
        (names(&weekly), &weekly["rules"]["keep_last"]),
        (expected(&[12, 11, 10]), &Value::Null)
    );
    for (query, expected) in [
        ("?keep_daily=0", "keep_daily: is 0; allowed is a whole number from 1 to 1000"),
        ("?keep_last=1000000", "keep_last: is 1000000; allowed is a whole number from 1 to 1000"),
        (
            "?keep_within=later",
            "keep_within: is \"later\"; allowed is a span such as \"14d\", \"1y6m\" or \"36h\"",
        ),
        ("?colour=blue", "colour: is not known here; allowed are pair and keep rules"),
    ] {
        let (status, body, _) = plan(query);
        assert_eq!((status, body["detail"].as_str()), (400, Some(expected)), "{query}");
    }
}

#[test]
fn a_backup_is_pinned_once_it_is_known_and_released_again() {
    let memory = with_backups(12, 12);
    let pin = |method: Method, name: &str, body: &str| {
        ask(&memory, &request(method, &format!("/backups/{name}/pin"), Some("admin"), body))
    };
    let shown = || {
        let (_, body, _) = ask(&memory, &request(Method::Get, "/backups", Some("reader"), ""));
        let backups = body["backups"].as_array().cloned().unwrap_or_default();
        let backup = backups
            .into_iter()
            .find(|backup| backup["name"] == "backup-20261111")
            .expect("it is listed");
        (backup["kept"] == true, backup["reasons"][0].as_str().unwrap_or_default().to_owned())
    };
    assert!(!shown().0);
    let (status, body, _) =
        pin(Method::Put, "backup-20261111", r#"{"reason":"audit","until":"2026-12-01T00:00:00Z"}"#);
    assert_eq!((status, &body["pin"]["reason"]), (200, &json!("audit")));
    assert_eq!(shown(), (true, "pinned until 2026-12-01T00:00:00.000Z: audit".to_owned()));
    assert_eq!(pin(Method::Delete, "backup-20261111", "").0, 200);
    assert!(!shown().0);
    let refused = |name: &str, body: &str| {
        let (status, body, _) = pin(Method::Put, name, body);
        (status, body["detail"].as_str().unwrap_or_default().to_owned())
    };
    let unknown =
        (404, "backup-20250101 is no backup of pair hub; GET /backups lists them".to_owned());
    assert_eq!(refused("backup-20250101", r#"{"reason":"audit"}"#), unknown);
    assert_eq!(refused("production", r#"{"reason":"audit"}"#).0, 404);
    assert_eq!(
        refused("backup-20261111", "{}"),
        (400, "reason: expected a text of 1 to 200 characters".to_owned())
    );
    assert_eq!(
        refused("backup-20261111", r#"{"reason":"x","until":"2020-01-01T00:00:00Z"}"#).0,
        400
    );
    assert_eq!(
        ask(&memory, &request(Method::Put, "/backups/backup-20261111/pin", Some("reader"), "{}")).0,
        403
    );
}

#[test]
fn a_backup_that_somebody_has_renamed_is_pinned_under_the_name_that_it_has() {
    let mut memory = with_backups(12, 12);
    let branches = memory
        .branches
        .as_mut()
        .and_then(|listed| listed["branches"].as_array_mut())
        .expect("a list");
    let branch = branches
        .iter_mut()
        .find(|branch| branch["name"] == "backup-20261111")
        .expect("it is there");
    branch["name"] = json!("before-the-migration");
    let pin = |method: Method, body: &str| {
        ask(&memory, &request(method, "/backups/before-the-migration/pin", Some("admin"), body)).0
    };
    let shown = || {
        let (_, body, _) = ask(&memory, &request(Method::Get, "/backups", Some("reader"), ""));
        let backups = body["backups"].as_array().cloned().unwrap_or_default();
        let backup = backups
            .into_iter()
            .find(|backup| backup["name"] == "before-the-migration")
            .expect("it is listed");
        (
            backup["reasons"][0].as_str().unwrap_or_default().to_owned(),
            backup["pin"]["reason"].clone(),
        )
    };
    let renamed = "renamed: was the backup of run 20261111";
    assert_eq!(shown(), (renamed.to_owned(), Value::Null));
    assert_eq!(pin(Method::Put, r#"{"reason":"audit"}"#), 200);
    assert_eq!(shown(), (format!("{renamed}; pinned: audit"), json!("audit")));
    assert!(
        memory.values.borrow().contains_key("backup/hub/20261111/pin"),
        "it is the run's, whatever the branch is called"
    );
    assert_eq!(pin(Method::Delete, ""), 200);
    assert_eq!(shown(), (renamed.to_owned(), Value::Null));
}

#[test]
fn a_backup_with_a_compute_of_somebodys_is_listed_as_kept_for_it() {
    let mut memory = with_backups(12, 12);
    let endpoint = |id: &str, branch: &str, made_at: &str| {
        json!({"id": id, "branch_id": branch,
            "host": "ep.neon.test", "type": "read_only", "created_at": made_at})
    };
    memory.endpoints.extend([
        endpoint("ep-theirs", "br-backup-10", "2026-11-11T11:20:00Z"),
        endpoint("ep-ours", "br-backup-9", "2026-11-12T11:20:00Z"),
    ]);
    // The last run remembers what the one before it had made anew.
    let mut last = crate::fixtures::started();
    last.history
        .endpoints
        .insert(RunId::decode("20261112").expect("a date"), ["ep-ours".into()].into());
    memory.values.borrow_mut().insert("checkpoint/hub".to_owned(), record::encode(&last));
    let (_, body, _) = ask(&memory, &request(Method::Get, "/backups", Some("reader"), ""));
    let why = |list: &str, name: &str| {
        let found =
            body[list].as_array().and_then(|all| all.iter().find(|entry| entry["name"] == name));
        found.map(|entry| (entry["kept"].clone(), entry["reasons"][0].clone())).unwrap_or_default()
    };
    assert_eq!(
        why("backups", "backup-20261111"),
        (json!(true), json!("has the endpoint ep-theirs, which Firstlight did not make"))
    );
    assert_eq!(
        why("backups", "backup-20261112"),
        (json!(false), json!("older than every keep rule"))
    );
    assert_eq!(
        why("others", "ep-ours"),
        (json!(false), json!("no run reads it any more; of backup-20261112"))
    );
}

#[test]
fn backups_are_not_shown_where_neon_does_not_answer() {
    let memory = Memory::default();
    let (status, body, _) = ask(&memory, &request(Method::Get, "/backups", Some("reader"), ""));
    assert_eq!((status, body["title"].as_str()), (502, Some("Neon does not answer")));
}

#[test]
fn snapshots_are_listed_with_what_is_known_of_them_and_their_price_is_told() {
    let mut memory = with_backups(12, 12);
    for (day, status) in [("20261101", "verified"), ("20261102", "unverified")] {
        let at = format!("{}-{}-{}T10:00:00Z", &day[..4], &day[4..6], &day[6..]);
        memory.snapshots.push(json!({
            "id": format!("snap-{day}"), "name": format!("backup-{day}"),
            "slug": format!("firstlight-hub-{day}"), "created_at": at,
            "source_branch_id": "br-noisy-breeze-a5e59rrb", "manual": true,
            "full_size": 2_000_000_000_u64,
        }));
        let facts = Metadata {
            status: status.to_owned(),
            started_at: at,
            reason: format!("0/1 snap-{day}"),
            ..Metadata::default()
        };
        memory.values.borrow_mut().insert(format!("backup/hub/{day}/snapshot"), "{}".to_owned());
        memory.facts.borrow_mut().insert(format!("backup/hub/{day}/snapshot"), facts);
    }
    memory.asked.set(0);
    let (_, body, _) = ask(&memory, &request(Method::Get, "/backups", Some("reader"), ""));
    assert_eq!(memory.asked.get(), 5);
    let told = |name: &str| {
        let found = body["backups"].as_array().and_then(|all| {
            all.iter().find(|entry| entry["kind"] == "snapshot" && entry["name"] == name)
        });
        found.map(|entry| (entry["state"].clone(), entry["kept"].clone())).unwrap_or_default()
    };
    assert_eq!(told("backup-20261101"), (json!("verified"), json!(false)), "{body:#}");
    assert_eq!(
        told("backup-20261102"),
        (json!("unverified"), json!(true)),
        "until somebody deletes it"
    );
    let plan = |query: &str| {
        ask(&memory, &request(Method::Get, &format!("/backups/plan{query}"), Some("reader"), "")).1
    };
    let deleted = |body: &Value| {
        body["delete"]
            .as_array()
            .map_or(0, |list| list.iter().filter(|entry| entry["kind"] == "snapshot").count())
    };
    let tiers = plan("?keep_last=3&keep_monthly=6&keep_monthly_tier=snapshot");
    assert_eq!(
        (deleted(&plan("")), deleted(&tiers), &tiers["rules"]["keep_monthly_tier"]),
        (1, 0, &json!("snapshot"))
    );
    let storage = &tiers["room"]["storage"];
    // Three backups and a displaced branch of 2 GB at 0.35 dollars, three snapshots of 2 GB at
    // 0.09.
    let expected = json!({
        "branch_bytes_at_most": 8_000_000_000_u64, "snapshot_bytes_at_most": 6_000_000_000_u64,
        "extra_branches": 0, "usd_a_month_at_most": "3.340",
        "prices_as_of": "2026-11-12",
    });
    assert_eq!(*storage, expected);
    assert!(
        tiers["room"]["warnings"][0]
            .as_str()
            .is_some_and(|text| text.contains("by itself as well (weekly)")),
        "{}",
        tiers["room"]
    );
}
