//! Smoke tests: requests to the staging application, and what their answers mean.
//!
//! In: a [`SmokeTest`], the secrets, the values that earlier tests have captured. Out: an
//! [`HttpRequest`]; from its reply a [`Check`] and more values.
//!
//! Invariants: a captured value is a secret: it is in no report, no log, and not in the checkpoint.
//! A tick that has forgotten one asks the test that captured it again. An address is called letter
//! by letter. Status and headers are judged whatever the body is. A test that did not hold says
//! what was called and what came, without secrets; of JSON only names and errors, because its
//! values may be people's.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::{Capture, SmokeTest, Writing};
use crate::id::Secret;
use crate::port::{HttpFailure, HttpRequest, HttpResponse, Reading, answer};
use crate::verify::{Check, CheckKind, CheckOutcome, outcome_of};

/// Values that tests have captured, by name.
pub type Captured = BTreeMap<String, Secret>;

/// Returns the test that has to be called before another one can be: one that captures what it
/// wants.
pub fn needed_first<'a>(
    tests: &'a [SmokeTest],
    test: &SmokeTest,
    captured: &Captured,
) -> Option<usize> {
    let missing = test.wanted().into_iter().find(|wanted| !captured.contains_key(wanted))?;
    let index =
        tests.iter().position(|other: &'a SmokeTest| other.capture.contains_key(&missing))?;
    // It may need another one itself.
    needed_first(&tests[..index], &tests[index], captured).or(Some(index))
}

/// A secret that a test needs is not set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("secret {0} is not set; set it with `wrangler secret put`")]
pub struct MissingSecret(String);

/// Returns the request of a test.
///
/// # Errors
///
/// When a secret that it names is not set.
pub fn request(
    test: &SmokeTest,
    secrets: &BTreeMap<String, Secret>,
    captured: &Captured,
) -> Result<HttpRequest, MissingSecret> {
    let secret = |name: &String| secrets.get(name).ok_or_else(|| MissingSecret(name.clone()));
    let mut request =
        HttpRequest::new(test.method, filled(&test.url, captured, Writing::Plain), test.timeout);
    request.reading = if test.looks_into_the_body() { Reading::Page } else { Reading::Beginning };
    for (name, value) in &test.headers {
        request
            .secret_headers
            .push((name.clone(), Secret::new(filled(value, captured, Writing::Plain))));
    }
    for (name, of) in &test.secret_headers {
        request.secret_headers.push((name.clone(), secret(of)?.clone()));
    }
    let body = match &test.body_secret {
        Some(of) => secret(of)?.reveal(),
        None => &test.body,
    };
    let names = || request.secret_headers.iter();
    let configured = names()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        .map(|(_, value)| value.reveal());
    let media_type = configured.or_else(|| media_type(body)).unwrap_or_default().to_owned();
    let is_configured = configured.is_some();
    request.body = match &test.body_secret {
        Some(_) => body.to_owned(),
        None => filled(body, captured, Writing::of(&media_type)),
    };
    if !is_configured && !media_type.is_empty() {
        request.headers.push(("content-type".to_owned(), media_type));
    }
    Ok(request)
}

/// Returns the media type of a body for which none is configured; `None` for a plain text.
///
/// The platform calls every text `text/plain`, which frameworks read as no form and no JSON.
fn media_type(body: &str) -> Option<&'static str> {
    let text = body.trim();
    if text.starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        return Some("application/json");
    }
    is_form(text).then_some("application/x-www-form-urlencoded")
}

/// Returns whether a body is a form: fields with names, and nothing that would be encoded in one.
fn is_form(body: &str) -> bool {
    let mut text = String::with_capacity(body.len());
    // A value that is put in later is encoded then.
    for (index, part) in body.split("{{").enumerate() {
        text.push_str(if index == 0 {
            part
        } else {
            part.split_once("}}").map_or(part, |(_, rest)| rest)
        });
    }
    let is_part =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._*%+~!'(),:;@/?$[]=".contains(&byte);
    let is_field = |field: &str| {
        field.split_once('=').is_some_and(|(name, _)| !name.is_empty())
            && field.bytes().all(is_part)
    };
    !text.is_empty() && text.split('&').all(is_field)
}

