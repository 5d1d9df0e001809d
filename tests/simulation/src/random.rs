//! Scenarios that are drawn: several faults, an old memory, a cron that is missed, doubled and
//! late, people who press buttons.

use chrono::TimeDelta;
use neon_emulator::model::{Archiving, FailedBranchState, Locks, Refusal};

use crate::faults::{Fault, Kind};
use crate::plan::{CLOCKS_APART, Crash, Memory, Planned};
use crate::run::Outcome;
use crate::scene::Scene;
use crate::script::Happening;
use crate::world::{Event, Sim};

/// Actions that faults are drawn for, with how often a run takes them.
const ACTIONS: &[(&str, u32, Kind)] = &[
    ("getProject", 1, Kind::Reading),
    ("listProjectBranches", 8, Kind::Reading),
    ("listProjectEndpoints", 4, Kind::Reading),
    ("listProjectBranchDatabases", 1, Kind::Reading),
    ("listProjectBranchRoles", 3, Kind::Reading),
    ("getProjectBranchRolePassword", 4, Kind::Reading),
    ("getProjectOperation", 4, Kind::Reading),
    ("createProjectBranch", 2, Kind::Writing),
    ("restoreProjectBranch", 2, Kind::Writing),
    ("deleteProjectEndpoint", 1, Kind::Deletion),
    ("deleteProjectBranch", 2, Kind::Deletion),
    ("sees_all_rows", 1, Kind::Query),
    ("catalogue", 3, Kind::Query),
    ("content", 3, Kind::Query),
    ("give_password", 1, Kind::Query),
    ("log_in", 1, Kind::Query),
    ("webhook", 2, Kind::Notice),
    ("slack", 2, Kind::Notice),
    ("smoke", 1, Kind::Smoke),
    ("kv:read", 8, Kind::StoreRead),
    ("kv:checkpoint", 8, Kind::StoreWrite),
    ("kv:notice", 2, Kind::StoreWrite),
    ("kv:result", 1, Kind::StoreWrite),
    ("kv:backup", 1, Kind::StoreWrite),
];

/// Draws a fault. Those that no run can survive are drawn less often.
pub(crate) fn fault(random: &mut fastrand::Rng) -> Planned {
    let (action, count, kind) = ACTIONS[random.usize(..ACTIONS.len())];
    let faults = kind.faults();
    let is_fatal = |fault: Fault| {
        matches!(
            fault,
            Fault::Refused(401 | 404 | 412 | 422)
                | Fault::OperationHangs
                | Fault::OperationFails
                | Fault::OperationCancelled
                | Fault::OperationCancelling
                | Fault::OperationErrs
                | Fault::LongOutage
                | Fault::AsleepForEver
                | Fault::StagingProtected
                | Fault::StagingDefault
                | Fault::StagingDeleted
                | Fault::BackupDeleted
                | Fault::BackupExpires
                | Fault::StagingRestored
                | Fault::QuotaReached
        )
    };
    let mut chosen = faults[random.usize(..faults.len())];
    for _ in 0..2 {
        if is_fatal(chosen) && random.u8(..4) > 0 {
            chosen = faults[random.usize(..faults.len())];
        }
    }
    Planned { action: action.to_owned(), nth: random.u32(1..=count), fault: chosen }
}

/// Draws what happens by itself: ticks that are late, missed and doubled, people, applications.
fn events(
    random: &mut fastrand::Rng,
    start: firstlight::time::Timestamp,
) -> Vec<(firstlight::time::Timestamp, Event)> {
    let mut events = Vec::new();
    let seconds = |random: &mut fastrand::Rng, most: i64| {
        TimeDelta::milliseconds(random.i64(0..most * 1_000))
    };
    for tick in 0..4 {
        let at = start + TimeDelta::minutes(5 * tick);
        if random.u8(..10) == 0 {
            continue;
        }
        let late = if random.u8(..5) == 0 { seconds(random, 200) } else { TimeDelta::zero() };
        events.push((at + late, Event::Cron));
        if random.u8(..5) == 0 {
            events.push((at + late + seconds(random, 90), Event::Cron));
        }
    }
    if random.u8(..6) == 0 {
        events.push((start + seconds(random, 120), Happening::Start.event()));
    }
    if random.u8(..12) == 0 {
        events.push((start + seconds(random, 60), Happening::Rehearse.event()));
    }
    if random.u8(..25) == 0 {
        events.push((start + seconds(random, 40), Happening::Cancel.event()));
    }
    if random.u8(..25) == 0 {
        events.push((start - seconds(random, 60), Happening::Hold.event()));
    }
    for _ in 0..random.u8(..4) {
        events.push((start + seconds(random, 60), Event::Application));
    }
    events
}

