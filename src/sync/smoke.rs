//! Smoke tests: requests to the staging application, and what their answers mean.
//!
//! In: a [`SmokeTest`], the secrets, the values that earlier tests have captured. Out: an [`HttpRequest`]; from its reply a [`Check`] and more values.
//!
//! Invariants: a captured value is a secret: it is in no report, no log, and not in the checkpoint. A tick that has forgotten one asks the test
//! that captured it again. An address is called letter by letter. Status and headers are judged whatever
//! the body is. A test that did not hold says what was called and what came, without secrets; of JSON
//! only names and errors, because its values may be people's.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::{Capture, SmokeTest, Writing};
use crate::id::Secret;
use crate::port::{HttpFailure, HttpRequest, HttpResponse, Reading, answer};
use crate::sync::verify::{Check, CheckKind, CheckOutcome, outcome_of};

/// Values that tests have captured, by name.
pub type Captured = BTreeMap<String, Secret>;

/// Returns the test that has to be called before another one can be: one that captures what it wants.
pub fn needed_first<'a>(tests: &'a [SmokeTest], test: &SmokeTest, captured: &Captured) -> Option<usize> {
    let missing = test.wanted().into_iter().find(|wanted| !captured.contains_key(wanted))?;
    let index = tests.iter().position(|other: &'a SmokeTest| other.capture.contains_key(&missing))?;
    // It may need another one itself.
    needed_first(&tests[..index], &tests[index], captured).or(Some(index))
}

/// A secret that a test needs is not set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("secret {0} is not set; set it with `wrangler secret put`")]
pub struct MissingSecret(String);

/// Returns the request of a test.
///
/// # Errors
///
/// When a secret that it names is not set.
pub fn request(test: &SmokeTest, secrets: &BTreeMap<String, Secret>, captured: &Captured) -> Result<HttpRequest, MissingSecret> {
    let secret = |name: &String| secrets.get(name).ok_or_else(|| MissingSecret(name.clone()));
    let mut request = HttpRequest::new(test.method, filled(&test.url, captured, Writing::Plain), test.timeout);
    request.reading = if test.looks_into_the_body() { Reading::Page } else { Reading::Beginning };
    for (name, value) in &test.headers {
        request.secret_headers.push((name.clone(), Secret::new(filled(value, captured, Writing::Plain))));
    }
    for (name, of) in &test.secret_headers {
        request.secret_headers.push((name.clone(), secret(of)?.clone()));
    }
    let body = match &test.body_secret {
        Some(of) => secret(of)?.reveal(),
        None => &test.body,
    };
    let names = || request.secret_headers.iter();
    let configured = names().find(|(name, _)| name.eq_ignore_ascii_case("content-type")).map(|(_, value)| value.reveal());
    let media_type = configured.or_else(|| media_type(body)).unwrap_or_default().to_owned();
    let is_configured = configured.is_some();
    request.body = match &test.body_secret {
        Some(_) => body.to_owned(),
        None => filled(body, captured, Writing::of(&media_type)),
    };
    if !is_configured && !media_type.is_empty() {
        request.headers.push(("content-type".to_owned(), media_type));
    }
    Ok(request)
}

/// Returns the media type of a body for which none is configured; `None` for a plain text.
///
/// The platform calls every text `text/plain`, which frameworks read as no form and no JSON.
fn media_type(body: &str) -> Option<&'static str> {
    let text = body.trim();
    if text.starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        return Some("application/json");
    }
    is_form(text).then_some("application/x-www-form-urlencoded")
}

/// Returns whether a body is a form: fields with names, and nothing that would be encoded in one.
fn is_form(body: &str) -> bool {
    let mut text = String::with_capacity(body.len());
    // A value that is put in later is encoded then.
    for (index, part) in body.split("{{").enumerate() {
        text.push_str(if index == 0 { part } else { part.split_once("}}").map_or(part, |(_, rest)| rest) });
    }
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*%+~!'(),:;@/?$[]=".contains(&byte);
    let is_field = |field: &str| field.split_once('=').is_some_and(|(name, _)| !name.is_empty()) && field.bytes().all(is_part);
    !text.is_empty() && text.split('&').all(is_field)
}

/// Puts captured values into a text, each as the text wants it.
fn filled(text: &str, captured: &Captured, writing: Writing) -> String {
    let mut parts = text.split("{{");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once("}}") {
            Some((name, rest)) => {
                let value = captured.get(name.trim()).map(Secret::reveal).unwrap_or_default();
                filled.push_str(&writing.write(value));
                filled.push_str(rest);
            }
            None => filled.push_str(part),
        }
    }
    filled
}

