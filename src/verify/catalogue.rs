//! What a database contains, before its content is read: tables, sequences, kinds of objects.
//!
//! Invariants: every batch first fixes the settings that change what a value looks like or which
//! rows are seen; names in it were quoted by Postgres itself.
//!
//! Source: design §8, tried on PostgreSQL 15 and 18.

use std::sync::LazyLock;

use super::pages::paged;
use super::questions::INTEGRITY;
use super::{DatabasePrint, Shape, schema};
use crate::neon::sql::{Batch, Rows};

/// Sets what changes the look of values and the rows that are seen, for this transaction only. Path
/// and timeouts are set in every batch.
///
/// JIT compiles the catalogue's statement for ten seconds, which then runs for a tenth of one (500
/// tables, PostgreSQL 15). With `constraint_exclusion` on, the planner calls the functions of a
/// table's checks that have constants alone for arguments, as whoever reads the table.
pub(super) fn settings() -> (String, Vec<String>) {
    let sql = "select set_config(name, value, true) from (values ('row_security', 'off'), ('jit', \
        'off'), ('constraint_exclusion', 'off'), \
        ('TimeZone', 'UTC'), ('DateStyle', 'ISO, YMD'), ('IntervalStyle', 'postgres'), \
        ('extra_float_digits', '1')) \
        as settings(name, value)";
    (sql.to_owned(), Vec::new())
}

/// Lists tables, materialized views and sequences; without comments and line ends, which would be
/// sent with every request.
static RELATIONS: LazyLock<String> = LazyLock::new(|| in_one_line(include_str!("relations.sql")));

/// Returns SQL without its comments and line ends.
pub(super) fn in_one_line(sql: &str) -> String {
    let lines = sql.lines().map(str::trim).filter(|line| !line.starts_with("--"));
    lines.flat_map(|line| [line, " "]).collect()
}

/// The columns of the list of relations, and those that make two of them the same: sizes change in
/// use.
const COLUMNS: [&str; 9] =
    ["kind", "name", "hash", "bytes", "state", "key", "blocks", "left_out", "whole"];
const THE_SAME: &str = "hash, state, key, left_out";

/// The columns of what may be wrong.
const DEFECTS: [&str; 5] = ["kind", "name", "sql", "bytes", "reason"];

/// Returns the batch that reads a page of the catalogue of a database. `exclusions` are names of
/// what is left out, quoted as Postgres quotes them.
pub fn catalogue_batch(exclusions: &[String], looks_for_defects: bool, page: u32) -> Batch {
    let exclusions = serde_json::Value::from(exclusions).to_string();
    let mut statements =
        vec![settings(), (paged(&RELATIONS, &COLUMNS, THE_SAME, page), vec![exclusions])];
    statements.extend((page == 0).then(schema::digests));
    statements.extend(
        looks_for_defects.then(|| (paged(&INTEGRITY, &DEFECTS, "sql, reason", page), Vec::new())),
    );
    Batch { statements, is_read_only: true }
}

/// Returns the batch that asks whether the role sees every row, and which functions of the database
/// each of our log-ins would call.
pub fn role_batch() -> Batch {
    let sql = "select (rolsuper or rolbypassrls)::text, (select \
        string_agg(quote_ident(evtname), ', ' \
        order by evtname) from pg_event_trigger \
        where evtevent = 'login' and evtenabled in ('O', 'A') and \
        current_setting('neon.event_triggers', true) is distinct from 'off') \
        from pg_roles where rolname = current_user";
    Batch { statements: vec![(sql.to_owned(), Vec::new())], is_read_only: true }
}

/// What is to be known of the verifying role before anything is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleFacts {
    /// Whether row-level security hides no row from it.
    pub sees_all_rows: bool,
    /// The login event triggers that run as the role; `None` where there is none, or where they are
    /// switched off for us.
    pub login_triggers: Option<String>,
}

/// Reads the answer to [`role_batch`]; `None` when it makes no sense.
pub fn role_facts(results: &[Rows]) -> Option<RoleFacts> {
    let row = results.first()?.rows.first()?;
    let sees_all_rows = match text(row, 0)? {
        "true" => true,
        "false" => false,
        _ => return None,
    };
    Some(RoleFacts { sees_all_rows, login_triggers: text(row, 1).map(str::to_owned) })
}

/// What a database contains, before it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// The parts of the fingerprint that the catalogue itself gives.
    pub print: DatabasePrint,
    pub(super) relations: Vec<Relation>,
}

