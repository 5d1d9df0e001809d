//! The gallery of notices: every message that a person can see, as a page.
//!
//! In: the functions that write notices, with the example that the documents use. Out:
//! `runbooks/notices.md`, which is compared with what the code writes byte by byte, so that it is a
//! snapshot of every message as well. `cargo xtask gallery` writes it anew.
//!
//! Invariants: the page holds no secret; where a secret is sent, the page shows a placeholder in
//! angle brackets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use firstlight::config::{Channel, Config, NoticeKind, Pair, Receiver};
use firstlight::id::{ChannelName, Lsn, PairName, RunId, Secret};
use firstlight::port::HttpRequest;
use firstlight::sync::checkpoint::{
    Checkpoint, Goal, History, Hold, Restore, RestoreTest, RunStatus, SnapshotOutcome,
    SnapshotWork, Start, Verdict,
};
use firstlight::sync::incident::{self, Acknowledgement, Due, Incident, Occasion, Resolution};
use firstlight::sync::notice::{self, Letter, Notice, encode, start_ping};
use firstlight::sync::step::Step;
use firstlight::time::Timestamp;
use serde_json::{Value, json};

/// The variable with which `cargo xtask gallery` has the page written instead of compared.
const WRITE: &str = "FIRSTLIGHT_WRITE_GALLERY";

/// What makes the page again.
const COMMAND: &str = "cargo xtask gallery";

/// Stands in brackets before every subject.
const LABEL: &str = "CAIO Hub";

/// A notice and when it is sent.
struct Example {
    occasion: &'static str,
    notice: Notice,
}

#[test]
fn the_page_shows_every_message_as_it_is_written() -> Result<()> {
    let (page, path) = (page()?, root().join("runbooks/notices.md"));
    if std::env::var_os(WRITE).is_some() {
        return std::fs::write(&path, page).with_context(|| format!("write {}", path.display()));
    }
    let kept = std::fs::read_to_string(&path)
        .with_context(|| format!("read {}; `{COMMAND}` writes it", path.display()))?;
    let (mut written, mut found) = (page.lines(), kept.lines());
    for number in 1.. {
        match (written.next(), found.next()) {
            (None, None) => break,
            (written, found) if written == found => {}
            (written, found) => bail!(
                "runbooks/notices.md, line {number}: the code writes\n  {}\nand the page \
                    has\n  {}\nTo write the page anew: {COMMAND}",
                written.unwrap_or("nothing more"),
                found.unwrap_or("nothing more")
            ),
        }
    }
    ensure!(
        page == kept,
        "runbooks/notices.md differs in the ends of its lines. To write the page anew: {COMMAND}"
    );
    Ok(())
}

#[test]
fn every_kind_of_notice_is_on_the_page() -> Result<()> {
    let page = page()?;
    for kind in NoticeKind::ALL {
        let heading = format!("\n### {} ({})\n", kind.as_str(), kind.severity().as_str());
        ensure!(page.contains(&heading), "no notice of kind {} is shown", kind.as_str());
    }
    Ok(())
}

