//! Which compute a batch that writes to staging is meant for.
//!
//! In: staging, as a child of this run's backup. Out: the compute that serves it, and batches that
//! only this compute runs.
//!
//! A request may arrive when nobody waits for it any more, an hour later at most, and staging may
//! be what another run has made of it by then. For the API names are the locks; SQL has none: a
//! password would be set, or configured SQL be run, on another run's staging.
//!
//! Invariants: every batch of ours that writes names the compute that this tick has asked, and does
//! nothing on another. The compute was asked *before* the branches were listed that showed staging
//! as this run's: a restore in between shows in the listing, and a later one starts another
//! compute. No clock decides anything here.
//!
//! Failure: a compute that has slept meanwhile is another one. It refuses the batch with 40001,
//! which passes, and the next attempt asks again.
//!
//! Source: PostgreSQL, "Session Information Functions": `pg_postmaster_start_time()`, in
//! microseconds, which everybody may call. neondatabase/neon `pgxn/neon`, read 2026-11-30:
//! `neon.timeline_id` is `PGC_POSTMASTER`, so that a compute serves another timeline, as a restore
//! makes one, only once it was started anew.

use super::{Decision, Purpose, Run, View, act, closed, contents, passwords};
use crate::id::DatabaseName;
use crate::neon::Call;
use crate::neon::sql::{Batch, Rows};

/// Asks which compute answers.
pub(super) const WHICH: &str = "select concat(extract(epoch from pg_postmaster_start_time()))";

/// Refuses where another compute answers than the one that is set.
///
/// # Source
///
/// PostgreSQL, appendix A: 40001 `serialization_failure`.
const ONLY_THERE: &str = "do $$ begin \
    if current_setting('firstlight.compute') <> concat(extract(epoch from \
    pg_postmaster_start_time())) then \
    raise exception using errcode = '40001', message = 'another compute answers than the one \
    that was asked'; end if; end $$";

/// The statements that bind a batch, before its own.
pub(super) const BINDING: usize = 2;

/// A compute, as a tick has asked it.
pub(super) struct Compute {
    /// When it was started, as PostgreSQL tells it.
    started: String,
    /// Whether the branches were listed after it was asked.
    is_listed: bool,
}

/// Returns the compute that serves what this run has made of staging, or what has to be done to
/// know it. `database` is asked where no database is known to let us in.
pub(super) fn of_staging<'a>(
    view: &View<'a>,
    database: &DatabaseName,
) -> Result<&'a Compute, Decision> {
    let Some(compute) = &view.seen.compute else { return Err(ask(view, database)) };
    // The caller looks at what was listed: whether staging is still this run's.
    if compute.is_listed { Ok(compute) } else { Err(act(Call::ListBranches)) }
}

/// Asks staging which compute serves it, before the branches are listed that have to be listed
/// anyway: that saves a listing.
pub(super) fn ask_first(view: &View<'_>) -> Result<(), Decision> {
    let is_first =
        view.seen.compute.is_none() && view.seen.branches.is_none() && view.checkpoint.attempt == 1;
    match closed::first_open(view).filter(|_| is_first) {
        Some(database) => Err(ask(view, database)),
        None => Ok(()),
    }
}

fn ask(view: &View<'_>, database: &DatabaseName) -> Decision {
    let database = closed::first_open(view).unwrap_or(database);
    contents::query(
        view,
        &view.pair.staging_branch,
        database,
        Purpose::Doors,
        passwords::doors_batch(),
    )
}

/// Takes up which compute has answered.
pub(super) fn answered(run: &mut Run, rows: &Rows) -> Option<()> {
    let [Some(started)] = rows.rows.first()?.as_slice() else { return None };
    run.seen.compute = Some(Compute { started: started.clone(), is_listed: false });
    Some(())
}

/// The branches were listed.
pub(super) fn listed(run: &mut Run) {
    run.seen.compute.iter_mut().for_each(|compute| compute.is_listed = true);
}

/// Returns a batch that does nothing on another compute.
pub(super) fn bind(compute: &Compute, batch: Batch) -> Batch {
    let set = "select length(set_config('firstlight.compute', $1, true)) > 0".to_owned();
    let binding: [_; BINDING] =
        [(set, vec![compute.started.clone()]), (ONLY_THERE.to_owned(), Vec::new())];
    Batch { statements: binding.into_iter().chain(batch.statements).collect(), ..batch }
}
