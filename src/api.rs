//! What a request to the Worker does.
//!
//! In: an [`ApiRequest`]. Out: an [`Answer`]: a reply, and the run that is to be driven after it.
//!
//! Invariants: nothing is said to who has no token, except by `GET /health`, which names nothing,
//! and which methods an address has. Nothing of a body is read before the token is known
//! ([`reads_body`]), and never more than [`BODY_LIMIT`]. A malformed request changes nothing. Every
//! answer has the headers of [`ApiResponse::headers`].
//!
//! Source: RFC 9457 for errors; RFC 9110 for methods; draft-ietf-httpapi-idempotency-key-header for
//! `Idempotency-Key`.

mod backups;
mod health;
mod hold;
mod incidents;
mod notices;
mod problem;
mod route;
mod runs;

use std::collections::BTreeMap;

use serde_json::Value;

pub use self::health::Recent;
pub use self::problem::Problem;
use self::route::Route;
use crate::config::{Config, Pair, one_of, secret};
use crate::port::{Method, World};
use crate::record;
use crate::sync::checkpoint::Checkpoint;
use crate::tick::Secrets;
use crate::time::{Timestamp, read_instant};

/// Bytes of a body that are read, by whoever hands a request to [`answer`]. The largest body that
/// means something has about 1,000: a reason of 200 characters, each of four bytes.
pub const BODY_LIMIT: usize = 4_096;

/// Characters of a reason: with four bytes each, it fits the 1,024 that a listing of the store
/// shows of a key.
const REASON_LENGTH: usize = 200;

/// Characters of the name of who has done something.
const NAME_LENGTH: usize = 80;

/// A request.
#[derive(Clone)]
pub struct ApiRequest {
    /// The method.
    pub method: Method,
    /// The path, without query.
    pub path: String,
    /// The query's parameters; a parameter without value is the empty text.
    pub query: BTreeMap<String, String>,
    /// The header `Authorization`.
    pub authorization: Option<String>,
    /// The header `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// The body, as text: empty where [`reads_body`] says that it is not read. Of a longer one than
    /// [`BODY_LIMIT`] so much that it shows.
    pub body: String,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiResponse {
    /// The status code.
    pub status: u16,
    /// The media type.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
    /// The headers of this reply, beside those that every reply has.
    headers: Vec<(&'static str, String)>,
}

/// The version that answers: a header of every answer, and a word of `GET /health`. `CHANGELOG.md`
/// says what it does (`tidy`: `the_changelog_begins_with_the_version_that_is_built`).
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Headers of every answer. The API serves no page: nothing of an answer is to be shown, framed,
/// kept or guessed at.
///
/// Source: OWASP, "REST Security Cheat Sheet", security headers, read 2026-11-21.
pub const SECURITY_HEADERS: [(&str, &str); 6] = [
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("strict-transport-security", "max-age=31536000"),
];

/// What a request leads to.
pub struct Answer {
    /// What is answered.
    pub response: ApiResponse,
    /// The run that is to be driven.
    pub drive: Option<Drive>,
}

/// A run that is to be driven by the invocation that answered.
pub struct Drive {
    /// The name of the pair.
    pub pair: crate::id::PairName,
    /// The run.
    pub checkpoint: Box<Checkpoint>,
    /// Whether the answer is a stream of the run's events.
    pub is_followed: bool,
}

impl ApiResponse {
    /// Answers with JSON.
    pub fn json(status: u16, value: &Value) -> Self {
        Self {
            status,
            content_type: "application/json",
            body: value.to_string(),
            headers: Vec::new(),
        }
    }

    /// Adds a header.
    #[must_use]
    fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Returns all headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let always = [("content-type", self.content_type), ("firstlight-version", VERSION)];
        always.into_iter().chain(SECURITY_HEADERS).chain(own)
    }
}

impl From<ApiResponse> for Answer {
    fn from(response: ApiResponse) -> Self {
        Self { response, drive: None }
    }
}

/// What an answer about a pair is made from.
struct Asked<'a, W> {
    world: &'a W,
    config: &'a Config,
    secrets: &'a Secrets,
    pair: &'a Pair,
}

/// Who may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Access {
    Read,
    Write,
}

/// Answers a request.
pub async fn answer<W: World>(
    world: &W,
    config: Result<&Config, &crate::config::ConfigErrors>,
    secrets: &Secrets,
    request: &ApiRequest,
) -> Answer {
    match respond(world, config, secrets, request).await {
        Ok(answer) => answer,
        Err(problem) => {
            problem.render(config.ok().and_then(|config| config.runbooks_url.as_deref())).into()
        }
    }
}

