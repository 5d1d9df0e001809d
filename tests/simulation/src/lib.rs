//! The simulation: the whole Worker but its entry points, run natively against a simulated Neon, a
//! stale store and a seeded scheduler.
//!
//! # What is simulated
//!
//! [`neon_emulator::simulated`] is Neon: the model that the served emulator has, with contents in
//! memory. `kv` is Workers KV. `world` is the clock and the scheduler's view of every tick,
//! `requests` and `store` are the ports, with whatever goes wrong. Requests and replies are the
//! real encoded ones; `src/worker/lib.rs` is the only file of the Worker that does not run.
//!
//! # What can go wrong
//!
//! [`faults`] tells it in prose first. A [`plan::Plan`] is one scenario; [`run`] runs it through a
//! simulated morning, which [`scene`] begins, until nothing is left to do. A [`script::Script`] is
//! a morning with people in it.
//!
//! # Who judges
//!
//! `oracle` looks at Neon and at what people were told, never at the Worker's own records: safety
//! after every request that Neon applied, claims when they are made, the story that people were
//! told at the end. A run ends within [`run::TICKS_TO_END`] ticks of the last fault.
//!
//! # Running it
//!
//! - `cargo xtask test` runs the named scenarios and every scenario of one fault
//!   ([`grid::singles`]), a sample of pairs and of seeds;
//! - `cargo xtask sim --seconds 600` draws seeds for ten minutes, from a seed of the day or from
//!   `--seed S`;
//! - `cargo xtask sim --pairs` runs every pair of faults on a plain morning, which takes minutes;
//! - `cargo xtask sim --replay 'plain/restoreProjectBranch#1=lost/no_crash/fresh/one_tick'` tells
//!   one scenario action by action;
//! - `cargo xtask sim --table` writes `outcomes.md`, the table *fault × step → outcome*.
//!
//! [`histories`] is apart: it needs no morning, only the plan of what is deleted, for 100,000
//! random histories of a pair.
//!
//! A failure prints the command that replays it.
//!
//! # Adding a scenario
//!
//! A bug that was found becomes a test in `scenarios`, with the plan that shows it. A new way to
//! fail is told in [`faults`], gets a name there, is done in `requests`, `store` or `outside`, and
//! joins the grid through [`faults::Kind::faults`].

pub mod faults;
pub mod fleet;
pub mod grid;
pub mod histories;
mod kv;
mod oracle;
pub mod outcomes;
mod outside;
pub mod plan;
mod random;
pub mod receivers;
mod requests;
pub mod rows;
pub mod run;
pub mod scene;
pub mod script;
pub mod season;
mod store;
mod world;

/// Replaces the system's allocator, in which a third of the time would be spent.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
