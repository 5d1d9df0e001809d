//! Reads the content of a database piece by piece: what is asked next, and what was found so far.
//!
//! In: a [`Catalogue`] and a [`DatabasePrint`] that is not complete. Out: [`Piece`]s with their
//! batches, and a print that grows by their answers.
//!
//! Invariants: many small tables share a statement, a large one is cut into ranges of blocks; the
//! number of requests grows with bytes and not with tables. Everything that was read is in the
//! print, so that another invocation goes on where this one stops. Sums are additive: a table's
//! digest does not depend on how it was cut.
//!
//! Failure: a piece that takes too long is asked again in smaller pieces. The tables of one that
//! was refused are asked again each in a block of its own that catches its error: one request tells
//! which of them are to blame. A refusal that may be about the moment is tried some times more, and
//! not until the deadline, because the others were answered. What cannot be read is *not checked*,
//! with the reason.

mod taking;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::catalogue::{Catalogue, Relation, settings};
use super::pace::{FIRST_PIECE, share};
use super::probe::each_by_itself;
use super::{DatabasePrint, Digest};
use crate::id::DatabaseName;
use crate::neon::sql::{Batch, SqlError};
use crate::ordered::{self, IntoOrdered as _};

/// Pieces that are asked at the same time.
///
/// Source: design §6: "At most 4 requests at once (the platform allows 6 and a timeout runs while
/// one is queued)".
const AT_ONCE: usize = 4;

/// Small tables that one statement digests.
///
/// Each costs about 400 bytes of SQL; 50 keep a statement readable in a log and the plan short.
const PARTS_PER_STATEMENT: usize = 50;

/// Locks that a table takes until its request ends: its own, and those of three indexes.
const LOCKS_OF_A_TABLE: usize = 4;

/// Locks that one request takes; those that are asked at the same time take twice as many at most.
/// A server has room for 6,400 and more (64 for each of 100 connections); one that has not is asked
/// for fewer tables at once.
const LOCKS_PER_PIECE: usize = 3_000;

/// Bytes of tables that one statement digests when it digests several.
const BYTES_PER_STATEMENT: u64 = 64 << 20;

/// Characters of SQL of one request: a fifth of the 10 MB that Neon takes. A table of 1,500 columns
/// has 100,000.
const SQL_PER_PIECE: usize = 2_000_000;

/// Characters of SQL around the expression of a row.
const SQL_OF_A_PART: usize = 200;

/// Tables that one request reads each in a block of its own.
const SUSPECTS_PER_PIECE: usize = 500;

/// A range of blocks of a table, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Which blocks.
    pub blocks: Blocks,
    /// What they hold.
    pub digest: Digest,
}

/// Blocks of a table, from the first to before the last; without a last, to the end of the table,
/// wherever that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Blocks {
    /// The first block.
    pub from: u64,
    /// The block after the last.
    pub to: Option<u64>,
}

impl Blocks {
    /// The whole table.
    pub(super) const ALL: Self = Self { from: 0, to: None };

    /// Returns how many they are in a table of so many blocks.
    fn count(self, all: u64) -> u64 {
        self.to.unwrap_or(all).saturating_sub(self.from)
    }

    /// Returns the blocks that are in both; `None` where there are none.
    fn and(self, other: Self) -> Option<Self> {
        let from = self.from.max(other.from);
        let to = match (self.to, other.to) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        to.is_none_or(|to| to > from).then_some(Self { from, to })
    }

    /// Returns the condition that a row is in them; empty for all.
    pub(super) fn condition(self) -> String {
        let Self { from, to } = self;
        match to {
            None if from == 0 => String::new(),
            None => format!(" where ctid >= '({from},0)'"),
            Some(to) => format!(" where ctid >= '({from},0)' and ctid < '({to},0)'"),
        }
    }
}

/// What one request reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The tables, ranges and sequences, in the order in which they are asked for.
    pub parts: Vec<Part>,
    bytes: u64,
    /// Whether each is read in a block of its own.
    is_one_by_one: bool,
}

/// A part that was refused while others of its request were answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its table.
    pub table: String,
    /// SQLSTATE.
    pub state: String,
    /// What PostgreSQL says.
    pub message: String,
}

impl Refused {
    /// Returns it as the error that it is, with the name of the table.
    pub fn error(&self, database: &DatabaseName) -> SqlError {
        let message = format!("{}: {}", self.table, self.message);
        SqlError::Answered {
            database: database.clone(),
            status: 400,
            sqlstate: self.state.clone(),
            message,
        }
    }
}

impl Piece {
    /// Returns whether it may take its time. Of a smaller one that was not answered in time, the
    /// reply was lost.
    pub fn is_large(&self) -> bool {
        self.bytes > BYTES_PER_STATEMENT
    }

