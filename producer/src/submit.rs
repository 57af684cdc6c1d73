//! The verb `submit`: the primary has committed the command's outcome.
//!
//! ```text
//! route laid ─▶ published ─▶ accepted ─▶ reply ───────────────▶ outcome
//!                  │            │                                 ▲
//!                  │            ├─ duplicate: ask at once ────────┤
//!                  │            └─ no reply for 1 s: ask by id ───┤   and again, until the deadline
//!                  └─ the reply may overtake the acknowledgement ─┘
//! ```
//!
//! The first answer wins, and both tell what the ledger holds. A duplicate is asked for at once, for
//! two reasons. The reply went to the inbox of the copy that was stored, and only the ledger can
//! tell whether that copy had the same body.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use farwrite_schemas::{Bookmark, CommandId, Fingerprint, Outcome, Reply};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};

use crate::{
    link::routes::ReplyRoute,
    metrics,
    outbox::entered::EnteredCall,
    producer::Parts,
    questions::last_heard::LastHeard,
    submit_error::{RawOutput, SubmitError},
};

/// The primary has committed the command's effects.
#[derive(Clone)]
#[non_exhaustive]
pub struct Committed<O> {
    /// The command id.
    pub id: CommandId,
    /// What the command answered.
    pub output: O,
    /// A position at or behind the commit: its holder can wait for it in any region.
    pub bookmark: Bookmark,
}

/// Without the output: what it holds is the app's, and has no place in a log.
impl<O> fmt::Debug for Committed<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, bookmark, .. } = self;
        write!(f, "Committed {{ id: {id}, bookmark: {bookmark}, .. }}")
    }
}

/// A call that has entered, and waits for its reply, too.
#[derive(Debug)]
pub(crate) struct Awaiting {
    pub(crate) entered: EnteredCall,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) reply: ReplyRoute,
}

/// A command that was applied, with its output as it came.
#[derive(Debug)]
pub(crate) struct AppliedCommand {
    pub(crate) id: CommandId,
    pub(crate) output: RawOutput,
    pub(crate) bookmark: Bookmark,
}

impl AppliedCommand {
    /// Reads the output as its type.
    pub(crate) fn committed<O: DeserializeOwned>(self) -> Result<Committed<O>, SubmitError> {
        let Self { id, output: raw, bookmark } = self;
        match serde_json::from_str(raw.0.get()) {
            Ok(output) => Ok(Committed { id, output, bookmark }),
            Err(cause) => Err(SubmitError::Output { id, raw, bookmark, cause }),
        }
    }
}

impl Parts {
    /// Submits a call that has its place, and counts how that ended. When it is accepted and its
    /// outcome is not there yet, that is told.
    pub(crate) async fn submit(
        &self,
        awaiting: Awaiting,
        tell_accepted: impl FnOnce(),
    ) -> Result<AppliedCommand, SubmitError> {
        let began = awaiting.entered.began;
        let deadline = awaiting.entered.deadline;
        let result = match self.outcome_of(awaiting, tell_accepted).await {
            Ok(reply) => {
                self.outbox.ended(reply.id);
                self.applied(reply, deadline).await
            }
            Err(error) => Err(error),
        };
        let word = result.as_ref().map_or_else(SubmitError::as_str, |_| "applied");
        metrics::submitted(began.elapsed(), word);
        result
    }

    async fn outcome_of(
        &self,
        awaiting: Awaiting,
        tell_accepted: impl FnOnce(),
    ) -> Result<Reply, SubmitError> {
        let Awaiting { mut entered, fingerprint, mut reply } = awaiting;
        let id = entered.message.id;
        let message = Arc::clone(&entered.message);
        let first = async {
            let reply = reply.reply().await;
            // Before the publish is dropped: it is no call that its caller has left.
            message.has_ended.store(true, Ordering::Relaxed);
            reply
        };
        let accepted = tokio::select! {
            biased; // a reply is the better answer where both are there
            reply = first => {
                overtaken(&entered);
                return Ok(reply);
            }
            published = self.outbox.publish(&mut entered) => published?,
        };
        tell_accepted();
        // The next call of the key need not wait for the outcome.
        entered.turn = None;
        let mut last_heard = LastHeard::Nothing;
        let asking =
            self.questions.ask_until_known(id, fingerprint, accepted.duplicate, &mut last_heard);
        let answer = tokio::select! {
            biased; // the reply costs nobody anything more
            reply = reply.reply() => Some(reply),
            reply = asking => Some(reply),
            () = sleep_until(entered.deadline) => None,
        };
        answer.ok_or(SubmitError::TimedOut { accepted, last_heard })
    }

    /// What a reply says; an output that was left out of it is read from the ledger.
    async fn applied(
        &self,
        reply: Reply,
        deadline: Instant,
    ) -> Result<AppliedCommand, SubmitError> {
        let Reply { id, outcome, bookmark, .. } = reply;
        match outcome {
            Outcome::Applied { output } => {
                Ok(AppliedCommand { id, output: RawOutput(output), bookmark })
            }
            Outcome::AppliedLarge { output_bytes } => {
                match self.questions.read_output(id, &bookmark, deadline).await {
                    Ok(output) => Ok(AppliedCommand { id, output: RawOutput(output), bookmark }),
                    Err(cause) => {
                        Err(SubmitError::OutputNotRead { id, output_bytes, bookmark, cause })
                    }
                }
            }
            Outcome::Rejected(rejection) => {
                Err(SubmitError::Rejected { id, rejection: Box::new(rejection), bookmark })
            }
            Outcome::Expired => Err(SubmitError::Expired { id, bookmark }),
            Outcome::DeadLettered(dead_letter) => {
                Err(SubmitError::DeadLettered { id, dead_letter, bookmark })
            }
        }
    }
}

/// The reply came before the acknowledgement: it proves that the command was accepted.
fn overtaken(entered: &EnteredCall) {
    if let Some(turn) = &entered.turn {
        turn.resolve(entered.message.id);
    }
    metrics::published(entered.began.elapsed(), false);
}
