//! Positions: each branch has a history of its own, and what begins at a position of it says so.

use serde_json::{Value, json};

use super::*;

struct Project {
    neon: Simulated,
    now: Timestamp,
    production: String,
    staging: String,
}

fn project() -> Project {
    let now: Timestamp = "2026-11-21T10:00:00Z".parse().expect("an instant");
    let mut model = Model::new(1, now);
    // Each takes what it mostly takes.
    model.durations = model.durations.exact();
    model.limits.branches = 50;
    let production = model.branches[0].id.clone();
    let staging = model.add_child(&production, "staging", now).expect("production is there");
    Project { neon: Simulated::new(model, &Contents::with_tables(3)), now, production, staging }
}

impl Project {
    fn post(&mut self, path: &str, body: Value) -> Value {
        let path = format!("/projects/{}{path}", self.neon.model.project);
        let response = self
            .neon
            .serve(&Request { method: "POST".to_owned(), path, query: [].into(), body }, self.now);
        assert!(response.status < 300, "{}", response.body);
        self.now += TimeDelta::minutes(5);
        self.neon.advance(self.now);
        response.value()
    }

    /// Makes a branch of another; at its head where no position is said. Returns its id.
    fn branch(&mut self, name: &str, parent: &str, at: Option<Lsn>) -> String {
        let mut body = json!({"branch": {"name": name, "parent_id": parent}});
        if let Some(at) = at {
            body["branch"]["parent_lsn"] = at.to_string().into();
        }
        let made = self.post("/branches", body);
        made["branch"]["id"].as_str().expect("an id").to_owned()
    }

    fn position(&self, branch: &str) -> Lsn {
        self.neon.model.branch(branch).and_then(|branch| branch.parent_lsn).expect("a position")
    }

    fn rows(&self, branch: &str) -> u64 {
        self.neon
            .contents(branch)
            .expect("it can be read")
            .tables
            .values()
            .map(|table| table.rows)
            .sum()
    }
}

#[test]
fn a_branch_at_a_position_begins_there_and_holds_what_was_there() {
    let mut project = project();
    let production = project.production.clone();
    let first = project.branch("first", &production, None);
    project.neon.write(&production);
    let second = project.branch("second", &production, None);
    assert!(project.position(&second) > project.position(&first));
    for made in [&first, &second] {
        let (at, rows) = (project.position(made), project.rows(made));
        let again = project.branch(&format!("again-{made}"), &production, Some(at));
        assert_eq!((project.position(&again), project.rows(&again)), (at, rows));
    }
}

#[test]
fn the_same_position_on_two_histories_holds_two_different_things() {
    let mut project = project();
    let (production, staging) = (project.production.clone(), project.staging.clone());
    project.neon.write(&production);
    project.neon.empty(&staging);
    let of_production = project.branch("of-production", &production, None);
    let of_staging = project.branch("of-staging", &staging, None);
    assert_eq!(project.position(&of_production), project.position(&of_staging));
    assert_ne!(project.rows(&of_production), project.rows(&of_staging));
    // Asked of each by the position alone, each tells its own.
    let at = project.position(&of_production);
    for (source, like) in [(&production, &of_production), (&staging, &of_staging)] {
        let again = project.branch(&format!("at-{source}"), source, Some(at));
        assert_eq!((project.position(&again), project.rows(&again)), (at, project.rows(like)));
    }
}

#[test]
fn a_restored_branch_goes_on_from_the_position_of_its_source() {
    let mut project = project();
    let (production, staging) = (project.production.clone(), project.staging.clone());
    project.neon.write(&production);
    let backup = project.branch("backup", &production, None);
    let body = json!({"source_branch_id": backup, "preserve_under_name": "before"});
    project.post(&format!("/branches/{staging}/restore"), body);
    assert_eq!(
        project.position(&staging),
        project.position(&backup),
        "nothing was written to the backup"
    );
    project.neon.write(&staging);
    let child = project.branch("child", &staging, None);
    assert!(project.position(&child) > project.position(&staging));
    let at_fork = project.branch("at-fork", &staging, Some(project.position(&staging)));
    assert_eq!(
        (project.position(&at_fork), project.rows(&at_fork)),
        (project.position(&staging), project.rows(&backup))
    );
}
