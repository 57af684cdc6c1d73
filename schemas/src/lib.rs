//! The words that Farwrite's programs share, on the wire and in the database.
//!
//! This crate is only form: how a command, an id, a key, an LSN, a bookmark or an outcome is written
//! and read, and which subjects and headers carry them. Nothing here does I/O or links a driver. So
//! a producer, a worker and a watcher of different versions can be compared by this crate alone.
//! Every wire form has a fixture in `fixtures/`. The fixture stays there when the form changes: a
//! published message must be readable for as long as a stream keeps it.
//!
//! Errors can grow. Messages cannot without their writers: they are structures with public fields,
//! which every program of Farwrite builds, and a new member must be written in each of these places.
//!
//! The database's side is [`sql`]: the `farwrite` schema as SQL text, applied by
//! `farwrite worker migrate`.

mod atomic;
mod bookmark;
mod branch;
mod command;
mod envelope;
mod fingerprint;
pub mod headers;
mod id;
mod identity;
mod key;
mod lag;
mod lsn;
mod name;
mod nats_url;
mod outcome;
mod outcome_answer;
mod outcome_request;
mod progress;
mod record;
mod recorded;
mod reply;
mod reply_error;
mod reply_wire;
pub mod sql;
mod subject;
mod visibility;

pub use atomic::{ATOMIC_MAX_COMMANDS, ATOMIC_NAME, AtomicBody, AtomicCommand, AtomicError};
pub use bookmark::{BOOKMARK_MAX_BYTES, Bookmark, BookmarkFormatError, Epoch, Timeline};
pub use branch::{BRANCHES_QUERY, Branch, BranchKnown, BranchRow};
pub use command::Command;
pub use envelope::{
    BODY_MAX_BYTES, BODY_MAX_DEPTH, CONTEXT_MAX_BYTES, Envelope, EnvelopeError, HEADER_TIME_MAX_MS,
    decode_envelope,
};
pub use fingerprint::Fingerprint;
pub use id::{CommandId, CommandIdError};
pub use identity::{IDENTITY_QUERY, IdentityDigest};
pub use key::{KEY_MAX_BYTES, Key, KeyError};
pub use lag::Lag;
pub use lsn::{Lsn, LsnError};
pub use name::{CommandName, DatabaseName, NameError, Origin};
pub use nats_url::{NatsCredentials, NatsServers};
pub use outcome::{DeadLetter, Outcome, Rejection};
pub use outcome_answer::{NotEnded, OutcomeAnswer};
pub use outcome_request::OutcomeRequest;
pub use progress::{INTEREST_MAX_EPOCHS, Interest, ReplicaProgress, SERVER_START_QUERY};
pub use record::{LastError, LedgerRecord, ParkedCommand};
pub use recorded::{CommandStatus, OUTCOMES_QUERY, OutcomeRow, Recorded};
pub use reply::Reply;
pub use reply_error::ReplyError;
pub use subject::{CommandSubject, Subjects};
pub use visibility::{VisibilityAnswer, VisibilityRequest};
