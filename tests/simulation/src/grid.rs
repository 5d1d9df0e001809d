//! Every scenario of one fault, and pairs of faults.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use firstlight::sync::step::Step;

use crate::faults::{Fault, Kind};
use crate::plan::{Crash, Day, Memory, Plan, Planned};
use crate::run::{Action, Outcome};
use crate::scene::Scene;

/// Failures that are printed; one cause often has thousands.
const SHOWN: usize = 12;

/// Returns a day on which nothing goes wrong.
pub fn nothing(day: Day) -> Plan {
    Plan::Said {
        day,
        faults: Vec::new(),
        crash: Crash::Never,
        memory: Memory::Fresh,
        is_doubled: false,
    }
}

/// Returns the actions of a day, in order.
pub fn actions(scene: &Scene, day: Day) -> Vec<Action> {
    scene.run(&nothing(day), false).actions
}

/// Returns the actions of all days: of the others those of the comparison, and what follows from it
/// that the days before do not have.
fn all_actions(scene: &Scene) -> Vec<(Day, Action)> {
    let compared = Step::VerifyStaging.name();
    let of = |day: &[Action], step: &str, name: &str| {
        day.iter().filter(|action| action.step == step && action.name == name).count()
    };
    // Counts an action of a step, and returns which of its name it is there.
    let counted = |seen: &mut BTreeMap<(String, &'static str), usize>, action: &Action| {
        let count = seen.entry((action.step.clone(), action.name)).or_default();
        *count += 1;
        *count
    };
    let plain = actions(scene, Day::Plain);
    let in_use = actions(scene, Day::InUse);
    let mut all: Vec<(Day, Action)> =
        plain.iter().cloned().map(|action| (Day::Plain, action)).collect();
    // Drift ends as a plain day does; what differs is looked into before.
    let mut seen = BTreeMap::new();
    for action in &in_use {
        if counted(&mut seen, action) > of(&plain, &action.step, action.name)
            || action.step == compared
        {
            all.push((Day::InUse, action.clone()));
        }
    }
    // A snapshot comes after everything else, and before only what is ahead is looked at.
    let mut seen = BTreeMap::new();
    let begins = |name: &str| {
        matches!(
            name,
            "listSnapshots" | "getSnapshotSchedule" | "createSnapshot" | "restoreSnapshot"
        )
    };
    for action in actions(scene, Day::Snapshot) {
        if counted(&mut seen, &action) > of(&plain, &action.step, action.name)
            || begins(action.name)
        {
            all.push((Day::Snapshot, action));
        }
    }
    // A protected production costs other ways in, and a second role more questions.
    let mut seen = BTreeMap::new();
    for action in actions(scene, Day::Protected) {
        if counted(&mut seen, &action) > of(&plain, &action.step, action.name) {
            all.push((Day::Protected, action));
        }
    }
    // Clocks that are apart, and operations that take long, change what a writing call is taken for
    // whose reply was lost.
    for day in [Day::Ahead, Day::Behind, Day::Uneven] {
        let writes = plain.iter().filter(|action| action.kind == Kind::Writing);
        all.extend(writes.map(|action| (day, action.clone())));
    }
    // A copy that is none is rolled back.
    let mut seen = BTreeMap::new();
    for action in
        actions(scene, Day::RollBack).into_iter().skip_while(|action| action.step != compared)
    {
        if counted(&mut seen, &action) > of(&in_use, &action.step, action.name)
            || action.step != compared
        {
            all.push((Day::RollBack, action));
        }
    }
    all
}

fn planned(action: &Action, fault: Fault) -> Planned {
    Planned { action: action.name.to_owned(), nth: action.nth, fault }
}

/// Returns every scenario of one fault.
pub fn singles(scene: &Scene) -> Vec<Plan> {
    let mut plans: Vec<Plan> = Day::ALL.into_iter().map(nothing).collect();
    for (day, action) in all_actions(scene) {
        for fault in action.kind.faults() {
            for crash in Crash::ALL {
                // Killed while the reply is on its way: what came before it does not matter beyond
                // whether it was applied.
                if crash == Crash::AtOnce
                    && !matches!(fault, Fault::Nothing | Fault::Lost | Fault::AppliedAndLost)
                {
                    continue;
                }
                for memory in Memory::ALL {
                    for is_doubled in [false, true] {
                        plans.push(Plan::Said {
                            day,
                            faults: vec![planned(&action, fault)],
                            crash,
                            memory,
                            is_doubled,
                        });
                    }
                }
            }
        }
    }
    plans
}

/// Pairs of faults at different actions of a plain day.
pub struct Pairs {
    places: Vec<Planned>,
}

