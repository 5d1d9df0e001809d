//! The examples of the gallery: every notice that the functions of `notice` write, and when it is
//! sent.

use anyhow::{Context as _, Result};
use firstlight::config::{NoticeKind, Pair};
use firstlight::id::{ChannelName, Lsn, PairName, RunId};
use firstlight::sync::checkpoint::{
    Checkpoint, Goal, History, Hold, Restore, RestoreTest, RunStatus, SnapshotOutcome,
    SnapshotWork, Start, Verdict,
};
use firstlight::sync::incident::{self, Acknowledgement, Due, Incident, Occasion, Resolution};
use firstlight::sync::notice::{self, Notice};
use firstlight::sync::step::Step;
use firstlight::time::Timestamp;

use crate::LABEL;

/// A notice and when it is sent.
pub(crate) struct Example {
    pub(crate) occasion: &'static str,
    pub(crate) notice: Notice,
}

/// Returns every notice, in the order of the kinds.
pub(crate) fn examples(pair: &Pair) -> Result<Vec<Example>> {
    let mut examples: Vec<(&'static str, Notice)> = Vec::new();
    of_ends(pair, &mut examples)?;
    of_times(pair, &mut examples)?;
    of_records(pair, &mut examples)?;
    of_incidents(pair, &mut examples)?;
    Ok(examples
        .into_iter()
        .map(|(occasion, notice)| Example { occasion, notice: taken_up(notice) })
        .collect())
}

/// Adds what is told of a run's end.
fn of_ends(pair: &Pair, examples: &mut Vec<(&'static str, Notice)>) -> Result<()> {
    let told = |checkpoint: Checkpoint| {
        notice::of_run(&checkpoint, pair, LABEL).context("the run has ended")
    };
    let untouched = "Staging is untouched.";
    examples.push(("Staging is a verified copy.", told(succeeded(pair)?)?));
    let warned = Checkpoint {
        warnings: vec![
            "roles that staging had and production does not have are gone: app_preview".to_owned(),
        ],
        ..succeeded(pair)?
    };
    examples.push(("Staging is a verified copy, and there is something to know.", told(warned)?));
    let late = Checkpoint {
        verdict: succeeded(pair)?
            .verdict
            .map(|verdict| Verdict { at: verdict.at + chrono::TimeDelta::minutes(71), ..verdict }),
        ..succeeded(pair)?
    };
    examples.push(("Staging is a verified copy, after the deadline.", told(late)?));
    let hold =
        Hold { reason: "customer demo".to_owned(), until: Some(at("2026-11-22T17:00:00Z")?) };
    let backed_up = ended(pair, RunStatus::Succeeded, Step::VerifyBackup, None, untouched)?;
    examples.push((
        "Staging is held, so that a backup is all there is to make.",
        told(Checkpoint { hold: Some(hold), ..backed_up.clone() })?,
    ));
    examples.push((
        "Somebody asked for a backup alone.",
        told(Checkpoint { goal: Goal::VerifyBackup, is_manual: true, ..backed_up })?,
    ));
    examples.push(("The run failed.", told(failed(pair)?)?));
    let cancelled = ended(
        pair,
        RunStatus::Cancelled,
        Step::Backup,
        Some("cancelled by Dana before the backup was made: production is being migrated"),
        untouched,
    )?;
    examples.push(("Somebody cancelled the run, or its settings have changed.", told(cancelled)?));
    let reason = "staging was restored by run 20261121T100200Z";
    examples.push((
        "Another run has restored staging since.",
        told(ended(
            pair,
            RunStatus::Superseded,
            Step::VerifyStaging,
            Some(reason),
            "Staging is a child of br-fresh-dew-a5m2k8zy, not of this run's backup.",
        )?)?,
    ));
    let (first, second) =
        (RunId::manual(at("2026-11-21T14:30:00Z")?), RunId::manual(at("2026-11-21T14:31:00Z")?));
    examples.push((
        "A run that was accepted lost its place to another.",
        notice::of_overtaken_run(pair, &first, &second, LABEL, at("2026-11-21T14:32:00Z")?),
    ));
    let success = told(succeeded(pair)?)?;
    let corrected =
        notice::of_contradiction(&success, &[NoticeKind::Failed], at("2026-11-21T10:06:00Z")?);
    examples.push(("A success after a failure was told for the same run.", corrected));
    Ok(())
}

/// Adds what is told of a run that is not where it should be.
fn of_times(pair: &Pair, examples: &mut Vec<(&'static str, Notice)>) -> Result<()> {
    examples.push((
        "No run was started that day.",
        notice::of_missed_day(pair, &run()?, LABEL, at("2026-11-21T11:00:01Z")?),
    ));
    let others = [PairName::from("shop"), PairName::from("billing")];
    let crowded_out =
        notice::of_crowded_out_day(pair, &run()?, &others, LABEL, at("2026-11-21T11:00:01Z")?);
    examples.push((
        "No run was started that day, because those of other pairs were driven.",
        crowded_out,
    ));
    examples.push((
        "The run starts later than it should.",
        notice::of_late_start(&started(pair)?, pair, LABEL, at("2026-11-21T10:42:00Z")?),
    ));
    let restoring = under_way(pair, Step::Restore)?;
    let (expected_at, now) = (at("2026-11-21T11:07:00Z")?, at("2026-11-21T10:50:00Z")?);
    examples.push((
        "The run is not expected to be done by its deadline.",
        notice::of_at_risk(&restoring, pair, LABEL, expected_at, now),
    ));
    examples.push((
        "The deadline passes while the run is under way.",
        notice::of_late_run(&restoring, pair, LABEL, at("2026-11-21T11:00:03Z")?),
    ));
    let missed =
        notice::of_missed_deadline(pair, &failed(pair)?.run, LABEL, at("2026-11-21T11:00:03Z")?);
    examples.push(("The deadline passes after the run has failed.", missed));
    Ok(())
}

/// Adds what is told of records, snapshots and settings.
fn of_records(pair: &Pair, examples: &mut Vec<(&'static str, Notice)>) -> Result<()> {
    let now = at("2026-11-21T10:05:00Z")?;
    let error = "read hold/hub: expected value at line 1 column 1";
    examples.push((
        "A record of the pair cannot be read.",
        notice::of_stuck_pair(pair, &run()?, error, LABEL, now),
    ));
    let error = "the store did not answer: GET failed: 429 Too Many Requests";
    let silent = notice::of_silent_store(pair, error, at("2026-11-21T09:05:00Z")?, LABEL, now);
    examples.push(("Workers KV cannot be read for an hour.", silent));
    let unrecorded = notice::of_unrecorded_run(&succeeded(pair)?, pair, LABEL, now)
        .context("the run has ended")?;
    examples.push(("The end of a run cannot be recorded.", unrecorded));
    let outcome = SnapshotOutcome::Failed {
        reason: "Neon has 10 snapshots of the project, and allows 10".to_owned(),
        is_final: false,
    };
    let snapshot = notice::of_snapshot(&with_snapshot(pair, outcome, false)?, pair, LABEL, now)
        .context("it is told")?;
    examples.push(("A backup is not kept by a snapshot, although a rule wants one.", snapshot));
    let outcome = SnapshotOutcome::Verified { tables: 48, rows: 1_204_511 };
    let snapshot = notice::of_snapshot(
        &with_snapshot(pair, outcome, true)?,
        pair,
        LABEL,
        at("2026-11-21T22:06:00Z")?,
    )
    .context("it is told")?;
    examples.push(("It is, after that was told otherwise.", snapshot));
    let problems =
        ["channels[0].url_secret: names secret SLACK_WEBHOOK_URL, which is not set; set it \
            with `wrangler secret put SLACK_WEBHOOK_URL`"
            .to_owned()];
    examples.push((
        "A channel cannot be used as it is configured.",
        notice::of_misconfigured(pair, &run()?, &problems, LABEL, now),
    ));
    Ok(())
}

/// Adds what is told of incidents and channels.
fn of_incidents(pair: &Pair, examples: &mut Vec<(&'static str, Notice)>) -> Result<()> {
    let failure =
        taken_up(notice::of_run(&failed(pair)?, pair, LABEL).context("the run has ended")?);
    let incident = Incident::open(&failure, None);
    let level =
        Due { occasion: Occasion::Level(1), at: at("2026-11-21T10:19:12Z")?, channels: None };
    let escalated =
        notice::of_escalation(&incident, &level, pair, LABEL, at("2026-11-21T10:19:12Z")?);
    examples.push(("Nobody has acknowledged an incident.", escalated));
    let acknowledged = Acknowledgement {
        format: 1,
        incident: incident.id.clone(),
        at: at("2026-11-21T10:25:00Z")?,
        by: "Dana, on call".to_owned(),
    };
    let known = Incident {
        acknowledged: Some(acknowledged),
        joined: vec![failure.id.clone(), "hub/20261121/late".to_owned()],
        ..incident.clone()
    };
    let day = Due {
        occasion: Occasion::BusinessDay(run()?.date()),
        at: at("2026-11-21T14:00:00Z")?,
        channels: None,
    };
    examples.push((
        "An incident is open when the business day begins.",
        notice::of_escalation(&known, &day, pair, LABEL, at("2026-11-21T14:00:00Z")?),
    ));
    let resolution = Resolution {
        at: at("2026-11-21T14:36:40Z")?,
        run: RunId::manual(at("2026-11-21T14:31:00Z")?),
    };
    examples
        .push(("An incident is over.", notice::of_resolution(&incident, &resolution, pair, LABEL)));
    let channel = ChannelName::from("team");
    let gone = notice::of_disabled_channel(&failure, &channel, LABEL, at("2026-11-21T10:04:13Z")?);
    examples.push(("A channel has answered that its address is gone; the others are told.", gone));
    examples.push((
        "Somebody tries a channel.",
        notice::of_test(pair, &channel, LABEL, at("2026-11-21T14:30:00Z")?),
    ));
    Ok(())
}

/// Returns what a channel with a digest is told once a day.
pub(crate) fn digest(pair: &Pair, examples: &[Example]) -> Result<Notice> {
    let gathered: Vec<&Notice> = [NoticeKind::Succeeded, NoticeKind::AtRisk]
        .map(|kind| first(examples, kind))
        .into_iter()
        .collect::<Result<_>>()?;
    let channel = ChannelName::from("director");
    let digest = notice::of_digest(
        &gathered,
        &channel,
        LABEL,
        pair.zone.instant(run()?.date(), "08:00".parse().ok().context("a time")?),
    );
    digest.context("something was gathered")
}

/// Returns the first notice of a kind.
pub(crate) fn first(examples: &[Example], kind: NoticeKind) -> Result<&Notice> {
    let found = examples.iter().find(|example| example.notice.kind == kind);
    Ok(&found.with_context(|| format!("find a notice of kind {}", kind.as_str()))?.notice)
}

fn at(text: &str) -> Result<Timestamp> {
    text.parse().with_context(|| format!("read {text}"))
}

pub(crate) fn run() -> Result<RunId> {
    RunId::decode("20261121").context("read the date of the run")
}

/// Returns the run of the example, right after its start.
fn started(pair: &Pair) -> Result<Checkpoint> {
    let start = Start {
        pair: pair.name.clone(),
        run: run()?,
        is_manual: false,
        goal: Goal::Staging,
        hold: None,
        give_up_at: at("2026-11-21T12:00:00Z")?,
        settings: pair.settings.clone(),
        history: History::default(),
    };
    Ok(Checkpoint::start(start, at("2026-11-21T10:00:00Z")?))
}

/// Returns the run of the example at a step.
fn under_way(pair: &Pair, step: Step) -> Result<Checkpoint> {
    Ok(Checkpoint { step, ..started(pair)? })
}

/// Returns the run of the example at its end.
fn ended(
    pair: &Pair,
    status: RunStatus,
    step: Step,
    reason: Option<&str>,
    staging: &str,
) -> Result<Checkpoint> {
    let verdict = Verdict {
        status,
        at: at("2026-11-21T10:04:12Z")?,
        step,
        reason: reason.map(str::to_owned),
        runbook: (status == RunStatus::Failed).then(|| "run-failed.md".to_owned()),
        staging: staging.to_owned(),
    };
    let restore = Restore {
        displaced_name: "staging-of-20261120".into(),
        displaced_id: None,
        accepted_at: None,
        before: None,
        operations: Vec::new(),
        is_done: true,
    };
    Ok(Checkpoint {
        verdict: Some(verdict),
        restore: (step > Step::VerifyBackup).then_some(restore),
        ..under_way(pair, step)?
    })
}

fn succeeded(pair: &Pair) -> Result<Checkpoint> {
    ended(pair, RunStatus::Succeeded, Step::Prune, None, "Staging holds backup-20261121, verified.")
}

fn failed(pair: &Pair) -> Result<Checkpoint> {
    let reason = "operation 8a4c1f60-4be2-4d2c-9f0e-6f4f1f7e2a11 ended \"failed\" after 94 s";
    let checkpoint = ended(
        pair,
        RunStatus::Failed,
        Step::Restore,
        Some(reason),
        "Staging is a child of br-noisy-breeze-a5e59rrb, not of this run's backup.",
    )?;
    Ok(Checkpoint {
        warnings: vec![
            "the displaced branch was not found; the passwords of staging's roles were not looked \
                at"
            .to_owned(),
        ],
        ..checkpoint
    })
}

/// Returns the run of the example with a snapshot that came to something.
fn with_snapshot(pair: &Pair, outcome: SnapshotOutcome, has_failed: bool) -> Result<Checkpoint> {
    let work = SnapshotWork {
        name: "backup-20261121".into(),
        slug: None,
        lsn: Lsn(0x01DE_2850),
        made_at: at("2026-11-21T10:00:05Z")?,
        begun_at: at("2026-11-21T10:05:00Z")?,
        is_noted: true,
        id: None,
        operations: Vec::new(),
        is_taken: true,
        test: RestoreTest::new("test-20261121".into()),
        outcome: Some(outcome),
        is_told: false,
        has_failed,
    };
    let mut checkpoint = succeeded(pair)?;
    checkpoint.prune.snapshot = Some(Box::new(work));
    Ok(checkpoint)
}

/// Returns a notice with its incident: the one that it opens, where it has none and opens one.
fn taken_up(notice: Notice) -> Notice {
    let opened = incident::take_up(None, &notice).map(|incident| incident.id);
    Notice { incident: notice.incident.clone().or(opened), ..notice }
}
