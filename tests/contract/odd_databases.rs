//! Databases as people have them that a reader may stumble over: what they hold is read, and what
//! changes is seen.

use anyhow::{Context as _, Result};
use firstlight::neon::sql::Batch;
use firstlight::verify::{
    DatabasePrint, Found, Pages, armed_probes, decode_catalogue, probe_batch, role_batch,
    role_facts, take_probes,
};
use harness::emulator::{Emulator, Login};
use serde_json::json;

use crate::emulator;
use crate::schema::with_a_superuser;
use crate::verification::{catalogue, content, content_with, owner, send, send_to};

/// Runs one statement by itself, as the owner, in a database of staging.
fn alone(emulator: &Emulator, database: &str, sql: &str) -> Result<()> {
    let (branch, password) = (&emulator.staging, owner(emulator)?);
    emulator.alone(&Login { branch, role: "neondb_owner", password: &password, database }, sql)
}

/// Reads all of a database of staging.
fn read(emulator: &Emulator, database: &str) -> Result<DatabasePrint> {
    let password = owner(emulator)?;
    let ask = |batch: &Batch| send_to(emulator, database, ("neondb_owner", &password), batch);
    let catalogue =
        decode_catalogue(&Pages::fetch(&[], true, ask)?.context("a page makes no sense")?)
            .context("the catalogue makes no sense")?;
    content_with(&ask, &catalogue, catalogue.print.clone(), None)
}

/// Reads all of the owner's database of staging, with its catalogue as it is then.
fn as_owner(emulator: &Emulator) -> Result<DatabasePrint> {
    let password = owner(emulator)?;
    let catalogue = catalogue(emulator, "neondb_owner", &password)?;
    content(emulator, "neondb_owner", &password, &catalogue)
}

/// As in case 05, and the other ways in which one type holds another: a domain over an array, a
/// range, a table's row.
#[test]
fn a_type_without_a_binary_form_is_read_at_any_depth() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    emulator.sql(
        &emulator.staging,
        &[
            "create extension isn",
            "create extension seg",
            "create type public.edition as (title text, code isbn13)",
            "create type public.editions as (list isbn13[])",
            "create domain public.shelf as public.edition[]",
            "create type public.deep as (inside public.editions, note text)",
            "create type public.codes as range (subtype = isbn13)",
            "create table public.array_of_composite(id int primary key, s public.edition[])",
            "create table public.composite_with_array(id int primary key, s public.editions)",
            "create table public.of_domain(id int primary key, s public.shelf)",
            "create table public.of_deep(id int primary key, s public.deep)",
            "create table public.of_range(id int primary key, s public.codes)",
            "create table public.of_row(id int primary key, s public.array_of_composite)",
            "create table public.of_measure(id int primary key, s seg[])",
            "insert into public.array_of_composite \
                values (1, array[row('a', '9780000000002')::public.edition])",
            "insert into public.composite_with_array \
                values (1, row(array['9780000000002'::isbn13]))",
            "insert into public.of_domain \
                select id, s::public.shelf from public.array_of_composite",
            "insert into public.of_deep values (1, row(row(array['9780000000002'::isbn13]), 'n'))",
            "insert into public.of_range values (1, '[9780000000002,]')",
            "insert into public.of_row select 1, a from public.array_of_composite as a",
            "insert into public.of_measure values (1, array['1..2'::seg])",
        ],
    )?;
    let before = as_owner(&emulator)?;
    assert!(before.not_checked.is_empty(), "{:?}", before.not_checked);
    // NULL is not the composite of which every value is NULL.
    emulator.sql(
        &emulator.staging,
        &[
            "update public.array_of_composite set s = array[row('a', null)::public.edition]",
            "update public.composite_with_array set s = null",
            "update public.of_domain set s = array[row('b', '9780000000002')::public.edition]",
            "update public.of_deep set s.note = 'm'",
            "update public.of_range set s = null",
            "update public.of_row set s = row(1, null)",
            "update public.of_measure set s = array['1..3'::seg]",
        ],
    )?;
    let after = as_owner(&emulator)?;
    for table in [
        "array_of_composite",
        "composite_with_array",
        "of_domain",
        "of_deep",
        "of_range",
        "of_row",
        "of_measure",
    ] {
        let name = format!("public.{table}");
        assert_ne!(before.tables[&name], after.tables[&name], "{name}");
    }
    emulator.sql(&emulator.staging, &["update public.composite_with_array set s = row(null)"])?;
    let last = as_owner(&emulator)?;
    assert_ne!(
        last.tables["public.composite_with_array"], after.tables["public.composite_with_array"],
        "NULL for (NULL)"
    );
    Ok(())
}

