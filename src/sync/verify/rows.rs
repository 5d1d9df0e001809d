//! Which rows of a table differ, found in two looks: first parts of the table, then the rows of the parts that differ.
//!
//! In: a [`Catalogue`] and the names of tables. Out: the keys of rows that are missing, extra or changed.
//!
//! Invariants: of a row only its primary key leaves the database; a row is put in a part by its key, so that one that was moved within its file
//! is not taken for two. Of a table without a primary key, rows are counted and not named.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::catalogue::{Catalogue, Relation, settings, text};
use super::{Blocks, Digest, NAMED, Range, TOLD, differing};
use crate::neon::sql::{Batch, Rows};
use crate::ordered::IntoOrdered as _;

/// Parts that a table is cut into by the hash of its keys: a million rows make parts of a thousand, whose keys fit a reply.
const PARTS: u32 = 1024;

/// Parts whose rows are fetched; a table that differs in more is not worth naming row by row.
const PARTS_FETCHED: usize = 16;

/// Rows that are fetched in one reply: with keys of a hundred bytes they are far below Neon's limit of 10 MB.
const ROWS_FETCHED: usize = 20_000;

/// Tables of a database whose rows are looked for; of the others the report says that they differ.
pub const TABLES_LOOKED_INTO: usize = 10;

/// Ranges of a table that are looked into: each is read in about fifteen seconds, and the statement has two minutes.
const RANGES_LOOKED_INTO: usize = 4;

/// A part of a table: how many rows, and their digest.
pub type Parts = BTreeMap<u32, (String, String)>;

/// A row: its key, its digest, and how often it is there.
pub type KeyedRow = (String, String, u64);

/// The rows of a table that are not the same on both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowDifferences {
    /// Keys of rows that the backup has and staging has not, at most twenty.
    pub missing: Vec<String>,
    /// Keys of rows that staging has and the backup has not, at most twenty.
    pub extra: Vec<String>,
    /// Keys of rows that both have, with other values, at most twenty.
    pub changed: Vec<String>,
    /// How many were found: missing, extra, changed.
    pub counts: [u64; 3],
    /// What was not looked into; empty when everything was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub limits: String,
}

/// Returns the ranges of a table that are not the same on both sides; all of it where it was not read in ranges, or not in the same.
pub fn differing_ranges(backup: Option<&Vec<Range>>, staging: Option<&Vec<Range>>) -> Vec<Blocks> {
    let Some((backup, staging)) = backup.zip(staging) else { return vec![Blocks::ALL] };
    let index =
        |ranges: &[Range]| -> BTreeMap<Blocks, Digest> { ranges.iter().map(|range| (range.blocks, range.digest.clone())).into_map() };
    differing(&index(backup), &index(staging)).copied().collect()
}

/// Returns the batch that digests the parts of some tables, of each within the ranges that are given.
pub fn parts_batch(catalogue: &Catalogue, tables: &[String], ranges: &[Vec<Blocks>]) -> Batch {
    batch(catalogue, tables, |index, relation| {
        let rows = keyed(relation, ranges.get(index));
        let part = part_of_key();
        format!("select ({part})::text, count(*)::text, sum(h)::text from ({rows}) as t group by 1")
    })
}

/// Returns the batch that fetches the rows of the parts that differ, which are given table by table.
pub fn rows_batch(catalogue: &Catalogue, tables: &[String], ranges: &[Vec<Blocks>], differing: &[Vec<u32>]) -> Batch {
    let limit = rows_fetched(tables.len());
    batch(catalogue, tables, |index, relation| {
        let parts: Vec<String> = differing.get(index).into_iter().flatten().take(PARTS_FETCHED).map(u32::to_string).collect();
        let wanted = if parts.is_empty() { "null".to_owned() } else { parts.join(", ") };
        let rows = keyed(relation, ranges.get(index));
        let part = part_of_key();
        format!(
            "select k, h::text, count(*)::text from ({rows}) as t where {part} in ({wanted}) group by 1, 2 order by k collate \"C\", h limit {limit}"
        )
    })
}

/// Returns how many rows of each of so many tables are fetched.
pub fn rows_fetched(tables: usize) -> usize {
    ROWS_FETCHED / tables.max(1)
}

fn batch(catalogue: &Catalogue, tables: &[String], statement: impl Fn(usize, &Relation) -> String) -> Batch {
    let relation = |table: &String| catalogue.relations.iter().find(|relation| relation.name == *table);
    let relations = tables.iter().enumerate().filter_map(|(index, table)| Some((index, relation(table)?)));
    let statements = relations.map(|(index, relation)| (statement(index, relation), Vec::new()));
    Batch { statements: std::iter::once(settings()).chain(statements).collect(), is_read_only: true }
}

/// The expression of the part that a row belongs to.
fn part_of_key() -> String {
    format!("pg_catalog.hashtextextended(k, 1) & {}", PARTS - 1)
}

