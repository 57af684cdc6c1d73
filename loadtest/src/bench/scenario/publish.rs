//! Acknowledged publishes, beside async-nats alone.
//!
//! Closed loops: each of so many callers publishes again when its last one was acknowledged.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use farwrite_devstack::Devstack;
use farwrite_producer::Producer;
use hdrhistogram::Histogram;
use tokio::{task::JoinSet, time::Instant};

use super::settings::{BODY_BYTES, BenchSettings, SMALL, ScenarioFindings};
use crate::bench::{
    baseline::RawPublish,
    measure::{BenchTarget, Samples, against, histogram, latencies, quantile_ms, row},
    put::{ItemPut, Puts},
    stage::{BenchStage, cpu_seconds},
};

/// nats-server's default. It suits a cluster, or a server that may lose a little.
const SYNC_INTERVAL: Duration = Duration::from_secs(120);
/// Callers at once.
const MANY: usize = 1_000;

/// Who publishes.
#[derive(Clone)]
enum Publisher {
    Farwrite(Producer),
    Raw(Arc<RawPublish>),
}

impl Publisher {
    async fn publish(&self, put: &ItemPut) -> Result<()> {
        match self {
            Self::Farwrite(producer) => drop(producer.publish(put).await?),
            Self::Raw(raw) => drop(raw.publish(put).await?),
        }
        Ok(())
    }

    /// Runs callers for a time: publishes a second, and how long each took.
    async fn run(
        &self,
        callers: usize,
        body_bytes: usize,
        duration: Duration,
    ) -> Result<(f64, Histogram<u64>)> {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..callers {
            let (this, mut puts) = (self.clone(), Puts::of(body_bytes));
            tasks.spawn(async move {
                let mut took_us = Vec::new();
                while began.elapsed() < duration {
                    let (put, called) = (puts.next(), Instant::now());
                    this.publish(&put).await?;
                    took_us.push(u32::try_from(called.elapsed().as_micros())?);
                }
                anyhow::Ok(took_us)
            });
        }
        let mut took = histogram();
        while let Some(done) = tasks.join_next().await {
            for us in done?? {
                took.saturating_record(u64::from(us));
            }
        }
        Ok((took.len() as f64 / began.elapsed().as_secs_f64(), took))
    }
}

/// Both publishers on one stream.
struct Pair {
    stage: BenchStage,
    ours: Publisher,
    raw: Publisher,
}

impl Pair {
    async fn set(sync: Option<Duration>) -> Result<Self> {
        let builder = Devstack::builder();
        let builder = sync
            .into_iter()
            .fold(builder, |builder, interval| builder.nats_sync_interval(interval));
        let stage = BenchStage::set(builder).await?;
        stage.database("bench").await?;
        let ours = Publisher::Farwrite(stage.producer("home", "bench").await?);
        let raw = RawPublish::connect(&stage.stack.nats().url(), "bench").await?;
        let raw = Publisher::Raw(Arc::new(raw));
        Ok(Self { stage, ours, raw })
    }

    /// Both in turns, each first in every other round.
    async fn compare(
        &self,
        settings: &BenchSettings,
        callers: usize,
        body_bytes: usize,
    ) -> Result<[Compared; 2]> {
        let mut compared = [Compared::new(), Compared::new()];
        let publishers = [&self.ours, &self.raw];
        for publisher in publishers {
            publisher.run(callers, body_bytes, settings.turn()).await?;
        }
        for round in settings.rounds() {
            let mut turns = [0, 1];
            if round % 2 == 1 {
                turns.reverse();
            }
            for who in turns {
                let cpu_before = self.cpu_seconds()?;
                let run = publishers[who].run(callers, body_bytes, settings.turn());
                let (rate, took) = run.await?;
                let cpu = self.cpu_seconds()?;
                for (samples, (after, before)) in
                    compared[who].cpu_us.iter_mut().zip(cpu.into_iter().zip(cpu_before))
                {
                    samples.push((after - before) * 1e6 / took.len() as f64);
                }
                compared[who].rate.push(rate);
                compared[who].p50_ms.push(quantile_ms(&took, 0.5));
                compared[who].took.add(&took)?;
            }
        }
        Ok(compared)
    }

