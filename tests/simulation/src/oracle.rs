//! Judges what happened. It looks at Neon and at what people were told, never at the records of the
//! Worker.
//!
//! Safety is judged after every request that Neon has applied, whoever sent it and however late it
//! came. What people are told is judged when it is told. What is left is judged at the end.

mod restores;
mod snapshots;
mod stories;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use firstlight::time::Timestamp;
use neon_emulator::model::{Branch, Model, Request, Response};
use neon_emulator::simulated::{Damage, Simulated};
use serde_json::Value;

use crate::run::Told;

/// Backups that no rule may delete, as the simulated pair is configured.
pub(crate) const KEEP_AT_LEAST: usize = 2;

/// What a branch that we made is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Backup,
    Displaced,
    RestoreTest,
}

/// A branch that we made.
#[derive(Clone, Debug)]
struct Made {
    name: String,
    run: String,
    purpose: Purpose,
    at: Timestamp,
    /// How far Neon's clock was ahead of the Worker's.
    clock_offset: TimeDelta,
    tables_read: BTreeSet<String>,
}

/// What one run did.
#[derive(Clone, Debug, Default)]
struct Deeds {
    backups: u32,
    restores: u32,
    roll_backs: u32,
    snapshots: u32,
    /// Whether a branch that was made of its snapshot was read, and was equal to its backup.
    is_compared: bool,
    /// The branches that were made of its snapshot and were equal to its backup.
    equal_tests: BTreeSet<String>,
    /// Kinds of notices that reached the webhook, in order, with their own instant.
    told: Vec<(String, String)>,
}

/// What a task saw of staging in the last listing that reached it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sight {
    parent: Option<String>,
    is_ready: bool,
    /// Whether it is the project's default branch.
    is_default: bool,
    /// Whether staging was made with what the backup holds that it is a child of.
    is_copy: bool,
    /// What was wrong with it before anybody could use it.
    damage: Option<Damage>,
}

/// The judge of one project.
#[derive(Clone)]
pub(crate) struct Oracle {
    production: String,
    staging: String,
    /// Production as it must stay.
    untouched: (String, String, bool, bool, Vec<Option<String>>),
    made: BTreeMap<String, Made>,
    made_endpoints: BTreeSet<String>,
    /// How far Neon's clock is ahead.
    clock_offset: TimeDelta,
    /// Snapshots that we took, with their runs and when by Neon's clock.
    snapshots: BTreeMap<String, (String, Timestamp)>,
    /// Which run displaced what a branch keeps.
    displaced_by: BTreeMap<String, String>,
    runs: BTreeMap<String, Deeds>,
    /// Successes that were looked into when they were claimed.
    claims: BTreeSet<String>,
    /// Every notice that reached the webhook.
    arrived: Vec<Told>,
    /// Branches of ours that somebody else deleted or renamed: their names are no locks any more.
    pub(crate) locks_lost: u32,
    /// Branches that somebody else deleted since the last listing: nobody of us can know.
    deleted_unseen: BTreeSet<String>,
    /// Whether only what staging was restored from counts as verified: a backup may have been read,
    /// and its run have ended before it could say so.
    pub(crate) is_strict: bool,
    /// Backups that staging was restored from.
    used: BTreeSet<String>,
    /// Whether the store has lost what people were told: nobody can know that it was contradicted.
    pub(crate) is_memory_lost: bool,
    /// Whether the store has told what was true before: a tick may not have known of a snapshot
    /// that is under way, and takes it up in the evening.
    pub(crate) is_memory_stale: bool,
    /// What went wrong.
    pub(crate) violations: Vec<String>,
}

fn facts(branch: &Branch) -> (String, String, bool, bool, Vec<Option<String>>) {
    let passwords = branch.roles.iter().map(|role| role.password.clone()).collect();
    (branch.name.clone(), branch.data.clone(), branch.is_default, branch.is_protected, passwords)
}

impl Oracle {
    /// Judges a project from now on.
    pub(crate) fn new(model: &Model, production: &str, staging: &str) -> Self {
        Self {
            production: production.to_owned(),
            staging: staging.to_owned(),
            untouched: model.branch(production).map(facts).unwrap_or_default(),
            made: BTreeMap::new(),
            made_endpoints: BTreeSet::new(),
            clock_offset: TimeDelta::zero(),
            snapshots: BTreeMap::new(),
            displaced_by: BTreeMap::new(),
            runs: BTreeMap::new(),
            claims: BTreeSet::new(),
            arrived: Vec::new(),
            locks_lost: 0,
            deleted_unseen: BTreeSet::new(),
            is_strict: false,
            used: BTreeSet::new(),
            is_memory_lost: false,
            is_memory_stale: false,
            violations: Vec::new(),
        }
    }

    /// Production is to stay as it is: somebody has changed it before the day begins.
    pub(crate) fn takes_production_as_it_is(&mut self, model: &Model) {
        self.untouched = model.branch(&self.production).map(facts).unwrap_or_default();
    }

    fn blame(&mut self, text: String) {
        self.violations.push(text);
    }

