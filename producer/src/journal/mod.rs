//! The journal: what this producer sent and does not yet know the outcome of.
//!
//! JetStream acknowledges a publish and may lose it all the same: a server that syncs every two
//! minutes and loses its power, a stream that is put back from an older copy. The stream cannot say
//! what it lost; whoever sent it can. So every command is written down before it goes out, with all
//! that is needed to publish the same message again, and forgotten when its outcome is known. What
//! lies between is looked after by [`Producer::reconcile`](crate::Producer::reconcile).
//!
//! ```text
//! publish ─▶ sent ─▶ stored (acknowledged) ─▶ gone: the outcome was heard
//!              │        ▲                        ▲
//!              │        └── sent again ──────────┤
//!              └─ not accepted, for certain ─────┘
//! ```
//!
//! The ledger is authoritative, and the journal only a reminder to ask it: an entry too many costs a
//! question, never a second effect. So only the entry itself is waited for, before the publish;
//! that it was acknowledged, or is gone, is written behind.
//!
//! The entries ([`book`]) are in memory in both forms. The file ([`writer`], [`record`]) is read when
//! it is opened, and otherwise only written. Not here: asking and sending again (`reconcile`).

mod book;
mod clock;
mod file;
mod hold;
mod journal_error;
mod journal_state;
mod keeping;
mod open_book;
mod record;
mod recovery;
mod settings;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use book::Listed;
pub(crate) use clock::now_ms;
pub(crate) use hold::JournalHold;
pub use journal_error::JournalError;
pub(crate) use journal_error::Unjournaled;
pub use journal_state::JournalState;
pub(crate) use keeping::Keeping;
pub use settings::{FileSync, Journal, JournalLimits};