/// Returns whether the body of a request is read, which is decided by its head alone.
///
/// A body costs memory, and whoever sends it decides how much: it is read for a request that
/// changes something, and that may. Of such a body at most [`BODY_LIMIT`] bytes and one are read.
pub fn reads_body(secrets: &Secrets, head: &ApiRequest) -> bool {
    head.method != Method::Get && authorize(secrets, head, Access::Write).is_ok()
}

/// Answers a request with a method that no address has.
pub fn refuse_method(
    config: Result<&Config, &crate::config::ConfigErrors>,
    path: &str,
) -> ApiResponse {
    let problem = Route::of(path).map_or_else(|| unknown_address(path), Route::refusal);
    problem.render(config.ok().and_then(|config| config.runbooks_url.as_deref()))
}

/// Answers a request whose body did not come, or broke off.
pub fn refuse_body(config: Result<&Config, &crate::config::ConfigErrors>) -> ApiResponse {
    let problem =
        Problem::new(408, "The body did not come whole").with_detail("send it again".to_owned());
    problem.render(config.ok().and_then(|config| config.runbooks_url.as_deref()))
}

async fn respond<W: World>(
    world: &W,
    config: Result<&Config, &crate::config::ConfigErrors>,
    secrets: &Secrets,
    request: &ApiRequest,
) -> Result<Answer, Problem> {
    let route = Route::of(&request.path);
    if !matches!(route, Some(Route::Health)) {
        let needed = if request.method == Method::Get { Access::Read } else { Access::Write };
        authorize(secrets, request, needed)?;
    }
    let route = route.ok_or_else(|| unknown_address(&request.path))?;
    if !route.methods().contains(&request.method) {
        return Err(route.refusal());
    }
    if matches!(route, Route::Health) {
        return Ok(health::health(world, config).await.into());
    }
    let config = config.map_err(|errors| {
        Problem::new(500, "The configuration is invalid").with_detail(errors.to_string())
    })?;
    if matches!(route, Route::Runs) && request.method == Method::Post {
        return runs::start(world, config, secrets, request).await;
    }
    let about = |pair| Asked { world, config, secrets, pair };
    let response = match route {
        Route::Health => health::health(world, Ok(config)).await,
        Route::Runs => runs::list(world, pair(config, request)?).await?,
        Route::Run(id) => runs::show(world, pair(config, request)?, id).await?,
        Route::CancelRun(id) => runs::cancel(world, pair(config, request)?, request, id).await?,
        Route::Hold(name) => hold::change(world, named_pair(config, Some(name))?, request).await?,
        Route::Backups => about(pair(config, request)?).list().await?,
        Route::Plan => about(pair(config, request)?).plan(request).await?,
        Route::Pin(name) => about(pair(config, request)?).pin(name, request).await?,
        Route::Notices => about(pair(config, request)?).list_notices().await?,
        Route::Notice([name, run, kind]) => {
            about(named_pair(config, Some(name))?).show_notice(run, kind).await?
        }
        Route::Redeliver([name, run, kind]) => {
            about(named_pair(config, Some(name))?).redeliver(request, run, kind).await?
        }
        // A test is told of the first pair: it belongs to none.
        Route::TestChannel(name) => {
            let first = config.pairs.first().ok_or_else(|| unknown_address(&request.path))?;
            about(first).test_channel(name).await?
        }
        Route::Incidents => incidents::list(world, config).await?,
        Route::Acknowledge(id) => incidents::acknowledge(world, config, request, id).await?,
    };
    Ok(response.into())
}

fn unknown_address(path: &str) -> Problem {
    let path: String = path.chars().take(120).collect();
    Problem::new(404, "There is no such address").with_detail(format!("{path} is not known"))
}

/// Returns the token of a header `Authorization`.
///
/// Source: RFC 9110, 11.1: the name of the scheme is case-insensitive; 11.4:
/// `auth-scheme 1*SP token68`.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

/// Compares the bearer token with both tokens, in constant time.
fn authorize(secrets: &Secrets, request: &ApiRequest, needed: Access) -> Result<(), Problem> {
    let token = request.authorization.as_deref().and_then(bearer);
    let Some(token) = token else {
        return Err(Problem::new(401, "A token is needed")
            .with_detail("send the header `Authorization: Bearer <token>`".to_owned()));
    };
    // A token that is set to nothing opens nothing.
    let is = |name: &str| {
        secrets.get(name).is_some_and(|secret| !secret.reveal().is_empty() && secret.matches(token))
    };
    let (may_write, may_read) = (is(secret::ADMIN_TOKEN), is(secret::READ_TOKEN));
    match (may_write, may_read, needed) {
        (true, ..) | (false, true, Access::Read) => Ok(()),
        (false, true, Access::Write) => Err(Problem::new(403, "This token may only read")),
        (false, false, _) => Err(Problem::new(401, "The token is wrong")),
    }
}

