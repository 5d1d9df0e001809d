//! Neon without any server: the [`Model`], with what its branches hold and the few statements that are asked of them.
//!
//! In: a [`Request`] of the API or the body of a `POST /sql`, and `now`. Out: what Neon answers. Everything happens in memory, so that thousands of
//! runs a second can be simulated.
//!
//! Invariants: the data of a branch is copied when the request is accepted and whole when its operation has finished; a branch whose operation
//! ended badly is never readable. A statement that is not known is an error, not an empty answer.
//!
//! What is not simulated: Postgres. A table is a number of rows and a digest; the statements are those of verification, of passwords, and `select 1`.
//! `tests/contract` runs one suite over this and over the served emulator.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Effect, Lsn, Model, Point, Request, Response, Timestamp};
use crate::sql;

/// The role that reads and its database, in every simulated project.
pub const ROLE: &str = "neondb_owner";
/// The database.
pub const DATABASE: &str = "neondb";

/// How the key of every table is read.
const KEY: &str = "pg_catalog.jsonb_build_object('id', id)::text";
/// What a look at rows reads from, before the name of the table.
const KEYED: &str = " as h from only ";

/// Bytes of a row, and of a block.
const ROW_BYTES: u64 = 100;
const BLOCK_BYTES: u64 = 8192;

/// The position at which every branch of a new project begins.
const FIRST_POSITION: u64 = 0x0100_0000;

/// What a database holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// By qualified name, such as `public.users`.
    pub tables: BTreeMap<String, Table>,
    /// Last values, by qualified name.
    pub sequences: BTreeMap<String, i64>,
    /// Whether the only trigger, of the first table, is disabled.
    pub is_trigger_disabled: bool,
}

/// What a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Rows.
    pub rows: u64,
    /// A number that changes with every write.
    pub digest: u64,
}

impl Table {
    fn blocks(self) -> u64 {
        self.rows * ROW_BYTES / BLOCK_BYTES
    }

    /// What the blocks before a block hold: rows, and the sum of their digests.
    fn before(self, block: Option<u64>) -> (u64, u128) {
        let blocks = self.blocks().max(1);
        let block = block.unwrap_or(blocks).min(blocks);
        (self.rows * block / blocks, u128::from(self.digest) * u128::from(block) / u128::from(blocks))
    }

    /// The only part of a table: how many rows, and their digest.
    fn part(&self) -> Row {
        filled(["0".to_owned(), self.rows.to_string(), self.digest.to_string()])
    }

