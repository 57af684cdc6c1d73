//! One call, from the flags to the line of JSON.

use std::{process::ExitCode, time::Duration};

use clap::ArgMatches;
use serde_json::value::RawValue;
use tokio::runtime::Builder;

use crate::{BookmarkError, Call, OutcomeAnswer, Producer, RawCommand};

use super::{
    super::runtime::run_on,
    answer::{ended, not_published, not_submitted, not_told, not_written},
    ended::CallEnd,
    line::{AnswerLine, line},
    request::{self, GivenCommand, PointInTime, Request, VerbCall},
};

/// Makes the call of a verb, or says what is wrong with the flags.
pub(crate) fn start(verb: &str, matches: &ArgMatches) -> Result<ExitCode, String> {
    let request = request::read(verb, matches).map_err(|error| error.to_string())?;
    Ok(run_on(Builder::new_current_thread(), run(request)))
}

async fn run(request: Request) -> ExitCode {
    let Request { builder, timeout, verb } = request;
    let (end, line) = match tokio::time::timeout(timeout, builder.connect()).await {
        Ok(Ok(producer)) => answer(&producer, verb, timeout).await,
        Ok(Err(error)) => (CallEnd::Failed, line!({ "error": error.to_string() })),
        Err(_) => (CallEnd::Failed, line!({ "error": "no connection to NATS in time" })),
    };
    println!("{line}");
    end.into()
}

fn call(producer: &Producer, command: GivenCommand) -> Call<Box<RawValue>> {
    let GivenCommand { id, name, version, key, body, expires, not_before, context } = command;
    let command = RawCommand::new(name, body).version(version);
    let command = if let Some(key) = key { command.key(key) } else { command };
    let mut call = producer.call_raw(command);
    if let Some(id) = id {
        call = call.id(id);
    }
    call = match expires {
        Some(PointInTime::At(time)) => call.expires_at(time),
        Some(PointInTime::In(duration)) => call.expires_in(duration),
        None => call,
    };
    call = match not_before {
        Some(PointInTime::At(time)) => call.not_before(time),
        Some(PointInTime::In(duration)) => call.delay(duration),
        None => call,
    };
    if let Some(context) = context { call.context(context) } else { call }
}

async fn answer(producer: &Producer, verb: VerbCall, timeout: Duration) -> (CallEnd, AnswerLine) {
    let call = |command| call(producer, command);
    match verb {
        VerbCall::Publish(command) => match call(command).publish().await {
            Ok(accepted) => (
                CallEnd::Done,
                line!({
                    "id": accepted.id, "known": "accepted", "stream": accepted.stream,
                    "sequence": accepted.sequence, "duplicate": accepted.duplicate,
                }),
            ),
            Err(error) => not_published(&error),
        },
        VerbCall::Submit(command) => match call(command).submit().await {
            Ok(committed) => (
                CallEnd::Done,
                line!({
                    "id": committed.id, "known": "committed", "output": committed.output,
                    "bookmark": committed.bookmark,
                }),
            ),
            Err(error) => not_submitted(&error),
        },
        VerbCall::Write(command) => match call(command).write().await {
            Ok(visible) => (
                CallEnd::Done,
                line!({
                    "id": visible.id, "known": "visible", "output": visible.output,
                    "bookmark": visible.bookmark,
                }),
            ),
            Err(error) => not_written(&error),
        },
        VerbCall::Outcome(id) => match producer.outcome(id).await {
            Ok(OutcomeAnswer::Known(reply)) => ended(&reply),
            Ok(OutcomeAnswer::Pending(not_ended)) => (
                CallEnd::OutOfTime,
                line!({ "id": id, "known": "pending", "parked": not_ended.parked }),
            ),
            Err(error) => not_told(&error, id),
        },
        VerbCall::Wait(bookmark) => match producer.wait_within(&bookmark, timeout).await {
            Ok(()) => (CallEnd::Done, line!({ "known": "visible", "bookmark": bookmark })),
            Err(error) => {
                let status = match error {
                    BookmarkError::OtherDatabase { .. } | BookmarkError::NoReads => {
                        CallEnd::Unusable
                    }
                    _ => CallEnd::Failed,
                };
                (status, line!({ "bookmark": bookmark, "error": error.to_string() }))
            }
        },
        VerbCall::Lag => match producer.lag().await {
            Ok(lag) => (CallEnd::Done, AnswerLine::of(&lag)),
            Err(error) => (CallEnd::Failed, line!({ "error": error.to_string() })),
        },
    }
}