/// Returns the pair that a request means: the one it names, or the only one.
fn pair<'a>(config: &'a Config, request: &ApiRequest) -> Result<&'a Pair, Problem> {
    named_pair(config, request.query.get("pair").map(String::as_str))
}

fn named_pair<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Pair, Problem> {
    match (name, config.pairs.as_slice()) {
        (Some(name), _) => config.pair(name).ok_or_else(|| unknown_pair(config, name)),
        (None, [pair]) => Ok(pair),
        (None, _) => Err(Problem::new(400, "A pair must be named")
            .with_detail(format!("pair: allowed is {}", names(config)))),
    }
}

fn unknown_pair(config: &Config, name: &str) -> Problem {
    let name: String = name.chars().take(60).collect();
    Problem::new(404, "There is no such pair")
        .with_detail(format!("pair: is {name:?}; known is {}", names(config)))
}

fn names(config: &Config) -> String {
    one_of(config.pairs.iter().map(|pair| pair.name.as_str()))
}

/// Reads a body that is an object with only the given keys; an empty body is an empty object.
fn body(request: &ApiRequest, keys: &[&str]) -> Result<serde_json::Map<String, Value>, Problem> {
    let bad = |detail: String| Problem::new(400, "The body cannot be used").with_detail(detail);
    if request.body.len() > BODY_LIMIT {
        return Err(Problem::new(413, "The body is too large")
            .with_detail(format!("allowed are {BODY_LIMIT} bytes")));
    }
    if request.body.trim().is_empty() {
        return Ok(serde_json::Map::new());
    }
    let value: Value = serde_json::from_str(&request.body).map_err(|error| {
        bad(format!(
            "expected a JSON object: {:?} error at line {}, column {}",
            error.classify(),
            error.line(),
            error.column()
        ))
    })?;
    let Value::Object(map) = value else { return Err(bad("expected a JSON object".to_owned())) };
    if let Some(key) = map.keys().find(|key| !keys.contains(&key.as_str())) {
        let key: String = key.chars().take(60).collect();
        return Err(bad(format!("{key}: is not known here; allowed is {}", keys.join(", "))));
    }
    Ok(map)
}

/// Reads a text of a body; `None` where it is missing. Control characters become blanks.
fn text_of(
    fields: &serde_json::Map<String, Value>,
    key: &str,
    most: usize,
) -> Result<Option<String>, Problem> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.trim().is_empty() && text.chars().count() <= most => {
            Ok(Some(
                text.chars()
                    .map(|c| if c.is_control() { ' ' } else { c })
                    .collect::<String>()
                    .trim()
                    .to_owned(),
            ))
        }
        Some(_) => {
            let detail = format!("{key}: expected a text of 1 to {most} characters");
            Err(Problem::new(400, "The body cannot be used").with_detail(detail))
        }
    }
}

/// Reads why something is wanted, and until when; without an end, until it is released.
fn reason_and_end(
    fields: &serde_json::Map<String, Value>,
    now: Timestamp,
) -> Result<(String, Option<Timestamp>), Problem> {
    let bad = |detail: String| Problem::new(400, "The body cannot be used").with_detail(detail);
    let missing = || bad(format!("reason: expected a text of 1 to {REASON_LENGTH} characters"));
    let reason = text_of(fields, "reason", REASON_LENGTH)?.ok_or_else(missing)?;
    let until = match fields.get("until") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let instant: Option<Timestamp> = value.as_str().and_then(read_instant);
            let future = instant.filter(|until| *until > now);
            Some(future.ok_or_else(|| {
                bad("until: expected an instant in the future, such as \"2026-11-22T12:00:00Z\""
                    .to_owned())
            })?)
        }
    };
    Ok((reason, until))
}

/// Writes a record, where no budget of subrequests is near.
async fn store<W: World>(world: &W, key: &str, value: &str) -> Result<(), Problem> {
    record::write(world, key, value, None, || true)
        .await
        .map_err(|error| unavailable(&error.into()))
}

/// Reports a store that does not answer.
fn unavailable(error: &record::RecordError) -> Problem {
    Problem::new(503, "The memory does not answer").with_detail(error.to_string())
}

#[cfg(test)]
mod tests;
