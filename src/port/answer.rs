//! What an answer says: how its bytes become a text, and what of that text people are told.
//!
//! Invariants: nothing that is told holds a secret that was sent, or a word that looks like one; it
//! is one line and short. Of JSON from an application only its names and its errors are told: its
//! values may be people's.

use serde_json::Value;

use super::HttpResponse;

/// Bytes in which a page says how it is written.
///
/// Source: WHATWG HTML, 13.2.3.2 "prescan a byte stream": the first 1,024 bytes.
const PRESCAN: usize = 1_024;

/// Characters of what an answer says that are told.
const LINE: usize = 200;

/// Letters of a word that may be a token: with a digit among them, nobody reads it as a word.
const TOKEN: usize = 20;

/// Characters of a secret that is looked for. A shorter one would cut ordinary words.
const SHORTEST_SECRET: usize = 5;

/// Names under which services say why they refuse.
const REASONS: [&str; 14] = [
    "error",
    "error_description",
    "errors",
    "message",
    "errmsg",
    "msg",
    "detail",
    "details",
    "title",
    "reason",
    "code",
    "errcode",
    "status",
    "description",
];

/// Returns how the bytes of an answer are written, as a label of the Encoding Standard.
///
/// A byte order mark decides, then the header, then the page itself.
///
/// # Source
///
/// WHATWG Encoding, 6 "Hooks for standards": a byte order mark is "more authoritative than anything
/// else"; WHATWG HTML, 13.2.3.2.
pub fn encoding(headers: &[(String, String)], bytes: &[u8]) -> String {
    let marks: [(&[u8], &str); 3] =
        [(b"\xef\xbb\xbf", "utf-8"), (b"\xfe\xff", "utf-16be"), (b"\xff\xfe", "utf-16le")];
    if let Some((_, label)) = marks.into_iter().find(|(mark, _)| bytes.starts_with(mark)) {
        return label.to_owned();
    }
    let content_type = header(headers, "content-type").unwrap_or_default().to_ascii_lowercase();
    if let Some(label) = label_after(&content_type, "charset") {
        return label;
    }
    let is_page = ["html", "xml"].iter().any(|kind| content_type.contains(kind));
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(PRESCAN)]).to_ascii_lowercase();
    let told = label_after(&start, "charset").or_else(|| label_after(&start, "encoding"));
    // A page whose letters could be read so far is not written in pairs of bytes, whatever it says.
    told.filter(|label| is_page && !label.starts_with("utf-16"))
        .unwrap_or_else(|| "utf-8".to_owned())
}

/// Returns the label behind `name=`, with or without quotes.
fn label_after(text: &str, name: &str) -> Option<String> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(name) {
        rest = after;
        let Some(value) = after.trim_start().strip_prefix('=') else { continue };
        let value = value.trim_start().trim_start_matches(['"', '\'']);
        let is_part =
            |character: char| character.is_ascii_alphanumeric() || "-_:.".contains(character);
        let label: String = value.chars().take_while(|character| is_part(*character)).collect();
        if !label.is_empty() {
            return Some(label);
        }
    }
    None
}

/// Returns the first value of a header.
pub fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value.as_str())
}

/// Returns a body without the mark that says in which order its bytes stand.
pub fn without_mark(body: &str) -> &str {
    body.strip_prefix('\u{feff}').unwrap_or(body)
}

