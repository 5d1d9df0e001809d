//! Step 1: refuses what is unsafe before anything is made.

use super::{
    Action, Conclusion, Decision, Purpose, Query, RoleSight, View, act, closed, fail, need, prune,
    writer,
};
use crate::config::Pair;
use crate::id::DatabaseName;
use crate::names::{backup_name, is_our_backup, too_long_to_keep};
use crate::neon::Call;
use crate::neon::wire::{BranchList, Endpoint, Owner};
use crate::verify::role_batch;

/// Decides the next action of preflight.
pub(super) fn next(view: &View<'_>) -> Decision {
    let Some(project) = &view.seen.project else { return act(Call::GetProject) };
    let branches = need!(view.branches());
    let endpoints = need!(view.endpoints());
    if let Some(objection) = objection(view, branches, endpoints) {
        return fail(objection);
    }
    let staging =
        branches.by_id(&view.pair.staging_branch).filter(|_| !view.checkpoint.leaves_staging());
    if let Some(reason) = staging.and_then(too_long_to_keep) {
        return fail(reason);
    }
    let production = &view.pair.production_branch;
    let Some(databases) = &view.seen.databases else {
        return act(Call::ListDatabases(production.clone()));
    };
    let known: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
    for wanted in view.pair.databases.iter().flatten() {
        if !known.contains(&wanted.as_str()) {
            return fail(format!(
                "databases: {wanted} is not on production {production}; it has {}",
                known.join(", ")
            ));
        }
    }
    if known.is_empty() {
        return fail(format!("production {production} has no database to verify"));
    }
    if let Some((key, wanted)) = not_compared(view.pair, &known) {
        return fail(format!(
            "{key}.database: {wanted} is not compared, and what is configured for it would not be \
             run; production {production} has {}",
            known.join(", ")
        ));
    }
    let roles = need!(view.roles(production));
    let role = &view.pair.role;
    if !roles.iter().any(|known| known.name == *role) {
        let known: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
        return fail(format!(
            "role: {:?} is not on production {production}; it has {}",
            role.as_str(),
            known.join(", ")
        ));
    }
    if !need!(view.has_password(production, role)) {
        return fail(format!(
            "read the password of role {role} on {production}: Neon has none to tell (the project \
             may store no passwords); set role_password_secret to the name of a secret that holds \
             it"
        ));
    }
    if let Some(decision) = sees_all_rows(view, endpoints) {
        return decision;
    }
    if let Some(decision) = make_room(view, branches, project.owner.as_ref().and_then(Owner::limit))
    {
        return decision;
    }
    if view.pair.keep.has_snapshots() {
        // What is ahead depends on them; what cannot be listed is told, and stops nothing.
        need!(view.snapshots());
        if view.seen.schedule.is_none() {
            return act(Call::ListSchedule(production.clone()));
        }
    }
    Decision::Conclude(Conclusion::Cleared)
}

/// Returns the first setting for a database that is not there, where all that Neon lists are
/// compared. Configured ones were looked at when the configuration was read.
fn not_compared<'a>(pair: &'a Pair, known: &[&str]) -> Option<(String, &'a DatabaseName)> {
    let settings = &pair.verification;
    let freshness = settings
        .freshness
        .iter()
        .enumerate()
        .map(|(index, one)| (format!("freshness[{index}]"), &one.database));
    let assertions = settings
        .assertions
        .iter()
        .enumerate()
        .map(|(index, one)| (format!("assertions[{index}]"), &one.database));
    let prepared =
        settings.after_restore.iter().map(|one| ("after_restore".to_owned(), &one.database));
    let tenants = settings.tenants.iter().map(|one| ("tenants".to_owned(), &one.database));
    let mut all = freshness.chain(assertions).chain(prepared).chain(tenants);
    all.find_map(|(key, database)| {
        let wanted = database.as_ref().filter(|wanted| !known.contains(&wanted.as_str()))?;
        Some((format!("verification.{key}"), wanted))
    })
}

