//! Rules that need no data: what Neon accepts, refuses and answers.

use serde_json::{Value, json};

use super::{Archiving, Lsn, Model, Refusal, Request, Timestamp};

fn at(minute: i64) -> Timestamp {
    let start: Timestamp = "2026-11-21T10:00:00Z".parse().expect("an instant");
    start + chrono::TimeDelta::minutes(minute)
}

/// A project with production and staging, and its clock.
struct Project {
    model: Model,
    minute: i64,
    production: String,
    staging: String,
}

impl Project {
    fn new() -> Self {
        let mut model = Model::new(1, at(0));
        let production = model.branches[0].id.clone();
        let staging = model.add_child(&production, "staging", at(0)).expect("production is there");
        Self { model, minute: 1, production, staging }
    }

    /// Sends a request, and lets a minute pass in which its operations end.
    fn call(&mut self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let path = format!("/projects/{}{path}", self.model.project);
        let request = Request { method: method.to_owned(), path, query: query.collect(), body };
        let response = self.model.serve(&request, at(self.minute));
        self.minute += 1;
        self.model.advance(at(self.minute));
        (response.status, response.value())
    }

    fn restore(&mut self, target: &str, body: Value) -> (u16, Value) {
        self.call("POST", &format!("/branches/{target}/restore"), body)
    }

    fn make(&mut self, name: &str, parent: &str) -> String {
        let (status, body) =
            self.call("POST", "/branches", json!({"branch": {"name": name, "parent_id": parent}}));
        assert_eq!(status, 201, "{body}");
        body["branch"]["id"].as_str().expect("an id").to_owned()
    }

    fn delete(&mut self, id: &str) -> u16 {
        self.call("DELETE", &format!("/branches/{id}"), Value::Null).0
    }

    fn named(&self, name: &str) -> String {
        self.model.branch_named(name).expect("it is there").id.clone()
    }
}

#[test]
fn the_default_branch_is_restored_and_a_protected_one_is_not_whatever_the_status() {
    let mut project = Project::new();
    let (production, staging) = (project.production.clone(), project.staging.clone());
    let backup = project.make("backup", &production);
    for status in [422, 400, 423] {
        project.model.branches[0].is_protected = true;
        project.model.switches.protected_target = Refusal::new(status, "no");
        let (answered, body) = project
            .restore(&production, json!({"source_branch_id": backup, "preserve_under_name": "x"}));
        assert_eq!((answered, &body["message"]), (status, &json!("no")));
    }
    project.model.branches[0].is_protected = false;
    let (status, body) = project
        .restore(&production, json!({"source_branch_id": backup, "preserve_under_name": "old"}));
    assert_eq!(
        (status, &body["branch"]["id"], &body["branch"]["parent_id"]),
        (200, &json!(production), &Value::Null),
        "it stays a root"
    );
    let old = project.model.branch_named("old").expect("it is kept");
    assert_eq!(
        (old.parent.as_deref(), old.is_for_ever),
        (None, true),
        "restored from another branch: its old state stays for ever"
    );
    assert_eq!(
        project.model.branch(&staging).and_then(|staging| staging.parent.clone()),
        Some(project.named("old")),
        "children move"
    );
    let old = project.named("old");
    assert_eq!(
        (project.delete(&staging), project.delete(&backup), project.delete(&old)),
        (200, 200, 422)
    );
}

#[test]
fn a_root_that_is_restored_from_itself_leaves_one_that_can_be_deleted_and_counts_as_a_root() {
    let mut project = Project::new();
    let (production, staging) = (project.production.clone(), project.staging.clone());
    let to_itself = |name: &str| {
        json!({"source_branch_id": production,
            "source_timestamp": at(0).to_rfc3339(), "preserve_under_name": name})
    };
    assert_eq!(project.restore(&production, to_itself("old")).0, 200);
    let old = project.named("old");
    assert_eq!((project.delete(&staging), project.delete(&old)), (200, 200));
    assert_eq!(project.delete(&production), 422, "the first branch is never deleted");
    project.model.limits.root_branches = 1;
    let (status, body) = project.restore(&production, to_itself("older"));
    assert_eq!((status, &body["code"]), (422, &json!("ROOT_BRANCHES_LIMIT_EXCEEDED")));
}

