//! Reads the content of a database piece by piece: what is asked next, and what was found so far.
//!
//! In: a [`Catalogue`] and a [`DatabasePrint`] that is not complete. Out: [`Piece`]s with their batches, and a print that grows by their answers.
//!
//! Invariants: many small tables share a statement, a large one is cut into ranges of blocks; the number of requests grows with bytes and not with
//! tables. Everything that was read is in the print, so that another invocation goes on where this one stops. Sums are additive: a table's digest
//! does not depend on how it was cut.
//!
//! Failure: a piece that takes too long is asked again in smaller pieces; what cannot be read alone is *not checked*, with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::catalogue::{Catalogue, Relation, settings, text};
use super::pace::{SMALLEST_PIECE, share};
use super::{DatabasePrint, Digest, Position};
use crate::neon::sql::{Batch, Rows};

/// Seconds that one statement may take: eight times what a piece is to take, and two of them stay inside the five minutes of a cron interval.
pub const STATEMENT_TIMEOUT_S: u32 = 120;

/// Pieces that are asked at the same time.
///
/// Source: design §6: "At most 4 requests at once (the platform allows 6 and a timeout runs while one is queued)".
const AT_ONCE: usize = 4;

/// Small tables that one statement digests.
///
/// Each costs about 400 bytes of SQL; 50 keep a statement readable in a log and the plan short.
const PARTS_PER_STATEMENT: usize = 50;

/// Bytes of tables that one statement digests when it digests several.
const BYTES_PER_STATEMENT: u64 = 64 << 20;

/// How the reason begins that a table was not read because the time was up.
pub(super) const OUT_OF_TIME: &str = "did not fit the time budget";

/// A range of blocks of a table, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Which blocks.
    pub blocks: Blocks,
    /// What they hold.
    pub digest: Digest,
}

/// Blocks of a table, from the first to before the last; without a last, to the end of the table, wherever that is.
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
}

