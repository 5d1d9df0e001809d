//! One suite over both forms of the emulated Neon: the served one with PostgreSQL, and the one in
//! memory that the simulation uses.
//!
//! Each step writes down what a client sees (statuses, errors, names, states, the decoded answers
//! of our own SQL), with ids replaced by names. The two protocols must be equal, so that what the
//! simulation shows of the Worker holds for the served Neon, which foreign clients judge.

mod forms;

use anyhow::{Context as _, Result};
use firstlight::id::Secret;
use firstlight::neon::sql::{Batch, Login};
use firstlight::port::HttpResponse;
use firstlight::verify::{DatabasePrint, Pages, decode_catalogue, pieces, role_batch, role_facts};
use serde_json::{Value, json};

use self::forms::{InMemory, Neon};
use crate::emulator;

/// What a client has seen, step by step.
struct Protocol<'a> {
    neon: &'a mut dyn Neon,
    lines: Vec<String>,
}

impl Protocol<'_> {
    fn note(&mut self, text: String) {
        self.lines.push(text);
    }

    /// Calls, and notes the status with Neon's words for an error.
    fn call(&mut self, what: &str, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let (status, body) = self.neon.call(method, path, body)?;
        let named = self.named(&body)?;
        let text = if status < 300 {
            keys(&body)
        } else {
            format!("{} {}", named["code"], named["message"])
        };
        self.note(format!("{what}: {status} {text}"));
        Ok(body)
    }

    fn branches(&mut self) -> Result<Vec<Value>> {
        let (_, body) = self.neon.call(
            "GET",
            "/branches?sort_by=created_at&sort_order=asc&limit=10000",
            None,
        )?;
        body["branches"].as_array().cloned().context("a list of branches")
    }

    fn id(&mut self, name: &str) -> Result<String> {
        let branches = self.branches()?;
        let found = branches.iter().find(|branch| branch["name"] == name);
        found
            .and_then(|branch| branch["id"].as_str())
            .map(str::to_owned)
            .with_context(|| format!("find {name}"))
    }

    /// Replaces the ids of branches by their names.
    fn named(&mut self, value: &Value) -> Result<Value> {
        let mut text = value.to_string();
        for branch in self.branches()? {
            text = text.replace(
                branch["id"].as_str().unwrap_or_default(),
                branch["name"].as_str().unwrap_or_default(),
            );
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Notes every branch with what the Worker reads of it.
    fn note_branches(&mut self, when: &str) -> Result<()> {
        let body = self.neon.call("GET", "/branches", None)?.1;
        let named = self.named(&body)?;
        let mut lines: Vec<String> = named["branches"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|branch| {
                let note =
                    &named["annotations"][branch["name"].as_str().unwrap_or_default()]["value"];
                let has_position = branch["parent_lsn"].is_string();
                format!(
                    "{when}: {} child of {} {} default {} protected {} position \
                        {has_position} note {note} keys {}",
                    branch["name"],
                    branch["parent_id"],
                    branch["current_state"],
                    branch["default"],
                    branch["protected"],
                    keys(branch)
                )
            })
            .collect();
        lines.sort();
        self.lines.append(&mut lines);
        let endpoints = self.neon.call("GET", "/endpoints", None)?.1;
        let named = self.named(&endpoints)?;
        let mut lines: Vec<String> = named["endpoints"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|endpoint| {
                format!(
                    "{when}: endpoint of {} {} disabled {}",
                    endpoint["branch_id"], endpoint["type"], endpoint["disabled"]
                )
            })
            .collect();
        lines.sort();
        self.lines.append(&mut lines);
        Ok(())
    }

    fn login(&mut self, branch: &str, password: Option<&str>) -> Result<Login> {
        let id = self.id(branch)?;
        let (_, endpoints) = self.neon.call("GET", "/endpoints", None)?;
        let endpoint = endpoints["endpoints"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|endpoint| endpoint["branch_id"] == id.as_str());
        let host = endpoint
            .and_then(|endpoint| endpoint["host"].as_str())
            .context("find the endpoint")?
            .to_owned();
        let (_, revealed) = self.neon.call(
            "GET",
            &format!("/branches/{id}/roles/neondb_owner/reveal_password"),
            None,
        )?;
        let password = password.or(revealed["password"].as_str()).context("a password")?.to_owned();
        Ok(Login {
            host,
            database: "neondb".into(),
            role: "neondb_owner".into(),
            password: Secret::new(password),
        })
    }

    /// Sends a batch as the Worker does, and notes an error as the Worker sees it.
    fn query(
        &mut self,
        what: &str,
        login: &Login,
        batch: &Batch,
        secret: Option<&str>,
    ) -> Result<Option<Vec<firstlight::neon::sql::Rows>>> {
        let secret = secret.map(|text| Secret::new(text.to_owned()));
        let request = batch.encode(login, None, secret.as_ref().map(|secret| (0, secret)));
        let (status, body) = self.neon.query(&request)?;
        match batch.decode(login, Ok(HttpResponse { status, body, ..HttpResponse::default() })) {
            Ok(rows) => {
                self.note(format!("{what}: answered, {} results", rows.len()));
                Ok(Some(rows))
            }
            Err(error) => {
                self.note(format!("{what}: {error}, passing {}", error.is_passing()));
                Ok(None)
            }
        }
    }

    /// Reads everything that a branch holds, as the Worker does.
    fn print(&mut self, branch: &str) -> Result<DatabasePrint> {
        let login = self.login(branch, None)?;
        let ask = |batch: &Batch| {
            self.query(&format!("catalogue of {branch}"), &login, batch, None)?
                .context("no catalogue")
        };
        let rows = Pages::fetch(&[], false, ask)?.context("a page makes no sense")?;
        let catalogue = decode_catalogue(&rows).context("the catalogue makes no sense")?;
        let mut print = catalogue.print.clone();
        for (piece, batch) in pieces(&catalogue, &print, None) {
            let rows = self
                .query(&format!("content of {branch}"), &login, &batch, None)?
                .context("no content")?;
            print
                .take(&piece, &rows, std::time::Duration::ZERO)
                .context("the content makes no sense")?;
        }
        let counts: Vec<String> =
            print.tables.iter().map(|(name, table)| format!("{name} {}", table.count)).collect();
        self.note(format!(
            "{branch} holds {counts:?}, complete {}",
            pieces(&catalogue, &print, None).is_empty()
        ));
        Ok(print)
    }
}

/// The names of an object's fields.
fn keys(value: &Value) -> String {
    let mut keys: Vec<&str> =
        value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    // The served one knows when a compute was used and where a branch is in time; the Worker reads
    // neither.
    keys.retain(|key| {
        !matches!(*key, "last_active" | "parent_timestamp" | "parent_lsn" | "logical_size")
    });
    keys.sort_unstable();
    keys.join(",")
}

/// What is done to either.
fn suite(neon: &mut dyn Neon) -> Result<Vec<String>> {
    let mut protocol = Protocol { neon, lines: Vec::new() };
    names_locks_and_places(&mut protocol)?;
    reading(&mut protocol)?;
    logging_in(&mut protocol)?;
    giving_a_password(&mut protocol)?;
    ends_and_refusals(&mut protocol)?;
    Ok(protocol.lines)
}

fn names_locks_and_places(protocol: &mut Protocol<'_>) -> Result<()> {
    protocol.call("project", "GET", "", None)?;
    protocol.note_branches("at first")?;
    let production = protocol.id("production")?;
    let staging = protocol.id("staging")?;
    let backup = json!({
        "branch": {"name": "backup-20261121", "parent_id": production},
        "endpoints": [{"type": "read_only"}],
        "annotation_value": {"firstlight": "hub", "run": "20261121"},
    });
    protocol.call("backup", "POST", "/branches", Some(backup.clone()))?;
    protocol.call(
        "backup while locked",
        "POST",
        "/branches",
        Some(json!({"branch": {"name": "other"}})),
    )?;
    let id = protocol.id("backup-20261121")?;
    let restore = |name: &str| Some(json!({"source_branch_id": id, "preserve_under_name": name}));
    let path = format!("/branches/{staging}/restore");
    protocol.call("restore while locked", "POST", &path, restore("staging-of-a"))?;
    protocol.neon.settle()?;
    protocol.note_branches("with a backup")?;
    protocol.call("backup again", "POST", "/branches", Some(backup))?;
    protocol.call("restore", "POST", &path, restore("staging-of-a"))?;
    protocol.neon.settle()?;
    protocol.note_branches("restored")?;
    protocol.call("restore again", "POST", &path, restore("staging-of-a"))?;
    protocol.call("delete the backup", "DELETE", &format!("/branches/{id}"), None)?;
    protocol.call("operations", "GET", "/operations?limit=100", None)?;
    Ok(())
}

/// Reads and compares copies, before and after a write.
fn reading(protocol: &mut Protocol<'_>) -> Result<()> {
    let (backup, staging) = (protocol.print("backup-20261121")?, protocol.print("staging")?);
    protocol.note(format!("equal as restored: {}", backup == staging));
    protocol.neon.write_to_staging()?;
    let written = protocol.print("staging")?;
    protocol.note(format!("equal after a write: {}", backup.tables == written.tables));
    let check = json!({
        "branch": {"name": "staging-check", "parent_id": protocol.id("staging")?,
            "parent_lsn": lsn(protocol, "staging")?},
        "endpoints": [{"type": "read_only"}],
    });
    protocol.call("check branch", "POST", "/branches", Some(check))?;
    protocol.neon.settle()?;
    let undisturbed = protocol.print("staging-check")?;
    protocol.note(format!(
        "the branch at the fork is what was restored: {}",
        backup.tables == undisturbed.tables
    ));
    Ok(())
}

/// Logs in as it should be done, and in ways that are refused.
fn logging_in(protocol: &mut Protocol<'_>) -> Result<()> {
    let login = protocol.login("staging", None)?;
    let rows =
        protocol.query("sees all rows", &login, &role_batch(), None)?.context("no answer")?;
    protocol.note(format!("sees all rows: {:?}", role_facts(&rows)));
    let wrong = protocol.login("staging", Some("wrong"))?;
    protocol.query("wrong password", &wrong, &role_batch(), None)?;
    let nowhere = Login { database: "nowhere".into(), ..login.clone() };
    protocol.query("no such database", &nowhere, &role_batch(), None)?;
    let gone = Login { host: "ep-gone-gone-00000000.us-east-2.neon.test".to_owned(), ..login };
    protocol.query("no such endpoint", &gone, &role_batch(), None)?;
    Ok(())
}

/// Gives the role another password, and asks which compute answers with it.
fn giving_a_password(protocol: &mut Protocol<'_>) -> Result<()> {
    let login = protocol.login("staging", None)?;
    let mut give = Batch {
        statements: vec![
            (
                "select length(set_config('firstlight.password', $1, true)) > 0".to_owned(),
                Vec::new(),
            ),
            (
                "do $$ begin execute pg_catalog.format('alter role current_user password \
                    %L', pg_catalog.current_setting('firstlight.password')); end $$"
                    .to_owned(),
                Vec::new(),
            ),
        ],
        is_read_only: true,
    };
    protocol.query("password, read only", &login, &give, Some("npg_another"))?;
    give.is_read_only = false;
    protocol.query("password", &login, &give, Some("npg_another"))?;
    let which = "select concat(extract(epoch from pg_postmaster_start_time()))".to_owned();
    let which = Batch { statements: vec![(which, Vec::new())], is_read_only: true };
    let given = protocol.login("staging", Some("npg_another"))?;
    protocol.neon.hear_of_passwords();
    let rows = protocol.query("which compute", &given, &which, None)?;
    let rows = rows.with_context(|| format!("no answer: {:?}", protocol.lines.last()))?;
    let compute = rows[0].rows[0][0].clone().context("a compute")?;
    protocol.query("meant for this compute", &given, &bound_to(&compute), None)?;
    protocol.query("meant for another compute", &given, &bound_to("1.000001"), None)?;
    let id = protocol.id("staging")?;
    let (status, revealed) = protocol.neon.call(
        "GET",
        &format!("/branches/{id}/roles/neondb_owner/reveal_password"),
        None,
    )?;
    protocol.note(format!("revealed: {status} {}", revealed["password"]));
    protocol.query("log in with it", &given, &role_batch(), None)?;
    Ok(())
}

/// A batch that runs only on the compute that it is meant for.
fn bound_to(compute: &str) -> Batch {
    Batch {
        statements: vec![
            (
                "select length(set_config('firstlight.compute', $1, true)) > 0".to_owned(),
                vec![compute.to_owned()],
            ),
            (
                "do $$ begin if current_setting('firstlight.compute') <> \
                    concat(extract(epoch from pg_postmaster_start_time())) then \
                    raise exception using errcode = '40001', message = 'another compute answers \
                    than the one that was asked'; end if; end $$"
                    .to_owned(),
                Vec::new(),
            ),
        ],
        is_read_only: false,
    }
}

fn lsn(protocol: &mut Protocol<'_>, name: &str) -> Result<Value> {
    let branches = protocol.branches()?;
    let found = branches.iter().find(|branch| branch["name"] == name).context("find the branch")?;
    Ok(found["parent_lsn"].clone())
}

fn ends_and_refusals(protocol: &mut Protocol<'_>) -> Result<()> {
    let staging = format!("/branches/{}", protocol.id("staging")?);
    let check = format!("/branches/{}", protocol.id("staging-check")?);
    let displaced = format!("/branches/{}", protocol.id("staging-of-a")?);
    for what in ["delete", "delete again"] {
        protocol.call(&format!("{what} the check branch"), "DELETE", &check, None)?;
        protocol.neon.settle()?;
    }
    protocol.call(
        "rename to a taken name",
        "PATCH",
        &displaced,
        Some(json!({"branch": {"name": "staging"}})),
    )?;
    protocol.call("protect", "PATCH", &staging, Some(json!({"branch": {"protected": true}})))?;
    let backup = protocol.id("backup-20261121")?;
    let body = json!({"source_branch_id": backup, "preserve_under_name": "y"});
    protocol.call(
        "restore a protected branch",
        "POST",
        &format!("{staging}/restore"),
        Some(body),
    )?;
    protocol.call("delete a protected branch", "DELETE", &staging, None)?;
    protocol.call("read what is gone", "GET", "/branches/br-gone-gone-00000000", None)?;
    protocol.call(
        "restore what is gone",
        "POST",
        "/branches/br-gone-gone-00000000/restore",
        Some(json!({"source_branch_id": backup})),
    )?;
    protocol.call(
        "an unknown role",
        "GET",
        &format!("{displaced}/roles/nobody/reveal_password"),
        None,
    )?;
    protocol.call("databases", "GET", &format!("{displaced}/databases"), None)?;
    protocol.call("roles", "GET", &format!("{displaced}/roles"), None)?;
    let production = protocol.id("production")?;
    for lsn in ["F/0", "0/1"] {
        let asked =
            json!({"branch": {"name": "elsewhere", "parent_id": production, "parent_lsn": lsn}});
        protocol.call(&format!("a branch at {lsn}"), "POST", "/branches", Some(asked))?;
    }
    let typed = json!({"source_branch_id": backup, "source_lsn": 123});
    protocol.call(
        "a position that is a number",
        "POST",
        &format!("/branches/{production}/restore"),
        Some(typed),
    )?;
    let body = json!({"source_branch_id": backup, "preserve_under_name": "production-before"});
    protocol.call(
        "restore production",
        "POST",
        &format!("/branches/{production}/restore"),
        Some(body),
    )?;
    protocol.neon.settle()?;
    let before = protocol.id("production-before")?;
    protocol.call("delete what production was", "DELETE", &format!("/branches/{before}"), None)?;
    protocol.note_branches("at last")
}

#[test]
fn the_neon_of_the_simulation_answers_as_the_served_one_does() -> Result<()> {
    let (_folder, mut served) = emulator()?;
    let served = suite(&mut served)?;
    let in_memory = suite(&mut InMemory::new()?)?;

    let differing: Vec<String> = served
        .iter()
        .zip(&in_memory)
        .filter(|(left, right)| left != right)
        .map(|(left, right)| format!("\n  served    {left}\n  in memory {right}"))
        .collect();
    assert!(
        differing.is_empty(),
        "{} of {} steps differ:{}",
        differing.len(),
        served.len(),
        differing.concat()
    );
    assert_eq!(served.len(), in_memory.len());
    assert!(served.len() >= 70, "only {} lines were compared", served.len());
    Ok(())
}
