//! A manual run of which KV knows nothing any more.
//!
//! In: a pair without a checkpoint. Out: the run that somebody was promised and that nothing
//! drives, as far as names in Neon and what is left in KV show it.
//!
//! Invariants: no more is done to staging than somebody is known to have asked for. A run that has
//! restored staging is taken up from there. One of which it is on record how far it was to go is
//! taken up to that end. Of any other nobody can know whether it was a rehearsal: it ends as
//! failed, and people are told.
//!
//! Failure: where Neon or the store does not answer, the next tick looks again.

use std::time::Duration;

use super::{Context, Memory};
use crate::config::Pair;
use crate::id::RunId;
use crate::names::{backup_name, is_our_backup, run_of_backup};
use crate::neon::wire::BranchList;
use crate::neon::{Call, Reply};
use crate::ordered;
use crate::port::{Level, Recall as _, Store as _, World};
use crate::record::{self, Accepted};
use crate::sync::checkpoint::{Checkpoint, Ending, Goal, History, Hold, RunStatus, Start};
use crate::sync::machine::Outcome;
use crate::sync::schedule;
use crate::time::{Timestamp, between};

/// How long a manual run is left to the invocation that accepted it, and to a store that shows it
/// late: 25 seconds (`worker/lib.rs`), and the 60 that an answer of the store may be old, many
/// times over.
const LEFT_ALONE: Duration = Duration::from_mins(5);

/// How old a run may be that is taken up: it is given up two hours after its start.
const LOST_FOR: Duration = Duration::from_hours(2);

/// How long a look serves that found nothing. A pair whose first run is still to come has no
/// checkpoint either.
const LOOK_AGAIN: Duration = Duration::from_mins(30);

/// A manual run of which no result is on record.
struct Lost {
    run: RunId,
    /// What is on record of its being accepted.
    accepted: Option<Accepted>,
    /// Whether staging is held.
    hold: Option<Hold>,
}

/// Subrequests of a look: the branches, the runs that were accepted, and of them the results.
const COST: u32 = 3;

impl<W: World> Context<'_, W> {
    /// Returns a manual run that was accepted and that nothing drives.
    pub(super) async fn lost_run(
        &self,
        pair: &Pair,
        memory: &Memory,
        now: Timestamp,
    ) -> Option<Checkpoint> {
        let looked = format!("{} looked for lost runs", pair.name);
        let is_known = self
            .world
            .noted_at(&looked)
            .is_some_and(|at| at <= now && between(at, now) < LOOK_AGAIN);
        if memory.checkpoint.is_some() || is_known || !self.has_room(COST) {
            return None;
        }
        let prefix = record::accepted_key(&pair.name, "");
        let accepted = self.world.list(&prefix, None).await.ok()?;
        let accepted =
            accepted.keys.iter().filter_map(|(key, _)| RunId::decode(key.strip_prefix(&prefix)?));
        let Outcome::Replied(reply) = self.call(pair, &Call::ListBranches).await else {
            return None;
        };
        let Reply::Branches(branches) = *reply else { return None };
        let ours = branches.branches.iter().filter(|branch| is_our_backup(pair, &branches, branch));
        let mut runs: Vec<RunId> =
            ours.filter_map(|branch| run_of_backup(pair, &branch.name)).chain(accepted).collect();
        let is_recent =
            |run: &RunId| run.started_at().is_some_and(|at| between(at, now) < LOST_FOR);
        runs.retain(is_recent);
        ordered::sort_by(&mut runs, |left, right| right.cmp(left));
        runs.dedup();
        // The newest that has no result: what an older one would do is of no use after it.
        let Some(run) = self.without_result(pair, &runs).await? else {
            self.world.note(&looked, now);
            return None;
        };
        let Lost { run, accepted, hold } = run;
        if run.started_at().is_none_or(|at| between(at, now) < LEFT_ALONE) {
            return None;
        }
        self.log(
            Level::Warn,
            "lost manual run found",
            &[("pair", pair.name.to_string()), ("run", run.to_string())],
        );
        let hold = hold.filter(|hold| hold.is_in_force(now));
        Some(taken_up(
            pair,
            &run,
            &branches,
            accepted.and_then(|accepted| accepted.goal),
            hold,
            now,
        ))
    }

    /// Returns the newest of these runs of which no result is on record, with what is on record of
    /// its being accepted. An outer `None` where the store does not answer.
    async fn without_result(&self, pair: &Pair, runs: &[RunId]) -> Option<Option<Lost>> {
        // Two keys of each and the hold, in one request.
        let runs: Vec<&RunId> = runs.iter().take(record::KEYS_PER_READ / 2 - 1).collect();
        if runs.is_empty() {
            return Some(None);
        }
        let accepted_key = |run: &RunId| record::accepted_key(&pair.name, run.as_str());
        let hold_key = record::hold_key(&pair.name);
        let keys =
            runs.iter().flat_map(|run| [record::result_key(&pair.name, run), accepted_key(run)]);
        let keys: Vec<String> = keys.chain([hold_key.clone()]).collect();
        let found = self.world.read(&keys).await.ok()?;
        let text = |key: &str| found.get(key).and_then(Option::as_ref);
        let run = runs.into_iter().find(|run| text(&record::result_key(&pair.name, run)).is_none());
        // A hold that cannot be read protects staging as one that can: nothing is taken up.
        let hold = text(&hold_key).map(|text| record::decode(&hold_key, text)).transpose().ok()?;
        Some(run.map(|run| {
            let key = accepted_key(run);
            Lost {
                run: run.clone(),
                accepted: text(&key).and_then(|text| record::decode(&key, text).ok()),
                hold,
            }
        }))
    }
}

/// Returns the checkpoint of a lost run.
fn taken_up(
    pair: &Pair,
    run: &RunId,
    branches: &BranchList,
    asked_for: Option<Goal>,
    hold: Option<Hold>,
    now: Timestamp,
) -> Checkpoint {
    let parent =
        branches.by_id(&pair.staging_branch).and_then(|staging| staging.parent_id.as_ref());
    let has_restored =
        branches.by_name(&backup_name(pair, run)).is_some_and(|backup| parent == Some(&backup.id));
    // A rehearsal restores nothing.
    let goal = if has_restored { Some(Goal::Staging) } else { asked_for };
    let start = Start {
        pair: pair.name.clone(),
        run: run.clone(),
        is_manual: true,
        goal: goal.unwrap_or(Goal::VerifyBackup),
        // Staging that was restored is looked at, whoever holds it meanwhile.
        hold: hold.filter(|_| !has_restored),
        give_up_at: schedule::manual_give_up_at(pair, &History::default(), None, now),
        settings: pair.settings.clone(),
        history: History::default(),
    };
    let mut checkpoint = Checkpoint::start(start, now);
    checkpoint.started_at = run.started_at().unwrap_or(now);
    match goal {
        Some(_) => checkpoint.warn(
            "KV had forgotten this run while it was under way; it was taken up from the names in \
             Neon"
                .to_owned(),
        ),
        None => {
            checkpoint.ending = Some(Ending {
                status: RunStatus::Failed,
                reason: "KV has forgotten this run, and how far it was to go; start it again"
                    .to_owned(),
                runbook: "run-failed.md".to_owned(),
            });
        }
    }
    checkpoint
}
