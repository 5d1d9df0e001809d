//! Discord's webhook, with an embed.
//!
//! Invariants: no mention calls anybody: `allowed_mentions` allows none; what a notice tells is
//! written with backslashes before what Discord reads as Markdown.
//!
//! Failure: `wait=true` is asked for, since without it a message that Discord does not save is
//! answered with success.
//!
//! Source: Discord, developer documentation, Webhook resource, "Execute Webhook": "when `false` a
//! message that is not saved does not return an error"; Message resource, "Embed limits".
//! UNVERIFIED: that a title, too, shows an escaped character without its backslash.

use serde_json::{Value, json};

use super::http::fact;
use super::shorten::Room;
use super::{Letter, links, report};
use crate::config::{Severity, Template};
use crate::time::render;

/// Characters of a title.
///
/// Source: Discord, "Embed limits": title 256, description 4,096, field name 256 and value 1,024,
/// footer 2,048, 25 fields; all together 6,000.
const TITLE: usize = 256;

/// Characters of the footer. With 256 of the title, 3,950 of the description and 1,200 of the
/// fields an embed has 5,510 of the 6,000.
const FOOTER: usize = 100;

/// The description holds both: 3,950 of 4,096 characters.
const ROOM: Room =
    Room { text: 1_950, warnings: 2_000, around: 3, count: char::len_utf16, write: markdown };

/// Returns the address that answers only when the message is saved.
pub(super) fn address(url: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}wait=true")
}

/// Characters of the name of a thread.
///
/// Source: Discord, Channel resource, "Start Thread in Forum or Media Channel": 1 to 100
/// characters.
const THREAD: usize = 100;

/// Writes a notice; in a forum it begins a thread, which needs a name.
pub(super) fn body(letter: &Letter<'_>, thread_name: Option<&Template>) -> Value {
    let notice = letter.notice;
    let mut description = ROOM.text(letter);
    for warning in ROOM.warnings(letter) {
        description.push_str("\n• ");
        description.push_str(&warning);
    }
    let color = match notice.severity() {
        Severity::Urgent => 0xD9_2D_20,
        Severity::Warning => 0xF7_90_09,
        Severity::Info => 0x12_B7_6A,
    };
    let mut embed = json!({
        "title": ROOM.line(&notice.subject, TITLE),
        "description": description,
        "color": color,
        "fields": fields(letter),
        "footer": {"text": ROOM.line(&notice.id, FOOTER)},
        "timestamp": render(notice.at),
    });
    if let Some(link) = report(letter) {
        embed["url"] = link.into();
    }
    let mut body = json!({"embeds": [embed], "allowed_mentions": {"parse": []}});
    if let Some(thread_name) = thread_name {
        let name = thread_name.render(|name| fact(letter, name));
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        let name: String = name.chars().take(THREAD).collect();
        // A name that is empty would make Discord refuse the whole message.
        body["thread_name"] = if name.is_empty() { "Firstlight".into() } else { name.into() };
    }
    body
}

fn fields(letter: &Letter<'_>) -> Vec<Value> {
    let notice = letter.notice;
    let links: Vec<String> =
        links(letter).iter().map(|(name, link)| format!("[{name}]({link})")).collect();
    let fields = [
        ("Pair", notice.pair.to_string(), true),
        ("Run", notice.run.to_string(), true),
        ("Incident", notice.incident.clone().unwrap_or_default(), true),
        ("Links", links.join(" · "), false),
    ];
    let told = fields.into_iter().filter(|(_, value, _)| !value.is_empty());
    told.map(|(name, value, inline)| json!({"name": name, "value": value, "inline": inline}))
        .collect()
}

/// Writes a character so that Discord reads no Markdown in it.
///
/// # Source
///
/// Discord, help centre, "Markdown Text 101": a backslash before a character makes it one of the
/// text. Headings, lists and quotes begin a line, and `](` is the middle of a link. In an address
/// nothing is read but its end, so that a backslash would become a part of it; so does
/// `discord-markdown-parser`, which a test asks.
fn markdown(previous: char, character: char, into: &mut String) {
    let word = into.rsplit([' ', '\n', '<']).next().unwrap_or_default();
    let is_in_address = word.contains("https://") || word.contains("http://");
    let is_markup = match character {
        '<' => true,
        '\\' | '*' | '_' | '~' | '`' | '|' => !is_in_address,
        '#' | '-' | '+' | '>' => previous == '\n',
        '(' => previous == ']',
        _ => false,
    };
    if is_markup {
        into.push('\\');
    }
    into.push(character);
}

#[cfg(test)]
mod tests {
    use super::super::tests::{body, failure, hostile, letter, request};
    use super::*;
    use crate::config::Receiver;
    use crate::sync::notice::Notice;

    fn receiver() -> Receiver {
        Receiver::Discord { url_secret: "URL".to_owned(), thread_name: None }
    }

