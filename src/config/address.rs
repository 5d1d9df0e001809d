//! Which addresses may be called.
//!
//! Invariants: an address that is not https, or that leads into a private network, is refused
//! unless `allow_insecure` is set; nothing is looked up.
//!
//! Source: WHATWG URL, 3.5 "Host parsing", for the forms in which an IPv4 address may be written;
//! RFC 6890 for the special-purpose blocks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::reader::{Fields, may_be_secret, shown_text};

/// Reads an address that is called letter by letter.
///
/// For many applications `/login` and `/login/` are two pages. An address that the platform itself
/// would call otherwise than it is written is refused.
pub(super) fn called_address(
    fields: &mut Fields<'_>,
    key: &'static str,
    allow_insecure: bool,
) -> Option<String> {
    let text = address(fields, key, allow_insecure)?;
    if let Some(problem) = rewritten(&text) {
        fields.problem(
            key,
            format!(
                "is {}, which would not be called as it is written: {problem}",
                shown_address(&text)
            ),
        );
        return None;
    }
    Some(text)
}

/// Says what the platform would change in an address.
///
/// # Source
///
/// WHATWG URL, 4.4 "URL parsing": segments of dots are resolved, also as `%2e`, and a backslash is
/// a slash; Fetch, 4.1: a fragment is not sent.
fn rewritten(text: &str) -> Option<&'static str> {
    let path = text
        .split_once("://")
        .map_or(text, |(_, rest)| rest)
        .split(['?', '#'])
        .next()
        .unwrap_or_default();
    let is_dots = |segment: &str| {
        matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
    };
    if text.contains('#') {
        Some("what follows # is never sent; leave it out, or write %23")
    } else if path.contains('\\') {
        Some("\\ becomes /; write / or %5C")
    } else if path.split('/').any(is_dots) {
        Some("/./ and /../ are resolved; write the path that is meant")
    } else {
        None
    }
}

/// Reads an address as it is written.
fn address(fields: &mut Fields<'_>, key: &'static str, allow_insecure: bool) -> Option<String> {
    let text = fields.text(key)?;
    if let Some(problem) = address_problem(&text, allow_insecure) {
        fields.problem(key, format!("is {}; {problem}", shown_address(&text)));
        return None;
    }
    Some(text)
}

/// Reads the beginning of addresses, and removes a slash at its end: what follows begins with one.
/// It has no query and no fragment.
pub(super) fn base_address(
    fields: &mut Fields<'_>,
    key: &'static str,
    allow_insecure: bool,
) -> Option<String> {
    let text = address(fields, key, allow_insecure)?;
    if text.contains(['?', '#']) {
        let shown = shown_address(&text);
        fields.problem(
            key,
            format!(
                "is {shown}, with a query or a fragment; a path is added to it, so allowed is an \
                 address without"
            ),
        );
        return None;
    }
    Some(text.trim_end_matches('/').to_owned())
}

/// Returns what may be shown of an address: who is called. A user, a password, a path and a query
/// may each be a secret.
fn shown_address(text: &str) -> String {
    let length = text.chars().count();
    let Some((scheme, rest)) = text.split_once("://") else { return shown_text(text) };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let is_plain = |part: &str| {
        part.len() <= 100
            && !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte))
    };
    let is_shown = !text.contains('@')
        && is_plain(scheme)
        && is_plain(authority)
        && !authority.split('.').any(may_be_secret);
    if is_shown {
        let more = if rest.len() > authority.len() { "/…" } else { "" };
        format!("\"{scheme}://{authority}{more}\"")
    } else {
        format!("an address of {length} characters")
    }
}

/// Returns what is wrong with an address.
pub fn address_problem(text: &str, allow_insecure: bool) -> Option<&'static str> {
    let rest = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => rest,
        (None, Some(rest)) if allow_insecure => rest,
        (None, Some(_)) => {
            return Some(
                "allowed is https:// (or http:// with allow_insecure = true, for local use)",
            );
        }
        (None, None) => return Some("allowed is an address that begins with https://"),
    };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    // A host in other than plain letters is decoded before it is called, and would be another than
    // the one that was judged.
    if !authority.is_ascii() || authority.contains('%') {
        return Some(
            "allowed is an address whose host is written in plain letters, an international one as \
             xn--…",
        );
    }
    if authority.is_empty() || text.contains(char::is_whitespace) || text.contains(char::is_control)
    {
        return Some("allowed is an address with a host and without spaces");
    }
    if authority.contains('@') {
        return Some("allowed is an address without a name and a password before its host");
    }
    // A place that is filled later is judged where it is allowed.
    let is_private = !allow_insecure && !authority.contains("{{") && is_private(host(authority));
    is_private.then_some(
        "leads into a private network; allowed is a public host (or any with allow_insecure = \
         true, for local use)",
    )
}

