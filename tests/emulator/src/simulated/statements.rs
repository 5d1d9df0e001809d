//! Answers the few statements that are asked of a simulated project.

use std::borrow::Cow;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::contents::{ROW_BYTES, keys_asked};
use super::{Contents, DATABASE, Simulated};
use crate::model::{Timestamp, Wake};
use crate::sql;

/// How the key of every table is read.
const KEY: &str = "pg_catalog.jsonb_build_object('id', id)::text";
/// What a look at rows reads from, before the name of the table.
const KEYED: &str = " as h from only ";

impl Simulated {
    /// Answers a batch of SQL: the status and the body.
    pub fn query(
        &mut self,
        connection: &str,
        is_read_only: bool,
        body: &str,
        now: Timestamp,
    ) -> (u16, String) {
        let now = self.neons(now);
        self.advance_to(now);
        self.waked_for = TimeDelta::zero();
        match self.answer(connection, is_read_only, body, now) {
            Ok(text) => (200, text),
            Err(answer) => (answer.status, answer.body),
        }
    }

    fn answer(
        &mut self,
        connection: &str,
        is_read_only: bool,
        body: &str,
        now: Timestamp,
    ) -> Result<String, sql::Answer> {
        let target = sql::target(Some(connection))?;
        let no_endpoint =
            || sql::error(400, "Control plane request failed: endpoint cannot be found");
        let endpoint = self.model.endpoint(&target.endpoint).ok_or_else(no_endpoint)?;
        if let Some(answer) = sql::kept_out(&self.model, &target.endpoint) {
            return Err(answer);
        }
        if endpoint.is_disabled {
            return Err(sql::error(500, "Control plane request failed: endpoint is disabled"));
        }
        let may_write = endpoint.is_read_write && !is_read_only;
        let branch = self.served(&target.endpoint, now)?;
        let endpoint = self.model.endpoint(&target.endpoint).ok_or_else(no_endpoint)?;
        let Some(password) = self.model.admits(endpoint, &target.role, &target.password, now)
        else {
            return Err(sql::wrong_password(&target.role));
        };
        if endpoint.is_read_write {
            let untold = self.model.untold(&branch);
            self.model.told(&branch, &untold);
        }
        if !self.model.compute_knows(&branch, &target.role, &password) {
            return Err(sql::refused_by_compute(&target.role));
        }
        let found = self.model.branch(&branch).ok_or_else(no_endpoint)?;
        if !found.databases.iter().any(|database| database.name == target.database) {
            return Err(failure(
                "3D000",
                &format!("database \"{}\" does not exist", target.database),
            ));
        }
        let Asked { queries } = serde_json::from_str(body)
            .map_err(|_| sql::error(400, "could not parse the HTTP request body"))?;
        let mut session = Session {
            role: target.role,
            branch,
            may_write,
            password: None,
            compute: None,
            probes: Vec::new(),
            marker: String::new(),
            now,
        };
        let mut results = Vec::with_capacity(queries.len());
        for query in &queries {
            let rows = self.statement(&mut session, query)?;
            results.push(Answered {
                command: "SELECT",
                row_count: rows.len(),
                rows,
                fields: [],
                row_as_array: true,
            });
        }
        Ok(serde_json::to_string(&Results { results }).unwrap_or_default())
    }

    /// Returns the branch that a query at an endpoint reads, and wakes its compute.
    fn served(&mut self, endpoint: &str, now: Timestamp) -> Result<String, sql::Answer> {
        let unavailable = || {
            let text = "Control plane request failed: endpoint is temporarily unavailable. Check \
                your quotas and/or contact our support.";
            sql::error(500, text)
        };
        let branch = self.model.served_by(endpoint).unwrap_or_default().to_owned();
        let is_old =
            self.model.endpoint(endpoint).is_some_and(|endpoint| endpoint.serves.is_some());
        let is_ready =
            is_old || self.model.branch(&branch).is_some_and(|branch| branch.state == "ready");
        if self.contents(&branch).is_none() || !is_ready {
            self.model.unarchive(&branch, now);
            return Err(unavailable());
        }
        match self.model.wake(endpoint, now) {
            Wake::Awake => {}
            Wake::Starting(time, _) => {
                self.waked_for = time;
                // The query is answered when the compute runs.
                self.model.set_endpoint_state(endpoint, "active", now);
            }
            Wake::Fails(time) => {
                self.waked_for = time;
                return Err(unavailable());
            }
        }
        Ok(branch)
    }

