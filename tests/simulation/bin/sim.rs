//! `sim`: runs the simulation. `cargo xtask sim` builds and calls it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use simulation::grid::{self, Next, Pairs, Tally};
use simulation::plan::Plan;
use simulation::run::{TABLES, TICKS_TO_END};
use simulation::scene::Scene;
use simulation::{histories, outcomes, receivers, rows, season};

/// The whole Worker but its entry points, against a simulated Neon, a stale store and a seeded
/// scheduler.
///
/// Draws seeds for a minute where nothing else is asked. Exit status 1 where anything went wrong.
#[derive(Parser)]
#[command(name = "sim")]
struct Arguments {
    #[command(flatten)]
    what: What,
    /// The seed to begin with
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
}

#[derive(clap::Args)]
#[group(multiple = false)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of a command line")]
struct What {
    /// Every scenario of one fault, samples of pairs, seeds, histories and seasons
    #[arg(long)]
    exhaustive: bool,
    /// Seeds, for so many seconds (60)
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// So many histories of backups
    #[arg(long, value_name = "N")]
    histories: Option<u64>,
    /// So many times five days on which receivers of every kind fail
    #[arg(long, value_name = "N")]
    receivers: Option<u64>,
    /// So many days, one after the other
    #[arg(long, value_name = "DAYS")]
    season: Option<u32>,
    /// Every plan of docs/backups.md, with every trouble
    #[arg(long)]
    rows: bool,
    /// Every pair of faults
    #[arg(long)]
    pairs: bool,
    /// One scenario, action by action
    #[arg(long, value_name = "PLAN")]
    replay: Option<String>,
    /// The table fault × step → outcome
    #[arg(long)]
    table: bool,
}

/// Pairs of faults in the exhaustive part.
const PAIRS_SAMPLED: usize = 3_000;
/// Seasons in the exhaustive part, and the days of each.
const SEASONS: u64 = 8;
const SEASON: u32 = 400;
/// Backups of the plan whose time is told.
const LARGE: usize = 10_000;
/// Times five days with failing receivers in the exhaustive part; of a hundred requests so many
/// fail.
const WEEKS: u64 = 60;
const PERCENT: u8 = 35;
/// Histories of backups in the exhaustive part.
const HISTORIES: u64 = 100_000;
/// Seeds in the exhaustive part.
const SEEDS_SAMPLED: usize = 3_000;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            print(&format!("not understood: {text}"));
            ExitCode::FAILURE
        }
    }
}

/// Does what is asked; returns whether all went as it must.
fn run(Arguments { what, seed }: Arguments) -> Result<bool, String> {
    if let Some(plan) = &what.replay {
        return replay(plan);
    }
    if what.table {
        print(&outcomes::render(&Scene::new()));
        return Ok(true);
    }
    Ok(if let Some(count) = what.histories {
        judge_histories(seed, count)
    } else if let Some(days) = what.season {
        live(seed, days)
    } else if let Some(count) = what.receivers {
        tell_failing_receivers(seed, count)
    } else if what.exhaustive {
        exhaustive()
    } else if what.rows {
        live_in_rows()
    } else if what.pairs {
        all_pairs()
    } else {
        random(Duration::from_secs(what.seconds.unwrap_or(60)), seed)
    })
}

#[expect(clippy::print_stdout, reason = "a command-line tool writes to its output")]
fn print(text: &str) {
    println!("{text}");
}

/// Tells what came of scenarios, and returns whether all went as they must.
fn tell(name: &str, tally: &Tally, started: Instant) -> bool {
    let seconds = started.elapsed().as_millis().max(1);
    let scenarios = u128::try_from(tally.scenarios).unwrap_or(u128::MAX);
    print(&format!(
        "{name}: {scenarios} scenarios in {}.{} s ({} a second); at most {} ticks to the \
            end, allowed are {TICKS_TO_END} ({})",
        seconds / 1_000,
        seconds % 1_000 / 100,
        scenarios * 1_000 / seconds,
        tally.most_ticks,
        tally.slowest.as_ref().map(ToString::to_string).unwrap_or_default()
    ));
    print(&format!(
        "  {} runs of {TABLES} tables and two ticks or more ({} a second), {} % succeeded, \
            {} actions in a scenario on average",
        tally.runs,
        u128::from(tally.runs) * 1_000 / seconds,
        tally.succeeded * 100 / tally.runs.max(1),
        u128::from(tally.actions) / scenarios.max(1)
    ));
    if let Some(text) = tally.render_failures() {
        print(&text);
    }
    tally.failures.is_empty()
}

/// Every scenario of one fault, and samples of the rest.
fn exhaustive() -> bool {
    let started = Instant::now();
    let scene = Scene::new();
    let plans = grid::singles(&scene);
    let singles = grid::run_all(&|index| plans.get(index).cloned().map_or(Next::End, Next::Run));
    let is_good = tell("one fault", &singles, started);
    let started = Instant::now();
    let pairs = Pairs::new(&scene);
    let mut random = fastrand::Rng::with_seed(1);
    let sample: Vec<Plan> = std::iter::repeat_with(|| pairs.get(random.usize(..pairs.count())))
        .flatten()
        .take(PAIRS_SAMPLED)
        .collect();
    let sampled = grid::run_all(&|index| sample.get(index).cloned().map_or(Next::End, Next::Run));
    let is_good =
        tell(&format!("two faults, a sample of {} pairs", pairs.len()), &sampled, started)
            && is_good;
    let started = Instant::now();
    let seeds = grid::run_all(&|index| {
        if index < SEEDS_SAMPLED { Next::Run(Plan::Seed(index as u64)) } else { Next::End }
    });
    let is_good = tell("seeds", &seeds, started) && is_good;
    let is_good = judge_histories(0, HISTORIES) && is_good;
    let is_good = tell_failing_receivers(0, WEEKS) && is_good;
    let is_good = live_in_rows() && is_good;
    (1..=SEASONS).fold(is_good, |is_good, seed| live(seed, SEASON) && is_good)
}