/// A table or a sequence that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Relation {
    /// Its qualified name, quoted; [`LARGE_OBJECTS`] is none.
    pub(super) name: String,
    pub(super) is_sequence: bool,
    /// The expression of a row, 64 bits.
    pub(super) row: String,
    /// Bytes, with what it stores out of line.
    pub(super) bytes: u64,
    /// Blocks of the table itself.
    pub(super) blocks: u64,
    /// The expression of a row's primary key; `None` where there is none. Of a sequence, whether it
    /// counts down.
    pub(super) key: Option<String>,
}

/// How the large objects of a database are called, which are read as a table is.
const LARGE_OBJECTS: &str = "large objects";

impl Relation {
    /// Returns what stands after `from only`.
    pub(super) fn from(&self) -> &str {
        if self.name == LARGE_OBJECTS { "pg_catalog.pg_largeobject_metadata" } else { &self.name }
    }

    /// Returns the expression that digests a row.
    ///
    /// The outer hash, whose seed is what the columns give together, ties the values of a row to
    /// each other: a plain sum of the columns' hashes misses values that were swapped between rows.
    pub(super) fn digest(&self) -> String {
        format!("hashint4extended(1, {})", self.row)
    }
}

/// Reads the pages of [`catalogue_batch`] as [`super::Pages`] puts them together; `None` when they
/// make no sense.
pub fn decode_catalogue(results: &[Rows]) -> Option<Catalogue> {
    let [_, relations, schema, ..] = results else { return None };
    let mut catalogue = Catalogue { print: DatabasePrint::new(), relations: Vec::new() };
    for row in &relations.rows {
        let name = text(row, 1)?.to_owned();
        if text(row, 0)? == "x" {
            catalogue.print.unknown_exclusions.push(name);
            continue;
        }
        if let Some(whole) = text(row, 8) {
            catalogue.print.part_of.insert(name.clone(), whole.to_owned());
        }
        if let Some(columns) = row.get(7)?.clone() {
            catalogue.print.left_out.insert(name.clone(), columns);
        }
        let state = text(row, 4)?;
        if let Some(reason) = state.strip_prefix("skipped: ") {
            catalogue.print.skipped.insert(name, reason.to_owned());
        } else if let Some(reason) = state.strip_prefix("not checked: ") {
            catalogue.print.not_checked.insert(name, reason.to_owned());
        } else {
            let is_sequence = text(row, 0)? == "S";
            let (bytes, blocks) = (text(row, 3)?.parse().ok()?, text(row, 6)?.parse().ok()?);
            // A table without columns has rows all the same; they are counted.
            let key = row.get(5)?.clone();
            let row = row.get(2)?.clone().unwrap_or_else(|| "0".to_owned());
            catalogue.relations.push(Relation { name, is_sequence, row, bytes, blocks, key });
        }
    }
    schema::decode_digests(schema, &mut catalogue.print)?;
    catalogue.print.bytes = catalogue.relations.iter().map(|relation| relation.bytes).sum();
    Some(catalogue)
}

pub(super) fn text(row: &[Option<String>], index: usize) -> Option<&str> {
    row.get(index)?.as_deref()
}

impl Catalogue {
    /// Returns the bytes of a table.
    pub fn bytes_of(&self, table: &str) -> u64 {
        self.relations
            .iter()
            .find(|relation| relation.name == table)
            .map_or(0, |relation| relation.bytes)
    }

    /// Returns how the rows of a table are read, and whether they have a key; `None` where the
    /// table is not read.
    pub fn shape(&self, table: &str) -> Option<(&str, bool)> {
        let found = self.table(table)?;
        Some((&found.row, found.key.is_some()))
    }

    /// Returns how the rows of a table are told apart on both sides; `None` where that cannot be
    /// done alike, or one side has no such table.
    pub fn shape_beside(&self, other: &Self, table: &str) -> Option<Shape> {
        let (one, other) = (self.table(table)?, other.table(table)?);
        match (&one.key, &other.key) {
            (key, other_key) if one.row == other.row && key == other_key => {
                Some(if key.is_some() { Shape::Keyed } else { Shape::Keyless })
            }
            (Some(key), Some(other_key)) if key == other_key => Some(Shape::KeyAlone),
            _ => None,
        }
    }

    fn table(&self, table: &str) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.name == table && !relation.is_sequence)
    }
}