    /// Runs one statement, known by how it begins.
    fn statement(
        &mut self,
        session: &mut Session,
        query: &Statement<'_>,
    ) -> Result<Vec<Row>, sql::Answer> {
        let text = &*query.query;
        if let Some(rows) = self.set_up(session, text) {
            return Ok(rows);
        }
        if text.contains("unsendable(oid) as (") {
            return Ok(self.catalogue(session));
        }
        if text.contains("items(kind, name, definition) as (") {
            let contents = self.contents(&session.branch);
            let is_digest = text.ends_with("group by kind");
            return Ok(contents
                .map(|contents| {
                    if is_digest {
                        contents.schema_digests()
                    } else {
                        contents.schema_items(&query.params)
                    }
                })
                .unwrap_or_default());
        }
        if text.contains("below(oid, leaf) as (") && text.contains("amcheck") {
            return Ok(integrity());
        }
        if let Some(rows) = session.keep(query) {
            return Ok(rows);
        }
        if let Some(answer) = self.which_compute(session, query) {
            return answer;
        }
        if text.starts_with("do $firstlight$") && text.contains("firstlight.sql") {
            return self.prepare(session);
        }
        if text.starts_with("do $firstlight$") {
            return Ok(Vec::new());
        }
        if text == "select current_setting('firstlight.found')" {
            // Nothing is wrong with a simulated database, and an extension of it is not there.
            let found = session.probes.iter().map(|(sql, ..)| match sql {
                sql if sql.contains("cron.job") => serde_json::json!({"error": "42P01",
                    "message": "relation \"cron.job\" does not exist"}),
                _ => serde_json::json!({"rows": []}),
            });
            return Ok(vec![filled([found.collect::<serde_json::Value>().to_string()])]);
        }
        if text.starts_with("select (rolsuper or rolbypassrls)::text") {
            return Ok(vec![filled(["true"])]);
        }
        if text.starts_with(
            "do $$ begin execute pg_catalog.format('alter role current_user password %L'",
        ) {
            return self.change_password(session);
        }
        if text == "select 1" {
            return Ok(vec![filled(["1"])]);
        }
        let contents = self.contents(&session.branch);
        if let Some((_, rest)) = text.split_once(KEYED) {
            return look_at_rows(contents, text, rest);
        }
        let rows = contents.and_then(|contents| {
            text.split(" union all ").map(|part| digest(contents, part)).collect()
        });
        rows.ok_or_else(|| {
            failure("42601", "the simulation does not know this statement, or a relation in it")
        })
    }

    /// Runs a statement that sets something, or asks for the roles; `None` for every other.
    fn set_up(&self, session: &Session, text: &str) -> Option<Vec<Row>> {
        let sets_nothing = [
            "set transaction read write",
            "select set_config('lock_timeout'",
            "select pg_catalog.set_config('neon.event_triggers'",
        ];
        if sets_nothing.iter().any(|start| text.starts_with(start)) {
            return Some(Vec::new());
        }
        if text.starts_with("select r.rolname::text, ") {
            let roles =
                self.model.branch(&session.branch).into_iter().flat_map(|branch| &branch.roles);
            let row = |name: &String| {
                vec![Some(name.clone().into()), None, Some(format!("[\"{DATABASE}\"]").into())]
            };
            return Some(roles.map(|role| row(&role.name)).collect());
        }
        let sets = [
            "select set_config(name, value, true)",
            "select pg_catalog.set_config(s.name, s.value, true)",
        ];
        sets.iter()
            .any(|start| text.starts_with(start))
            .then(|| vec![filled(["off"]); text.matches("('").count()])
    }

