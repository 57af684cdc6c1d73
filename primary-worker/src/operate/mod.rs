//! What operators ask for and do by hand: dead letters, parked commands, pauses, cancelling, how a
//! command ended, and how far the database has come. [`Operator`] has all of it as methods.
//!
//! **Who is authoritative.** The SQL functions of the schema do every act, in one transaction each,
//! and write it down in `farwrite.operations`. What is here chooses and reads. An act on many rows is
//! done in chunks, each a transaction of its own, in order of sequence. A program that is killed has
//! done a first part of the act; the act done again does the rest.
//!
//! **What happens on failure.** Nothing waits for ever: a lane that is busy is asked for again a
//! few times, then the act ends undone and says so. None of the acts is in the stream: a failover
//! that loses commits loses them too.
//!
//! **What is not here.** Flags and printing: they are in the crate `farwrite`.

mod body;
mod cancel;
mod chunks;
mod dead_letters;
mod error;
mod filter;
mod find;
mod limits;
mod operator;
mod parked;
mod pauses;
mod records;
mod requeue;
mod status;

pub use dead_letters::Letter;
pub use error::OperateError;
pub use filter::{Chosen, Filter, LIMIT_MAX};
pub use find::FoundCommand;
pub use operator::Operator;
pub use parked::{LastFailure, WaitingCommand};
pub use pauses::{Pause, PauseTarget};
pub use records::{OperatorRecord, RecordsPage};
pub use requeue::{LetterLeft, Requeued};
pub use status::{DatabaseStatus, OwnerStatus, SchemaStatus, StreamStatus, WaitingCount};
