//! What verification is given in the worst case, on real PostgreSQL: odd types and values, tables
//! that change while they are read, statements that take too long, replies that are too large, a
//! compute that falls asleep.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use firstlight::neon::sql::{Batch, SqlError};
use firstlight::verify::{
    Catalogue, DatabasePrint, Fingerprint, Found, Probe, ProbeKind, ROWS_AT_ONCE, Shape, Wanted,
    compare, decode_catalogue, decode_rows, differing_ranges, keys_batch, next_probes, pieces,
    probe_batch, probes_too_slow, rows_batch, take_probes,
};
use harness::emulator::Emulator;

use crate::verification::{catalogue, content, differing_rows, listed, owner, send};
use crate::{emulator, settle};

const OWNER: &str = "neondb_owner";

/// Sends a batch, and returns the error of SQL where there is one.
fn ask(
    emulator: &Emulator,
    password: &str,
    batch: &Batch,
) -> Result<Result<Vec<firstlight::neon::sql::Rows>, SqlError>> {
    match send(emulator, OWNER, password, batch) {
        Ok(rows) => Ok(Ok(rows)),
        Err(error) => error.downcast::<SqlError>().map(Err),
    }
}

/// Reads what is left to be read, as the machine does: what is refused is told apart from what can
/// be read.
fn go_on(
    emulator: &Emulator,
    password: &str,
    mut catalogue: Catalogue,
    mut print: DatabasePrint,
) -> Result<DatabasePrint> {
    for _ in 0..100 {
        let asked = pieces(&catalogue, &print, None);
        if asked.is_empty() {
            return Ok(print);
        }
        for (piece, batch) in asked {
            match ask(emulator, password, &batch)? {
                Ok(rows) => {
                    let refused = print
                        .take(&piece, &rows, Duration::from_millis(10))
                        .context("the content makes no sense")?;
                    for refused in &refused {
                        print.refused_alone(refused, &refused.error(&"neondb".into()));
                    }
                }
                Err(error) if error.may_be_about_an_object() => {
                    print.refused(&piece);
                    let mut again =
                        decode_catalogue(&listed(emulator, OWNER, password, &[], false)?)
                            .context("a catalogue")?;
                    print = std::mem::take(&mut again.print).going_on(print, &again);
                    catalogue = again;
                    break;
                }
                Err(error) => bail!("{error}"),
            }
        }
    }
    bail!("reading does not come to an end")
}

/// Changes a database as a superuser, and reads it as far as it can be read.
fn read_after(statements: &[&str]) -> Result<DatabasePrint> {
    let (_folder, emulator) = crate::schema::with_a_superuser()?;
    let password = owner(&emulator)?;
    emulator.sql(&emulator.staging, statements)?;
    let known = catalogue(&emulator, OWNER, &password)?;
    let print = known.print.clone();
    go_on(&emulator, &password, known, print)
}

