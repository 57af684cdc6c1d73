//! The worker beside the primary: applies commands exactly once, in order per key.
//!
//! **Who is authoritative.** PostgreSQL, alone. How far each lane has come is a row, how each
//! command ended is a row, and both are written in the transaction of the effects. The stream is
//! read without acknowledgements from the position that those rows hold, so that a crash anywhere
//! leaves a batch done or undone, and nothing in between.
//!
//! **What a command goes through.** The `stream` reader decodes it and hands it to a lane by the
//! hash of its key. The `lane` applies what waits as one transaction (fence, look-up, run,
//! record), commits, and only then settles it: flush position, replies, counts. A failure is
//! narrowed down until a command failed alone, and then the `verdict` table says what is done.
//!
//! **What happens on failure.** The primary or NATS being away ends the takeover, not the worker:
//! it waits and takes over again; another worker's takeover makes it stand by. A stream that is not the one that the database
//! knows, and a handler that ended its transaction end the worker, each with a status of its own.

mod answers;
mod apply;
pub mod cli;
mod config;
pub mod failpoint;
mod keep;
mod lane;
mod life;
pub mod metrics;
mod operate;
mod primary;
mod stream;
mod trial;
mod verdict;

pub use apply::handler::{Handler, HandlerError, Handlers, HandlersError, Meta};
pub use config::{Config, ConfigError, NewStream};
pub use farwrite_internal::Health;
pub use life::migrate::{Checked, MigrateError, StreamFound, check, migrate};
pub use life::schema::FunctionsFound;
pub use life::worker::{Worker, WorkerError};
pub use primary::PrimaryError;
pub use stream::StreamError;
pub use trial::{Trial, TrialError, Tried};
pub use verdict::is_own_fault;
