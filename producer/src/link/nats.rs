//! The link of one producer to NATS: its client, its inbox and the table of who waits for what.
//!
//! Whether a message can be sent and answered at this moment is known here, and how long an answer
//! may take. The last holder of a link takes its inbox down.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, connection::State};

use crate::link::{inbox::Inbox, routes::Routes};

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

    /// Whether the server has refused us our inbox, so that no answer can come.
    pub(crate) fn is_deaf(&self) -> bool {
        self.routes.is_deaf()
    }
}
