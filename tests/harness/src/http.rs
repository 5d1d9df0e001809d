//! Requests to loopback.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use ureq::Agent;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Reads the body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

/// Returns a client that takes every status for an answer.
pub fn agent(patience: Duration) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(patience))
        .build()
        .into()
}

/// Sends a request with a bearer token and an optional JSON body.
///
/// # Errors
///
/// When no answer came.
pub fn send(method: &str, url: &str, token: Option<&str>, body: Option<&str>) -> Result<Answer> {
    send_with(method, url, token, &[], body)
}

/// Sends a request with more headers.
///
/// # Errors
///
/// When no answer came.
pub fn send_with(
    method: &str,
    url: &str,
    token: Option<&str>,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> Result<Answer> {
    let mut request = http::Request::builder().method(method).uri(url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let agent = agent(Duration::from_mins(5));
    let request = request.body(body.unwrap_or_default().to_owned()).context("build the request")?;
    let mut response = agent.run(request).with_context(|| format!("{method} {url}"))?;
    let status = response.status().as_u16();
    let body = response
        .body_mut()
        .with_config()
        .limit(64 << 20)
        .read_to_string()
        .with_context(|| format!("read {url}"))?;
    Ok(Answer { status, body })
}

/// Reads JSON.
///
/// # Errors
///
/// When no answer came.
pub fn get(url: &str) -> Result<Value> {
    Ok(send("GET", url, None, None)?.json())
}
