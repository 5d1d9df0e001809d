//! A receiver of notices that checks their signatures with the reference implementation.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, anyhow};
use serde_json::Value;
use standardwebhooks::Webhook;

/// The key that notices are signed with.
pub const SIGNING_SECRET: &str = "whsec_Zmlyc3RsaWdodC10ZXN0LXNlY3JldA==";

/// What the staging application wants to see in the header `x-preview`.
pub const APP_SECRET: &str = "only for those who may preview";

/// How Discord refuses a message to a forum that begins no thread.
const FORUM: &str = r#"{"message": "Webhooks posted to forum channels must have a thread_name or thread_id", "code": 220001}"#;

/// A notice that was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// `/webhook`, `/slack` or what else was called.
    pub path: String,
    /// The header `webhook-id`.
    pub id: Option<String>,
    /// Whether the signature is right; `None` where there is none.
    pub is_signed: Option<bool>,
    /// The body.
    pub body: Value,
    /// What was answered.
    pub status: u16,
}

/// A receiver on loopback. It ends when it is dropped.
pub struct Sink {
    /// Its address, such as `http://127.0.0.1:41237`.
    pub url: String,
    server: Arc<tiny_http::Server>,
    received: Arc<Mutex<Vec<Received>>>,
    status: Arc<AtomicU16>,
}

