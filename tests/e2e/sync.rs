//! The main job.

use anyhow::Result;
use harness::emulator::Options;
use harness::stack::Stack;

/// A small production.
pub(crate) const SEED: &str = "\
create table public.users(id bigint generated always as identity primary key, name text not null, score float8);
insert into public.users(name, score) select 'user ' || g, g / 3.0 from generate_series(1, 1000) g;
create table public.\"Company\"(\"Id\" uuid primary key default gen_random_uuid(), tags text[], doc json);
insert into public.\"Company\"(tags, doc) select array['a','b'], '{\"k\": 1}' from generate_series(1, 50);
create role app login password 'app_secret';
grant select, insert on public.users to app;
";

#[test]
fn the_cron_makes_staging_a_verified_copy() -> Result<()> {
    let stack = Stack::start(&Options { seed: SEED.to_owned(), ..Options::default() })?;
    stack.emulator.sql(&stack.emulator.staging, &["delete from users where id > 10"])?;

    let report = stack.run_to_end(1)?;

    eprintln!("{report:#}\n{}", stack.worker.output());
    assert_eq!(report["status"], "succeeded");
    Ok(())
}
