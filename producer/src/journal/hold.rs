//! One publish's hold on its journal entry: what the outbox knows of the journal.
//!
//! A hold is a guard, because a publish may be dropped anywhere. Dropped without a word, it says that
//! nothing was sent.

use std::sync::Arc;

use farwrite_schemas::CommandId;

use super::{book::StoredAt, clock::now_ms, journal_error::Unjournaled, keeping::Keeping};
use crate::outbox::message::Message;

/// A publish that is under way, of a command that is in the journal.
#[derive(Debug)]
#[must_use = "dropping it says that nothing was sent"]
pub(crate) struct JournalHold {
    journal: Arc<Keeping>,
    id: CommandId,
    maybe_stored: bool,
}

impl JournalHold {
    /// Writes down a command that is about to be sent, and returns when it is written.
    pub(crate) async fn enter(
        journal: &Arc<Keeping>,
        message: &Arc<Message>,
    ) -> Result<Self, Unjournaled> {
        let number = journal.note(message)?;
        let hold = Self::new(journal, message.id);
        journal.written(number).await?;
        Ok(hold)
    }

    /// Begins another publish of an entry; `None` where it is gone or under way.
    pub(crate) fn claim(journal: &Arc<Keeping>, id: CommandId) -> Option<Self> {
        journal.claim(id).then(|| Self::new(journal, id))
    }

    fn new(journal: &Arc<Keeping>, id: CommandId) -> Self {
        Self { journal: Arc::clone(journal), id, maybe_stored: false }
    }

    /// The stream acknowledged it.
    pub(crate) fn stored(mut self, stream: &str, sequence: u64) {
        self.maybe_stored = true;
        let stored = StoredAt { at_ms: now_ms(), stream: stream.to_owned(), sequence };
        self.journal.stored(self.id, stored);
    }

    /// It was sent, and may be stored.
    pub(crate) fn in_doubt(mut self) {
        self.maybe_stored = true;
    }
}

impl Drop for JournalHold {
    fn drop(&mut self) {
        self.journal.leave(self.id, self.maybe_stored);
    }
}
