//! Commands that leave together: one atomic batch of JetStream's, sent and answered.
//!
//! Only the last message, the commit, has a reply subject and is answered, with its own sequence. The
//! stream holds all of them next to each other, or none. A batch that was cut short has no commit, or
//! a gap before it, and stores nothing.
//!
//! Not to be confused with a command that is itself a batch of commands (`schemas/src/atomic.rs`).

use std::sync::Arc;

use async_nats::{HeaderName, StatusCode, client::PublishError};
use tokio::time::timeout;

use crate::{
    link::{
        nats::NatsLink,
        routes::{AnswerRoute, Arrival},
    },
    outbox::{
        answer::{StoredBatch, read_batch_answer},
        failure::{AttemptFailure, Reason},
        message::Message,
    },
};

const BATCH_ID: HeaderName = HeaderName::from_static("Nats-Batch-Id");
const BATCH_SEQUENCE: HeaderName = HeaderName::from_static("Nats-Batch-Sequence");
const BATCH_COMMIT: HeaderName = HeaderName::from_static("Nats-Batch-Commit");

/// Batches are disabled: the stream was not made with `allow_atomic`.
const DISABLED: u64 = 10174;

/// The server takes fewer messages in a batch.
const TOO_MANY_MESSAGES: u64 = 10199;

/// How a batch ended.
#[derive(Debug)]
pub(super) enum BatchEnd {
    /// All are stored.
    Stored(StoredBatch),
    /// None is stored.
    Refused(WhyRefused),
    /// Each may have been stored: only sending it again can tell.
    InDoubt(AttemptFailure),
}

/// Why a batch was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhyRefused {
    /// There can be no batches here.
    Impossible,
    /// It was too long.
    TooMany,
    /// For something in it, or around it: its messages may fare better alone.
    Other,
}

/// Sends messages as the batch `id`, and waits for its answer.
pub(super) async fn send_batch(link: &NatsLink, id: &str, messages: &[Arc<Message>]) -> BatchEnd {
    let Some(commit) = messages.last() else { return BatchEnd::Refused(WhyRefused::Other) };
    let answer = link.routes.expect_answer(commit.target.subject.clone());
    // What does not get as far as the commit is no batch.
    let sending = send_each(link, id, messages, &answer);
    let Ok(Ok(())) = timeout(link.ack_timeout, sending).await else {
        return BatchEnd::Refused(WhyRefused::Other);
    };
    let arrival = match timeout(link.ack_timeout, answer.arrival()).await {
        Ok(arrival) => arrival,
        Err(_) => return BatchEnd::InDoubt(AttemptFailure::Unanswered),
    };
    match arrival {
        Arrival::Denied => BatchEnd::Refused(WhyRefused::Other),
        Arrival::Deaf => {
            BatchEnd::InDoubt(AttemptFailure::Deaf { inbox: link.inbox.subject(), sent: true })
        }
        Arrival::Message(answer) if answer.status == Some(StatusCode::NO_RESPONDERS) => {
            BatchEnd::Refused(WhyRefused::Other)
        }
        Arrival::Message(answer) => {
            conclude(read_batch_answer(&answer.payload, id, messages.len()))
        }
    }
}

async fn send_each(
    link: &NatsLink,
    id: &str,
    messages: &[Arc<Message>],
    answer: &AnswerRoute,
) -> Result<(), PublishError> {
    for (message, sequence) in messages.iter().zip(1_usize..) {
        let mut headers = message.headers();
        headers.insert(BATCH_ID, id);
        headers.insert(BATCH_SEQUENCE, sequence.to_string());
        let (subject, body) = (message.target.subject.clone(), message.body.clone());
        if sequence < messages.len() {
            link.client.publish_with_headers(subject, headers, body).await?;
        } else {
            headers.insert(BATCH_COMMIT, "1");
            let inbox = link.inbox.for_token(answer.token);
            link.client.publish_with_reply_and_headers(subject, inbox, headers, body).await?;
        }
    }
    Ok(())
}

fn conclude(answer: Result<StoredBatch, AttemptFailure>) -> BatchEnd {
    match answer {
        Ok(stored) => BatchEnd::Stored(stored),
        Err(AttemptFailure::Refused(refusal)) => match (refusal.reason, refusal.code) {
            // A disk that fails may do so in the middle of a commit.
            (Reason::Unavailable, _) => BatchEnd::InDoubt(AttemptFailure::Refused(refusal)),
            (_, DISABLED) => BatchEnd::Refused(WhyRefused::Impossible),
            (_, TOO_MANY_MESSAGES) => BatchEnd::Refused(WhyRefused::TooMany),
            _ => BatchEnd::Refused(WhyRefused::Other),
        },
        Err(failure) => BatchEnd::InDoubt(failure),
    }
}
