//! Whether the next thirty mornings find room: each is lived through with the keep rules as they
//! are.
//!
//! In: what there is, the rules, how many branches the project may have, the run that asks. Out:
//! the most that there will be, the first day on which something that a rule keeps gives way, and
//! the first day on which nothing more may, each with what to change.
//!
//! Invariants: a morning adds a backup and a displaced branch, which are verified and used;
//! branches of other people stay as they are. What mornings like these leave is not all that there
//! can be. The first mornings are lived through twice more: once with a first run that fails after
//! its backup is made, and once with a run that people start five hours after it. A plan that is
//! full by its rules has room for that only because something gives way, which is shown, and is no
//! warning.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::NaiveDate;

use super::{
    Entry, Hold, Inventory, Kind, Known, PrunePlan, Records, SnapshotRecord, plan, shortage,
};
use crate::config::{KeepRules, Pair};
use crate::id::{BranchId, RunId, SnapshotId};
use crate::names::{backup_name, is_our_backup, run_of_backup};
use crate::neon::wire::{Annotation, Branch, BranchList, Snapshot};
use crate::time::{Timestamp, after};

/// Mornings that are looked ahead.
const MORNINGS: usize = 30;

/// Mornings that are looked ahead after a run that fails or is started by people: what it leaves is
/// there, or has given way, on the second.
const MORNINGS_AFTER: usize = 3;

/// When people start a run, after the morning's.
const MANUAL_AFTER: Duration = Duration::from_hours(5);

/// When staging is restored, after the run has begun.
const RESTORED_AFTER: Duration = Duration::from_mins(10);

/// Branches that a run makes before it deletes any: the backup and what staging held before.
const BRANCHES_OF_A_RUN: usize = 2;

/// How long a run takes, at most, before it prunes.
const UNTIL_PRUNED: Duration = Duration::from_hours(1);

/// How full the project will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Branches that the project may have.
    pub limit: usize,
    /// The most that it will have, in the middle of a run.
    pub most: usize,
    /// The first day on which it has so many.
    pub most_on: NaiveDate,
    /// The first day on which a backup that a rule keeps gives way to a run.
    pub short: Option<Short>,
    /// The first day on which nothing more may give way, so that there is no room for a run.
    pub blocked: Option<Blocked>,
    /// The same where the first run fails, or is followed by one that people start.
    pub after: Vec<After>,
    /// Backups and displaced branches that are kept at the end.
    pub kept: usize,
    /// The snapshots; `None` where no rule keeps any.
    pub snapshots: Option<SnapshotForecast>,
}

/// A day on which the rules want more than the project may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Short {
    /// The day.
    pub on: NaiveDate,
    /// The first backup that gives way.
    pub gives_way: String,
    /// The rule that alone keeps most backups on that day.
    pub rule: Option<String>,
}

/// A day on which there is no room for a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The day.
    pub on: NaiveDate,
    /// What takes the places, and what to do about it.
    pub why: String,
}

/// What becomes of the next mornings after a first run that is not like the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    /// What became of the first run.
    pub first: First,
    /// The first day on which a backup that a rule keeps gives way to a run.
    pub short: Option<Short>,
    /// The first day on which there is no room for a run.
    pub blocked: Option<Blocked>,
}

/// What becomes of the first run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// What becomes of the others.
    Succeeds,
    /// It makes a backup, which is not verified.
    Fails,
    /// People start another one on the same day.
    IsFollowed,
}

impl First {
    /// Tells what would have come before; nothing where that is as ever.
    fn told(self) -> &'static str {
        match self {
            Self::Succeeds => "",
            Self::Fails => " after one run that fails",
            Self::IsFollowed => " after one more run on the day before",
        }
    }

    /// Returns its name in an answer of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeds => "none",
            Self::Fails => "failed_run",
            Self::IsFollowed => "manual_run",
        }
    }
}

/// How many snapshots there will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotForecast {
    /// Snapshots that people asked for that the project may have; `None` where that is not known.
    pub limit: Option<usize>,
    /// The most that it will have in those mornings, other people's included.
    pub most: usize,
    /// The first day on which there is no room for one.
    pub blocked_on: Option<NaiveDate>,
    /// The rule that alone keeps most of them on that day.
    pub rule: Option<String>,
}

