//! What people are told of runs and days, in words.
//!
//! In: a run, a pair. Out: a [`Notice`].
//!
//! Invariants: the subject is one line, and says alone whether somebody has to act; the text names
//! the runbook where there is something to do.

use super::{Notice, drift};
use crate::config::{NoticeKind, Pair};
use crate::id::{PairName, RunId};
use crate::ordered;
use crate::sync::checkpoint::{Checkpoint, RunStatus, SnapshotOutcome};
use crate::sync::schedule;
use crate::sync::step::Step;
use crate::time::{Timestamp, between, render_minutes};

/// Checks that a notice tells; the report has all.
const WARNINGS: usize = 10;

/// Writes the notice of a run that ended.
pub fn of_run(checkpoint: &Checkpoint, pair: &Pair, label: &str) -> Option<Notice> {
    let verdict = checkpoint.verdict.as_ref()?;
    let date = checkpoint_date(checkpoint, pair, verdict.at);
    let time = format!("{} {}", pair.zone.clock_time(verdict.at), pair.zone_label);
    let reason = verdict.reason.as_deref().unwrap_or("none recorded");
    let reason = reason.trim_end_matches('.');
    let place = place(verdict.step);
    let staging = &verdict.staging;
    let page = verdict.runbook.as_deref().unwrap_or("run-failed.md");
    let (kind, subject, text) = match verdict.status {
        RunStatus::Succeeded if checkpoint.restore.is_some() => (
            NoticeKind::Succeeded,
            format!("[{label}] Daily sync completed — {date}"),
            drift::told_with(
                checkpoint,
                &format!(
                    "Production → staging sync completed successfully at {time}{}.",
                    margin_text(checkpoint, pair, verdict.at)
                ),
                &warned_text(checkpoint),
            ),
        ),
        RunStatus::Succeeded => (
            NoticeKind::Succeeded,
            format!("[{label}] Backup verified — {date}"),
            format!(
                "The backup of production was made and verified at {time}{} {}",
                warned_text(checkpoint),
                kept_text(checkpoint, pair)
            ),
        ),
        RunStatus::Cancelled => (
            NoticeKind::Cancelled,
            format!("[{label}] Daily sync cancelled — {date}"),
            format!("Production → staging sync was cancelled at {place}: {reason}. {staging}"),
        ),
        RunStatus::Superseded => (
            NoticeKind::Superseded,
            format!("[{label}] Daily sync superseded — {date}"),
            format!(
                "Production → staging sync {} ended at {place}: {reason}. {staging}",
                checkpoint.run
            ),
        ),
        RunStatus::Failed | RunStatus::Running | RunStatus::Missed => (
            NoticeKind::Failed,
            format!("[URGENT] [{label}] Daily sync FAILED — {date}"),
            format!(
                "Production → staging sync failed at {place}. Error: {reason}. {staging} Runbook: \
                 runbooks/{page}"
            ),
        ),
    };
    let notice = notice(kind, &checkpoint.pair, &checkpoint.run, verdict.at, subject, text);
    Some(Notice { warnings: warnings(checkpoint), runbook: verdict.runbook.clone(), ..notice })
}

/// Returns what people should know although it stopped nothing, and what did not hold, of which the
/// reason tells only the first.
fn warnings(checkpoint: &Checkpoint) -> Vec<String> {
    let mut checks: Vec<_> =
        checkpoint.checks.iter().filter(|check| check.is_worth_telling()).collect();
    // What staging has lost comes before what else is to be known of it.
    ordered::sort_by_key(&mut checks, |check| (check.outcome, check.drift.is_none()));
    let more = checks.len().saturating_sub(WARNINGS);
    let told = checks.into_iter().take(WARNINGS).map(ToString::to_string);
    let more = (more > 0).then(|| format!("and {more} more, told by GET /runs/{}", checkpoint.run));
    checkpoint.warnings.iter().cloned().chain(told).chain(more).collect()
}

/// Ends a sentence, and says how much there is to look at.
fn warned_text(checkpoint: &Checkpoint) -> String {
    match warnings(checkpoint).len() {
        0 => ".".to_owned(),
        1 => ". There is one warning.".to_owned(),
        count => format!(". There are {count} warnings."),
    }
}

