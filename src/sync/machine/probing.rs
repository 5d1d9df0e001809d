//! Asks what is asked beside the content: of the backup in step 3, of staging in step 5.
//!
//! Invariants: what was answered is in the checkpoint and is not asked again. What cannot be asked
//! is *not checked*, and the policy of each check says whether that fails the run.

use super::{Conclusion, Decision, Purpose, Run, View, contents, posture};
use crate::config::{Pair, Policy, Verification};
use crate::id::{BranchId, DatabaseName};
use crate::neon::sql::{Rows, SqlError};
use crate::sync::checkpoint::{Checkpoint, Side};
use crate::verify::{
    Check, Fingerprint, Probe, ProbeKind, end_probes, judge_backup, judge_production,
    judge_row_loss, judge_staging, next_probes, policy, prepared_probes, probe_batch,
    probes_too_slow, staging_probes, take_probes,
};

/// Attempts to ask what stops nothing when it cannot be asked.
const ATTEMPTS: u32 = 3;

/// Asks every probe of a side, or returns how to go on; `Ok` when all were asked.
fn ask(view: &View<'_>, side: Side, branch: &BranchId) -> Result<(), Decision> {
    for database in &view.checkpoint.databases {
        let probes = of(view.checkpoint, side, database);
        let chosen = next_probes(probes);
        if !chosen.is_empty() {
            let batch = probe_batch(probes, &chosen);
            return Err(contents::query(
                view,
                branch,
                database,
                Purpose::Probes(side, chosen),
                batch,
            ));
        }
    }
    Ok(())
}

fn of<'a>(checkpoint: &'a Checkpoint, side: Side, database: &DatabaseName) -> &'a [Probe] {
    checkpoint
        .probes
        .get(&side)
        .and_then(|probes| probes.get(database))
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// Asks the backup, and production where that is configured; then says what follows.
pub(super) fn next_backup(
    view: &View<'_>,
    backup: &BranchId,
    read: &Fingerprint,
) -> Result<(), Decision> {
    if view.checkpoint.probed.contains(&Side::Backup) {
        return Ok(());
    }
    ask(view, Side::Backup, backup)?;
    // A production that has no endpoint is not counted, and nothing is made on it for that.
    if view.checkpoint.probes.contains_key(&Side::Production)
        && super::reader(view.endpoints()?, &view.pair.production_branch).is_some()
    {
        ask(view, Side::Production, &view.pair.production_branch)?;
    }
    posture::people(view)?;
    let settings = &view.pair.verification;
    let baseline =
        if settings.row_loss == Policy::Off { None } else { view.orders()?.baseline.as_ref() }
            .filter(|baseline| !baseline.counts.is_empty());
    let mut checks: Vec<Check> = Vec::new();
    for database in &view.checkpoint.databases {
        checks.extend(judge_backup(
            database,
            of(view.checkpoint, Side::Backup, database),
            view.pair,
        ));
        let is_closed = read.databases.get(database).is_some_and(|print| print.closed.is_some());
        if settings.production_counts != Policy::Off && !is_closed {
            checks.push(judge_production(
                database,
                read,
                of(view.checkpoint, Side::Production, database),
                settings,
            ));
        }
    }
    checks.extend(judge_row_loss(read, baseline, settings, view.checkpoint.accepts_row_loss));
    Err(Decision::Conclude(Conclusion::Probed(Side::Backup, checks)))
}

/// Asks staging what is configured, before or after something was run on it, then says what
/// follows.
pub(super) fn next_staging(view: &View<'_>, side: Side) -> Result<(), Decision> {
    if view.checkpoint.probed.contains(&side) {
        return Ok(());
    }
    ask(view, side, &view.pair.staging_branch)?;
    let judge = |database: &DatabaseName| {
        let of_backup = of(view.checkpoint, Side::Backup, database);
        judge_staging(database, of(view.checkpoint, side, database), of_backup, view.pair)
    };
    let checks = view.checkpoint.databases.iter().flat_map(judge).collect();
    Err(Decision::Conclude(Conclusion::Probed(side, checks)))
}

/// Prepares the probes of staging, which was compared.
pub(super) fn prepare_staging(checkpoint: &mut Checkpoint, pair: &Pair) {
    let settings = &pair.verification;
    for (side, probes) in
        [(Side::Staging, staging_probes as Asked), (Side::Prepared, prepared_probes)]
    {
        let of = |(index, database): (usize, &DatabaseName)| {
            (database.clone(), probes(database, index == 0, settings))
        };
        let all = checkpoint.databases.iter().enumerate().map(of).collect();
        checkpoint.probes.insert(side, all);
    }
}

/// Returns what is asked of a database.
type Asked = fn(&DatabaseName, bool, &Verification) -> Vec<Probe>;

/// Takes up the answers to some probes; `None` when they make no sense.
pub(super) fn take(
    run: &mut Run,
    side: Side,
    database: &DatabaseName,
    chosen: &[usize],
    rows: &[Rows],
) -> Option<()> {
    let probes = run.checkpoint.probes.get_mut(&side)?.get_mut(database)?;
    take_probes(probes, chosen, rows)?;
    run.checkpoint.idle_tick_count = 0;
    run.checkpoint.refusals = 0;
    Some(())
}

/// Some probes could not be asked. Returns whether they are worth another attempt.
pub(super) fn failed(
    run: &mut Run,
    side: Side,
    database: &DatabaseName,
    chosen: &[usize],
    error: &SqlError,
    pair: &Pair,
) -> bool {
    run.checkpoint.refusals += 1;
    let refusals = run.checkpoint.refusals;
    let Some(probes) =
        run.checkpoint.probes.get_mut(&side).and_then(|probes| probes.get_mut(database))
    else {
        return false;
    };
    if error.is_timeout() {
        // What is asked alone from now on is no repetition.
        probes_too_slow(probes, chosen);
        run.checkpoint.refusals = 0;
    }
    let is_needed = probes
        .iter()
        .filter(|probe| probe.found.is_none())
        .any(|probe| policy(probe.kind, &pair.verification) == Policy::Fail);
    if error.is_passing() && (is_needed || refusals < ATTEMPTS) {
        return true;
    }
    end_probes(probes, &error.to_string());
    false
}

/// A side was asked everything. The statements and the answers that no later check needs are
/// forgotten: the record of a run must not grow with them.
pub(super) fn probed(checkpoint: &mut Checkpoint, side: Side, checks: Vec<Check>) {
    checkpoint.checks.extend(checks);
    checkpoint.probed.insert(side);
    checkpoint.probes.remove(&Side::Production);
    let is_needed_later = |probe: &Probe| {
        probe.kind == ProbeKind::Guarded
            || probe.kind == ProbeKind::Assertion && side == Side::Backup
    };
    let asked = checkpoint.probes.entry(side).or_default();
    for probes in asked.values_mut() {
        probes.retain(is_needed_later);
    }
}
