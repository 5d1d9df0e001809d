//! What a request to the Worker does.
//!
//! In: an [`ApiRequest`]. Out: an [`Answer`]: a reply, and the run that is to be driven after it.
//!
//! Invariants: nothing is said to who has no token, except by `GET /health`, which names nothing; a malformed request changes
//! nothing.
//!
//! Source: RFC 9457 for errors; draft-ietf-httpapi-idempotency-key-header for `Idempotency-Key`.

mod backups;
mod health;
mod hold;
mod incidents;
mod notices;
mod problem;
mod runs;

use std::collections::BTreeMap;

use serde_json::Value;

pub use self::problem::Problem;
use crate::config::{Config, Pair, one_of, secret};
use crate::port::{Method, World};
use crate::record;
use crate::sync::checkpoint::Checkpoint;
use crate::tick::Secrets;
use crate::time::{Timestamp, read_instant};

/// Bytes of a body that are read. The largest body that means something has about 300.
pub const BODY_LIMIT: usize = 4_096;

/// Characters of a reason: with four bytes each, it fits the 1,024 that a listing of the store shows of a key.
const REASON_LENGTH: usize = 200;

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
    /// The body, as text.
    pub body: String,
}

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiResponse {
    /// The status code.
    pub status: u16,
    /// The media type.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
    /// The header `Location`, if there is one.
    pub location: Option<String>,
}

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
        Self { status, content_type: "application/json", body: value.to_string(), location: None }
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
        Err(problem) => problem.render().into(),
    }
}

async fn respond<W: World>(
    world: &W,
    config: Result<&Config, &crate::config::ConfigErrors>,
    secrets: &Secrets,
    request: &ApiRequest,
) -> Result<Answer, Problem> {
    let parts: Vec<&str> = request.path.split('/').filter(|part| !part.is_empty()).collect();
    if parts == ["health"] {
        allow(request, &[Method::Get])?;
        return Ok(health::health(world, config).await.into());
    }
    let needed = if request.method == Method::Get { Access::Read } else { Access::Write };
    authorize(secrets, request, needed)?;
    let config = config.map_err(|errors| Problem::new(500, "The configuration is invalid").with_detail(errors.to_string()))?;
    match parts.as_slice() {
        ["runs"] => {
            allow(request, &[Method::Get, Method::Post])?;
            match request.method {
                Method::Get => runs::list(world, pair(config, request)?).await.map(Answer::from),
                Method::Post | Method::Put | Method::Patch | Method::Delete => runs::start(world, config, request).await,
            }
        }
        ["runs", id] => {
            allow(request, &[Method::Get])?;
            runs::show(world, pair(config, request)?, id).await.map(Answer::from)
        }
        ["runs", id, "cancel"] => {
            allow(request, &[Method::Post])?;
            runs::cancel(world, pair(config, request)?, id).await.map(Answer::from)
        }
        ["pairs", name, "hold"] => {
            allow(request, &[Method::Put, Method::Delete])?;
            let pair = config.pair(name).ok_or_else(|| unknown_pair(config, name))?;
            hold::change(world, pair, request).await.map(Answer::from)
        }
        ["backups" | "notices" | "channels", ..] => about_pair(world, config, secrets, request, &parts).await.map(Answer::from),
        ["incidents"] => {
            allow(request, &[Method::Get])?;
            incidents::list(world, config).await.map(Answer::from)
        }
        ["incidents", id, "acknowledge"] => {
            allow(request, &[Method::Post])?;
            incidents::acknowledge(world, config, request, id).await.map(Answer::from)
        }
        _ => Err(unknown_address(request)),
    }
}

/// Answers what is about the backups or the notices of a pair, or about a channel.
async fn about_pair<W: World>(
    world: &W,
    config: &Config,
    secrets: &Secrets,
    request: &ApiRequest,
    parts: &[&str],
) -> Result<ApiResponse, Problem> {
    let (method, asked): (&[Method], _) = match parts {
        ["backups" | "notices"] | ["backups", "plan"] => (&[Method::Get], pair(config, request)),
        ["backups", _, "pin"] => (&[Method::Put, Method::Delete], pair(config, request)),
        ["notices", name, _, _] => (&[Method::Get], named_pair(config, Some(name))),
        ["notices", name, _, _, "redeliver"] => (&[Method::Post], named_pair(config, Some(name))),
        // A test is told of the first pair: it belongs to none.
        ["channels", _, "test"] => (&[Method::Post], config.pairs.first().ok_or_else(|| unknown_address(request))),
        _ => return Err(unknown_address(request)),
    };
    allow(request, method)?;
    let asked = Asked { world, config, secrets, pair: asked? };
    match parts {
        ["backups"] => asked.list().await,
        ["backups", "plan"] => asked.plan(request).await,
        ["backups", name, "pin"] => asked.pin(name, request).await,
        ["notices"] => asked.list_notices().await,
        ["notices", _, run, kind] => asked.show_notice(run, kind).await,
        ["notices", _, run, kind, "redeliver"] => asked.redeliver(request, run, kind).await,
        ["channels", name, "test"] => asked.test_channel(name).await,
        _ => Err(unknown_address(request)),
    }
}