impl Sink {
    /// Starts to listen on a free port.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub fn start() -> Result<Self> {
        let server = Arc::new(
            tiny_http::Server::http("127.0.0.1:0").map_err(|error| anyhow!("listen: {error}"))?,
        );
        let address = server.server_addr().to_ip().ok_or_else(|| anyhow!("listen: no address"))?;
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let status = Arc::new(AtomicU16::new(204));
        let sink = Self {
            url: format!("http://{address}"),
            server: Arc::clone(&server),
            received: Arc::clone(&received),
            status: Arc::clone(&status),
        };
        std::thread::spawn(move || {
            let mut unanswered = Vec::new();
            for request in server.incoming_requests() {
                answer(request, &received, &status, &mut unanswered);
            }
        });
        Ok(sink)
    }

    /// Answers with this status from now on; 0 means not to answer at all.
    pub fn respond(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// Returns everything that was received.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.received).clone()
    }

    /// Returns what a path has received and answered well.
    pub fn taken(&self, path: &str) -> Vec<Received> {
        self.received()
            .into_iter()
            .filter(|received| received.path == path && (200..300).contains(&received.status))
            .collect()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.server.unblock();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(
    mut request: tiny_http::Request,
    received: &Mutex<Vec<Received>>,
    status: &AtomicU16,
    unanswered: &mut Vec<tiny_http::Request>,
) {
    let mut body = String::new();
    let _ = request.as_reader().read_to_string(&mut body);
    let header = |name: &str| {
        let found = request
            .headers()
            .iter()
            .find(|header| header.field.as_str().as_str().eq_ignore_ascii_case(name));
        found.map(|header| header.value.as_str().to_owned())
    };
    let is_signed = header("webhook-signature").map(|signature| {
        is_signed(&signature, header("webhook-id"), header("webhook-timestamp"), &body)
    });
    let path = request.url().to_owned();
    // The staging application is there whatever the receiver of notices does.
    let page = path.starts_with("/app").then(|| application(&request, &path, &body));
    let status =
        page.as_ref().map_or_else(|| status.load(Ordering::SeqCst), |page| page.status_code().0);
    let id = header("webhook-id");
    lock(received).push(Received {
        path: path.clone(),
        id,
        is_signed,
        body: serde_json::from_str(&body).unwrap_or(Value::Null),
        status,
    });
    if status == 0 {
        // Kept, because a request that is dropped is answered.
        unanswered.push(request);
        return;
    }
    if path == "/endless" {
        // It ends when the caller goes away.
        std::thread::spawn(move || {
            request.respond(tiny_http::Response::new(
                status.into(),
                Vec::new(),
                std::io::repeat(b'x'),
                None,
                None,
            ))
        });
        return;
    }
    let _ = match page {
        Some(page) => request.respond(page),
        // As in case 14: a channel that was archived.
        None if path == "/hook/slack-no-service" => {
            request.respond(tiny_http::Response::from_string("no_service"))
        }
        // As in case 22: a channel that is a forum.
        None if path.starts_with("/hook/discord-forum") => {
            request.respond(tiny_http::Response::from_string(FORUM).with_status_code(400))
        }
        // Slack says that it took a message.
        None if path == "/slack" && (200..300).contains(&status) => {
            request.respond(tiny_http::Response::from_string("ok").with_status_code(200))
        }
        None => request.respond(tiny_http::Response::empty(status)),
    };
}

/// Pages as people have reported them (cases 01, 03, 18 and 23).
fn real_page(
    request: &tiny_http::Request,
    path: &str,
    body: &str,
) -> Option<tiny_http::ResponseBox> {
    let latin1: &[u8] = b"<h1>Bienvenue, Fran\xe7ois</h1> sign in";
    let is_form = request.headers().iter().any(|header| {
        header.field.equiv("content-type")
            && header.value.as_str().split(';').next() == Some("application/x-www-form-urlencoded")
    });
    let (status, header, text): (u16, &str, &[u8]) = match path {
        // Django's APPEND_SLASH; FastAPI and folders of nginx do alike.
        "/app/accounts/login" => (301, "Location: /app/accounts/login/", b""),
        "/app/accounts/login/" => {
            (200, "Content-Type: text/html; charset=utf-8", b"<form method=post>sign in</form>")
        }
        "/app/latin1" => (200, "Content-Type: text/html; charset=iso-8859-1", latin1),
        "/app/image" => (200, "Content-Type: image/png", b"\x89PNG\r\n\xff\xfe\x00"),
        "/app/bom.json" => (
            200,
            "Content-Type: application/json; charset=utf-8",
            b"\xef\xbb\xbf{\"status\": \"ok\", \"user\": {\"id\": 7}}",
        ),
        "/app/same-zone" => (404, "Content-Type: text/plain; charset=UTF-8", b"error code: 1042"),
        "/app/form-login" if is_form && body == "email=ann%40example.com&password=hunter2" => {
            (302, "Location: /app/me", b"")
        }
        "/app/form-login" => (422, "Content-Type: text/plain", b"email is missing"),
        _ => return None,
    };
    let mut response = tiny_http::Response::from_data(text).with_status_code(status);
    if let Ok(header) = header.parse::<tiny_http::Header>() {
        response.add_header(header);
    }
    Some(response.boxed())
}

/// A staging application: a form with a token, a login that checks it and sets two cookies, and a
/// page for who has logged in.
fn application(request: &tiny_http::Request, path: &str, body: &str) -> tiny_http::ResponseBox {
    if let Some(page) = real_page(request, path, body) {
        return page;
    }
    let header = |name: &str| {
        let found = request
            .headers()
            .iter()
            .find(|header| header.field.as_str().as_str().eq_ignore_ascii_case(name));
        found.map(|header| header.value.as_str().to_owned()).unwrap_or_default()
    };
    let (status, headers, text): (u16, &[&str], &str) = match (request.method().as_str(), path) {
        ("GET", "/app/form") => {
            (200, &["Content-Type: text/html"], "<input name=\"csrf\" value=\"t0k3n\">")
        }
        ("POST", "/app/login") if body == "csrf=t0k3n" && header("x-preview") == APP_SECRET => (
            302,
            &[
                "Location: /app/me",
                "Set-Cookie: theme=dark; Path=/",
                "Set-Cookie: session=s3ss10n; HttpOnly",
            ],
            "",
        ),
        ("POST", "/app/login") => (403, &[], "who are you?"),
        ("GET", "/app/me") if header("cookie") == "session=s3ss10n" => {
            (200, &["Content-Type: application/json"], r#"{"user": {"id": 7}}"#)
        }
        ("GET", "/app/me") => (401, &[], ""),
        _ => (200, &[], "ok"),
    };
    let mut response = tiny_http::Response::from_string(text).with_status_code(status);
    for header in headers.iter().filter_map(|header| header.parse::<tiny_http::Header>().ok()) {
        response.add_header(header);
    }
    response.boxed()
}

fn is_signed(signature: &str, id: Option<String>, timestamp: Option<String>, body: &str) -> bool {
    let Ok(webhook) = Webhook::new(SIGNING_SECRET) else { return false };
    let mut headers = http::HeaderMap::new();
    let named = [
        ("webhook-id", id),
        ("webhook-timestamp", timestamp),
        ("webhook-signature", Some(signature.to_owned())),
    ];
    for (name, value) in named {
        let Some(value) = value.and_then(|value| value.parse().ok()) else { return false };
        headers.insert(name, value);
    }
    webhook.verify(body.as_bytes(), &headers).is_ok()
}
