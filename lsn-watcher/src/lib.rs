//! Says when a replica has replayed a position of the log, to everyone who waits for it.
//!
//! An app that wrote through Farwrite holds the position of its commit. It may read its own write
//! from the replica next door as soon as that replica has replayed the position, and this crate
//! tells it when: [`Watcher::wait`]. The replica itself is authoritative; what it said is believed for
//! a moment only.
//!
//! ```text
//!                 ┌── embedded: one task, one connection ──── replica
//!   callers → Board
//!                 └── over NATS: Interest → / ← Progress ──── `farwrite watcher run` ──── replica
//! ```
//!
//! - **One loop for all callers.** One loop on one connection asks the replica, and only while a
//!   caller waits for a position that has not been reached.
//! - **A mark lives for one start of the server.** A replica that crashed can come back *behind*
//!   what it had shown. So the furthest position seen (the mark) is forgotten when the connection or
//!   the server's start changes. A mark that is not fresh answers no caller. See
//!   [`mark`](self#the-mark) below.
//! - **Callers survive the replica.** The replica may restart, refuse or be cut off while callers
//!   wait. The loop comes back by itself, and each caller waits until its own deadline. Only then
//!   does a caller learn whether the replica was slow ([`WaitError::TimedOut`]) or away
//!   ([`WaitError::ReplicaGone`]).
//! - **A caller that gives up leaves.** Dropping a wait takes it off the board at once.
//!
//! | room | what is in it |
//! |---|---|
//! | `waiters` | who waits: the board, and a caller's wait on it |
//! | `visible` | when a position counts as visible |
//! | `poll` | the loop that asks a server, and the replica as that server |
//! | `over_nats` | the way through a region's watcher instead |
//! | `region` | one watcher for a region, and its service for other regions |
//! | `answer` | what a wait ends with |
//!
//! # The mark
//!
//! [`Reached`] carries the server's start time beside the position. A pool that reads afterwards
//! compares it with `pg_postmaster_start_time()` of the connection that it hands out: that closes
//! the last gap, a server that crashed and came back between the answer and the read.
//!
//! # Branches of history
//!
//! A position counts only on its own branch: after a failover a replica can be past the position of
//! a commit that it does not hold. A bookmark names its branch. `visible/judge.rs` alone decides: it
//! compares the branch with what the server says of its timeline and of its history.
//!
//! The user needs `USAGE` on the schema `farwrite`, `SELECT` on its tables `history` and `owner`, and
//! `pg_read_all_stats`. Without the last one a server does not tell its timeline, and a position
//! waits until the worker's next heartbeat proves it.

mod answer;
mod config_error;
mod embedded;
pub mod metrics;
mod over_nats;
mod poll;
mod region;
mod visible;
mod wait_target;
mod waiters;
mod watcher;

pub use answer::{Doubt, GoneReason, Reached, WaitError, WaitReport};
pub use config_error::WatcherConfigError;
pub use embedded::EmbeddedConfig;
pub use farwrite_internal::Health;
pub use over_nats::NatsConfig;
pub use poll::PollIntervals;
pub use region::{RegionConfig, RegionError, watch_region};
pub use wait_target::WaitTarget;
pub use watcher::Watcher;
