//! What is measured, by name.

mod catalogue;
mod drain;
mod flow;
mod full_streams;
mod growth;
mod paces;
mod publish;
mod replay;
mod settings;
mod slow_disk;
mod waiters;
mod wake_up;
mod write;

pub(super) use catalogue::{Scenario, servers};
pub(super) use settings::BenchSettings;
pub(super) use waiters::{Weighed, weigh};
