//! Judges everything of ours, one kind after the other: why it stays, and what holds it where a run
//! finds no room.

use crate::ordered::{self, IntoOrdered as _};
use std::collections::{BTreeMap, BTreeSet};

use super::ours::{is_displaced_of_another, is_our_displaced, is_our_endpoint, is_our_snapshot};
use super::room::{self, Firm, Hold};
use super::{Entry, Inventory, Kind, YOUNG};
use crate::config::{KeepRules, Pair};
use crate::id::{BranchId, BranchName, RunId};
use crate::names::run_of_test;
use crate::neon::wire::{Branch, CLOCKS_APART, Endpoint};
use crate::time::{Timestamp, after, between};

/// A branch, after its place in Neon's listing.
pub(super) type Placed<'a> = (usize, &'a Branch);

/// A branch, and why it stays.
pub(super) struct Judged<'a> {
    pub(super) branch: &'a Branch,
    /// Where Neon lists it.
    pub(super) place: usize,
    pub(super) kind: Kind,
    pub(super) reasons: Vec<String>,
    /// What holds it where a run finds no room.
    pub(super) hold: Result<Hold, Firm>,
    /// Why it goes where there is no reason to stay.
    pub(super) otherwise: &'static str,
}

impl Judged<'_> {
    pub(super) fn entry(&self) -> Entry {
        let is_kept = !self.reasons.is_empty();
        let reasons = if is_kept { self.reasons.clone() } else { vec![self.otherwise.to_owned()] };
        let (id, name) = (self.branch.id.to_string(), self.branch.name.to_string());
        Entry { kind: self.kind, id, name, created_at: self.branch.created_at, is_kept, reasons }
    }
}

/// Judges one kind after the other.
pub(super) struct Judge<'a> {
    pub(super) inventory: &'a Inventory<'a>,
    pub(super) pair: &'a Pair,
    pub(super) rules: &'a KeepRules,
    pub(super) run: Option<&'a RunId>,
    pub(super) now: Timestamp,
    pub(super) judged: Vec<Judged<'a>>,
    /// The snapshots, with the reasons.
    pub(super) snapshots: Vec<Entry>,
    pub(super) wants_snapshot: bool,
    pub(super) endpoints: BTreeMap<&'a BranchId, Vec<&'a Endpoint>>,
    /// The backups of ours, with their runs.
    pub(super) backups: BTreeMap<&'a BranchId, (&'a Branch, RunId)>,
}

impl<'a> Judge<'a> {
    /// Returns whether a branch is younger than a day; one of the future is.
    pub(super) fn is_young(&self, branch: &Branch) -> bool {
        self.young(branch.created_at).is_some()
    }

    /// Returns why what was made within a day stays; what was made in the future does.
    pub(super) fn young(&self, made_at: Timestamp) -> Option<String> {
        (between(made_at, self.now) < YOUNG).then(|| "younger than 24 hours".to_owned())
    }

    /// Enters a branch. `hold` is what holds it where there is a reason to stay.
    pub(super) fn judge(
        &mut self,
        (place, branch): Placed<'a>,
        kind: Kind,
        mut reasons: Vec<String>,
        hold: Result<Hold, Firm>,
        otherwise: &'static str,
    ) {
        let mut hold = if reasons.is_empty() { Ok(Hold::Nothing) } else { hold };
        if let Some(young) = self.young(branch.created_at).filter(|_| reasons.is_empty()) {
            reasons.push(young);
            hold = Ok(Hold::Day);
        }
        let is_held = hold.is_ok_and(|hold| hold > Hold::Nothing);
        if let Some(firm) = self.unsettled(branch).filter(|_| is_held) {
            hold = Err(firm);
        }
        self.judged.push(Judged { branch, place, kind, reasons, hold, otherwise });
    }

    /// Returns whether something was made after `now`, by more than clocks may be apart: a clock
    /// was wrong.
    pub(super) fn is_of_the_future(&self, made_at: Timestamp) -> bool {
        made_at > after(self.now, CLOCKS_APART)
    }

