//! Whether tenants see their own rows only, seen as the application sees them.
//!
//! In: the relations that row-level security, or the lack of it, concerns. Out: a batch for the application's own role, and a check for each relation.
//!
//! Invariants: the role logs in itself, because `set role` keeps the rights of who has logged in; the setting and the queries are in one
//! transaction. A tenant that sees no row at all proves nothing.

use serde::Deserialize;

use super::catalogue::text;
use super::judge::outcome_of;
use super::probe::{Found, GUARDED, Probe, ProbeKind, batch_of, found};
use super::questions::quoted;
use super::{Check, CheckKind, CheckOutcome, STATEMENT_TIMEOUT_S};
use crate::config::{Policy, Tenants};
use crate::id::DatabaseName;
use crate::neon::sql::{Batch, Rows};

/// Counts rows with each tenant's setting, and without one: as the session has it, then empty.
const COUNT: &str = "do $firstlight$ declare asked json := current_setting('firstlight.tenants')::json; tenant json; relation text; total bigint; other bigint; \
    found json[] := '{}'; begin for tenant in select value from json_array_elements(asked -> 'tenants') loop \
    if json_typeof(tenant) <> 'null' then perform set_config(asked ->> 'setting', tenant #>> '{}', true); end if; \
    for relation in select value from json_array_elements_text(asked -> 'relations') loop begin \
    execute format('select count(*), count(*) filter (where %s is distinct from %L) from %s', asked ->> 'column', tenant #>> '{}', relation) into total, other; \
    found := found || json_build_object('total', total, 'other', other); \
    exception when others then found := found || json_build_object('error', sqlstate, 'message', left(sqlerrm, 200)); end; end loop; end loop; \
    perform set_config('firstlight.found', array_to_json(found)::text, true); end $firstlight$";

/// Finds the relations that the role may read and that row-level security concerns: tables that have it, partitions of those, and views and
/// materialized views that read them with the rights of their owner.
fn guarded_statement(tenants: &Tenants) -> String {
    format!(
        "with recursive secured as (select oid from pg_catalog.pg_class where relrowsecurity and relkind in ('r', 'p')), \
         reached(oid) as (select oid from secured \
           union select x.oid from reached r cross join lateral ( \
             select i.inhrelid from pg_catalog.pg_inherits i where i.inhparent = r.oid \
             union all select w.ev_class from pg_catalog.pg_depend d join pg_catalog.pg_rewrite w on w.oid = d.objid join pg_catalog.pg_class v on v.oid = w.ev_class \
             where d.refobjid = r.oid and d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
             and v.oid <> r.oid and v.relkind in ('v', 'm')) as x(oid)) \
         select pg_catalog.format('%I.%I', n.nspname, c.relname), exists (select from pg_catalog.pg_attribute a \
           where a.attrelid = c.oid and a.attname = {column} and not a.attisdropped)::text \
         from (select distinct oid from reached) as r join pg_catalog.pg_class c on c.oid = r.oid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         where pg_catalog.has_any_column_privilege({role}, c.oid, 'select') and pg_catalog.has_schema_privilege({role}, n.oid, 'usage') \
         and n.nspname !~ '^pg_' and not (c.relkind = 'v' and coalesce('security_invoker=true' = any (c.reloptions) \
           or 'security_invoker=on' = any (c.reloptions) or 'security_invoker=1' = any (c.reloptions), false)) order by 1",
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

/// The relations in which tenants are looked for: those with the tenants' column, and those without.
fn relations(probe: &Probe) -> Option<(Vec<String>, Vec<String>)> {
    let Some(Found::Rows(rows)) = &probe.found else { return None };
    let names = |has_column: &str| {
        let of = rows.iter().filter(|row| text(row, 1) == Some(has_column));
        of.filter_map(|row| text(row, 0).map(str::to_owned)).collect()
    };
    Some((names("true"), names("false")))
}

