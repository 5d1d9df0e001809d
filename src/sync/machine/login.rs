//! How a helper branch lets us in: whose password, and at which endpoint.
//!
//! In: a branch that we made, and how often it has refused us. Out: the branch whose password is
//! used and the endpoint that is asked.
//!
//! Invariants: a helper branch is never given up at the first refusal. It is asked with its own
//! password, then with production's, from which its data came. Then a read-write endpoint is made
//! for it, because a read-only compute cannot take a password that its data does not
//! hold. Production and staging have their own password only, and nothing is made on them.
//!
//! Failure: a refusal on staging shortly after its restore, or after a role got its password back,
//! is no verdict: Neon's proxy may still have the password from before.
//!
//! Source: Neon guides, protected branches: "branches created from a protected branch get new
//! passwords". neondatabase/neon `proxy/src/config.rs`, read 2026-11-21: the cache of secrets has
//! "ttl=4m". Unverified: which password a read-only compute of such a branch takes.

use std::time::Duration;

use super::{Decision, Query, Run, View, act, fail, reader, writer};
use crate::config::Pair;
use crate::id::{BranchId, RoleName, Secret};
use crate::neon::sql::SqlError;
use crate::neon::wire::Endpoint;
use crate::neon::{Call, EndpointKind};
use crate::sync::checkpoint::Checkpoint;
use crate::time::{Timestamp, after};

/// How long a wrong password on staging may be one that the proxy remembers: its 4 minutes, and one
/// more.
const REMEMBERED_FOR: Duration = Duration::from_mins(5);

/// How a branch is entered.
pub(super) struct Way<'a> {
    /// The branch whose password is used.
    pub(super) password_of: BranchId,
    /// Where the branch is asked.
    pub(super) endpoint: &'a Endpoint,
}

/// Returns the branch that the data of a helper branch came from; `None` for every other branch.
fn source<'a>(
    checkpoint: &'a Checkpoint,
    pair: &'a Pair,
    branch: &BranchId,
) -> Option<&'a BranchId> {
    let backup = checkpoint.backup.as_ref().map(|backup| &backup.id);
    if backup == Some(branch) {
        return Some(&pair.production_branch);
    }
    let test = checkpoint.prune.snapshot.as_ref().and_then(|work| work.test.id.as_ref());
    (test == Some(branch)).then_some(&pair.production_branch)
}

/// Returns a branch, and the one that its data came from.
fn line<'a>(checkpoint: &'a Checkpoint, pair: &'a Pair, branch: &'a BranchId) -> Vec<&'a BranchId> {
    std::iter::once(branch).chain(source(checkpoint, pair, branch)).collect()
}

fn refusals(checkpoint: &Checkpoint, branch: &BranchId) -> usize {
    checkpoint
        .refused_logins
        .get(branch)
        .map_or(0, |count| usize::try_from(*count).unwrap_or(usize::MAX))
}

/// Returns the way into a branch for a role, or what has to be done before it can be gone.
pub(super) fn way<'a>(
    view: &View<'a>,
    role: &RoleName,
    branch: &BranchId,
) -> Result<Way<'a>, Decision> {
    let is_helper = source(view.checkpoint, view.pair, branch).is_some();
    let line = line(view.checkpoint, view.pair, branch);
    let at = refusals(view.checkpoint, branch);
    let Some(password_of) = line.get(at).filter(|_| is_helper || at == 0) else {
        return last_way(view, role, branch);
    };
    if !view.has_password(password_of, role)? {
        if at > 0 {
            return last_way(view, role, branch);
        }
        return Err(fail(format!(
            "log in to {branch} as {role}: Neon has no password to tell and none is configured"
        )));
    }
    let endpoints = view.endpoints()?;
    let is_staging = *branch == view.pair.staging_branch;
    match if is_staging { writer(endpoints, branch) } else { reader(endpoints, branch) } {
        Some(endpoint) => Ok(Way { password_of: (*password_of).clone(), endpoint }),
        None if is_staging => Err(fail(format!(
            "query staging {branch}: it has no enabled read-write endpoint, expected one"
        ))),
        // Nothing is made on production, whatever is asked of it.
        None if *branch == view.pair.production_branch => Err(fail(format!(
            "query production {branch}: it has no enabled endpoint, expected one"
        ))),
        None => Err(make_endpoint(view, branch, view.endpoint_kind())),
    }
}

/// Returns the way through a read-write endpoint: it takes the password that Neon tells of the
/// branch.
fn last_way<'a>(view: &View<'a>, role: &RoleName, branch: &BranchId) -> Result<Way<'a>, Decision> {
    view.tells_password(branch, role)?;
    if !view.has_password(branch, role)? {
        return Err(fail(format!(
            "log in to {branch} as {role}: Neon has no password to tell and none is configured"
        )));
    }
    match writer(view.endpoints()?, branch) {
        Some(endpoint) => Ok(Way { password_of: branch.clone(), endpoint }),
        None => Err(make_endpoint(view, branch, EndpointKind::ReadWrite)),
    }
}

fn make_endpoint(view: &View<'_>, branch: &BranchId, kind: EndpointKind) -> Decision {
    act(Call::CreateEndpoint(branch.clone(), kind, view.pair.endpoint_cu_hundredths))
}

