//! The operators' subcommands: their flags, and what they mean.

use std::{str::FromStr, time::Duration};

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};
use farwrite_schemas::{CommandId, CommandName, Key};

use crate::worker::operate::{Filter, LIMIT_MAX, PauseTarget};

use super::{
    super::settings::{
        DATABASE_URL, NATS_URL, STREAM, Setting, flag, group, log, needed, text, with_settings,
    },
    operation::Operation,
};

/// The streams that are asked about.
const OF_STREAM: Setting =
    Setting { help: "Only of this stream [default: all that the database knows]", ..STREAM };

/// What `--help` says about the end of an operator's subcommand.
const STATUSES: &str = "\
Exit status:
  0  done
  1  not done, or not all of it, or what was asked for is not there; the message says which
  2  the flags, the configuration or the primary are not usable; the message says what to change";

/// What `--help` adds where something is changed.
const ACTS: &str = "\
The act is written down in farwrite.operations. It is not in the stream: a failover of the
primary that loses commits can lose it. Look again after one.

Exit status:
  0  done
  1  not done, or not all of it, or what was asked for is not there; the message says which
  2  the flags, the configuration or the primary are not usable; the message says what to change";

/// All of them.
pub(crate) fn commands() -> Vec<Command> {
    vec![
        group("dead-letters", "Commands that could not be applied").subcommands([
            listed(ask("list", "Lists dead letters, in order of sequence")),
            listed(ask("show", "Shows dead letters whole, with headers and body")),
            acted_on(act("requeue", "Puts dead letters back: each at the end of its key queue, with its id"), false),
            acted_on(act("discard", "Throws dead letters away; their outcome stays"), true),
        ]),
        group("parked", "Commands that wait").subcommands([
            listed(ask("list", "Lists parked commands, in order of sequence")),
            listed(ask("show", "Shows parked commands whole, with headers and body")),
            acted_on(act("release", "Has parked commands tried at once, scheduled ones before their time; paused ones stay"), false),
        ]),
        targeted(reasoned(act("pause", "Parks a command's name or a key from the next batch on, until it is resumed"), true)),
        targeted(act("resume", "Takes a pause back: what waits for it is tried at once")),
        on_database(ask("pauses", "Lists what is paused"), []),
        reasoned(on_database(act("cancel", "Rejects a command that has not ended, parked, in the stream or not published yet"), []), true).arg(id()),
        on_database(ask("find", "Says how a command ended or what it waits for, from the primary or a replica"), []).arg(id()),
        on_database(ask("status", "Says where the database stands: owner, position, lag, and what waits"), [NATS_URL, OF_STREAM]),
    ]
}

/// A subcommand that changes nothing.
fn ask(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).after_help(STATUSES).arg(json())
}

/// A subcommand that changes something.
fn act(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).after_help(ACTS).arg(json())
}

fn json() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print one JSON object a line")
}

fn id() -> Arg {
    Arg::new("id").value_name("ID").required(true).help("The command id")
}

/// The settings of all of them; more where `more` says so.
fn on_database<const N: usize>(command: Command, more: [Setting; N]) -> Command {
    with_settings(command, [DATABASE_URL].into_iter().chain(more).chain([log("warn")]))
}

fn listed(command: Command) -> Command {
    let limit = format!("At most so many, up to {LIMIT_MAX} [default: 100]");
    let limit =
        flag("limit", "N", "").help(limit).value_parser(value_parser!(i64).range(1..=LIMIT_MAX));
    filtered(command).arg(limit)
}

fn acted_on(command: Command, wants_reason: bool) -> Command {
    let limit = flag("limit", "N", "The first so many [default: all that match]");
    let all = Arg::new("all")
        .long("all")
        .action(ArgAction::SetTrue)
        .help("All there are; needed where no filter is given");
    filtered(reasoned(command, wants_reason))
        .arg(limit.value_parser(value_parser!(i64).range(1..)))
        .arg(all)
}

