//! Judges what people are told: a success when it is claimed, and the story of every run at the
//! end.

use neon_emulator::model::Model;
use neon_emulator::simulated::Damage;

use super::{Oracle, Purpose, Sight};
use crate::run::Told;

/// How a notice begins that tells of a staging that has lost something of its backup.
const DRIFT: &str = "Staging is not what was restored any more: ";

impl Oracle {
    /// Judges a success when it is first claimed: written down, or told.
    ///
    /// A copy that has lost something is claimed only by those who say so first; one whose
    /// sequences are behind never is.
    pub(crate) fn claimed(
        &mut self,
        id: &str,
        run: &str,
        text: Option<&str>,
        sight: Option<&Sight>,
    ) {
        let is_known = id
            .strip_suffix("corrected")
            .is_some_and(|stem| self.claims.contains(&format!("{stem}succeeded")));
        if is_known || !self.claims.insert(id.to_owned()) {
            return;
        }
        let parent = sight.and_then(|sight| sight.parent.as_ref()).and_then(|id| self.made.get(id));
        let is_own =
            parent.is_some_and(|parent| parent.run == run && parent.purpose == Purpose::Backup);
        if let Some(text) = text {
            let is_told = text.contains(DRIFT);
            let is_true = |sight: &Sight| match sight.damage {
                _ if !sight.is_ready => false,
                Some(Damage::Behind) => false,
                Some(Damage::Rows(_)) => is_told,
                None => is_told || sight.is_copy,
            };
            if !(is_own && sight.is_some_and(is_true)) {
                self.blame(format!(
                    "G6: {id} was claimed as {text:?}, and the last look at staging showed \
                        {sight:?}"
                ));
            }
        }
        let mut backups =
            self.made.values().filter(|made| made.run == run && made.purpose == Purpose::Backup);
        if !backups.any(|backup| !backup.tables_read.is_empty()) {
            self.blame(format!("G6: {id} was claimed, and nobody had read the backup"));
        }
    }

    /// Returns how many notices have reached the webhook.
    pub(crate) fn arrival_count(&self) -> usize {
        self.arrived.len()
    }

    /// Returns the notices that have reached the webhook after the first so many.
    pub(crate) fn told_since(&self, count: usize) -> Vec<Told> {
        self.arrived.get(count..).unwrap_or_default().to_vec()
    }

    /// Notes a notice that reached the webhook.
    pub(crate) fn told(&mut self, run: &str, kind: &str, at: &str, text: &str) {
        self.arrived.push(Told {
            run: run.to_owned(),
            kind: kind.to_owned(),
            text: text.to_owned(),
        });
        self.runs.entry(run.to_owned()).or_default().told.push((kind.to_owned(), at.to_owned()));
    }

    /// Returns the kinds of notices that people got of a run, once each, in the order of their
    /// instants.
    pub(crate) fn story(&self, run: &str) -> Vec<String> {
        let mut told = self.runs.get(run).map(|deeds| deeds.told.clone()).unwrap_or_default();
        told.sort_by(|left, right| left.1.cmp(&right.1));
        once_each(&told)
    }

    /// Returns the same in the order in which they arrived.
    fn arrivals(&self, run: &str) -> Vec<String> {
        self.runs.get(run).map(|deeds| once_each(&deeds.told)).unwrap_or_default()
    }

    /// Returns the runs of a day that did something, were accepted, or of which people were told.
    pub(crate) fn runs_of(&self, day: &str) -> Vec<String> {
        self.runs.keys().filter(|run| run.starts_with(day)).cloned().collect()
    }

    /// Somebody was answered that a run has started: how it ends has to be told, whatever it does.
    pub(crate) fn accepted(&mut self, run: &str) {
        self.runs.entry(run.to_owned()).or_default();
    }

    /// Returns whether a run was accepted or did something, and nobody was told how it ended.
    pub(crate) fn has_silent_run(&self) -> bool {
        self.runs.values().any(|deeds| !deeds.told.iter().any(|(kind, _)| is_terminal(kind)))
    }

    /// Judges what is left when every run has ended.
    pub(crate) fn end(&mut self, model: &Model) {
        self.check_production(model);
        let runs: Vec<String> = self.runs.keys().cloned().collect();
        for run in runs {
            let story = self.story(&run);
            let terminal: Vec<&str> =
                story.iter().map(String::as_str).filter(|kind| is_terminal(kind)).collect();
            if terminal.is_empty() && !self.is_memory_lost {
                self.blame(format!(
                    "G5: run {run} made {:?} and nobody was told how it ended: {story:?}",
                    self.deeds(&run)
                ));
            }
            let is_untold =
                self.runs.get(&run).is_some_and(|deeds| deeds.snapshots > 0 && !deeds.is_compared)
                    && !story.iter().any(|kind| kind == "snapshot_failed");
            if is_untold && !self.is_memory_lost && !self.is_memory_stale && !self.is_strict {
                self.blame(format!(
                    "G5: the snapshot of run {run} was not compared, and nobody was told: {story:?}"
                ));
            }
            // Clocks may be wrong, and a channel that was down gets notices late: one of the two
            // orders has to make sense.
            if !self.is_memory_lost
                && is_contradiction(&story)
                && is_contradiction(&self.arrivals(&run))
            {
                self.blame(format!(
                    "G5: of run {run} people were told {terminal:?}, and nothing corrected it"
                ));
            }
        }
        // Neon itself puts a compute to sleep that nobody uses; what is asked here is that nobody
        // goes on using it.
        let awake = model.endpoints.iter().filter(|endpoint| {
            self.made.contains_key(&endpoint.branch) && endpoint.state == "active"
        });
        let awake: Vec<String> = awake.map(|endpoint| endpoint.id.clone()).collect();
        if !awake.is_empty() {
            self.blame(format!("computes of ours are left running: {}", awake.join(", ")));
        }
    }
}

/// Returns whether a notice tells how a run ended.
fn is_terminal(kind: &str) -> bool {
    !matches!(kind, "late" | "stuck" | "snapshot_failed" | "snapshot_verified")
}

fn once_each(told: &[(String, String)]) -> Vec<String> {
    let mut kinds: Vec<String> = Vec::new();
    for (kind, _) in told {
        if !kinds.contains(kind) {
            kinds.push(kind.clone());
        }
    }
    kinds
}

/// Returns whether a success and its opposite were told, and no `corrected` came after the
/// opposite.
fn is_contradiction(story: &[String]) -> bool {
    let place = |wanted: &[&str]| story.iter().rposition(|kind| wanted.contains(&kind.as_str()));
    let opposite = place(&["failed", "cancelled", "superseded", "missed"]);
    let corrected = place(&["corrected"]);
    let is_success_told = place(&["succeeded"]).is_some() || corrected.is_some();
    is_success_told
        && opposite.is_some_and(|opposite| corrected.is_none_or(|corrected| corrected < opposite))
}
