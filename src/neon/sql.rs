//! SQL over HTTP, as Neon's proxy answers it.
//!
//! In: a [`Batch`] of statements for one database. Out: an [`HttpRequest`], and from its reply rows
//! of texts or a [`SqlError`].
//!
//! Invariants: every batch is one transaction, `RepeatableRead`; a reading batch is read only; all
//! values travel as text, because the proxy misreads empty arrays otherwise.
//!
//! Invariants of what the database may do to us (promise G8); whoever writes SQL for a customer's
//! database keeps them:
//!
//! - Every batch begins with `PRELUDE`, which `encode` adds: names resolve in `pg_catalog` alone,
//!   and no timeout of the database or the role is in force.
//! - Only configured SQL sees the path of the database. What stands around it is built before the
//!   path is widened, and names functions with their schema and no operator at all.
//! - A value becomes text by its type's own output function: `concat(value)`, or
//!   `concat(row(value))` where NULL counts. A cast, also the one that JSON functions look for, may
//!   be a function of the database's.
//! - A batch that writes does nothing where another compute answers than the one that it was meant
//!   for, because it may arrive an hour late (`sync::machine::compute`).
//! - Nothing that a database contains says what we did, unless only we can have made it in this
//!   run.
//!
//! What these rules do not cover: a statement that reads a table makes the planner call what an
//! index of it calls with constants alone.
//!
//! Source: neondatabase/neon `proxy/src/serverless/sql_over_http.rs`, read 2026-11-21.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{DatabaseName, RoleName, Secret};
use crate::neon::message::{is_quota, of_postgres, state_of};
use crate::neon::percent_encode;
use crate::port::{HttpFailure, HttpRequest, HttpResponse, Method};

/// How long a batch may take. The statements in it have their own, shorter limit.
const BATCH_TIMEOUT: Duration = Duration::from_secs(130);

/// Seconds that one statement may take: eight times what a piece is to take, and two of them stay
/// inside the five minutes of a cron interval.
pub const STATEMENT_TIMEOUT_S: u32 = 120;

/// The first statement of every batch: what this transaction does not leave to the database.
///
/// It resolves nothing but `pg_catalog.set_config` and `pg_catalog.current_setting`. A setting that
/// the server does not have is left out: `transaction_timeout` is of PostgreSQL 17. Two seconds for
/// a lock: a reader behind a migration must not queue the application.
///
/// A contract test holds the timeouts against `pg_settings`.
const PRELUDE: &str = "select pg_catalog.set_config(s.name, s.value, true) from (values \
    ('search_path', 'pg_catalog, pg_temp'), ('statement_timeout', '120s'), ('lock_timeout', \
    '2s'), ('transaction_timeout', '0'), \
    ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0')) as s(name, value) \
    where pg_catalog.current_setting(s.name, true) is not null";

/// Before it in a batch that writes: a role may be read only by default. It has to come before any
/// query.
const READ_WRITE: &str = "set transaction read write";

/// After it in a batch that writes: an event trigger for what we create would run as us.
///
/// # Source
///
/// neondatabase/neon `pgxn/neon`, read 2026-11-30: `neon.event_triggers` is `PGC_USERSET`.
const NO_TRIGGERS: &str = "select pg_catalog.set_config('neon.event_triggers', 'off', true) \
    where pg_catalog.current_setting('neon.event_triggers', true) is not null";

/// Login event triggers would run as us before the first statement. Unverified that Neon passes it
/// on over HTTP: preflight looks, and refuses a production that has such triggers where it does
/// not.
const OPTIONS: &str = "options=-c%20neon.event_triggers%3Doff";

/// Who asks, and where.
#[derive(Clone)]
pub struct Login {
    /// The endpoint's host.
    pub host: String,
    /// The database.
    pub database: DatabaseName,
    /// The role.
    pub role: RoleName,
    /// Its password.
    pub password: Secret,
}

/// Statements of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The statements with their parameters. All parameters are texts.
    pub statements: Vec<(String, Vec<String>)>,
    /// Whether the transaction may write.
    pub is_read_only: bool,
}

/// A parameter that must not be shown.
pub type SecretParameter<'a> = Option<(usize, &'a Secret)>;

/// The rows of one statement; a value is a text or absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Rows {
    /// Rows of values in the order of the columns.
    pub rows: Vec<Vec<Option<String>>>,
}

