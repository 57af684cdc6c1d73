//! The verb `publish`: the stream has stored the command.

use crate::{
    journal::Unjournaled,
    metrics,
    outbox::{
        accepted::Accepted,
        answer::{Failure, Reason, Refusal, Stored},
        entered::Entered,
        message::Message,
        progress::{Progress, Stage, Unsent},
        publish_error::{Known, PublishError, SizeLimit, WaitingFor},
        send::Outbox,
    },
};

impl Outbox {
    /// Publishes a call that has its place, and counts how that ended.
    pub(crate) async fn publish(&self, entered: &mut Entered) -> Result<Accepted, PublishError> {
        let mut progress = Progress::default();
        let Entered { message, turn, deadline, began, .. } = entered;
        let id = message.id;
        match self.send(message, turn.as_mut(), *deadline, &mut progress).await {
            Ok(Stored { stream, sequence, duplicate }) => {
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
        progress: &Progress,
        unsent: Unsent,
    ) -> PublishError {
        let id = message.id;
        let subject = || message.target.subject.to_string();
        let in_doubt = progress.tries.in_doubt();
        let known = if in_doubt { Known::MaybeAccepted } else { Known::NotAccepted };
        let failure = match (unsent, progress.stage) {
            (Unsent::Final(failure), _) => failure,
            (Unsent::OutOfTime, Stage::Queued) => {
                return PublishError::TimedOut { id, waiting: WaitingFor::Turn, known };
            }
            (Unsent::OutOfTime, Stage::Resolving(unresolved)) => {
                return PublishError::KeyBlocked { id, unresolved };
            }
            (Unsent::OutOfTime, Stage::Sending) => match progress.tries.last.clone() {
                Some(failure) => failure,
                None if in_doubt => Failure::Unanswered,
                None => Failure::NotSent,
            },
        };
        let too_large =
            |limit| PublishError::TooLarge { id, bytes: message.body.len(), limit, known };
        let waiting_for = |waiting| PublishError::TimedOut { id, waiting, known };
        match failure {
            Failure::NotConnected => PublishError::NoConnection { id, known },
            // Silence has a reason where the connection is gone by now.
            Failure::NotSent | Failure::Unanswered | Failure::Garbled
                if !self.link.is_connected() =>
            {
                PublishError::NoConnection { id, known }
            }
            Failure::NotSent => waiting_for(WaitingFor::Slot),
            Failure::Unanswered | Failure::Garbled => waiting_for(WaitingFor::Acknowledgement),
            Failure::Closed => PublishError::Closed { id, known },
            Failure::NoStream => PublishError::UnknownStream { id, subject: subject(), known },
            Failure::OverServerLimit { limit_bytes: bytes } => {
                too_large(SizeLimit::Server { bytes })
            }
            Failure::Denied => PublishError::NotPermitted { id, subject: subject(), known },
            Failure::Deaf { inbox, .. } => {
                PublishError::NotPermitted { id, subject: inbox.to_string(), known }
            }
            Failure::Unjournaled(Unjournaled::Full { commands, bytes }) => {
                PublishError::JournalFull { id, commands, bytes }
            }
            Failure::Unjournaled(Unjournaled::Failed(cause)) => {
                PublishError::JournalFailed { id, cause }
            }
            Failure::Refused(Refusal { reason, code, description }) => match reason {
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
