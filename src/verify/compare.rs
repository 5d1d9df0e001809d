//! Compares two fingerprints.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::id::DatabaseName;
use crate::ordered::IntoOrdered as _;
use crate::verify::{
    Check, CheckKind, CheckOutcome, DatabasePrint, Digest, Drift, Fingerprint, Position, RowCounts,
    RowDifferences,
};

/// Why a materialized view without rows is not read, as `relations.sql` says it.
const NOT_POPULATED: &str = "not populated";

/// Compares staging with the backup it was made from. `is_optional` says that a run goes on where
/// something could not be checked.
///
/// Whatever differs is a *failed* check with its [`Drift`]; the caller knows whether the other side
/// may be in use, and what follows then. A table that only one side has is a difference, never an
/// omission. One that could not be read on staging is *not checked*, because it is not known to
/// differ. A sequence behind the backup's is a failure without drift: it would give out values
/// again.
pub fn compare(backup: &Fingerprint, staging: &Fingerprint, is_optional: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    for (database, expected) in &backup.databases {
        let closed = |detail: String| {
            let check =
                Check::of(CheckKind::Database, database, "", CheckOutcome::NotChecked, detail);
            Check { is_optional, ..check }
        };
        let seen = staging.databases.get(database);
        if let Some(reason) = &expected.closed {
            checks.push(closed(reason.clone()));
        } else if let Some(reason) = seen.and_then(|seen| seen.closed.as_ref()) {
            checks.push(closed(format!("could not be read on staging: {reason}")));
        } else if let Some(seen) = seen {
            Comparison { database, backup: expected, staging: seen, is_optional }
                .compare(&mut checks);
        } else {
            let detail = "is in the backup and was not read on staging";
            checks.push(Check::of(CheckKind::Database, database, "", CheckOutcome::Failed, detail));
        }
    }
    checks
}

/// One database on both sides.
struct Comparison<'a> {
    database: &'a DatabaseName,
    backup: &'a DatabasePrint,
    staging: &'a DatabasePrint,
    is_optional: bool,
}

