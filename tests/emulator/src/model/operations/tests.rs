//! What a client sees of Neon's work: how it ends, what stands afterwards, whom it keeps out.

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::model::{FailedBranchState, Finish, Locks, Model, Request, Switches, Timestamp, Wake};

/// A project with staging, and its time.
struct Project {
    model: Model,
    now: Timestamp,
    production: String,
    staging: String,
}

impl Project {
    fn new(switches: Switches) -> Self {
        let now = "2026-11-21T10:00:00Z".parse().expect("an instant");
        let mut model = Model::new(1, now);
        // Each takes what it mostly takes.
        model.durations = model.durations.exact();
        model.switches = switches;
        model.durations.checks_every_s = 0;
        let production = model.branches[0].id.clone();
        let staging = model.add_child(&production, "staging", now).expect("production is there");
        Self { model, now, production, staging }
    }

    fn call(&mut self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let path = format!("/projects/{}{path}", self.model.project);
        let response = self
            .model
            .serve(&Request { method: method.to_owned(), path, query: [].into(), body }, self.now);
        (response.status, response.value())
    }

    fn make(&mut self, name: &str) -> (u16, Value) {
        let branch = json!({"name": name, "parent_id": self.production});
        self.call(
            "POST",
            "/branches",
            json!({"branch": branch, "endpoints": [{"type": "read_only"}]}),
        )
    }

    fn restore(&mut self) -> (u16, Value) {
        let body = json!({"source_branch_id": self.production, "preserve_under_name": "old"});
        self.call("POST", &format!("/branches/{}/restore", self.staging), body)
    }

    fn pass(&mut self, milliseconds: i64) {
        self.now += TimeDelta::milliseconds(milliseconds);
        self.model.advance(self.now);
    }

    /// Returns the actions and statuses of the operations that a reply named, as they are by now.
    fn operations(&mut self, reply: &Value) -> Vec<(String, String)> {
        let ids: Vec<String> = reply["operations"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| text(&one["id"]))
            .collect();
        ids.iter()
            .map(|id| {
                let told = self.call("GET", &format!("/operations/{id}"), Value::Null).1;
                (text(&told["operation"]["action"]), text(&told["operation"]["status"]))
            })
            .collect()
    }

    fn branch(&self, name: &str) -> Option<(&'static str, Option<String>)> {
        self.model.branch_named(name).map(|branch| (branch.state, branch.parent.clone()))
    }

