//! What is done to the workers.

use anyhow::{Result, ensure};
use fastrand::Rng;

use super::lasting::last;
use crate::chaos::{app::PATIENCE, stage::ChaosStage};

impl ChaosStage {
    pub(super) async fn kill_worker(&self, random: &mut Rng) -> Result<()> {
        let mut workers = self.workers.lock().await;
        workers.check()?;
        workers.take(random).kill().await?;
        last(random, 0..500).await;
        workers.add(&self.stack, random, false)
    }

    pub(super) async fn stop_worker(&self, random: &mut Rng) -> Result<()> {
        let mut workers = self.workers.lock().await;
        workers.check()?;
        let worker = workers.take(random);
        worker.suspend()?;
        last(random, 200..3_000).await;
        worker.resume()?;
        workers.running.push(worker);
        Ok(())
    }

    pub(super) async fn deploy_worker(&self, random: &mut Rng) -> Result<()> {
        let mut workers = self.workers.lock().await;
        workers.check()?;
        workers.add(&self.stack, random, false)?;
        last(random, 0..1_000).await;
        let old = workers.running.remove(0);
        let status = old.terminate(PATIENCE).await?;
        ensure!(status.success(), "a worker ended with {status}\n{}", old.log_tail());
        Ok(())
    }

    pub(super) async fn force_worker(&self, random: &mut Rng) -> Result<()> {
        let mut workers = self.workers.lock().await;
        workers.check()?;
        workers.add(&self.stack, random, true)?;
        last(random, 300..1_500).await;
        workers.take(random).kill().await
    }
}
