//! What is done to workers, database servers, broker and links.

mod broker;
mod clock;
mod database;
mod lasting;
mod track;
mod worker;

pub(super) use track::{FaultCounts, Faults};
