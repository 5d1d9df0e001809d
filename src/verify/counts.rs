//! Whether the numbers of rows make sense, beside those of the last verified run and beside
//! production as it is.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::judge::outcome_of;
use super::probe::{Found, Probe};
use super::{Check, CheckKind, CheckOutcome, Fingerprint, NAMED, told};
use crate::config::{Policy, Verification};
use crate::id::{DatabaseName, RunId};
use crate::ordered::IntoOrdered as _;

/// Rows that a table must have lost to be told: a table of three rows often has two.
const ROWS_LOST: u64 = 10;

/// The rows of each table when a run verified them, by database.
pub type Counts = BTreeMap<DatabaseName, BTreeMap<String, u64>>;

/// The numbers of rows of an earlier run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Which run.
    pub run: RunId,
    /// What it counted.
    pub counts: Counts,
    /// The people who had been given access to the project; missing where that was not asked.
    pub people: Option<BTreeSet<String>>,
}

impl Fingerprint {
    /// Returns the rows of each table, those of partitions together.
    pub fn counts(&self) -> Counts {
        let of = super::DatabasePrint::counts;
        let read = self.databases.iter().filter(|(_, print)| print.closed.is_none());
        read.map(|(database, print)| (database.clone(), of(print))).into_map()
    }
}

impl super::DatabasePrint {
    /// Returns the table that a table is judged as: partitions are dropped, swapped and made again
    /// by maintenance.
    fn whole<'a>(&'a self, table: &'a String) -> &'a String {
        self.part_of.get(table).unwrap_or(table)
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (table, digest) in &self.tables {
            *counts.entry(self.whole(table).clone()).or_default() += digest.count;
        }
        counts
    }
}

/// Compares the rows of the backup with those of the last verified run; without one, nothing is
/// checked.
///
/// A run that fails for it leaves the baseline where it was, so the next one fails as well until
/// somebody says that the loss was meant: what is accepted warns, and the baseline moves on.
pub fn judge_row_loss(
    backup: &Fingerprint,
    baseline: Option<&Baseline>,
    settings: &Verification,
    is_accepted: bool,
) -> Vec<Check> {
    if settings.row_loss == Policy::Off {
        return Vec::new();
    }
    let check = |database: &DatabaseName| {
        let none = BTreeMap::new();
        let Some(Baseline { run, counts, .. }) = baseline else {
            let detail = "no verified run before this one is on record";
            // There is a first run: that it has nothing to be compared with is no defect of it.
            return Check {
                is_optional: true,
                ..Check::of(CheckKind::RowLoss, database, "", CheckOutcome::NotChecked, detail)
            };
        };
        let (before, print) = (counts.get(database).unwrap_or(&none), &backup.databases[database]);
        let unread: BTreeSet<&String> = print
            .not_checked
            .keys()
            .chain(print.skipped.keys())
            .map(|table| print.whole(table))
            .into_set();
        let is_judged =
            |table: &String| !unread.contains(table) && !settings.row_loss_exclude.contains(table);
        let present = print.counts();
        let lost =
            before.iter().filter(|(table, _)| is_judged(table)).filter_map(|(table, before)| {
                let rows = present.get(table).copied();
                let lost = before.saturating_sub(rows.unwrap_or(0));
                let is_much = lost >= ROWS_LOST
                    && lost.saturating_mul(100)
                        >= before.saturating_mul(settings.row_loss_percent.into());
                let now = rows.map_or_else(|| "is gone".to_owned(), |rows| format!("has {rows}"));
                is_much.then(|| format!("{table} had {before} rows in {run} and {now}"))
            });
        let lost: Vec<String> = lost.collect();
        let (outcome, detail) = if lost.is_empty() {
            (
                CheckOutcome::Passed,
                format!(
                    "no table has lost {} % of its rows since {run}",
                    settings.row_loss_percent
                ),
            )
        } else if is_accepted {
            (CheckOutcome::Warned, format!("{}; accepted by whoever started this run", told(&lost)))
        } else if settings.row_loss == Policy::Fail {
            (
                CheckOutcome::Failed,
                format!(
                    "{}; if that was meant, start a run with {{\"accept_row_loss\": true}}",
                    told(&lost)
                ),
            )
        } else {
            (outcome_of(settings.row_loss), told(&lost))
        };
        let findings = lost.into_iter().take(NAMED).collect();
        Check { findings, ..Check::of(CheckKind::RowLoss, database, "", outcome, detail) }
    };
    backup
        .databases
        .iter()
        .filter(|(_, print)| print.closed.is_none())
        .map(|(database, _)| check(database))
        .collect()
}

