//! Which probes are asked of which side: those that follow from the catalogue, and those that are
//! configured.

use std::sync::LazyLock;

use super::DatabasePrint;
use super::catalogue::in_one_line;
use super::judge::policy;
use super::probe::{Probe, ProbeKind, decode_probes};
use super::tenants::guarded_probe;
use crate::config::{AssertedOn, Assertion, Policy, Verification};
use crate::id::DatabaseName;
use crate::neon::sql::Rows;

/// Finds what may be wrong with a database although every copy of it is equal.
pub(super) static INTEGRITY: LazyLock<String> =
    LazyLock::new(|| in_one_line(include_str!("integrity.sql")));

/// What acts by itself on a database, whoever has made it. Jobs are told by number, schedule and
/// name: their commands may hold secrets.
const ARMED: [&str; 6] = [
    // pg_cron keeps the jobs of every database in one: all databases of the copy count.
    "select pg_catalog.format('job %s of pg_cron (%s%s)%s', jobid, schedule, ', ' || \
        jobname, case when database <> pg_catalog.current_database() \
        then ' in ' || database end) from cron.job where active and database in (select datname \
        from pg_catalog.pg_database) order by jobid",
    "select pg_catalog.format('subscription %I', subname) from pg_catalog.pg_subscription \
        where subenabled \
        and subdbid = (select oid from pg_catalog.pg_database where datname = \
        pg_catalog.current_database()) order by 1",
    "select pg_catalog.format('publication %I', pubname) from pg_catalog.pg_publication order by 1",
    "select pg_catalog.format('replication slot %I', slot_name) from \
        pg_catalog.pg_replication_slots \
        where database = pg_catalog.current_database() order by 1",
    "select pg_catalog.format('foreign server %I', srvname) from \
        pg_catalog.pg_foreign_server order by 1",
    "select pg_catalog.format('event trigger %I', evtname) from pg_catalog.pg_event_trigger \
        where evtenabled <> 'D' and evtowner not in \
        (select oid from pg_catalog.pg_roles where rolname = 'cloud_admin') and not exists (select \
        from pg_catalog.pg_depend d \
        where d.classid = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass and d.objid = \
        pg_event_trigger.oid and d.deptype = 'e') order by 1",
];

/// Returns whether any defect is looked for that the catalogue leads to.
pub fn looks_for_defects(settings: &Verification) -> bool {
    let kinds = [
        ProbeKind::ForeignKeys,
        ProbeKind::Sequences,
        ProbeKind::Indexes,
        ProbeKind::Constraints,
        ProbeKind::IndexStructure,
    ];
    kinds.into_iter().any(|kind| policy(kind, settings) != Policy::Off)
}

/// Reads the last result of a catalogue batch that looks for defects, as probes; `None` when it
/// makes no sense.
pub fn integrity_probes(results: &[Rows], settings: &Verification) -> Option<Vec<Probe>> {
    decode_probes(results.get(3)?, |kind| policy(kind, settings) == Policy::Off)
}

/// Returns the probes of the backup that are configured. `is_first` says whether it is the first
/// database.
pub fn backup_probes(
    database: &DatabaseName,
    is_first: bool,
    settings: &Verification,
) -> Vec<Probe> {
    let fresh = settings
        .freshness
        .iter()
        .filter(|freshness| freshness.database.as_ref().is_none_or(|wanted| wanted == database));
    let fresh = fresh.map(|freshness| {
        let column = quoted(&freshness.column);
        let table = format!("{}.{}", quoted(&freshness.schema), quoted(&freshness.table));
        // The newest value by the order of its type, as text of its type: `max` and a cast might be
        // the database's own.
        let newest = format!(
            "select {column} from {table} where {column} is not null order by {column} desc \
                limit 1"
        );
        let sql = format!(
            "select extract(epoch from now() - nullif(concat(({newest})), \
                '')::timestamptz)::bigint::text"
        );
        Probe::new(ProbeKind::Freshness, freshness.name(), sql)
    });
    // A copy acts as what it was copied from does, unless something is done to it first.
    let armed = if settings.after_restore.is_none() { armed_probes(settings) } else { Vec::new() };
    fresh.chain(assertions(database, is_first, settings, AssertedOn::Backup)).chain(armed).collect()
}

/// Returns the probes of staging.
pub fn staging_probes(
    database: &DatabaseName,
    is_first: bool,
    settings: &Verification,
) -> Vec<Probe> {
    assertions(database, is_first, settings, AssertedOn::Staging)
}

/// Returns the probes of staging once what is configured was run on it.
pub fn prepared_probes(
    database: &DatabaseName,
    is_first: bool,
    settings: &Verification,
) -> Vec<Probe> {
    let armed = if settings.after_restore.is_some() { armed_probes(settings) } else { Vec::new() };
    let tenants = settings
        .tenants
        .as_ref()
        .filter(|tenants| is_here(tenants.database.as_ref(), database, is_first))
        .map(guarded_probe);
    assertions(database, is_first, settings, AssertedOn::AfterRestore)
        .into_iter()
        .chain(armed)
        .chain(tenants)
        .collect()
}

/// Returns the probes for what would act by itself.
pub fn armed_probes(settings: &Verification) -> Vec<Probe> {
    let asked = ARMED.iter().filter(|_| settings.armed != Policy::Off);
    asked.map(|sql| Probe::new(ProbeKind::Armed, "", (*sql).to_owned())).collect()
}

fn assertions(
    database: &DatabaseName,
    is_first: bool,
    settings: &Verification,
    side: AssertedOn,
) -> Vec<Probe> {
    let is_on =
        |on: AssertedOn| on == side || (on == AssertedOn::Both && side != AssertedOn::AfterRestore);
    let is_wanted = |assertion: &&Assertion| {
        is_here(assertion.database.as_ref(), database, is_first) && is_on(assertion.on)
    };
    let probe = |assertion: &Assertion| Probe {
        is_configured: true,
        ..Probe::new(ProbeKind::Assertion, assertion.name.as_str(), assertion.sql.clone())
    };
    settings.assertions.iter().filter(is_wanted).map(probe).collect()
}

/// Returns whether a setting is for this database: the one that it names, or the first.
fn is_here(named: Option<&DatabaseName>, database: &DatabaseName, is_first: bool) -> bool {
    named.map_or(is_first, |named| named == database)
}

/// Returns the probes that count the rows of production, one for each table of the backup that was
/// read.
pub fn production_probes(print: &DatabasePrint, bytes: impl Fn(&str) -> u64) -> Vec<Probe> {
    let counted = print.tables.keys().filter(|table| table.contains('.'));
    let probe = |table: &String| Probe {
        bytes: bytes(table),
        ..Probe::new(
            ProbeKind::ProductionCount,
            table.as_str(),
            format!("select count(*)::text from only {table}"),
        )
    };
    counted.map(probe).collect()
}

/// Quotes a name as it is called.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
