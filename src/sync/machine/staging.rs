//! Steps 5 and 6: compares staging with the backup, then calls the staging application.

use super::differences::Different;
use super::{
    Action, Conclusion, Decision, Purpose, Query, View, act, contents, end, fail, need, passwords,
    prepare, restore, writer,
};
use crate::config::OnMismatch;
use crate::id::{DatabaseName, RoleName};
use crate::neon::sql::Batch;
use crate::neon::wire::Branch;
use crate::neon::{Call, RestoreBranch};
use crate::sync::checkpoint::{Backup, RunStatus, Side};
use crate::sync::smoke;
use crate::sync::step::ROLL_BACK_WITHIN;
use crate::time::between;
use crate::verify::{Check, CheckKind, CheckOutcome, compare};

/// Decides the next action of step 5.
pub(super) fn next(view: &View<'_>) -> Decision {
    let (Some(backup), Some(expected)) = (&view.checkpoint.backup, &view.checkpoint.fingerprint)
    else {
        return fail("verify staging: this run has not read its backup".to_owned());
    };
    if view.checkpoint.is_compared {
        return after_comparison(view, backup);
    }
    let branches = need!(view.branches());
    let staging = match branches.by_id(&view.pair.staging_branch) {
        Some(staging) if staging.parent_id.as_ref() == Some(&backup.id) => staging,
        Some(_) => {
            return end(
                RunStatus::Superseded,
                "staging was restored from another backup meanwhile".to_owned(),
            );
        }
        None => return fail("verify staging: staging is gone".to_owned()),
    };
    if let Some(decision) = log_in(view) {
        return decision;
    }
    if !expected.is_current() {
        let again = need!(contents::read(view, Side::Backup, &backup.id));
        return Decision::Conclude(Conclusion::BackupReadAgain(again));
    }
    let seen = need!(contents::read(view, Side::Staging, &view.pair.staging_branch));
    let checks = compare(expected, &seen, !view.pair.verification.is_not_checked_fatal);
    let different = Different { expected, seen: &seen };
    need!(different.look(view, &checks));
    let judged = checks.iter().map(|check| different.judge(view, check));
    let checks = std::iter::once(judge_source(staging, backup)).chain(judged).collect();
    Decision::Conclude(Conclusion::Compared(checks))
}

/// Judges from where staging was restored: what the listing tells of its parent and of the position
/// in it.
///
/// The backup begins at `backup.lsn` of production, and is never written to; what was restored from
/// its head is at or after that.
fn judge_source(staging: &Branch, backup: &Backup) -> Check {
    let Backup { name, id, lsn, .. } = backup;
    let (outcome, detail) = match (staging.parent_lsn, lsn) {
        (Some(at), Some(begins)) if at < *begins => (
            CheckOutcome::Failed,
            format!("was restored at {at}, before {begins}, where {name} begins"),
        ),
        (Some(at), Some(_)) => (CheckOutcome::Passed, format!("a child of {name} ({id}) at {at}")),
        (None, _) | (_, None) => {
            (CheckOutcome::NotChecked, format!("a child of {name} ({id}); Neon tells no position"))
        }
    };
    let is_optional = outcome == CheckOutcome::NotChecked;
    Check { is_optional, ..Check::of_pair(CheckKind::Source, "", outcome, detail) }
}

fn staging_name(view: &View<'_>) -> String {
    view.checkpoint
        .pins
        .as_ref()
        .map_or_else(|| "staging".to_owned(), |pins| pins.staging_name.to_string())
}

