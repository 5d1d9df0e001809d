//! What is done with staging once it was compared: it is asked what is configured, disarmed or
//! seeded, and looked at as the application sees it.
//!
//! Invariants: the configured SQL is run once in a run, and only while staging is a child of this
//! run's backup. A marker in the same transaction says that it was, also to a tick that has
//! forgotten it. Where it arrives late, `compute` keeps it from another run's staging. The marker
//! is an empty schema that is called after the id of the backup, which Neon chose after the
//! backup's content stood: nothing that production holds can be taken for it.

use super::restore::DEFAULT_BY_NOW;
use super::{
    Action, Conclusion, Decision, Purpose, Query, Run, View, compute, contents, end, fail, need,
    probing,
};
use crate::config::{AfterRestore, Tenants};
use crate::id::{BranchId, DatabaseName};
use crate::neon::sql::{Batch, Rows, SqlError};
use crate::sync::checkpoint::{RunStatus, Side};
use crate::verify::{
    Check, CheckKind, CheckOutcome, Probe, ProbeKind, judge_tenants, tenants_batch,
};

/// Attempts to run what is configured where somebody else's marker was in the way, or to look as
/// the application does.
const ATTEMPTS: u32 = 3;

/// Runs the statements of the setting `firstlight.sql`, unless this run has done so.
///
/// The marker is made first: a second tick waits for it, instead of running everything beside the
/// first. The configured statements see the path of the database from the first to the last;
/// nothing of ours is resolved after that.
const RUN_ONCE: &str = "do $firstlight$ \
    declare marker text := current_setting('firstlight.marker'); \
    statements text[]; number int := 0; begin \
    if exists (select from pg_namespace where nspname = marker \
    and nspowner = (select oid from pg_roles where rolname = current_user)) \
    then return; end if; \
    execute format('create schema %I', marker); \
    statements := array(select value \
    from json_array_elements_text(current_setting('firstlight.sql')::json)); \
    begin \
    perform set_config('search_path', null, true); \
    while number operator(pg_catalog.<) pg_catalog.cardinality(statements) loop \
    number := number operator(pg_catalog.+) 1; execute statements[number]; end loop; \
    exception when query_canceled or others then \
    raise exception using errcode = sqlstate, \
    message = format('statement %s of %s: %s', number, cardinality(statements), sqlerrm); \
    end; end $firstlight$";

/// Decides the next action, or returns `Ok` when everything was done.
pub(super) fn next(view: &View<'_>, backup: &BranchId) -> Result<(), Decision> {
    probing::next_staging(view, Side::Staging)?;
    run_once(view, backup)?;
    probing::next_staging(view, Side::Prepared)?;
    look_as_the_application(view)
}

/// Returns the database that a setting names, or the first.
fn database<'a>(
    view: &'a View<'_>,
    configured: Option<&'a DatabaseName>,
) -> Result<&'a DatabaseName, Decision> {
    let known = &view.checkpoint.databases;
    let found = configured
        .map_or_else(|| known.first(), |wanted| known.iter().find(|database| *database == wanted));
    found.ok_or_else(|| {
        let wanted = configured.map(DatabaseName::as_str).unwrap_or_default();
        fail(format!(
            "verification: database {wanted:?} is configured and not one of those that are compared"
        ))
    })
}

/// Runs the configured SQL on staging.
fn run_once(view: &View<'_>, backup: &BranchId) -> Result<(), Decision> {
    let Some(settings) =
        view.pair.verification.after_restore.as_ref().filter(|_| !view.checkpoint.is_prepared)
    else {
        return Ok(());
    };
    let staging = &view.pair.staging_branch;
    let database = database(view, settings.database.as_ref())?.clone();
    let compute = compute::of_staging(view, &database)?;
    let branches = view.branches()?;
    let branch = branches.by_id(staging);
    if branch.and_then(|branch| branch.parent_id.as_ref()) != Some(backup) {
        return Err(end(
            RunStatus::Superseded,
            "staging was restored from another backup meanwhile".to_owned(),
        ));
    }
    if branch.is_some_and(|branch| branch.default) {
        return Err(fail(format!("after_restore was not run on staging: {DEFAULT_BY_NOW}")));
    }
    if let Some(cancelled) = &view.orders()?.cancelled {
        return Err(end(
            RunStatus::Cancelled,
            cancelled.told("before after_restore was run on staging"),
        ));
    }
    let batch = compute::bind(compute, after_restore_batch(settings, backup));
    Err(contents::query(view, staging, &database, Purpose::AfterRestore, batch))
}

/// Returns the batch that runs the configured SQL once for a backup.
pub fn after_restore_batch(settings: &AfterRestore, backup: &BranchId) -> Batch {
    let sql = serde_json::Value::from(settings.sql.clone()).to_string();
    let statements = vec![
        (
            format!(
                "select set_config('lock_timeout', '10s', true), \
                    set_config('statement_timeout', '{}s', true)",
                settings.timeout.as_secs()
            ),
            Vec::new(),
        ),
        (
            "select length(set_config('firstlight.sql', $1, true) || \
                set_config('firstlight.marker', $2, true)) > 0"
                .to_owned(),
            vec![sql, marker(backup)],
        ),
        (RUN_ONCE.to_owned(), Vec::new()),
    ];
    Batch { statements, is_read_only: false }
}

/// Returns the name of the marker; the end of an id is what Neon draws by chance.
fn marker(backup: &BranchId) -> String {
    /// PostgreSQL cuts names after 63 bytes.
    const ID: usize = 63 - "firstlight_".len();
    let id = backup.as_str();
    format!("firstlight_{}", id.get(id.len().saturating_sub(ID)..).unwrap_or(id))
}