/// What a test was sent with, none of which may be told.
#[derive(Clone, Copy)]
pub struct Sent<'a> {
    /// The secrets of the Worker.
    pub secrets: &'a BTreeMap<String, Secret>,
    /// What earlier tests have captured.
    pub captured: &'a Captured,
}

/// Returns how a test went, and what it has captured.
pub fn judge(test: &SmokeTest, sent: Sent<'_>, result: &Result<HttpResponse, HttpFailure>) -> (Check, Captured) {
    let check = |outcome: CheckOutcome, detail: String| Check::of_pair(CheckKind::SmokeTest, &test.name, outcome, detail);
    let bad = outcome_of(test.policy);
    let called = format!("{} {}", test.method.as_str(), answer::shown_address(&test.url));
    let response = match result {
        Ok(response) => response,
        Err(failure) => return (check(bad, format!("{called}: {failure}")), Captured::new()),
    };
    let (faults, captured) = faults(test, response);
    if faults.is_empty() {
        return (check(CheckOutcome::Passed, format!("answered {}", response.status)), captured);
    }
    let mut hidden: Vec<&str> = test.secrets().filter_map(|name| sent.secrets.get(name)).map(Secret::reveal).collect();
    hidden.extend(sent.captured.values().chain(captured.values()).map(Secret::reveal));
    let body = test.body_secret.as_ref().and_then(|name| sent.secrets.get(name)).map_or(test.body.as_str(), Secret::reveal);
    let values = values(body);
    hidden.extend(values.iter().map(String::as_str));
    let mut told = vec![faults.join("; ")];
    told.extend(answer::moved_to(response, &hidden).map(|place| format!("it sends to {place}")));
    let words = answer::words_of_application(response, &hidden);
    told.extend((!words.is_empty()).then(|| format!("it says \"{words}\"")));
    let explained = explained(response).map(|explained| format!(" ({explained})")).unwrap_or_default();
    let detail = format!("{called}: {}{explained}", told.join("; "));
    (check(bad, detail), Captured::new())
}

/// Returns the values of a form or of flat JSON, as they were sent and as they are read.
fn values(body: &str) -> Vec<String> {
    if let Ok(Value::Object(object)) = serde_json::from_str(body) {
        return object.values().filter_map(answer::scalar).collect();
    }
    let sent = body.split('&').filter_map(|field| field.split_once('=')).map(|(_, value)| value);
    sent.flat_map(|value| [value.to_owned(), decoded(value)]).collect()
}

/// Source: WHATWG URL, 5.1 "application/x-www-form-urlencoded parsing".
fn decoded(value: &str) -> String {
    let mut parts = value.split('%');
    let mut bytes: Vec<u8> = parts.next().unwrap_or_default().replace('+', " ").into_bytes();
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(part[2..].replace('+', " ").bytes());
            }
            None => bytes.extend(format!("%{part}").bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns what is not as expected, and what was captured.
fn faults(test: &SmokeTest, response: &HttpResponse) -> (Vec<String>, Captured) {
    let mut faults = Vec::new();
    if response.status != test.expect_status {
        faults.push(format!("expected {}, answered {}", test.expect_status, response.status));
    }
    for (name, expected) in &test.expect_headers {
        if !header_values(response, name).any(|value| value.contains(expected.as_str())) {
            faults.push(format!("no header {name} contains {expected:?}"));
        }
    }
    let before = faults.len();
    if test.expect_text.as_deref().is_some_and(|text| !response.body.contains(text)) {
        faults.push(format!("the page does not contain {:?}", test.expect_text.as_deref().unwrap_or_default()));
    }
    let json: Option<Value> = serde_json::from_str(answer::without_mark(&response.body)).ok();
    for (pointer, expected) in &test.expect_json {
        if json.as_ref().and_then(|json| answer::scalar(json.pointer(pointer)?)).as_ref() != Some(expected) {
            faults.push(format!("{pointer} in its JSON is not {expected:?}"));
        }
    }
    let mut captured = Captured::new();
    for (name, place) in &test.capture {
        match find(response, json.as_ref(), place) {
            Some(value) => drop(captured.insert(name.clone(), Secret::new(value))),
            None => faults.push(format!("{name} is not in the answer")),
        }
    }
    if response.is_cut && faults.len() > before && test.looks_into_the_body() {
        faults.push(format!("the body was not whole: {} bytes of it were read", response.body.len()));
    }
    (faults, captured)
}

/// Explains an answer that Cloudflare gives in place of the application.
///
/// # Source
///
/// Cloudflare, "Errors" of Workers: 1042 "Worker tried to fetch from another Worker on the same zone,
/// which is only supported when the `global_fetch_strictly_public` compatibility flag is used";
/// compatibility flags: without it such requests go "directly to the zone's origin server", and a host
/// that has none is answered 522. "Detect a challenge page response": the header `cf-mitigated`.
fn explained(response: &HttpResponse) -> Option<&'static str> {
    let body = answer::without_mark(&response.body).trim_start();
    let is_code = |code: &str| body.strip_prefix("error code: ").is_some_and(|rest| rest.trim() == code);
    if answer::header(&response.headers, "cf-mitigated") == Some("challenge") {
        return Some("Cloudflare's bot protection asks for a browser: let the header that this test sends past it");
    }
    match response.status {
        _ if is_code("1042") => Some(
            "Cloudflare: the application is a Worker of the same zone, which this Worker may call only with \
             compatibility_flags = [\"global_fetch_strictly_public\"] in wrangler.toml",
        ),
        _ if is_code("1016") => Some("Cloudflare: the name of the application's server is not known"),
        _ if is_code("1101") => Some("Cloudflare: the application is a Worker, and it threw"),
        522 => Some(
            "Cloudflare did not reach a server: it is down, or the host has none because a Worker of the same zone answers for it, which \
             needs compatibility_flags = [\"global_fetch_strictly_public\"] in wrangler.toml",
        ),
        521 | 523 | 530 => Some("Cloudflare did not reach the application's server"),
        524 => Some("the application did not answer Cloudflare within 100 s"),
        _ => None,
    }
}

