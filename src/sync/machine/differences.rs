//! Looks into what differs between the backup and staging as it was restored: which objects, and which rows.
//!
//! Invariants: a look never decides whether a run succeeds; where one fails, the report says so beside the difference itself.

use std::collections::BTreeMap;

use super::{Decision, Purpose, View, contents};
use crate::id::{BranchId, DatabaseName};
use crate::neon::sql::{Batch, Rows};
use crate::sync::checkpoint::Side;
use crate::sync::verify::{
    Blocks, Catalogue, Check, CheckKind, CheckOutcome, Digest, Extent, Fingerprint, Item, KeyedRow, Parts, TABLES_LOOKED_INTO, TOLD,
    catalogue_batch, compare_rows, decode_items, decode_parts, decode_rows, differences, differing_parts, differing_ranges, items_batch,
    parts_batch, rows_batch, rows_fetched,
};

/// What was found out about a database.
#[derive(Default)]
pub(super) struct Looked {
    pub(super) catalogues: BTreeMap<Side, Catalogue>,
    items: BTreeMap<Side, Vec<Item>>,
    parts: BTreeMap<(Side, String), Parts>,
    rows: BTreeMap<(Side, String), Vec<KeyedRow>>,
    /// How many rows of a table were fetched at most.
    limit: usize,
    /// Why the rest could not be found out.
    pub(super) failure: Option<String>,
}

/// What the backup holds, and staging as it was restored.
pub(super) struct Different<'a> {
    pub(super) check: &'a BranchId,
    pub(super) expected: &'a Fingerprint,
    pub(super) undisturbed: &'a Fingerprint,
}

/// What differs in one database.
#[derive(Default)]
struct Wanted {
    kinds: Vec<String>,
    tables: Vec<String>,
}

impl Looked {
    /// Takes up the answer to a look; `None` when it makes no sense.
    pub(super) fn take(&mut self, purpose: &Purpose, results: &[Rows]) -> Option<()> {
        match purpose {
            Purpose::Items(side) => drop(self.items.insert(*side, decode_items(results)?)),
            Purpose::Parts(side, tables) => {
                for (table, result) in tables.iter().zip(results.get(1..)?) {
                    self.parts.insert((*side, table.clone()), decode_parts(result)?);
                }
            }
            Purpose::Rows(side, tables) => {
                self.limit = rows_fetched(tables.len());
                for (table, result) in tables.iter().zip(results.get(1..)?) {
                    self.rows.insert((*side, table.clone()), decode_rows(result)?);
                }
            }
            Purpose::SeesAllRows
            | Purpose::Catalogue(_)
            | Purpose::Content(..)
            | Purpose::Probes(..)
            | Purpose::AfterRestore
            | Purpose::Tenants
            | Purpose::Doors
            | Purpose::GivePassword(_)
            | Purpose::LogIn => return None,
        }
        Some(())
    }

    /// Returns the parts of a table that differ.
    fn differing(&self, table: &str) -> Vec<u32> {
        let parts = |side: Side| self.parts.get(&(side, table.to_owned()));
        parts(Side::Backup).zip(parts(Side::Check)).map(|(backup, staging)| differing_parts(backup, staging)).unwrap_or_default()
    }

    /// Returns whether the rows of a table can be told apart alike on both sides, and whether they have keys.
    fn shape(&self, table: &str) -> Option<bool> {
        let shape = |side: Side| self.catalogues.get(&side)?.shape(table);
        shape(Side::Backup).filter(|backup| shape(Side::Check) == Some(*backup)).map(|(_, has_key)| has_key)
    }
}