fn unknown_address(request: &ApiRequest) -> Problem {
    Problem::new(404, "There is no such address").with_detail(format!("{} is not known", request.path))
}

/// Refuses other methods than the allowed ones.
fn allow(request: &ApiRequest, methods: &[Method]) -> Result<(), Problem> {
    if methods.contains(&request.method) {
        return Ok(());
    }
    let allowed: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
    Err(Problem::new(405, "The method is not allowed here").with_detail(format!("allowed is {}", allowed.join(" or "))))
}

/// Compares the bearer token with both tokens, in constant time.
fn authorize(secrets: &Secrets, request: &ApiRequest, needed: Access) -> Result<(), Problem> {
    let token = request.authorization.as_deref().and_then(|header| header.strip_prefix("Bearer "));
    let Some(token) = token else {
        return Err(Problem::new(401, "A token is needed").with_detail("send the header `Authorization: Bearer <token>`".to_owned()));
    };
    // A token that is set to nothing opens nothing.
    let is = |name: &str| secrets.get(name).is_some_and(|secret| !secret.reveal().is_empty() && secret.matches(token));
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
        (None, _) => Err(Problem::new(400, "A pair must be named").with_detail(format!("pair: allowed is {}", names(config)))),
    }
}

fn unknown_pair(config: &Config, name: &str) -> Problem {
    let name: String = name.chars().take(60).collect();
    Problem::new(404, "There is no such pair").with_detail(format!("pair: is {name:?}; known is {}", names(config)))
}

fn names(config: &Config) -> String {
    one_of(config.pairs.iter().map(|pair| pair.name.as_str()))
}

/// Reads a body that is an object with only the given keys; an empty body is an empty object.
fn body(request: &ApiRequest, keys: &[&str]) -> Result<serde_json::Map<String, Value>, Problem> {
    let bad = |detail: String| Problem::new(400, "The body cannot be used").with_detail(detail);
    if request.body.len() > BODY_LIMIT {
        return Err(Problem::new(413, "The body is too large").with_detail(format!("allowed are {BODY_LIMIT} bytes")));
    }
    if request.body.trim().is_empty() {
        return Ok(serde_json::Map::new());
    }
    let value: Value = serde_json::from_str(&request.body).map_err(|error| {
        bad(format!("expected a JSON object: {:?} error at line {}, column {}", error.classify(), error.line(), error.column()))
    })?;
    let Value::Object(map) = value else { return Err(bad("expected a JSON object".to_owned())) };
    if let Some(key) = map.keys().find(|key| !keys.contains(&key.as_str())) {
        let key: String = key.chars().take(60).collect();
        return Err(bad(format!("{key}: is not known here; allowed is {}", keys.join(", "))));
    }
    Ok(map)
}

/// Reads why something is wanted, and until when; without an end, until it is released.
fn reason_and_end(fields: &serde_json::Map<String, Value>, now: Timestamp) -> Result<(String, Option<Timestamp>), Problem> {
    let bad = |detail: String| Problem::new(400, "The body cannot be used").with_detail(detail);
    let reason = match fields.get("reason") {
        Some(Value::String(reason)) if !reason.trim().is_empty() && reason.chars().count() <= REASON_LENGTH => {
            reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
        }
        _ => return Err(bad(format!("reason: expected a text of 1 to {REASON_LENGTH} characters"))),
    };
    let until = match fields.get("until") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let instant: Option<Timestamp> = value.as_str().and_then(read_instant);
            let future = instant.filter(|until| *until > now);
            Some(future.ok_or_else(|| bad("until: expected an instant in the future, such as \"2026-11-22T12:00:00Z\"".to_owned()))?)
        }
    };
    Ok((reason, until))
}

/// Writes a record, where no budget of subrequests is near.
async fn store<W: World>(world: &W, key: &str, value: &str) -> Result<(), Problem> {
    record::write(world, key, value, None, || true).await.map_err(|error| unavailable(&error.into()))
}

/// Reports a store that does not answer.
fn unavailable(error: &record::RecordError) -> Problem {
    Problem::new(503, "The memory does not answer").with_detail(error.to_string())
}

#[cfg(test)]
mod tests;