    /// Judges a request that Neon has answered; `before` is staging as it was.
    pub(crate) fn applied(
        &mut self,
        request: &Request,
        response: &Response,
        before: Option<&Branch>,
        neon: &Simulated,
        now: Timestamp,
    ) {
        if request.method == "GET" || response.status >= 300 {
            return;
        }
        self.clock_offset = neon.clock_offset;
        let path: Vec<&str> = request.path.split('/').filter(|part| !part.is_empty()).collect();
        let body = &response.value();
        match (request.method.as_str(), path.get(2..).unwrap_or_default()) {
            ("POST", ["branches"]) => self.branch_made(request, body, &neon.model, now),
            ("POST", ["branches", id, "restore"]) => self.restored(id, request, before, neon, now),
            ("POST", ["endpoints"]) => {
                let branch = body["endpoint"]["branch_id"].as_str().unwrap_or_default();
                if !self.made.contains_key(branch) {
                    self.blame(format!("G1: an endpoint was made on {branch}, which is not ours"));
                }
                self.made_endpoints.extend(body["endpoint"]["id"].as_str().map(str::to_owned));
            }
            ("POST", ["branches", id, "snapshot"]) => {
                self.snapshot_taken(id, request, body, neon, now);
            }
            ("POST", ["snapshots", id, "restore"]) => {
                self.snapshot_restored(id, request, body, now);
            }
            ("DELETE", ["snapshots", id]) => self.snapshot_deleted(id, neon, now),
            ("DELETE", ["branches", id]) => self.branch_deleted(id, neon, now),
            ("DELETE", ["endpoints", id]) => {
                if !self.made_endpoints.contains(*id) {
                    self.blame(format!("G4: endpoint {id} was deleted, which is not ours"));
                }
            }
            (method, rest) => {
                self.blame(format!("G1: {method} {rest:?} is no call that a sync makes"));
            }
        }
        self.check_production(&neon.model);
    }

    /// Production is as it was.
    pub(crate) fn check_production(&mut self, model: &Model) {
        if model.branch(&self.production).map(facts).as_ref() != Some(&self.untouched) {
            self.blame("G1: production has changed".to_owned());
        }
    }

    fn branch_made(&mut self, request: &Request, body: &Value, model: &Model, now: Timestamp) {
        // One that Neon did not come to make is none: its run may ask again.
        for (_, unmade) in self.made.extract_if(.., |id, _| model.unmade.contains(id)) {
            self.runs.entry(unmade.run).and_modify(|deeds| deeds.backups -= 1);
        }
        let (id, name) = (
            body["branch"]["id"].as_str().unwrap_or_default(),
            body["branch"]["name"].as_str().unwrap_or_default(),
        );
        let run = request.body["annotation_value"]["run"].as_str().unwrap_or_default().to_owned();
        let parent = request.body["branch"]["parent_id"].as_str().unwrap_or_default();
        let purpose = if name == format!("backup-{run}") && parent == self.production {
            let deeds = self.runs.entry(run.clone()).or_default();
            deeds.backups += 1;
            if deeds.backups > 1 + self.locks_lost {
                self.blame(format!("G3: run {run} made {} backups", self.runs[&run].backups));
            }
            Purpose::Backup
        } else {
            self.blame(format!("G1: branch {name} of {parent} was made, which is no backup"));
            return;
        };
        self.made_endpoints.extend(
            body["endpoints"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|endpoint| Some(endpoint["id"].as_str()?.to_owned())),
        );
        self.made.insert(
            id.to_owned(),
            Made {
                name: name.to_owned(),
                run,
                purpose,
                at: now,
                clock_offset: self.clock_offset,
                tables_read: BTreeSet::new(),
            },
        );
    }

    /// Returns the branches of ours that are there: backups that staging was restored from, other
    /// backups with their age, and all others.
    pub(crate) fn present(&self, model: &Model, now: Timestamp) -> (usize, Vec<TimeDelta>, usize) {
        let present = self.made.iter().filter(|(id, _)| model.branch(id).is_some());
        let (backups, others): (Vec<_>, Vec<_>) =
            present.partition(|(_, made)| made.purpose == Purpose::Backup);
        let unused = backups
            .iter()
            .filter(|(id, _)| !self.used.contains(*id))
            .map(|(_, made)| now - made.at);
        (
            backups.iter().filter(|(id, _)| self.used.contains(*id)).count(),
            unused.collect(),
            others.len(),
        )
    }

    /// Returns how many backups are there that were read, or that staging was restored from.
    pub(crate) fn read_backups(&self, model: &Model) -> usize {
        let backups = self
            .made
            .iter()
            .filter(|(id, made)| made.purpose == Purpose::Backup && model.branch(id).is_some());
        backups.filter(|(id, made)| self.used.contains(*id) || !made.tables_read.is_empty()).count()
    }

