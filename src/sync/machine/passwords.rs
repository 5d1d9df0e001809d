//! Gives staging's roles the passwords they had before the restore.
//!
//! The displaced branch still knows them. Each role changes its own password, logged in with the
//! one that the restore brought, because that needs no privilege over other roles.

use std::collections::BTreeMap;

use super::{
    Action, Conclusion, Decision, Purpose, Query, View, closed, compute, contents, need, writer,
};
use crate::id::{BranchId, DatabaseName, RoleName};
use crate::neon::sql::{Batch, Rows};
use crate::neon::wire::Role;
use crate::ordered;
use crate::sync::checkpoint::Restore;

/// The statement of a password's batch that gets the password as its parameter.
pub const SECRET_AT: usize = compute::BINDING;

/// Decides the next action for the passwords.
pub(super) fn next(view: &View<'_>, restore: &Restore) -> Decision {
    let Some(displaced) = restore.displaced_id.as_ref().filter(|_| view.pair.keep_passwords) else {
        return Decision::Conclude(Conclusion::PasswordsDone);
    };
    let staging = &view.pair.staging_branch;
    let before = need!(view.roles(displaced));
    let present = need!(view.roles(staging));
    let mut roles: Vec<&RoleName> = common(before, present).collect();
    // One whose password the proxy has not heard of yet does not hold up the others.
    ordered::sort_by_key(&mut roles, |role| view.seen.refused.contains(*role));
    for role in roles {
        if view.checkpoint.passwords.kept.contains(role) || is_given_up(view, role) {
            continue;
        }
        let door = need!(door(view, role));
        if let Err(reason) = &door
            && !is_locked_out(view, role)
        {
            return Decision::Conclude(Conclusion::LockedOut(role.clone(), reason.clone()));
        }
        let had = need!(known(view, displaced, role));
        let has = need!(known(view, staging, role));
        let settled = |result: Result<(), String>| {
            Decision::Conclude(Conclusion::PasswordSettled(role.clone(), result))
        };
        // Settled one by one: the next tick need not ask again.
        return match (had, has, door) {
            (Some(had), Some(has), _) if had == has => settled(Ok(())),
            (Some(_), Some(_), Ok(database)) => give(view, displaced, role, database),
            (Some(_), Some(_), Err(reason)) => settled(Err(format!("it may not log in: {reason}"))),
            _ => settled(Err("Neon does not tell its password".to_owned())),
        };
    }
    Decision::Conclude(Conclusion::PasswordsDone)
}

/// Returns the database in which a role is tried, or why it may not log in.
///
/// The verifying role needs no look: it reads every database that is compared.
pub(super) fn door(
    view: &View<'_>,
    role: &RoleName,
) -> Result<Result<DatabaseName, String>, Decision> {
    let compared = &view.checkpoint.databases;
    let first_open = closed::first_open(view);
    if let Some(first) = first_open.filter(|_| *role == view.pair.role) {
        return Ok(Ok(first.clone()));
    }
    let Some(doors) = &view.seen.doors else {
        let Some(first) = first_open else { return Ok(Err("no database is compared".to_owned())) };
        return Err(contents::query(
            view,
            &view.pair.staging_branch,
            first,
            Purpose::Doors,
            doors_batch(),
        ));
    };
    Ok(match doors.get(role) {
        None => Err("PostgreSQL does not know it".to_owned()),
        Some(Err(reason)) => Err(reason.clone()),
        Some(Ok(open)) => {
            let found = compared.iter().find(|database| open.contains(database)).or(open.first());
            found.cloned().ok_or_else(|| "no database lets it connect".to_owned())
        }
    })
}

/// The databases that let a role connect, or why it may not log in, by role.
pub(super) type Doors = BTreeMap<RoleName, Result<Vec<DatabaseName>, String>>;

/// Asks which roles may log in, and where, and which compute answers. What would refuse a role for
/// ever is told here at once; a refusal would not say for how long.
pub(super) fn doors_batch() -> Batch {
    let statements = [DOORS, compute::WHICH].map(|sql| (sql.to_owned(), Vec::new()));
    Batch { statements: statements.to_vec(), is_read_only: true }
}