/// Columns and pairs of values that some hash, or some `=`, takes for the same.
const ALIKE: [(&str, &str, &str); 63] = [
    ("f", "'NaN'", "'Infinity'"),
    ("f", "'-0'", "'0'"),
    ("f", "'-Infinity'", "null"),
    ("n", "'NaN'", "'Infinity'"),
    ("n", "1.0", "1.00"),
    ("l", "'Straße'", "'STRASSE'"),
    ("p", "row(1, null)", "row(1, '')"),
    ("p", "row(null, null)", "null"),
    ("t", "'{a,NULL}'", "'{a,\"NULL\"}'"),
    ("t", "'[2:3]={a,b}'", "'{a,b}'"),
    ("s", "'[1.0,2.0)'", "'[1.00,2.0)'"),
    ("o", "4294967295", "0"),
    ("b", "-1", "4294967295"),
    ("b", "1", "4294967296"),
    ("t1", "'2024-01-01 00:00+00'", "'2023-12-31 22:48:25.032705+00'"),
    ("t1", "'-infinity'", "'infinity'"),
    ("t1", "'4714-11-24 00:00+00 BC'", "'4714-11-24 00:00:00.000001+00 BC'"),
    ("t1", "'294276-12-31 23:59:59.999999+00'", "'294276-12-31 22:48:25.032702+00'"),
    ("t2", "'2024-01-01 00:00'", "'2023-12-31 22:48:25.032705'"),
    ("t2", "'-infinity'", "null"),
    ("d", "'infinity'", "'-infinity'"),
    ("d", "'infinity'", "null"),
    ("d", "'4714-11-24 BC'", "'5874897-12-31'"),
    ("d", "'2000-01-01'", "null"),
    ("f4", "'-0'", "'0'"),
    ("f4", "0", "null"),
    ("f4", "1", "1.0000001"),
    ("h", "'00:00'", "'24:00'"),
    ("h", "'00:00'", "'01:11:34.967296'"),
    ("x", "'{\"a\":1}'", "'{\"a\": 1}'"),
    ("raw", "'\\x'", "null"),
    ("raw", "'\\x00'", "'\\x0000'"),
    ("flag", "false", "null"),
    ("s2", "-1", "1"),
    ("u", "'00000000-0000-0000-0000-000000000000'", "null"),
    ("v", "'a'", "'a '"),
    ("v", "''", "null"),
    ("dm", "'glad'", "'sad'"),
    ("rc", "'one'", "'two'"),
    ("ts", "'a:1'", "'a:1A'"),
    ("ip", "'10.0.0.1/8'", "'10.0.0.1'"),
    ("m", "'08:00:2b:01:02:03:04:05'", "'08:00:2b:01:02:03:04:06'"),
    ("y", "'{[1,3)}'", "'{[1,2),[2,4)}'"),
    ("i", "'24 h'", "'1 day'"),
    ("tt", "'00:00+00'", "'01:00+01'"),
    ("c", "'a'", "'b'"),
    ("z", "'1'", "'2'"),
    ("j", "'1.0'", "'1.00'"),
    ("a", "'{a,b}'", "'{{a,b}}'"),
    ("a", "'{{a},{b}}'", "'{{a,b}}'"),
    ("a", "'{a,b}'", "'[0:1]={a,b}'"),
    ("a", "'{{a,b}}'", "'[2:2][1:2]={{a,b}}'"),
    ("a", "'{}'", "null"),
    ("a", "'{NULL}'", "null"),
    ("a", "'{NULL}'", "'{}'"),
    ("a", "'{NULL,a}'", "'{a,NULL}'"),
    ("ai", "'{1,2}'", "'{2,1}'"),
    ("ai", "'{-1}'", "'{1}'"),
    ("ab", "'{-1}'", "'{4294967295}'"),
    ("al", "'{Straße}'", "'{STRASSE}'"),
    ("am", "'{glad}'", "'{sad}'"),
    ("af", "'{t,f}'", "'{t,NULL}'"),
    ("nested", "array[row(1, 'a')::public.pair]", "array[row(1, 'a')::public.pair, null]"),
];

#[test]
fn every_value_of_every_odd_type_is_told_from_its_neighbour() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let password = owner(&emulator)?;
    emulator.sql(
        &emulator.staging,
        &[
            "create collation public.loose (provider = icu, locale = 'und-u-ks-level2', \
                deterministic = false)",
            "create type public.pair as (a int, b text)",
            "create domain public.tags as text[]",
            "create type public.span as range (subtype = numeric)",
            "create type public.mood as enum ('glad', 'sad')",
            "create domain public.mood_too as public.mood",
            "create table public.odd(id int primary key, f float8, n numeric, \
                l text collate public.loose, p public.pair, t public.tags, s public.span, o oid, \
                b bigint, t1 timestamptz, dm public.mood_too, rc refcursor, ts tsvector, ip inet, \
                m macaddr8, y int4multirange, i interval, tt timetz, c \"char\", z xid, j jsonb, \
                nested public.pair[], t2 timestamp, d date, f4 float4, h time, x json, raw bytea, \
                flag bool, s2 int2, u uuid, v varchar(9), a text[], ai int[], ab bigint[], \
                al text[] collate public.loose, am public.mood[], af bool[])",
            "insert into public.odd(id) select generate_series(1, 20)",
        ],
    )?;
    for (column, one, other) in ALIKE {
        let digest = |value: &str| -> Result<_> {
            emulator.sql(
                &emulator.staging,
                &[&format!("update public.odd set {column} = {value} where id = 7")],
            )?;
            let catalogue = catalogue(&emulator, OWNER, &password)?;
            Ok(content(&emulator, OWNER, &password, &catalogue)?.tables["public.odd"].clone())
        };
        assert_ne!(
            digest(one)?,
            digest(other)?,
            "{column}: {one} and {other} are taken for the same"
        );
    }
    Ok(())
}

