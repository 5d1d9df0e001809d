//! Notices, channels, incidents and health.

use super::*;
use crate::fixtures::started;
use crate::record::Channels;
use crate::sync::checkpoint::{History, RunStatus, Verdict};
use crate::sync::incident::Incident;
use crate::sync::notice::{Outgoing, of_missed_day};
use crate::sync::step::Step;

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

/// Returns a memory in which a missed day was told to both channels, of which neither has taken it,
/// and its incident is open.
fn after_a_missed_day() -> Memory {
    let memory = Memory::default();
    let config = config();
    let told = of_missed_day(&config.pairs[0], &started().run, "Hub", at("2026-11-21T11:05:00Z"));
    let incident = Incident::open(&told, None);
    let outgoing = Outgoing::new(told, &config.channels, at("2026-11-21T11:05:00Z"));
    let mut values = memory.values.borrow_mut();
    values.insert("notice/hub/20261121/missed".to_owned(), record::encode(&outgoing));
    values.insert("incident/hub".to_owned(), record::encode(&incident));
    drop(values);
    memory
}

fn stored<T: serde::de::DeserializeOwned>(memory: &Memory, key: &str) -> T {
    record::decode(key, memory.values.borrow().get(key).expect("it is stored"))
        .expect("it is a record")
}

#[test]
fn notices_are_listed_with_what_became_of_them() {
    let memory = after_a_missed_day();
    let (status, body, _) = ask(&memory, &request(Method::Get, "/notices", Some("reader"), ""));
    assert_eq!(status, 200, "{body:#}");
    let notice = &body["notices"][0];
    assert_eq!(
        (notice["id"].as_str(), notice["severity"].as_str()),
        (Some("hub/20261121/missed"), Some("urgent"))
    );
    assert_eq!(
        (notice["deliveries"][0]["channel"].as_str(), notice["deliveries"][0]["state"].as_str()),
        (Some("on-call"), Some("waiting"))
    );
    assert_eq!(memory.asked.get(), 4, "a listing of each of three months, and one read");
    let (status, body, _) =
        ask(&memory, &request(Method::Get, "/notices/hub/20261121/missed", Some("reader"), ""));
    assert_eq!((status, body["deliveries"][0]["log"].as_array().map(Vec::len)), (200, Some(0)));
    for unknown in [
        "/notices/hub/20261121/failed",
        "/notices/hub/tomorrow/missed",
        "/notices/hub/20261121/..%2f",
    ] {
        assert_eq!(
            ask(&memory, &request(Method::Get, unknown, Some("reader"), "")).0,
            404,
            "{unknown}"
        );
    }
}

#[test]
fn a_notice_is_sent_again_with_its_id_to_the_channel_that_is_named() {
    let memory = after_a_missed_day();
    memory.channel_status.set(204);
    let path = "/notices/hub/20261121/missed/redeliver";
    assert_eq!(ask(&memory, &request(Method::Post, path, Some("reader"), "")).0, 403);
    let (status, body, _) =
        ask(&memory, &request(Method::Post, path, Some("admin"), "{\"channel\": \"on-call\"}"));
    assert_eq!(
        (status, body["deliveries"][0]["state"].as_str()),
        (200, Some("delivered")),
        "{body:#}"
    );
    assert_eq!(body["deliveries"][0]["log"][0]["answered"], 204);
    assert_eq!(memory.sent.borrow().iter().filter(|(url, _)| url.ends_with("/webhook")).count(), 1);
    assert!(memory.sent.borrow()[0].1.contains("\"id\":\"hub/20261121/missed\""));
    let stored: Outgoing = stored(&memory, "notice/hub/20261121/missed");
    assert!(stored.deliveries[0].delivered_at.is_some());
    let (status, body, _) =
        ask(&memory, &request(Method::Post, path, Some("admin"), "{\"channel\": \"pager\"}"));
    assert_eq!(
        (status, body["detail"].as_str()),
        (400, Some("channel: it goes to \"on-call\" or \"team\""))
    );
    memory.channel_status.set(500);
    let (_, body, _) =
        ask(&memory, &request(Method::Post, path, Some("admin"), "{\"channel\": \"on-call\"}"));
    assert_eq!(body["deliveries"][0]["reason"], "answered 500", "{body:#}");
    assert_eq!(
        body["deliveries"][0]["log"].as_array().map(Vec::len),
        Some(2),
        "what was tried stays known"
    );
}

#[test]
fn a_channel_is_tried_and_one_that_takes_the_test_is_enabled_again() {
    let memory = Memory::default();
    let gone = r#"{"format":1,"disabled":{"team":{"at":"2026-11-20T10:00:00.000Z","notice":"hub/20261120/failed"}},"outbox":[]}"#;
    memory.values.borrow_mut().insert("channels".to_owned(), gone.to_owned());
    let test = |status: u16| {
        memory.channel_status.set(status);
        ask(&memory, &request(Method::Post, "/channels/team/test", Some("admin"), ""))
    };
    let (status, body, _) = test(404);
    assert_eq!((status, body["detail"].as_str()), (502, Some("channel team: answered 404")));
    assert_eq!(stored::<Channels>(&memory, "channels").disabled.len(), 1);
    let (status, body, _) = test(200);
    assert_eq!((status, body["attempt"]["answered"].as_u64()), (200, Some(200)), "{body:#}");
    assert!(stored::<Channels>(&memory, "channels").disabled.is_empty());
    assert!(memory.sent.borrow()[1].1.contains("takes notices"), "{:?}", memory.sent.borrow());
    let (status, body, _) =
        ask(&memory, &request(Method::Post, "/channels/pager/test", Some("admin"), ""));
    assert_eq!(
        (status, body["detail"].as_str()),
        (404, Some("channel: is \"pager\"; known is \"on-call\" or \"team\""))
    );
}

