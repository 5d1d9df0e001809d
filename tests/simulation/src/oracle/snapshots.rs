//! Judges what happens to snapshots.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use firstlight::time::Timestamp;
use neon_emulator::model::{Model, Request};
use neon_emulator::simulated::Simulated;
use serde_json::Value;

use super::{KEEP_AT_LEAST, Made, Oracle, Purpose};

impl Oracle {
    /// A snapshot was taken: of production, once in a run, at the position of that run's backup.
    pub(super) fn snapshot_taken(
        &mut self,
        branch: &str,
        request: &Request,
        body: &Value,
        neon: &Simulated,
        now: Timestamp,
    ) {
        let (id, name) = (
            body["snapshot"]["id"].as_str().unwrap_or_default(),
            body["snapshot"]["name"].as_str().unwrap_or_default(),
        );
        let backup =
            self.made.iter().find(|(_, made)| made.purpose == Purpose::Backup && made.name == name);
        let position =
            backup.and_then(|(id, _)| neon.model.branch(id)?.parent_lsn).map(|lsn| lsn.to_string());
        let Some(run) = backup.map(|(_, made)| made.run.clone()) else {
            self.blame(format!("G1: snapshot {name} was taken, which is of no backup of ours"));
            return;
        };
        if branch != self.production
            || position.is_some_and(|position| request.query.get("lsn") != Some(&position))
        {
            self.blame(format!(
                "G2: snapshot {name} was taken of {branch} at {:?}, which is not what the \
                    backup is of",
                request.query.get("lsn")
            ));
        }
        let deeds = self.runs.entry(run.clone()).or_default();
        deeds.snapshots += 1;
        if deeds.snapshots > 1 && neon.model.switches.snapshot_slugs {
            let count = deeds.snapshots;
            self.blame(format!("G3: run {run} took {count} snapshots"));
        }
        self.snapshots.insert(id.to_owned(), (run, now + neon.clock_offset));
    }

    /// A branch was made of a snapshot of ours, and takes nothing's place.
    pub(super) fn snapshot_restored(
        &mut self,
        id: &str,
        request: &Request,
        body: &Value,
        now: Timestamp,
    ) {
        let (branch, name) = (
            body["branch"]["id"].as_str().unwrap_or_default(),
            body["branch"]["name"].as_str().unwrap_or_default(),
        );
        let Some((run, _)) = self.snapshots.get(id).cloned() else {
            self.blame(format!("G1: branch {name} was made of snapshot {id}, which is not ours"));
            return;
        };
        let target = request.body["target_branch_id"].as_str().unwrap_or_default();
        let is_harmless = self.made.get(target).is_some_and(|made| made.purpose == Purpose::Backup);
        if request.body["finalize_restore"] == true || !is_harmless {
            self.blame(format!("G1: snapshot {id} was restored onto {target:?}"));
        }
        let made = Made {
            name: name.to_owned(),
            run,
            purpose: Purpose::RestoreTest,
            at: now,
            clock_offset: self.clock_offset,
            tables_read: BTreeSet::new(),
        };
        self.made.insert(branch.to_owned(), made);
        let endpoints = body["endpoints"].as_array().into_iter().flatten();
        self.made_endpoints
            .extend(endpoints.filter_map(|endpoint| Some(endpoint["id"].as_str()?.to_owned())));
    }

    pub(super) fn snapshot_deleted(&mut self, id: &str, neon: &Simulated, now: Timestamp) {
        let Some((run, at)) = self.snapshots.get(id).cloned() else {
            self.blame(format!("G4: snapshot {id} was deleted, which is not ours"));
            return;
        };
        if now - at < TimeDelta::hours(24) - TimeDelta::seconds(1) {
            self.blame(format!(
                "G4: the snapshot of run {run} was deleted when it was younger than a day"
            ));
        }
        // The newest backups that are there, as a branch that was used or as a snapshot that was
        // compared, with the one that goes.
        let is_there = |of: &str, made: &(&String, &Made)| {
            neon.model.branch(made.0).is_some() && self.used.contains(made.0)
                || of == run
                || self.has_compared_snapshot(of, &neon.model)
        };
        let mut there: Vec<(Timestamp, &str)> = self
            .made
            .iter()
            .filter(|(_, made)| made.purpose == Purpose::Backup)
            .filter(|made| is_there(&made.1.run, made))
            .map(|(_, made)| (made.at, made.run.as_str()))
            .collect();
        there.sort_unstable_by(|left, right| right.cmp(left));
        let is_floor = there.iter().take(KEEP_AT_LEAST).any(|(_, of)| *of == run);
        let has_branch = self.made.iter().any(|(id, made)| {
            made.run == run && made.purpose == Purpose::Backup && neon.model.branch(id).is_some()
        });
        if is_floor && !has_branch {
            self.blame(format!(
                "G4: the snapshot of run {run} was deleted, the last of one of the newest \
                    {KEEP_AT_LEAST} backups"
            ));
        }
    }

    /// Returns whether a backup is there as a snapshot that was compared.
    pub(super) fn has_compared_snapshot(&self, run: &str, model: &Model) -> bool {
        let is_compared = self.runs.get(run).is_some_and(|deeds| deeds.is_compared);
        is_compared
            && model
                .snapshots
                .iter()
                .any(|snapshot| self.snapshots.get(&snapshot.id).is_some_and(|(of, _)| of == run))
    }

    /// Notes whether a branch that was made of a snapshot is what the backup is, and whether it was
    /// read.
    pub(super) fn look_at_test(&mut self, id: &str, made: &Made, neon: &Simulated) {
        let backup = self
            .made
            .iter()
            .find(|(_, backup)| backup.purpose == Purpose::Backup && backup.run == made.run);
        let Some(expected) = backup.and_then(|(id, _)| neon.first_contents(id)) else { return };
        let deeds = self.runs.entry(made.run.clone()).or_default();
        if neon.contents(id) == Some(expected) {
            deeds.equal_tests.insert(id.to_owned());
        }
        // What was read may arrive when the branch is gone.
        let is_read = expected.tables.keys().all(|table| made.tables_read.contains(table));
        deeds.is_compared |= is_read && deeds.equal_tests.contains(id);
    }

    /// A snapshot is called verified: a branch that was made of it has been read, and was equal to
    /// the backup.
    pub(crate) fn claimed_snapshot(&mut self, key: &str, record: &Value, neon: &Simulated) {
        if record["outcome"]["status"] != "verified" {
            return;
        }
        let run = key.split('/').nth(2).unwrap_or_default().to_owned();
        let tests: Vec<(String, Made)> = self
            .made
            .iter()
            .filter(|(_, made)| made.purpose == Purpose::RestoreTest && made.run == run)
            .map(|(id, made)| (id.clone(), made.clone()))
            .collect();
        for (id, made) in &tests {
            self.look_at_test(id, made, neon);
        }
        if !self.runs.get(&run).is_some_and(|deeds| deeds.is_compared) {
            self.blame(format!(
                "G6: the snapshot of run {run} is called verified, and was not compared or is \
                    not equal"
            ));
        }
    }

    /// Returns how many snapshots of ours there are, and how many were taken.
    pub(crate) fn snapshots(&self, model: &Model) -> (usize, usize) {
        (
            model
                .snapshots
                .iter()
                .filter(|snapshot| self.snapshots.contains_key(&snapshot.id))
                .count(),
            self.snapshots.len(),
        )
    }
}