impl Forecast {
    /// Tells people what to do; nothing where there is room.
    pub fn warnings(&self) -> Vec<String> {
        let limit = self.limit;
        let after = self
            .after
            .iter()
            .filter_map(|after| Some((after.first.told(), after.blocked.as_ref()?)));
        let blocked =
            self.blocked.iter().map(|blocked| (First::Succeeds.told(), blocked)).chain(after);
        let blocked = blocked.map(|(after, Blocked { on, why })| {
            format!(
                "on {on} there will be no room for a backup{after}: the project may have {limit} \
                 branches; {why} (runbooks/retention-blocked.md)"
            )
        });
        let short = self.short.iter().map(|Short { on, gives_way, rule }| {
            let remedy = rule.as_ref().map_or_else(
                || "delete branches that nobody needs".to_owned(),
                |rule| format!("lower {rule}"),
            );
            format!(
                "on {on} there will be no room for all that the rules keep: the project may have \
                 {limit} branches, and {gives_way} will give way to that day's backup; {remedy} \
                 (runbooks/retention-blocked.md)"
            )
        });
        let snapshots = self.snapshots.as_ref().and_then(|stock| {
            let (day, limit) = stock.blocked_on.zip(stock.limit)?;
            let rule = stock.rule.as_ref().map_or_else(
                || "delete snapshots that nobody needs".to_owned(),
                |rule| format!("lower {rule}"),
            );
            Some(format!(
                "on {day} there will be no room for a snapshot: the plan has {limit} that people \
                 may ask for; {rule}, or let it keep branches (runbooks/retention-blocked.md)"
            ))
        });
        short.chain(blocked).chain(snapshots).collect()
    }
}

/// What a project may have.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Branches.
    pub branches: usize,
    /// Snapshots that people asked for, as far as that is known.
    pub snapshots: Option<usize>,
}

/// Returns whether there is room for what the next mornings make, and for today's run, even if none
/// of it went.
pub fn always_has_room(branches: &BranchList, limit: usize) -> bool {
    branches.branches.len() + (MORNINGS + 1) * BRANCHES_OF_A_RUN <= limit
}

/// Lives through the next mornings. `run` is the run that asks, which has not made its backup.
pub fn forecast(
    inventory: &Inventory<'_>,
    pair: &Pair,
    rules: &KeepRules,
    room: Room,
    run: Option<&RunId>,
    now: Timestamp,
) -> Forecast {
    let look = Look { pair, rules, room, run, now };
    let mut forecast = look.ahead(inventory, MORNINGS, First::Succeeds);
    if forecast.blocked.is_none() {
        for first in [First::Fails, First::IsFollowed] {
            let Forecast { short, blocked, .. } = look.ahead(inventory, MORNINGS_AFTER, first);
            forecast.after.push(After { first, short, blocked });
        }
    }
    forecast
}

/// A run that is to come.
struct Coming {
    at: Timestamp,
    run: RunId,
    succeeds: bool,
}

/// From where it is looked ahead.
#[derive(Clone, Copy)]
struct Look<'a> {
    pair: &'a Pair,
    rules: &'a KeepRules,
    room: Room,
    run: Option<&'a RunId>,
    now: Timestamp,
}

