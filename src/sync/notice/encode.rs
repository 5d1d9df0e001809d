//! How each kind of channel writes a notice: as an [`HttpRequest`].
//!
//! Source: Standard Webhooks 1.0 (signature); Slack Block Kit, section text at most 3,000 characters.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;

use super::Notice;
use crate::config::ChannelKind;
use crate::id::Secret;
use crate::port::{HttpRequest, Method};
use crate::time::Timestamp;

/// How long a receiver may take.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Characters of a text that Slack is given; its limit for a section is 3,000.
const SLACK_TEXT: usize = 2_900;

/// Encodes a notice for a channel. `signing` is the secret of a webhook, `whsec_<base64>` or any text.
pub fn encode(notice: &Notice, kind: ChannelKind, url: &Secret, signing: Option<&Secret>, now: Timestamp) -> HttpRequest {
    let mut request = HttpRequest::new(Method::Post, url.reveal().to_owned(), DELIVERY_TIMEOUT);
    request.headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    match kind {
        ChannelKind::Slack => request.body = slack_body(notice),
        ChannelKind::Webhook => {
            request.body = webhook_body(notice);
            let timestamp = now.timestamp().to_string();
            if let Some(secret) = signing {
                let signature = sign(secret, &notice.id, &timestamp, &request.body);
                request.headers.push(("webhook-signature".to_owned(), signature));
            }
            request.headers.push(("webhook-id".to_owned(), notice.id.clone()));
            request.headers.push(("webhook-timestamp".to_owned(), timestamp));
        }
    }
    request
}

/// Signs a message.
///
/// # Source
///
/// Standard Webhooks 1.0: the signed content is `id.timestamp.payload`, the scheme `v1` is HMAC-SHA256, keys are "base64 encoded, and
/// prefixed with `whsec_`".
///
/// # Panics
///
/// Never: HMAC takes a key of any length.
pub fn sign(secret: &Secret, id: &str, timestamp: &str, body: &str) -> String {
    let text = secret.reveal();
    let decoded = text.strip_prefix("whsec_").and_then(|encoded| BASE64.decode(encoded).ok());
    let key = decoded.unwrap_or_else(|| text.as_bytes().to_vec());
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes a key of any length");
    for part in [id, ".", timestamp, ".", body] {
        mac.update(part.as_bytes());
    }
    format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
}

fn webhook_body(notice: &Notice) -> String {
    json!({"type": format!("sync.{}", notice.kind.as_str()), "timestamp": crate::time::render(notice.at), "data": notice}).to_string()
}

/// Escapes what Slack reads as mark-up.
fn slack_escape(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    if escaped.chars().count() <= SLACK_TEXT {
        return escaped;
    }
    let mut short: String = escaped.chars().take(SLACK_TEXT).collect();
    short.push('…');
    short
}

fn slack_body(notice: &Notice) -> String {
    let header: String = notice.subject.chars().take(150).collect();
    let mut blocks = vec![
        json!({"type": "header", "text": {"type": "plain_text", "text": header}}),
        json!({"type": "section", "text": {"type": "mrkdwn", "text": slack_escape(&notice.text)}}),
    ];
    if !notice.warnings.is_empty() {
        let text = notice.warnings.iter().map(|warning| format!("• {warning}")).collect::<Vec<_>>().join("\n");
        blocks.push(json!({"type": "section", "text": {"type": "mrkdwn", "text": slack_escape(&text)}}));
    }
    let context = format!("pair {} · run {}", notice.pair, notice.run);
    blocks.push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": slack_escape(&context)}]}));
    json!({"text": format!("{}\n{}", header, slack_escape(&notice.text)), "blocks": blocks}).to_string()
}
