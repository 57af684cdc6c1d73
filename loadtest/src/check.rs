//! `loadtest check`: the checker's command line. The checker itself is a crate of its own.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::kit::file;

const AFTER: &str = "\
The last line is `check: PASS`, or `check: FAIL` with the number of violations.

Exit status:
  0  no law was broken
  1  one was, or the history is incomplete or cannot be read
  2  wrong arguments";

/// `loadtest check`.
#[must_use]
pub fn command() -> Command {
    Command::new("check")
        .about("Checks a history: what clients were told against what was there in the end")
        .arg(
            Arg::new("history")
                .value_name("HISTORY")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The history, as docs/chaos.md describes it"),
        )
        .arg(file("json", "Where the report goes as JSON"))
        .after_help(AFTER)
}

/// Checks what the arguments say; whether no law was broken.
///
/// # Errors
/// When the history cannot be read, or the report cannot be written.
pub fn run_command(matches: &ArgMatches) -> Result<bool> {
    let history = matches.get_one::<PathBuf>("history").context("no history")?;
    let json = matches.get_one::<PathBuf>("json").map(PathBuf::as_path);
    farwrite_checker::run(history, json, &mut std::io::stdout())
}
