//! What a conclusion changes in the run.

use super::apply::{end, new_backup};
use super::{Conclusion, Run, contents, posture, prepare, probing, shortened, snapshot};
use crate::config::Pair;
use crate::id::{OperationId, RoleName};
use crate::names::{is_our_backup, run_of_backup, run_of_slug};
use crate::neon::wire::{Owner, Snapshot};
use crate::ordered::IntoOrdered as _;
use crate::retention::{
    Inventory, Known, Records, Room, SnapshotRecord, always_has_room, forecast, limits, orphans,
};
use crate::sync::checkpoint::{Ending, Failing, Pins, Restore, RunStatus, Side, Verdict};
use crate::sync::retry::RUN_FAILED;
use crate::sync::step::{LOOKS_UNTIL_RARE, Step, look_gap};
use crate::time::{Timestamp, after};
use crate::verify::Check;

/// Changes the run by a conclusion.
pub fn conclude(run: &mut Run, conclusion: Conclusion, pair: &Pair, now: Timestamp) {
    match conclusion {
        Conclusion::Cleared => cleared(run, pair, now),
        Conclusion::BackupFound(branch) => {
            run.checkpoint.backup = Some(new_backup(&branch, Vec::new()));
        }
        Conclusion::BackupReady => backup_ready(run, now),
        Conclusion::BackupRead(print) => {
            run.checkpoint.fingerprint = Some(print);
            run.checkpoint.prints.clear();
            if let Some(backup) = run.checkpoint.backup.as_mut() {
                backup.is_verified = true;
            }
            // Not worth a save by itself: the intent to restore is saved next, and a run that
            // leaves staging ends.
        }
        Conclusion::LookedAt(checks) => prepare::looked_at(run, checks),
        Conclusion::Probed(side, checks) => probing::probed(&mut run.checkpoint, side, checks),
        Conclusion::BackupReadAgain(print) => {
            run.checkpoint.fingerprint = Some(print);
            run.checkpoint.prints.remove(&Side::Backup);
        }
        Conclusion::Held(hold) => {
            run.checkpoint.hold = Some(hold);
            end(run, RunStatus::Succeeded, String::new(), "");
        }
        Conclusion::RestoreFound => restore_found(run),
        Conclusion::RestoreDone | Conclusion::DisplacedFound(_) => {
            restore_progress(run, conclusion, now);
        }
        Conclusion::PasswordSettled(role, result) => {
            run.checkpoint.idle_tick_count = 0;
            let passwords = &mut run.checkpoint.passwords;
            match result {
                Ok(()) => passwords.kept.push(role),
                Err(reason) => passwords.not_kept.push((role, reason)),
            }
        }
        Conclusion::LockedOut(role, reason) => {
            run.checkpoint.passwords.locked_out.push((role, reason));
        }
        Conclusion::PasswordsDone => passwords_done(run, pair),
        Conclusion::Compared(checks) => compared(run, checks, pair),
        Conclusion::RollBackDone(reason) => rolled_back(run, reason),
        Conclusion::StepDone => step_done(run, now),
        Conclusion::LookAgain => look_again(run, now),
        Conclusion::Failing(operation) => failing(run, operation, now),
        Conclusion::AtRest => {
            look_again(run, now);
            run.seen.is_at_rest = true;
        }
        Conclusion::End(ending) => {
            if ending.status == RunStatus::Failed {
                contents::tell_not_checked(&mut run.checkpoint);
            }
            if !ending.reason.is_empty() {
                run.checkpoint.record_error(ending.reason.clone(), now);
            }
            end(run, ending.status, ending.reason, &ending.runbook);
        }
        Conclusion::Verdict(staging) => verdict(run, staging, now),
        Conclusion::Overtaken(ending, staging) => overtaken(run, ending, staging, now),
        Conclusion::Snapshot(progress) => snapshot::conclude(run, progress, pair, now),
        Conclusion::PrunePlanned(plan) => {
            run.checkpoint.prune.kept.clone_from(&plan.kept);
            run.checkpoint.prune.shortage.clone_from(&plan.shortage);
            run.seen.prune_plan = Some(plan);
        }
        Conclusion::Pruned => pruned(run, now),
    }
}