#[test]
fn a_reader_alone_is_refused_in_the_words_that_are_set() {
    let mut project = Project::new();
    project.model.switches.reader_without_writer = false;
    project.model.switches.lonely_reader = Refusal::new(412, "no primary compute");
    let (status, body) = project.call(
        "POST",
        "/branches",
        json!({"branch": {"name": "x"}, "endpoints": [{"type": "read_only"}]}),
    );
    assert_eq!((status, &body["message"]), (412, &json!("no primary compute")));
    let bare = project.production.clone();
    let bare = project.make("bare", &bare);
    let (status, _) = project.call(
        "POST",
        "/endpoints",
        json!({"endpoint": {"branch_id": bare, "type": "read_only"}}),
    );
    assert_eq!(status, 412);
}

#[test]
fn a_restored_snapshot_comes_with_an_endpoint_of_its_own_which_goes_when_it_takes_its_place() {
    for keeps in [false, true] {
        let mut project = Project::new();
        project.model.switches.preview_keeps_endpoint = keeps;
        let (production, staging) = (project.production.clone(), project.staging.clone());
        let (_, taken) = project.call(
            "POST",
            &format!("/branches/{production}/snapshot?name=weekly"),
            Value::Null,
        );
        let snapshot =
            format!("/snapshots/{}/restore", taken["snapshot"]["id"].as_str().expect("an id"));
        let (status, body) = project.call(
            "POST",
            &snapshot,
            json!({"name": "preview", "target_branch_id": staging}),
        );
        let actions: Vec<&str> = body["operations"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["action"].as_str())
            .collect();
        assert_eq!(
            (status, actions),
            (200, vec!["timeline_unarchive", "create_branch", "start_compute"])
        );
        assert_eq!(
            (&body["endpoints"][0]["type"], &body["branch"]["restored_as"]),
            (&json!("read_write"), &json!(staging))
        );
        let preview = project.named("preview");
        assert_eq!(
            project.call("POST", &format!("/branches/{preview}/finalize_restore"), Value::Null).0,
            200
        );
        let writers = project
            .model
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.branch == preview && endpoint.is_read_write)
            .count();
        assert_eq!(writers, if keeps { 2 } else { 1 }, "{keeps}");
    }
    let mut project = Project::new();
    project.model.switches.snapshots_have_endpoints = false;
    let production = project.production.clone();
    let (_, taken) =
        project.call("POST", &format!("/branches/{production}/snapshot?name=weekly"), Value::Null);
    let (_, body) = project.call(
        "POST",
        &format!("/snapshots/{}/restore", taken["snapshot"]["id"].as_str().expect("an id")),
        json!({}),
    );
    assert_eq!(body["endpoints"], json!([]));
}

#[test]
fn what_nobody_uses_is_archived_and_wakes_or_is_refused_as_a_source() {
    let mut project = Project::new();
    let (production, staging) = (project.production.clone(), project.staging.clone());
    project.model.switches.archives = Some(Archiving { after_age_s: 0, after_idle_s: 600 });
    project.model.branches[0].is_protected = true;
    project.minute += 30;
    project.model.advance(at(project.minute));
    let state = |project: &Project, id: &str| project.model.branch(id).map(|branch| branch.state);
    assert_eq!(
        (state(&project, &production), state(&project, &staging)),
        (Some("ready"), Some("archived")),
        "a protected one is not"
    );
    let asked = json!({"branch": {"name": "child", "parent_id": staging}});
    project.model.switches.archived_source = Some(Refusal::new(400, "ancestor is archived"));
    assert_eq!(project.call("POST", "/branches", asked.clone()).0, 400);
    project.model.switches.archived_source = None;
    let (status, body) = project.call("POST", "/branches", asked);
    assert_eq!((status, &body["operations"][0]["action"]), (201, &json!("timeline_unarchive")));
    assert_eq!(state(&project, &staging), Some("ready"));
    let (_, body) =
        project.call("POST", "/branches", json!({"branch": {"name": "cold", "archived": true}}));
    assert_eq!(state(&project, body["branch"]["id"].as_str().expect("an id")), Some("archived"));
    assert_eq!(
        project.call("POST", "/branches", json!({"branch": {"init_source": "schema-only"}})).0,
        400
    );
}

