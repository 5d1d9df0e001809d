//! Looks into what differs between the backup and staging as people get it: which objects, and how
//! many rows are gone, changed and added.
//!
//! Both sides are read where they are. A branch of staging at the position where its restore ended
//! would prove nothing. On Neon it has the pages of the backup itself, because nothing that staging
//! has of its own lies at or below that position. It could show a wrong source or a wrong position
//! alone, which the listing shows (`parent_id`, `parent_lsn`).
//!
//! Invariants: a look never decides whether something differs, only what. Where one fails, the
//! counts are lower bounds, and the report says why.

use std::collections::BTreeMap;

use super::{Decision, Purpose, View, contents};
use crate::config::OnDrift;
use crate::id::{BranchId, DatabaseName};
use crate::neon::sql::{Batch, Rows};
use crate::sync::checkpoint::Side;
use crate::verify::{
    Blocks, Catalogue, Check, CheckKind, CheckOutcome, Chosen, Drift, Fingerprint, GROUPS, Groups,
    ITEMS_AT_ONCE, Item, Pages, Parts, RANGES_LOOKED_INTO, ROWS_AT_ONCE, ROWS_COUNTED, RowCounts,
    RowDifferences, RowsFound, Shape, TABLES_IN_PARTS, TOLD, Wanted, catalogue_batch, compare_rows,
    decode_groups, decode_items, decode_keys, decode_parts, decode_rows, differences,
    differing_parts, differing_ranges, groups_batch, is_small, items_batch, keys_batch,
    parts_batch, rows_batch,
};

/// Why it is not known which rows of a table were changed.
const OTHER_COLUMNS: &str =
    "its columns are not those of the backup: whether rows were changed cannot be told";

/// What was found out about a database.
#[derive(Default)]
pub(super) struct Looked {
    pub(super) catalogues: BTreeMap<Side, Catalogue>,
    /// The pages of a catalogue that have come, until it is whole.
    pub(super) pages: BTreeMap<Side, Pages>,
    /// Digests of the items of the kinds that differ, where they are many.
    groups: BTreeMap<Side, Groups>,
    items: BTreeMap<Side, Vec<Item>>,
    parts: BTreeMap<(Side, String), Parts>,
    /// The hashes of rows.
    rows: BTreeMap<(Side, String), String>,
    /// The keys of rows that are named, by their hash.
    keys: BTreeMap<(Side, String), BTreeMap<String, String>>,
    /// Why the rest could not be found out.
    pub(super) failure: Option<String>,
}

/// What the backup holds, and staging.
pub(super) struct Different<'a> {
    pub(super) expected: &'a Fingerprint,
    pub(super) seen: &'a Fingerprint,
}

/// Returns whether it is not known yet what of a check differs.
fn is_open(check: &Check) -> bool {
    let is_of_content = check.kind == CheckKind::Content && check.rows.is_none();
    check.drift.is_some() && (is_of_content || check.kind == CheckKind::Schema)
}

impl Looked {
    /// Takes up the answer to a look; `None` when it makes no sense.
    pub(super) fn take(&mut self, purpose: &Purpose, results: &[Rows]) -> Option<()> {
        match purpose {
            Purpose::Groups(side) => drop(self.groups.insert(*side, decode_groups(results)?)),
            Purpose::Items(side) => drop(self.items.insert(*side, decode_items(results)?)),
            Purpose::Parts(side, tables) => {
                for (table, result) in tables.iter().zip(results.get(1..)?) {
                    self.parts.insert((*side, table.clone()), decode_parts(result)?);
                }
            }
            Purpose::Rows(side, tables) => {
                for (table, result) in tables.iter().zip(results.get(1..)?) {
                    self.rows.insert((*side, table.clone()), decode_rows(result)?);
                }
            }
            Purpose::Keys(side, tables) => {
                for (table, result) in tables.iter().zip(results.get(1..)?) {
                    self.keys.insert((*side, table.clone()), decode_keys(result)?);
                }
            }
            Purpose::SeesAllRows
            | Purpose::Catalogue(_)
            | Purpose::Content(..)
            | Purpose::Probes(..)
            | Purpose::AfterRestore
            | Purpose::Tenants
            | Purpose::Doors
            | Purpose::GivePassword(_)
            | Purpose::LogIn => return None,
        }
        Some(())
    }

    /// Returns the groups of items that differ, as many as fit a reply.
    fn chosen(&self) -> Option<Chosen> {
        Some(Chosen::of(self.groups.get(&Side::Backup)?, self.groups.get(&Side::Staging)?))
    }

