//! What is called, and what passes.

use serde_json::json;

use super::*;
use crate::config::Config;

fn tests(list: &Value) -> Vec<SmokeTest> {
    let value = json!({"pairs": [{
        "name": "hub", "project": "old-violet-32930710",
        "production_branch": "br-noisy-breeze-a5e59rrb",
        "staging_branch": "br-calm-river-a5x0q1zz", "role": "neondb_owner",
        "timezone": "America/New_York", "start_at": "05:00",
        "latest_start": "05:30", "deadline": "06:00", "keep_last": 7, "keep_displaced": 1,
        "smoke_tests": list,
    }]});
    Config::from_value(&value).expect("the configuration is complete").pairs.remove(0).smoke_tests
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> HttpResponse {
    let headers =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    HttpResponse { status, headers, body: body.to_owned(), ..HttpResponse::default() }
}

fn judged(test: &SmokeTest, result: &Result<HttpResponse, HttpFailure>) -> (Check, Captured) {
    judge(test, Sent { secrets: &BTreeMap::new(), captured: &Captured::new() }, result)
}

fn told(test: &Value, result: &Result<HttpResponse, HttpFailure>) -> String {
    let mut whole = json!({"name": "page", "url": "https://staging.example.com/"});
    whole.as_object_mut().expect("a table").extend(test.as_object().cloned().unwrap_or_default());
    let (check, _) = judged(&tests(&json!([whole]))[0], result);
    format!("{:?} {}", check.outcome, check.detail)
}

#[test]
fn an_answer_is_held_against_everything_that_is_expected_and_never_shown() {
    let page = Ok(answer(
        200,
        &[("Content-Type", "application/json; charset=utf-8")],
        r#"{"user": {"id": 7, "name": "Ann"}, "list": []}"#,
    ));
    let test = json!({"expect_headers": {"content-type": "application/json"},
                "expect_text": "Ann", "expect_json": {"/user/id": 7}});
    assert_eq!(told(&test, &page), "Passed answered 200");
    let test = json!({"expect_status": 201, "expect_headers": {"x-none": "a"},
                "expect_text": "Bob", "expect_json": {"/user/id": "8", "/list": ""}});
    assert_eq!(
        told(&test, &page),
        "Failed GET https://staging.example.com/: expected 201, answered 200; no header x-none \
         contains \"a\"; the page does not contain \"Bob\"; /list in its JSON is not \"\"; \
         /user/id in its JSON is not \"8\"; it says \"JSON with list, user\""
    );
    assert_eq!(
        told(&json!({"on_failure": "warn"}), &Err(HttpFailure::Disconnected)),
        "Warned GET https://staging.example.com/: the connection failed"
    );
    let missing = told(&json!({"capture": {"token": "json:/token"}}), &page);
    assert!(
        missing.starts_with("Failed GET https://staging.example.com/: token is not in the answer")
            && !missing.contains("Ann"),
        "{missing}"
    );
}

/// As in case 03: JSON that begins with a byte order mark.
#[test]
fn a_byte_order_mark_is_no_part_of_the_json() {
    let page =
        Ok(answer(200, &[("Content-Type", "application/json")], "\u{feff}{\"status\": \"ok\"}"));
    assert_eq!(told(&json!({"expect_json": {"/status": "ok"}}), &page), "Passed answered 200");
}

#[test]
fn a_body_that_is_not_whole_matters_only_to_who_looks_into_it() {
    let page = Ok(HttpResponse { is_cut: true, ..answer(200, &[], "data: 1") });
    assert_eq!(told(&json!({}), &page), "Passed answered 200");
    assert_eq!(told(&json!({"expect_text": "data"}), &page), "Passed answered 200");
    assert!(
        told(&json!({"expect_text": "end"}), &page)
            .contains("the body was not whole: 7 bytes of it were read")
    );
}

/// As in case 18: what Cloudflare answers in place of the application.
#[test]
fn an_answer_of_cloudflare_is_explained() {
    let text = told(&json!({}), &Ok(answer(404, &[], "error code: 1042")));
    assert!(
        text.starts_with(
            "Failed GET https://staging.example.com/: expected 200, answered 404; it says \"error \
             code: 1042\" (Cloudflare: "
        ) && text.contains("global_fetch_strictly_public"),
        "{text}"
    );
    assert!(
        told(&json!({}), &Ok(answer(522, &[], "error code: 522")))
            .contains("global_fetch_strictly_public")
    );
    assert!(
        told(
            &json!({}),
            &Ok(answer(403, &[("cf-mitigated", "challenge")], "<title>Just a moment...</title>"))
        )
        .contains("bot protection")
    );
    assert!(
        told(&json!({}), &Ok(answer(404, &[], "no such page")))
            .ends_with("it says \"no such page\"")
    );
}

/// As in case 01: who is sent elsewhere is told where.
#[test]
fn a_redirect_says_where_it_leads_and_the_address_is_called_letter_by_letter() {
    let page = Ok(answer(301, &[("Location", "/app/accounts/login/?next=%2F")], ""));
    let text = told(&json!({"url": "https://staging.example.com/app/accounts/login?a=1"}), &page);
    assert_eq!(
        text,
        "Failed GET https://staging.example.com/app/accounts/login?…: expected 200, answered 301; \
         it sends to /app/accounts/login/?…"
    );
    for url in [
        "https://staging.example.com/app/accounts/login/",
        "https://staging.example.com/",
        "https://staging.example.com//a/?b=/",
    ] {
        let page = &tests(&json!([{"name": "page", "url": url}]))[0];
        let called =
            request(page, &BTreeMap::new(), &Captured::new()).expect("nothing is missing").url;
        assert_eq!(called, url);
    }
}

/// As in case 23: frameworks read a form by its media type alone.
#[test]
fn a_body_is_sent_as_what_it_is() {
    let sent = |test: &Value| {
        let mut whole =
            json!({"name": "log in", "url": "https://staging.example.com/", "method": "POST"});
        whole
            .as_object_mut()
            .expect("a table")
            .extend(test.as_object().cloned().unwrap_or_default());
        let secrets = BTreeMap::from([(
            "FORM".to_owned(),
            Secret::new("email=a%40b.example&password=x".to_owned()),
        )]);
        let request = request(&tests(&json!([whole]))[0], &secrets, &Captured::new())
            .expect("nothing is missing");
        let plain = request.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
        let secret = request
            .secret_headers
            .iter()
            .map(|(name, value)| (name.clone(), value.reveal().to_owned()));
        let types: Vec<String> = plain
            .chain(secret)
            .filter(|(name, _)| name.eq_ignore_ascii_case("content-type"))
            .map(|(_, value)| value)
            .collect();
        types.join(" and ")
    };
    let form = "application/x-www-form-urlencoded";
    assert_eq!(sent(&json!({"body": "email=ann%40example.com&password=hunter2"})), form);
    assert_eq!(sent(&json!({"body_secret": "FORM"})), form);
    assert_eq!(sent(&json!({"body": "{\"a\": 1}"})), "application/json");
    assert_eq!(sent(&json!({"body": "a plain = text"})), "");
    assert_eq!(sent(&json!({})), "");
    assert_eq!(
        sent(&json!({"body": "a=b", "headers": {"Content-Type": "text/plain"}})),
        "text/plain"
    );
    assert!(
        is_form("csrf={{ csrf }}&user%5Bname%5D=a+b&empty=")
            && !is_form("<a b=\"c\">")
            && !is_form("a=b\nc=d")
    );
}

#[test]
fn a_captured_value_is_put_into_a_form_or_json_as_text() {
    let captured = Captured::from([("csrf".to_owned(), Secret::new("a+b/\"c\"==&d".to_owned()))]);
    let tests = tests(&json!([
        {"name": "form", "url": "https://s.example.com/", "capture": {"csrf": "cookie:csrf"}},
        {"name": "a", "url": "https://s.example.com/", "method": "POST",
            "body": "csrf={{csrf}}&x=y"},
        {"name": "b", "url": "https://s.example.com/", "method": "POST",
            "body": "{\"csrf\": \"{{csrf}}\"}"},
    ]));
    let body = |index: usize| {
        request(&tests[index], &BTreeMap::new(), &captured).expect("nothing is missing").body
    };
    assert_eq!(body(1), "csrf=a%2Bb%2F%22c%22%3D%3D%26d&x=y");
    assert_eq!(body(2), "{\"csrf\": \"a+b/\\\"c\\\"==&d\"}");
}

#[test]
fn what_was_sent_or_captured_is_not_told() {
    let tests = tests(&json!([
        {"name": "form", "url": "https://s.example.com/",
            "capture": {"csrf": "between:csrf=|;"}},
        {"name": "log in", "url": "https://s.example.com/", "method": "POST",
            "body": "csrf={{csrf}}&password=hunter2",
         "secret_headers": {"X-Preview": "PREVIEW"}, "capture": {"sid": "cookie:sid"}},
    ]));
    let secrets = BTreeMap::from([("PREVIEW".to_owned(), Secret::new("hush-hush".to_owned()))]);
    let captured = Captured::from([("csrf".to_owned(), Secret::new("t0k3n".to_owned()))]);
    let page = Ok(answer(
        403,
        &[("set-cookie", "sid=s3ss10n")],
        "password hunter2 with t0k3n and hush-hush in s3ss10n",
    ));
    let (check, _) = judge(&tests[1], Sent { secrets: &secrets, captured: &captured }, &page);
    assert_eq!(decoded("a%40b+%zz%C3%A9"), "a@b %zzé");
    assert_eq!(
        check.detail,
        "POST https://s.example.com/: expected 200, answered 403; it says \"password … with … and \
         … in …\""
    );
}

#[test]
fn a_value_is_captured_wherever_it_stands_and_put_into_a_later_request() {
    let tests = tests(&json!([
        {"name": "form", "url": "https://s.example.com/login",
            "capture": {"csrf": "between:name=\"csrf\" value=\"|\""}},
        {"name": "log in", "url": "https://s.example.com/login", "method": "POST",
            "body": "csrf={{csrf}}&user=a", "expect_status": 302,
         "capture": {"session": "cookie:sid", "to": "header:Location"}},
        {"name": "page", "url": "https://s.example.com/{{to}}?s={{session}}",
            "headers": {"Cookie": "sid={{session}}"},
         "secret_headers": {"X-Preview": "PREVIEW"}},
    ]));
    let mut captured = Captured::new();
    assert_eq!(
        needed_first(&tests, &tests[2], &captured),
        Some(0),
        "the form, for the login, for the page"
    );
    let (_, more) = judged(&tests[0], &Ok(answer(200, &[], "<input name=\"csrf\" value=\"t0k\">")));
    captured.extend(more);
    assert_eq!(needed_first(&tests, &tests[2], &captured), Some(1));
    let no_secret = BTreeMap::new();
    assert_eq!(
        request(&tests[1], &no_secret, &captured).expect("nothing is missing").body,
        "csrf=t0k&user=a"
    );
    let cookies = [
        ("Set-Cookie", "other=1; Path=/"),
        ("set-cookie", "sid=abc; HttpOnly"),
        ("location", "me"),
    ];
    captured.extend(judged(&tests[1], &Ok(answer(302, &cookies, ""))).1);
    assert_eq!(needed_first(&tests, &tests[2], &captured), None);
    let missing =
        request(&tests[2], &no_secret, &captured).err().map(|missing| missing.to_string());
    assert_eq!(
        missing.as_deref(),
        Some("secret PREVIEW is not set; set it with `wrangler secret put`")
    );
    let secrets = [("PREVIEW".to_owned(), Secret::new("hush".to_owned()))].into();
    let page = request(&tests[2], &secrets, &captured).expect("nothing is missing");
    let headers: Vec<String> = page
        .secret_headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.reveal()))
        .collect();
    assert_eq!(
        (page.url.as_str(), headers),
        (
            "https://s.example.com/me?s=abc",
            vec!["Cookie: sid=abc".to_owned(), "X-Preview: hush".to_owned()]
        )
    );
}
