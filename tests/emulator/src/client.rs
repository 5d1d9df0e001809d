//! Who waits for the answer to a query, and what happens where nobody does any more.
//!
//! In: a request of SQL. Out: its answer, for whoever hears it.
//!
//! Invariants: a query has a task of its own, which ends with the query and not with the connection
//! of the client. So what the compute has committed is known to the control plane, whether or not
//! somebody hears of it.
//!
//! Source: neondatabase/neon `proxy/src/serverless`, read 2026-11-21: a client that disconnects
//! cancels its query, with a `CancelRequest` to the compute. `control_plane_connector.c`: the
//! control plane hears of a password as part of the commit. That a query may go on and commit late
//! is not stated, and cannot be excluded: it is a fault that can be chosen.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::server::State;
use crate::sql::{self, Answer};
use crate::wire::Connection;

/// Who waits for an answer.
pub(crate) enum Client {
    /// Somebody, until this ends; the query is cancelled then.
    Waits(oneshot::Receiver<()>),
    /// Nobody, or somebody whose going away is not noticed: the query is done to its end.
    Unheeded,
}

impl Client {
    /// Returns whether it waits no more.
    pub(crate) fn is_gone(&mut self) -> bool {
        match self {
            Self::Waits(waits) => {
                !matches!(waits.try_recv(), Err(oneshot::error::TryRecvError::Empty))
            }
            Self::Unheeded => false,
        }
    }

    /// Runs a query until it has ended; one whose client goes away is cancelled. It may have
    /// committed by then.
    pub(crate) async fn hears(
        self,
        connection: &mut Connection,
        body: &str,
        options: &sql::Options,
    ) -> Answer {
        let canceller = connection.canceller();
        let running = sql::run(connection, body, options);
        let Self::Waits(waits) = self else { return running.await };
        tokio::pin!(running);
        tokio::select! {
            answer = &mut running => return answer,
            _ = waits => {}
        }
        if let Some(canceller) = canceller
            && let Err(error) = canceller.cancel().await
        {
            eprintln!(
                "neon-emulator: a query whose client went away could not be cancelled: {error}"
            );
        }
        running.await
    }
}

/// Answers a query. Where this future is dropped, its client is gone: the query is cancelled,
/// unless it outlives that.
pub(crate) async fn ask(
    state: &Arc<State>,
    headers: &BTreeMap<String, String>,
    body: &str,
    outlives: bool,
) -> Answer {
    // Dropped with this future, which is how the task hears of it.
    let (_present, waits) = oneshot::channel();
    let client = if outlives { Client::Unheeded } else { Client::Waits(waits) };
    let (state, headers, body) = (Arc::clone(state), headers.clone(), body.to_owned());
    let task =
        tokio::spawn(async move { crate::queries::query(&state, &headers, &body, client).await });
    task.await.unwrap_or_else(|error| {
        eprintln!("neon-emulator: a query ended badly: {error}");
        sql::error(500, "Control plane request failed")
    })
}
