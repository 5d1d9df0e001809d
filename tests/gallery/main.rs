//! The gallery of notices: every message that a person can see, as a page.
//!
//! In: the functions that write notices, with the example that the documents use. Out:
//! `runbooks/notices.md`, which is compared with what the code writes byte by byte, so that it is a
//! snapshot of every message as well. `cargo xtask gallery` writes it anew.
//!
//! Invariants: the page holds no secret; where a secret is sent, the page shows a placeholder in
//! angle brackets.

mod examples;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use firstlight::config::{Channel, Config, NoticeKind, Receiver};
use firstlight::id::Secret;
use firstlight::port::HttpRequest;
use firstlight::sync::notice::{Letter, Notice, encode, start_ping};
use serde_json::{Value, json};

use self::examples::{Example, digest, examples, first, run};

/// The variable with which `cargo xtask gallery` has the page written instead of compared.
const WRITE: &str = "FIRSTLIGHT_WRITE_GALLERY";

/// What makes the page again.
const COMMAND: &str = "cargo xtask gallery";

/// Stands in brackets before every subject.
const LABEL: &str = "CAIO Hub";

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
                "runbooks/notices.md, line {number}: the code writes\n  {}\n\
                    and the page has\n  {}\nTo write the page anew: {COMMAND}",
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

/// Renders the page.
fn page() -> Result<String> {
    let config = config()?;
    let pair = &config.pairs[0];
    let examples = examples(pair)?;
    let mut page = String::from(
        "# Notices\n\n\
            Every message that Firstlight sends, word for word. This page is written by \
            `cargo xtask gallery` and compared with the code by a test: change the code, not the \
            page.\n\n\
            The examples use one project everywhere: label \"CAIO Hub\", pair `hub`, run \
            `20261121`, times of New York (ET), deadline 06:00. What stands in angle brackets is \
            a secret.\n\n\
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
