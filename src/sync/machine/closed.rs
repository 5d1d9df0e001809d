//! Databases that let nobody in, or whose catalogue cannot be read.
//!
//! In: an error that PostgreSQL answered for a database. Out: whether it is asked again, or left out with the reason.
//!
//! Invariants: an error of a class that may pass is not tried until the deadline where it is about one database: that lets
//! somebody in within two minutes, or somebody has closed it. What is left out is *not checked* by name, on each side. What is
//! about the server or the network closes no database.
//!
//! Source: PostgreSQL, appendix A. 55000 "database … is not currently accepting connections", and "cannot connect to invalid
//! database"; 53300 "too many connections for database …"; 3D000 `invalid_catalog_name`; 42501 "permission denied for database".

use super::{Decision, Query, Run, View, fail};
use crate::config::Pair;
use crate::id::DatabaseName;
use crate::neon::sql::SqlError;
use crate::sync::checkpoint::{Checkpoint, Side};
use crate::sync::verify::{DatabasePrint, backup_probes, end_probes};

/// How often a database is asked that refuses with an error that may pass: with the waits between two attempts, for two minutes.
const TRIES: u32 = 6;

/// Returns whether an error is about one database, or about what was asked of its catalogue.
fn is_about_a_database(error: &SqlError) -> bool {
    let SqlError::Answered { sqlstate, message, .. } = error else { return false };
    match sqlstate.get(..2) {
        Some("53") => message.contains("for database"),
        // Who asks, the connection, a rollback that may be repeated, and the server as a whole.
        Some("08" | "28" | "40" | "57") | None => false,
        Some(_) => true,
    }
}

/// Takes up that a database was refused. Returns whether it is asked again; `None` when the error is not about it.
pub(super) fn refused(run: &mut Run, side: Side, query: &Query, error: &SqlError, pair: &Pair) -> Option<bool> {
    if !is_about_a_database(error) {
        return None;
    }
    let database = &query.database;
    let closed = run.checkpoint.closed.entry(side).or_default().entry(database.clone()).or_default();
    closed.tries += 1;
    if error.is_passing() && closed.tries < TRIES {
        return Some(true);
    }
    let reason = error.to_string();
    closed.reason = Some(reason.clone());
    if side != Side::Production {
        leave_out(&mut run.checkpoint, side, database, &reason, pair);
    }
    run.checkpoint.idle_tick_count = 0;
    run.checkpoint.attempt = 1;
    Some(false)
}

/// A database of a side is not read. What was configured for it is answered by the reason, not left away.
fn leave_out(checkpoint: &mut Checkpoint, side: Side, database: &DatabaseName, reason: &str, pair: &Pair) {
    let print = DatabasePrint::closed(reason);
    checkpoint.prints.entry(side).or_default().databases.insert(database.clone(), print);
    if side == Side::Backup {
        let is_first = checkpoint.databases.first() == Some(database);
        let mut probes = backup_probes(database, is_first, &pair.verification);
        end_probes(&mut probes, reason);
        checkpoint.probes.entry(side).or_default().insert(database.clone(), probes);
    }
}

/// Returns why a database of a side is left out.
pub(super) fn reason<'a>(checkpoint: &'a Checkpoint, side: Side, database: &DatabaseName) -> Option<&'a str> {
    checkpoint.closed.get(&side)?.get(database)?.reason.as_deref()
}

/// Returns the first database that is compared and was not left out.
pub(super) fn first_open<'a>(view: &View<'a>) -> Option<&'a DatabaseName> {
    let is_open =
        |database: &&DatabaseName| [Side::Backup, Side::Staging].iter().all(|side| reason(view.checkpoint, *side, database).is_none());
    view.checkpoint.databases.iter().find(is_open)
}

/// Returns the first of some databases of production that lets us in, or that there is none.
pub(super) fn first_of_production<'a>(
    view: &View<'_>,
    databases: impl Iterator<Item = &'a DatabaseName>,
) -> Result<&'a DatabaseName, Decision> {
    let mut reasons = Vec::new();
    for database in databases {
        match reason(view.checkpoint, Side::Production, database) {
            None => return Ok(database),
            Some(reason) => reasons.push(reason.to_owned()),
        }
    }
    Err(fail(format!("ask production as {}: no database lets it in: {}", view.pair.role, super::shortened(&reasons))))
}
