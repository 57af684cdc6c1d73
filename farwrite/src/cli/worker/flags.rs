//! The subcommands of `farwrite worker`, and which one was chosen.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::runtime::Builder;
use tracing::warn;

use crate::worker::{Handlers, failpoint};

use super::{
    super::{
        runtime::{run_on, start_log},
        settings::{group, metrics_addr, with_settings},
    },
    adopt, adopt_database, migrate, run,
    settings::{config_of, settings},
};

/// What `--help` says about the program's end.
const STATUSES: &str = "\
Exit status:
  0  asked to stop (SIGTERM, SIGINT), and everything in flight was settled
  1  an unexpected failure
  2  the configuration, the primary or the stream's settings are not usable; the message says what to change
  4  the stream is not the one that the database knows; nothing was read from it
  5  migrate --check: migrate has something to do";

/// `farwrite worker`.
pub(crate) fn command() -> Command {
    let check = Arg::new("check").long("check").action(ArgAction::SetTrue);
    let check =
        check.help("Change nothing: say what there is to do, and end with 5 if there is anything");
    let migrate = Command::new("migrate")
        .about("Prepares the database (schema farwrite) and the stream; safe to repeat")
        .after_help(STATUSES);
    let run = Command::new("run").about("Applies commands until it is asked to stop");
    group("worker", "Applies the commands of a NATS JetStream stream to a PostgreSQL primary, exactly once and in order per key")
        .subcommand(with_settings(migrate, settings()).arg(check))
        .subcommand(with_settings(run.after_help(STATUSES), settings()))
        .subcommand(with_settings(adopt::command(), settings()).args(adopt::flags()))
        .subcommand(
            with_settings(adopt_database::command(), settings()).args(adopt_database::flags()),
        )
}

/// Starts what was chosen, or says which setting is not usable.
pub(crate) fn start(matches: &ArgMatches, handlers: Handlers) -> Result<ExitCode, String> {
    let (subcommand, matches) = matches.subcommand().ok_or("worker: choose a subcommand")?;
    start_log(matches)?;
    let config = config_of(matches)?;
    if let Some(point) = failpoint::armed()? {
        warn!(failpoint = point.name(), "ARMED: this process will kill itself there");
    }
    let runtime = Builder::new_multi_thread();
    Ok(match subcommand {
        "migrate" if matches.get_flag("check") => run_on(runtime, migrate::check(&config)),
        "migrate" => run_on(runtime, migrate::migrate(&config)),
        "adopt-stream" => run_on(runtime, adopt::adopt(&config, &adopt::adoption_of(matches)?)),
        "adopt-database" => {
            let adoption = adopt_database::adoption_of(matches)?;
            run_on(runtime, adopt_database::adopt(&config, &adoption))
        }
        _ => run_on(runtime, run::run(config, handlers, metrics_addr(matches)?)),
    })
}