const DOORS: &str = "select r.rolname::text, \
    case when not r.rolcanlogin then 'NOLOGIN' when r.rolvaliduntil <= now() then 'its password \
    has ended: VALID UNTIL ' || r.rolvaliduntil::text \
    when r.rolconnlimit = 0 and not r.rolsuper then 'CONNECTION LIMIT 0' end, \
    (select json_agg(d.datname order by d.datname)::text from pg_catalog.pg_database d \
    where d.datallowconn and d.datconnlimit <> 0 and has_database_privilege(r.oid, d.oid, \
    'connect')) \
    from pg_catalog.pg_roles r where r.rolname !~ '^pg_'";

/// Reads which roles may log in; `None` when the answer makes no sense.
pub(super) fn decode_doors(results: &[Rows]) -> Option<Doors> {
    let mut doors = Doors::new();
    for row in &results.first()?.rows {
        let [Some(role), reason, databases] = row.as_slice() else { return None };
        let open: Vec<String> = databases
            .as_deref()
            .map_or(Some(Vec::new()), |text| serde_json::from_str(text).ok())?;
        let open = open.iter().map(|name| DatabaseName::from(name.as_str())).collect();
        doors.insert(role.as_str().into(), reason.clone().map_or(Ok(open), Err));
    }
    Some(doors)
}

fn is_locked_out(view: &View<'_>, role: &RoleName) -> bool {
    view.checkpoint.passwords.locked_out.iter().any(|(name, _)| name == role)
}

/// Returns the roles with a password that both sides have.
fn common<'a>(before: &'a [Role], present: &'a [Role]) -> impl Iterator<Item = &'a RoleName> {
    before
        .iter()
        .filter(|role| {
            role.has_password()
                && present.iter().any(|other| other.name == role.name && other.has_password())
        })
        .map(|role| &role.name)
}

fn is_given_up(view: &View<'_>, role: &RoleName) -> bool {
    view.checkpoint.passwords.not_kept.iter().any(|(name, _)| name == role)
}

/// Returns a password as Neon tells it; `None` when it tells none.
fn known<'a>(
    view: &'a View<'_>,
    branch: &BranchId,
    role: &RoleName,
) -> Result<Option<&'a str>, Decision> {
    match view.seen.passwords.get(&(branch.clone(), role.clone())) {
        Some(password) => Ok(password.as_ref().map(crate::id::Secret::reveal)),
        None => Err(super::act(crate::neon::Call::RevealPassword(branch.clone(), role.clone()))),
    }
}

/// The role sets its own password.
///
/// The password travels as a parameter and is put into the statement by the server, so that it
/// stands in no logged statement.
fn give(
    view: &View<'_>,
    displaced: &BranchId,
    role: &RoleName,
    database: DatabaseName,
) -> Decision {
    let endpoints = need!(view.endpoints());
    let staging = &view.pair.staging_branch;
    let Some(endpoint) = writer(endpoints, staging) else {
        return Decision::Conclude(Conclusion::PasswordsDone);
    };
    let compute = need!(compute::of_staging(view, &database));
    let statements = vec![
        ("select length(set_config('firstlight.password', $1, true)) > 0".to_owned(), Vec::new()),
        (
            "do $$ begin execute pg_catalog.format('alter role current_user password %L', \
                pg_catalog.current_setting('firstlight.password')); end $$"
                .to_owned(),
            Vec::new(),
        ),
    ];
    Decision::Act(Action::Query(Box::new(Query {
        purpose: Purpose::GivePassword(displaced.clone()),
        branch: staging.clone(),
        password_of: staging.clone(),
        host: endpoint.host.clone(),
        database,
        role: role.clone(),
        batch: compute::bind(compute, Batch { statements, is_read_only: false }),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_whose_password_is_looked_after_logs_in_with_one_on_both_sides() {
        let role = |name: &str, method: Option<&str>| Role {
            name: name.into(),
            authentication_method: method.map(str::to_owned),
        };
        let password = Some("password");
        let before = [
            role("app", password),
            role("plain", None),
            role("gone", password),
            role("oauth", Some("oauth")),
            role("was", password),
        ];
        let present = [
            role("app", password),
            role("plain", None),
            role("new", password),
            role("oauth", password),
            role("was", Some("oauth")),
        ];
        let names: Vec<&str> = common(&before, &present).map(RoleName::as_str).collect();
        assert_eq!(names, ["app", "plain"]);
    }
}
