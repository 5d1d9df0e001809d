//! The SQL of verification.
//!
//! Invariants: every batch first fixes the settings that change what a value looks like or which rows are seen; names in it
//! were quoted by Postgres itself.
//!
//! Source: design §8, tried on PostgreSQL 15 and 18.

use crate::neon::sql::{Batch, Rows};
use crate::sync::verify::schema;
use crate::sync::verify::{DatabasePrint, Digest, Position};

/// Milliseconds that one statement may take.
///
/// 1.5 million rows of 160 bytes take about a second; 120 s leave room for a hundred times that, and two batches of it stay
/// inside the five minutes of a cron interval.
const STATEMENT_TIMEOUT_MS: u32 = 120_000;

/// Milliseconds that a statement waits for a lock: a reader behind a migration must not queue the application.
const LOCK_TIMEOUT_MS: u32 = 2_000;

/// Small tables that one statement digests.
///
/// Each costs about 400 bytes of SQL; 50 keep a statement readable in a log and the plan short.
const TABLES_PER_STATEMENT: usize = 50;

/// Bytes of tables that one statement digests when it digests several.
///
/// 64 MB are read in a fraction of a second, far below the limit of a statement.
const BYTES_PER_STATEMENT: u64 = 64 << 20;

/// Bytes of tables that one batch digests.
///
/// 4 GB take about 20 s on the smallest compute when the pages are in memory; a batch must end within its timeout.
const BYTES_PER_BATCH: u64 = 4 << 30;

/// Sets what changes the look of values and the rows that are seen, for this transaction only.
///
/// JIT compiles the catalogue's statement for ten seconds, which then runs for a tenth of one (500 tables, PostgreSQL 15).
pub(super) fn settings() -> (String, Vec<String>) {
    let sql = format!(
        "select set_config(name, value, true) from (values ('row_security', 'off'), \
         ('statement_timeout', '{STATEMENT_TIMEOUT_MS}'), ('lock_timeout', '{LOCK_TIMEOUT_MS}'), ('search_path', 'pg_catalog, pg_temp'), ('jit', 'off'), \
         ('TimeZone', 'UTC'), ('DateStyle', 'ISO, YMD'), ('IntervalStyle', 'postgres'), ('extra_float_digits', '1')) \
         as settings(name, value)"
    );
    (sql, Vec::new())
}

/// The relations that are not the system's: neither Postgres's own schemas nor Neon's, nor what Neon's superuser owns.
const RELATIONS: &str = "\
select c.oid, c.relkind, c.relpersistence, c.relispopulated, c.relnamespace, n.nspname, c.relname \
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'neon', 'neon_migration') \
and c.relowner not in (select oid from pg_catalog.pg_roles where rolname = 'cloud_admin')";

/// Lists tables, materialized views and sequences, with the expression that digests a row of each.
///
/// Exact columns are those whose equality is equality of bytes and that have an extended hash; all others go through
/// `record_send`. A type without a binary form is cast to text. Where no column is exact, `x.exact || ', '` is NULL and nothing is put before.
fn relations_statement() -> (String, Vec<String>) {
    let sql = format!(
        "with r as ({RELATIONS} and c.relkind in ('r', 'm', 'S')), \
         a as (select a.attrelid, a.attnum, pg_catalog.quote_ident(a.attname) as name, \
           t.typtype = 'e' or (t.oid in (16, 17, 20, 21, 23, 25, 26, 1043, 1082, 1083, 1114, 1184, 1266, 2950) \
             and (a.attcollation = 0 or l.collisdeterministic)) as is_exact, \
           t.typsend = 0 or (t.typcategory = 'A' and e.typsend = 0) as is_text_only \
           from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid \
           left join pg_catalog.pg_type e on e.oid = t.typelem \
           left join pg_catalog.pg_collation l on l.oid = a.attcollation \
           where a.attnum > 0 and not a.attisdropped and a.attrelid in (select oid from r)), \
         x as (select attrelid, string_agg(name, ', ' order by attnum) filter (where is_exact) as exact, \
           string_agg(case when is_text_only then name || '::text' else name end, ', ' order by attnum) \
             filter (where not is_exact) as others from a group by attrelid), \
         k as (select i.indrelid, pg_catalog.format('pg_catalog.jsonb_build_object(%s)::text', \
             string_agg(pg_catalog.format('%L, %I', a.attname, a.attname), ', ' order by u.place)) as key \
           from pg_catalog.pg_index i cross join unnest(i.indkey) with ordinality as u(attnum, place) \
           join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = u.attnum \
           where i.indisprimary and u.place <= i.indnkeyatts and i.indrelid in (select oid from r) group by i.indrelid) \
         select r.relkind::text, pg_catalog.format('%I.%I', r.nspname, r.relname), \
         case when r.relkind = 'S' then 'ROW()' when x.others is null then pg_catalog.format('ROW(%s)', x.exact) \
           else pg_catalog.format('ROW(%spg_catalog.record_send(ROW(%s)))', x.exact || ', ', x.others) end, \
         case when r.relkind = 'S' then 0 else pg_catalog.pg_relation_size(r.oid) end::text, \
         case when r.relpersistence = 'u' then 'skipped: unlogged' \
           when not r.relispopulated then 'skipped: not populated' \
           when not pg_catalog.has_schema_privilege(r.relnamespace, 'usage') then 'not checked: the role may not use its schema' \
           when r.relkind <> 'S' and not pg_catalog.has_table_privilege(r.oid, 'select') then 'not checked: the role may not read it' \
           when r.relkind = 'S' and not pg_catalog.has_sequence_privilege(r.oid, 'select') then 'not checked: the role may not read it' \
           when r.relkind = 'r' and pg_catalog.row_security_active(r.oid) then 'not checked: row-level security filters the role' \
           else '' end, \
         k.key \
         from r left join x on x.attrelid = r.oid left join k on k.indrelid = r.oid order by 2"
    );
    (sql, Vec::new())
}