/// Returns a value of JSON as text; a list or an object is none.
pub fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) | Value::Null => Some(value.to_string()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Says what a receiver of notices answered: its words in one line, without secrets; empty where it
/// said nothing.
pub fn words_of_receiver(response: &HttpResponse, secrets: &[&str]) -> String {
    told(&without_tags(without_mark(&response.body)), secrets)
}

/// Says what an application answered: the title of a page, the first line of a text; of JSON the
/// names and the errors.
pub fn words_of_application(response: &HttpResponse, secrets: &[&str]) -> String {
    let body = without_mark(&response.body).trim();
    let line = match serde_json::from_str::<Value>(body) {
        Ok(Value::Object(object)) => {
            let reasons: Vec<String> =
                REASONS.iter().filter_map(|name| reason(name, object.get(*name)?)).collect();
            if reasons.is_empty() {
                format!(
                    "JSON with {}",
                    object.keys().take(10).cloned().collect::<Vec<_>>().join(", ")
                )
            } else {
                reasons.join(", ")
            }
        }
        Ok(Value::Array(list)) => format!("a list of {} in JSON", list.len()),
        Ok(_) | Err(_) if body.starts_with(['{', '[']) => {
            "what may be JSON and cannot be read".to_owned()
        }
        Ok(_) | Err(_) => without_tags(body)
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .unwrap_or_default()
            .to_owned(),
    };
    told(&line, secrets)
}

/// Writes an error of JSON; `None` where it is none.
fn reason(name: &str, value: &Value) -> Option<String> {
    match value {
        Value::String(text) => (!text.is_empty()).then(|| format!("{name} {text}")),
        Value::Number(_) | Value::Bool(_) => Some(format!("{name} {value}")),
        Value::Object(inner) => {
            let told =
                REASONS.iter().filter_map(|inner_name| reason(inner_name, inner.get(*inner_name)?));
            let told: Vec<String> = told.collect();
            (!told.is_empty()).then(|| format!("{name}: {}", told.join(", ")))
        }
        Value::Array(list) => reason(name, list.first()?),
        Value::Null => None,
    }
}

/// Says where an answer sends its reader, without the query and without secrets; `None` where it
/// does not.
pub fn moved_to(response: &HttpResponse, secrets: &[&str]) -> Option<String> {
    let place =
        header(&response.headers, "location").filter(|_| (300..400).contains(&response.status))?;
    let (place, more) =
        place.split_once(['?', '#']).map_or((place, ""), |(place, _)| (place, "?…"));
    // An address may hold a name and a password before its host.
    let place = match place.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => place.to_owned(),
    };
    Some(format!("{}{more}", told(&place, secrets)))
}

/// Returns what of an address may be told: all but its query.
pub fn shown_address(address: &str) -> String {
    address.split_once('?').map_or_else(|| address.to_owned(), |(place, _)| format!("{place}?…"))
}

/// Returns a text in one line, without secrets and shortened.
fn told(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in parts(secrets) {
        text = text.replace(&secret, "…");
    }
    let text: String = text
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect();
    let words: Vec<String> = text.split_whitespace().map(without_tokens).collect();
    let line = words.join(" ");
    if line.chars().count() <= LINE {
        return line;
    }
    let cut: String = line.chars().take(LINE - 1).collect();
    format!("{}…", cut.trim_end())
}

/// Returns the secrets and, of those that are addresses or headers, each part that may be repeated
/// alone; the longest first.
fn parts(secrets: &[&str]) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for secret in secrets {
        let words = secret.split(['/', '?', '&', '=', ' ', ';', ':', '"', '\n']);
        let is_host = |word: &str| secret.contains("://") && secret.split('/').nth(2) == Some(word);
        let words = words.filter(|word| word.len() >= 2 * SHORTEST_SECRET && !is_host(word));
        parts.extend(words.chain(std::iter::once(*secret)).map(str::to_owned));
    }
    parts.retain(|part| part.len() >= SHORTEST_SECRET);
    crate::ordered::sort_by_key(&mut parts, |part| std::cmp::Reverse(part.len()));
    parts
}

/// Cuts what looks like a token out of a word.
fn without_tokens(word: &str) -> String {
    let is_part =
        |character: char| character.is_ascii_alphanumeric() || "-_+=~".contains(character);
    let (mut cut, mut run) = (String::new(), String::new());
    let flush = |run: &mut String, cut: &mut String| {
        let is_token = run.len() >= TOKEN && run.bytes().any(|byte| byte.is_ascii_digit());
        cut.push_str(if is_token { "…" } else { run });
        run.clear();
    };
    for character in word.chars() {
        if is_part(character) {
            run.push(character);
            continue;
        }
        flush(&mut run, &mut cut);
        cut.push(character);
    }
    flush(&mut run, &mut cut);
    cut
}

