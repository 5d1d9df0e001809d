//! Steps 5 and 6: compares staging with the backup, then calls the staging application.

use super::differences::Different;
use super::{
    Action, Conclusion, Decision, Purpose, Query, View, act, contents, end, fail, is_our_check, need, passwords, prepare, restore, writer,
};
use crate::config::OnMismatch;
use crate::id::{BranchName, DatabaseName, RoleName};
use crate::neon::sql::Batch;
use crate::neon::{Call, CreateBranch, RestoreBranch};
use crate::sync::checkpoint::{Backup, CheckBranch, RunStatus, Side};
use crate::sync::smoke;
use crate::sync::step::{FIRST_LOOK_RESTORE, ROLL_BACK_WITHIN};
use crate::sync::verify::{Check, CheckKind, CheckOutcome, Fingerprint, compare};
use crate::time::{after, between};

/// Decides the next action of step 5.
pub(super) fn next(view: &View<'_>) -> Decision {
    let (Some(backup), Some(expected)) = (&view.checkpoint.backup, &view.checkpoint.fingerprint) else {
        return fail("verify staging: this run has not read its backup".to_owned());
    };
    if view.checkpoint.is_compared {
        return after_comparison(view, backup);
    }
    let branches = need!(view.branches());
    match branches.by_id(&view.pair.staging_branch) {
        Some(staging) if staging.parent_id.as_ref() == Some(&backup.id) => {}
        Some(_) => return end(RunStatus::Superseded, "staging was restored from another backup meanwhile".to_owned()),
        None => return fail("verify staging: staging is gone".to_owned()),
    }
    if let Some(decision) = log_in(view) {
        return decision;
    }
    if !expected.is_current() {
        let again = need!(contents::read(view, Side::Backup, &backup.id));
        return Decision::Conclude(Conclusion::BackupReadAgain(again));
    }
    let seen = need!(contents::read(view, Side::Staging, &view.pair.staging_branch));
    let checks = compare(expected, &seen, !view.pair.verification.is_not_checked_fatal);
    let mut differing = checks.iter().filter(|check| is_worth_another_look(check)).peekable();
    if differing.peek().is_none() {
        return Decision::Conclude(Conclusion::Compared(checks));
    }
    match &view.checkpoint.check {
        None => {
            let name = format!("{}-check-{}", staging_name(view), view.checkpoint.run);
            let tables = differing.filter(|check| check.kind != CheckKind::Schema).map(|check| check.object.clone()).collect();
            Decision::Conclude(Conclusion::CheckNeeded(BranchName::from(name.as_str()), tables))
        }
        Some(check) => compare_again(view, check, expected, checks),
    }
}

/// Returns whether a difference may be drift: what an application has done to staging since it was restored.
fn is_worth_another_look(check: &Check) -> bool {
    check.outcome == CheckOutcome::Failed && matches!(check.kind, CheckKind::Schema | CheckKind::Content | CheckKind::Sequence)
}

fn staging_name(view: &View<'_>) -> String {
    view.checkpoint.pins.as_ref().map_or_else(|| "staging".to_owned(), |pins| pins.staging_name.to_string())
}

/// Logs in to staging as each role that kept its password.
fn log_in(view: &View<'_>) -> Option<Decision> {
    let passwords = &view.checkpoint.passwords;
    let is_left = |role: &&RoleName| !passwords.logged_in.contains(role) && !passwords.locked_out.iter().any(|(other, _)| other == *role);
    let left = || passwords.kept.iter().filter(is_left);
    let role = left().find(|role| !view.seen.refused.contains(*role)).or_else(|| left().next())?;
    let staging = &view.pair.staging_branch;
    match view.has_password(staging, role) {
        Ok(true) => {}
        Ok(false) => return None,
        Err(decision) => return Some(decision),
    }
    match passwords::door(view, role) {
        Ok(Ok(database)) => Some(log_in_as(view, role, database)),
        Ok(Err(reason)) => Some(Decision::Conclude(Conclusion::LockedOut(role.clone(), reason))),
        Err(decision) => Some(decision),
    }
}

fn log_in_as(view: &View<'_>, role: &RoleName, database: DatabaseName) -> Decision {
    let endpoints = need!(view.endpoints());
    let staging = &view.pair.staging_branch;
    let Some(endpoint) = writer(endpoints, staging) else {
        return fail(format!("log in to staging {staging}: it has no enabled read-write endpoint, expected one"));
    };
    Decision::Act(Action::Query(Box::new(Query {
        purpose: Purpose::LogIn,
        branch: staging.clone(),
        password_of: staging.clone(),
        host: endpoint.host.clone(),
        database,
        role: role.clone(),
        batch: Batch { statements: vec![("select 1".to_owned(), Vec::new())], is_read_only: true },
    })))
}

