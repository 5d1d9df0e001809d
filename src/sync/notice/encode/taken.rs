//! What the answer of a receiver means: a notice was taken, or refused and why.
//!
//! In: a [`Receiver`], its answer, the secrets. Out: nothing, or why the notice was not taken.
//!
//! Invariants: an answer of 2xx is no proof. Services refuse with 200 as well, each in its own
//! words; where those are known they are read, and for any other the settings say what a good
//! answer is. What a receiver said is told in one line and without the secrets that were sent to
//! it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::{Good, Receiver};
use crate::id::Secret;
use crate::port::{HttpResponse, answer};

/// Returns why an answer means that a notice was not taken; `None` where it was.
pub fn refusal(
    receiver: &Receiver,
    response: &HttpResponse,
    secrets: &BTreeMap<String, Secret>,
) -> Option<String> {
    let named = receiver.secrets().into_iter().filter_map(|(_, name)| secrets.get(name));
    let hidden: Vec<&str> = named.map(Secret::reveal).collect();
    let status = response.status;
    let what = if (200..300).contains(&status) {
        format!("answered {status}, but {}", refused_with_success(receiver, response)?)
    } else {
        let place = answer::moved_to(response, &hidden);
        place.map_or_else(
            || format!("answered {status}"),
            |place| format!("answered {status}, moved to {place}"),
        )
    };
    let words = answer::words_of_receiver(response, &hidden);
    Some(if words.is_empty() { what } else { format!("{what}: {words}") })
}

/// Returns what is wrong with an answer of 2xx.
///
/// # Source
///
/// Slack, incoming webhooks: a message that is taken is answered `ok`; `no_service` and others are
/// words of refusal; methods of its web API answer `{"ok": false, "error": …}` with 200.
/// Healthchecks.io, "Pinging API": 200 with `OK (not found)` or `OK (rate limited)` for a ping that
/// was not taken. Microsoft Teams, "Create incoming webhooks": 200 with "Webhook message delivery
/// failed with error: Microsoft Teams endpoint returned HTTP error 429 …". `DingTalk` and `WeCom`,
/// custom robots: 200 with `{"errcode": 310000, "errmsg": …}`, `errcode` 0 for success.
fn refused_with_success(receiver: &Receiver, response: &HttpResponse) -> Option<&'static str> {
    let body = answer::without_mark(&response.body).trim();
    let json: Option<Value> = serde_json::from_str(body).ok();
    let json = json.as_ref();
    if json.is_some_and(|json| {
        is_flag(json, false) || json["errcode"].as_i64().is_some_and(|code| code != 0)
    }) {
        return Some("it refused");
    }
    match receiver {
        Receiver::Slack { .. }
            if !body.eq_ignore_ascii_case("ok")
                && !json.is_some_and(|json| is_flag(json, true)) =>
        {
            Some("not \"ok\", which says that the message was taken")
        }
        Receiver::Teams { .. } if body.contains("delivery failed") => Some("it refused"),
        Receiver::Healthcheck { .. } if body.starts_with("OK (") => {
            Some("the check was not pinged")
        }
        Receiver::Http { good, .. } => not_good(good, body, json, response.is_cut),
        Receiver::Webhook { .. }
        | Receiver::Slack { .. }
        | Receiver::Discord { .. }
        | Receiver::Teams { .. }
        | Receiver::PagerDuty { .. }
        | Receiver::Email { .. }
        | Receiver::Healthcheck { .. } => None,
    }
}

/// Returns whether JSON says yes or no in a word that services use for it.
fn is_flag(json: &Value, flag: bool) -> bool {
    ["ok", "success"].into_iter().any(|name| json[name] == flag)
}

