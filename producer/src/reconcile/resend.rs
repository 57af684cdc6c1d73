//! Sending the lost commands of one key again.
//!
//! In the key's turn, so that no call of the app's comes between them. The first one that is not
//! stored anew holds back the rest: it failed, or the broker says that it holds it, which its memory
//! of ids may say of a message that it has lost; a later run knows.

use std::sync::Arc;

use farwrite_schemas::CommandId;
use tokio::time::Instant;

use super::{
    options::ReconcileOptions,
    plan::{JudgedEntry, KeyPlan, plan},
    port::Port,
};
use crate::{
    journal::{JournalHold, Keeping},
    outbox::{answer::Acknowledgement, publish_error::PublishError},
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

impl Port<'_> {
    /// Sends the lost commands of one key again.
    pub(super) async fn send_lost(
        &self,
        journal: &Arc<Keeping>,
        items: &[JudgedEntry],
        options: &ReconcileOptions,
    ) -> SentAgain {
        let KeyPlan { send, overtaken, left, held_back } = plan(items, options.overtaken);
        let mut result = SentAgain { overtaken, left, held_back, ..SentAgain::default() };
        let Some(first) = send.first() else { return result };
        let turn = match self.turn(first, Instant::now() + options.timeout).await {
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
            let Some(kept) = JournalHold::claim(journal, message.id) else {
                result.held_back += 1 + behind;
                return result;
            };
            let deadline = Instant::now() + options.timeout;
            match self.send_again(message, kept, turn.as_ref(), deadline).await {
                Ok(Acknowledgement { duplicate: false, .. }) => result.sent.push(message.id),
                Ok(Acknowledgement { duplicate: true, .. }) => {
                    result.duplicates.push(message.id);
                    result.held_back += behind;
                    return result;
                }
                Err(error) => {
                    result.unsent = Some(error);
                    result.held_back += behind;
                    return result;
                }
            }
        }
        result
    }
}