    fn parts(&self, table: &str) -> Option<(&Parts, &Parts)> {
        let of = |side: Side| self.parts.get(&(side, table.to_owned()));
        of(Side::Backup).zip(of(Side::Staging))
    }

    /// Returns how the rows of a table are told apart; `None` where that cannot be done alike on
    /// both sides.
    fn shape(&self, table: &str) -> Option<Shape> {
        self.catalogues
            .get(&Side::Backup)?
            .shape_beside(self.catalogues.get(&Side::Staging)?, table)
    }

    /// Compares the rows of a table; `None` where they were not fetched.
    fn found(&self, wanted: &Wanted) -> Option<RowsFound> {
        let of = |side: Side| self.rows.get(&(side, wanted.table.clone()));
        let (backup, staging) = of(Side::Backup).zip(of(Side::Staging))?;
        Some(compare_rows(wanted.shape, backup, staging))
    }
}

impl Different<'_> {
    /// Finds out all there is to find out about what differs, or returns what is to be asked next.
    pub(super) fn look(&self, view: &View<'_>, checks: &[Check]) -> Result<(), Decision> {
        let mut open: BTreeMap<&DatabaseName, Vec<&Check>> = BTreeMap::new();
        for check in checks.iter().filter(|check| is_open(check)) {
            let Some(database) = &check.database else { continue };
            open.entry(database).or_default().push(check);
        }
        open.into_iter().try_for_each(|(database, checks)| self.look_into(view, database, &checks))
    }

    fn look_into(
        &self,
        view: &View<'_>,
        database: &DatabaseName,
        checks: &[&Check],
    ) -> Result<(), Decision> {
        let nothing = Looked::default();
        let looked = view.seen.looked.get(database).unwrap_or(&nothing);
        if looked.failure.is_some() {
            return Ok(());
        }
        let of = |kind: CheckKind| {
            checks.iter().filter(move |check| check.kind == kind).map(|check| check.object.as_str())
        };
        let kinds: Vec<&str> = of(CheckKind::Schema).collect();
        if !kinds.is_empty() {
            let chosen = self.groups(view, database, looked, &kinds)?;
            let ask = |side: Side| (Purpose::Items(side), items_batch(&kinds, chosen.as_ref()));
            ask_both(view, database, |side| looked.items.contains_key(&side), ask)?;
        }
        let tables: Vec<&str> = of(CheckKind::Content).collect();
        if tables.is_empty() {
            return Ok(());
        }
        let ask = |side: Side| {
            let page = contents::page(view, side, database);
            (
                Purpose::Catalogue(side),
                catalogue_batch(&view.pair.verification.exclude, false, page),
            )
        };
        ask_both(view, database, |side| looked.catalogues.contains_key(&side), ask)?;
        self.look_into_tables(view, database, looked, &tables)
    }

    /// Returns the groups whose items are fetched, where there are too many to fetch all; `None`
    /// where there are few.
    fn groups(
        &self,
        view: &View<'_>,
        database: &DatabaseName,
        looked: &Looked,
        kinds: &[&str],
    ) -> Result<Option<Chosen>, Decision> {
        let of = |print: &Fingerprint| -> u64 {
            let found = print.databases.get(database);
            kinds.iter().filter_map(|kind| Some(found?.schema.get(*kind)?.count)).sum()
        };
        if of(self.expected).max(of(self.seen)) <= ITEMS_AT_ONCE {
            return Ok(None);
        }
        let ask = |side: Side| (Purpose::Groups(side), groups_batch(kinds));
        ask_both(view, database, |side| looked.groups.contains_key(&side), ask)?;
        Ok(looked.chosen())
    }

    /// Returns the ranges of a table that differ.
    fn ranges(&self, database: &DatabaseName, table: &str) -> Vec<Blocks> {
        let of = |print: &'_ Fingerprint| {
            print.databases.get(database).and_then(|print| print.ranges.get(table)).cloned()
        };
        differing_ranges(of(self.expected).as_ref(), of(self.seen).as_ref())
    }

    /// Returns the rows of a table on both sides.
    fn counts(&self, database: &DatabaseName, table: &str) -> (u64, u64) {
        let of = |print: &Fingerprint| {
            print.table(database.as_str(), table).map_or(0, |digest| digest.count)
        };
        (of(self.expected), of(self.seen))
    }

    /// Returns what can be looked into of a table: all of it, before its parts are known.
    fn whole(&self, database: &DatabaseName, looked: &Looked, table: &str) -> Option<Wanted> {
        let (shape, ranges) = (looked.shape(table)?, self.ranges(database, table));
        let (backup, staging) = self.counts(database, table);
        let is_readable = ranges.len() <= RANGES_LOOKED_INTO;
        is_readable.then(|| Wanted::whole(table, shape, ranges, backup.max(staging)))
    }

    /// Counts rows: of large tables in the parts that differ alone. Then names a few.
    fn look_into_tables(
        &self,
        view: &View<'_>,
        database: &DatabaseName,
        looked: &Looked,
        tables: &[&str],
    ) -> Result<(), Decision> {
        let all: Vec<Wanted> =
            tables.iter().filter_map(|table| self.whole(database, looked, table)).collect();
        let (small, large): (Vec<Wanted>, Vec<Wanted>) =
            all.into_iter().partition(|wanted| is_small(wanted.rows));
        let large: Vec<Wanted> = large.into_iter().take(TABLES_IN_PARTS).collect();
        let nothing = Catalogue::default();
        let catalogue = |side: Side| looked.catalogues.get(&side).unwrap_or(&nothing);
        if !large.is_empty() {
            let is_known = |side: Side| {
                large.iter().all(|wanted| looked.parts.contains_key(&(side, wanted.table.clone())))
            };
            let ask = |side: Side| {
                (Purpose::Parts(side, names(&large)), parts_batch(catalogue(side), &large))
            };
            ask_both(view, database, is_known, ask)?;
        }
        let fetched = fetched(looked, small, large);
        for at_once in &fetched {
            let is_known = |side: Side| {
                at_once.iter().all(|wanted| looked.rows.contains_key(&(side, wanted.table.clone())))
            };
            let ask = |side: Side| {
                (Purpose::Rows(side, names(at_once)), rows_batch(catalogue(side), at_once))
            };
            ask_both(view, database, is_known, ask)?;
        }
        let keyed = |wanted: &&Wanted| wanted.shape != Shape::Keyless;
        let with_keys: Vec<Wanted> =
            fetched.iter().flatten().filter(keyed).take(TABLES_IN_PARTS).cloned().collect();
        for (side, branch) in sides(view) {
            let named: Vec<(Wanted, Vec<String>)> = with_keys
                .iter()
                .filter_map(|wanted| Some((wanted.clone(), hashes(side, &looked.found(wanted)?))))
                .filter(|(wanted, hashes)| {
                    !hashes.is_empty() && !looked.keys.contains_key(&(side, wanted.table.clone()))
                })
                .collect();
            if !named.is_empty() {
                let (wanted, hashes): (Vec<Wanted>, Vec<Vec<String>>) = named.into_iter().unzip();
                let batch = keys_batch(catalogue(side), &wanted, &hashes);
                return Err(contents::query(
                    view,
                    branch,
                    database,
                    Purpose::Keys(side, names(&wanted)),
                    batch,
                ));
            }
        }
        Ok(())
    }

    /// Judges what differs, by what was found out.
    pub(super) fn judge(&self, view: &View<'_>, check: &Check) -> Check {
        if check.drift.is_none() {
            return check.clone();
        }
        let (nothing, nobody) = (Looked::default(), DatabaseName::from(""));
        let database = check.database.as_ref().unwrap_or(&nobody);
        let looked = view.seen.looked.get(database).unwrap_or(&nothing);
        let judged = if check.kind == CheckKind::Schema {
            judge_schema(looked, check)
        } else if check.kind == CheckKind::Content {
            self.judge_content(looked, check, database)
        } else {
            check.clone()
        };
        let told = format!("drift: {}", judged.detail);
        let outcome = match (judged.drift, view.pair.verification.on_drift) {
            (None | Some(Drift::Added), _) | (Some(Drift::Lost), OnDrift::Note) => {
                CheckOutcome::Passed
            }
            (Some(Drift::Lost), OnDrift::Warn) => CheckOutcome::Warned,
            (Some(Drift::Lost), OnDrift::Fail) => CheckOutcome::Failed,
        };
        Check { outcome, detail: told, ..judged }
    }

    /// Judges a table by its rows.
    fn judge_content(&self, looked: &Looked, check: &Check, database: &DatabaseName) -> Check {
        let rows =
            check.rows.clone().unwrap_or_else(|| self.count(looked, &check.object, database));
        // Neither side is empty where rows were counted; a table that is gone altogether may have
        // had none.
        let is_lost = rows.has_losses() || check.rows.is_some() && check.drift == Some(Drift::Lost);
        let drift = Some(if is_lost { Drift::Lost } else { Drift::Added });
        let detail = format!("{}; {rows}", check.detail);
        Check { detail, drift, ..check.clone() }.with(rows)
    }

    /// Counts the rows of a table that differ, exactly where they were fetched.
    fn count(&self, looked: &Looked, table: &str, database: &DatabaseName) -> RowDifferences {
        let (backup, staging) = self.counts(database, table);
        let bound = |limits: String| RowDifferences {
            limits,
            ..RowDifferences::counted(RowCounts::at_least(backup, staging))
        };
        let ranges = self.ranges(database, table).len();
        if ranges > RANGES_LOOKED_INTO {
            return bound(format!(
                "the rows were not looked into: {ranges} ranges of blocks differ, \
                 {RANGES_LOOKED_INTO} at most are read again"
            ));
        }
        let Some(shape) = looked.shape(table) else {
            let why = looked
                .failure
                .as_deref()
                .unwrap_or("its columns or its key are not those of the backup");
            return bound(format!("the rows were not looked into: {why}"));
        };
        let rows = |side: Side| looked.rows.get(&(side, table.to_owned()));
        let Some((of_backup, of_staging)) = rows(Side::Backup).zip(rows(Side::Staging)) else {
            let counts = looked
                .parts(table)
                .map(|(backup, staging)| RowCounts::of_parts(backup, staging, &[]));
            let why = looked.failure.as_deref().unwrap_or("too many rows differ");
            let counts = counts.unwrap_or_else(|| RowCounts::at_least(backup, staging));
            return RowDifferences {
                limits: format!("the rows were not looked into: {why}"),
                ..RowDifferences::counted(counts)
            };
        };
        let found = compare_rows(shape, of_backup, of_staging);
        let keys = |side: Side, hashes: &[String]| -> Vec<String> {
            let known = looked.keys.get(&(side, table.to_owned()));
            hashes.iter().filter_map(|hash| known?.get(hash).cloned()).collect()
        };
        let (gone, changed) = (keys(Side::Backup, &found.gone), keys(Side::Backup, &found.changed));
        let mut rows = RowDifferences {
            gone,
            changed,
            added: keys(Side::Staging, &found.added),
            ..RowDifferences::counted(found.counts)
        };
        if let Some((backup, staging)) = looked.parts(table) {
            let (fetched, all) =
                (fetched_parts(backup, staging), differing_parts(backup, staging).len());
            if fetched.len() < all {
                rows.counts = rows.counts.and(RowCounts::of_parts(backup, staging, &fetched));
                rows.limits =
                    format!("{} of {all} parts that differ were looked into", fetched.len());
            }
        }
        if shape == Shape::KeyAlone {
            OTHER_COLUMNS.clone_into(&mut rows.limits);
        }
        rows
    }
}

