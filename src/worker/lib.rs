//! The entry points and the ports on Cloudflare Workers. `wasm32` only, and too dull to need unit
//! tests.
//!
//! *Architecture Invariant:* this is the only code that knows the platform, reads the clock or
//! touches a secret binding.

#![cfg(target_arch = "wasm32")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use serde_json::{Value, json};
use wasm_bindgen::JsValue;
use worker::{
    AbortSignal, ByteStream, Context as EventContext, Delay, Env, Fetch, Headers, RequestInit,
    RequestRedirect, Response, ResponseBuilder, ScheduleContext, ScheduledEvent, SendEmailBuilder,
    event, kv::KvStore,
};

use firstlight::api::{self, ApiRequest, Drive};
use firstlight::config::{Config, ConfigErrors, VARIABLE};
use firstlight::id::Secret;
use firstlight::ordered::IntoOrdered as _;
use firstlight::port::{
    BEGINNING_BYTES, BEGINNING_WAIT, Clock, Http, HttpFailure, HttpRequest, HttpResponse, Level,
    Log, Metadata, Method, Notes, PAGE_BYTES, Page, Reading, Recall, Store, StoreFailure, answer,
};
use firstlight::record;
use firstlight::tick::{Context, Secrets};
use firstlight::time::{Timestamp, after, between};

/// The KV binding.
const STATE: &str = "STATE";

/// How long an invocation goes on after its answer was sent.
///
/// Source: Cloudflare Workers, limits, 2026-09-05: "waitUntil +30 s after response"; five are kept
/// for the hand-over.
const AFTER_ANSWER: Duration = Duration::from_secs(25);

/// How long the body of a request is waited for: it has a few kilobytes at most.
const BODY_WAIT: Duration = Duration::from_secs(10);

/// Runs when the cron fires.
#[event(scheduled)]
async fn scheduled(_event: ScheduledEvent, env: Env, _context: ScheduleContext) {
    console_error_panic_hook::set_once();
    let platform = Platform::new(&env);
    let config = match configuration(&env) {
        Ok(config) => config,
        Err(errors) => {
            return platform.log(Level::Error, "nothing started", &[("error", errors.to_string())]);
        }
    };
    let secrets = secrets(&env, &config);
    let wall = after(platform.now(), config.wall_budget);
    Context::new(&platform, &config, &secrets, wall, &|_, _| {}).tick().await;
}

/// Runs for every request.
#[event(fetch)]
async fn fetch(
    mut request: worker::Request,
    env: Env,
    context: EventContext,
) -> worker::Result<Response> {
    console_error_panic_hook::set_once();
    let platform = Platform::new(&env);
    // The platform's own parser: that of the crate brings a hundred kilobytes of tables for
    // international names.
    let url = web_sys::Url::new(&request.inner().url())?;
    let path = url.pathname();
    let Some(method) = method(&request.inner().method()) else {
        return reply(&api::refuse_method(configuration(&env).as_ref(), &path));
    };
    if let Some(known) =
        HEALTH.with_borrow_mut(|recent| recent.answer(method, &path, platform.now()))
    {
        return reply(&known);
    }
    let config = configuration(&env);
    let secrets = match &config {
        Ok(config) => secrets(&env, config),
        Err(_) => secrets_named(&env, ["ADMIN_TOKEN", "READ_TOKEN"].map(str::to_owned)),
    };
    let header = |name: &str| request.headers().get(name);
    let (authorization, idempotency_key) = (header("authorization")?, header("idempotency-key")?);
    let mut asked = ApiRequest {
        method,
        path,
        query: query(&url),
        authorization,
        idempotency_key,
        body: String::new(),
    };
    // Not a byte of it is read for somebody who may change nothing.
    if api::reads_body(&secrets, &asked) {
        match body(&mut request).await {
            Some(body) => asked.body = body,
            None => return reply(&api::refuse_body(config.as_ref())),
        }
    }
    let answer = api::answer(&platform, config.as_ref(), &secrets, &asked).await;
    HEALTH.with_borrow_mut(|recent| {
        recent.keep(method, &asked.path, platform.now(), &answer.response);
    });
    let (Some(drive), Ok(config)) = (answer.drive, config) else { return reply(&answer.response) };
    if drive.is_followed {
        return follow(&context, platform, config, secrets, drive);
    }
    context.wait_until(async move {
        let Some(pair) = config.pair(drive.pair.as_str()) else { return };
        let wall = after(platform.now(), AFTER_ANSWER);
        Context::new(&platform, &config, &secrets, wall, &|_, _| {})
            .drive_one(pair, *drive.checkpoint)
            .await;
    });
    reply(&answer.response)
}

