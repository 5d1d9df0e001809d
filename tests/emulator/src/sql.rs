//! `POST /sql`, as Neon's proxy answers it.
//!
//! Source: neondatabase/neon `proxy/src/serverless/{sql_over_http,json,http_util}.rs`, read
//! 2026-11-21.

#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use url::Url;

use self::values::{parameter, render_row};
use crate::model::Model;
use crate::wire::{Connection, PgError, QueryResult};

/// Bytes of a request and of a response. Source: PROXY `binary/proxy.rs`: 10 MiB each.
pub(crate) const SIZE_LIMIT: usize = 10 << 20;

/// What a connection string says.
pub(crate) struct Target {
    pub(crate) endpoint: String,
    pub(crate) role: String,
    pub(crate) password: String,
    pub(crate) database: String,
    pub(crate) parameters: Vec<(String, String)>,
    /// Whether the client asks for event triggers to be off.
    pub(crate) is_untriggered: bool,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// How long the query waited for its compute.
    pub(crate) waking: Duration,
}

impl Answer {
    pub(crate) fn new(status: u16, body: String) -> Self {
        Self { status, body, headers: Vec::new(), waking: Duration::ZERO }
    }
}

/// Writes an error as the proxy does: all 17 keys, always.
pub(crate) fn error(status: u16, message: &str) -> Answer {
    Answer::new(status, error_body(message, &BTreeMap::new()).to_string())
}

const KEYS: [(&str, Option<u8>); 17] = [
    ("message", None),
    ("code", Some(b'C')),
    ("detail", Some(b'D')),
    ("hint", Some(b'H')),
    ("position", Some(b'P')),
    ("internalPosition", Some(b'p')),
    ("internalQuery", Some(b'q')),
    ("severity", Some(b'S')),
    ("where", Some(b'W')),
    ("table", Some(b't')),
    ("column", Some(b'c')),
    ("schema", Some(b's')),
    ("dataType", Some(b'd')),
    ("constraint", Some(b'n')),
    ("file", Some(b'F')),
    ("line", Some(b'L')),
    ("routine", Some(b'R')),
];

fn error_body(message: &str, fields: &BTreeMap<u8, String>) -> Value {
    let mut body = serde_json::Map::new();
    for (key, letter) in KEYS {
        let value = match (key, letter) {
            ("message", _) => json!(message),
            (_, Some(letter)) => match fields.get(&letter) {
                Some(text) => json!(text),
                None if matches!(key, "code" | "severity") => json!(""),
                None => Value::Null,
            },
            (_, None) => Value::Null,
        };
        body.insert(key.to_owned(), value);
    }
    Value::Object(body)
}

/// Writes that the proxy knows another password.
///
/// Source: PROXY `auth/mod.rs`: "password authentication failed for user '{0}'", without a state.
pub(crate) fn wrong_password(role: &str) -> Answer {
    error(400, &format!("password authentication failed for user '{role}'"))
}

/// The address from which every request comes, for the project's list.
const CALLER: &str = "198.51.100.7";

/// Writes that the project's network rules keep the caller out; `None` where they let it in.
///
/// Source: PROXY `auth/mod.rs`: "This IP address {0} is not allowed to connect to this endpoint…",
/// "This connection is trying to access this endpoint from a blocked network.".
pub(crate) fn kept_out(model: &Model, endpoint: &str) -> Option<Answer> {
    let branch = model.endpoint(endpoint).and_then(|endpoint| model.branch(&endpoint.branch))?;
    let (list, is_for_protected_alone) = &model.allowed_ips;
    let is_listed =
        list.is_empty() || list.iter().any(|address| address == CALLER || address == "0.0.0.0/0");
    if !is_listed && (branch.is_protected || !is_for_protected_alone) {
        return Some(error(
            400,
            &format!(
                "This IP address {CALLER} is not allowed to connect to this endpoint. Please add \
                    it to the allowed list in the Neon console. Make sure to check for IPv4 or \
                    IPv6 addresses."
            ),
        ));
    }
    let text = "This connection is trying to access this endpoint from a blocked network.";
    model.blocks_public.then(|| error(400, text))
}

/// Writes that the compute knows another password than the proxy, as Postgres' refusal of a
/// connection.
pub(crate) fn refused_by_compute(role: &str) -> Answer {
    let fields = [(b'C', "28P01".to_owned()), (b'S', "FATAL".to_owned())].into();
    Answer::new(
        500,
        error_body(&format!("password authentication failed for user \"{role}\""), &fields)
            .to_string(),
    )
}

/// Writes an error that Postgres has in the middle of a session.
pub(crate) fn server_error(code: &str, message: &str) -> Answer {
    let fields = [(b'C', code.to_owned()), (b'S', "ERROR".to_owned())].into();
    Answer::new(400, error_body(message, &fields).to_string())
}

