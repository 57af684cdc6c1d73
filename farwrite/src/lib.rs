//! Writes from any region to one PostgreSQL primary, through NATS JetStream, and tells when the
//! replica next door shows them. An app publishes idempotent **commands**; one worker beside the
//! primary applies each exactly once, in order per key.
//!
//! | verb | answers when | promise |
//! |---|---|---|
//! | [`publish`](Call::publish) | the stream has stored it | [`Accepted`]: it will be applied, or its failure recorded; the app may go away |
//! | [`submit`](Call::submit) | the primary has committed it | [`Committed`]: the command's output, or its rejection, and a bookmark |
//! | [`write`](Call::write) | this region's replica has replayed it | [`Visible`]: read it here, now |
//!
//! ```no_run
//! use farwrite::{Command, Producer, sqlx};
//!
//! #[derive(serde::Serialize)]
//! struct PlaceOrder { article: String }
//!
//! impl Command for PlaceOrder {
//!     const NAME: &'static str = "order.place";
//!     type Output = i64;
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let producer = Producer::from_env().await?;
//! let placed = producer.write(&PlaceOrder { article: "lamp".into() }).await?;
//! let article: String = sqlx::query_scalar("SELECT article FROM orders WHERE id = $1")
//!     .bind(placed.output)
//!     .fetch_one(producer.reads()?)
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! At the primary `order.place` is a function of the database, in any language, or a handler in
//! Rust.
//!
//! # Where to go next
//!
//! | for | see |
//! |---|---|
//! | what an app does: settings, keys, times, outcomes, errors | [`Producer`], [`Call`], [`Builder`] |
//! | bookmarks: reading a write in another request, another region | [`Bookmark`], [`Producer::read_at`], `web` |
//! | a worker program with handlers in Rust | `worker` and `cli::main` |
//! | a watcher without a producer | `watcher` |
//! | the program: `farwrite worker`, `farwrite watcher`, `farwrite status` | `farwrite --help` |
//!
//! # Features
//!
//! | feature | what it brings |
//! |---|---|
//! | `producer` (default) | everything that an app needs, at the top of this crate |
//! | `web` | the module `web`: a layer for axum and other tower services that carries bookmarks |
//! | `fly` | the URL of a replica on Fly, made of the primary's |
//! | `worker` | the module `worker`: the worker beside the primary |
//! | `watcher` | the module `watcher`: what a replica has replayed |
//! | `program` | the module `cli`: the command line of `farwrite` and of workers with handlers |
//!
//! Types of [`async_nats`] and [`sqlx`] appear in this API; both are re-exported.

pub use async_nats;
pub use sqlx;

#[cfg(feature = "program")]
pub mod cli;

#[cfg(feature = "watcher")]
#[doc(inline)]
pub use farwrite_lsn_watcher as watcher;
#[cfg(feature = "worker")]
#[doc(inline)]
pub use farwrite_primary_worker as worker;
#[cfg(feature = "producer")]
#[doc(inline)]
pub use farwrite_producer::*;
