//! The worker beside the primary: applies commands exactly once, in order per key.
//!
//! **Who is authoritative.** PostgreSQL, alone. How far each lane has come is a row, how each
//! command ended is a row, and both are written in the transaction of the effects. The stream is
//! read without acknowledgements from the position that those rows hold, so that a crash anywhere
//! leaves a batch done or undone, and nothing in between.
//!
//! **What a command goes through.** The reader in `stream` decodes it and hands it to a lane by the
//! hash of its key. The lane takes what waits (`lane`), and `apply` makes one transaction of it:
//! fence, look-up, run, record. Only after the commit does the lane settle it: flush position,
//! replies, counts. A failure is narrowed down until a command failed alone; then the table in
//! `verdict` says what is done.
//!
//! **What happens on failure.** The primary or NATS being away ends the takeover, not the worker:
//! it waits and takes over again. Another worker's takeover makes it stand by. A stream that is not
//! the one that the database knows, and a handler that ended its transaction, end the worker.
//!
//! | room | what |
//! |---|---|
//! | `life` | prepare, take over, serve, begin again |
//! | `stream` | the command stream: its contract, its identity, reading it |
//! | `lane` | one connection, one queue, one batch after another |
//! | `apply` | one batch as one transaction |
//! | `keep` | hints, trimming, heartbeats, answers that wait for standbys |
//! | `answers` | outcomes by id, and the lag |
//! | `store` | the tables, one module each |
//! | `operate` | what operators ask for and do |

mod answers;
mod apply;
pub mod config;
#[doc(hidden)]
pub mod failpoint;
mod keep;
mod lane;
mod life;
mod memory;
pub mod metrics;
pub mod operate;
mod primary;
mod store;
mod stream;
mod trial;
mod verdict;

pub use apply::handler::{Handler, HandlerError, Handlers, HandlersError, Meta};
pub use config::{Config, NewStream, SettingError};
pub use farwrite_internal::Health;
pub use life::adopt::{AdoptError, Adopted, Adoption, GoOnFrom, adopt_stream};
pub use life::adopt_database::{
    AdoptDatabaseError, AdoptedDatabase, DatabaseAdoption, adopt_database,
};
pub use life::migrate::{Checked, MigrateError, StreamFound, check, migrate};
pub use life::schema::FunctionsFound;
pub use life::{end::WorkerError, worker::Worker};
pub use primary::PrimaryError;
pub use stream::error::StreamError;
pub use trial::{Trial, TrialError, Tried};
#[doc(hidden)]
pub use verdict::is_own_fault;

/// Types of these stand in the API: handlers get a connection of `sqlx`, and a worker is stopped by a
/// token of `tokio_util`.
pub use {sqlx, tokio_util};