/// Says why staging was left as it is.
fn kept_text(checkpoint: &Checkpoint, pair: &Pair) -> String {
    match &checkpoint.hold {
        Some(hold) => {
            let until = hold.until.map_or_else(
                || "until it is released".to_owned(),
                |until| format!("until {} {}", pair.zone.date_time(until), pair.zone_label),
            );
            format!("Staging is held as it is {until}: {}.", hold.reason.trim_end_matches('.'))
        }
        None => "Staging was left as it is, as asked.".to_owned(),
    }
}

fn checkpoint_date(checkpoint: &Checkpoint, pair: &Pair, at: Timestamp) -> chrono::NaiveDate {
    if checkpoint.is_manual { pair.zone.date(at) } else { checkpoint.run.date() }
}

/// Writes the notice of a day on which no run was started.
pub fn of_missed_day(pair: &Pair, run: &RunId, label: &str, now: Timestamp) -> Notice {
    let subject = format!("[URGENT] [{label}] Daily sync MISSED — {}", run.date());
    let text = format!(
        "Production → staging sync was not started between {} and {} {}. Staging is untouched, and \
         will be until somebody starts a run. Runbook: runbooks/run-failed.md",
        pair.times.start_at, pair.times.catch_up_until, pair.zone_label
    );
    Notice {
        runbook: Some("run-failed.md".to_owned()),
        ..notice(NoticeKind::Missed, &pair.name, run, now, subject, text)
    }
}

/// Pairs that are named in a sentence; the others are counted.
const NAMED: usize = 5;

