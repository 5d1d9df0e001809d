//! Reads what one side holds, database by database. Step 3 uses it for the backup, step 5 for
//! staging.

use std::time::Duration;

use super::login::{self, Way};
use super::{
    Action, Answer, Conclusion, Decision, Purpose, Query, Run, View, end, fail, need, probing,
    shortened,
};
use crate::config::{Pair, Policy};
use crate::id::{BranchId, DatabaseName, RoleName};
use crate::neon::sql::{Batch, Rows, SqlError};
use crate::sync::checkpoint::{Checkpoint, RunStatus, Side};
use crate::verify::{
    Check, CheckKind, CheckOutcome, DatabasePrint, Fingerprint, Pages, Piece, Refused, Unread,
    backup_probes, catalogue_batch, decode_catalogue, integrity_probes, is_read, looks_for_defects,
    pieces, production_probes,
};

/// Decides the next action of step 3.
pub(super) fn next_backup(view: &View<'_>) -> Decision {
    let Some(backup) = &view.checkpoint.backup else {
        return fail("verify the backup: this run has none".to_owned());
    };
    if backup.is_verified {
        return Decision::Conclude(Conclusion::StepDone);
    }
    if view.checkpoint.databases.is_empty() {
        return fail(format!("read {}: there is no database to read", backup.name));
    }
    let print = need!(read(view, Side::Backup, &backup.id));
    need!(probing::next_backup(view, &backup.id, &print));
    let not_checked: Vec<String> = print.unread().map(|unread| unread.to_string()).collect();
    if !not_checked.is_empty() && view.pair.verification.is_not_checked_fatal {
        return fail(format!(
            "read every table of {}: not checked: {}; leave one out with databases or \
             verification.exclude, or set verification.on_not_checked to \"warn\"",
            backup.name,
            shortened(&not_checked)
        ));
    }
    if let Some(objections) = view.objections() {
        return fail(format!("verify {}: {objections}", backup.name));
    }
    if let Some(cancelled) = &need!(view.orders()).cancelled {
        return end(RunStatus::Cancelled, cancelled.told("after the backup was read"));
    }
    Decision::Conclude(Conclusion::BackupRead(print))
}

/// The run has failed before staging was compared: what could not be read of the backup is a check
/// with its own reason all the same.
pub(super) fn tell_not_checked(checkpoint: &mut Checkpoint) {
    if checkpoint.is_compared {
        return;
    }
    let print = checkpoint.fingerprint.as_ref().or_else(|| checkpoint.prints.get(&Side::Backup));
    let check = |unread: Unread<'_>| {
        let (kind, object) = unread
            .table
            .map_or((CheckKind::Database, ""), |table| (CheckKind::Content, table.as_str()));
        Check::of(kind, unread.database, object, CheckOutcome::NotChecked, unread.reason.as_str())
    };
    let mut checks: Vec<Check> =
        print.into_iter().flat_map(Fingerprint::unread).map(check).collect();
    let known = &checkpoint.checks;
    checks.retain(|check| !known.iter().any(|other| other.name == check.name));
    checkpoint.checks.extend(checks);
}

/// Reads all databases of a side, or decides how to go on reading.
pub(super) fn read(
    view: &View<'_>,
    side: Side,
    branch: &BranchId,
) -> Result<Fingerprint, Decision> {
    for database in &view.checkpoint.databases {
        let print =
            view.checkpoint.prints.get(&side).and_then(|print| print.databases.get(database));
        let is_left_out = guide(view.checkpoint.fingerprint.as_ref(), side, database)
            .is_some_and(|print| print.closed.is_some());
        if !is_left_out && !print.is_some_and(DatabasePrint::is_read) {
            return Err(read_database(view, side, branch, database));
        }
    }
    Ok(view.checkpoint.prints.get(&side).cloned().unwrap_or_default())
}

fn read_database(
    view: &View<'_>,
    side: Side,
    branch: &BranchId,
    database: &DatabaseName,
) -> Decision {
    let catalogue = view.seen.looked.get(database).and_then(|looked| looked.catalogues.get(&side));
    let print = view.checkpoint.prints.get(&side).and_then(|print| print.databases.get(database));
    let (Some(catalogue), Some(print)) = (catalogue, print.filter(|print| print.is_current()))
    else {
        return query(
            view,
            branch,
            database,
            Purpose::Catalogue(side),
            asks_for(view, side, database),
        );
    };
    let guide = guide(view.checkpoint.fingerprint.as_ref(), side, database);
    let mut queries = Vec::new();
    for (piece, batch) in pieces(catalogue, print, guide) {
        queries.push(need!(question(
            view,
            &view.pair.role,
            branch,
            database,
            Purpose::Content(side, piece),
            batch
        )));
    }
    Decision::Act(Action::Read(queries))
}

