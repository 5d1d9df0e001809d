//! The settings of smoke tests: requests to the staging application.

use std::collections::BTreeMap;
use std::time::Duration;

use super::headers;
use super::reader::{Fields, shown_key, shown_text};
use super::secrets::{check_names, optional_secret_name};
use super::{Policy, called_address};
use crate::port::Method;

/// How long the staging application may take to answer, where nothing else is configured.
const TIMEOUT_S: u32 = 20;

/// Calls of one smoke test before it counts: the application may be coming back from losing its
/// connections.
const ATTEMPTS: u32 = 3;

/// One request to the staging application.
#[derive(Clone, Debug)]
pub struct SmokeTest {
    /// Its name, for the report.
    pub name: String,
    /// How it asks.
    pub method: Method,
    /// The address; `{{name}}` stands for a value that an earlier test has captured.
    pub url: String,
    /// Headers, with such values.
    pub headers: BTreeMap<String, String>,
    /// Headers whose value a secret holds, by the name of the secret.
    pub secret_headers: BTreeMap<String, String>,
    /// The body, with such values; empty for none.
    pub body: String,
    /// The name of a secret that holds the body.
    pub body_secret: Option<String>,
    /// The status that counts as good.
    pub expect_status: u16,
    /// Headers of the answer, each with a text that it must contain.
    pub expect_headers: BTreeMap<String, String>,
    /// A text that the answer must contain.
    pub expect_text: Option<String>,
    /// Places in the JSON of the answer (JSON Pointer), each with its value as text.
    pub expect_json: BTreeMap<String, String>,
    /// Values for later tests, by name.
    pub capture: BTreeMap<String, Capture>,
    /// How long it may take.
    pub timeout: Duration,
    /// Calls before it counts as failed.
    pub attempts: u32,
    /// What follows when it fails.
    pub policy: Policy,
}

/// Where a value is found in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capture {
    /// In a header.
    Header(String),
    /// In a cookie that the answer sets.
    Cookie(String),
    /// At a place in its JSON (JSON Pointer).
    Json(String),
    /// Between two texts.
    Between(String, String),
}

impl SmokeTest {
    /// Returns the names of secrets that it needs.
    pub fn secrets(&self) -> impl Iterator<Item = &String> {
        self.secret_headers.values().chain(&self.body_secret)
    }

    /// Returns whether the body of the answer matters.
    pub fn looks_into_the_body(&self) -> bool {
        let is_in_body = |place: &Capture| matches!(place, Capture::Json(_) | Capture::Between(..));
        self.expect_text.is_some()
            || !self.expect_json.is_empty()
            || self.capture.values().any(is_in_body)
    }

    /// Returns the names of the values that it takes from earlier tests.
    pub fn wanted(&self) -> Vec<String> {
        let texts = std::iter::once(&self.url)
            .chain(self.headers.values())
            .chain(std::iter::once(&self.body));
        let mut names = Vec::new();
        for text in texts {
            let placed = text.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
            names.extend(placed.map(|(name, _)| name.trim().to_owned()));
        }
        names
    }
}

/// Reads the list.
pub(super) fn smoke_tests(fields: &mut Fields<'_>, allow_insecure: bool) -> Vec<SmokeTest> {
    let mut tests: Vec<SmokeTest> = Vec::new();
    for (path, map) in fields.objects("smoke_tests") {
        let mut test = Fields::new(path, map, fields.problems());
        let found = smoke_test(&mut test, &tests, allow_insecure);
        test.refuse_unknown();
        tests.extend(found);
    }
    tests
}

