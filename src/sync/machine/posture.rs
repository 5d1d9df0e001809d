//! Whether staging is as well protected as production, as far as Neon's settings say, and who may
//! enter the project.
//!
//! What the databases themselves say (row-level security, policies, grants, roles, memberships) is
//! compared with the backup, object by object.

use crate::ordered::IntoOrdered as _;
use std::collections::BTreeSet;

use super::{Decision, View, act};
use crate::config::{Pair, Policy};
use crate::neon::Call;
use crate::neon::wire::{BranchList, Endpoint, Permission, Project};
use crate::verify::{Check, CheckKind, CheckOutcome, outcome_of};

/// People that a check names; the others are counted.
const NAMED: usize = 20;

/// Holds what Neon says of staging against what it says of production.
pub(super) fn judge(
    project: &Project,
    branches: &BranchList,
    endpoints: &[Endpoint],
    pair: &Pair,
) -> Option<Check> {
    let policy = pair.verification.posture;
    if policy == Policy::Off {
        return None;
    }
    let settings = project.settings.clone().unwrap_or_default();
    let of = |branch| {
        endpoints
            .iter()
            .filter(move |endpoint: &&Endpoint| endpoint.branch_id == branch && !endpoint.disabled)
    };
    let is_open = |branch: &crate::id::BranchId| {
        of(branch.clone()).any(|endpoint| endpoint.passwordless_access)
    };
    let is_protected = |id| branches.by_id(id).is_some_and(|branch| branch.protected);
    let (production, staging) = (&pair.production_branch, &pair.staging_branch);
    let mut weaker = Vec::new();
    let list = settings.allowed_ips.unwrap_or_default();
    if !list.ips.is_empty()
        && list.protected_branches_only
        && is_protected(production)
        && !is_protected(staging)
    {
        weaker.push(
            "the IP allow list holds for protected branches alone, and staging is none".to_owned(),
        );
    }
    if is_open(staging) && !is_open(production) {
        weaker
            .push("staging's endpoint has passwordless access and production's has not".to_owned());
    }
    let (outcome, detail) = if weaker.is_empty() {
        let list = if list.ips.is_empty() {
            "every address may connect".to_owned()
        } else {
            format!("{} addresses may connect", list.ips.len())
        };
        let public =
            if settings.block_public_connections { "; public connections are blocked" } else { "" };
        (CheckOutcome::Passed, format!("as production: {list}{public}"))
    } else {
        (outcome_of(policy), weaker.join("; "))
    };
    Some(Check { findings: weaker, ..Check::of_pair(CheckKind::Posture, "", outcome, detail) })
}

/// Asks who may enter the project; `Ok` when that is known, or is not to be known.
pub(super) fn people(view: &View<'_>) -> Result<(), Decision> {
    let is_wanted = view.pair.verification.people != Policy::Off
        && !view.checkpoint.checks.iter().any(|check| check.kind == CheckKind::People);
    if !is_wanted {
        return Ok(());
    }
    // What the last verified run knew is read with the orders.
    view.orders()?;
    Err(act(Call::ListPermissions))
}

/// Holds the people beside those of the last verified run.
pub(super) fn judge_people(
    permissions: &[Permission],
    before: Option<&BTreeSet<String>>,
    policy: Policy,
) -> (Check, BTreeSet<String>) {
    let present: BTreeSet<String> = permissions
        .iter()
        .filter(|permission| permission.revoked_at.is_none())
        .map(|permission| permission.granted_to_email.clone())
        .into_set();
    let list =
        |people: &mut dyn Iterator<Item = &String>| people.cloned().collect::<Vec<_>>().join(", ");
    let count = present.len();
    let (outcome, detail) = match before {
        None => (
            CheckOutcome::Passed,
            format!(
                "{count} people have been given access to the project; no earlier list is on record"
            ),
        ),
        Some(before) if *before == present => (
            CheckOutcome::Passed,
            format!("{count} people have been given access to the project, as before"),
        ),
        Some(before) => {
            let (come, gone) =
                (list(&mut present.difference(before)), list(&mut before.difference(&present)));
            let part = |word: &str, names: &str| {
                if names.is_empty() { String::new() } else { format!("; {word}: {names}") }
            };
            (
                outcome_of(policy),
                format!(
                    "{count} people have access to the project{}{}",
                    part("new", &come),
                    part("gone", &gone)
                ),
            )
        }
    };
    let findings = present.iter().take(NAMED).cloned().collect();
    (Check { findings, ..Check::of_pair(CheckKind::People, "", outcome, detail) }, present)
}