/// Returns the batch that reads the catalogue of a database.
pub fn catalogue_batch() -> Batch {
    Batch { statements: vec![settings(), relations_statement(), schema::digests()], is_read_only: true }
}

/// Returns the batch that asks whether the role sees every row.
pub fn role_batch() -> Batch {
    let sql = "select (rolsuper or rolbypassrls)::text from pg_catalog.pg_roles where rolname = current_user";
    Batch { statements: vec![(sql.to_owned(), Vec::new())], is_read_only: true }
}

/// Reads the answer to [`role_batch`]; `None` when it makes no sense.
pub fn sees_all_rows(results: &[Rows]) -> Option<bool> {
    match text(results.first()?.rows.first()?, 0)? {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
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
    /// Its qualified name, quoted.
    pub(super) name: String,
    is_sequence: bool,
    /// The expression of a row.
    row: String,
    bytes: u64,
    /// The expression of a row's primary key; `None` where there is none.
    pub(super) key: Option<String>,
}

impl Relation {
    /// Returns the expression that digests a row.
    ///
    /// The outer hash ties the values of a row together: a plain sum of the columns' hashes misses values that were swapped between
    /// rows. Seed 0 takes NULL for 0.0, so the seed is 1.
    pub(super) fn digest(&self) -> String {
        format!("pg_catalog.hashtextextended(pg_catalog.hash_record_extended({}, 1)::text, 1)", self.row)
    }
}

/// Reads the answer to [`catalogue_batch`]; `None` when it makes no sense.
pub fn decode_catalogue(results: &[Rows]) -> Option<Catalogue> {
    let [_, relations, schema] = results else { return None };
    let mut catalogue = Catalogue { print: DatabasePrint::new(), relations: Vec::new() };
    for row in &relations.rows {
        let name = text(row, 1)?.to_owned();
        let state = text(row, 4)?;
        if let Some(reason) = state.strip_prefix("skipped: ") {
            catalogue.print.skipped.insert(name, reason.to_owned());
        } else if let Some(reason) = state.strip_prefix("not checked: ") {
            catalogue.print.not_checked.insert(name, reason.to_owned());
        } else {
            let is_sequence = text(row, 0)? == "S";
            let bytes = text(row, 3)?.parse().ok()?;
            // A table without columns has rows all the same; they are counted.
            let key = row.get(5)?.clone();
            let row = row.get(2)?.clone().unwrap_or_else(|| "ROW()".to_owned());
            catalogue.relations.push(Relation { name, is_sequence, row, bytes, key });
        }
    }
    schema::decode_digests(schema, &mut catalogue.print)?;
    Some(catalogue)
}

pub(super) fn text(row: &[Option<String>], index: usize) -> Option<&str> {
    row.get(index)?.as_deref()
}

/// The batches that read the content of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batches {
    /// The batches, in the order in which they are sent.
    pub batches: Vec<Batch>,
    names: Vec<(String, bool)>,
}

/// Returns the batches that read the content of what the catalogue lists, or only of the tables named in `only`.
///
/// Many small tables share a statement; large ones have their own. The numbers of requests therefore grow with bytes, not with tables.
pub fn content_batches(catalogue: &Catalogue, only: Option<&[String]>) -> Batches {
    let chosen: Vec<&Relation> =
        catalogue.relations.iter().filter(|relation| only.is_none_or(|names| names.contains(&relation.name))).collect();
    let mut batches = vec![Vec::new()];
    let mut batch_bytes = 0;
    let mut parts: Vec<String> = Vec::new();
    let mut part_bytes = 0;
    for (index, relation) in chosen.iter().enumerate() {
        let is_full = parts.len() >= TABLES_PER_STATEMENT || part_bytes + relation.bytes > BYTES_PER_STATEMENT;
        if is_full && !parts.is_empty() {
            close(&mut batches, &mut parts);
            part_bytes = 0;
        }
        if batch_bytes + relation.bytes > BYTES_PER_BATCH && batch_bytes > 0 {
            close(&mut batches, &mut parts);
            batches.push(Vec::new());
            batch_bytes = 0;
            part_bytes = 0;
        }
        parts.push(content_part(index, relation));
        part_bytes += relation.bytes;
        batch_bytes += relation.bytes;
    }
    close(&mut batches, &mut parts);
    let batches = batches
        .into_iter()
        .filter(|statements| !statements.is_empty())
        .map(|statements| Batch { statements: std::iter::once(settings()).chain(statements).collect(), is_read_only: true })
        .collect();
    Batches { batches, names: chosen.iter().map(|relation| (relation.name.clone(), relation.is_sequence)).collect() }
}