    /// The only row that is ever shown: its key, its digest, and how often it is there.
    fn row(&self) -> Row {
        filled([r#"{"id": 1}"#.to_owned(), self.digest.to_string(), "1".to_owned()])
    }
}

impl Contents {
    /// Returns so many tables, `public.t1`, …, and a sequence.
    pub fn with_tables(count: u64) -> Self {
        let tables = (1..=count).map(|number| (format!("public.t{number}"), Table { rows: number * 100, digest: number })).collect();
        Self { tables, sequences: [("public.t1_id_seq".to_owned(), 100)].into(), is_trigger_disabled: false }
    }

    /// Adds a row to one of the tables, as an application does.
    pub fn write(&mut self) {
        if let Some(table) = self.tables.values_mut().next() {
            table.rows += 1;
            table.digest = table.digest.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        }
        self.sequences.values_mut().for_each(|last| *last += 1);
    }

    /// Loses a row of the last table, changes one of the last but one and disables a trigger, as a copy that is no copy does.
    pub fn damage(&mut self) {
        self.is_trigger_disabled = true;
        let mut tables = self.tables.values_mut().rev();
        if let Some(table) = tables.next() {
            table.rows -= 1;
            table.digest ^= 1;
        }
        if let Some(table) = tables.next() {
            table.digest ^= 1;
        }
    }
}

impl Contents {
    /// Every object that is no table: its kind, its name, how it is defined.
    fn objects(&self) -> [[&'static str; 3]; 3] {
        let trigger = if self.is_trigger_disabled { "after insert (disabled)" } else { "after insert" };
        [["server", "version", "18.4"], ["schemas", "public", ""], ["triggers", "public.t1.noted", trigger]]
    }

    fn schema_digests(&self) -> Vec<Row> {
        self.objects()
            .map(|[kind, name, definition]| filled([kind.to_owned(), "1".to_owned(), (name.len() + definition.len()).to_string()]))
            .to_vec()
    }

    fn schema_items(&self, kinds: &[String]) -> Vec<Row> {
        let wanted = self.objects().into_iter().filter(|[kind, ..]| kinds.iter().any(|wanted| wanted == kind));
        wanted.map(|[kind, name, definition]| filled([kind, name, &definition.len().to_string(), definition].map(str::to_owned))).collect()
    }
}

/// The data of a branch: each restore makes a new one.
#[derive(Clone, Debug)]
struct Data {
    first: Contents,
    present: Contents,
    is_whole: bool,
    /// The runs that have run something on it.
    prepared_by: BTreeSet<String>,
}

/// Data that is whole when an operation has finished.
#[derive(Clone, Debug)]
struct Copied {
    operation: String,
    branch: String,
    data: String,
    lsn: Lsn,
}

/// A project of Neon's in memory.
#[derive(Clone)]
pub struct Simulated {
    /// States, names, rules and time.
    pub model: Model,
    /// Whether the next restored data is damaged: a copy that is no copy.
    pub damages_next_restore: bool,
    /// Whether the next branch that is made from a snapshot is damaged.
    pub damages_next_unpacking: bool,
    data: BTreeMap<String, Data>,
    copies: Vec<Copied>,
    /// What data held at the positions at which branches were made of it.
    passed: BTreeMap<(String, Lsn), Contents>,
    position: u64,
}

impl Simulated {
    /// Takes a model; every branch in it holds the same.
    pub fn new(mut model: Model, contents: &Contents) -> Self {
        for branch in model.branches.iter_mut().filter(|branch| branch.parent.is_some()) {
            branch.parent_lsn = Some(Lsn(FIRST_POSITION));
        }
        for role in model.branches.iter_mut().flat_map(|branch| &mut branch.roles) {
            role.in_data.clone_from(&role.password);
            role.at_first.clone_from(&role.password);
        }
        let whole = Data { first: contents.clone(), present: contents.clone(), is_whole: true, prepared_by: BTreeSet::new() };
        let data = model.branches.iter().map(|branch| (branch.data.clone(), whole.clone())).collect();
        Self {
            model,
            damages_next_restore: false,
            damages_next_unpacking: false,
            data,
            copies: Vec::new(),
            passed: BTreeMap::new(),
            position: FIRST_POSITION,
        }
    }

    /// Returns what a branch holds; `None` when there is no such branch, or it cannot be read.
    pub fn contents(&self, branch: &str) -> Option<&Contents> {
        let data = self.data.get(&self.model.branch(branch)?.data)?;
        data.is_whole.then_some(&data.present)
    }

    /// Returns what a branch held when it was made or restored last.
    pub fn first_contents(&self, branch: &str) -> Option<&Contents> {
        Some(&self.data.get(&self.model.branch(branch)?.data)?.first)
    }

    /// Writes to a branch, as an application does.
    pub fn write(&mut self, branch: &str) {
        self.position += 0x100;
        let Some(data) = self.model.branch(branch).map(|branch| branch.data.clone()) else { return };
        if let Some(data) = self.data.get_mut(&data) {
            data.present.write();
        }
    }

    /// Gives the last table of every branch so many rows.
    pub fn grow(&mut self, rows: u64) {
        let contents = self.data.values_mut().flat_map(|data| [&mut data.first, &mut data.present]);
        contents.filter_map(|contents| contents.tables.values_mut().next_back()).for_each(|table| table.rows = rows);
    }

    /// Ends what has come to its end.
    pub fn advance(&mut self, now: Timestamp) {
        self.model.advance(now);
        let copies = std::mem::take(&mut self.copies);
        for copied in copies {
            match self.model.operation(&copied.operation).map(|operation| operation.status) {
                Some("finished") => self.finish(&copied, now),
                Some("failed" | "cancelled") if !self.is_under_way(&copied.operation) => {}
                Some(_) => self.copies.push(copied),
                None => {}
            }
        }
    }

    fn is_under_way(&self, operation: &str) -> bool {
        self.model.operation(operation).is_some_and(crate::model::Operation::is_under_way)
    }

    fn finish(&mut self, copied: &Copied, now: Timestamp) {
        let mut size = None;
        if let Some(data) = self.data.get_mut(&copied.data) {
            data.is_whole = true;
            size = Some(data.first.tables.values().map(|table| table.rows * ROW_BYTES).sum());
        }
        if let Some(branch) = self.model.branch_mut(&copied.branch).filter(|branch| branch.data == copied.data) {
            branch.logical_size = size;
        }
        if let Some(snapshot) = self.model.snapshots.iter_mut().find(|snapshot| snapshot.data == copied.data) {
            snapshot.lsn = snapshot.lsn.or(Some(copied.lsn));
            snapshot.full_size = size;
        }
        if let Some(branch) = self.model.branch_mut(&copied.branch).filter(|branch| branch.data == copied.data && branch.unpacked.is_none())
        {
            branch.parent_lsn = Some(copied.lsn);
            branch.parent_timestamp = Some(now);
        }
    }

    /// Answers a request of the API.
    pub fn serve(&mut self, request: &Request, now: Timestamp) -> Response {
        self.advance(now);
        let response = self.model.serve(request, now);
        for effect in &response.effects {
            match effect {
                Effect::Branch { operation, branch, source, point } => self.copy(operation, branch, source, *point, false),
                Effect::Restore { operation, branch, source, point, .. } => {
                    let is_damaged = std::mem::take(&mut self.damages_next_restore);
                    self.copy(operation, branch, source, *point, is_damaged);
                }
                Effect::Snapshot { operation, snapshot, source, point } => {
                    let data = self.model.snapshot(snapshot).map(|snapshot| snapshot.data.clone()).unwrap_or_default();
                    self.copy_to(operation, "", &data, source, *point, false);
                }
                Effect::Unpack { operation, branch, source } => {
                    let is_damaged = std::mem::take(&mut self.damages_next_unpacking);
                    self.copy(operation, branch, source, Point::Head, is_damaged);
                }
                Effect::Discard { data, .. } => drop(self.data.remove(data)),
                Effect::Start { .. } | Effect::Suspend { .. } | Effect::Delete { .. } | Effect::SetPassword { .. } => {}
            }
        }
        response
    }

    fn copy(&mut self, operation: &str, branch: &str, source: &str, point: Point, is_damaged: bool) {
        let Some(data) = self.model.branch(branch).map(|branch| branch.data.clone()) else { return };
        self.copy_to(operation, branch, &data, source, point, is_damaged);
    }

    fn copy_to(&mut self, operation: &str, branch: &str, data: &str, source: &str, point: Point, is_damaged: bool) {
        let Some(from) = self.data.get(source) else { return };
        // An earlier point of a branch is one at which another began, or the one at which it was made or restored; nothing else is asked for.
        let mut contents = match point {
            Point::Head => from.present.clone(),
            Point::Lsn(lsn) => self.passed.get(&(source.to_owned(), lsn)).unwrap_or(&from.first).clone(),
            Point::Time(_) => from.first.clone(),
        };
        self.position += 0x1_0000;
        let lsn = Lsn(self.position);
        if point == Point::Head {
            self.passed.insert((source.to_owned(), lsn), contents.clone());
        }
        if is_damaged {
            contents.damage();
        }
        let new = Data { first: contents.clone(), present: contents, is_whole: false, prepared_by: BTreeSet::new() };
        self.data.insert(data.to_owned(), new);
        self.copies.push(Copied { operation: operation.to_owned(), branch: branch.to_owned(), data: data.to_owned(), lsn });
    }

    /// Answers a batch of SQL: the status and the body.
    pub fn query(&mut self, connection: &str, is_read_only: bool, body: &str, now: Timestamp) -> (u16, String) {
        self.advance(now);
        match self.answer(connection, is_read_only, body, now) {
            Ok(text) => (200, text),
            Err(answer) => (answer.status, answer.body),
        }
    }

    fn answer(&mut self, connection: &str, is_read_only: bool, body: &str, now: Timestamp) -> Result<String, sql::Answer> {
        let target = sql::target(Some(connection))?;
        let no_endpoint = || sql::error(400, "Control plane request failed: endpoint cannot be found");
        let endpoint = self.model.endpoint(&target.endpoint).ok_or_else(no_endpoint)?;
        if endpoint.is_disabled {
            return Err(sql::error(500, "Control plane request failed: endpoint is disabled"));
        }
        let (branch, may_write) = (endpoint.branch.clone(), endpoint.is_read_write && !is_read_only);
        let found = self.model.branch(&branch).ok_or_else(no_endpoint)?;
        if self.contents(&branch).is_none() || found.state != "ready" {
            let text = "Control plane request failed: endpoint is temporarily unavailable. Check your quotas and/or contact our support.";
            return Err(sql::error(500, text));
        }
        let Some(password) = self.model.admits(endpoint, &target.role, &target.password, now) else {
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
            return Err(failure("3D000", &format!("database \"{}\" does not exist", target.database)));
        }
        self.model.set_endpoint_state(&target.endpoint, "active", now);
        let Asked { queries } = serde_json::from_str(body).map_err(|_| sql::error(400, "could not parse the HTTP request body"))?;
        let mut session = Session { role: target.role, branch, may_write, password: None, probes: Vec::new(), marker: String::new(), now };
        let mut results = Vec::with_capacity(queries.len());
        for query in &queries {
            let rows = self.statement(&mut session, query)?;
            results.push(Answered { command: "SELECT", row_count: rows.len(), rows, fields: [], row_as_array: true });
        }
        Ok(serde_json::to_string(&Results { results }).unwrap_or_default())
    }

    /// Runs one statement, known by how it begins.
    fn statement(&mut self, session: &mut Session, query: &Statement<'_>) -> Result<Vec<Row>, sql::Answer> {
        let text = &*query.query;
        if text == "set transaction read write" {
            return Ok(Vec::new());
        }
        if text.starts_with("select r.rolname::text, ") {
            let roles = self.model.branch(&session.branch).into_iter().flat_map(|branch| &branch.roles);
            let row = |name: &String| vec![Some(name.clone().into()), None, Some(format!("[\"{DATABASE}\"]").into())];
            return Ok(roles.map(|role| row(&role.name)).collect());
        }
        if text.starts_with("select set_config(name, value, true)")
            || text.starts_with("select pg_catalog.set_config(s.name, s.value, true)")
        {
            return Ok(vec![filled(["off"]); text.matches("('").count()]);
        }
        if text.starts_with("with recursive unsendable(oid) as (") {
            return Ok(self.catalogue(session));
        }
        if text.contains("items(kind, name, definition) as (") {
            let contents = self.contents(&session.branch);
            let is_digest = text.ends_with("group by kind");
            return Ok(contents
                .map(|contents| if is_digest { contents.schema_digests() } else { contents.schema_items(&query.params) })
                .unwrap_or_default());
        }
        if text.starts_with("with recursive ns as (") && text.contains("amcheck") {
            return Ok(integrity());
        }
        if text.starts_with("select length(set_config('firstlight.probes', $1, true))") {
            session.probes = query.params.first().and_then(|probes| serde_json::from_str(probes).ok()).unwrap_or_default();
            return Ok(vec![filled(["t"])]);
        }
        if text.starts_with("select length(set_config('firstlight.sql', $1, true)") {
            session.marker = query.params.last().cloned().unwrap_or_default();
            return Ok(vec![filled(["t"])]);
        }
        if text.starts_with("select set_config('lock_timeout'") || text.starts_with("select pg_catalog.set_config('neon.event_triggers'") {
            return Ok(Vec::new());
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
                sql if sql.contains("cron.job") => serde_json::json!({"error": "42P01", "message": "relation \"cron.job\" does not exist"}),
                _ => serde_json::json!({"rows": []}),
            });
            return Ok(vec![filled([found.collect::<serde_json::Value>().to_string()])]);
        }
        if text.starts_with("select (rolsuper or rolbypassrls)::text") {
            return Ok(vec![filled(["true"])]);
        }
        if text.starts_with("select length(set_config('firstlight.password', $1, true))") {
            session.password = query.params.first().cloned();
            return Ok(vec![filled(["t"])]);
        }
        if text.starts_with("do $$ begin execute pg_catalog.format('alter role current_user password %L'") {
            return self.change_password(session);
        }
        if text == "select 1" {
            return Ok(vec![filled(["1"])]);
        }
        let contents = self.contents(&session.branch);
        if let Some((_, rest)) = text.split_once(KEYED) {
            let table = rest.split_once([' ', ')']).and_then(|(name, _)| contents?.tables.get(name));
            let table = table.ok_or_else(|| failure("42P01", "the simulation does not know this relation"))?;
            let is_of_parts = text.starts_with("select (");
            return Ok(vec![if is_of_parts { table.part() } else { table.row() }]);
        }
        let rows = contents.and_then(|contents| text.split(" union all ").map(|part| digest(contents, part)).collect());
        rows.ok_or_else(|| failure("42601", "the simulation does not know this statement, or a relation in it"))
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
        }
        Ok(Vec::new())
    }

