//! What people are told.
//!
//! In: a run that ended, or a day that was missed. Out: a [`Notice`] with a deterministic id; [`encode()`] writes it for a channel.
//!
//! Invariants: a notice holds no secret; its id is derived from pair, run and kind, so that a receiver can drop a second copy.

mod encode;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::encode::{encode, sign};
use crate::config::{Channel, Pair};
use crate::id::{ChannelName, PairName, RunId};
use crate::sync::checkpoint::{Checkpoint, RunStatus, SnapshotOutcome};
use crate::sync::step::Step;
use crate::time::{Timestamp, millis};

/// Checks that a notice tells; the report has all.
const WARNINGS: usize = 10;

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// Staging is a verified copy, or the backup is verified where that was the goal.
    Succeeded,
    /// The run failed.
    Failed,
    /// The run was ended by somebody or by a changed configuration.
    Cancelled,
    /// Another run has restored staging since.
    Superseded,
    /// The day's run was never started.
    Missed,
    /// The deadline has passed and the run is still under way.
    Late,
    /// A success after a failure was told for the same run.
    Corrected,
    /// A record of the pair cannot be read, so that nothing is done for it.
    Stuck,
    /// The backup is not kept by a snapshot, although a rule wants one.
    SnapshotFailed,
    /// It is, after that was told otherwise.
    SnapshotVerified,
}

impl NoticeKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Superseded,
        Self::Missed,
        Self::Late,
        Self::Corrected,
        Self::Stuck,
        Self::SnapshotFailed,
        Self::SnapshotVerified,
    ];

    /// Returns the word that stands in ids.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Missed => "missed",
            Self::Late => "late",
            Self::Corrected => "corrected",
            Self::Stuck => "stuck",
            Self::SnapshotFailed => "snapshot_failed",
            Self::SnapshotVerified => "snapshot_verified",
        }
    }
}

impl NoticeKind {
    /// Returns whether it says that a run has not succeeded.
    pub fn is_opposite_of_success(self) -> bool {
        match self {
            Self::Failed | Self::Cancelled | Self::Superseded | Self::Missed => true,
            Self::Succeeded | Self::Late | Self::Corrected | Self::Stuck | Self::SnapshotFailed | Self::SnapshotVerified => false,
        }
    }
}

/// Something people are told.
///
/// Shape: `{"id":"hub/20261121/failed","kind":"failed","pair":"hub","run":"20261121","at":"…","subject":"…","text":"…","runbook":"…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// `<pair>/<run>/<kind>`.
    pub id: String,
    /// What it is about.
    pub kind: NoticeKind,
    /// Whose run.
    pub pair: PairName,
    /// Which run.
    pub run: RunId,
    /// When it happened.
    #[serde(with = "millis")]
    pub at: Timestamp,
    /// One line.
    pub subject: String,
    /// A few sentences.
    pub text: String,
    /// What people should know although it stopped nothing.
    pub warnings: Vec<String>,
    /// The page of `runbooks/` to open; missing when there is nothing to do.
    pub runbook: Option<String>,
}

/// A notice and how far its delivery is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outgoing {
    /// The version of this shape.
    pub format: u32,
    /// The notice.
    pub notice: Notice,
    /// One for each channel.
    pub deliveries: Vec<Delivery>,
}

/// How far the delivery to one channel is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Which channel.
    pub channel: ChannelName,
    /// Attempts so far.
    pub attempts: u32,
    /// When it was taken; missing while it was not.
    #[serde(with = "millis::option")]
    pub delivered_at: Option<Timestamp>,
    /// The next attempt is at this instant or later.
    #[serde(with = "millis")]
    pub next_at: Timestamp,
    /// What went wrong last.
    pub last_error: Option<String>,
}

impl Outgoing {
    /// Puts a notice up for delivery to every channel.
    pub fn new(notice: Notice, channels: &[Channel], now: Timestamp) -> Self {
        let deliveries = channels
            .iter()
            .map(|channel| Delivery { channel: channel.name.clone(), attempts: 0, delivered_at: None, next_at: now, last_error: None })
            .collect();
        Self { format: 1, notice, deliveries }
    }

