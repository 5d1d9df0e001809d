//! Step 7: carries out the prune plan. A refusal is a warning in the record and never fails a run.

use super::{Action, Conclusion, Decision, View, act, need, run_of_backup};
use crate::id::{BranchId, EndpointId};
use crate::neon::Call;
use crate::sync::retention::{self, Inventory};

/// What is deleted, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is still to be deleted; the next is the last.
    pub(super) left: Vec<Deletion>,
    /// What is kept, with the reason.
    pub(super) kept: Vec<(String, String)>,
}

/// One deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deletion {
    /// An endpoint of a backup.
    Endpoint(EndpointId),
    /// A branch, by id and name.
    Branch(BranchId, String),
}

/// Decides the next deletion.
pub(super) fn next(view: &View<'_>) -> Decision {
    let Some(plan) = &view.seen.prune_plan else { return plan(view) };
    match plan.left.last() {
        Some(Deletion::Endpoint(id)) => act(Call::DeleteEndpoint(id.clone())),
        Some(Deletion::Branch(id, _)) => act(Call::DeleteBranch(id.clone())),
        None => Decision::Conclude(Conclusion::Pruned),
    }
}

fn plan(view: &View<'_>) -> Decision {
    if view.seen.is_blind {
        return Decision::Conclude(Conclusion::Pruned);
    }
    let branches = need!(view.branches());
    let endpoints = need!(view.endpoints());
    let Some(verified) = &view.seen.verified_backups else {
        // One bulk read takes 100 keys; the oldest are decided first in any case.
        let mut runs: Vec<_> = branches.branches.iter().filter_map(|branch| run_of_backup(view.pair, &branch.name)).collect();
        runs.sort();
        runs.truncate(100);
        return Decision::Act(Action::ReadVerified(runs));
    };
    let inventory = Inventory { branches, endpoints, verified };
    let plan = retention::plan(&inventory, view.pair, &view.checkpoint.run, view.now);
    let endpoints = plan.endpoints.into_iter().map(Deletion::Endpoint);
    let branches = plan.delete.into_iter().map(|(id, name, _)| Deletion::Branch(id, name));
    let mut left: Vec<Deletion> = endpoints.chain(branches).collect();
    left.reverse();
    Decision::Conclude(Conclusion::PrunePlanned(Plan { left, kept: plan.kept }))
}