    /// The role gives itself another password; the control plane learns of it, as the compute tells it.
    fn change_password(&mut self, session: &Session) -> Result<Vec<Row>, sql::Answer> {
        if !session.may_write {
            return Err(failure("25006", "cannot execute ALTER ROLE in a read-only transaction"));
        }
        self.model.password_changed(&session.branch, &session.role, session.password.as_deref(), session.now);
        Ok(Vec::new())
    }

    /// Lists tables and sequences.
    fn catalogue(&self, session: &Session) -> Vec<Row> {
        let Some(contents) = self.contents(&session.branch) else { return Vec::new() };
        let tables = contents.tables.iter().map(|(name, table)| {
            let (bytes, blocks) = (table.rows * ROW_BYTES, table.blocks());
            relation(["r", name, "ROW(id)", &bytes.to_string(), "", KEY, &blocks.to_string()])
        });
        let sequences = contents.sequences.keys().map(|name| relation(["S", name, "ROW()", "0", "", "", "0"]));
        tables.chain(sequences).collect()
    }
}

/// A row: the text of every column, where it has one.
type Row = Vec<Option<Cow<'static, str>>>;

/// A relation of the catalogue: the text of every column, absent where it is empty, and no columns that are left out. A state is never absent.
fn relation(values: [&str; 7]) -> Row {
    let text = |(index, value): (usize, &str)| (index == 4 || !value.is_empty()).then(|| value.to_owned().into());
    values.into_iter().enumerate().map(text).chain([None]).collect()
}