/// A batch failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// Postgres or the proxy answered with an error.
    #[error("query {database}: answered {status}{}: {message}", state(.sqlstate))]
    Answered {
        /// Which database.
        database: DatabaseName,
        /// The status code.
        status: u16,
        /// The SQLSTATE; empty when Postgres did not answer.
        sqlstate: String,
        /// The first line of the message, cut where a value would begin.
        message: String,
    },
    /// No complete reply came.
    #[error("query {database}: {failure}")]
    NoReply {
        /// Which database.
        database: DatabaseName,
        /// What happened.
        failure: HttpFailure,
    },
    /// The reply could not be read.
    #[error("query {database}: the reply could not be read")]
    Undecodable {
        /// Which database.
        database: DatabaseName,
    },
}

fn state(sqlstate: &str) -> String {
    if sqlstate.is_empty() { String::new() } else { format!(" {sqlstate}") }
}

/// Returns whether an error with this state may pass: it is about the moment, not about the
/// statement.
///
/// # Source
///
/// PostgreSQL, appendix A: classes 08, 40, 53, 55, 57 and 58.
pub fn may_pass(sqlstate: &str) -> bool {
    matches!(sqlstate.get(..2), Some("08" | "40" | "53" | "55" | "57" | "58"))
}

impl SqlError {
    /// Returns whether the same batch may succeed later: nothing answered, the compute was not
    /// there, or Postgres asked to retry.
    ///
    /// # Source
    ///
    /// neondatabase/neon `proxy`, read 2026-11-21: what its control plane says of a compute begins
    /// with "Control plane request failed".
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NoReply { .. } | Self::Undecodable { .. } => true,
            Self::Answered { status, sqlstate, message, .. } => {
                // What is too large is as large the next time, and a quota is used up until
                // somebody acts.
                let is_final = matches!(status, 413 | 507) || is_quota(message);
                let is_about_the_compute = matches!(status, 423 | 429..)
                    || message.starts_with("Control plane request failed");
                (sqlstate.is_empty() && is_about_the_compute && !is_final) || may_pass(sqlstate)
            }
        }
    }
}

impl SqlError {
    /// Returns whether a statement took longer than it may; a request that was not answered in time
    /// may have.
    ///
    /// # Source
    ///
    /// PostgreSQL, appendix A: 57014 `query_canceled`, "canceling statement due to statement
    /// timeout".
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Answered { sqlstate, .. } => sqlstate == "57014",
            Self::NoReply { failure: HttpFailure::TimedOut(_), .. } => true,
            Self::NoReply { .. } | Self::Undecodable { .. } => false,
        }
    }

    /// Returns whether somebody knows another password: the proxy, which has no state for it, or
    /// Postgres.
    ///
    /// # Source
    ///
    /// neondatabase/neon `proxy/src/auth/mod.rs`, read 2026-11-21: "password authentication failed
    /// for user". PostgreSQL, appendix A: 28P01 `invalid_password`.
    pub fn is_wrong_password(&self) -> bool {
        match self {
            Self::Answered { sqlstate, message, .. } => {
                sqlstate == "28P01"
                    || sqlstate.is_empty() && message.starts_with("password authentication failed")
            }
            Self::NoReply { .. } | Self::Undecodable { .. } => false,
        }
    }

    /// Returns whether an object of a batch may be to blame: PostgreSQL refused a statement in a
    /// session that it had begun.
    ///
    /// Also an error that may pass, such as 58P01 or 53200, may come back as often as the same
    /// object is asked for.
    ///
    /// # Source
    ///
    /// PostgreSQL, appendix A: class 08 is "Connection Exception", 28 "Invalid Authorization
    /// Specification", 3D "Invalid Catalog Name", 57 "Operator Intervention". neondatabase/neon
    /// `proxy`, read 2026-11-21: 500 where the session was never begun.
    pub fn may_be_about_an_object(&self) -> bool {
        match self {
            Self::Answered { status, sqlstate, .. } => {
                !sqlstate.is_empty()
                    && *status < 500
                    && !matches!(sqlstate.get(..2), Some("08" | "28" | "3D" | "57"))
            }
            Self::NoReply { .. } | Self::Undecodable { .. } => false,
        }
    }

    /// Returns whether a table, a column or a function is not there, or not as it was.
    ///
    /// # Source
    ///
    /// PostgreSQL, appendix A: 42P01 `undefined_table`, 42703 `undefined_column`, 42883
    /// `undefined_function`, 3F000 `invalid_schema_name`.
    pub fn is_about_what_is_there(&self) -> bool {
        matches!(self, Self::Answered { sqlstate, .. } if matches!(sqlstate.as_str(), "42P01" | "42703" | "42883" | "3F000"))
    }
}

