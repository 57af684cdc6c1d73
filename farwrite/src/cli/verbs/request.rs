//! What the flags of a verb mean.

use std::{
    error::Error,
    io::Read,
    time::{Duration, SystemTime},
};

use clap::ArgMatches;
use serde_json::value::RawValue;

use crate::{
    Bookmark, Builder, CommandId, DatabaseName, Key, Limits, Origin, Producer, ReadsFrom,
    async_nats::ConnectOptions,
};

use super::super::settings::{needed, text};

/// A command from the command line.
pub(super) struct GivenCommand {
    pub(super) id: Option<CommandId>,
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) key: Option<Key>,
    pub(super) body: Box<RawValue>,
    pub(super) expires: Option<PointInTime>,
    pub(super) not_before: Option<PointInTime>,
    pub(super) context: Option<Box<RawValue>>,
}

/// A point in time, or one that is counted from now.
pub(super) enum PointInTime {
    At(SystemTime),
    In(Duration),
}

/// What is to be done.
pub(super) enum VerbCall {
    Publish(GivenCommand),
    Submit(GivenCommand),
    Write(GivenCommand),
    Outcome(CommandId),
    Wait(Bookmark),
    Lag,
}

/// What is to be done, and where.
pub(super) struct Request {
    pub(super) builder: Builder,
    pub(super) timeout: Duration,
    pub(super) verb: VerbCall,
}

/// Reads what the flags say.
pub(super) fn read(verb: &str, matches: &ArgMatches) -> Result<Request, Box<dyn Error>> {
    let timeout_ms = matches.get_one::<u64>("timeout-ms").copied().unwrap_or(10_000);
    let timeout = Duration::from_millis(timeout_ms);
    let mut builder = builder(matches, timeout)?;
    let verb = match verb {
        "publish" => VerbCall::Publish(command(matches)?),
        "submit" => VerbCall::Submit(command(matches)?),
        "write" => VerbCall::Write(command(matches)?),
        "outcome" => VerbCall::Outcome(needed(matches, "id")?.parse()?),
        "wait" => VerbCall::Wait(needed(matches, "bookmark")?.parse()?),
        _ => VerbCall::Lag,
    };
    if matches!(verb, VerbCall::Outcome(_) | VerbCall::Wait(_)) {
        // A replica can answer while NATS is away.
        builder = builder.nats_options(ConnectOptions::new().retry_on_initial_connect());
    }
    Ok(Request { builder, timeout, verb })
}

fn builder(matches: &ArgMatches, timeout: Duration) -> Result<Builder, Box<dyn Error>> {
    let limits = Limits::default().timeout(timeout);
    let database = DatabaseName::new(&needed(matches, "database")?)?;
    let builder = Producer::builder(database, Origin::new(&needed(matches, "origin")?)?)
        .nats_url(needed(matches, "nats-url")?)
        .limits(limits);
    Ok(match (text(matches, "replica-url"), std::env::var("DATABASE_URL")) {
        (Some(replica), _) => builder.reads(ReadsFrom::replica(replica)),
        (None, Ok(primary)) => builder.reads(ReadsFrom::primary(primary)),
        (None, Err(_)) => builder,
    })
}

fn command(matches: &ArgMatches) -> Result<GivenCommand, Box<dyn Error>> {
    let mut json = needed(matches, "json")?;
    if json == "-" {
        json.clear();
        std::io::stdin().read_to_string(&mut json)?;
    }
    let body = RawValue::from_string(json).map_err(|error| format!("the body: {error}"))?;
    let context = text(matches, "context").map(RawValue::from_string).transpose();
    let context = context.map_err(|error| format!("the context: {error}"))?;
    Ok(GivenCommand {
        id: text(matches, "id").map(|id| id.parse()).transpose()?,
        name: needed(matches, "name")?,
        version: matches.get_one("version").copied().unwrap_or(1),
        key: text(matches, "key").map(Key::new).transpose()?,
        body,
        expires: point_in_time(matches, "expires-in-ms", "expires-at"),
        not_before: point_in_time(matches, "delay-ms", "not-before"),
        context,
    })
}

fn point_in_time(matches: &ArgMatches, duration: &str, time: &str) -> Option<PointInTime> {
    let milliseconds = |name| matches.get_one(name).copied().map(Duration::from_millis);
    let at = |since| SystemTime::UNIX_EPOCH.checked_add(since).map(PointInTime::At);
    milliseconds(duration).map(PointInTime::In).or_else(|| milliseconds(time).and_then(at))
}