fn filled<T: Into<Cow<'static, str>>, const COUNT: usize>(values: [T; COUNT]) -> Row {
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
    /// What is asked beside the content: the statement, whether somebody configured it, and how many rows it may return.
    probes: Vec<(String, bool, u32)>,
    /// What marks that something was run on staging.
    marker: String,
    now: Timestamp,
}

/// Digests the relation that a part of a statement reads; `None` when there is none of its name.
fn digest(contents: &Contents, part: &str) -> Option<Row> {
    let (index, _) = part.strip_prefix("select ")?.split_once("::text, ")?;
    let (_, name) = part.rsplit_once(" from ")?;
    let (name, condition) = name.trim_start_matches("only ").split_once(" where ").unwrap_or((name.trim_start_matches("only "), ""));
    if let Some(table) = contents.tables.get(name) {
        let mut blocks = condition.split(" and ").map(|bound| bound.split_once("'(")?.1.split_once(',')?.0.parse().ok());
        let (from, to) = (blocks.next().flatten().unwrap_or(0), blocks.next().flatten());
        let ((rows_before, sum_before), (rows, sum)) = (table.before(Some(from)), table.before(to));
        return Some(filled([index.to_owned(), (rows - rows_before).to_string(), (sum - sum_before).to_string()]));
    }
    contents.sequences.get(name).map(|last| filled([index.to_owned(), last.to_string(), "true".to_owned()]))
}

/// A foreign key to be looked into, and an index, none of them invalid.
fn integrity() -> Vec<Row> {
    let row = |kind: &'static str, object: &'static str, sql: Option<&'static str>, bytes: &'static str| {
        vec![Some(kind.into()), Some(object.into()), sql.map(Into::into), Some(bytes.into()), None]
    };
    vec![row("foreign_keys", "public.t2.t1_fkey", Some("select 1 from orphans"), "100"), row("indexes", "#", None, "1")]
}

/// An error of Postgres.
fn failure(code: &str, message: &str) -> sql::Answer {
    sql::server_error(code, message)
}