/// Makes one statement of the parts.
fn close(batches: &mut [Vec<(String, Vec<String>)>], parts: &mut Vec<String>) {
    if let (Some(batch), false) = (batches.last_mut(), parts.is_empty()) {
        batch.push((parts.join(" union all "), Vec::new()));
        parts.clear();
    }
}

/// Digests one table, or reads where a sequence stands.
fn content_part(index: usize, relation: &Relation) -> String {
    let name = &relation.name;
    if relation.is_sequence {
        return format!("select {index}::text, last_value::text, is_called::text from {name}");
    }
    format!("select {index}::text, count(*)::text, coalesce(sum({}), 0)::text from only {name}", relation.digest())
}

impl Batches {
    /// Adds the answer to one of the batches to a fingerprint; `None` when it makes no sense.
    pub fn decode(&self, results: &[Rows], print: &mut DatabasePrint) -> Option<()> {
        let (_, statements) = results.split_first()?;
        for row in statements.iter().flat_map(|result| &result.rows) {
            let index: usize = text(row, 0)?.parse().ok()?;
            let (name, is_sequence) = self.names.get(index)?;
            if *is_sequence {
                let last_value = text(row, 1)?.parse().ok()?;
                let is_called = text(row, 2)? == "true";
                print.sequences.insert(name.clone(), Position { last_value, is_called });
            } else {
                let digest = Digest { count: text(row, 1)?.parse().ok()?, digest: text(row, 2)?.to_owned() };
                print.tables.insert(name.clone(), digest);
            }
        }
        Some(())
    }

    /// Returns whether a fingerprint has everything that was to be read.
    pub fn is_complete(&self, print: &DatabasePrint) -> bool {
        self.names.iter().all(
            |(name, is_sequence)| {
                if *is_sequence { print.sequences.contains_key(name) } else { print.tables.contains_key(name) }
            },
        )
    }
}

impl Catalogue {
    /// Returns how the rows of a table are read, and whether they have a key; `None` where the table is not read.
    pub fn shape(&self, table: &str) -> Option<(&str, bool)> {
        let found = self.relations.iter().find(|relation| relation.name == table && !relation.is_sequence)?;
        Some((&found.row, found.key.is_some()))
    }

    /// Returns the bytes of what will be read.
    pub fn bytes(&self) -> u64 {
        self.relations.iter().map(|relation| relation.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue(sizes: &[u64]) -> Catalogue {
        let relations = sizes
            .iter()
            .enumerate()
            .map(|(index, bytes)| Relation {
                name: format!("public.t{index}"),
                is_sequence: false,
                row: "ROW(id)".into(),
                bytes: *bytes,
                key: None,
            })
            .collect();
        Catalogue { print: DatabasePrint::default(), relations }
    }

    #[test]
    fn many_small_tables_share_one_request() {
        let batches = content_batches(&catalogue(&[8192; 500]), None);
        assert_eq!(batches.batches.len(), 1);
        assert_eq!(batches.batches[0].statements.len(), 1 + 10);
    }

    #[test]
    fn a_large_table_has_a_statement_of_its_own() {
        let batches = content_batches(&catalogue(&[8192, 1 << 30, 8192]), None);
        assert_eq!(batches.batches[0].statements.len(), 1 + 3);
    }

    #[test]
    fn requests_grow_with_bytes() {
        let batches = content_batches(&catalogue(&[3 << 30; 4]), None);
        assert_eq!(batches.batches.len(), 4);
    }

    #[test]
    fn an_answer_without_a_table_is_not_complete() {
        let batches = content_batches(&catalogue(&[8192, 8192]), None);
        let rows = |index: &str| Rows { rows: vec![vec![Some(index.into()), Some("2".into()), Some("77".into())]] };
        let mut print = DatabasePrint::default();
        batches.decode(&[Rows::default(), rows("0")], &mut print).expect("one table");
        assert!(!batches.is_complete(&print));
        batches.decode(&[Rows::default(), rows("1")], &mut print).expect("the other");
        assert!(batches.is_complete(&print));
    }
}
