//! Any HTTP call, with a body that is configured.
//!
//! Invariants: each fact stands in the body as the media type wants it, so that it is nothing but
//! text there; a fact that is absent is empty. A GET has no body.

use std::collections::BTreeMap;

use super::shorten::LONG;
use super::{Letter, report_link, runbook_link};
use crate::config::Template;
use crate::port::{HttpRequest, Method};
use crate::time::render;

/// Fills in headers and body.
pub(super) fn fill(
    request: &mut HttpRequest,
    letter: &Letter<'_>,
    headers: &BTreeMap<String, String>,
    content_type: &str,
    body: &Template,
) {
    request.headers.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    if request.method == Method::Get {
        return;
    }
    request.body = body.render(|name| fact(letter, name));
    if !headers.keys().any(|name| name.eq_ignore_ascii_case("content-type")) {
        request.headers.push(("content-type".to_owned(), content_type.to_owned()));
    }
}

/// Returns a fact of a notice; empty where it has none.
///
/// The runbook is its address, or the name of its page where nobody knows where the pages are.
pub(super) fn fact(letter: &Letter<'_>, name: &str) -> String {
    let notice = letter.notice;
    match name {
        "id" => notice.id.clone(),
        "kind" => notice.kind.as_str().to_owned(),
        "severity" => notice.severity().as_str().to_owned(),
        "pair" => notice.pair.to_string(),
        "run" => notice.run.to_string(),
        "at" => render(notice.at),
        "subject" => LONG.line(&notice.subject, LONG.text),
        "text" => LONG.text(letter),
        "warnings" => LONG.warnings(letter).join("\n"),
        "runbook" => runbook_link(letter).or_else(|| notice.runbook.clone()).unwrap_or_default(),
        "link" => report_link(letter).unwrap_or_default(),
        "incident" => notice.incident.clone().unwrap_or_default(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{failure, hostile, letter, request};
    use super::*;
    use crate::config::{FACTS, Good, Receiver, Writing};
    use crate::sync::notice::Notice;

    fn receiver(method: Method, content_type: &str, text: &str) -> Receiver {
        Receiver::Http {
            url_secret: "URL".to_owned(),
            method,
            headers: BTreeMap::from([("x-source".to_owned(), "firstlight".to_owned())]),
            secret_headers: BTreeMap::from([("authorization".to_owned(), "KEY".to_owned())]),
            content_type: content_type.to_owned(),
            body: Template::read(text, Writing::of(content_type)).expect("every place is a fact"),
            good: Good::default(),
        }
    }

    fn all() -> String {
        FACTS.map(|fact| format!("{fact}={{{{{fact}}}}}")).join("\n")
    }

    #[test]
    fn every_fact_is_filled_in() {
        let notice =
            Notice { warnings: vec!["one".to_owned(), "two\nlines".to_owned()], ..failure() };
        let sent = request(&letter(&notice), &receiver(Method::Put, "text/plain", &all()));
        assert_eq!(
            sent.body,
            format!(
                "id=hub/20261121/failed\nkind=failed\nseverity=urgent\npair=hub\nrun=20261121\nat=2026-11-21T10:02:31.250Z\n\
                 subject={}\ntext={}\nwarnings=one\ntwo \
                 lines\nrunbook=https://git.example.com/runbooks/run-failed.md\n\
                 link=https://firstlight.example.com/runs/20261121?pair=hub\nincident=hub-20261121",
                notice.subject, notice.text
            )
        );
        assert_eq!(
            (sent.method, sent.url.as_str()),
            (Method::Put, "https://hook.example.com/a?b=c")
        );
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            sent.headers,
            [header("x-source", "firstlight"), header("content-type", "text/plain")]
        );
        assert!(
            sent.secret_headers
                .iter()
                .all(|(name, value)| name == "authorization" && value.reveal() == "key")
        );
        assert_eq!(sent.secret_headers.len(), 1);
    }

    #[test]
    fn a_fact_that_is_absent_is_empty() {
        let notice = Notice { runbook: None, incident: None, warnings: Vec::new(), ..failure() };
        let letter = Letter { public_url: None, runbooks_url: None, ..letter(&notice) };
        let sent = request(
            &letter,
            &receiver(Method::Post, "text/plain", "<{{runbook}}{{link}}{{incident}}{{warnings}}>"),
        );
        assert_eq!(sent.body, "<>");
        let page = Notice { runbook: Some("late.md".to_owned()), ..failure() };
        assert_eq!(
            request(
                &Letter { notice: &page, ..letter },
                &receiver(Method::Post, "text/plain", "{{runbook}}")
            )
            .body,
            "late.md"
        );
    }

    #[test]
    fn a_get_has_no_body_and_no_content_type() {
        let sent = request(&letter(&failure()), &receiver(Method::Get, "application/json", ""));
        assert!(sent.body.is_empty());
        assert_eq!(sent.headers, [("x-source".to_owned(), "firstlight".to_owned())]);
    }

    #[test]
    fn a_hostile_notice_stays_within_its_json_and_is_shortened() {
        let notice = hostile();
        let text = FACTS.map(|fact| format!("\"{fact}\":\"{{{{{fact}}}}}\"")).join(",");
        let sent = request(
            &letter(&notice),
            &receiver(Method::Post, "application/json", &format!("{{{text}}}")),
        );
        let body: serde_json::Value = serde_json::from_str(&sent.body).expect("it is JSON");
        assert_eq!(body.as_object().map(serde_json::Map::len), Some(FACTS.len()));
        assert!(sent.body.len() < 100_000);
        assert!(body["text"].as_str().is_some_and(|text| {
            text.ends_with(
                "… the whole is at https://firstlight.example.com/runs/20261121?pair=hub",
            )
        }));
    }
}
