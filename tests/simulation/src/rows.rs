//! The plans of docs/backups.md, hour by hour: what a failed, a manual or a repeated run
//! leaves never blocks the next.
//!
//! A row is lived through until its rules hold all that they can hold. From there every [`Trouble`]
//! begins anew: runs that fail in one step on one to three mornings in a row, runs that people
//! start at any hour, and both. Each run that nothing was made to go wrong with has to succeed, and
//! a week later the rules hold again what they held before.

use std::rc::Rc;

use chrono::{NaiveDate, TimeDelta};
use firstlight::config::Config;
use firstlight::time::Timestamp;
use serde_json::{Value, json};

use crate::faults::Fault;
use crate::plan::Planned;
use crate::run::{Simulation, Told};
use crate::scene::Scene;
use crate::script::Happening;
use crate::world::Sim;

/// A row of the table.
pub struct Row {
    /// The plan.
    pub name: &'static str,
    /// Its branches, root branches and snapshots. Source: Neon plans, 2026-03-20.
    limits: (usize, usize, usize),
    subscription: &'static str,
    rules: fn(&mut Value),
    /// Mornings after which the rules hold as many branches as they ever do.
    mornings: u32,
    /// Weeks before those of which a backup is there.
    weeks: u32,
}

/// Every row.
pub const ROWS: [Row; 3] = [
    Row {
        name: "Free",
        limits: (10, 3, 1),
        subscription: "free_v3",
        rules: |pair| pair["keep_last"] = json!(5),
        mornings: 8,
        weeks: 0,
    },
    Row {
        name: "Launch",
        limits: (10, 5, 100),
        subscription: "launch_v3",
        rules: |pair| {
            pair["keep_last"] = json!(5);
            for (rule, number) in [("daily", 30), ("weekly", 13), ("monthly", 12)] {
                pair[format!("keep_{rule}")] = json!(number);
                pair[format!("keep_{rule}_tier")] = json!("snapshot");
            }
        },
        mornings: 8,
        weeks: 0,
    },
    Row {
        name: "Scale",
        limits: (25, 25, 100),
        subscription: "scale_v3",
        rules: |pair| {
            for (rule, number) in [("daily", 14), ("weekly", 8), ("monthly", 12)] {
                pair[format!("keep_{rule}")] = json!(number);
            }
            pair["keep_monthly_tier"] = json!("snapshot");
        },
        mornings: 15,
        weeks: 8,
    },
];

/// A way to fail: the step, what people would call it, and how it is brought about.
pub struct Failure {
    /// The number of the step.
    pub step: usize,
    /// What happens.
    pub name: &'static str,
    faults: &'static [(&'static str, u32, Fault)],
    damages: bool,
    rolls_back: bool,
}

const fn failure(
    step: usize,
    name: &'static str,
    faults: &'static [(&'static str, u32, Fault)],
) -> Failure {
    Failure { step, name, faults, damages: false, rolls_back: false }
}

/// How often a call is refused that is tried again.
const ALWAYS: u32 = 12;

/// One failure of each step at least. Left out is an operation of a restore that ends badly: a
/// staging that it leaves unready ends every run after it, until somebody looks.
pub const FAILURES: [Failure; 9] = [
    failure(1, "the key is refused", &[("getProject", 1, Fault::Refused(401))]),
    failure(2, "the backup is refused", &[("createProjectBranch", 1, Fault::Refused(401))]),
    failure(
        2,
        "the operation of the backup fails",
        &[("createProjectBranch", 1, Fault::OperationFails)],
    ),
    failure(3, "the backup cannot be read", &[("catalogue", 1, Fault::Refused(401))]),
    failure(4, "the restore is refused", &[("restoreProjectBranch", 1, Fault::Refused(401))]),
    Failure { damages: true, ..failure(5, "staging differs", &[]) },
    Failure {
        damages: true,
        rolls_back: true,
        ..failure(5, "staging differs and is rolled back", &[])
    },
    failure(6, "the application does not answer", &[("smoke", ALWAYS, Fault::Refused(500))]),
    failure(7, "nothing can be deleted", &[("deleteProjectBranch", ALWAYS, Fault::Refused(401))]),
];

