//! The flags of the verbs.

use clap::{Arg, Command, value_parser};

use super::super::settings::{
    DATABASE, NATS_URL, REPLICA_URL, Setting, Unset, flag, with_settings,
};

/// The names of the verbs.
pub(crate) const NAMES: [&str; 6] = ["publish", "submit", "write", "outcome", "wait", "lag"];

const STATUSES: &str = "\
Prints one line of JSON. Exit status:
  0  done: accepted, committed or visible, as the verb promises; outcome: it was applied
  1  failed before it was accepted, or visible, or told; may be tried again with the same id
  2  the command line is wrong, or the command
  3  rejected, expired or dead-lettered: trying again does not help
  4  the time was up, or the command has not ended; ask for its outcome, or try again with the same id

DATABASE_URL gives the primary for reads where there is no replica.";

const ORIGIN: Setting = Setting {
    flag: "origin",
    environment: "FARWRITE_ORIGIN",
    value: "NAME",
    unset: Unset::Refused,
    help: "This region",
};

/// All of them.
pub(crate) fn commands() -> [Command; 6] {
    let id = Arg::new("id").value_name("UUID").required(true).help("The command id");
    let bookmark = Arg::new("bookmark").value_name("BOOKMARK").required(true);
    let bookmark = bookmark.help("What submit, write or outcome answered");
    [
        with_command(verb("publish", "Answers when the stream has stored a command")),
        with_command(verb("submit", "Answers when the primary has committed a command's outcome")),
        with_command(verb("write", "Answers when this region's replica shows a command's effects")),
        verb("outcome", "Says how a command ended: asks the worker, then what is read here")
            .arg(id),
        verb("wait", "Answers when this region's replica shows a bookmark").arg(bookmark),
        verb("lag", "Says how far behind the worker is"),
    ]
}

fn verb(name: &'static str, about: &'static str) -> Command {
    let timeout = Setting {
        flag: "timeout-ms",
        environment: "FARWRITE_TIMEOUT_MS",
        value: "MS",
        unset: Unset::Is("10000".to_owned()),
        help: "The whole call's time in milliseconds",
    };
    let settings = [DATABASE, ORIGIN, NATS_URL, REPLICA_URL, timeout];
    with_settings(Command::new(name).about(about).after_help(STATUSES), settings)
        .mut_arg("timeout-ms", |arg| arg.value_parser(value_parser!(u64).range(1..)))
}

/// What a command is made of.
fn with_command(verb: Command) -> Command {
    let number = |name, help| flag(name, "MS", help).value_parser(value_parser!(u64));
    let version = flag("version", "N", "The version of the body's form");
    let name = Arg::new("name").value_name("NAME").required(true);
    let body = Arg::new("json").value_name("JSON").required(true);
    verb.arg(flag("id", "UUID", "The command id [default: new]"))
        .arg(flag("key", "KEY", "What the command is ordered by [default: no order]"))
        .arg(version.value_parser(value_parser!(u32)).default_value("1"))
        .arg(number("expires-in-ms", "Apply it within so many milliseconds from now, or never"))
        .arg(
            number("expires-at", "Apply it before this time (Unix milliseconds), or never")
                .conflicts_with("expires-in-ms"),
        )
        .arg(number("delay-ms", "Apply it in so many milliseconds from now at the earliest"))
        .arg(
            number("not-before", "Apply it at this time (Unix milliseconds) at the earliest")
                .conflicts_with("delay-ms"),
        )
        .arg(flag(
            "context",
            "JSON",
            "A JSON object that the command finds in the setting farwrite.context",
        ))
        .arg(name.help("Such as order.place"))
        .arg(body.help("The body; - reads standard input"))
}
