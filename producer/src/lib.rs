//! Write from any region, read your own writes: what an app links.
//!
//! A producer publishes idempotent commands from its own region, learns how they ended at the
//! primary, and reads what it wrote on the replica next door. It has three verbs; each one promises
//! what the one before it promises, and waits longer.
//!
//! | verb | answers when | promise |
//! |---|---|---|
//! | [`publish`](Producer::publish) | the stream has stored it | [`Accepted`]: it will be applied, or its failure recorded; the app may go away |
//! | [`submit`](Producer::submit) | the primary has committed it | [`Committed`]: the command's output, or its rejection, and a bookmark |
//! | [`write`](Producer::write) | this region's replica has replayed it | [`Visible`]: read it here, now |
//!
//! ```no_run
//! # use std::borrow::Cow;
//! # use farwrite_producer::{Command, Producer};
//! # #[derive(serde::Serialize)]
//! # struct PlaceOrder { customer: String, article: String }
//! impl Command for PlaceOrder {
//!     const NAME: &'static str = "order.place";
//!     type Output = i64;
//!     fn key(&self) -> Option<Cow<'_, str>> { Some(self.customer.as_str().into()) }
//! }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let producer = Producer::from_env().await?;
//! let order = PlaceOrder { customer: "alice".into(), article: "lamp".into() };
//! let placed = producer.write(&order).await?;
//! let article: String = sqlx::query_scalar("SELECT article FROM orders WHERE id = $1")
//!     .bind(placed.output).fetch_one(producer.reads()?).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where to go next
//!
//! - **Setting up**: [`Producer::builder`] by hand, or [`Producer::from_env`]; [`ReadsFrom`] says
//!   where this region reads, [`Limits`] how much is held and how long is tried.
//! - **Calling**: [`Command`] is a command with a type, [`RawCommand`] one without;
//!   [`Producer::call`] begins a [`Call`] with an id, a timeout, an expiry, a delay or regions.
//! - **Reading**: a [`Bookmark`] names what was written; [`Producer::wait`] waits for it,
//!   [`Producer::read_at`] finds a pool that shows it, and [`web`] carries it between requests.
//! - **Asking**: [`Producer::outcome`] tells how a command ended, by its id; [`Producer::lag`] how
//!   far the worker is behind.
//! - **A stream that may lose**: a [`Journal`] keeps what was sent, and [`Producer::reconcile`] sends
//!   again what was lost.
//!
//! # What holds
//!
//! - **A command is its id.** Every attempt carries it, and so may every later try of the app's
//!   ([`Call::id`]): the effect is one. The stream and the ledger are authoritative; a producer
//!   keeps nothing that a crash could lose, except order (below).
//! - **Errors say what is known**: [`Known`] for a publish; where the command is, for a submit; the
//!   output and the bookmark, for a write whose replica is late. An error's text names its cause, so
//!   that `source` has nothing to add.
//! - **Order per key, in the order of the calls.** A key has one unacknowledged publish; many keys
//!   are in flight. A publish whose result is unknown when its time is up blocks its key in this
//!   producer: the next call of the key sends it again first. The promise is order among
//!   acknowledged predecessors; a call that the app dropped is none, and neither is one of another
//!   process.
//! - **Every call has a time.** A method `x` has the default timeout ([`Limits::timeout`]), a method
//!   `x_within` one of its own. A time that is up takes away nothing that is known.
//! - **Dropping a call leaves nothing behind**: see [`Producer::pending`]. The command may be on
//!   its way all the same; its id knows.
//! - **Everything is bounded**: [`Limits`], [`JournalLimits`].
//!
//! The client of NATS and the driver of PostgreSQL are part of this interface; they are
//! [`async_nats`] and [`sqlx`] here, in the versions that it is made with.
//!
//! # Not here
//!
//! A builder of atomic batches: they are called by name, with [`Producer::call_raw`].

mod asking;
mod backoff;
mod build_error;
mod builder;
mod call;
#[cfg(feature = "fly")]
mod fly;
mod journal;
mod limits;
mod link;
mod metrics;
mod outbox;
mod pending;
mod producer;
mod questions;
mod raw_command;
mod reading;
mod reads;
mod reads_from;
mod reconcile;
mod region;
mod signed;
mod submit;
mod submit_error;
#[cfg(feature = "web")]
pub mod web;
mod write;

pub use async_nats;
pub use sqlx;

pub use build_error::BuildError;
pub use builder::Builder;
pub use call::Call;
pub use farwrite_lsn_watcher::{Doubt, GoneReason, Reached, WaitError, WaitReport, Watcher};
pub use farwrite_schemas::{
    Bookmark, CONTEXT_MAX_BYTES, Command, CommandId, CommandName, DatabaseName, DeadLetter, Key,
    KeyError, Lag, LastError, LedgerRecord, Lsn, NameError, NotEnded, Origin, Outcome,
    OutcomeAnswer, ParkedCommand, Rejection, Reply,
};
pub use journal::{FileSync, Journal, JournalError, JournalLimits, JournalState};
pub use limits::{LimitError, Limits, TIMEOUT_MAX};
pub use outbox::accepted::Accepted;
pub use outbox::gather::Gather;
pub use outbox::invalid::InvalidCommand;
pub use outbox::publish_error::{Known, PublishError, SizeLimit, WaitingFor};
pub use producer::{Pending, Producer};
pub use questions::lag::LagError;
pub use questions::last_heard::LastHeard;
pub use questions::ledger::OutputError;
pub use questions::outcome::OutcomeError;
pub use raw_command::RawCommand;
pub use reads::elsewhere::{ElsewhereError, MissingRegion};
pub use reads::read_at::{ReadAt, ReadAtError};
pub use reads::role::{NoReads, ServerRole};
pub use reads::wait::BookmarkError;
pub use reads_from::{ReadsFrom, ReplicaReads};
pub use reconcile::{Overtaken, ReconcileError, ReconcileOptions, ReconcileReport, WhyUnknown};
pub use region::Region;
pub use signed::{BookmarkKey, KeyTooShort, SignedError};
pub use submit::Committed;
pub use submit_error::{RawOutput, SubmitError};
pub use write::{Visible, WriteError};
