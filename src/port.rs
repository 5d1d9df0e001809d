//! What the Worker needs from the world: time, requests, memory, a log.
//!
//! Five traits and the plain values they carry. The crate in `src/worker` implements them on
//! Cloudflare; tests implement them natively.
//!
//! *Architecture Invariant:* nothing else in this crate reaches outside. Only that crate knows the
//! platform.

pub mod answer;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::Secret;
use crate::time::Timestamp;

/// Tells the time.
#[expect(
    async_fn_in_trait,
    reason = "a Worker has one thread; no caller needs the future to be Send"
)]
pub trait Clock {
    /// Returns the time at this moment.
    fn now(&self) -> Timestamp;

    /// Returns at `until` or later.
    async fn sleep(&self, until: Timestamp);
}

/// Sends requests. Every request that leaves the Worker goes through here, so that it can be
/// counted.
#[expect(
    async_fn_in_trait,
    reason = "a Worker has one thread; no caller needs the future to be Send"
)]
pub trait Http {
    /// Sends a request and reads as much of the reply as the request says. Redirects are not
    /// followed.
    ///
    /// # Errors
    ///
    /// When no complete reply came. Whether the request took effect is then not known.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpFailure>;
}

/// Remembers texts under keys, as Workers KV does.
///
/// A read may be a minute old, absence included; the last write wins; there is no compare-and-set.
/// Nothing may be unsafe because a read was stale.
#[expect(
    async_fn_in_trait,
    reason = "a Worker has one thread; no caller needs the future to be Send"
)]
pub trait Store {
    /// Reads up to 100 keys in one request.
    ///
    /// # Errors
    ///
    /// When the store did not answer. That is not the same as absence.
    async fn read(&self, keys: &[String])
    -> Result<BTreeMap<String, Option<String>>, StoreFailure>;

    /// Writes one key. The metadata is at most 1,024 bytes of JSON; `list` returns it.
    ///
    /// # Errors
    ///
    /// When the store refused or did not answer.
    async fn write(
        &self,
        key: &str,
        value: &str,
        metadata: Option<Metadata>,
    ) -> Result<(), StoreFailure>;

    /// Removes one key. Removing what is not there is no error.
    ///
    /// # Errors
    ///
    /// When the store refused or did not answer.
    async fn remove(&self, key: &str) -> Result<(), StoreFailure>;

    /// Lists keys with a prefix, in the order of their bytes, at most 1,000 in one page.
    ///
    /// # Errors
    ///
    /// When the store did not answer.
    async fn list(&self, prefix: &str, cursor: Option<String>) -> Result<Page, StoreFailure>;
}

/// Writes facts where operators look for them.
pub trait Log {
    /// Writes one event with its facts.
    fn log(&self, level: Level, event: &str, facts: &[(&str, String)]);
}

/// Remembers as long as this instance of the program lives, which is minutes, hours, or no longer
/// than one tick.
///
/// Nothing may be unsafe because it has forgotten; what it knows spares people a repetition, or an
/// alert that they would have to close themselves.
pub trait Recall {
    /// Notes something.
    fn note(&self, what: &str, at: Timestamp);

    /// Returns when it was last noted; `None` where it was not, or is forgotten.
    fn noted_at(&self, what: &str) -> Option<Timestamp>;
}

/// Notes of an instance, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Notes(Vec<(String, Timestamp)>);

impl Notes {
    /// Notes something. The oldest of a thousand is forgotten for it.
    pub fn note(&mut self, what: &str, at: Timestamp) {
        self.0.retain(|(known, _)| known != what);
        if self.0.len() == MOST_NOTES {
            self.0.remove(0);
        }
        self.0.push((what.to_owned(), at));
    }

    /// Returns when something was last noted; `None` where it was not, or is forgotten.
    pub fn noted_at(&self, what: &str) -> Option<Timestamp> {
        self.0.iter().find(|(known, _)| known == what).map(|(_, at)| *at)
    }
}

