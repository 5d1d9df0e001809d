//! The API against a store in memory.

mod answers;
mod backups;
mod notices;
mod runs;

use std::cell::RefCell;
use std::task::Poll;

use serde_json::json;

use super::*;
use crate::id::{RunId, Secret};
use crate::port::{
    Clock, Http, HttpFailure, HttpRequest, HttpResponse, Level, Log, Metadata, Page, Recall, Store,
    StoreFailure,
};
use crate::time::Timestamp;

#[derive(Default)]
struct Memory {
    values: RefCell<BTreeMap<String, String>>,
    facts: RefCell<BTreeMap<String, Metadata>>,
    /// The branches that Neon lists; without any, it does not answer.
    branches: Option<Value>,
    /// The endpoints that Neon lists.
    endpoints: Vec<Value>,
    /// The snapshots that Neon lists.
    snapshots: Vec<Value>,
    /// Requests and calls of the store.
    asked: std::cell::Cell<u32>,
    /// What channels answer.
    channel_status: std::cell::Cell<u16>,
    /// Whether reads show nothing of what was written, as they may for a minute.
    is_stale: std::cell::Cell<bool>,
    /// Whether a read lets other requests go on before it answers.
    gives_way: std::cell::Cell<bool>,
    /// What this instance remembers.
    notes: RefCell<crate::port::Notes>,
    /// What was sent to channels, as address and body.
    sent: RefCell<Vec<(String, String)>>,
}

impl Memory {
    fn count(&self) {
        self.asked.set(self.asked.get() + 1);
    }
}

impl Clock for Memory {
    fn now(&self) -> Timestamp {
        "2026-11-21T14:30:00Z".parse().expect("an instant")
    }

    async fn sleep(&self, _until: Timestamp) {}
}

impl Http for Memory {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpFailure> {
        self.count();
        if request.url.contains("hooks.example.com") {
            self.sent.borrow_mut().push((request.url, request.body));
            let status = self.channel_status.get();
            // As Slack says that a message was taken.
            let body = if status < 300 { "ok" } else { "" };
            return Ok(HttpResponse { status, body: body.to_owned(), ..HttpResponse::default() });
        }
        let Some(branches) = &self.branches else { return Err(HttpFailure::Disconnected) };
        let body = match request.url.rsplit('/').next() {
            Some("endpoints") => json!({"endpoints": self.endpoints}),
            Some("snapshots") => json!({"snapshots": self.snapshots}),
            Some("backup_schedule") => json!({"schedule": [{"frequency": "weekly"}]}),
            Some("old-violet-32930710") => json!({"project": {
                "id": "old-violet-32930710", "name": "hub", "pg_version": 18,
                "store_passwords": true,
                "owner": {"branches_limit": 25, "subscription_type": "scale_v3", "name": "hub",
                    "email": "ops@example.com"},
            }}),
            _ => branches.clone(),
        };
        Ok(HttpResponse { status: 200, body: body.to_string(), ..HttpResponse::default() })
    }
}