#[test]
fn a_document_of_many_megabytes_and_a_table_of_many_columns_are_read() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let password = owner(&emulator)?;
    let columns: Vec<String> =
        (0..1_500).map(|number| format!("c{number} int default {number}")).collect();
    emulator.sql(
        &emulator.staging,
        &[
            &format!("create table public.wide({})", columns.join(", ")),
            "insert into public.wide default values",
            "create table public.deep(id int primary key, doc jsonb)",
            "insert into public.deep select 1, jsonb_object_agg('k' || g, md5(g::text)) from \
                generate_series(1, 300000) g",
        ],
    )?;
    let read = || -> Result<DatabasePrint> {
        let catalogue = catalogue(&emulator, OWNER, &password)?;
        content(&emulator, OWNER, &password, &catalogue)
    };
    let before = read()?;
    emulator.sql(
        &emulator.staging,
        &[
            "update public.deep set doc = doc || '{\"k299999\": \"\"}'",
            "update public.wide set c1499 = 0",
        ],
    )?;
    let after = read()?;
    for table in ["public.wide", "public.deep"] {
        assert_ne!(before.tables[table], after.tables[table], "{table}");
    }
    Ok(())
}

#[test]
fn rows_without_a_key_are_counted_and_a_reply_that_is_too_large_is_an_error_that_names_itself()
-> Result<()> {
    let (_folder, emulator) = emulator()?;
    let password = owner(&emulator)?;
    let tables = ["public.one", "public.two"].map(str::to_owned);
    for table in &tables {
        emulator.sql(
            &emulator.staging,
            &[
                &format!("create table {table}(v text)"),
                &format!("insert into {table} values ('a'), ('a'), ('b')"),
            ],
        )?;
    }
    emulator.sql(
        &emulator.staging,
        &["delete from public.two where v = 'b'", "insert into public.two values ('a'), ('c')"],
    )?;
    let known = catalogue(&emulator, OWNER, &password)?;
    let found = differing_rows(&emulator, &password, &known, &tables)?;
    assert_eq!(found.to_string(), "1 row of the backup is gone, 2 were added");

    // As many hashes as are asked for at once are a third of what Neon answers with; values of a
    // megabyte are more.
    emulator.sql(
        &emulator.staging,
        &[
            "create table public.many(k int primary key)",
            &format!("insert into public.many select generate_series(1, {ROWS_AT_ONCE})"),
            "create table public.long(k int primary key, v text)",
            "insert into public.long select g, repeat('x', 1000000) from generate_series(1, 20) g",
        ],
    )?;
    let known = catalogue(&emulator, OWNER, &password)?;
    let of = |table: &str, shape: Shape| {
        [Wanted::whole(table, shape, differing_ranges(None, None), ROWS_AT_ONCE)]
    };
    let rows =
        send(&emulator, OWNER, &password, &rows_batch(&known, &of("public.many", Shape::Keyed)))?;
    assert_eq!(decode_rows(&rows[1]).map(|hashes| hashes.len()), Some(3_200_000));
    let mut large = keys_batch(&known, &of("public.long", Shape::Keyed), &[vec!["0".to_owned()]]);
    large.statements[1].0 = "select v, v from public.long".to_owned();
    let error = ask(&emulator, &password, &large)?.err().context("it was answered")?;
    assert!(error.to_string().contains("507"), "{error}");
    Ok(())
}

#[test]
fn a_table_that_is_dropped_or_altered_while_it_is_read_leaves_the_others() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let password = owner(&emulator)?;
    emulator.sql(
        &emulator.staging,
        &[
            "create table public.dropped(id int)",
            "create table public.altered(id int, v text)",
            "create table public.kept(id int)",
        ],
    )?;
    let known = catalogue(&emulator, OWNER, &password)?;
    let print = known.print.clone();
    // Between the catalogue and the content.
    emulator.sql(
        &emulator.staging,
        &["drop table public.dropped", "alter table public.altered drop column v"],
    )?;
    let print = go_on(&emulator, &password, known, print)?;
    assert!(
        print.tables.contains_key("public.kept")
            && print.tables.contains_key("public.users")
            && print.tables.contains_key("public.altered")
    );
    assert!(
        !print.tables.contains_key("public.dropped")
            && !print.not_checked.contains_key("public.dropped"),
        "it is not there any more"
    );
    Ok(())
}