/// Takes up that a branch does not let us in. Returns whether there is another way.
pub(super) fn is_refused(run: &mut Run, query: &Query, error: &SqlError, pair: &Pair) -> bool {
    if !error.is_wrong_password() || source(&run.checkpoint, pair, &query.branch).is_none() {
        return false;
    }
    let line: Vec<BranchId> =
        line(&run.checkpoint, pair, &query.branch).into_iter().cloned().collect();
    let at = refusals(&run.checkpoint, &query.branch);
    if at >= line.len() {
        return false;
    }
    // Several may have been refused at the same time; the first has moved on for all.
    if line[at] != query.password_of {
        return true;
    }
    // A password that was refused is not tried again under another branch's name.
    let told = |branch: &BranchId| run.seen.password(branch, &query.role, &pair.role);
    let is_tried = |password: &Secret| {
        line[..=at].iter().filter_map(told).any(|tried| tried.matches(password.reveal()))
    };
    let next =
        (at + 1..line.len()).find(|index| told(&line[*index]).is_none_or(|next| !is_tried(&next)));
    let count = u32::try_from(next.unwrap_or(line.len())).unwrap_or(u32::MAX);
    run.checkpoint.refused_logins.insert(query.branch.clone(), count);
    true
}

/// Returns whether staging refuses a password that it may accept in a moment.
pub(super) fn may_be_remembered(
    run: &Run,
    query: &Query,
    error: &SqlError,
    pair: &Pair,
    now: Timestamp,
) -> bool {
    let changed_at = run.checkpoint.passwords.changed_at;
    let is_recent = changed_at.is_some_and(|at| now < after(at, REMEMBERED_FOR));
    error.is_wrong_password() && query.branch == pair.staging_branch && is_recent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pair;
    use crate::fixtures::started;
    use crate::id::Lsn;
    use crate::neon::sql::Batch;
    use crate::sync::checkpoint::Backup;
    use crate::sync::machine::{Action, Purpose};

    fn endpoint(id: &str, branch: &BranchId, kind: &str) -> Endpoint {
        let at = "2026-11-21T10:00:00Z".parse().expect("an instant");
        Endpoint {
            id: id.into(),
            branch_id: branch.clone(),
            host: format!("{id}.neon.test"),
            kind: kind.to_owned(),
            disabled: false,
            passwordless_access: true,
            created_at: at,
        }
    }

    /// A run with a backup; each branch has the password of its name, or another.
    fn run(passwords: &[(&str, &str)]) -> Run {
        let backup = BranchId::from("br-backup-1");
        let mut checkpoint = started();
        checkpoint.backup = Some(Backup {
            id: backup.clone(),
            name: "backup-20261121".into(),
            lsn: Some(Lsn(7)),
            made_at: checkpoint.started_at,
            operations: Vec::new(),
            is_ready: true,
            is_verified: false,
            endpoints: None,
        });
        let mut run = Run::new(checkpoint, None);
        run.seen.endpoints = Some(vec![endpoint("ep-b", &backup, "read_only")]);
        for (branch, password) in passwords {
            let key = (BranchId::from(*branch), pair().role);
            run.seen.passwords.insert(key, Some(Secret::new((*password).to_owned())));
        }
        run
    }

    /// Says how a branch is entered, is refused there, and so on until there is no other way.
    fn ways(run: &mut Run, branch: &str) -> Vec<String> {
        let (pair, branch) = (pair(), BranchId::from(branch));
        let mut told = Vec::new();
        for _ in 0..6 {
            let view = View {
                checkpoint: &run.checkpoint,
                seen: &run.seen,
                pair: &pair,
                now: run.checkpoint.started_at,
            };
            let (password_of, host) = match way(&view, &pair.role, &branch) {
                Ok(way) => (way.password_of, way.endpoint.host.clone()),
                Err(Decision::Act(Action::Call(Call::CreateEndpoint(
                    branch,
                    EndpointKind::ReadWrite,
                    _,
                )))) => {
                    told.push("make a writer".to_owned());
                    let writer = endpoint("ep-w", &branch, "read_write");
                    run.seen.endpoints.get_or_insert_default().push(writer);
                    continue;
                }
                Err(other) => panic!("{other:?}"),
            };
            told.push(format!("{password_of} at {host}"));
            let batch = Batch { statements: Vec::new(), is_read_only: true };
            let (database, role) = ("neondb".into(), pair.role.clone());
            let query = Query {
                purpose: Purpose::LogIn,
                branch: branch.clone(),
                password_of,
                host,
                database,
                role,
                batch,
            };
            let wrong = SqlError::Answered {
                database: "neondb".into(),
                status: 400,
                sqlstate: String::new(),
                message: "password authentication failed for user 'neondb_owner'".to_owned(),
            };
            if !is_refused(run, &query, &wrong, &pair) {
                return told;
            }
        }
        told
    }

    #[test]
    fn a_backup_is_entered_with_its_own_password_with_productions_and_through_a_writer() {
        let production = pair().production_branch.to_string();
        let mut run = run(&[("br-backup-1", "new"), (&production, "old")]);
        let expected = [
            "br-backup-1 at ep-b.neon.test".to_owned(),
            format!("{production} at ep-b.neon.test"),
            "make a writer".to_owned(),
            "br-backup-1 at ep-w.neon.test".to_owned(),
        ];
        assert_eq!(ways(&mut run, "br-backup-1"), expected);
    }

    #[test]
    fn a_password_that_was_refused_is_not_tried_again_in_productions_name() {
        let production = pair().production_branch.to_string();
        let mut run = run(&[("br-backup-1", "same"), (&production, "same")]);
        let expected =
            ["br-backup-1 at ep-b.neon.test", "make a writer", "br-backup-1 at ep-w.neon.test"];
        assert_eq!(ways(&mut run, "br-backup-1"), expected);
    }

    #[test]
    fn production_and_staging_are_entered_in_one_way_alone() {
        let (pair, run) = (pair(), run(&[]));
        for branch in [&pair.production_branch, &pair.staging_branch] {
            assert_eq!(source(&run.checkpoint, &pair, branch), None);
            assert_eq!(line(&run.checkpoint, &pair, branch), [branch]);
        }
    }
}
