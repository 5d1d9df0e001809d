//! Compares two fingerprints.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::id::DatabaseName;
use crate::ordered::IntoOrdered as _;
use crate::sync::verify::{Check, CheckKind, CheckOutcome, DatabasePrint, Digest, Fingerprint, OUT_OF_TIME, Position};

/// Compares staging with the backup it was made from. `is_optional` says that a run goes on where something could not be checked.
///
/// A table that only one side has is a difference, never an omission.
pub fn compare(backup: &Fingerprint, staging: &Fingerprint, is_optional: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    for (database, expected) in &backup.databases {
        if let Some(seen) = staging.databases.get(database) {
            Comparison { database, backup: expected, staging: seen, is_optional }.compare(&mut checks);
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
        let mut content = |object: &String, outcome: CheckOutcome, detail: String| {
            let check = Check::of(CheckKind::Content, database, object, outcome, detail);
            checks.push(Check { is_optional: *is_optional && outcome == CheckOutcome::NotChecked, ..check });
        };
        for (table, expected) in &backup.tables {
            let (outcome, detail) = match staging.tables.get(table) {
                Some(seen) if seen == expected => (CheckOutcome::Passed, self.equal(table, expected)),
                Some(seen) if seen.count == expected.count => {
                    (CheckOutcome::Failed, format!("{} rows on both sides, content differs", seen.count))
                }
                Some(seen) => (CheckOutcome::Failed, format!("backup has {} rows, staging {}", expected.count, seen.count)),
                None => (self.outcome_of_absence(table), absent(staging, table)),
            };
            content(table, outcome, detail);
        }
        for extra in staging.tables.keys().filter(|name| !self.is_known(name)) {
            content(extra, CheckOutcome::Failed, "is on staging and not in the backup".to_owned());
        }
        for (table, reason) in &backup.skipped {
            content(table, CheckOutcome::Skipped, reason.clone());
        }
        for (table, reason) in &backup.not_checked {
            content(table, CheckOutcome::NotChecked, reason.clone());
        }
        for name in &backup.unknown_exclusions {
            content(name, CheckOutcome::Warned, "is excluded by the configuration and is not there".to_owned());
        }
        let mut sequence = |object: &String, outcome: CheckOutcome, detail: String| {
            let check = Check::of(CheckKind::Sequence, database, object, outcome, detail);
            checks.push(Check { is_optional: *is_optional && outcome == CheckOutcome::NotChecked, ..check });
        };
        for (name, expected) in &backup.sequences {
            let (outcome, detail) = match staging.sequences.get(name) {
                Some(seen) => compare_positions(*expected, *seen),
                None => (self.outcome_of_absence(name), absent(staging, name)),
            };
            sequence(name, outcome, detail);
        }
        for extra in staging.sequences.keys().filter(|name| !self.is_known(name)) {
            sequence(extra, CheckOutcome::Failed, "is on staging and not in the backup".to_owned());
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
            Some(columns) => format!("{} rows equal; left out as configured: {columns}", digest.count),
            None => format!("{} rows equal", digest.count),
        }
    }

    /// What did not fit the time budget of staging is not known to differ.
    fn outcome_of_absence(&self, table: &str) -> CheckOutcome {
        let is_late = self.staging.not_checked.get(table).is_some_and(|reason| reason.starts_with(OUT_OF_TIME));
        if is_late { CheckOutcome::NotChecked } else { CheckOutcome::Failed }
    }

    /// Compares the number and the definitions of each kind of object; a kind that a side has nothing of counts as none.
    fn compare_schema(&self, checks: &mut Vec<Check>) {
        let none = Digest::none();
        let kinds: BTreeSet<&String> = self.backup.schema.keys().chain(self.staging.schema.keys()).into_set();
        for kind in kinds {
            let (expected, seen) = (self.backup.schema.get(kind).unwrap_or(&none), self.staging.schema.get(kind).unwrap_or(&none));
            let (outcome, detail) = if expected == seen {
                (CheckOutcome::Passed, format!("{} equal", expected.count))
            } else {
                (CheckOutcome::Failed, format!("backup has {}, staging {}; definitions differ", expected.count, seen.count))
            };
            checks.push(Check::of(CheckKind::Schema, self.database, kind, outcome, detail));
        }
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
pub fn compare_positions(backup: Position, staging: Position) -> (CheckOutcome, String) {
    let key = |position: Position| {
        let value = i128::from(position.last_value);
        (if position.is_descending { -value } else { value }, position.is_called)
    };
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
        database.sequences.insert("public.users_id_seq".into(), Position { last_value: 2, is_called: true, is_descending: false });
        database.skipped.insert("public.cache".into(), "unlogged".into());
        Fingerprint { databases: [("neondb".into(), database)].into() }
    }

    fn failing(change: impl Fn(&mut DatabasePrint)) -> Vec<String> {
        let mut staging = print();
        staging.databases.values_mut().for_each(change);
        compare(&print(), &staging, false).iter().filter(|check| check.is_objection()).map(ToString::to_string).collect()
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
                print.sequences.insert("public.users_id_seq".into(), Position { last_value: 9, is_called: true, is_descending: false });
            })
            .is_empty()
        );
        let behind = failing(|print| {
            print.sequences.insert("public.users_id_seq".into(), Position { last_value: 1, is_called: true, is_descending: false });
        });
        assert_eq!(behind, ["neondb: sequence public.users_id_seq: backup at 2, staging behind at 1"]);
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
            print.not_checked.insert("public.users".into(), format!("{OUT_OF_TIME} of 60 s"));
        });
        let objections = |is_optional: bool| compare(&late, &print(), is_optional).iter().filter(|check| check.is_objection()).count();
        assert_eq!((objections(false), objections(true)), (1, 0));
        let of_staging = compare(&print(), &late, false);
        let check = of_staging.iter().find(|check| check.kind == CheckKind::Content && check.object == "public.users").expect("it is told");
        assert_eq!(check.outcome, CheckOutcome::NotChecked);
    }

    #[test]
    fn what_was_left_out_is_told() {
        let mut backup = print();
        backup.databases.values_mut().for_each(|print| {
            print.left_out.insert("public.users".into(), "seen_at".into());
            print.unknown_exclusions.push("public.nothing".into());
        });
        let told: Vec<String> = compare(&backup, &print(), false).iter().map(ToString::to_string).collect();
        assert!(told.contains(&"neondb: content of public.users: 2 rows equal; left out as configured: seen_at".to_owned()), "{told:#?}");
        assert!(told.contains(&"neondb: content of public.nothing: is excluded by the configuration and is not there".to_owned()));
    }

    #[test]
    fn a_database_that_was_not_read_is_not_equal() {
        let found = compare(&print(), &Fingerprint::default(), true);
        assert_eq!(found.iter().filter(|check| check.is_objection()).count(), 1);
    }
}
