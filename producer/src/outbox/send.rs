//! Bringing one message into the stream in its key's turn, however many attempts it takes, and
//! saying honestly what is known when it did not work.
//!
//! ```text
//! turn of the key ─▶ [the unresolved message before it] ─▶ [the journal] ─▶ attempts
//! ```
//!
//! Every wait on the way ends at the deadline. What was learnt by then is in the [`PublishProgress`].

use std::sync::Arc;

use farwrite_schemas::CommandId;
use tokio::time::{Instant, timeout_at};

use crate::{
    journal::{JournalHold, Keeping},
    link::nats::NatsLink,
    outbox::{
        answer::Acknowledgement,
        attempt::{AttemptEnd, Attempts},
        failure::AttemptFailure,
        message::Message,
        progress::{Attempted, PublishProgress, PublishStage, Tries, Unsent},
        target::Destinations,
        turns::{KeyTurn, KeyTurns},
    },
    pending::PendingCalls,
};

/// Everything that a publish passes.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) link: Arc<NatsLink>,
    pub(crate) calls: Arc<PendingCalls>,
    pub(crate) targets: Destinations,
    pub(crate) turns: Arc<KeyTurns>,
    pub(crate) journal: Option<Arc<Keeping>>,
    pub(crate) attempts: Attempts,
}

impl Outbox {
    /// The outcome of a command is known: the journal need not keep it any longer.
    pub(crate) fn ended(&self, id: CommandId) {
        if let Some(journal) = &self.journal {
            journal.end(id);
        }
    }

    /// Publishes that wait for their acknowledgement.
    pub(crate) fn in_flight(&self) -> usize {
        self.attempts.in_flight()
    }

    /// Sends a message in its turn, until it is acknowledged or the time is up. A message that is
    /// not resolved by then blocks its key.
    pub(crate) async fn send(
        &self,
        message: &Arc<Message>,
        turn: Option<&mut KeyTurn>,
        deadline: Instant,
        progress: &mut PublishProgress,
    ) -> Result<Acknowledgement, Unsent> {
        let Some(turn) = turn else {
            let sent = self.journal_and_send(message, deadline, progress).await;
            return conclude(sent, message, None, progress);
        };
        let sent = self.send_in_turn(message, turn, deadline, progress).await;
        conclude(sent, message, Some(turn), progress)
    }

    /// Sends a message again that is in the journal, in its key's turn, which has come. A message
    /// that blocks the key was sent after this one, and stays behind it.
    pub(crate) async fn send_again(
        &self,
        message: &Arc<Message>,
        turn: Option<&KeyTurn>,
        deadline: Instant,
        progress: &mut PublishProgress,
    ) -> Result<Acknowledgement, Unsent> {
        progress.stage = PublishStage::Sending;
        let sent = self
            .attempts
            .until_acknowledged(message, deadline, &mut progress.tries, Attempted::Before)
            .await;
        conclude(sent, message, turn, progress)
    }

    async fn send_in_turn(
        &self,
        message: &Arc<Message>,
        turn: &mut KeyTurn,
        deadline: Instant,
        progress: &mut PublishProgress,
    ) -> AttemptEnd {
        timeout_at(deadline, turn.come()).await?;
        // The same id again resolves itself.
        if let Some(before) = turn.unresolved().filter(|before| before.id != message.id) {
            progress.stage = PublishStage::Resolving(before.id);
            let mut tries = Tries::default();
            match self
                .attempts
                .until_acknowledged(&before, deadline, &mut tries, Attempted::Before)
                .await?
            {
                Ok(Acknowledgement { stream, sequence, .. }) => {
                    turn.resolve(before.id);
                    let journal = self.journal.as_ref();
                    if let Some(kept) =
                        journal.and_then(|journal| JournalHold::claim(journal, before.id))
                    {
                        kept.stored(&stream, sequence);
                    }
                }
                Err(failure) if failure.verdict().settled => turn.resolve(before.id),
                Err(failure) => return Ok(Err(failure)),
            }
        }
        self.journal_and_send(message, deadline, progress).await
    }

    /// Writes a message down, where there is a journal, before it goes out. In its key's turn, so
    /// that the journal has a key's commands in the order of the stream.
    async fn journal_and_send(
        &self,
        message: &Arc<Message>,
        deadline: Instant,
        progress: &mut PublishProgress,
    ) -> AttemptEnd {
        progress.stage = PublishStage::Sending;
        if let Some(journal) = &self.journal {
            match timeout_at(deadline, JournalHold::enter(journal, message)).await? {
                Ok(kept) => progress.kept = Some(kept),
                Err(unjournaled) => return Ok(Err(AttemptFailure::Unjournaled(unjournaled))),
            }
        }
        self.attempts
            .until_acknowledged(message, deadline, &mut progress.tries, Attempted::Never)
            .await
    }
}

/// What the end of a publish means for its key and its journal entry.
fn conclude(
    sent: AttemptEnd,
    message: &Arc<Message>,
    turn: Option<&KeyTurn>,
    progress: &mut PublishProgress,
) -> Result<Acknowledgement, Unsent> {
    let in_doubt = progress.tries.in_doubt();
    let (result, is_settled) = match sent {
        Ok(Ok(stored)) => (Ok(stored), true),
        Ok(Err(failure)) => {
            let is_settled = failure.verdict().settled;
            (Err(Unsent::Final(failure)), is_settled)
        }
        Err(_) => (Err(Unsent::OutOfTime), false),
    };
    match turn {
        Some(turn) if is_settled => turn.resolve(message.id),
        Some(turn) if in_doubt => turn.block(message),
        Some(_) | None => {}
    }
    if let Ok(Acknowledgement { stream, sequence, .. }) = &result
        && let Some(kept) = progress.kept.take()
    {
        kept.stored(stream, *sequence);
    }
    result
}