/// Returns what of an answer is not as the settings say that a good one is.
fn not_good(good: &Good, body: &str, json: Option<&Value>, is_cut: bool) -> Option<&'static str> {
    let has_text = good.text.as_deref().is_none_or(|text| body.contains(text));
    let is = |pointer: &str, expected: &String| {
        json.and_then(|json| answer::scalar(json.pointer(pointer)?)).as_ref() == Some(expected)
    };
    if has_text && good.json.iter().all(|(pointer, expected)| is(pointer, expected)) {
        return None;
    }
    Some(if is_cut { "its beginning is not as expected" } else { "not as expected" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Template, Writing};
    use crate::port::Method;

    fn told(receiver: &Receiver, status: u16, body: &str) -> String {
        let secrets = BTreeMap::from([(
            "URL".to_owned(),
            Secret::new("https://hooks.example.com/services/T0/B0S3CR3TPART".to_owned()),
        )]);
        let headers = vec![(
            "location".to_owned(),
            "https://hooks.example.com/new/B0S3CR3TPART?k=v".to_owned(),
        )];
        let response =
            HttpResponse { status, headers, body: body.to_owned(), ..HttpResponse::default() };
        refusal(receiver, &response, &secrets).unwrap_or_default()
    }

    fn url() -> String {
        "URL".to_owned()
    }

    fn http(text: Option<&str>, json: &[(&str, &str)]) -> Receiver {
        let json = json
            .iter()
            .map(|(pointer, value)| ((*pointer).to_owned(), (*value).to_owned()))
            .collect();
        Receiver::Http {
            url_secret: url(),
            method: Method::Post,
            headers: BTreeMap::new(),
            secret_headers: BTreeMap::new(),
            content_type: "text/plain".to_owned(),
            body: Template::read("", Writing::Plain).expect("it is empty"),
            good: Good { text: text.map(str::to_owned), json },
        }
    }

    /// As in case 14: receivers that refuse with 200.
    #[test]
    fn a_refusal_with_success_is_a_refusal() {
        let slack = Receiver::Slack { url_secret: url() };
        assert_eq!(told(&slack, 200, "ok"), "");
        assert_eq!(told(&slack, 200, "{\"ok\": true}"), "");
        assert_eq!(
            told(&slack, 200, "no_service"),
            "answered 200, but not \"ok\", which says that the message was taken: no_service"
        );
        assert_eq!(
            told(&slack, 200, r#"{"ok":false,"error":"channel_not_found"}"#),
            "answered 200, but it refused: {\"ok\":false,\"error\":\"channel_not_found\"}"
        );
        assert_eq!(
            told(&slack, 204, ""),
            "answered 204, but not \"ok\", which says that the message was taken"
        );
        let teams = Receiver::Teams { url_secret: url() };
        let failed = "Webhook message delivery failed with error: Microsoft Teams endpoint \
            returned HTTP error 429";
        assert_eq!(told(&teams, 200, failed), format!("answered 200, but it refused: {failed}"));
        assert_eq!((told(&teams, 202, ""), told(&teams, 200, "1")), (String::new(), String::new()));
        let check = Receiver::Healthcheck { url_secret: url() };
        assert_eq!(
            told(&check, 200, "OK (not found)"),
            "answered 200, but the check was not pinged: OK (not found)"
        );
        assert_eq!(told(&check, 200, "OK"), "");
        let any = http(None, &[]);
        let ding = r#"{"errcode":310000,"errmsg":"keywords not in content"}"#;
        assert_eq!(told(&any, 200, ding), format!("answered 200, but it refused: {ding}"));
        assert_eq!(told(&any, 200, r#"{"errcode":0,"errmsg":"ok"}"#), "");
        assert_eq!(
            told(&any, 200, r#"{"success": false}"#),
            "answered 200, but it refused: {\"success\": false}"
        );
        assert_eq!(told(&any, 200, "anything"), "");
    }

    /// As in case 14: the settings say what a good answer is.
    #[test]
    fn a_receiver_of_ones_own_is_held_to_what_is_configured() {
        let lark = http(None, &[("/code", "0")]);
        assert_eq!(told(&lark, 200, r#"{"code":0,"msg":"success"}"#), "");
        assert_eq!(
            told(&lark, 200, r#"{"code":19024,"msg":"Key Words Not Found"}"#),
            "answered 200, but not as expected: {\"code\":19024,\"msg\":\"Key Words Not Found\"}"
        );
        assert_eq!(told(&lark, 200, ""), "answered 200, but not as expected");
        let text = http(Some("queued"), &[]);
        assert_eq!(
            (told(&text, 200, "queued as 7"), told(&text, 200, "full")),
            (String::new(), "answered 200, but not as expected: full".to_owned())
        );
    }

    /// As in case 22: a refusal shows what the receiver said, without the address that was called.
    #[test]
    fn a_refusal_says_what_was_said_and_where_it_was_moved_to() {
        let chat = Receiver::Discord { url_secret: url(), thread_name: None };
        let forum = r#"{"message": "Webhooks posted to forum channels must have a thread_name or thread_id", "code": 220001}"#;
        assert_eq!(told(&chat, 400, forum), format!("answered 400: {forum}"));
        assert_eq!(told(&chat, 404, "no B0S3CR3TPART here"), "answered 404: no … here");
        assert_eq!(
            told(&chat, 308, ""),
            "answered 308, moved to https://hooks.example.com/new/…?…"
        );
        assert_eq!(told(&chat, 500, ""), "answered 500");
    }
}
