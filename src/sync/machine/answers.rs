//! What the answer to a query means for the run.

use std::time::Duration;

use super::apply::{end, retry};
use super::{
    Answer, Purpose, Query, RoleSight, Run, closed, compute, contents, login, passwords, prepare,
    probing, snapshot,
};
use crate::config::Pair;
use crate::neon::sql::{Rows, SqlError};
use crate::sync::checkpoint::{RunStatus, Side};
use crate::sync::retry::{RUN_FAILED, wait_after};
use crate::sync::step::Step;
use crate::time::{Timestamp, after};
use crate::verify::{Check, CheckKind, CheckOutcome, role_facts};

/// Attempts to give a role its password back, when the error is not one that passes.
const ATTEMPTS_TO_GIVE: u32 = 3;

/// Looks at what differs, by every tick of a run: six of them look into a database.
const LOOKS: u32 = 60;

/// Attempts to find out what differs: that something does is known by then.
const LOOKS_INTO_DIFFERENCES: u32 = 3;

/// Takes up the rows of a query; `None` when they make no sense.
pub(super) fn queried(
    run: &mut Run,
    query: &Query,
    rows: &[Rows],
    pair: &Pair,
    now: Timestamp,
) -> Option<()> {
    match &query.purpose {
        Purpose::SeesAllRows => {
            let facts = role_facts(rows)?;
            let sight = if facts.sees_all_rows { RoleSight::All } else { RoleSight::Filtered };
            run.seen.sees_all_rows = Some(facts.login_triggers.map_or(sight, RoleSight::Watched));
        }
        Purpose::Catalogue(side) => {
            contents::take_catalogue(run, *side, &query.database, rows, pair)?;
            if *side == Side::Staging {
                has_logged_in(run, query);
            }
        }
        Purpose::AfterRestore => {
            prepare::was_run(run, &query.database, pair.verification.after_restore.as_ref());
        }
        Purpose::Tenants => {
            prepare::take_tenants(run, query, Ok(rows), pair.verification.tenants.as_ref())?;
        }
        Purpose::Probes(side, chosen) => probing::take(run, *side, &query.database, chosen, rows)?,
        // Content is asked for by `Action::Read` alone.
        Purpose::Content(..) => return None,
        Purpose::Groups(_)
        | Purpose::Items(_)
        | Purpose::Parts(..)
        | Purpose::Rows(..)
        | Purpose::Keys(..) => {
            let looked = run.seen.looked.entry(query.database.clone()).or_default();
            looked.take(&query.purpose, rows)?;
            // What a tick has seen is forgotten with it; ticks that never see all of it must not go
            // on for ever.
            run.checkpoint.looks += 1;
            if run.checkpoint.looks >= LOOKS {
                looked.failure = Some(format!("it was looked {LOOKS} times"));
            }
        }
        Purpose::GivePassword(displaced) => {
            let old = run.seen.passwords.get(&(displaced.clone(), query.role.clone())).cloned()?;
            run.seen.passwords.insert((query.branch.clone(), query.role.clone()), old);
            run.checkpoint.passwords.kept.push(query.role.clone());
            run.checkpoint.passwords.changed_at = Some(now);
            let_in(run, query);
        }
        Purpose::Doors => {
            run.seen.doors = Some(passwords::decode_doors(rows)?);
            compute::answered(run, rows.get(1)?)?;
        }
        Purpose::LogIn => {
            run.checkpoint.passwords.logged_in.push(query.role.clone());
            let_in(run, query);
        }
    }
    Some(())
}

/// Staging was read by a role that kept its password.
fn has_logged_in(run: &mut Run, query: &Query) {
    let passwords = &mut run.checkpoint.passwords;
    if passwords.kept.contains(&query.role) && !passwords.logged_in.contains(&query.role) {
        passwords.logged_in.push(query.role.clone());
    }
}

/// A role of staging's has logged in: the next one begins with short waits.
fn let_in(run: &mut Run, query: &Query) {
    run.seen.refused.remove(&query.role);
    run.checkpoint.idle_tick_count = 0;
    run.checkpoint.attempt = 1;
}

