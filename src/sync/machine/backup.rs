//! Step 2: makes a branch of production and waits for its operations.

use super::operations::Awaited;
use super::{Conclusion, Decision, View, act, end, fail, need};
use crate::names::{is_our_backup, renamed_backup};
use crate::neon::{Call, CreateBranch};
use crate::sync::checkpoint::{Backup, RunStatus};

/// Decides the next action of the backup.
pub(super) fn next(view: &View<'_>) -> Decision {
    let Some(backup) = &view.checkpoint.backup else { return create(view) };
    if backup.is_ready {
        return Decision::Conclude(Conclusion::StepDone);
    }
    // When to look first was decided when Neon accepted it; a tick that did not see that looks at
    // once.
    let Backup { id: branch, operations: named, made_at: since, .. } = backup;
    let awaited =
        Awaited { branch, named, since: *since, first_look: view.now, why: "create the backup" };
    need!(view.await_last(&awaited));
    // A lost reply leaves no operation to ask for; the branch itself says whether it can be used.
    let branches = need!(view.branches());
    match branches.by_id(&backup.id) {
        Some(branch) if branch.is_at_rest() => Decision::Conclude(Conclusion::BackupReady),
        Some(_) => {
            need!(view.await_all(&awaited));
            Decision::Conclude(Conclusion::LookAgain)
        }
        None => {
            fail(format!("backup {} ({}) was made by this run and is gone", backup.name, backup.id))
        }
    }
}

fn create(view: &View<'_>) -> Decision {
    let branches = need!(view.branches());
    let name = view.backup_name();
    if let Some(found) = branches.by_name(&name) {
        if is_our_backup(view.pair, branches, found) {
            return Decision::Conclude(Conclusion::BackupFound(Box::new(found.clone())));
        }
        return fail(format!(
            "branch {name} ({}) exists and was not made by this pair, expected the name to be free",
            found.id
        ));
    }
    if let Some(renamed) = renamed_backup(view.pair, branches, &view.checkpoint.run) {
        return fail(format!(
            "backup {name} was made by this run and somebody renamed it to {} ({})",
            renamed.name, renamed.id
        ));
    }
    if let Some(cancelled) = &need!(view.orders()).cancelled {
        return end(RunStatus::Cancelled, cancelled.told("before the backup was made"));
    }
    act(Call::CreateBranch(CreateBranch {
        parent: view.pair.production_branch.clone(),
        parent_lsn: None,
        name,
        endpoint: view.endpoint_kind(),
        endpoint_cu_hundredths: view.pair.endpoint_cu_hundredths,
        annotation: vec![
            ("firstlight", view.pair.name.to_string()),
            ("run", view.checkpoint.run.to_string()),
        ],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::branch;
    use crate::fixtures::pair;
    use crate::fixtures::started;
    use crate::neon::wire::{Branch, BranchList};
    use crate::sync::checkpoint::Checkpoint;
    use crate::sync::machine::Seen;

    #[test]
    fn a_backup_whose_operations_are_unknown_is_used_once_it_says_itself_that_it_is_ready() {
        let (pair, now) = (pair(), started().started_at);
        let made = branch("br-a-b-c", "backup-20261121", &pair.production_branch);
        let decision = |state: &str| {
            let (id, name) = (made.id.clone(), made.name.clone());
            let backup = Backup {
                id,
                name,
                lsn: None,
                made_at: now,
                operations: Vec::new(),
                is_ready: false,
                is_verified: false,
                endpoints: None,
            };
            let checkpoint = Checkpoint { backup: Some(backup), ..started() };
            let branches = vec![Branch { current_state: state.to_owned(), ..made.clone() }];
            let branches = Some(BranchList { branches, ..BranchList::default() });
            let mut seen = Seen { branches, ..Seen::default() };
            seen.operations.listed(Vec::new(), false, None);
            format!("{:?}", next(&View { checkpoint: &checkpoint, seen: &seen, pair: &pair, now }))
        };
        assert_eq!(decision("ready"), "Conclude(BackupReady)");
        assert_eq!(decision("init"), "Conclude(LookAgain)");
        assert_eq!(decision("archived"), "Conclude(BackupReady)", "it wakes with the first query");
    }
}
