//! Chaos: clients write and read in three regions while everything that can fail does, by a seeded
//! schedule. The checker, which knows nothing of Farwrite, judges a history of the run.
//!
//! Two tracks of faults run beside each other: one for the workers, one for servers and links. Each
//! fault is written into the history before it begins and after it is over. When the time is up,
//! everything is mended and what was accepted settles. Then the end state is written behind the
//! history: the ledger, the app's rows, and the stream as a separate reader copied it.

mod answer;
mod app;
mod client;
mod command;
mod ending;
mod fault;
mod faults;
mod pauses;
mod report;
mod run;
mod sabotage;
mod schedule;
mod settings;
mod stage;
mod stream_copy;
mod workers;

pub use command::{command, run_command};
pub use fault::FaultKind;
pub use report::{ChaosReport, print};
pub use run::run;
pub use schedule::Schedule;
pub use settings::ChaosSettings;
