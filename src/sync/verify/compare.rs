//! Compares two fingerprints.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::id::DatabaseName;
use crate::sync::verify::{Check, CheckOutcome, DatabasePrint, Digest, Fingerprint, Position};

/// What comparing found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Every check.
    pub checks: Vec<Check>,
    /// The tables whose content differs, with their database.
    pub tables: Vec<(DatabaseName, String)>,
    /// The kinds of objects that differ, with their database.
    pub kinds: Vec<(DatabaseName, String)>,
}

impl Differences {
    /// Returns the checks that failed or could not be run.
    pub fn objections(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| matches!(check.outcome, CheckOutcome::Failed | CheckOutcome::NotChecked))
    }
}

/// Compares staging with the backup it was made from.
///
/// A table that only one side has is a difference, never an omission.
pub fn compare(backup: &Fingerprint, staging: &Fingerprint) -> Differences {
    let mut found = Differences::default();
    for (database, expected) in &backup.databases {
        match staging.databases.get(database) {
            Some(seen) => compare_database(database, expected, seen, &mut found),
            None => found.checks.push(Check::new(
                format!("{database}: database"),
                CheckOutcome::Failed,
                "is in the backup and was not read on staging",
            )),
        }
    }
    found
}

fn compare_database(database: &DatabaseName, backup: &DatabasePrint, staging: &DatabasePrint, found: &mut Differences) {
    compare_schema(database, backup, staging, found);
    for (table, expected) in &backup.tables {
        let (outcome, detail) = match staging.tables.get(table) {
            Some(seen) if seen == expected => (CheckOutcome::Passed, format!("{} rows equal", expected.count)),
            Some(seen) if seen.count == expected.count => {
                (CheckOutcome::Failed, format!("{} rows on both sides, content differs", seen.count))
            }
            Some(seen) => (CheckOutcome::Failed, format!("backup has {} rows, staging {}", expected.count, seen.count)),
            None => (CheckOutcome::Failed, absent(staging, table)),
        };
        if outcome == CheckOutcome::Failed {
            found.tables.push((database.clone(), table.clone()));
        }
        found.checks.push(Check::new(format!("{database}: content of {table}"), outcome, detail));
    }
    for (sequence, expected) in &backup.sequences {
        let (outcome, detail) = match staging.sequences.get(sequence) {
            Some(seen) => sequence_outcome(*expected, *seen),
            None => (CheckOutcome::Failed, absent(staging, sequence)),
        };
        found.checks.push(Check::new(format!("{database}: sequence {sequence}"), outcome, detail));
    }
    let known = |name: &String| {
        backup.tables.contains_key(name)
            || backup.sequences.contains_key(name)
            || backup.skipped.contains_key(name)
            || backup.not_checked.contains_key(name)
    };
    for extra in staging.tables.keys().chain(staging.sequences.keys()).filter(|name| !known(name)) {
        found.checks.push(Check::new(
            format!("{database}: content of {extra}"),
            CheckOutcome::Failed,
            "is on staging and not in the backup",
        ));
    }
    for (table, reason) in &backup.skipped {
        found.checks.push(Check::new(format!("{database}: content of {table}"), CheckOutcome::Skipped, reason.clone()));
    }
    for (table, reason) in &backup.not_checked {
        found.checks.push(Check::new(format!("{database}: content of {table}"), CheckOutcome::NotChecked, reason.clone()));
    }
}

/// Compares the number and the definitions of each kind of object; a kind that a side has nothing of counts as none.
fn compare_schema(database: &DatabaseName, backup: &DatabasePrint, staging: &DatabasePrint, found: &mut Differences) {
    let none = Digest::none();
    let kinds: BTreeSet<&String> = backup.schema.keys().chain(staging.schema.keys()).collect();
    for kind in kinds {
        let (expected, seen) = (backup.schema.get(kind).unwrap_or(&none), staging.schema.get(kind).unwrap_or(&none));
        let (outcome, detail) = if expected == seen {
            (CheckOutcome::Passed, format!("{} equal", expected.count))
        } else {
            found.kinds.push((database.clone(), kind.clone()));
            (CheckOutcome::Failed, format!("backup has {}, staging {}; definitions differ", expected.count, seen.count))
        };
        found.checks.push(Check::new(format!("{database}: {kind}"), outcome, detail));
    }
}

