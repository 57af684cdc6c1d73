//! The NATS client: connecting it, and what it can tell of itself.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, jetstream::stream::Stream};
use farwrite_schemas::{NatsCredentials, NatsServers};
use futures_util::FutureExt;

use super::error::StreamError;

/// How long JetStream may take to answer a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// How often NATS is asked whether it is there. Two questions without an answer end the connection: one that a
/// firewall forgot is noticed within 15 s. The client's own interval is a minute.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// What a message must leave of the server's limit: room for headers that are put around it on
/// the way.
const HEADROOM_BYTES: usize = 1 << 10;

/// Connects to NATS; afterwards the client reconnects by itself, for ever.
pub(crate) async fn connect(url: &str) -> Result<Client, StreamError> {
    let servers = NatsServers::parse(url);
    let options = match servers.credentials.clone() {
        Some(NatsCredentials::Password { user, password }) => {
            ConnectOptions::with_user_and_password(user, password)
        }
        Some(NatsCredentials::Token(token)) => ConnectOptions::with_token(token),
        None => ConnectOptions::new(),
    };
    options
        .name("farwrite worker")
        // A request that comes while a cluster elects is dropped in silence; the client waits 10 s.
        .request_timeout(Some(REQUEST_TIMEOUT))
        .ping_interval(PING_INTERVAL)
        .event_callback(|event| async move { tracing::info!(%event, "NATS") })
        .connect(&servers.urls)
        .await
        .map_err(|error| StreamError::Connect {
            url: servers.to_string(),
            reason: error.to_string(),
        })
}

/// Whether a client has ended for good: then it takes no more commands. One that lives is made to
/// flush.
pub(crate) fn has_ended(client: &Client) -> bool {
    matches!(client.flush().now_or_never(), Some(Err(_)))
}

/// Bytes of the longest message that the stream may hold, with its headers: what the stream takes, or the
/// server. A stream that an operator changed may hold what it took before.
pub(crate) fn stored_max_bytes(client: &Client, stream: &Stream) -> usize {
    let of_stream = usize::try_from(stream.cached_info().config.max_message_size).unwrap_or(0);
    client.max_payload().max(of_stream)
}

/// Longest message that the server takes, in bytes; an outcome that is longer goes without its
/// output.
pub(crate) fn message_max_bytes(client: &Client) -> usize {
    client.max_payload().saturating_sub(HEADROOM_BYTES)
}
