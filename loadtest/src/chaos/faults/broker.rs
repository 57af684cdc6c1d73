//! What is done to the broker and to the links.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use fastrand::Rng;

use super::lasting::last;
use crate::{
    chaos::{
        app::{DATABASE, PATIENCE, REGIONS, worker_command},
        ending::settle,
        stage::ChaosStage,
    },
    kit::run_to_end,
};

/// How long clients have to use sequences again. At the end of a run there may be no client.
const GROWS_WITHIN: Duration = Duration::from_secs(30);
/// How long workers may take to notice that the stream is another one.
const STOPS_WITHIN: Duration = Duration::from_secs(20);

impl ChaosStage {
    pub(super) async fn kill_broker(&self, random: &mut Rng) -> Result<()> {
        let nats = self.stack.nats();
        nats.kill().await?;
        last(random, 0..1_500).await;
        nats.start().await
    }

    pub(super) async fn stall_broker(&self, random: &mut Rng) -> Result<()> {
        let nats = self.stack.nats();
        for _ in 0..random.u32(2..6) {
            nats.suspend()?;
            last(random, 50..700).await;
            nats.resume()?;
            last(random, 20..200).await;
        }
        Ok(())
    }

    pub(super) async fn cut_links(&self, random: &mut Rng) -> Result<()> {
        let region = REGIONS[random.usize(..REGIONS.len())];
        let links = [self.stack.nats_link(region)?, self.stack.primary_link(region)?];
        links.iter().for_each(|link| link.cut());
        last(random, 200..4_000).await;
        links.iter().for_each(|link| link.heal());
        Ok(())
    }

    /// The broker's connections with a region's app end; the app makes new ones.
    pub(super) fn drop_connections(&self, random: &mut Rng) -> Result<()> {
        let region = REGIONS[random.usize(..REGIONS.len())];
        self.stack.nats_link(region)?.drop_connections();
        Ok(())
    }

    /// A firewall loses its table: connections of a region with the broker or the primary carry
    /// nothing any more, and none is closed. Some workers go through the first region's links.
    pub(super) fn forget_connections(&self, random: &mut Rng) -> Result<()> {
        let region = REGIONS[random.usize(..REGIONS.len())];
        let links = [self.stack.nats_link(region)?, self.stack.primary_link(region)?];
        match random.usize(..3) {
            2 => links.iter().for_each(|link| link.forget_connections()),
            one => links[one].forget_connections(),
        }
        Ok(())
    }

    pub(super) async fn slow_links(&self, random: &mut Rng) -> Result<()> {
        let region = REGIONS[random.usize(1..REGIONS.len())];
        let links = [self.stack.nats_link(region)?, self.stack.primary_link(region)?];
        let before = links.map(|link| link.rtt());
        links.iter().for_each(|link| link.set_rtt(Duration::from_millis(400)));
        last(random, 500..3_000).await;
        for (link, rtt) in links.iter().zip(before) {
            link.set_rtt(rtt);
        }
        Ok(())
    }

    /// The broker goes on from an older copy of its store, and uses the sequences again before a
    /// worker looks. The worker must refuse it; then an operator adopts the stream.
    pub(super) async fn restore_broker(&self, random: &mut Rng) -> Result<()> {
        let nats = self.stack.nats();
        let copied = nats.store().with_file_name("copy");
        let kept = self.last_sequence().await?;
        nats.stop().await?;
        let _ = std::fs::remove_dir_all(&copied);
        copy(&nats.store(), &copied)?;
        nats.start().await?;
        // Few messages are lost, so that their sequences are soon used again. All lost messages are
        // applied before: a worker cannot bring back a message (a producer can: `reconcile`).
        last(random, 100..400).await;
        let closed = self.gate.write().await;
        settle(self).await?;
        let mut workers = self.workers.lock().await;
        workers.suspend()?;
        let lost = self.last_sequence().await?;
        nats.stop().await?;
        std::fs::remove_dir_all(nats.store())?;
        copy(&copied, &nats.store())?;
        nats.start().await?;
        drop(closed);
        let began = Instant::now();
        while self.last_sequence().await? <= lost && began.elapsed() < GROWS_WITHIN {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        workers.resume()?;
        // Only a worker that stops calls for an operator.
        if !workers.have_stopped(STOPS_WITHIN).await? {
            return Ok(());
        }
        let mut adopt = worker_command(&self.stack, "adopt-stream")?;
        let from = if random.bool() { "first".to_owned() } else { (kept + 1).to_string() };
        adopt.args(["--from", &from, "--reason", "restored from a copy"]);
        run_to_end(&self.stack, adopt, "adopt-stream", PATIENCE).await?;
        workers.begin_again(&self.stack, random)
    }

    async fn last_sequence(&self) -> Result<u64> {
        let client = async_nats::connect(self.stack.nats().url()).await?;
        let context = async_nats::jetstream::new(client);
        let stream = context.get_stream(format!("farwrite-{DATABASE}")).await?;
        Ok(stream.cached_info().state.last_sequence)
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp: {status}");
    Ok(())
}