    /// What is configured is run, once in a run: a row is written.
    fn prepare(&mut self, session: &Session) -> Result<Vec<Row>, sql::Answer> {
        if !session.may_write {
            return Err(failure("25006", "cannot execute INSERT in a read-only transaction"));
        }
        let data = self.model.branch(&session.branch).map(|branch| branch.data.clone());
        if let Some(data) = data.and_then(|data| self.data.get_mut(&data))
            && data.prepared_by.insert(session.marker.clone())
        {
            data.present.write();
            data.head.0 += 0x100;
        }
        Ok(Vec::new())
    }

    /// Runs a statement about which compute answers; `None` for every other.
    fn which_compute(
        &self,
        session: &mut Session,
        query: &Statement<'_>,
    ) -> Option<Result<Vec<Row>, sql::Answer>> {
        let text = &*query.query;
        if text.starts_with("select length(set_config('firstlight.compute', $1, true))") {
            session.compute = query.params.first().cloned();
            return Some(Ok(vec![filled(["t"])]));
        }
        if text.starts_with("do $$ begin if current_setting('firstlight.compute') <> ") {
            let is_meant =
                session.compute.as_deref() == Some(&self.compute_started(&session.branch));
            let other = || failure("40001", "another compute answers than the one that was asked");
            return Some(if is_meant { Ok(Vec::new()) } else { Err(other()) });
        }
        let is_asked = text == "select concat(extract(epoch from pg_postmaster_start_time()))";
        is_asked.then(|| Ok(vec![filled([self.compute_started(&session.branch)])]))
    }

    /// Tells when the compute of a branch was started: other data has another compute.
    fn compute_started(&self, branch: &str) -> String {
        let data = self.model.branch(branch).map(|branch| branch.data.as_str()).unwrap_or_default();
        format!("{}.{:06}", data.trim_start_matches("data-"), self.computes_started)
    }

    /// The role gives itself another password; the control plane learns of it, as the compute tells
    /// it.
    fn change_password(&mut self, session: &Session) -> Result<Vec<Row>, sql::Answer> {
        if !session.may_write {
            return Err(failure("25006", "cannot execute ALTER ROLE in a read-only transaction"));
        }
        self.model.password_changed(
            &session.branch,
            &session.role,
            session.password.as_deref(),
            session.now,
        );
        Ok(Vec::new())
    }

    /// Lists tables and sequences.
    fn catalogue(&self, session: &Session) -> Vec<Row> {
        let Some(contents) = self.contents(&session.branch) else { return Vec::new() };
        let tables = contents.tables.iter().map(|(name, table)| {
            let (bytes, blocks) = (table.rows * ROW_BYTES, table.blocks());
            relation(["r", name, "ROW(id)", &bytes.to_string(), "", KEY, &blocks.to_string()])
        });
        let sequences =
            contents.sequences.keys().map(|name| relation(["S", name, "ROW()", "0", "", "", "0"]));
        tables.chain(sequences).chain([one_page()]).collect()
    }
}

/// A row: the text of every column, where it has one.
pub(super) type Row = Vec<Option<Cow<'static, str>>>;

/// A relation of the catalogue: the text of every column, absent where it is empty, and no columns
/// that are left out. A state is never absent.
fn relation(values: [&str; 7]) -> Row {
    let text = |(index, value): (usize, &str)| {
        (index == 4 || !value.is_empty()).then(|| value.to_owned().into())
    };
    values.into_iter().enumerate().map(text).chain([None, None]).collect()
}

pub(super) fn filled<T: Into<Cow<'static, str>>, const COUNT: usize>(values: [T; COUNT]) -> Row {
    values.map(|value| Some(value.into())).to_vec()
}

/// A batch.
#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    queries: Vec<Statement<'a>>,
}

/// One statement of a batch.
#[derive(Deserialize)]
struct Statement<'a> {
    #[serde(borrow)]
    query: Cow<'a, str>,
    #[serde(default)]
    params: Vec<String>,
}