/// Returns the host of an authority, without its port.
fn host(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

/// Returns whether a host is one of this machine or of a private network, or an IPv4 address in a
/// form that only machines read.
fn is_private(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if let Ok(address) = host.parse::<IpAddr>() {
        return match address {
            IpAddr::V4(address) => is_private_v4(address),
            IpAddr::V6(address) => is_private_v6(address),
        };
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    // What ends in a number is an IPv4 address for a browser: `127.1`, `0x7f000001`, `2130706433`.
    // Nobody writes a public host so.
    let is_number = last.starts_with("0x")
        || (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()));
    // A host without a dot is one of a local network.
    is_number
        || !host.contains('.')
        || ["localhost", "local", "internal", "lan", "home", "arpa"].contains(&last)
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || first == 0
        // Shared by carriers (RFC 6598), benchmarks (RFC 2544), and what is not for single hosts.
        || (first == 100 && (64..128).contains(&second))
        || (first == 198 && (18..20).contains(&second))
        || first >= 224
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let [first, ..] = address.segments();
    // An IPv4 address in its IPv6 form is what it is.
    let mapped = address.to_ipv4_mapped().is_some_and(is_private_v4);
    mapped
        || address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_unique_local()
        || address.is_unicast_link_local()
        // Translated (64:ff9b::/96) and documentation (2001:db8::/32).
        || first == 0x64
        || address.segments()[..2] == [0x2001, 0xdb8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_private_network_is_refused_in_every_form() {
        let private = [
            "localhost",
            "LOCALHOST.",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0x7f000001",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "[::1]",
            "[::ffff:10.0.0.1]",
            "[fd00::1]",
            "[fe80::1]",
            "router",
            "db.internal",
            "printer.local",
            "255.255.255.255",
            "127.0.0.1:8443",
        ];
        for host in private {
            let problem = address_problem(&format!("https://{host}/hook"), false);
            assert!(
                problem.is_some_and(|text| text.starts_with("leads into a private network")),
                "{host}: {problem:?}"
            );
            assert_eq!(address_problem(&format!("https://{host}/hook"), true), None, "{host}");
        }
    }

    #[test]
    fn a_public_address_is_allowed() {
        for host in [
            "hooks.slack.com",
            "8.8.8.8",
            "172.32.0.1",
            "[2606:4700::1111]",
            "example.com:8443",
            "1e100.net",
        ] {
            assert_eq!(address_problem(&format!("https://{host}/hook"), false), None, "{host}");
        }
    }

    /// As in case 01: what the platform would call otherwise is refused, and nothing else.
    #[test]
    fn an_address_that_would_not_be_called_letter_by_letter_is_known() {
        for text in [
            "https://a.example/x/../y",
            "https://a.example/%2E%2e/y",
            "https://a.example/.",
            "https://a.example/a#b",
            "https://a.example\\b",
        ] {
            assert!(rewritten(text).is_some(), "{text}");
        }
        for text in [
            "https://a.example",
            "https://a.example/x/",
            "https://a.example//x//?a=/../&b",
            "https://a.example/...",
            "https://a.example/a%2Fb;c",
        ] {
            assert_eq!(rewritten(text), None, "{text}");
        }
    }

    #[test]
    fn an_address_needs_a_host_and_no_user() {
        assert!(
            address_problem("https://127.0.0%2E1/", false).is_some()
                && address_problem("https://\u{ff11}27.0.0.1/", false).is_some()
        );
        for text in [
            "https://",
            "https:///x",
            "https://a b.com/",
            "ftp://example.com",
            "https://me@example.com/",
            "https://example.com\\@127.0.0.1/",
        ] {
            let is_refused = address_problem(text, false).is_some();
            assert_eq!(is_refused, !text.contains('\\'), "{text}");
        }
    }
}
