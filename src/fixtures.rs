//! What unit tests begin with: a pair, a run of it, a branch.

use serde_json::json;

use crate::config::{Config, Pair};
use crate::id::{BranchId, Lsn, RunId};
use crate::neon::wire::Branch;
use crate::sync::checkpoint::{Checkpoint, Goal, History, Start};
use crate::time::Timestamp;

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

/// The settings of a pair of New York, from 05:00 to 06:00.
pub(crate) fn settings() -> serde_json::Value {
    json!({
        "name": "hub", "project": "old-violet-32930710",
        "production_branch": "br-noisy-breeze-a5e59rrb",
        "staging_branch": "br-calm-river-a5x0q1zz", "role": "neondb_owner",
        "timezone": "America/New_York",
        "zone_label": "ET", "start_at": "05:00", "latest_start": "05:30", "deadline": "06:00",
        "keep_last": 2, "keep_displaced": 1, "keep_at_least": 2
    })
}

/// That pair.
pub(crate) fn pair() -> Pair {
    Config::from_value(&json!({"pairs": [settings()]}))
        .expect("the configuration is complete")
        .pairs
        .remove(0)
}

/// Returns a scheduled run of the pair `hub` that started at ten and has done nothing yet.
pub(crate) fn started() -> Checkpoint {
    let start = Start {
        pair: "hub".into(),
        run: RunId::decode("20261121").expect("a date"),
        is_manual: false,
        goal: Goal::Staging,
        hold: None,
        give_up_at: at("2026-11-21T12:00:00Z"),
        settings: String::new(),
        history: History::default(),
    };
    Checkpoint::start(start, at("2026-11-21T10:00:00Z"))
}

/// Returns a branch that is ready and was made at ten.
pub(crate) fn branch(id: &str, name: &str, parent: &BranchId) -> Branch {
    Branch {
        id: id.into(),
        name: name.into(),
        parent_id: Some(parent.clone()),
        parent_lsn: Some(Lsn(0x1_0000_0abc)),
        current_state: "ready".into(),
        default: false,
        protected: false,
        created_at: "2026-11-21T10:00:00Z".parse().expect("an instant"),
        expires_at: None,
        restored_from: None,
        restored_as: None,
        restore_status: None,
        logical_size: None,
    }
}