/// Selects the key and the digest of every row in some ranges.
fn keyed(relation: &Relation, ranges: Option<&Vec<Blocks>>) -> String {
    let digest = relation.digest();
    let key = relation.key.clone().unwrap_or_else(|| format!("{digest}::text"));
    let select = |blocks: Blocks| format!("select {key} as k, {digest} as h from only {}{}", relation.from(), blocks.condition());
    let ranges = ranges.map_or_else(|| vec![Blocks::ALL], |ranges| ranges.iter().take(RANGES_LOOKED_INTO).copied().collect());
    ranges.into_iter().map(select).collect::<Vec<_>>().join(" union all ")
}

/// Reads one result of [`parts_batch`]; `None` when it makes no sense.
pub fn decode_parts(rows: &Rows) -> Option<Parts> {
    let part = |row: &Vec<Option<String>>| Some((text(row, 0)?.parse().ok()?, (text(row, 1)?.to_owned(), text(row, 2)?.to_owned())));
    Some(rows.rows.iter().map(part).collect::<Option<Vec<_>>>()?.into_iter().into_map())
}

/// Reads one result of [`rows_batch`]; `None` when it makes no sense.
pub fn decode_rows(rows: &Rows) -> Option<Vec<KeyedRow>> {
    rows.rows.iter().map(|row| Some((text(row, 0)?.to_owned(), text(row, 1)?.to_owned(), text(row, 2)?.parse().ok()?))).collect()
}

/// Returns the parts that are not the same on both sides.
pub fn differing_parts(backup: &Parts, staging: &Parts) -> Vec<u32> {
    differing(backup, staging).copied().collect()
}

/// How far a table was looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Ranges that differ.
    pub ranges: usize,
    /// Parts that differ, of the ranges that were looked into.
    pub parts: usize,
    /// Rows that were fetched at most.
    pub limit: usize,
}

/// Compares the rows of the parts that differ.
pub fn compare_rows(has_key: bool, extent: Extent, backup: &[KeyedRow], staging: &[KeyedRow]) -> RowDifferences {
    let Extent { ranges, parts, limit } = extent;
    // A side that was cut off says nothing of the keys after its last.
    let cuts = [backup, staging].into_iter().filter(|rows| rows.len() >= limit).filter_map(|rows| Some(&rows.last()?.0));
    let cut = cuts.min();
    let known = |rows: &[KeyedRow]| rows.iter().filter(|(key, ..)| cut.is_none_or(|cut| key <= cut)).cloned().collect::<Vec<_>>();
    let (backup, staging) = (known(backup), known(staging));
    let mut found = if has_key { by_key(&backup, &staging) } else { by_digest(&backup, &staging) };
    if ranges > RANGES_LOOKED_INTO {
        found.limits = format!("{RANGES_LOOKED_INTO} of {ranges} ranges that differ were looked into");
    }
    if parts > PARTS_FETCHED {
        found.limits = format!("{PARTS_FETCHED} of {parts} parts that differ were looked into");
    }
    if cut.is_some() {
        found.limits = format!("{limit} rows of {parts} parts that differ were looked into");
    }
    found
}

fn by_key(backup: &[KeyedRow], staging: &[KeyedRow]) -> RowDifferences {
    let index =
        |rows: &'_ [KeyedRow]| -> BTreeMap<String, String> { rows.iter().map(|(key, digest, _)| (key.clone(), digest.clone())).into_map() };
    let (expected, seen) = (index(backup), index(staging));
    let mut found = RowDifferences::default();
    let [missing, extra, changed] = &mut found.counts;
    let note = |named: &mut Vec<String>, count: &mut u64, key: &String| {
        *count += 1;
        if named.len() < NAMED {
            named.push(key.clone());
        }
    };
    for key in differing(&expected, &seen) {
        match (expected.contains_key(key), seen.contains_key(key)) {
            (true, false) => note(&mut found.missing, missing, key),
            (false, _) => note(&mut found.extra, extra, key),
            (true, true) => note(&mut found.changed, changed, key),
        }
    }
    found
}

/// Counts rows that are not on the other side as often; they have no key to be named by.
fn by_digest(backup: &[KeyedRow], staging: &[KeyedRow]) -> RowDifferences {
    let index =
        |rows: &'_ [KeyedRow]| -> BTreeMap<String, u64> { rows.iter().map(|(_, digest, count)| (digest.clone(), *count)).into_map() };
    let surplus = |of: &BTreeMap<String, u64>, over: &BTreeMap<String, u64>| {
        of.iter().map(|(digest, count)| count.saturating_sub(over.get(digest).copied().unwrap_or_default())).sum()
    };
    let (expected, seen) = (index(backup), index(staging));
    RowDifferences { counts: [surplus(&expected, &seen), surplus(&seen, &expected), 0], ..RowDifferences::default() }
}

