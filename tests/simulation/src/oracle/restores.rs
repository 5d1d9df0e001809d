//! Judges restores and roll-backs of staging.

use std::collections::BTreeSet;

use firstlight::time::Timestamp;
use neon_emulator::model::{Branch, Request};
use neon_emulator::simulated::Simulated;

use super::{Made, Oracle, Purpose, Sight};

impl Oracle {
    /// Judges a restore of a branch; `before` is staging as it was.
    pub(super) fn restored(
        &mut self,
        id: &str,
        request: &Request,
        before: Option<&Branch>,
        neon: &Simulated,
        now: Timestamp,
    ) {
        if id != self.staging {
            self.blame(format!("G1: {id} was restored, which is not staging"));
        }
        let source = request.body["source_branch_id"].as_str().unwrap_or_default().to_owned();
        let name = request.body["preserve_under_name"].as_str().unwrap_or_default();
        let Some(preserved) = neon.model.branch_named(name).map(|branch| branch.id.clone()) else {
            self.blame("G2: what staging held was not kept".to_owned());
            return;
        };
        let run = if let Some(run) = self.displaced_by.get(&source).cloned() {
            self.rolled_back(&run, before);
            run
        } else {
            self.restored_from(&source, neon).unwrap_or_default()
        };
        self.displaced_by.insert(preserved.clone(), run.clone());
        self.made.insert(
            preserved,
            Made {
                name: name.to_owned(),
                run,
                purpose: Purpose::Displaced,
                at: now,
                clock_offset: self.clock_offset,
                tables_read: BTreeSet::new(),
            },
        );
    }

    /// A task asks for a restore of staging: Neon does that to a default branch too.
    pub(crate) fn restore_is_sent(&mut self, sight: Option<&Sight>) {
        if sight.is_some_and(|sight| sight.is_default) {
            self.blame(
                "G1: staging was restored by who had seen that it is the project's default branch"
                    .to_owned(),
            );
        }
    }

    /// Staging was restored from a backup: once in a run, and from one that is finished and was
    /// read.
    fn restored_from(&mut self, source: &str, neon: &Simulated) -> Option<String> {
        let Some(backup) =
            self.made.get(source).filter(|made| made.purpose == Purpose::Backup).cloned()
        else {
            self.blame(format!(
                "G2: staging was restored from {source}, which is no backup of ours"
            ));
            return None;
        };
        let deeds = self.runs.entry(backup.run.clone()).or_default();
        deeds.restores += 1;
        if deeds.restores > 1 + self.locks_lost {
            let count = deeds.restores;
            self.blame(format!("G3: run {} restored staging {count} times", backup.run));
        }
        match neon.contents(source) {
            None => self.blame(format!(
                "G2: staging was restored from {}, which was not finished",
                backup.name
            )),
            Some(contents)
                if !contents.tables.keys().all(|table| backup.tables_read.contains(table)) =>
            {
                self.blame(format!(
                    "G2: staging was restored from {}, of which only {:?} was read",
                    backup.name, backup.tables_read
                ));
            }
            Some(_) => {}
        }
        self.used.insert(source.to_owned());
        Some(backup.run)
    }

    /// Staging was rolled back to what this run displaced, once, while it was still what this run
    /// had made of it.
    fn rolled_back(&mut self, run: &str, before: Option<&Branch>) {
        let deeds = self.runs.entry(run.to_owned()).or_default();
        deeds.roll_backs += 1;
        if deeds.roll_backs > 1 + self.locks_lost {
            let count = deeds.roll_backs;
            self.blame(format!("G3: run {run} rolled staging back {count} times"));
        }
        let parent =
            before.and_then(|staging| staging.parent.as_ref()).and_then(|id| self.made.get(id));
        if parent.is_none_or(|parent| parent.run != run || parent.purpose != Purpose::Backup) {
            self.blame(format!(
                "G2: run {run} rolled staging back although it was not its own any more"
            ));
        }
    }
}
