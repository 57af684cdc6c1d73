//! What is done to the producers' clock.

use std::sync::atomic::Ordering;

use anyhow::Result;
use fastrand::Rng;

use super::lasting::last;
use crate::chaos::stage::ChaosStage;

impl ChaosStage {
    pub(super) async fn jump_clock(&self, random: &mut Rng) -> Result<()> {
        // An id may be a day ahead of the stream, and a week old.
        let hours = random.i64(-100..20);
        self.clock_off_ms.store(hours * 3_600_000, Ordering::Relaxed);
        last(random, 500..3_000).await;
        self.clock_off_ms.store(0, Ordering::Relaxed);
        Ok(())
    }
}
