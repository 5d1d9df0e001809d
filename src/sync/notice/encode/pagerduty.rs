//! PagerDuty's Events API v2.
//!
//! Invariants: every notice of an incident has the same `dedup_key`, so that PagerDuty has one
//! alert for it, which the end of the incident resolves. The routing key is a secret and stands in
//! the body; the body is never logged.
//!
//! A test triggers an alert of severity `info`, which nothing resolves: whoever tests resolves it
//! by hand.
//!
//! Source: PagerDuty, developer documentation, Events API v2, "Send an Alert Event" and "Overview".

use serde_json::{Value, json};

use super::shorten::LONG;
use super::{Letter, links};
use crate::config::{NoticeKind, Severity};
use crate::id::Secret;
use crate::time::render;

/// Characters of a summary.
///
/// Source: PagerDuty, "Send an Alert Event": "The maximum permitted length of this property is 1024
/// characters". The whole is limited to 512 KB, of which [`LONG`] takes an eighth, or a quarter
/// where every character is one that JSON escapes.
const SUMMARY: usize = 1_024;

/// Characters of a key; ids of ours are shorter.
///
/// Source: the same: "The maximum permitted length of this property is 255 characters".
const KEY: usize = 255;

/// Writes a notice.
pub(super) fn body(letter: &Letter<'_>, routing_key: &Secret) -> Value {
    let notice = letter.notice;
    let action = if notice.kind == NoticeKind::Resolved { "resolve" } else { "trigger" };
    let severity = match notice.severity() {
        Severity::Urgent => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    };
    let links: Vec<Value> =
        links(letter).into_iter().map(|(text, href)| json!({"href": href, "text": text})).collect();
    let mut body = json!({
        "routing_key": routing_key.reveal(),
        "event_action": action,
        "dedup_key": dedup_key(letter),
        "payload": {
            "summary": LONG.line(&notice.subject, SUMMARY),
            "source": format!("firstlight/{}", notice.pair),
            "severity": severity,
            "timestamp": render(notice.at),
            "component": "staging",
            "group": letter.label,
            "class": notice.kind.as_str(),
            "custom_details": {
                "id": notice.id,
                "pair": notice.pair,
                "run": notice.run,
                "text": LONG.text(letter),
                "warnings": LONG.warnings(letter),
                "runbook": notice.runbook,
            },
        },
        "links": links,
        "client": "Firstlight",
    });
    if let Some(url) = letter.public_url {
        body["client_url"] = url.into();
    }
    body
}

/// Returns what makes notices one alert: the incident, or the notice where it is of none.
fn dedup_key(letter: &Letter<'_>) -> String {
    let notice = letter.notice;
    let key = notice
        .incident
        .as_ref()
        .map_or_else(|| notice.id.clone(), |incident| format!("firstlight/{incident}"));
    LONG.line(&key, KEY)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{body, failure, hostile, letter, request};
    use super::*;
    use crate::config::Receiver;
    use crate::sync::notice::Notice;

    fn receiver() -> Receiver {
        Receiver::PagerDuty {
            routing_key_secret: "KEY".to_owned(),
            url: "https://events.pagerduty.com/v2/enqueue".to_owned(),
        }
    }

    #[test]
    fn a_failure_is_written_so() {
        let notice = failure();
        assert_eq!(
            request(&letter(&notice), &receiver()).url,
            "https://events.pagerduty.com/v2/enqueue"
        );
        assert_eq!(
            body(&letter(&notice), &receiver()),
            json!({
                "routing_key": "key",
                "event_action": "trigger",
                "dedup_key": "firstlight/hub-20261121",
                "payload": {
                    "summary": "[URGENT] [CAIO Hub] Daily sync FAILED — 2026-11-21",
                    "source": "firstlight/hub",
                    "severity": "critical",
                    "timestamp": "2026-11-21T10:02:31.250Z",
                    "component": "staging",
                    "group": "CAIO Hub",
                    "class": "failed",
                    "custom_details": {
                        "id": "hub/20261121/failed", "pair": "hub", "run": "20261121",
                        "text": notice.text, "warnings": notice.warnings,
                        "runbook": "run-failed.md",
                    },
                },
                "links": [
                    {"href": "https://firstlight.example.com/runs/20261121?pair=hub",
                        "text": "Report"},
                    {"href": "https://git.example.com/runbooks/run-failed.md", "text": "Runbook"},
                ],
                "client": "Firstlight",
                "client_url": "https://firstlight.example.com",
            })
        );
    }

    #[test]
    fn the_end_of_an_incident_resolves_what_its_beginning_triggered() {
        let opened = failure();
        let resolved = Notice {
            kind: NoticeKind::Resolved,
            id: "hub/20261121/resolved".to_owned(),
            ..failure()
        };
        let (opened, resolved) =
            (body(&letter(&opened), &receiver()), body(&letter(&resolved), &receiver()));
        assert_eq!(
            (&opened["event_action"], &resolved["event_action"]),
            (&json!("trigger"), &json!("resolve"))
        );
        assert_eq!(opened["dedup_key"], resolved["dedup_key"]);
    }

    #[test]
    fn a_test_triggers_an_alert_of_its_own() {
        let notice = Notice {
            kind: NoticeKind::Test,
            id: "hub/20261121T143000Z/test-pager".to_owned(),
            incident: None,
            ..failure()
        };
        let sent = body(&letter(&notice), &receiver());
        assert_eq!(sent["dedup_key"], "hub/20261121T143000Z/test-pager");
        assert_eq!(
            (&sent["event_action"], &sent["payload"]["severity"]),
            (&json!("trigger"), &json!("info"))
        );
    }

    #[test]
    fn a_long_notice_stays_within_every_limit() {
        let notice = Notice { incident: Some("i".repeat(500)), ..hostile() };
        let sent = body(&letter(&notice), &receiver());
        let size = |value: &Value| value.as_str().expect("a text").chars().count();
        assert!(size(&sent["payload"]["summary"]) <= 1_024 && size(&sent["dedup_key"]) <= 255);
        assert!(sent.to_string().len() < 512_000);
        assert!(
            sent["payload"]["custom_details"]["text"]
                .as_str()
                .is_some_and(|text| text.ends_with("/runs/20261121?pair=hub"))
        );
    }
}