/// Takes up pieces of content, all of one side and database.
pub(super) fn read(
    run: &mut Run,
    queries: &[Query],
    answers: Vec<Answer>,
    pair: &Pair,
    now: Timestamp,
) {
    /// What is worth a save by itself: somebody waits for it as long again when the tick is killed.
    const WORTH_A_SAVE: Duration = Duration::from_secs(5);
    let mut found = Vec::new();
    let mut of = None;
    for (query, answer) in queries.iter().zip(answers) {
        let Purpose::Content(side, piece) = &query.purpose else { continue };
        of = Some((*side, &query.database));
        run.wants_save |= answer.1 >= WORTH_A_SAVE;
        found.push((piece, answer));
    }
    let Some((side, database)) = of else { return };
    if let (Some(error), Some(query)) =
        (contents::take_pieces(run, side, database, found, pair), queries.first())
    {
        query_failed(run, query, &error, pair, now);
    }
}

/// A question beside the content was refused: returns whether it is worth another attempt; `None`
/// when it is about the content.
fn beside_the_content(run: &mut Run, query: &Query, error: &SqlError, pair: &Pair) -> Option<bool> {
    let settings = &pair.verification;
    if let Purpose::Probes(side, chosen) = &query.purpose {
        return Some(probing::failed(run, *side, &query.database, chosen, error, pair));
    }
    if query.purpose == Purpose::AfterRestore {
        return Some(prepare::was_refused(run, &query.database, error));
    }
    (query.purpose == Purpose::Tenants)
        .then(|| prepare::could_not_look(run, query, error, settings.tenants.as_ref()))
}

/// Returns the side whose database may let nobody in, or have a catalogue that cannot be read.
fn side_of(purpose: &Purpose, error: &SqlError) -> Option<Side> {
    match purpose {
        Purpose::SeesAllRows => Some(Side::Production),
        Purpose::Catalogue(side) => Some(*side),
        // What was refused in a session is about a table.
        Purpose::Content(side, _) => (!error.may_be_about_an_object()).then_some(*side),
        Purpose::Groups(_)
        | Purpose::Items(_)
        | Purpose::Parts(..)
        | Purpose::Rows(..)
        | Purpose::Keys(..)
        | Purpose::Probes(..)
        | Purpose::AfterRestore
        | Purpose::Tenants
        | Purpose::Doors
        | Purpose::GivePassword(_)
        | Purpose::LogIn => None,
    }
    .filter(|side| *side != Side::Snapshot)
}

pub(super) fn query_failed(
    run: &mut Run,
    query: &Query,
    error: &SqlError,
    pair: &Pair,
    now: Timestamp,
) {
    if login::is_refused(run, query, error, pair) {
        return;
    }
    if !query.batch.is_read_only {
        // Another compute may have answered, or will: the next attempt asks.
        run.seen.compute = None;
    }
    if login::may_be_remembered(run, query, error, pair, now) && run.checkpoint.may_try_again(now) {
        if run.checkpoint.attempt > 1 {
            // Neon may tell another password by then, where the reply to a change was lost.
            run.seen.passwords.remove(&(query.branch.clone(), query.role.clone()));
        }
        run.seen.refused.insert(query.role.clone());
        // It is no error yet, and is not told as one.
        run.checkpoint.not_before = Some(after(now, wait_after(run.checkpoint.attempt, None)));
        run.checkpoint.attempt += 1;
        return;
    }
    // The endpoint may be gone: the next attempt looks, and makes another.
    run.seen.endpoints = None;
    if let Some(is_worth_another) = beside_the_content(run, query, error, pair) {
        if is_worth_another {
            retry(run, &error.to_string(), None, now);
        }
        return;
    }
    if let Some(side) = side_of(&query.purpose, error)
        && let Some(is_worth_another) = closed::refused(run, side, query, error, pair)
    {
        if is_worth_another {
            retry(run, &error.to_string(), None, now);
        }
        return;
    }
    if snapshot::is_under_way(run) {
        return snapshot::query_failed(run, error, now);
    }
    let attempt = run.checkpoint.attempt;
    let mut is_worth_another = error.is_passing() && run.checkpoint.may_try_again(now);
    if let Purpose::GivePassword(_) = query.purpose {
        // The reply may have been lost after the password was changed: ask Neon again before
        // logging in with it.
        run.seen.passwords.remove(&(query.branch.clone(), query.role.clone()));
        is_worth_another |= attempt < ATTEMPTS_TO_GIVE;
    }
    is_worth_another |= query.purpose == Purpose::Doors && attempt < ATTEMPTS_TO_GIVE;
    let is_look = matches!(
        query.purpose,
        Purpose::Groups(_)
            | Purpose::Items(_)
            | Purpose::Parts(..)
            | Purpose::Rows(..)
            | Purpose::Keys(..)
    );
    if is_worth_another && !(is_look && attempt >= LOOKS_INTO_DIFFERENCES) {
        retry(run, &error.to_string(), None, now);
        return;
    }
    give_up(run, query, error, pair, now);
}

