//! Gives staging's roles the passwords they had before the restore.
//!
//! The displaced branch still knows them. Each role changes its own password, logged in with the one that the restore brought, because
//! that needs no privilege over other roles.

use super::{Action, Conclusion, Decision, Purpose, Query, View, need, writer};
use crate::id::{BranchId, RoleName};
use crate::neon::sql::Batch;
use crate::neon::wire::Role;
use crate::sync::checkpoint::Restore;

/// Decides the next action for the passwords.
pub(super) fn next(view: &View<'_>, restore: &Restore) -> Decision {
    let Some(displaced) = restore.displaced_id.as_ref().filter(|_| view.pair.keep_passwords) else {
        return Decision::Conclude(Conclusion::PasswordsDone);
    };
    let staging = &view.pair.staging_branch;
    let before = need!(view.roles(displaced));
    let present = need!(view.roles(staging));
    for role in common(before, present) {
        if view.checkpoint.passwords.kept.contains(role) || is_given_up(view, role) {
            continue;
        }
        let had = need!(known(view, displaced, role));
        let has = need!(known(view, staging, role));
        // Settled one by one: the next tick need not ask again.
        return match (had, has) {
            (Some(had), Some(has)) if had != has => give(view, displaced, role),
            (Some(_), Some(_)) => Decision::Conclude(Conclusion::PasswordSettled(role.clone(), true)),
            _ => Decision::Conclude(Conclusion::PasswordSettled(role.clone(), false)),
        };
    }
    Decision::Conclude(Conclusion::PasswordsDone)
}

/// Returns the roles with a password that both sides have.
fn common<'a>(before: &'a [Role], present: &'a [Role]) -> impl Iterator<Item = &'a RoleName> {
    before
        .iter()
        .filter(|role| role.has_password() && present.iter().any(|other| other.name == role.name && other.has_password()))
        .map(|role| &role.name)
}

fn is_given_up(view: &View<'_>, role: &RoleName) -> bool {
    view.checkpoint.passwords.not_kept.iter().any(|(name, _)| name == role)
}

/// Returns a password as Neon tells it; `None` when it tells none.
fn known<'a>(view: &'a View<'_>, branch: &BranchId, role: &RoleName) -> Result<Option<&'a str>, Decision> {
    match view.seen.passwords.get(&(branch.clone(), role.clone())) {
        Some(password) => Ok(password.as_ref().map(crate::id::Secret::reveal)),
        None => Err(super::act(crate::neon::Call::RevealPassword(branch.clone(), role.clone()))),
    }
}

/// The role sets its own password.
///
/// The password travels as a parameter and is put into the statement by the server, so that it stands in no logged statement.
fn give(view: &View<'_>, displaced: &BranchId, role: &RoleName) -> Decision {
    let endpoints = need!(view.endpoints());
    let staging = &view.pair.staging_branch;
    let Some(endpoint) = writer(endpoints, staging) else { return Decision::Conclude(Conclusion::PasswordsDone) };
    let Some(database) = view.checkpoint.databases.first() else { return Decision::Conclude(Conclusion::PasswordsDone) };
    let statements = vec![
        ("select length(set_config('firstlight.password', $1, true)) > 0".to_owned(), Vec::new()),
        (
            "do $$ begin execute pg_catalog.format('alter role current_user password %L', pg_catalog.current_setting('firstlight.password')); end $$"
                .to_owned(),
            Vec::new(),
        ),
    ];
    Decision::Act(Action::Query(Box::new(Query {
        purpose: Purpose::GivePassword(displaced.clone()),
        branch: staging.clone(),
        host: endpoint.host.clone(),
        database: database.clone(),
        role: role.clone(),
        batch: Batch { statements, is_read_only: false },
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_whose_password_is_looked_after_logs_in_with_one_on_both_sides() {
        let role = |name: &str, method: Option<&str>| Role { name: name.into(), authentication_method: method.map(str::to_owned) };
        let password = Some("password");
        let before =
            [role("app", password), role("plain", None), role("gone", password), role("oauth", Some("oauth")), role("was", password)];
        let present =
            [role("app", password), role("plain", None), role("new", password), role("oauth", password), role("was", Some("oauth"))];
        let names: Vec<&str> = common(&before, &present).map(RoleName::as_str).collect();
        assert_eq!(names, ["app", "plain"]);
    }
}
