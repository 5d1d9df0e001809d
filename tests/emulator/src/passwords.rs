//! Passwords, roles and databases: what the compute is told, and what the control plane learns of
//! it.
//!
//! Source: neondatabase/neon `compute_tools` and `pgxn/neon/control_plane_connector.c`, read
//! 2026-11-21: the compute sends what SQL has changed to the control plane, as part of the commit.

use anyhow::{Context as _, Result};

use crate::model::{Database, Role};
use crate::postgres::{ADMIN, Installation};
use crate::scram;
use crate::server::{State, lock};

/// Tells the compute of a branch the passwords that it does not know.
pub(crate) async fn tell_passwords(state: &State, branch: &str) -> Result<()> {
    let (untold, writer) = {
        let model = lock(&state.model);
        (model.untold(branch), model.writer_of(branch).map(|endpoint| endpoint.id.clone()))
    };
    if untold.is_empty() {
        return Ok(());
    }
    let (port, installation) = {
        let store = state.data.lock().await;
        let Some(compute) = writer.and_then(|id| store.compute(&id)) else { return Ok(()) };
        (compute.server.port, store.installation.clone())
    };
    let mut admin = installation.admin(port, "postgres").await?;
    for (role, password) in &untold {
        let sql = format!("alter role {} password {}", identifier(role), literal(password));
        admin.script(&sql).await.with_context(|| format!("set the password of {role}"))?;
    }
    lock(&state.model).told(branch, &untold);
    Ok(())
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Brings roles and databases that were made with SQL into the model, as Neon's control plane does.
pub(crate) async fn refresh_catalog(state: &State, branch: &str) {
    let writer = lock(&state.model).writer_of(branch).map(|endpoint| endpoint.id.clone());
    let (port, installation) = {
        let store = state.data.lock().await;
        let Some(compute) = writer.and_then(|id| store.compute(&id)) else { return };
        (compute.server.port, store.installation.clone())
    };
    if let Err(error) = learn(state, branch, port, &installation, &[]).await {
        eprintln!("neon-emulator: roles and databases of {branch} could not be read: {error:#}");
    }
}

/// Reads roles and databases, and finds out which of the texts became whose password.
pub(crate) async fn learn(
    state: &State,
    branch: &str,
    port: u16,
    installation: &Installation,
    texts: &[String],
) -> Result<()> {
    let mut admin = installation.admin(port, "postgres").await?;
    let roles = admin
        .query(
            "select rolname, rolpassword from pg_authid where rolcanlogin and rolname <> $1 \
                and rolname !~ '^pg_' order by oid",
            &[Some(ADMIN.to_owned())],
        )
        .await?;
    let databases = admin
        .query(
            "select datname, pg_get_userbyid(datdba) from pg_database where not \
                datistemplate and datname <> 'postgres' order by oid",
            &[],
        )
        .await?;
    let at = state.now();
    let mut model = lock(&state.model);
    let mut present = Vec::new();
    for row in roles.rows {
        let [Some(name), verifier] = row.as_slice() else { continue };
        present.push(name.clone());
        let new = verifier
            .as_ref()
            .and_then(|verifier| texts.iter().find(|text| scram::is_password(verifier, text)));
        let Some(found) = model.branch_mut(branch) else { return Ok(()) };
        if !found.roles.iter().any(|role| role.name == *name) {
            let (in_data, at_first) = (new.cloned(), new.cloned());
            found.roles.push(Role {
                name: name.clone(),
                password: new.cloned(),
                in_data,
                at_first,
                created_at: at,
            });
        } else if let Some(text) = new {
            model.password_changed(branch, name, Some(text), at);
        }
    }
    let Some(found) = model.branch_mut(branch) else { return Ok(()) };
    found.roles.retain(|role| present.contains(&role.name));
    let mut listed = Vec::new();
    for row in databases.rows {
        let [Some(name), Some(owner)] = row.as_slice() else { continue };
        let known = found.databases.iter().find(|database| database.name == *name).cloned();
        let id = 2_000 + u64::try_from(listed.len()).unwrap_or(0);
        listed.push(known.unwrap_or(Database {
            id,
            name: name.clone(),
            owner: owner.clone(),
            created_at: at,
        }));
    }
    found.databases = listed;
    Ok(())
}