#[test]
fn no_message_holds_a_secret_but_the_routing_key_where_it_belongs() -> Result<()> {
    const MARK: &str = "not-for-anybodys-eyes";
    let config = config()?;
    let secrets: BTreeMap<String, Secret> = config
        .secret_names()
        .into_iter()
        .map(|name| (name, Secret::new(format!("https://hook.example.com/{MARK}"))))
        .collect();
    for example in examples(&config.pairs[0])? {
        for channel in &config.channels {
            let mut request = request(&config, &example.notice, channel, &secrets)?;
            if matches!(channel.receiver, Receiver::PagerDuty { .. }) {
                let mut body: Value = serde_json::from_str(&request.body)?;
                let key = body["routing_key"].take();
                ensure!(
                    key.as_str().is_some_and(|key| key.contains(MARK)),
                    "the routing key is not sent"
                );
                request.body = body.to_string();
            }
            let shown = request.headers.iter().any(|(_, value)| value.contains(MARK))
                || request.body.contains(MARK);
            ensure!(!shown, "{} shows a secret in notice {}", channel.name, example.notice.id);
        }
    }
    Ok(())
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the settings of the example: one pair, and a channel of each kind.
fn config() -> Result<Config> {
    let value = json!({
        "label": LABEL,
        "public_url": "https://firstlight.example.com",
        "runbooks_url": "https://git.example.com/firstlight/runbooks",
        "pairs": [{
            "name": "hub", "project": "old-violet-32930710",
            "production_branch": "br-noisy-breeze-a5e59rrb",
            "staging_branch": "br-calm-river-a5x0q1zz", "role": "neondb_owner",
            "timezone": "America/New_York", "zone_label": "ET",
            "start_at": "05:00", "latest_start": "05:30", "deadline": "06:00", "keep_last": 2,
            "keep_displaced": 1, "keep_at_least": 2
        }],
        "channels": [
            {"name": "programs", "kind": "webhook", "url_secret": "WEBHOOK_URL",
                "signing_secret": ["SIGNING_SECRET", "FORMER_SIGNING_SECRET"]},
            {"name": "team", "kind": "slack", "url_secret": "SLACK_WEBHOOK_URL"},
            {"name": "community", "kind": "discord", "url_secret": "DISCORD_WEBHOOK_URL"},
            {"name": "office", "kind": "teams", "url_secret": "TEAMS_WEBHOOK_URL"},
            {"name": "on-call", "kind": "pagerduty", "routing_key_secret": "PAGERDUTY_ROUTING_KEY"},
            {"name": "director", "kind": "email", "from": "firstlight@example.com",
                "to": ["director@example.com", "dana@example.com"]},
            {
                "name": "phones", "kind": "http", "url_secret": "PHONES_URL",
                "headers": {"x-source": "firstlight"},
                "secret_headers": {"authorization": "PHONES_TOKEN"},
                "body": "{\"title\": \"{{subject}}\", \"message\": \"{{text}}\", \"priority\": \
                    \"{{severity}}\", \"open\": \"{{link}}\"}"
            },
            {"name": "check", "kind": "healthcheck", "url_secret": "HEALTHCHECK_URL"}
        ]
    });
    Ok(Config::from_value(&value)?)
}

/// Returns what the page shows in the place of each secret.
fn placeholders() -> BTreeMap<String, Secret> {
    let secrets = [
        ("WEBHOOK_URL", "https://example.com/<address>"),
        ("SIGNING_SECRET", "<signing secret>"),
        ("FORMER_SIGNING_SECRET", "<former signing secret>"),
        ("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/<token>"),
        ("DISCORD_WEBHOOK_URL", "https://discord.com/api/webhooks/<id>/<token>"),
        ("TEAMS_WEBHOOK_URL", "https://example.com/workflows/<token>"),
        ("PAGERDUTY_ROUTING_KEY", "<routing key>"),
        ("PHONES_URL", "https://phones.example.com/<account>"),
        ("PHONES_TOKEN", "<token>"),
        ("HEALTHCHECK_URL", "https://hc-ping.com/<check>"),
    ];
    secrets
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned())))
        .collect()
}

fn request(
    config: &Config,
    notice: &Notice,
    channel: &Channel,
    secrets: &BTreeMap<String, Secret>,
) -> Result<HttpRequest> {
    let (public_url, runbooks_url) = (config.public_url.as_deref(), config.runbooks_url.as_deref());
    let letter = Letter { notice, label: &config.label, public_url, runbooks_url };
    encode(&letter, &channel.receiver, secrets, false, notice.at)
        .with_context(|| format!("write {} for {}", notice.id, channel.name))
}

fn at(text: &str) -> Result<Timestamp> {
    text.parse().with_context(|| format!("read {text}"))
}

