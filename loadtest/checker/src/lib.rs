//! The checker: holds a history of what clients did and were told against what was there in the
//! end, and says which of the promises were broken.
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
