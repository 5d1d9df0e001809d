//! A Microsoft Teams workflow ("Post to a channel when a webhook request is received"), with an
//! Adaptive Card.
//!
//! Invariants: what a notice tells is a `TextRun`, in which no Markdown is read; a `TextBlock` or a
//! fact, in which it is, holds names of ours alone. Nobody is mentioned: a mention needs an entity
//! in `msteams`, and there is none.
//!
//! Source: Microsoft Teams, "Send Adaptive Cards using an Incoming Webhook", for what stands around
//! the card; Adaptive Cards, schema explorer, `TextRun`: "Markdown is not supported", and
//! `FactSet`, `Action.OpenUrl`. UNVERIFIED: that a line break within a `TextRun` is shown.

use serde_json::{Value, json};

use super::shorten::{Room, json_bytes, plain};
use super::{Letter, links};
use crate::config::Severity;

/// Subject, text and warnings take 17,300 bytes at most, with what stands around them less than
/// 20,000.
///
/// Source: Microsoft Teams connector, "Message size limit": about 28 KB, or the action fails with
/// "Request Entity too large". Others, such as the library `msteams_hermes`, have seen 21 kB
/// refused, so this keeps below.
const ROOM: Room =
    Room { text: 6_000, warnings: 11_000, around: AROUND, count: json_bytes, write: plain };

/// Bytes of a block that holds nothing, with its bullet and comma.
const AROUND: usize = 80;

/// Bytes of the subject.
const SUBJECT: usize = 300;

/// Writes a notice.
pub(super) fn body(letter: &Letter<'_>) -> Value {
    let notice = letter.notice;
    let color = match notice.severity() {
        Severity::Urgent => "Attention",
        Severity::Warning => "Warning",
        Severity::Info => "Good",
    };
    let subject = ROOM.line(&notice.subject, SUBJECT);
    let title = json!({"type": "TextRun", "text": subject, "size": "Large", "weight": "Bolder",
            "color": color});
    let mut blocks = vec![block(&title, "Default"), block(&ROOM.text(letter).into(), "Default")];
    blocks.extend(
        ROOM.warnings(letter)
            .into_iter()
            .map(|warning| block(&format!("• {warning}").into(), "Small")),
    );
    let facts = [
        ("Pair", Some(notice.pair.as_str())),
        ("Run", Some(notice.run.as_str())),
        ("Incident", notice.incident.as_deref()),
    ];
    let facts = facts
        .into_iter()
        .filter_map(|(title, value)| Some(json!({"title": title, "value": value?})));
    blocks.push(json!({"type": "FactSet", "facts": facts.collect::<Vec<_>>()}));
    let actions = links(letter)
        .into_iter()
        .map(|(name, link)| json!({"type": "Action.OpenUrl", "title": name, "url": link}));
    json!({"type": "message", "attachments": [{
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": null,
        "content": {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "msteams": {"width": "Full"},
            "body": blocks,
            "actions": actions.collect::<Vec<_>>(),
        },
    }]})
}

/// Returns a block of text, which wraps.
fn block(run: &Value, spacing: &str) -> Value {
    json!({"type": "RichTextBlock", "spacing": spacing, "inlines": [run]})
}

#[cfg(test)]
mod tests {
    use super::super::tests::{body, failure, hostile, letter};
    use super::*;
    use crate::config::{NoticeKind, Receiver};
    use crate::sync::notice::Notice;

    fn sent(letter: &Letter<'_>) -> Value {
        body(letter, &Receiver::Teams { url_secret: "URL".to_owned() })
    }

    #[test]
    fn a_failure_is_written_so() {
        let sent = sent(&letter(&failure()));
        assert_eq!(
            (&sent["type"], &sent["attachments"][0]["contentUrl"]),
            (&json!("message"), &Value::Null)
        );
        let card = &sent["attachments"][0]["content"];
        assert_eq!((&card["type"], &card["version"]), (&json!("AdaptiveCard"), &json!("1.4")));
        assert_eq!(
            card["body"],
            json!([
                {"type": "RichTextBlock", "spacing": "Default", "inlines": [{
                    "type": "TextRun", "text": failure().subject, "size": "Large",
                    "weight": "Bolder", "color": "Attention"
                }]},
                {"type": "RichTextBlock", "spacing": "Default", "inlines": [failure().text]},
                {"type": "RichTextBlock", "spacing": "Small",
                    "inlines": ["• table public.user_accounts: 2 rows differ"]},
                {"type": "FactSet", "facts": [
                    {"title": "Pair", "value": "hub"}, {"title": "Run", "value": "20261121"},
                    {"title": "Incident", "value": "hub-20261121"}
                ]},
            ])
        );
        assert_eq!(
            card["actions"],
            json!([
                {"type": "Action.OpenUrl", "title": "Report",
                    "url": "https://firstlight.example.com/runs/20261121?pair=hub"},
                {"type": "Action.OpenUrl", "title": "Runbook",
                    "url": "https://git.example.com/runbooks/run-failed.md"},
            ])
        );
    }

    #[test]
    fn the_colour_is_that_of_the_severity() {
        for (kind, color) in [
            (NoticeKind::Late, "Attention"),
            (NoticeKind::AtRisk, "Warning"),
            (NoticeKind::Resolved, "Good"),
        ] {
            let notice = Notice { kind, ..failure() };
            assert_eq!(
                sent(&letter(&notice))["attachments"][0]["content"]["body"][0]["inlines"][0]["color"],
                color
            );
        }
    }

    #[test]
    fn a_long_notice_is_less_than_20_kilobytes_and_says_where_the_whole_is() {
        let notice = hostile();
        let sent = sent(&letter(&notice));
        assert!(sent.to_string().len() < 20_000, "{}", sent.to_string().len());
        let card = &sent["attachments"][0]["content"];
        let blocks = card["body"].as_array().expect("a list");
        let last = &blocks[blocks.len() - 2]["inlines"][0];
        assert!(
            last.as_str().is_some_and(
                |text| text.starts_with("• and ") && text.ends_with("/runs/20261121?pair=hub")
            ),
            "{last}"
        );
        assert!(
            blocks.iter().all(|block| block["type"] != "TextBlock"),
            "a text of a notice would be read as Markdown"
        );
        assert_eq!(card["msteams"], json!({"width": "Full"}), "nobody is mentioned");
    }

    #[test]
    fn a_block_takes_no_more_than_is_counted_for_it() {
        assert!(block(&"• ".into(), "Small").to_string().len() < AROUND);
    }
}
