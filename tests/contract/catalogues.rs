//! Every column of every catalogue is compared, or left out for a reason: the next version of
//! PostgreSQL brings more.
//!
//! The statement is read, not run: a column counts as compared where its name stands in
//! `schema.sql`, where the whole row is taken, or where a function of PostgreSQL's renders it.
//! `schema.rs` shows for each kind that a change is found.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::emulator;

const SQL: &str = include_str!("../../src/verify/schema.sql");

/// Catalogues whose rows are taken whole, but for names and numbers.
const WHOLE: [&str; 9] = [
    "pg_aggregate",
    "pg_auth_members",
    "pg_collation",
    "pg_database",
    "pg_proc",
    "pg_publication",
    "pg_ts_parser",
    "pg_ts_template",
    "pg_type",
];

/// Catalogues that a function or a view of PostgreSQL's renders.
const RENDERED: [(&str, &str); 12] = [
    ("pg_constraint", "pg_get_constraintdef"),
    ("pg_index", "pg_get_indexdef"),
    ("pg_operator", "regoperator"),
    ("pg_partitioned_table", "pg_get_partkeydef"),
    ("pg_policy", "pg_get_expr"),
    ("pg_publication_rel", "pg_publication_tables"),
    ("pg_rewrite", "pg_get_ruledef"),
    ("pg_seclabel", "pg_seclabels"),
    ("pg_shseclabel", "pg_seclabels"),
    ("pg_statistic_ext", "pg_get_statisticsobjdef"),
    ("pg_trigger", "pg_get_triggerdef"),
    ("pg_user_mapping", "pg_user_mappings"),
];

/// What is not compared: a catalogue or one column, and why.
const LEFT_OUT: [(&str, &str); 52] = [
    ("pg_amop.amoplefttype", "it is a part of the operator"),
    ("pg_amop.amoprighttype", "it is a part of the operator"),
    ("pg_attribute.attalign", "a copy of the type's"),
    ("pg_attribute.attbyval", "a copy of the type's"),
    ("pg_attribute.atthasdef", "pg_attrdef has it"),
    ("pg_attribute.atthasmissing", "how the value of an added column is stored"),
    ("pg_attribute.attinhcount", "pg_inherits has it"),
    ("pg_attribute.attlen", "a copy of the type's"),
    (
        "pg_attribute.attmissingval",
        "how the value of an added column is stored; content shows the value",
    ),
    ("pg_attribute.attndims", "PostgreSQL enforces nothing by it"),
    ("pg_authid.rolbypassrls", "pg_roles is taken whole"),
    ("pg_authid.rolcanlogin", "pg_roles is taken whole"),
    ("pg_authid.rolconnlimit", "pg_roles is taken whole"),
    ("pg_authid.rolcreatedb", "pg_roles is taken whole"),
    ("pg_authid.rolcreaterole", "pg_roles is taken whole"),
    ("pg_authid.rolinherit", "pg_roles is taken whole"),
    ("pg_authid.rolreplication", "pg_roles is taken whole"),
    ("pg_authid.rolsuper", "pg_roles is taken whole"),
    ("pg_authid.rolvaliduntil", "pg_roles is taken whole"),
    ("pg_class.relallfrozen", "an estimate"),
    ("pg_class.relallvisible", "an estimate"),
    ("pg_class.relchecks", "pg_constraint has them"),
    ("pg_class.relfilenode", "where it is stored"),
    ("pg_class.relfrozenxid", "of vacuum"),
    ("pg_class.relhasindex", "pg_index has them"),
    ("pg_class.relhasrules", "pg_rewrite has them"),
    ("pg_class.relhassubclass", "pg_inherits has them"),
    ("pg_class.relhastriggers", "pg_trigger has them"),
    ("pg_class.relispartition", "relpartbound has it"),
    ("pg_class.relispopulated", "the content of a view shows it"),
    ("pg_class.relisshared", "none of the users'"),
    ("pg_class.relminmxid", "of vacuum"),
    ("pg_class.relnatts", "pg_attribute has them"),
    ("pg_class.relpages", "an estimate"),
    ("pg_class.relrewrite", "of a rewrite under way"),
    ("pg_class.reltoastrelid", "where it is stored"),
    ("pg_class.reltuples", "an estimate"),
    ("pg_class.reltype", "the type of its row, which goes with it"),
    ("pg_extension.extrelocatable", "the extension's own"),
    (
        "pg_init_privs",
        "what an extension gave when it was made; pg_class and others have what holds",
    ),
    ("pg_language.lanispl", "lanplcallfoid has it"),
    ("pg_largeobject", "content, which is digested"),
    (
        "pg_parameter_acl.paracl",
        "PostgreSQL 14 has no such catalogue: who has rights on how many is compared",
    ),
    (
        "pg_parameter_acl.parname",
        "PostgreSQL 14 has no such catalogue: who has rights on how many is compared",
    ),
    ("pg_publication_namespace.pnnspid", "pg_depend has it on every version"),
    ("pg_publication_namespace.pnpubid", "pg_depend has it on every version"),
    ("pg_replication_origin", "of replication, which a copy has none of"),
    ("pg_shdepend.dbid", "rights on parameters are everybody's"),
    ("pg_statistic", "made by ANALYZE"),
    ("pg_statistic_ext_data", "made by ANALYZE"),
    (
        "pg_subscription",
        "a copy must not subscribe: `armed` tells one that is enabled, and verification.md \
            says that they are not compared",
    ),
    ("pg_subscription_rel", "a copy must not subscribe"),
];

/// Catalogues without anything of the users' in a database of Neon's.
const NONE: [&str; 1] = ["pg_tablespace"];

fn is_named(word: &str) -> bool {
    SQL.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
        .any(|other| other == word)
}

/// As in case 21, and whatever PostgreSQL adds.
#[test]
fn every_column_of_every_catalogue_is_compared_or_left_out_for_a_reason() -> Result<()> {
    let (_folder, emulator) = emulator()?;
    let sql = "select c.relname, a.attname \
        from pg_class c join pg_attribute a on a.attrelid = c.oid \
        where c.relnamespace = 'pg_catalog'::regnamespace and c.relkind = 'r' \
        and a.attnum > 0 and not a.attisdropped";
    let rows = emulator.sql(&emulator.staging, &[sql])?;
    let columns: Vec<(String, String)> =
        rows.into_iter().filter_map(|row| Some((row[0].clone()?, row[1].clone()?))).collect();
    assert!(columns.len() > 500, "{}", columns.len());
    let mut excuses: BTreeSet<&str> = LEFT_OUT.iter().map(|(what, _)| *what).collect();
    let mut open = Vec::new();
    for (catalogue, column) in &columns {
        let one = format!("{catalogue}.{column}");
        let is_left_out =
            LEFT_OUT.iter().filter(|(what, _)| what == catalogue || *what == one).count() > 0;
        excuses.retain(|what| what != catalogue && *what != one);
        let is_rendered = RENDERED.iter().any(|(other, by)| other == catalogue && is_named(by));
        let is_whole =
            WHOLE.contains(&catalogue.as_str()) && is_named(catalogue) && SQL.contains("to_jsonb(");
        if !(is_left_out
            || is_rendered
            || is_whole
            || NONE.contains(&catalogue.as_str())
            || is_named(catalogue) && is_named(column))
        {
            open.push(one);
        }
    }
    assert!(open.is_empty(), "neither compared nor left out for a reason: {open:?}");
    assert!(excuses.is_empty(), "left out and not there any more: {excuses:?}");
    Ok(())
}
