//! What is known, as a line of JSON and an end: of an outcome, and of each error.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::{
    CommandId, Known, Outcome, OutcomeError, PublishError, Reply, SubmitError, WriteError,
};

use super::{
    ended::CallEnd,
    line::{AnswerLine, line},
};

pub(super) fn ended(reply: &Reply) -> (CallEnd, AnswerLine) {
    let line = line!({ "id": reply.id, "known": reply.outcome.as_str() });
    let (status, line) = match &reply.outcome {
        Outcome::Applied { output } => (CallEnd::Done, line.with("detail", output)),
        Outcome::AppliedLarge { output_bytes } => {
            (CallEnd::Done, line.with("detail", &BTreeMap::from([("output_bytes", output_bytes)])))
        }
        Outcome::Rejected(rejection) => (CallEnd::Refused, line.with("detail", rejection)),
        Outcome::Expired => (CallEnd::Refused, line.with("detail", &())),
        Outcome::DeadLettered(letter) => (CallEnd::Refused, line.with("detail", letter)),
    };
    let mut line = line.with("bookmark", &reply.bookmark);
    if let Some(record) = &reply.record {
        line = line
            .with("attempts", &record.attempts)
            .with("stream", &record.stream)
            .with("sequence", &record.sequence)
            .with("published_at_ms", &record.published_at_ms)
            .with("settled_at_ms", &record.settled_at_ms);
    }
    (status, line)
}

pub(super) fn not_told(error: &OutcomeError, id: CommandId) -> (CallEnd, AnswerLine) {
    let text = error.to_string();
    match error {
        OutcomeError::UnknownHere { parked, .. } => (
            CallEnd::OutOfTime,
            line!({ "id": id, "known": "unknown_here", "parked": parked, "error": text }),
        ),
        OutcomeError::OutputNotRead { output_bytes, bookmark, .. } => (
            CallEnd::Failed,
            line!({
                "id": id, "known": "applied", "output_bytes": output_bytes, "bookmark": bookmark,
                "error": text,
            }),
        ),
        _ => (CallEnd::Failed, line!({ "id": id, "error": text })),
    }
}

pub(super) fn not_published(error: &PublishError) -> (CallEnd, AnswerLine) {
    let (status, known) = match (error, error.known()) {
        (PublishError::Invalid { .. }, _) => (CallEnd::Unusable, "not_accepted"),
        (_, Known::NotAccepted) => (CallEnd::Failed, "not_accepted"),
        (_, Known::MaybeAccepted) => (CallEnd::OutOfTime, "maybe_accepted"),
    };
    (status, line!({ "id": error.id(), "known": known, "error": error.to_string() }))
}

pub(super) fn not_submitted(error: &SubmitError) -> (CallEnd, AnswerLine) {
    let text = error.to_string();
    let ended = |id, known, bookmark| {
        (
            CallEnd::Refused,
            line!({
                "id": id, "known": known, "bookmark": bookmark, "error": text,
            }),
        )
    };
    match error {
        SubmitError::Publish(error) => not_published(error),
        SubmitError::Rejected { id, rejection, bookmark, .. } => (
            CallEnd::Refused,
            line!({
                "id": id, "known": "rejected", "rejection": rejection, "bookmark": bookmark,
                "error": text,
            }),
        ),
        SubmitError::Expired { id, bookmark } => ended(id, "expired", bookmark),
        SubmitError::DeadLettered { id, bookmark, .. } => ended(id, "dead_lettered", bookmark),
        SubmitError::TimedOut { accepted, .. } => (
            CallEnd::OutOfTime,
            line!({
                "id": accepted.id, "known": "accepted", "stream": accepted.stream,
                "sequence": accepted.sequence, "error": text,
            }),
        ),
        SubmitError::OutputNotRead { id, output_bytes, bookmark, .. } => (
            CallEnd::Failed,
            line!({
                "id": id, "known": "committed", "output_bytes": output_bytes, "bookmark": bookmark,
                "error": text,
            }),
        ),
        SubmitError::Output { id, raw, bookmark, .. } => (
            CallEnd::Failed,
            line!({
                "id": id, "known": "committed", "output": raw.0, "bookmark": bookmark, "error": text,
            }),
        ),
        _ => (CallEnd::Failed, line!({ "id": error.id(), "error": text })),
    }
}

pub(super) fn not_written(error: &WriteError<Box<RawValue>>) -> (CallEnd, AnswerLine) {
    match error {
        WriteError::Submit(error) => not_submitted(error),
        WriteError::NotVisible { committed, .. } => (
            CallEnd::Failed,
            line!({
                "id": committed.id, "known": "committed", "output": committed.output,
                "bookmark": committed.bookmark, "error": error.to_string(),
            }),
        ),
        WriteError::NotEverywhere { visible, .. } => (
            CallEnd::Failed,
            line!({
                "id": visible.id, "known": "visible", "output": visible.output,
                "bookmark": visible.bookmark, "error": error.to_string(),
            }),
        ),
        WriteError::NoReads { .. } => (CallEnd::Unusable, line!({ "error": error.to_string() })),
        _ => (CallEnd::Failed, line!({ "id": error.id(), "error": error.to_string() })),
    }
}
