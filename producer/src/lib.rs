//! What an app links: it publishes idempotent commands from its own region, learns how they ended
//! at the primary, and reads its own writes from the replica next door.
//!
//! Three verbs, from the weakest promise to the strongest; a stronger one is a weaker one, awaited
//! further.
//!
//! | verb | answers when | promise |
//! |---|---|---|
//! | [`publish`](Call::publish) | the stream has stored it | [`Accepted`]: it will be applied, or its failure recorded; the app may go away |
//! | [`submit`](Call::submit) | the primary has committed it | [`Committed`]: the command's output, or its rejection, and a bookmark |
//! | [`write`](Call::write) | this region's replica has replayed it | [`Visible`]: read it here, now |
//!
//! ```no_run
//! use std::borrow::Cow;
//!
//! use farwrite_producer::{Command, Producer};
//! use serde::Serialize;
//!
//! #[derive(Serialize)]
//! struct PlaceOrder { customer: String, article: String }
//!
//! impl Command for PlaceOrder {
//!     const NAME: &'static str = "order.place";
//!     type Output = i64;
//!     fn key(&self) -> Option<Cow<'_, str>> {
//!         Some(self.customer.as_str().into())
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let producer = Producer::from_env().await?;
//! let order = PlaceOrder { customer: "alice".into(), article: "lamp".into() };
//! let placed = producer.write(&order).await?;
//! let article: String = sqlx::query_scalar("SELECT article FROM orders WHERE id = $1")
//!     .bind(placed.output)
//!     .fetch_one(producer.reads()?)
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//!
//! - **A command is its id.** Every attempt carries it, and so may every later try of the app's
//!   ([`Call::id`]): the effect is one. The stream and the ledger are authoritative; a producer
//!   keeps nothing that a crash could lose, except order (below).
//! - **Errors say what is known**: [`Known`] for a publish; where the command is, for a submit; the
//!   output and the bookmark, for a write whose replica is late. None of them forgets anything.
//! - **Order per key, in the order of the calls.** A key has one unacknowledged publish; many keys
//!   are in flight. A publish whose result is unknown when its time is up blocks its key in this
//!   producer: the next call of the key sends it again first. The promise is order among
//!   acknowledged predecessors; a call that the app dropped is none, and neither is one of another
//!   process.
//! - **A command may wait or lapse**: [`Call::delay`], [`Call::expires_in`]. The database's clock
//!   decides.
//! - **An outcome can be asked for later**, by its id: [`Producer::outcome`], from the worker, and
//!   where none answers from the database that this producer reads.
//! - **Dropping a call leaves nothing behind**: see [`Producer::pending`]. The command may be on
//!   its way all the same; its id knows.
//! - **What a stream acknowledged and lost is found out**, where there is a [`Journal`]:
//!   [`Producer::reconcile`] sends it again, with its ids.
//! - **Everything is bounded**: [`Limits`], [`JournalLimits`].
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
mod reading;
mod reads;
mod reconcile;
mod region;
mod signed;
mod submit;
mod submit_error;
#[cfg(feature = "web")]
pub mod web;
mod write;

pub use build_error::BuildError;
pub use builder::Builder;
pub use call::{Call, RawCommand};
pub use farwrite_lsn_watcher::{Doubt, GoneReason, Reached, WaitError, WaitReport, Watcher};
pub use farwrite_schemas::{
    Bookmark, CONTEXT_MAX_BYTES, Command, CommandId, CommandName, DatabaseName, DeadLetter, Key,
    KeyError, Lag, LastError, LedgerRecord, Lsn, NameError, NotEnded, Origin, Outcome,
    OutcomeAnswer, ParkedCommand, Rejection, Reply,
};
pub use journal::{FileSync, Journal, JournalError, JournalLimits, JournalState};
pub use limits::{LimitError, Limits, TIMEOUT_MAX};
pub use outbox::accepted::Accepted;
pub use outbox::invalid::InvalidCommand;
pub use outbox::pace::Gather;
pub use outbox::publish_error::{Known, PublishError, SizeLimit, WaitingFor};
pub use producer::{Pending, Producer};
pub use questions::lag::LagError;
pub use questions::last_heard::LastHeard;
pub use questions::ledger::OutputError;
pub use questions::outcome::OutcomeError;
pub use reads::elsewhere::{ElsewhereError, MissingRegion};
pub use reads::from::{NoReads, ReadFrom};
pub use reads::read_at::{ReadAt, ReadAtError};
pub use reads::wait::BookmarkError;
pub use reconcile::{Overtaken, ReconcileError, ReconcileOptions, ReconcileReport, WhyUnknown};
pub use region::Region;
pub use signed::{BookmarkKey, KeyTooShort, SignedError};
pub use submit::Committed;
pub use submit_error::{RawOutput, SubmitError};
pub use write::{Visible, WriteError};