/// Compares what differs where nobody can have written: on a branch of staging as its restore left it.
fn compare_again(view: &View<'_>, check: &CheckBranch, expected: &Fingerprint, mut checks: Vec<Check>) -> Decision {
    if let Some(refusal) = &check.refusal {
        let reason = format!("in use: it differs, and Neon would not make a branch to compare it on ({refusal})");
        checks.iter_mut().filter(|check| is_worth_another_look(check)).for_each(|check| {
            let is_optional = !view.pair.verification.is_not_checked_fatal;
            *check = Check { is_optional, ..check.again(CheckOutcome::NotChecked, reason.clone()) };
        });
        return Decision::Conclude(Conclusion::Compared(checks));
    }
    let Some(id) = &check.id else { return create_check(view, check) };
    if !check.is_ready {
        need!(view.await_operations(id, &check.operations, view.now, "create the check branch"));
        return Decision::Conclude(Conclusion::CheckReady);
    }
    let undisturbed = need!(contents::read(view, Side::Check, id));
    let different = Different { check: id, expected, undisturbed: &undisturbed };
    need!(different.look(view, checks.iter().filter(|check| is_worth_another_look(check))));
    for check in checks.iter_mut().filter(|other| is_worth_another_look(other) && is_compared_again(check, other)) {
        let judged = different.judge(view, check);
        let is_optional = judged.outcome == CheckOutcome::NotChecked && !view.pair.verification.is_not_checked_fatal;
        *check = Check { is_optional, ..judged };
    }
    Decision::Conclude(Conclusion::Compared(checks))
}

/// Returns whether the check branch was read for a check: what has differed since it was asked for was not.
fn is_compared_again(branch: &CheckBranch, check: &Check) -> bool {
    check.kind == CheckKind::Schema || branch.tables.contains(&check.object)
}

fn create_check(view: &View<'_>, check: &CheckBranch) -> Decision {
    let branches = need!(view.branches());
    let staging = &view.pair.staging_branch;
    if let Some(found) = branches.by_name(&check.name) {
        if is_our_check(view.pair, branches, found) {
            return Decision::Conclude(Conclusion::CheckFound(found.id.clone()));
        }
        return fail(format!("branch {} ({}) exists and was not made by this pair", check.name, found.id));
    }
    act(Call::CreateBranch(CreateBranch {
        parent: staging.clone(),
        parent_lsn: branches.by_id(staging).and_then(|branch| branch.parent_lsn),
        name: check.name.clone(),
        endpoint: view.endpoint_kind(),
        endpoint_cu_hundredths: view.pair.endpoint_cu_hundredths,
        annotation: vec![("firstlight", view.pair.name.to_string()), ("run", view.checkpoint.run.to_string())],
    }))
}

/// Goes on when all was equal; otherwise does what `on_mismatch` says and ends the run.
fn after_comparison(view: &View<'_>, backup: &Backup) -> Decision {
    // Once staging was asked more, the copy was good: what objects was found out about it since.
    let objections = view.objections().filter(|_| !view.checkpoint.probed.contains(&Side::Staging));
    let Some(objections) = objections else { return prepare::conclude(view, &backup.id) };
    let reason = format!("staging differs from {}: {objections}", backup.name);
    if view.pair.on_mismatch == OnMismatch::Keep {
        return fail(reason);
    }
    roll_back(view, backup, reason)
}

/// Rolls staging back to the state that this run displaced, if this checkpoint itself saw the restore being accepted just now.
fn roll_back(view: &View<'_>, backup: &Backup, reason: String) -> Decision {
    if let Some(roll_back) = &view.checkpoint.roll_back {
        if !roll_back.is_done {
            let first_look = roll_back.accepted_at.map_or(view.now, |at| after(at, FIRST_LOOK_RESTORE));
            need!(view.await_operations(&view.pair.staging_branch, &roll_back.operations, first_look, "roll staging back"));
        }
        return Decision::Conclude(Conclusion::RollBackDone(reason));
    }
    let restored = view.checkpoint.restore.as_ref();
    let is_recent = restored.and_then(|restore| restore.accepted_at).is_some_and(|at| between(at, view.now) < ROLL_BACK_WITHIN);
    let Some(displaced) = restored.and_then(|restore| restore.displaced_id.clone()).filter(|_| is_recent) else {
        return fail(format!("{reason}; not rolled back, because this run did not itself see its restore accepted within 30 minutes"));
    };
    let branches = need!(view.branches());
    let staging = branches.by_id(&view.pair.staging_branch);
    if staging.is_some_and(restore::is_changing) {
        return Decision::Conclude(Conclusion::LookAgain);
    }
    let parent = staging.and_then(|staging| staging.parent_id.as_ref());
    if parent == Some(&displaced) {
        // Accepted, and the reply was lost.
        return Decision::Conclude(Conclusion::RollBackDone(reason));
    }
    if parent != Some(&backup.id) {
        return fail(format!("{reason}; not rolled back, because staging is no child of this run's backup any more"));
    }
    if branches.by_id(&displaced).is_none() {
        return fail(format!("{reason}; not rolled back, because the displaced branch is gone"));
    }
    let stem = format!("{}-of-{}", staging_name(view), view.checkpoint.run);
    act(Call::RestoreBranch(RestoreBranch {
        branch: view.pair.staging_branch.clone(),
        source: displaced,
        displaced_name: super::free_name(branches, &stem),
    }))
}