fn run() -> Result<RunId> {
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
            "the displaced branch was not found; the passwords of staging's roles were not \
                looked at"
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

/// Returns every notice, in the order of the kinds.
fn examples(pair: &Pair) -> Result<Vec<Example>> {
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
fn digest(pair: &Pair, examples: &[Example]) -> Result<Notice> {
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

fn first(examples: &[Example], kind: NoticeKind) -> Result<&Notice> {
    let found = examples.iter().find(|example| example.notice.kind == kind);
    Ok(&found.with_context(|| format!("find a notice of kind {}", kind.as_str()))?.notice)
}

/// Renders the page.
fn page() -> Result<String> {
    let config = config()?;
    let pair = &config.pairs[0];
    let examples = examples(pair)?;
    let mut page = String::from(
        "# Notices\n\n\
            Every message that Firstlight sends, word for word. This page is written by `cargo \
            xtask gallery` and compared with the code by a test: change the \
            code, not the page.\n\n\
            The examples use one project everywhere: label \"CAIO Hub\", pair `hub`, run \
            `20261121`, times of New York (ET), deadline 06:00. What stands in \
            angle brackets is a secret.\n\n\
            ## What is told\n\n\
            Each with its kind, as channels choose it, and its severity.\n",
    );
    for kind in NoticeKind::ALL {
        write!(page, "\n### {} ({})\n", kind.as_str(), kind.severity().as_str())?;
        for example in examples.iter().filter(|example| example.notice.kind == kind) {
            write!(page, "\n{}\n\n```text\n{}```\n", example.occasion, words(&example.notice))?;
        }
    }
    write!(
        page,
        "\n### Several at once\n\nA channel with a digest hears what is not urgent once a \
            day.\n\n```text\n{}```\n",
        words(&digest(pair, &examples)?)
    )?;
    page.push_str(
        "\n## As each channel is told\n\nThe whole request, with its JSON on several lines.\n",
    );
    for channel in &config.channels {
        write!(page, "\n{}", as_told(&config, channel, &examples)?)?;
    }
    Ok(page)
}

/// Renders a notice as people read it.
fn words(notice: &Notice) -> String {
    let mut words = format!("{}\n\n{}\n", notice.subject, notice.text);
    for (index, warning) in notice.warnings.iter().enumerate() {
        words.push_str(if index == 0 { "\n- " } else { "- " });
        words.push_str(warning);
        words.push('\n');
    }
    words
}

/// Renders what a channel is told.
fn as_told(config: &Config, channel: &Channel, examples: &[Example]) -> Result<String> {
    const SHOWN: [(&str, NoticeKind); 7] = [
        ("Success", NoticeKind::Succeeded),
        ("Failure", NoticeKind::Failed),
        ("At risk", NoticeKind::AtRisk),
        ("Late", NoticeKind::Late),
        ("Missed", NoticeKind::Missed),
        ("Escalated", NoticeKind::Escalated),
        ("Resolved", NoticeKind::Resolved),
    ];
    let secrets = placeholders();
    let mut text = format!("### {}\n", channel.receiver.kind());
    if let Receiver::Healthcheck { url_secret } = &channel.receiver {
        let url = secrets.get(url_secret).context("the address of the check")?;
        write!(
            text,
            "\n#### Start\n\n```http\n{}```\n",
            rendered(&start_ping(url, &config.pairs[0].name, &run()?))?
        )?;
    }
    for (title, kind) in SHOWN {
        write!(text, "\n#### {title}\n\n")?;
        let notice = first(examples, kind)?;
        if !channel.hears(&notice.pair, kind) {
            text.push_str("Is not sent to a channel of this kind.\n");
            continue;
        }
        let request = request(config, notice, channel, &secrets)?;
        write!(text, "```http\n{}```\n", rendered(&request)?)?;
        if matches!(channel.receiver, Receiver::Email { .. }) {
            let body: Value = serde_json::from_str(&request.body)?;
            write!(
                text,
                "\nAs it is read:\n\n```text\n{}```\n",
                body["text"].as_str().context("the text of the message")?
            )?;
        }
    }
    Ok(text)
}

/// Renders a request, JSON on several lines.
fn rendered(request: &HttpRequest) -> Result<String> {
    let mut text = format!("{} {}\n", request.method.as_str(), request.url);
    for (name, value) in &request.headers {
        writeln!(text, "{name}: {value}")?;
    }
    for (name, value) in &request.secret_headers {
        writeln!(text, "{name}: {}", value.reveal())?;
    }
    if !request.body.is_empty() {
        let json = serde_json::from_str::<Value>(&request.body)
            .and_then(|body| serde_json::to_string_pretty(&body));
        let body = json.unwrap_or_else(|_| request.body.clone());
        write!(text, "\n{}\n", body.trim_end())?;
    }
    Ok(text)
}