/// Counts what each tenant sees, logged in as the application.
fn look_as_the_application(view: &View<'_>) -> Result<(), Decision> {
    let Some(tenants) =
        view.pair.verification.tenants.as_ref().filter(|_| !view.checkpoint.is_looked_at)
    else {
        return Ok(());
    };
    let database = database(view, tenants.database.as_ref())?;
    let conclude = |checks: Option<Vec<Check>>| {
        Err(Decision::Conclude(Conclusion::LookedAt(checks.unwrap_or_default())))
    };
    let nobody = Probe::new(ProbeKind::Guarded, "", String::new());
    let probe = guarded(
        view.checkpoint.probes.get(&Side::Prepared).and_then(|probes| probes.get(database)),
    )
    .unwrap_or(&nobody);
    let Some(batch) = tenants_batch(probe, tenants) else {
        return conclude(judge_tenants(database, probe, tenants, Err("nothing to count")));
    };
    let staging = &view.pair.staging_branch;
    if !view.has_password(staging, &tenants.role)? {
        let reason = format!("Neon does not tell the password of role {}", tenants.role);
        return conclude(judge_tenants(database, probe, tenants, Err(&reason)));
    }
    let question =
        contents::question(view, &tenants.role, staging, database, Purpose::Tenants, batch)?;
    Err(Decision::Act(Action::Query(Box::new(question))))
}

fn guarded(probes: Option<&Vec<Probe>>) -> Option<&Probe> {
    probes?.iter().find(|probe| probe.kind == ProbeKind::Guarded)
}

/// Takes up what the tenants see; `None` when it makes no sense.
pub(super) fn take_tenants(
    run: &mut Run,
    query: &Query,
    answer: Result<&[Rows], &str>,
    tenants: Option<&Tenants>,
) -> Option<()> {
    let probes =
        run.checkpoint.probes.get(&Side::Prepared).and_then(|probes| probes.get(&query.database));
    let checks = judge_tenants(&query.database, guarded(probes)?, tenants?, answer)?;
    looked_at(run, checks);
    Some(())
}

/// Staging was looked at as the application sees it.
pub(super) fn looked_at(run: &mut Run, checks: Vec<Check>) {
    run.checkpoint.checks.extend(checks);
    run.checkpoint.is_looked_at = true;
    run.checkpoint.idle_tick_count = 0;
    run.checkpoint.probes.remove(&Side::Prepared);
}

/// The configured SQL was run, by this tick or by one before it.
pub(super) fn was_run(run: &mut Run, database: &DatabaseName, settings: Option<&AfterRestore>) {
    let count = settings.map_or(0, |settings| settings.sql.len());
    let check = Check::of(
        CheckKind::AfterRestore,
        database,
        "",
        CheckOutcome::Passed,
        format!("{count} statements were run"),
    );
    run.checkpoint.checks.push(check);
    run.checkpoint.is_prepared = true;
    run.checkpoint.refusals = 0;
    run.checkpoint.idle_tick_count = 0;
    run.wants_save = true;
}

/// The configured SQL was refused. Returns whether it is worth another attempt.
pub(super) fn was_refused(run: &mut Run, database: &DatabaseName, error: &SqlError) -> bool {
    // Another tick of this run was quicker; its marker is seen the next time.
    // Source: PostgreSQL, appendix A, 23505 `unique_violation`, 42P06 `duplicate_schema`.
    let is_overtaken = matches!(error, SqlError::Answered { sqlstate, .. } if matches!(sqlstate.as_str(), "23505" | "42P06"));
    // What took too long takes as long again, and holds its locks meanwhile.
    let took_too_long = error.is_timeout() && matches!(error, SqlError::Answered { .. });
    let is_limited = is_overtaken || error.is_timeout() || error.may_be_about_an_object();
    run.checkpoint.refusals += 1;
    if !took_too_long
        && (error.is_passing() || is_overtaken)
        && !(is_limited && run.checkpoint.refusals >= ATTEMPTS)
    {
        // Staging may be another run's by the next attempt, and somebody may have cancelled this
        // one.
        run.seen.forget();
        run.seen.orders = None;
        return true;
    }
    // Whoever opens staging now has to know: masks were not put on.
    let detail = format!(
        "{error}; nothing of it was done, so that staging holds production's data as it is"
    );
    let check = Check::of(CheckKind::AfterRestore, database, "", CheckOutcome::Failed, detail);
    run.checkpoint.checks.push(check);
    run.checkpoint.is_prepared = true;
    false
}

/// The application's role could not look. Returns whether that is worth another attempt.
pub(super) fn could_not_look(
    run: &mut Run,
    query: &Query,
    error: &SqlError,
    tenants: Option<&Tenants>,
) -> bool {
    run.checkpoint.refusals += 1;
    if error.is_passing() && run.checkpoint.refusals < ATTEMPTS {
        return true;
    }
    let reason = error.to_string();
    if take_tenants(run, query, Err(&reason), tenants).is_none() {
        looked_at(run, Vec::new());
    }
    false
}

/// Returns what is decided when everything that was asked of staging is known: on with the run, or
/// its end.
pub(super) fn conclude(view: &View<'_>, backup: &BranchId) -> Decision {
    need!(next(view, backup));
    match view.objections() {
        None => Decision::Conclude(Conclusion::StepDone),
        Some(objections) => fail(format!("verify staging: {objections}")),
    }
}
