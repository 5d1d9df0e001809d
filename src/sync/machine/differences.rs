//! Looks into what differs between the backup and staging as it was restored: which objects, and which rows.
//!
//! Invariants: a look never decides whether a run succeeds; where one fails, the report says so beside the difference itself.

use std::collections::BTreeMap;

use super::{Decision, Purpose, View, contents};
use crate::id::{BranchId, DatabaseName};
use crate::neon::sql::{Batch, Rows};
use crate::sync::checkpoint::Side;
use crate::sync::verify::{
    Catalogue, Check, CheckOutcome, Digest, Fingerprint, Item, KeyedRow, Parts, TABLES_LOOKED_INTO, TOLD, catalogue_batch, compare_rows,
    decode_items, decode_parts, decode_rows, differences, differing_parts, items_batch, parts_batch, rows_batch, rows_fetched,
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

/// What differs between the backup and staging as it was restored.
pub(super) struct Different<'a> {
    pub(super) check: &'a BranchId,
    pub(super) expected: &'a Fingerprint,
    pub(super) undisturbed: &'a Fingerprint,
    /// Kinds of objects, with their database.
    pub(super) kinds: Vec<(DatabaseName, String)>,
    /// Tables that both have, with their database.
    pub(super) tables: Vec<(DatabaseName, String)>,
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
            Purpose::SeesAllRows | Purpose::Catalogue(_) | Purpose::Content(..) | Purpose::GivePassword(_) | Purpose::LogIn => return None,
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
    /// Finds out all there is to find out, or returns what is to be asked next.
    pub(super) fn look(&self, view: &View<'_>) -> Result<(), Decision> {
        let mut databases: Vec<&DatabaseName> = self.kinds.iter().chain(&self.tables).map(|(database, _)| database).collect();
        databases.dedup();
        databases.into_iter().try_for_each(|database| self.look_into(view, database))
    }

    fn look_into(&self, view: &View<'_>, database: &DatabaseName) -> Result<(), Decision> {
        let nothing = Looked::default();
        let looked = view.seen.looked.get(database).unwrap_or(&nothing);
        if looked.failure.is_some() {
            return Ok(());
        }
        let of =
            |all: &[(DatabaseName, String)]| all.iter().filter(|(of, _)| of == database).map(|(_, name)| name.clone()).collect::<Vec<_>>();
        let (kinds, tables) = (of(&self.kinds), of(&self.tables));
        if !kinds.is_empty() {
            let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
            let ask = |side: Side| (Purpose::Items(side), items_batch(&kinds));
            self.ask(view, database, |side| looked.items.contains_key(&side), ask)?;
        }
        if tables.is_empty() {
            return Ok(());
        }
        let ask = |side: Side| (Purpose::Catalogue(side), catalogue_batch());
        self.ask(view, database, |side| looked.catalogues.contains_key(&side), ask)?;
        self.look_into_tables(view, database, looked, tables)
    }

    /// Digests the parts of tables, then fetches the rows of the parts that differ.
    fn look_into_tables(&self, view: &View<'_>, database: &DatabaseName, looked: &Looked, tables: Vec<String>) -> Result<(), Decision> {
        let tables: Vec<String> = tables.into_iter().filter(|table| looked.shape(table).is_some()).take(TABLES_LOOKED_INTO).collect();
        let nothing = Catalogue::default();
        let catalogue = |side: Side| looked.catalogues.get(&side).unwrap_or(&nothing);
        let is_known = |side: Side| tables.iter().all(|table| looked.parts.contains_key(&(side, table.clone())));
        self.ask(view, database, is_known, |side| (Purpose::Parts(side, tables.clone()), parts_batch(catalogue(side), &tables)))?;
        let differing: Vec<Vec<u32>> = tables.iter().map(|table| looked.differing(table)).collect();
        let is_known = |side: Side| tables.iter().all(|table| looked.rows.contains_key(&(side, table.clone())));
        self.ask(view, database, is_known, |side| (Purpose::Rows(side, tables.clone()), rows_batch(catalogue(side), &tables, &differing)))
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
        let nothing = Looked::default();
        let looked = |database: &str| view.seen.looked.get(&DatabaseName::from(database)).unwrap_or(&nothing);
        if let Some((database, table)) = check.name.split_once(": content of ") {
            let (backup, staging) = (self.expected.table(database, table), self.undisturbed.table(database, table));
            return judge_content(looked(database), check, table, backup, staging);
        }
        let (database, kind) = check.name.split_once(": ").unwrap_or_default();
        let name = DatabaseName::from(database);
        judge_schema(looked(database), check, kind, &self.expected.kind(&name, kind), &self.undisturbed.kind(&name, kind))
    }
}

/// Judges a table by what it held when it was restored.
fn judge_content(looked: &Looked, check: &Check, table: &str, backup: Option<&Digest>, staging: Option<&Digest>) -> Check {
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
        (None, _) => (CheckOutcome::NotChecked, "is not in the backup's fingerprint".to_owned()),
    };
    if outcome != CheckOutcome::Failed {
        return Check::new(check.name.clone(), outcome, detail);
    }
    let rows = |side: Side| looked.rows.get(&(side, table.to_owned()));
    let found = looked.shape(table).zip(rows(Side::Backup)).zip(rows(Side::Check)).map(|((has_key, backup), staging)| {
        let parts = looked.differing(table).len();
        compare_rows(has_key, parts, looked.limit, backup, staging)
    });
    let more = match (&found, &looked.failure) {
        (Some(found), _) => found.to_string(),
        (None, Some(failure)) => format!("the rows were not looked into: {failure}"),
        (None, None) => String::new(),
    };
    let detail = [detail, more].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
    Check { rows: found, ..Check::new(check.name.clone(), outcome, detail) }
}

/// Judges a kind of object by how it was defined when it was restored, and names the objects that differ.
fn judge_schema(looked: &Looked, check: &Check, kind: &str, backup: &Digest, staging: &Digest) -> Check {
    if backup == staging {
        let detail = format!("{} equal as restored; drift: staging's definitions have been changed since", backup.count);
        return Check::new(check.name.clone(), CheckOutcome::Passed, detail);
    }
    let counts = format!("backup has {}, staging as restored {}", backup.count, staging.count);
    let items = |side: Side| looked.items.get(&side);
    let Some((backup, staging)) = items(Side::Backup).zip(items(Side::Check)) else {
        let failure = looked.failure.as_deref().unwrap_or("the run ended before");
        let detail = format!("{counts}; definitions differ; the objects were not looked into: {failure}");
        return Check::new(check.name.clone(), CheckOutcome::Failed, detail);
    };
    let (named, count) = differences(kind, backup, staging);
    let told = named.iter().take(TOLD).map(ToString::to_string);
    let detail = std::iter::once(format!("{counts}; {count} differ")).chain(told).collect::<Vec<_>>().join("; ");
    Check { differences: named, ..Check::new(check.name.clone(), CheckOutcome::Failed, detail) }
}
