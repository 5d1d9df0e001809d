//! Neon's own clock, and what becomes of a query whose client went away.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, TimeDelta, Utc};
use harness::emulator::{Emulator, Options};
use serde_json::{Value, json};

use crate::{emulator, emulator_with, make_branch};

/// Sends statements of one transaction to staging, the last of which takes so many seconds, and
/// hangs up while Postgres runs it.
fn sends_and_hangs_up(emulator: &Emulator, statements: &[&str], seconds: f64) -> Result<()> {
    let sleep = format!("select pg_sleep({seconds})");
    let queries: Vec<Value> =
        statements.iter().chain([&sleep.as_str()]).map(|sql| json!({"query": sql})).collect();
    let body = json!({"queries": queries}).to_string();
    let host =
        emulator.writer(&emulator.staging)?["host"].as_str().context("read the host")?.to_owned();
    let connection = format!(
        "postgresql://neondb_owner:{}@{host}/neondb",
        emulator.owner_password(&emulator.staging)?
    );
    let address = emulator.url.strip_prefix("http://").context("read the address")?;
    let mut stream = TcpStream::connect(address)?;
    let length = body.len();
    let head = format!(
        "POST /sql HTTP/1.1\r\nhost: x\r\nneon-connection-string: \
            {connection}\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    harness::wait_for(Duration::from_secs(10), || sleeps(emulator).ok().filter(|sleeps| *sleeps))
        .context("Postgres has not begun")?;
    drop(stream);
    harness::wait_for(Duration::from_secs(20), || sleeps(emulator).ok().filter(|sleeps| !sleeps))
        .context("Postgres has not ended")?;
    Ok(())
}

/// Returns whether somebody sleeps on staging.
fn sleeps(emulator: &Emulator) -> Result<bool> {
    let sql = "select count(*) from pg_stat_activity where state = 'active' and query like 'select \
        pg_sleep%'";
    Ok(one(emulator, sql)? != "0")
}

fn one(emulator: &Emulator, sql: &str) -> Result<String> {
    emulator
        .sql(&emulator.staging, &[sql])?
        .into_iter()
        .flatten()
        .next()
        .flatten()
        .context("a value")
}

fn users(emulator: &Emulator) -> Result<String> {
    one(emulator, "select count(*) from users")
}

fn owner_password_as_told(emulator: &Emulator) -> Result<Value> {
    let path = format!("/branches/{}/roles/neondb_owner/reveal_password", emulator.staging);
    Ok(emulator.call("GET", &path, None)?.json()["password"].clone())
}

#[test]
fn a_query_whose_client_went_away_is_cancelled_unless_it_outlives_that() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    assert_eq!(users(&emulator)?, "2");
    sends_and_hangs_up(&emulator, &["insert into users values (10, 'ten')"], 60.0)?;
    assert_eq!(users(&emulator)?, "2", "it was cancelled, and nothing of it committed");

    emulator.fault("sql", 1, &json!({"kind": "outlives_client"}))?;
    sends_and_hangs_up(&emulator, &["insert into users values (10, 'ten')"], 1.5)?;
    let committed = harness::wait_for(Duration::from_secs(5), || {
        users(&emulator).ok().filter(|count| count == "3")
    });
    assert!(committed.is_some(), "it was committed late");
    Ok(())
}

#[test]
fn a_password_is_known_to_neon_at_its_commit_whoever_hears_of_it() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    users(&emulator)?;
    let before = owner_password_as_told(&emulator)?;
    sends_and_hangs_up(&emulator, &["alter role neondb_owner password 'npg_cancelled'"], 60.0)?;
    assert_eq!(owner_password_as_told(&emulator)?, before, "what was rolled back is not known");

    emulator.fault("sql", 1, &json!({"kind": "outlives_client"}))?;
    sends_and_hangs_up(&emulator, &["alter role neondb_owner password 'npg_unheard'"], 1.5)?;
    let told = harness::wait_for(Duration::from_secs(5), || {
        owner_password_as_told(&emulator).ok().filter(|password| password == "npg_unheard")
    });
    assert!(told.is_some(), "{}", owner_password_as_told(&emulator)?);

    // The proxy takes it from a moment on. The reply is lost after the commit: the next question is
    // answered with what was committed.
    users(&emulator)?;
    emulator.fault("sql", 1, &json!({"kind": "drop_after"}))?;
    assert!(
        emulator.sql(&emulator.staging, &["alter role neondb_owner password 'npg_lost'"]).is_err()
    );
    assert_eq!(owner_password_as_told(&emulator)?, "npg_lost");
    Ok(())
}

#[test]
fn a_query_that_arrives_later_is_done_after_its_connection_was_dropped() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    users(&emulator)?;
    emulator.fault("sql", 1, &json!({"kind": "later", "milliseconds": 700}))?;
    assert!(emulator.sql(&emulator.staging, &["insert into users values (10, 'ten')"]).is_err());
    assert_eq!(users(&emulator)?, "2", "nothing of it is done yet");
    let done = harness::wait_for(Duration::from_secs(10), || {
        users(&emulator).ok().filter(|count| count == "3")
    });
    assert!(done.is_some());
    Ok(())
}

#[test]
fn everything_that_neon_says_of_time_is_by_its_own_clock() -> Result<()> {
    for offset in [-240, 240] {
        let (_folder, emulator) =
            emulator_with(Options { clock_offset_s: offset, ..Options::default() })?;
        let made = make_branch(
            &emulator,
            &json!({"branch": {"name": "backup-1"}, "endpoints": [{"type": "read_write"}]}),
        )?;
        // Computes have the clock of the machine, as we have.
        let ours: DateTime<Utc> = one(
            &emulator,
            "select to_char(now() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
        )?
        .parse()?;
        let branch = emulator.call("GET", &format!("/branches/{made}"), None)?.json();
        let operations = emulator.call("GET", "/operations", None)?.json();
        for text in [&branch["branch"]["created_at"], &operations["operations"][0]["created_at"]] {
            let at: DateTime<Utc> = text.as_str().context("an instant")?.parse()?;
            let ahead = at - ours;
            assert!(
                (ahead - TimeDelta::seconds(offset)).abs() < TimeDelta::seconds(60),
                "{offset}: {ahead}"
            );
        }
        // By its clock the branch was made a moment ago, and can be branched at that time.
        let at = branch["branch"]["created_at"].clone();
        let child = json!({"branch": {"name": "of-then", "parent_id": emulator.production,
            "parent_timestamp": at}});
        make_branch(&emulator, &child)?;
    }
    Ok(())
}
