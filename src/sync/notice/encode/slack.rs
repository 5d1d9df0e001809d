//! Slack's incoming webhook, with Block Kit.
//!
//! Invariants: what a notice tells is a `plain_text` object, in which Slack reads no mark-up and no
//! mentions, since `mrkdwn` has no way to write `*` or `_` as itself. The one `mrkdwn` object holds
//! names of ours and links, and is `verbatim`.
//!
//! Source: Slack, Block Kit reference, blocks and text object; Slack, "Formatting message text",
//! escaping: `&`, `<` and `>` "must be converted to HTML entities". UNVERIFIED: that a `plain_text`
//! object shows these three as they are when they are not converted; buttons are reported to.

use serde_json::{Value, json};

use super::shorten::{Room, entities, plain};
use super::{Letter, links};

/// Characters of a header.
///
/// Source: Slack, header block: "Maximum length for the text in this field is 150 characters".
const HEADER: usize = 150;

/// Characters of a section.
///
/// Source: Slack, text object: "The minimum length is 1 and maximum length is 3000 characters".
const SECTION: usize = 3_000;

/// One section holds the text. The longest warning takes 2,025, so that every section but the last
/// holds 970 and more, and warnings take ten at most: with header, text and context 13 blocks of
/// the 50 that a message may have.
///
/// Source: Slack, Block Kit reference: "You can include up to 50 blocks in each message".
const ROOM: Room = Room { text: SECTION, warnings: 8_100, around: 3, count, write: plain };

/// What notifications show, and what services that take Slack's messages without its blocks show of
/// it.
const FALLBACK: Room = Room { text: 2_500, count: char::len_utf16, write: entities, ..ROOM };

/// Writes a notice.
pub(super) fn body(letter: &Letter<'_>) -> Value {
    let notice = letter.notice;
    let subject = FALLBACK.line(&notice.subject, 400);
    let mut blocks = vec![
        json!({"type": "header", "text": text(&ROOM.line(&notice.subject, HEADER))}),
        section(&ROOM.text(letter)),
    ];
    blocks.extend(sections(&ROOM.warnings(letter)));
    blocks.push(json!({"type": "context",
                "elements": [{"type": "mrkdwn", "text": context(letter), "verbatim": true}]}));
    json!({"text": format!("{subject}\n{}", FALLBACK.text(letter)), "blocks": blocks})
}

/// Counts a character as Slack may: with what it converts to an entity itself.
fn count(character: char) -> usize {
    match character {
        '&' => 5,
        '<' | '>' => 4,
        other => other.len_utf16(),
    }
}

fn text(text: &str) -> Value {
    json!({"type": "plain_text", "text": text, "emoji": false})
}

fn section(lines: &str) -> Value {
    // A text that is empty would make Slack refuse the whole message.
    json!({"type": "section", "text": text(if lines.is_empty() { "—" } else { lines })})
}

/// Writes lines as a list, in as many sections as it takes.
fn sections(lines: &[String]) -> Vec<Value> {
    let mut blocks = Vec::new();
    let mut list = String::new();
    for line in lines {
        if !list.is_empty() && ROOM.size(&list) + ROOM.size(line) + ROOM.around > SECTION {
            blocks.push(section(&list));
            list.clear();
        }
        let lead = if list.is_empty() { "• " } else { "\n• " };
        list.push_str(lead);
        list.push_str(line);
    }
    if !list.is_empty() {
        blocks.push(section(&list));
    }
    blocks
}

/// Says what a notice is about, and where there is more.
fn context(letter: &Letter<'_>) -> String {
    let notice = letter.notice;
    let mut parts = vec![notice.pair.to_string(), format!("run {}", notice.run)];
    parts.extend(notice.incident.iter().map(|incident| format!("incident {incident}")));
    parts.extend(
        links(letter).iter().map(|(name, link)| format!("<{}|{name}>", link.replace('&', "&amp;"))),
    );
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{body, failure, hostile, letter};
    use super::*;
    use crate::config::Receiver;
    use crate::sync::notice::Notice;

    fn sent(letter: &Letter<'_>) -> Value {
        body(letter, &Receiver::Slack { url_secret: "URL".to_owned() })
    }

    #[test]
    fn a_failure_is_written_so() {
        assert_eq!(
            sent(&letter(&failure())),
            json!({
                "text": "[URGENT] [CAIO Hub] Daily sync FAILED — 2026-11-21\nProduction → staging \
                    sync failed at step 4 of 7 (restore staging). Error: none recorded.",
                "blocks": [
                    {"type": "header",
                        "text": text("[URGENT] [CAIO Hub] Daily sync FAILED — 2026-11-21")},
                    {"type": "section",
                        "text": text("Production → staging sync failed at step 4 of 7 (restore \
                            staging). Error: none recorded.")},
                    {"type": "section",
                        "text": text("• table public.user_accounts: 2 rows differ")},
                    {"type": "context", "elements": [{"type": "mrkdwn", "verbatim": true, "text":
                        "hub · run 20261121 · incident hub-20261121 · \
                         <https://firstlight.example.com/runs/20261121?pair=hub|Report> · \
                         <https://git.example.com/runbooks/run-failed.md|Runbook>"}]},
                ]
            })
        );
    }

    #[test]
    fn slack_gets_no_markup_from_a_notice_and_no_text_that_is_too_long() {
        let notice = hostile();
        let sent = sent(&letter(&notice));
        let blocks = sent["blocks"].as_array().expect("a list");
        let (context, others) = blocks.split_last().expect("there is a context");
        assert!(blocks.len() > 5 && blocks.len() <= 13, "{}", blocks.len());
        for block in others {
            let text = block["text"]["text"].as_str().expect("a text");
            let limit = if block["type"] == "header" { 150 } else { 3_000 };
            assert!(!text.is_empty() && text.chars().map(count).sum::<usize>() <= limit, "{text}");
            assert_eq!(block["text"]["type"], "plain_text");
        }
        let text = context["elements"][0]["text"].as_str().expect("a text");
        assert!(
            text.starts_with("hub · run 20261121")
                && text.contains("<https://firstlight.example.com/runs/20261121?pair=hub|Report>")
        );
        assert!(
            others[1]["text"]["text"]
                .as_str()
                .is_some_and(|text| text.ends_with("/runs/20261121?pair=hub"))
        );
    }

    #[test]
    fn the_fallback_is_escaped_and_no_entity_is_cut() {
        for length in 2_300..2_330 {
            let notice = Notice {
                text: format!("{}{}", "x".repeat(length), "<!channel>&".repeat(100)),
                ..failure()
            };
            let sent = sent(&letter(&notice));
            let text = sent["text"].as_str().expect("a text");
            assert!(text.chars().count() <= 3_000 && !text.contains('<') && !text.contains('>'));
            let rest = text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "");
            assert!(!rest.contains('&'), "{rest}");
        }
    }

    #[test]
    fn a_text_that_is_empty_is_not_sent_as_such() {
        let notice = Notice { text: String::new(), warnings: Vec::new(), ..failure() };
        assert_eq!(sent(&letter(&notice))["blocks"][1]["text"]["text"], "—");
    }
}
