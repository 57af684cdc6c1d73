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
//! - **One loop for everybody.** However many callers wait, the replica is asked by one loop on
//!   one connection, and only while somebody waits for what has not been reached.
//! - **A mark lives for one start of the server.** A replica that crashed can come back *behind*
//!   what it had shown, so the furthest position seen (the mark) is forgotten whenever the
//!   connection or the server's start changes, and a mark that is not fresh answers nobody. See
//!   [`mark`](self#the-mark) below.
//! - **Callers survive the replica.** It may restart, refuse or be cut off while they wait; the
//!   loop comes back by itself and they go on waiting until their own deadline. Only then do they
//!   learn whether the replica was slow ([`WaitError::TimedOut`]) or away
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
//! a commit that it does not hold. A bookmark names its branch, and `visible/judge.rs`, the one place that
//! decides, compares it with what the server says of its timeline and of its history. The user needs
//! `USAGE` on the schema `farwrite`, `SELECT` on its tables `history` and `owner`, and
//! `pg_read_all_stats`, without which a server does not tell its timeline and a position waits for
//! the worker's next heartbeat to prove it.

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