    /// Returns whether each of its parts is read in a block of its own, which tells what is to
    /// blame.
    pub fn is_one_by_one(&self) -> bool {
        self.is_one_by_one
    }

    /// Returns the bytes of its tables.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// A table, a range of one, or a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    name: String,
    is_sequence: bool,
    is_descending: bool,
    /// `None` for a whole table.
    blocks: Option<Blocks>,
    bytes: u64,
    /// Whether it cannot be cut.
    is_smallest: bool,
}

/// Returns what is to be asked next, at most four requests at once; none when everything that the
/// catalogue lists was read.
///
/// `guide` is the print of the backup: a table that was read in ranges there is read in the same
/// ranges, so that a difference is located, and what was not read there is not read.
pub fn pieces(
    catalogue: &Catalogue,
    print: &DatabasePrint,
    guide: Option<&DatabasePrint>,
) -> Vec<(Piece, Batch)> {
    let wanted: Vec<&Relation> = wanted(catalogue, print, guide).collect();
    // What is left is shared out, so that the last request does not read alone; a database that one
    // request can read costs no more than one.
    let left: u64 = wanted.iter().map(|relation| left_of(relation, print)).sum();
    let size =
        print.pace.size().min(left.div_ceil(u64::try_from(AT_ONCE).unwrap_or(1)).max(FIRST_PIECE));
    // The large ones last: where the time is up before the end, most tables were read.
    let (large, small): (Vec<&Relation>, Vec<&Relation>) =
        wanted.into_iter().partition(|relation| relation.bytes > size);
    // Suspects are read apart from the others.
    let (small, suspect): (Vec<&Relation>, Vec<&Relation>) =
        small.into_iter().partition(|relation| !print.pace.suspects.contains(&relation.name));
    let sized = |relation: &Relation| {
        let sql = relation.row.len() + relation.name.len() + SQL_OF_A_PART;
        parts(relation, print, guide, size)
            .into_iter()
            .map(move |part| (part, sql))
            .collect::<Vec<_>>()
    };
    let parts = small.into_iter().chain(suspect).chain(large).flat_map(sized);
    let mut pieces: Vec<Piece> = Vec::new();
    let (mut locks, mut locks_before, mut sql) = (0, 0, 0);
    for (part, sql_more) in parts {
        let is_suspect = print.pace.suspects.contains(&part.name);
        let locks_more = if part.is_sequence { 1 } else { LOCKS_OF_A_TABLE };
        let fits = pieces.last().is_some_and(|piece| {
            let has_room = piece.bytes + part.bytes <= size
                && locks + locks_more <= LOCKS_PER_PIECE
                && sql + sql_more <= SQL_PER_PIECE;
            is_suspect == piece.is_one_by_one
                && has_room
                && !(is_suspect && piece.parts.len() >= SUSPECTS_PER_PIECE)
        });
        if !fits && locks_before + locks + locks_more > 2 * LOCKS_PER_PIECE && !pieces.is_empty() {
            break;
        }
        if !fits && pieces.len() == AT_ONCE {
            break;
        }
        if !fits {
            pieces.push(Piece { is_one_by_one: is_suspect, ..Piece::default() });
            locks_before += std::mem::take(&mut locks);
            sql = 0;
        }
        locks += locks_more;
        sql += sql_more;
        if let Some(piece) = pieces.last_mut() {
            piece.bytes += part.bytes;
            piece.parts.push(part);
        }
    }
    pieces.into_iter().map(|piece| (piece.clone(), batch(catalogue, &piece))).collect()
}

/// Returns the relations that are to be read and were not, or not completely.
fn wanted<'a>(
    catalogue: &'a Catalogue,
    print: &DatabasePrint,
    guide: Option<&DatabasePrint>,
) -> impl Iterator<Item = &'a Relation> {
    catalogue.relations.iter().filter(move |relation| {
        !print.has(relation)
            && guide.is_none_or(|guide| !guide.not_checked.contains_key(&relation.name))
    })
}

/// Returns whether everything was read that the catalogue lists; see [`pieces`].
pub fn is_read(
    catalogue: &Catalogue,
    print: &DatabasePrint,
    guide: Option<&DatabasePrint>,
) -> bool {
    wanted(catalogue, print, guide).next().is_none()
}

/// Returns the bytes of a relation that were not read.
fn left_of(relation: &Relation, print: &DatabasePrint) -> u64 {
    let ranges = print.ranges.get(&relation.name).map(Vec::as_slice).unwrap_or_default();
    let blocks: u64 = gaps(ranges).iter().map(|gap| gap.count(relation.blocks)).sum();
    if ranges.is_empty() { relation.bytes } else { share(relation.bytes, blocks, relation.blocks) }
}

