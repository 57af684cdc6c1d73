//! What reconciling needs of the producer around it: three questions, and sending again.

use farwrite_schemas::{CommandId, Fingerprint, Lag, OutcomeAnswer};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

use crate::{
    journal::JournalHold,
    link::question::Unanswered,
    outbox::{
        answer::Acknowledgement,
        message::Message,
        progress::PublishProgress,
        publish_error::{Known, PublishError, WaitingFor},
        send::Outbox,
        turns::KeyTurn,
    },
    questions::{ask::Questions, lag::LagError, ledger::LedgerAnswer},
};

/// The outbox and the questions of a producer, as far as reconciling needs them.
#[derive(Clone, Copy)]
pub(super) struct Port<'a> {
    outbox: &'a Outbox,
    questions: &'a Questions,
}

impl<'a> Port<'a> {
    pub(super) const fn new(outbox: &'a Outbox, questions: &'a Questions) -> Self {
        Self { outbox, questions }
    }

    /// How far the worker is behind.
    pub(super) async fn lag(&self, timeout: Duration) -> Result<Lag, LagError> {
        self.questions.lag(timeout).await
    }

    /// How a command ended, by the worker's word.
    pub(super) async fn ask(
        &self,
        id: CommandId,
        fingerprint: Fingerprint,
    ) -> Result<OutcomeAnswer, Unanswered> {
        self.questions.ask(id, Some(fingerprint)).await
    }

    /// How a command ended, as the database shows it that is read; `None` where none is.
    pub(super) async fn read(&self, id: CommandId) -> Option<Result<LedgerAnswer, sqlx::Error>> {
        self.questions.read_outcome(id).await
    }

    /// Waits for the turn of a message's key; `None` where it has none.
    pub(super) async fn turn(
        &self,
        message: &Message,
        deadline: Instant,
    ) -> Result<Option<KeyTurn>, PublishError> {
        let (Some(key), id) = (&message.key, message.id) else { return Ok(None) };
        let turns = &self.outbox.turns;
        let blocked = |_| PublishError::TooManyBlockedKeys { id, blocked: turns.counts().1 };
        let mut turn = turns.enter(key).map_err(blocked)?;
        let (waiting, known) = (WaitingFor::Turn, Known::NotAccepted);
        let late = |_| PublishError::TimedOut { id, waiting, known };
        timeout_at(deadline, turn.come()).await.map_err(late)?;
        Ok(Some(turn))
    }

    /// Sends a message again that is in the journal, in its key's turn.
    pub(super) async fn send_again(
        &self,
        message: &Arc<Message>,
        kept: JournalHold,
        turn: Option<&KeyTurn>,
        deadline: Instant,
    ) -> Result<Acknowledgement, PublishError> {
        let mut progress = PublishProgress::of_kept(kept);
        let sent = self.outbox.send_again(message, turn, deadline, &mut progress).await;
        sent.map_err(|unsent| self.outbox.explain(message, &progress, unsent))
    }
}