#[test]
fn a_table_whose_pages_are_damaged_is_not_checked_and_the_others_are_read() -> Result<()> {
    let print = read_after(&[
        "create extension pg_surgery",
        "create table public.damaged(id int primary key, v text)",
        "alter table public.damaged alter v set storage external",
        "insert into public.damaged values (1, repeat('x', 10000)), (2, 'short')",
        // The value that is stored out of line is lost, as by a bad disk.
        "do $$ declare toast text; begin select relname into toast from pg_class where oid = \
            (select reltoastrelid from pg_class where oid = 'public.damaged'::regclass); \
            execute format('select heap_force_kill(%L::regclass, array(select ctid from \
            pg_toast.%I))', 'pg_toast.' || toast, toast); end $$",
    ])?;
    let reason = print.not_checked.get("public.damaged").context("it is told")?;
    assert!(reason.contains("missing chunk number 0 for toast value"), "{reason}");
    assert!(print.tables.contains_key("public.users"));
    let side = |print: &DatabasePrint| Fingerprint {
        databases: [("neondb".into(), print.clone())].into(),
    };
    let objections = compare(&side(&print), &side(&print), false)
        .iter()
        .filter(|check| check.is_objection())
        .count();
    assert_eq!(objections, 1, "what was not read is not equal to itself");
    Ok(())
}

/// As in case 08: the library of an extension is not there any more. Class 58 may pass, and does
/// not here.
#[test]
fn a_table_whose_library_is_missing_is_not_checked_and_the_others_are_read() -> Result<()> {
    let print = read_after(&[
        "create extension hstore",
        "create table public.product (id int primary key, attrs hstore)",
        "insert into public.product values (1, 'colour=>red'), (2, null)",
        "update pg_proc set probin = '$libdir/hstore_withdrawn' where probin = '$libdir/hstore'",
    ])?;
    let reason = print.not_checked.get("public.product").context("it is told")?;
    assert!(reason.contains("58P01") && reason.contains("hstore_withdrawn"), "{reason}");
    assert_eq!(print.not_checked.len(), 1, "{:?}", print.not_checked);
    assert!(print.tables.contains_key("public.users"));
    Ok(())
}

#[test]
fn a_statement_that_is_cancelled_is_asked_again_alone_and_the_others_are_answered() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let password = owner(&emulator)?;
    let probe = |name: &str, sql: &str| Probe {
        is_configured: true,
        ..Probe::new(ProbeKind::Assertion, name, sql.to_owned())
    };
    let mut probes = [probe("quick", "select 1"), probe("slow", "select pg_sleep(600)")];
    let chosen = next_probes(&probes);
    let batch = probe_batch(&probes, &chosen);
    let answer = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&emulator, &password, &batch));
        // As the server's own timer does: 57014.
        let cancel = "select count(pg_cancel_backend(pid))::text from pg_stat_activity \
            where query like '%pg_sleep(600)%' and pid <> pg_backend_pid() \
            or query like 'do $firstlight$%' and state = 'active' and pid <> pg_backend_pid()";
        let cancelled = harness::wait_for(Duration::from_secs(30), || {
            let count =
                emulator.sql(&emulator.staging, &[cancel]).ok()?.first()?.first()?.clone()?;
            (count != "0").then_some(())
        });
        cancelled.context("nothing was cancelled")?;
        waiting.join().expect("a thread panicked")
    })?;
    let error = answer.err().context("it was answered")?;
    assert!(error.is_timeout() && error.is_passing(), "{error}");
    probes_too_slow(&mut probes, &chosen);
    for _ in 0..2 {
        let chosen = next_probes(&probes);
        if probes[chosen[0]].object == "slow" {
            probes_too_slow(&mut probes, &chosen);
            continue;
        }
        let answer = send(&emulator, OWNER, &password, &probe_batch(&probes, &chosen))?;
        take_probes(&mut probes, &chosen, &answer).context("the answer makes no sense")?;
    }
    assert_eq!(probes[0].found, Some(Found::Rows(vec![vec![Some("1".to_owned())]])));
    assert_eq!(probes[1].found, Some(Found::NotRun("took longer than 120 s".to_owned())));
    Ok(())
}

#[test]
fn a_compute_that_falls_asleep_between_two_questions_is_woken_by_the_next() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let password = owner(&emulator)?;
    let known = catalogue(&emulator, OWNER, &password)?;
    let endpoint =
        emulator.writer(&emulator.staging)?["id"].as_str().context("the endpoint's id")?.to_owned();
    let answer = emulator.call("POST", &format!("/endpoints/{endpoint}/suspend"), None)?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    settle(&emulator)?;
    let print = content(&emulator, OWNER, &password, &known)?;
    assert_eq!(print.tables["public.users"].count, 2);
    Ok(())
}