/// Staging was rolled back, or cannot be.
fn rolled_back(run: &mut Run, reason: String) {
    let found = Restore {
        displaced_name: "(unknown)".into(),
        displaced_id: None,
        accepted_at: None,
        operations: Vec::new(),
        is_done: true,
        before: None,
    };
    run.checkpoint.roll_back.get_or_insert(found).is_done = true;
    end(run, RunStatus::Failed, reason, RUN_FAILED);
}

/// An operation failed that Neon may try again.
fn failing(run: &mut Run, operation: OperationId, now: Timestamp) {
    run.checkpoint.failing = Some(Failing { operation, seen_at: now });
    // It is minutes rather than moments: the looks are as rare as they become.
    run.seen.looks = run.seen.looks.max(LOOKS_UNTIL_RARE);
    look_again(run, now);
}

/// Forgets what changes by itself, until the next look.
fn look_again(run: &mut Run, now: Timestamp) {
    run.seen.looks += 1;
    run.seen.operations.forget();
    run.seen.branches = None;
    run.seen.is_at_rest = false;
    run.seen.look_at = Some(after(now, look_gap(run.seen.looks)));
}

/// Staging was compared with the backup, and is asked more.
fn compared(run: &mut Run, checks: Vec<Check>, pair: &Pair) {
    run.checkpoint.checks.extend(checks);
    run.checkpoint.is_compared = true;
    probing::prepare_staging(&mut run.checkpoint, pair);
    run.checkpoint.prints.clear();
    // It is asked through the endpoint that was just used; where that is gone, the query fails and
    // it is looked for.
    run.seen.forget_all_but_endpoints();
    // What people have asked for is read again before staging is written to.
    run.seen.orders = None;
}

/// The restore has come further.
fn restore_progress(run: &mut Run, conclusion: Conclusion, now: Timestamp) {
    let Some(restore) = run.checkpoint.restore.as_mut() else { return };
    if let Conclusion::DisplacedFound(id) = conclusion {
        restore.displaced_id = id;
        return;
    }
    restore.is_done = true;
    run.checkpoint.passwords.changed_at = Some(now);
    run.seen.forget();
}

fn cleared(run: &mut Run, pair: &Pair, now: Timestamp) {
    let staging =
        run.seen.branches.as_ref().and_then(|branches| branches.by_id(&pair.staging_branch));
    run.checkpoint.pins = staging.map(|staging| Pins {
        project: pair.project.clone(),
        production: pair.production_branch.clone(),
        staging: staging.id.clone(),
        staging_name: staging.name.clone(),
    });
    if let (Some(project), Some(branches), Some(endpoints)) =
        (&run.seen.project, &run.seen.branches, &run.seen.endpoints)
    {
        run.checkpoint.checks.extend(posture::judge(project, branches, endpoints, pair));
    }
    look_ahead(run, pair, now);
    let listed = run.seen.databases.iter().flatten().map(|database| database.name.clone());
    run.checkpoint.databases = pair.databases.clone().unwrap_or_else(|| listed.collect());
    run.checkpoint.advance(now);
}

/// Warns before the day on which there will be no room for a backup, and of rules that the plan
/// cannot hold.
fn look_ahead(run: &mut Run, pair: &Pair, now: Timestamp) {
    let owner = run.seen.project.as_ref().and_then(|project| project.owner.as_ref());
    let (limit, snapshot_limit) =
        (owner.and_then(Owner::limit), owner.and_then(Owner::snapshot_limit));
    let (Some(project), Some(branches)) = (&run.seen.project, &run.seen.branches) else { return };
    let warned =
        limits(&pair.keep, project, branches, run.seen.schedule.as_deref().unwrap_or_default());
    let room = Room { branches: limit.unwrap_or(usize::MAX), snapshots: snapshot_limit };
    let mut ahead = Vec::new();
    if pair.keep.has_snapshots() || limit.is_some_and(|limit| !always_has_room(branches, limit)) {
        // Which backups are verified is not asked for this: those that are not take a place for a
        // few days only.
        let ours = branches.branches.iter().filter(|branch| is_our_backup(pair, branches, branch));
        let known = ours
            .filter_map(|branch| run_of_backup(pair, &branch.name))
            .map(|run| (run, Known::Verified))
            .into_map();
        let snapshots = run.seen.snapshots.as_deref().unwrap_or_default();
        let taken = |snapshot: &Snapshot| {
            let run = snapshot
                .slug
                .as_deref()
                .and_then(|slug| run_of_slug(pair, slug))
                .or_else(|| run_of_backup(pair, &snapshot.name))?;
            let (id, made_at) = (Some(snapshot.id.clone()), snapshot.created_at);
            Some((run, SnapshotRecord { id, lsn: snapshot.lsn, made_at, known: Known::Verified }))
        };
        let records = Records {
            known,
            snapshots: snapshots.iter().filter_map(taken).into_map(),
            ..Records::default()
        };
        let inventory = Inventory { branches, endpoints: &[], snapshots, records: &records };
        ahead =
            forecast(&inventory, pair, &pair.keep, room, Some(&run.checkpoint.run), now).warnings();
    }
    let left: Vec<String> =
        orphans(pair, branches).map(|(branch, of)| format!("{} ({of})", branch.name)).collect();
    let left = (!left.is_empty()).then(|| {
        format!(
            "branches of pairs that are not configured any more are left: {}; GET /backups lists \
             them",
            shortened(&left)
        )
    });
    warned.into_iter().chain(left).chain(ahead).for_each(|warning| run.checkpoint.warn(warning));
}