impl Pairs {
    /// Prepares the pairs.
    pub fn new(scene: &Scene) -> Self {
        let places = actions(scene, Day::Plain)
            .iter()
            .flat_map(|action| {
                action
                    .kind
                    .faults()
                    .into_iter()
                    .filter(|fault| *fault != Fault::Nothing)
                    .map(|fault| planned(action, fault))
            })
            .collect();
        Self { places }
    }

    /// Returns how many pairs there are.
    pub fn len(&self) -> usize {
        (0..self.count()).filter(|index| self.get(*index).is_some()).count()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Returns how many indices there are; not all of them are pairs.
    pub fn count(&self) -> usize {
        self.places.len() * self.places.len()
    }

    /// Returns one pair; `None` where both are at one action, or the second comes first.
    pub fn get(&self, index: usize) -> Option<Plan> {
        let (first, second) = (index / self.places.len(), index % self.places.len());
        let (first, second) = (&self.places[first], &self.places[second]);
        let is_same = first.action == second.action && first.nth == second.nth;
        let faults = vec![first.clone(), second.clone()];
        let is_ordered = index / self.places.len() < index % self.places.len();
        (is_ordered && !is_same).then_some(Plan::Said {
            day: Day::Plain,
            faults,
            crash: Crash::Never,
            memory: Memory::Fresh,
            is_doubled: false,
        })
    }
}

/// What came of many scenarios.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Scenarios.
    pub scenarios: usize,
    /// Runs that ended, of five tables and two ticks or more.
    pub runs: u64,
    /// Those of them that succeeded.
    pub succeeded: u64,
    /// Requests and store operations, of all scenarios.
    pub actions: u64,
    /// The most ticks that a run took after the last fault.
    pub most_ticks: u32,
    /// The plan that took them.
    pub slowest: Option<Plan>,
    /// The plan of each scenario that must not have gone as it did, with what is wrong.
    pub failures: Vec<(Plan, Vec<String>)>,
}

impl Tally {
    fn add(&mut self, plan: &Plan, outcome: &Outcome) {
        self.scenarios += 1;
        for (_, is_success) in outcome.runs.iter().filter(|(ticks, _)| *ticks >= 2) {
            self.runs += 1;
            self.succeeded += u64::from(*is_success);
        }
        self.actions += outcome.action_count;
        if outcome.ticks_to_end > self.most_ticks {
            self.slowest = Some(plan.clone());
        }
        self.most_ticks = self.most_ticks.max(outcome.ticks_to_end);
        if !outcome.violations.is_empty() {
            self.failures.push((plan.clone(), outcome.violations.clone()));
        }
    }

    fn merge(mut self, other: Self) -> Self {
        self.scenarios += other.scenarios;
        self.runs += other.runs;
        self.succeeded += other.succeeded;
        self.actions += other.actions;
        if other.most_ticks > self.most_ticks {
            self.slowest = other.slowest;
        }
        self.most_ticks = self.most_ticks.max(other.most_ticks);
        self.failures.extend(other.failures);
        self
    }

    /// Tells the first failure of each kind, with the command that replays it; `None` when there is
    /// none.
    pub fn render_failures(&self) -> Option<String> {
        let mut seen = BTreeSet::new();
        let mut lines =
            vec![format!("{} scenarios failed; one of each kind:", self.failures.len())];
        for (plan, wrong) in &self.failures {
            for problem in wrong {
                // Names and numbers differ from scenario to scenario.
                let kind: String = problem
                    .chars()
                    .filter(|c| c.is_ascii_alphabetic() || *c == ' ')
                    .take(60)
                    .collect();
                if seen.len() < SHOWN && seen.insert(kind) {
                    lines.push(format!("  {problem}\n    cargo xtask sim --replay '{plan}'"));
                }
            }
        }
        (!self.failures.is_empty()).then(|| lines.join("\n"))
    }
}

/// Runs scenarios on every processor until there is no next one.
///
/// # Panics
///
/// When a scenario does.
pub fn run_all(next: &(dyn Fn(usize) -> Next + Sync)) -> Tally {
    let count = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(2, NonZero::get);
    let work = || {
        let scene = Scene::new();
        let mut tally = Tally::default();
        loop {
            match next(count.fetch_add(1, Ordering::Relaxed)) {
                Next::Run(plan) => tally.add(&plan, &scene.run(&plan, false)),
                Next::Skip => {}
                Next::End => return tally,
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let tallies = workers.into_iter().map(|worker| worker.join().expect("a scenario panicked"));
        tallies.fold(Tally::default(), Tally::merge)
    })
}

/// What to run at a place of a list.
pub enum Next {
    /// This.
    Run(Plan),
    /// Nothing, but go on.
    Skip,
    /// Nothing any more.
    End,
}