/// Returns why a run must not go on. The restore asks again, so that what has changed since is
/// seen.
pub(super) fn objection(
    view: &View<'_>,
    branches: &BranchList,
    endpoints: &[Endpoint],
) -> Option<String> {
    let pair = view.pair;
    let (production, staging) = (&pair.production_branch, &pair.staging_branch);
    if production == staging {
        return Some(format!("staging_branch: {staging} is the production branch"));
    }
    if branches.by_id(production).is_none() {
        return Some(format!("production_branch: {production} is not in project {}", pair.project));
    }
    if let Some(successor) = branches.successor(production) {
        let (name, new) = (&successor.name, &successor.id);
        return Some(format!(
            "production_branch: a snapshot was restored in place of {production}, which nobody \
             uses any more; set production_branch to {new} ({name})"
        ));
    }
    if let Some(successor) = branches.successor(staging) {
        return Some(format!(
            "staging_branch: a snapshot was restored in place of {staging}, and {} ({}) is a root \
             branch, which cannot be staging; make a branch of production with a read-write \
             endpoint and set staging_branch to it",
            successor.id, successor.name
        ));
    }
    let Some(branch) = branches.by_id(staging) else {
        return Some(format!("staging_branch: {staging} is not in project {}", pair.project));
    };
    let refusals = [
        (branch.protected, "is protected, and Neon does not restore onto protected branches"),
        (
            branch.default,
            "is the project's default branch, expected a branch that may be overwritten",
        ),
        (
            branch.parent_id.is_none(),
            "is a root branch, expected a child of production or of a backup",
        ),
        (branch.expires_at.is_some(), "expires by itself, expected a branch that stays"),
    ];
    if let Some((_, text)) = refusals.iter().find(|(is_so, _)| *is_so) {
        return Some(format!("staging_branch: {} ({staging}) {text}", branch.name));
    }
    if writer(endpoints, staging).is_none() {
        return Some(format!(
            "staging_branch: {} ({staging}) has no enabled read-write endpoint, expected one",
            branch.name
        ));
    }
    let name = backup_name(pair, &view.checkpoint.run);
    let foreign = branches.by_name(&name).filter(|found| !is_our_backup(pair, branches, found));
    foreign.map(|found| {
        format!(
            "branch {name} ({}) exists and was not made by this pair, expected the name to be \
             free; rename it or set backup_prefix",
            found.id
        )
    })
}

/// Asks production whether the verifying role sees every row.
///
/// A production that cannot be asked (no endpoint, an address list) is no objection here: the
/// backup is asked again before anything is compared.
fn sees_all_rows(view: &View<'_>, endpoints: &[Endpoint]) -> Option<Decision> {
    let production = &view.pair.production_branch;
    match &view.seen.sees_all_rows {
        Some(RoleSight::Watched(triggers)) => Some(fail(format!(
            "production has login event triggers, which would run as {} at each of our log-ins, \
             and Neon did not switch them off for our connection: {triggers}; expected none, or \
             each `alter event trigger … disable`",
            view.pair.role
        ))),
        Some(RoleSight::All | RoleSight::Unknown) => None,
        Some(RoleSight::Filtered) => Some(fail(format!(
            "role: {} does not see every row, because row-level security filters it; expected a \
             role with BYPASSRLS (roles made through Neon's API have it; members do not inherit \
             it)",
            view.pair.role
        ))),
        None => {
            let endpoint = writer(endpoints, production)?;
            let listed = view.seen.databases.iter().flatten().map(|database| &database.name);
            let compared: Vec<&DatabaseName> = match &view.pair.databases {
                Some(configured) => configured.iter().collect(),
                None => listed.collect(),
            };
            let database = match closed::first_of_production(view, compared.into_iter()) {
                Ok(database) => database.clone(),
                Err(decision) => return Some(decision),
            };
            Some(Decision::Act(Action::Query(Box::new(Query {
                purpose: Purpose::SeesAllRows,
                branch: production.clone(),
                password_of: production.clone(),
                host: endpoint.host.clone(),
                database,
                role: view.pair.role.clone(),
                batch: role_batch(),
            }))))
        }
    }
}

