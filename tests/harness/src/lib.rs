//! Starts and stops the programs that tests and the demo need.
pub mod paths;