fn smoke_test(
    test: &mut Fields<'_>,
    earlier: &[SmokeTest],
    allow_insecure: bool,
) -> Option<SmokeTest> {
    let name = test.required("name", "\"sign-in page\"");
    test.need("url", "\"https://staging.example.com/login\"");
    let url = called_address(test, "url", allow_insecure);
    let methods = [Method::Get, Method::Post, Method::Put, Method::Patch, Method::Delete]
        .map(|method| (method.as_str(), method));
    let found = SmokeTest {
        name: name.clone().unwrap_or_default(),
        method: test.word("method", &methods).unwrap_or(Method::Get),
        url: url.clone().unwrap_or_default(),
        headers: test.map("headers"),
        secret_headers: test.map("secret_headers"),
        body: test.scalar("body").unwrap_or_default(),
        body_secret: optional_secret_name(test, "body_secret"),
        expect_status: u16::try_from(test.number("expect_status", 100, 599).unwrap_or(200))
            .unwrap_or(200),
        expect_headers: test.map("expect_headers"),
        expect_text: test.text("expect_text"),
        expect_json: test.map("expect_json"),
        capture: captures(test),
        timeout: Duration::from_secs(test.number("timeout_s", 1, 60).unwrap_or(TIMEOUT_S).into()),
        attempts: test.number("attempts", 1, 10).unwrap_or(ATTEMPTS),
        policy: test
            .word("on_failure", &[("fail", Policy::Fail), ("warn", Policy::Warn)])
            .unwrap_or(Policy::Fail),
    };
    if name.as_deref().is_some_and(|name| earlier.iter().any(|other| other.name == name)) {
        test.problem("name", "is used by another smoke test; it must be the test's own");
    }
    refuse_contradictions(test, &found, earlier);
    (name.is_some() && url.is_some()).then_some(found)
}

/// Refuses what no request can have together, or what no test before this one provides.
fn refuse_contradictions(test: &mut Fields<'_>, found: &SmokeTest, earlier: &[SmokeTest]) {
    check_names(test, "secret_headers", found.secret_headers.values());
    headers::check(test, "headers", &found.headers);
    headers::check(test, "secret_headers", &found.secret_headers);
    headers::check(test, "expect_headers", &found.expect_headers);
    let twin = found
        .headers
        .keys()
        .find(|name| found.secret_headers.keys().any(|other| other.eq_ignore_ascii_case(name)));
    if let Some(twin) = twin {
        test.problem(
            "secret_headers",
            format!("has {}, which stands in headers too; allowed is one of them", shown_key(twin)),
        );
    }
    if found.method == Method::Get && (!found.body.is_empty() || found.body_secret.is_some()) {
        let key = if found.body.is_empty() { "body_secret" } else { "body" };
        test.problem(
            key,
            "stands beside method GET, which has none; allowed is method = \"POST\", or no body",
        );
    }
    if !found.body.is_empty() && found.body_secret.is_some() {
        test.problem("body_secret", "stands beside body; allowed is one of them");
    }
    if let Some(pointer) =
        found.expect_json.keys().find(|pointer| !pointer.is_empty() && !pointer.starts_with('/'))
    {
        test.problem(
            "expect_json",
            format!("has {}; allowed is a JSON Pointer such as \"/user/id\"", shown_text(pointer)),
        );
    }
    let host = found.url.split('/').nth(2).unwrap_or_default();
    if host.contains("{{") {
        test.problem(
            "url",
            "has a captured value in its host; allowed is one in its path or query",
        );
    }
    let is_captured =
        |wanted: &String| earlier.iter().any(|other| other.capture.contains_key(wanted));
    if let Some(unknown) = found.wanted().into_iter().find(|wanted| !is_captured(wanted)) {
        test.problem(
            "capture",
            format!("{{{{{unknown}}}}} is used and captured by no test before this one"),
        );
    }
}

