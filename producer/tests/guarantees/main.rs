//! What a producer guarantees, against a real nats-server and, where it reads, a real replica.
//!
//! One stack for all tests; each has a database name of its own, and so its own subjects and its
//! own stream. Where a test must say what the other side does and when, the test plays the other
//! side, on the wire; where the database has to do something, the worker's real program works
//! ([`stage::Worker`], built by `cargo build --workspace --bins`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where, by its panic")]

mod bookmarks;
mod dropped;
mod errors;
mod gathered;
mod gathered_broker;
mod journal;
mod known;
mod lag;
mod large;
mod order;
mod outcomes;
mod program;
mod reads;
mod reconcile;
mod reconcile_lost;
mod stage;
mod terms;
mod web;
