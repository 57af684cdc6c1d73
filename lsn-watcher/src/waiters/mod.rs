//! Who waits, and what is known of the replica: the board, and a caller's wait on it.

mod board;
mod entry;
mod limits;
mod news;
mod state;
mod timed_wait;
mod wait;

pub(crate) use board::Board;
pub(crate) use limits::BoardLimits;
pub(crate) use timed_wait::TimedWait;
