//! What reading takes place between: a verified stream, and who takes its messages.

use async_nats::jetstream::{self, Context};

use super::{
    delivery::Delivery, identity::Identity, position::StreamPosition, unreadable::Unreadable,
};

/// Takes what the reader reads.
pub(crate) trait Sink {
    /// Takes a message; waits while there is no room for it. False when nobody takes any more.
    async fn take(&mut self, delivery: Delivery) -> bool;
    /// Is told how many messages of the stream are still to come.
    fn remaining(&mut self, messages: u64);
    /// Is told why the stream cannot be read, or that it can be again.
    fn reading(&mut self, trouble: Option<&str>);
    /// The highest position that anybody of this takeover has read, or that a lane has passed.
    fn highest(&self) -> StreamPosition;
}

/// A stream that was verified, to be read from.
#[derive(Clone)]
pub(crate) struct Verified {
    pub(crate) context: Context,
    pub(crate) stream: jetstream::stream::Stream,
    pub(crate) identity: Identity,
    pub(crate) unreadable: Unreadable,
}
