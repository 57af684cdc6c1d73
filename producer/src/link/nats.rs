//! The link of one producer to NATS: its client, its inbox and the table of who waits for what.
//!
//! Whether a message can be sent and answered at this moment is known here, and how long an answer
//! may take. The last holder of a link takes its inbox down.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_nats::{Client, connection::State};
use tokio::time::sleep;

use crate::link::{inbox::Inbox, routes::Routes};

/// How often it is looked whether the first connection is there: a part of what making one takes.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A client with an inbox.
#[derive(Debug)]
pub(crate) struct NatsLink {
    pub(crate) client: Client,
    pub(crate) inbox: Inbox,
    pub(crate) routes: Arc<Routes>,
    /// How long one answer may take: an acknowledgement's, a service's.
    pub(crate) ack_timeout: Duration,
}

impl NatsLink {
    /// Whether NATS is connected at this moment.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Returns when NATS has been connected for the first time. It looks again and again: of a
    /// client that the app brought nothing tells.
    pub(crate) async fn first_connected(&self) {
        if self.client.statistics().connects.load(Ordering::Relaxed) > 0 {
            return;
        }
        while !self.is_connected() {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Whether the server has refused us our inbox, so that no answer can come.
    pub(crate) fn is_deaf(&self) -> bool {
        self.routes.is_deaf()
    }
}
