//! Where an app reads, and what is visible there.
//!
//! The watcher says what a server shows; no connection of the pool may show less. Not here: what a
//! write waits for before it is committed.

pub(crate) mod elsewhere;
pub(crate) mod guard;
pub(crate) mod open;
pub(crate) mod patience;
pub(crate) mod position;
pub(crate) mod promise;
pub(crate) mod read_at;
pub(crate) mod role;
pub(crate) mod servers;
pub(crate) mod wait;