/// Many days, one after the other.
fn live(seed: u64, days: u32) -> bool {
    let started = Instant::now();
    let season = season::run(&Scene::new(), days, seed);
    let seconds = started.elapsed().as_millis();
    print(&format!(
        "{days} days from seed {seed} in {}.{} s: {} succeeded, at most {} branches beside \
            those of the rules, at most {} snapshots of {}, {} violations",
        seconds / 1_000,
        seconds % 1_000 / 100,
        season.good_days,
        season.most_beside,
        season.snapshots.0,
        season.snapshots.1,
        season.violations.len()
    ));
    season.violations.iter().take(20).for_each(|violation| print(&format!("  {violation}")));
    season.violations.is_empty()
}

/// Every row of the table of plans in docs/backups.md, with every trouble.
fn live_in_rows() -> bool {
    let (started, scene) = (Instant::now(), Scene::new());
    let (mut troubles, mut days, mut gave_way, mut violations) = (0, 0, 0, Vec::new());
    for row in &rows::ROWS {
        let full = row.fill(&scene);
        for trouble in rows::troubles() {
            let lived = full.live(&trouble);
            (troubles, days, gave_way) =
                (troubles + 1, days + lived.days, gave_way + lived.gave_way.len());
            violations.extend(
                lived.violations.into_iter().map(|violation| format!("{trouble:?}: {violation}")),
            );
        }
    }
    let seconds = started.elapsed().as_millis();
    print(&format!(
        "{troubles} troubles in {} rows, {days} days in {}.{} s: {gave_way} branches gave \
            way, {} violations",
        rows::ROWS.len(),
        seconds / 1_000,
        seconds % 1_000 / 100,
        violations.len()
    ));
    violations.iter().take(20).for_each(|violation| print(&format!("  {violation}")));
    violations.is_empty()
}

/// Lets receivers of every kind fail at random, so many times for five days.
fn tell_failing_receivers(seed: u64, count: u64) -> bool {
    let started = Instant::now();
    let scene = Scene::new();
    let (mut notices, mut taken, mut failed, mut violations) = (0, 0, 0, 0);
    for seed in seed..seed.saturating_add(count) {
        let post = receivers::run(&scene, 5, PERCENT, seed);
        (notices, taken, failed) =
            (notices + post.notices, taken + post.taken, failed + post.failed);
        violations += post.violations.len();
        post.violations
            .iter()
            .take(5)
            .for_each(|violation| print(&format!("  seed {seed}: {violation}")));
    }
    let seconds = started.elapsed().as_millis();
    print(&format!(
        "{count} times five days with failing receivers from {seed} in {}.{} s: {notices} \
            notices, taken {taken} times, {failed} failed requests, \
            {violations} violations",
        seconds / 1_000,
        seconds % 1_000 / 100
    ));
    violations == 0
}

/// Judges the plan of what is deleted.
fn judge_histories(seed: u64, count: u64) -> bool {
    let started = Instant::now();
    let faults = histories::judge_all(&(seed..seed.saturating_add(count)));
    let seconds = started.elapsed().as_millis();
    print(&format!(
        "{count} histories of backups from {seed} in {}.{} s: {} wrong",
        seconds / 1_000,
        seconds % 1_000 / 100,
        faults.len()
    ));
    faults.iter().take(10).for_each(|fault| print(&format!("  {fault}")));
    let large = histories::Large::new(LARGE);
    let plans = (0..5).map(|_| {
        let started = Instant::now();
        let deleted = large.plan();
        (started.elapsed().as_micros(), deleted)
    });
    let (micros, deleted) = plans.min().unwrap_or_default();
    print(&format!(
        "the plan for {LARGE} backups, {deleted} of which go: {}.{} ms (best of 5)",
        micros / 1_000,
        micros % 1_000 / 100
    ));
    faults.is_empty()
}

/// Every pair of faults.
fn all_pairs() -> bool {
    let started = Instant::now();
    let pairs = Pairs::new(&Scene::new());
    print(&format!("{} pairs", pairs.len()));
    let tally = grid::run_all(&|index| {
        if index < pairs.count() {
            pairs.get(index).map_or(Next::Skip, Next::Run)
        } else {
            Next::End
        }
    });
    tell("two faults", &tally, started)
}

/// Seeds, for so long.
fn random(time: Duration, seed: u64) -> bool {
    let started = Instant::now();
    let is_over = || started.elapsed() >= time;
    let tally = grid::run_all(&|index| {
        if is_over() { Next::End } else { Next::Run(Plan::Seed(seed.wrapping_add(index as u64))) }
    });
    tell(&format!("seeds from {seed}"), &tally, started)
}

/// Tells one scenario action by action.
fn replay(text: &str) -> Result<bool, String> {
    let plan: Plan = text.parse()?;
    let outcome = Scene::new().run(&plan, true);
    print(&outcome.trace.join("\n"));
    let (backups, restores, roll_backs) = outcome.deeds;
    print(&format!(
        "{plan}: {:?}; people were told {:?}; {backups} backups, {restores} restores, \
            {roll_backs} roll-backs; {} ticks to the end",
        outcome.status, outcome.story, outcome.ticks_to_end
    ));
    for violation in &outcome.violations {
        print(&format!("  {violation}"));
    }
    Ok(outcome.violations.is_empty())
}
