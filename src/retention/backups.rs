//! Backups, each as a branch, as a snapshot, or as both.

use crate::ordered::{self, IntoOrdered as _};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::judge::{Judge, Placed};
use super::ours::{Standing, standing, standing_of_snapshot};
use super::room::{Firm, Hold};
use super::rules::{self, Made};
use super::{Entry, Kind, Known};
use crate::config::Tier;
use crate::id::RunId;
use crate::neon::wire::Snapshot;
use crate::time::{Timestamp, after, render};

/// How a reason ends for which a backup stays a branch although its rule keeps snapshots.
const WITHOUT: &str = ", as a branch while there is no verified snapshot";

/// A backup, in each form that there is of it, with what is known of that.
pub(super) struct Backup<'a> {
    run: RunId,
    made_at: Timestamp,
    branch: Option<(Placed<'a>, Option<Known>)>,
    snapshot: Option<(&'a Snapshot, Option<Known>)>,
}

/// What the rules keep, by the places of backups.
#[derive(Default)]
struct Kept {
    reasons: BTreeMap<(usize, Tier), Vec<String>>,
    /// Those that stay branches, as long as there is room, because their rule has no snapshot of
    /// them.
    waiting: BTreeSet<usize>,
    /// Those that stay branches because that is how their rule keeps them.
    as_branches: BTreeSet<usize>,
}

impl Backup<'_> {
    /// Returns the forms that there are, each with what is known of it.
    fn forms(&self) -> impl Iterator<Item = (Tier, Option<Known>)> {
        let branch = self.branch.map(|(_, known)| (Tier::Branch, known));
        branch.into_iter().chain(self.snapshot.map(|(_, known)| (Tier::Snapshot, known)))
    }

    /// Returns whether it counts in a form.
    fn counts(&self, wanted: Tier, counts: impl Fn(Option<Known>) -> bool) -> bool {
        self.forms().any(|(form, known)| form == wanted && counts(known))
    }

    /// Returns whether some form is one of which this is known.
    fn has(&self, wanted: Option<Known>) -> bool {
        self.forms().any(|(_, known)| known == wanted)
    }
}

impl<'a> Judge<'a> {
    /// Backups: those that count, newest first, then those that are kept whatever the rules say.
    pub(super) fn backups(&mut self) {
        let (mut backups, mut odd) = (Vec::new(), Vec::new());
        self.find_branches(&mut backups, &mut odd);
        self.find_snapshots(&mut backups);
        ordered::sort_by(&mut backups, |left: &Backup, right: &Backup| {
            (right.made_at, &right.run).cmp(&(left.made_at, &left.run))
        });
        let sure = self.by_rules(&backups, |known| known == Some(Known::Verified));
        // Where every record is there, both are the same, and this one is not asked.
        let is_lost = backups.iter().any(|backup| backup.has(None));
        let perhaps = if is_lost {
            self.by_rules(&backups, |known| known != Some(Known::Unverified))
        } else {
            Kept::default()
        };
        let mut verified = 0;
        let newest = backups.iter().position(|backup| backup.branch.is_some());
        for (rank, backup) in backups.into_iter().enumerate() {
            let newer = verified;
            verified += u32::from(backup.has(Some(Known::Verified)));
            let floor = self.floor(&backup, verified, rank, &sure);
            for (form, known) in backup.forms() {
                let made_at = backup
                    .branch
                    .filter(|_| form == Tier::Branch)
                    .map(|((_, branch), _)| branch.created_at);
                let made_at = made_at
                    .or(backup.snapshot.map(|(snapshot, _)| snapshot.created_at))
                    .unwrap_or(backup.made_at);
                let mut reasons = self.asked_for(&backup.run, form);
                let is_asked_for = !reasons.is_empty();
                match known {
                    Some(Known::Verified) => reasons
                        .extend(sure.reasons.get(&(rank, form)).into_iter().flatten().cloned()),
                    Some(Known::Unverified) => reasons.extend(self.inspection(made_at)),
                    None => {
                        let lost = perhaps.reasons.get(&(rank, form)).into_iter().flatten();
                        reasons.extend(lost.map(|reason| {
                            format!("its record is lost, it may be verified: {reason}")
                        }));
                    }
                }
                let by_rules = if known.is_none() { &perhaps } else { &sure };
                let hold = if is_asked_for {
                    Err(if self.run == Some(&backup.run) { Firm::OfRun } else { Firm::Pin })
                } else {
                    self.hold(known, newer, by_rules, rank, newest == Some(rank))
                };
                if reasons.is_empty() {
                    reasons.extend(
                        floor
                            .iter()
                            .filter(|(kept, _)| kept.contains(&form))
                            .map(|(_, reason)| reason.clone()),
                    );
                }
                if known.is_none() {
                    reasons.extend(self.inspection(made_at));
                }
                self.judge_form(
                    &backup,
                    form,
                    known,
                    (reasons, hold),
                    by_rules.waiting.contains(&rank),
                );
            }
        }
        for (branch, reason) in odd {
            self.judge(branch, Kind::Backup(None), vec![reason], Err(Firm::Foreign), "");
        }
    }

