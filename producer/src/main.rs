//! `producer`: the verbs of the library on a command line, for scripts and for a look by hand.
//!
//! One call, one line of JSON on standard output, and an exit status that a script can act on.

mod cli;

use std::{process::ExitCode, time::Duration};

use farwrite_producer::{
    BookmarkError, Call, CommandId, Known, Outcome, OutcomeAnswer, OutcomeError, Producer,
    PublishError, RawCommand, Reply, SubmitError, WriteError,
};
use serde_json::{Value, json, value::RawValue};

use crate::cli::{Moment, Status, Verb, Wish};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let request = match cli::read() {
        Ok(request) => request,
        Err(usage) => {
            eprintln!("producer: {usage}");
            return Status::Usage.into();
        }
    };
    let (status, line) = match request.builder.connect().await {
        Ok(producer) => answer(&producer, request.verb, request.timeout).await,
        Err(error) => (Status::Failed, json!({ "error": error.to_string() })),
    };
    println!("{line}");
    status.into()
}

fn call(producer: &Producer, wish: Wish) -> Call<Box<RawValue>> {
    let Wish { id, name, version, key, body, expires, not_before, context } = wish;
    let command = RawCommand::new(name, body).version(version);
    let command = if let Some(key) = key { command.key(key) } else { command };
    let mut call = producer.call_raw(command);
    if let Some(id) = id {
        call = call.id(id);
    }
    call = match expires {
        Some(Moment::At(time)) => call.expires_at(time),
        Some(Moment::In(duration)) => call.expires_in(duration),
        None => call,
    };
    call = match not_before {
        Some(Moment::At(time)) => call.not_before(time),
        Some(Moment::In(duration)) => call.delay(duration),
        None => call,
    };
    if let Some(context) = context { call.context(context) } else { call }
}

async fn answer(producer: &Producer, verb: Verb, timeout: Duration) -> (Status, Value) {
    let call = |wish| call(producer, wish);
    match verb {
        Verb::Publish(wish) => match call(wish).publish().await {
            Ok(accepted) => (
                Status::Done,
                json!({
                    "id": accepted.id, "known": "accepted", "stream": accepted.stream,
                    "sequence": accepted.sequence, "duplicate": accepted.duplicate,
                }),
            ),
            Err(error) => not_published(&error),
        },
        Verb::Submit(wish) => match call(wish).submit().await {
            Ok(committed) => (
                Status::Done,
                json!({
                    "id": committed.id, "known": "committed", "output": committed.output,
                    "bookmark": committed.bookmark,
                }),
            ),
            Err(error) => not_submitted(&error),
        },
        Verb::Write(wish) => match call(wish).write().await {
            Ok(visible) => (
                Status::Done,
                json!({
                    "id": visible.id, "known": "visible", "output": visible.output,
                    "bookmark": visible.bookmark,
                }),
            ),
            Err(error) => not_written(&error),
        },
        Verb::Outcome(id) => match producer.outcome(id).await {
            Ok(OutcomeAnswer::Known(reply)) => ended(&reply),
            Ok(OutcomeAnswer::Pending(not_ended)) => (
                Status::OutOfTime,
                json!({ "id": id, "known": "pending", "parked": not_ended.parked }),
            ),
            Err(error) => not_told(&error, id),
        },
        Verb::Wait(bookmark) => match producer.wait_within(&bookmark, timeout).await {
            Ok(()) => (Status::Done, json!({ "known": "visible", "bookmark": bookmark })),
            Err(error) => {
                let status = match error {
                    BookmarkError::OtherDatabase { .. } | BookmarkError::NoReads => Status::Usage,
                    _ => Status::Failed,
                };
                (status, json!({ "bookmark": bookmark, "error": error.to_string() }))
            }
        },
        Verb::Lag => match producer.lag().await {
            Ok(lag) => (Status::Done, json!(lag)),
            Err(error) => (Status::Failed, json!({ "error": error.to_string() })),
        },
    }
}

