//! What is sent to Slack, Discord, Teams and PagerDuty, against other people's reading of it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use firstlight::config::{Config, NoticeKind};
use firstlight::id::{RunId, Secret};
use firstlight::sync::notice::{Letter, Notice, encode};
use serde_json::{Value, json};

use crate::judge;

/// Everything that some mark-up reads, and characters of one to four bytes.
const HOSTILE: &str = "\\ *b* _i_ ~s~ `c` ||h|| # a\n- b\n+ c\n> d\n1. e <@1> <!here> <#2> \
    <https://i.example|j> [k](https://l.example) @everyone & \
    \"q\" 'r' <at>t</at> {{u}} ${v} é → 🚨 ";

fn notice(
    kind: NoticeKind,
    subject: String,
    text: String,
    warnings: Vec<String>,
) -> Result<Notice> {
    let run = RunId::decode("20261121").context("a date")?;
    Ok(Notice {
        id: format!("hub/20261121/{}", kind.as_str()),
        kind,
        pair: "hub".into(),
        run,
        at: "2026-11-21T10:02:31.250Z".parse()?,
        subject,
        text,
        warnings,
        runbook: Some("run-failed.md".to_owned()),
        incident: kind.is_trouble().then(|| "hub-20261121".to_owned()),
    })
}

/// Every kind of notice as it may be, one in everybody's mark-up, and one that is too long for
/// every receiver.
fn notices() -> Result<Vec<(String, Notice, bool)>> {
    let mut notices = Vec::new();
    for kind in NoticeKind::ALL {
        let text =
            "Production → staging sync failed at step 4 of 7 (restore staging). Error: none \
                recorded."
                .to_owned();
        let subject = "[URGENT] [CAIO Hub] Daily sync FAILED — 2026-11-21".to_owned();
        notices.push((
            kind.as_str().to_owned(),
            notice(
                kind,
                subject,
                text,
                vec!["table public.user_accounts: 2 rows differ".to_owned()],
            )?,
            true,
        ));
    }
    let of = |length: usize| HOSTILE.chars().cycle().take(length).collect::<String>();
    let marked = notice(
        NoticeKind::Failed,
        of(100).replace('\n', " "),
        HOSTILE.trim_end().to_owned(),
        Vec::new(),
    )?;
    notices.push(("mark-up".to_owned(), marked, true));
    notices.push((
        "too long".to_owned(),
        notice(NoticeKind::Late, of(2_000), of(100_000), vec![of(300); 500])?,
        false,
    ));
    Ok(notices)
}

#[test]
fn every_message_is_one_that_other_peoples_readers_take_as_it_is_meant() -> Result<()> {
    let config = Config::from_value(&json!({
        "pairs": [{
            "name": "hub", "project": "old-violet-32930710",
            "production_branch": "br-noisy-breeze-a5e59rrb",
            "staging_branch": "br-calm-river-a5x0q1zz", "role": "neondb_owner",
            "timezone": "America/New_York", "start_at": "05:00",
            "latest_start": "05:30", "deadline": "06:00", "keep_last": 7, "keep_displaced": 1,
        }],
        "channels": [
            {"name": "slack", "kind": "slack", "url_secret": "URL"},
            {"name": "discord", "kind": "discord", "url_secret": "URL"},
            {"name": "teams", "kind": "teams", "url_secret": "URL"},
            {"name": "pagerduty", "kind": "pagerduty", "routing_key_secret": "KEY"},
        ],
    }))?;
    let secrets =
        [("URL", "https://hook.example.com/a"), ("KEY", "0123456789abcdef0123456789abcdef")];
    let secrets: BTreeMap<String, Secret> =
        secrets.map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned()))).into();
    let notices = notices()?;
    let mut letters = Vec::new();
    for (name, notice, is_whole) in &notices {
        for channel in &config.channels {
            for (public_url, runbooks_url) in [
                (None, None),
                (Some("https://firstlight.example.com"), Some("https://git.example.com/runbooks")),
            ] {
                let letter = Letter { notice, label: "CAIO Hub", public_url, runbooks_url };
                let body: Value = serde_json::from_str(
                    &encode(&letter, &channel.receiver, &secrets, false, notice.at)?.body,
                )?;
                let plain = json!({"subject": notice.subject, "text": notice.text});
                letters.push(json!({"channel": channel.name, "name": name, "isWhole": is_whole,
                    "plain": plain, "body": body}));
            }
        }
    }
    let text = judge("receivers.mjs", &letters)?;
    assert!(text.contains(&format!("ok {} letters", (NoticeKind::ALL.len() + 2) * 8)), "{text}");
    Ok(())
}