/// Returns the tables whose rows are fetched, in groups that fit a reply: the small ones, and of
/// the large ones the parts that differ.
fn fetched(looked: &Looked, small: Vec<Wanted>, large: Vec<Wanted>) -> Vec<Vec<Wanted>> {
    let of_parts = |wanted: Wanted| {
        let (backup, staging) = looked.parts(&wanted.table)?;
        let parts = fetched_parts(backup, staging);
        let of = |part: &u32, side: &Parts| side.get(part).map_or(0, |(count, _)| *count);
        let rows = parts.iter().map(|part| of(part, backup).max(of(part, staging))).sum();
        Some(wanted.of_parts(parts, rows))
    };
    let (mut groups, mut of_group, mut of_all) = (Vec::<Vec<Wanted>>::new(), 0, 0);
    for wanted in small.into_iter().chain(large.into_iter().filter_map(of_parts)) {
        if of_all + wanted.rows > ROWS_COUNTED {
            continue;
        }
        of_all += wanted.rows;
        of_group += wanted.rows;
        match groups.last_mut() {
            Some(group) if of_group <= ROWS_AT_ONCE => group.push(wanted),
            _ => {
                of_group = wanted.rows;
                groups.push(vec![wanted]);
            }
        }
    }
    groups
}

/// Returns the parts of a table that are looked into: the first that differ, as many as fit a
/// reply.
fn fetched_parts(backup: &Parts, staging: &Parts) -> Vec<u32> {
    let mut sum = 0;
    let fits = |(_, rows): &(u32, u64)| {
        sum += rows;
        sum <= ROWS_AT_ONCE
    };
    differing_parts(backup, staging).into_iter().take_while(fits).map(|(part, _)| part).collect()
}

