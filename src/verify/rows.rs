//! Which rows of the backup a table of staging has not any more, which are changed, and which were
//! added, counted in two looks: first parts of a large table, then the rows of the parts that
//! differ.
//!
//! In: a [`Catalogue`], names of tables and what is wanted of each. Out: [`RowDifferences`].
//!
//! Invariants: of a row only two hashes leave the database, and for a few rows the primary key,
//! which names them. A row is put in a part by its key, so that one that was moved within its file
//! is not taken for two. Of a table without a primary key the rows that are gone and added are
//! counted as often as they are there; none is called changed. A count is exact, or `limits` says
//! why it is a lower bound.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::catalogue::{Catalogue, Relation, settings, text};
use super::{Blocks, Digest, NAMED, Range, TOLD, differing};
use crate::neon::sql::{Batch, Rows};
use crate::ordered::IntoOrdered as _;

/// Parts that a large table is cut into by the hash of its keys: a million rows make parts of a
/// thousand.
const PARTS: u32 = 1024;

/// Rows of a table that is looked into without parts: all of them fit into the reply that the parts
/// would take.
const ROWS_WITHOUT_PARTS: u64 = 10_000;

/// Rows of which the hashes are fetched in one reply: at 32 bytes each, 3.2 MB, a third of Neon's
/// limit of 10 MB.
pub const ROWS_AT_ONCE: u64 = 100_000;

/// Rows of a database of which the hashes are fetched, on each side: comparing them takes about 10
/// ms of CPU.
pub const ROWS_COUNTED: u64 = 200_000;

/// Tables of a database whose parts are looked into; for the others a lower bound is told.
pub const TABLES_IN_PARTS: usize = 10;

/// Ranges of a table that are looked into: each is read in about fifteen seconds, and the statement
/// has two minutes.
pub const RANGES_LOOKED_INTO: usize = 4;

/// Characters of a hash.
const HASH: usize = 16;

/// A part of a table: how many rows, and their digest.
pub type Parts = BTreeMap<u32, (u64, String)>;

/// How the rows of a table are told apart on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// By their primary key, and the columns are alike.
    Keyed,
    /// They have no key: by what they hold.
    Keyless,
    /// By their primary key alone, because the columns are not those of the backup.
    KeyAlone,
}

/// What is wanted of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub table: String,
    /// How its rows are told apart.
    pub shape: Shape,
    /// The ranges of blocks that differ.
    pub ranges: Vec<Blocks>,
    /// The parts that differ and are looked into; `None` for the whole table.
    pub parts: Option<Vec<u32>>,
    /// Rows that this is on the side that has more.
    pub rows: u64,
}

impl Wanted {
    /// Returns what is wanted of a whole table.
    pub fn whole(table: &str, shape: Shape, ranges: Vec<Blocks>, rows: u64) -> Self {
        Self { table: table.to_owned(), shape, ranges, parts: None, rows }
    }

    /// Returns what is wanted of some parts of it.
    #[must_use]
    pub fn of_parts(self, parts: Vec<u32>, rows: u64) -> Self {
        Self { parts: Some(parts), rows, ..self }
    }
}

/// How many rows of the backup are gone, how many are changed, and how many were added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// Rows that the backup has and staging has not.
    pub gone: u64,
    /// Rows that both have, with other values.
    pub changed: u64,
    /// Rows that staging has and the backup has not.
    pub added: u64,
}

/// The rows of a table that are not the same on both sides.
///
/// Shape:
/// `{"gone":["{\"id\": 3}"],"changed":[],"added":[],"counts":{"gone":1,"changed":0,"added":0}}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowDifferences {
    /// Keys of rows that the backup has and staging has not, at most twenty.
    pub gone: Vec<String>,
    /// Keys of rows that both have, with other values, at most twenty.
    pub changed: Vec<String>,
    /// Keys of rows that staging has and the backup has not, at most twenty.
    pub added: Vec<String>,
    /// How many there are.
    pub counts: RowCounts,
    /// Why the counts are lower bounds; empty when they are exact.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub limits: String,
}

/// What comparing the hashes of rows found: how many, and the hashes of the keys of the first
/// twenty of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowsFound {
    /// How many.
    pub counts: RowCounts,
    /// Hashes of the keys of rows that are gone.
    pub gone: Vec<String>,
    /// Hashes of the keys of rows that are changed.
    pub changed: Vec<String>,
    /// Hashes of the keys of rows that were added.
    pub added: Vec<String>,
}

/// Returns the ranges of a table that are not the same on both sides; all of it where it was not
/// read in ranges, or not in the same.
pub fn differing_ranges(backup: Option<&Vec<Range>>, staging: Option<&Vec<Range>>) -> Vec<Blocks> {
    let Some((backup, staging)) = backup.zip(staging) else { return vec![Blocks::ALL] };
    let index = |ranges: &[Range]| -> BTreeMap<Blocks, Digest> {
        ranges.iter().map(|range| (range.blocks, range.digest.clone())).into_map()
    };
    differing(&index(backup), &index(staging)).copied().collect()
}