/// Says why staging has no digest of a table.
fn absent(staging: &DatabasePrint, name: &str) -> String {
    match staging.not_checked.get(name).or_else(|| staging.skipped.get(name)) {
        Some(reason) => format!("could not be read on staging: {reason}"),
        None => "is in the backup and not on staging".to_owned(),
    }
}

/// A sequence at or ahead of the backup's has only been used; one behind would give out values again.
fn sequence_outcome(backup: Position, staging: Position) -> (CheckOutcome, String) {
    let key = |position: Position| (position.last_value, position.is_called);
    let (at, seen) = (backup.last_value, staging.last_value);
    match key(staging).cmp(&key(backup)) {
        Ordering::Equal => (CheckOutcome::Passed, format!("at {at}")),
        Ordering::Greater => (CheckOutcome::Passed, format!("drift: backup at {at}, staging ahead at {seen}")),
        Ordering::Less => (CheckOutcome::Failed, format!("backup at {at}, staging behind at {seen}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print() -> Fingerprint {
        let mut database = DatabasePrint::default();
        database.schema.insert("columns".into(), Digest { count: 3, digest: "5".into() });
        database.tables.insert("public.users".into(), Digest { count: 2, digest: "77".into() });
        database.sequences.insert("public.users_id_seq".into(), Position { last_value: 2, is_called: true });
        database.skipped.insert("public.cache".into(), "unlogged".into());
        Fingerprint { databases: [("neondb".into(), database)].into() }
    }

    fn failing(change: impl Fn(&mut DatabasePrint)) -> Vec<String> {
        let mut staging = print();
        staging.databases.values_mut().for_each(change);
        compare(&print(), &staging).objections().map(|check| format!("{}: {}", check.name, check.detail)).collect()
    }

    #[test]
    fn equal_sides_have_no_objections_and_skipped_tables_are_named() {
        let found = compare(&print(), &print());
        assert_eq!(found.objections().count(), 0);
        assert!(found.checks.iter().any(|check| check.outcome == CheckOutcome::Skipped));
    }

    #[test]
    fn a_difference_is_named_with_what_was_expected_and_seen() {
        let content = failing(|print| {
            print.tables.insert("public.users".into(), Digest { count: 2, digest: "78".into() });
        });
        assert_eq!(content, ["neondb: content of public.users: 2 rows on both sides, content differs"]);
        let missing = failing(|print| print.tables.clear());
        assert_eq!(missing, ["neondb: content of public.users: is in the backup and not on staging"]);
        let extra = failing(|print| {
            print.tables.insert("public.debris".into(), Digest { count: 0, digest: "0".into() });
        });
        assert_eq!(extra, ["neondb: content of public.debris: is on staging and not in the backup"]);
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
        assert_eq!(failing(|print| print.schema.clear()), ["neondb: columns: backup has 3, staging 0; definitions differ"]);
    }

    #[test]
    fn a_table_that_staging_would_not_show_is_not_equal() {
        let found = failing(|print| {
            print.tables.clear();
            print.not_checked.insert("public.users".into(), "the role may not read it".into());
        });
        assert_eq!(found, ["neondb: content of public.users: could not be read on staging: the role may not read it"]);
    }

    #[test]
    fn a_sequence_ahead_is_drift_and_one_behind_is_a_difference() {
        assert!(
            failing(|print| {
                print.sequences.insert("public.users_id_seq".into(), Position { last_value: 9, is_called: true });
            })
            .is_empty()
        );
        let behind = failing(|print| {
            print.sequences.insert("public.users_id_seq".into(), Position { last_value: 1, is_called: true });
        });
        assert_eq!(behind, ["neondb: sequence public.users_id_seq: backup at 2, staging behind at 1"]);
    }

    #[test]
    fn a_database_that_was_not_read_is_not_equal() {
        let found = compare(&print(), &Fingerprint::default());
        assert_eq!(found.objections().count(), 1);
    }
}