/// Notes that an instance keeps: ten kinds of notices of ten pairs on ten channels. Each takes
/// about a hundred bytes.
const MOST_NOTES: usize = 1_000;

/// Everything that a tick needs.
pub trait World: Clock + Http + Store + Log + Recall {}

impl<T: Clock + Http + Store + Log + Recall> World for T {}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something happened as it should.
    Info,
    /// Somebody may want to look.
    Warn,
    /// Somebody has to look.
    Error,
}

/// The methods that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Read.
    Get,
    /// Create or act.
    Post,
    /// Set.
    Put,
    /// Change in part.
    Patch,
    /// Remove.
    Delete,
}

impl Method {
    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// A request. It has no `Debug`: its headers hold secrets.
#[derive(Clone)]
pub struct HttpRequest {
    /// The method.
    pub method: Method,
    /// The whole address.
    pub url: String,
    /// Headers with secret values.
    pub secret_headers: Vec<(String, Secret)>,
    /// Headers that may be shown.
    pub headers: Vec<(String, String)>,
    /// The body; empty for none.
    pub body: String,
    /// The time until the whole reply must have come.
    pub timeout: Duration,
    /// How much of the reply is read.
    pub reading: Reading,
}

/// How much of a reply is read, and what it is without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// All of it, as UTF-8. A reply that is not whole, or not UTF-8, is none: a protocol must not
    /// go on with a part of an answer.
    Whole,
    /// A page: up to [`PAGE_BYTES`], as it declares to be written. Status and headers stand,
    /// whatever its body is.
    Page,
    /// Its first [`BEGINNING_BYTES`], as far as they come within [`BEGINNING_WAIT`] of its head:
    /// there may be no end of it. Status and headers stand, whatever its body is.
    Beginning,
}

/// Bytes of a page that are read. A Worker has 128 MB of memory.
pub const PAGE_BYTES: usize = 4 << 20;

/// Bytes of an answer of which the beginning is read: what says that it was taken, or why not.
pub const BEGINNING_BYTES: usize = 10_000;

/// How long the beginning of a body is waited for, once its head has come.
pub const BEGINNING_WAIT: Duration = Duration::from_secs(2);

impl HttpRequest {
    /// Returns a request without headers and body.
    pub fn new(method: Method, url: String, timeout: Duration) -> Self {
        Self {
            method,
            url,
            secret_headers: Vec::new(),
            headers: Vec::new(),
            body: String::new(),
            timeout,
            reading: Reading::Whole,
        }
    }
}

/// A reply, as much of it as was asked for.
#[derive(Clone, Debug, Default)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The wait that the server asked for (`Retry-After` in seconds), if it did.
    pub retry_after: Option<Duration>,
    /// The headers, one entry for each value.
    pub headers: Vec<(String, String)>,
    /// The body, as text.
    pub body: String,
    /// Whether there was more of the body than was read.
    pub is_cut: bool,
}

/// No complete reply came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpFailure {
    /// The time was up.
    #[error("no complete reply within {}", crate::time::render_duration(*.0))]
    TimedOut(Duration),
    /// The connection could not be made or was lost.
    #[error("the connection failed")]
    Disconnected,
    /// The address is not one that can be called.
    #[error("the address cannot be called")]
    BadAddress,
}

/// The store refused or did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreFailure {
    /// Written to more than once a second (429).
    #[error("the store refused the write: more than one a second to this key")]
    TooFast,
    /// Anything else; the text names no secret.
    #[error("the store did not answer: {0}")]
    Unavailable(String),
}

/// The facts that a listing shows of a key. Workers KV keeps at most 1,024 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// How a run ended.
    pub status: String,
    /// When it started, RFC 3339.
    pub started_at: String,
    /// When it ended, RFC 3339.
    pub ended_at: String,
    /// Why a backup is pinned; the position and the id of a snapshot.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Keys with their metadata.
    pub keys: Vec<(String, Option<Metadata>)>,
    /// Where the next page begins; `None` on the last.
    pub cursor: Option<String>,
}
