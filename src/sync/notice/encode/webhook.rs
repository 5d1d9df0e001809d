//! JSON for programs, signed.
//!
//! Shape:
//! `{"type":"sync.failed","timestamp":"2026-11-21T10:02:31.250Z","data":{"id":"hub/20261121/failed",…,"link":"https://…","runbook_link":"https://…"}}`.
//!
//! Invariants: a notice that fits is sent as it is, character by character; only one that does not
//! is shortened.
//!
//! Source: Standard Webhooks 1.0, `spec/standard-webhooks.md`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;

use super::shorten::{Room, json_bytes, plain};
use super::{Letter, REPORT, links, post};
use crate::id::Secret;
use crate::port::HttpRequest;
use crate::sync::notice::Notice;
use crate::time::{Timestamp, render};

/// Bytes of a payload.
///
/// Source: Standard Webhooks 1.0, "Payload size": "it's recommended to keep the size of payloads
/// small, usually smaller than 20kb".
const PAYLOAD: usize = 20_000;

/// Subject, text and warnings take 17,000 bytes at most, with each link 500, and the rest some
/// hundred.
const ROOM: Room =
    Room { text: 7_500, warnings: 9_000, around: 3, count: json_bytes, write: plain };

/// Bytes of a subject that is shortened.
const SUBJECT: usize = 500;

/// Writes a notice and signs it with every key, so that one can replace another.
pub(super) fn encode(
    letter: &Letter<'_>,
    url: &str,
    keys: &[&Secret],
    now: Timestamp,
) -> HttpRequest {
    let mut request = post(url, &payload(letter, letter.notice));
    if request.body.len() >= PAYLOAD {
        let subject = ROOM.line(&letter.notice.subject, SUBJECT);
        let short = Notice {
            subject,
            text: ROOM.text(letter),
            warnings: ROOM.warnings(letter),
            ..letter.notice.clone()
        };
        request.body = payload(letter, &short).to_string();
    }
    let (id, timestamp) = (message_id(&letter.notice.id), now.timestamp().to_string());
    let signatures: Vec<String> =
        keys.iter().map(|key| sign(key, &id, &timestamp, &request.body)).collect();
    let headers = [
        ("webhook-id", id),
        ("webhook-timestamp", timestamp),
        ("webhook-signature", signatures.join(" ")),
    ];
    request.headers.extend(headers.map(|(name, value)| (name.to_owned(), value)));
    request
}

fn payload(letter: &Letter<'_>, notice: &Notice) -> serde_json::Value {
    // Several notices in one are of no single kind.
    let kind = if notice.id.starts_with("digest/") { "digest" } else { notice.kind.as_str() };
    let mut payload =
        json!({"type": format!("sync.{kind}"), "timestamp": render(notice.at), "data": notice});
    for (name, link) in links(letter) {
        let key = if name == REPORT { "link" } else { "runbook_link" };
        payload["data"][key] = link.into();
    }
    payload
}

/// Returns the id of a notice as it stands in a header and is signed.
///
/// # Source
///
/// Standard Webhooks 1.0, "Signature scheme": the id must not "be allowed to include any `.`". The
/// id of a digest holds an instant, with its milliseconds.
fn message_id(id: &str) -> String {
    id.chars()
        .map(
            |character| {
                if character.is_ascii_graphic() && character != '.' { character } else { '_' }
            },
        )
        .collect()
}

/// Signs a message.
///
/// # Source
///
/// Standard Webhooks 1.0: the signed content is `id.timestamp.payload`, the scheme `v1` is
/// HMAC-SHA256, keys are "base64 encoded, and prefixed with `whsec_`".
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

#[cfg(test)]
mod tests {
    use super::super::tests::{body, failure, hostile, letter, request};
    use super::*;
    use crate::config::Receiver;

    fn receiver() -> Receiver {
        Receiver::Webhook {
            url_secret: "URL".to_owned(),
            signing_secrets: vec!["KEY".to_owned(), "OTHER".to_owned()],
        }
    }

    fn header(request: &HttpRequest, name: &str) -> String {
        let found = request.headers.iter().find(|(header, _)| header == name);
        found.expect("the header is sent").1.clone()
    }

    #[test]
    fn a_signature_is_that_of_the_standards_example() {
        // Source: Standard Webhooks, the example of its reference implementations.
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        assert_eq!(
            sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", "{\"test\": 2432232314}"),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn every_key_signs_what_is_sent() {
        let sent = request(&letter(&failure()), &receiver());
        let (id, timestamp) = (header(&sent, "webhook-id"), header(&sent, "webhook-timestamp"));
        assert_eq!((id.as_str(), timestamp.as_str()), ("hub/20261121/failed", "1795255351"));
        let by = |key: &str| sign(&Secret::new(key.to_owned()), &id, &timestamp, &sent.body);
        assert_eq!(header(&sent, "webhook-signature"), format!("{} {}", by("key"), by("other")));
        assert_eq!(by("other"), by("whsec_b3RoZXI="));
    }

    #[test]
    fn a_notice_that_fits_is_sent_as_it_is_with_its_links() {
        let notice = Notice { text: "a\u{7}b ".repeat(1_000), ..failure() };
        let sent = body(&letter(&notice), &receiver());
        assert_eq!(
            serde_json::from_value::<Notice>(sent["data"].clone()).expect("a notice"),
            notice
        );
        assert_eq!(sent["type"], "sync.failed");
        assert_eq!(sent["data"]["link"], "https://firstlight.example.com/runs/20261121?pair=hub");
        assert_eq!(sent["data"]["runbook_link"], "https://git.example.com/runbooks/run-failed.md");
        let bare =
            body(&Letter { public_url: None, runbooks_url: None, ..letter(&notice) }, &receiver());
        assert!(bare["data"].get("link").is_none() && bare["data"].get("runbook_link").is_none());
    }

    #[test]
    fn a_long_notice_is_shortened_and_says_where_the_whole_is() {
        for public_url in [Some("https://firstlight.example.com"), None] {
            let notice = hostile();
            let letter = Letter { public_url, ..letter(&notice) };
            let sent = request(&letter, &receiver()).body;
            assert!(sent.len() < PAYLOAD, "{}", sent.len());
            let sent: serde_json::Value = serde_json::from_str(&sent).expect("it is JSON");
            let warnings = sent["data"]["warnings"].as_array().expect("a list");
            let place = public_url.map_or(
                "GET /runs/20261121",
                |_| "https://firstlight.example.com/runs/20261121?pair=hub",
            );
            let last = warnings.last().and_then(|last| last.as_str()).expect("a text");
            assert_eq!(last, format!("and {} more, told at {place}", 501 - warnings.len()));
            assert!(
                sent["data"]["text"]
                    .as_str()
                    .is_some_and(|text| text.ends_with(&format!("… the whole is at {place}")))
            );
        }
    }

    #[test]
    fn an_id_is_fit_for_a_header_and_a_signature() {
        assert_eq!(message_id("hub/20261121/failed"), "hub/20261121/failed");
        assert_eq!(
            message_id("digest/büro\n1/2026-11-21T10:00:00.000Z"),
            "digest/b_ro_1/2026-11-21T10:00:00_000Z"
        );
    }
}