/// Compares the rows of the backup with those of production a little later.
pub fn judge_production(
    database: &DatabaseName,
    backup: &Fingerprint,
    probes: &[Probe],
    settings: &Verification,
) -> Check {
    let (mut apart, mut unchecked) = (Vec::new(), Vec::new());
    for probe in probes {
        let table = &probe.object;
        let expected = backup.table(database.as_str(), table).map_or(0, |digest| digest.count);
        let seen = match &probe.found {
            Some(Found::Rows(rows)) => {
                rows.first().and_then(|row| row.first()?.as_ref()?.parse::<u64>().ok())
            }
            Some(Found::Error(..) | Found::NotRun(_) | Found::Defect | Found::Count(_)) | None => {
                None
            }
        };
        let Some(seen) = seen else {
            let reason = if probe.found.is_none() {
                "production has no endpoint".to_owned()
            } else {
                probe.failure()
            };
            unchecked.push(format!("{table} ({reason})"));
            continue;
        };
        let difference = expected.abs_diff(seen);
        if difference.saturating_mul(100)
            > expected.max(seen).saturating_mul(settings.production_counts_percent.into())
        {
            apart.push(format!(
                "{table} has {expected} rows in the backup and {seen} in production"
            ));
        }
    }
    let (outcome, detail) = if !apart.is_empty() {
        (outcome_of(settings.production_counts), told(&apart))
    } else if !unchecked.is_empty() {
        (CheckOutcome::NotChecked, told(&unchecked))
    } else {
        (
            CheckOutcome::Passed,
            format!("{} tables within {} %", probes.len(), settings.production_counts_percent),
        )
    };
    let findings = apart.into_iter().chain(unchecked).take(NAMED).collect();
    let is_optional = settings.production_counts != Policy::Fail;
    Check {
        is_optional,
        findings,
        ..Check::of(CheckKind::ProductionCounts, database, "", outcome, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pair;
    use crate::verify::{DatabasePrint, Digest};

    /// As in case 13: a table by day, of which the oldest is dropped each night and a new one made,
    /// and one that is swapped.
    #[test]
    fn partitions_that_come_and_go_are_judged_as_their_whole() {
        let day = |name: &str, rows: u64| {
            (format!("public.event_{name}"), Digest { count: rows, digest: "1".to_owned() })
        };
        let print = |days: &[(&str, u64)]| {
            let tables: BTreeMap<String, Digest> =
                days.iter().map(|(name, rows)| day(name, *rows)).into_map();
            let part_of =
                tables.keys().map(|name| (name.clone(), "public.event".to_owned())).into_map();
            let print = DatabasePrint { tables, part_of, ..DatabasePrint::new() };
            Fingerprint { databases: [(DatabaseName::from("neondb"), print)].into() }
        };
        let settings = pair().verification;
        let before = print(&[("18", 144), ("19", 144), ("20", 144), ("21", 144)]);
        let baseline = Baseline {
            run: RunId::decode("20261120").expect("a run"),
            counts: before.counts(),
            people: None,
        };
        assert_eq!(
            baseline.counts[&DatabaseName::from("neondb")],
            [("public.event".to_owned(), 576)].into()
        );
        let told = |days: &[(&str, u64)], settings: &Verification| {
            judge_row_loss(&print(days), Some(&baseline), settings, false)
                .into_iter()
                .map(|check| (check.outcome, check.findings))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            told(&[("19", 144), ("20", 144), ("21", 144), ("22", 0)], &settings),
            [(CheckOutcome::Passed, Vec::new())]
        );
        let lost = vec!["public.event had 576 rows in 20261120 and has 144".to_owned()];
        assert_eq!(
            told(&[("21", 144)], &settings),
            [(CheckOutcome::Warned, lost)],
            "much of the whole"
        );
        let excluded =
            Verification { row_loss_exclude: vec!["public.event".to_owned()], ..settings };
        assert_eq!(
            told(&[("21", 144)], &excluded),
            [(CheckOutcome::Passed, Vec::new())],
            "a queue is emptied every night"
        );
    }

    /// As in case 13: a table that was dropped on purpose, where a loss fails the run.
    #[test]
    fn a_loss_that_is_accepted_warns_and_one_that_is_not_says_how() {
        let settings = Verification { row_loss: Policy::Fail, ..pair().verification };
        let print = |tables: &[(&str, u64)]| {
            let of = |(name, count): &(&str, u64)| {
                ((*name).to_owned(), Digest { count: *count, digest: "1".to_owned() })
            };
            let print =
                DatabasePrint { tables: tables.iter().map(of).into_map(), ..DatabasePrint::new() };
            Fingerprint { databases: [(DatabaseName::from("neondb"), print)].into() }
        };
        let counts = print(&[("public.kept", 10), ("public.gone", 40)]).counts();
        let baseline =
            Baseline { run: RunId::decode("20261120").expect("a run"), counts, people: None };
        let judged = |is_accepted| {
            judge_row_loss(&print(&[("public.kept", 10)]), Some(&baseline), &settings, is_accepted)
                .remove(0)
        };
        let (refused, accepted) = (judged(false), judged(true));
        assert_eq!(
            (refused.outcome, accepted.outcome),
            (CheckOutcome::Failed, CheckOutcome::Warned)
        );
        assert!(
            refused.detail.contains("public.gone had 40 rows in 20261120 and is gone"),
            "{}",
            refused.detail
        );
        assert!(refused.detail.contains("accept_row_loss"), "{}", refused.detail);
        assert_eq!(accepted.findings, refused.findings, "what is gone is told either way");
    }
}