/// Puts captured values into a text, each as the text wants it.
fn filled(text: &str, captured: &Captured, writing: Writing) -> String {
    let mut parts = text.split("{{");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once("}}") {
            Some((name, rest)) => {
                let value = captured.get(name.trim()).map(Secret::reveal).unwrap_or_default();
                filled.push_str(&writing.write(value));
                filled.push_str(rest);
            }
            None => filled.push_str(part),
        }
    }
    filled
}

/// What a test was sent with, none of which may be told.
#[derive(Clone, Copy)]
pub struct Sent<'a> {
    /// The secrets of the Worker.
    pub secrets: &'a BTreeMap<String, Secret>,
    /// What earlier tests have captured.
    pub captured: &'a Captured,
}

/// Returns how a test went, and what it has captured.
pub fn judge(
    test: &SmokeTest,
    sent: Sent<'_>,
    result: &Result<HttpResponse, HttpFailure>,
) -> (Check, Captured) {
    let check = |outcome: CheckOutcome, detail: String| {
        Check::of_pair(CheckKind::SmokeTest, &test.name, outcome, detail)
    };
    let bad = outcome_of(test.policy);
    let called = format!("{} {}", test.method.as_str(), answer::shown_address(&test.url));
    let response = match result {
        Ok(response) => response,
        Err(failure) => return (check(bad, format!("{called}: {failure}")), Captured::new()),
    };
    let (faults, captured) = faults(test, response);
    if faults.is_empty() {
        return (check(CheckOutcome::Passed, format!("answered {}", response.status)), captured);
    }
    let mut hidden: Vec<&str> =
        test.secrets().filter_map(|name| sent.secrets.get(name)).map(Secret::reveal).collect();
    hidden.extend(sent.captured.values().chain(captured.values()).map(Secret::reveal));
    let body = test
        .body_secret
        .as_ref()
        .and_then(|name| sent.secrets.get(name))
        .map_or(test.body.as_str(), Secret::reveal);
    let values = values(body);
    hidden.extend(values.iter().map(String::as_str));
    let mut told = vec![faults.join("; ")];
    told.extend(answer::moved_to(response, &hidden).map(|place| format!("it sends to {place}")));
    let words = answer::words_of_application(response, &hidden);
    told.extend((!words.is_empty()).then(|| format!("it says \"{words}\"")));
    let explained =
        explained(response).map(|explained| format!(" ({explained})")).unwrap_or_default();
    let detail = format!("{called}: {}{explained}", told.join("; "));
    (check(bad, detail), Captured::new())
}

/// Returns the values of a form or of flat JSON, as they were sent and as they are read.
fn values(body: &str) -> Vec<String> {
    if let Ok(Value::Object(object)) = serde_json::from_str(body) {
        return object.values().filter_map(answer::scalar).collect();
    }
    let sent = body.split('&').filter_map(|field| field.split_once('=')).map(|(_, value)| value);
    sent.flat_map(|value| [value.to_owned(), decoded(value)]).collect()
}

