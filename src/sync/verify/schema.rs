//! What a database is made of: every kind of object, from its catalogue.
//!
//! In: rows of `schema.sql`. Out: a count and a digest for each kind; for kinds that differ, the items that do.
//!
//! Invariants: what may hold a secret is digested and never fetched: function bodies, trigger arguments, settings, foreign options.
//!
//! What is not compared: passwords of roles, which only a superuser may read, and subscriptions.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::statements::text;
use super::{DatabasePrint, Digest};
use crate::neon::sql::Rows;

/// Every object: `kind`, `name`, `definition`.
const ITEMS: &str = include_str!("schema.sql");

/// Kinds whose definitions may hold a secret.
const SECRETIVE: &str = "'function bodies', 'trigger arguments', 'settings', 'foreign options'";

/// Items of the kinds that differ that are fetched: 20,000 with their definitions are below Neon's limit of 10 MB for a response.
const MOST_ITEMS: u32 = 20_000;

/// Characters of a definition that are fetched: a column or a policy fits, a view is recognised.
const SHOWN: u32 = 300;

/// Items that are named for one kind; the others are counted.
const NAMED: usize = 20;

/// An object as one side has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    kind: String,
    name: String,
    digest: String,
    /// `None` where it may hold a secret.
    definition: Option<String>,
}

/// An object that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Which one.
    pub name: String,
    /// How the backup has it; `None` when it has not.
    pub backup: Option<String>,
    /// How staging has it; `None` when it has not.
    pub staging: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, backup, staging } = self;
        match (backup, staging) {
            (Some(backup), Some(staging)) => write!(f, "{name}: in the backup {backup:?}, on staging {staging:?}"),
            (Some(backup), None) => write!(f, "{name}: in the backup {backup:?}, not on staging"),
            (None, _) => write!(f, "{name}: on staging and not in the backup"),
        }
    }
}

/// Returns the statement that digests each kind.
pub(super) fn digests() -> (String, Vec<String>) {
    let sql = format!(
        "{ITEMS}select kind, count(*)::text, coalesce(sum(pg_catalog.hashtextextended(pg_catalog.concat(name, E'\\n', definition), 1)), 0)::text \
         from items group by kind"
    );
    (sql, Vec::new())
}

/// Returns the statement that fetches the items of some kinds.
pub(super) fn items(kinds: &[&str]) -> (String, Vec<String>) {
    let wanted: Vec<String> = (1..=kinds.len()).map(|number| format!("${number}")).collect();
    let sql = format!(
        "{ITEMS}select kind, name, pg_catalog.hashtextextended(coalesce(definition, ''), 1)::text, \
         case when kind in ({SECRETIVE}) then null else pg_catalog.left(coalesce(definition, ''), {SHOWN}) end \
         from items where kind in ({}) order by kind, name limit {MOST_ITEMS}",
        wanted.join(", ")
    );
    (sql, kinds.iter().map(|kind| (*kind).to_owned()).collect())
}

/// Takes up the rows of [`digests`]; `None` when they make no sense.
pub(super) fn decode_digests(rows: &Rows, print: &mut DatabasePrint) -> Option<()> {
    for row in &rows.rows {
        let digest = Digest { count: text(row, 1)?.parse().ok()?, digest: text(row, 2)?.to_owned() };
        print.schema.insert(text(row, 0)?.to_owned(), digest);
    }
    // Every database has a version and a schema; without them nothing was read.
    (print.schema.contains_key("server") && print.schema.contains_key("schemas")).then_some(())
}

/// Reads the rows of [`items`]; `None` when they make no sense.
pub(super) fn decode_items(rows: &Rows) -> Option<Vec<Item>> {
    let item = |row: &Vec<Option<String>>| {
        let (kind, name, digest) = (text(row, 0)?.to_owned(), text(row, 1)?.to_owned(), text(row, 2)?.to_owned());
        Some(Item { kind, name, digest, definition: row.get(3)?.clone() })
    };
    rows.rows.iter().map(item).collect()
}

/// Names the items of a kind that differ, at most twenty of them, and says how many there are.
pub fn differences(kind: &str, backup: &[Item], staging: &[Item]) -> (Vec<Difference>, usize) {
    let of_kind = |items: &'_ [Item]| -> BTreeMap<String, Item> {
        items.iter().filter(|item| item.kind == kind).map(|item| (item.name.clone(), item.clone())).collect()
    };
    let (backup, staging) = (of_kind(backup), of_kind(staging));
    let names = backup.keys().chain(staging.keys().filter(|name| !backup.contains_key(*name)));
    let differs = |name: &&String| backup.get(*name).map(|item| &item.digest) != staging.get(*name).map(|item| &item.digest);
    let shown = |item: &Item| item.definition.clone().unwrap_or_else(|| "(not shown: it may hold a secret)".to_owned());
    let differing: Vec<Difference> = names
        .filter(differs)
        .map(|name| Difference { name: name.clone(), backup: backup.get(name).map(shown), staging: staging.get(name).map(shown) })
        .collect();
    let count = differing.len();
    (differing.into_iter().take(NAMED).collect(), count)
}