/// What goes wrong, from the first day on.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// Which of [`FAILURES`], on so many mornings in a row.
    pub failing: Option<(usize, u32)>,
    /// The hours of the first day at which people start a run, half past each.
    pub manual: Vec<u32>,
    /// The hours of the first day at which they start one that leaves staging alone, ten minutes
    /// past each.
    pub rehearsed: Vec<u32>,
}

/// Returns every trouble: each failure on one to three mornings, alone and with what people do
/// after it, as `run-failed.md` tells them. A run at each hour. Several within a day.
pub fn troubles() -> Vec<Trouble> {
    let failing =
        (0..FAILURES.len()).flat_map(|which| (1..=LONGEST).map(move |times| Some((which, times))));
    let failing = failing.flat_map(|failing| {
        let after = [(vec![], vec![]), (vec![], vec![10, 11]), (vec![10], vec![10])];
        after.map(|(rehearsed, manual)| Trouble { failing, manual, rehearsed })
    });
    let manual = (0..24).map(|hour| vec![hour]).chain([
        (8..19).collect(),
        (0..24).collect(),
        vec![6, 7],
        vec![3, 4],
    ]);
    let manual = manual.map(|manual| Trouble { manual, ..Trouble::default() });
    let rehearsed = [(10..13).collect(), (0..24).collect()]
        .map(|rehearsed| Trouble { rehearsed, ..Trouble::default() });
    failing.chain(manual).chain(rehearsed).collect()
}

/// What came of it.
#[derive(Default)]
pub struct Aftermath {
    /// What must not have happened.
    pub violations: Vec<String>,
    /// Branches of which people were told that they went although a rule keeps them.
    pub gave_way: Vec<String>,
    /// Days with a run.
    pub days: u32,
}

/// A project that is as full as its row makes it.
pub struct Full<'a> {
    scene: &'a Scene,
    row: &'a Row,
    configs: [Rc<Config>; 2],
    sim: Sim,
    today: NaiveDate,
    /// Backups that were read, after so many more days without trouble.
    kept: Vec<usize>,
}

impl Row {
    /// Lives through mornings on which nothing goes wrong.
    ///
    /// # Panics
    ///
    /// When something goes wrong on them.
    pub fn fill<'a>(&'a self, scene: &'a Scene) -> Full<'a> {
        let config = |rolls_back: bool| {
            scene.config(&|value| {
                let pair = &mut value["pairs"][0];
                for key in ["keep_last", "keep_at_least"] {
                    pair.as_object_mut().expect("a table").remove(key);
                }
                (self.rules)(pair);
                pair["on_mismatch"] = json!(if rolls_back { "roll_back" } else { "keep" });
            })
        };
        let mut sim = scene.base();
        sim.oracle.is_strict = true;
        // The scene has a branch of somebody else's with a name like ours, and one that hangs on a
        // backup: the rows count on none.
        let foreign = ["backup-20260101", "inspect"]
            .map(|name| sim.neon.model.branch_named(name).map(|branch| branch.id.clone()));
        let model = &mut sim.neon.model;
        model.branches.retain(|branch| !foreign.contains(&Some(branch.id.clone())));
        model.endpoints.retain(|endpoint| !foreign.contains(&Some(endpoint.branch.clone())));
        (model.limits.branches, model.limits.root_branches, model.limits.snapshots) = self.limits;
        self.subscription.clone_into(&mut model.limits.subscription);
        let today = NaiveDate::from_ymd_opt(2026, 11, 21).expect("a date");
        for week in 1..=self.weeks {
            let run =
                (today - TimeDelta::days(i64::from(7 * week) + 1)).format("%Y%m%d").to_string();
            let at = crate::run::instant(&format!(
                "{}-{}-{}T10:01:00Z",
                &run[..4],
                &run[4..6],
                &run[6..]
            ));
            crate::outside::has_older_backup(&mut sim.neon, &mut sim.oracle, &run, at);
            sim.kv
                .write(&format!("backup/hub/{run}"), Some("{}"), None, at)
                .expect("there is none of that run");
        }
        sim.kv.settle();
        let mut full = Full {
            scene,
            row: self,
            configs: [config(false), config(true)],
            sim,
            today,
            kept: Vec::new(),
        };
        for morning in 1..=self.mornings {
            let (sim, aftermath) =
                full.day(full.sim.clone(), full.today, None, &Trouble::default());
            assert!(aftermath.violations.is_empty(), "{}: {:#?}", self.name, aftermath.violations);
            // The scene's own backups have no snapshots.
            let is_full = morning == self.mornings;
            assert!(
                !is_full || aftermath.gave_way.is_empty(),
                "{}: the row itself is too large: {:#?}",
                self.name,
                aftermath.gave_way
            );
            (full.sim, full.today) = (sim, full.today + TimeDelta::days(1));
        }
        let mut sim = full.sim.clone();
        for day in 0..LONGEST + AFTERWARDS {
            (sim, _) =
                full.day(sim, full.today + TimeDelta::days(day.into()), None, &Trouble::default());
            full.kept.push(sim.oracle.read_backups(&sim.neon.model));
        }
        full
    }
}