/// Returns whether a table is looked into without parts.
pub fn is_small(rows: u64) -> bool {
    rows <= ROWS_WITHOUT_PARTS
}

/// Returns the batch that digests the parts of some tables.
pub fn parts_batch(catalogue: &Catalogue, wanted: &[Wanted]) -> Batch {
    batch(catalogue, wanted, |relation, wanted| {
        let rows = keyed(relation, wanted);
        format!(
            "select (n & {})::text, count(*)::text, sum(h)::text from ({rows}) as t group by 1",
            PARTS - 1
        )
    })
}

/// Returns the batch that fetches two hashes of each row that is wanted: of its key and of what it
/// holds, in order.
pub fn rows_batch(catalogue: &Catalogue, wanted: &[Wanted]) -> Batch {
    batch(catalogue, wanted, |relation, wanted| {
        let rows = keyed(relation, wanted);
        let parts = match &wanted.parts {
            None => String::new(),
            Some(parts) => format!(" where n & {} in ({})", PARTS - 1, list(parts.iter())),
        };
        format!(
            "select string_agg(r, '' order by r collate \"C\") from \
                (select lpad(to_hex(n), {HASH}, '0') || lpad(to_hex(h), {HASH}, '0') as r from \
                ({rows}) as t{parts}) as u"
        )
    })
}

/// Returns the batch that tells the keys whose hashes are given, table by table.
pub fn keys_batch(catalogue: &Catalogue, wanted: &[Wanted], hashes: &[Vec<String>]) -> Batch {
    batch_of(catalogue, wanted.iter().zip(hashes), |relation, (wanted, hashes)| {
        let rows = keyed(relation, wanted);
        let quoted = list(hashes.iter().map(|hash| format!("'{hash}'")));
        format!(
            "select r, k from (select k, lpad(to_hex(n), {HASH}, '0') as r from ({rows}) as \
                t) as u where r in ({quoted}) order by k collate \"C\""
        )
    })
}

fn list(items: impl Iterator<Item = impl fmt::Display>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    if items.is_empty() { "null".to_owned() } else { items.join(", ") }
}

fn batch(
    catalogue: &Catalogue,
    wanted: &[Wanted],
    statement: impl Fn(&Relation, &Wanted) -> String,
) -> Batch {
    batch_of(catalogue, wanted.iter().map(|wanted| (wanted, ())), |relation, (wanted, ())| {
        statement(relation, wanted)
    })
}