#[test]
fn the_free_plan_archives_after_fourteen_days_and_a_day_without_use() {
    let mut project = Project::new();
    "free_v3".clone_into(&mut project.model.limits.subscription);
    for (day, state) in [(13, "ready"), (15, "archived")] {
        project.model.advance(at(day * 1_440));
        assert_eq!(
            project.model.branch(&project.staging).map(|branch| branch.state),
            Some(state),
            "day {day}"
        );
    }
}

#[test]
fn a_point_outside_the_history_is_refused_by_the_request() {
    let mut project = Project::new();
    let production = project.production.clone();
    let data = project.model.branches[0].data.clone();
    // No compute that Neon checks by itself is in the way.
    project.model.switches.compute_operations = false;
    project.model.history_seconds = 3_600;
    for (minute, lsn) in [(0, 0x100), (10, 0x200), (100, 0x300)] {
        project.model.saw(&data, at(minute), Lsn(lsn));
    }
    project.minute = 120;
    let asked = |project: &mut Project, key: &str, value: String| {
        let (status, body) = project.call(
            "POST",
            "/branches",
            json!({"branch": {"parent_id": production, key: value.clone()}}),
        );
        let id = body["branch"]["id"].as_str().map(str::to_owned);
        assert!(id.is_none_or(|id| project.delete(&id) == 200), "{value}");
        (status, body["message"].as_str().unwrap_or_default().to_owned())
    };
    // 0x200 was the head until 20 minutes ago, so what was written after it is inside the hour.
    for (lsn, status) in [
        ("0/FF", 400),
        ("0/100", 400),
        ("0/1FF", 400),
        ("0/200", 201),
        ("0/2A0", 201),
        ("0/300", 201),
        ("0/301", 400),
    ] {
        let answer = asked(&mut project, "parent_lsn", lsn.to_owned());
        assert_eq!(answer.0, status, "{lsn}: {answer:?}");
        assert!(
            status == 201 || answer.1 == "parent_lsn is not within the history window",
            "{lsn}: {answer:?}"
        );
    }
    let now = project.minute;
    for (minute, status) in [(now - 61, 400), (now - 30, 201), (now + 60, 400)] {
        assert_eq!(
            asked(&mut project, "parent_timestamp", at(minute).to_rfc3339()).0,
            status,
            "{minute}"
        );
    }
    let restore =
        json!({"source_branch_id": production, "source_lsn": "F/0", "preserve_under_name": "x"});
    let staging = project.staging.clone();
    assert_eq!(project.restore(&staging, restore).0, 400);
    assert_eq!(
        project.call("POST", &format!("/branches/{production}/snapshot?lsn=F/0"), Value::Null).0,
        400
    );
    "free_v3".clone_into(&mut project.model.limits.subscription);
    assert_eq!(
        project.call("PATCH", "", json!({"project": {"history_retention_seconds": 86_400}})).0,
        422,
        "Free has six hours"
    );
    assert_eq!(
        project.call("PATCH", "", json!({"project": {"history_retention_seconds": 0}})).0,
        200
    );
    assert_eq!(
        asked(&mut project, "parent_lsn", "0/300".to_owned()).0,
        400,
        "without a history there is no point"
    );
}