    /// Of this process and of the broker, so far.
    fn cpu_seconds(&self) -> Result<[f64; 2]> {
        Ok([cpu_seconds(std::process::id())?, cpu_seconds(self.stage.stack.nats().pid()?)?])
    }
}

/// What one publisher did.
struct Compared {
    rate: Samples,
    p50_ms: Samples,
    /// Processor time of one publish: in this process, with the runtime and the making of commands,
    /// and in the broker.
    cpu_us: [Samples; 2],
    took: Histogram<u64>,
}

impl Compared {
    fn new() -> Self {
        let [rate, p50_ms, here, broker] = [const { Samples::new() }; 4];
        Self { rate, p50_ms, cpu_us: [here, broker], took: histogram() }
    }
}

/// On a broker that syncs as its default is.
pub(super) async fn run(settings: &BenchSettings) -> Result<ScenarioFindings> {
    const RAW: &str = "raw publish";
    let pair = Pair::set(Some(SYNC_INTERVAL)).await?;
    let mut findings = ScenarioFindings::default();
    for body_bytes in BODY_BYTES {
        let [ours, raw] = pair.compare(settings, 1, body_bytes).await?;
        let p50 = row("publish", format!("p50, 1 in flight, {body_bytes} B"), "ms", &ours.p50_ms);
        let target = Some(BenchTarget::RatioAtMost(1.1));
        findings.rows.push(against(p50, &ours.p50_ms, RAW, &raw.p50_ms, target));
        if body_bytes == SMALL {
            findings.latencies.push(latencies("publish", "farwrite", &ours.took));
            findings.latencies.push(latencies("publish", RAW, &raw.took));
        }
        let [ours, raw] = pair.compare(settings, MANY, body_bytes).await?;
        let rate = row("publish", format!("{MANY} in flight, {body_bytes} B"), "/s", &ours.rate);
        let target = Some(BenchTarget::RatioAtLeast(0.9));
        findings.rows.push(against(rate, &ours.rate, RAW, &raw.rate, target));
        for (side, (ours, raw)) in
            ["client", "broker"].iter().zip(ours.cpu_us.iter().zip(&raw.cpu_us))
        {
            let cpu = format!("of a processor, {side}, each, {MANY} in flight, {body_bytes} B");
            findings.rows.push(against(row("publish", cpu, "µs", ours), ours, RAW, raw, None));
        }
    }
    pair.stage.strike().await?;
    Ok(findings)
}

/// On one that syncs every message before it acknowledges it.
pub(super) async fn coalesced(settings: &BenchSettings) -> Result<ScenarioFindings> {
    const NAME: &str = "publish-coalesced";
    const RAW: &str = "raw publish, broker syncing always";
    let pair = Pair::set(None).await?;
    let mut findings = ScenarioFindings::default();
    let [ours, raw] = pair.compare(settings, 1, SMALL).await?;
    let p50 = row(NAME, format!("p50, 1 in flight, {SMALL} B"), "ms", &ours.p50_ms);
    findings.rows.push(against(p50, &ours.p50_ms, RAW, &raw.p50_ms, None));
    for body_bytes in BODY_BYTES {
        let [ours, raw] = pair.compare(settings, MANY, body_bytes).await?;
        let rate = row(NAME, format!("{MANY} in flight, {body_bytes} B"), "/s", &ours.rate);
        let target = (body_bytes == SMALL).then_some(BenchTarget::RatioAtLeast(3.0));
        findings.rows.push(against(rate, &ours.rate, RAW, &raw.rate, target));
        if body_bytes == SMALL {
            findings.latencies.push(latencies(NAME, "farwrite", &ours.took));
            findings.latencies.push(latencies(NAME, RAW, &raw.took));
        }
    }
    pair.stage.strike().await?;
    Ok(findings)
}

/// Publishes at full speed until it is told to stop, and counts what was acknowledged.
pub(super) async fn publish_until(
    producer: &Producer,
    callers: usize,
    until: Instant,
    count: &Arc<std::sync::atomic::AtomicU64>,
) -> Result<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (producer, mut puts, count) = (producer.clone(), Puts::of(SMALL), Arc::clone(count));
        tasks.spawn(async move {
            while Instant::now() < until {
                producer.publish(&puts.next()).await?;
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
