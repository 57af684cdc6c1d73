//! What one run of chaos is told to do.

use std::{path::PathBuf, time::Duration};

use super::{fault::FaultKind, schedule::Schedule};

/// What to do.
#[derive(Clone, Debug)]
pub struct ChaosSettings {
    /// What every choice is drawn from.
    pub seed: u64,
    /// How long clients write and read.
    pub duration: Duration,
    /// How many clients there are.
    pub clients: u32,
    /// What clients do, and which faults there are.
    pub schedule: Schedule,
    /// Which faults there are instead of the schedule's.
    pub faults: Option<Vec<FaultKind>>,
    /// Where the history goes.
    pub history: PathBuf,
}

impl ChaosSettings {
    pub(super) fn faults(&self) -> Vec<FaultKind> {
        self.faults.clone().unwrap_or_else(|| self.schedule.faults())
    }
}