/// Answers with the events of the run. The run goes on as long as the answer is read, and half a
/// minute longer.
fn follow(
    context: &EventContext,
    platform: Platform,
    config: Config,
    secrets: Secrets,
    drive: Drive,
) -> worker::Result<Response> {
    let (sender, events) = futures_channel::mpsc::unbounded();
    let run = drive.checkpoint.run.clone();
    // Not polled by the stream itself: each chunk is read by a task of its own, and a timer wakes
    // the task that first waited for it.
    context.wait_until(async move {
        let Some(pair) = config.pair(drive.pair.as_str()) else { return };
        let wall = after(platform.now(), config.wall_budget);
        // A reader that went away is no reason to stop.
        let watch =
            move |event: &str, data: Value| drop(sender.unbounded_send(server_sent(event, &data)));
        watch("started", json!({"run": run}));
        let (checkpoint, is_over) = Context::new(&platform, &config, &secrets, wall, &watch)
            .drive_one(pair, *drive.checkpoint)
            .await;
        if is_over {
            watch("ended", json!({"run": run, "status": checkpoint.status()}));
        }
    });
    let mut builder = ResponseBuilder::new().with_header("content-type", "text/event-stream")?;
    for (name, value) in api::SECURITY_HEADERS {
        builder = builder.with_header(name, value)?;
    }
    builder.from_stream(events.map(|event| Ok::<_, worker::Error>(event.into_bytes())))
}

/// Writes one event of a stream.
///
/// Source: HTML Standard, 9.2 "Server-sent events".
fn server_sent(event: &str, data: &Value) -> String {
    format!("event: {event}\ndata: {data}\n\n")
}

fn reply(response: &api::ApiResponse) -> worker::Result<Response> {
    let mut builder = ResponseBuilder::new().with_status(response.status);
    for (name, value) in response.headers() {
        builder = builder.with_header(name, value)?;
    }
    Ok(builder.fixed(response.body.clone().into_bytes()))
}

/// Reads the name of a method; `None` for one that no address has. The type of the crate takes what
/// it does not know for `GET`.
fn method(name: &str) -> Option<Method> {
    match name {
        // Monitors ask for the head alone; the platform leaves the body out.
        "GET" | "HEAD" => Some(Method::Get),
        "POST" => Some(Method::Post),
        "PUT" => Some(Method::Put),
        "PATCH" => Some(Method::Patch),
        "DELETE" => Some(Method::Delete),
        _ => None,
    }
}

