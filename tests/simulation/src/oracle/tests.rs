//! The oracle sees what the emulator lets a faulty client do.

use neon_emulator::model::Request;
use serde_json::json;

use crate::scene::Scene;

#[test]
fn a_client_that_restores_production_is_seen_because_neon_lets_it() {
    let mut sim = Scene::new().base();
    let (project, production) =
        (sim.neon.model.project.clone(), sim.oracle.production_id().to_owned());
    let backup = sim
        .neon
        .model
        .branch_named("backup-20261120")
        .map(|branch| branch.id.clone())
        .expect("made yesterday");
    let body = json!({"source_branch_id": backup, "preserve_under_name": "production-before"});
    let path = format!("/projects/{project}/branches/{production}/restore");
    let response = sim.serve(&Request { method: "POST".to_owned(), path, query: [].into(), body });
    assert_eq!(response.status, 200, "{}", response.body);
    let seen = sim.oracle.violations.concat();
    for violation in ["which is not staging", "G1: production has changed"] {
        assert!(seen.contains(violation), "{seen}");
    }
}