/// Source: WHATWG URL, 5.1 "application/x-www-form-urlencoded parsing".
fn decoded(value: &str) -> String {
    let mut parts = value.split('%');
    let mut bytes: Vec<u8> = parts.next().unwrap_or_default().replace('+', " ").into_bytes();
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(part[2..].replace('+', " ").bytes());
            }
            None => bytes.extend(format!("%{part}").bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns what is not as expected, and what was captured.
fn faults(test: &SmokeTest, response: &HttpResponse) -> (Vec<String>, Captured) {
    let mut faults = Vec::new();
    if response.status != test.expect_status {
        faults.push(format!("expected {}, answered {}", test.expect_status, response.status));
    }
    for (name, expected) in &test.expect_headers {
        if !header_values(response, name).any(|value| value.contains(expected.as_str())) {
            faults.push(format!("no header {name} contains {expected:?}"));
        }
    }
    let before = faults.len();
    if test.expect_text.as_deref().is_some_and(|text| !response.body.contains(text)) {
        faults.push(format!(
            "the page does not contain {:?}",
            test.expect_text.as_deref().unwrap_or_default()
        ));
    }
    let json: Option<Value> = serde_json::from_str(answer::without_mark(&response.body)).ok();
    for (pointer, expected) in &test.expect_json {
        if json.as_ref().and_then(|json| answer::scalar(json.pointer(pointer)?)).as_ref()
            != Some(expected)
        {
            faults.push(format!("{pointer} in its JSON is not {expected:?}"));
        }
    }
    let mut captured = Captured::new();
    for (name, place) in &test.capture {
        match find(response, json.as_ref(), place) {
            Some(value) => drop(captured.insert(name.clone(), Secret::new(value))),
            None => faults.push(format!("{name} is not in the answer")),
        }
    }
    if response.is_cut && faults.len() > before && test.looks_into_the_body() {
        faults
            .push(format!("the body was not whole: {} bytes of it were read", response.body.len()));
    }
    (faults, captured)
}

/// Explains an answer that Cloudflare gives in place of the application.
///
/// # Source
///
/// Cloudflare, "Errors" of Workers: 1042 "Worker tried to fetch from another Worker on the same
/// zone, which is only supported when the `global_fetch_strictly_public` compatibility flag is
/// used". Compatibility flags: without it such requests go "directly to the zone's origin server",
/// and a host that has none is answered 522. "Detect a challenge page response": the header
/// `cf-mitigated`.
fn explained(response: &HttpResponse) -> Option<&'static str> {
    let body = answer::without_mark(&response.body).trim_start();
    let is_code =
        |code: &str| body.strip_prefix("error code: ").is_some_and(|rest| rest.trim() == code);
    if answer::header(&response.headers, "cf-mitigated") == Some("challenge") {
        return Some(
            "Cloudflare's bot protection asks for a browser: let the header that this test sends \
             past it",
        );
    }
    match response.status {
        _ if is_code("1042") => Some(
            "Cloudflare: the application is a Worker of the same zone, which this Worker may call \
             only with compatibility_flags = [\"global_fetch_strictly_public\"] in wrangler.toml",
        ),
        _ if is_code("1016") => {
            Some("Cloudflare: the name of the application's server is not known")
        }
        _ if is_code("1101") => Some("Cloudflare: the application is a Worker, and it threw"),
        522 => Some(
            "Cloudflare did not reach a server: it is down, or the host has none because a Worker \
             of the same zone answers for it, which needs compatibility_flags = \
             [\"global_fetch_strictly_public\"] in wrangler.toml",
        ),
        521 | 523 | 530 => Some("Cloudflare did not reach the application's server"),
        524 => Some("the application did not answer Cloudflare within 100 s"),
        _ => None,
    }
}

fn header_values<'a>(response: &'a HttpResponse, name: &str) -> impl Iterator<Item = &'a String> {
    let of = response.headers.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name));
    of.map(|(_, value)| value)
}

fn find(response: &HttpResponse, json: Option<&Value>, place: &Capture) -> Option<String> {
    match place {
        Capture::Header(name) => header_values(response, name).next().cloned(),
        Capture::Cookie(name) => {
            // Source: RFC 6265, section 4.1.1: `Set-Cookie: name=value; attributes`.
            let pair = |value: &String| {
                value
                    .split(';')
                    .next()?
                    .split_once('=')
                    .map(|(name, value)| (name.trim().to_owned(), value.to_owned()))
            };
            header_values(response, "set-cookie")
                .filter_map(pair)
                .find(|(other, _)| other == name)
                .map(|(_, value)| value)
        }
        Capture::Json(pointer) => answer::scalar(json?.pointer(pointer)?),
        Capture::Between(before, after) => {
            let (_, rest) = response.body.split_once(before.as_str())?;
            rest.split_once(after.as_str()).map(|(value, _)| value.to_owned())
        }
    }
}

#[cfg(test)]
mod tests;
