//! Sending the lost commands of one key again.
//!
//! In the key's turn, so that no call of the app's comes between them. The first one that is not
//! stored anew holds back the rest: it failed, or the broker says that it holds it, which its memory
//! of ids may say of a message that it has lost; a later run knows.

use std::sync::Arc;

use farwrite_schemas::CommandId;
use tokio::time::{Instant, timeout_at};

use super::{
    ReconcileOptions,
    plan::{Item, Plan, plan},
};
use crate::{
    journal::Keeping,
    outbox::{
        answer::Stored,
        message::Message,
        publish::error_of,
        publish_error::{Known, PublishError, WaitingFor},
        send::Progress,
        turns::Turn,
    },
    producer::Inner,
};

/// What became of the lost commands of one key.
#[derive(Debug, Default)]
pub(super) struct SentAgain {
    pub(super) sent: Vec<CommandId>,
    pub(super) duplicates: Vec<CommandId>,
    pub(super) overtaken: Vec<CommandId>,
    pub(super) unsent: Option<PublishError>,
    pub(super) held_back: usize,
    pub(super) left: usize,
}

impl Inner {
    /// Sends the lost commands of one key again.
    pub(super) async fn send_lost(
        &self,
        journal: &Arc<Keeping>,
        items: &[Item],
        options: &ReconcileOptions,
    ) -> SentAgain {
        let Plan { send, overtaken, left, held_back } = plan(items, options.overtaken);
        let mut result = SentAgain { overtaken, left, held_back, ..SentAgain::default() };
        let Some(first) = send.first() else { return result };
        let turn = match self.turn_for(first, Instant::now() + options.timeout).await {
            Ok(turn) => turn,
            Err(error) => {
                result.held_back += send.len() - 1;
                result.unsent = Some(error);
                return result;
            }
        };
        for (place, message) in send.iter().enumerate() {
            let behind = send.len() - place - 1;
            // Gone: its outcome was heard meanwhile. Or the app is publishing it itself.
            let Some(kept) = journal.claim(message.id) else {
                result.held_back += 1 + behind;
                return result;
            };
            let mut progress = Progress::of_kept(kept);
            let deadline = Instant::now() + options.timeout;
            match self.send_again(message, turn.as_ref(), deadline, &mut progress).await {
                Ok(Stored { duplicate: false, .. }) => result.sent.push(message.id),
                Ok(Stored { duplicate: true, .. }) => {
                    result.duplicates.push(message.id);
                    result.held_back += behind;
                    return result;
                }
                Err(unsent) => {
                    result.unsent = Some(error_of(self, message, &progress, unsent));
                    result.held_back += behind;
                    return result;
                }
            }
        }
        result
    }

    /// Waits for the turn of a message's key; `None` where it has none.
    async fn turn_for(
        &self,
        message: &Message,
        deadline: Instant,
    ) -> Result<Option<Turn>, PublishError> {
        let (Some(key), id) = (&message.key, message.id) else { return Ok(None) };
        let blocked = |_| PublishError::TooManyBlockedKeys { id, blocked: self.turns.counts().1 };
        let mut turn = self.turns.enter(key).map_err(blocked)?;
        let (waiting, known) = (WaitingFor::Turn, Known::NotAccepted);
        let late = |_| PublishError::TimedOut { id, waiting, known };
        timeout_at(deadline, turn.come()).await.map_err(late)?;
        Ok(Some(turn))
    }
}
