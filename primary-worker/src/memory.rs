//! The worker's memory for commands and answers: one budget in bytes, divided into shares.
//!
//! Every holder has a share of its own. So a holder that stands still takes no room from another, and
//! none waits for another:
//!
//! | share | holder |
//! |---|---|
//! | a quarter, evenly by lanes | a lane: what waits in its queue, and the batch of it in its hands |
//! | a quarter, evenly by lanes | a lane: the parked commands that it tries again |
//! | an eighth | the common reader: what it has pulled, and nobody has taken yet |
//! | an eighth, evenly by lanes | the readers of skipped lanes, the same |
//! | an eighth | answers on their way to NATS |
//! | an eighth | answers that wait for required standbys |
//!
//! A lane and a reader hold one message at least, however small their shares are. What a batch needs while it
//! is applied (its statement, and what PostgreSQL says) is a few times the bytes of its commands.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics;

/// What a message takes beside its headers and its body: its subject, and the one that acknowledges it.
const MESSAGE_OVERHEAD: usize = 8 << 10;
/// Answers up to so many bytes are not counted: the client and the queue of answers that wait hold a bounded
/// number of them.
const SMALL: usize = 1 << 10;
/// Two pulls may be under way at once: the client asks for more before the first is used up.
const PULLS: usize = 2;

/// The rooms of one takeover.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    /// By number.
    lanes: Arc<[Room]>,
    /// Bytes of parked commands that a lane reads at once, or one command.
    pub(crate) due: usize,
    /// Bytes of one pull of the common reader, and of the reader of a skipped lane.
    pub(crate) pull: usize,
    pub(crate) own_pull: usize,
    /// Answers on their way.
    pub(crate) answers: Room,
    /// Answers that wait for required standbys.
    pub(crate) unconfirmed: Room,
}

impl Memory {
    /// Divides `total` bytes, where a message takes at most `message_max` bytes.
    pub(crate) fn of(total: usize, lanes: u32, message_max: usize) -> Self {
        let (count, eighth) = (lanes.max(1) as usize, total / 8);
        let one = message_max.saturating_add(MESSAGE_OVERHEAD);
        let lanes = (0..count).map(|_| Room::of(total / 4 / count)).collect();
        Self {
            lanes,
            due: total / 4 / count,
            pull: one.max(eighth / PULLS),
            own_pull: one.max(eighth / PULLS / count),
            answers: Room::of(eighth),
            unconfirmed: Room::of(eighth),
        }
    }

    /// A lane's room.
    pub(crate) fn lane(&self, number: usize) -> Room {
        self.lanes.get(number).cloned().unwrap_or_else(|| Room::of(MESSAGE_OVERHEAD))
    }

    /// Tells how much is held.
    pub(crate) fn report(&self) {
        metrics::held_bytes("lanes", self.lanes.iter().map(Room::held).sum());
        metrics::held_bytes("answers", self.answers.held());
        metrics::held_bytes("unconfirmed", self.unconfirmed.held());
    }
}

/// So many bytes, shared by those who hold some of it.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    free: Arc<Semaphore>,
    bytes: u32,
}

/// A payload, and the room that it takes until the last of its readers has dropped it.
struct HeldPayload {
    payload: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for HeldPayload {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

impl Room {
    pub(crate) fn of(bytes: usize) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        Self { free: Arc::new(Semaphore::new(bytes as usize)), bytes }
    }

    /// All of it at most: whoever needs more has it alone.
    fn clamp(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes)
    }

    /// Waits for room.
    pub(crate) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).acquire_many_owned(self.clamp(bytes)).await.ok()
    }

    /// Room, where there is some now.
    pub(crate) fn take_now(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_many_owned(self.clamp(bytes)).ok()
    }

    /// A payload that holds its room until it has left; `None` where there is none now.
    pub(crate) fn hold(&self, payload: Vec<u8>) -> Option<Bytes> {
        if payload.len() <= SMALL {
            return Some(payload.into());
        }
        let _room = self.take_now(payload.len())?;
        Some(Bytes::from_owner(HeldPayload { payload, _room }))
    }

    fn held(&self) -> usize {
        (self.bytes as usize).saturating_sub(self.free.available_permits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_no_more_than_the_budget_unless_a_message_needs_it() {
        let memory = Memory::of(128 << 20, 8, 1 << 20);
        let own = memory.own_pull - MESSAGE_OVERHEAD;
        let lanes: usize = memory.lanes.iter().map(|room| room.bytes as usize).sum();
        let answers = memory.answers.bytes + memory.unconfirmed.bytes;
        let held = lanes + 8 * memory.due + PULLS * (memory.pull + 8 * own) + answers as usize;
        assert_eq!((memory.pull, own, held), (8 << 20, 1 << 20, 128 << 20));
        let small = Memory::of(1 << 20, 64, 1 << 20);
        assert_eq!((small.pull, small.own_pull), (small.own_pull, small.pull), "one message each");
    }

    #[tokio::test]
    async fn a_payload_holds_its_room_until_the_last_of_its_readers_has_dropped_it() {
        let room = Room::of(10_000);
        let first = room.hold(vec![0; 8_000]).unwrap();
        assert_eq!(room.held(), 8_000);
        assert!(room.hold(vec![0; 8_000]).is_none(), "no room");
        assert!(room.hold(vec![0; SMALL]).is_some(), "small ones are not counted");
        let slice = first.slice(10..);
        drop(first);
        assert_eq!(room.held(), 8_000, "still read");
        drop(slice);
        assert_eq!(room.held(), 0);
        let more_than_all = room.take(20_000).await.unwrap();
        assert_eq!(more_than_all.num_permits(), 10_000, "alone");
    }
}
