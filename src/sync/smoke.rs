//! Smoke tests: requests to the staging application, and what their answers mean.
//!
//! In: a [`SmokeTest`], the secrets, the values that earlier tests have captured. Out: an [`HttpRequest`]; from its reply a [`Check`] and more values.
//!
//! Invariants: a captured value is a secret: it is in no report, no log, and not in the checkpoint. A tick that has forgotten one asks the test
//! that captured it again.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::{Capture, SmokeTest};
use crate::id::Secret;
use crate::port::{HttpFailure, HttpRequest, HttpResponse};
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
    let mut request = HttpRequest::new(test.method, filled(&test.url, captured), test.timeout);
    for (name, value) in &test.headers {
        request.secret_headers.push((name.clone(), Secret::new(filled(value, captured))));
    }
    for (name, of) in &test.secret_headers {
        request.secret_headers.push((name.clone(), secret(of)?.clone()));
    }
    request.body = match &test.body_secret {
        Some(of) => secret(of)?.reveal().to_owned(),
        None => filled(&test.body, captured),
    };
    Ok(request)
}

/// Puts captured values into a text.
fn filled(text: &str, captured: &Captured) -> String {
    let mut parts = text.split("{{");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once("}}") {
            Some((name, rest)) => {
                filled.push_str(captured.get(name.trim()).map(Secret::reveal).unwrap_or_default());
                filled.push_str(rest);
            }
            None => filled.push_str(part),
        }
    }
    filled
}

/// Returns how a test went, and what it has captured.
pub fn judge(test: &SmokeTest, result: &Result<HttpResponse, HttpFailure>) -> (Check, Captured) {
    let check = |outcome: CheckOutcome, detail: String| Check::of_pair(CheckKind::SmokeTest, &test.name, outcome, detail);
    let bad = outcome_of(test.policy);
    let response = match result {
        Ok(response) => response,
        Err(failure) => return (check(bad, failure.to_string()), Captured::new()),
    };
    let mut faults = Vec::new();
    if response.status != test.expect_status {
        faults.push(format!("expected {}, answered {}", test.expect_status, response.status));
    }
    for (name, expected) in &test.expect_headers {
        if !header_values(response, name).any(|value| value.contains(expected.as_str())) {
            faults.push(format!("no header {name} contains {expected:?}"));
        }
    }
    if test.expect_text.as_deref().is_some_and(|text| !response.body.contains(text)) {
        faults.push(format!("the page does not contain {:?}", test.expect_text.as_deref().unwrap_or_default()));
    }
    let json: Option<Value> = serde_json::from_str(&response.body).ok();
    for (pointer, expected) in &test.expect_json {
        if json.as_ref().and_then(|json| scalar(json.pointer(pointer)?)).as_ref() != Some(expected) {
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
    if faults.is_empty() {
        (check(CheckOutcome::Passed, format!("answered {}", response.status)), captured)
    } else {
        (check(bad, faults.join("; ")), Captured::new())
    }
}

fn header_values<'a>(response: &'a HttpResponse, name: &str) -> impl Iterator<Item = &'a String> {
    let of = response.headers.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name));
    of.map(|(_, value)| value)
}

/// Returns a value of JSON as text; a list or an object is none.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) | Value::Null => Some(value.to_string()),
        Value::Array(_) | Value::Object(_) => None,
    }
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
        Capture::Json(pointer) => scalar(json?.pointer(pointer)?),
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

    fn told(test: &Value, result: &Result<HttpResponse, HttpFailure>) -> String {
        let mut whole = json!({"name": "page", "url": "https://staging.example.com/"});
        whole.as_object_mut().expect("a table").extend(test.as_object().cloned().unwrap_or_default());
        let (check, _) = judge(&tests(&json!([whole]))[0], result);
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
            "Failed expected 201, answered 200; no header x-none contains \"a\"; the page does not contain \"Bob\"; /list in its JSON is not \"\"; \
             /user/id in its JSON is not \"8\""
        );
        assert_eq!(told(&json!({"on_failure": "warn"}), &Err(HttpFailure::Disconnected)), "Warned the connection failed");
        assert_eq!(told(&json!({"capture": {"token": "json:/token"}}), &page), "Failed token is not in the answer");
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
        let (_, more) = judge(&tests[0], &Ok(answer(200, &[], "<input name=\"csrf\" value=\"t0k\">")));
        captured.extend(more);
        assert_eq!(needed_first(&tests, &tests[2], &captured), Some(1));
        let no_secret = BTreeMap::new();
        assert_eq!(request(&tests[1], &no_secret, &captured).expect("nothing is missing").body, "csrf=t0k&user=a");
        let cookies = [("Set-Cookie", "other=1; Path=/"), ("set-cookie", "sid=abc; HttpOnly"), ("location", "me")];
        captured.extend(judge(&tests[1], &Ok(answer(302, &cookies, ""))).1);
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
