//! Questions that are put to a database beside its content, many in one request: each has an answer
//! of its own, also when others fail.
//!
//! In: [`Probe`]s. Out: a [`Batch`], and from its reply a [`Found`] for each probe.
//!
//! Invariants: a probe reads only; an error of one leaves the others; one that takes too long is
//! asked alone, and is *not checked* when that does not help. What was answered is in the
//! checkpoint and not asked again.
//!
//! How: a `do` block executes each statement in a block of its own that catches errors, and leaves
//! what it found in a setting of the transaction. The statement is built before the path is
//! widened; what stands around the configured text names every function with its schema and no
//! operator. A row comes as the text that its type's output function gives, `(1,"a b",)`: no cast
//! of the database's is looked for.

use crate::ordered::IntoOrdered as _;
use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::catalogue::{settings, text};
use crate::neon::message::{of_postgres, state_of};
use crate::neon::sql::{Batch, Rows, STATEMENT_TIMEOUT_S, may_pass};

/// Bytes of the tables that one request reads; one that reads more is asked alone. 1 GB takes some
/// seconds.
const BYTES_PER_REQUEST: u64 = 1 << 30;

/// Probes of one request: each costs up to a kilobyte of SQL, and locks two tables and their
/// indexes until the request ends. With three indexes these are 4,000 of the 6,400 locks and more
/// that a server has room for.
const PROBES_PER_REQUEST: usize = 500;

/// Rows of an answer that are fetched.
const ROWS: usize = 100;

/// Relations that row-level security concerns that are fetched.
pub(super) const GUARDED: usize = 5_000;

/// How often a statement is asked again whose error was about the moment.
const TRIES: u32 = 3;

/// Executes the statements of the setting `firstlight.probes`, and leaves their answers in
/// `firstlight.found`.
const EXECUTE: &str =
    "do $firstlight$ declare probe json; statement text; answer json; found json[] := '{}'; begin \
    for probe in select value from \
    json_array_elements(current_setting('firstlight.probes')::json) loop begin \
    statement := format('select pg_catalog.json_agg(pg_catalog.concat(firstlight_row)) from \
    (select * from (%s
) as q limit %s) as firstlight_row', \
    probe ->> 0, probe ->> 2); \
    if (probe ->> 1)::boolean then perform set_config('search_path', null, true); end if; \
    execute statement into answer; \
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true); \
    found := found || json_build_object('rows', coalesce(answer, '[]')); \
    exception when others then found := found || json_build_object('error', sqlstate, \
    'message', left(sqlerrm, 200)); end; end loop; \
    perform set_config('firstlight.found', array_to_json(found)::text, true); end $firstlight$";

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What it is about.
    pub kind: ProbeKind,
    /// Which object, or the name of a configured check.
    pub object: String,
    /// The statement; empty once it was answered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sql: String,
    /// Whether somebody configured the statement.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_configured: bool,
    /// Bytes that it reads.
    #[serde(default)]
    pub bytes: u64,
    /// Whether it is asked alone, because it was in a request that took too long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_alone: bool,
    /// How often its answer was an error that was about the moment.
    #[serde(default)]
    pub tries: u32,
    /// What was found; missing while it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
}

/// What a probe is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// A foreign key: rows whose referenced row is missing.
    ForeignKeys,
    /// A sequence: whether it is behind the largest value of its column.
    Sequences,
    /// An index that is invalid or not ready.
    Indexes,
    /// A constraint that was never validated.
    Constraints,
    /// The structure of a B-tree.
    IndexStructure,
    /// How old the newest row of a table is, in seconds.
    Freshness,
    /// A configured assertion.
    Assertion,
    /// What would act by itself on staging.
    Armed,
    /// The relations that row-level security, or the lack of it, concerns.
    Guarded,
    /// The rows of a table of production.
    ProductionCount,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// The rows of its answer, at most a hundred.
    Rows(Vec<Vec<Option<String>>>),
    /// An error of Postgres: SQLSTATE and what may be shown of its message.
    Error(String, String),
    /// It was not asked, and why.
    NotRun(String),
    /// The object itself is what was looked for.
    Defect,
    /// So many objects were looked at.
    Count(u64),
}

impl Probe {
    /// Returns a question that was not asked yet.
    pub fn new(kind: ProbeKind, object: impl Into<String>, sql: String) -> Self {
        Self {
            kind,
            object: object.into(),
            sql,
            is_configured: false,
            bytes: 0,
            is_alone: false,
            tries: 0,
            found: None,
        }
    }

    /// Says why there are no rows.
    pub(super) fn failure(&self) -> String {
        match &self.found {
            Some(Found::Error(state, message)) => format!("{state}: {message}"),
            Some(Found::NotRun(reason)) => reason.clone(),
            Some(Found::Rows(_) | Found::Defect | Found::Count(_)) | None => {
                "the run ended before".to_owned()
            }
        }
    }

    /// Returns how many rows are fetched at most.
    fn rows(&self) -> usize {
        if self.kind == ProbeKind::Guarded { GUARDED } else { ROWS }
    }

