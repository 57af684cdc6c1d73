//! All subcommands, and the text that shows them.

use clap::Command;

use super::{operate, verbs, watcher, worker};

/// The first help: every subcommand by its name, in the order in which one meets them.
const OVERVIEW: &str = "\
Serve:
  worker migrate | run                            beside the primary: applies commands
  worker adopt-stream | adopt-database            what only an operator knows: which one to go on with
  watcher run                                     beside a replica: says what it has replayed

Write from a region, in one line of JSON:
  publish | submit | write                        a command: stored, committed, visible here
  outcome | wait | lag                            how a command ended, a bookmark, the worker's lag

Operate on the database:
  status                                          its owner, position and lag, and what waits
  find | cancel                                   one command by its id
  parked list | show | release                    commands that wait
  dead-letters list | show | requeue | discard    commands that could not be applied
  pause | resume | pauses                         a command's name, or a key

`farwrite help COMMAND` has the settings and the exit statuses. Settings come from flags, then the
environment, then the file that --config names (lines of FARWRITE_NAME=value), then defaults.";

/// The whole command line.
#[doc(hidden)]
#[must_use]
pub fn command() -> Command {
    Command::new("farwrite")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Writes from any region to one PostgreSQL primary, and reads them next door")
        .help_template("{about}\n\n{usage-heading} {usage}{after-help}\n\n{options}")
        .after_help(OVERVIEW)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(worker::command())
        .subcommand(watcher::command())
        .subcommands(verbs::commands())
        .subcommands(operate::commands())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Names as the overview writes them: `parked list`.
    fn paths(command: &Command) -> BTreeSet<String> {
        let own = |command: &Command| command.get_name().to_owned();
        command
            .get_subcommands()
            .flat_map(|command| match command.get_subcommands().next() {
                None => vec![own(command)],
                Some(_) => {
                    let inner = command.get_subcommands();
                    inner.map(|inner| format!("{} {}", own(command), own(inner))).collect()
                }
            })
            .collect()
    }

    #[test]
    fn the_overview_shows_every_subcommand_and_no_other() {
        let lines = OVERVIEW.lines().filter_map(|line| line.strip_prefix("  "));
        let shown = lines.flat_map(|line| {
            let (names, _) = line.split_once("   ").expect("names, then what they are");
            match names.split_once(' ') {
                Some((group, inner)) if !inner.starts_with('|') => {
                    inner.split(" | ").map(|inner| format!("{group} {inner}")).collect()
                }
                _ => names.split(" | ").map(str::to_owned).collect::<Vec<_>>(),
            }
        });
        assert_eq!(shown.collect::<BTreeSet<_>>(), paths(&command()));
    }

    #[test]
    fn the_flags_are_well_formed_and_the_first_help_is_short() {
        command().debug_assert();
        let help = command().render_help().to_string();
        assert!(help.lines().count() <= 28, "{help}");
    }
}
