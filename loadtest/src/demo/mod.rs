//! The demo: a month of real departures through the whole house.
//!
//! Each row of the file is a command, published in the region of its airport and applied at the
//! primary. Then SQL judges: what the app's tables hold is compared with the file, and the order in
//! which it came about with the broker's. Nothing is taken from the worker's word but one counter.

mod command;
mod file;
mod judge;
mod plan;
mod publish;
mod report;
mod run;
mod settings;
mod settled;
mod stage;
mod tally;
mod text;

pub use command::{command, run_command};