impl Look<'_> {
    /// Returns the runs of so many mornings.
    fn coming(&self, branches: &BranchList, mornings: usize, first: First) -> Vec<Coming> {
        let Self { pair, now, .. } = self;
        let is_to_come = |run: &RunId| branches.by_name(&backup_name(pair, run)).is_none();
        let asking = self.run.into_iter().map(|run| (*now, run.clone()));
        let dates = pair
            .zone
            .date(*now)
            .iter_days()
            .take(mornings)
            .filter(|date| pair.times.has_run(*date));
        let scheduled = dates
            .map(|date| (pair.zone.instant(date, pair.times.start_at), RunId::scheduled(date)));
        let scheduled = scheduled.filter(|(at, run)| *at >= *now && self.run != Some(run));
        let all = asking.chain(scheduled).filter(|(_, run)| is_to_come(run));
        let mut coming: Vec<Coming> =
            all.map(|(at, run)| Coming { at, run, succeeds: true }).collect();
        if let Some(at) = coming.first_mut().map(|coming| {
            coming.succeeds = first != First::Fails;
            after(coming.at, MANUAL_AFTER)
        }) {
            let followed = (first == First::IsFollowed).then(|| Coming {
                at,
                run: RunId::manual(at),
                succeeds: true,
            });
            coming.splice(1..1, followed);
        }
        coming
    }

    fn ahead(&self, inventory: &Inventory<'_>, mornings: usize, first: First) -> Forecast {
        let Self { pair, rules, room, now, .. } = *self;
        let (branches, snapshots) = (inventory.branches.clone(), inventory.snapshots.to_vec());
        let mut project = Project { branches, snapshots, records: inventory.records.clone() };
        let limit = room.branches;
        let stock = SnapshotForecast {
            limit: room.snapshots,
            most: project.asked_for(),
            ..SnapshotForecast::default()
        };
        let mut forecast = Forecast {
            limit,
            most: project.branches.branches.len(),
            most_on: pair.zone.date(now),
            short: None,
            blocked: None,
            after: Vec::new(),
            kept: 0,
            snapshots: rules.has_snapshots().then_some(stock),
        };
        let mut last = now;
        for Coming { at, run, succeeds } in self.coming(inventory.branches, mornings, first) {
            let on = pair.zone.date(at);
            match project.make_room(pair, rules, at, limit) {
                Ok(short) => forecast.short = forecast.short.or(short),
                Err(why) => {
                    return Forecast {
                        blocked: Some(Blocked { on, why }),
                        kept: limit,
                        ..forecast
                    };
                }
            }
            let used = project.branches.branches.len() + BRANCHES_OF_A_RUN;
            if used > forecast.most {
                (forecast.most, forecast.most_on) = (used, on);
            }
            project.live(pair, &run, at, succeeds);
            let end = after(at, UNTIL_PRUNED);
            project.prune(pair, rules, &run, end);
            last = end;
            if let Some(stock) = forecast.snapshots.as_mut().filter(|_| succeeds) {
                project.take_snapshot(pair, rules, &run, end, stock);
            }
        }
        let left = project.plan(pair, rules, None, last).entries;
        forecast.kept = left
            .iter()
            .filter(|entry| {
                entry.is_kept && matches!(entry.kind, Kind::Backup(_) | Kind::Displaced)
            })
            .count();
        forecast
    }
}

/// A project as it will be.
struct Project {
    branches: BranchList,
    snapshots: Vec<Snapshot>,
    records: Records,
}

impl Project {
    /// Lets give way what has to, where a run finds no room. Returns the first that a rule keeps,
    /// or why there is no room.
    fn make_room(
        &mut self,
        pair: &Pair,
        rules: &KeepRules,
        at: Timestamp,
        limit: usize,
    ) -> Result<Option<Short>, String> {
        let wanted = (self.branches.branches.len() + BRANCHES_OF_A_RUN).saturating_sub(limit);
        if wanted == 0 {
            return Ok(None);
        }
        let plan = self.plan(pair, rules, None, at);
        let going: Vec<(&Entry, Hold)> = plan.branches_for_room().take(wanted).collect();
        if going.len() < wanted {
            return Err(shortage(&plan, pair, rules, &self.branches, at));
        }
        let first = going.iter().find(|(_, hold)| *hold >= Hold::Rule);
        let rule = || heaviest(&plan, |kind| matches!(kind, Kind::Backup(_)));
        let short = first.map(|(entry, _)| Short {
            on: pair.zone.date(at),
            gives_way: entry.name.clone(),
            rule: rule(),
        });
        let gone: Vec<&str> = going.iter().map(|(entry, _)| entry.id.as_str()).collect();
        self.branches.branches.retain(|branch| !gone.contains(&branch.id.as_str()));
        Ok(short)
    }

