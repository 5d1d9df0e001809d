//! Tenants seen as the application sees them, and what is run on staging once in a run, on real
//! PostgreSQL.

use std::time::Duration;

use anyhow::{Context as _, Result};
use firstlight::config::{AfterRestore, Policy, Tenants};
use firstlight::sync::machine::after_restore_batch;
use firstlight::verify::{
    CheckOutcome, Probe, guarded_probe, judge_tenants, next_probes, probe_batch, take_probes,
    tenants_batch,
};
use harness::emulator::Emulator;

use crate::emulator;
use crate::verification::{owner, send};

fn tenants() -> Tenants {
    let values = vec!["1".to_owned(), "2".to_owned()];
    let (setting, column) = ("app.org".to_owned(), "org id".to_owned());
    Tenants { database: None, role: "app".into(), setting, column, values, policy: Policy::Fail }
}

/// Looks at staging as the Worker does, and returns what is told of each relation.
fn looked(emulator: &Emulator) -> Result<Vec<String>> {
    let (password, tenants) = (owner(emulator)?, tenants());
    let mut probes: [Probe; 1] = [guarded_probe(&tenants)];
    let chosen = next_probes(&probes);
    let answer = send(emulator, "neondb_owner", &password, &probe_batch(&probes, &chosen))?;
    take_probes(&mut probes, &chosen, &answer).context("the relations make no sense")?;
    let counted = tenants_batch(&probes[0], &tenants)
        .map(|batch| send(emulator, "app", "app_secret", &batch))
        .transpose()?;
    let checks = judge_tenants(
        &"neondb".into(),
        &probes[0],
        &tenants,
        counted.as_deref().ok_or("nothing to count"),
    );
    let told = |check: &firstlight::verify::Check| {
        let word = match check.outcome {
            CheckOutcome::Passed => "passed",
            CheckOutcome::Failed => "failed",
            CheckOutcome::Warned | CheckOutcome::Skipped | CheckOutcome::NotChecked => {
                "not checked"
            }
        };
        format!("{} {word}: {}", check.object, check.detail)
    };
    Ok(checks.context("the answer makes no sense")?.iter().map(told).collect())
}

const TABLES: [&str; 10] = [
    "create role app login password 'app_secret'",
    "create table public.own(id int primary key, \"org id\" int)",
    "insert into public.own values (1, 1), (2, 1), (3, 2)",
    "alter table public.own enable row level security",
    "create policy own on public.own using (\"org id\" = current_setting('app.org')::int)",
    "create table public.hidden(id int primary key, \"org id\" int)",
    "alter table public.hidden enable row level security",
    "create table public.no_column(id int primary key)",
    "alter table public.no_column enable row level security",
    "grant select on public.own, public.no_column to app",
];

#[test]
fn tenants_that_see_their_own_rows_only_are_told_apart_from_those_of_which_nothing_is_known()
-> Result<()> {
    let (_folder, emulator) = emulator()?;
    emulator.sql(&emulator.staging, &["create role app login password 'app_secret'"])?;
    assert_eq!(
        looked(&emulator)?,
        ["every table not checked: app may read no table with row-level security"]
    );
    emulator.sql(&emulator.staging, &TABLES[1..])?;
    let expected = [
        "public.no_column not checked: it has no column org id",
        "public.own passed: 2 tenants see 3 rows of their own; without a tenant a query is \
            refused (42704, 22P02)",
    ];
    assert_eq!(
        looked(&emulator)?,
        expected,
        "a table that the application may not read is none of its tenants' business"
    );
    // A policy that says what it thinks when there is no tenant, and one that shows nothing.
    emulator.sql(
        &emulator.staging,
        &["alter policy own on public.own using (\"org id\"::text = current_setting('app.org', \
            true))"],
    )?;
    assert_eq!(looked(&emulator)?[1], "public.own passed: 2 tenants see 3 rows of their own");
    emulator.sql(&emulator.staging, &["delete from public.own where \"org id\" = 2"])?;
    assert_eq!(looked(&emulator)?[1], "public.own not checked: tenant 2 sees no row");
    Ok(())
}

