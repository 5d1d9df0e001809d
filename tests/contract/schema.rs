//! What a database is made of, on real PostgreSQL: every kind of object is digested, and what has
//! changed is found and named.

use anyhow::{Context as _, Result};
use firstlight::verify::{Item, decode_items, differences, items_batch};
use harness::emulator::Emulator;
use serde_json::json;
use tempfile::TempDir;

use crate::verification::{catalogue, owner, send};
use crate::{emulator, settle};

/// Kinds that nothing can be made of here: a label needs a provider, a transform C functions, and
/// the version is the server's own.
const NOT_CHANGED: [&str; 1] = ["server"];

/// A change, the kind in which it shows, and the object that it is about.
const CHANGES: [(&str, &str, &str); 56] = [
    ("schemas", "extra", "create schema extra"),
    // As in case 21, and its siblings.
    ("grants", "parameters to ", "grant set on parameter log_min_messages to reader"),
    (
        "publications",
        "extra_news of tables in schema extra",
        "create publication extra_news for tables in schema extra",
    ),
    ("columns", "sales.customer.note", "alter table sales.customer alter note set statistics 500"),
    (
        "indexes",
        "sales.customer_lower_idx",
        "alter index sales.customer_lower_idx alter column 1 set statistics 400",
    ),
    ("tables", "sales.of_pair", "create table sales.of_pair of sales.pair"),
    ("operator families", "sales.family", "create operator family sales.family using btree"),
    (
        "database",
        "database",
        "do $$ begin execute format('alter database %I connection limit 10', \
            current_database()); end $$",
    ),
    ("tables", "sales.cache", "alter table sales.cache set logged"),
    ("columns", "sales.base.a", "alter table sales.base alter a type bigint"),
    ("columns", "sales.customer.note", "alter table sales.customer alter note set not null"),
    (
        "defaults",
        "sales.customer.feeling",
        "alter table sales.customer alter feeling set default 'it''s bad'",
    ),
    (
        "constraints",
        "sales.\"order \"\"x\"\"\".late",
        "alter table sales.\"order \"\"x\"\"\" validate constraint late",
    ),
    ("indexes", "sales.customer_lower_idx", "drop index sales.customer_lower_idx"),
    (
        "views",
        "sales.names",
        "create or replace view sales.names as select name from sales.customer where id > 0",
    ),
    ("materialized views", "sales.totals", "drop materialized view sales.totals"),
    ("storage options", "sales.part_1", "alter table sales.part_1 set (fillfactor = 80)"),
    ("sequences", "sales.ticket", "alter sequence sales.ticket no cycle"),
    ("functions", "sales.old(a integer)", "alter function sales.old(int) security invoker"),
    (
        "function bodies",
        "sales.touch()",
        "create or replace function sales.touch() returns trigger language plpgsql as 'begin \
            return old; end'",
    ),
    (
        "aggregates",
        "sales.total(integer)",
        "create or replace aggregate sales.total(int) (sfunc = int4pl, stype = int, \
            initcond = '1')",
    ),
    ("triggers", "sales.customer.touched", "alter table sales.customer enable trigger touched"),
    (
        "trigger arguments",
        "sales.base.noted",
        "create or replace trigger noted after insert on sales.base for each row execute \
            function sales.touch('header', 'another-token')",
    ),
    ("rules", "sales.cache.nothing", "alter table sales.cache disable rule nothing"),
    (
        "row-level security",
        "sales.customer",
        "alter table sales.customer no force row level security",
    ),
    ("policies", "sales.customer.own", "drop policy own on sales.customer"),
    ("owners", "relation sales.base", "alter table sales.base owner to reader"),
    ("grants", "relation sales.customer", "revoke insert on sales.customer from app"),
    (
        "default privileges",
        "of neondb_owner in sales on r",
        "alter default privileges in schema sales revoke select on tables from reader",
    ),
    ("roles", "app", "alter role app createdb"),
    ("memberships", "app in reader by", "revoke reader from app"),
    (
        "settings",
        "statement_timeout of app in every database",
        "alter role app set statement_timeout = '31s'",
    ),
    ("enums", "sales.mood", "alter type sales.mood add value 'so so'"),
    ("domains", "sales.email", "alter domain sales.email drop not null"),
    ("ranges", "sales.span", "drop type sales.span"),
    ("types", "sales.shell", "create type sales.shell"),
    ("extensions", "citext", "create extension citext"),
    ("publications", "news", "alter publication news set (publish = 'insert')"),
    (
        "publications",
        "news of sales.customer",
        "alter publication news set table sales.customer (id)",
    ),
    ("event triggers", "watched", "alter event trigger watched disable"),
    ("foreign-data wrappers", "another", "create foreign data wrapper another"),
    ("foreign servers", "there", "alter server there version '2'"),
    (
        "foreign options",
        "server there",
        "alter server there options (set host 'other.example.test')",
    ),
    ("foreign tables", "sales.far", "drop foreign table sales.far"),
    ("user mappings", "there for app", "drop user mapping for app server there"),
    ("collations", "sales.german", "drop collation sales.german"),
    (
        "operators",
        "sales.===(sales.pair,sales.pair)",
        "drop operator sales.=== (sales.pair, sales.pair)",
    ),
    ("operator classes", "sales.ints using btree", "drop operator class sales.ints using btree"),
    ("casts", "integer as sales.pair", "drop cast (int as sales.pair)"),
    ("conversions", "sales.conv", "drop conversion sales.conv"),
    (
        "text search configurations",
        "sales.config",
        "alter text search configuration sales.config drop mapping for asciiword",
    ),
    (
        "text search dictionaries",
        "sales.words",
        "alter text search dictionary sales.words (accept = false)",
    ),
    ("text search parsers", "sales.parser", "drop text search parser sales.parser"),
    ("text search templates", "sales.template", "drop text search template sales.template"),
    ("statistics objects", "sales.\"both\"", "alter statistics sales.\"both\" set statistics 50"),
    (
        "languages",
        "other",
        "create trusted language other handler plpgsql_call_handler inline \
            plpgsql_inline_handler validator plpgsql_validator",
    ),
];

