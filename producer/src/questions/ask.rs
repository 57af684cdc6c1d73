//! What a producer asks with, and asking the worker's service for an outcome until it is known.
//!
//! For a reply that does not come: the worker restarted between commit and reply, the connection
//! was down, the reply went to another producer. The service reads the ledger, so that its answer
//! is as good as the reply.

use std::sync::Arc;

use async_nats::Subject;
use farwrite_schemas::{
    CommandId, Fingerprint, NotEnded, OutcomeAnswer, OutcomeRequest, Reply, Subjects,
};
use tokio::time::sleep;

use crate::{
    backoff,
    link::{nats::NatsLink, question::Unanswered},
    metrics,
    pending::PendingCalls,
    questions::last_heard::LastHeard,
    reads::wait::Reads,
};

/// The worker's service, and the database that is read where the service is silent.
#[derive(Debug)]
pub(crate) struct Questions {
    pub(super) link: Arc<NatsLink>,
    pub(super) reads: Arc<Reads>,
    pub(super) calls: Arc<PendingCalls>,
    outcome_subject: Subject,
    pub(super) lag_subject: Subject,
}

impl Questions {
    pub(crate) fn new(
        link: Arc<NatsLink>,
        reads: Arc<Reads>,
        calls: Arc<PendingCalls>,
        subjects: &Subjects,
    ) -> Self {
        let (outcome_subject, lag_subject) = (subjects.outcome().into(), subjects.lag().into());
        Self { link, reads, calls, outcome_subject, lag_subject }
    }

    /// Asks until the outcome is known: after a pause, in which the reply should come, or at once.
    pub(crate) async fn ask_until_known(
        &self,
        id: CommandId,
        fingerprint: Fingerprint,
        at_once: bool,
        last_heard: &mut LastHeard,
    ) -> Reply {
        let mut backoff = backoff::asking();
        if !at_once {
            // No jitter here: a reply of a healthy worker has its full second.
            sleep(backoff::FIRST_QUESTION).await;
        }
        loop {
            *last_heard = match self.ask(id, Some(fingerprint)).await {
                Ok(OutcomeAnswer::Known(reply)) => return reply,
                Ok(OutcomeAnswer::Pending(NotEnded { parked: None, .. })) => LastHeard::Pending,
                Ok(OutcomeAnswer::Pending(NotEnded { parked: Some(parked), .. })) => {
                    if parked.is_unconfirmed() { LastHeard::Unconfirmed } else { LastHeard::Parked }
                }
                Err(unanswered) => LastHeard::from(&unanswered),
            };
            sleep(backoff.next_pause()).await;
        }
    }

    /// Asks the worker's service once for an outcome.
    pub(crate) async fn ask(
        &self,
        id: CommandId,
        fingerprint: Option<Fingerprint>,
    ) -> Result<OutcomeAnswer, Unanswered> {
        let result = self.outcome_question(&OutcomeRequest { id, fingerprint }).await;
        metrics::asked(match &result {
            Ok(OutcomeAnswer::Known(_)) => "known",
            Ok(OutcomeAnswer::Pending(_)) => "pending",
            Err(unanswered) => unanswered.as_str(),
        });
        result
    }

    async fn outcome_question(
        &self,
        request: &OutcomeRequest,
    ) -> Result<OutcomeAnswer, Unanswered> {
        let question = serde_json::to_vec(request).map_err(|_| Unanswered::Unreadable)?;
        let message = self.link.question(&self.outcome_subject, question).await?;
        match OutcomeAnswer::decode(&message.payload) {
            Ok(answer) if answer.id() == request.id => Ok(answer),
            Ok(_) => {
                metrics::unreadable_reply();
                Err(Unanswered::Unreadable)
            }
            Err(error) => {
                metrics::unreadable_reply();
                tracing::warn!(id = %request.id, %error, "an outcome's answer cannot be read");
                Err(Unanswered::Unreadable)
            }
        }
    }
}
