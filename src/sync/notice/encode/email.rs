//! A message through a `send_email` binding.
//!
//! Shape: a POST to `email:<binding>` of
//! `{"from":"…","to":["…"],"subject":"…","text":"…","html":"…"}`, which the platform hands to that
//! binding.
//!
//! Invariants: the text of a notice stands in the message as it is; the HTML tells the same,
//! without anything that is fetched and without styles. A subject is one line, so that it brings no
//! header of its own.
//!
//! Source: Cloudflare Email Service, "Workers API", `send()`, and "Limits".

use serde_json::{Value, json};

use super::shorten::{LONG, Room, entities};
use super::{Letter, links};

/// Characters of a subject: what programs show of one, and more.
///
/// Source: Cloudflare Email Service, "Limits": "Subject line: 998 characters", as in RFC 5322. A
/// message may have 5 MiB, of which text and HTML take 0.2 at most.
const SUBJECT: usize = 200;

/// The HTML has the room of the text.
const HTML: Room = Room { around: "<li></li>\n".len(), write: html, ..LONG };

/// Writes a notice.
pub(super) fn body(letter: &Letter<'_>, from: &str, to: &[String]) -> Value {
    json!({"from": from, "to": to, "subject": LONG.line(&letter.notice.subject, SUBJECT),
            "text": text(letter), "html": page(letter)})
}

/// Writes a notice as plain text: what happened, each warning on a line, and the links.
pub(super) fn text(letter: &Letter<'_>) -> String {
    let mut text = LONG.text(letter);
    text.push('\n');
    let warnings = LONG.warnings(letter);
    if !warnings.is_empty() {
        text.push_str("\nWarnings:\n");
    }
    for warning in warnings {
        text.push_str("- ");
        text.push_str(&warning);
        text.push('\n');
    }
    let links = links(letter);
    if !links.is_empty() {
        text.push('\n');
    }
    for (name, link) in links {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(&link);
        text.push('\n');
    }
    text
}

fn page(letter: &Letter<'_>) -> String {
    let (subject, text) = (HTML.line(&letter.notice.subject, SUBJECT), HTML.text(letter));
    let mut page =
        format!("<!DOCTYPE html>\n<html lang=\"en\">\n<body>\n<h3>{subject}</h3>\n<p>{text}</p>\n");
    let warnings = HTML.warnings(letter);
    if !warnings.is_empty() {
        page.push_str("<p>Warnings:</p>\n<ul>\n");
        for warning in warnings {
            page.push_str("<li>");
            page.push_str(&warning);
            page.push_str("</li>\n");
        }
        page.push_str("</ul>\n");
    }
    for (name, link) in links(letter) {
        let link = HTML.line(&link, usize::MAX);
        page.push_str("<p>");
        page.push_str(name);
        page.push_str(": <a href=\"");
        page.push_str(&link);
        page.push_str("\">");
        page.push_str(&link);
        page.push_str("</a></p>\n");
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// Writes a character so that HTML reads no mark-up in it.
fn html(previous: char, character: char, into: &mut String) {
    match character {
        '"' => into.push_str("&quot;"),
        '\n' => into.push_str("<br>"),
        other => entities(previous, other, into),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{body, failure, hostile, letter, request};
    use super::*;
    use crate::config::Receiver;
    use crate::sync::notice::Notice;

    fn receiver() -> Receiver {
        let to = vec!["director@example.com".to_owned(), "dana@example.com".to_owned()];
        Receiver::Email {
            binding: "EMAIL".to_owned(),
            from: "firstlight@example.com".to_owned(),
            to,
        }
    }

    #[test]
    fn a_failure_is_written_so() {
        let sent = body(&letter(&failure()), &receiver());
        assert_eq!(request(&letter(&failure()), &receiver()).url, "email:EMAIL");
        assert_eq!(
            (&sent["from"], &sent["to"]),
            (
                &json!("firstlight@example.com"),
                &json!(["director@example.com", "dana@example.com"])
            )
        );
        assert_eq!(sent["subject"], "[URGENT] [CAIO Hub] Daily sync FAILED — 2026-11-21");
        assert_eq!(
            sent["text"],
            "Production → staging sync failed at step 4 of 7 (restore staging). Error: none \
             recorded.\n\n\
             Warnings:\n- table public.user_accounts: 2 rows differ\n\n\
             Report: https://firstlight.example.com/runs/20261121?pair=hub\nRunbook: \
             https://git.example.com/runbooks/run-failed.md\n"
        );
        assert_eq!(
            sent["html"],
            "<!DOCTYPE html>\n<html lang=\"en\">\n<body>\n<h3>[URGENT] [CAIO Hub] Daily \
sync FAILED — 2026-11-21</h3>\n\
<p>Production → staging sync failed at step 4 of 7 (restore staging). Error: none \
recorded.</p>\n\
<p>Warnings:</p>\n<ul>\n<li>table public.user_accounts: 2 rows differ</li>\n</ul>\n\
<p>Report: <a href=\"https://firstlight.example.com/runs/20261121?pair=hub\">https://firstlight.example.com/runs/20261121?pair=hub</a></p>\n\
<p>Runbook: <a href=\"https://git.example.com/runbooks/run-failed.md\">https://git.example.com/runbooks/run-failed.md</a></p>\n\
</body>\n</html>\n"
        );
    }

    #[test]
    fn a_notice_with_nothing_more_is_its_text() {
        let notice = Notice { warnings: Vec::new(), ..failure() };
        let letter = Letter { public_url: None, runbooks_url: None, ..letter(&notice) };
        assert_eq!(text(&letter), format!("{}\n", notice.text));
    }

    #[test]
    fn a_subject_brings_no_header_and_is_short() {
        let notice = Notice {
            subject: format!("a\r\nBcc: b@example.com\u{0}{}", "ä".repeat(300)),
            ..failure()
        };
        let sent = body(&letter(&notice), &receiver());
        let subject = sent["subject"].as_str().expect("a text");
        assert!(
            subject.starts_with("a  Bcc: b@example.com ä") && subject.chars().count() <= 200,
            "{subject}"
        );
        assert!(!subject.contains(char::is_control));
    }

    #[test]
    fn a_long_notice_makes_no_mark_up_and_says_where_the_whole_is() {
        let notice = hostile();
        let sent = body(&letter(&notice), &receiver());
        assert!(sent.to_string().len() < 200_000, "{}", sent.to_string().len());
        let page = sent["html"].as_str().expect("a text");
        let ours = [
            "!DOCTYPE html",
            "html lang=\"en\"",
            "body",
            "h3",
            "p",
            "ul",
            "li",
            "br",
            "/a",
            "/h3",
            "/p",
            "/ul",
            "/li",
            "/body",
            "/html",
        ];
        for tag in page.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
            assert!(ours.contains(&tag) || tag.starts_with("a href=\"https://"), "{tag}");
        }
        for entity in page.split('&').skip(1).filter_map(|rest| rest.split(';').next()) {
            assert!(["amp", "lt", "gt", "quot"].contains(&entity), "{entity}");
        }
        for key in ["text", "html"] {
            let text = sent[key].as_str().expect("a text");
            assert!(text.contains(
                "… the whole is at https://firstlight.example.com/runs/20261121?pair=hub"
            ));
            assert!(
                text.contains(
                    " more, told at https://firstlight.example.com/runs/20261121?pair=hub"
                )
            );
        }
    }
}
