//! Databases that let nobody in, or whose catalogue cannot be read.
//!
//! In: an error that PostgreSQL answered for a database. Out: whether it is asked again, or left
//! out with the reason.
//!
//! Invariants: an error of a class that may pass is not tried until the deadline where it is about
//! one database: that lets somebody in within two minutes, or somebody has closed it. What is left
//! out is *not checked* by name, on each side. What is about the server or the network closes no
//! database.
//!
//! Source: PostgreSQL, appendix A. 55000 "database … is not currently accepting connections", and
//! "cannot connect to invalid database". 53300 "too many connections for database …". 3D000
//! `invalid_catalog_name`. 42501 "permission denied for database".

use super::{Decision, Query, Run, View, fail};
use crate::config::Pair;
use crate::id::DatabaseName;
use crate::neon::sql::SqlError;
use crate::sync::checkpoint::{Checkpoint, Side};
use crate::verify::{DatabasePrint, backup_probes, end_probes};

/// How often a database is asked that refuses with an error that may pass: with the waits between
/// two attempts, for two minutes.
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

/// Takes up that a database was refused. Returns whether it is asked again; `None` when the error
/// is not about it.
pub(super) fn refused(
    run: &mut Run,
    side: Side,
    query: &Query,
    error: &SqlError,
    pair: &Pair,
) -> Option<bool> {
    if !is_about_a_database(error) {
        return None;
    }
    let database = &query.database;
    let closed =
        run.checkpoint.closed.entry(side).or_default().entry(database.clone()).or_default();
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

/// A database of a side is not read. What was configured for it is answered by the reason, not left
/// away.
fn leave_out(
    checkpoint: &mut Checkpoint,
    side: Side,
    database: &DatabaseName,
    reason: &str,
    pair: &Pair,
) {
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
pub(super) fn reason<'a>(
    checkpoint: &'a Checkpoint,
    side: Side,
    database: &DatabaseName,
) -> Option<&'a str> {
    checkpoint.closed.get(&side)?.get(database)?.reason.as_deref()
}

/// Returns the first database that is compared and was not left out.
pub(super) fn first_open<'a>(view: &View<'a>) -> Option<&'a DatabaseName> {
    let is_open = |database: &&DatabaseName| {
        [Side::Backup, Side::Staging]
            .iter()
            .all(|side| reason(view.checkpoint, *side, database).is_none())
    };
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
    Err(fail(format!(
        "ask production as {}: no database lets it in: {}",
        view.pair.role,
        super::shortened(&reasons)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pair;
    use crate::fixtures::started;
    use crate::neon::sql::Batch;
    use crate::port::HttpFailure;
    use crate::sync::machine::Purpose;

    fn query() -> Query {
        Query {
            purpose: Purpose::Catalogue(Side::Backup),
            branch: "br-back-up-1".into(),
            password_of: "br-back-up-1".into(),
            host: "ep-b.neon.test".to_owned(),
            database: "shop".into(),
            role: pair().role,
            batch: Batch { statements: Vec::new(), is_read_only: true },
        }
    }

    fn answered(sqlstate: &str, message: &str) -> SqlError {
        SqlError::Answered {
            database: "shop".into(),
            status: 500,
            sqlstate: sqlstate.to_owned(),
            message: message.to_owned(),
        }
    }

    /// Returns how often a database is asked that always refuses so.
    fn asked(error: &SqlError) -> Option<usize> {
        let mut run = Run::new(started(), None);
        (1..100)
            .find(|_| refused(&mut run, Side::Backup, &query(), error, &pair()) != Some(true))
            .filter(|_| reason(&run.checkpoint, Side::Backup, &"shop".into()).is_some())
    }

    /// As in case 09, and what else PostgreSQL says of one database.
    #[test]
    fn a_database_that_refuses_is_left_out_after_some_attempts_and_at_once_where_that_cannot_pass()
    {
        let closed = "database \"shop\" is not currently accepting connections";
        assert_eq!(asked(&answered("55000", closed)), Some(6));
        assert_eq!(
            asked(&answered("53300", "too many connections for database \"shop\"")),
            Some(6)
        );
        assert_eq!(asked(&answered("58P01", "could not access file \"$libdir/gone\"")), Some(6));
        assert_eq!(asked(&answered("3D000", "database \"shop\" does not exist")), Some(1));
        assert_eq!(asked(&answered("42501", "permission denied for database \"shop\"")), Some(1));
    }

    #[test]
    fn what_is_about_the_server_the_role_or_the_network_closes_no_database() {
        let lost =
            SqlError::NoReply { database: "shop".into(), failure: HttpFailure::Disconnected };
        let others = [
            answered("53300", "sorry, too many clients already"),
            answered("57P03", "the database system is starting up"),
            answered("28P01", "password authentication failed"),
            answered("", "Control plane request failed"),
            lost,
        ];
        for error in others {
            assert_eq!(asked(&error), None, "{error}");
        }
    }

    /// As in case 40, for what is configured on a database that lets nobody in.
    #[test]
    fn what_is_configured_for_a_database_that_is_left_out_is_answered_by_the_reason() {
        use crate::config::{AssertedOn, Assertion, Expected, Policy};
        use crate::verify::{CheckOutcome, judge_backup};

        let mut pair = pair();
        pair.verification.assertions = vec![Assertion {
            name: "no negative totals".to_owned(),
            database: Some("shop".into()),
            sql: "select 0".to_owned(),
            on: AssertedOn::Backup,
            expected: Some(Expected::Text("0".to_owned())),
            policy: Policy::Fail,
        }];
        let mut run = Run::new(started(), None);
        run.checkpoint.databases = vec!["neondb".into(), "shop".into()];
        let gone = answered("3D000", "database \"shop\" does not exist");
        assert_eq!(refused(&mut run, Side::Backup, &query(), &gone, &pair), Some(false));
        let probes = &run.checkpoint.probes[&Side::Backup][&DatabaseName::from("shop")];
        let checks = judge_backup(&"shop".into(), probes, &pair);
        let told = checks
            .iter()
            .find(|check| check.name.contains("no negative totals"))
            .expect("it is in the report");
        assert!(
            told.outcome == CheckOutcome::NotChecked && told.detail.contains("does not exist"),
            "{told}"
        );
    }
}
