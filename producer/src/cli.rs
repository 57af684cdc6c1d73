//! The program's command line: what may be said, and what the exit status says back.

use std::{
    io::Read,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use async_nats::ConnectOptions;
use clap::{Arg, ArgMatches, Command};
use farwrite_producer::{
    Bookmark, Builder, CommandId, DatabaseName, Key, Limits, Origin, Producer, ReadsFrom,
};
use serde_json::value::RawValue;

const EXIT_STATUSES: &str = "\
Prints one line of JSON. Exit status:
  0  done: accepted, committed or visible, as the verb promises; outcome: it was applied
  1  failed before it was accepted, or visible, or told; may be tried again with the same id
  2  the command line is wrong, or the command
  3  rejected, expired or dead-lettered: trying again does not help
  4  the time was up, or the command has not ended; ask for its outcome, or try again with the same id

The settings may come from the environment; DATABASE_URL gives the primary for reads where there is
no replica.";

/// What the exit status says.
#[derive(Clone, Copy)]
pub(crate) enum Status {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Refused = 3,
    OutOfTime = 4,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// A command from the command line.
pub(crate) struct Wish {
    pub(crate) id: Option<CommandId>,
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) key: Option<Key>,
    pub(crate) body: Box<RawValue>,
    pub(crate) expires: Option<Moment>,
    pub(crate) not_before: Option<Moment>,
    pub(crate) context: Option<Box<RawValue>>,
}

/// A point in time, or one that is counted from now.
pub(crate) enum Moment {
    At(SystemTime),
    In(Duration),
}

/// What is to be done.
pub(crate) enum Verb {
    Publish(Wish),
    Submit(Wish),
    Write(Wish),
    Outcome(CommandId),
    Wait(Bookmark),
    Lag,
}

/// What is to be done, and where.
pub(crate) struct Request {
    pub(crate) builder: Builder,
    pub(crate) timeout: Duration,
    pub(crate) verb: Verb,
}

/// Reads the command line. Help, and what clap itself refuses (status 2), end the program here.
pub(crate) fn read() -> Result<Request, Box<dyn std::error::Error>> {
    let matches = command().get_matches();
    let Some((verb, arguments)) = matches.subcommand() else {
        return Err("choose a verb".into());
    };
    let timeout_ms = arguments.get_one::<u64>("timeout-ms").copied().unwrap_or(10_000);
    let timeout = Duration::from_millis(timeout_ms);
    let mut builder = builder(arguments, timeout)?;
    let text = |name| arguments.get_one::<String>(name).map_or("", String::as_str);
    let verb = match verb {
        "publish" => Verb::Publish(wish(arguments)?),
        "submit" => Verb::Submit(wish(arguments)?),
        "write" => Verb::Write(wish(arguments)?),
        "outcome" => Verb::Outcome(text("id").parse()?),
        "wait" => Verb::Wait(text("bookmark").parse()?),
        _ => Verb::Lag,
    };
    if matches!(verb, Verb::Outcome(_) | Verb::Wait(_)) {
        // A replica can answer while NATS is away.
        builder = builder.nats_options(ConnectOptions::new().retry_on_initial_connect());
    }
    Ok(Request { builder, timeout, verb })
}

fn command() -> Command {
    let number = |name: &'static str, help: &'static str| {
        let parser = clap::value_parser!(u64);
        Arg::new(name).long(name).value_name("MS").value_parser(parser).help(help)
    };
    let verb = |name, about| {
        settings(Command::new(name).about(about))
            .arg(Arg::new("id").long("id").value_name("UUID").help("The command id [default: new]"))
            .arg(Arg::new("key").long("key").help("What the command is ordered by"))
            .arg(
                Arg::new("version")
                    .long("version")
                    .value_parser(clap::value_parser!(u32))
                    .default_value("1")
                    .help("The version of the body's form"),
            )
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
            .arg(
                Arg::new("context")
                    .long("context")
                    .value_name("JSON")
                    .help("A JSON object that the command finds in the setting farwrite.context"),
            )
            .arg(Arg::new("name").value_name("NAME").required(true).help("Such as order.place"))
            .arg(
                Arg::new("json")
                    .value_name("JSON")
                    .required(true)
                    .help("The body; - reads standard input"),
            )
    };
    Command::new("producer")
        .about("Publishes a command to Farwrite and tells how it went")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(EXIT_STATUSES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(verb("publish", "Answers when the stream has stored it"))
        .subcommand(verb("submit", "Answers when the primary has committed its outcome"))
        .subcommand(verb("write", "Answers when this region's replica shows its effects"))
        .subcommand(
            settings(Command::new("outcome").about("Tells how a command ended"))
                .arg(Arg::new("id").value_name("UUID").required(true).help("The command id")),
        )
        .subcommand(
            settings(
                Command::new("wait").about("Answers when this region's replica shows a bookmark"),
            )
            .arg(
                Arg::new("bookmark")
                    .value_name("BOOKMARK")
                    .required(true)
                    .help("What submit, write or outcome answered"),
            ),
        )
        .subcommand(settings(Command::new("lag").about("Tells how far behind the worker is")))
}

fn settings(command: Command) -> Command {
    let setting = |name: &'static str, variable: &'static str, help: &'static str| {
        Arg::new(name).long(name).env(variable).hide_env_values(true).help(help)
    };
    command
        .after_help(EXIT_STATUSES)
        .arg(setting("database", "FARWRITE_DATABASE", "The database's name").required(true))
        .arg(setting("origin", "FARWRITE_ORIGIN", "This region").required(true))
        .arg(setting("nats-url", "FARWRITE_NATS_URL", "Where NATS is").required(true))
        .arg(setting("replica-url", "FARWRITE_REPLICA_URL", "This region's replica, for write"))
        .arg(
            setting("timeout-ms", "FARWRITE_TIMEOUT_MS", "The whole call's time in milliseconds")
                .value_parser(clap::value_parser!(u64).range(1..))
                .default_value("10000"),
        )
}

fn builder(
    arguments: &ArgMatches,
    timeout: Duration,
) -> Result<Builder, Box<dyn std::error::Error>> {
    let text = |name| arguments.get_one::<String>(name).map_or("", String::as_str);
    let limits = Limits::default().timeout(timeout);
    let database = DatabaseName::new(text("database"))?;
    let builder = Producer::builder(database, Origin::new(text("origin"))?)
        .nats_url(text("nats-url"))
        .limits(limits);
    Ok(match (arguments.get_one::<String>("replica-url"), std::env::var("DATABASE_URL")) {
        (Some(replica), _) => builder.reads(ReadsFrom::replica(replica)),
        (None, Ok(primary)) => builder.reads(ReadsFrom::primary(primary)),
        (None, Err(_)) => builder,
    })
}

fn wish(arguments: &ArgMatches) -> Result<Wish, Box<dyn std::error::Error>> {
    let text = |name| arguments.get_one::<String>(name).cloned();
    let mut json = text("json").unwrap_or_default();
    if json == "-" {
        json.clear();
        std::io::stdin().read_to_string(&mut json)?;
    }
    let body = RawValue::from_string(json).map_err(|error| format!("the body: {error}"))?;
    let context = text("context").map(RawValue::from_string).transpose();
    let context = context.map_err(|error| format!("the context: {error}"))?;
    Ok(Wish {
        id: text("id").map(|id| id.parse()).transpose()?,
        name: text("name").unwrap_or_default(),
        version: arguments.get_one("version").copied().unwrap_or(1),
        key: text("key").map(Key::new).transpose()?,
        body,
        expires: moment(arguments, "expires-in-ms", "expires-at"),
        not_before: moment(arguments, "delay-ms", "not-before"),
        context,
    })
}

fn moment(arguments: &ArgMatches, duration: &str, time: &str) -> Option<Moment> {
    let milliseconds = |name| arguments.get_one(name).copied().map(Duration::from_millis);
    let at = |since| SystemTime::UNIX_EPOCH.checked_add(since).map(Moment::At);
    milliseconds(duration).map(Moment::In).or_else(|| milliseconds(time).and_then(at))
}
