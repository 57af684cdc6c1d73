//! `loadtest`: drives Farwrite as a whole, with real servers and the real programs.

use std::process::ExitCode;

use clap::Command;
use farwrite_loadtest::{bench, chaos, check, demo};

fn command() -> Command {
    Command::new("loadtest")
        .about("Drives Farwrite as a whole, with real servers and the real programs")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(demo::command())
        .subcommand(chaos::command())
        .subcommand(bench::command())
        .subcommand(bench::weigh_command())
        .subcommand(check::command())
}

fn main() -> ExitCode {
    let matches = command().get_matches();
    let work = async {
        match matches.subcommand() {
            Some(("demo", matches)) => Ok(demo::run_command(matches).await),
            Some(("chaos", matches)) => chaos::run_command(matches).await,
            Some(("bench", matches)) => bench::run_command(matches).await.map(|()| true),
            Some(("bench-weigh", matches)) => {
                bench::run_weigh_command(matches).await.map(|()| true)
            }
            Some(("check", matches)) => check::run_command(matches),
            _ => Ok(false),
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(anyhow::Error::new).and_then(|runtime| runtime.block_on(work)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_holds_together() {
        super::command().debug_assert();
    }
}
