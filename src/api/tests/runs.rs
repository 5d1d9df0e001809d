//! Starting runs, where the store shows late what was written.

use super::*;

const RUN: &str = "20261121T143000Z";

fn post(memory: &Memory) -> (u16, Value, bool) {
    ask(memory, &request(Method::Post, "/runs", Some("admin"), ""))
}

/// Issue 19 F: of thirteen pairs of starts at one instant, eight were both accepted, under one id.
#[test]
fn of_two_starts_at_the_same_instant_one_is_accepted() {
    let (memory, config, secrets) = (Memory::default(), config(), secrets());
    memory.gives_way.set(true);
    let request = request(Method::Post, "/runs", Some("admin"), "");
    let mut asked: Vec<_> =
        (0..5).map(|_| Some(Box::pin(answer(&memory, Ok(&config), &secrets, &request)))).collect();
    let mut answers = Vec::new();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    // All of them wait for the store before the first is answered.
    while answers.len() < 5 {
        for waiting in &mut asked {
            let Some(future) = waiting else { continue };
            if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
                answers.push((answer.response.status, answer.drive.is_some()));
                *waiting = None;
            }
        }
    }
    crate::ordered::sort_by(&mut answers, Ord::cmp);
    assert_eq!(answers, [(202, true), (409, false), (409, false), (409, false), (409, false)]);
}

#[test]
fn a_start_is_refused_although_the_store_does_not_show_the_one_before() {
    let memory = Memory::default();
    memory.is_stale.set(true);
    assert_eq!(post(&memory).0, 202);
    let (status, body, _) = post(&memory);
    assert_eq!((status, body["run"].as_str()), (409, Some(RUN)));
    // Another instance does not know of it, and goes by the store.
    *memory.notes.borrow_mut() = crate::port::Notes::default();
    memory.is_stale.set(false);
    assert_eq!(post(&memory).0, 409);
}

