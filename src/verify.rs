//! What a database holds, as numbers that can be compared, and the SQL that finds out.
//!
//! In: rows of the catalogue and of the content. Out: a [`Fingerprint`] of each side, and the
//! [`Check`]s of comparing two.
//!
//! Invariants: a table that could not be read is *not checked*, which is never equal. Only physical
//! copies are compared (enums hash by OID). Every statement runs on a hot standby.
//!
//! Failure: an error in one statement ends the whole batch, because it is one transaction. What may
//! not be read is therefore found out from the catalogue before it is read.

mod catalogue;
mod check;
mod compare;
mod counts;
mod judge;
mod pace;
mod pages;
mod probe;
mod questions;
mod reading;
mod rows;
mod schema;
mod tenants;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::catalogue::{Catalogue, catalogue_batch, decode_catalogue, role_batch, role_facts};
pub use self::check::{Check, CheckKind, CheckOutcome, Drift};
pub use self::compare::{compare, compare_positions};
pub use self::counts::{Baseline, Counts, judge_production, judge_row_loss};
pub use self::judge::{judge_backup, judge_staging, outcome_of, policy};
pub use self::pace::Pace;
pub use self::pages::Pages;
pub use self::probe::{
    Found, Probe, ProbeKind, end_probes, next_probes, probe_batch, probes_too_slow, take_probes,
};
pub use self::questions::{
    armed_probes, backup_probes, integrity_probes, looks_for_defects, prepared_probes,
    production_probes, staging_probes,
};
pub use self::reading::{Blocks, Part, Piece, Range, Refused, is_read, pieces};
pub use self::rows::{
    Parts, RANGES_LOOKED_INTO, ROWS_AT_ONCE, ROWS_COUNTED, RowCounts, RowDifferences, RowsFound,
    Shape, TABLES_IN_PARTS, Wanted, compare_rows, decode_keys, decode_parts, decode_rows,
    differing_parts, differing_ranges, grouped, is_small, keys_batch, parts_batch, rows_batch,
};
pub use self::schema::{
    Chosen, Difference, GROUPS, Groups, ITEMS_AT_ONCE, Item, decode_groups, decode_items,
    differences, groups_batch, items_batch,
};
pub use self::tenants::{guarded_probe, judge_tenants, tenants_batch};
use crate::id::DatabaseName;

/// Objects, and keys of rows, that a record names; the others are counted.
const NAMED: usize = 20;

/// Of those, how many a text tells.
pub const TOLD: usize = 3;

/// The rules by which databases are read; counted up whenever a new version digests more, or
/// otherwise.
const RULES: u32 = 8;

/// What every database of one side holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// By database.
    pub databases: BTreeMap<DatabaseName, DatabasePrint>,
}

/// What one database holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabasePrint {
    /// The rules by which it was read: prints of a version that read otherwise are not compared
    /// with ours.
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
    /// For each table that was read in ranges of blocks: what each range holds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ranges: BTreeMap<String, Vec<Range>>,
    /// For each table of which columns were left out, as configured: which.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, String>,
    /// For each partition, the table that it is a part of, at the top.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub part_of: BTreeMap<String, String>,
    /// Exclusions that name nothing there is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_exclusions: Vec<String>,
    /// Bytes of the tables that are read, with what they store out of line.
    pub bytes: u64,
    /// How fast it was read.
    #[serde(default)]
    pub pace: Pace,
    /// Whether everything was read, or will not be.
    #[serde(default)]
    pub is_complete: bool,
    /// Why nothing of it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<String>,
}

/// A database or a table that could not be read.
#[derive(Clone, Copy, Debug)]
pub struct Unread<'a> {
    /// Which database.
    pub database: &'a DatabaseName,
    /// Which table; `None` for the whole database.
    pub table: Option<&'a String>,
    /// Why.
    pub reason: &'a String,
}

impl fmt::Display for Unread<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { database, table, reason } = self;
        match table {
            Some(table) => write!(f, "{database}: {table} ({reason})"),
            None => write!(f, "{database} ({reason})"),
        }
    }
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
    /// Whether it counts down.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_descending: bool,
}

impl Digest {
    /// Returns the digest of nothing.
    pub fn none() -> Self {
        Self { count: 0, digest: "0".to_owned() }
    }
}

/// Tells a few of what was found, and how many more there are.
fn told(list: &[String]) -> String {
    let more =
        if list.len() > TOLD { format!(", and {} more", list.len() - TOLD) } else { String::new() };
    format!("{}{more}", list.iter().take(TOLD).cloned().collect::<Vec<_>>().join(", "))
}

/// Returns the keys under which two sides do not hold the same: those of the backup first, then
/// those that only staging has.
fn differing<'a, K: Ord, V: PartialEq>(
    backup: &'a BTreeMap<K, V>,
    staging: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    let keys = backup.keys().chain(staging.keys().filter(|key| !backup.contains_key(key)));
    keys.filter(|key| backup.get(key) != staging.get(key))
}

impl DatabasePrint {
    /// Returns the print of a database of which nothing was read yet.
    pub fn new() -> Self {
        Self { rules: RULES, ..Self::default() }
    }

    /// Returns the print of a database that let nobody in.
    pub fn closed(reason: &str) -> Self {
        Self { closed: Some(reason.to_owned()), is_complete: true, ..Self::new() }
    }

    /// Returns whether it was read as this version reads.
    pub fn is_current(&self) -> bool {
        self.rules == RULES
    }

    /// Returns whether it was read completely, and as this version reads.
    pub fn is_read(&self) -> bool {
        self.is_current() && self.is_complete
    }
}

impl Fingerprint {
    /// Returns what could not be read: whole databases first, then tables.
    pub fn unread(&self) -> impl Iterator<Item = Unread<'_>> {
        let closed = self.databases.iter().filter_map(|(database, print)| {
            let reason = print.closed.as_ref()?;
            Some(Unread { database, table: None, reason })
        });
        let tables = self.databases.iter().flat_map(|(database, print)| {
            print.not_checked.iter().map(move |(table, reason)| Unread {
                database,
                table: Some(table),
                reason,
            })
        });
        closed.chain(tables)
    }

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

    /// Returns how long all databases were read.
    pub fn spent(&self) -> Duration {
        self.databases.values().map(|database| database.pace.spent()).sum()
    }

    /// Returns how many tables were read.
    pub fn table_count(&self) -> usize {
        self.databases.values().map(|database| database.tables.len()).sum()
    }

    /// Returns how many rows were read.
    pub fn row_count(&self) -> u64 {
        self.databases
            .values()
            .flat_map(|database| database.tables.values())
            .map(|table| table.count)
            .sum()
    }

    /// Returns the bytes of the tables that were read.
    pub fn bytes(&self) -> u64 {
        self.databases.values().map(|database| database.bytes).sum()
    }
}
