//! `farwrite worker adopt-stream`: an operator's word about a stream that the database does not
//! know.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use tracing::error;

use crate::worker::{AdoptError, Adoption, Config, GoOnFrom, adopt_stream};

use super::{
    super::{
        runtime::{FAILED, UNUSABLE},
        settings::text,
    },
    migrate::status_of_stream,
};

/// What `adopt-stream --help` says.
const ADOPTION: &str = "\
Stop the worker first. Nothing is lost by --from first: the ledger knows what was applied before, as
far back as it was kept, and it is not applied again. A message whose id is older is refused (dead-lettered
as id_too_old): --dry-run says how many, and where. What lies below the chosen sequence and was not
applied never will be. docs/failover.md has the cases.

Exit status:
  0  done
  1  not done: a worker owns the database, the stream is not there (or is, with --recreate), or the primary failed
  2  the flags, the configuration, the primary or the stream's settings are not usable";

pub(super) fn command() -> Command {
    Command::new("adopt-stream")
        .about("Goes on with a stream that is not the one that the database knows")
        .after_help(ADOPTION)
}

pub(super) fn flags() -> [Arg; 4] {
    let from = Arg::new("from").long("from").value_name("first|next|SEQUENCE");
    let from = from.help("Go on from the oldest message that the stream holds, behind the newest, or from this one [default with --recreate: first]");
    let from = from.value_parser(|text: &str| text.parse::<GoOnFrom>());
    let recreate = Arg::new("recreate").long("recreate").action(ArgAction::SetTrue);
    let recreate = recreate
        .help("The stream is gone: make it again, numbered on from what the database has applied");
    let dry_run = Arg::new("dry-run").long("dry-run").action(ArgAction::SetTrue);
    let dry_run = dry_run.help("Only say what would come of it: nothing is changed");
    [from.required_unless_present("recreate"), recreate, reason(), dry_run]
}

/// Why an operator does what a program must not decide.
pub(super) fn reason() -> Arg {
    let reason = Arg::new("reason").long("reason").value_name("TEXT").required(true);
    reason.help("Why: written down with the act")
}

pub(super) fn reason_of(matches: &ArgMatches) -> Result<String, String> {
    let reason = text(matches, "reason").unwrap_or_default().trim().to_owned();
    if reason.is_empty() {
        return Err("reason: say why; it is written down with the act".to_owned());
    }
    Ok(reason)
}

/// What the operator decided.
pub(super) fn adoption_of(matches: &ArgMatches) -> Result<Adoption, String> {
    let reason = reason_of(matches)?;
    let from = matches.get_one::<GoOnFrom>("from").copied().unwrap_or(GoOnFrom::First);
    let (recreate, dry_run) = (matches.get_flag("recreate"), matches.get_flag("dry-run"));
    Ok(Adoption { from, recreate, reason, dry_run })
}

pub(super) async fn adopt(config: &Config, adoption: &Adoption) -> ExitCode {
    match adopt_stream(config, adoption).await {
        Ok(adopted) => {
            println!("{adopted}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!(%error, "adopt-stream");
            match &error {
                AdoptError::Stream(error) => status_of_stream(error),
                AdoptError::Primary(error) if !error.may_pass() => ExitCode::from(UNUSABLE),
                AdoptError::NotThere { .. } => ExitCode::from(UNUSABLE),
                AdoptError::Primary(_)
                | AdoptError::Owned
                | AdoptError::Missing(_)
                | AdoptError::Exists(_) => ExitCode::from(FAILED),
            }
        }
    }
}