/// Returns the check of people who could not be listed.
pub(super) fn unknown_people(reason: &str, policy: Policy) -> Check {
    Check {
        is_optional: policy != Policy::Fail,
        ..Check::of_pair(CheckKind::People, "", CheckOutcome::NotChecked, reason)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::branch;
    use crate::fixtures::pair;

    fn judged(
        settings: &serde_json::Value,
        production_is_protected: bool,
        passwordless: [bool; 2],
    ) -> (CheckOutcome, String) {
        let pair = pair();
        let project =
            json!({"id": "p", "pg_version": 17, "store_passwords": true, "settings": settings});
        let project: Project = serde_json::from_value(project).expect("a project");
        let mut production =
            branch(pair.production_branch.as_str(), "production", &"br-no-body".into());
        production.protected = production_is_protected;
        let staging = branch(pair.staging_branch.as_str(), "staging", &pair.production_branch);
        let branches = BranchList { branches: vec![production, staging], ..BranchList::default() };
        let endpoint = |(branch, passwordless_access): (&crate::id::BranchId, bool)| -> Endpoint {
            serde_json::from_value(json!({
                "id": "ep-a", "branch_id": branch, "host": "h", "type": "read_write",
                "created_at": "2026-11-21T10:00:00Z",
                "passwordless_access": passwordless_access,
            }))
            .expect("an endpoint")
        };
        let endpoints: Vec<Endpoint> = [&pair.production_branch, &pair.staging_branch]
            .into_iter()
            .zip(passwordless)
            .map(endpoint)
            .collect();
        let check = judge(&project, &branches, &endpoints, &pair).expect("it is looked at");
        (check.outcome, check.detail)
    }

    #[test]
    fn staging_is_not_weaker_than_production() {
        let open = json!({"allowed_ips": {"ips": [], "protected_branches_only": false},
                "block_public_connections": false});
        assert_eq!(
            judged(&open, false, [true, true]),
            (CheckOutcome::Passed, "as production: every address may connect".to_owned())
        );
        let list = |protected_only: bool| {
            json!({"allowed_ips": {"ips": ["203.0.113.7"],
                    "protected_branches_only": protected_only}})
        };
        assert_eq!(
            judged(&list(false), true, [false, false]).1,
            "as production: 1 addresses may connect"
        );
        assert_eq!(
            judged(&list(true), false, [false, false]).0,
            CheckOutcome::Passed,
            "it holds for neither"
        );
        let weaker = judged(&list(true), true, [false, true]);
        assert_eq!(weaker.0, CheckOutcome::Warned);
        assert!(
            weaker.1.starts_with("the IP allow list holds for protected branches alone")
                && weaker.1.contains("passwordless"),
            "{}",
            weaker.1
        );
        assert_eq!(
            judged(&json!({"block_public_connections": true}), false, [false, false]).1,
            "as production: every address may connect; public connections are blocked"
        );
    }

    #[test]
    fn who_has_come_and_who_has_gone_is_told() {
        let permission = |email: &str, revoked: Option<&str>| Permission {
            granted_to_email: email.to_owned(),
            revoked_at: revoked.map(str::to_owned),
        };
        let now = [
            permission("ann@example.com", None),
            permission("bob@example.com", None),
            permission("eve@example.com", Some("2026-01-01T00:00:00Z")),
        ];
        let (check, present) = judge_people(&now, None, Policy::Warn);
        assert_eq!((check.outcome, check.findings.len()), (CheckOutcome::Passed, 2));
        assert_eq!(
            judge_people(&now, Some(&present), Policy::Warn).0.outcome,
            CheckOutcome::Passed
        );
        let before = ["ann@example.com", "kim@example.com"].map(str::to_owned).into();
        let (check, _) = judge_people(&now, Some(&before), Policy::Fail);
        let told =
            "2 people have access to the project; new: bob@example.com; gone: kim@example.com";
        assert_eq!((check.outcome, check.detail.as_str()), (CheckOutcome::Failed, told));
    }
}
