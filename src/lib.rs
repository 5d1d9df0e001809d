//! Firstlight makes staging a verified copy of production every morning, and says so.
//!
//! # Bird's eye
//!
//! A cron fires every five minutes. The *schedule* decides whether a run is due; the *machine*
//! decides what a run does next; the *tick* does it through five ports and saves. Neon is the
//! truth: the names of branches are the locks, KV is a memory.
//!
//! # Code map
//!
//! From the top:
//!
//! - the crate `firstlight-worker` in `src/worker`: entry points, and the ports on Cloudflare;
//! - [`api`]: what a request does;
//! - [`tick`]: load, next, act, apply, save;
//! - [`record`]: KV keys and formats;
//! - [`sync`]: the run (`machine::next`, `machine::apply`, `retry::disposition`), its day
//!   (`schedule::today`), and what people are told (`notice::of_run`, `incident::take_up`);
//! - [`retention`]: what is kept, what goes, why (`plan`);
//! - [`verify`]: reading and comparing databases (`pieces`, `compare`, `judge_backup`), and
//!   [`names`]: what our branches are called;
//! - [`neon`] and [`config`]: the protocol, and settings;
//! - [`port`]: the five ports, and [`notice_kind`];
//! - [`time`] and [`id`]: values.
//!
//! A room uses lower ones only (`tidy`: `a_module_uses_lower_layers_only`).
//!
//! # Who owns what
//!
//! The checkpoint belongs to the tick that drives; the result of a run is written once; a hold and
//! a cancellation belong to people.
//!
//! # Invariants
//!
//! - What decides has no clock, no randomness, no `async` and no ports (`tidy`:
//!   `the_core_has_no_clock_no_async_and_no_ports`).
//! - Production is never the target of a writing call (end to end:
//!   `the_cron_makes_staging_a_verified_copy`).
//! - A restore that Neon accepted is not sent again (end to end:
//!   `a_run_killed_in_step_4_is_finished_with_one_restore`; simulation:
//!   `a_restore_that_was_applied_and_lost_is_not_repeated`).
//! - A success is told only while the last look at staging, in the tick that tells it, shows the
//!   copy (simulation: `a_success_that_was_not_told_at_once_is_looked_at_again_before_it_is_told`).
//! - What is configured is run on staging once in a run (simulation:
//!   `what_is_configured_is_run_on_staging_once_whatever_happens_to_the_request`; contract:
//!   `what_is_run_on_staging_is_run_once_in_a_run_and_all_of_it_or_nothing`).
//! - What was read is not read again by the next tick (simulation:
//!   `a_production_that_one_invocation_cannot_read_is_read_by_several_and_nothing_twice`).
//! - Nothing waits for an instant that is further away than any of ours (simulation:
//!   `a_clock_that_was_ahead_holds_nobody_up`).
//! - A date has one scheduled run, at its time, in every zone (simulation:
//!   `every_date_has_one_run_at_its_time_in_every_zone`).
//! - No notice is lost, told under two ids, or told before what came before it in its incident
//!   (simulation: `nothing_is_lost_told_under_another_id_or_out_of_order_whatever_receivers_do`).
//! - Secrets have no `Debug`, `Display` or `Serialize` (`id::Secret`).

pub mod api;
pub mod config;
#[cfg(test)]
mod fixtures;
pub mod id;
pub mod names;
pub mod neon;
pub mod notice_kind;
pub mod ordered;
pub mod port;
pub mod record;
pub mod retention;
pub mod sync;
pub mod tick;
pub mod time;
pub mod verify;
