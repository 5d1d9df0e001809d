//! What the answers to probes mean: the checks of integrity, freshness, assertions, and of what
//! would act by itself.
//!
//! Invariants: what was not asked is *not checked*; a policy says whether a defect fails the run or
//! is a warning, and whether what could not be asked does.

use std::time::Duration;

use super::probe::{Found, Probe, ProbeKind, kinds};
use super::{Check, CheckKind, CheckOutcome, NAMED, TOLD, told};
use crate::config::{AssertedOn, Assertion, Expected, Freshness, Pair, Policy, Verification};
use crate::id::DatabaseName;

/// A newest row may be so far in the future: clocks differ.
const CLOCK_SKEW: Duration = Duration::from_mins(5);

/// Characters of a value that an assertion returned and that are told.
const VALUE: usize = 100;

/// Returns the policy of a kind; what somebody configured has its own.
pub fn policy(kind: ProbeKind, settings: &Verification) -> Policy {
    match kind {
        ProbeKind::ForeignKeys => settings.foreign_keys,
        ProbeKind::Sequences => settings.sequences,
        ProbeKind::Indexes => settings.invalid_indexes,
        ProbeKind::Constraints => settings.unvalidated_constraints,
        ProbeKind::IndexStructure => settings.index_structure,
        ProbeKind::Armed => settings.armed,
        ProbeKind::ProductionCount => settings.production_counts,
        ProbeKind::Freshness | ProbeKind::Assertion | ProbeKind::Guarded => Policy::Fail,
    }
}

/// Returns the checks that follow from the probes of a database of the backup.
pub fn judge_backup(database: &DatabaseName, probes: &[Probe], pair: &Pair) -> Vec<Check> {
    let settings = &pair.verification;
    let mut checks = judge_defects(database, probes, settings);
    let of = |kind: ProbeKind| probes.iter().filter(move |probe| probe.kind == kind);
    for probe in of(ProbeKind::Freshness) {
        let settings = settings.freshness.iter().find(|freshness| freshness.name() == probe.object);
        checks.extend(settings.map(|settings| judge_freshness(database, probe, settings)));
    }
    for probe in of(ProbeKind::Assertion) {
        let settings = settings.assertions.iter().find(|assertion| assertion.name == probe.object);
        checks.extend(
            settings.map(|settings| judge_assertion(database, "backup", probe, None, settings)),
        );
    }
    checks
}

/// Returns the checks that follow from the probes of a database of staging, given those of the
/// backup.
pub fn judge_staging(
    database: &DatabaseName,
    probes: &[Probe],
    of_backup: &[Probe],
    pair: &Pair,
) -> Vec<Check> {
    let settings = &pair.verification;
    let mut checks = judge_defects(database, probes, settings);
    for probe in probes.iter().filter(|probe| probe.kind == ProbeKind::Assertion) {
        let Some(settings) =
            settings.assertions.iter().find(|assertion| assertion.name == probe.object)
        else {
            continue;
        };
        let other =
            of_backup.iter().find(|other| other.kind == probe.kind && other.object == probe.object);
        checks.push(judge_assertion(
            database,
            "staging",
            probe,
            other.filter(|_| settings.on == AssertedOn::Both),
            settings,
        ));
    }
    checks
}

/// Returns one check for each kind of defect that was looked for.
fn judge_defects(database: &DatabaseName, probes: &[Probe], settings: &Verification) -> Vec<Check> {
    let mut checks = Vec::new();
    for kind in kinds(probes) {
        let Some((check_kind, what, is_not_there)) = defect(kind) else { continue };
        let of_kind: Vec<&Probe> = probes.iter().filter(|probe| probe.kind == kind).collect();
        checks.push(judge_kind(
            database,
            check_kind,
            what,
            is_not_there,
            &of_kind,
            policy(kind, settings),
        ));
    }
    checks
}

