//! Starts and stops the programs that tests and the demo need: the emulator, `wrangler dev`, a
//! receiver of notices.
//!
//! Invariants: everything listens on loopback, on ports it chose. Every process is ended by its own
//! id, also when a test fails. Everything written lies in one temporary folder that is removed.

pub mod emulator;
pub mod http;
pub mod paths;
pub mod process;
pub mod sink;
pub mod stack;
pub mod worker;

use std::time::{Duration, Instant};

/// Asks again and again until the answer is `Some`; `None` when the time is up.
pub fn wait_for<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if began.elapsed() > patience {
            return None;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}