impl Store for Memory {
    async fn read(
        &self,
        keys: &[String],
    ) -> Result<BTreeMap<String, Option<String>>, StoreFailure> {
        self.count();
        if self.gives_way.get() {
            let mut is_asked_again = false;
            std::future::poll_fn(|_| {
                if std::mem::replace(&mut is_asked_again, true) {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        }
        let known =
            |key: &String| self.values.borrow().get(key).filter(|_| !self.is_stale.get()).cloned();
        Ok(keys.iter().map(|key| (key.clone(), known(key))).collect())
    }

    async fn write(
        &self,
        key: &str,
        value: &str,
        metadata: Option<Metadata>,
    ) -> Result<(), StoreFailure> {
        self.facts.borrow_mut().extend(metadata.map(|facts| (key.to_owned(), facts)));
        self.values.borrow_mut().insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<(), StoreFailure> {
        self.values.borrow_mut().remove(key);
        Ok(())
    }

    async fn list(&self, prefix: &str, _cursor: Option<String>) -> Result<Page, StoreFailure> {
        self.count();
        let (values, facts) = (self.values.borrow(), self.facts.borrow());
        let keys = values
            .keys()
            .filter(|key| key.starts_with(prefix))
            .map(|key| (key.clone(), facts.get(key).cloned()))
            .collect();
        Ok(Page { keys, cursor: None })
    }
}

impl Log for Memory {
    fn log(&self, _level: Level, _event: &str, _facts: &[(&str, String)]) {}
}

impl Recall for Memory {
    fn note(&self, what: &str, at: Timestamp) {
        self.notes.borrow_mut().note(what, at);
    }

    fn noted_at(&self, what: &str) -> Option<Timestamp> {
        self.notes.borrow().noted_at(what)
    }
}

fn config() -> Config {
    Config::from_value(&settings()).expect("the configuration is complete")
}

fn settings() -> Value {
    json!({"pairs": [{
        "name": "hub", "project": "old-violet-32930710",
        "production_branch": "br-noisy-breeze-a5e59rrb",
        "staging_branch": "br-calm-river-a5x0q1zz", "role": "neondb_owner",
        "timezone": "America/New_York",
        "start_at": "05:00", "latest_start": "05:30", "deadline": "06:00", "keep_last": 7,
        "keep_displaced": 1
    }], "channels": [
        {"name": "on-call", "kind": "webhook", "url_secret": "WEBHOOK_URL",
            "signing_secret": "WEBHOOK_SECRET"},
        {"name": "team", "kind": "slack", "url_secret": "SLACK_URL"}
    ]})
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
    let answer = answered(memory, &config(), request);
    let body = serde_json::from_str(&answer.response.body).expect("every answer is JSON");
    (answer.response.status, body, answer.drive.is_some())
}

fn secrets() -> Secrets {
    let secrets = [
        ("ADMIN_TOKEN", "admin"),
        ("READ_TOKEN", "reader"),
        ("NEON_API_KEY", "napi"),
        ("WEBHOOK_URL", "https://hooks.example.com/webhook"),
        ("WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("SLACK_URL", "https://hooks.example.com/slack"),
    ];
    secrets.map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned()))).into()
}

fn answered(memory: &Memory, config: &Config, request: &ApiRequest) -> Answer {
    let secrets = secrets();
    let mut future = Box::pin(answer(memory, Ok(config), &secrets, request));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    // The store in memory never waits, so the first poll is the last.
    let Poll::Ready(answer) = future.as_mut().poll(&mut context) else {
        panic!("the memory waits for nothing")
    };
    answer
}

#[test]
fn without_a_token_only_health_answers() {
    let memory = Memory::default();
    assert_eq!(
        ask(&memory, &request(Method::Get, "/health", None, "")).0,
        503,
        "nothing has succeeded yet"
    );
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
    let (status, body, _) =
        ask(&memory, &request(Method::Get, "/runs/20261121T143000Z", Some("reader"), ""));
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
        let (status, answer, _) =
            ask(&memory, &request(Method::Post, "/runs", Some("admin"), body));
        assert_eq!(status, 400, "{body}");
        answer["detail"].as_str().expect("a detail").to_owned()
    };
    assert_eq!(detail("{"), "expected a JSON object: Eof error at line 1, column 1");
    assert_eq!(detail("[]"), "expected a JSON object");
    assert_eq!(
        detail(r#"{"until":"lunch"}"#),
        "until: is \"lunch\"; allowed is \"verify_backup\", or nothing for a whole run"
    );
    assert_eq!(
        detail(r#"{"force":true}"#),
        "force: is not known here; allowed is pair, until, accept_row_loss"
    );
    assert_eq!(detail(r#"{"accept_row_loss":"yes"}"#), "accept_row_loss: expected true or false");
    assert!(memory.values.borrow().is_empty());
}

#[test]
fn a_run_that_does_not_exist_is_named() {
    let memory = Memory::default();
    let (status, body, _) =
        ask(&memory, &request(Method::Get, "/runs/20261120", Some("reader"), ""));
    assert_eq!(
        (status, body["detail"].as_str()),
        (404, Some("run \"20261120\" of pair hub is not known"))
    );
    assert_eq!(
        ask(&memory, &request(Method::Post, "/runs/yesterday/cancel", Some("admin"), "")).0,
        404
    );
}

#[test]
fn a_hold_is_set_replaced_and_released() {
    let memory = Memory::default();
    let put =
        |body: &str| ask(&memory, &request(Method::Put, "/pairs/hub/hold", Some("admin"), body)).0;
    assert_eq!(put(r#"{"reason":"demo","until":"2026-11-22T12:00:00Z"}"#), 200);
    assert_eq!(put(r#"{"reason":"demo","until":"2026-11-20T12:00:00Z"}"#), 400);
    assert_eq!(put(r#"{"until":"2026-11-22T12:00:00Z"}"#), 400);
    assert!(memory.values.borrow()["hold/hub"].contains("demo"));
    assert_eq!(ask(&memory, &request(Method::Delete, "/pairs/hub/hold", Some("admin"), "")).0, 200);
    assert!(memory.values.borrow().is_empty());
    assert_eq!(
        ask(&memory, &request(Method::Put, "/pairs/lobby/hold", Some("admin"), "{}")).0,
        404
    );
}

#[test]
fn other_methods_and_addresses_are_refused() {
    let memory = Memory::default();
    assert_eq!(ask(&memory, &request(Method::Delete, "/runs", Some("admin"), "")).0, 405);
    assert_eq!(ask(&memory, &request(Method::Get, "/dashboard", Some("admin"), "")).0, 404);
}
