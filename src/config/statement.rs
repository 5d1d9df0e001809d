//! What can be known of a configured statement without a database.
//!
//! Invariants: nothing is refused that could work. A statement is not parsed: its first words are
//! read, outside of quotes, comments and dollar quotes.

use super::reader::shown_text;
use super::verification::Expected;

/// A statement as a list of words in small letters; what stands in quotes is one word, `''`.
type Words = Vec<String>;

/// Splits a text at its semicolons.
pub(super) fn statements(sql: &str) -> Vec<Words> {
    let mut found = vec![Words::new()];
    let mut word = String::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let skipped = quoted(rest)
            .map(|length| (length, true))
            .or_else(|| comment(rest).map(|length| (length, false)));
        let is_part =
            skipped.is_none() && (first.is_alphanumeric() || first == '_' || first == '$');
        if !is_part && !word.is_empty() {
            found.last_mut().into_iter().for_each(|words| words.push(std::mem::take(&mut word)));
        }
        match skipped {
            Some((_, is_text)) if is_text => {
                found.last_mut().into_iter().for_each(|words| words.push("''".to_owned()));
            }
            Some(_) => {}
            None if is_part => word.extend(first.to_lowercase()),
            None if first == ';' => found.push(Words::new()),
            None if first.is_whitespace() => {}
            None => found.last_mut().into_iter().for_each(|words| words.push(first.to_string())),
        }
        rest =
            rest.get(skipped.map_or(first.len_utf8(), |(length, _)| length)..).unwrap_or_default();
    }
    if !word.is_empty() {
        found.last_mut().into_iter().for_each(|words| words.push(std::mem::take(&mut word)));
    }
    found.retain(|words| !words.is_empty());
    found
}

/// Returns the bytes of a text in quotes at the beginning, also one without an end.
fn quoted(text: &str) -> Option<usize> {
    let quote = text.chars().next()?;
    if quote == '$' {
        let tag = text.get(1..)?.find('$')?;
        let is_tag = text.get(1..=tag)?.chars().all(|c| c.is_alphanumeric() || c == '_');
        let whole = text
            .get(..tag + 2)
            .filter(|_| is_tag && !text[1..].starts_with(|c: char| c.is_ascii_digit()))?;
        let length = text.get(whole.len()..)?.find(whole);
        return Some(length.map_or(text.len(), |length| length + 2 * whole.len()));
    }
    let length = text.get(1..).filter(|_| quote == '\'' || quote == '"')?.find(quote);
    Some(length.map_or(text.len(), |length| length + 2))
}

/// Returns the bytes of a comment at the beginning. Comments may stand in each other.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("--") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0_u32, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let (change, length) = match rest {
            rest if rest.starts_with("/*") => (1, 2),
            rest if rest.starts_with("*/") => (-1, 2),
            rest => (0, rest.chars().next().map_or(1, char::len_utf8)),
        };
        depth = depth.saturating_add_signed(change);
        at += length;
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

/// Returns why a text cannot be run in one transaction inside a `do` block.
///
/// # Source
///
/// PostgreSQL, `PreventInTransactionBlock` in `utility.c`, and PL/pgSQL, "Transaction Management":
/// what is run by `execute` has no transaction control.
pub(super) fn cannot_be_run(sql: &str) -> Option<String> {
    let found = statements(sql);
    if found.is_empty() {
        return Some("has an entry without a statement".to_owned());
    }
    found.iter().find_map(|words| {
        let shown = |count: usize| words.iter().take(count).cloned().collect::<Vec<_>>().join(" ");
        let at = |index: usize| words.get(index).map_or("", String::as_str);
        let is_concurrent = words.iter().take(8).any(|word| word == "concurrently");
        match (at(0), at(1)) {
            ("begin" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release", _)
            | ("start" | "prepare", "transaction") => Some(format!(
                "has {}, and all statements run in one transaction that is ours; leave it out",
                shown(1)
            )),
            ("vacuum", _) => Some("has vacuum, which no transaction takes; use analyze".to_owned()),
            ("create" | "drop" | "reindex", _)
                if is_concurrent
                    && words
                        .iter()
                        .take(7)
                        .any(|word| word == "index" || word == "table" || word == "schema") =>
            {
                Some(format!(
                    "has {} … concurrently, which no transaction takes; leave the word out",
                    shown(2)
                ))
            }
            ("create" | "drop", "database" | "tablespace")
            | ("alter", "system")
            | ("reindex", "database" | "system") => {
                Some(format!("has {}, which no transaction takes; run it elsewhere", shown(2)))
            }
            ("copy", _) if words.iter().any(|word| word == "stdin" || word == "stdout") => Some(
                "has copy with stdin or stdout, which nobody gives or reads here; use insert"
                    .to_owned(),
            ),
            ("\\", _) => Some("has a command of psql; allowed is SQL alone".to_owned()),
            _ => None,
        }
    })
}

/// Returns why a statement of an assertion cannot be asked.
pub(super) fn cannot_be_asked(sql: &str) -> Option<&'static str> {
    let found = statements(sql);
    match found.as_slice() {
        [] => Some("has no statement"),
        [words] => {
            let first = words.iter().find(|word| *word != "(").map_or("", String::as_str);
            let is_question = matches!(first, "select" | "with" | "values" | "table");
            (!is_question).then_some(
                "is no question; allowed is one statement that begins with select, with, values or \
                 table",
            )
        }
        _ => Some("has several statements; allowed is one"),
    }
}