    /// Wakes the compute of staging, which answers at once.
    fn wake(&mut self) -> String {
        let endpoint = self
            .model
            .writer_of(&self.staging)
            .map(|endpoint| endpoint.id.clone())
            .expect("staging has one");
        self.model.wake(&endpoint, self.now);
        self.pass(1_000);
        endpoint
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn words(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(action, status)| (action.as_str(), status.as_str())).collect()
}

#[test]
fn a_restore_lists_the_operations_that_were_recorded_and_starts_no_compute() {
    let mut project = Project::new(Switches::default());
    let endpoint = project.wake();
    let (status, reply) = project.restore();
    let begun = project.operations(&reply);
    assert_eq!(status, 200, "{reply}");
    assert_eq!(
        words(&begun),
        [
            ("suspend_compute", "running"),
            ("create_branch", "scheduling"),
            ("delete_timeline", "scheduling")
        ]
    );
    assert_eq!(reply["operations"][0]["endpoint_id"], json!(endpoint), "{reply}");
    project.pass(6_099);
    assert_eq!(words(&project.operations(&reply))[2], ("delete_timeline", "running"));
    project.pass(1);
    assert!(project.operations(&reply).iter().all(|(_, status)| status == "finished"));
    assert_eq!(
        project.model.endpoint(&endpoint).map(|endpoint| endpoint.state),
        Some("idle"),
        "the first query is a cold one"
    );
    // A compute that sleeps is not suspended, and what keeps the old state need not delete
    // anything.
    let mut project =
        Project::new(Switches { restore_deletes_timeline: false, ..Switches::default() });
    let reply = project.restore().1;
    assert_eq!(words(&project.operations(&reply)), [("create_branch", "running")]);
}

#[test]
fn the_old_compute_serves_the_old_state_until_it_is_suspended() {
    for serves in [true, false] {
        let mut project = Project::new(Switches {
            old_compute_serves_until_suspended: serves,
            ..Switches::default()
        });
        let endpoint = project.wake();
        project.model.operation_faults = vec![Finish::Finished];
        project.restore();
        let old = project.model.branch_named("old").map(|branch| branch.id.clone());
        let expected = if serves { old } else { Some(project.staging.clone()) };
        project.pass(499);
        assert_eq!(project.model.served_by(&endpoint), expected.as_deref(), "{serves}");
        project.pass(1);
        assert_eq!(project.model.served_by(&endpoint), Some(project.staging.as_str()), "{serves}");
    }
}

#[test]
fn an_operation_ends_in_every_way_that_neon_names() {
    let table = [
        (Finish::Finished, "finished", "finished", "ready"),
        (Finish::Skipped, "skipped", "finished", "ready"),
        (Finish::Failed, "failed", "cancelled", "init"),
        (Finish::Error, "error", "cancelled", "init"),
        (Finish::Cancelled, "cancelled", "cancelled", "init"),
        (Finish::Hangs, "running", "scheduling", "init"),
    ];
    for (finish, ends, follower, state) in table {
        let mut project = Project::new(Switches::default());
        project.model.operation_faults.push(finish);
        let reply = project.make("backup").1;
        project.pass(60_000);
        project.pass(60_000);
        assert_eq!(
            words(&project.operations(&reply)),
            [("create_branch", ends), ("start_compute", follower)],
            "{finish:?}"
        );
        assert_eq!(project.branch("backup").map(|(state, _)| state), Some(state), "{finish:?}");
    }
}

#[test]
fn an_operation_that_is_being_cancelled_says_so_and_keeps_requests_out_until_it_is() {
    let mut project = Project::new(Switches::default());
    project.model.operation_faults.push(Finish::Cancelling);
    let reply = project.make("backup").1;
    project.pass(2_000);
    assert_eq!(words(&project.operations(&reply))[0], ("create_branch", "cancelling"));
    assert_eq!(project.make("other").0, 423);
    project.pass(2_000);
    assert_eq!(words(&project.operations(&reply))[0], ("create_branch", "cancelled"));
}

#[test]
fn an_operation_that_failed_may_finish_later_without_a_word() {
    let mut project = Project::new(Switches::default());
    project.model.operation_faults.push(Finish::FailedThenFinished);
    let reply = project.make("backup").1;
    project.pass(2_500);
    assert_eq!(
        words(&project.operations(&reply)),
        [("create_branch", "failed"), ("start_compute", "scheduling")]
    );
    assert_eq!(project.branch("backup").map(|(state, _)| state), Some("init"));
    project.pass(60_000);
    assert_eq!(
        words(&project.operations(&reply)),
        [("create_branch", "finished"), ("start_compute", "finished")]
    );
    assert_eq!(project.branch("backup").map(|(state, _)| state), Some("ready"));
}

#[test]
fn what_stands_after_a_failed_operation_is_what_the_switch_says() {
    for (is_old, failed_branch_state) in
        [(false, FailedBranchState::Stuck), (true, FailedBranchState::Old)]
    {
        let mut project = Project::new(Switches { failed_branch_state, ..Switches::default() });
        let child = project
            .model
            .add_child(&project.staging.clone(), "child", project.now)
            .expect("staging is there");
        let before = project.model.branch_named("staging").map(|branch| branch.data.clone());
        project.model.operation_faults.push(Finish::Failed);
        project.restore();
        project.pass(10_000);
        let staging = project.model.branch_named("staging").expect("it is there");
        assert_eq!(
            (staging.state, Some(&staging.data) == before.as_ref()),
            (if is_old { "ready" } else { "resetting" }, is_old)
        );
        let kept = project.model.branch_named("old").map(|branch| branch.id.clone());
        let parent = project.model.branch(&child).and_then(|child| child.parent.clone());
        assert_eq!(parent, if is_old { Some(project.staging.clone()) } else { kept.clone() });
        assert_eq!(kept.is_none(), is_old);
        // A branch that could not be made is gone, or stays what it was.
        let mut project = Project::new(Switches { failed_branch_state, ..Switches::default() });
        project.model.operation_faults.push(Finish::Failed);
        project.make("backup");
        project.pass(10_000);
        assert_eq!(project.branch("backup").is_none(), is_old);
    }
}

#[test]
fn an_operation_keeps_out_what_conflicts_with_it_whoever_started_it() {
    for (is_project, locks) in [(true, Locks::Project), (false, Locks::Branch)] {
        let mut project = Project::new(Switches {
            locks,
            compute_operations_fail_every: 1,
            compute_operations_end: Finish::Hangs,
            ..Switches::default()
        });
        let endpoint = project
            .model
            .writer_of(&project.staging)
            .map(|endpoint| endpoint.id.clone())
            .expect("staging has one");
        assert!(matches!(project.model.wake(&endpoint, project.now), Wake::Fails(_)));
        // Neon's own start of staging's compute hangs: nobody of us has asked for it.
        assert_eq!(project.make("backup").0, if is_project { 423 } else { 201 });
        assert_eq!(project.restore().0, 423, "it concerns staging in every case");
    }
}

/// What a change of settings conflicts with nobody has seen: it is tried both ways.
#[test]
fn a_change_that_starts_no_operation_waits_for_those_under_way_where_that_is_so() {
    for changes_conflict in [true, false] {
        let mut project = Project::new(Switches { changes_conflict, ..Switches::default() });
        let endpoint = project
            .model
            .writer_of(&project.staging)
            .map(|endpoint| endpoint.id.clone())
            .expect("staging has one");
        let (branch, default) =
            (format!("/branches/{}", project.staging), project.production.clone());
        let changes = [
            ("PATCH", branch.clone(), json!({"branch": {"name": "renamed"}})),
            ("PATCH", branch, json!({"branch": {"protected": false}})),
            ("POST", format!("/branches/{default}/set_as_default"), json!({})),
            ("PATCH", format!("/endpoints/{endpoint}"), json!({"endpoint": {"name": "writer"}})),
            ("PUT", format!("/branches/{default}/backup_schedule"), json!({"schedule": []})),
        ];
        assert_eq!(project.restore().0, 200);
        for (method, path, body) in &changes {
            let status = project.call(method, path, body.clone()).0;
            assert_eq!(status, if changes_conflict { 423 } else { 200 }, "{method} {path}");
        }
        project.now += TimeDelta::minutes(5);
        for (method, path, body) in &changes {
            assert_eq!(project.call(method, path, body.clone()).0, 200, "{method} {path}");
        }
    }
}

#[test]
fn operations_on_two_branches_run_at_the_same_time() {
    let mut project = Project::new(Switches { locks: Locks::Branch, ..Switches::default() });
    project.model.operation_faults.push(Finish::Hangs);
    let (hangs, goes_on) = (project.make("one").1, project.make("two").1);
    project.pass(3_000);
    assert_eq!(words(&project.operations(&hangs))[0], ("create_branch", "running"));
    assert_eq!(words(&project.operations(&goes_on))[1], ("start_compute", "finished"));
}

#[test]
fn a_compute_wakes_sleeps_and_is_checked_by_operations_that_everybody_sees() {
    for compute_operations in [true, false] {
        let mut project = Project::new(Switches { compute_operations, ..Switches::default() });
        project.model.durations.checks_every_s = 3_600;
        let endpoint = project.wake();
        project.pass(400_000);
        assert_eq!(
            project.model.endpoint(&endpoint).map(|endpoint| endpoint.state == "idle"),
            Some(compute_operations)
        );
        project.pass(4_000_000);
        let seen: Vec<&str> =
            project.model.operations.iter().map(|operation| operation.action).collect();
        let all = ["start_compute", "suspend_compute", "check_availability"];
        assert_eq!(seen, if compute_operations { all.to_vec() } else { Vec::new() });
    }
}

#[test]
fn a_compute_sleeps_when_its_endpoint_says_so() {
    for (timeout, after, state) in [
        (60, 59_000, "active"),
        (60, 61_000, "idle"),
        (-1, 4_000_000, "active"),
        (0, 301_000, "idle"),
    ] {
        let mut project = Project::new(Switches::default());
        let endpoint = project.wake();
        project.model.endpoint_mut(&endpoint).expect("it is there").suspend_timeout_seconds =
            timeout;
        project.model.wake(&endpoint, project.now);
        project.pass(after);
        project.pass(1_000);
        assert_eq!(
            project.model.endpoint(&endpoint).map(|endpoint| endpoint.state),
            Some(state),
            "{timeout} {after}"
        );
    }
}

#[test]
fn a_compute_that_starts_slowly_fails_the_first_query_and_answers_a_later_one() {
    let mut project = Project::new(Switches::default());
    project.model.durations.wake_ms = 9_000;
    let endpoint = project
        .model
        .writer_of(&project.staging)
        .map(|endpoint| endpoint.id.clone())
        .expect("staging has one");
    assert_eq!(project.model.wake(&endpoint, project.now), Wake::Fails(TimeDelta::seconds(7)));
    let seen = project.call("GET", &format!("/endpoints/{endpoint}"), Value::Null).1;
    assert_eq!(
        (&seen["endpoint"]["current_state"], &seen["endpoint"]["pending_state"]),
        (&json!("idle"), &json!("active"))
    );
    project.pass(9_000);
    assert_eq!(project.model.wake(&endpoint, project.now), Wake::Awake);
}
