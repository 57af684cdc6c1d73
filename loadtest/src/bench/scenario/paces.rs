//! What polling costs the replica, and how soon it tells, by its interval.

use std::time::Duration;

use anyhow::Result;
use farwrite_lsn_watcher::{EmbeddedConfig, PollIntervals, Watcher};
use farwrite_schemas::Lsn;
use tokio::time::Instant;

use super::{
    replay::{CommitWriter, Truth, backend_cpu, lag_us, stack},
    settings::ScenarioFindings,
};
use crate::bench::{
    measure::{Samples, histogram, quantile_ms, row},
    stage::PATIENCE,
};

const NAME: &str = "paces";
const INTERVALS_US: [u64; 6] = [250, 500, 1_250, 2_500, 5_000, 20_000];
/// Commits that are waited for with each.
const COMMITS: usize = 60;
/// How long the cost is measured.
const COST: Duration = Duration::from_secs(4);

pub(super) async fn run() -> Result<ScenarioFindings> {
    let stack = stack().await?;
    let replica = stack.replica("away")?;
    let mut findings = ScenarioFindings::default();
    for interval in INTERVALS_US.map(Duration::from_micros) {
        let intervals = PollIntervals::default()
            .quick(interval)
            .eager(interval)
            .calm(interval)
            .patient(interval);
        let config = EmbeddedConfig::new(replica.url("postgres")).intervals(intervals);
        let watcher = Watcher::embedded(config)?;
        let mut writer = CommitWriter::new(stack.primary()).await?;
        watcher.wait(writer.commit().await?, PATIENCE).await?;
        // One waiter waits all the time, so that the watcher always polls. The cost is measured by
        // itself.
        let waiting = watcher.clone();
        let always = tokio::spawn(async move { waiting.wait(Lsn(u64::MAX), PATIENCE * 60).await });
        let (cpu, polls, began) = (backend_cpu(replica).await?, watcher.polls(), Instant::now());
        tokio::time::sleep(COST).await;
        let seconds = began.elapsed().as_secs_f64();
        let cpu = Samples::whole((backend_cpu(replica).await? - cpu) / seconds * 100.0);
        let polls = Samples::whole((watcher.polls() - polls) as f64 / seconds);
        let truth = Truth::of(replica);
        let mut lags = histogram();
        for _ in 0..COMMITS {
            let lsn = writer.commit_some_time().await?;
            watcher.wait(lsn, PATIENCE).await?;
            let woken = Instant::now();
            lags.saturating_record(lag_us(truth.reached(lsn).await?, woken));
        }
        always.abort();
        watcher.shutdown().await;
        let ms = interval.as_secs_f64() * 1e3;
        let mut tell = |what: &str, unit: &str, samples: &Samples| {
            findings.rows.push(row(NAME, format!("every {ms} ms: {what}"), unit, samples));
        };
        tell("polls", "/s", &polls);
        tell("of one processor on the replica", "%", &cpu);
        tell("wake-up p50", "ms", &Samples::whole(quantile_ms(&lags, 0.5)));
        tell("wake-up p95", "ms", &Samples::whole(quantile_ms(&lags, 0.95)));
    }
    stack.shutdown().await?;
    Ok(findings)
}