    fn answer(&mut self, found: Found) {
        self.found = Some(found);
        self.sql.clear();
    }
}

/// Returns the indices of the probes that are asked next; empty when all were.
pub fn next_probes(probes: &[Probe]) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::new();
    let mut bytes = 0;
    for (index, probe) in probes.iter().enumerate().filter(|(_, probe)| probe.found.is_none()) {
        if !chosen.is_empty()
            && (probe.is_alone
                || bytes + probe.bytes > BYTES_PER_REQUEST
                || chosen.len() >= PROBES_PER_REQUEST)
        {
            continue;
        }
        chosen.push(index);
        bytes += probe.bytes;
        if probe.is_alone {
            break;
        }
    }
    chosen
}

/// Returns the batch that asks some of the probes.
pub fn probe_batch(probes: &[Probe], chosen: &[usize]) -> Batch {
    let asked = chosen.iter().filter_map(|index| probes.get(*index));
    each_by_itself(asked.map(|probe| (probe.sql.as_str(), probe.is_configured, probe.rows())))
}

/// Returns the batch that executes statements each in a block of its own: whether somebody
/// configured it, and how many rows are fetched.
pub(super) fn each_by_itself<'a>(
    statements: impl Iterator<Item = (&'a str, bool, usize)>,
) -> Batch {
    let asked: Vec<_> = statements.map(|statement| serde_json::json!(statement)).collect();
    batch_of(Some(settings()), "probes", &asked.into(), EXECUTE)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    /// Each row as the text of a record.
    Rows {
        rows: Vec<String>,
    },
    Error {
        error: String,
        message: String,
    },
}

/// Reads the text of a record, as `record_out` writes it: values between commas, quoted where they
/// have to be, nothing for NULL. `None` when it is none.
///
/// Source: PostgreSQL, section 8.16.6, "Composite Type Input and Output Syntax".
fn fields(record: &str) -> Option<Vec<Option<String>>> {
    let inner = record.strip_prefix('(')?.strip_suffix(')')?;
    let (mut found, mut value, mut is_quoted) = (Vec::new(), None::<String>, false);
    let mut letters = inner.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if is_quoted && letters.peek() == Some(&'"') => {
                value.get_or_insert_default().extend(letters.next());
            }
            '"' => {
                is_quoted = !is_quoted;
                value.get_or_insert_default();
            }
            '\\' if is_quoted => value.get_or_insert_default().push(letters.next()?),
            ',' if !is_quoted => found.push(value.take()),
            other => value.get_or_insert_default().push(other),
        }
    }
    found.push(value);
    (!is_quoted).then_some(found)
}

/// Returns the batch that gives a `do` block its input, runs it and reads what it has found;
/// `settings` come before.
pub(super) fn batch_of(
    settings: Option<(String, Vec<String>)>,
    name: &str,
    input: &serde_json::Value,
    block: &str,
) -> Batch {
    let mut statements: Vec<(String, Vec<String>)> = settings.into_iter().collect();
    statements.extend([
        (
            format!("select length(set_config('firstlight.{name}', $1, true)) > 0"),
            vec![input.to_string()],
        ),
        (block.to_owned(), Vec::new()),
        ("select current_setting('firstlight.found')".to_owned(), Vec::new()),
    ]);
    Batch { statements, is_read_only: true }
}

/// Reads what a `do` block has found; `None` when it makes no sense.
pub(super) fn found<T: DeserializeOwned>(results: &[Rows]) -> Option<Vec<T>> {
    serde_json::from_str(text(results.last()?.rows.first()?, 0)?).ok()
}

/// Reads the answers to [`each_by_itself`]; `None` when they make no sense.
pub(super) fn answers(results: &[Rows]) -> Option<Vec<Found>> {
    let answered = |answer: Answer| match answer {
        Answer::Rows { rows } => {
            Some(Found::Rows(rows.iter().map(|row| fields(row)).collect::<Option<_>>()?))
        }
        Answer::Error { error, message } => {
            Some(Found::Error(state_of(&error), of_postgres(&error, &message)))
        }
    };
    found(results)?.into_iter().map(answered).collect()
}

/// Takes up the answer to [`probe_batch`]; `None` when it makes no sense.
pub fn take_probes(probes: &mut [Probe], chosen: &[usize], results: &[Rows]) -> Option<()> {
    let answers = answers(results)?;
    if answers.len() != chosen.len() {
        return None;
    }
    for (index, found) in chosen.iter().zip(answers) {
        let probe = probes.get_mut(*index)?;
        if matches!(&found, Found::Error(state, _) if may_pass(state)) && probe.tries < TRIES {
            probe.tries += 1;
        } else {
            probe.answer(found);
        }
    }
    Some(())
}