impl Batch {
    /// Encodes the request.
    ///
    /// `sql_url` replaces the address that is derived from the endpoint's host. `secret` is one
    /// more parameter of a statement, given apart so that a batch can be shown.
    pub fn encode(
        &self,
        login: &Login,
        sql_url: Option<&str>,
        secret: SecretParameter<'_>,
    ) -> HttpRequest {
        let url = sql_url.map_or_else(|| derived_url(&login.host), str::to_owned);
        let mut request = HttpRequest::new(Method::Post, url, BATCH_TIMEOUT);
        let connection = format!(
            "postgresql://{}:{}@{}/{}?sslmode=require&{OPTIONS}",
            percent_encode(login.role.as_str()),
            percent_encode(login.password.reveal()),
            login.host,
            percent_encode(login.database.as_str()),
        );
        request.secret_headers.push(("Neon-Connection-String".to_owned(), Secret::new(connection)));
        let headers = [
            ("Content-Type", "application/json"),
            ("Neon-Raw-Text-Output", "true"),
            ("Neon-Array-Mode", "true"),
            ("Neon-Batch-Isolation-Level", "RepeatableRead"),
        ];
        request.headers.extend(headers.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if self.is_read_only {
            request.headers.push(("Neon-Batch-Read-Only".to_owned(), "true".to_owned()));
        }
        let first = self.prelude().iter().map(|query| Statement { query, params: Vec::new() });
        let queries =
            first.chain(self.statements.iter().enumerate().map(|(index, (query, parameters))| {
                let mut params: Vec<&str> = parameters.iter().map(String::as_str).collect();
                if let Some((_, value)) = secret.filter(|(wanted, _)| *wanted == index) {
                    params.push(value.reveal());
                }
                Statement { query, params }
            }));
        // Texts serialise always.
        request.body =
            serde_json::to_string(&BatchRequest { queries: queries.collect() }).unwrap_or_default();
        request
    }

    /// Returns the statements that are sent before those of the batch.
    fn prelude(&self) -> &'static [&'static str] {
        if self.is_read_only { &[PRELUDE] } else { &[READ_WRITE, PRELUDE, NO_TRIGGERS] }
    }

    /// Decodes what came back: the rows of each statement, in order.
    ///
    /// # Errors
    ///
    /// An error of Postgres or of the proxy, no reply, or a reply that cannot be read.
    pub fn decode(
        &self,
        login: &Login,
        result: Result<HttpResponse, HttpFailure>,
    ) -> Result<Vec<Rows>, SqlError> {
        let database = || login.database.clone();
        let response =
            result.map_err(|failure| SqlError::NoReply { database: database(), failure })?;
        if response.status != 200 {
            return Err(answered(database(), &response));
        }
        let reply: BatchReply = serde_json::from_str(&response.body)
            .map_err(|_| SqlError::Undecodable { database: database() })?;
        let mut results = reply.results;
        if results.len() != self.prelude().len() + self.statements.len() {
            return Err(SqlError::Undecodable { database: database() });
        }
        results.drain(..self.prelude().len());
        Ok(results)
    }
}

#[derive(Serialize)]
struct BatchRequest<'a> {
    queries: Vec<Statement<'a>>,
}

#[derive(Serialize)]
struct Statement<'a> {
    query: &'a str,
    params: Vec<&'a str>,
}

#[derive(Deserialize)]
struct BatchReply {
    results: Vec<Rows>,
}

/// The body of an error; the proxy's framework writes `msg` instead of `message`. Its `detail`,
/// `hint` and `where` are not read: they can have a row of the database.
#[derive(Default, Deserialize)]
struct ErrorReply {
    #[serde(default, alias = "msg")]
    message: String,
    #[serde(default)]
    code: Option<String>,
}

fn answered(database: DatabaseName, response: &HttpResponse) -> SqlError {
    let error: ErrorReply = serde_json::from_str(&response.body).unwrap_or_default();
    let sqlstate = error.code.map(|code| state_of(&code)).unwrap_or_default();
    let message = of_postgres(&sqlstate, &error.message);
    SqlError::Answered { database, status: response.status, sqlstate, message }
}

