//! What a wait ends with: the position was reached, or a reason why not.

mod doubt;
mod error;
mod gone;
mod reached;
mod report;

pub use doubt::Doubt;
pub use error::WaitError;
pub use gone::GoneReason;
pub use reached::Reached;
pub use report::WaitReport;
