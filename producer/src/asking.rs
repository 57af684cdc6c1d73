//! Asking for an outcome, and how far behind the worker is.

use std::time::Duration;

use farwrite_schemas::{CommandId, Lag, OutcomeAnswer};

use crate::{
    producer::Producer,
    questions::{lag::LagError, outcome::OutcomeError},
};

impl Producer {
    /// Asks how a command ended, within the default timeout.
    ///
    /// The worker answers; where none does, or NATS is away, the outcome is read from the database
    /// that this producer reads, if it reads one. On a replica an outcome that is found is final
    /// and visible there; one that is not found is [`OutcomeError::UnknownHere`].
    ///
    /// [`OutcomeAnswer::Pending`] is the worker's or the primary's word: the command is parked, or
    /// neither ledger nor parked commands know the id, because it was not applied yet, or never
    /// accepted, or is older than the ledger keeps. An outcome is whole here, however large its
    /// output: never [`Outcome::AppliedLarge`](crate::Outcome::AppliedLarge).
    ///
    /// # Errors
    /// When nobody knows; the command is what it was.
    pub async fn outcome(&self, id: CommandId) -> Result<OutcomeAnswer, OutcomeError> {
        self.outcome_within(id, self.parts.limits.timeout).await
    }

    /// [`Producer::outcome`] with another timeout, at most [`TIMEOUT_MAX`](crate::TIMEOUT_MAX).
    ///
    /// # Errors
    /// When nobody knows; the command is what it was.
    pub async fn outcome_within(
        &self,
        id: CommandId,
        timeout: Duration,
    ) -> Result<OutcomeAnswer, OutcomeError> {
        let answer = self.parts.questions.outcome(id, timeout).await;
        if let Ok(OutcomeAnswer::Known(_)) | Err(OutcomeError::OutputNotRead { .. }) = &answer {
            self.parts.outbox.ended(id);
        }
        answer
    }

    /// Asks how far behind the worker is, within the default timeout. The worker measures it at
    /// most once a second, and counts what every producer published.
    ///
    /// # Errors
    /// When nobody answers: a worker that is away is behind by all that was published since.
    pub async fn lag(&self) -> Result<Lag, LagError> {
        self.lag_within(self.parts.limits.timeout).await
    }

    /// [`Producer::lag`] with another timeout, at most [`TIMEOUT_MAX`](crate::TIMEOUT_MAX).
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn lag_within(&self, timeout: Duration) -> Result<Lag, LagError> {
        self.parts.questions.lag(timeout).await
    }
}
