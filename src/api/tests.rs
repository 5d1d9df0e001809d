//! The API against a store in memory.

use std::cell::RefCell;

use super::*;
use crate::id::Secret;
use crate::port::{Clock, Http, HttpFailure, HttpRequest, HttpResponse, Level, Log, Metadata, Page, Store, StoreFailure};
use crate::time::Timestamp;

#[derive(Default)]
struct Memory {
    values: RefCell<BTreeMap<String, String>>,
}

impl Clock for Memory {
    fn now(&self) -> Timestamp {
        "2026-11-21T14:30:00Z".parse().expect("an instant")
    }

    async fn sleep(&self, _until: Timestamp) {}
}

impl Http for Memory {
    async fn send(&self, _request: HttpRequest) -> Result<HttpResponse, HttpFailure> {
        Err(HttpFailure::Disconnected)
    }
}

impl Store for Memory {
    async fn read(&self, keys: &[String]) -> Result<BTreeMap<String, Option<String>>, StoreFailure> {
        Ok(keys.iter().map(|key| (key.clone(), self.values.borrow().get(key).cloned())).collect())
    }

    async fn write(&self, key: &str, value: &str, _metadata: Option<Metadata>) -> Result<(), StoreFailure> {
        self.values.borrow_mut().insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<(), StoreFailure> {
        self.values.borrow_mut().remove(key);
        Ok(())
    }

    async fn list(&self, _prefix: &str, _cursor: Option<String>) -> Result<Page, StoreFailure> {
        Ok(Page::default())
    }
}

impl Log for Memory {
    fn log(&self, _level: Level, _event: &str, _facts: &[(&str, String)]) {}
}

fn config() -> Config {
    let value = json!({"pairs": [{
        "name": "hub", "project": "old-violet-32930710", "production_branch": "br-noisy-breeze-a5e59rrb",
        "staging_branch": "br-calm-river-a5x0q1zz", "role": "neondb_owner", "timezone": "America/New_York",
        "start_at": "05:00", "latest_start": "05:30", "deadline": "06:00", "keep_last": 7, "keep_displaced": 1
    }]});
    Config::from_value(&value).expect("the configuration is complete")
}

fn request(method: Method, path: &str, token: Option<&str>, body: &str) -> ApiRequest {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query = query.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (name.to_owned(), value.to_owned())
    });
    ApiRequest {
        method,
        path: path.to_owned(),
        query: query.collect(),
        authorization: token.map(|token| format!("Bearer {token}")),
        idempotency_key: None,
        body: body.to_owned(),
    }
}

fn ask(memory: &Memory, request: &ApiRequest) -> (u16, Value, bool) {
    let secrets: Secrets =
        [("ADMIN_TOKEN", "admin"), ("READ_TOKEN", "reader")].map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned()))).into();
    let config = config();
    let mut future = Box::pin(answer(memory, Ok(&config), &secrets, request));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    // The store in memory never waits, so the first poll is the last.
    let std::task::Poll::Ready(answer) = future.as_mut().poll(&mut context) else { panic!("the memory waits for nothing") };
    let body = serde_json::from_str(&answer.response.body).expect("every answer is JSON");
    (answer.response.status, body, answer.drive.is_some())
}

#[test]
fn without_a_token_only_health_answers() {
    let memory = Memory::default();
    assert_eq!(ask(&memory, &request(Method::Get, "/health", None, "")).0, 200);
    assert_eq!(ask(&memory, &request(Method::Get, "/runs", None, "")).0, 401);
    assert_eq!(ask(&memory, &request(Method::Get, "/runs", Some("wrong"), "")).0, 401);
    assert_eq!(ask(&memory, &request(Method::Get, "/nothing", None, "")).0, 401);
}

#[test]
fn the_reading_token_may_not_write() {
    let memory = Memory::default();
    assert_eq!(ask(&memory, &request(Method::Get, "/runs", Some("reader"), "")).0, 200);
    assert_eq!(ask(&memory, &request(Method::Post, "/runs", Some("reader"), "")).0, 403);
    assert!(memory.values.borrow().is_empty());
}