#[test]
fn what_a_start_accepts_is_in_the_run_that_it_begins() {
    let memory = Memory::default();
    let (status, ..) =
        ask(&memory, &request(Method::Post, "/runs", Some("admin"), r#"{"accept_row_loss":true}"#));
    assert_eq!(status, 202);
    let stored: Value =
        serde_json::from_str(&memory.values.borrow()["checkpoint/hub"]).expect("a checkpoint");
    assert_eq!(stored["accepts_row_loss"], true);
}

#[test]
fn a_start_that_was_refused_keeps_nobody_from_the_next() {
    let memory = Memory::default();
    let bad = ask(&memory, &request(Method::Post, "/runs", Some("admin"), r#"{"until":"lunch"}"#));
    assert_eq!(bad.0, 400);
    memory.values.borrow_mut().insert("checkpoint/hub".to_owned(), r#"{"format":99}"#.to_owned());
    assert_eq!(post(&memory).0, 503);
    memory.values.borrow_mut().clear();
    assert_eq!(post(&memory).0, 202);
}

/// Issue 19 F: what was accepted was answered 404 for seconds.
#[test]
fn what_was_accepted_can_be_read_and_cancelled_at_once() {
    let memory = Memory::default();
    memory.is_stale.set(true);
    assert_eq!(post(&memory).0, 202);
    let shown = || ask(&memory, &request(Method::Get, &format!("/runs/{RUN}"), Some("reader"), ""));
    let (status, body, _) = shown();
    assert_eq!(
        (status, &body["status"], &body["run"]),
        (200, &json!("accepted"), &json!(RUN)),
        "the store shows nothing yet"
    );
    // Another instance, and another run in its place: what was promised is on record.
    *memory.notes.borrow_mut() = crate::port::Notes::default();
    memory.is_stale.set(false);
    memory.values.borrow_mut().remove("checkpoint/hub");
    let (status, body, _) = shown();
    assert_eq!(
        (status, &body["status"], &body["started_at"]),
        (200, &json!("accepted"), &json!("2026-11-21T14:30:00.000Z"))
    );
    assert_eq!(
        ask(&memory, &request(Method::Post, &format!("/runs/{RUN}/cancel"), Some("admin"), "")).0,
        202
    );
    assert!(memory.values.borrow().contains_key(&format!("cancel/hub/{RUN}")));
    assert_eq!(
        ask(&memory, &request(Method::Get, "/runs/20261121T143001Z", Some("reader"), "")).0,
        404
    );
}

/// As in case 35a: a checkpoint that makes no sense is as good as lost, and one of a newer version
/// is not.
#[test]
fn a_checkpoint_that_makes_no_sense_keeps_nobody_from_a_run() {
    for (text, expected) in
        [("{", 202), (r#"{"format":1,"step":"dance"}"#, 202), (r#"{"format":2}"#, 503)]
    {
        let memory = Memory::default();
        memory.values.borrow_mut().insert("checkpoint/hub".to_owned(), text.to_owned());
        assert_eq!(
            ask(&memory, &request(Method::Get, "/runs", Some("reader"), "")).0,
            if expected == 202 { 200 } else { 503 },
            "{text}"
        );
        assert_eq!(post(&memory).0, expected, "{text}");
    }
}

/// Returns the checkpoint of a run that has succeeded and is at the snapshot of its backup.
fn at_snapshot() -> Checkpoint {
    use crate::fixtures::started;
    use crate::sync::checkpoint::{RunStatus, Verdict};
    let at: Timestamp = "2026-11-21T10:04:00Z".parse().expect("an instant");
    let snapshot = json!({
        "name": "backup-20261121", "slug": null, "lsn": "0/1DE2850",
        "made_at": "2026-11-21T10:00:10.000Z", "begun_at": "2026-11-21T10:04:10.000Z",
        "is_noted": true, "id": "snap-damp-dew-a1b2c3d4", "operations": [], "is_taken": true,
        "outcome": null, "is_told": false,
        "test": {"name": "restore-test-backup-20261121", "id": null, "operations": [],
            "is_ready": false, "is_gone": false},
    });
    let verdict = Verdict {
        status: RunStatus::Succeeded,
        at,
        step: crate::sync::step::Step::Prune,
        reason: None,
        runbook: None,
        staging: String::new(),
    };
    let mut run = Checkpoint { verdict: Some(verdict), is_published: true, ..started() };
    run.prune.snapshot = Some(serde_json::from_value(snapshot).expect("the work of a snapshot"));
    run
}

/// Issue 19 H: the snapshot of a backup may take hours, in which nobody could start a run.
#[test]
fn a_run_is_started_while_a_snapshot_is_being_tested() {
    let memory = Memory::default();
    memory.channel_status.set(200);
    let keep = |run: &Checkpoint| {
        memory.values.borrow_mut().insert("checkpoint/hub".to_owned(), record::encode(run));
    };
    let driven_until = Some("2026-11-21T14:33:00Z".parse().expect("an instant"));
    keep(&Checkpoint { driven_until, ..at_snapshot() });
    let (status, body, _) = post(&memory);
    let expected = "the snapshot of run 20261121 is being taken or compared, by a tick that lasts \
        until 2026-11-21T14:33:00.000Z; try again then";
    assert_eq!((status, body["detail"].as_str()), (409, Some(expected)));
    keep(&at_snapshot());
    let (status, body, drives) = post(&memory);
    assert_eq!((status, body["run"].as_str(), drives), (202, Some(RUN), true));
    let told = memory
        .values
        .borrow()
        .get("notice/hub/20261121/snapshot_failed")
        .cloned()
        .expect("it is told");
    assert!(told.contains("somebody started a run before it was compared"), "{told}");
}

#[test]
fn a_run_that_is_pruning_still_keeps_others_from_starting() {
    let memory = Memory::default();
    let mut run = at_snapshot();
    run.prune.snapshot = None;
    memory.values.borrow_mut().insert("checkpoint/hub".to_owned(), record::encode(&run));
    assert_eq!(post(&memory).0, 409);
}
