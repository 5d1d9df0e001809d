//! What the databases of a simulated project hold.

use std::collections::BTreeMap;

use super::statements::{Row, filled};
use crate::faults::Place;

/// Bytes of a row, and of a block.
pub(super) const ROW_BYTES: u64 = 100;
const BLOCK_BYTES: u64 = 8192;

/// What a database holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// By qualified name, such as `public.users`.
    pub tables: BTreeMap<String, Table>,
    /// Last values, by qualified name.
    pub sequences: BTreeMap<String, i64>,
    /// Whether the only trigger, of the first table, is disabled.
    pub is_trigger_disabled: bool,
}

/// What a table holds: rows that are numbered from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Rows.
    pub rows: u64,
    /// A number that changes with every write.
    pub digest: u64,
    /// Rows that it had at first, of which the last may be gone and the first changed; those that
    /// were added come after them.
    first: u64,
    gone: u64,
    changed: u64,
}

/// Rows of a table that are told one by one; of a larger one the first and the last few, which
/// alone are ever changed.
const TOLD: u64 = 10_000;
const FEW: u64 = 8;

impl Table {
    /// Returns a table of so many rows.
    pub fn new(rows: u64, digest: u64) -> Self {
        Self { rows, digest, first: rows, gone: 0, changed: 0 }
    }

    pub(super) fn blocks(self) -> u64 {
        self.first * ROW_BYTES / BLOCK_BYTES
    }

    /// What the blocks before a block hold: rows, and the sum of their digests. Whatever is changed
    /// lies in the last block.
    pub(super) fn before(self, block: Option<u64>) -> (u64, u128) {
        let blocks = self.blocks().max(1);
        match block.filter(|block| *block < blocks) {
            Some(block) => (self.first.saturating_sub(FEW) * block / blocks, u128::from(block)),
            None => (self.rows, u128::from(blocks) + u128::from(self.digest)),
        }
    }

    /// Two parts of a large table: the rows that are told, and all others, which are the same
    /// everywhere.
    pub(super) fn parts(self) -> Vec<Row> {
        let others = if self.first > TOLD { self.first - 2 * FEW } else { 0 };
        let told = (self.rows.saturating_sub(others), self.digest);
        let parts = [(0, told), (1, (others, 0))];
        parts
            .map(|(part, (rows, digest))| {
                filled([part.to_string(), rows.to_string(), digest.to_string()])
            })
            .to_vec()
    }

    /// The hashes of the rows that are told: of the key, which is the number, and of what the row
    /// holds.
    pub(super) fn hashes(self) -> Row {
        let kept = 1..=self.first.saturating_sub(self.gone);
        let is_told = |row: &u64| self.first <= TOLD || *row <= FEW || *row > self.first - FEW;
        let added = (self.rows + self.gone).saturating_sub(self.first);
        let rows = kept.filter(is_told).chain(self.first + 1..=self.first + added);
        let hashes: Vec<String> =
            rows.map(|row| format!("{row:016x}{:016x}", u64::from(row <= self.changed))).collect();
        let text = hashes.concat();
        vec![(!text.is_empty()).then(|| text.into())]
    }

    /// Adds a row.
    fn add(&mut self) {
        self.rows += 1;
        self.digest = self
            .digest
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
    }
}

/// Tells the keys of the rows whose hashes a statement asks for.
pub(super) fn keys_asked(text: &str) -> Vec<Row> {
    let quoted = text.split('\'').filter(|part| part.len() == 16);
    let numbers =
        quoted.filter_map(|part| Some((part.to_owned(), u64::from_str_radix(part, 16).ok()?)));
    numbers.map(|(hash, number)| filled([hash, format!("{{\"id\": {number}}}")])).collect()
}

impl Contents {
    /// Returns so many tables, `public.t1`, …, and a sequence.
    pub fn with_tables(count: u64) -> Self {
        let tables = (1..=count)
            .map(|number| (format!("public.t{number}"), Table::new(number * 100, number)))
            .collect();
        Self {
            tables,
            sequences: [("public.t1_id_seq".to_owned(), 100)].into(),
            is_trigger_disabled: false,
        }
    }

    /// Adds a row to one of the tables, as an application does.
    pub fn write(&mut self) {
        self.tables.values_mut().next().into_iter().for_each(Table::add);
        self.sequences.values_mut().for_each(|last| *last += 1);
    }

    /// Removes all rows of the first table and changes all of the second, as somebody does who
    /// misuses a staging.
    pub fn empty(&mut self) {
        let mut tables = self.tables.values_mut();
        if let Some(table) = tables.next() {
            *table = Table { rows: 0, digest: 0, gone: table.first, changed: 0, ..*table };
        }
        if let Some(table) = tables.next() {
            table.changed = table.first;
            table.digest ^= 2;
        }
    }

    /// Loses a row of the last table, changes one of the last but one and disables a trigger, as a
    /// copy that is no copy does.
    pub fn damage(&mut self) {
        self.is_trigger_disabled = true;
        let mut tables = self.tables.values_mut().rev();
        if let Some(table) = tables.next() {
            table.rows -= 1;
            table.gone += 1;
            table.digest ^= 1;
        }
        if let Some(table) = tables.next() {
            table.changed += 1;
            table.digest ^= 1;
        }
    }

    /// Sets every sequence back, which no use of a copy does.
    pub fn set_back(&mut self) {
        self.sequences.values_mut().for_each(|last| *last -= 1);
    }
}

/// What is wrong with restored data from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Rows are gone and changed, and a definition, below or above the fork.
    Rows(Place),
    /// Sequences are behind.
    Behind,
}

impl Contents {
    /// Every object that is no table: its kind, its name, how it is defined.
    fn objects(&self) -> [[&'static str; 3]; 3] {
        let trigger =
            if self.is_trigger_disabled { "after insert (disabled)" } else { "after insert" };
        [
            ["server", "version", "18.4"],
            ["schemas", "public", ""],
            ["triggers", "public.t1.noted", trigger],
        ]
    }

    pub(super) fn schema_digests(&self) -> Vec<Row> {
        self.objects()
            .map(|[kind, name, definition]| {
                filled([
                    kind.to_owned(),
                    "1".to_owned(),
                    (name.len() + definition.len()).to_string(),
                ])
            })
            .to_vec()
    }

    pub(super) fn schema_items(&self, kinds: &[String]) -> Vec<Row> {
        let wanted = self
            .objects()
            .into_iter()
            .filter(|[kind, ..]| kinds.iter().any(|wanted| wanted == kind));
        wanted
            .map(|[kind, name, definition]| {
                filled([kind, name, &definition.len().to_string(), definition].map(str::to_owned))
            })
            .collect()
    }
}