fn backup_ready(run: &mut Run, now: Timestamp) {
    if let Some(backup) = run.checkpoint.backup.as_mut() {
        let branch = run.seen.branches.as_ref().and_then(|branches| branches.by_id(&backup.id));
        backup.lsn = branch.and_then(|branch| branch.parent_lsn);
        backup.is_ready = true;
    }
    run.seen.looks = 0;
    run.seen.look_at = None;
    run.seen.operations.forget();
    run.checkpoint.advance(now);
}

/// The restore of this run was done although this checkpoint did not see it being accepted.
fn restore_found(run: &mut Run) {
    let staging_name =
        run.checkpoint.pins.as_ref().map(|pins| pins.staging_name.to_string()).unwrap_or_default();
    let made_at = run.checkpoint.backup.as_ref().map(|backup| backup.made_at);
    let mut candidates =
        run.seen.branches.iter().flat_map(|list| &list.branches).filter(|branch| {
            branch.name.as_str().starts_with(&format!("{staging_name}-of-"))
                && made_at.is_some_and(|at| branch.created_at >= at)
        });
    let only = candidates.next().filter(|_| candidates.next().is_none());
    let name =
        run.checkpoint.intended_name.clone().or_else(|| only.map(|branch| branch.name.clone()));
    let displaced_name = name.unwrap_or_else(|| "(unknown)".into());
    run.checkpoint.restore = Some(Restore {
        displaced_name,
        displaced_id: None,
        accepted_at: None,
        operations: Vec::new(),
        is_done: false,
        before: None,
    });
    run.wants_save = true;
}

/// Writes down what became of each role.
fn passwords_done(run: &mut Run, pair: &Pair) {
    run.checkpoint.passwords.is_done = true;
    let displaced =
        run.checkpoint.restore.as_ref().and_then(|restore| restore.displaced_id.clone());
    if displaced.is_none() && pair.keep_passwords {
        run.checkpoint.warn(
            "the displaced branch was not found; the passwords of staging's roles were not looked \
             at"
            .to_owned(),
        );
    }
    let Some(displaced) = displaced.filter(|_| pair.keep_passwords) else { return };
    let staging = &pair.staging_branch;
    let (before, present) = (run.seen.roles.get(&displaced), run.seen.roles.get(staging));
    let (Some(before), Some(present)) = (before, present) else { return };
    let gone: Vec<RoleName> = before
        .iter()
        .filter(|role| !present.iter().any(|other| other.name == role.name))
        .map(|role| role.name.clone())
        .collect();
    let list =
        |roles: &[RoleName]| roles.iter().map(RoleName::as_str).collect::<Vec<_>>().join(", ");
    if !gone.is_empty() {
        run.checkpoint.warn(format!(
            "roles that staging had and production does not have are gone: {}",
            list(&gone)
        ));
    }
    let locked_out = &run.checkpoint.passwords.locked_out;
    let is_locked_out = |role: &RoleName| locked_out.iter().any(|(other, _)| other == role);
    let not_kept: Vec<RoleName> = run
        .checkpoint
        .passwords
        .not_kept
        .iter()
        .map(|(name, _)| name.clone())
        .filter(|role| !is_locked_out(role))
        .collect();
    if !locked_out.is_empty() {
        let told: Vec<String> =
            locked_out.iter().map(|(role, reason)| format!("{role} ({reason})")).collect();
        let text = format!(
            "roles of staging that may not log in, which were left as production has them: {}",
            shortened(&told)
        );
        run.checkpoint.warn(text);
    }
    if !not_kept.is_empty() {
        run.checkpoint
            .warn(format!("roles of staging without their old password: {}", list(&not_kept)));
    }
    run.checkpoint.passwords.gone = gone;
}