    /// A run makes a backup, and restores staging from it where it succeeds.
    fn live(&mut self, pair: &Pair, run: &RunId, at: Timestamp, succeeds: bool) {
        let backup = BranchId::from(format!("br-forecast-{run}").as_str());
        let branch =
            |id: BranchId, name: &str, parent: Option<BranchId>, created_at: Timestamp| Branch {
                id,
                name: name.into(),
                parent_id: parent,
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
            };
        let staging = self.branches.by_id(&pair.staging_branch).cloned().filter(|_| succeeds);
        if let Some(staging) = staging {
            let restored_at = after(at, RESTORED_AFTER);
            let parent = staging.parent_id.as_ref().and_then(|id| self.branches.by_id(id));
            let of = parent
                .filter(|parent| is_our_backup(pair, &self.branches, parent))
                .and_then(|parent| run_of_backup(pair, &parent.name));
            let rest = of.map_or_else(
                || format!("{}-0", staging.parent_id.as_ref().map_or("root", BranchId::tail)),
                |of| of.to_string(),
            );
            let displaced = BranchId::from(format!("br-displaced-{run}").as_str());
            self.branches.branches.push(branch(
                displaced,
                &format!("{}-of-{rest}", staging.name),
                staging.parent_id.clone(),
                restored_at,
            ));
        }
        let name = backup_name(pair, run);
        self.branches.branches.push(branch(
            backup.clone(),
            name.as_str(),
            Some(pair.production_branch.clone()),
            at,
        ));
        let value =
            [("firstlight".to_owned(), pair.name.to_string()), ("run".to_owned(), run.to_string())]
                .into();
        self.branches.annotations.insert(backup.clone(), Annotation { value });
        self.branches
            .branches
            .iter_mut()
            .filter(|branch| succeeds && branch.id == pair.staging_branch)
            .for_each(|staging| {
                staging.parent_id = Some(backup.clone());
            });
        self.records
            .known
            .insert(run.clone(), if succeeds { Known::Verified } else { Known::Unverified });
    }

    fn plan(
        &self,
        pair: &Pair,
        rules: &KeepRules,
        run: Option<&RunId>,
        at: Timestamp,
    ) -> PrunePlan {
        let Self { branches, snapshots, records } = self;
        plan(&Inventory { branches, endpoints: &[], snapshots, records }, pair, rules, run, at)
    }

    fn prune(&mut self, pair: &Pair, rules: &KeepRules, run: &RunId, at: Timestamp) {
        let plan = self.plan(pair, rules, Some(run), at);
        let gone: Vec<&str> =
            plan.branches().chain(plan.snapshots()).map(|entry| entry.id.as_str()).collect();
        self.branches.branches.retain(|branch| !gone.contains(&branch.id.as_str()));
        self.snapshots.retain(|snapshot| !gone.contains(&snapshot.id.as_str()));
    }

    /// Counts the snapshots that people asked for.
    fn asked_for(&self) -> usize {
        self.snapshots.iter().filter(|snapshot| snapshot.manual != Some(false)).count()
    }

    /// A run takes a snapshot of its backup, where a rule wants one.
    fn take_snapshot(
        &mut self,
        pair: &Pair,
        rules: &KeepRules,
        run: &RunId,
        at: Timestamp,
        stock: &mut SnapshotForecast,
    ) {
        let plan = self.plan(pair, rules, Some(run), at);
        if !plan.wants_snapshot || stock.blocked_on.is_some() {
            return;
        }
        if stock.limit.is_some_and(|limit| self.asked_for() >= limit) {
            stock.blocked_on = Some(pair.zone.date(at));
            stock.rule = heaviest(&plan, |kind| matches!(kind, Kind::Snapshot(_)));
            return;
        }
        let id = SnapshotId::from(format!("snap-forecast-{run}").as_str());
        self.snapshots.push(Snapshot {
            id: id.clone(),
            name: backup_name(pair, run),
            slug: None,
            source_branch_id: Some(pair.production_branch.clone()),
            lsn: None,
            created_at: at,
            manual: Some(true),
            full_size: None,
        });
        self.records.snapshots.insert(
            run.clone(),
            SnapshotRecord { id: Some(id), lsn: None, made_at: at, known: Known::Verified },
        );
        stock.most = stock.most.max(self.asked_for());
    }
}

/// Returns the rule that alone keeps most backups of a kind.
fn heaviest(plan: &PrunePlan, is_of_kind: impl Fn(Kind) -> bool) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in plan.entries.iter().filter(|entry| entry.is_kept && is_of_kind(entry.kind)) {
        let [reason] = entry.reasons.as_slice() else { continue };
        let rule = reason.split(": ").find(|part| part.starts_with("keep_"));
        if let Some(rule) = rule {
            *counts.entry(rule).or_default() += 1;
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(rule, _)| rule.to_owned())
}

#[cfg(test)]
mod tests;