#[test]
fn a_run_is_started_once_and_refused_while_it_is_under_way() {
    let memory = Memory::default();
    let (status, body, drives) = ask(&memory, &request(Method::Post, "/runs", Some("admin"), ""));
    assert_eq!((status, body["run"].as_str(), drives), (202, Some("20261121T143000Z"), true));
    let (status, body, drives) = ask(&memory, &request(Method::Post, "/runs", Some("admin"), ""));
    assert_eq!((status, body["run"].as_str(), drives), (409, Some("20261121T143000Z"), false));
    let (status, body, _) = ask(&memory, &request(Method::Get, "/runs/20261121T143000Z", Some("reader"), ""));
    assert_eq!((status, body["status"].as_str()), (200, Some("running")));
}

#[test]
fn the_same_idempotency_key_answers_with_the_same_run() {
    let memory = Memory::default();
    let mut first = request(Method::Post, "/runs", Some("admin"), "{}");
    first.idempotency_key = Some("ci-4711".into());
    assert_eq!(ask(&memory, &first).0, 202);
    let (status, body, drives) = ask(&memory, &first);
    assert_eq!((status, body["run"].as_str(), drives), (202, Some("20261121T143000Z"), false));
    let mut other = first.clone();
    other.body = r#"{"until":"verify_backup"}"#.into();
    assert_eq!(ask(&memory, &other).0, 422);
}

#[test]
fn a_malformed_body_is_refused_with_the_key_and_what_is_allowed() {
    let memory = Memory::default();
    let detail = |body: &str| {
        let (status, answer, _) = ask(&memory, &request(Method::Post, "/runs", Some("admin"), body));
        assert_eq!(status, 400, "{body}");
        answer["detail"].as_str().expect("a detail").to_owned()
    };
    assert_eq!(detail("{"), "expected a JSON object: Eof error at line 1, column 1");
    assert_eq!(detail("[]"), "expected a JSON object");
    assert_eq!(detail(r#"{"until":"lunch"}"#), "until: is \"lunch\"; allowed is \"verify_backup\", or nothing for a whole run");
    assert_eq!(detail(r#"{"force":true}"#), "force: is not known here; allowed is pair, until");
    assert!(memory.values.borrow().is_empty());
}

#[test]
fn a_run_that_does_not_exist_is_named() {
    let memory = Memory::default();
    let (status, body, _) = ask(&memory, &request(Method::Get, "/runs/20261120", Some("reader"), ""));
    assert_eq!((status, body["detail"].as_str()), (404, Some("run \"20261120\" of pair hub is not known")));
    assert_eq!(ask(&memory, &request(Method::Post, "/runs/yesterday/cancel", Some("admin"), "")).0, 404);
}

#[test]
fn a_hold_is_set_replaced_and_released() {
    let memory = Memory::default();
    let put = |body: &str| ask(&memory, &request(Method::Put, "/pairs/hub/hold", Some("admin"), body)).0;
    assert_eq!(put(r#"{"reason":"demo","until":"2026-11-22T12:00:00Z"}"#), 200);
    assert_eq!(put(r#"{"reason":"demo","until":"2026-11-20T12:00:00Z"}"#), 400);
    assert_eq!(put(r#"{"until":"2026-11-22T12:00:00Z"}"#), 400);
    assert!(memory.values.borrow()["hold/hub"].contains("demo"));
    assert_eq!(ask(&memory, &request(Method::Delete, "/pairs/hub/hold", Some("admin"), "")).0, 200);
    assert!(memory.values.borrow().is_empty());
    assert_eq!(ask(&memory, &request(Method::Put, "/pairs/lobby/hold", Some("admin"), "{}")).0, 404);
}

#[test]
fn other_methods_and_addresses_are_refused() {
    let memory = Memory::default();
    assert_eq!(ask(&memory, &request(Method::Delete, "/runs", Some("admin"), "")).0, 405);
    assert_eq!(ask(&memory, &request(Method::Get, "/dashboard", Some("admin"), "")).0, 404);
}