/// Derives the address from the host, as Neon's driver does: the first label becomes `api`.
///
/// Source: @neondatabase/serverless 1.2.0: `host.replace(/^[^.]+\./,'api.')`.
fn derived_url(host: &str) -> String {
    let rest = host.split_once('.').map_or(host, |(_, rest)| rest);
    format!("https://api.{rest}/sql")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        Login {
            host: "ep-misty-sea-a5833nbi.us-east-2.aws.neon.tech".into(),
            database: "neondb".into(),
            role: "neondb_owner".into(),
            password: Secret::new("p@ss/word".into()),
        }
    }

    fn batch() -> Batch {
        Batch { statements: vec![("select 1".into(), Vec::new())], is_read_only: true }
    }

    #[test]
    fn a_batch_goes_to_the_address_that_neons_driver_uses() {
        let request = batch().encode(&login(), None, None);
        assert_eq!(request.url, "https://api.us-east-2.aws.neon.tech/sql");
        assert_eq!(
            request.secret_headers[0].1.reveal(),
            "postgresql://neondb_owner:p%40ss%2Fword@ep-misty-sea-a5833nbi.us-east-2.aws.neon.tech/neondb?sslmode=require&options=-c%20neon.event_triggers%3Doff"
        );
        assert_eq!(
            request.body,
            format!(
                r#"{{"queries":[{{"query":"{PRELUDE}","params":[]}},{{"query":"select 1","params":[]}}]}}"#
            )
        );
    }

    #[test]
    fn every_batch_leaves_the_databases_path_and_timeouts_first_and_a_secret_follows_its_statement()
    {
        let writing = Batch { is_read_only: false, ..batch() };
        let secret = Secret::new("s".into());
        let body: serde_json::Value =
            serde_json::from_str(&writing.encode(&login(), None, Some((0, &secret))).body)
                .expect("we wrote it");
        let sent =
            |index: usize| body["queries"][index]["query"].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            [sent(0), sent(1), sent(2), sent(3)],
            [READ_WRITE, PRELUDE, NO_TRIGGERS, "select 1"]
        );
        assert_eq!(body["queries"][3]["params"][0], "s");
        let limit = format!("'{STATEMENT_TIMEOUT_S}s'");
        assert!(
            PRELUDE.contains("('search_path', 'pg_catalog, pg_temp')") && PRELUDE.contains(&limit)
        );
        let reply = |count: usize| {
            let body = format!(r#"{{"results":[{}]}}"#, vec![r#"{"rows":[]}"#; count].join(","));
            writing
                .decode(&login(), Ok(HttpResponse { status: 200, body, ..HttpResponse::default() }))
                .map(|rows| rows.len())
        };
        assert_eq!(
            (reply(4), reply(1).is_err()),
            (Ok(1), true),
            "what stands before is not an answer"
        );
    }

    #[test]
    fn an_error_of_postgres_keeps_its_state_and_message() {
        let body = r#"{"message":"relation \"x\" does not exist","code":"42P01","detail":null}"#;
        let response = HttpResponse { status: 400, body: body.into(), ..HttpResponse::default() };
        let error = batch().decode(&login(), Ok(response)).expect_err("an error");
        assert_eq!(
            error.to_string(),
            "query neondb: answered 400 42P01: relation \"x\" does not exist"
        );
        assert!(!error.is_passing());
    }

    /// As in case 35: a password that a statement gives, and the row that a constraint refuses, are
    /// in no error.
    #[test]
    fn an_error_of_postgres_has_nothing_of_a_row() {
        let body = r#"{"message":"invalid input syntax for type integer: \"ann@example.com\"","code":"22P02","detail":"Failing row contains (ann).",
            "hint":"ann","where":"COPY people, line 1: ann"}"#;
        let response = HttpResponse { status: 400, body: body.into(), ..HttpResponse::default() };
        let error = batch().decode(&login(), Ok(response)).expect_err("an error");
        assert_eq!(
            error.to_string(),
            "query neondb: answered 400 22P02: invalid input syntax for type integer …"
        );
        assert!(!format!("{error:?}").contains("ann"), "{error:?}");
    }

    #[test]
    fn a_compute_that_is_not_there_may_come_back() {
        let response = HttpResponse {
            status: 500,
            body: r#"{"msg":"Control plane request failed"}"#.into(),
            ..HttpResponse::default()
        };
        assert!(batch().decode(&login(), Ok(response)).expect_err("an error").is_passing());
    }

    #[test]
    fn a_reply_with_too_few_results_is_not_believed() {
        let response = HttpResponse {
            status: 200,
            body: r#"{"results":[]}"#.into(),
            ..HttpResponse::default()
        };
        assert_eq!(
            batch().decode(&login(), Ok(response)),
            Err(SqlError::Undecodable { database: "neondb".into() })
        );
    }
}
