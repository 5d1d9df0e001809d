//! Many mornings, one after the other, with faults: what is left of each must not add up.
//!
//! Every day has a scheduled run, sometimes a manual one, and on half of the days something goes
//! wrong, as [`crate::faults`] tells it. In seasons of an odd seed weeks and months are kept as
//! snapshots. Left out is what somebody else does to staging or to a backup, and an operation that
//! ends badly or never: a staging that it leaves unready ends every run after it, until somebody
//! looks.

use chrono::{TimeDelta, TimeZone as _, Utc};
use serde_json::json;

use crate::faults::Fault;
use crate::plan::{Crash, Memory, Planned};
use crate::random;
use crate::run::any_view;
use crate::scene::Scene;
use crate::script::Happening;

/// Days without a fault at the end, after which nothing may be left but what the rules give.
const QUIET_DAYS: u32 = 5;

/// Backups that the rules give at most: five days, three weeks, two months, and one more of each
/// week and month that is also a day of another.
const BY_RULES: usize = 5 + 3 + 2;

/// Snapshots that the rules give at most: three weeks, two months, and one of each that is not
/// compared yet or any more.
const SNAPSHOTS_BY_RULES: usize = 3 + 2;

/// Records of backups at most: two weeks of them, manual ones too, and those that the rules give.
const MOST_RECORDS: usize = 2 * 14 + 2 * BY_RULES;

/// Displaced branches that are kept.
const DISPLACED: usize = 1;

/// Days for which a backup that was not verified is kept.
const KEEP_FAILED: i64 = 3;

/// Backups that somebody else's branch hangs on, which Neon does not delete: the scene has one.
const PINNED: usize = 1;

/// Branches beside those that the rules give: what a run of today has made and not yet given up.
const MORE: usize = 3;

/// What came of a season.
pub struct Season {
    /// The most branches beside those that the rules give.
    pub most_beside: usize,
    /// Days on which the scheduled run succeeded.
    pub good_days: u32,
    /// The most snapshots of ours at once, and how many were taken.
    pub snapshots: (usize, usize),
    /// What must not have happened.
    pub violations: Vec<String>,
}

/// Runs so many days from a seed.
///
/// # Panics
///
/// Never: the configuration and the dates are literals.
pub fn run(scene: &Scene, days: u32, seed: u64) -> Season {
    let config = scene.config(&|value| {
        let pair = &mut value["pairs"][0];
        pair["keep_last"] = json!(1);
        for (key, number) in [("keep_daily", 5), ("keep_weekly", 3), ("keep_monthly", 2)] {
            pair[key] = json!(number);
        }
        pair["keep_failed"] = json!(KEEP_FAILED);
        if seed % 2 == 1 {
            (pair["keep_weekly_tier"], pair["keep_monthly_tier"]) =
                (json!("snapshot"), json!("snapshot"));
        }
    });
    let mut draw = fastrand::Rng::with_seed(seed);
    // A source of its own: what else a seed draws stays as it was.
    let mut clocks = fastrand::Rng::with_seed(seed ^ 0xc10c_c10c);
    let mut sim = scene.base();
    sim.oracle.is_strict = true;
    (sim.neon.model.durations.spread_percent, sim.neon.model.durations.tail_per_mille) = (30, 10);
    let mut season =
        Season { most_beside: 0, good_days: 0, snapshots: (0, 0), violations: Vec::new() };
    let first = Utc.with_ymd_and_hms(2026, 11, 21, 10, 5, 0).single().expect("an instant");
    let zone = config.pairs[0].zone.clone();
    for day in 0..days {
        let date = zone.date(first + TimeDelta::days(day.into()));
        let morning = zone.instant(date, "05:05".parse().expect("a time of day"));
        sim.heal();
        sim.events.clear();
        sim.neon_out_until = None;
        sim.store_out_until = None;
        sim.faulty_until = morning;
        sim.is_jittery = true;
        sim.neon.clock_offset = random::draws_offset(&mut clocks);
        sim.is_live = true;
        let is_quiet = day + QUIET_DAYS >= days;
        if !is_quiet && draw.bool() {
            sim.view = any_view(&mut draw);
            sim.plan = (0..draw.usize(1..3)).map(|_| fault(&mut draw)).collect();
            sim.crash = if draw.u8(..3) == 0 { Crash::ALL[draw.usize(..4)] } else { Crash::Never };
            sim.memory = if draw.u32(..40) == 0 { Memory::Empty } else { Memory::Fresh };
            sim.damages = draw.u8(..20) == 0;
            sim.is_in_use = draw.u8(..5) == 0;
        } else {
            (sim.crash, sim.memory, sim.is_in_use) = (Crash::Never, Memory::Fresh, false);
        }
        if !is_quiet && draw.u8(..10) == 0 {
            sim.events.push((morning + TimeDelta::hours(6), Happening::Start.event()));
        }
        sim.random = fastrand::Rng::with_seed(draw.u64(..));
        let mut simulation = scene.configured(sim, &config);
        simulation.jump(morning);
        simulation.cron();
        simulation.pass();
        let name = date.format("%Y%m%d").to_string();
        judge(&simulation.sim(), &name, false, &mut season);
        // In the evening what could not go in the morning does.
        simulation.sim().heal();
        simulation.jump(morning + TimeDelta::hours(14));
        simulation.cron();
        simulation.pass();
        sim = simulation.into_sim();
        season.good_days +=
            u32::from(sim.oracle.story(&name).iter().any(|kind| kind == "succeeded"));
        judge(&sim, &name, is_quiet && day + 1 == days, &mut season);
        season.violations.extend(
            sim.oracle.violations.drain(..).map(|violation| format!("{name}: {violation}")),
        );
    }
    // Half of the days have a fault, most of which a run survives.
    if season.good_days * 5 < days * 4 {
        season.violations.push(format!("{} of {days} days succeeded", season.good_days));
    }
    season
}

