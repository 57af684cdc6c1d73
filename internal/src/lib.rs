//! Plumbing that Farwrite's crates share. It is no part of their API and knows nothing of commands,
//! positions or bookmarks.
//!
//! | module | what |
//! |---|---|
//! | [`Alarm`] | a timer that is exact below a millisecond |
//! | [`Backoff`] | pauses between attempts: doubling, bounded, shortened at random |
//! | [`Chain`] | an error with its causes, on one line |
//! | [`Health`] | why a program is not ready |
//! | [`sabotage`] | guards that a build for tests leaves out |
//! | `program` (feature) | settings, the log, metrics and readiness over HTTP |
//!
//! The feature `program` brings clap, hyper and the subscriber of the log. Libraries do not enable
//! it.

mod alarm;
mod backoff;
mod chain;
mod health;
#[cfg(feature = "program")]
pub mod program;
pub mod sabotage;

pub use alarm::Alarm;
pub use backoff::{Backoff, shortened};
pub use chain::Chain;
pub use health::Health;
