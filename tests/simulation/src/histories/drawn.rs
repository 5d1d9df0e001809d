//! Draws a history: the pair, its rules, and what a year of mornings has left.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use firstlight::config::{Config, KeepRules, Pair, Rule, Span};
use firstlight::id::{BranchId, RunId};
use firstlight::names::snapshot_slug;
use firstlight::neon::wire::{Annotation, Branch, BranchList, Snapshot};
use firstlight::retention::{Known, Pin, Records, SnapshotRecord};
use firstlight::time::{Timestamp, Zone};
use serde_json::json;

use super::{Backup, Form, History};

fn pair() -> Pair {
    let value = json!({"pairs": [{
        "name": "hub", "project": "old-violet-32930710",
        "production_branch": "br-noisy-breeze-a5e59rrb",
        "staging_branch": "br-calm-river-a5x0q1zz", "role": "neondb_owner", "timezone": "UTC",
        "start_at": "05:00", "latest_start": "05:30", "deadline": "06:00", "keep_last": 1,
        "keep_displaced": 1,
    }]});
    Config::from_value(&value).expect("the configuration is complete").pairs.remove(0)
}

/// Draws a history.
pub(super) fn history(seed: u64, zones: &[Zone]) -> History {
    let mut draw = fastrand::Rng::with_seed(seed);
    let mut pair = pair();
    pair.zone = zones[draw.usize(..zones.len())].clone();
    let mut rule = |most: u32| if draw.bool() { draw.u32(1..=most) } else { 0 };
    let mut rules = KeepRules {
        last: rule(6),
        daily: rule(8),
        weekly: rule(5),
        monthly: rule(4),
        yearly: rule(3),
        ..KeepRules::default()
    };
    rules.within = draw.bool().then(|| Span {
        days: draw.u32(0..20),
        hours: draw.u32(1..30),
        ..Span::default()
    });
    rules.at_least = draw.u32(1..5);
    rules.failed_days = draw.bool().then(|| draw.u32(1..15));
    rules.displaced = 1;
    if draw.bool() {
        rules.as_snapshots = Rule::ALL.into_iter().filter(|_| draw.bool()).collect();
    }
    // Between 2024 and 2030, and often near a change of the clocks.
    let start: Timestamp = "2024-01-01T00:00:00Z".parse().expect("an instant");
    let now =
        start + TimeDelta::days(draw.i64(60..2_500)) + TimeDelta::seconds(draw.i64(0..86_400));
    let mut history = History {
        pair,
        rules,
        now,
        branches: BranchList::default(),
        snapshots: Vec::new(),
        records: Records::default(),
        backups: Vec::new(),
        foreign: BTreeSet::new(),
        foreign_snapshots: BTreeSet::new(),
    };
    fill(&mut history, &mut draw);
    history
}

