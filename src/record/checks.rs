//! The checks of a result, as they are kept: passed ones in a compact form.
//!
//! In / out: every check, in the order of the report. A check that passed, and has nothing to say
//! but its detail, is kept as the two words that are its own, beside others of its kind and
//! database: 250 bytes become 40. There is one for each table, and a result for each day of a year.
//!
//! Invariants: what is read is what was written; a result of an earlier version, with every check
//! whole, is read as well.
//!
//! Shape: `[{"name":"neondb:
//! armed",…},{"kind":"content","database":"neondb","passed":[["public.users","12 rows equal"]]}]`.

use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::DatabaseName;
use crate::verify::{Check, CheckKind, CheckOutcome};

/// Checks of one kind that passed.
#[derive(Serialize)]
struct Group<'a> {
    kind: CheckKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<&'a DatabaseName>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_optional: bool,
    /// The object and the detail of each.
    passed: Vec<(&'a str, &'a str)>,
}

/// One entry: a whole check, or some that passed.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Whole(Box<Check>),
    Passed {
        #[serde(default)]
        kind: CheckKind,
        database: Option<DatabaseName>,
        #[serde(default)]
        is_optional: bool,
        passed: Vec<(String, String)>,
    },
}

/// Returns the check that a passed one is read as.
fn passed(
    kind: CheckKind,
    database: Option<&DatabaseName>,
    is_optional: bool,
    object: &str,
    detail: &str,
) -> Check {
    let check = match database {
        Some(database) => Check::of(kind, database, object, CheckOutcome::Passed, detail),
        None => Check::of_pair(kind, object, CheckOutcome::Passed, detail),
    };
    Check { is_optional, ..check }
}

/// Returns whether a check is what its two words are read as.
fn is_plain(check: &Check) -> bool {
    check.outcome == CheckOutcome::Passed
        && *check
            == passed(
                check.kind,
                check.database.as_ref(),
                check.is_optional,
                &check.object,
                &check.detail,
            )
}

pub(super) fn serialize<S: Serializer>(checks: &[Check], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(None)?;
    let is_same = |left: &Check, right: &Check| {
        let head = |check: &Check| (check.kind, check.database.clone(), check.is_optional);
        is_plain(left) && is_plain(right) && head(left) == head(right)
    };
    for group in checks.chunk_by(is_same) {
        match group {
            [first, ..] if is_plain(first) => list.serialize_element(&Group {
                kind: first.kind,
                database: first.database.as_ref(),
                is_optional: first.is_optional,
                passed: group
                    .iter()
                    .map(|check| (check.object.as_str(), check.detail.as_str()))
                    .collect(),
            })?,
            whole => whole.iter().try_for_each(|check| list.serialize_element(check))?,
        }
    }
    list.end()
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Check>, D::Error> {
    let mut checks = Vec::new();
    for entry in Vec::<Entry>::deserialize(deserializer)? {
        match entry {
            Entry::Whole(check) => checks.push(*check),
            Entry::Passed { kind, database, is_optional, passed: list } => {
                checks.extend(list.iter().map(|(object, detail)| {
                    passed(kind, database.as_ref(), is_optional, object, detail)
                }));
            }
        }
    }
    Ok(checks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Kept {
        #[serde(with = "super")]
        checks: Vec<Check>,
    }

    fn checks(tables: usize) -> Vec<Check> {
        let database = DatabaseName::from("neondb");
        let content = |number: usize| {
            Check::of(
                CheckKind::Content,
                &database,
                &format!("public.t{number}"),
                CheckOutcome::Passed,
                "12 rows equal",
            )
        };
        let mut checks = vec![
            Check::of(
                CheckKind::Content,
                &database,
                "public.odd",
                CheckOutcome::Failed,
                "12 rows, expected 13",
            ),
            Check {
                findings: vec!["a view".to_owned()],
                ..Check::of_pair(CheckKind::Posture, "", CheckOutcome::Passed, "as production")
            },
            Check { name: "as it was called".to_owned(), ..content(0) },
            Check {
                is_optional: true,
                ..Check::of(CheckKind::RowLoss, &database, "", CheckOutcome::Passed, "")
            },
        ];
        checks.extend((1..=tables).map(content));
        checks.push(Check::of(
            CheckKind::Content,
            &"other".into(),
            "public.t1",
            CheckOutcome::Passed,
            "1 row equal",
        ));
        checks
    }

    #[test]
    fn every_check_is_read_as_it_was_written() {
        let kept = Kept { checks: checks(3) };
        let text = serde_json::to_string(&kept).expect("plain data");
        assert_eq!(serde_json::from_str::<Kept>(&text).expect("it was written so"), kept);
        assert!(
            text.contains(
                r#"{"kind":"content","database":"neondb","passed":[["public.t1","12 rows equal"],"#
            ),
            "{text}"
        );
        // An earlier version has written every check whole.
        let whole = serde_json::json!({"checks": kept.checks});
        assert_eq!(serde_json::from_value::<Kept>(whole).expect("whole checks are read"), kept);
    }

    #[test]
    fn a_thousand_tables_take_less_than_a_quarter_of_what_they_took() {
        let kept = Kept { checks: checks(1_000) };
        let (compact, whole) = (serde_json::to_string(&kept), serde_json::to_string(&kept.checks));
        let (compact, whole) =
            (compact.expect("plain data").len(), whole.expect("plain data").len());
        assert!(compact * 4 < whole, "{compact} of {whole} bytes");
    }

    #[test]
    fn a_check_without_a_name_or_an_outcome_is_none() {
        for text in [r#"{"checks":[{"name":"a"}]}"#, r#"{"checks":[{"outcome":"passed"}]}"#] {
            assert!(serde_json::from_str::<Kept>(text).is_err(), "{text}");
        }
    }
}
