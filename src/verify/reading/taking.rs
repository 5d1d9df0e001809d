//! What the answers say: a print that grows by them, and what becomes of a piece without one.
//!
//! In: a [`Piece`] with its answer or its error. Out: the [`DatabasePrint`], with more of it read
//! or given up.
//!
//! Invariants: an answer counts whole or not at all, but for parts that were read each in a block
//! of its own. Sums are additive: a table is read when no block of it is left.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Part, Piece, Range, Refused, gaps, wanted};
use crate::neon::sql::{Rows, STATEMENT_TIMEOUT_S, SqlError};
use crate::ordered::{self, IntoOrdered as _};
use crate::verify::catalogue::{Catalogue, Relation, text};
use crate::verify::probe::{Found, answers};
use crate::verify::{DatabasePrint, Digest, Position};

/// How the reason begins that a table was not read because the time was up.
const OUT_OF_TIME: &str = "did not fit the time budget";

impl DatabasePrint {
    /// Takes up what was read before the catalogue was, for the relations that it still lists.
    #[must_use]
    pub fn going_on(mut self, earlier: Self, catalogue: &Catalogue) -> Self {
        let known: BTreeSet<&String> =
            catalogue.relations.iter().map(|relation| &relation.name).into_set();
        let is_known = |name: &String| known.contains(name);
        self.tables = earlier.tables.into_iter().filter(|(name, _)| is_known(name)).into_map();
        self.sequences =
            earlier.sequences.into_iter().filter(|(name, _)| is_known(name)).into_map();
        self.ranges = earlier.ranges.into_iter().filter(|(name, _)| is_known(name)).into_map();
        self.not_checked.extend(earlier.not_checked.into_iter().filter(|(name, _)| is_known(name)));
        self.pace = earlier.pace;
        self
    }

    /// Takes up the answer to a piece, and returns the parts that were refused in it; `None` when
    /// it makes no sense.
    pub fn take(
        &mut self,
        piece: &Piece,
        results: &[Rows],
        took: Duration,
    ) -> Option<Vec<Refused>> {
        if piece.is_one_by_one {
            return self.take_one_by_one(piece, results);
        }
        let (_, statements) = results.split_first()?;
        let rows: Vec<_> = statements.iter().flat_map(|result| &result.rows).collect();
        let mut found = Vec::new();
        for row in &rows {
            let part = piece.parts.get(text(row, 0)?.parse::<usize>().ok()?)?;
            found.push((part, text(row, 1)?, text(row, 2)?));
        }
        // An answer that leaves out a part is none.
        if found.len() != piece.parts.len()
            || !piece.parts.iter().all(|part| found.iter().any(|(other, ..)| *other == part))
        {
            return None;
        }
        for (part, first, second) in found {
            self.take_part(part, first, second)?;
        }
        self.pace.learn(piece.bytes, took);
        Some(Vec::new())
    }

    /// Takes up the answers to parts that were read each in a block of its own.
    fn take_one_by_one(&mut self, piece: &Piece, results: &[Rows]) -> Option<Vec<Refused>> {
        let answers = answers(results)?;
        if answers.len() != piece.parts.len() {
            return None;
        }
        let mut refused = Vec::new();
        for (index, (part, answer)) in piece.parts.iter().zip(answers).enumerate() {
            match answer {
                Found::Rows(rows) => {
                    let [row] = rows.as_slice() else { return None };
                    (text(row, 0)? == index.to_string()).then_some(())?;
                    self.take_part(part, text(row, 1)?, text(row, 2)?)?;
                }
                Found::Error(state, message) => {
                    refused.push(Refused { table: part.name.clone(), state, message });
                }
                Found::NotRun(_) | Found::Defect | Found::Count(_) => return None,
            }
        }
        Some(refused)
    }

    fn take_part(&mut self, part: &Part, first: &str, second: &str) -> Option<()> {
        let name = part.name.clone();
        if part.is_sequence {
            let (last_value, is_called) = (first.parse().ok()?, second == "true");
            self.sequences.insert(
                name,
                Position { last_value, is_called, is_descending: part.is_descending },
            );
            return Some(());
        }
        let digest = Digest { count: first.parse().ok()?, digest: second.to_owned() };
        match part.blocks {
            None => drop(self.tables.insert(name, digest)),
            Some(blocks) => self.take_range(name, Range { blocks, digest })?,
        }
        Some(())
    }

    /// Returns how much is settled: read, or given up with a reason.
    pub fn settled(&self) -> usize {
        let ranges: usize = self.ranges.values().map(Vec::len).sum();
        self.tables.len() + self.sequences.len() + self.not_checked.len() + ranges
    }

    /// Adds a range; a table of which nothing is left is read.
    fn take_range(&mut self, name: String, range: Range) -> Option<()> {
        // A digest that is no number would be found out only when all of them are added.
        range.digest.digest.parse::<i128>().ok()?;
        let ranges = self.ranges.entry(name.clone()).or_default();
        if ranges.iter().any(|other| other.blocks == range.blocks) {
            return Some(());
        }
        ranges.push(range);
        ordered::sort_by_key(ranges, |range| range.blocks);
        if gaps(ranges).is_empty() {
            let digest = sum(ranges.iter().map(|range| &range.digest))?;
            self.tables.insert(name, digest);
        }
        Some(())
    }

    /// A piece took too long. Where it cannot be made smaller, its only table is not checked.
    pub fn too_slow(&mut self, piece: &Piece) {
        if let [part] = piece.parts.as_slice()
            && part.is_smallest
        {
            self.give_up(
                &part.name,
                &format!("a block of it cannot be digested in {STATEMENT_TIMEOUT_S} s"),
            );
        }
    }

    /// A piece could not be read, and may not be the next time: each of its tables is read in a
    /// block of its own.
    pub fn refused(&mut self, piece: &Piece) {
        self.pace.suspects.extend(piece.parts.iter().map(|part| part.name.clone()));
    }

    /// A table was refused although it was read in a block of its own: it is not checked, unless
    /// the error may be about the moment and was not met often. Returns whether it is tried again.
    pub fn refused_alone(&mut self, refused: &Refused, error: &SqlError) -> bool {
        let is_tried_again =
            error.is_passing() && self.pace.may_try(&refused.table, &refused.state);
        if !is_tried_again {
            self.give_up(&refused.table, &error.to_string());
        }
        is_tried_again
    }

    fn give_up(&mut self, name: &str, reason: &str) {
        self.ranges.remove(name);
        self.not_checked.insert(name.to_owned(), reason.to_owned());
    }

    /// Nothing more is read, because the time is up.
    pub fn out_of_time(&mut self, catalogue: &Catalogue, guide: Option<&Self>, budget: Duration) {
        let reason = format!("{OUT_OF_TIME} of {} s", budget.as_secs());
        let left: Vec<&Relation> = wanted(catalogue, self, guide).collect();
        for relation in left {
            self.give_up(&relation.name, &reason);
        }
    }
}

/// Adds digests, whose sums are additive.
fn sum<'a>(digests: impl Iterator<Item = &'a Digest>) -> Option<Digest> {
    let (mut count, mut total) = (0, 0_i128);
    for digest in digests {
        count += digest.count;
        total = total.checked_add(digest.digest.parse().ok()?)?;
    }
    Some(Digest { count, digest: total.to_string() })
}
