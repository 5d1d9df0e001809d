//! The emulator's HTTP server.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use http_body_util::{BodyExt as _, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::data::Data;
use crate::faults::{Fault, Faults, Place};
use crate::model::{Model, Request, Response, Timestamp, body_of_route, route_name};
use crate::{Options, client, sql};

/// Requests that one second may have. Source: Neon, key concepts: "bursts to 40 req/s per route".
const REQUESTS_PER_SECOND: usize = 40;

/// Entries of the journal that are kept.
const JOURNAL: usize = 100_000;

/// A body whose sending may fail: a cut answer is one that fails in the middle.
type Body = BoxBody<Bytes, std::io::Error>;

/// Why a connection ends without an answer.
#[derive(Debug)]
struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("dropped on request")
    }
}

impl std::error::Error for Dropped {}

/// Everything that is served.
pub(crate) struct State {
    pub(crate) model: Mutex<Model>,
    pub(crate) data: AsyncMutex<Data>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) journal: Mutex<Vec<Value>>,
    /// Endpoints whose compute runs and is still being told passwords: nobody is let in yet.
    pub(crate) starting: Mutex<BTreeSet<String>>,
    /// What the next restored data is changed by.
    pub(crate) tampering: Mutex<Option<(String, Place)>>,
    pub(crate) api_key: String,
    /// How far Neon's clock is ahead of everybody else's.
    clock_offset: TimeDelta,
    /// When each route was asked in the last second.
    rate: Mutex<BTreeMap<String, VecDeque<Instant>>>,
    pub(crate) rate_limit: usize,
}

/// Locks a mutex; a thread that panicked while it held it left a value that can be used.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the emulator is a server with a clock; the model takes `now`"
)]
pub(crate) fn clock() -> Timestamp {
    Utc::now()
}

impl State {
    pub(crate) fn new(model: Model, data: Data, options: &Options) -> Self {
        Self {
            model: Mutex::new(model),
            data: AsyncMutex::new(data),
            faults: Mutex::default(),
            journal: Mutex::default(),
            starting: Mutex::default(),
            tampering: Mutex::default(),
            api_key: options.api_key.clone(),
            clock_offset: options.clock_offset(),
            rate: Mutex::default(),
            rate_limit: REQUESTS_PER_SECOND,
        }
    }

    /// Returns the time by Neon's clock, which need not be ours.
    pub(crate) fn now(&self) -> Timestamp {
        clock() + self.clock_offset
    }

    pub(crate) fn note(&self, entry: Value) {
        let mut journal = lock(&self.journal);
        if journal.len() == JOURNAL {
            journal.remove(0);
        }
        journal.push(entry);
    }

    /// Counts a request, and returns whether there were too many in the last second.
    fn is_too_fast(&self, route: &str) -> bool {
        let mut rate = lock(&self.rate);
        let times = rate.entry(route.to_owned()).or_default();
        while times.front().is_some_and(|at| at.elapsed() > Duration::from_secs(1)) {
            times.pop_front();
        }
        times.push_back(Instant::now());
        times.len() > self.rate_limit
    }
}

/// Serves until it is told to stop.
pub(crate) async fn serve(
    listener: TcpListener,
    state: Arc<State>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted.context("accept a connection")?,
            _ = stop.changed() => return Ok(()),
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| handle(Arc::clone(&state), request));
            // A connection that was dropped on request ends with an error; so does one whose client
            // went away.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// A request, read completely.
struct Asked {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: String,
}