/// Returns what a kind of defect is called, and the errors that say that there is nothing to look
/// at.
fn defect(kind: ProbeKind) -> Option<(CheckKind, &'static str, &'static [&'static str])> {
    match kind {
        ProbeKind::ForeignKeys => Some((CheckKind::ForeignKeys, "have orphans", &[])),
        ProbeKind::Sequences => Some((CheckKind::SequenceBounds, "are behind their column", &[])),
        ProbeKind::Indexes => Some((CheckKind::InvalidIndexes, "are invalid or not ready", &[])),
        ProbeKind::Constraints => {
            Some((CheckKind::UnvalidatedConstraints, "were never validated", &[]))
        }
        ProbeKind::IndexStructure => Some((CheckKind::IndexStructure, "are damaged", &[])),
        // 42P01 and 3F000: the extension that would have the table is not there.
        ProbeKind::Armed => {
            Some((CheckKind::Armed, "would act by themselves on staging", &["42P01", "3F000"]))
        }
        ProbeKind::Freshness
        | ProbeKind::Assertion
        | ProbeKind::Guarded
        | ProbeKind::ProductionCount => None,
    }
}

fn judge_kind(
    database: &DatabaseName,
    kind: CheckKind,
    what: &str,
    absent: &[&str],
    probes: &[&Probe],
    policy: Policy,
) -> Check {
    let (mut count, mut defects, mut unchecked) = (0, Vec::new(), Vec::new());
    for probe in probes {
        let object = &probe.object;
        match &probe.found {
            Some(Found::Count(total)) => count += total,
            Some(Found::Defect) => defects.push(object.clone()),
            Some(Found::Rows(rows)) if rows.is_empty() => count += 1,
            Some(Found::Rows(rows)) => {
                count += 1;
                defects.extend(told_rows(probe.kind, object, rows));
            }
            // Source: PostgreSQL, appendix A: XX001 `data_corrupted`, XX002 `index_corrupted`.
            Some(Found::Error(state, message)) if matches!(state.as_str(), "XX001" | "XX002") => {
                defects.push(format!("{object} ({state}: {message})"));
            }
            Some(Found::Error(state, _)) if absent.contains(&state.as_str()) => {}
            Some(Found::Error(..) | Found::NotRun(_)) | None => {
                let told = if object.is_empty() {
                    probe.failure()
                } else {
                    format!("{object} ({})", probe.failure())
                };
                // One reason for all is told once.
                if !unchecked.contains(&told) {
                    unchecked.push(told);
                }
            }
        }
    }
    let not_checked = if unchecked.is_empty() {
        String::new()
    } else {
        format!("not checked: {}", told(&unchecked))
    };
    let (outcome, detail) = if !defects.is_empty() {
        let rest = if not_checked.is_empty() { String::new() } else { format!("; {not_checked}") };
        (outcome_of(policy), format!("{} {what}: {}{rest}", defects.len(), told(&defects)))
    } else if !unchecked.is_empty() {
        (
            CheckOutcome::NotChecked,
            format!("{count} are good; {}", not_checked.trim_start_matches("not checked: ")),
        )
    } else if kind == CheckKind::Armed {
        (CheckOutcome::Passed, "nothing would".to_owned())
    } else if count == 0 {
        (CheckOutcome::Skipped, "there is none".to_owned())
    } else {
        (CheckOutcome::Passed, format!("{count} checked"))
    };
    let findings = defects.into_iter().chain(unchecked).take(NAMED).collect();
    Check {
        findings,
        is_optional: policy != Policy::Fail,
        ..Check::of(kind, database, "", outcome, detail)
    }
}

/// Tells the rows that a probe found.
fn told_rows(kind: ProbeKind, object: &str, rows: &[Vec<Option<String>>]) -> Vec<String> {
    let value = |row: &[Option<String>], index: usize| row.get(index).cloned().flatten();
    let first = |index: usize| rows.first().and_then(|row| value(row, index)).unwrap_or_default();
    if kind == ProbeKind::ForeignKeys {
        let keys: Vec<String> = rows.iter().filter_map(|row| value(row, 1)).take(TOLD).collect();
        let keys = if keys.is_empty() { String::new() } else { format!(": {}", keys.join(", ")) };
        return vec![format!("{object} ({} rows{keys})", first(0))];
    }
    if kind == ProbeKind::Sequences {
        return vec![format!("{object} (at {})", first(0))];
    }
    rows.iter().filter_map(|row| value(row, 0)).filter(|text| !text.is_empty()).collect()
}

/// Returns the outcome of a check that did not hold.
pub fn outcome_of(policy: Policy) -> CheckOutcome {
    if policy == Policy::Fail { CheckOutcome::Failed } else { CheckOutcome::Warned }
}

fn judge_freshness(database: &DatabaseName, probe: &Probe, settings: &Freshness) -> Check {
    let seconds = |seconds: u64| crate::time::render_age(Duration::from_secs(seconds));
    let bad = outcome_of(settings.policy);
    let (outcome, detail) = match single(probe) {
        Err(reason) => (CheckOutcome::NotChecked, reason),
        Ok(None) => (bad, "the table is empty, or has no time".to_owned()),
        Ok(Some(age)) => match age.parse::<i64>() {
            Err(_) => (CheckOutcome::NotChecked, format!("{} is no time", settings.column)),
            Ok(age) if age < 0 && age.unsigned_abs() > CLOCK_SKEW.as_secs() => (
                bad,
                format!(
                    "the newest {} is {} in the future",
                    settings.column,
                    seconds(age.unsigned_abs())
                ),
            ),
            Ok(age) if age.unsigned_abs() > settings.max_age.as_secs() => {
                let limit = seconds(settings.max_age.as_secs());
                (
                    bad,
                    format!(
                        "the newest {} is {} old, allowed are {limit}",
                        settings.column,
                        seconds(age.unsigned_abs())
                    ),
                )
            }
            Ok(age) => (
                CheckOutcome::Passed,
                format!("the newest {} is {} old", settings.column, seconds(age.unsigned_abs())),
            ),
        },
    };
    Check {
        is_optional: settings.policy != Policy::Fail,
        ..Check::of(CheckKind::Freshness, database, &settings.name(), outcome, detail)
    }
}

/// Returns the only value that a probe found; `Err` says why there is none.
fn single(probe: &Probe) -> Result<Option<String>, String> {
    match &probe.found {
        Some(Found::Rows(rows)) => match rows.as_slice() {
            [row] if row.len() == 1 => Ok(row[0].clone()),
            rows => Err(format!(
                "expected one row of one column, it returned {} rows of {}",
                rows.len(),
                rows.first().map_or(0, Vec::len)
            )),
        },
        Some(Found::Error(..) | Found::NotRun(_) | Found::Defect | Found::Count(_)) | None => {
            Err(probe.failure())
        }
    }
}

/// Judges an assertion on one side; `other` is what the backup answered, where both are compared.
fn judge_assertion(
    database: &DatabaseName,
    side: &str,
    probe: &Probe,
    other: Option<&Probe>,
    settings: &Assertion,
) -> Check {
    let bad = outcome_of(settings.policy);
    let shown = |value: &Option<String>| {
        value.as_ref().map_or_else(|| "null".to_owned(), |text| text.chars().take(VALUE).collect())
    };
    let (outcome, detail) = match (single(probe), &settings.expected) {
        // It ran, and did not return what can be compared: that is no reading that may be tried
        // again.
        (Err(reason), _) if !matches!(probe.found, Some(Found::Rows(_))) => {
            (CheckOutcome::NotChecked, reason)
        }
        (Err(reason), Some(_)) => (bad, reason),
        (Ok(value), Some(expected)) if expected.holds(value.as_deref()) => {
            (CheckOutcome::Passed, shown(&value))
        }
        (Ok(value), Some(expected)) => {
            (bad, format!("expected {expected}, it is {}", shown(&value)))
        }
        (_, None) => (CheckOutcome::Passed, "answered".to_owned()),
    };
    let differs =
        other.filter(|other| outcome == CheckOutcome::Passed && other.found != probe.found);
    let (outcome, detail) = match differs {
        None => (outcome, detail),
        Some(Probe { found: Some(Found::Rows(_)), .. }) => {
            let told =
                |probe: &Probe| single(probe).map_or_else(|reason| reason, |value| shown(&value));
            (
                bad,
                format!(
                    "differs: on the backup {}, on staging {}",
                    differs.map(told).unwrap_or_default(),
                    told(probe)
                ),
            )
        }
        Some(_) => (CheckOutcome::NotChecked, "the backup did not answer".to_owned()),
    };
    let object = format!("{} on {side}", settings.name);
    Check {
        is_optional: settings.policy != Policy::Fail,
        ..Check::of(CheckKind::Assertion, database, &object, outcome, detail)
    }
}

impl Expected {
    /// Returns whether a value is what was expected.
    fn holds(&self, value: Option<&str>) -> bool {
        let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<f64>().ok());
        match self {
            Self::Text(expected) => {
                // PostgreSQL writes a boolean with one letter.
                let is_boolean =
                    |word: &str, letter: &str| expected == word && value == Some(letter);
                value == Some(expected.as_str())
                    || is_boolean("true", "t")
                    || is_boolean("false", "f")
            }
            Self::Range { at_least, at_most } => number(value).is_some_and(|value| {
                at_least.is_none_or(|bound| value >= bound)
                    && at_most.is_none_or(|bound| value <= bound)
            }),
        }
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Range { at_least: Some(low), at_most: Some(high) } => {
                write!(f, "{low} to {high}")
            }
            Self::Range { at_least: Some(low), at_most: None } => write!(f, "{low} or more"),
            Self::Range { at_least: None, at_most: Some(high) } => write!(f, "{high} or less"),
            Self::Range { at_least: None, at_most: None } => f.write_str("a number"),
        }
    }
}
