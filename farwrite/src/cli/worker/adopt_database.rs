//! `farwrite worker adopt-database`: an operator's word about a database whose rows are another one's.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use tracing::error;

use crate::worker::{AdoptDatabaseError, Config, DatabaseAdoption, adopt_database};

use super::{
    super::runtime::{FAILED, UNUSABLE},
    adopt::{reason, reason_of},
    migrate::status_of_stream,
};

/// What `adopt-database --help` says.
const ADOPTION: &str = "\
Stop the worker first. Positions and the ledger stay: the worker goes on from there in the stream. The broker
names this database from now on, and the worker of every other one of this name stops. Bookmarks of the
database before are superseded. docs/failover.md has the cases.

Exit status:
  0  done
  1  not done: a worker owns the database, the broker names another one (and no --replace), or the primary or NATS failed
  2  the flags, the configuration or the primary are not usable";

pub(super) fn command() -> Command {
    Command::new("adopt-database")
        .about("Goes on with a database that was restored, copied or upgraded, or takes its name back from a copy")
        .after_help(ADOPTION)
}

pub(super) fn flags() -> [Arg; 3] {
    let flag = |name| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let new = flag("new-incarnation");
    let new = new.help("It is another database than the one whose rows it holds, though its server says the same: a physical clone, or put back from a copy");
    let replace = flag("replace");
    let replace =
        replace.help("It takes the place of the database that the broker names: its worker stops");
    [new, replace, reason()]
}

/// What the operator decided.
pub(super) fn adoption_of(matches: &ArgMatches) -> Result<DatabaseAdoption, String> {
    let (new_incarnation, replace) =
        (matches.get_flag("new-incarnation"), matches.get_flag("replace"));
    Ok(DatabaseAdoption { new_incarnation, replace, reason: reason_of(matches)? })
}

pub(super) async fn adopt(config: &Config, adoption: &DatabaseAdoption) -> ExitCode {
    match adopt_database(config, adoption).await {
        Ok(adopted) => {
            println!("{adopted}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!(%error, "adopt-database");
            match &error {
                AdoptDatabaseError::Stream(error) => status_of_stream(error),
                AdoptDatabaseError::Primary(error) if !error.may_pass() => ExitCode::from(UNUSABLE),
                AdoptDatabaseError::Primary(_)
                | AdoptDatabaseError::Owned
                | AdoptDatabaseError::Served(_)
                | AdoptDatabaseError::Overtaken => ExitCode::from(FAILED),
            }
        }
    }
}