fn names(wanted: &[Wanted]) -> Vec<String> {
    wanted.iter().map(|wanted| wanted.table.clone()).collect()
}

/// Returns the hashes of keys that a side is asked for: the backup knows what is gone and changed,
/// staging what was added.
fn hashes(side: Side, found: &RowsFound) -> Vec<String> {
    if side == Side::Staging {
        found.added.clone()
    } else {
        [found.gone.clone(), found.changed.clone()].concat()
    }
}

fn sides<'a>(view: &View<'a>) -> impl Iterator<Item = (Side, &'a BranchId)> {
    let backup = view.checkpoint.backup.as_ref().map(|backup| (Side::Backup, &backup.id));
    backup.into_iter().chain([(Side::Staging, &view.pair.staging_branch)])
}

/// Asks the side of which something is not known yet.
fn ask_both(
    view: &View<'_>,
    database: &DatabaseName,
    is_known: impl Fn(Side) -> bool,
    question: impl Fn(Side) -> (Purpose, Batch),
) -> Result<(), Decision> {
    let Some((side, branch)) = sides(view).find(|(side, _)| !is_known(*side)) else {
        return Ok(());
    };
    let (purpose, batch) = question(side);
    Err(contents::query(view, branch, database, purpose, batch))
}

/// Judges a kind of object, and names the objects that differ.
fn judge_schema(looked: &Looked, check: &Check) -> Check {
    let items = |side: Side| looked.items.get(&side);
    let Some((backup, staging)) = items(Side::Backup).zip(items(Side::Staging)) else {
        let failure = looked.failure.as_deref().unwrap_or("the run ended before");
        return Check {
            detail: format!("{}; the objects were not looked into: {failure}", check.detail),
            ..check.clone()
        };
    };
    let (named, count, lost) = differences(&check.object, backup, staging);
    let left = looked.chosen().map_or(0, |chosen| chosen.left(&check.object));
    if count == 0 && left == 0 {
        let detail = "differed when it was compared, and does not any more".to_owned();
        return Check { drift: Some(Drift::Added), detail, ..check.clone() };
    }
    let told = named.iter().take(TOLD).map(ToString::to_string);
    let mut more =
        vec![format!("{lost} of the backup gone or changed"), format!("{} added", count - lost)];
    if left > 0 {
        more.push(format!("{left} of {GROUPS} groups of them differ and were not looked into"));
    }
    let detail = std::iter::once(format!("{}; {}", check.detail, more.join(", ")))
        .chain(told)
        .collect::<Vec<_>>()
        .join("; ");
    let drift = Some(if lost > 0 || left > 0 { Drift::Lost } else { Drift::Added });
    Check { drift, detail, differences: named, ..check.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(table: &str, rows: u64) -> Wanted {
        Wanted::whole(table, Shape::Keyed, differing_ranges(None, None), rows)
    }

    #[test]
    fn rows_are_fetched_in_groups_that_fit_a_reply_and_no_more_than_can_be_compared() {
        let looked = Looked::default();
        let small = (0..30).map(|number| wanted(&format!("t{number}"), 10_000)).collect();
        let groups: Vec<usize> = fetched(&looked, small, Vec::new()).iter().map(Vec::len).collect();
        assert_eq!(groups, [10, 10], "200,000 rows, of 300,000");
    }

    #[test]
    fn of_a_large_table_the_parts_are_fetched_that_fit_a_reply() {
        let parts = |digest: &str| -> Parts {
            (0..1024).map(|part| (part, (1_000, digest.to_owned()))).collect()
        };
        assert_eq!(fetched_parts(&parts("a"), &parts("b")).len(), 100);
        assert_eq!(fetched_parts(&parts("a"), &parts("a")), Vec::<u32>::new());
        let mut looked = Looked::default();
        looked.parts.insert((Side::Backup, "t".to_owned()), parts("a"));
        looked.parts.insert((Side::Staging, "t".to_owned()), parts("b"));
        let groups = fetched(&looked, Vec::new(), vec![wanted("t", 1_024_000)]);
        assert_eq!(
            (groups[0][0].rows, groups[0][0].parts.as_ref().map(Vec::len)),
            (100_000, Some(100))
        );
    }
}