/// Cuts what is left of a relation into parts.
fn parts(
    relation: &Relation,
    print: &DatabasePrint,
    guide: Option<&DatabasePrint>,
    size: u64,
) -> Vec<Part> {
    let is_descending = relation.is_sequence && relation.key.is_some();
    let part = |blocks: Option<Blocks>, bytes: u64| Part {
        name: relation.name.clone(),
        is_sequence: relation.is_sequence,
        is_descending,
        blocks,
        bytes,
        is_smallest: blocks.unwrap_or(Blocks::ALL).count(relation.blocks) < 2,
    };
    let read = print.ranges.get(&relation.name);
    let guiding = guide.and_then(|guide| guide.ranges.get(&relation.name));
    if read.is_none() && guiding.is_none() && (relation.bytes <= size || relation.blocks < 2) {
        return vec![part(None, relation.bytes)];
    }
    let bytes_of =
        |blocks: Blocks| share(relation.bytes, blocks.count(relation.blocks), relation.blocks);
    let step = share(relation.blocks, size, relation.bytes).max(1);
    let whole = [Range { blocks: Blocks::ALL, digest: Digest::none() }];
    let ranges: &[Range] = guiding.map_or(&whole, Vec::as_slice);
    let gaps = gaps(read.map(Vec::as_slice).unwrap_or_default());
    let mut found = Vec::new();
    for blocks in
        gaps.iter().flat_map(|gap| ranges.iter().filter_map(|range| gap.and(range.blocks)))
    {
        let is_kept = guiding.is_some() && !(print.pace.is_slow && bytes_of(blocks) > size);
        let mut from = blocks.from;
        // No more are asked for at once than this.
        while found.len() < AT_ONCE * PARTS_PER_STATEMENT {
            let to = from.saturating_add(step);
            if is_kept || to >= blocks.to.unwrap_or(relation.blocks) {
                let rest = Blocks { from, to: blocks.to };
                found.push(part(Some(rest), bytes_of(rest)));
                break;
            }
            let next = Blocks { from, to: Some(to) };
            found.push(part(Some(next), bytes_of(next)));
            from = to;
        }
    }
    found
}

/// Returns the blocks of a table that are in none of the ranges.
fn gaps(read: &[Range]) -> Vec<Blocks> {
    let mut read: Vec<Blocks> = read.iter().map(|range| range.blocks).collect();
    ordered::sort_by(&mut read, Ord::cmp);
    let mut found = Vec::new();
    let mut next = Some(0);
    for blocks in read {
        let Some(from) = next else { break };
        if blocks.from > from {
            found.push(Blocks { from, to: Some(blocks.from) });
        }
        next = blocks.to;
    }
    found.extend(next.map(|from| Blocks { from, to: None }));
    found
}

/// Makes statements of the parts of a piece.
fn batch(catalogue: &Catalogue, piece: &Piece) -> Batch {
    let relations: BTreeMap<&str, &Relation> =
        catalogue.relations.iter().map(|relation| (relation.name.as_str(), relation)).into_map();
    if piece.is_one_by_one {
        let parts = piece.parts.iter().enumerate();
        let select_of = |(index, part): (usize, &Part)| {
            relations.get(part.name.as_str()).map(|relation| select(index, relation, part))
        };
        let selects: Vec<String> = parts.filter_map(select_of).collect();
        return each_by_itself(selects.iter().map(|select| (select.as_str(), false, 1)));
    }
    let mut statements = vec![settings()];
    let (mut selects, mut bytes) = (Vec::new(), 0);
    for (index, part) in piece.parts.iter().enumerate() {
        let Some(relation) = relations.get(part.name.as_str()) else { continue };
        if !selects.is_empty()
            && (selects.len() >= PARTS_PER_STATEMENT || bytes + part.bytes > BYTES_PER_STATEMENT)
        {
            statements.push((std::mem::take(&mut selects).join(" union all "), Vec::new()));
            bytes = 0;
        }
        selects.push(select(index, relation, part));
        bytes += part.bytes;
    }
    statements.push((selects.join(" union all "), Vec::new()));
    Batch { statements, is_read_only: true }
}

/// Digests a table or a range of it, or reads where a sequence stands.
fn select(index: usize, relation: &Relation, part: &Part) -> String {
    let from = relation.from();
    if relation.is_sequence {
        return format!("select {index}::text, last_value::text, is_called::text from {from}");
    }
    let condition = part.blocks.unwrap_or(Blocks::ALL).condition();
    format!(
        "select {index}::text, count(*)::text, coalesce(sum({}), 0)::text from only \
            {from}{condition}",
        relation.digest()
    )
}

impl DatabasePrint {
    fn has(&self, relation: &Relation) -> bool {
        let Relation { name, is_sequence, .. } = relation;
        let is_read = if *is_sequence {
            self.sequences.contains_key(name)
        } else {
            self.tables.contains_key(name)
        };
        is_read || self.not_checked.contains_key(name)
    }
}

#[cfg(test)]
mod tests;
