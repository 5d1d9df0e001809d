//! Channels of every kind, and what is watched from outside: the built wasm against a receiver on
//! loopback.

use anyhow::{Context as _, Result};
use harness::emulator::Options;
use harness::sink::Received;
use harness::stack::Stack;
use serde_json::{Value, json};

use crate::sync::SEED;

/// Starts a Worker with a channel of every kind.
fn stack() -> Result<Stack> {
    let options = Options { seed: SEED.to_owned(), ..Options::default() };
    Stack::start_with(&options, &|settings, _, sink| {
        let more = json!([
            {"name": "chat", "kind": "discord", "url_secret": "DISCORD_URL"},
            {"name": "rooms", "kind": "teams", "url_secret": "TEAMS_URL"},
            {"name": "pager", "kind": "pagerduty", "routing_key_secret": "ROUTING_KEY",
                "url": format!("{}/pagerduty", sink.url)},
            {"name": "director", "kind": "email", "from": "firstlight@example.com",
                "to": ["director@example.com"]},
            {"name": "board", "kind": "http", "url_secret": "BOARD_URL", "method": "PUT",
                "body": "{\"line\": \"{{subject}}\"}"},
            {"name": "outside", "kind": "healthcheck", "url_secret": "CHECK_URL"},
        ]);
        if let (Some(channels), Some(more)) = (settings["channels"].as_array_mut(), more.as_array())
        {
            channels.extend(more.iter().cloned());
        }
    })
}

fn at<'a>(received: &'a [Received], path: &str) -> Vec<&'a Received> {
    received.iter().filter(|received| received.path.starts_with(path)).collect()
}

#[test]
fn a_success_reaches_a_channel_of_every_kind_and_the_check_is_pinged_twice() -> Result<()> {
    let stack = stack()?;
    let report = stack.run_to_end(3)?;
    assert_eq!(report["status"], "succeeded", "{report:#}");
    let received = stack.sink.received();

    let board = at(&received, "/board");
    assert_eq!(board.len(), 1);
    assert!(
        board[0].body["line"]
            .as_str()
            .unwrap_or_default()
            .starts_with("[CAIO Hub] Daily sync completed — "),
        "{board:#?}"
    );
    assert_eq!(at(&received, "/discord").len(), 1);
    assert_eq!(at(&received, "/discord")[0].body["embeds"][0]["title"], board[0].body["line"]);
    assert_eq!(
        at(&received, "/teams")[0].body["attachments"][0]["content"]["type"],
        "AdaptiveCard"
    );
    assert!(at(&received, "/pagerduty").is_empty(), "a success opens nothing");
    let pings = at(&received, "/check");
    let run = |ping: &Received| ping.path.split_once("rid=").map(|(_, id)| id.to_owned());
    assert!(
        pings.len() == 2
            && pings[0].path.starts_with("/check/start?rid=")
            && pings[1].path.starts_with("/check?rid="),
        "{pings:#?}"
    );
    assert_eq!(run(pings[0]), run(pings[1]));

    // wrangler writes what it would have sent into files, and says where.
    let output = stack.worker.output();
    let file = output
        .lines()
        .find_map(|line| line.trim().strip_prefix("Text: "))
        .context("find the e-mail")?;
    let text = std::fs::read_to_string(file.trim())?;
    assert!(text.starts_with("Production → staging sync completed successfully at "), "{text}");
    assert!(output.contains("director@example.com"), "{output}");
    Ok(())
}

#[test]
fn a_failure_opens_an_incident_at_the_pager_and_the_next_good_run_resolves_it() -> Result<()> {
    let stack = stack()?;
    stack.emulator.fault("getProject", 1, &json!({"kind": "refuse", "status": 401}))?;
    let report = stack.run_to_end(3)?;
    assert_eq!(report["status"], "failed", "{report:#}");
    let id = stack.worker.run_now()?;
    for _ in 0..3 {
        if !stack.worker.report(&id)?["prune"].is_null() {
            break;
        }
        stack.worker.cron()?;
    }
    stack.worker.cron()?;
    let received = stack.sink.received();
    let events: Vec<(&Value, &Value)> = at(&received, "/pagerduty")
        .into_iter()
        .map(|event| (&event.body["event_action"], &event.body["dedup_key"]))
        .collect();
    assert_eq!(events.first().map(|(action, _)| *action), Some(&json!("trigger")), "{events:#?}");
    assert_eq!(events.last().map(|(action, _)| *action), Some(&json!("resolve")), "{events:#?}");
    assert!(events.iter().all(|(_, key)| *key == events[0].1), "{events:#?}");
    let pings = at(&received, "/check");
    assert!(pings.iter().any(|ping| ping.path.starts_with("/check/fail?rid=")), "{pings:#?}");
    Ok(())
}

#[test]
fn a_receiver_whose_answer_has_no_end_has_taken_the_notice() -> Result<()> {
    let stack = Stack::start_with(
        &Options { seed: SEED.to_owned(), ..Options::default() },
        &|settings, _, _| {
            if let Some(channels) = settings["channels"].as_array_mut() {
                // Slack would have to say "ok".
                let body = "{\"text\": \"{{text}}\"}";
                channels
                    .push(json!({"name": "talker", "kind": "http", "url_secret": "ENDLESS_URL",
                        "body": body}));
            }
        },
    )?;
    stack.sink.respond(200);
    let answer = stack.worker.call("POST", "/channels/talker/test", None)?;
    let attempt = &answer.json()["attempt"];
    assert_eq!(
        (answer.status, &attempt["answered"], &attempt["error"]),
        (200, &json!(200), &Value::Null),
        "{}",
        answer.body
    );
    Ok(())
}

#[test]
fn the_wasm_stays_under_eight_hundred_and_fifty_kilobytes() -> Result<()> {
    let script = "process.stdout.write(String(require('zlib').gzipSync(require('fs').readFileSync('build/index_bg.wasm'), {level: 9}).length))";
    let node = std::process::Command::new(harness::paths::node())
        .args(["-e", script])
        .current_dir(harness::paths::root())
        .output()?;
    let size: usize = String::from_utf8(node.stdout)?.parse().context("read the size")?;
    assert!(size < 850_000, "{size} bytes");
    Ok(())
}
