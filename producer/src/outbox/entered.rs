//! A call that has entered: it is counted, has its place in its key's order, and its time runs.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    outbox::{message::Message, turns::KeyTurn},
    pending::PendingCall,
};

/// A call that has entered. Dropping it takes it out.
#[derive(Debug)]
pub(crate) struct EnteredCall {
    pub(crate) message: Arc<Message>,
    pub(crate) turn: Option<KeyTurn>,
    pub(crate) began: Instant,
    pub(crate) deadline: Instant,
    pub(super) _call: PendingCall,
}