/// Makes sure that the project has room for the branches of this run, by carrying out the prune
/// plan first.
fn make_room(view: &View<'_>, branches: &BranchList, limit: Option<usize>) -> Option<Decision> {
    let limit = limit?;
    let backup = branches.by_name(&view.backup_name());
    let staging_parent =
        branches.by_id(&view.pair.staging_branch).and_then(|staging| staging.parent_id.as_ref());
    let is_restored = backup.is_some_and(|backup| staging_parent == Some(&backup.id));
    let wanted = usize::from(backup.is_none())
        + usize::from(!is_restored && !view.checkpoint.leaves_staging());
    let used = branches.branches.len();
    if used + wanted <= limit {
        return None;
    }
    // Neon deletes in its own time; a branch that is still listed is not counted against the run
    // yet.
    let deleted = view
        .checkpoint
        .prune
        .deleted
        .iter()
        .filter(|name| branches.by_name(&name.as_str().into()).is_some())
        .count();
    if !view.checkpoint.prune.made_room {
        if view.seen.prune_plan.is_some() && used + wanted <= limit + deleted {
            return Some(Decision::Conclude(Conclusion::Pruned));
        }
        return Some(prune::next(view));
    }
    if deleted > 0 {
        return Some(Decision::Conclude(Conclusion::LookAgain));
    }
    let prune = &view.checkpoint.prune;
    let refused: Vec<String> = prune
        .skipped
        .iter()
        .map(|(name, why)| format!("{name} could not be deleted: {why}"))
        .collect();
    let why = refused
        .into_iter()
        .chain((!prune.shortage.is_empty()).then(|| prune.shortage.clone()))
        .collect::<Vec<_>>()
        .join("; ");
    Some(fail(format!(
        "make room for {wanted} branches: the project has {used} of {limit}, and nothing more may \
         give way: {why}; GET /backups tells why each is kept"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::branch;
    use crate::fixtures::pair;
    use crate::fixtures::started;
    use crate::neon::wire::Branch;
    use crate::sync::machine::Seen;
    use crate::time::Timestamp;

    fn now() -> Timestamp {
        "2026-11-21T10:00:00Z".parse().expect("an instant")
    }

    /// Returns a branch without a parent.
    fn root(id: &str, name: &str) -> Branch {
        Branch { parent_id: None, ..branch(id, name, &"br-no-body".into()) }
    }

    /// Returns the objection to a project that is good but for one change.
    fn objected(change: impl Fn(&mut BranchList, &mut Vec<Endpoint>)) -> Option<String> {
        let pair = pair();
        let (production, staging) = (pair.production_branch.as_str(), pair.staging_branch.as_str());
        let branches = vec![
            root(production, "production"),
            branch(staging, "staging", &pair.production_branch),
        ];
        let mut list = BranchList { branches, ..BranchList::default() };
        let kind = "read_write".to_owned();
        let host = "ep-a-b-c.neon.test".to_owned();
        let branch_id = pair.staging_branch.clone();
        let mut endpoints = vec![Endpoint {
            id: "ep-a-b-c".into(),
            branch_id,
            host,
            kind,
            disabled: false,
            passwordless_access: true,
            created_at: now(),
        }];
        change(&mut list, &mut endpoints);
        let checkpoint = started();
        let seen = Seen::default();
        let view = View { checkpoint: &checkpoint, seen: &seen, pair: &pair, now: now() };
        objection(&view, &list, &endpoints)
    }

    #[test]
    fn a_good_project_is_not_objected_to() {
        assert_eq!(objected(|_, _| {}), None);
    }

    #[test]
    fn every_unsafe_staging_is_objected_to_by_name() {
        let text = |change: &dyn Fn(&mut BranchList, &mut Vec<Endpoint>)| {
            objected(change).unwrap_or_default()
        };
        assert!(text(&|list, _| list.branches[1].protected = true).contains("is protected"));
        assert!(
            text(&|list, _| list.branches[1].default = true)
                .contains("is the project's default branch")
        );
        assert!(text(&|list, _| list.branches[1].parent_id = None).contains("is a root branch"));
        assert!(
            text(&|list, _| list.branches[1].expires_at = Some(now()))
                .contains("expires by itself")
        );
        assert!(text(&|_, endpoints| endpoints.clear()).contains("no enabled read-write endpoint"));
        assert!(
            text(&|_, endpoints| endpoints[0].disabled = true)
                .contains("no enabled read-write endpoint")
        );
        assert!(
            text(&|list, _| drop(list.branches.remove(1)))
                .contains("staging_branch: br-calm-river-a5x0q1zz is not in project")
        );
        assert!(
            text(&|list, _| drop(list.branches.remove(0)))
                .contains("production_branch: br-noisy-breeze-a5e59rrb is not in project")
        );
        let replaced = |index: usize| {
            text(&move |list, _| {
                let restored_as = Some(list.branches[index].id.clone());
                list.branches.push(Branch { restored_as, ..root("br-new-new-new", "new") });
            })
        };
        assert!(
            replaced(0).contains("set production_branch to br-new-new-new (new)"),
            "{}",
            replaced(0)
        );
        assert!(
            replaced(1).contains("and br-new-new-new (new) is a root branch"),
            "{}",
            replaced(1)
        );
        let looked_at = text(&|list, _| {
            let restored_as = Some(list.branches[0].id.clone());
            list.branches.push(Branch {
                restored_as,
                restore_status: Some("restored".to_owned()),
                ..root("br-new-new-new", "new")
            });
        });
        assert_eq!(looked_at, "", "it has taken no place");
        let foreign = |list: &mut BranchList, _: &mut Vec<Endpoint>| {
            list.branches.push(root("br-x-y-z", "backup-20261121"));
        };
        assert!(text(&foreign).contains("was not made by this pair"));
    }

    #[test]
    fn a_project_that_tells_no_limit_has_room() {
        let (pair, checkpoint, seen) = (pair(), started(), Seen::default());
        let view = View { checkpoint: &checkpoint, seen: &seen, pair: &pair, now: now() };
        let list =
            BranchList { branches: vec![root("br-a-b-c", "production")], ..BranchList::default() };
        let has_room = |limit: Option<i64>| {
            make_room(
                &view,
                &list,
                limit.and_then(|branches_limit| {
                    Owner { branches_limit, subscription_type: String::new() }.limit()
                }),
            )
            .is_none()
        };
        assert_eq!(
            [None, Some(-1), Some(0), Some(1), Some(2), Some(3)].map(has_room),
            [true, true, true, false, false, true]
        );
    }

    #[test]
    fn what_an_earlier_tick_has_deleted_makes_room_only_as_long_as_it_is_listed() {
        use super::super::prune::{Deletion, Plan};
        let (pair, mut checkpoint) = (pair(), started());
        let left = vec![Deletion::Branch("br-next".into(), "backup-20261102".to_owned(), None)];
        checkpoint.prune.deleted = vec!["backup-20261101".to_owned()];
        let seen = Seen { prune_plan: Some(Plan { left, ..Plan::default() }), ..Seen::default() };
        let view = View { checkpoint: &checkpoint, seen: &seen, pair: &pair, now: now() };
        let decided = |names: &[&str]| {
            let list = BranchList {
                branches: names.iter().map(|name| root(&format!("br-{name}"), name)).collect(),
                ..BranchList::default()
            };
            format!("{:?}", make_room(&view, &list, Some(4)))
        };
        assert_eq!(
            decided(&["production", "staging", "backup-20261101"]),
            "Some(Conclude(Pruned))",
            "one was wanted, and Neon lists it a little longer"
        );
        let next = decided(&["production", "staging", "backup-20261102"]);
        assert!(
            next.contains("DeleteBranch"),
            "that one is gone already, and another is wanted: {next}"
        );
    }
}