/// Writes an error of Postgres.
pub(crate) fn postgres_error(failure: &PgError, is_connecting: bool) -> Answer {
    let PgError::Server(fields) = failure else {
        return error(
            500,
            "Control plane request failed: endpoint is temporarily unavailable. Check your \
                quotas and/or contact our support.",
        );
    };
    let fields: BTreeMap<u8, String> =
        fields.iter().map(|(letter, text)| (*letter, text.clone())).collect();
    let code = fields.get(&b'C').map(String::as_str).unwrap_or_default();
    let status = if is_connecting && code != "3D000" { 500 } else { 400 };
    Answer::new(status, error_body(&failure.message(), &fields).to_string())
}

/// Reads the connection string of a request.
pub(crate) fn target(header: Option<&str>) -> Result<Target, Answer> {
    let bad = |message: &str| error(400, message);
    let text = header.ok_or_else(|| bad("invalid header: neon-connection-string"))?;
    let url = Url::parse(text).map_err(|_| bad("could not parse the connection string"))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(bad("incorrect scheme"));
    }
    let database = decode(url.path().trim_start_matches('/'));
    if database.is_empty() {
        return Err(bad("missing database name"));
    }
    let role = decode(url.username());
    if role.is_empty() {
        return Err(bad("missing username"));
    }
    let password = url
        .password()
        .map(decode)
        .ok_or_else(|| bad("missing authentication credentials: required password"))?;
    let host = url.host_str().ok_or_else(|| bad("missing hostname"))?;
    if host.parse::<std::net::IpAddr>().is_ok() {
        return Err(bad("missing hostname"));
    }
    let label = host.split('.').next().unwrap_or(host);
    let endpoint = label.strip_suffix("-pooler").unwrap_or(label).to_owned();
    let skipped = ["sslmode", "channel_binding", "options", "pgbouncer"];
    let is_untriggered = url
        .query_pairs()
        .any(|(name, value)| name == "options" && value.contains("neon.event_triggers=off"));
    let parameters = url
        .query_pairs()
        .filter(|(name, _)| !skipped.contains(&name.as_ref()))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    Ok(Target { endpoint, role, password, database, parameters, is_untriggered })
}