/// Returns why what is expected can never be the answer, where the form of the statement shows it.
pub(super) fn never_holds(sql: &str, expected: &Expected) -> Option<String> {
    let found = statements(sql);
    let [words] = found.as_slice() else { return None };
    let at = |index: usize| words.get(index).map_or("", String::as_str);
    let column = column(words)?;
    let is_count = at(1) == "count"
        && column.last().is_some_and(|word| word == ")")
        && is_one_call(&column[1..]);
    let starts = if at(1) == "not" { 2 } else { 1 };
    let is_exists = at(starts) == "exists" && is_one_call(column.get(starts..)?);
    match expected {
        Expected::Text(text)
            if is_count
                && text.parse::<u64>().ok().is_none_or(|number| number.to_string() != *text) =>
        {
            Some(format!(
                "is {}, and count gives a whole number; for example expect = \"0\"",
                shown_text(text)
            ))
        }
        Expected::Range { at_most: Some(most), .. } if is_count && *most < 0.0 => Some(
            "allows negative numbers alone, and count gives none; for example at_most = 0"
                .to_owned(),
        ),
        Expected::Text(text) if is_exists && text != "true" && text != "false" => {
            Some(format!("is {}, and exists gives \"true\" or \"false\"", shown_text(text)))
        }
        Expected::Range { .. } if is_exists => {
            Some("is a range, and exists gives \"true\" or \"false\"; use expect".to_owned())
        }
        Expected::Text(_) | Expected::Range { .. } => None,
    }
}

/// Returns the words of a `select` up to its `from`, outside of parentheses; `None` for other
/// statements and several columns.
fn column(words: &Words) -> Option<&[String]> {
    if words.first().map(String::as_str) != Some("select") {
        return None;
    }
    let mut depth = 0_i32;
    for (index, word) in words.iter().enumerate() {
        match word.as_str() {
            "(" => depth += 1,
            ")" => depth -= 1,
            "," if depth == 0 => return None,
            "from" | "as" | "group" | "having" | "union" if depth == 0 => {
                return words.get(..index);
            }
            _ => {}
        }
    }
    Some(words)
}

/// Returns whether words are one call, as `count ( * )`.
fn is_one_call(words: &[String]) -> bool {
    let mut depth = 0_i32;
    for (index, word) in words.iter().enumerate().skip(1) {
        match word.as_str() {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index == words.len() - 1 && index > 1;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_split_outside_of_quotes_and_comments() {
        let count = |sql: &str| statements(sql).len();
        assert_eq!(count("select ';'; -- ; \n /* ; /* ; */ ; */ select \";\" ;"), 2);
        assert_eq!(count("do $$ begin; end $$; do $a$ $$ ; $a$"), 2);
        assert_eq!(count(" -- nothing\n ;; /* "), 0);
        assert_eq!(count("select 'it''s; ä"), 1);
    }

    /// As in case 17: what no transaction takes is known before the morning.
    #[test]
    fn what_no_transaction_takes_is_known() {
        for sql in [
            "vacuum analyze",
            "VACUUM",
            "create index concurrently i on t (a)",
            "create unique index concurrently if not exists i on t (a)",
            "drop index concurrently i",
            "reindex table concurrently t",
            "reindex (verbose) index concurrently i",
            "update t set a = 1; commit",
            "/* x */ begin",
            "start transaction",
            "rollback to savepoint a",
            "create database x",
            "alter system set a = 1",
            "copy t from stdin",
            "\\set a 1",
            "-- nothing",
        ] {
            assert!(cannot_be_run(sql).is_some(), "{sql}");
        }
        for sql in [
            "update t set a = 'vacuum; commit'",
            "do $$ begin update t set a = 1; end $$",
            "refresh materialized view concurrently v",
            "create table concurrently_made (a int)",
            "call p()",
            "analyze",
            "prepare q as select 1",
            "reindex table t",
        ] {
            assert_eq!(cannot_be_run(sql), None, "{sql}");
        }
    }

    #[test]
    fn what_can_never_be_the_answer_is_known() {
        let text = |text: &str| Expected::Text(text.to_owned());
        let never = |sql: &str, expected: &Expected| never_holds(sql, expected).is_some();
        assert!(
            never("select count(*) from t", &text("none"))
                && never("select count(*) from t", &text("0.0"))
        );
        assert!(
            never("SELECT COUNT(distinct a) AS n FROM t", &text("-1"))
                && never("select count(*)", &text("00"))
        );
        assert!(never(
            "select count(*) from t",
            &Expected::Range { at_least: None, at_most: Some(-1.0) }
        ));
        assert!(
            never("select exists (select from t)", &text("t"))
                && never("select not exists(select 1)", &text("0"))
        );
        assert!(never(
            "select exists (select 1)",
            &Expected::Range { at_least: Some(1.0), at_most: None }
        ));
        for (sql, expected) in [
            ("select count(*) from t", "0"),
            ("select count(*) > 0 from t", "true"),
            ("select count(*)::text || 'x' from t", "0x"),
            ("select count(*), 1 from t", "x"),
            ("select count(*) / 2.0 from t", "0.5"),
            ("select exists (select 1)::int", "1"),
            ("select exists (select 1)", "true"),
            ("select counted from t", "x"),
            ("with a as (select 1) select count(*) from a", "x"),
        ] {
            assert!(!never(sql, &text(expected)), "{sql}");
        }
    }
}
