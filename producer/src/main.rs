//! `producer`: the verbs of the library on a command line, for scripts and for a look by hand.
//!
//! One call, one line of JSON on standard output, and an exit status that a script can act on.

mod cli;

use std::process::ExitCode;

use farwrite_producer::{
    Known, Outcome, OutcomeAnswer, Producer, PublishError, RawCommand, SubmitError, WriteError,
};
use serde_json::{Value, json, value::RawValue};

use crate::cli::{Status, Verb, Wish};

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
        Ok(producer) => answer(&producer, request.verb).await,
        Err(error) => (Status::Failed, json!({ "error": error.to_string() })),
    };
    println!("{line}");
    status.into()
}

async fn answer(producer: &Producer, verb: Verb) -> (Status, Value) {
    let call = |wish: Wish| {
        let Wish { id, name, version, key, body } = wish;
        let call = producer.call_raw(RawCommand { name, version, key, body });
        if let Some(id) = id { call.id(id) } else { call }
    };
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
            Ok(OutcomeAnswer::Known(reply)) => {
                let (status, detail) = match &reply.outcome {
                    Outcome::Applied { output } => (Status::Done, json!(output)),
                    Outcome::Rejected(rejection) => (Status::Refused, json!(rejection)),
                    Outcome::Expired => (Status::Refused, Value::Null),
                    Outcome::DeadLettered(dead_letter) => (Status::Refused, json!(dead_letter)),
                };
                (
                    status,
                    json!({
                        "id": id, "known": reply.outcome.word(), "detail": detail,
                        "bookmark": reply.bookmark,
                    }),
                )
            }
            Ok(OutcomeAnswer::Pending(id)) => {
                (Status::OutOfTime, json!({ "id": id, "known": "pending" }))
            }
            Err(error) => (Status::Failed, json!({ "id": id, "error": error.to_string() })),
        },
    }
}

fn not_published(error: &PublishError) -> (Status, Value) {
    let (status, known) = match error.known() {
        Known::NotAccepted => (Status::Failed, "not_accepted"),
        Known::MaybeAccepted => (Status::OutOfTime, "maybe_accepted"),
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
        SubmitError::Rejected { id, rejection, bookmark } => (
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
        SubmitError::Output { id, raw, bookmark, .. } => (
            Status::Failed,
            json!({
                "id": id, "known": "committed", "output": raw.0, "bookmark": bookmark, "error": text,
            }),
        ),
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
        WriteError::NoReads { .. } => (Status::Usage, json!({ "error": error.to_string() })),
    }
}
