//! A waiter's entry on the board: in which queue it stands, and under which number.

use std::num::NonZeroU64;

/// What wakes a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitQueue {
    /// A bare position: the mark reaches it, or the server turns out not to be a replica.
    Bare,
    /// A position of a branch: the mark reaches it, or the server changes its timeline.
    Branch,
    /// In doubt: something is learnt of a branch, or the server changes its timeline.
    Doubt,
}

impl WaitQueue {
    pub(super) const ALL: [Self; 3] = [Self::Bare, Self::Branch, Self::Doubt];
}

/// Where a waiter's entry is: its number, and in the last two bits its queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoardEntry(NonZeroU64);

impl BoardEntry {
    /// The entry of the waiter with this number, counted from 1.
    pub(super) fn new(queue: WaitQueue, number: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add((number << 2 | queue as u64) - 1))
    }

    /// The number and the queue as one: a key that no other entry has.
    pub(super) fn key(self) -> u64 {
        self.0.get()
    }

    pub(crate) fn queue(self) -> WaitQueue {
        match self.0.get() & 3 {
            0 => WaitQueue::Bare,
            1 => WaitQueue::Branch,
            _ => WaitQueue::Doubt,
        }
    }
}
