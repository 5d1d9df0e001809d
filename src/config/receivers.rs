//! The settings of receivers: what takes the notices of a channel, and how it is reached.
//!
//! Invariants: a receiver names its secrets and never holds one. A key that belongs to a receiver
//! of another kind is refused as unknown.

use std::collections::BTreeMap;

use serde_json::Value;

use super::address::called_address;
use super::headers;
use super::reader::{Fields, shown_text};
use super::secrets::{check_names, is_secret_name, secret_name};
use super::template::{Template, Writing};
use crate::notice_kind::NoticeKind;
use crate::port::Method;

/// Where `PagerDuty` takes events.
///
/// Source: `PagerDuty`, Events API v2 overview: `https://events.pagerduty.com/v2/enqueue`; in the
/// EU region `events.eu.pagerduty.com`.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";

/// Addresses that one e-mail goes to.
///
/// Source: Cloudflare Email Service, limits, 2026-04-16: 50 recipients.
const MOST_RECIPIENTS: usize = 50;

/// What takes notices, and how it is reached. Secrets are named, never held.
#[derive(Clone, Debug)]
pub enum Receiver {
    /// JSON, signed after Standard Webhooks 1.0.
    Webhook {
        /// The secret with the address.
        url_secret: String,
        /// The secrets that sign; several while one replaces another.
        signing_secrets: Vec<String>,
    },
    /// Slack's incoming webhook, with Block Kit.
    Slack {
        /// The secret with the address.
        url_secret: String,
    },
    /// Discord's webhook, with embeds.
    Discord {
        /// The secret with the address.
        url_secret: String,
        /// How the thread is called that each notice begins, in a forum.
        thread_name: Option<Template>,
    },
    /// A Microsoft Teams workflow, with an Adaptive Card.
    Teams {
        /// The secret with the address.
        url_secret: String,
    },
    /// `PagerDuty`'s Events API v2.
    PagerDuty {
        /// The secret with the routing key of an integration.
        routing_key_secret: String,
        /// Where events are taken.
        url: String,
    },
    /// A message through a `send_email` binding.
    Email {
        /// The binding.
        binding: String,
        /// The sender.
        from: String,
        /// Who gets it.
        to: Vec<String>,
    },
    /// Any HTTP call.
    Http {
        /// The secret with the address.
        url_secret: String,
        /// How it asks.
        method: Method,
        /// Headers.
        headers: BTreeMap<String, String>,
        /// Headers whose value a secret holds, by the name of the secret.
        secret_headers: BTreeMap<String, String>,
        /// The media type of the body.
        content_type: String,
        /// The body.
        body: Template,
        /// What an answer says that took the notice.
        good: Good,
    },
    /// A check of a healthchecks-style service: pinged at start, success and failure.
    Healthcheck {
        /// The secret with the check's address.
        url_secret: String,
    },
}

/// What a good answer says, beside its status. Nothing, where nothing is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Good {
    /// A text that it contains.
    pub text: Option<String>,
    /// Places in its JSON (JSON Pointer), each with its value as text.
    pub json: BTreeMap<String, String>,
}

