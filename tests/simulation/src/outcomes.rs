//! The table *fault × step → outcome*, made from the simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use firstlight::sync::checkpoint::RunStatus;
use firstlight::sync::step::Step;

use crate::faults::Fault;
use crate::grid;
use crate::plan::{Crash, Day, Memory, Plan, Planned};
use crate::scene::Scene;

/// Runs every fault at every action of a plain day, and tells how the runs of each step ended.
pub fn render(scene: &Scene) -> String {
    let mut table: BTreeMap<Fault, BTreeMap<&'static str, BTreeSet<String>>> = BTreeMap::new();
    for action in grid::actions(scene, Day::Plain) {
        let Some(step) = Step::ALL.iter().map(|step| step.name()).find(|name| *name == action.step)
        else {
            continue;
        };
        for fault in action.kind.faults().into_iter().filter(|fault| *fault != Fault::Nothing) {
            let faults = vec![Planned { action: action.name.to_owned(), nth: action.nth, fault }];
            let plan = Plan::Said {
                day: Day::Plain,
                faults,
                crash: Crash::Never,
                memory: Memory::Fresh,
                is_doubled: false,
            };
            let outcome = scene.run(&plan, false);
            let status = outcome.status.map_or("unknown", RunStatus::as_str).to_owned();
            table.entry(fault).or_default().entry(step).or_default().insert(status);
        }
    }
    let mut text = HEAD.to_owned();
    let names: Vec<&str> = Step::ALL.iter().map(|step| step.name()).collect();
    let _ =
        writeln!(text, "| fault | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    for (fault, steps) in &table {
        let cell = |name: &&str| {
            steps.get(name).map_or_else(
                || "–".to_owned(),
                |seen| seen.iter().cloned().collect::<Vec<_>>().join(", "),
            )
        };
        let cells: Vec<String> = names.iter().map(cell).collect();
        let _ = writeln!(text, "| `{fault}` | {} |", cells.join(" | "));
    }
    text
}

const HEAD: &str = "\
# What a fault does to a run

Made by `cargo xtask sim --table`; a test compares. Each cell runs the fault once at every action of
that step on a morning on which nothing else goes wrong, and lists how those runs ended. *–* means
that the step has no action at which the fault can happen. The faults are told in `faults.rs`.

Whatever the cell says, people were told the truth, staging was restored at most once, and nothing
foreign was touched: the simulation judges that for every one.

";