    /// Returns whether every channel has taken it.
    pub fn is_delivered(&self) -> bool {
        self.deliveries.iter().all(|delivery| delivery.delivered_at.is_some())
    }
}

/// Returns the wait after an attempt that failed.
///
/// Source: Standard Webhooks 1.0, "Retry schedule": 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h.
pub fn redelivery_wait(attempts: u32) -> Duration {
    const SECONDS: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
    let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX).min(SECONDS.len() - 1);
    Duration::from_secs(SECONDS[index])
}

/// Writes the notice of a run that ended.
pub fn of_run(checkpoint: &Checkpoint, pair: &Pair, label: &str) -> Option<Notice> {
    let verdict = checkpoint.verdict.as_ref()?;
    let date = checkpoint_date(checkpoint, pair, verdict.at);
    let time = format!("{} {}", pair.zone.clock_time(verdict.at), pair.zone_label);
    let reason = verdict.reason.as_deref().unwrap_or("none recorded");
    let reason = reason.trim_end_matches('.');
    let (number, name, of) = (verdict.step.number(), verdict.step.name(), Step::ALL.len());
    let staging = &verdict.staging;
    let page = verdict.runbook.as_deref().unwrap_or("run-failed.md");
    let (kind, subject, text) = match verdict.status {
        RunStatus::Succeeded if checkpoint.restore.is_some() => (
            NoticeKind::Succeeded,
            format!("[{label}] Daily sync completed — {date}"),
            format!("Production → staging sync completed successfully at {time}. Staging data verified{}", warned_text(checkpoint)),
        ),
        RunStatus::Succeeded => (
            NoticeKind::Succeeded,
            format!("[{label}] Backup verified — {date}"),
            format!("The backup of production was made and verified at {time}{} {}", warned_text(checkpoint), kept_text(checkpoint, pair)),
        ),
        RunStatus::Cancelled => (
            NoticeKind::Cancelled,
            format!("[{label}] Daily sync cancelled — {date}"),
            format!("Production → staging sync was cancelled at step {number} of {of} ({name}): {reason}. {staging}"),
        ),
        RunStatus::Superseded => (
            NoticeKind::Superseded,
            format!("[{label}] Daily sync superseded — {date}"),
            format!("Production → staging sync {} ended at step {number} of {of} ({name}): {reason}. {staging}", checkpoint.run),
        ),
        RunStatus::Failed | RunStatus::Running | RunStatus::Missed => (
            NoticeKind::Failed,
            format!("[URGENT] [{label}] Daily sync FAILED — {date}"),
            format!(
                "Production → staging sync failed at step {number} of {of} ({name}). Error: {reason}. {staging} \
                 Runbook: runbooks/{page}"
            ),
        ),
    };
    Some(Notice {
        id: format!("{}/{}/{}", checkpoint.pair, checkpoint.run, kind.as_str()),
        kind,
        pair: checkpoint.pair.clone(),
        run: checkpoint.run.clone(),
        at: verdict.at,
        subject,
        text,
        warnings: warnings(checkpoint),
        runbook: verdict.runbook.clone(),
    })
}

/// Returns what people should know although it stopped nothing, and what did not hold, of which the reason tells only the first.
fn warnings(checkpoint: &Checkpoint) -> Vec<String> {
    let mut checks: Vec<_> = checkpoint.checks.iter().filter(|check| check.is_worth_telling()).collect();
    checks.sort_by_key(|check| check.outcome);
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
    let date = run.date();
    Notice {
        id: format!("{}/{run}/missed", pair.name),
        kind: NoticeKind::Missed,
        pair: pair.name.clone(),
        run: run.clone(),
        at: now,
        subject: format!("[URGENT] [{label}] Daily sync MISSED — {date}"),
        text: format!(
            "Production → staging sync was not started between {} and {} {}. Staging is untouched, and will be until somebody starts a run. \
             Runbook: runbooks/run-failed.md",
            pair.start_at, pair.catch_up_until, pair.zone_label
        ),
        warnings: Vec::new(),
        runbook: Some("run-failed.md".to_owned()),
    }
}