fn header_values<'a>(response: &'a HttpResponse, name: &str) -> impl Iterator<Item = &'a String> {
    let of = response.headers.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name));
    of.map(|(_, value)| value)
}

fn find(response: &HttpResponse, json: Option<&Value>, place: &Capture) -> Option<String> {
    match place {
        Capture::Header(name) => header_values(response, name).next().cloned(),
        Capture::Cookie(name) => {
            // Source: RFC 6265, section 4.1.1: `Set-Cookie: name=value; attributes`.
            let pair =
                |value: &String| value.split(';').next()?.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.to_owned()));
            header_values(response, "set-cookie").filter_map(pair).find(|(other, _)| other == name).map(|(_, value)| value)
        }
        Capture::Json(pointer) => answer::scalar(json?.pointer(pointer)?),
        Capture::Between(before, after) => {
            let (_, rest) = response.body.split_once(before.as_str())?;
            rest.split_once(after.as_str()).map(|(value, _)| value.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;

    fn tests(list: &Value) -> Vec<SmokeTest> {
        let value = json!({"pairs": [{
            "name": "hub", "project": "old-violet-32930710", "production_branch": "br-noisy-breeze-a5e59rrb",
            "staging_branch": "br-calm-river-a5x0q1zz", "role": "neondb_owner", "timezone": "America/New_York", "start_at": "05:00",
            "latest_start": "05:30", "deadline": "06:00", "keep_last": 7, "keep_displaced": 1, "smoke_tests": list,
        }]});
        Config::from_value(&value).expect("the configuration is complete").pairs.remove(0).smoke_tests
    }

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> HttpResponse {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
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
        let page =
            Ok(answer(200, &[("Content-Type", "application/json; charset=utf-8")], r#"{"user": {"id": 7, "name": "Ann"}, "list": []}"#));
        let test = json!({"expect_headers": {"content-type": "application/json"}, "expect_text": "Ann", "expect_json": {"/user/id": 7}});
        assert_eq!(told(&test, &page), "Passed answered 200");
        let test = json!({"expect_status": 201, "expect_headers": {"x-none": "a"}, "expect_text": "Bob", "expect_json": {"/user/id": "8", "/list": ""}});
        assert_eq!(
            told(&test, &page),
            "Failed GET https://staging.example.com/: expected 201, answered 200; no header x-none contains \"a\"; the page does not contain \
             \"Bob\"; /list in its JSON is not \"\"; /user/id in its JSON is not \"8\"; it says \"JSON with list, user\""
        );
        assert_eq!(
            told(&json!({"on_failure": "warn"}), &Err(HttpFailure::Disconnected)),
            "Warned GET https://staging.example.com/: the connection failed"
        );
        let missing = told(&json!({"capture": {"token": "json:/token"}}), &page);
        assert!(
            missing.starts_with("Failed GET https://staging.example.com/: token is not in the answer") && !missing.contains("Ann"),
            "{missing}"
        );
    }

    /// As in case 03: JSON that begins with a byte order mark.
    #[test]
    fn a_byte_order_mark_is_no_part_of_the_json() {
        let page = Ok(answer(200, &[("Content-Type", "application/json")], "\u{feff}{\"status\": \"ok\"}"));
        assert_eq!(told(&json!({"expect_json": {"/status": "ok"}}), &page), "Passed answered 200");
    }

    #[test]
    fn a_body_that_is_not_whole_matters_only_to_who_looks_into_it() {
        let page = Ok(HttpResponse { is_cut: true, ..answer(200, &[], "data: 1") });
        assert_eq!(told(&json!({}), &page), "Passed answered 200");
        assert_eq!(told(&json!({"expect_text": "data"}), &page), "Passed answered 200");
        assert!(told(&json!({"expect_text": "end"}), &page).contains("the body was not whole: 7 bytes of it were read"));
    }

    /// As in case 18: what Cloudflare answers in place of the application.
    #[test]
    fn an_answer_of_cloudflare_is_explained() {
        let text = told(&json!({}), &Ok(answer(404, &[], "error code: 1042")));
        assert!(
            text.starts_with(
                "Failed GET https://staging.example.com/: expected 200, answered 404; it says \"error code: 1042\" (Cloudflare: "
            ) && text.contains("global_fetch_strictly_public"),
            "{text}"
        );
        assert!(told(&json!({}), &Ok(answer(522, &[], "error code: 522"))).contains("global_fetch_strictly_public"));
        assert!(
            told(&json!({}), &Ok(answer(403, &[("cf-mitigated", "challenge")], "<title>Just a moment...</title>")))
                .contains("bot protection")
        );
        assert!(told(&json!({}), &Ok(answer(404, &[], "no such page"))).ends_with("it says \"no such page\""));
    }

    /// As in case 01: who is sent elsewhere is told where.
    #[test]
    fn a_redirect_says_where_it_leads_and_the_address_is_called_letter_by_letter() {
        let page = Ok(answer(301, &[("Location", "/app/accounts/login/?next=%2F")], ""));
        let text = told(&json!({"url": "https://staging.example.com/app/accounts/login?a=1"}), &page);
        assert_eq!(
            text,
            "Failed GET https://staging.example.com/app/accounts/login?…: expected 200, answered 301; it sends to /app/accounts/login/?…"
        );
        for url in
            ["https://staging.example.com/app/accounts/login/", "https://staging.example.com/", "https://staging.example.com//a/?b=/"]
        {
            let page = &tests(&json!([{"name": "page", "url": url}]))[0];
            let called = request(page, &BTreeMap::new(), &Captured::new()).expect("nothing is missing").url;
            assert_eq!(called, url);
        }
    }

    /// As in case 23: frameworks read a form by its media type alone.
    #[test]
    fn a_body_is_sent_as_what_it_is() {
        let sent = |test: &Value| {
            let mut whole = json!({"name": "log in", "url": "https://staging.example.com/", "method": "POST"});
            whole.as_object_mut().expect("a table").extend(test.as_object().cloned().unwrap_or_default());
            let secrets = BTreeMap::from([("FORM".to_owned(), Secret::new("email=a%40b.example&password=x".to_owned()))]);
            let request = request(&tests(&json!([whole]))[0], &secrets, &Captured::new()).expect("nothing is missing");
            let plain = request.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
            let secret = request.secret_headers.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned()));
            let types: Vec<String> =
                plain.chain(secret).filter(|(name, _)| name.eq_ignore_ascii_case("content-type")).map(|(_, value)| value).collect();
            types.join(" and ")
        };
        let form = "application/x-www-form-urlencoded";
        assert_eq!(sent(&json!({"body": "email=ann%40example.com&password=hunter2"})), form);
        assert_eq!(sent(&json!({"body_secret": "FORM"})), form);
        assert_eq!(sent(&json!({"body": "{\"a\": 1}"})), "application/json");
        assert_eq!(sent(&json!({"body": "a plain = text"})), "");
        assert_eq!(sent(&json!({})), "");
        assert_eq!(sent(&json!({"body": "a=b", "headers": {"Content-Type": "text/plain"}})), "text/plain");
        assert!(is_form("csrf={{ csrf }}&user%5Bname%5D=a+b&empty=") && !is_form("<a b=\"c\">") && !is_form("a=b\nc=d"));
    }

    #[test]
    fn a_captured_value_is_put_into_a_form_or_json_as_text() {
        let captured = Captured::from([("csrf".to_owned(), Secret::new("a+b/\"c\"==&d".to_owned()))]);
        let tests = tests(&json!([
            {"name": "form", "url": "https://s.example.com/", "capture": {"csrf": "cookie:csrf"}},
            {"name": "a", "url": "https://s.example.com/", "method": "POST", "body": "csrf={{csrf}}&x=y"},
            {"name": "b", "url": "https://s.example.com/", "method": "POST", "body": "{\"csrf\": \"{{csrf}}\"}"},
        ]));
        let body = |index: usize| request(&tests[index], &BTreeMap::new(), &captured).expect("nothing is missing").body;
        assert_eq!(body(1), "csrf=a%2Bb%2F%22c%22%3D%3D%26d&x=y");
        assert_eq!(body(2), "{\"csrf\": \"a+b/\\\"c\\\"==&d\"}");
    }

    #[test]
    fn what_was_sent_or_captured_is_not_told() {
        let tests = tests(&json!([
            {"name": "form", "url": "https://s.example.com/", "capture": {"csrf": "between:csrf=|;"}},
            {"name": "log in", "url": "https://s.example.com/", "method": "POST", "body": "csrf={{csrf}}&password=hunter2",
             "secret_headers": {"X-Preview": "PREVIEW"}, "capture": {"sid": "cookie:sid"}},
        ]));
        let secrets = BTreeMap::from([("PREVIEW".to_owned(), Secret::new("hush-hush".to_owned()))]);
        let captured = Captured::from([("csrf".to_owned(), Secret::new("t0k3n".to_owned()))]);
        let page = Ok(answer(403, &[("set-cookie", "sid=s3ss10n")], "password hunter2 with t0k3n and hush-hush in s3ss10n"));
        let (check, _) = judge(&tests[1], Sent { secrets: &secrets, captured: &captured }, &page);
        assert_eq!(decoded("a%40b+%zz%C3%A9"), "a@b %zzé");
        assert_eq!(check.detail, "POST https://s.example.com/: expected 200, answered 403; it says \"password … with … and … in …\"");
    }

    #[test]
    fn a_value_is_captured_wherever_it_stands_and_put_into_a_later_request() {
        let tests = tests(&json!([
            {"name": "form", "url": "https://s.example.com/login", "capture": {"csrf": "between:name=\"csrf\" value=\"|\""}},
            {"name": "log in", "url": "https://s.example.com/login", "method": "POST", "body": "csrf={{csrf}}&user=a", "expect_status": 302,
             "capture": {"session": "cookie:sid", "to": "header:Location"}},
            {"name": "page", "url": "https://s.example.com/{{to}}?s={{session}}", "headers": {"Cookie": "sid={{session}}"},
             "secret_headers": {"X-Preview": "PREVIEW"}},
        ]));
        let mut captured = Captured::new();
        assert_eq!(needed_first(&tests, &tests[2], &captured), Some(0), "the form, for the login, for the page");
        let (_, more) = judged(&tests[0], &Ok(answer(200, &[], "<input name=\"csrf\" value=\"t0k\">")));
        captured.extend(more);
        assert_eq!(needed_first(&tests, &tests[2], &captured), Some(1));
        let no_secret = BTreeMap::new();
        assert_eq!(request(&tests[1], &no_secret, &captured).expect("nothing is missing").body, "csrf=t0k&user=a");
        let cookies = [("Set-Cookie", "other=1; Path=/"), ("set-cookie", "sid=abc; HttpOnly"), ("location", "me")];
        captured.extend(judged(&tests[1], &Ok(answer(302, &cookies, ""))).1);
        assert_eq!(needed_first(&tests, &tests[2], &captured), None);
        let missing = request(&tests[2], &no_secret, &captured).err().map(|missing| missing.to_string());
        assert_eq!(missing.as_deref(), Some("secret PREVIEW is not set; set it with `wrangler secret put`"));
        let secrets = [("PREVIEW".to_owned(), Secret::new("hush".to_owned()))].into();
        let page = request(&tests[2], &secrets, &captured).expect("nothing is missing");
        let headers: Vec<String> = page.secret_headers.iter().map(|(name, value)| format!("{name}: {}", value.reveal())).collect();
        assert_eq!(
            (page.url.as_str(), headers),
            ("https://s.example.com/me?s=abc", vec!["Cookie: sid=abc".to_owned(), "X-Preview: hush".to_owned()])
        );
    }
}