fn filtered(command: Command) -> Command {
    on_database(command, [OF_STREAM])
        .arg(flag("command", "NAME", "Only commands of this name"))
        .arg(flag("key", "KEY", "Only commands of this key"))
        .arg(flag("code", "REASON", "Only for this reason, such as unknown_command; for parked ones also the code of the last failure"))
        .arg(flag("older-than", "DURATION", "Only those that wait for longer, such as 90s, 15m, 2h or 7d"))
        .arg(flag("newer-than", "DURATION", "Only those that wait for less long"))
        .arg(flag("id", "UUID", "Only this command id; may be given again").action(ArgAction::Append))
        .arg(flag("sequence", "N", "Only this sequence of the stream; may be given again").action(ArgAction::Append))
}

fn reasoned(command: Command, required: bool) -> Command {
    let help = match required {
        true => "Why: written down with the act",
        false => "Why: written down with the act [default: by hand]",
    };
    command.arg(flag("reason", "TEXT", help).required(required))
}

fn targeted(command: Command) -> Command {
    on_database(command, [])
        .arg(flag("command", "NAME", "All commands of this name"))
        .arg(flag("key", "KEY", "All commands of this key"))
        .group(ArgGroup::new("what").args(["command", "key"]).required(true))
}

/// What the flags ask for; `None` where it is none of an operator's subcommands.
pub(super) fn operation(
    subcommand: &str,
    matches: &ArgMatches,
) -> Option<Result<Operation, String>> {
    Some(match subcommand {
        "dead-letters" | "parked" => {
            let (act, matches) = matches.subcommand()?;
            filtered_operation(subcommand, act, matches)
        }
        "pause" => reason(matches)
            .and_then(|reason| Ok(Operation::Pause { target: target(matches)?, reason })),
        "resume" => target(matches).map(|target| Operation::Resume { target }),
        "pauses" => Ok(Operation::Pauses),
        "cancel" => reason(matches)
            .and_then(|reason| Ok(Operation::Cancel { id: command_id(matches)?, reason })),
        "find" => command_id(matches).map(|id| Operation::Find { id }),
        "status" => needed(matches, "nats-url").map(|nats_url| Operation::Status { nats_url }),
        _ => return None,
    })
}

fn filtered_operation(of: &str, act: &str, matches: &ArgMatches) -> Result<Operation, String> {
    let filter = filter(matches)?;
    let is_act = matches!(act, "requeue" | "discard" | "release");
    if is_act && filter.is_empty() && !matches.get_flag("all") {
        return Err(format!("{of} {act}: say which by a filter, or --all"));
    }
    Ok(match (of, act) {
        ("dead-letters", "list") => Operation::ListDeadLetters(filter),
        ("dead-letters", "show") => Operation::ShowDeadLetters(filter),
        ("dead-letters", "requeue") => Operation::Requeue { filter, reason: reason(matches)? },
        ("dead-letters", _) => Operation::Discard { filter, reason: reason(matches)? },
        (_, "list") => Operation::ListParked(filter),
        (_, "show") => Operation::ShowParked(filter),
        (_, _) => Operation::Release { filter, reason: reason(matches)? },
    })
}

fn filter(matches: &ArgMatches) -> Result<Filter, String> {
    let age = |flag| match text(matches, flag) {
        Some(text) => duration(&text).map(Some).map_err(|rule| format!("{flag}: {rule}")),
        None => Ok(None),
    };
    let many = |flag| matches.get_many::<String>(flag).into_iter().flatten();
    let parsed = |flag, what| move |text: &String| format!("{flag}: {text:?} is not {what}");
    Ok(Filter {
        command: text(matches, "command"),
        key: text(matches, "key"),
        code: text(matches, "code"),
        older_than: age("older-than")?,
        newer_than: age("newer-than")?,
        ids: many("id")
            .map(|id| {
                CommandId::from_str(id)
                    .map(CommandId::uuid)
                    .map_err(|_| parsed("id", "a UUID of 36 characters")(id))
            })
            .collect::<Result<_, _>>()?,
        sequences: many("sequence")
            .map(|sequence| {
                sequence.parse().map_err(|_| parsed("sequence", "a sequence")(sequence))
            })
            .collect::<Result<_, _>>()?,
        limit: matches.get_one::<i64>("limit").copied(),
    })
}