/// Fills a history, from its last morning backwards.
fn fill(history: &mut History, draw: &mut fastrand::Rng) {
    let (production, staging) =
        (history.pair.production_branch.clone(), history.pair.staging_branch.clone());
    let (mut at, mut failing, step) = (history.now, 0_u32, draw.i64(6..80));
    let count = draw.usize(1..24);
    for number in 0..count {
        if failing == 0 && draw.u32(..20) == 0 {
            failing = 6;
        }
        let is_verified = failing == 0 && draw.u32(..8) > 0;
        failing = failing.saturating_sub(1);
        // A clock that was ahead made this one.
        let made_at =
            if draw.u32(..40) == 0 { history.now + TimeDelta::hours(draw.i64(1..500)) } else { at };
        let run = RunId::manual(at);
        let id = BranchId::from(format!("br-backup-{number}").as_str());
        let (is_foreign, is_on_record, is_pinned) =
            (draw.u32(..15) == 0, draw.u32(..10) > 0, draw.u32(..25) == 0);
        let form = Form { made_at, is_verified, is_on_record };
        let (mut branch, mut snapshot) = (None, None);
        if history.rules.as_snapshots.is_empty() || draw.u32(..3) > 0 {
            push(history, &id, &format!("backup-{run}"), Some(&production), made_at);
            if is_foreign {
                history.foreign.insert(id.clone());
            } else {
                let value = [
                    ("firstlight".to_owned(), "hub".to_owned()),
                    ("run".to_owned(), run.to_string()),
                ]
                .into();
                history.branches.annotations.insert(id.clone(), Annotation { value });
                branch = Some(form);
            }
            if draw.u32(..20) == 0 {
                let child = BranchId::from(format!("br-child-{number}").as_str());
                push(history, &child, &format!("work-{number}"), Some(&id), made_at);
                history.foreign.insert(child);
            }
        }
        if is_on_record {
            history.records.known.insert(run.clone(), known(is_verified));
        }
        if is_pinned {
            history
                .records
                .pins
                .insert(run.clone(), Pin { reason: "drawn".to_owned(), until: None });
        }
        if !history.rules.as_snapshots.is_empty() && draw.bool() {
            snapshot = draw_snapshot(history, draw, number, &run, made_at);
        }
        let made_at = match (branch, snapshot) {
            (None, Some(form)) if !form.is_on_record => form.made_at,
            (Some(_) | None, _) => made_at,
        };
        if branch.is_some() || snapshot.is_some() {
            history.backups.push(Backup { id, made_at, run, branch, snapshot, is_pinned });
        }
        at -= TimeDelta::hours(draw.i64(1..=step)) + TimeDelta::seconds(draw.i64(0..7_200));
    }
    let parent = history
        .backups
        .first()
        .filter(|backup| backup.branch.is_some())
        .map(|backup| backup.id.clone());
    push(history, &staging, "staging", parent.as_ref(), history.now - TimeDelta::days(900));
    push(history, &production, "production", None, history.now - TimeDelta::days(900));
    history.foreign.extend([production, staging]);
    draw.shuffle(&mut history.branches.branches);
}

fn known(is_verified: bool) -> Known {
    if is_verified { Known::Verified } else { Known::Unverified }
}

/// Adds the snapshot of a run whose branch was made at an instant. Returns what is true of it where
/// it is a backup that a rule can keep.
fn draw_snapshot(
    history: &mut History,
    draw: &mut fastrand::Rng,
    number: usize,
    run: &RunId,
    made_at: Timestamp,
) -> Option<Form> {
    let form = Form {
        made_at: made_at + TimeDelta::minutes(3),
        is_verified: draw.bool(),
        is_on_record: draw.u32(..8) > 0,
    };
    let is_ours = draw.u32(..12) > 0;
    push_snapshot(history, &format!("snap-{number}"), run, form.made_at, is_ours);
    if is_ours && form.is_on_record {
        let id = Some(format!("snap-{number}").as_str().into());
        let record = SnapshotRecord { id, lsn: None, made_at, known: known(form.is_verified) };
        history.records.snapshots.insert(run.clone(), record);
    }
    // One of the future is told, and is no backup that could be kept by a rule.
    Some(form).filter(|form| is_ours && history.is_past(form.made_at))
}

/// Adds a branch.
pub(super) fn push(
    history: &mut History,
    id: &BranchId,
    name: &str,
    parent: Option<&BranchId>,
    created_at: Timestamp,
) {
    history.branches.branches.push(Branch {
        id: id.clone(),
        name: name.into(),
        parent_id: parent.cloned(),
        parent_lsn: None,
        current_state: "ready".into(),
        default: false,
        protected: false,
        created_at,
        expires_at: None,
        restored_from: None,
        restored_as: None,
        restore_status: None,
        logical_size: None,
    });
}

/// Adds a snapshot: one of ours says so by its slug.
fn push_snapshot(
    history: &mut History,
    id: &str,
    run: &RunId,
    created_at: Timestamp,
    is_ours: bool,
) {
    if !is_ours {
        history.foreign_snapshots.insert(id.to_owned());
    }
    history.snapshots.push(Snapshot {
        id: id.into(),
        name: format!("backup-{run}").as_str().into(),
        slug: snapshot_slug(&history.pair, run).filter(|_| is_ours),
        source_branch_id: Some(history.pair.production_branch.clone()),
        lsn: None,
        created_at,
        manual: Some(true),
        full_size: None,
    });
}