/// Mornings in a row that fail at most.
pub const LONGEST: u32 = 3;

/// Days after the trouble, of which the last has to be as good as the first.
const AFTERWARDS: u32 = 7;

impl Full<'_> {
    /// Lives through trouble and the days after it.
    pub fn live(&self, trouble: &Trouble) -> Aftermath {
        let (mut sim, mut aftermath) = (self.sim.clone(), Aftermath::default());
        let failing = trouble.failing.map_or(0, |(_, mornings)| mornings);
        for day in 0..failing.max(1) + AFTERWARDS {
            let failure = trouble
                .failing
                .filter(|_| day < failing)
                .and_then(|(which, _)| FAILURES.get(which));
            let quiet = Trouble::default();
            let people = if day == 0 { trouble } else { &quiet };
            let (after, told) =
                self.day(sim, self.today + TimeDelta::days(day.into()), failure, people);
            sim = after;
            aftermath.violations.extend(told.violations);
            aftermath.gave_way.extend(told.gave_way);
            aftermath.days += 1;
        }
        let kept = sim.oracle.read_backups(&sim.neon.model);
        let plain = self.kept.get(aftermath.days as usize - 1).copied().unwrap_or_default();
        if kept + aftermath.gave_way.len() < plain {
            aftermath.violations.push(format!(
                "{kept} verified backups at the end, without the trouble {plain}; {:?} gave way",
                aftermath.gave_way
            ));
        }
        aftermath
    }

    /// Returns the name of the row.
    pub fn name(&self) -> &'static str {
        self.row.name
    }

    /// Lives through a day: the cron fires three seconds after five, in the evening, and at each
    /// hour at half past which people start a run.
    fn day(
        &self,
        mut sim: Sim,
        date: NaiveDate,
        failure: Option<&Failure>,
        people: &Trouble,
    ) -> (Sim, Aftermath) {
        let config = &self.configs[usize::from(failure.is_some_and(|failure| failure.rolls_back))];
        let zone = &config.pairs[0].zone;
        let midnight = zone.instant(date, "00:00".parse().expect("a time of day"));
        let told = sim.oracle.arrival_count();
        sim.heal();
        sim.events.clear();
        let mut simulation = self.scene.configured(sim, config);
        // In the evening what could not go in the morning does.
        let is_busy = |hour: &u32| {
            matches!(hour, 5 | 19)
                || people.manual.contains(hour)
                || people.rehearsed.contains(hour)
        };
        for hour in (0..24).filter(is_busy) {
            let at = midnight + TimeDelta::hours(hour.into()) + TimeDelta::seconds(3);
            if hour == 5 {
                let mut sim = simulation.sim();
                sim.counts.clear();
                if let Some(failure) = failure {
                    sim.plan = planned(failure);
                    sim.damages = failure.damages;
                }
            }
            tick(&mut simulation, at, if hour == 5 { 6 } else { 1 });
            simulation.sim().heal();
            for (hours, minutes, what) in [
                (&people.rehearsed, 10, Happening::Rehearse),
                (&people.manual, 30, Happening::Start),
            ] {
                if hours.contains(&hour) && (hour, minutes) != (5, 10) {
                    let at = midnight + TimeDelta::hours(hour.into()) + TimeDelta::minutes(minutes);
                    simulation.sim().events.push((at, what.event()));
                    tick(&mut simulation, at, 3);
                }
            }
        }
        let mut sim = simulation.into_sim();
        sim.kv.settle();
        let told = sim.oracle.told_since(told);
        let aftermath = self.judge(&mut sim, &date.format("%Y%m%d").to_string(), failure, &told);
        (sim, aftermath)
    }

    /// Judges a day: every run ended as it must, and found room. Notes which backups gave way.
    fn judge(
        &self,
        sim: &mut Sim,
        day: &str,
        failure: Option<&Failure>,
        told: &[Told],
    ) -> Aftermath {
        let mut aftermath = Aftermath::default();
        // Where Neon deletes nothing it makes no room either.
        let is_refused = failure.is_some_and(|failure| failure.step == 7);
        let is_to_succeed = |run: &str| failure.is_none() || run != day;
        let ended = |run: &str| {
            sim.oracle
                .story(run)
                .iter()
                .find(|kind| matches!(kind.as_str(), "succeeded" | "failed"))
                .cloned()
        };
        let mut runs: Vec<String> = sim.oracle.runs_of(day);
        runs.push(day.to_owned());
        runs.dedup();
        for run in &runs {
            match (ended(run).as_deref(), is_to_succeed(run)) {
                (Some("succeeded"), true) | (Some("failed"), false) => {}
                (Some("succeeded"), false) if is_refused => {}
                (how, _) => aftermath.violations.push(format!("{}, {run}: {how:?}", self.row.name)),
            }
        }
        for notice in told {
            if notice.text.contains("Error: make room for")
                && !(is_refused && notice.text.contains("could not be deleted"))
            {
                aftermath
                    .violations
                    .push(format!("{}, {}: {}", self.row.name, notice.run, notice.text));
            }
        }
        for run in &runs {
            let result: Value = sim
                .kv
                .get(&format!("result/hub/{run}"))
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default();
            let warnings =
                result["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
            aftermath.gave_way.extend(
                warnings
                    .filter(|text| text.contains("was deleted to make room"))
                    .map(str::to_owned),
            );
        }
        aftermath.violations.extend(
            sim.oracle
                .violations
                .drain(..)
                .map(|violation| format!("{}, {day}: {violation}", self.row.name)),
        );
        aftermath
    }
}

/// Lets the cron fire so many times from an instant on.
fn tick(simulation: &mut Simulation<'_>, at: Timestamp, times: i32) {
    simulation.jump(at);
    for number in 1..=times {
        simulation.cron();
        simulation.advance(at + TimeDelta::minutes(5) * number);
    }
}

/// Returns the faults of a failure; one that is counted up to [`ALWAYS`] meets every call until
/// then.
fn planned(failure: &Failure) -> Vec<Planned> {
    let all = failure.faults.iter().flat_map(|(action, nth, fault)| {
        let first = if *nth == ALWAYS { 1 } else { *nth };
        (first..=*nth).map(|nth| Planned { action: (*action).to_owned(), nth, fault: *fault })
    });
    all.collect()
}
