//! How a subcommand runs and ends: its runtime, its log, its exit status where it is refused.

use std::{process::ExitCode, time::Duration};

use clap::ArgMatches;
use farwrite_internal::program::log;
use tokio::runtime::Builder;

use super::settings::{named, text};

/// Status 1: it did not succeed, and the message says why.
pub(crate) const FAILED: u8 = 1;
/// Status 2: the flags, the environment or the file are to be changed.
pub(crate) const UNUSABLE: u8 = 2;
/// How long tasks may take to end when a subcommand has ended.
const END_WITHIN: Duration = Duration::from_millis(500);

/// Refuses what the flags, the environment or the file say; nothing was contacted.
pub(crate) fn refuse(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(UNUSABLE)
}

/// Starts the log that the setting `log` asks for.
pub(crate) fn start_log(matches: &ArgMatches) -> Result<(), String> {
    let filter = text(matches, "log").unwrap_or_else(|| "info".to_owned());
    let filter = log::filter(&filter).map_err(|error| format!("{}: {error}", named("log")))?;
    log::start(filter).map_err(|error| error.to_string())
}

/// Runs to the end on a runtime of its own.
pub(crate) fn run_on(mut builder: Builder, work: impl Future<Output = ExitCode>) -> ExitCode {
    match builder.enable_all().build() {
        Ok(runtime) => {
            let status = runtime.block_on(work);
            runtime.shutdown_timeout(END_WITHIN);
            status
        }
        Err(error) => {
            eprintln!("error: the runtime does not start: {error}");
            ExitCode::from(FAILED)
        }
    }
}
