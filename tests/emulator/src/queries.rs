//! Runs SQL on real computes: the queries of clients, and the script that production begins with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::client::Client;
use crate::computes::{start, wake};
use crate::passwords::learn;
use crate::server::{State, lock};
use crate::sql::{self, Answer};
use crate::wire::Connection;

/// Answers `POST /sql`; nothing that is not running yet is begun for a client that is gone.
pub(crate) async fn query(
    state: &Arc<State>,
    headers: &BTreeMap<String, String>,
    body: &str,
    mut client: Client,
) -> Answer {
    let header = |name: &str| headers.get(name).cloned();
    let options = match sql::Options::new(&header) {
        Ok(options) => options,
        Err(answer) => return answer,
    };
    let mut target = match sql::target(headers.get("neon-connection-string").map(String::as_str)) {
        Ok(target) => target,
        Err(answer) => return answer,
    };
    let kept_out = sql::kept_out(&lock(&state.model), &target.endpoint);
    if let Some(answer) = kept_out {
        return answer;
    }
    let began = Instant::now();
    if let Err(answer) = wake(state, &target.endpoint).await {
        return answer;
    }
    if client.is_gone() {
        return sql::error(500, "the client went away");
    }
    let waking = began.elapsed();
    let (port, installation) = {
        let mut store = state.data.lock().await;
        let Some(port) = store.touch(&target.endpoint) else {
            return sql::error(500, "Control plane request failed");
        };
        (port, store.installation.clone())
    };
    let admitted = {
        let model = lock(&state.model);
        model
            .endpoint(&target.endpoint)
            .map(|endpoint| model.admits(endpoint, &target.role, &target.password, state.now()))
    };
    let Some(Some(password)) = admitted else { return sql::wrong_password(&target.role) };
    if target.is_untriggered && lock(&state.model).switches.sql_passes_options {
        // Neon's own setting is a placeholder here; PostgreSQL's does what it does, from 17 on.
        let own = if installation.major >= 17 { " -c event_triggers=off" } else { "" };
        target.parameters.push(("options".to_owned(), format!("-c neon.event_triggers=off{own}")));
    }
    let connected =
        Connection::connect(port, &target.role, &password, &target.database, &target.parameters)
            .await;
    let mut connection = match connected {
        Ok(connection) => connection,
        Err(failure) => return sql::postgres_error(&failure, true),
    };
    let answer = Answer { waking, ..client.hears(&mut connection, body, &options).await };
    // A role or a database may have been made or changed; the control plane learns of it, whoever
    // hears the answer.
    let lower = body.to_ascii_lowercase();
    if ["role", "user", "database", "password"].iter().any(|word| lower.contains(word))
        && !options.is_read_only()
    {
        let branch = lock(&state.model)
            .endpoint(&target.endpoint)
            .filter(|endpoint| endpoint.is_read_write)
            .map(|endpoint| endpoint.branch.clone());
        if let Some(branch) = branch {
            let _ = learn(state, &branch, port, &installation, &sql::literals(body)).await;
        }
    }
    answer
}

/// Runs a script on production as its owner, before anything is served.
pub(crate) async fn seed(state: &State, branch: &str, script: &str) -> Result<()> {
    let (endpoint, password) = {
        let model = lock(&state.model);
        let found = model.branch(branch).context("find the branch")?;
        let role = found
            .roles
            .first()
            .and_then(|role| role.password.clone())
            .context("find the owner's password")?;
        (
            model
                .writer_of(branch)
                .map(|endpoint| endpoint.id.clone())
                .context("find the endpoint")?,
            role,
        )
    };
    start(state, &endpoint).await?;
    let (port, installation) = {
        let store = state.data.lock().await;
        (
            store.compute(&endpoint).context("find the compute")?.server.port,
            store.installation.clone(),
        )
    };
    let mut owner = Connection::connect(port, "neondb_owner", &password, "neondb", &[])
        .await
        .context("log in to seed")?;
    owner.script(script).await.context("run the seed")?;
    learn(state, branch, port, &installation, &sql::literals_of_sql(script)).await
}
