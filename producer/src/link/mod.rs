//! The way to NATS: one connection, one inbox, and who waits for which message of it.
//!
//! Everything that comes back to a producer comes to its inbox. What was sent and why is not known
//! here: see `outbox` and `questions`.

pub(crate) mod connection;
pub(crate) mod inbox;
pub(crate) mod nats;
pub(crate) mod question;
pub(crate) mod routes;