/// Decides the next action of step 6.
pub(super) fn next_smoke(view: &View<'_>) -> Decision {
    let smoked = view.checkpoint.checks.iter().filter(|check| check.kind == CheckKind::SmokeTest);
    let done = |name: &str| smoked.clone().any(|check| check.object == name);
    if let Some(index) = view.pair.smoke_tests.iter().position(|test| !done(&test.name)) {
        let tests = &view.pair.smoke_tests;
        let first = smoke::needed_first(tests, &tests[index], &view.seen.captured);
        // What captures a value and failed is no help: the test that needs it fails without it.
        let first =
            first.filter(|first| smoked.clone().all(|check| check.object != tests[*first].name || check.outcome == CheckOutcome::Passed));
        return Decision::Act(Action::Smoke(first.unwrap_or(index)));
    }
    let failed: Vec<String> = smoked.filter(|check| check.is_objection()).map(ToString::to_string).collect();
    if failed.is_empty() { Decision::Conclude(Conclusion::StepDone) } else { fail(failed.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BranchId, Secret};
    use crate::neon::wire::{BranchList, Endpoint};
    use crate::sync::checkpoint::Checkpoint;
    use crate::sync::checkpoint::tests::started;
    use crate::sync::machine::Seen;
    use crate::sync::machine::names::tests::branch;
    use crate::sync::schedule::tests::pair;
    use crate::sync::verify::DatabasePrint;

    #[test]
    fn a_backup_that_another_version_has_read_is_read_again() {
        let (pair, backup_id) = (pair(), BranchId::from("br-back-up-1"));
        let staging = branch(pair.staging_branch.as_str(), "staging", &backup_id);
        let reader = Endpoint {
            id: "ep-a-b-c".into(),
            branch_id: backup_id.clone(),
            host: "ep-a-b-c.neon.test".to_owned(),
            kind: "read_only".to_owned(),
            disabled: false,
            passwordless_access: true,
            created_at: staging.created_at,
        };
        let name = "backup-20261121".into();
        let backup = Backup {
            id: backup_id,
            name,
            lsn: None,
            accepted_at: staging.created_at,
            operations: Vec::new(),
            is_ready: true,
            is_verified: true,
        };
        let asked = |print: &str| {
            let print: DatabasePrint = serde_json::from_str(print).expect("a print");
            let fingerprint = Some(Fingerprint { databases: [("neondb".into(), print)].into() });
            let checkpoint = Checkpoint { backup: Some(backup.clone()), fingerprint, databases: vec!["neondb".into()], ..started() };
            let branches = Some(BranchList { branches: vec![staging.clone()], ..BranchList::default() });
            let configured_password = Some(Secret::new("x".to_owned()));
            let seen = Seen { branches, endpoints: Some(vec![reader.clone()]), configured_password, ..Seen::default() };
            let decision = next(&View { checkpoint: &checkpoint, seen: &seen, pair: &pair, now: staging.created_at });
            let Decision::Act(Action::Query(query)) = decision else { return None };
            Some((query.purpose, query.branch))
        };
        let rest = r#""schema":{},"tables":{},"sequences":{},"skipped":{},"not_checked":{},"bytes":0}"#;
        assert_eq!(asked(&format!("{{{rest}")), Some((Purpose::Catalogue(Side::Backup), backup.id.clone())));
        // Staging is read at once, which has no endpoint here, when the backup was read by these rules.
        assert_eq!(asked(&format!("{{\"rules\":8,\"is_complete\":true,{rest}")), None);
    }

    #[test]
    fn only_what_the_check_branch_was_read_for_is_judged_again() {
        let branch = CheckBranch {
            name: "staging-check-20261121".into(),
            id: None,
            operations: Vec::new(),
            is_ready: true,
            refusal: None,
            tables: vec!["public.a".to_owned()],
            looks: 0,
        };
        let is_judged = |kind: CheckKind, object: &str, outcome: CheckOutcome| {
            let check = Check::of(kind, &"neondb".into(), object, outcome, "");
            is_worth_another_look(&check) && is_compared_again(&branch, &check)
        };
        let (passed, failed) = (CheckOutcome::Passed, CheckOutcome::Failed);
        assert!(is_judged(CheckKind::Content, "public.a", failed) && is_judged(CheckKind::Schema, "triggers", failed));
        assert!(!is_judged(CheckKind::Content, "public.b", failed), "it has come to differ since");
        assert!(!is_judged(CheckKind::Content, "public.a", passed) && !is_judged(CheckKind::LogIn, "public.a", failed));
    }
}