/// Logs in to staging as each role that kept its password. The verifying role does so when it reads
/// staging, which comes next: that saves a subrequest.
fn log_in(view: &View<'_>) -> Option<Decision> {
    let passwords = &view.checkpoint.passwords;
    let is_left = |role: &&RoleName| {
        **role != view.pair.role
            && !passwords.logged_in.contains(role)
            && !passwords.locked_out.iter().any(|(other, _)| other == *role)
    };
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
        return fail(format!(
            "log in to staging {staging}: it has no enabled read-write endpoint, expected one"
        ));
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

/// Goes on when all was equal; otherwise does what `on_mismatch` says and ends the run.
fn after_comparison(view: &View<'_>, backup: &Backup) -> Decision {
    // Once staging was asked more, the copy was good: what objects was found out about it since.
    let objections = view.objections().filter(|_| !view.checkpoint.probed.contains(&Side::Staging));
    let Some(objections) = objections else { return prepare::conclude(view, &backup.id) };
    let reason = format!("staging differs from {}: {objections}", backup.name);
    if view.pair.on_mismatch == OnMismatch::Keep {
        return fail(reason);
    }
    if !view.checkpoint.checks.iter().any(is_mismatch) {
        return fail(format!("{reason}; not rolled back, because that does not show a wrong copy"));
    }
    roll_back(view, backup, reason)
}

/// Returns whether a check shows that staging is no copy of its backup. What differs may be the
/// work of those who use staging, and what was not checked shows nothing.
fn is_mismatch(check: &Check) -> bool {
    check.outcome == CheckOutcome::Failed && check.drift.is_none()
}

/// Rolls staging back to the state that this run displaced, if this checkpoint itself saw the
/// restore being accepted just now.
fn roll_back(view: &View<'_>, backup: &Backup, reason: String) -> Decision {
    if let Some(roll_back) = &view.checkpoint.roll_back {
        if !roll_back.is_done {
            need!(view.await_all(&restore::awaited(view, backup, roll_back, "roll staging back")));
        }
        return Decision::Conclude(Conclusion::RollBackDone(reason));
    }
    let restored = view.checkpoint.restore.as_ref();
    let is_recent = restored
        .and_then(|restore| restore.accepted_at)
        .is_some_and(|at| between(at, view.now) < ROLL_BACK_WITHIN);
    let Some(displaced) =
        restored.and_then(|restore| restore.displaced_id.clone()).filter(|_| is_recent)
    else {
        return fail(format!(
            "{reason}; not rolled back, because this run did not itself see its restore accepted \
             within 30 minutes"
        ));
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
    if let Some(why) = staging.and_then(restore::is_taken) {
        return fail(format!("{reason}; not rolled back, because {why}"));
    }
    if parent != Some(&backup.id) {
        return fail(format!(
            "{reason}; not rolled back, because staging is no child of this run's backup any more"
        ));
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
        let first = first.filter(|first| {
            smoked.clone().all(|check| {
                check.object != tests[*first].name || check.outcome == CheckOutcome::Passed
            })
        });
        return Decision::Act(Action::Smoke(first.unwrap_or(index)));
    }
    let failed: Vec<String> =
        smoked.filter(|check| check.is_objection()).map(ToString::to_string).collect();
    if failed.is_empty() {
        Decision::Conclude(Conclusion::StepDone)
    } else {
        fail(failed.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::branch;
    use crate::fixtures::pair;
    use crate::fixtures::started;
    use crate::id::{BranchId, Secret};
    use crate::neon::wire::{BranchList, Endpoint};
    use crate::sync::checkpoint::Checkpoint;
    use crate::sync::machine::Seen;
    use crate::verify::{DatabasePrint, Fingerprint};

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
            made_at: staging.created_at,
            operations: Vec::new(),
            is_ready: true,
            is_verified: true,
            endpoints: None,
        };
        let asked = |print: &str| {
            let print: DatabasePrint = serde_json::from_str(print).expect("a print");
            let fingerprint = Some(Fingerprint { databases: [("neondb".into(), print)].into() });
            let checkpoint = Checkpoint {
                backup: Some(backup.clone()),
                fingerprint,
                databases: vec!["neondb".into()],
                ..started()
            };
            let branches =
                Some(BranchList { branches: vec![staging.clone()], ..BranchList::default() });
            let configured_password = Some(Secret::new("x".to_owned()));
            let seen = Seen {
                branches,
                endpoints: Some(vec![reader.clone()]),
                configured_password,
                ..Seen::default()
            };
            let decision = next(&View {
                checkpoint: &checkpoint,
                seen: &seen,
                pair: &pair,
                now: staging.created_at,
            });
            let Decision::Act(Action::Query(query)) = decision else { return None };
            Some((query.purpose, query.branch))
        };
        let rest =
            r#""schema":{},"tables":{},"sequences":{},"skipped":{},"not_checked":{},"bytes":0}"#;
        assert_eq!(
            asked(&format!("{{{rest}")),
            Some((Purpose::Catalogue(Side::Backup), backup.id.clone()))
        );
        // Staging is read at once, which has no endpoint here, when the backup was read by these
        // rules.
        assert_eq!(asked(&format!("{{\"rules\":8,\"is_complete\":true,{rest}")), None);
    }

    #[test]
    fn a_staging_that_was_restored_before_its_backup_begins_has_another_source() {
        let backup_id = BranchId::from("br-back-up-1");
        let staging = branch("br-staging-1", "staging", &backup_id);
        let backup = |lsn: Option<&str>| Backup {
            id: backup_id.clone(),
            name: "backup-20261121".into(),
            lsn: lsn.map(|text| text.parse().expect("a position")),
            made_at: staging.created_at,
            operations: Vec::new(),
            is_ready: true,
            is_verified: true,
            endpoints: None,
        };
        let judged = |at: Option<&str>, begins: Option<&str>| {
            let parent_lsn = at.map(|text| text.parse().expect("a position"));
            let check = judge_source(&Branch { parent_lsn, ..staging.clone() }, &backup(begins));
            (check.outcome, check.is_objection(), is_mismatch(&check), check.is_worth_telling())
        };
        let good = (CheckOutcome::Passed, false, false, false);
        assert_eq!(judged(Some("0/2000"), Some("0/2000")), good);
        assert_eq!(judged(Some("1/0"), Some("0/2000")), good, "positions are compared as numbers");
        assert_eq!(
            judged(Some("0/1FFF"), Some("0/2000")),
            (CheckOutcome::Failed, true, true, true)
        );
        assert_eq!(judged(None, Some("0/2000")), (CheckOutcome::NotChecked, false, false, false));
    }
}
