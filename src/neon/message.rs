//! What may be shown of a message of PostgreSQL.
//!
//! In: a SQLSTATE and the text that came with it. Out: the first line of the text, cut where a
//! value would begin.
//!
//! Invariants: every message of PostgreSQL passes here before it enters a record, a check, a notice
//! or a log. DETAIL, HINT and CONTEXT are never read. What was cut ends in `…`.
//!
//! How: names of objects are kept where the word before says what they name (`relation "orders"`).
//! Any other text in quotes, a number, a word with signs that no sentence has (`@`, `=`, `/`) and
//! what follows them may be of a row, so the text ends there. A message that a program in the
//! database wrote (`raise`) has no form, so its quotes and its capitals are values as well. A plain
//! word in small letters cannot be told from a value; it stays.
//!
//! Source: PostgreSQL, "Error Message Style Guide" and appendix A "PostgreSQL Error Codes".

use super::shorten;

/// Words after which a text in quotes, or one with digits, is the name of an object and no value.
const NOUNS: [&str; 32] = [
    "aggregate",
    "collation",
    "column",
    "constraint",
    "conversion",
    "database",
    "domain",
    "enum",
    "extension",
    "file",
    "function",
    "index",
    "language",
    "library",
    "of",
    "operator",
    "parameter",
    "partition",
    "policy",
    "procedure",
    "publication",
    "reference",
    "relation",
    "role",
    "rule",
    "schema",
    "sequence",
    "server",
    "subscription",
    "table",
    "type",
    "view",
];

/// Nouns that name a person in a row as often as an object of the server.
const PEOPLE: [&str; 3] = ["user", "role", "server"];

/// Types whose names have a digit.
const TYPES: [&str; 7] = ["int2", "int4", "int8", "float4", "float8", "oid8", "utf8"];

/// Who wrote a message, which says what may stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Author {
    /// The server or the proxy, about itself: numbers are sizes and positions.
    Server,
    /// The server, about what was asked: quotes after a noun are names.
    Statement,
    /// The server, about a value that it was given.
    Data,
    /// A program in the database.
    Program,
}

impl Author {
    /// Source: PostgreSQL, appendix A: 22 is "Data Exception", 23 "Integrity Constraint Violation",
    /// 44 "WITH CHECK OPTION Violation", P0 "PL/pgSQL Error", which is what `raise` gives.
    fn of(sqlstate: &str) -> Self {
        match sqlstate.get(..2) {
            None | Some("08" | "53" | "54" | "57" | "58" | "XX") => Self::Server,
            Some(
                "0A" | "25" | "26" | "28" | "2B" | "2D" | "34" | "3D" | "3F" | "40" | "42" | "55",
            ) => Self::Statement,
            Some("22" | "23" | "44") => Self::Data,
            Some(_) => Self::Program,
        }
    }
}

/// Returns what may be shown of a message: its first line, cut where a value would begin.
pub fn of_postgres(sqlstate: &str, text: &str) -> String {
    let line = text.trim_start().lines().next().unwrap_or_default();
    if let Some(number) = statement_number(line) {
        let (ours, rest) = line.split_at(number);
        return format!("{ours}{}", of_postgres(sqlstate, rest));
    }
    let author = Author::of(sqlstate);
    let mut end = 0;
    let mut before = "";
    let mut rest = line;
    while let Some(length) = piece(rest, before, author, end == 0) {
        let (taken, after) = rest.split_at(length);
        before = taken.trim().trim_end_matches([',', ';', '.']);
        end += length;
        rest = after;
    }
    let kept = shorten(line.get(..end).unwrap_or_default());
    if rest.trim().is_empty() {
        kept
    } else {
        shorten(&format!("{} …", kept.trim_end_matches([':', ',', ';', '('])))
    }
}

