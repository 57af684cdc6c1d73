//! Bringing one message into the stream in its key's turn, however many attempts it takes, and
//! saying honestly what is known when it did not work.
//!
//! ```text
//! turn of the key ─▶ [the unresolved message before it] ─▶ [the journal] ─▶ attempts
//! ```
//!
//! Every wait on the way ends at the deadline. What was learnt by then is in the [`PublishProgress`].
//! A publish may be dropped at each of them: [`KeyedSend`] says what that means for its key.

use std::sync::{Arc, atomic::Ordering};

use farwrite_schemas::CommandId;
use tokio::time::{Instant, error::Elapsed, timeout_at};

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
    /// not resolved by then, or when this is dropped, blocks its key.
    pub(crate) async fn send(
        &self,
        message: &Arc<Message>,
        turn: Option<&mut KeyTurn>,
        deadline: Instant,
        progress: &mut PublishProgress,
    ) -> Result<Acknowledgement, Unsent> {
        let turn = match turn {
            Some(turn) => match timeout_at(deadline, turn.come()).await {
                Ok(()) => Some(&*turn),
                Err(_) => return Err(Unsent::OutOfTime),
            },
            None => None,
        };
        let mut sending = KeyedSend { message, turn, deadline, progress };
        let sent = self.send_in_turn(&mut sending).await;
        sending.conclude(sent)
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
        let sending = KeyedSend { message, turn, deadline, progress };
        let tries = &mut sending.progress.tries;
        let sent =
            self.attempts.until_acknowledged(message, deadline, tries, Attempted::Before).await;
        sending.conclude(sent)
    }

    /// Sends a message again that blocks its key, until the stream has answered: then it does no
    /// longer.
    pub(super) async fn resolve(
        &self,
        message: &Arc<Message>,
        deadline: Instant,
    ) -> Result<Result<(), AttemptFailure>, Elapsed> {
        let mut tries = Tries::default();
        let sent =
            self.attempts.until_acknowledged(message, deadline, &mut tries, Attempted::Before);
        let stored = match sent.await? {
            Ok(stored) => Some(stored),
            Err(failure) if failure.verdict().settled => None,
            Err(failure) => return Ok(Err(failure)),
        };
        if let Some(key) = &message.key {
            self.turns.resolve(key, message.id);
        }
        if let Some(Acknowledgement { stream, sequence, .. }) = stored
            && let Some(journal) = &self.journal
            && let Some(kept) = JournalHold::claim(journal, message.id)
        {
            kept.stored(&stream, sequence);
        }
        Ok(Ok(()))
    }

    async fn send_in_turn(&self, sending: &mut KeyedSend<'_>) -> AttemptEnd {
        let KeyedSend { message, turn, deadline, progress } = sending;
        // The same id again resolves itself.
        let before = turn.and_then(KeyTurn::unresolved).filter(|before| before.id != message.id);
        if let Some(before) = before {
            progress.stage = PublishStage::Resolving(before.id);
            if let Err(failure) = self.resolve(&before, *deadline).await? {
                return Ok(Err(failure));
            }
        }
        self.journal_and_send(message, *deadline, progress).await
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

/// A message that is being sent in its key's turn. Dropped before it is concluded, a message that is
/// out blocks its key, unless its outcome has overtaken its acknowledgement.
struct KeyedSend<'a> {
    message: &'a Arc<Message>,
    turn: Option<&'a KeyTurn>,
    deadline: Instant,
    progress: &'a mut PublishProgress,
}

impl KeyedSend<'_> {
    /// What the end of a publish means for its key and its journal entry.
    fn conclude(mut self, sent: AttemptEnd) -> Result<Acknowledgement, Unsent> {
        let (result, is_settled) = match sent {
            Ok(Ok(stored)) => (Ok(stored), true),
            Ok(Err(failure)) => {
                let is_settled = failure.verdict().settled;
                (Err(Unsent::Final(failure)), is_settled)
            }
            Err(_) => (Err(Unsent::OutOfTime), false),
        };
        let id = self.message.id;
        match self.turn.take() {
            Some(turn) if is_settled => turn.resolve(id),
            Some(turn) if self.progress.tries.in_doubt() => turn.block(self.message),
            Some(_) | None => {}
        }
        if let Ok(Acknowledgement { stream, sequence, .. }) = &result
            && let Some(kept) = self.progress.kept.take()
        {
            kept.stored(stream, *sequence);
        }
        result
    }
}

impl Drop for KeyedSend<'_> {
    fn drop(&mut self) {
        if let Some(turn) = self.turn
            && self.progress.tries.in_doubt()
            && !self.message.has_ended.load(Ordering::Relaxed)
        {
            turn.abandon(self.message, self.deadline);
        }
    }
}
