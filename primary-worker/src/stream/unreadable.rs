//! Messages that the client cannot read.
//!
//! A publisher may store what it likes, and some of it no client of this library gets past: a subject
//! or headers that are not UTF-8 end the connection each time, and a header with a carriage return in it
//! ends the client itself, for good
//! ([nats.rs #1612](https://github.com/nats-io/nats.rs/pull/1612)). Neither says which message it was. So
//! they are looked for by sequence, through JetStream's API, which wraps messages up in JSON; and what was
//! found is kept in mind, so that it is never pulled again.
//!
//! ```text
//! the client ended ─▶ suspect what may have been pulled ─▶ next takeover, another client: look at each
//! connection ended twice at one place ─▶ look at the next ─▶ unreadable: kept in mind, handed on as no command
//! ```

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_nats::jetstream::Context;
use futures_util::{StreamExt, stream};
use tracing::warn;

use super::stored::{is_unreadable, stored};

/// Messages in one pull: what may wait in the client, beside the lanes' own queues.
pub(crate) const PULL_MAX_MESSAGES: usize = 1_000;
/// Messages that are looked at once the client has ended: twice what one pull asks for, since the next
/// one is sent before the last one is used up.
const SUSPECTS: u64 = 2 * PULL_MAX_MESSAGES as u64;
/// Of those, looked at together.
const TOGETHER: usize = 16;
/// Sequences that are kept in mind; beyond, the highest are forgotten, and found anew when they come.
const KEPT_MAX: usize = 65_536;

/// The messages that are known, or suspected, to be unreadable: of one worker, through all
/// of its connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unreadable(Arc<Mutex<UnreadableSequences>>);

#[derive(Debug, Default)]
struct UnreadableSequences {
    known: BTreeSet<u64>,
    /// From each of these on something may have ended the client.
    suspected: BTreeSet<u64>,
}

impl Unreadable {
    fn sequences(&self) -> MutexGuard<'_, UnreadableSequences> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first one that is known, from `next` on.
    pub(crate) fn first(&self, next: u64) -> Option<u64> {
        self.sequences().known.range(next..).next().copied()
    }

    /// A message cannot be read.
    pub(crate) fn know(&self, sequence: u64) {
        let mut sequences = self.sequences();
        sequences.known.insert(sequence);
        if sequences.known.len() > KEPT_MAX {
            sequences.known.pop_last();
        }
    }

    /// It can, or is gone.
    pub(crate) fn acquit(&self, sequence: u64) {
        self.sequences().known.remove(&sequence);
    }

    /// The client ended while it read from `next` on.
    pub(crate) fn suspect(&self, next: u64) {
        self.sequences().suspected.insert(next);
    }

    /// Looks at what is suspected, and keeps in mind what cannot be read.
    ///
    /// # Errors
    /// When JetStream does not answer: it is still suspected.
    pub(crate) async fn look(
        &self,
        context: &Context,
        stream: &str,
        last: u64,
    ) -> Result<(), String> {
        let suspected = self.sequences().suspected.clone();
        for from in suspected {
            let to = last.min(from.saturating_add(SUSPECTS));
            warn!(from, to, "the NATS client had ended: looking for what it cannot read");
            let looks = (from..=to)
                .map(|sequence| async move { (sequence, stored(context, stream, sequence).await) });
            let mut looks = stream::iter(looks).buffered(TOGETHER);
            while let Some((sequence, raw)) = looks.next().await {
                let is_unreadable = raw?.is_some_and(|raw| is_unreadable(&raw));
                if is_unreadable {
                    warn!(sequence, "a message that the NATS client cannot read");
                    self.know(sequence);
                }
                // Should the next one not be told, the search goes on there.
                let mut sequences = self.sequences();
                sequences.suspected.remove(&sequence);
                if sequence < to {
                    sequences.suspected.insert(sequence + 1);
                }
            }
            self.sequences().suspected.remove(&from);
        }
        Ok(())
    }

    /// Everything up to here is settled: no reader comes by again.
    pub(crate) fn settled(&self, sequence: u64) {
        let mut sequences = self.sequences();
        sequences.known = sequences.known.split_off(&sequence.saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_found_from_a_place_on() {
        let unreadable = Unreadable::default();
        assert_eq!(unreadable.first(0), None);
        [7, 3].into_iter().for_each(|sequence| unreadable.know(sequence));
        assert_eq!(
            [0, 3, 4, 8].map(|next| unreadable.first(next)),
            [Some(3), Some(3), Some(7), None]
        );
        unreadable.acquit(3);
        assert_eq!(unreadable.first(0), Some(7));
    }

    #[test]
    fn no_more_than_so_many_are_kept_in_mind() {
        let unreadable = Unreadable::default();
        let count = KEPT_MAX as u64 + 3;
        (1..=count).for_each(|sequence| unreadable.know(sequence));
        assert_eq!(unreadable.first(0), Some(1), "the next ones are needed first");
        unreadable.settled(3);
        assert_eq!(unreadable.first(0), Some(4));
        assert_eq!(unreadable.sequences().known.len(), KEPT_MAX - 3);
    }
}