/// Changes of kinds that come after all others, because something else depends on what they change.
const LAST: [(&str, &str, &str); 2] = [
    ("comments", "sales.customer (table)", "comment on table sales.customer is 'who paid'"),
    ("access methods", "heap2", "drop access method heap2"),
];

/// Starts an emulator whose staging may be changed in every way, and fills it.
fn filled() -> Result<(TempDir, Emulator)> {
    let (folder, emulator) = with_a_superuser()?;
    let script = include_str!("everything.sql");
    let statements: Vec<&str> =
        script.split(";\n").map(str::trim).filter(|sql| !sql.is_empty()).collect();
    emulator.sql(&emulator.staging, &statements)?;
    Ok((folder, emulator))
}

/// Starts an emulator whose staging may be changed in every way: its owner is a superuser.
pub(crate) fn with_a_superuser() -> Result<(TempDir, Emulator)> {
    let (folder, emulator) = emulator()?;
    emulator.fault(
        "restoreProjectBranch",
        1,
        &json!({"kind": "tamper", "sql": "alter role neondb_owner superuser"}),
    )?;
    let body = json!({"source_branch_id": emulator.production, "preserve_under_name": "before"});
    let answer = emulator.call(
        "POST",
        &format!("/branches/{}/restore", emulator.staging),
        Some(&body.to_string()),
    )?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    settle(&emulator)?;
    Ok((folder, emulator))
}

fn items(emulator: &Emulator, password: &str, kind: &str) -> Result<Vec<Item>> {
    decode_items(&send(emulator, "neondb_owner", password, &items_batch(&[kind], None))?)
        .context("the items make no sense")
}

#[test]
fn a_change_of_any_kind_of_object_is_found_and_named() -> Result<()> {
    let (_folder, emulator) = filled()?;
    let password = owner(&emulator)?;
    let digests =
        || -> Result<_> { Ok(catalogue(&emulator, "neondb_owner", &password)?.print.schema) };
    let mut before = digests()?;
    for (kind, name, change) in CHANGES.into_iter().chain(LAST) {
        let was = items(&emulator, &password, kind)?;
        emulator.sql(&emulator.staging, &[change]).with_context(|| change.to_owned())?;
        let after = digests()?;
        assert_ne!(after.get(kind), before.get(kind), "{kind}: {change}");
        let (found, count, _) = differences(kind, &was, &items(&emulator, &password, kind)?);
        assert_eq!(found.len(), count, "{kind}: {change}");
        assert!(
            found.iter().any(|found| found.name.starts_with(name)),
            "{kind}: {change}: {found:?}"
        );
        let shown = found
            .iter()
            .flat_map(|found| [&found.backup, &found.staging])
            .flatten()
            .cloned()
            .collect::<String>();
        for secret in ["-token", "example.test", "hunter2", "31s", "return old"] {
            assert!(!shown.contains(secret), "{kind}: {change}: {shown}");
        }
        before = after;
    }
    let changed: Vec<&str> =
        CHANGES.iter().chain(&LAST).map(|(kind, ..)| *kind).chain(NOT_CHANGED).collect();
    let untried: Vec<&String> =
        before.keys().filter(|kind| !changed.contains(&kind.as_str())).collect();
    assert!(untried.is_empty(), "no change was tried of {untried:?}");
    Ok(())
}

#[test]
fn every_object_of_a_kind_has_a_name_of_its_own() -> Result<()> {
    let (_folder, emulator) = filled()?;
    let password = owner(&emulator)?;
    let catalogue = catalogue(&emulator, "neondb_owner", &password)?;
    for (kind, digest) in &catalogue.print.schema {
        let (found, count, _) = differences(kind, &items(&emulator, &password, kind)?, &[]);
        assert_eq!(count as u64, digest.count, "{kind}: {found:?}");
    }
    Ok(())
}

#[test]
fn a_role_without_any_rights_reads_what_a_database_is_made_of() -> Result<()> {
    let (_folder, emulator) = filled()?;
    emulator
        .sql(&emulator.staging, &["create role nobody_special login password 'nobodys_secret'"])?;
    let read = |role: &str, password: &str| -> Result<_> {
        Ok(catalogue(&emulator, role, password)?.print.schema)
    };
    let (all, seen) =
        (read("neondb_owner", &owner(&emulator)?)?, read("nobody_special", "nobodys_secret")?);
    let hidden: Vec<&String> =
        all.keys().filter(|kind| all.get(*kind) != seen.get(*kind)).collect();
    // The options of a user mapping are shown to its user and to the owner of its server alone.
    assert_eq!(hidden, ["foreign options", "user mappings"]);
    Ok(())
}