fn decode(text: &str) -> String {
    // `Url` leaves user, password and path encoded; a form decoder would take `+` for a space.
    let text = text.replace('+', "%2B");
    url::form_urlencoded::parse(format!("x={text}").as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

/// One statement of a request.
struct Statement {
    sql: String,
    parameters: Vec<Option<String>>,
    is_array: bool,
}

/// How the answer is written, and how the batch is run.
#[expect(clippy::struct_excessive_bools, reason = "each is one header, and they are independent")]
pub(crate) struct Options {
    is_raw: bool,
    is_array: bool,
    isolation: Option<&'static str>,
    is_read_only: bool,
    is_deferrable: bool,
}

impl Options {
    /// Reads the headers; booleans count only when they are exactly `true`.
    pub(crate) fn new(header: &dyn Fn(&str) -> Option<String>) -> Result<Self, Answer> {
        let flag = |name: &str| header(name).as_deref() == Some("true");
        let isolation = match header("neon-batch-isolation-level").as_deref() {
            None => None,
            Some("Serializable") => Some("SERIALIZABLE"),
            Some("ReadUncommitted") => Some("READ UNCOMMITTED"),
            Some("ReadCommitted") => Some("READ COMMITTED"),
            Some("RepeatableRead") => Some("REPEATABLE READ"),
            Some(_) => return Err(error(400, "invalid isolation level")),
        };
        Ok(Self {
            is_raw: flag("neon-raw-text-output"),
            is_array: flag("neon-array-mode"),
            isolation,
            is_read_only: flag("neon-batch-read-only"),
            is_deferrable: flag("neon-batch-deferrable"),
        })
    }

    /// Returns whether the batch cannot have changed anything.
    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn begin(&self) -> String {
        let mut sql = "BEGIN".to_owned();
        if let Some(level) = self.isolation {
            sql.push_str(" ISOLATION LEVEL ");
            sql.push_str(level);
        }
        if self.is_read_only {
            sql.push_str(" READ ONLY");
        }
        if self.is_deferrable {
            sql.push_str(" DEFERRABLE");
        }
        sql
    }
}

/// Runs a request on a connection.
pub(crate) async fn run(connection: &mut Connection, body: &str, options: &Options) -> Answer {
    let value: Value = match serde_json::from_str(body) {
        Ok(value) => value,
        Err(failure) => {
            return error(400, &format!("could not parse the HTTP request body: {failure}"));
        }
    };
    let Some(queries) = value.get("queries") else {
        return match statement(&value, options) {
            Ok(statement) => match connection.query(&statement.sql, &statement.parameters).await {
                Ok(result) => finish(render(&result, &statement, options), options, false),
                Err(failure) => postgres_error(&failure, false),
            },
            Err(answer) => answer,
        };
    };
    let Some(queries) = queries.as_array() else {
        return error(
            400,
            "could not parse the HTTP request body: invalid type: expected a sequence",
        );
    };
    let statements: Result<Vec<Statement>, Answer> =
        queries.iter().map(|query| statement(query, options)).collect();
    match statements {
        Ok(statements) => batch(connection, &statements, options).await,
        Err(answer) => answer,
    }
}

/// Runs statements in one transaction; the first error rolls back.
async fn batch(connection: &mut Connection, statements: &[Statement], options: &Options) -> Answer {
    if let Err(failure) = connection.script(&options.begin()).await {
        return postgres_error(&failure, false);
    }
    let mut body = String::from("{\"results\":[");
    for (index, statement) in statements.iter().enumerate() {
        let result = match connection.query(&statement.sql, &statement.parameters).await {
            Ok(result) => result,
            Err(failure) => return postgres_error(&failure, false),
        };
        if index > 0 {
            body.push(',');
        }
        match render(&result, statement, options) {
            Ok(text) => body.push_str(&text),
            Err(answer) => return answer,
        }
        if body.len() > SIZE_LIMIT {
            return error(507, &format!("response is too large (max is {SIZE_LIMIT} bytes)"));
        }
    }
    if let Err(failure) = connection.script("COMMIT").await {
        return postgres_error(&failure, false);
    }
    body.push_str("]}");
    finish(Ok(body), options, true)
}

fn finish(body: Result<String, Answer>, options: &Options, is_batch: bool) -> Answer {
    let body = match body {
        Ok(body) if body.len() > SIZE_LIMIT => {
            return error(507, &format!("response is too large (max is {SIZE_LIMIT} bytes)"));
        }
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let mut answer = Answer::new(200, body);
    if is_batch {
        if options.is_read_only {
            answer.headers.push(("neon-batch-read-only", "true".to_owned()));
        }
        if options.is_deferrable {
            answer.headers.push(("neon-batch-deferrable", "true".to_owned()));
        }
        let level = match options.isolation {
            Some("SERIALIZABLE") => "Serializable",
            Some("READ UNCOMMITTED") => "ReadUncommitted",
            Some("READ COMMITTED") => "ReadCommitted",
            Some(_) => "RepeatableRead",
            None => return answer,
        };
        answer.headers.push(("neon-batch-isolation-level", level.to_owned()));
    }
    answer
}

fn statement(value: &Value, options: &Options) -> Result<Statement, Answer> {
    let bad = |text: &str| error(400, &format!("could not parse the HTTP request body: {text}"));
    let sql = value["query"].as_str().ok_or_else(|| bad("missing field `query`"))?.to_owned();
    let parameters = match value.get("params") {
        None => Vec::new(),
        Some(Value::Array(values)) => values.iter().map(parameter).collect(),
        Some(_) => return Err(bad("invalid type: expected a sequence")),
    };
    Ok(Statement {
        sql,
        parameters,
        is_array: value["arrayMode"].as_bool().unwrap_or(options.is_array),
    })
}

/// Writes one result.
fn render(
    result: &QueryResult,
    statement: &Statement,
    options: &Options,
) -> Result<String, Answer> {
    let fields: Vec<Value> = result
        .fields
        .iter()
        .map(|field| {
            json!({
                "name": field.name, "dataTypeID": field.type_oid, "tableID": field.table,
                "columnID": field.column,
                "dataTypeSize": field.type_size, "dataTypeModifier": field.modifier,
                "format": "text",
            })
        })
        .collect();
    let mut words = result.tag.split(' ');
    let command = words.next().unwrap_or_default();
    let count = match command {
        "INSERT" => words.nth(1),
        _ => words.next(),
    };
    let count: Option<u64> = count.and_then(|word| word.parse().ok());
    let mut rows = String::from("[");
    for (index, row) in result.rows.iter().enumerate() {
        if index > 0 {
            rows.push(',');
        }
        render_row(&mut rows, row, &result.fields, statement.is_array, options.is_raw)?;
        if rows.len() > SIZE_LIMIT {
            return Err(error(507, &format!("response is too large (max is {SIZE_LIMIT} bytes)")));
        }
    }
    rows.push(']');
    Ok(format!(
        "{{\"fields\":{},\"rows\":{rows},\"command\":{},\"rowCount\":{},\"rowAsArray\":{}}}",
        Value::from(fields),
        json!(command),
        json!(count),
        statement.is_array
    ))
}

/// Returns every text of a request that could be a password: parameters, and literals of
/// statements.
pub(crate) fn literals(body: &str) -> Vec<String> {
    let Ok(value) = serde_json::from_str::<Value>(body) else { return literals_of_sql(body) };
    let queries = value["queries"].as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    let mut found = Vec::new();
    for query in &queries {
        found.extend(
            query["params"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|value| value.as_str().map(str::to_owned)),
        );
        found.extend(literals_of_sql(query["query"].as_str().unwrap_or_default()));
    }
    found
}

/// Returns the texts between quotes after the word `password`.
pub(crate) fn literals_of_sql(sql: &str) -> Vec<String> {
    let lower = sql.to_ascii_lowercase();
    let mut found = Vec::new();
    for (at, word) in lower.match_indices("password") {
        let rest = sql.get(at + word.len()..).unwrap_or_default().trim_start();
        if let Some(rest) = rest.strip_prefix('\'') {
            found.extend(rest.split_once('\'').map(|(text, _)| text.to_owned()));
        }
    }
    found
}