fn ended(reply: &Reply) -> (Status, Value) {
    let (status, detail) = match &reply.outcome {
        Outcome::Applied { output } => (Status::Done, json!(output)),
        Outcome::AppliedLarge { output_bytes } => {
            (Status::Done, json!({ "output_bytes": output_bytes }))
        }
        Outcome::Rejected(rejection) => (Status::Refused, json!(rejection)),
        Outcome::Expired => (Status::Refused, Value::Null),
        Outcome::DeadLettered(dead_letter) => (Status::Refused, json!(dead_letter)),
    };
    let mut line = json!({
        "id": reply.id, "known": reply.outcome.as_str(), "detail": detail,
        "bookmark": reply.bookmark,
    });
    if let Some(record) = &reply.record {
        line["attempts"] = json!(record.attempts);
        line["stream"] = json!(record.stream);
        line["sequence"] = json!(record.sequence);
        line["published_at_ms"] = json!(record.published_at_ms);
        line["settled_at_ms"] = json!(record.settled_at_ms);
    }
    (status, line)
}

fn not_told(error: &OutcomeError, id: CommandId) -> (Status, Value) {
    let text = error.to_string();
    match error {
        OutcomeError::UnknownHere { parked, .. } => (
            Status::OutOfTime,
            json!({ "id": id, "known": "unknown_here", "parked": parked, "error": text }),
        ),
        OutcomeError::OutputNotRead { output_bytes, bookmark, .. } => (
            Status::Failed,
            json!({
                "id": id, "known": "applied", "output_bytes": output_bytes, "bookmark": bookmark,
                "error": text,
            }),
        ),
        _ => (Status::Failed, json!({ "id": id, "error": text })),
    }
}

fn not_published(error: &PublishError) -> (Status, Value) {
    let (status, known) = match (error, error.known()) {
        (PublishError::Invalid { .. }, _) => (Status::Usage, "not_accepted"),
        (_, Known::NotAccepted) => (Status::Failed, "not_accepted"),
        (_, Known::MaybeAccepted) => (Status::OutOfTime, "maybe_accepted"),
    };
    (status, json!({ "id": error.id(), "known": known, "error": error.to_string() }))
}

fn not_submitted(error: &SubmitError) -> (Status, Value) {
    let text = error.to_string();
    let ended = |id, known, bookmark| {
        (
            Status::Refused,
            json!({
                "id": id, "known": known, "bookmark": bookmark, "error": text,
            }),
        )
    };
    match error {
        SubmitError::Publish(error) => not_published(error),
        SubmitError::Rejected { id, rejection, bookmark, .. } => (
            Status::Refused,
            json!({
                "id": id, "known": "rejected", "rejection": rejection, "bookmark": bookmark,
                "error": text,
            }),
        ),
        SubmitError::Expired { id, bookmark } => ended(id, "expired", bookmark),
        SubmitError::DeadLettered { id, bookmark, .. } => ended(id, "dead_lettered", bookmark),
        SubmitError::TimedOut { accepted, .. } => (
            Status::OutOfTime,
            json!({
                "id": accepted.id, "known": "accepted", "stream": accepted.stream,
                "sequence": accepted.sequence, "error": text,
            }),
        ),
        SubmitError::OutputNotRead { id, output_bytes, bookmark, .. } => (
            Status::Failed,
            json!({
                "id": id, "known": "committed", "output_bytes": output_bytes, "bookmark": bookmark,
                "error": text,
            }),
        ),
        SubmitError::Output { id, raw, bookmark, .. } => (
            Status::Failed,
            json!({
                "id": id, "known": "committed", "output": raw.0, "bookmark": bookmark, "error": text,
            }),
        ),
        _ => (Status::Failed, json!({ "id": error.id(), "error": text })),
    }
}

fn not_written(error: &WriteError<Box<RawValue>>) -> (Status, Value) {
    match error {
        WriteError::Submit(error) => not_submitted(error),
        WriteError::NotVisible { committed, .. } => (
            Status::Failed,
            json!({
                "id": committed.id, "known": "committed", "output": committed.output,
                "bookmark": committed.bookmark, "error": error.to_string(),
            }),
        ),
        WriteError::NotEverywhere { visible, .. } => (
            Status::Failed,
            json!({
                "id": visible.id, "known": "visible", "output": visible.output,
                "bookmark": visible.bookmark, "error": error.to_string(),
            }),
        ),
        WriteError::NoReads { .. } => (Status::Usage, json!({ "error": error.to_string() })),
        _ => (Status::Failed, json!({ "id": error.id(), "error": error.to_string() })),
    }
}