/// A question is not asked again: says what that means for the run.
fn give_up(run: &mut Run, query: &Query, error: &SqlError, pair: &Pair, now: Timestamp) {
    match &query.purpose {
        // That it differs is known; what differs would have been good to know.
        Purpose::Groups(_)
        | Purpose::Items(_)
        | Purpose::Parts(..)
        | Purpose::Rows(..)
        | Purpose::Keys(..) => {
            run.seen.looked.entry(query.database.clone()).or_default().failure =
                Some(error.to_string());
        }
        Purpose::SeesAllRows
            if is_about_the_network(error)
                && let Some(rule) = keeps_everybody_out(run, error) =>
        {
            let text = format!(
                "production: {rule}, and Neon does not let us in, because a Worker has no fixed \
                 address: {error}; let the rule hold for protected branches alone and protect \
                 production, or set sql_url to a proxy whose address is on the list"
            );
            end(run, RunStatus::Failed, text, RUN_FAILED);
        }
        Purpose::SeesAllRows if is_about_the_network(error) => {
            run.checkpoint.warn(format!(
                "production could not be asked whether {} sees every row: {error}",
                pair.role
            ));
            run.seen.sees_all_rows = Some(RoleSight::Unknown);
        }
        // Staging is compared all the same; whoever cannot be asked then says so.
        Purpose::Doors if run.checkpoint.step == Step::Restore => {
            run.checkpoint
                .warn(format!("the passwords of staging's roles were not given back: {error}"));
            run.checkpoint.passwords.is_done = true;
        }
        Purpose::GivePassword(_) => {
            run.checkpoint.passwords.not_kept.push((query.role.clone(), error.to_string()));
        }
        Purpose::LogIn => {
            run.checkpoint.passwords.logged_in.push(query.role.clone());
            let check = Check::of_pair(
                CheckKind::LogIn,
                query.role.as_str(),
                CheckOutcome::Failed,
                error.to_string(),
            );
            run.checkpoint.checks.push(check);
        }
        Purpose::SeesAllRows
        | Purpose::Doors
        | Purpose::Catalogue(_)
        | Purpose::Content(..)
        | Purpose::Probes(..)
        | Purpose::AfterRestore
        | Purpose::Tenants => {
            run.checkpoint.record_error(error.to_string(), now);
            let text = format!("{error} (as role {} on {})", query.role, query.branch);
            end(run, RunStatus::Failed, text, RUN_FAILED);
        }
    }
}

/// Returns the rule of the project that keeps us out of every branch: the backup could not be asked
/// either.
fn keeps_everybody_out(run: &Run, error: &SqlError) -> Option<String> {
    let settings = run.seen.project.as_ref()?.settings.as_ref()?;
    matches!(error, SqlError::Answered { .. }).then_some(())?;
    if settings.block_public_connections {
        return Some("the project blocks public connections".to_owned());
    }
    let list = settings
        .allowed_ips
        .as_ref()
        .filter(|list| !list.ips.is_empty() && !list.protected_branches_only)?;
    Some(format!("IP Allow of the project has {} addresses for every branch", list.ips.len()))
}

/// Returns whether the proxy would not let us in, whoever we are.
///
/// Source: neondatabase/neon `proxy`, read 2026-11-21: "This IP address … is not allowed to connect
/// to this endpoint", "…from a blocked network".
fn is_about_the_network(error: &SqlError) -> bool {
    match error {
        SqlError::Answered { message, .. } => {
            message.contains("not allowed to connect") || message.contains("blocked network")
        }
        SqlError::NoReply { .. } | SqlError::Undecodable { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_is_to_blame_where_nobody_would_be_let_in() {
        let answered = |message: &str| {
            is_about_the_network(&SqlError::Answered {
                database: "x".into(),
                status: 400,
                sqlstate: String::new(),
                message: message.into(),
            })
        };
        assert!(answered("This IP address 203.0.113.7 is not allowed to connect to this endpoint"));
        assert!(answered(
            "This connection is trying to access this endpoint from a blocked network."
        ));
        assert!(!answered("password authentication failed for user \"app\""));
    }
}
