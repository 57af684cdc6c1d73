//! Finding out what the stream lost, and sending it again.
//!
//! ```text
//! list ─▶ ask the lag ─▶ ask for the outcomes ─▶ judge ─▶ forget what has ended
//!                                                  └────▶ send again what is lost, a key in its order
//! ```
//!
//! **The ledger is authoritative**, and makes an error harmless: an id that it holds has no second
//! effect. So nothing is asked of the stream, and a region's credentials need no further rights: a
//! command is lost when the worker has passed the time at which it was stored, and then, asked
//! afterwards, knows nothing of it. What the stream holds all the same is dropped as a duplicate, by
//! the stream or by the ledger. An entry stays until its outcome is known, however often it is
//! sent again.
//!
//! **Nothing is concluded from silence**: while the worker is away, what the replica does not show
//! as ended is unknown, and stays.

mod judge;
mod options;
mod plan;
mod port;
mod report;
mod resend;
mod run;

pub use options::{Overtaken, ReconcileError, ReconcileOptions};
pub use report::{ReconcileReport, WhyUnknown};