/// Returns the bytes of what we write before a message of a configured statement:
/// `statement 2 of 3: `. Two numbers of ours are no values of anybody's.
fn statement_number(line: &str) -> Option<usize> {
    let (numbers, rest) = line.strip_prefix("statement ")?.split_once(": ")?;
    let (one, all) = numbers.split_once(" of ")?;
    let is_short = |number: &str| {
        (1..=4).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    (is_short(one) && is_short(all) && !rest.starts_with("statement "))
        .then_some(line.len() - rest.len())
}

/// Returns a SQLSTATE, or nothing for a text that is none.
pub fn state_of(text: &str) -> String {
    let is_state = text.len() == 5
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    if is_state { text.to_owned() } else { String::new() }
}

/// Returns the bytes of the next word with the blanks before it, or of a name in quotes; `None`
/// where a value may begin or the text ends.
fn piece(rest: &str, before: &str, author: Author, is_first: bool) -> Option<usize> {
    let word = rest.trim_start();
    let blanks = rest.len() - word.len();
    let noun = before.rsplit(char::is_whitespace).next().unwrap_or_default();
    let is_named = NOUNS.contains(&noun) && (author != Author::Data || !PEOPLE.contains(&noun));
    let is_user = noun == "user" && matches!(author, Author::Server | Author::Statement);
    let quote = word.chars().next()?;
    if quote == '"' || quote == '\'' {
        let length = word.get(1..)?.find(quote)?;
        let name = word.get(1..=length)?;
        let after = word.get(length + 2..).unwrap_or_default();
        // A quote inside a value would make its end look like one of a name.
        let is_closed = after.is_empty()
            || after.starts_with(|next: char| next.is_whitespace() || ",;:.)".contains(next));
        let is_file = matches!(noun, "file" | "library");
        let is_good = (is_named || is_user)
            && author != Author::Program
            && is_closed
            && is_name(name, is_file);
        let point =
            after.chars().next().filter(|next| ",;:.".contains(*next)).map_or(0, char::len_utf8);
        return is_good.then_some(blanks + length + 2 + point);
    }
    let length = word.find(char::is_whitespace).unwrap_or(word.len());
    let plain = word[..length].trim_end_matches([',', ';', ':', '.', ')']);
    let is_kept = match author {
        Author::Server => is_measure(plain) || is_word(plain) || (is_named && is_name(plain, true)),
        Author::Statement => {
            is_word(plain) || is_signature(plain) || (is_named && is_name(plain, false))
        }
        Author::Data => is_word(plain) || is_signature(plain),
        Author::Program => {
            is_word(plain) && (is_first || !plain.starts_with(char::is_uppercase) || is_sql(plain))
        }
    };
    is_kept.then_some(blanks + length)
}

/// A word of a sentence: letters, with underscores, points and hyphens between them, and an
/// apostrophe.
fn is_word(text: &str) -> bool {
    let text = text.strip_prefix('(').unwrap_or(text);
    let is_type = TYPES.contains(&text.to_ascii_lowercase().as_str());
    let is_sign = text == "=" || text == "-" || text == "<>";
    is_type
        || is_sign
        || (text.starts_with(char::is_alphabetic)
            && text.chars().all(|c| c.is_alphabetic() || "_.-'".contains(c)))
}

/// A number in a message about the server itself, or the address of who asks, which IP Allow
/// refuses.
fn is_measure(text: &str) -> bool {
    let text = text.trim_start_matches('(');
    let is_number = text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    !text.is_empty() && (is_number || text.parse::<std::net::IpAddr>().is_ok())
}

/// A function with the types that it takes, or a type with its length: `sum(text)`, `varying(10)`.
fn is_signature(text: &str) -> bool {
    let Some((name, inside)) = text.split_once('(') else { return false };
    let inside = inside.trim_end_matches(')');
    let is_length =
        inside.len() <= 4 && inside.bytes().all(|byte| byte.is_ascii_digit() || byte == b',');
    is_word(name) && !name.starts_with('(') && (is_length || inside.split(',').all(is_word))
}

/// The name of an object, or of a file.
fn is_name(text: &str, is_file: bool) -> bool {
    let more = if is_file { "_.$-/" } else { "_.$-" };
    let most = if is_file { 200 } else { 130 };
    !text.is_empty()
        && text.len() <= most
        && text.chars().all(|c| c.is_alphanumeric() || more.contains(c))
}

/// A word of SQL, which people write in capitals.
fn is_sql(text: &str) -> bool {
    [
        "UPDATE", "DELETE", "INSERT", "TRUNCATE", "SELECT", "MERGE", "COPY", "NULL", "DDL", "SQL",
        "ID",
    ]
    .contains(&text)
}

/// Returns whether Neon says that a limit of the plan or of the project is used up: that does not
/// pass by waiting.
///
/// # Source
///
/// neondatabase/neon `proxy/src/control_plane/messages.rs`, read 2026-11-30: "Your account or
/// project has exceeded the compute time quota. Upgrade your plan to increase limits."; Neon API
/// v2: `…_LIMIT_EXCEEDED`. "Check your quotas and/or contact our support" is said of every compute
/// that is not there.
pub fn is_quota(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("exceeded")
        && (text.contains("quota") || text.contains("limit"))
        && !text.contains("rate limit")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in case 35: what PostgreSQL says of a value it was given never has the value.
    #[test]
    fn a_message_is_cut_where_a_value_would_begin() {
        for (state, text, shown) in [
            (
                "22P02",
                "invalid input syntax for type integer: \"ann@example.com\"",
                "invalid input syntax for type integer …",
            ),
            (
                "22P02",
                "invalid input value for enum mood: \"hunter2\"",
                "invalid input value for enum mood …",
            ),
            ("22P02", "malformed array literal: \"{ann,bob}\"", "malformed array literal …"),
            ("22003", "value \"4111111111111111\" is out of range for type integer", "value …"),
            (
                "22007",
                "invalid input syntax for type timestamp with time zone: \"x\" y\"",
                "invalid input syntax for type timestamp with time zone …",
            ),
            (
                "22021",
                "invalid byte sequence for encoding \"UTF8\": 0xe4 0x20",
                "invalid byte sequence for encoding …",
            ),
            (
                "23505",
                "duplicate key value violates unique constraint \"people_email_key\"\nDETAIL:  Key \
                 (email)=(ann@example.com) already exists.",
                "duplicate key value violates unique constraint \"people_email_key\"",
            ),
            (
                "23514",
                "new row for relation \"people\" violates check constraint \"adult\"\nFailing row \
                 contains (1, ann)",
                "new row for relation \"people\" violates check constraint \"adult\"",
            ),
            ("23514", "Failing row contains (1, ann@example.com)", "Failing row contains …"),
            ("23505", "Key (email)=(ann@example.com) already exists.", "Key …"),
            ("23505", "user \"ann\" is there already", "user …"),
            (
                "23502",
                "null value in column \"a\" of relation \"b\" violates not-null constraint",
                "null value in column \"a\" of relation \"b\" violates not-null constraint",
            ),
            (
                "22001",
                "value too long for type character varying(10)",
                "value too long for type character varying(10)",
            ),
            ("42601", "syntax error at or near \"hunter2\"", "syntax error at or near …"),
            ("42703", "column \"ann@example.com\" does not exist", "column …"),
            (
                "22023",
                "invalid value for parameter \"TimeZone\": \"s3cr3t\"",
                "invalid value for parameter \"TimeZone\" …",
            ),
            (
                "42704",
                "unrecognized configuration parameter \"app.org\"",
                "unrecognized configuration parameter \"app.org\"",
            ),
            ("P0001", "cannot mail ann@example.com", "cannot mail …"),
            ("P0001", "customer \"ann\" is locked", "customer …"),
            ("P0001", "account 4711 is overdrawn", "account …"),
            ("P0001", "customer Ann Miller is locked", "customer …"),
            ("U0001", "relation \"ann\" is odd", "relation …"),
        ] {
            assert_eq!(of_postgres(state, text), shown, "{state}: {text}");
        }
    }

    #[test]
    fn a_message_without_values_is_whole() {
        for (state, text) in [
            ("42P01", "relation \"public.orders_2024\" does not exist"),
            ("42501", "permission denied for table orders_2024"),
            ("42883", "operator does not exist: integer = text"),
            ("42883", "function public.now_utc() does not exist"),
            ("42883", "function sum(text) does not exist"),
            ("42702", "column reference \"id\" is ambiguous"),
            ("28P01", "password authentication failed for user 'neondb_owner'"),
            ("53300", "too many connections for role \"app\""),
            ("3D000", "database \"shop\" does not exist"),
            ("57014", "canceling statement due to statement timeout"),
            ("58P01", "could not access file \"$libdir/pgmissing\": No such file or directory"),
            (
                "XX001",
                "could not read block 17 in file \"base/5/16390\": read only 0 of 8192 bytes",
            ),
            ("XX001", "invalid page in block 0 of relation base/16384/16390"),
            ("", "Control plane request failed"),
            ("", "This IP address 203.0.113.77 is not allowed to connect to this endpoint."),
            ("", "response is too large (max is 10485760 bytes)"),
            ("P0001", "chat_events is append-only; UPDATE is not allowed"),
            ("2D000", "invalid transaction termination"),
            ("25001", "VACUUM cannot run inside a transaction block"),
        ] {
            assert_eq!(of_postgres(state, text), text, "{state}: {text}");
        }
    }

    #[test]
    fn any_text_is_cut_without_a_panic() {
        for text in [
            "",
            "\"",
            "'",
            "»ann«",
            "ä\"ö",
            "relation \"",
            "relation \"ä\"ö",
            "\n\nx",
            "(",
            "column \"\"",
            "schema 'a' b'",
        ] {
            for state in ["", "P0001", "22P02", "42P01", "x", "é0"] {
                let shown = of_postgres(state, text);
                assert!(!shown.contains("ann"), "{shown}");
            }
        }
    }

    #[test]
    fn the_number_of_a_configured_statement_is_shown_and_the_rest_is_cut_as_ever() {
        assert_eq!(
            of_postgres("22012", "statement 2 of 3: division by zero"),
            "statement 2 of 3: division by zero"
        );
        let row = of_postgres("P0001", "statement 2 of 3: ann@example.com is 41");
        assert!(
            row.starts_with("statement 2 of 3: ") && !row.contains("ann") && !row.contains("41"),
            "{row}"
        );
        assert!(!of_postgres("P0001", "statement 12345 of 3: x").contains("12345"));
    }

    #[test]
    fn a_quota_that_is_used_up_is_told_from_a_compute_that_is_not_there() {
        assert!(is_quota(
            "Your account or project has exceeded the compute time quota. Upgrade your plan to \
             increase limits."
        ));
        assert!(
            is_quota("exceeded the data transfer quota") && is_quota("branches limit exceeded")
        );
        assert!(!is_quota(
            "Control plane request failed: endpoint is temporarily unavailable. Check your quotas \
             and/or contact our support."
        ));
        assert!(!is_quota("rate limit exceeded") && !is_quota(""));
    }
}
