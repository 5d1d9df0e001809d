//! What is sent, and what replies are taken for.

use super::*;
use crate::id::Lsn;

fn project() -> ProjectId {
    "old-violet-32930710".into()
}

#[expect(clippy::unnecessary_wraps, reason = "it stands for what the port returns")]
fn reply(status: u16, body: &str) -> Result<HttpResponse, HttpFailure> {
    Ok(HttpResponse { status, body: body.to_owned(), ..HttpResponse::default() })
}

#[test]
fn a_backup_is_created_with_its_annotation_and_a_small_read_only_endpoint() {
    let call = Call::CreateBranch(CreateBranch {
        parent: "br-noisy-breeze-a5e59rrb".into(),
        parent_lsn: None,
        name: "backup-20261121".into(),
        endpoint: EndpointKind::ReadOnly,
        endpoint_cu_hundredths: 25,
        annotation: vec![("firstlight", "hub".into()), ("run", "20261121".into())],
    });
    let api = Api { base: "https://neon.example/api/v2".into(), key: Secret::new("k".into()) };
    let request = call.encode(&api, &project());
    assert_eq!(request.url, "https://neon.example/api/v2/projects/old-violet-32930710/branches");
    assert_eq!(
        serde_json::from_str::<Value>(&request.body).expect("we wrote it"),
        json!({"annotation_value": {"firstlight": "hub", "run": "20261121"},
                   "branch": {"name": "backup-20261121", "parent_id": "br-noisy-breeze-a5e59rrb"},
                   "endpoints": [{"type": "read_only", "autoscaling_limit_min_cu": 0.25,
                           "autoscaling_limit_max_cu": 0.25}]})
    );
}

#[test]
fn a_snapshot_is_asked_for_in_the_query_and_never_finalized() {
    let api = Api { base: "https://neon.example/api/v2".into(), key: Secret::new("k".into()) };
    let create = |slug: Option<&str>| {
        let (branch, lsn, name) =
            ("br-noisy-breeze-a5e59rrb".into(), Lsn(0x1DE_2850), "backup-20261121".into());
        Call::CreateSnapshot(CreateSnapshot { branch, lsn, name, slug: slug.map(str::to_owned) })
            .encode(&api, &project())
    };
    let path = "https://neon.example/api/v2/projects/old-violet-32930710/branches/br-noisy-breeze-a5e59rrb/snapshot";
    assert_eq!(create(None).url, format!("{path}?lsn=0%2F1DE2850&name=backup-20261121"));
    assert_eq!(
        create(Some("firstlight-hub")).url,
        format!("{path}?lsn=0%2F1DE2850&name=backup-20261121&slug=firstlight-hub")
    );
    let restore = RestoreSnapshot {
        snapshot: "snap-a".into(),
        name: "restore-test-backup-20261121".into(),
        target: "br-backup".into(),
    };
    let body: Value =
        serde_json::from_str(&Call::RestoreSnapshot(restore).encode(&api, &project()).body)
            .expect("we wrote it");
    assert_eq!(
        body,
        json!({"name": "restore-test-backup-20261121", "target_branch_id": "br-backup",
                    "finalize_restore": false})
    );
    let gone = Call::DeleteSnapshot("snap-a".into())
        .decode(&project(), reply(404, r#"{"code":"","message":"snapshot not found"}"#));
    assert!(matches!(gone, Ok(Reply::Deleted)));
}

#[test]
fn an_error_of_neons_keeps_its_code_and_sentence() {
    let result = Call::GetProject
        .decode(&project(), reply(404, r#"{"code":"","message":"project not found"}"#));
    let text = result.map(drop).expect_err("404").to_string();
    assert_eq!(text, "read project old-violet-32930710: Neon answered 404 \"project not found\"");
}

#[test]
fn a_page_of_html_is_an_error_without_its_text() {
    let result = Call::GetProject.decode(&project(), reply(524, "<html>secret</html>"));
    assert_eq!(
        result.map(drop).expect_err("524").to_string(),
        "read project old-violet-32930710: Neon answered 524"
    );
}

#[test]
fn a_body_that_cannot_be_read_is_described_but_not_quoted() {
    let body = r#"{"password": 12345}"#;
    let call = Call::RevealPassword("br-a-b-c".into(), "app".into());
    let text =
        call.decode(&project(), reply(200, body)).map(drop).expect_err("a number").to_string();
    assert!(!text.contains("12345"), "{text}");
}

#[test]
fn addresses_in_messages_are_removed() {
    assert_eq!(shorten("cannot reach postgresql://a:b@c/d now\n"), "cannot reach (address) now");
}

#[test]
fn an_operation_is_read_by_its_id_and_a_page_of_them_says_where_the_next_begins() {
    let api = Api { base: "https://neon.example/api/v2".into(), key: Secret::new("k".into()) };
    let path = |call: &Call| {
        call.encode(&api, &project())
            .url
            .split_off("https://neon.example/api/v2/projects/old-violet-32930710".len())
    };
    let (one, page) = (Call::GetOperation("1e604957".into()), |from: Option<&str>| {
        Call::ListOperations(from.map(str::to_owned))
    });
    assert_eq!(path(&one), "/operations/1e604957");
    assert_eq!(path(&page(None)), "/operations?limit=200");
    assert_eq!(
        path(&page(Some("2026-11-21T10:00:00.5Z"))),
        "/operations?limit=200&cursor=2026-11-21T10%3A00%3A00.5Z"
    );
    let operation = r#"{"id":"1e604957","action":"create_branch","status":"running","created_at":"2026-11-21T10:00:00Z"}"#;
    let told = one.decode(&project(), reply(200, &format!(r#"{{"operation":{operation}}}"#)));
    assert!(matches!(told, Ok(Reply::Operation(told)) if told.action == "create_branch"));
    for (pagination, expected) in
        [(r#","pagination":{"cursor":"x"}"#, Some("x")), (r#","pagination":{}"#, None), ("", None)]
    {
        let told = page(None).decode(
            &project(),
            reply(200, &format!(r#"{{"operations":[{operation}]{pagination}}}"#)),
        );
        let Ok(Reply::Operations(list, next)) = told else { panic!("{pagination}: no page") };
        assert_eq!((list.len(), next.as_deref()), (1, expected), "{pagination}");
    }
}

#[test]
fn a_role_name_is_encoded_in_the_path() {
    assert_eq!(percent_encode("My role/ä"), "My%20role%2F%C3%A4");
}