#[test]
fn an_incident_is_acknowledged_by_its_id_while_it_is_open() {
    let memory = after_a_missed_day();
    let acknowledge = |id: &str, body: &str| {
        ask(
            &memory,
            &request(Method::Post, &format!("/incidents/{id}/acknowledge"), Some("admin"), body),
        )
    };
    assert_eq!(acknowledge("hub-20261120", "").0, 404);
    assert_eq!(acknowledge("hub-20261121", "{\"by\": 7}").0, 400);
    let (status, body, _) = acknowledge("hub-20261121", "{\"by\": \"Dana\"}");
    assert_eq!(
        (status, body["state"].as_str(), body["acknowledged"]["by"].as_str()),
        (200, Some("acknowledged"), Some("Dana"))
    );
    let (_, body, _) = ask(&memory, &request(Method::Get, "/incidents", Some("reader"), ""));
    assert_eq!(
        (body["incidents"][0]["id"].as_str(), body["incidents"][0]["state"].as_str()),
        (Some("hub-20261121"), Some("acknowledged"))
    );
    let mut incident: Incident = stored(&memory, "incident/hub");
    incident.resolution = Some(crate::sync::incident::Resolution {
        at: at("2026-11-21T12:00:00Z"),
        run: RunId::manual(at("2026-11-21T11:58:00Z")),
    });
    memory.values.borrow_mut().insert("incident/hub".to_owned(), record::encode(&incident));
    assert_eq!(acknowledge("hub-20261121", "").0, 409);
}

#[test]
fn health_is_good_until_the_last_day_on_which_a_run_had_to_succeed_is_over_with_its_grace() {
    // It is 09:30 in New York; the deadline was 06:00, and two hours of grace have passed.
    let health = |ran: Option<(&str, &str)>, status: RunStatus| {
        let memory = Memory::default();
        if let Some((started_at, ended_at)) = ran {
            let verdict = Verdict {
                status,
                at: at(ended_at),
                step: Step::Prune,
                reason: None,
                runbook: None,
                staging: String::new(),
            };
            let checkpoint =
                Checkpoint { started_at: at(started_at), verdict: Some(verdict), ..started() };
            memory
                .values
                .borrow_mut()
                .insert("checkpoint/hub".to_owned(), record::encode(&checkpoint));
        }
        let (status, body, _) = ask(&memory, &request(Method::Get, "/health", None, ""));
        (status, body["reason"].as_str().unwrap_or_default().to_owned())
    };
    let today = Some(("2026-11-21T10:00:00Z", "2026-11-21T10:04:00Z"));
    assert_eq!(health(today, RunStatus::Succeeded), (200, String::new()));
    assert_eq!(
        health(None, RunStatus::Succeeded),
        (503, "no run of a pair has succeeded yet".to_owned())
    );
    assert_eq!(health(today, RunStatus::Failed).0, 503);
    let old = health(Some(("2026-11-20T10:00:00Z", "2026-11-20T10:04:00Z")), RunStatus::Succeeded);
    assert_eq!(
        old,
        (
            503,
            "the last success of a pair was at 2026-11-20T10:04:00.000Z; one was due by \
             2026-11-21T11:00:00.000Z"
                .to_owned()
        )
    );
    // It has copied what was there before this morning.
    assert_eq!(
        health(Some(("2026-11-21T09:59:59.999Z", "2026-11-21T10:04:00Z")), RunStatus::Succeeded).0,
        503
    );
}

#[test]
fn health_remembers_a_success_before_the_run_that_is_under_way() {
    let memory = Memory::default();
    let history =
        History { last_success_at: Some(at("2026-11-21T10:04:00Z")), ..History::default() };
    let checkpoint = Checkpoint { history, ..started() };
    memory.values.borrow_mut().insert("checkpoint/hub".to_owned(), record::encode(&checkpoint));
    assert_eq!(ask(&memory, &request(Method::Get, "/health", None, "")).0, 200);
    memory.values.borrow_mut().insert("checkpoint/hub".to_owned(), r#"{"format":99}"#.to_owned());
    let reason = || ask(&memory, &request(Method::Get, "/health", None, "")).1["reason"].clone();
    assert_eq!(
        reason(),
        "a record of a pair was written by a newer version, and the pair is left alone"
    );
    memory.values.borrow_mut().insert("checkpoint/hub".into(), "{".into());
    assert_eq!(reason(), "a record of a pair cannot be read; its next run makes it again");
}

#[test]
fn health_says_that_every_channel_is_gone_and_not_that_one_is() {
    let memory = Memory::default();
    let history =
        History { last_success_at: Some(at("2026-11-21T10:04:00Z")), ..History::default() };
    memory
        .values
        .borrow_mut()
        .insert("checkpoint/hub".to_owned(), record::encode(&Checkpoint { history, ..started() }));
    let health = |gone: &[&str]| {
        let at = "2026-11-20T10:00:00.000Z";
        let disabled: serde_json::Map<String, Value> = gone
            .iter()
            .map(|name| ((*name).to_owned(), json!({"at": at, "notice": "hub/20261120/failed"})))
            .collect();
        let channels = json!({"format": 1, "disabled": disabled, "outbox": []});
        memory.values.borrow_mut().insert("channels".to_owned(), channels.to_string());
        ask(&memory, &request(Method::Get, "/health", None, "")).0
    };
    assert_eq!(
        (health(&[]), health(&["team"]), health(&["on-call"]), health(&["on-call", "team"])),
        (200, 200, 200, 503)
    );
}