impl Different<'_> {
    /// Finds out all there is to find out about what differs, or returns what is to be asked next.
    pub(super) fn look<'c>(&self, view: &View<'_>, checks: impl Iterator<Item = &'c Check>) -> Result<(), Decision> {
        let mut wanted: BTreeMap<&DatabaseName, Wanted> = BTreeMap::new();
        for check in checks {
            let Some(database) = &check.database else { continue };
            let object = &check.object;
            let is_schema =
                check.kind == CheckKind::Schema && self.expected.kind(database, object) != self.undisturbed.kind(database, object);
            let of = |print: &Fingerprint| print.table(database.as_str(), object).cloned();
            let both = of(self.expected).zip(of(self.undisturbed));
            let is_content = check.kind == CheckKind::Content && both.is_some_and(|(backup, staging)| backup != staging);
            let found = wanted.entry(database).or_default();
            found.kinds.extend(is_schema.then(|| object.clone()));
            found.tables.extend(is_content.then(|| object.clone()));
        }
        wanted.into_iter().try_for_each(|(database, wanted)| self.look_into(view, database, wanted))
    }

    fn look_into(&self, view: &View<'_>, database: &DatabaseName, Wanted { kinds, tables }: Wanted) -> Result<(), Decision> {
        let nothing = Looked::default();
        let looked = view.seen.looked.get(database).unwrap_or(&nothing);
        if looked.failure.is_some() {
            return Ok(());
        }
        if !kinds.is_empty() {
            let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
            let ask = |side: Side| (Purpose::Items(side), items_batch(&kinds));
            self.ask(view, database, |side| looked.items.contains_key(&side), ask)?;
        }
        if tables.is_empty() {
            return Ok(());
        }
        let ask = |side: Side| (Purpose::Catalogue(side), catalogue_batch(&view.pair.verification.exclude, false));
        self.ask(view, database, |side| looked.catalogues.contains_key(&side), ask)?;
        self.look_into_tables(view, database, looked, tables)
    }

    /// Returns the ranges of a table that differ.
    fn ranges(&self, database: &DatabaseName, table: &str) -> Vec<Blocks> {
        let of = |print: &'_ Fingerprint| print.databases.get(database).and_then(|print| print.ranges.get(table)).cloned();
        differing_ranges(of(self.expected).as_ref(), of(self.undisturbed).as_ref())
    }

    /// Digests the parts of tables, then fetches the rows of the parts that differ.
    fn look_into_tables(&self, view: &View<'_>, database: &DatabaseName, looked: &Looked, tables: Vec<String>) -> Result<(), Decision> {
        let tables: Vec<String> = tables.into_iter().filter(|table| looked.shape(table).is_some()).take(TABLES_LOOKED_INTO).collect();
        let nothing = Catalogue::default();
        let catalogue = |side: Side| looked.catalogues.get(&side).unwrap_or(&nothing);
        let ranges: Vec<Vec<Blocks>> = tables.iter().map(|table| self.ranges(database, table)).collect();
        let is_known = |side: Side| tables.iter().all(|table| looked.parts.contains_key(&(side, table.clone())));
        let ask = |side: Side| (Purpose::Parts(side, tables.clone()), parts_batch(catalogue(side), &tables, &ranges));
        self.ask(view, database, is_known, ask)?;
        let differing: Vec<Vec<u32>> = tables.iter().map(|table| looked.differing(table)).collect();
        let is_known = |side: Side| tables.iter().all(|table| looked.rows.contains_key(&(side, table.clone())));
        let ask = |side: Side| (Purpose::Rows(side, tables.clone()), rows_batch(catalogue(side), &tables, &ranges, &differing));
        self.ask(view, database, is_known, ask)
    }

    /// Asks the side of which something is not known yet.
    fn ask(
        &self,
        view: &View<'_>,
        database: &DatabaseName,
        is_known: impl Fn(Side) -> bool,
        question: impl Fn(Side) -> (Purpose, Batch),
    ) -> Result<(), Decision> {
        let Some(backup) = &view.checkpoint.backup else { return Ok(()) };
        let unknown = [(Side::Backup, &backup.id), (Side::Check, self.check)].into_iter().find(|(side, _)| !is_known(*side));
        let Some((side, branch)) = unknown else { return Ok(()) };
        let (purpose, batch) = question(side);
        Err(contents::query(view, branch, database, purpose, batch))
    }

    /// Judges again a check that failed on staging as it is.
    pub(super) fn judge(&self, view: &View<'_>, check: &Check) -> Check {
        let (nothing, nobody) = (Looked::default(), DatabaseName::from(""));
        let database = check.database.as_ref().unwrap_or(&nobody);
        let looked = view.seen.looked.get(database).unwrap_or(&nothing);
        let object = &check.object;
        let unread = self.undisturbed.databases.get(database).and_then(|print| print.not_checked.get(object));
        if let Some(reason) = unread.filter(|_| check.kind != CheckKind::Schema) {
            return check.again(CheckOutcome::NotChecked, format!("as restored: {reason}"));
        }
        if check.kind == CheckKind::Schema {
            judge_schema(looked, check, &self.expected.kind(database, object), &self.undisturbed.kind(database, object))
        } else if check.kind == CheckKind::Sequence {
            self.judge_sequence(check, database)
        } else {
            self.judge_content(looked, check, database)
        }
    }

    /// Judges a table by what it held when it was restored.
    fn judge_content(&self, looked: &Looked, check: &Check, database: &DatabaseName) -> Check {
        let table = &check.object;
        let (backup, staging) = (self.expected.table(database.as_str(), table), self.undisturbed.table(database.as_str(), table));
        let (outcome, detail) = match (backup, staging) {
            (Some(backup), Some(staging)) if backup == staging => {
                (CheckOutcome::Passed, format!("{} rows equal as restored; drift: staging has been written to since", backup.count))
            }
            (Some(backup), Some(staging)) if backup.count == staging.count => {
                (CheckOutcome::Failed, format!("{} rows on both sides, content differs as restored", staging.count))
            }
            (Some(backup), Some(staging)) => {
                (CheckOutcome::Failed, format!("backup has {} rows, staging as restored {}", backup.count, staging.count))
            }
            (Some(_), None) => (CheckOutcome::Failed, "is in the backup and not on staging as restored".to_owned()),
            (None, Some(_)) => (CheckOutcome::Failed, "is on staging as restored and not in the backup".to_owned()),
            (None, None) => (CheckOutcome::Passed, "drift: was made on staging since the restore".to_owned()),
        };
        if outcome != CheckOutcome::Failed {
            return check.again(outcome, detail);
        }
        let rows = |side: Side| looked.rows.get(&(side, table.to_owned()));
        let found = looked.shape(table).zip(rows(Side::Backup)).zip(rows(Side::Check)).map(|((has_key, backup), staging)| {
            let ranges = self.ranges(database, table).len();
            let extent = Extent { ranges, parts: looked.differing(table).len(), limit: looked.limit };
            compare_rows(has_key, extent, backup, staging)
        });
        let more = match (&found, &looked.failure) {
            (Some(found), _) => found.to_string(),
            (None, Some(failure)) => format!("the rows were not looked into: {failure}"),
            (None, None) => String::new(),
        };
        let detail = [detail, more].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
        Check { rows: found, ..check.again(outcome, detail) }
    }

    /// Judges a sequence by where it stood when it was restored.
    fn judge_sequence(&self, check: &Check, database: &DatabaseName) -> Check {
        let of = |print: &Fingerprint| print.databases.get(database).and_then(|print| print.sequences.get(&check.object)).copied();
        let (outcome, detail) = match (of(self.expected), of(self.undisturbed)) {
            (Some(backup), Some(staging)) if backup == staging => {
                (CheckOutcome::Passed, format!("at {} as restored; drift: it has been set or dropped on staging since", backup.last_value))
            }
            (Some(backup), Some(staging)) => {
                (CheckOutcome::Failed, format!("backup at {}, staging as restored at {}", backup.last_value, staging.last_value))
            }
            (Some(_), None) => (CheckOutcome::Failed, "is in the backup and not on staging as restored".to_owned()),
            (None, Some(_)) => (CheckOutcome::Failed, "is on staging as restored and not in the backup".to_owned()),
            (None, None) => (CheckOutcome::Passed, "drift: was made on staging since the restore".to_owned()),
        };
        check.again(outcome, detail)
    }
}

/// Judges a kind of object by how it was defined when it was restored, and names the objects that differ.
fn judge_schema(looked: &Looked, check: &Check, backup: &Digest, staging: &Digest) -> Check {
    if backup == staging {
        let detail = format!("{} equal as restored; drift: staging's definitions have been changed since", backup.count);
        return check.again(CheckOutcome::Passed, detail);
    }
    let counts = format!("backup has {}, staging as restored {}", backup.count, staging.count);
    let items = |side: Side| looked.items.get(&side);
    let Some((backup, staging)) = items(Side::Backup).zip(items(Side::Check)) else {
        let failure = looked.failure.as_deref().unwrap_or("the run ended before");
        let detail = format!("{counts}; definitions differ; the objects were not looked into: {failure}");
        return check.again(CheckOutcome::Failed, detail);
    };
    let (named, count) = differences(&check.object, backup, staging);
    let told = named.iter().take(TOLD).map(ToString::to_string);
    let detail = std::iter::once(format!("{counts}; {count} differ")).chain(told).collect::<Vec<_>>().join("; ");
    Check { differences: named, ..check.again(CheckOutcome::Failed, detail) }
}