impl Piece {
    /// Returns whether it may take its time. Of a smaller one that was not answered in time, the reply was lost.
    pub fn is_large(&self) -> bool {
        self.bytes > BYTES_PER_STATEMENT
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
}

/// Returns what is to be asked next, at most four requests at once; none when everything that the catalogue lists was read.
///
/// `guide` is the print of the backup: a table that was read in ranges there is read in the same ranges, so that a difference is located, and
/// what was not read there is not read. Only the relations named in `only` are read where that is given.
pub fn pieces(catalogue: &Catalogue, print: &DatabasePrint, guide: Option<&DatabasePrint>, only: Option<&[String]>) -> Vec<(Piece, Batch)> {
    let is_wanted = |relation: &&Relation| {
        only.is_none_or(|names| names.contains(&relation.name))
            && !print.has(relation)
            && guide.is_none_or(|guide| !guide.not_checked.contains_key(&relation.name))
    };
    let wanted: Vec<&Relation> = catalogue.relations.iter().filter(is_wanted).collect();
    // What is left is shared out, so that the last request does not read alone.
    let left: u64 = wanted.iter().map(|relation| left_of(relation, print)).sum();
    let size = print.pace.size().min(left.div_ceil(u64::try_from(AT_ONCE).unwrap_or(1)).max(BYTES_PER_STATEMENT));
    // The large ones last: where the time is up before the end, most tables were read.
    let (large, small): (Vec<&Relation>, Vec<&Relation>) = wanted.into_iter().partition(|relation| relation.bytes > size);
    let parts = small.into_iter().chain(large).flat_map(|relation| parts(relation, print, guide, size));
    let mut pieces: Vec<Piece> = Vec::new();
    let mut is_open = false;
    for part in parts {
        let is_alone = print.pace.suspects.contains(&part.name);
        let fits = pieces.last().is_some_and(|piece| is_open && !is_alone && piece.bytes + part.bytes <= size);
        if !fits && pieces.len() == AT_ONCE {
            break;
        }
        if !fits {
            pieces.push(Piece::default());
        }
        if let Some(piece) = pieces.last_mut() {
            piece.bytes += part.bytes;
            piece.parts.push(part);
        }
        is_open = !is_alone;
    }
    pieces.into_iter().map(|piece| (piece.clone(), batch(catalogue, &piece))).collect()
}

/// Returns the bytes of a relation that were not read.
fn left_of(relation: &Relation, print: &DatabasePrint) -> u64 {
    let ranges = print.ranges.get(&relation.name).map(Vec::as_slice).unwrap_or_default();
    let blocks: u64 = gaps(ranges).iter().map(|gap| gap.to.unwrap_or(relation.blocks).saturating_sub(gap.from)).sum();
    if ranges.is_empty() { relation.bytes } else { share(relation.bytes, blocks, relation.blocks) }
}

/// Cuts what is left of a relation into parts.
fn parts(relation: &Relation, print: &DatabasePrint, guide: Option<&DatabasePrint>, size: u64) -> Vec<Part> {
    let is_descending = relation.is_sequence && relation.key.is_some();
    let part = |blocks: Option<Blocks>, bytes: u64| Part {
        name: relation.name.clone(),
        is_sequence: relation.is_sequence,
        is_descending,
        blocks,
        bytes,
    };
    let read = print.ranges.get(&relation.name);
    let guiding = guide.and_then(|guide| guide.ranges.get(&relation.name));
    if read.is_none() && guiding.is_none() && (relation.bytes <= size || relation.blocks < 2) {
        return vec![part(None, relation.bytes)];
    }
    let bytes_of = |blocks: u64| share(relation.bytes, blocks, relation.blocks);
    let ends = |blocks: Blocks| blocks.to.unwrap_or(relation.blocks).max(blocks.from);
    if let Some(guiding) = guiding {
        let is_read = |range: &&Range| read.is_none_or(|read| !read.iter().any(|other| other.blocks == range.blocks));
        let blocks = guiding.iter().filter(is_read).map(|range| range.blocks);
        return blocks.map(|blocks| part(Some(blocks), bytes_of(ends(blocks) - blocks.from))).collect();
    }
    let step = share(relation.blocks, size, relation.bytes).max(1);
    let mut found = Vec::new();
    for gap in gaps(read.map(Vec::as_slice).unwrap_or_default()) {
        let mut from = gap.from;
        // No more are asked for at once than this.
        while found.len() < AT_ONCE {
            let to = from.saturating_add(step);
            if to >= ends(gap) {
                found.push(part(Some(Blocks { from, to: gap.to }), bytes_of(ends(gap).saturating_sub(from))));
                break;
            }
            found.push(part(Some(Blocks { from, to: Some(to) }), bytes_of(step)));
            from = to;
        }
    }
    found
}

/// Returns the blocks of a table that are in none of the ranges.
fn gaps(read: &[Range]) -> Vec<Blocks> {
    let mut read: Vec<Blocks> = read.iter().map(|range| range.blocks).collect();
    read.sort_unstable();
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
    let relations: BTreeMap<&str, &Relation> = catalogue.relations.iter().map(|relation| (relation.name.as_str(), relation)).collect();
    let mut statements = vec![settings()];
    let (mut selects, mut bytes) = (Vec::new(), 0);
    for (index, part) in piece.parts.iter().enumerate() {
        let Some(relation) = relations.get(part.name.as_str()) else { continue };
        if !selects.is_empty() && (selects.len() >= PARTS_PER_STATEMENT || bytes + part.bytes > BYTES_PER_STATEMENT) {
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
    format!("select {index}::text, count(*)::text, coalesce(sum({}), 0)::text from only {from}{condition}", relation.digest())
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

impl DatabasePrint {
    fn has(&self, relation: &Relation) -> bool {
        let Relation { name, is_sequence, .. } = relation;
        let is_read = if *is_sequence { self.sequences.contains_key(name) } else { self.tables.contains_key(name) };
        is_read || self.not_checked.contains_key(name)
    }

    /// Takes up what was read before the catalogue was, for the relations that it still lists.
    #[must_use]
    pub fn going_on(mut self, earlier: Self, catalogue: &Catalogue) -> Self {
        let known: BTreeSet<&String> = catalogue.relations.iter().map(|relation| &relation.name).collect();
        let is_known = |name: &String| known.contains(name);
        self.tables = earlier.tables.into_iter().filter(|(name, _)| is_known(name)).collect();
        self.sequences = earlier.sequences.into_iter().filter(|(name, _)| is_known(name)).collect();
        self.ranges = earlier.ranges.into_iter().filter(|(name, _)| is_known(name)).collect();
        self.not_checked.extend(earlier.not_checked.into_iter().filter(|(name, _)| is_known(name)));
        self.pace = earlier.pace;
        self
    }

    /// Takes up the answer to a piece; `None` when it makes no sense.
    pub fn take(&mut self, piece: &Piece, results: &[Rows], took: Duration) -> Option<()> {
        let (_, statements) = results.split_first()?;
        let rows: Vec<_> = statements.iter().flat_map(|result| &result.rows).collect();
        let mut found = Vec::new();
        for row in &rows {
            let part = piece.parts.get(text(row, 0)?.parse::<usize>().ok()?)?;
            found.push((part, text(row, 1)?, text(row, 2)?));
        }
        // An answer that leaves out a part is none.
        if found.len() != piece.parts.len() || !piece.parts.iter().all(|part| found.iter().any(|(other, ..)| *other == part)) {
            return None;
        }
        for (part, first, second) in found {
            let name = part.name.clone();
            if part.is_sequence {
                let (last_value, is_called) = (first.parse().ok()?, second == "true");
                self.sequences.insert(name, Position { last_value, is_called, is_descending: part.is_descending });
                continue;
            }
            let digest = Digest { count: first.parse().ok()?, digest: second.to_owned() };
            match part.blocks {
                None => drop(self.tables.insert(name, digest)),
                Some(blocks) => self.take_range(name, Range { blocks, digest })?,
            }
        }
        self.pace.spend(took);
        self.pace.learn(piece.bytes, took);
        Some(())
    }

    /// Adds a range; a table of which nothing is left is read.
    fn take_range(&mut self, name: String, range: Range) -> Option<()> {
        let ranges = self.ranges.entry(name.clone()).or_default();
        if ranges.iter().any(|other| other.blocks == range.blocks) {
            return Some(());
        }
        ranges.push(range);
        ranges.sort_unstable_by_key(|range| range.blocks);
        if gaps(ranges).is_empty() {
            let digest = sum(ranges.iter().map(|range| &range.digest))?;
            self.tables.insert(name, digest);
        }
        Some(())
    }

    /// A piece took too long: the next ones are smaller. Where it cannot be made smaller, its only table is not checked.
    pub fn too_slow(&mut self, piece: &Piece) {
        self.pace.spend(Duration::from_secs(STATEMENT_TIMEOUT_S.into()));
        let is_smallest = matches!(piece.parts.as_slice(), [part] if part.blocks.map_or(part.bytes <= SMALLEST_PIECE, |blocks| {
            blocks.to.is_some_and(|to| to <= blocks.from + 1)
        }));
        if is_smallest {
            self.give_up(piece, &format!("a block of it cannot be digested in {STATEMENT_TIMEOUT_S} s"));
            return;
        }
        self.pace.slow_down(piece.bytes);
    }

    /// A piece could not be read, and would not be the next time: its tables are read alone, and one that was alone is not checked.
    pub fn refused(&mut self, piece: &Piece, reason: &str) {
        match piece.parts.as_slice() {
            [_] => self.give_up(piece, reason),
            parts => self.pace.suspects.extend(parts.iter().map(|part| part.name.clone())),
        }
    }

    fn give_up(&mut self, piece: &Piece, reason: &str) {
        for part in &piece.parts {
            self.ranges.remove(&part.name);
            self.not_checked.insert(part.name.clone(), reason.to_owned());
        }
    }

    /// Nothing more is read, because the time is up.
    pub fn out_of_time(&mut self, catalogue: &Catalogue, guide: Option<&Self>, only: Option<&[String]>, budget: Duration) {
        let reason = format!("{OUT_OF_TIME} of {} s", budget.as_secs());
        loop {
            let left = pieces(catalogue, self, guide, only);
            if left.is_empty() {
                return;
            }
            for (piece, _) in &left {
                self.give_up(piece, &reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue(sizes: &[u64]) -> Catalogue {
        let relation = |(index, bytes): (usize, &u64)| Relation {
            name: format!("public.t{index}"),
            is_sequence: false,
            row: "ROW(id)".into(),
            bytes: *bytes,
            blocks: bytes / 8192,
            key: None,
        };
        Catalogue { print: DatabasePrint::new(), relations: sizes.iter().enumerate().map(relation).collect() }
    }

    /// Answers a piece: a row in each block, of which each digests to its number.
    fn answer(catalogue: &Catalogue, piece: &Piece) -> Vec<Rows> {
        let row = |(index, part): (usize, &Part)| {
            let relation = catalogue.relations.iter().find(|relation| relation.name == part.name).expect("it is listed");
            let blocks = part.blocks.unwrap_or(Blocks::ALL);
            let all = blocks.from..blocks.to.unwrap_or(relation.blocks);
            let total: i128 = all.clone().map(i128::from).sum();
            [index.to_string(), all.count().to_string(), total.to_string()].map(Some).to_vec()
        };
        vec![Rows::default(), Rows { rows: piece.parts.iter().enumerate().map(row).collect() }]
    }

    /// Reads everything, each piece in the given time; returns the print and the number of requests.
    fn read(catalogue: &Catalogue, guide: Option<&DatabasePrint>, took: impl Fn(u64) -> Duration) -> (DatabasePrint, usize) {
        let (mut print, mut requests) = (catalogue.print.clone(), 0);
        for _ in 0..10_000 {
            let asked = pieces(catalogue, &print, guide, None);
            if asked.is_empty() {
                return (print, requests);
            }
            assert!(asked.len() <= AT_ONCE);
            requests += asked.len();
            for (piece, _) in asked {
                print.take(&piece, &answer(catalogue, &piece), took(piece.bytes)).expect("a complete answer");
            }
        }
        panic!("reading does not come to an end");
    }

    /// At so many bytes a millisecond.
    fn at(pace: u64) -> impl Fn(u64) -> Duration {
        move |bytes| Duration::from_millis(20 + bytes / pace)
    }

    #[test]
    fn many_small_tables_share_one_request() {
        let catalogue = catalogue(&[8192; 500]);
        let asked = pieces(&catalogue, &catalogue.print, None, None);
        assert_eq!((asked.len(), asked[0].1.statements.len()), (1, 1 + 10));
        assert_eq!(read(&catalogue, None, at(100_000)).1, 1);
    }

    #[test]
    fn what_is_left_is_shared_out_among_the_requests() {
        let counts = |sizes: &[u64]| -> Vec<usize> {
            let catalogue = catalogue(sizes);
            pieces(&catalogue, &catalogue.print, None, None).iter().map(|(piece, _)| piece.parts.len()).collect()
        };
        assert_eq!(counts(&[8192, 40 << 20, 8192]), [3], "64 MB are read in one");
        assert_eq!(counts(&[8192, 200 << 20, 8192]), [2, 1, 1, 1]);
    }

    #[test]
    fn requests_grow_with_bytes_more_slowly_than_bytes_do_until_a_piece_takes_its_time() {
        // 100 MB/s: a piece grows to 1.5 GB, which takes fifteen seconds.
        let requests = |gigabytes: u64| read(&catalogue(&[gigabytes << 30]), None, at(100_000)).1;
        assert_eq!([1, 5, 20, 100].map(requests), [4, 8, 20, 79]);
    }

    #[test]
    fn the_digest_of_a_table_does_not_depend_on_how_it_was_cut() {
        let catalogue = catalogue(&[3 << 30, 8192]);
        let (quick, slow) = (read(&catalogue, None, at(1_000_000)).0, read(&catalogue, None, at(2_000)).0);
        let blocks = (3_u64 << 30) / 8192;
        let expected = Digest { count: blocks, digest: (u128::from(blocks) * u128::from(blocks - 1) / 2).to_string() };
        assert_eq!((&quick.tables["public.t0"], &slow.tables["public.t0"]), (&expected, &expected));
        assert!(slow.ranges["public.t0"].len() > quick.ranges["public.t0"].len());
        let last = slow.ranges["public.t0"].last().expect("a range");
        assert_eq!(last.blocks.to, None, "the last range is open: the table may grow");
    }

    #[test]
    fn a_copy_is_read_in_the_ranges_of_the_backup() {
        let catalogue = catalogue(&[3 << 30, 8192]);
        let backup = read(&catalogue, None, at(20_000)).0;
        let (copy, _) = read(&catalogue, Some(&backup), at(1_000_000));
        assert_eq!((&copy.ranges, &copy.tables), (&backup.ranges, &backup.tables));
    }

    #[test]
    fn reading_goes_on_where_it_stopped() {
        let catalogue = catalogue(&[3 << 30, 8192]);
        let asked = pieces(&catalogue, &catalogue.print, None, None);
        let mut print = catalogue.print.clone();
        // The second and the fourth of them were answered.
        for (piece, _) in [&asked[1], &asked[3]] {
            print.take(piece, &answer(&catalogue, piece), Duration::from_secs(1)).expect("a complete answer");
        }
        let stored = serde_json::to_string(&print).expect("plain data");
        let mut print = catalogue.print.clone().going_on(serde_json::from_str(&stored).expect("our own"), &catalogue);
        for _ in 0..100 {
            for (piece, _) in pieces(&catalogue, &print, None, None) {
                assert!(!piece.parts.iter().any(|part| asked[1].0.parts.contains(part) || asked[3].0.parts.contains(part)), "read twice");
                print.take(&piece, &answer(&catalogue, &piece), Duration::from_secs(1)).expect("a complete answer");
            }
        }
        assert_eq!(print.tables, read(&catalogue, None, at(100_000)).0.tables);
    }

    #[test]
    fn a_piece_that_takes_too_long_is_asked_again_in_smaller_ones_down_to_a_block() {
        let catalogue = catalogue(&[64 << 10]);
        let mut print = catalogue.print.clone();
        let mut asked = Vec::new();
        for _ in 0..12 {
            let Some((piece, _)) = pieces(&catalogue, &print, None, None).into_iter().next() else { break };
            asked.push(piece.parts[0].blocks.map_or(8, |blocks| blocks.to.unwrap_or(8) - blocks.from));
            print.too_slow(&piece);
        }
        assert_eq!(asked, [8, 1]);
        assert_eq!(print.not_checked["public.t0"], "a block of it cannot be digested in 120 s");
    }

    #[test]
    fn a_table_that_cannot_be_read_is_found_among_others_and_they_are_read() {
        let catalogue = catalogue(&[8192; 10]);
        let mut print = catalogue.print.clone();
        for _ in 0..20 {
            for (piece, _) in pieces(&catalogue, &print, None, None) {
                if piece.parts.iter().any(|part| part.name == "public.t7") {
                    print.refused(&piece, "XX001: invalid page");
                } else {
                    print.take(&piece, &answer(&catalogue, &piece), Duration::ZERO).expect("a complete answer");
                }
            }
        }
        assert_eq!(print.tables.len(), 9);
        assert_eq!(print.not_checked, [("public.t7".to_owned(), "XX001: invalid page".to_owned())].into());
    }

    #[test]
    fn what_does_not_fit_the_time_budget_is_not_checked_and_the_small_tables_were_read_first() {
        let catalogue = catalogue(&[3 << 30, 8192, 8192]);
        let mut print = catalogue.print.clone();
        for (piece, _) in pieces(&catalogue, &print, None, None) {
            print.take(&piece, &answer(&catalogue, &piece), Duration::from_mins(1)).expect("a complete answer");
        }
        print.out_of_time(&catalogue, None, None, Duration::from_mins(1));
        assert_eq!(print.tables.keys().collect::<Vec<_>>(), ["public.t1", "public.t2"]);
        assert_eq!(print.not_checked["public.t0"], "did not fit the time budget of 60 s");
        assert!(pieces(&catalogue, &print, None, None).is_empty());
    }

    #[test]
    fn an_answer_that_leaves_out_a_table_is_none() {
        let catalogue = catalogue(&[8192, 8192]);
        let (piece, _) = pieces(&catalogue, &catalogue.print, None, None).remove(0);
        let mut answered = answer(&catalogue, &piece);
        answered[1].rows.pop();
        assert_eq!(catalogue.print.clone().take(&piece, &answered, Duration::ZERO), None);
        let again = answered[1].rows[0].clone();
        answered[1].rows.push(again);
        assert_eq!(catalogue.print.clone().take(&piece, &answered, Duration::ZERO), None, "the first one twice");
    }
}