/// Writes the notice of a run that is under way when its deadline passes.
pub fn of_late_run(checkpoint: &Checkpoint, pair: &Pair, label: &str, now: Timestamp) -> Notice {
    let (number, name, of) = (checkpoint.step.number(), checkpoint.step.name(), Step::ALL.len());
    Notice {
        id: format!("{}/{}/late", checkpoint.pair, checkpoint.run),
        kind: NoticeKind::Late,
        pair: checkpoint.pair.clone(),
        run: checkpoint.run.clone(),
        at: now,
        subject: format!("[URGENT] [{label}] Daily sync LATE — {}", checkpoint.run.date()),
        text: format!(
            "Production → staging sync is at step {number} of {of} ({name}) and has passed its deadline of {} {}. It goes on; \
             the outcome will be told. Runbook: runbooks/run-failed.md",
            pair.deadline, pair.zone_label
        ),
        warnings: Vec::new(),
        runbook: Some("run-failed.md".to_owned()),
    }
}

/// Writes the notice of a pair for which nothing is done, because a record of it cannot be read.
pub fn of_stuck_pair(pair: &Pair, run: &RunId, error: &str, label: &str, now: Timestamp) -> Notice {
    Notice {
        id: format!("{}/{run}/stuck", pair.name),
        kind: NoticeKind::Stuck,
        pair: pair.name.clone(),
        run: run.clone(),
        at: now,
        subject: format!("[URGENT] [{label}] Daily sync STUCK — {}", run.date()),
        text: format!(
            "Nothing is done for pair {}: {error}. Staging stays as it is, and no backup is made, until that is mended. \
             Runbook: runbooks/run-failed.md",
            pair.name
        ),
        warnings: Vec::new(),
        runbook: Some("run-failed.md".to_owned()),
    }
}

/// Writes the notice of a backup that is not kept by a snapshot although a rule wants one, or that is, after that was told; `None` where there is nothing
/// new to tell.
pub fn of_snapshot(checkpoint: &Checkpoint, pair: &Pair, label: &str, now: Timestamp) -> Option<Notice> {
    let work = checkpoint.prune.snapshot.as_ref()?;
    let date = checkpoint_date(checkpoint, pair, now);
    let (kind, subject, text) = match work.outcome.as_ref()? {
        SnapshotOutcome::Failed { reason, is_final } if !work.has_failed || *is_final => (
            NoticeKind::SnapshotFailed,
            format!("[{label}] Backup has no verified snapshot — {date}"),
            format!(
                "{} was to be kept by a snapshot, and is not: {}. It stays a branch as long as there is room, and the next run takes a snapshot of its \
                 own backup. Runbook: runbooks/snapshots.md",
                work.name,
                reason.trim_end_matches('.')
            ),
        ),
        SnapshotOutcome::Verified { tables, rows } if work.has_failed => (
            NoticeKind::SnapshotVerified,
            format!("[{label}] Backup has a verified snapshot — {date}"),
            format!("{} is kept by a snapshot after all: restored, {tables} tables with {rows} rows are equal.", work.name),
        ),
        SnapshotOutcome::Failed { .. } | SnapshotOutcome::Verified { .. } => return None,
    };
    let runbook = (kind == NoticeKind::SnapshotFailed).then(|| "snapshots.md".to_owned());
    // A second failure that is told is another one: a receiver must not drop it.
    let again = if work.has_failed && kind == NoticeKind::SnapshotFailed { "-again" } else { "" };
    let id = format!("{}/{}/{}{again}", pair.name, checkpoint.run, kind.as_str());
    Some(Notice { id, kind, pair: pair.name.clone(), run: checkpoint.run.clone(), at: now, subject, text, warnings: Vec::new(), runbook })
}

