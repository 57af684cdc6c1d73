//! What happens to servers and programs while users hop.

use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;
use tokio_util::sync::CancellationToken;

use super::stage::{REGIONS, Stage};

impl Stage {
    /// Disturbs until it is calm, and mends what it did; how often it did.
    pub(super) async fn disturb(&self, mut random: Rng, calm: &CancellationToken) -> Result<u64> {
        let mut count = 0;
        while !calm.is_cancelled() {
            self.disturb_once(&mut random, calm).await?;
            count += 1;
            pause(calm, random.u64(100..1_000)).await;
        }
        Ok(count)
    }

    async fn disturb_once(&self, random: &mut Rng, calm: &CancellationToken) -> Result<()> {
        let region = REGIONS[random.usize(1..REGIONS.len())];
        let replica = self.stack.replica(region)?;
        match random.u32(..10) {
            0..4 => {
                replica.pause_replay().await?;
                pause(calm, random.u64(50..1_500)).await;
                replica.resume_replay().await?;
            }
            4..6 => {
                replica.kill().await?;
                pause(calm, random.u64(..500)).await;
                replica.start().await?;
            }
            6..8 => {
                let link = self.stack.replication_link(region)?;
                link.cut();
                pause(calm, random.u64(50..1_500)).await;
                link.heal();
            }
            8 => self.stack.nats_link(region)?.drop_connections(),
            _ => self.replace_worker().await?,
        }
        Ok(())
    }
}

async fn pause(calm: &CancellationToken, ms: u64) {
    let _ = tokio::time::timeout(Duration::from_millis(ms), calm.cancelled()).await;
}