/// What a batch answers.
#[derive(Serialize)]
struct Results {
    results: Vec<Answered>,
}

/// What one statement answers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answered {
    command: &'static str,
    row_count: usize,
    rows: Vec<Row>,
    fields: [(); 0],
    row_as_array: bool,
}

/// One transaction.
struct Session {
    role: String,
    branch: String,
    may_write: bool,
    password: Option<String>,
    /// The compute that a batch is meant for.
    compute: Option<String>,
    /// What is asked beside the content: the statement, whether somebody configured it, and how
    /// many rows it may return.
    probes: Vec<(String, bool, u32)>,
    /// What marks that something was run on staging.
    marker: String,
    now: Timestamp,
}

impl Session {
    /// Runs a statement that keeps something for the later ones of its transaction; `None` for
    /// every other.
    fn keep(&mut self, query: &Statement<'_>) -> Option<Vec<Row>> {
        let set = query.query.strip_prefix("select length(set_config('firstlight.")?;
        if set.starts_with("probes', $1, true))") {
            let probes = query.params.first();
            self.probes =
                probes.and_then(|probes| serde_json::from_str(probes).ok()).unwrap_or_default();
        } else if set.starts_with("sql', $1, true)") {
            self.marker = query.params.last().cloned().unwrap_or_default();
        } else if set.starts_with("password', $1, true))") {
            self.password = query.params.first().cloned();
        } else {
            return None;
        }
        Some(vec![filled(["t"])])
    }
}

/// Looks into the rows of a table by their keys; `rest` begins with the name of the table.
fn look_at_rows(
    contents: Option<&Contents>,
    text: &str,
    rest: &str,
) -> Result<Vec<Row>, sql::Answer> {
    let table = rest.split_once([' ', ')']).and_then(|(name, _)| contents?.tables.get(name));
    let table =
        table.ok_or_else(|| failure("42P01", "the simulation does not know this relation"))?;
    Ok(match text {
        text if text.starts_with("select (n & ") => table.parts(),
        text if text.starts_with("select string_agg(r") => vec![table.hashes()],
        text => keys_asked(text),
    })
}

/// Digests the relation that a part of a statement reads; `None` when there is none of its name.
fn digest(contents: &Contents, part: &str) -> Option<Row> {
    let (index, _) = part.strip_prefix("select ")?.split_once("::text, ")?;
    let (_, name) = part.rsplit_once(" from ")?;
    let (name, condition) = name
        .trim_start_matches("only ")
        .split_once(" where ")
        .unwrap_or((name.trim_start_matches("only "), ""));
    if let Some(table) = contents.tables.get(name) {
        let mut blocks = condition
            .split(" and ")
            .map(|bound| bound.split_once("'(")?.1.split_once(',')?.0.parse().ok());
        let (from, to) = (blocks.next().flatten().unwrap_or(0), blocks.next().flatten());
        let ((rows_before, sum_before), (rows, sum)) = (table.before(Some(from)), table.before(to));
        return Some(filled([
            index.to_owned(),
            (rows - rows_before).to_string(),
            (sum - sum_before).to_string(),
        ]));
    }
    contents
        .sequences
        .get(name)
        .map(|last| filled([index.to_owned(), last.to_string(), "true".to_owned()]))
}

/// The last row of a list that has one page.
fn one_page() -> Row {
    filled(["pages", "1", "0"])
}

/// A foreign key to be looked into, and an index, none of them invalid.
fn integrity() -> Vec<Row> {
    let row = |kind: &'static str,
               object: &'static str,
               sql: Option<&'static str>,
               bytes: &'static str| {
        vec![Some(kind.into()), Some(object.into()), sql.map(Into::into), Some(bytes.into()), None]
    };
    vec![
        row("foreign_keys", "public.t2.t1_fkey", Some("select 1 from orphans"), "100"),
        row("indexes", "#", None, "1"),
        one_page(),
    ]
}

/// An error of Postgres.
fn failure(code: &str, message: &str) -> sql::Answer {
    sql::server_error(code, message)
}