    /// Returns why a branch does not even give way to a run that finds no room: somebody may still
    /// be at work on it.
    pub(super) fn unsettled(&self, branch: &Branch) -> Option<Firm> {
        if between(branch.created_at, self.now) < room::SETTLED {
            return Some(Firm::Hour);
        }
        let others = self.inventory.records.unfinished.iter().filter(|run| self.run != Some(run));
        let mut begun = others
            .filter_map(RunId::started_at)
            .filter(|at| between(*at, self.now) < room::UNFINISHED);
        begun.any(|at| after(branch.created_at, CLOCKS_APART) >= at).then_some(Firm::Unfinished)
    }

    /// Returns the names that staging has or had.
    pub(super) fn staging_names(&self) -> BTreeSet<&'a str> {
        let staging =
            self.inventory.branches.by_id(&self.pair.staging_branch).map(|staging| &staging.name);
        staging
            .into_iter()
            .chain(&self.inventory.records.staging_names)
            .map(BranchName::as_str)
            .into_set()
    }

    /// Displaced branches, newest first: those that are named after a name that staging has or had.
    pub(super) fn displaced(&mut self) {
        let branches = self.inventory.branches;
        let stems: Vec<String> =
            self.staging_names().into_iter().map(|name| format!("{name}-of-")).collect();
        let is_named = |branch: &Branch| {
            stems.iter().any(|stem| branch.name.as_str().starts_with(stem.as_str()))
        };
        let (mut ours, mut foreign) = (Vec::new(), Vec::new());
        for placed in branches.branches.iter().enumerate() {
            let (_, branch) = placed;
            if stems.iter().any(|stem| is_our_displaced(branches, self.pair, stem, branch)) {
                ours.push(placed);
            } else if is_named(branch) {
                foreign.push((placed, "foreign: has a displaced branch's name but not its place"));
            } else if is_displaced_of_another(branches, self.pair, branch) {
                foreign.push((
                    placed,
                    "foreign: has a displaced branch's place, after a name that staging had not, \
                     as far as is known",
                ));
            }
        }
        ordered::sort_by(&mut ours, |(_, left), (_, right)| {
            (right.created_at, &right.name).cmp(&(left.created_at, &left.name))
        });
        for (rank, branch) in ours.into_iter().enumerate() {
            let most = self.rules.displaced;
            let reason = (rank < most as usize)
                .then(|| format!("keep_displaced: number {} of {most}", rank + 1));
            let reasons = reason.into_iter().collect();
            self.judge(
                branch,
                Kind::Displaced,
                reasons,
                Err(Firm::Displaced),
                "displaced longer ago than keep_displaced",
            );
        }
        for (branch, reason) in foreign {
            self.judge(branch, Kind::Displaced, vec![reason.to_owned()], Err(Firm::Foreign), "");
        }
    }

    /// Check branches, which a run needs only itself.
    pub(super) fn checks(&mut self) {
        let branches = self.inventory.branches;
        let names = self.staging_names();
        for (place, branch) in branches.branches.iter().enumerate() {
            let Some((name, of)) = branch.name.as_str().rsplit_once("-check-") else { continue };
            let Some(of) = RunId::decode(of).filter(|_| names.contains(name)) else { continue };
            let is_ours = branches.annotation(&branch.id, "firstlight")
                == Some(self.pair.name.as_str())
                && branches.annotation(&branch.id, "run") == Some(of.as_str());
            if !is_ours {
                self.judge(
                    (place, branch),
                    Kind::Check,
                    vec![
                        "foreign: has a check branch's name but was not made by this pair"
                            .to_owned(),
                    ],
                    Err(Firm::Foreign),
                    "",
                );
            } else if self.run == Some(&of) {
                let (kind, hold, otherwise) =
                    (Kind::Check, Ok(Hold::Nothing), "check branch of this run");
                self.judged.push(Judged {
                    branch,
                    place,
                    kind,
                    reasons: Vec::new(),
                    hold,
                    otherwise,
                });
            } else {
                self.judge(
                    (place, branch),
                    Kind::Check,
                    Vec::new(),
                    Ok(Hold::Nothing),
                    "check branch of a run that is over",
                );
            }
        }
    }

    /// Branches that were made from a snapshot to compare it, which the run that made them deletes
    /// itself.
    pub(super) fn restore_tests(&mut self) {
        let branches = self.inventory.branches;
        for (place, branch) in branches.branches.iter().enumerate() {
            let Some(of) = run_of_test(self.pair, &branch.name) else { continue };
            let from = branch.restored_from.as_ref();
            let snapshot =
                self.inventory.snapshots.iter().find(|snapshot| Some(&snapshot.id) == from);
            let on_record =
                self.inventory.records.snapshots.get(&of).and_then(|record| record.id.as_ref());
            let is_ours = snapshot.is_some_and(|snapshot| {
                is_our_snapshot(self.pair, branches, self.inventory.records, snapshot, &of)
            }) || from.is_some() && from == on_record;
            let foreign =
                "foreign: has a restore test's name but was not made from a snapshot of ours";
            let of_run = self.run == Some(&of);
            let reasons: Vec<String> = if is_ours {
                of_run.then(|| "restore test of this run".to_owned()).into_iter().collect()
            } else {
                vec![foreign.to_owned()]
            };
            let hold = match (is_ours, of_run) {
                (true, false) => Ok(Hold::Nothing),
                (true, true) => Err(Firm::OfRun),
                (false, _) => Err(Firm::Foreign),
            };
            let otherwise = "restore test of a run that is over";
            // Not as young as a day: where a run has left it, the next one needs its place.
            self.judged.push(Judged {
                branch,
                place,
                kind: Kind::RestoreTest,
                reasons,
                hold,
                otherwise,
            });
        }
    }

    /// Keeps what Neon or somebody else holds on to.
    pub(super) fn keep_what_others_need(&mut self) {
        for judged in &mut self.judged {
            if judged.branch.protected || judged.branch.default {
                let reason = if judged.branch.protected {
                    "protected in Neon"
                } else {
                    "the project's default branch"
                };
                judged.reasons.push(reason.to_owned());
                judged.hold = Err(Firm::Protected);
            }
            let made = self
                .backups
                .get(&judged.branch.id)
                .and_then(|(_, of)| self.inventory.records.endpoints.get(of));
            let is_ours = |endpoint: &&&Endpoint| match judged.kind {
                Kind::Backup(_) => is_our_endpoint(judged.branch, endpoint, made),
                Kind::Displaced | Kind::Snapshot(_) => false,
                Kind::Check | Kind::RestoreTest | Kind::Endpoint | Kind::Orphan => true,
            };
            let foreign = self
                .endpoints
                .get(&judged.branch.id)
                .into_iter()
                .flatten()
                .find(|endpoint| !is_ours(endpoint));
            if let Some(endpoint) = foreign {
                judged.reasons.push(format!(
                    "has the endpoint {}, which Firstlight did not make",
                    endpoint.id
                ));
                judged.hold = Err(Firm::Endpoint);
            }
        }
    }

    /// Endpoints of backups: those that were made with them go once their run is over.
    pub(super) fn endpoints(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (id, endpoints) in &self.endpoints {
            let Some((branch, of)) = self.backups.get(id) else { continue };
            let is_over = self.run == Some(of) || !self.is_young(branch);
            let made = self.inventory.records.endpoints.get(of);
            for endpoint in endpoints {
                let (is_kept, reason) = match (is_our_endpoint(branch, endpoint, made), is_over) {
                    (false, _) => (true, "not made by Firstlight"),
                    (true, false) => (true, "its run is younger than 24 hours"),
                    (true, true) => (false, "no run reads it any more"),
                };
                let (id, name) = (endpoint.id.to_string(), endpoint.id.to_string());
                let reasons = vec![format!("{reason}; of {}", branch.name)];
                entries.push(Entry {
                    kind: Kind::Endpoint,
                    id,
                    name,
                    created_at: endpoint.created_at,
                    is_kept,
                    reasons,
                });
            }
        }
        entries
    }
}
