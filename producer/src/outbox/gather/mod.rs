//! Publishes that wait for each other, so as to leave together as one atomic batch of JetStream's.
//!
//! The queue says who waits, the rule when a batch leaves, and the batch how it is sent and answered.
//! What a batch does not settle goes on alone.

mod batch;
mod queue;
mod rule;

pub(crate) use queue::{Departure, Gatherer, WaitEnd};
pub use rule::Gather;
