//! What is known, as a line of JSON and an end: of an outcome, and of each error.

use serde_json::{Value, json, value::RawValue};

use crate::{
    CommandId, Known, Outcome, OutcomeError, PublishError, Reply, SubmitError, WriteError,
};

use super::ended::CallEnd;

pub(super) fn ended(reply: &Reply) -> (CallEnd, Value) {
    let (status, detail) = match &reply.outcome {
        Outcome::Applied { output } => (CallEnd::Done, json!(output)),
        Outcome::AppliedLarge { output_bytes } => {
            (CallEnd::Done, json!({ "output_bytes": output_bytes }))
        }
        Outcome::Rejected(rejection) => (CallEnd::Refused, json!(rejection)),
        Outcome::Expired => (CallEnd::Refused, Value::Null),
        Outcome::DeadLettered(dead_letter) => (CallEnd::Refused, json!(dead_letter)),
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

pub(super) fn not_told(error: &OutcomeError, id: CommandId) -> (CallEnd, Value) {
    let text = error.to_string();
    match error {
        OutcomeError::UnknownHere { parked, .. } => (
            CallEnd::OutOfTime,
            json!({ "id": id, "known": "unknown_here", "parked": parked, "error": text }),
        ),
        OutcomeError::OutputNotRead { output_bytes, bookmark, .. } => (
            CallEnd::Failed,
            json!({
                "id": id, "known": "applied", "output_bytes": output_bytes, "bookmark": bookmark,
                "error": text,
            }),
        ),
        _ => (CallEnd::Failed, json!({ "id": id, "error": text })),
    }
}

pub(super) fn not_published(error: &PublishError) -> (CallEnd, Value) {
    let (status, known) = match (error, error.known()) {
        (PublishError::Invalid { .. }, _) => (CallEnd::Unusable, "not_accepted"),
        (_, Known::NotAccepted) => (CallEnd::Failed, "not_accepted"),
        (_, Known::MaybeAccepted) => (CallEnd::OutOfTime, "maybe_accepted"),
    };
    (status, json!({ "id": error.id(), "known": known, "error": error.to_string() }))
}

pub(super) fn not_submitted(error: &SubmitError) -> (CallEnd, Value) {
    let text = error.to_string();
    let ended = |id, known, bookmark| {
        (
            CallEnd::Refused,
            json!({
                "id": id, "known": known, "bookmark": bookmark, "error": text,
            }),
        )
    };
    match error {
        SubmitError::Publish(error) => not_published(error),
        SubmitError::Rejected { id, rejection, bookmark, .. } => (
            CallEnd::Refused,
            json!({
                "id": id, "known": "rejected", "rejection": rejection, "bookmark": bookmark,
                "error": text,
            }),
        ),
        SubmitError::Expired { id, bookmark } => ended(id, "expired", bookmark),
        SubmitError::DeadLettered { id, bookmark, .. } => ended(id, "dead_lettered", bookmark),
        SubmitError::TimedOut { accepted, .. } => (
            CallEnd::OutOfTime,
            json!({
                "id": accepted.id, "known": "accepted", "stream": accepted.stream,
                "sequence": accepted.sequence, "error": text,
            }),
        ),
        SubmitError::OutputNotRead { id, output_bytes, bookmark, .. } => (
            CallEnd::Failed,
            json!({
                "id": id, "known": "committed", "output_bytes": output_bytes, "bookmark": bookmark,
                "error": text,
            }),
        ),
        SubmitError::Output { id, raw, bookmark, .. } => (
            CallEnd::Failed,
            json!({
                "id": id, "known": "committed", "output": raw.0, "bookmark": bookmark, "error": text,
            }),
        ),
        _ => (CallEnd::Failed, json!({ "id": error.id(), "error": text })),
    }
}

pub(super) fn not_written(error: &WriteError<Box<RawValue>>) -> (CallEnd, Value) {
    match error {
        WriteError::Submit(error) => not_submitted(error),
        WriteError::NotVisible { committed, .. } => (
            CallEnd::Failed,
            json!({
                "id": committed.id, "known": "committed", "output": committed.output,
                "bookmark": committed.bookmark, "error": error.to_string(),
            }),
        ),
        WriteError::NotEverywhere { visible, .. } => (
            CallEnd::Failed,
            json!({
                "id": visible.id, "known": "visible", "output": visible.output,
                "bookmark": visible.bookmark, "error": error.to_string(),
            }),
        ),
        WriteError::NoReads { .. } => (CallEnd::Unusable, json!({ "error": error.to_string() })),
        _ => (CallEnd::Failed, json!({ "id": error.id(), "error": error.to_string() })),
    }
}