async fn handle(
    state: Arc<State>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Body>, Dropped> {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let query = url::form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let headers = parts
        .headers
        .iter()
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect();
    let Some(body) = read_body(body).await else {
        let answer =
            sql::error(413, &format!("request is too large (max is {} bytes)", sql::SIZE_LIMIT));
        return Ok(respond(answer.status, answer.body, &[]));
    };
    let asked = Asked {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query,
        headers,
        body,
    };
    if let Some(path) = asked.path.strip_prefix("/_emulator/") {
        let (status, body) = crate::control::answer(&state, &asked.method, path, &asked.body).await;
        return Ok(respond(status, body.to_string(), &[]));
    }
    if asked.path == "/sql" {
        return serve_sql(&state, &asked).await;
    }
    serve_api(state, asked).await
}

/// Reads a body; `None` when it is too large, or the client went away.
///
/// What is too much is read all the same: a client that is still writing would take an early answer
/// for a broken connection.
async fn read_body(mut body: Incoming) -> Option<String> {
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        length += data.len();
        if length <= sql::SIZE_LIMIT {
            bytes.extend_from_slice(&data);
        }
    }
    (length <= sql::SIZE_LIMIT).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// Answers a request of the API, with the misbehaviour that is planned for it.
async fn serve_api(state: Arc<State>, asked: Asked) -> Result<hyper::Response<Body>, Dropped> {
    let path = asked.path.strip_prefix("/api/v2").unwrap_or(&asked.path).to_owned();
    let route = route_name(&asked.method, &path);
    let started = Instant::now();
    let at = state.now();
    let fault = lock(&state.faults).next(route);
    let note = |status: Option<u16>, operations: Value| {
        state.note(json!({
            "at": at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true), "kind": "api",
            "route": route, "method": asked.method, "path": path,
            "request": serde_json::from_str::<Value>(&asked.body).unwrap_or(Value::Null),
            "status": status,
            "fault": fault.as_ref().map(|fault| json!(fault)["kind"].clone()),
            "operations": operations,
            "duration_ms": u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }));
    };
    if let Some(refusal) = refusal(&state, &asked, route) {
        note(Some(refusal.0), Value::Null);
        return Ok(api_response(refusal.1.to_string(), refusal.0));
    }
    match fault.clone() {
        Some(Fault::Refuse { status, body }) => {
            note(Some(status), Value::Null);
            return Ok(refused_on_request(status, body));
        }
        Some(Fault::Hang) => {
            note(None, Value::Null);
            std::future::pending::<()>().await;
        }
        Some(Fault::DropBefore) => {
            note(None, Value::Null);
            return Err(Dropped);
        }
        Some(Fault::Later { milliseconds }) => {
            note(None, Value::Null);
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                apply(&state, &asked, path).await;
            });
            return Err(Dropped);
        }
        Some(Fault::Tamper { sql, place }) => *lock(&state.tampering) = Some((sql, place)),
        Some(Fault::Operation { finish }) => lock(&state.model).operation_faults.push(finish),
        Some(Fault::DropAfter | Fault::Cut | Fault::OutlivesClient) | None => {}
    }
    let response = apply(&state, &asked, path.clone()).await;
    let body = response.value();
    let operations = body["operations"]
        .as_array()
        .map(|list| list.iter().map(|operation| operation["id"].clone()).collect());
    note(Some(response.status), operations.unwrap_or(Value::Null));
    match fault {
        Some(Fault::DropAfter) => Err(Dropped),
        Some(Fault::Cut) => Ok(cut(&response)),
        _ if response.body.is_empty() => Ok(respond(response.status, response.body, &[])),
        _ => Ok(api_response(response.body, response.status)),
    }
}

/// Refuses a request of the API as it is planned: a text is a page in HTML.
fn refused_on_request(status: u16, body: Option<Value>) -> hyper::Response<Body> {
    match body {
        Some(Value::String(page)) => {
            respond(status, page, &[("content-type", "text/html".to_owned())])
        }
        Some(body) => api_response(body.to_string(), status),
        None => {
            let body = json!({"request_id": "", "code": "", "message": "refused on request"});
            api_response(body.to_string(), status)
        }
    }
}

/// Lets the model answer, and carries out what follows.
async fn apply(state: &Arc<State>, asked: &Asked, path: String) -> Response {
    let route = route_name(&asked.method, &path);
    if matches!(route, "listProjectBranchRoles" | "listProjectBranchDatabases") {
        let branch = path.split('/').nth(4).unwrap_or_default().to_owned();
        crate::passwords::refresh_catalog(state, &branch).await;
    }
    let body = match body_of_route(route, &asked.body) {
        Ok(body) => body,
        Err(error) => return lock(&state.model).refuse(&error),
    };
    let request = Request { method: asked.method.clone(), path, query: asked.query.clone(), body };
    crate::work::note_position(state, route, &request).await;
    let response = lock(&state.model).serve(&request, state.now());
    if !response.effects.is_empty() {
        tokio::spawn(crate::work::carry_out(Arc::clone(state), response.effects.clone()));
    }
    response
}

/// Refuses a wrong key, and too many requests.
fn refusal(state: &State, asked: &Asked, route: &str) -> Option<(u16, Value)> {
    let key = asked.headers.get("authorization").and_then(|header| header.strip_prefix("Bearer "));
    if key != Some(state.api_key.as_str()) {
        let body = json!({"request_id": "", "code": "",
            "message": "supplied credentials do not pass authentication"});
        return Some((401, body));
    }
    state
        .is_too_fast(route)
        .then(|| (429, json!({"request_id": "", "code": "", "message": "rate limit exceeded"})))
}

