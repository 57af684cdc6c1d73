//! What demo, bench and chaos share. Nothing here imports from them.

mod args;
mod output;
mod programs;
mod scrape;

pub(crate) use args::{file, number};
pub(crate) use output::write_file;
pub use programs::program;
pub(crate) use programs::{free_address, run_to_end};
pub(crate) use scrape::{counter, quantile, total};