    #[test]
    fn a_failure_is_written_so() {
        assert_eq!(
            body(&letter(&failure()), &receiver()),
            json!({
                "embeds": [{
                    "title": "[URGENT] [CAIO Hub] Daily sync FAILED — 2026-11-21",
                    "url": "https://firstlight.example.com/runs/20261121?pair=hub",
                    "description": "Production → staging sync failed at step 4 of 7 (restore \
                        staging). Error: none recorded.\n\
                        • table public.user\\_accounts: 2 rows differ",
                    "color": 0xD9_2D_20,
                    "fields": [
                        {"name": "Pair", "value": "hub", "inline": true},
                        {"name": "Run", "value": "20261121", "inline": true},
                        {"name": "Incident", "value": "hub-20261121", "inline": true},
                        {"name": "Links", "inline": false,
                            "value": "[Report](https://firstlight.example.com/runs/20261121?pair=hub) · \
                                [Runbook](https://git.example.com/runbooks/run-failed.md)"},
                    ],
                    "footer": {"text": "hub/20261121/failed"},
                    "timestamp": "2026-11-21T10:02:31.250Z",
                }],
                "allowed_mentions": {"parse": []},
            })
        );
    }

    #[test]
    fn a_long_notice_stays_within_every_limit_and_calls_nobody() {
        let notice = Notice { id: "x".repeat(3_000), ..hostile() };
        let (public, runbooks) = (
            format!("https://{}.example", "p".repeat(430)),
            format!("https://{}.example", "r".repeat(450)),
        );
        let letter =
            Letter { public_url: Some(&public), runbooks_url: Some(&runbooks), ..letter(&notice) };
        let sent = body(&letter, &receiver());
        assert_eq!(sent["allowed_mentions"]["parse"], json!([]));
        assert!(sent.get("content").is_none());
        let embed = &sent["embeds"][0];
        let size = |value: &Value| value.as_str().expect("a text").encode_utf16().count();
        let (title, description, footer) =
            (size(&embed["title"]), size(&embed["description"]), size(&embed["footer"]["text"]));
        assert!(
            title <= 256 && description <= 4_096 && footer <= 2_048,
            "{title} {description} {footer}"
        );
        let fields = embed["fields"].as_array().expect("a list");
        assert!(fields.iter().all(|field| size(&field["value"]) <= 1_024));
        let together: usize =
            fields.iter().map(|field| size(&field["name"]) + size(&field["value"])).sum();
        assert!(title + description + footer + together <= 6_000);
        assert!(
            fields[3]["value"]
                .as_str()
                .is_some_and(|links| links.contains("/runs/20261121?pair=hub"))
        );
        assert!(embed["description"].as_str().is_some_and(|text| text.contains("and 4")));
    }

    /// As in case 22: a forum takes what begins a thread.
    #[test]
    fn in_a_forum_each_notice_begins_a_thread_with_a_name() {
        use crate::config::{Template, Writing};

        let name = |text: &str, notice: &Notice| {
            let thread_name =
                Some(Template::read(text, Writing::Plain).expect("every place is a fact"));
            body(&letter(notice), &Receiver::Discord { url_secret: "URL".to_owned(), thread_name })
                ["thread_name"]
                .clone()
        };
        assert_eq!(name("{{pair}}: {{kind}} of {{run}}", &failure()), "hub: failed of 20261121");
        assert_eq!(
            name("{{subject}}", &hostile()).as_str().map(|name| name.chars().count()),
            Some(100)
        );
        assert_eq!(name("{{incident}}", &Notice { incident: None, ..failure() }), "Firstlight");
        assert!(body(&letter(&failure()), &receiver()).get("thread_name").is_none());
    }

    #[test]
    fn markdown_is_written_as_text() {
        let notice = Notice {
            text: "# a\n- b *c* __d__ `e` ||f|| ~~g~~ <@1> [h](https://i.example) 4 (of 7) \\"
                .to_owned(),
            ..failure()
        };
        let sent = body(
            &Letter { public_url: None, ..letter(&Notice { warnings: Vec::new(), ..notice }) },
            &receiver(),
        );
        assert_eq!(
            sent["embeds"][0]["description"],
            "\\# a\n\\- b \\*c\\* \\_\\_d\\_\\_ \\`e\\` \\|\\|f\\|\\| \\~\\~g\\~\\~ \\<@1> \
             [h]\\(https://i.example) 4 (of 7) \\\\"
        );
        assert!(sent["embeds"][0].get("url").is_none());
    }

    #[test]
    fn an_address_is_written_as_it_is() {
        let notice = Notice {
            text: "sign_in: GET https://a.example/b_c*d|e answered 500, g_h".to_owned(),
            ..failure()
        };
        let sent = body(
            &Letter { public_url: None, ..letter(&Notice { warnings: Vec::new(), ..notice }) },
            &receiver(),
        );
        assert_eq!(
            sent["embeds"][0]["description"],
            "sign\\_in: GET https://a.example/b_c*d|e answered 500, g\\_h"
        );
    }

    #[test]
    fn success_is_answered_only_when_the_message_is_saved() {
        assert_eq!(
            request(&letter(&failure()), &receiver()).url,
            "https://hook.example.com/a?b=c&wait=true"
        );
        assert_eq!(
            address("https://discord.com/api/webhooks/1/a"),
            "https://discord.com/api/webhooks/1/a?wait=true"
        );
    }
}
