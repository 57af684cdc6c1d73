//! The demo: a month of real departures through all of Farwrite.
//!
//! Each row of the file is a command, published in the region of its airport and applied at the
//! primary. Then SQL compares the app's tables with the file, and the order of their rows with the
//! broker's. The judgement trusts the worker for one counter only.

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