/// As in case 15: bytes without a place in UTF-8, and types whose values are sent as text.
#[test]
fn a_database_that_is_not_in_utf8_is_read_in_its_own_encoding() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    for (name, encoding) in [("legacy", "SQL_ASCII"), ("western", "WIN1252")] {
        alone(
            &emulator,
            "neondb",
            &format!("create database {name} template template0 encoding '{encoding}' locale 'C'"),
        )?;
        for sql in [
            "create type public.noted as (n name, c char(4))",
            "create extension citext",
            "create table public.customer(id int primary key, code char(6), name text, \
                noted name, pair public.noted, free citext, many text[])",
            "insert into public.customer(id, code, name, noted) values \
                (1, 'A1', 'plain', 'n'), (2, E'A\\x81', E'Fran\\xe7ois \\x81', 'n')",
            "update public.customer set pair = row(E'x\\x81', E'y\\x81'), free = E'Z\\x81', \
                many = array[array[E'q\\x81']] where id = 2",
            "create table public.text_key(name text primary key, n int)",
            "insert into public.text_key values (E'B\\x81', 1)",
        ] {
            alone(&emulator, name, sql)?;
        }
        let before = read(&emulator, name)?;
        assert_eq!(
            (before.tables["public.customer"].count, before.not_checked.len()),
            (2, 0),
            "{name}: {:?}",
            before.not_checked
        );
        let changes = [
            ("a char(n)", "update public.customer set code = E'A\\x82' where id = 2"),
            (
                "a composite",
                "update public.customer set pair = row(E'x\\x81', E'y\\x82') where id = 2",
            ),
            ("citext", "update public.customer set free = E'z\\x81' where id = 2"),
            ("an array", "update public.customer set many = array[array[E'q\\x82']] where id = 2"),
        ];
        let mut seen = before;
        for (what, sql) in changes {
            alone(&emulator, name, sql)?;
            let now = read(&emulator, name)?;
            assert_ne!(
                now.tables["public.customer"], seen.tables["public.customer"],
                "{name}: {what}"
            );
            seen = now;
        }
    }
    Ok(())
}

/// As in case 04: what is computed when it is read may fail, and is no content.
#[test]
fn a_virtual_column_that_cannot_be_computed_keeps_no_table_from_being_read() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    emulator.sql(
        &emulator.staging,
        &[
            "create table public.invoice(id int primary key, cents int not null, \
                quantity int not null, \
                unit int generated always as (cents / quantity) virtual, \
                kept int generated always as (cents + 1) stored)",
            "insert into public.invoice(id, cents, quantity) values (1, 1000, 4), (2, 500, 0)",
            "create table public.doubled(a int primary key, \
                b int generated always as (a * 2) virtual)",
            "insert into public.doubled(a) values (1), (2000000000)",
        ],
    )?;
    let print = as_owner(&emulator)?;
    assert_eq!(
        (print.tables["public.invoice"].count, print.tables["public.doubled"].count),
        (2, 2),
        "{:?}",
        print.not_checked
    );
    emulator.sql(&emulator.staging, &["update public.invoice set cents = 501 where id = 2"])?;
    let after = as_owner(&emulator)?;
    assert_ne!(after.tables["public.invoice"], print.tables["public.invoice"]);
    Ok(())
}

/// As in case 07: whatever a database or a role has set, our transactions have time. The names come
/// from the server.
#[test]
fn no_timeout_of_a_database_or_a_role_is_in_force_for_us() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let settings = "select name from pg_settings \
        where name like '%timeout%' and context = 'user' and vartype = 'integer' \
        and name not in ('tcp_user_timeout', 'wal_sender_timeout') order by name";
    let names: Vec<String> = emulator
        .sql(&emulator.staging, &[settings])?
        .into_iter()
        .filter_map(|row| row[0].clone())
        .collect();
    assert!(
        names.iter().any(|name| name == "transaction_timeout") && names.len() >= 5,
        "{names:?}"
    );
    for name in &names {
        emulator
            .sql(&emulator.staging, &[&format!("alter role neondb_owner set {name} = '777ms'")])?;
    }
    let shown: Vec<String> =
        names.iter().map(|name| format!("current_setting('{name}')")).collect();
    let statement = format!("select {}, pg_sleep(1)::text", shown.join(", "));
    let batch = Batch { statements: vec![(statement, Vec::new())], is_read_only: true };
    let rows = send(&emulator, "neondb_owner", &owner(&emulator)?, &batch)?;
    for (name, value) in names.iter().zip(&rows[0].rows[0]) {
        assert_ne!(value.as_deref(), Some("777ms"), "{name}");
    }
    Ok(())
}