/// Answers a query, with the misbehaviour that is planned for it.
async fn serve_sql(state: &Arc<State>, asked: &Asked) -> Result<hyper::Response<Body>, Dropped> {
    let started = Instant::now();
    let at = state.now();
    if let Some(answer) = no_query(&asked.method) {
        return Ok(answer);
    }
    let fault = lock(&state.faults).next("sql");
    let answer = match fault.clone() {
        Some(Fault::Refuse { status, body: Some(body) }) => {
            sql::Answer::new(status, body.to_string())
        }
        Some(Fault::Refuse { status, body: None }) => {
            sql::error(status, "Control plane request failed")
        }
        Some(Fault::Hang) => {
            state.note(json!({
                "at": at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true), "kind": "sql",
                "route": "sql", "status": null, "fault": "hang",
            }));
            std::future::pending::<()>().await;
            return Err(Dropped);
        }
        Some(Fault::DropBefore) => return Err(Dropped),
        Some(Fault::Later { milliseconds }) => {
            run_later(state, asked, milliseconds);
            return Err(Dropped);
        }
        Some(
            Fault::DropAfter
            | Fault::Cut
            | Fault::OutlivesClient
            | Fault::Operation { .. }
            | Fault::Tamper { .. },
        )
        | None => {
            let outlives = matches!(fault, Some(Fault::OutlivesClient));
            client::ask(state, &asked.headers, &asked.body, outlives).await
        }
    };
    let (dropped, is_cut) =
        (matches!(fault, Some(Fault::DropAfter)), matches!(fault, Some(Fault::Cut)));
    let endpoint = sql::target(asked.headers.get("neon-connection-string").map(String::as_str))
        .map(|target| target.endpoint)
        .unwrap_or_default();
    state.note(json!({
        "at": at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true), "kind": "sql",
        "route": "sql", "endpoint": endpoint,
        "status": answer.status, "fault": fault.map(|fault| json!(fault)["kind"].clone()),
        "bytes": answer.body.len(),
        "duration_ms": u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "waking_ms": u64::try_from(answer.waking.as_millis()).unwrap_or(u64::MAX),
    }));
    if dropped {
        return Err(Dropped);
    }
    if is_cut {
        let half = answer.body.len() / 2;
        return Ok(cut_body(answer.status, &answer.body, half));
    }
    let mut headers = answer.headers;
    headers.push(("access-control-allow-origin", "*".to_owned()));
    headers.push(("neon-request-id", "00000000-0000-4000-a000-000000000000".to_owned()));
    Ok(respond(answer.status, answer.body, &headers))
}

/// Answers a request that is no query: a browser asks what it may send, any other is refused.
fn no_query(method: &str) -> Option<hyper::Response<Body>> {
    let allow =
        [("allow", "OPTIONS, POST".to_owned()), ("access-control-allow-origin", "*".to_owned())];
    match method {
        "POST" => None,
        "OPTIONS" => Some(respond(200, String::new(), &allow)),
        _ => Some(respond(400, json!("query is not supported").to_string(), &[])),
    }
}

/// Runs a query when its client has gone, and notes how it ended.
fn run_later(state: &Arc<State>, asked: &Asked, milliseconds: u64) {
    let (state, headers, body) = (Arc::clone(state), asked.headers.clone(), asked.body.clone());
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        let answer = client::ask(&state, &headers, &body, true).await;
        let at = state.now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        state.note(json!({"at": at, "kind": "late", "route": "sql", "status": answer.status}));
    });
}

fn api_response(body: String, status: u16) -> hyper::Response<Body> {
    respond(
        status,
        body,
        &[("x-neon-ret-request-id", "00000000-0000-4000-a000-000000000000".to_owned())],
    )
}

fn respond(status: u16, body: String, headers: &[(&'static str, String)]) -> hyper::Response<Body> {
    let mut builder = hyper::Response::builder().status(status);
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        builder = builder.header("content-type", "application/json");
    }
    for (name, value) in headers {
        builder = builder.header(*name, value);
    }
    let body = http_body_util::Full::new(Bytes::from(body))
        .map_err(|never: Infallible| match never {})
        .boxed();
    builder.body(body).expect("the names and values are those of headers")
}

fn cut(response: &Response) -> hyper::Response<Body> {
    cut_body(response.status, &response.body, response.body.len() / 2)
}

/// Announces the whole body and sends a part of it.
fn cut_body(status: u16, text: &str, length: usize) -> hyper::Response<Body> {
    let part = Bytes::copy_from_slice(text.as_bytes().get(..length).unwrap_or_default());
    let frames: Vec<Result<Frame<Bytes>, std::io::Error>> =
        vec![Ok(Frame::data(part)), Err(std::io::Error::other("cut on request"))];
    let body = BoxBody::new(StreamBody::new(Frames(frames.into_iter())));
    hyper::Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .header("content-length", text.len())
        .body(body)
        .expect("the names and values are those of headers")
}

/// Frames, as a stream.
struct Frames(std::vec::IntoIter<Result<Frame<Bytes>, std::io::Error>>);

impl futures_core::Stream for Frames {
    type Item = Result<Frame<Bytes>, std::io::Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}