/// Returns the title of a page of HTML, or its text where it has none; another text as it is.
fn without_tags(body: &str) -> String {
    let start = body.trim_start();
    if !start.starts_with('<') {
        return body.to_owned();
    }
    let lower = body.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|at| {
        let from = at + lower[at..].find('>')? + 1;
        let until = from + lower[from..].find("</title")?;
        Some(body[from..until].trim().to_owned())
    });
    if let Some(title) = title.filter(|title| !title.is_empty()) {
        return title;
    }
    let mut text = String::new();
    for part in body.split('<') {
        let after = part.split_once('>').map_or(part, |(_, after)| after).trim();
        let is_code =
            ["script", "style"].iter().any(|tag| part.to_ascii_lowercase().starts_with(tag));
        if !is_code && !after.is_empty() {
            text.push_str(after);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> HttpResponse {
        let headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        HttpResponse { status, headers, body: body.to_owned(), ..HttpResponse::default() }
    }

    /// As in case 03: a page that is not UTF-8.
    #[test]
    fn the_encoding_is_the_marks_or_the_headers_or_the_pages_own() {
        let label = |content_type: &str, bytes: &[u8]| {
            encoding(&[("Content-Type".to_owned(), content_type.to_owned())], bytes)
        };
        assert_eq!(label("text/html; charset=ISO-8859-1", b"caf\xe9"), "iso-8859-1");
        assert_eq!(label("text/html; charset = \"windows-1251\"", b""), "windows-1251");
        assert_eq!(
            label("text/html; charset=iso-8859-1", b"\xef\xbb\xbfa"),
            "utf-8",
            "the mark decides"
        );
        assert_eq!(label("text/plain", b"\xff\xfea\0"), "utf-16le");
        assert_eq!(label("text/html", b"<meta charset=shift_jis><p>"), "shift_jis");
        let long = b"<meta http-equiv='content-type' content='text/html; charset=koi8-r'>";
        assert_eq!(label("text/html", long), "koi8-r");
        assert_eq!(
            label("application/xml", b"<?xml version='1.0' encoding='ISO-8859-15'?>"),
            "iso-8859-15"
        );
        assert_eq!(label("text/html", b"<meta charset=utf-16>"), "utf-8");
        assert_eq!(
            label("application/json", b"{\"charset\": \"charset=latin1\"}"),
            "utf-8",
            "a value is no declaration"
        );
        assert_eq!(encoding(&[], b"a"), "utf-8");
    }

    #[test]
    fn a_receiver_is_quoted_in_one_line_without_what_was_sent_to_it() {
        let said = |body: &str| {
            words_of_receiver(
                &answer(400, &[], body),
                &["https://hooks.example.com/services/T0/ABCDEFGHIJKL", "hunter2"],
            )
        };
        let forum = r#"{"message": "Webhooks posted to forum channels must have a thread_name or thread_id", "code": 220001}"#;
        assert_eq!(said(forum), forum);
        assert_eq!(
            said("no route ABCDEFGHIJKL\n for hunter2\u{7} at all"),
            "no route … for … at all"
        );
        assert_eq!(said("see https://hooks.example.com/services/T0/ABCDEFGHIJKL"), "see …");
        assert_eq!(
            said("bad token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0"),
            "bad token ….…"
        );
        assert_eq!(
            said("<html>\n<head><title>502 Bad Gateway</title></head><body>…"),
            "502 Bad Gateway"
        );
        assert_eq!(said("<p>not <b>here</b></p><script>var x = 1</script>"), "not here");
        assert_eq!(said(&"word ".repeat(100)).chars().count(), 200);
        assert_eq!(said(""), "");
    }

    #[test]
    fn of_the_json_of_an_application_names_and_errors_are_told_and_no_values() {
        let said = |body: &str| words_of_application(&answer(500, &[], body), &[]);
        assert_eq!(
            said(r#"{"user": {"name": "Ann"}, "token": "secret"}"#),
            "JSON with token, user"
        );
        assert_eq!(
            said(r#"{"error": {"message": "database is down", "code": 57}, "user": "Ann"}"#),
            "error: message database is down, code 57"
        );
        assert_eq!(said("[1, 2]"), "a list of 2 in JSON");
        assert_eq!(said(r#"{"user": "Ann", "cut"#), "what may be JSON and cannot be read");
        assert_eq!(said("\u{feff}error code: 1042\nmore"), "error code: 1042");
        assert_eq!(said("<h1>Bienvenue, François</h1> sign in"), "Bienvenue, François");
    }

    #[test]
    fn a_place_is_told_without_its_query_and_without_secrets() {
        let place = |status: u16, location: &str| {
            moved_to(
                &answer(status, &[("location", location)], ""),
                &["https://a.example/hook/s3cr3tpart"],
            )
        };
        assert_eq!(place(301, "/accounts/login/").as_deref(), Some("/accounts/login/"));
        assert_eq!(
            place(308, "https://me:pw@b.example/hook/s3cr3tpart/?k=v").as_deref(),
            Some("https://b.example/hook/…/?…")
        );
        assert_eq!(place(200, "/x"), None);
    }
}