impl std::fmt::Display for RowDifferences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        let kinds = [("missing", &self.missing), ("extra", &self.extra), ("changed", &self.changed)];
        for ((kind, named), count) in kinds.into_iter().zip(self.counts).filter(|(_, count)| *count > 0) {
            let keys = named.iter().take(TOLD).cloned().collect::<Vec<_>>().join(", ");
            let more = if named.len() > TOLD { ", …" } else { "" };
            parts.push(if named.is_empty() { format!("{count} {kind} (no primary key)") } else { format!("{count} {kind}: {keys}{more}") });
        }
        parts.extend((!self.limits.is_empty()).then(|| self.limits.clone()));
        f.write_str(&parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(list: &[(&str, &str)]) -> Vec<KeyedRow> {
        list.iter().map(|(key, digest)| ((*key).to_owned(), (*digest).to_owned(), 1)).collect()
    }

    #[test]
    fn rows_are_missing_extra_or_changed() {
        let backup = rows(&[("{\"id\": 1}", "7"), ("{\"id\": 2}", "8"), ("{\"id\": 3}", "9")]);
        let staging = rows(&[("{\"id\": 1}", "7"), ("{\"id\": 2}", "-8"), ("{\"id\": 4}", "9")]);
        let found = compare_rows(true, Extent { ranges: 1, parts: 3, limit: 100 }, &backup, &staging);
        assert_eq!(found.to_string(), "1 missing: {\"id\": 3}; 1 extra: {\"id\": 4}; 1 changed: {\"id\": 2}");
    }

    #[test]
    fn rows_without_a_key_are_counted_as_often_as_they_are_there() {
        let (twice, once) = (vec![("7".to_owned(), "7".to_owned(), 2)], rows(&[("7", "7"), ("8", "8")]));
        assert_eq!(
            compare_rows(false, Extent { ranges: 1, parts: 2, limit: 100 }, &twice, &once).to_string(),
            "1 missing (no primary key); 1 extra (no primary key)"
        );
    }

    #[test]
    fn twenty_keys_are_named_three_are_told_and_all_are_counted() {
        let many: Vec<KeyedRow> = (0..50).map(|id| (format!("{{\"id\": {id:02}}}"), id.to_string(), 1)).collect();
        let found = compare_rows(true, Extent { ranges: 1, parts: 17, limit: 100 }, &many, &[]);
        assert_eq!((found.missing.len(), found.counts), (20, [50, 0, 0]));
        assert_eq!(
            found.to_string(),
            "50 missing: {\"id\": 00}, {\"id\": 01}, {\"id\": 02}, …; 16 of 17 parts that differ were looked into"
        );
    }

    #[test]
    fn a_side_that_was_cut_off_says_nothing_of_the_keys_after_its_last() {
        let backup = rows(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let staging = rows(&[("a", "1"), ("aa", "9"), ("b", "2")]);
        assert_eq!(
            compare_rows(true, Extent { ranges: 1, parts: 2, limit: 3 }, &backup, &staging).to_string(),
            "1 extra: aa; 3 rows of 2 parts that differ were looked into"
        );
        assert_eq!(
            compare_rows(true, Extent { ranges: 1, parts: 2, limit: 4 }, &backup, &staging).to_string(),
            "1 missing: c; 1 extra: aa"
        );
    }

    #[test]
    fn only_the_ranges_that_differ_are_looked_into() {
        let range = |from: u64, digest: &str| Range {
            blocks: Blocks { from, to: Some(from + 10) },
            digest: Digest { count: 1, digest: digest.to_owned() },
        };
        let (backup, staging) = (vec![range(0, "1"), range(10, "2")], vec![range(0, "1"), range(10, "3")]);
        let all = |ranges: Vec<Blocks>| ranges.iter().map(|blocks| blocks.condition()).collect::<Vec<_>>();
        assert_eq!(all(differing_ranges(Some(&backup), Some(&staging))), [" where ctid >= '(10,0)' and ctid < '(20,0)'"]);
        assert_eq!(all(differing_ranges(Some(&backup), None)), [""]);
        let many: Vec<KeyedRow> = rows(&[("a", "1")]);
        let found = compare_rows(true, Extent { ranges: 5, parts: 1, limit: 100 }, &many, &[]);
        assert_eq!(found.to_string(), "1 missing: a; 4 of 5 ranges that differ were looked into");
    }

    #[test]
    fn parts_that_one_side_has_not_differ() {
        let part = |number: u32, digest: &str| (number, ("1".to_owned(), digest.to_owned()));
        let backup: Parts = [part(1, "a"), part(2, "b"), part(3, "c")].into();
        let staging: Parts = [part(2, "b"), part(3, "x"), part(4, "d")].into();
        assert_eq!(differing_parts(&backup, &staging), [1, 3, 4]);
    }
}
