//! One run of a pair, from start to verdict: the machine and its policies.
//!
//! *Architecture Invariant:* everything below is pure. It has no clock, no randomness, no `async`
//! and no ports; it is given `now` and answers with what is to be done next. `crate::tick` does it.

pub mod capacity;
pub mod checkpoint;
pub mod incident;
pub mod machine;
pub mod notice;
pub mod retry;
pub mod schedule;
pub mod smoke;
pub mod step;
