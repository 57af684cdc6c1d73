//! The verb `publish`: the stream has stored the command.

use crate::{
    journal::Unjournaled,
    metrics,
    outbox::{
        accepted::Accepted,
        answer::Acknowledgement,
        entered::EnteredCall,
        failure::{AttemptFailure, Reason, Refusal},
        message::Message,
        progress::{PublishProgress, PublishStage, Unsent},
        publish_error::{Known, PublishError, SizeLimit, WaitingFor},
        send::Outbox,
    },
};

impl Outbox {
    /// Publishes a call that has its place, and counts how that ended.
    pub(crate) async fn publish(
        &self,
        entered: &mut EnteredCall,
    ) -> Result<Accepted, PublishError> {
        let mut progress = PublishProgress::default();
        let EnteredCall { message, turn, deadline, began, .. } = entered;
        let id = message.id;
        match self.send(message, turn.as_mut(), *deadline, &mut progress).await {
            Ok(Acknowledgement { stream, sequence, duplicate }) => {
                metrics::published(began.elapsed(), duplicate);
                Ok(Accepted { id, stream, sequence, duplicate })
            }
            Err(unsent) => {
                let error = self.explain(&entered.message, &progress, unsent);
                metrics::publish_failed(error.as_str());
                Err(error)
            }
        }
    }

    /// Says what a failed publish means: by the last failure, and where none is known by what it was
    /// waiting for.
    pub(crate) fn explain(
        &self,
        message: &Message,
        progress: &PublishProgress,
        unsent: Unsent,
    ) -> PublishError {
        let id = message.id;
        let subject = || message.target.subject.to_string();
        let in_doubt = progress.tries.in_doubt();
        let known = if in_doubt { Known::MaybeAccepted } else { Known::NotAccepted };
        let failure = match (unsent, progress.stage) {
            (Unsent::Final(failure), _) => failure,
            (Unsent::OutOfTime, PublishStage::Queued) => {
                return PublishError::TimedOut { id, waiting: WaitingFor::Turn, known };
            }
            (Unsent::OutOfTime, PublishStage::Resolving(unresolved)) => {
                return PublishError::KeyBlocked { id, unresolved };
            }
            (Unsent::OutOfTime, PublishStage::Sending) => match progress.tries.last.clone() {
                Some(failure) => failure,
                None if in_doubt => AttemptFailure::Unanswered,
                None => AttemptFailure::NotSent,
            },
        };
        let too_large =
            |limit| PublishError::TooLarge { id, bytes: message.body.len(), limit, known };
        let waiting_for = |waiting| PublishError::TimedOut { id, waiting, known };
        match failure {
            AttemptFailure::NotConnected => PublishError::NoConnection { id, known },
            // Silence has a reason where the connection is gone by now.
            AttemptFailure::NotSent | AttemptFailure::Unanswered | AttemptFailure::Garbled
                if !self.link.is_connected() =>
            {
                PublishError::NoConnection { id, known }
            }
            AttemptFailure::NotSent => waiting_for(WaitingFor::Slot),
            AttemptFailure::Unanswered | AttemptFailure::Garbled => {
                waiting_for(WaitingFor::Acknowledgement)
            }
            AttemptFailure::Closed => PublishError::Closed { id, known },
            AttemptFailure::NoStream => {
                PublishError::UnknownStream { id, subject: subject(), known }
            }
            AttemptFailure::OverServerLimit { limit_bytes: bytes } => {
                too_large(SizeLimit::Server { bytes })
            }
            AttemptFailure::Denied => PublishError::NotPermitted { id, subject: subject(), known },
            AttemptFailure::Deaf { inbox, .. } => {
                PublishError::NotPermitted { id, subject: inbox.to_string(), known }
            }
            AttemptFailure::Unjournaled(Unjournaled::Full { commands, bytes }) => {
                PublishError::JournalFull { id, commands, bytes }
            }
            AttemptFailure::Unjournaled(Unjournaled::Failed(cause)) => {
                PublishError::JournalFailed { id, cause }
            }
            AttemptFailure::Refused(Refusal { reason, code, description }) => match reason {
                Reason::Full => PublishError::QueueFull { id, description, known },
                Reason::TooLarge => too_large(SizeLimit::Stream),
                Reason::BeingStored => waiting_for(WaitingFor::Acknowledgement),
                Reason::Unavailable | Reason::Other => {
                    PublishError::Refused { id, code, description, known }
                }
            },
        }
    }
}