#[test]
fn every_leak_is_found() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    emulator.sql(&emulator.staging, &TABLES)?;
    let of = |relation: &str| -> Result<String> {
        let told = looked(&emulator)?;
        told.iter()
            .find(|line| line.starts_with(relation))
            .cloned()
            .with_context(|| format!("{relation} is not in {told:?}"))
    };
    emulator.sql(
        &emulator.staging,
        &[
            "create view public.all_of_it as select * from public.own",
            "create view public.over_it as select * from public.all_of_it",
            "create view public.as_caller with (security_invoker = true) as select * from \
                public.own",
            "create materialized view public.kept as select * from public.own",
            "create view public.caller with (security_invoker = true) as select * from public.own",
            "create materialized view public.kept_through as select * from public.caller",
            "grant select on public.kept_through to app",
            "create table public.by_column(id int primary key, \"org id\" int, hidden text)",
            "insert into public.by_column values (1, 1), (2, 2)",
            "alter table public.by_column enable row level security",
            "create policy anybody on public.by_column using (true)",
            "grant select (id, \"org id\") on public.by_column to app",
            "create table public.split(id int, \"org id\" int) partition by list (id)",
            "create table public.split_1 partition of public.split for values in (1)",
            "insert into public.split values (1, 1), (1, 2)",
            "alter table public.split enable row level security",
            "create policy own on public.split using (\"org id\"::text = \
                current_setting('app.org', true))",
            "grant select on public.all_of_it, public.over_it, public.as_caller, \
                public.kept, public.split, public.split_1 to app",
        ],
    )?;
    let leaks = |seen: u32, first: u32, second: u32| {
        format!(
            "failed: {seen} rows are seen without a tenant; tenant 1 sees {first} rows that \
                are not its own; tenant 2 sees {second} rows that are not its own"
        )
    };
    // A view reads with the rights of its owner, who is bypassed here because the owner of a table
    // is.
    assert_eq!(of("public.all_of_it")?, format!("public.all_of_it {}", leaks(3, 1, 2)));
    assert_eq!(of("public.over_it")?, format!("public.over_it {}", leaks(3, 1, 2)));
    assert_eq!(of("public.kept")?, format!("public.kept {}", leaks(3, 1, 2)));
    assert_eq!(
        of("public.kept_through")?,
        format!("public.kept_through {}", leaks(3, 1, 2)),
        "a materialized view is filled by its owner"
    );
    assert_eq!(of("public.by_column")?, format!("public.by_column {}", leaks(2, 1, 1)));
    assert_eq!(of("public.split_1")?, format!("public.split_1 {}", leaks(2, 1, 1)));
    assert_eq!(of("public.split ")?, "public.split passed: 2 tenants see 2 rows of their own");
    assert!(of("public.as_caller").is_err(), "it reads with the rights of who asks");
    emulator.sql(&emulator.staging, &["create policy open on public.own using (id = 3)"])?;
    // Without a tenant the other policy is an error, which is as good as no row.
    assert_eq!(of("public.own")?, "public.own failed: tenant 1 sees 1 rows that are not its own");
    emulator.sql(
        &emulator.staging,
        &["drop policy open on public.own", "alter table public.own disable row level security"],
    )?;
    assert!(
        of("public.own").is_err(),
        "without row-level security it is no table of tenants; that is what comparing the \
            schema is for"
    );
    Ok(())
}

#[test]
fn what_is_run_on_staging_is_run_once_in_a_run_and_all_of_it_or_nothing() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let password = owner(&emulator)?;
    let names = || emulator.sql(&emulator.staging, &["select name from users order by id"]);
    let name = |text: &str| vec![Some(text.to_owned())];
    let settings = |sql: &[&str]| AfterRestore {
        database: None,
        sql: sql.iter().map(|sql| (*sql).to_owned()).collect(),
        timeout: Duration::from_mins(5),
    };
    let add = settings(&[
        "update users set name = name || '+' where id = 1; update users set name = name || \
            '-' where id = 2",
        "select 1",
    ]);
    for _ in 0..3 {
        send(
            &emulator,
            "neondb_owner",
            &password,
            &after_restore_batch(&add, &"br-first-backup-a5e59rrb".into()),
        )?;
    }
    assert_eq!(names()?, [name("one+"), name("two-")], "once");
    let broken = settings(&["delete from users", "select * from nothing"]);
    let refused = send(
        &emulator,
        "neondb_owner",
        &password,
        &after_restore_batch(&broken, &"br-second-backup-a5e59rrc".into()),
    );
    assert!(refused.is_err_and(|error| error.to_string().contains("42P01")));
    assert_eq!(names()?, [name("one+"), name("two-")], "nothing of what was refused");
    send(
        &emulator,
        "neondb_owner",
        &password,
        &after_restore_batch(&add, &"br-second-backup-a5e59rrc".into()),
    )?;
    assert_eq!(names()?, [name("one++"), name("two--")], "another run");
    Ok(())
}

/// As in case 32: an empty setting that lets everybody see everything is a leak, whatever type the
/// tenants' column has.
#[test]
fn a_leak_without_a_tenant_is_found_where_an_empty_text_is_no_value_of_the_column() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    for (kind, first, second) in [
        ("int", "1", "2"),
        ("uuid", "00000000-0000-0000-0000-00000000000A", "00000000-0000-0000-0000-00000000000B"),
    ] {
        let policy = format!(
            "create policy by_org on public.{kind}_docs using \
                (coalesce(current_setting('app.org', true), '') = '' \
                or \"org id\" = nullif(current_setting('app.org', true), '')::{kind})"
        );
        let statements = [
            format!(
                "create table public.{kind}_docs(id int primary key, \"org id\" {kind} not null)"
            ),
            format!(
                "insert into public.{kind}_docs values (1, '{first}'), (2, '{second}'), (3, \
                    '{second}')"
            ),
            format!("alter table public.{kind}_docs enable row level security"),
            policy,
        ];
        emulator.sql(&emulator.staging, &statements.each_ref().map(String::as_str))?;
    }
    emulator.sql(
        &emulator.staging,
        &[
            "create role app login password 'app_secret'",
            "grant select on public.int_docs, public.uuid_docs to app",
        ],
    )?;
    let told = looked(&emulator)?;
    let of =
        |table: &str| told.iter().find(|line| line.starts_with(table)).cloned().unwrap_or_default();
    assert_eq!(of("public.int_docs"), "public.int_docs failed: 3 rows are seen without a tenant");
    assert!(of("public.uuid_docs").contains("3 rows are seen without a tenant"), "{told:?}");
    Ok(())
}
