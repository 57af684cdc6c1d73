//! The guarantees, end to end: real servers, the real worker program, no mocks.
//!
//! One stack of servers is shared; each test has a database and a stream of its own, so that they
//! run in parallel. What a test waits for it waits for by asking, with a deadline that only a
//! broken product reaches.

mod atomic;
mod balanced;
mod blame;
mod broker;
mod cluster;
mod companions;
mod confirmed;
mod crash;
mod dead_letters;
mod exactly_once;
mod failure;
mod handlers;
mod hints;
mod history;
mod hopping;
mod identity;
mod known_ids;
mod lost_tail;
mod memory;
mod operations;
mod parking;
mod poison;
mod random;
mod reachability;
mod refusal;
mod regions;
mod rows;
mod schema;
mod sessions;
mod sqlstates;
mod status;
mod stream_health;
mod support;
mod takeover;
mod timelines;
mod trimming;
mod unreadable;
mod verdicts;
mod visible;