/// Says why a run was not started while those of other pairs were driven.
pub fn crowded_out(pair: &Pair, others: &[PairName]) -> String {
    let named: Vec<&str> = others.iter().take(NAMED).map(PairName::as_str).collect();
    let more = match others.len().saturating_sub(NAMED) {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    let (from, until, zone) = (pair.times.start_at, pair.times.catch_up_until, &pair.zone_label);
    format!(
        "the invocations between {from} and {until} {zone} drove the runs of {}{more} and had no \
         room for this one",
        named.join(", ")
    )
}

/// Writes the notice of a day on which no run was started because those of other pairs were driven.
pub fn of_crowded_out_day(
    pair: &Pair,
    run: &RunId,
    others: &[PairName],
    label: &str,
    now: Timestamp,
) -> Notice {
    let text = format!(
        "Production → staging sync was not started: {}. Staging is untouched, and will be until \
         somebody starts a run. `cargo xtask check-config` says how the windows of one day fit. \
         Runbook: runbooks/run-failed.md",
        crowded_out(pair, others)
    );
    Notice { text, ..of_missed_day(pair, run, label, now) }
}

/// Writes the notice of a store that cannot be read since an instant. Its id is that of the day on
/// which that began, however often it is told.
pub fn of_silent_store(
    pair: &Pair,
    error: &str,
    since: Timestamp,
    label: &str,
    now: Timestamp,
) -> Notice {
    let run = RunId::scheduled(pair.zone.date(since));
    let text = format!(
        "No run of any pair is started or goes on, and no notice is sent but this one: Workers KV \
         cannot be read since {} {}: {error}. Staging stays as it is. The first tick that can read \
         goes on by itself. An answer of 429 for hours means that the plan's reads of the day are \
         used up. Runbook: runbooks/run-failed.md",
        pair.zone.date_time(since),
        pair.zone_label,
    );
    let subject = format!("[URGENT] [{label}] Daily sync STUCK — {}", run.date());
    let told = notice(NoticeKind::Stuck, &pair.name, &run, now, subject, text);
    Notice {
        id: format!("{}/{run}/store-silent", pair.name),
        runbook: Some("run-failed.md".to_owned()),
        ..told
    }
}

/// Writes the notice of a run that is under way when its deadline passes.
pub fn of_late_run(checkpoint: &Checkpoint, pair: &Pair, label: &str, now: Timestamp) -> Notice {
    let text = format!(
        "Production → staging sync is at {} and has passed its deadline of {} {}. It goes on; the \
         outcome will be told. Runbook: runbooks/late.md",
        place(checkpoint.step),
        pair.times.deadline,
        pair.zone_label
    );
    of_lateness(
        NoticeKind::Late,
        &format!("[URGENT] [{label}] Daily sync LATE"),
        text,
        &checkpoint.pair,
        &checkpoint.run,
        now,
    )
}

/// Writes the notice of a deadline that passes after the day's run has ended without success.
pub fn of_missed_deadline(pair: &Pair, run: &RunId, label: &str, now: Timestamp) -> Notice {
    let text = format!(
        "The deadline of {} {} has passed, and staging is no verified copy: the day's run has \
         ended without success, and no other has succeeded since. Runbook: runbooks/late.md",
        pair.times.deadline, pair.zone_label
    );
    of_lateness(
        NoticeKind::Late,
        &format!("[URGENT] [{label}] Daily sync LATE"),
        text,
        &pair.name,
        run,
        now,
    )
}

/// Writes the notice of a run that is not expected to be done by its deadline.
pub fn of_at_risk(
    checkpoint: &Checkpoint,
    pair: &Pair,
    label: &str,
    expected_at: Timestamp,
    now: Timestamp,
) -> Notice {
    let deadline = schedule::deadline(pair, &checkpoint.run);
    let text = format!(
        "Production → staging sync is at {} and is expected to be done at {} {}, {} after its \
         deadline of {} {}. It goes on; the outcome will be told. Runbook: runbooks/late.md",
        place(checkpoint.step),
        pair.zone.clock_time(expected_at),
        pair.zone_label,
        render_minutes(between(deadline, expected_at)),
        pair.times.deadline,
        pair.zone_label
    );
    of_lateness(
        NoticeKind::AtRisk,
        &format!("[{label}] Daily sync may be late"),
        text,
        &checkpoint.pair,
        &checkpoint.run,
        now,
    )
}

/// Writes the notice of a run that starts later than it should.
pub fn of_late_start(checkpoint: &Checkpoint, pair: &Pair, label: &str, now: Timestamp) -> Notice {
    let text = format!(
        "Production → staging sync was to start by {} {label_of_zone} and starts at {} \
         {label_of_zone}. It is to be done by {} {label_of_zone}; the outcome will be told. \
         Runbook: runbooks/late.md",
        pair.times.latest_start,
        pair.zone.clock_time(now),
        pair.times.deadline,
        label_of_zone = pair.zone_label,
    );
    of_lateness(
        NoticeKind::LateStart,
        &format!("[{label}] Daily sync starts late"),
        text,
        &checkpoint.pair,
        &checkpoint.run,
        now,
    )
}

fn of_lateness(
    kind: NoticeKind,
    subject: &str,
    text: String,
    pair: &PairName,
    run: &RunId,
    now: Timestamp,
) -> Notice {
    let subject = format!("{subject} — {}", run.date());
    let notice = notice(kind, pair, run, now, subject, text);
    Notice { runbook: Some("late.md".to_owned()), ..notice }
}

/// Says where a run is: `step 4 of 7 (restore staging)`.
fn place(step: Step) -> String {
    format!("step {} of {} ({})", step.number(), Step::ALL.len(), step.name())
}

/// Says how long before or after its deadline a scheduled run was done.
fn margin_text(checkpoint: &Checkpoint, pair: &Pair, at: Timestamp) -> String {
    if checkpoint.is_manual {
        return String::new();
    }
    let deadline = schedule::deadline(pair, &checkpoint.run);
    // From the minute that is told.
    let at = at - chrono::TimeDelta::milliseconds(at.timestamp_millis().rem_euclid(60_000));
    if at <= deadline {
        format!(", {} early", render_minutes(between(at, deadline)))
    } else {
        format!(", {} late", render_minutes(between(deadline, at)))
    }
}

/// Returns a notice without warnings, runbook and incident.
pub(super) fn notice(
    kind: NoticeKind,
    pair: &PairName,
    run: &RunId,
    at: Timestamp,
    subject: String,
    text: String,
) -> Notice {
    let id = format!("{pair}/{run}/{}", kind.as_str());
    Notice {
        id,
        kind,
        pair: pair.clone(),
        run: run.clone(),
        at,
        subject,
        text,
        warnings: Vec::new(),
        runbook: None,
        incident: None,
    }
}

/// Writes the notice of a pair for which nothing is done, because a record of it cannot be read.
pub fn of_stuck_pair(pair: &Pair, run: &RunId, error: &str, label: &str, now: Timestamp) -> Notice {
    let subject = format!("[URGENT] [{label}] Daily sync STUCK — {}", run.date());
    let text = format!(
        "Nothing is done for pair {}: {error}. Staging stays as it is, and no backup is made, \
         until that is mended. Runbook: runbooks/run-failed.md",
        pair.name
    );
    Notice {
        runbook: Some("run-failed.md".to_owned()),
        ..notice(NoticeKind::Stuck, &pair.name, run, now, subject, text)
    }
}

/// Writes the notice of a backup that is not kept by a snapshot although a rule wants one, or that
/// is, after that was told. `None` where there is nothing new to tell.
pub fn of_snapshot(
    checkpoint: &Checkpoint,
    pair: &Pair,
    label: &str,
    now: Timestamp,
) -> Option<Notice> {
    let work = checkpoint.prune.snapshot.as_ref()?;
    let date = checkpoint_date(checkpoint, pair, now);
    let (kind, subject, text) = match work.outcome.as_ref()? {
        SnapshotOutcome::Failed { reason, is_final } if !work.has_failed || *is_final => (
            NoticeKind::SnapshotFailed,
            format!("[{label}] Backup has no verified snapshot — {date}"),
            format!(
                "{} was to be kept by a snapshot, and is not: {}. It stays a branch as long as \
                 there is room, and the next run takes a snapshot of its own backup. Runbook: \
                 runbooks/snapshots.md",
                work.name,
                reason.trim_end_matches('.')
            ),
        ),
        SnapshotOutcome::Verified { tables, rows } if work.has_failed => (
            NoticeKind::SnapshotVerified,
            format!("[{label}] Backup has a verified snapshot — {date}"),
            format!(
                "{} is kept by a snapshot after all: restored, {tables} tables with {rows} rows \
                 are equal.",
                work.name
            ),
        ),
        SnapshotOutcome::Failed { .. } | SnapshotOutcome::Verified { .. } => return None,
    };
    let runbook = (kind == NoticeKind::SnapshotFailed).then(|| "snapshots.md".to_owned());
    // A second failure that is told is another one: a receiver must not drop it.
    let again = if work.has_failed && kind == NoticeKind::SnapshotFailed { "-again" } else { "" };
    let id = format!("{}/{}/{}{again}", pair.name, checkpoint.run, kind.as_str());
    Some(Notice {
        id,
        kind,
        pair: pair.name.clone(),
        run: checkpoint.run.clone(),
        at: now,
        subject,
        text,
        warnings: Vec::new(),
        runbook,
        incident: None,
    })
}

/// Writes the notice of a manual run that was accepted and whose place another run took before it
/// ended.
pub fn of_overtaken_run(
    pair: &Pair,
    run: &RunId,
    by: &RunId,
    label: &str,
    now: Timestamp,
) -> Notice {
    let subject = format!("[{label}] Daily sync superseded — {}", pair.zone.date(now));
    let text = format!(
        "Production → staging sync {run} was accepted, and run {by} took its place before it \
         ended. What staging holds is told by that run."
    );
    notice(NoticeKind::Superseded, &pair.name, run, now, subject, text)
}

/// Writes the notice of a run whose end cannot be recorded: the next tick takes it up again, and
/// what comes of it may differ.
pub fn of_unrecorded_run(
    checkpoint: &Checkpoint,
    pair: &Pair,
    label: &str,
    now: Timestamp,
) -> Option<Notice> {
    let told = of_run(checkpoint, pair, label)?;
    Some(Notice {
        id: stuck_id(checkpoint),
        kind: NoticeKind::Stuck,
        at: now,
        subject: format!(
            "[URGENT] [{label}] Daily sync STUCK — {}",
            checkpoint_date(checkpoint, pair, now)
        ),
        text: format!(
            "The end of run {} could not be recorded, because the store does not answer; the next \
             tick takes the run up again and tells how it ended. As far as is known: {}",
            checkpoint.run, told.text
        ),
        runbook: Some("run-failed.md".to_owned()),
        ..told
    })
}

/// Returns the id of [`of_unrecorded_run`].
pub fn stuck_id(checkpoint: &Checkpoint) -> String {
    format!("{}/{}/{}", checkpoint.pair, checkpoint.run, NoticeKind::Stuck.as_str())
}

/// Writes the notice that takes back what was told beside a success, by a tick that did not know of
/// it.
pub fn of_contradiction(success: &Notice, others: &[NoticeKind], now: Timestamp) -> Notice {
    let others = others.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" and ");
    Notice {
        id: format!("{}/{}/corrected", success.pair, success.run),
        kind: NoticeKind::Corrected,
        at: now,
        text: format!(
            "This run was told as {others} as well, by a tick that did not know of its success. \
             What holds: {}",
            success.text
        ),
        ..success.clone()
    }
}

#[cfg(test)]
mod tests;