/// As in case 12: `pg_cron` keeps the jobs of every database in one.
#[test]
fn a_job_for_another_database_of_the_copy_is_armed_and_one_for_a_database_that_is_gone_is_not()
-> Result<()> {
    let (_folder, emulator) = emulator()?;
    alone(&emulator, "neondb", "create database reports")?;
    emulator.sql(
        &emulator.staging,
        &[
            "create schema cron",
            "create table cron.job(jobid bigint primary key, schedule text, command text, \
                database text, active boolean default true, jobname text)",
            "insert into cron.job values \
                (1, '*/5 * * * *', 'select 1', 'reports', true, 'invoices'), \
                (2, '0 3 * * *', 'vacuum', 'gone', true, 'x'), \
                (3, '1 1 * * *', 'select 2', 'neondb', true, 'here'), \
                (4, '1 1 * * *', 'select 2', 'reports', false, 'off')",
        ],
    )?;
    let settings = crate::defects::pair(&json!({}));
    let mut probes = armed_probes(&settings.verification);
    let chosen: Vec<usize> = (0..probes.len()).collect();
    let answer =
        send(&emulator, "neondb_owner", &owner(&emulator)?, &probe_batch(&probes, &chosen))?;
    take_probes(&mut probes, &chosen, &answer).context("the answer makes no sense")?;
    let row = |text: &str| vec![Some(text.to_owned())];
    let jobs = vec![
        row("job 1 of pg_cron (*/5 * * * *, invoices) in reports"),
        row("job 3 of pg_cron (1 1 * * *, here)"),
    ];
    assert_eq!(probes[0].found, Some(Found::Rows(jobs)));
    Ok(())
}

/// As in case 19: a login trigger that writes lets nobody in to a read-only server; ours are off,
/// or named before anything is made.
#[test]
fn a_login_trigger_does_not_run_at_our_log_ins_or_is_named() -> Result<()> {
    let (_folder, emulator) = with_a_superuser()?;
    let password = owner(&emulator)?;
    emulator.sql(
        &emulator.staging,
        &[
            "create table public.login_log(who text)",
            "create function public.note_login() returns event_trigger \
                language plpgsql security definer as \
                $$ begin insert into public.login_log values (session_user); end $$",
            "create event trigger note_login on login execute function public.note_login()",
        ],
    )?;
    let noted =
        || emulator.sql(&emulator.staging, &["select count(*)::text from public.login_log"]);
    let before = noted()?;
    assert_ne!(noted()?, before, "the trigger runs for others");
    let before = noted()?[0][0].clone().unwrap_or_default().parse::<u32>()?;
    let facts = role_facts(&send(&emulator, "neondb_owner", &password, &role_batch())?)
        .context("the answer makes no sense")?;
    assert_eq!((facts.login_triggers, facts.sees_all_rows), (None, true));
    assert_eq!(noted()?[0][0], Some((before + 1).to_string()), "only the look itself was noted");
    emulator.control("PUT", "switches", Some(r#"{"sql_passes_options": false}"#))?;
    let facts = role_facts(&send(&emulator, "neondb_owner", &password, &role_batch())?)
        .context("the answer makes no sense")?;
    assert_eq!(facts.login_triggers.as_deref(), Some("note_login"));
    Ok(())
}

/// As in case 11: tables of extensions belong to `cloud_admin` and hold rows of people's own, as
/// `spatial_ref_sys` does, or `cron.job`.
#[test]
fn tables_of_extensions_are_read_and_their_definitions_compared() -> Result<()> {
    let (_folder, emulator) = with_a_superuser()?;
    emulator.sql(
        &emulator.staging,
        &[
            "create table public.spatial_ref_sys \
                (srid int primary key, auth_name text, proj4text text)",
            "insert into public.spatial_ref_sys \
                values (4326, 'EPSG', '+proj=longlat'), (900913, 'ours', '+proj=merc')",
            "create schema cron",
            "create table cron.job (jobid bigint primary key, command text)",
            "insert into cron.job values (1, 'select 1')",
            "alter table public.spatial_ref_sys owner to cloud_admin",
            "alter table cron.job owner to cloud_admin",
            "alter schema cron owner to cloud_admin",
            "grant all on public.spatial_ref_sys to neondb_owner with grant option",
            "grant usage on schema cron to neondb_owner",
            "grant select on cron.job to neondb_owner",
        ],
    )?;
    let before = read(&emulator, "neondb")?;
    assert_eq!(before.tables["public.spatial_ref_sys"].count, 2);
    assert_eq!(before.tables["cron.job"].count, 1);
    let changes = [
        "delete from public.spatial_ref_sys where srid = 900913",
        "alter table public.spatial_ref_sys drop column proj4text",
    ];
    emulator.sql(&emulator.staging, &changes)?;
    let after = read(&emulator, "neondb")?;
    assert_ne!(
        after.tables["public.spatial_ref_sys"], before.tables["public.spatial_ref_sys"],
        "a row is gone"
    );
    assert_ne!(after.schema["columns"], before.schema["columns"], "a column is gone");
    Ok(())
}
