//! `cargo xtask demo --seed DUMP`: the same with a production of one's own.
//!
//! In: a dump of `pg_dump`, as a file of SQL, in its own format, or a folder. Out: the report of a
//! run whose staging was empty before, and what of the dump could not be loaded, with the reason.
//!
//! Nothing leaves the machine: the dump is loaded into the emulator, which ends with the command.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use harness::emulator::Emulator;
use serde_json::Value;

use super::{Shown, described_endpoints, finish, report, start_with, watch};
use crate::setup::require_client;
use crate::shell::say;

/// Reasons that are shown; the others are counted.
const SHOWN: usize = 20;

/// How `pg_dump` wrote a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Statements, for `psql`.
    Sql,
    /// Any other: for `pg_restore`.
    Archive,
}

impl Format {
    /// # Source
    ///
    /// PostgreSQL, `pg_backup_archiver.c`: an archive begins with "PGDMP"; a folder has `toc.dat`,
    /// which is the first file of a tar, too.
    fn of(dump: &Path) -> Result<Self> {
        if dump.is_dir() {
            if dump.join("toc.dat").exists() {
                return Ok(Self::Archive);
            }
            bail!("{} is a folder without toc.dat, expected one of pg_dump", dump.display());
        }
        let mut start = Vec::new();
        let file = fs::File::open(dump).with_context(|| format!("read {}", dump.display()))?;
        file.take(5).read_to_end(&mut start)?;
        Ok(if start == b"PGDMP" || start == b"toc.d" { Self::Archive } else { Self::Sql })
    }
}

/// Runs the demonstration with a dump as production.
pub(crate) fn demo(dump: &Path, shown: Shown) -> Result<()> {
    let format = Format::of(dump)?;
    let tool = if format == Format::Sql { "psql" } else { "pg_restore" };
    require_client(tool)?;
    say("starting the Neon emulator");
    let stack = start_with("select 1")?;
    let emulator = &stack.emulator;
    say(&format!("loading {} into production", dump.display()));
    let refused = load(emulator, dump, format)?;
    tell(&refused);
    let tables = tables(emulator)?;
    if tables.is_empty() {
        bail!("{} has left no table in production; see the reasons above", dump.display());
    }
    let before: BTreeMap<String, String> =
        tables.iter().map(|table| (table.clone(), "-".to_owned())).collect();
    say(&format!("firing the cron; production has {} tables, staging none", tables.len()));
    emulator.control("DELETE", "journal", None)?;
    let began = Instant::now();
    watch(&stack, began)?;
    let report = report(&stack, &before, began.elapsed())?;
    finish(&stack, &report, shown)
}

/// Loads a dump, and returns what was refused, each reason with how often.
fn load(emulator: &Emulator, dump: &Path, format: Format) -> Result<BTreeMap<String, usize>> {
    emulator.sql(&emulator.production, &["select 1"])?;
    let endpoints = described_endpoints(&emulator.control("GET", "endpoints", None)?);
    let is_ours = |found: &&Value| found["branch"] != "staging" && found["role"] == "neondb_owner";
    let login = endpoints.iter().find(is_ours).context("find production's compute")?;
    let text = |name: &str| login[name].as_str().unwrap_or_default();
    let mut command = match format {
        Format::Sql => Command::new("psql"),
        Format::Archive => Command::new("pg_restore"),
    };
    command
        .env("PGHOST", text("address"))
        .env("PGPORT", login["port"].to_string())
        .env("PGUSER", text("role"))
        .env("PGPASSWORD", text("password"))
        .env("PGDATABASE", text("database"));
    match format {
        // What is refused is told, and the rest is loaded.
        Format::Sql => command.args(["-X", "-q", "-v", "ON_ERROR_STOP=0", "-f"]),
        Format::Archive => command.args(["--no-owner", "--no-privileges", "-d", text("database")]),
    };
    let output = command.arg(dump).output().context("start PostgreSQL's client")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let refused = reasons(&said);
    if refused.is_empty() && !output.status.success() {
        bail!("load {}: {}", dump.display(), said.trim());
    }
    Ok(refused)
}

/// Returns the errors that a client of PostgreSQL's has told, each with how often.
fn reasons(said: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for line in said.lines() {
        let reason = line.split_once("ERROR:").or_else(|| line.split_once("error:"));
        if let Some((_, reason)) = reason {
            *found.entry(reason.trim().to_owned()).or_default() += 1;
        }
    }
    found
}

fn tell(refused: &BTreeMap<String, usize>) {
    if refused.is_empty() {
        say("all of it was loaded");
        return;
    }
    let count: usize = refused.values().sum();
    say(&format!("{count} statements could not be loaded; the run goes on without them:"));
    for (reason, times) in refused.iter().take(SHOWN) {
        say(&format!("  {times} times: {reason}"));
    }
    if refused.len() > SHOWN {
        say(&format!("  and {} other reasons", refused.len() - SHOWN));
    }
}

/// Returns the tables of production, as SQL writes their names.
fn tables(emulator: &Emulator) -> Result<Vec<String>> {
    let sql = "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on \
        n.oid = c.relnamespace where c.relkind = 'r' and c.relpersistence = 'p' and \
        n.nspname !~ '^(pg_|information_schema$|neon$)' order by 1";
    let rows = emulator.sql(&emulator.production, &[sql])?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_of_a_dump_is_seen_by_what_it_is() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        fs::write(at("plain"), "create table t(id int);")?;
        fs::write(at("short"), "x")?;
        fs::write(at("custom"), b"PGDMP\x01\x0e\x00")?;
        fs::write(at("tar"), b"toc.dat\0\0")?;
        fs::create_dir(at("folder"))?;
        assert!(Format::of(&at("folder")).is_err(), "it is no dump");
        fs::write(at("folder").join("toc.dat"), b"PGDMP")?;
        for (name, format) in [
            ("plain", Format::Sql),
            ("short", Format::Sql),
            ("custom", Format::Archive),
            ("tar", Format::Archive),
            ("folder", Format::Archive),
        ] {
            assert_eq!(Format::of(&at(name))?, format, "{name}");
        }
        assert!(Format::of(&at("nothing")).is_err());
        Ok(())
    }

    #[test]
    fn what_both_clients_refuse_is_counted_by_its_reason() {
        let said = "psql:dump.sql:7: ERROR:  role \"app\" does not exist\n\
            psql:dump.sql:9: ERROR:  role \"app\" does not exist\n\
            pg_restore: error: could not execute query: ERROR:  must be superuser\n\
            Command was: CREATE EXTENSION x;\n\
            pg_restore: warning: errors ignored on restore: 1\n";
        let found = reasons(said);
        assert_eq!(found.get("role \"app\" does not exist"), Some(&2), "{found:?}");
        assert_eq!(found.get("must be superuser"), Some(&1), "{found:?}");
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
