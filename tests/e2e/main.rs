//! The built wasm in workerd under `wrangler dev`, with emulator, cron, KV and a receiver of
//! notices.
//!
//! Each test has a stack of its own, on free ports, in a folder that is removed. The tests wait for
//! processes; they share nothing and may run at the same time. `cargo xtask test` builds the Worker
//! and the emulator first.

mod api;
mod channels;
mod checks;
mod crash;
mod hostile;
mod kills;
mod refusals;
mod refusing;
mod roles;
mod runbooks;
mod snapshots;
mod sync;
