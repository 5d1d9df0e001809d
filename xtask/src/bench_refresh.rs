//! `cargo xtask bench refresh`: from the cron to a verified staging, beside `pg_dump` and
//! `pg_restore` and the counts of the manual procedure.
//!
//! Both begin with the same production and end with a staging that was checked. Neon's own work is
//! stood for by the emulator's copies of files (operations, and the computes that queries wait
//! for), whose time is told apart.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use harness::emulator::{Emulator, Options};
use harness::stack::Stack;

use crate::bench_verify::{Copy, insert, ratio, shell, shown, timed, vacuum};
use crate::demo::neon_time;
use crate::shell::say;

/// Rows of the table in a megabyte.
const ROWS_PER_MEGABYTE: u64 = 4_000;

/// The statement that counts every table, as the manual procedure does.
const COUNTS: &str = "select format('select %L, count(*) from %I.%I;', relname, nspname, relname) \
    from pg_class c join pg_namespace n on n.oid = relnamespace \
    where relkind = 'r' and nspname = 'public'";

/// Measures and prints.
pub(crate) fn refresh(megabytes: u64) -> Result<()> {
    let bin = harness::paths::postgres_on_path()?;
    let options = Options {
        postgres_bin: Some(bin.clone()),
        create_ms: 100,
        restore_ms: 100,
        ..Options::default()
    };
    let stack = Stack::start_with(&options, &|settings, _, _| {
        settings["wall_budget_s"] = serde_json::json!(840);
    })?;
    let emulator = &stack.emulator;
    let size = fill(emulator, megabytes)?;
    emulator.control("DELETE", "journal", None)?;

    say("cron to verified staging");
    let (ours, report) = timed(|| stack.run_to_end(3));
    let report = report?;
    if report["status"] != "succeeded" {
        bail!("the run ended {}: {}", report["status"], report["reason"]);
    }
    let (operations, sql) = neon_time(emulator)?;
    let requests = emulator.journal()?.len();

    say("pg_dump, pg_restore, counts");
    let by_hand = by_hand(emulator, &bin)?;
    let theirs = by_hand.dumped + by_hand.restored + by_hand.counted;
    let copied = Duration::from_millis(operations);
    let verifying = Duration::from_millis(sql);
    println!("production of {size}");
    println!("cron to verified staging: {}, {requests} requests to Neon", shown(ours));
    println!("  of that the file copies that stand for Neon's own work: {}", shown(copied));
    println!(
        "  of that SQL, which is verification: {} ({} % of the rest)",
        shown(verifying),
        percent(verifying, ours.saturating_sub(copied))
    );
    println!(
        "pg_dump {}, pg_restore {}, counts {}: {}",
        shown(by_hand.dumped),
        shown(by_hand.restored),
        shown(by_hand.counted),
        shown(theirs)
    );
    println!(
        "that is {} times as long; without the file copies, {} times",
        ratio(theirs, ours),
        ratio(theirs, ours.saturating_sub(copied))
    );
    Ok(())
}

/// Fills production. Returns how large it is, as PostgreSQL says it.
fn fill(emulator: &Emulator, megabytes: u64) -> Result<String> {
    say(&format!("filling production with {megabytes} MB"));
    let create = "create table public.events(id bigint primary key, at timestamptz, kind text, \
        amount numeric(12, 2), doc jsonb, note text)";
    emulator.sql(
        &emulator.production,
        &[create, "create table public.users(id int primary key, name text)"],
    )?;
    insert(
        emulator,
        "insert into public.events \
            select g, timestamptz '2026-01-01' + make_interval(secs => g), 'kind ' || g % 17, \
            g * 1.01, jsonb_build_object('k', g, 'v', md5(g::text)), repeat(md5(g::text), 3)",
        megabytes * ROWS_PER_MEGABYTE,
    )?;
    let size = emulator.sql(
        &emulator.production,
        &["create index on public.events(at)", "select pg_size_pretty(pg_database_size('neondb'))"],
    )?;
    vacuum(emulator, "public.events, public.users")?;
    size.first().and_then(|row| row.first()?.clone()).context("its size")
}

/// How long each part of the manual procedure took.
struct ByHand {
    dumped: Duration,
    restored: Duration,
    counted: Duration,
}

/// Refreshes staging as the manual procedure does.
fn by_hand(emulator: &Emulator, bin: &Path) -> Result<ByHand> {
    let (production, staging) =
        (Copy::of(emulator, &emulator.production)?, Copy::of(emulator, &emulator.staging)?);
    let folder = crate::bench_verify::tempfile_in_reach()?;
    let file = folder.path().join("production.dump");
    let (dump, restore) = (bin.join("pg_dump"), bin.join("pg_restore"));
    let dumped = shell(&format!(
        "'{}' -Fc -N neon -f '{}' '{}'",
        dump.display(),
        file.display(),
        production.address
    ))?;
    let restored = shell(&format!(
        "'{}' --clean --if-exists --no-owner --no-acl -d '{}' '{}'",
        restore.display(),
        staging.address,
        file.display()
    ))?;
    let count = |address: &str| {
        shell(&format!("psql '{address}' -Atc \"{COUNTS}\" | psql '{address}' -At"))
    };
    let counted = count(&production.address)? + count(&staging.address)?;
    Ok(ByHand { dumped, restored, counted })
}

fn percent(part: Duration, of: Duration) -> u128 {
    part.as_millis() * 100 / of.as_millis().max(1)
}