/// Writes the notice of a manual run that was accepted and whose place another run took before it ended.
pub fn of_overtaken_run(pair: &Pair, run: &RunId, by: &RunId, label: &str, now: Timestamp) -> Notice {
    Notice {
        id: format!("{}/{run}/superseded", pair.name),
        kind: NoticeKind::Superseded,
        pair: pair.name.clone(),
        run: run.clone(),
        at: now,
        subject: format!("[{label}] Daily sync superseded — {}", pair.zone.date(now)),
        text: format!(
            "Production → staging sync {run} was accepted, and run {by} took its place before it ended. What staging holds is told by that run."
        ),
        warnings: Vec::new(),
        runbook: None,
    }
}

/// Writes the notice of a run whose end cannot be recorded: the next tick takes it up again, and what comes of it may differ.
pub fn of_unrecorded_run(checkpoint: &Checkpoint, pair: &Pair, label: &str, now: Timestamp) -> Option<Notice> {
    let told = of_run(checkpoint, pair, label)?;
    Some(Notice {
        id: format!("{}/{}/stuck", checkpoint.pair, checkpoint.run),
        kind: NoticeKind::Stuck,
        at: now,
        subject: format!("[URGENT] [{label}] Daily sync STUCK — {}", checkpoint_date(checkpoint, pair, now)),
        text: format!(
            "The end of run {} could not be recorded, because the store does not answer; the next tick takes the run up again and tells how it \
             ended. As far as is known: {}",
            checkpoint.run, told.text
        ),
        runbook: Some("run-failed.md".to_owned()),
        ..told
    })
}

/// Writes the notice that takes back what was told beside a success, by a tick that did not know of it.
pub fn of_contradiction(success: &Notice, others: &[NoticeKind], now: Timestamp) -> Notice {
    let others = others.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" and ");
    Notice {
        id: format!("{}/{}/corrected", success.pair, success.run),
        kind: NoticeKind::Corrected,
        at: now,
        text: format!("This run was told as {others} as well, by a tick that did not know of its success. What holds: {}", success.text),
        ..success.clone()
    }
}

