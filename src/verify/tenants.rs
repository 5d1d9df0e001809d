//! Whether tenants see their own rows only, seen as the application sees them.
//!
//! In: the relations that row-level security, or the lack of it, concerns. Out: a batch for the
//! application's own role, and a check for each relation.
//!
//! Invariants: the role logs in itself, because `set role` keeps the rights of who has logged in;
//! the setting and the queries are in one transaction. A tenant that sees no row at all proves
//! nothing.

use serde::Deserialize;

use super::catalogue::text;
use super::judge::outcome_of;
use super::probe::{Found, GUARDED, Probe, ProbeKind, batch_of, found};
use super::questions::quoted;
use super::{Check, CheckKind, CheckOutcome};
use crate::config::{Policy, Tenants};
use crate::id::DatabaseName;
use crate::neon::message::{of_postgres, state_of};
use crate::neon::sql::{Batch, Rows};

/// Counts rows with each tenant's setting, and without one: as the session has it, then empty.
///
/// The statements are built before the path is widened to that of the application, whose policies
/// and views may need it. They name functions with their schema and use no operator. A value of the
/// tenants' column becomes text by its type's output function, and the tenant is written as that
/// type writes it, so that `01` and a UUID in capitals are found. Without a tenant only rows are
/// counted, so that an error is the application's.
const COUNT: &str = "do $firstlight$ declare asked json := \
    current_setting('firstlight.tenants')::json; tenant \
    json; relation json; own text; \
    statement text; total bigint; other bigint; found json[] := '{}'; \
    begin for tenant in select value from json_array_elements(asked -> 'tenants') loop \
    if json_typeof(tenant) <> 'null' then perform set_config(asked ->> 'setting', tenant #>> \
    '{}', true); end if; \
    for relation in select value from json_array_elements(asked -> 'relations') loop begin \
    statement := format('select pg_catalog.count(*), 0::pg_catalog.int8 from %s', relation ->> 0); \
    if coalesce(tenant #>> '{}', '') <> '' then own := tenant #>> '{}'; \
    if relation ->> 1 is not null then execute format('select concat(%L::%s)', own, relation \
    ->> 1) into own; end if; \
    statement := format('select pg_catalog.count(*), pg_catalog.count(*) filter (where not \
    pg_catalog.texteq(pg_catalog.concat(%s), %L)) from %s', \
    asked ->> 'column', own, relation ->> 0); end if; \
    perform set_config('search_path', null, true); \
    execute statement into total, other; \
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true); \
    found := found || json_build_object('total', total, 'other', other); \
    exception when others then found := found || json_build_object('error', sqlstate, \
    'message', left(sqlerrm, 200)); end; end loop; end loop; \
    perform set_config('firstlight.found', array_to_json(found)::text, true); end $firstlight$";

