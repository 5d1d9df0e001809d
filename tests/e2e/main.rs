//! The built wasm in workerd, with emulator, cron and KV.

mod sync;
