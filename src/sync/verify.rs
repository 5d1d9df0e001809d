//! What a database holds, as numbers that can be compared, and the SQL that finds out.
//!
//! In: rows of the catalogue and of the content. Out: a [`Fingerprint`] of each side, and the [`Check`]s of comparing two.
//!
//! Invariants: a table that could not be read is *not checked*, which is never equal; only physical copies are compared
//! (enums hash by OID); every statement runs on a hot standby.
//!
//! Failure: an error in one statement ends the whole batch, because it is one transaction; what may not be read is therefore
//! found out from the catalogue before it is read.

mod compare;
mod rows;
mod schema;
mod statements;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::compare::{Differences, compare};
pub use self::rows::{
    KeyedRow, Parts, RowDifferences, TABLES_LOOKED_INTO, compare_rows, decode_parts, decode_rows, differing_parts, parts_batch, rows_batch,
    rows_fetched,
};
pub use self::schema::{Difference, Item, decode_items, differences, items_batch};
pub use self::statements::{Batches, Catalogue, catalogue_batch, content_batches, decode_catalogue, role_batch, sees_all_rows};
use crate::id::DatabaseName;

/// Objects, and keys of rows, that a record names; the others are counted.
const NAMED: usize = 20;

/// Of those, how many a text tells.
pub const TOLD: usize = 3;

/// The rules by which databases are read; counted up whenever a new version digests more, or otherwise.
const RULES: u32 = 2;

/// What every database of one side holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// By database.
    pub databases: BTreeMap<DatabaseName, DatabasePrint>,
}

/// What one database holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabasePrint {
    /// The rules by which it was read: prints of a version that read otherwise are not compared with ours.
    #[serde(default)]
    rules: u32,
    /// For each kind of schema object: how many, and a digest of their definitions.
    pub schema: BTreeMap<String, Digest>,
    /// For each table that was read: how many rows, and a digest of their content.
    pub tables: BTreeMap<String, Digest>,
    /// The position of each sequence.
    pub sequences: BTreeMap<String, Position>,
    /// Tables that a backup does not hold, with the reason.
    pub skipped: BTreeMap<String, String>,
    /// Tables that could not be read, with the reason.
    pub not_checked: BTreeMap<String, String>,
    /// Bytes of the tables that were read.
    pub bytes: u64,
}

/// A count and a digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// How many.
    pub count: u64,
    /// The digest, a decimal number.
    pub digest: String,
}

/// Where a sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Its last value.
    pub last_value: i64,
    /// Whether that value was given out.
    pub is_called: bool,
}

/// One check of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked, such as `neondb: content of public.users`.
    pub name: String,
    /// How it went.
    pub outcome: CheckOutcome,
    /// What was expected and seen, or why it was not checked; empty when there is nothing to say.
    pub detail: String,
    /// The objects that differ, at most twenty; the detail says how many there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// The rows that differ, where they were looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowDifferences>,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// It was run and was equal.
    Passed,
    /// It was run and was not equal.
    Failed,
    /// It was run; somebody should look, nothing is stopped.
    Warned,
    /// There is nothing to compare.
    Skipped,
    /// It could not be run.
    NotChecked,
}

impl Digest {
    /// Returns the digest of nothing.
    pub fn none() -> Self {
        Self { count: 0, digest: "0".to_owned() }
    }
}

impl Check {
    /// Returns a check without a detail.
    pub fn new(name: String, outcome: CheckOutcome, detail: impl Into<String>) -> Self {
        Self { name, outcome, detail: detail.into(), differences: Vec::new(), rows: None }
    }
}

/// Returns the keys under which two sides do not hold the same: those of the backup first, then those that only staging has.
fn differing<'a, K: Ord, V: PartialEq>(backup: &'a BTreeMap<K, V>, staging: &'a BTreeMap<K, V>) -> impl Iterator<Item = &'a K> {
    let keys = backup.keys().chain(staging.keys().filter(|key| !backup.contains_key(key)));
    keys.filter(|key| backup.get(key) != staging.get(key))
}

impl DatabasePrint {
    /// Returns the print of a database of which nothing was read yet.
    pub fn new() -> Self {
        Self { rules: RULES, ..Self::default() }
    }

    /// Returns whether it was read as this version reads.
    pub fn is_current(&self) -> bool {
        self.rules == RULES
    }
}

impl Fingerprint {
    /// Returns whether every database was read as this version reads.
    pub fn is_current(&self) -> bool {
        self.databases.values().all(DatabasePrint::is_current)
    }

    /// Returns how many objects of a kind a database has, and their digest.
    pub fn kind(&self, database: &DatabaseName, kind: &str) -> Digest {
        let found = self.databases.get(database).and_then(|print| print.schema.get(kind));
        found.cloned().unwrap_or_else(Digest::none)
    }

    /// Returns the digest of a table; `None` where it was not read.
    pub fn table(&self, database: &str, table: &str) -> Option<&Digest> {
        self.databases.get(&DatabaseName::from(database))?.tables.get(table)
    }

    /// Returns how many tables were read.
    pub fn table_count(&self) -> usize {
        self.databases.values().map(|database| database.tables.len()).sum()
    }

    /// Returns how many rows were read.
    pub fn row_count(&self) -> u64 {
        self.databases.values().flat_map(|database| database.tables.values()).map(|table| table.count).sum()
    }

    /// Returns the bytes of the tables that were read.
    pub fn bytes(&self) -> u64 {
        self.databases.values().map(|database| database.bytes).sum()
    }
}