    fn branch_deleted(&mut self, id: &str, neon: &Simulated, now: Timestamp) {
        let Some(made) = self.made.get(id).cloned() else {
            self.blame(format!("G4: branch {id} was deleted, which is not ours"));
            return;
        };
        if made.purpose == Purpose::RestoreTest {
            self.look_at_test(id, &made, neon);
            return;
        }
        // Neon writes whole seconds, by its own clock. A day is for people to look at things; an
        // hour is for what may still arrive.
        let age = now - made.at + TimeDelta::seconds(1);
        let seen_age = age - made.clock_offset;
        // A run makes two branches, and this one was there a moment ago.
        let is_short = neon.model.branches.len() + 1 + 2 > neon.model.limits.branches;
        if seen_age < TimeDelta::hours(24) && !is_short {
            self.blame(format!(
                "G4: {} was deleted when it was younger than a day, and there was room",
                made.name
            ));
        }
        if age < TimeDelta::hours(1) {
            self.blame(format!("G4: {} was deleted when it was younger than an hour", made.name));
        }
        let is_there =
            |id: &String| neon.model.branch(id).is_some() || self.deleted_unseen.contains(id);
        let mut verified: Vec<&Made> = self
            .made
            .iter()
            .filter(|(id, made)| made.purpose == Purpose::Backup && is_there(id))
            .filter(|(id, made)| {
                if self.is_strict { self.used.contains(*id) } else { !made.tables_read.is_empty() }
            })
            .map(|(_, made)| made)
            .collect();
        verified.sort_by_key(|made| std::cmp::Reverse(made.at));
        let has_snapshot = self.has_compared_snapshot(&made.run, &neon.model);
        if verified.iter().take(KEEP_AT_LEAST).any(|kept| kept.name == made.name) && !has_snapshot {
            self.blame(format!(
                "G4: {} was deleted, one of the newest {KEEP_AT_LEAST} verified backups",
                made.name
            ));
        }
    }

    /// Somebody else deletes a branch of ours.
    pub(crate) fn loses(&mut self, id: &str) {
        self.locks_lost += 1;
        self.deleted_unseen.insert(id.to_owned());
    }

    /// Somebody reads which branches there are.
    pub(crate) fn listed(&mut self) {
        self.deleted_unseen.clear();
    }

    /// Takes a branch for a verified backup that an earlier run has made.
    pub(crate) fn adopt_backup(&mut self, id: &str, run: &str, at: Timestamp) {
        let tables_read = ["public.t1".to_owned()].into();
        let made = Made {
            name: format!("backup-{run}"),
            run: run.to_owned(),
            purpose: Purpose::Backup,
            at,
            clock_offset: TimeDelta::zero(),
            tables_read,
        };
        self.made.insert(id.to_owned(), made);
    }

    /// Judges a query that is sent.
    pub(crate) fn asked(&mut self, branch: Option<&str>, is_read_only: bool) {
        if branch == Some(&self.production) && !is_read_only {
            self.blame("G1: a query to production was not read only".to_owned());
        }
        let is_known = branch.is_none_or(|branch| {
            branch == self.production || branch == self.staging || self.made.contains_key(branch)
        });
        if !is_known {
            self.blame(format!("G1: {branch:?} was queried, which is neither staging nor ours"));
        }
    }

    /// Notes tables of a branch that a task has read.
    pub(crate) fn read(&mut self, branch: &str, tables: impl Iterator<Item = String>) {
        if let Some(made) = self.made.get_mut(branch) {
            made.tables_read.extend(tables);
        }
    }

    /// Returns what a listing that was just made shows of staging.
    pub(crate) fn sight(&self, neon: &Simulated) -> Sight {
        let staging = neon.model.branch(&self.staging);
        let parent = staging.and_then(|staging| staging.parent.clone());
        let first = neon.first_contents(&self.staging);
        let is_copy = first.is_some()
            && first == parent.as_deref().and_then(|parent| neon.first_contents(parent));
        let is_ready = staging.is_some_and(|staging| staging.state == "ready");
        let is_default = staging.is_some_and(|staging| staging.is_default);
        Sight { parent, is_ready, is_default, is_copy, damage: neon.damage_of(&self.staging) }
    }

    /// Returns how often a run made a backup, restored and rolled back.
    pub(crate) fn deeds(&self, run: &str) -> (u32, u32, u32) {
        self.runs
            .get(run)
            .map_or((0, 0, 0), |deeds| (deeds.backups, deeds.restores, deeds.roll_backs))
    }

    /// Returns the id of this run's backup, if it was made.
    pub(crate) fn backup(&self, run: &str) -> Option<String> {
        self.made
            .iter()
            .find(|(_, made)| made.run == run && made.purpose == Purpose::Backup)
            .map(|(id, _)| id.clone())
    }

    /// Returns the id of the branch that keeps what a run displaced, if there is one.
    pub(crate) fn displaced(&self, run: &str) -> Option<String> {
        self.displaced_by.iter().find(|(_, by)| *by == run).map(|(id, _)| id.clone())
    }

    /// Returns the id of production.
    pub(crate) fn production_id(&self) -> &str {
        &self.production
    }

    /// Returns the id of staging.
    pub(crate) fn staging_id(&self) -> &str {
        &self.staging
    }
}