impl Receiver {
    /// Returns the word that is configured.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack { .. } => "slack",
            Self::Discord { .. } => "discord",
            Self::Teams { .. } => "teams",
            Self::PagerDuty { .. } => "pagerduty",
            Self::Email { .. } => "email",
            Self::Http { .. } => "http",
            Self::Healthcheck { .. } => "healthcheck",
        }
    }

    /// Returns the secret that holds the address; `None` where the address is no secret.
    pub fn url_secret(&self) -> Option<&String> {
        match self {
            Self::Webhook { url_secret, .. }
            | Self::Slack { url_secret }
            | Self::Discord { url_secret, .. }
            | Self::Teams { url_secret }
            | Self::Http { url_secret, .. }
            | Self::Healthcheck { url_secret } => Some(url_secret),
            Self::PagerDuty { .. } | Self::Email { .. } => None,
        }
    }

    /// Returns every secret that it needs, each with its key.
    pub fn secrets(&self) -> Vec<(&'static str, &String)> {
        let mut needed: Vec<_> =
            self.url_secret().map(|name| ("url_secret", name)).into_iter().collect();
        match self {
            Self::Webhook { signing_secrets, .. } => {
                needed.extend(signing_secrets.iter().map(|name| ("signing_secret", name)));
            }
            Self::PagerDuty { routing_key_secret, .. } => {
                needed.push(("routing_key_secret", routing_key_secret));
            }
            Self::Http { secret_headers, .. } => {
                needed.extend(secret_headers.values().map(|name| ("secret_headers", name)));
            }
            Self::Slack { .. }
            | Self::Discord { .. }
            | Self::Teams { .. }
            | Self::Email { .. }
            | Self::Healthcheck { .. } => {}
        }
        needed
    }

    /// Returns whether a kind of notice is for it at all.
    pub(super) fn is_for(&self, kind: NoticeKind) -> bool {
        match self {
            // What opens no incident would open one that nothing resolves.
            Self::PagerDuty { .. } => {
                kind.is_trouble()
                    || matches!(
                        kind,
                        NoticeKind::Escalated | NoticeKind::Resolved | NoticeKind::Test
                    )
            }
            Self::Healthcheck { .. } => matches!(
                kind,
                NoticeKind::Succeeded
                    | NoticeKind::Corrected
                    | NoticeKind::Failed
                    | NoticeKind::Cancelled
                    | NoticeKind::Missed
                    | NoticeKind::Stuck
            ),
            Self::Webhook { .. }
            | Self::Slack { .. }
            | Self::Discord { .. }
            | Self::Teams { .. }
            | Self::Email { .. }
            | Self::Http { .. } => true,
        }
    }
}

/// Reads what takes the notices.
pub(super) fn receiver(one: &mut Fields<'_>, allow_insecure: bool) -> Option<Receiver> {
    const KINDS: [&str; 8] =
        ["webhook", "slack", "discord", "teams", "pagerduty", "email", "http", "healthcheck"];
    one.need("kind", "\"slack\"");
    let kind = one.word("kind", &KINDS.map(|kind| (kind, kind)))?;
    Some(match kind {
        "pagerduty" => Receiver::PagerDuty {
            routing_key_secret: secret_name(
                one,
                "routing_key_secret",
                "\"PAGERDUTY_ROUTING_KEY\"",
            )?,
            url: called_address(one, "url", allow_insecure).unwrap_or_else(|| PAGERDUTY.to_owned()),
        },
        "email" => email(one)?,
        "webhook" => {
            let (url_secret, signing_secrets) =
                (url_secret(one, "\"WEBHOOK_URL\""), signing_secrets(one));
            Receiver::Webhook { url_secret: url_secret?, signing_secrets }
        }
        "http" => http(one)?,
        "slack" => Receiver::Slack { url_secret: url_secret(one, "\"SLACK_WEBHOOK_URL\"")? },
        "discord" => discord(one)?,
        "teams" => Receiver::Teams { url_secret: url_secret(one, "\"TEAMS_WEBHOOK_URL\"")? },
        _ => Receiver::Healthcheck { url_secret: url_secret(one, "\"HEALTHCHECK_URL\"")? },
    })
}

fn url_secret(one: &mut Fields<'_>, example: &str) -> Option<String> {
    secret_name(one, "url_secret", example)
}

fn discord(one: &mut Fields<'_>) -> Option<Receiver> {
    let url_secret = url_secret(one, "\"DISCORD_WEBHOOK_URL\"");
    let text = one.text("thread_name");
    let read = |text: String| {
        Template::read(&text, Writing::Plain)
            .map_err(|problem| one.problem("thread_name", problem))
            .ok()
    };
    let thread_name = text.and_then(read);
    Some(Receiver::Discord { url_secret: url_secret?, thread_name })
}