impl Comparison<'_> {
    fn compare(&self, checks: &mut Vec<Check>) {
        let Self { database, backup, staging, is_optional } = self;
        self.compare_schema(checks);
        let mut content = |check: Check| {
            let is_optional = *is_optional && check.outcome == CheckOutcome::NotChecked;
            checks.push(Check { is_optional, ..check });
        };
        let of = |kind: CheckKind, object: &String, outcome: CheckOutcome, detail: String| {
            Check::of(kind, database, object, outcome, detail)
        };
        for (table, expected) in &backup.tables {
            content(self.compare_table(table, expected));
        }
        for (extra, seen) in staging.tables.iter().filter(|(name, _)| !self.is_known(name)) {
            let rows =
                RowDifferences::counted(RowCounts { added: seen.count, ..RowCounts::default() });
            content(
                self.drift(
                    CheckKind::Content,
                    extra,
                    "is on staging and not in the backup",
                    Drift::Added,
                )
                .with(rows),
            );
        }
        for (table, reason) in &backup.skipped {
            content(self.beside_skipped(table, reason));
        }
        for (table, reason) in &backup.not_checked {
            content(of(CheckKind::Content, table, CheckOutcome::NotChecked, reason.clone()));
        }
        for name in &backup.unknown_exclusions {
            let detail = "is excluded by the configuration and is not there".to_owned();
            content(of(CheckKind::Content, name, CheckOutcome::Warned, detail));
        }
        for (name, expected) in &backup.sequences {
            content(match staging.sequences.get(name) {
                Some(seen) => {
                    let (outcome, detail) = compare_positions(*expected, *seen);
                    of(CheckKind::Sequence, name, outcome, detail)
                }
                None => self.absent(CheckKind::Sequence, name),
            });
        }
        for extra in staging.sequences.keys().filter(|name| !self.is_known(name)) {
            content(self.drift(
                CheckKind::Sequence,
                extra,
                "is on staging and not in the backup",
                Drift::Added,
            ));
        }
    }

    /// Compares what both sides hold of a table. Which rows differ is counted later, where neither
    /// side is empty.
    fn compare_table(&self, table: &String, expected: &Digest) -> Check {
        let (backup, nobody) = (expected.count, RowCounts::default());
        let Some(seen) = self.staging.tables.get(table) else {
            let check = self.absent(CheckKind::Content, table);
            let rows = RowDifferences::counted(RowCounts { gone: backup, ..nobody });
            return if check.drift.is_some() { check.with(rows) } else { check };
        };
        if seen == expected {
            return Check::of(
                CheckKind::Content,
                self.database,
                table,
                CheckOutcome::Passed,
                self.equal(table, expected),
            );
        }
        let detail = if seen.count == backup {
            format!("{backup} rows on both sides, content differs")
        } else {
            format!("backup has {backup} rows, staging {}", seen.count)
        };
        let differs = |drift: Drift| self.drift(CheckKind::Content, table, &detail, drift);
        match (backup, seen.count) {
            (0, added) => {
                differs(Drift::Added).with(RowDifferences::counted(RowCounts { added, ..nobody }))
            }
            (gone, 0) => {
                differs(Drift::Lost).with(RowDifferences::counted(RowCounts { gone, ..nobody }))
            }
            _ => differs(Drift::Lost),
        }
    }

    /// Judges a table that the backup does not hold: a materialized view may have been filled on
    /// staging.
    fn beside_skipped(&self, table: &String, reason: &str) -> Check {
        let Some(seen) = self.staging.tables.get(table) else {
            return Check::of(
                CheckKind::Content,
                self.database,
                table,
                CheckOutcome::Skipped,
                reason,
            );
        };
        let rows = RowDifferences::counted(RowCounts { added: seen.count, ..RowCounts::default() });
        let detail = format!("{reason} in the backup, read on staging");
        self.drift(CheckKind::Content, table, &detail, Drift::Added).with(rows)
    }

    /// Judges what the backup has and staging does not show. What could not be read there is not
    /// known to be gone.
    fn absent(&self, kind: CheckKind, name: &String) -> Check {
        let skipped = self.staging.skipped.get(name);
        if skipped.is_some_and(|reason| reason == NOT_POPULATED) {
            return self.drift(
                kind,
                name,
                "is in the backup, and is not populated on staging",
                Drift::Lost,
            );
        }
        match self.staging.not_checked.get(name).or(skipped) {
            Some(reason) => {
                let detail = format!("could not be read on staging: {reason}");
                Check::of(kind, self.database, name, CheckOutcome::NotChecked, detail)
            }
            None => self.drift(kind, name, "is in the backup and not on staging", Drift::Lost),
        }
    }

    /// Returns the check of what is not the same on both sides. The caller says what follows from
    /// it.
    fn drift(&self, kind: CheckKind, object: &str, detail: &str, drift: Drift) -> Check {
        Check {
            drift: Some(drift),
            ..Check::of(kind, self.database, object, CheckOutcome::Failed, detail)
        }
    }

    fn is_known(&self, name: &str) -> bool {
        let backup = self.backup;
        backup.tables.contains_key(name)
            || backup.sequences.contains_key(name)
            || backup.skipped.contains_key(name)
            || backup.not_checked.contains_key(name)
    }

    fn equal(&self, table: &str, digest: &Digest) -> String {
        match self.backup.left_out.get(table) {
            Some(columns) => {
                format!("{} rows equal; left out as configured: {columns}", digest.count)
            }
            None => format!("{} rows equal", digest.count),
        }
    }

    /// Compares the number and the definitions of each kind of object; a kind that a side has
    /// nothing of counts as none.
    fn compare_schema(&self, checks: &mut Vec<Check>) {
        let none = Digest::none();
        let kinds: BTreeSet<&String> =
            self.backup.schema.keys().chain(self.staging.schema.keys()).into_set();
        for kind in kinds {
            let (expected, seen) = (
                self.backup.schema.get(kind).unwrap_or(&none),
                self.staging.schema.get(kind).unwrap_or(&none),
            );
            checks.push(if expected == seen {
                let detail = format!("{} equal", expected.count);
                Check::of(CheckKind::Schema, self.database, kind, CheckOutcome::Passed, detail)
            } else {
                let detail = format!(
                    "backup has {}, staging {}; definitions differ",
                    expected.count, seen.count
                );
                self.drift(CheckKind::Schema, kind, &detail, Drift::Lost)
            });
        }
    }
}