/// Returns the batch that reads the next page of a catalogue; the backup alone is asked what may be
/// wrong with it, and once.
fn asks_for(view: &View<'_>, side: Side, database: &DatabaseName) -> Batch {
    let settings = &view.pair.verification;
    let is_asked =
        view.checkpoint.probes.get(&side).is_some_and(|asked| asked.contains_key(database));
    catalogue_batch(
        &settings.exclude,
        side == Side::Backup && !is_asked && looks_for_defects(settings),
        page(view, side, database),
    )
}

/// Returns the page of a catalogue that is asked next.
pub(super) fn page(view: &View<'_>, side: Side, database: &DatabaseName) -> u32 {
    view.seen.looked.get(database).and_then(|looked| looked.pages.get(&side)).map_or(0, Pages::next)
}

/// Returns the print of the backup, which guides the reading of the other sides.
fn guide<'a>(
    backup: Option<&'a Fingerprint>,
    side: Side,
    database: &DatabaseName,
) -> Option<&'a DatabasePrint> {
    backup.and_then(|print| print.databases.get(database)).filter(|_| side != Side::Backup)
}

/// Takes up a page of the catalogue of a database; with the last, what was read of it before goes
/// on. `None` when it makes no sense.
pub(super) fn take_catalogue(
    run: &mut Run,
    side: Side,
    database: &DatabaseName,
    rows: &[Rows],
    pair: &Pair,
) -> Option<()> {
    let looked = run.seen.looked.entry(database.clone()).or_default();
    if !looked.pages.entry(side).or_default().take(rows)? {
        return Some(());
    }
    let rows = &looked.pages.remove(&side)?.whole();
    let mut catalogue = decode_catalogue(rows)?;
    let print = std::mem::take(&mut catalogue.print);
    looked.catalogues.insert(side, catalogue);
    let catalogue = &looked.catalogues[&side];
    // A look at what differs needs the catalogue of a side that was read before.
    let is_done = run
        .checkpoint
        .prints
        .get(&side)
        .and_then(|print| print.databases.get(database))
        .is_some_and(DatabasePrint::is_read);
    let is_known = run
        .checkpoint
        .fingerprint
        .as_ref()
        .and_then(|print| print.databases.get(database))
        .is_some_and(DatabasePrint::is_read);
    if is_done || side == Side::Backup && is_known {
        return Some(());
    }
    if side == Side::Backup {
        prepare_probes(&mut run.checkpoint, database, rows, pair)?;
    }
    let prints = &mut run.checkpoint.prints.entry(side).or_default().databases;
    let print = match prints.remove(database) {
        Some(earlier) if earlier.is_current() && !earlier.is_complete => {
            print.going_on(earlier, catalogue)
        }
        Some(_) | None => print,
    };
    prints.insert(database.clone(), print);
    settle(run, side, database, pair);
    Some(())
}

/// Prepares what is asked of a database of the backup beside its content.
fn prepare_probes(
    checkpoint: &mut Checkpoint,
    database: &DatabaseName,
    rows: &[Rows],
    pair: &Pair,
) -> Option<()> {
    let settings = &pair.verification;
    let is_first = checkpoint.databases.first().is_none_or(|first| first == database);
    let asked = checkpoint.probes.entry(Side::Backup).or_default();
    if asked.contains_key(database) {
        return Some(());
    }
    let mut probes =
        if looks_for_defects(settings) { integrity_probes(rows, settings)? } else { Vec::new() };
    probes.extend(backup_probes(database, is_first, settings));
    asked.insert(database.clone(), probes);
    Some(())
}