/// Writes the notice of a run that starts later than it should.
pub fn of_late_start(checkpoint: &Checkpoint, pair: &Pair, label: &str, now: Timestamp) -> Notice {
    let text = format!(
        "Production → staging sync was to start by {} {label_of_zone} and starts at {} {label_of_zone}. It is to be done by {} {label_of_zone}; \
         the outcome will be told. Runbook: runbooks/run-failed.md",
        pair.latest_start,
        pair.zone.clock_time(now),
        pair.deadline,
        label_of_zone = pair.zone_label,
    );
    Notice { text, ..of_late_run(checkpoint, pair, label, now) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ChannelKind;
    use crate::id::Secret;
    use crate::sync::checkpoint::tests::started;
    use crate::sync::checkpoint::{Hold, Restore, Verdict};
    use crate::sync::schedule::tests::pair;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    fn ended(status: RunStatus, step: Step, reason: Option<&str>) -> Checkpoint {
        let mut checkpoint = started();
        checkpoint.verdict = Some(Verdict {
            status,
            at: at("2026-11-21T10:02:31Z"),
            step,
            reason: reason.map(str::to_owned),
            runbook: reason.map(|_| "run-failed.md".to_owned()),
            staging: "Staging holds backup-20261121, not verified.".to_owned(),
        });
        checkpoint
    }

    fn restored(mut checkpoint: Checkpoint) -> Checkpoint {
        checkpoint.restore = Some(Restore {
            displaced_name: "staging-of-20261120".into(),
            displaced_id: None,
            accepted_at: None,
            operations: Vec::new(),
            is_done: true,
        });
        checkpoint
    }

    #[test]
    fn a_success_is_told_in_these_words() {
        let notice = of_run(&restored(ended(RunStatus::Succeeded, Step::Prune, None)), &pair(), "CAIO Hub").expect("a verdict");
        assert_eq!(notice.subject, "[CAIO Hub] Daily sync completed — 2026-11-21");
        assert_eq!(notice.text, "Production → staging sync completed successfully at 5:02 AM ET. Staging data verified.");
    }

    #[test]
    fn a_failure_is_told_in_these_words() {
        let checkpoint = restored(ended(RunStatus::Failed, Step::Restore, Some("operation op-1 ended \"failed\"")));
        let notice = of_run(&checkpoint, &pair(), "CAIO Hub").expect("a verdict");
        assert_eq!(notice.subject, "[URGENT] [CAIO Hub] Daily sync FAILED — 2026-11-21");
        assert_eq!(
            notice.text,
            "Production → staging sync failed at step 4 of 7 (restore staging). Error: operation op-1 ended \"failed\". \
             Staging holds backup-20261121, not verified. Runbook: runbooks/run-failed.md"
        );
    }

    #[test]
    fn a_late_start_a_missed_day_and_a_stuck_pair_are_told() {
        let checkpoint = ended(RunStatus::Succeeded, Step::Prune, None);
        let late = of_late_start(&checkpoint, &pair(), "CAIO Hub", at("2026-11-21T10:42:00Z"));
        assert_eq!(late.subject, "[URGENT] [CAIO Hub] Daily sync LATE — 2026-11-21");
        assert_eq!(
            late.text,
            "Production → staging sync was to start by 05:30 ET and starts at 5:42 AM ET. It is to be done by 06:00 ET; \
             the outcome will be told. Runbook: runbooks/run-failed.md"
        );
        let stuck = of_stuck_pair(&pair(), &checkpoint.run, "read hold/hub: Syntax", "CAIO Hub", at("2026-11-21T10:05:00Z"));
        assert_eq!(
            stuck.text,
            "Nothing is done for pair hub: read hold/hub: Syntax. Staging stays as it is, and no backup is made, until that is mended. \
             Runbook: runbooks/run-failed.md"
        );
        let missed = of_missed_day(&pair(), &checkpoint.run, "CAIO Hub", at("2026-11-21T11:05:00Z"));
        assert_eq!(missed.subject, "[URGENT] [CAIO Hub] Daily sync MISSED — 2026-11-21");
        assert!(missed.text.starts_with("Production → staging sync was not started between 05:00 and 06:00 ET. Staging is untouched"));
    }

    #[test]
    fn a_held_staging_is_told() {
        let mut checkpoint = ended(RunStatus::Succeeded, Step::VerifyBackup, None);
        checkpoint.hold = Some(Hold { reason: "customer demo".into(), until: Some(at("2026-11-22T17:00:00Z")) });
        let notice = of_run(&checkpoint, &pair(), "CAIO Hub").expect("a verdict");
        assert_eq!(
            notice.text,
            "The backup of production was made and verified at 5:02 AM ET. Staging is held as it is until 2026-11-22 12:00 ET: \
             customer demo."
        );
    }

    #[test]
    fn a_signature_is_that_of_the_standards_example() {
        // Source: Standard Webhooks, the example of its reference implementations.
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        assert_eq!(
            sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", "{\"test\": 2432232314}"),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn slack_gets_no_markup_from_a_reason_and_no_text_that_is_too_long() {
        let reason = format!("<!channel> {}", "x".repeat(4000));
        let notice = of_run(&ended(RunStatus::Failed, Step::Restore, Some(&reason)), &pair(), "Hub").expect("a verdict");
        let request = encode(&notice, ChannelKind::Slack, &Secret::new("https://hooks.example.com".into()), None, notice.at);
        let body: serde_json::Value = serde_json::from_str(&request.body).expect("we wrote it");
        let text = body["blocks"][1]["text"]["text"].as_str().expect("a text");
        assert!(text.contains("&lt;!channel&gt;"));
        assert!(text.chars().count() < 3000);
    }

    #[test]
    fn redelivery_waits_longer_each_time() {
        assert_eq!(redelivery_wait(1), Duration::from_secs(5));
        assert_eq!(redelivery_wait(40), Duration::from_hours(24));
    }
}