/// Finds the relations that the role may read and that row-level security concerns: tables that
/// have it, partitions of those, and views and materialized views that read them with the rights of
/// their owner.
fn guarded_statement(tenants: &Tenants) -> String {
    format!(
        "with recursive secured as (select oid from pg_catalog.pg_class where \
            relrowsecurity and relkind in ('r', 'p')), \
            reached(oid) as (select oid from secured \
            union select x.oid from reached r cross join lateral ( \
            select i.inhrelid from pg_catalog.pg_inherits i where i.inhparent = r.oid \
            union all select w.ev_class from pg_catalog.pg_depend d join pg_catalog.pg_rewrite \
            w on w.oid = d.objid join pg_catalog.pg_class v on v.oid = w.ev_class \
            where d.refobjid = r.oid and d.classid = \
            'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.refclassid = \
            'pg_catalog.pg_class'::pg_catalog.regclass \
            and v.oid <> r.oid and v.relkind in ('v', 'm')) as x(oid)) \
            select pg_catalog.format('%I.%I', n.nspname, c.relname), exists (select from \
            pg_catalog.pg_attribute a \
            where a.attrelid = c.oid and a.attname = {column} and not a.attisdropped)::text, \
            (select pg_catalog.format_type(a.atttypid, null) from pg_catalog.pg_attribute a \
            where a.attrelid = c.oid and a.attname = {column} and not a.attisdropped and \
            a.atttypid < 16384) \
            from (select distinct oid from reached) as r join pg_catalog.pg_class c on c.oid = \
            r.oid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
            where pg_catalog.has_any_column_privilege({role}, c.oid, 'select') and \
            pg_catalog.has_schema_privilege({role}, n.oid, 'usage') \
            and n.nspname !~ '^pg_' and not (c.relkind = 'v' and coalesce('security_invoker=true' \
            = any (c.reloptions) \
            or 'security_invoker=on' = any (c.reloptions) or 'security_invoker=1' = any \
            (c.reloptions), false)) order by 1",
        column = literal(&tenants.column),
        role = literal(tenants.role.as_str()),
    )
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Returns the probe that finds the relations.
pub fn guarded_probe(tenants: &Tenants) -> Probe {
    Probe::new(ProbeKind::Guarded, tenants.role.as_str(), guarded_statement(tenants))
}

/// A relation with the tenants' column, and the column's type where it is PostgreSQL's own.
type Column<'a> = (&'a str, Option<&'a str>);

/// The relations in which tenants are looked for: those with the tenants' column, and those
/// without.
fn relations(probe: &Probe) -> Option<(Vec<Column<'_>>, Vec<&str>)> {
    let Some(Found::Rows(rows)) = &probe.found else { return None };
    let of =
        |has_column: &'static str| rows.iter().filter(move |row| text(row, 1) == Some(has_column));
    let with = of("true").filter_map(|row| Some((text(row, 0)?, text(row, 2)))).collect();
    Some((with, of("false").filter_map(|row| text(row, 0)).collect()))
}

/// Returns the batch that counts, for the application's role; `None` when there is nothing to
/// count.
pub fn tenants_batch(probe: &Probe, tenants: &Tenants) -> Option<Batch> {
    let (relations, _) = relations(probe)?;
    if relations.is_empty() {
        return None;
    }
    let states = [None, Some("")]
        .into_iter()
        .chain(tenants.values.iter().map(|tenant| Some(tenant.as_str())));
    let asked = serde_json::json!({
        "setting": tenants.setting, "column": quoted(&tenants.column),
        "tenants": states.collect::<Vec<_>>(), "relations": relations,
    });
    Some(batch_of(None, "tenants", &asked, COUNT))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counted {
    Rows { total: u64, other: u64 },
    Error { error: String, message: String },
}

/// Returns the checks that follow; `Err` says why nothing was counted. `None` when the answer makes
/// no sense.
pub fn judge_tenants(
    database: &DatabaseName,
    probe: &Probe,
    tenants: &Tenants,
    answer: Result<&[Rows], &str>,
) -> Option<Vec<Check>> {
    let is_optional = tenants.policy != Policy::Fail;
    let not_checked = |object: &str, reason: &str| {
        let check =
            Check::of(CheckKind::Tenants, database, object, CheckOutcome::NotChecked, reason);
        Check { is_optional, ..check }
    };
    let role = &tenants.role;
    let Some((counted, without)) = relations(probe) else {
        return Some(vec![not_checked("every table", &probe.failure())]);
    };
    let mut checks: Vec<Check> = without
        .iter()
        .map(|relation| not_checked(relation, &format!("it has no column {}", tenants.column)))
        .collect();
    if counted.len() + without.len() >= GUARDED {
        checks.push(not_checked(
            "every other table",
            &format!("{role} may read more than {GUARDED} that row-level security concerns"),
        ));
    }
    if counted.is_empty() && without.is_empty() {
        checks.push(not_checked(
            "every table",
            &format!("{role} may read no table with row-level security"),
        ));
    }
    let rows = match answer {
        Ok(rows) => rows,
        Err(reason) => {
            checks.extend(counted.iter().map(|(relation, _)| not_checked(relation, reason)));
            return Some(checks);
        }
    };
    let found: Vec<Counted> = found(rows)?;
    if found.len() != counted.len() * (tenants.values.len() + 2) {
        return None;
    }
    for (index, (relation, _)) in counted.iter().enumerate() {
        let of: Vec<&Counted> = found.iter().skip(index).step_by(counted.len()).collect();
        let (outcome, detail) = judge_relation(&of, tenants);
        checks.push(Check {
            is_optional,
            ..Check::of(CheckKind::Tenants, database, relation, outcome, detail)
        });
    }
    Some(checks)
}

/// Judges what was seen of a relation: without a tenant twice, then by each tenant.
fn judge_relation(found: &[&Counted], tenants: &Tenants) -> (CheckOutcome, String) {
    let (nobody, somebody) = found.split_at(2);
    let mut leaks = Vec::new();
    let mut unclear = Vec::new();
    let mut refused = Vec::new();
    let mut seen = 0;
    for counted in nobody {
        match counted {
            Counted::Rows { total, .. } => seen = seen.max(*total),
            Counted::Error { error, .. } if is_of_the_policy(error) => refused.push(error.as_str()),
            Counted::Error { error, message } => {
                unclear.push(format!("without a tenant: {error}: {message}"));
            }
        }
    }
    if seen > 0 {
        leaks.push(format!("{seen} rows are seen without a tenant"));
    }
    let mut own = 0;
    for (tenant, counted) in tenants.values.iter().zip(somebody) {
        match counted {
            Counted::Rows { other, .. } if *other > 0 => {
                leaks.push(format!("tenant {tenant} sees {other} rows that are not its own"));
            }
            Counted::Rows { total: 0, .. } => unclear.push(format!("tenant {tenant} sees no row")),
            Counted::Rows { total, .. } => own += total,
            Counted::Error { error, message } => {
                unclear.push(format!(
                    "tenant {tenant}: {}: {}",
                    state_of(error),
                    of_postgres(error, message)
                ));
            }
        }
    }
    if !leaks.is_empty() {
        (outcome_of(tenants.policy), leaks.join("; "))
    } else if !unclear.is_empty() {
        (CheckOutcome::NotChecked, unclear.join("; "))
    } else {
        refused.dedup();
        let refused = if refused.is_empty() {
            String::new()
        } else {
            format!("; without a tenant a query is refused ({})", refused.join(", "))
        };
        (
            CheckOutcome::Passed,
            format!("{} tenants see {own} rows of their own{refused}", tenants.values.len()),
        )
    }
}

/// Returns whether an error is the application's own answer to a query without a tenant. Our
/// statement counts rows and nothing else, and the same one succeeds with a tenant; every other
/// error says that nothing is known.
///
/// # Source
///
/// PostgreSQL, appendix A: 42704 `undefined_object` is what `current_setting` says of a setting
/// that is not set. Class 22 "Data Exception", as of an empty text that is read as a number. 42501
/// `insufficient_privilege`. P0001 `raise_exception`.
fn is_of_the_policy(state: &str) -> bool {
    matches!(state, "42704" | "42501" | "P0001") || state.starts_with("22")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants() -> Tenants {
        let values = vec!["1".to_owned(), "2".to_owned()];
        let (setting, column) = ("app.org".to_owned(), "org".to_owned());
        Tenants {
            database: None,
            role: "app".into(),
            setting,
            column,
            values,
            policy: Policy::Fail,
        }
    }

    fn judged(found: [(u64, u64); 4]) -> (CheckOutcome, String) {
        let counted: Vec<Counted> =
            found.into_iter().map(|(total, other)| Counted::Rows { total, other }).collect();
        judge_relation(&counted.iter().collect::<Vec<_>>(), &tenants())
    }

    #[test]
    fn a_tenant_that_sees_nothing_proves_nothing() {
        assert_eq!(
            judged([(0, 0), (0, 0), (3, 0), (4, 0)]),
            (CheckOutcome::Passed, "2 tenants see 7 rows of their own".to_owned())
        );
        assert_eq!(
            judged([(0, 0), (0, 0), (3, 0), (0, 0)]),
            (CheckOutcome::NotChecked, "tenant 2 sees no row".to_owned())
        );
    }

    #[test]
    fn a_row_of_another_tenant_or_one_without_a_tenant_is_a_leak() {
        let leak = judged([(0, 0), (0, 0), (7, 4), (0, 0)]);
        assert_eq!(
            leak,
            (CheckOutcome::Failed, "tenant 1 sees 4 rows that are not its own".to_owned())
        );
        assert_eq!(judged([(0, 0), (9, 9), (3, 0), (4, 0)]).1, "9 rows are seen without a tenant");
    }

    #[test]
    fn an_error_without_a_tenant_is_taken_for_no_row_where_the_policy_refuses_and_nowhere_else() {
        let error =
            |state: &str| Counted::Error { error: state.to_owned(), message: "no".to_owned() };
        let rows = || Counted::Rows { total: 1, other: 0 };
        let judge =
            |found: [Counted; 4]| judge_relation(&found.iter().collect::<Vec<_>>(), &tenants());
        let (outcome, told) = judge([error("42704"), error("22P02"), rows(), rows()]);
        let expected =
            "2 tenants see 2 rows of their own; without a tenant a query is refused (42704, 22P02)";
        assert_eq!((outcome, told.as_str()), (CheckOutcome::Passed, expected));
        assert_eq!(
            judge([error("42704"), error("42704"), error("42704"), rows()]).0,
            CheckOutcome::NotChecked
        );
        for state in ["57014", "53200", "40001", "42P01", "42883", "XX000", "55P03"] {
            assert_eq!(
                judge([error(state), error("22P02"), rows(), rows()]).0,
                CheckOutcome::NotChecked,
                "{state}"
            );
        }
        let leak = judge([error("57014"), Counted::Rows { total: 9, other: 0 }, rows(), rows()]);
        assert_eq!(
            leak,
            (CheckOutcome::Failed, "9 rows are seen without a tenant".to_owned()),
            "a leak that was seen is told all the same"
        );
    }
}
