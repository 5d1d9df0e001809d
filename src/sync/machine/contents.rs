//! Reads what one side holds, database by database. Step 3 uses it for the backup, step 5 for staging.

use super::{Action, Conclusion, Decision, Purpose, Query, View, act, end, fail, need};
use crate::id::{BranchId, DatabaseName};
use crate::neon::Call;
use crate::neon::sql::Batch;
use crate::sync::checkpoint::{RunStatus, Side};
use crate::sync::verify::{DatabasePrint, Fingerprint, catalogue_batch};

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
    let not_checked: Vec<String> = print
        .databases
        .iter()
        .flat_map(|(database, print)| print.not_checked.iter().map(move |(table, reason)| format!("{database}: {table} ({reason})")))
        .collect();
    if !not_checked.is_empty() {
        return fail(format!("read every table of {}: not checked: {}", backup.name, not_checked.join(", ")));
    }
    if need!(view.orders()).is_cancelled {
        return end(RunStatus::Cancelled, "somebody cancelled the run after the backup was read".to_owned());
    }
    Decision::Conclude(Conclusion::BackupRead(print))
}

/// Reads all databases of a side, or decides how to go on reading.
pub(super) fn read(view: &View<'_>, side: Side, branch: &BranchId) -> Result<Fingerprint, Decision> {
    for database in &view.checkpoint.databases {
        let print = view.checkpoint.prints.get(&side).and_then(|print| print.databases.get(database));
        if !print.is_some_and(DatabasePrint::is_current) {
            return Err(read_database(view, side, branch, database));
        }
    }
    Ok(view.checkpoint.prints.get(&side).cloned().unwrap_or_default())
}

fn read_database(view: &View<'_>, side: Side, branch: &BranchId, database: &DatabaseName) -> Decision {
    let key = (side, database.clone());
    let Some(reading) = view.seen.readings.get(&key) else {
        return query(view, branch, database, Purpose::Catalogue(side), catalogue_batch());
    };
    match reading.batches.batches.get(reading.next) {
        Some(batch) => query(view, branch, database, Purpose::Content(side, reading.next), batch.clone()),
        None => fail(format!("read {database} on {branch}: the answer left out a table that was asked for")),
    }
}

/// Asks a branch, as the verifying role.
pub(super) fn query(view: &View<'_>, branch: &BranchId, database: &DatabaseName, purpose: Purpose, batch: Batch) -> Decision {
    if !need!(view.has_password(branch, &view.pair.role)) {
        return fail(format!("log in to {branch} as {}: Neon has no password to tell and none is configured", view.pair.role));
    }
    let endpoints = need!(view.endpoints());
    let endpoint = if *branch == view.pair.staging_branch { super::writer(endpoints, branch) } else { super::reader(endpoints, branch) };
    let Some(endpoint) = endpoint else {
        if *branch == view.pair.staging_branch {
            return fail(format!("query staging {branch}: it has no enabled read-write endpoint, expected one"));
        }
        return act(Call::CreateEndpoint(branch.clone(), view.pair.endpoint_cu_hundredths));
    };
    Decision::Act(Action::Query(Box::new(Query {
        purpose,
        branch: branch.clone(),
        host: endpoint.host.clone(),
        database: database.clone(),
        role: view.pair.role.clone(),
        batch,
    })))
}