/// A sequence at or ahead of the backup's has only been used; one behind would give out values
/// again.
pub fn compare_positions(backup: Position, staging: Position) -> (CheckOutcome, String) {
    let key = |position: Position| {
        let value = i128::from(position.last_value);
        (if position.is_descending { -value } else { value }, position.is_called)
    };
    let (at, seen) = (backup.last_value, staging.last_value);
    match key(staging).cmp(&key(backup)) {
        Ordering::Equal => (CheckOutcome::Passed, format!("at {at}")),
        Ordering::Greater => {
            (CheckOutcome::Passed, format!("drift: backup at {at}, staging ahead at {seen}"))
        }
        Ordering::Less => {
            (CheckOutcome::Failed, format!("backup at {at}, staging behind at {seen}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print() -> Fingerprint {
        let mut database = DatabasePrint::default();
        database.schema.insert("columns".into(), Digest { count: 3, digest: "5".into() });
        database.tables.insert("public.users".into(), Digest { count: 2, digest: "77".into() });
        database.sequences.insert(
            "public.users_id_seq".into(),
            Position { last_value: 2, is_called: true, is_descending: false },
        );
        database.skipped.insert("public.cache".into(), "unlogged".into());
        Fingerprint { databases: [("neondb".into(), database)].into() }
    }

    fn failing(change: impl Fn(&mut DatabasePrint)) -> Vec<String> {
        let mut staging = print();
        staging.databases.values_mut().for_each(change);
        compare(&print(), &staging, false)
            .iter()
            .filter(|check| check.is_objection())
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn equal_sides_have_no_objections_and_skipped_tables_are_named() {
        let found = compare(&print(), &print(), false);
        assert!(!found.iter().any(Check::is_objection));
        assert!(found.iter().any(|check| check.outcome == CheckOutcome::Skipped));
    }

    #[test]
    fn a_difference_is_named_with_what_was_expected_and_seen() {
        let content = failing(|print| {
            print.tables.insert("public.users".into(), Digest { count: 2, digest: "78".into() });
        });
        assert_eq!(
            content,
            ["neondb: content of public.users: 2 rows on both sides, content differs"]
        );
        let missing = failing(|print| print.tables.clear());
        assert_eq!(
            missing,
            ["neondb: content of public.users: is in the backup and not on staging"]
        );
        let extra = failing(|print| {
            print.tables.insert("public.debris".into(), Digest { count: 0, digest: "0".into() });
        });
        assert_eq!(
            extra,
            ["neondb: content of public.debris: is on staging and not in the backup"]
        );
    }

    /// Returns how a table of staging differs, whatever is told of it.
    fn drift(change: impl Fn(&mut DatabasePrint)) -> (Option<Drift>, Option<RowCounts>) {
        let (mut backup, mut staging) = (print(), print());
        backup.databases.values_mut().for_each(|print| {
            drop(print.skipped.insert("public.later".into(), NOT_POPULATED.into()));
        });
        staging.databases.values_mut().for_each(change);
        let checks = compare(&backup, &staging, false);
        let mut found = checks.iter().filter(|check| check.drift.is_some());
        let first = found.next();
        assert!(found.next().is_none(), "one thing differs: {checks:#?}");
        (
            first.and_then(|check| check.drift),
            first.and_then(|check| check.rows.as_ref()).map(|rows| rows.counts),
        )
    }

    /// As in case 37: what is gone altogether is counted without another look.
    #[test]
    fn a_table_that_was_emptied_or_dropped_has_lost_all_of_its_rows() {
        let gone = Some(RowCounts { gone: 2, ..RowCounts::default() });
        let none = Digest::none();
        assert_eq!(
            drift(|print| drop(print.tables.insert("public.users".into(), none.clone()))),
            (Some(Drift::Lost), gone)
        );
        assert_eq!(drift(|print| print.tables.clear()), (Some(Drift::Lost), gone));
        let is_emptied = |print: &mut DatabasePrint| {
            print.tables.clear();
            print.skipped.insert("public.users".into(), NOT_POPULATED.into());
        };
        assert_eq!(
            drift(is_emptied),
            (Some(Drift::Lost), gone),
            "a view that was refreshed without data"
        );
    }

    /// As in case 12 and case 21: a materialized view that is empty in the backup was told as
    /// skipped when staging had filled it.
    #[test]
    fn what_only_staging_holds_was_added() {
        let added = Some(RowCounts { added: 3, ..RowCounts::default() });
        let three = Digest { count: 3, digest: "9".into() };
        for name in ["public.made_here", "public.later"] {
            assert_eq!(
                drift(|print| drop(print.tables.insert(name.into(), three.clone()))),
                (Some(Drift::Added), added),
                "{name}"
            );
        }
    }

    #[test]
    fn a_kind_of_object_that_one_side_has_nothing_of_differs() {
        let changed = failing(|print| {
            print.schema.insert("columns".into(), Digest { count: 3, digest: "6".into() });
            print.schema.insert("triggers".into(), Digest { count: 1, digest: "9".into() });
        });
        let expected = [
            "neondb: columns: backup has 3, staging 3; definitions differ",
            "neondb: triggers: backup has 0, staging 1; definitions differ",
        ];
        assert_eq!(changed, expected);
        assert_eq!(
            failing(|print| print.schema.clear()),
            ["neondb: columns: backup has 3, staging 0; definitions differ"]
        );
    }

    #[test]
    fn a_table_that_staging_would_not_show_is_not_equal() {
        let found = failing(|print| {
            print.tables.clear();
            print.not_checked.insert("public.users".into(), "the role may not read it".into());
        });
        let expected = "neondb: content of public.users: not checked: could not be read on \
            staging: the role may not read it";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_sequence_ahead_is_drift_and_one_behind_is_a_difference() {
        assert!(
            failing(|print| {
                print.sequences.insert(
                    "public.users_id_seq".into(),
                    Position { last_value: 9, is_called: true, is_descending: false },
                );
            })
            .is_empty()
        );
        let behind = failing(|print| {
            print.sequences.insert(
                "public.users_id_seq".into(),
                Position { last_value: 1, is_called: true, is_descending: false },
            );
        });
        assert_eq!(
            behind,
            ["neondb: sequence public.users_id_seq: backup at 2, staging behind at 1"]
        );
    }

    #[test]
    fn a_sequence_that_counts_down_is_ahead_when_it_is_lower() {
        let at = |last_value: i64| Position { last_value, is_called: true, is_descending: true };
        assert_eq!(compare_positions(at(-5), at(-6)).0, CheckOutcome::Passed);
        assert_eq!(compare_positions(at(-5), at(-4)).0, CheckOutcome::Failed);
    }

    #[test]
    fn what_could_not_be_checked_stands_in_the_way_unless_that_is_configured() {
        let mut late = print();
        late.databases.values_mut().for_each(|print| {
            print.tables.clear();
            print
                .not_checked
                .insert("public.users".into(), "did not fit the time budget of 60 s".to_owned());
        });
        let objections = |is_optional: bool| {
            compare(&late, &print(), is_optional)
                .iter()
                .filter(|check| check.is_objection())
                .count()
        };
        assert_eq!((objections(false), objections(true)), (1, 0));
        let of_staging = compare(&print(), &late, false);
        let check = of_staging
            .iter()
            .find(|check| check.kind == CheckKind::Content && check.object == "public.users")
            .expect("it is told");
        assert_eq!(check.outcome, CheckOutcome::NotChecked);
    }

    #[test]
    fn what_was_left_out_is_told() {
        let mut backup = print();
        backup.databases.values_mut().for_each(|print| {
            print.left_out.insert("public.users".into(), "seen_at".into());
            print.unknown_exclusions.push("public.nothing".into());
        });
        let told: Vec<String> =
            compare(&backup, &print(), false).iter().map(ToString::to_string).collect();
        assert!(
            told.contains(
                &"neondb: content of public.users: 2 rows equal; left out as configured: seen_at"
                    .to_owned()
            ),
            "{told:#?}"
        );
        assert!(
            told.contains(
                &"neondb: content of public.nothing: is excluded by the configuration and is not \
                    there"
                    .to_owned()
            )
        );
    }

    #[test]
    fn a_database_that_was_not_read_is_not_equal() {
        let found = compare(&print(), &Fingerprint::default(), true);
        assert_eq!(found.iter().filter(|check| check.is_objection()).count(), 1);
    }
}
