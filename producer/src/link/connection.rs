//! The connection to NATS, and what the server says on it outside of any answer.
//!
//! A publish that is not permitted gets no answer at all, only an event on the connection. The
//! builder's connections have a callback for it that fails the waiting publishes at once; a client
//! that the app brings has none, and there such a publish ends as timed out.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, ConnectOptions, Event, ServerAddr, ServerError};
use farwrite_schemas::{NatsCredentials, NatsServers};

use crate::link::{inbox::Inbox, routes::Routes};

/// How to reach NATS.
pub(crate) enum NatsSource {
    /// A connection of the producer's own.
    Connect { servers: Vec<ServerAddr>, options: Box<ConnectOptions> },
    /// A connection that the app brings.
    Client(Client),
}

/// How often NATS is asked whether it is there. Two questions without an answer end the connection: one that a
/// firewall forgot is noticed within 15 s. The client's own interval is a minute.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// The options of a connection for which the app chose none.
pub(crate) fn default_options() -> ConnectOptions {
    ConnectOptions::new().ping_interval(PING_INTERVAL)
}

impl NatsSource {
    /// Reads one URL or several joined by commas, with their credentials.
    pub(crate) fn at(url: &str, options: ConnectOptions) -> std::io::Result<Self> {
        let NatsServers { urls, credentials } = NatsServers::parse(url);
        let servers = urls.iter().map(|url| url.parse()).collect::<Result<Vec<ServerAddr>, _>>()?;
        let options = Box::new(match credentials {
            Some(NatsCredentials::Password { user, password }) => {
                options.user_and_password(user, password)
            }
            Some(NatsCredentials::Token(token)) => options.token(token),
            None => options,
        });
        Ok(Self::Connect { servers, options })
    }

    /// Connects, listening for what the server refuses.
    pub(crate) async fn connect(
        self,
        inbox: &str,
        routes: &Arc<Routes>,
    ) -> Result<Client, async_nats::ConnectError> {
        let (servers, options) = match self {
            Self::Client(client) => return Ok(client),
            Self::Connect { servers, options } => (servers, *options),
        };
        let wildcard: Arc<str> = Inbox::wildcard(inbox).into();
        let routes = Arc::clone(routes);
        let options = options.event_callback(move |event| {
            notice(&event, &wildcard, &routes);
            std::future::ready(())
        });
        options.connect(servers).await
    }
}

/// Takes note of an event. An event that cannot be tied to a call is only logged.
fn notice(event: &Event, inbox: &str, routes: &Routes) {
    match event {
        Event::Connected => routes.reconnected(),
        Event::ServerError(ServerError::Other(text)) => match read_violation(text) {
            Some(PermissionViolation::Publish(subject)) => routes.deny(subject),
            Some(PermissionViolation::Subscription(subject)) if subject == inbox => routes.deafen(),
            Some(PermissionViolation::Subscription(_)) | None => {
                tracing::warn!(error = text.as_str(), "NATS reports an error");
            }
        },
        Event::Disconnected
        | Event::LameDuckMode
        | Event::Draining
        | Event::Closed
        | Event::SlowConsumer(_)
        | Event::ServerError(_)
        | Event::ClientError(_) => tracing::warn!(%event, "NATS connection"),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum PermissionViolation<'a> {
    Publish(&'a str),
    Subscription(&'a str),
}

/// Reads `Permissions Violation for Publish to "<subject>"`, the server's words since its first
/// version; they are compared without case, as the client itself does.
fn read_violation(text: &str) -> Option<PermissionViolation<'_>> {
    let after = |words: &str| {
        let head = text.get(..words.len())?;
        let rest = text.get(words.len()..)?;
        head.eq_ignore_ascii_case(words).then(|| rest.split('"').next())?
    };
    after("Permissions Violation for Publish to \"").map(PermissionViolation::Publish).or_else(
        || {
            after("Permissions Violation for Subscription to \"")
                .map(PermissionViolation::Subscription)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_servers_are_joined_by_commas() {
        let servers = |url| match NatsSource::at(url, ConnectOptions::new()) {
            Ok(NatsSource::Connect { servers, .. }) => servers.len(),
            Ok(NatsSource::Client(_)) | Err(_) => 0,
        };
        assert_eq!(servers("nats://a:b@one:4222, nats://two"), 2);
        assert_eq!(servers("localhost"), 1);
        assert_eq!(servers("http://one"), 0);
    }

    #[test]
    fn a_violation_names_its_subject() {
        let publish = "Permissions Violation for Publish to \"farwrite.shop.cmd.jfk.order.place\"";
        let subject = "farwrite.shop.cmd.jfk.order.place";
        assert_eq!(read_violation(publish), Some(PermissionViolation::Publish(subject)));
        let lower = publish.to_lowercase();
        assert_eq!(read_violation(&lower), Some(PermissionViolation::Publish(subject)));
        let listen = "Permissions Violation for Subscription to \"a.*\" using queue \"q\"";
        assert_eq!(read_violation(listen), Some(PermissionViolation::Subscription("a.*")));
        for text in ["", "Stale Connection", "Permissions Violation for Publish to \u{e9}"] {
            assert_eq!(read_violation(text), None, "{text:?}");
        }
    }
}