fn step_done(run: &mut Run, now: Timestamp) {
    if run.checkpoint.step == Step::VerifyBackup && run.checkpoint.leaves_staging() {
        end(run, RunStatus::Succeeded, String::new(), "");
        return;
    }
    run.checkpoint.advance(now);
    if run.checkpoint.step == Step::Restore {
        // The restore looks at everything again.
        run.seen.forget();
        run.seen.orders = None;
    }
}

fn verdict(run: &mut Run, staging: String, now: Timestamp) {
    let Some(ending) = &run.checkpoint.ending else { return };
    let is_good = ending.status == RunStatus::Succeeded;
    run.checkpoint.verdict = Some(Verdict {
        status: ending.status,
        at: now,
        step: run.checkpoint.step,
        reason: (!is_good).then(|| ending.reason.clone()),
        runbook: (!is_good).then(|| ending.runbook.clone()),
        staging,
    });
    if run.checkpoint.step == Step::Prune {
        run.checkpoint.attempt = 1;
    } else {
        run.checkpoint.enter(Step::Prune, now);
    }
}

fn overtaken(run: &mut Run, ending: Ending, staging: String, now: Timestamp) {
    run.checkpoint.record_error(ending.reason.clone(), now);
    if let Some(verdict) = run.checkpoint.verdict.as_mut() {
        verdict.status = ending.status;
        verdict.at = now;
        verdict.reason = Some(ending.reason.clone());
        verdict.runbook = Some(ending.runbook.clone());
        verdict.staging = staging;
    }
    run.checkpoint.ending = Some(ending);
}

fn pruned(run: &mut Run, now: Timestamp) {
    run.seen.prune_plan = None;
    run.seen.ledger = None;
    if run.checkpoint.verdict.is_none() {
        run.checkpoint.prune.made_room = true;
        run.seen.forget();
        return;
    }
    run.checkpoint.prune.is_done = true;
    run.wants_save = true;
    if let Some(last) =
        run.checkpoint.steps.last_mut().filter(|_| run.checkpoint.prune.swept_at.is_none())
    {
        last.ended_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::fixtures::branch;
    use crate::fixtures::pair;
    use crate::fixtures::started;
    use crate::neon::wire::BranchList;
    use crate::sync::checkpoint::Checkpoint;
    use crate::sync::machine::apply::new_backup;

    #[test]
    fn what_a_forgotten_restore_displaced_is_found_by_neons_own_clock() {
        let pair = pair();
        for ahead in [-10, 0, 10].map(TimeDelta::minutes) {
            let backup = branch("br-b", "backup-20261121", &pair.production_branch);
            let mut displaced = branch("br-d", "staging-of-20261120", &"br-y".into());
            displaced.created_at += TimeDelta::seconds(40);
            let mut yesterdays = branch("br-e", "staging-of-20261119", &"br-x".into());
            yesterdays.created_at -= TimeDelta::seconds(40);
            let pins = Pins {
                project: pair.project.clone(),
                production: pair.production_branch.clone(),
                staging: pair.staging_branch.clone(),
                staging_name: "staging".into(),
            };
            let checkpoint = Checkpoint {
                backup: Some(new_backup(&backup, Vec::new())),
                pins: Some(pins),
                ..started()
            };
            let mut run = Run::new(checkpoint, None);
            run.seen.branches = Some(BranchList {
                branches: vec![backup, displaced, yesterdays],
                ..BranchList::default()
            });
            conclude(&mut run, Conclusion::RestoreFound, &pair, started().started_at - ahead);
            let name = run.checkpoint.restore.map(|restore| restore.displaced_name);
            assert_eq!(name, Some("staging-of-20261120".into()), "{ahead}");
        }
    }
}