/// A reason is written down for others: an empty one says nothing.
fn reason(matches: &ArgMatches) -> Result<String, String> {
    let reason = text(matches, "reason").unwrap_or_else(|| "by hand".to_owned());
    match reason.trim() {
        "" => Err("reason: say why; it is written down with the act".to_owned()),
        reason => Ok(reason.to_owned()),
    }
}

fn target(matches: &ArgMatches) -> Result<PauseTarget, String> {
    match (text(matches, "command"), text(matches, "key")) {
        (Some(name), _) => {
            CommandName::new(name).map(PauseTarget::Name).map_err(|error| error.to_string())
        }
        (None, key) => Key::new(key.unwrap_or_default())
            .map(PauseTarget::Key)
            .map_err(|error| error.to_string()),
    }
}

fn command_id(matches: &ArgMatches) -> Result<CommandId, String> {
    let id = text(matches, "id").unwrap_or_default();
    id.parse().map_err(|_| format!("{id:?} is not a command id, a UUID of 36 characters"))
}

/// `90s`, `15m`, `2h`, `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 90s, 15m, 2h or 7d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = text.strip_suffix(unit).and_then(|n| n.parse().ok()).ok_or_else(wrong)?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

/// The flags of the subcommand's subcommand, where it has one.
pub(super) fn innermost(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, matches)| matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Operation, String> {
        let command = Command::new("test").subcommands(commands());
        let url = ["--database-url", "postgres://localhost/x"];
        let args = ["test"].iter().chain(args).chain(&url);
        let matches = command.try_get_matches_from(args).map_err(|error| error.to_string())?;
        let (subcommand, matches) = matches.subcommand().ok_or("none")?;
        operation(subcommand, matches).ok_or("none")?
    }

    #[test]
    fn an_act_on_everything_wants_to_be_called_that() {
        let error = parse(&["dead-letters", "requeue"]).unwrap_err();
        assert_eq!(error, "dead-letters requeue: say which by a filter, or --all");
        assert!(parse(&["dead-letters", "requeue", "--limit", "5"]).is_err(), "not a filter");
        assert!(parse(&["parked", "release"]).is_err());
        assert!(parse(&["dead-letters", "requeue", "--all"]).is_ok());
        assert!(parse(&["parked", "release", "--sequence", "7"]).is_ok());
    }

    #[test]
    fn a_reason_is_given_where_it_is_wanted_and_says_something() {
        assert!(parse(&["dead-letters", "discard", "--all"]).unwrap_err().contains("--reason"));
        assert!(parse(&["dead-letters", "discard", "--all", "--reason", " "]).is_err());
        assert!(parse(&["pause", "--key", "a"]).is_err());
        let requeue = parse(&["dead-letters", "requeue", "--all"]);
        assert!(matches!(requeue, Ok(Operation::Requeue { reason, .. }) if reason == "by hand"));
    }

    #[test]
    fn a_pause_has_one_target() {
        assert!(parse(&["resume"]).is_err());
        assert!(parse(&["resume", "--key", "a", "--command", "b"]).is_err());
        assert!(parse(&["resume", "--command", "not a name"]).is_err());
        assert!(matches!(parse(&["resume", "--key", "a"]), Ok(Operation::Resume { .. })));
    }

    #[test]
    fn filters_are_read_and_a_wrong_one_is_named() {
        let Ok(Operation::ListParked(filter)) =
            parse(&["parked", "list", "--older-than", "2h", "--sequence", "1", "--sequence", "9"])
        else {
            panic!("no list");
        };
        assert_eq!(filter.older_than, Some(Duration::from_secs(7_200)));
        assert_eq!(filter.sequences, [1, 9]);
        let error = |args: &[&str]| parse(&[&["parked", "list"], args].concat()).unwrap_err();
        assert!(error(&["--older-than", "2w"]).starts_with("older-than:"));
        assert!(error(&["--id", "x"]).starts_with("id:"));
        assert!(error(&["--limit", "0"]).contains("limit"));
    }

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        let seconds = |text| duration(text).map(|duration| duration.as_secs()).ok();
        assert_eq!(["1s", "2m", "1h", "7d"].map(seconds), [1, 120, 3_600, 604_800].map(Some));
        assert_eq!(["", "5", "s", "-1s", "1.5h", "5é"].map(seconds), [None; 6]);
    }
}