/// Returns the batch that counts, for the application's role; `None` when there is nothing to count.
pub fn tenants_batch(probe: &Probe, tenants: &Tenants) -> Option<Batch> {
    let (relations, _) = relations(probe)?;
    if relations.is_empty() {
        return None;
    }
    let states = [None, Some("")].into_iter().chain(tenants.values.iter().map(|tenant| Some(tenant.as_str())));
    let asked = serde_json::json!({
        "setting": tenants.setting, "column": quoted(&tenants.column), "tenants": states.collect::<Vec<_>>(), "relations": relations,
    });
    let settings = (format!("select set_config('statement_timeout', '{STATEMENT_TIMEOUT_S}s', true)"), Vec::new());
    Some(batch_of(settings, "tenants", &asked, COUNT))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counted {
    Rows { total: u64, other: u64 },
    Error { error: String, message: String },
}

/// Returns the checks that follow; `Err` says why nothing was counted. `None` when the answer makes no sense.
pub fn judge_tenants(database: &DatabaseName, probe: &Probe, tenants: &Tenants, answer: Result<&[Rows], &str>) -> Option<Vec<Check>> {
    let is_optional = tenants.policy != Policy::Fail;
    let not_checked = |object: &str, reason: &str| {
        let check = Check::of(CheckKind::Tenants, database, object, CheckOutcome::NotChecked, reason);
        Check { is_optional, ..check }
    };
    let role = &tenants.role;
    let Some((counted, without)) = relations(probe) else {
        return Some(vec![not_checked("every table", &probe.failure())]);
    };
    let mut checks: Vec<Check> =
        without.iter().map(|relation| not_checked(relation, &format!("it has no column {}", tenants.column))).collect();
    if counted.len() + without.len() >= GUARDED {
        checks.push(not_checked("every other table", &format!("{role} may read more than {GUARDED} that row-level security concerns")));
    }
    if counted.is_empty() && without.is_empty() {
        checks.push(not_checked("every table", &format!("{role} may read no table with row-level security")));
    }
    let rows = match answer {
        Ok(rows) => rows,
        Err(reason) => {
            checks.extend(counted.iter().map(|relation| not_checked(relation, reason)));
            return Some(checks);
        }
    };
    let found: Vec<Counted> = found(rows)?;
    if found.len() != counted.len() * (tenants.values.len() + 2) {
        return None;
    }
    for (index, relation) in counted.iter().enumerate() {
        let of: Vec<&Counted> = found.iter().skip(index).step_by(counted.len()).collect();
        let (outcome, detail) = judge_relation(&of, tenants);
        checks.push(Check { is_optional, ..Check::of(CheckKind::Tenants, database, relation, outcome, detail) });
    }
    Some(checks)
}

/// Judges what was seen of a relation: without a tenant twice, then by each tenant.
fn judge_relation(found: &[&Counted], tenants: &Tenants) -> (CheckOutcome, String) {
    let (nobody, somebody) = found.split_at(2);
    let mut leaks = Vec::new();
    let mut unclear = Vec::new();
    // An error is as good as no row: the application is told that it has no tenant.
    let seen = nobody.iter().filter_map(|counted| if let Counted::Rows { total, .. } = counted { Some(*total) } else { None }).max();
    if let Some(total) = seen.filter(|total| *total > 0) {
        leaks.push(format!("{total} rows are seen without a tenant"));
    }
    let mut own = 0;
    for (tenant, counted) in tenants.values.iter().zip(somebody) {
        match counted {
            Counted::Rows { other, .. } if *other > 0 => leaks.push(format!("tenant {tenant} sees {other} rows that are not its own")),
            Counted::Rows { total: 0, .. } => unclear.push(format!("tenant {tenant} sees no row")),
            Counted::Rows { total, .. } => own += total,
            Counted::Error { error, message } => unclear.push(format!("tenant {tenant}: {error}: {message}")),
        }
    }
    if !leaks.is_empty() {
        (outcome_of(tenants.policy), leaks.join("; "))
    } else if !unclear.is_empty() {
        (CheckOutcome::NotChecked, unclear.join("; "))
    } else {
        (CheckOutcome::Passed, format!("{} tenants see {own} rows of their own", tenants.values.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants() -> Tenants {
        let values = vec!["1".to_owned(), "2".to_owned()];
        let (setting, column) = ("app.org".to_owned(), "org".to_owned());
        Tenants { database: None, role: "app".into(), setting, column, values, policy: Policy::Fail }
    }

    fn judged(found: [(u64, u64); 4]) -> (CheckOutcome, String) {
        let counted: Vec<Counted> = found.into_iter().map(|(total, other)| Counted::Rows { total, other }).collect();
        judge_relation(&counted.iter().collect::<Vec<_>>(), &tenants())
    }

    #[test]
    fn a_tenant_that_sees_nothing_proves_nothing() {
        assert_eq!(judged([(0, 0), (0, 0), (3, 0), (4, 0)]), (CheckOutcome::Passed, "2 tenants see 7 rows of their own".to_owned()));
        assert_eq!(judged([(0, 0), (0, 0), (3, 0), (0, 0)]), (CheckOutcome::NotChecked, "tenant 2 sees no row".to_owned()));
    }

    #[test]
    fn a_row_of_another_tenant_or_one_without_a_tenant_is_a_leak() {
        let leak = judged([(0, 0), (0, 0), (7, 4), (0, 0)]);
        assert_eq!(leak, (CheckOutcome::Failed, "tenant 1 sees 4 rows that are not its own".to_owned()));
        assert_eq!(judged([(0, 0), (9, 9), (3, 0), (4, 0)]).1, "9 rows are seen without a tenant");
    }

    #[test]
    fn an_error_without_a_tenant_is_as_good_as_no_row() {
        let error = || Counted::Error { error: "42704".to_owned(), message: "unrecognized".to_owned() };
        let rows = || Counted::Rows { total: 1, other: 0 };
        let judge = |found: [Counted; 4]| judge_relation(&found.iter().collect::<Vec<_>>(), &tenants()).0;
        assert_eq!(judge([error(), error(), rows(), rows()]), CheckOutcome::Passed);
        assert_eq!(judge([error(), error(), error(), rows()]), CheckOutcome::NotChecked);
    }
}
