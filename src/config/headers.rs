//! Headers of requests: names and values that can be sent.
//!
//! Source: RFC 9110, 5.1 and 5.5: a name is a token, a value has no line end and no other control
//! character. WHATWG Fetch, "forbidden request-header", and what the platform sets itself.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::{Fields, shown_key};

/// Headers that belong to the connection; whoever sends them sets them alone.
const FORBIDDEN: [&str; 6] =
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te"];

/// Refuses names that are none, the same name twice, and values that cannot be sent. A value is
/// never shown.
pub(super) fn check(
    fields: &mut Fields<'_>,
    key: &'static str,
    headers: &BTreeMap<String, String>,
) {
    let mut seen = BTreeSet::new();
    for (name, value) in headers {
        let name_shown = shown_key(name);
        if !is_name(name) {
            let length = name.chars().count();
            fields.problem(
                key,
                format!(
                    "has a name of {length} characters that is no name of a header; allowed is one \
                     such as \"X-Token\""
                ),
            );
        } else if FORBIDDEN.contains(&name.to_ascii_lowercase().as_str()) {
            fields.problem(
                key,
                format!(
                    "has {name_shown}, which the platform sets itself; allowed is any other header"
                ),
            );
        } else if !seen.insert(name.to_ascii_lowercase()) {
            fields.problem(
                key,
                format!(
                    "has {name_shown} twice, in capitals and in small letters; allowed is each \
                     header once"
                ),
            );
        } else if value.chars().any(|c| c.is_control() && c != '\t')
            || !value.chars().all(|c| u32::from(c) < 256)
        {
            let text = format!(
                "has {name_shown} with a line end or a sign outside of Latin-1; allowed is one \
                 line of plain text"
            );
            fields.problem(key, text);
        }
    }
}

/// Returns whether a text is the name of a header.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
