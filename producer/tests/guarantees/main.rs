//! What a producer guarantees, against a real nats-server and, where it reads, a real replica.
//!
//! One stack for all tests; each has a database name of its own, and so its own subjects and its
//! own stream. The worker is a few lines here ([`stage::Worker`]): it reads the stream and answers
//! on the wire, as the contract says. The real one is tested end to end elsewhere.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where, by its panic")]

mod errors;
mod order;
mod outcomes;
mod program;
mod reads;
mod stage;