/// A request took too long: its probes are asked alone, and one that was alone is not checked.
pub fn probes_too_slow(probes: &mut [Probe], chosen: &[usize]) {
    for index in chosen {
        let Some(probe) = probes.get_mut(*index) else { continue };
        if chosen.len() == 1 {
            probe.answer(Found::NotRun(format!("took longer than {STATEMENT_TIMEOUT_S} s")));
        }
        probe.is_alone = true;
    }
}

/// Nothing more is asked, because of `reason`.
pub fn end_probes(probes: &mut [Probe], reason: &str) {
    probes
        .iter_mut()
        .filter(|probe| probe.found.is_none())
        .for_each(|probe| probe.answer(Found::NotRun(reason.to_owned())));
}

/// Reads rows of `integrity.sql` as probes, without those of the kinds that are switched off;
/// `None` when they make no sense.
pub(super) fn decode_probes(rows: &Rows, is_off: impl Fn(ProbeKind) -> bool) -> Option<Vec<Probe>> {
    let mut probes = Vec::new();
    for row in &rows.rows {
        let kind: ProbeKind = serde_json::from_value(text(row, 0)?.into()).ok()?;
        if is_off(kind) {
            continue;
        }
        let (object, bytes) = (text(row, 1)?.to_owned(), text(row, 3)?.parse().ok()?);
        let sql = text(row, 2).unwrap_or_default().to_owned();
        let found = match (text(row, 4), object.as_str()) {
            (Some(reason), _) => Some(Found::NotRun(reason.to_owned())),
            (None, "#") => Some(Found::Count(bytes)),
            (None, _) if sql.is_empty() => Some(Found::Defect),
            (None, _) => None,
        };
        let sql = if found.is_some() { String::new() } else { sql };
        probes.push(Probe { bytes, found, ..Probe::new(kind, object, sql) });
    }
    Some(probes)
}

/// Returns the kinds that some probes are of.
pub(super) fn kinds(probes: &[Probe]) -> BTreeSet<ProbeKind> {
    probes.iter().map(|probe| probe.kind).into_set()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(object: &str, bytes: u64) -> Probe {
        Probe { bytes, ..Probe::new(ProbeKind::ForeignKeys, object, "select 1".to_owned()) }
    }

    fn answered(probes: &mut [Probe], chosen: &[usize], json: &str) -> Option<()> {
        let row = Rows { rows: vec![vec![Some(json.to_owned())]] };
        take_probes(probes, chosen, &[Rows::default(), Rows::default(), Rows::default(), row])
    }

    #[test]
    fn small_questions_share_a_request_and_a_large_one_has_its_own() {
        let probes = [probe("a", 10), probe("b", 5 << 30), probe("c", 10)];
        assert_eq!(next_probes(&probes), [0, 2]);
        assert_eq!(next_probes(&probes[1..]), [0]);
    }

    #[test]
    fn an_error_of_one_question_leaves_the_others() {
        let mut probes = [probe("a", 0), probe("b", 0)];
        let json = r#"[{"error": "42P01", "message": "no"}, {"rows": ["(1,)"]}]"#;
        answered(&mut probes, &[0, 1], json).expect("both are answered");
        assert_eq!(probes[0].found, Some(Found::Error("42P01".to_owned(), "no".to_owned())));
        assert_eq!(probes[1].found, Some(Found::Rows(vec![vec![Some("1".to_owned()), None]])));
        assert!(next_probes(&probes).is_empty());
    }

    #[test]
    fn a_record_is_read_value_by_value() {
        let read = |record: &str| {
            fields(record).map(|values| {
                values.into_iter().map(|value| value.unwrap_or("NULL".into())).collect::<Vec<_>>()
            })
        };
        let of = |values: &[&str]| {
            Some(values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(read("(1,,\"\")"), of(&["1", "NULL", ""]));
        assert_eq!(read(r#"("a,b","(1,""x"")","c\\d",t)"#), of(&["a,b", "(1,\"x\")", "c\\d", "t"]));
        assert_eq!(read("()"), of(&["NULL"]));
        assert_eq!([read("1,2"), read("(\"a)"), read("")], [None, None, None]);
    }

    #[test]
    fn an_answer_that_leaves_out_a_question_is_none() {
        let mut probes = [probe("a", 0), probe("b", 0)];
        assert_eq!(answered(&mut probes, &[0, 1], r#"[{"rows": []}]"#), None);
        assert_eq!(answered(&mut probes, &[0, 1], "null"), None);
        assert_eq!(next_probes(&probes), [0, 1]);
    }

    #[test]
    fn questions_that_take_too_long_together_are_asked_alone_and_given_up_alone() {
        let mut probes = [probe("a", 0), probe("b", 0)];
        probes_too_slow(&mut probes, &[0, 1]);
        assert_eq!(next_probes(&probes), [0]);
        probes_too_slow(&mut probes, &[0]);
        assert_eq!(probes[0].found, Some(Found::NotRun("took longer than 120 s".to_owned())));
        assert_eq!(next_probes(&probes), [1]);
        end_probes(&mut probes, "did not fit");
        assert_eq!(probes[1].found, Some(Found::NotRun("did not fit".to_owned())));
    }
}
