//! The loop that asks a server how far it has come, and the replica as such a server.

mod allowance;
mod audience;
mod intervals;
mod poll_loop;
mod primary;
mod replica;
mod server;

pub(crate) use audience::{Audience, Demand};
pub use intervals::PollIntervals;
pub(crate) use poll_loop::PollLoop;
pub(crate) use replica::Replica;
pub(crate) use server::{HistoryAnswer, ServerReport};