/// Takes up what was read of a database, piece by piece. Returns the first error that is not about
/// a piece.
pub(super) fn take_pieces(
    run: &mut Run,
    side: Side,
    database: &DatabaseName,
    answers: Vec<(&Piece, Answer)>,
    pair: &Pair,
) -> Option<SqlError> {
    let print =
        run.checkpoint.prints.get_mut(&side).and_then(|print| print.databases.get_mut(database))?;
    let settled = print.settled();
    let (mut first, mut is_listed_again) = (None, false);
    let (mut longest, mut too_slow) = (Duration::ZERO, None);
    for (piece, (result, took)) in answers {
        longest = longest.max(took);
        let error = match result {
            Ok(rows) => match print.take(piece, &rows, took) {
                Some(refused) => {
                    let (is_relisted, error) = take_refused(print, side, database, &refused);
                    is_listed_again |= is_relisted;
                    first = first.or(error);
                    continue;
                }
                None => SqlError::Undecodable { database: database.clone() },
            },
            Err(error) => error,
        };
        let is_lost = matches!(error, SqlError::NoReply { .. }) && !piece.is_large();
        if error.is_timeout() && !is_lost {
            print.too_slow(piece);
            too_slow = too_slow.max(Some(piece.bytes()));
        }
        if error.may_be_about_an_object() && !piece.is_one_by_one() {
            print.refused(piece);
        } else {
            first = first.or(Some(error));
        }
    }
    print.pace.spend(longest);
    if let Some(bytes) = too_slow {
        print.pace.slow_down(bytes);
    }
    // What is settled is a step forward, also where it is *not checked*.
    let is_step = print.settled() > settled;
    if is_step {
        run.checkpoint.idle_tick_count = 0;
    }
    if is_listed_again {
        run.seen.looked.entry(database.clone()).or_default().catalogues.remove(&side);
    } else {
        settle(run, side, database, pair);
    }
    first
}

/// Takes up tables that were refused alone. Returns whether staging is to be listed again, and the
/// first error that is waited for.
fn take_refused(
    print: &mut DatabasePrint,
    side: Side,
    database: &DatabaseName,
    refused: &[Refused],
) -> (bool, Option<SqlError>) {
    let (mut is_listed_again, mut first) = (false, None);
    for refused in refused {
        let error = refused.error(database);
        // A table of staging may have been altered or dropped while it was read: what is listed
        // again may be read.
        if side == Side::Staging && error.is_about_what_is_there() && print.pace.relist() {
            is_listed_again = true;
        } else if print.refused_alone(refused, &error) {
            first = first.or(Some(error));
        }
    }
    (is_listed_again, first)
}

/// Closes a print that has everything there is to read, or for which there is no more time.
fn settle(run: &mut Run, side: Side, database: &DatabaseName, pair: &Pair) {
    let Some(catalogue) =
        run.seen.looked.get(database).and_then(|looked| looked.catalogues.get(&side))
    else {
        return;
    };
    let Checkpoint { prints, fingerprint, probes, idle_tick_count, .. } = &mut run.checkpoint;
    let guide = guide(fingerprint.as_ref(), side, database);
    let Some(of_side) = prints.get_mut(&side) else { return };
    let spent = of_side.spent();
    let Some(print) = of_side.databases.get_mut(database) else { return };
    if let Some(budget) = pair.verification.time_budget.filter(|budget| spent >= *budget) {
        print.out_of_time(catalogue, guide, budget);
    }
    if is_read(catalogue, print, guide) {
        print.is_complete = true;
        *idle_tick_count = 0;
        if side == Side::Backup && pair.verification.production_counts != Policy::Off {
            let counts = production_probes(print, |table| catalogue.bytes_of(table));
            probes.entry(Side::Production).or_default().insert(database.clone(), counts);
        }
    }
}

/// Asks a branch, as the verifying role.
pub(super) fn query(
    view: &View<'_>,
    branch: &BranchId,
    database: &DatabaseName,
    purpose: Purpose,
    batch: Batch,
) -> Decision {
    Decision::Act(Action::Query(Box::new(need!(question(
        view,
        &view.pair.role,
        branch,
        database,
        purpose,
        batch
    )))))
}

/// Returns the question to a branch, as a role, or what has to be done before it can be asked.
pub(super) fn question(
    view: &View<'_>,
    role: &RoleName,
    branch: &BranchId,
    database: &DatabaseName,
    purpose: Purpose,
    batch: Batch,
) -> Result<Query, Decision> {
    let Way { password_of, endpoint } = login::way(view, role, branch)?;
    let (branch, host, database, role) =
        (branch.clone(), endpoint.host.clone(), database.clone(), role.clone());
    Ok(Query { purpose, branch, password_of, host, database, role, batch })
}

#[cfg(test)]
mod tests;