    /// Returns what holds the branch of a backup that nobody has asked for. `newer` is how many
    /// newer backups surely are verified.
    fn hold(
        &self,
        known: Option<Known>,
        newer: u32,
        by_rules: &Kept,
        rank: usize,
        is_newest: bool,
    ) -> Result<Hold, Firm> {
        // One whose record is lost may be verified.
        let is_of_floor = known != Some(Known::Unverified) && newer < self.rules.at_least;
        match known {
            _ if is_of_floor => Err(Firm::Floor),
            Some(Known::Verified) | None if by_rules.as_branches.contains(&rank) => Ok(Hold::Rule),
            Some(Known::Verified) | None if by_rules.waiting.contains(&rank) => Ok(Hold::Snapshot),
            // `keep_failed` alone, also where its record is lost.
            Some(_) | None => Ok(if is_newest { Hold::Newest } else { Hold::Inspection }),
        }
    }

    /// Finds the branches that are backups.
    fn find_branches(&mut self, found: &mut Vec<Backup<'a>>, odd: &mut Vec<(Placed<'a>, String)>) {
        let inventory = self.inventory;
        for (place, branch) in inventory.branches.branches.iter().enumerate() {
            let standing = standing(self.pair, inventory.branches, branch);
            if let Standing::Backup(run) = &standing {
                self.backups.insert(&branch.id, (branch, run.clone()));
            }
            match standing {
                Standing::Backup(run)
                    if self.is_of_the_future(branch.created_at) && self.run != Some(&run) =>
                {
                    odd.push((
                        (place, branch),
                        format!("made in the future, at {}", render(branch.created_at)),
                    ));
                }
                Standing::Backup(run) => {
                    let known = inventory.records.known.get(&run).copied();
                    found.push(Backup {
                        run,
                        made_at: branch.created_at,
                        branch: Some(((place, branch), known)),
                        snapshot: None,
                    });
                }
                Standing::Renamed(run, reason) => {
                    odd.push(((place, branch), self.with_pin(&run, reason)));
                }
                Standing::Odd(reason) => odd.push(((place, branch), reason)),
                Standing::Other => {}
            }
        }
    }

    /// Finds the snapshots of backups; those that are kept whatever the rules say are judged at
    /// once.
    fn find_snapshots(&mut self, found: &mut Vec<Backup<'a>>) {
        let inventory = self.inventory;
        if inventory.snapshots.is_empty() {
            return;
        }
        let mut places: BTreeMap<RunId, usize> =
            found.iter().enumerate().map(|(place, backup)| (backup.run.clone(), place)).into_map();
        for snapshot in inventory.snapshots {
            let run = match standing_of_snapshot(
                self.pair,
                inventory.branches,
                inventory.records,
                snapshot,
            ) {
                Standing::Backup(run)
                    if self.is_of_the_future(snapshot.created_at) && self.run != Some(&run) =>
                {
                    self.keep_snapshot(
                        snapshot,
                        format!("made in the future, at {}", render(snapshot.created_at)),
                    );
                    continue;
                }
                Standing::Backup(run) => run,
                Standing::Renamed(run, reason) => {
                    self.keep_snapshot(snapshot, self.with_pin(&run, reason));
                    continue;
                }
                Standing::Odd(reason) => {
                    self.keep_snapshot(snapshot, reason);
                    continue;
                }
                Standing::Other => continue,
            };
            let record = inventory.records.snapshots.get(&run);
            let made_at = record.map_or(snapshot.created_at, |record| record.made_at);
            let place = *places.entry(run.clone()).or_insert(found.len());
            if place == found.len() {
                found.push(Backup { run, made_at, branch: None, snapshot: None });
            }
            let backup = &mut found[place];
            let is_recorded = |snapshot: &Snapshot| {
                record.and_then(|record| record.id.as_ref()) == Some(&snapshot.id)
            };
            // Two ticks may have taken it twice: the one that was compared is the one, else the
            // first.
            let second = match backup.snapshot {
                Some((first, _)) if is_recorded(first) || !is_recorded(snapshot) => Some(snapshot),
                Some((first, _)) => {
                    backup.snapshot = Some((snapshot, record.map(|record| record.known)));
                    Some(first)
                }
                None => {
                    // What is known of another is not known of this one.
                    let known = record.map(|record| {
                        if is_recorded(snapshot) { record.known } else { Known::Unverified }
                    });
                    backup.snapshot = Some((snapshot, known));
                    None
                }
            };
            if let Some(second) = second {
                self.enter_snapshot(
                    second,
                    Some(Known::Unverified),
                    Vec::new(),
                    "a second snapshot of its run",
                );
            }
        }
    }

    /// Returns why backups are kept by the rules, where only those count of which this is so.
    fn by_rules(
        &self,
        backups: &[Backup<'_>],
        counts: impl Fn(Option<Known>) -> bool + Copy,
    ) -> Kept {
        let mut kept = Kept::default();
        // A rule keeps what there is: a snapshot where the branch is gone, too, so that nothing
        // goes because a tier was changed.
        let places: Vec<usize> = (0..backups.len())
            .filter(|place| backups[*place].forms().any(|(_, known)| counts(known)))
            .collect();
        for tier in [Tier::Branch, Tier::Snapshot] {
            if tier == Tier::Snapshot && !self.rules.has_snapshots() {
                continue;
            }
            let made = |place: &usize| Made {
                at: backups[*place].made_at,
                is_preferred: backups[*place].counts(tier, counts),
            };
            let made: Vec<Made> = places.iter().map(made).collect();
            for (&place, mut reasons) in
                places.iter().zip(rules::reasons(&self.rules.of(tier), &self.pair.zone, &made))
            {
                if reasons.is_empty() {
                    continue;
                }
                let backup = &backups[place];
                let form = if backup.counts(tier, counts) { tier } else { tier.other() };
                if form == Tier::Branch && tier == Tier::Snapshot {
                    kept.waiting.insert(place);
                    for reason in &mut reasons {
                        reason.push_str(WITHOUT);
                    }
                } else if form == Tier::Branch {
                    kept.as_branches.insert(place);
                }
                // A snapshot that may not be verified does not let the branch go.
                let is_lost = form == Tier::Snapshot
                    && backup.snapshot.is_some_and(|(_, known)| known.is_none());
                if is_lost && backup.counts(Tier::Branch, counts) {
                    kept.as_branches.insert(place);
                    kept.reasons
                        .entry((place, Tier::Branch))
                        .or_default()
                        .extend(reasons.iter().cloned());
                }
                kept.reasons.entry((place, form)).or_default().extend(reasons);
            }
        }
        kept
    }

    /// Returns which forms of a backup the floor keeps, and why, where no rule keeps any. Of forms
    /// whose records are lost either may be the verified one.
    fn floor(
        &self,
        backup: &Backup<'_>,
        verified: u32,
        rank: usize,
        sure: &Kept,
    ) -> Option<(Vec<Tier>, String)> {
        let most = self.rules.at_least;
        let of = |wanted: Option<Known>| {
            backup.forms().filter(move |(_, known)| *known == wanted).map(|(form, _)| form)
        };
        if backup.has(Some(Known::Verified)) {
            let is_kept =
                of(Some(Known::Verified)).any(|form| sure.reasons.contains_key(&(rank, form)));
            // A snapshot takes no place of a branch.
            let best = || of(Some(Known::Verified)).max().into_iter().collect();
            return (verified <= most && !is_kept)
                .then(|| (best(), format!("keep_at_least: number {verified} of {most}")));
        }
        let reason =
            "keep_at_least: its record is lost, it may be verified, and too few newer ones are";
        (verified < most && backup.has(None)).then(|| (of(None).collect(), reason.to_owned()))
    }

    /// Returns why a backup is wanted, whatever the rules say.
    fn asked_for(&self, run: &RunId, form: Tier) -> Vec<String> {
        let of_run = (self.run == Some(run) && form == Tier::Branch)
            .then(|| "backup of this run".to_owned());
        of_run.into_iter().chain(self.pinned(run)).collect()
    }

    /// Adds to a reason that somebody has pinned it as well.
    fn with_pin(&self, run: &RunId, reason: String) -> String {
        self.pinned(run).map(|pin| format!("{reason}; {pin}")).unwrap_or(reason)
    }

    /// Returns why somebody wants a backup kept.
    fn pinned(&self, run: &RunId) -> Option<String> {
        let pin = self
            .inventory
            .records
            .pins
            .get(run)
            .filter(|pin| pin.until.is_none_or(|until| until > self.now));
        pin.map(|pin| match pin.until {
            Some(until) => format!("pinned until {}: {}", render(until), pin.reason),
            None => format!("pinned: {}", pin.reason),
        })
    }

    /// Returns why a backup that was not verified is kept, as far as that goes.
    fn inspection(&self, made_at: Timestamp) -> Option<String> {
        let Some(days) = self.rules.failed_days else {
            return Some(
                "not verified: kept until somebody deletes it, because keep_failed is not set"
                    .to_owned(),
            );
        };
        let until = after(made_at, Duration::from_hours(24) * days);
        (until > self.now).then(|| {
            format!(
                "not verified: kept for {days} days by keep_failed, until {}",
                self.pair.zone.date(until)
            )
        })
    }

    fn judge_form(
        &mut self,
        backup: &Backup<'a>,
        form: Tier,
        known: Option<Known>,
        (reasons, hold): (Vec<String>, Result<Hold, Firm>),
        is_waiting: bool,
    ) {
        let otherwise = match known {
            Some(Known::Verified) => "older than every keep rule",
            Some(Known::Unverified) | None => "not verified, and older than keep_failed",
        };
        if let (Tier::Branch, Some((branch, _))) = (form, backup.branch) {
            self.wants_snapshot |= is_waiting && self.run == Some(&backup.run);
            self.judge(branch, Kind::Backup(known), reasons, hold, otherwise);
        } else if let (Tier::Snapshot, Some((snapshot, _))) = (form, backup.snapshot) {
            self.enter_snapshot(snapshot, known, reasons, otherwise);
        }
    }

    fn keep_snapshot(&mut self, snapshot: &Snapshot, reason: String) {
        self.enter_snapshot(snapshot, None, vec![reason], "");
    }

    /// Enters a snapshot. One that a branch was restored from stays as long as that.
    fn enter_snapshot(
        &mut self,
        snapshot: &Snapshot,
        known: Option<Known>,
        mut reasons: Vec<String>,
        otherwise: &str,
    ) {
        if reasons.is_empty() {
            reasons.extend(self.young(snapshot.created_at));
        }
        let restored = self
            .inventory
            .branches
            .branches
            .iter()
            .find(|branch| branch.restored_from.as_ref() == Some(&snapshot.id));
        reasons.extend(restored.map(|branch| format!("branch {} was made from it", branch.name)));
        let is_kept = !reasons.is_empty();
        if !is_kept {
            reasons.push(otherwise.to_owned());
        }
        let (id, name) = (snapshot.id.to_string(), snapshot.name.to_string());
        self.snapshots.push(Entry {
            kind: Kind::Snapshot(known),
            id,
            name,
            created_at: snapshot.created_at,
            is_kept,
            reasons,
        });
    }
}