/// Reads the body of a request, and no more of it than shows that it is too long; `None` of one
/// that did not come.
async fn body(request: &mut worker::Request) -> Option<String> {
    if request.inner().body().is_none() {
        return Some(String::new());
    }
    let stream = request.stream().ok()?;
    // A chunked body has no length: it is counted as it comes, and left as soon as it is too long.
    let (bytes, is_cut) = beginning(stream, api::BODY_LIMIT + 1, BODY_WAIT).await;
    (!is_cut || bytes.len() > api::BODY_LIMIT).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the parameters of an address.
fn query(url: &web_sys::Url) -> BTreeMap<String, String> {
    let pairs = js_sys::Array::from(&url.search_params());
    let text = |pair: &js_sys::Array, index: u32| pair.get(index).as_string().unwrap_or_default();
    pairs
        .iter()
        .map(|pair| js_sys::Array::from(&pair))
        .map(|pair| (text(&pair, 0), text(&pair, 1)))
        .into_map()
}

/// Reads and merges the variables of the Worker.
fn configuration(env: &Env) -> Result<Config, ConfigErrors> {
    let env: &JsValue = env.as_ref();
    let keys = js_sys::Object::keys(env.unchecked_ref_object());
    let mut variables = Vec::new();
    for key in keys.iter().filter_map(|key| key.as_string()).filter(|key| key.starts_with(VARIABLE))
    {
        let value =
            js_sys::Reflect::get(env, &JsValue::from_str(&key)).unwrap_or(JsValue::UNDEFINED);
        let text = js_sys::JSON::stringify(&value)
            .ok()
            .and_then(|text| text.as_string())
            .unwrap_or_default();
        variables.push((key, serde_json::from_str(&text).unwrap_or(Value::Null)));
    }
    Config::from_variables(&variables)
}

/// Views a binding object as an object.
trait AsObject {
    fn unchecked_ref_object(&self) -> &js_sys::Object;
}

impl AsObject for JsValue {
    fn unchecked_ref_object(&self) -> &js_sys::Object {
        wasm_bindgen::JsCast::unchecked_ref(self)
    }
}

fn secrets(env: &Env, config: &Config) -> Secrets {
    secrets_named(env, config.secret_names())
}

fn secrets_named(env: &Env, names: impl IntoIterator<Item = String>) -> Secrets {
    let read = |name: String| {
        let value = env.secret(&name).ok()?.to_string();
        Some((name, Secret::new(value)))
    };
    names.into_iter().filter_map(read).into_map()
}

thread_local! {
    /// What this isolate remembers.
    static NOTES: RefCell<Notes> = RefCell::default();
    /// What it last answered to `GET /health`.
    static HEALTH: RefCell<api::Recent> = RefCell::default();
}

/// The ports on Cloudflare.
struct Platform {
    env: Env,
    store: Option<KvStore>,
}

impl Platform {
    fn new(env: &Env) -> Self {
        Self { env: env.clone(), store: env.kv(STATE).ok() }
    }

    fn kv(&self) -> Result<&KvStore, StoreFailure> {
        self.store
            .as_ref()
            .ok_or_else(|| StoreFailure::Unavailable(format!("the KV binding {STATE} is missing")))
    }
}

impl Clock for Platform {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now(&self) -> Timestamp {
        let milliseconds = i64::try_from(worker::Date::now().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_timestamp_millis(milliseconds).unwrap_or_default()
    }

    async fn sleep(&self, until: Timestamp) {
        Delay::from(between(self.now(), until)).await;
    }
}

impl Http for Platform {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpFailure> {
        let timeout = request.timeout;
        match request.url.strip_prefix("email:") {
            Some(binding) => self.send_email(binding, &request.body, timeout).await,
            None => send(request).await.map_err(|error| failure(&error, timeout)),
        }
    }
}

impl Platform {
    /// Sends a message through a `send_email` binding. What the binding refuses is answered as a
    /// mail gateway would: 422, with its reason.
    async fn send_email(
        &self,
        binding: &str,
        message: &str,
        timeout: Duration,
    ) -> Result<HttpResponse, HttpFailure> {
        let Ok(sender) = self.env.send_email(binding) else { return Err(HttpFailure::BadAddress) };
        let message: Value = serde_json::from_str(message).unwrap_or_default();
        let text = |name: &str| message[name].as_str().unwrap_or_default();
        let to: Vec<String> = message["to"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let builder =
            SendEmailBuilder::builder_with_str_and_slice(text("from"), &to, text("subject"));
        let message = builder.text(text("text")).html(text("html")).build();
        let sending = std::pin::pin!(sender.send_with_builder(&message));
        let Either::Left((sent, _)) = select(sending, Delay::from(timeout)).await else {
            return Err(HttpFailure::TimedOut(timeout));
        };
        Ok(match sent {
            Ok(_) => HttpResponse { status: 202, ..HttpResponse::default() },
            Err(error) => {
                let reason = firstlight::neon::shorten(&String::from(error.message()));
                self.log(
                    Level::Warn,
                    "e-mail refused",
                    &[("binding", binding.to_owned()), ("reason", reason.clone())],
                );
                HttpResponse { status: 422, body: reason, ..HttpResponse::default() }
            }
        })
    }
}

async fn send(request: HttpRequest) -> worker::Result<HttpResponse> {
    let headers = Headers::new();
    for (name, value) in &request.headers {
        headers.set(name, value)?;
    }
    for (name, value) in &request.secret_headers {
        headers.set(name, value.reveal())?;
    }
    if !headers.has("user-agent")? {
        headers.set("user-agent", concat!("firstlight/", env!("CARGO_PKG_VERSION")))?;
    }
    let mut init = RequestInit::new();
    init.with_headers(headers).with_redirect(RequestRedirect::Manual).with_method(
        match request.method {
            Method::Get => worker::Method::Get,
            Method::Post => worker::Method::Post,
            Method::Put => worker::Method::Put,
            Method::Patch => worker::Method::Patch,
            Method::Delete => worker::Method::Delete,
        },
    );
    if !request.body.is_empty() {
        init.with_body(Some(JsValue::from_str(&request.body)));
    }
    let milliseconds = u32::try_from(request.timeout.as_millis()).unwrap_or(u32::MAX);
    // The signal covers the body as well as the headers.
    let signal = AbortSignal::from(web_sys::AbortSignal::timeout_with_u32(milliseconds));
    let mut response = Fetch::Request(worker::Request::new_with_init(&request.url, &init)?)
        .send_with_signal(&signal)
        .await?;
    let retry_after = response
        .headers()
        .get("retry-after")?
        .and_then(|text| text.parse().ok())
        .map(Duration::from_secs);
    let announced: Option<usize> = match response.headers().get("content-encoding")? {
        None => response.headers().get("content-length")?.and_then(|text| text.parse().ok()),
        Some(_) => None,
    };
    let headers: Vec<(String, String)> = response.headers().entries().collect();
    let status = response.status_code();
    let (limit, patience) = match request.reading {
        Reading::Whole => {
            let bytes = response.bytes().await?;
            if announced.is_some_and(|length| length != bytes.len()) {
                return Err(worker::Error::RustError("the body was cut".to_owned()));
            }
            let body = String::from_utf8(bytes)
                .map_err(|_| worker::Error::RustError("the body is not UTF-8".to_owned()))?;
            return Ok(HttpResponse { status, retry_after, headers, body, is_cut: false });
        }
        Reading::Page => (PAGE_BYTES, request.timeout),
        Reading::Beginning => (BEGINNING_BYTES, BEGINNING_WAIT),
    };
    let (bytes, is_cut) = match response.stream() {
        Ok(stream) => beginning(stream, limit, patience).await,
        Err(_) => (Vec::new(), false),
    };
    let is_cut = is_cut || announced.is_some_and(|length| length != bytes.len());
    let body = decoded(&answer::encoding(&headers, &bytes), &bytes);
    Ok(HttpResponse { status, retry_after, headers, body, is_cut })
}

/// Reads a body up to a limit, and returns whether there was more of it. A body that breaks off or
/// does not come is what came of it.
async fn beginning(mut stream: ByteStream, limit: usize, patience: Duration) -> (Vec<u8>, bool) {
    // Dropping the stream cancels it: a body that nobody reads keeps one of the six connections
    // that an invocation may have.
    let mut bytes = Vec::new();
    let mut over = std::pin::pin!(Delay::from(patience));
    loop {
        match select(stream.next(), &mut over).await {
            Either::Left((Some(Ok(chunk)), _)) => bytes.extend(chunk),
            Either::Left((None, _)) => return (bytes, false),
            Either::Left((Some(Err(_)), _)) | Either::Right(_) => return (bytes, true),
        }
        if bytes.len() > limit {
            bytes.truncate(limit);
            return (bytes, true);
        }
    }
}

/// Reads bytes as text. What cannot be read is replaced; a byte order mark is left out.
fn decoded(encoding: &str, bytes: &[u8]) -> String {
    let utf8 = || answer::without_mark(&String::from_utf8_lossy(bytes)).to_owned();
    if encoding == "utf-8" {
        return utf8();
    }
    // The platform knows every encoding of the web; those of a crate are 300 kB.
    let decoder = web_sys::TextDecoder::new_with_label(encoding);
    decoder.and_then(|decoder| decoder.decode_with_u8_array(bytes)).unwrap_or_else(|_| utf8())
}

/// Says what is known of a request that got no complete reply.
fn failure(error: &worker::Error, timeout: Duration) -> HttpFailure {
    let text = error.to_string();
    if text.contains("TimeoutError") || text.contains("timeout") || text.contains("aborted") {
        HttpFailure::TimedOut(timeout)
    } else if text.contains("Invalid URL") {
        HttpFailure::BadAddress
    } else {
        HttpFailure::Disconnected
    }
}

impl Store for Platform {
    async fn read(
        &self,
        keys: &[String],
    ) -> Result<BTreeMap<String, Option<String>>, StoreFailure> {
        if keys.is_empty() {
            return Ok(BTreeMap::new());
        }
        let found = self.kv()?.get_bulk(keys).text().await.map_err(|error| read_failure(&error))?;
        Ok(found.into_iter().into_map())
    }

    async fn write(
        &self,
        key: &str,
        value: &str,
        metadata: Option<Metadata>,
    ) -> Result<(), StoreFailure> {
        let mut put = self.kv()?.put(key, value).map_err(|error| store_failure(&error))?;
        if let Some(lifetime) = record::lifetime(key) {
            put = put.expiration_ttl(lifetime.as_secs());
        }
        if let Some(metadata) = metadata {
            put = put.metadata(metadata).map_err(|error| store_failure(&error))?;
        }
        put.execute().await.map_err(|error| store_failure(&error))
    }

    async fn remove(&self, key: &str) -> Result<(), StoreFailure> {
        self.kv()?.delete(key).await.map_err(|error| store_failure(&error))
    }

    async fn list(&self, prefix: &str, cursor: Option<String>) -> Result<Page, StoreFailure> {
        let mut list = self.kv()?.list().prefix(prefix.to_owned());
        if let Some(cursor) = cursor {
            list = list.cursor(cursor);
        }
        let found = list.execute().await.map_err(|error| store_failure(&error))?;
        let keys = found.keys.into_iter().map(|key| {
            let metadata = key.metadata.and_then(|value| serde_json::from_value(value).ok());
            (key.name, metadata)
        });
        Ok(Page { keys: keys.collect(), cursor: found.cursor.filter(|_| !found.list_complete) })
    }
}

/// Reads the text of KV's error, the only place where it tells its status.
///
/// Source: Workers KV, observed 2026-11-21: "KV PUT failed: 429 Too Many Requests".
fn store_failure(error: &worker::kv::KvError) -> StoreFailure {
    let text = format!("{error:?}");
    if text.contains("429") {
        StoreFailure::TooFast
    } else {
        StoreFailure::Unavailable(firstlight::neon::shorten(&text))
    }
}

/// As [`store_failure`] for a read, of which 429 says that the reads of the day are used up.
fn read_failure(error: &worker::kv::KvError) -> StoreFailure {
    StoreFailure::Unavailable(firstlight::neon::shorten(&format!("{error:?}")))
}

impl Recall for Platform {
    fn note(&self, what: &str, at: Timestamp) {
        NOTES.with_borrow_mut(|notes| notes.note(what, at));
    }

    fn noted_at(&self, what: &str) -> Option<Timestamp> {
        NOTES.with_borrow(|notes| notes.noted_at(what))
    }
}

impl Log for Platform {
    fn log(&self, level: Level, event: &str, facts: &[(&str, String)]) {
        let mut line = json!({"event": event});
        for (name, value) in facts {
            line[*name] = json!(value);
        }
        // One JSON object in a line: Workers Logs indexes its fields.
        match level {
            Level::Info => worker::console_log!("{line}"),
            Level::Warn => worker::console_warn!("{line}"),
            Level::Error => worker::console_error!("{line}"),
        }
    }
}