/// Reads the secrets that sign: one, or several while one replaces another.
fn signing_secrets(one: &mut Fields<'_>) -> Vec<String> {
    match one.value("signing_secret") {
        Some(Value::Array(_)) => {
            let names = one.texts("signing_secret").unwrap_or_default();
            if names.is_empty() {
                one.problem(
                    "signing_secret",
                    "is empty; name one secret, or several while one replaces another",
                );
            }
            check_names(one, "signing_secret", names.iter());
            names
        }
        Some(_) => secret_name(one, "signing_secret", "").into_iter().collect(),
        None => {
            one.need("signing_secret", "\"WEBHOOK_SIGNING_SECRET\"");
            Vec::new()
        }
    }
}

fn email(one: &mut Fields<'_>) -> Option<Receiver> {
    let is_address = |text: &str| {
        let (local, domain) = text.split_once('@').unwrap_or_default();
        !local.is_empty()
            && domain.contains('.')
            && !text.contains(|c: char| c.is_whitespace() || "<>,;".contains(c))
    };
    let binding = one.text("binding").unwrap_or_else(|| "EMAIL".to_owned());
    if !is_secret_name(&binding) {
        let length = binding.chars().count();
        one.problem(
            "binding",
            format!(
                "is a text of {length} characters; allowed is the name of a binding, such as \
                 \"EMAIL\""
            ),
        );
    }
    let from = one.required("from", "\"firstlight@example.com\"");
    one.need("to", "[\"director@example.com\"]");
    let to = one.texts("to");
    if let Some(bad) = from.iter().find(|from| !is_address(from)) {
        one.problem(
            "from",
            format!(
                "is {}; allowed is an address such as \"firstlight@example.com\"",
                shown_text(bad)
            ),
        );
    }
    if let Some(bad) = to.iter().flatten().find(|to| !is_address(to)) {
        one.problem(
            "to",
            format!(
                "has {}; allowed are addresses such as \"director@example.com\"",
                shown_text(bad)
            ),
        );
    }
    if let Some(to) = to.as_ref().filter(|to| to.is_empty() || to.len() > MOST_RECIPIENTS) {
        one.problem(
            "to",
            format!("has {} addresses; allowed are 1 to {MOST_RECIPIENTS}", to.len()),
        );
    }
    Some(Receiver::Email { binding, from: from?, to: to? })
}

fn http(one: &mut Fields<'_>) -> Option<Receiver> {
    let url_secret = url_secret(one, "\"HOOK_URL\"");
    let methods = [Method::Get, Method::Post, Method::Put, Method::Patch, Method::Delete]
        .map(|method| (method.as_str(), method));
    let method = one.word("method", &methods).unwrap_or(Method::Post);
    let (headers, secret_headers) = (one.map("headers"), one.map("secret_headers"));
    check_names(one, "secret_headers", secret_headers.values());
    headers::check(one, "headers", &headers);
    headers::check(one, "secret_headers", &secret_headers);
    // A header of that name is what the receiver reads: the places are written as it says.
    let header = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        .map(|(_, value)| value.clone());
    let configured = one.text("content_type");
    if header.is_some() && configured.is_some() {
        one.problem("content_type", "stands beside a header Content-Type; allowed is one of them");
    }
    let content_type = configured.or(header).unwrap_or_else(|| "application/json".to_owned());
    let text = if method == Method::Get {
        if one.value("body").is_some() {
            one.problem("body", "stands beside method GET, which has none");
        }
        String::new()
    } else {
        one.need("body", "'{\"message\": \"{{subject}}\"}'");
        one.scalar("body")?
    };
    let writing = Writing::of(&content_type);
    let body = Template::read(&text, writing).map_err(|problem| one.problem("body", problem)).ok();
    let good = Good { text: one.text("expect_text"), json: one.map("expect_json") };
    if let Some(pointer) =
        good.json.keys().find(|pointer| !pointer.is_empty() && !pointer.starts_with('/'))
    {
        one.problem(
            "expect_json",
            format!("has {pointer:?}; allowed is a JSON Pointer such as \"/errcode\""),
        );
    }
    Some(Receiver::Http {
        url_secret: url_secret?,
        method,
        headers,
        secret_headers,
        content_type,
        body: body?,
        good,
    })
}