/// Reads where values are found: `header:x-csrf`, `cookie:session`, `json:/token`,
/// `between:value="|"`.
fn captures(test: &mut Fields<'_>) -> BTreeMap<String, Capture> {
    let mut found = BTreeMap::new();
    for (name, place) in test.map("capture") {
        let capture = match place.split_once(':') {
            Some(("header", header)) if !header.is_empty() => {
                Some(Capture::Header(header.to_owned()))
            }
            Some(("cookie", cookie)) if !cookie.is_empty() => {
                Some(Capture::Cookie(cookie.to_owned()))
            }
            Some(("json", pointer)) if pointer.starts_with('/') => {
                Some(Capture::Json(pointer.to_owned()))
            }
            Some(("between", texts)) => texts
                .split_once('|')
                .filter(|(before, after)| !before.is_empty() && !after.is_empty())
                .map(|(before, after)| Capture::Between(before.to_owned(), after.to_owned())),
            _ => None,
        };
        let allowed = "header:<name>, cookie:<name>, json:/<pointer> or between:<before>|<after>";
        match capture {
            Some(capture) => drop(found.insert(name, capture)),
            None => test.problem(
                "capture",
                format!("{} is {}; allowed is {allowed}", shown_key(&name), shown_text(&place)),
            ),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::{Config, ConfigErrors};

    fn read(tests: &Value) -> Result<Vec<SmokeTest>, Vec<String>> {
        let value = json!({"pairs": [{
            "name": "hub", "project": "old-violet-32930710",
            "production_branch": "br-noisy-breeze-a5e59rrb",
            "staging_branch": "br-calm-river-a5x0q1zz", "role": "neondb_owner",
            "timezone": "America/New_York", "start_at": "05:00",
            "latest_start": "05:30", "deadline": "06:00", "keep_last": 7, "keep_displaced": 1,
            "smoke_tests": tests,
        }]});
        match Config::from_value(&value) {
            Ok(mut config) => Ok(config.pairs.remove(0).smoke_tests),
            Err(ConfigErrors(problems)) => Err(problems.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn a_login_and_a_page_that_needs_it_are_read() {
        let tests = read(&json!([
            {"name": "log in", "url": "https://staging.example.com/login", "method": "POST",
                "body_secret": "LOGIN_FORM", "expect_status": 302,
             "headers": {"Content-Type": "application/x-www-form-urlencoded"},
             "capture": {"session": "cookie:session"}},
            {"name": "page", "url": "https://staging.example.com/me",
                "headers": {"Cookie": "session={{session}}"}, "expect_json": {"/id": 7},
             "secret_headers": {"X-Preview": "PREVIEW_TOKEN"}, "timeout_s": 5, "attempts": 1,
             "on_failure": "warn"},
        ]))
        .expect("they are complete");
        assert_eq!(tests[0].capture["session"], Capture::Cookie("session".to_owned()));
        assert_eq!(
            (tests[1].expect_json["/id"].as_str(), tests[1].wanted()),
            ("7", vec!["session".to_owned()])
        );
        assert_eq!(
            tests.iter().flat_map(SmokeTest::secrets).collect::<Vec<_>>(),
            ["LOGIN_FORM", "PREVIEW_TOKEN"]
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_path() {
        let faults = |test: Value| {
            let mut whole = json!({"name": "page", "url": "https://staging.example.com/"});
            whole
                .as_object_mut()
                .expect("a table")
                .extend(test.as_object().cloned().unwrap_or_default());
            read(&json!([whole])).expect_err("it is refused").remove(0)
        };
        let path = "pairs[0].smoke_tests[0]";
        assert!(
            faults(json!({"method": "FETCH"}))
                .starts_with(&format!("{path}.method: is \"FETCH\"; allowed is \"GET\" or"))
        );
        assert_eq!(
            faults(json!({"headers": {"Cookie": "a={{session}}"}})),
            format!(
                "{path}.capture: {{{{session}}}} is used and captured by no test before this one"
            )
        );
        assert!(
            faults(json!({"url": "https://{{host}}/"}))
                .contains("has a captured value in its host")
        );
        assert!(
            faults(json!({"capture": {"x": "regex:.*"}}))
                .starts_with(&format!("{path}.capture: x is"))
        );
        assert!(
            faults(json!({"expect_json": {"user": "1"}})).contains("allowed is a JSON Pointer")
        );
        assert!(
            faults(json!({"method": "POST", "body": "a", "body_secret": "B"}))
                .contains("stands beside body")
        );
        assert!(
            faults(json!({"headers": {"X": ["a"]}}))
                .contains("is a list; allowed is a text or a number")
        );
        assert!(
            faults(json!({"body": "a"}))
                .starts_with(&format!("{path}.body: stands beside method GET"))
        );
        assert!(
            faults(json!({"body_secret": "B"}))
                .starts_with(&format!("{path}.body_secret: stands beside method GET"))
        );
        assert!(
            faults(json!({"headers": {"Accept Language": "en"}}))
                .starts_with(&format!("{path}.headers: has a name of 15 characters"))
        );
        assert!(
            faults(json!({"headers": {"X-A": "a\r\nX-B: b"}}))
                .starts_with(&format!("{path}.headers: has X-A with a line end"))
        );
        assert!(
            faults(json!({"headers": {"Host": "a"}})).contains("which the platform sets itself")
        );
        assert!(faults(json!({"headers": {"x-a": "a", "X-A": "b"}})).contains("twice"));
        assert!(
            faults(json!({"headers": {"x-a": "a"}, "secret_headers": {"X-A": "B"}}))
                .contains("which stands in headers too")
        );
        assert!(faults(json!({"timeout_s": 0})).contains("a whole number from 1 to 60"));
    }
}
