//! The checker of histories. A history says what clients did, what they were told, and what was
//! there in the end. The checker says which promises were broken.
//!
//! The checker knows nothing of how Farwrite works. No crate of Farwrite is a dependency. The input is
//! one file in a form of its own (`docs/chaos.md`), and the report is made of that file alone. A
//! history that is incomplete or that cannot be understood is an error, never a pass.

mod check;
mod effects;
mod eras;
mod floors;
mod history;
mod law;
mod lines;
mod names;
mod order;
mod outcomes;
mod reading;
mod reads;
mod report;
mod writer;

pub use check::{check, check_file, run};
pub use history::History;
pub use law::{Judged, Law, LawViolation};
pub use lines::{CommandEnd, HistoryOutcome, HistoryVerb};
pub use report::{CheckReport, HistoryCounts};
pub use writer::{Begun, CommandOp, HistoryWriter, ReadOp};