/// Runs the morning and the evening of a day whose backup becomes a snapshot, with what goes wrong
/// in the morning. Returns what people were told, and what must not have happened.
pub fn day_with_an_evening(scene: &Scene, faults: Vec<Planned>) -> (Vec<String>, Vec<String>) {
    let config = scene.config(&crate::scene::keeps_weeks_as_snapshots);
    let mut sim = scene.base();
    (sim.plan, sim.is_live) = (faults, true);
    let mut simulation = scene.configured(sim, &config);
    let morning = crate::run::instant("2026-11-21T10:05:00Z");
    for at in [morning, morning + TimeDelta::hours(14)] {
        simulation.jump(at);
        simulation.cron();
        simulation.pass();
    }
    let sim = simulation.into_sim();
    (sim.oracle.story(crate::run::TODAY), sim.oracle.violations)
}

/// What somebody else does between the runs of the first day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outsider {
    /// Gives the morning's backup a read-only endpoint, an hour after it was made, and after our
    /// own was deleted.
    AddsEndpoint,
    /// Gives staging another name.
    RenamesStaging,
}

/// What is left of days on which somebody else does something.
pub struct Left {
    /// The names of all branches.
    pub branches: Vec<String>,
    /// The branches that have a read-only endpoint.
    pub with_readers: Vec<String>,
    /// What must not have happened.
    pub violations: Vec<String>,
}

/// Lives through the mornings and evenings of so many days, on the first of which somebody else
/// does something.
///
/// # Panics
///
/// When the first morning makes no backup.
pub fn days_with_an_outsider(scene: &Scene, days: u32, outsider: Outsider) -> Left {
    let config = scene.config(&|_| {});
    let mut sim = scene.base();
    let first = crate::run::instant("2026-11-21T10:05:00Z");
    for day in 0..days {
        let mut simulation = scene.configured(sim, &config);
        let morning = first + TimeDelta::days(day.into());
        simulation.jump(morning);
        simulation.cron();
        simulation.pass();
        if day == 0 {
            simulation.jump(morning + TimeDelta::hours(1));
            let mut sim = simulation.sim();
            let (now, staging) = (sim.now, sim.oracle.staging_id().to_owned());
            match outsider {
                Outsider::AddsEndpoint => {
                    let backup = sim.oracle.backup(crate::run::TODAY).expect("it was made");
                    crate::outside::adds_reader(&mut sim.neon, &backup, now);
                }
                Outsider::RenamesStaging => {
                    crate::outside::renames(&mut sim.neon, &staging, "preview", now);
                }
            }
        }
        simulation.jump(morning + TimeDelta::hours(14));
        simulation.cron();
        simulation.pass();
        sim = simulation.into_sim();
    }
    let model = &sim.neon.model;
    let readers = model.endpoints.iter().filter(|endpoint| !endpoint.is_read_write);
    Left {
        branches: model.branches.iter().map(|branch| branch.name.clone()).collect(),
        with_readers: readers
            .filter_map(|endpoint| Some(model.branch(&endpoint.branch)?.name.clone()))
            .collect(),
        violations: sim.oracle.violations,
    }
}

/// Draws a fault that a project recovers from by itself.
pub(crate) fn fault(draw: &mut fastrand::Rng) -> Planned {
    loop {
        let planned = random::fault(draw);
        let is_lasting = matches!(
            planned.fault,
            Fault::BackupDeleted
                | Fault::BackupRenamed
                | Fault::BackupExpires
                | Fault::ReaderDeleted
                | Fault::DisplacedDeleted
                | Fault::StagingRenamed
                | Fault::StagingProtected
                | Fault::StagingDefault
                | Fault::StagingDeleted
                | Fault::StagingRestored
                | Fault::QuotaReached
                | Fault::Deployed
                | Fault::OperationHangs
                | Fault::OperationFails
                | Fault::OperationCancelled
                | Fault::OperationCancelling
                | Fault::OperationErrs
        );
        if !is_lasting {
            return planned;
        }
    }
}

/// Counts what is left of a day.
fn judge(sim: &crate::world::Sim, day: &str, is_last: bool, season: &mut Season) {
    let (used, unused, others) = sim.oracle.present(&sim.neon.model, sim.now);
    let inspected = unused.iter().filter(|age| **age < TimeDelta::days(KEEP_FAILED + 1)).count();
    let beside =
        (used + unused.len() + others).saturating_sub(BY_RULES + PINNED + inspected + DISPLACED);
    season.most_beside = season.most_beside.max(beside);
    if beside > MORE {
        season.violations.push(format!(
            "{day}: {used} backups that were used, {} others, {others} branches beside",
            unused.len()
        ));
    }
    let (snapshots, taken) = sim.oracle.snapshots(&sim.neon.model);
    season.snapshots = (season.snapshots.0.max(snapshots), taken);
    if snapshots > SNAPSHOTS_BY_RULES + MORE {
        season.violations.push(format!("{day}: {snapshots} snapshots"));
    }
    // Records of what is gone go within a week, three a day.
    let records = sim.kv.keys("backup/").count();
    if records > MOST_RECORDS {
        season.violations.push(format!("{day}: {records} records of backups"));
    }
    if is_last && others > DISPLACED {
        season.violations.push(format!("{day}: {others} branches are left that are no backups"));
    }
}