/// Draws what the project is like: a third has a protected production. What nobody could confirm of
/// passwords is drawn too.
fn draws_project(scene: &Scene, sim: &mut Sim, seed: u64) {
    // A source of its own: what else a seed draws stays as it was.
    let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed_0f50_1ec7);
    if random.u8(..3) == 0 {
        scene.protects_production(sim);
        let switches = &mut sim.neon.model.switches;
        switches.readers_take_new_passwords = random.bool();
        switches.proxy_asks_control_plane = random.bool();
        switches.passwords_from_source = random.bool();
    }
    sim.neon.clock_offset = draws_offset(&mut random);
    let durations = &mut sim.neon.model.durations;
    (durations.spread_percent, durations.tail_per_mille) =
        [(0, 0), (30, 10), (80, 200)][random.usize(..3)];
    sim.neon.model.durations.secret_cache_ms = [0, 1_500, 10_000, 240_000][random.usize(..4)];
    let switches = &mut sim.neon.model.switches;
    switches.reader_without_writer = random.u8(..4) > 0;
    switches.lonely_reader =
        Refusal::new([400, 409, 412, 422][random.usize(..4)], "no compute without a primary");
    switches.protected_target = Refusal::new([400, 422, 423][random.usize(..3)], "protected");
    switches.snapshots_have_endpoints = random.bool();
    let archives = Archiving { after_age_s: 3_600, after_idle_s: 3_600 };
    switches.archives = (random.u8(..4) == 0).then_some(archives);
    switches.archived_source = random.bool().then(|| Refusal::new(400, "ancestor is archived"));
    // What others' computes do meanwhile, and how those operations end.
    switches.locks = if random.bool() { Locks::Project } else { Locks::Branch };
    switches.failed_branch_state =
        if random.bool() { FailedBranchState::Stuck } else { FailedBranchState::Old };
    switches.compute_operations = random.u8(..4) > 0;
    switches.old_compute_serves_until_suspended = random.u8(..4) > 0;
    switches.restore_deletes_timeline = random.bool();
    switches.compute_operations_fail_every = [0, 0, 3, 5][random.usize(..4)];
    let durations = &mut sim.neon.model.durations;
    durations.wake_ms = [300, 300, 2_000, 8_000][random.usize(..4)];
    durations.wake_lingers_ms = [0, 0, 1_500, 20_000][random.usize(..4)];
    durations.checks_every_s = [3_600, 3_600, 20, 0][random.usize(..4)];
    sim.neon.model.switches.changes_conflict = random.bool();
}

/// Draws how far Neon's clock is ahead: not at all, by a few seconds, or by minutes, either way.
pub(crate) fn draws_offset(random: &mut fastrand::Rng) -> TimeDelta {
    let most = [0, 3, CLOCKS_APART.num_seconds()][random.usize(..3)];
    TimeDelta::seconds(random.i64(-most..=most))
}

/// Runs the scenario of a seed.
pub(crate) fn run(scene: &Scene, seed: u64, is_traced: bool) -> Outcome {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut sim = scene.base();
    sim.trace = is_traced.then(Vec::new);
    sim.is_jittery = true;
    sim.view = crate::run::any_view(&mut random);
    sim.plan = (0..random.usize(..4)).map(|_| fault(&mut random)).collect();
    if random.u8(..3) == 0 {
        sim.crash = Crash::ALL[random.usize(..4)];
        if sim.plan.is_empty() {
            sim.plan.push(Planned { fault: Fault::Nothing, ..fault(&mut random) });
        }
    }
    if random.u8(..20) == 0 {
        sim.memory = Memory::Empty;
    }
    sim.is_in_use = random.u8(..5) == 0;
    sim.damages = random.u8(..20) == 0;
    draws_project(scene, &mut sim, seed);
    let start = sim.now + TimeDelta::minutes(1);
    sim.events = events(&mut random, start);
    let budget = random.usize(..12);
    sim.random = random;
    let simulation = scene.small(sim, budget);
    simulation.sim().note(|| format!("seed {seed}"));
    simulation.finish()
}
