//! What is done to the database servers.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use fastrand::Rng;
use sqlx::Connection;

use super::lasting::last;
use crate::chaos::{
    app::{DATABASE, REGIONS, worker_command_of},
    stage::ChaosStage,
};

impl ChaosStage {
    /// A region whose server is a replica now.
    fn a_replica(&self, random: &mut Rng) -> &'static str {
        let primary = self.stack.primary_region();
        let replicas: Vec<_> = REGIONS.into_iter().filter(|region| *region != primary).collect();
        replicas[random.usize(..replicas.len())]
    }

    pub(super) async fn pause_replica(&self, random: &mut Rng) -> Result<()> {
        let replica = self.stack.server(self.a_replica(random))?;
        replica.pause_replay().await?;
        last(random, 100..3_000).await;
        replica.resume_replay().await
    }

    pub(super) async fn kill_replica(&self, random: &mut Rng) -> Result<()> {
        let replica = self.stack.server(self.a_replica(random))?;
        replica.kill().await?;
        last(random, 0..1_000).await;
        replica.start().await
    }

    pub(super) async fn cut_replication(&self, random: &mut Rng) -> Result<()> {
        let link = self.stack.replication_link(self.a_replica(random))?;
        link.cut();
        last(random, 50..1_500).await;
        link.heal();
        Ok(())
    }

    pub(super) async fn hold_transaction(&self, random: &mut Rng) -> Result<()> {
        let mut connection = self.primary().await?;
        let mut tx = connection.begin().await?;
        sqlx::query("INSERT INTO noise SELECT repeat('x', 500) FROM generate_series(1, 100)")
            .execute(&mut *tx)
            .await?;
        // A key of the app is locked: its writers wait.
        sqlx::query("SELECT FROM counters WHERE key = $1 FOR UPDATE")
            .bind(format!("key {}", random.u32(..6)))
            .execute(&mut *tx)
            .await?;
        last(random, 200..2_500).await;
        tx.commit().await?;
        Ok(())
    }

    /// A standby is cut off while clients write, the primary is lost, and that standby is promoted.
    /// The others become its replicas, the old primary perhaps after it came alive once more.
    pub(super) async fn fail_over(&self, random: &mut Rng) -> Result<()> {
        let old = self.stack.primary_region().to_owned();
        let new = self.a_replica(random);
        self.stack.replication_link(new)?.cut();
        last(random, 100..2_000).await;
        let before = self.settled(&old).await?;
        self.stack.server(&old)?.kill().await?;
        let after = self.settled(new).await?;
        self.reapplied.fetch_add(before.saturating_sub(after), Ordering::Relaxed);
        self.stack.replication_link(new)?.heal();
        self.stack.promote(new).await.context("promoting")?;
        self.stack.set_primary(new)?;
        // Another session writes there, so that the new history soon reaches past the lost
        // positions.
        let noise = "INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 2000)";
        self.stack.server(new)?.execute(DATABASE, noise).await?;
        // For a while the new primary has no replica, and perhaps the old one comes back as if nothing had
        // happened, with a worker that knows no other.
        if random.bool() {
            self.stack.server(&old)?.start().await?;
            let command = worker_command_of(&self.stack, &old)?;
            let worker = self.stack.spawn(command, "worker of the old primary")?;
            last(random, 500..2_500).await;
            worker.kill().await?;
        } else {
            last(random, 0..1_000).await;
        }
        for region in REGIONS.into_iter().filter(|region| *region != new) {
            self.stack
                .rebuild(region, new)
                .await
                .with_context(|| format!("rebuilding {region}"))?;
        }
        Ok(())
    }

    /// How many commands a region's server has in its ledger.
    async fn settled(&self, region: &str) -> Result<u64> {
        let mut connection = self.stack.server(region)?.connect(DATABASE).await?;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM farwrite.ledger")
            .fetch_one(&mut connection)
            .await?;
        Ok(count.unsigned_abs())
    }
}