fn batch_of<'a, T>(
    catalogue: &Catalogue,
    wanted: impl Iterator<Item = (&'a Wanted, T)>,
    statement: impl Fn(&Relation, (&'a Wanted, T)) -> String,
) -> Batch {
    let statements = wanted.filter_map(|(wanted, more)| {
        let relation = catalogue.relations.iter().find(|relation| relation.name == wanted.table)?;
        Some((statement(relation, (wanted, more)), Vec::new()))
    });
    Batch {
        statements: std::iter::once(settings()).chain(statements).collect(),
        is_read_only: true,
    }
}

/// Selects of every row in the wanted ranges its key `k`, the hash of that `n`, and the hash of
/// what it holds `h`.
fn keyed(relation: &Relation, wanted: &Wanted) -> String {
    let digest = relation.digest();
    let key = relation.key.clone().unwrap_or_else(|| format!("{digest}::text"));
    let digest = if wanted.shape == Shape::KeyAlone {
        format!("hashtextextended({key}, 1)")
    } else {
        digest
    };
    let select = |blocks: &Blocks| {
        let (from, condition) = (relation.from(), blocks.condition());
        format!(
            "select {key} as k, hashtextextended({key}, 1) as n, {digest} as h from only \
                {from}{condition}"
        )
    };
    wanted.ranges.iter().map(select).collect::<Vec<_>>().join(" union all ")
}

/// Reads one result of [`parts_batch`]; `None` when it makes no sense.
pub fn decode_parts(rows: &Rows) -> Option<Parts> {
    let part = |row: &Vec<Option<String>>| {
        Some((text(row, 0)?.parse().ok()?, (text(row, 1)?.parse().ok()?, text(row, 2)?.to_owned())))
    };
    Some(rows.rows.iter().map(part).collect::<Option<Vec<_>>>()?.into_iter().into_map())
}

/// Reads one result of [`rows_batch`]: the hashes of all rows, one after the other; `None` when it
/// makes no sense.
pub fn decode_rows(rows: &Rows) -> Option<String> {
    let [row] = rows.rows.as_slice() else { return None };
    let hashes = row.first()?.clone().unwrap_or_default();
    let is_good = hashes.len().is_multiple_of(2 * HASH)
        && hashes.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_good.then_some(hashes)
}

/// Reads one result of [`keys_batch`]: by hash; `None` when it makes no sense.
pub fn decode_keys(rows: &Rows) -> Option<BTreeMap<String, String>> {
    let key =
        |row: &Vec<Option<String>>| Some((text(row, 0)?.to_owned(), text(row, 1)?.to_owned()));
    Some(rows.rows.iter().map(key).collect::<Option<Vec<_>>>()?.into_iter().into_map())
}

/// Returns the parts that are not the same on both sides, each with the rows of the side that has
/// more.
pub fn differing_parts(backup: &Parts, staging: &Parts) -> Vec<(u32, u64)> {
    let rows = |parts: &Parts, part: u32| parts.get(&part).map_or(0, |(count, _)| *count);
    differing(backup, staging)
        .map(|part| (*part, rows(backup, *part).max(rows(staging, *part))))
        .collect()
}

/// Compares the hashes of rows, of both sides in order.
pub fn compare_rows(shape: Shape, backup: &str, staging: &str) -> RowsFound {
    let mut found = RowsFound::default();
    let note = |named: &mut Vec<String>, count: &mut u64, row: &str| {
        *count += 1;
        if named.len() < NAMED {
            named.push(row[..HASH].to_owned());
        }
    };
    let (mut left, mut right) = (0, 0);
    loop {
        match (row_of(backup, left), row_of(staging, right)) {
            (Some(one), Some(other)) if one == other => {
                left += 1;
                right += 1;
            }
            (Some(one), Some(other)) if shape != Shape::Keyless && one[..HASH] == other[..HASH] => {
                note(&mut found.changed, &mut found.counts.changed, one);
                left += 1;
                right += 1;
            }
            (Some(one), other) if other.is_none_or(|other| one < other) => {
                note(&mut found.gone, &mut found.counts.gone, one);
                left += 1;
            }
            (_, Some(other)) => {
                note(&mut found.added, &mut found.counts.added, other);
                right += 1;
            }
            (_, None) => return found,
        }
    }
}

/// Returns the hashes of a row: of its key, and of what it holds.
fn row_of(hashes: &str, index: usize) -> Option<&str> {
    hashes.get(index * 2 * HASH..(index + 1) * 2 * HASH)
}

impl RowCounts {
    /// Returns the least that two counts of what is not the same say. Where they are equal, a row
    /// was changed, or one was replaced by another.
    pub fn at_least(backup: u64, staging: u64) -> Self {
        let (gone, added) = (backup.saturating_sub(staging), staging.saturating_sub(backup));
        Self { gone, changed: u64::from(backup == staging), added }
    }

    /// Returns the least that the parts that differ say, those in `but` left out.
    pub fn of_parts(backup: &Parts, staging: &Parts, but: &[u32]) -> Self {
        let rows = |parts: &Parts, part: u32| parts.get(&part).map_or(0, |(count, _)| *count);
        let left = differing(backup, staging).filter(|part| !but.contains(part));
        left.fold(Self::default(), |sum, part| {
            sum.and(Self::at_least(rows(backup, *part), rows(staging, *part)))
        })
    }

    /// Returns the sum of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            gone: self.gone + other.gone,
            changed: self.changed + other.changed,
            added: self.added + other.added,
        }
    }
}

impl RowDifferences {
    /// Returns differences of which no row is named.
    pub fn counted(counts: RowCounts) -> Self {
        Self { counts, ..Self::default() }
    }

    /// Returns whether rows of the backup are gone or changed, as far as is known. Where it is not
    /// known, they may be.
    pub fn has_losses(&self) -> bool {
        self.counts.gone + self.counts.changed > 0 || !self.limits.is_empty()
    }

    /// Tells how many rows, in a few words:
    /// `5,000 rows of the backup are gone, 1 is changed, 3 were added`.
    pub fn summary(&self) -> String {
        let RowCounts { gone, changed, added } = self.counts;
        let least = if self.limits.is_empty() { "" } else { "at least " };
        let is = |count: u64| if count == 1 { "is" } else { "are" };
        let was = if added == 1 { "was" } else { "were" };
        let rows = |count: u64| {
            format!("{least}{} {}", grouped(count), if count == 1 { "row" } else { "rows" })
        };
        let mut told = Vec::new();
        if gone > 0 {
            told.push(format!("{} of the backup {} gone", rows(gone), is(gone)));
        }
        if changed > 0 {
            let of = if told.is_empty() {
                rows(changed)
            } else {
                format!("{least}{}", grouped(changed))
            };
            told.push(format!("{of} {} changed", is(changed)));
        }
        if added > 0 {
            let of =
                if told.is_empty() { rows(added) } else { format!("{least}{}", grouped(added)) };
            told.push(format!("{of} {was} added"));
        }
        if told.is_empty() { "no row differs any more".to_owned() } else { told.join(", ") }
    }
}

/// Writes a number as people read it: `5,000`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for RowDifferences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())?;
        for (kind, named) in
            [("gone", &self.gone), ("changed", &self.changed), ("added", &self.added)]
        {
            if !named.is_empty() {
                let keys = named.iter().take(TOLD).cloned().collect::<Vec<_>>().join(", ");
                write!(f, "; {kind}: {keys}{}", if named.len() > TOLD { ", …" } else { "" })?;
            }
        }
        if !self.limits.is_empty() {
            write!(f, "; {}", self.limits)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
