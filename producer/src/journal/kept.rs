//! One publish's hold on its journal entry.
//!
//! A guard, because a publish may be dropped anywhere: whoever drops it without a word says that
//! nothing was sent.

use std::sync::Arc;

use farwrite_schemas::CommandId;

use super::{Keeping, Stored, now_ms};

/// A publish that is under way, of a command that is in the journal.
#[derive(Debug)]
#[must_use = "dropping it says that nothing was sent"]
pub(crate) struct Kept {
    journal: Arc<Keeping>,
    id: CommandId,
    maybe_stored: bool,
}

impl Kept {
    pub(super) fn new(journal: &Arc<Keeping>, id: CommandId) -> Self {
        Self { journal: Arc::clone(journal), id, maybe_stored: false }
    }

    /// The stream acknowledged it.
    pub(crate) fn stored(mut self, stream: &str, sequence: u64) {
        self.maybe_stored = true;
        let stored = Stored { at_ms: now_ms(), stream: stream.to_owned(), sequence };
        self.journal.stored(self.id, stored);
    }

    /// It was sent, and may be stored.
    pub(crate) fn in_doubt(mut self) {
        self.maybe_stored = true;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.journal.leave(self.id, self.maybe_stored);
    }
}
