//! Published and applied at once, with everything on this machine: what keeps up, and what bounds it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use farwrite_devstack::Devstack;
use farwrite_producer::CommandId;
use tokio::time::Instant;

use super::{
    publish::publish_until,
    settings::{BenchSettings, SMALL, ScenarioFindings},
};
use crate::bench::{
    measure::{BenchTarget, Samples, against, row},
    report::{FlowSample, FlowTimeline},
    stage::{Applier, BenchStage, BenchWorker, PATIENCE, cpu_seconds},
};

/// Publishes that wait for their acknowledgement.
const IN_FLIGHT: usize = 1_000;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Bytes that the replica's replay is behind.
const REPLAY_LAG: &str =
    "SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), replay_lsn)), 0)::bigint
     FROM pg_stat_replication";

/// What one run showed.
pub(super) struct Flow {
    pub(super) published_per_second: f64,
    pub(super) applied_per_second: f64,
    samples: Vec<FlowSample>,
    /// Of a processor: the worker, the broker, this process with the producer.
    cpu: [f64; 3],
}

/// A producer measures first whether commands are stored faster together.
pub(super) const WARM_UP: Duration = Duration::from_secs(2);

/// Publishes for a time while a worker applies. A warm-up before does not count.
pub(super) async fn flow(stage: &BenchStage, duration: Duration) -> Result<Flow> {
    let worker = stage.worker(Applier::Functions, "bench")?;
    let producer = stage.producer("home", "bench").await?;
    // Only a worker that serves answers.
    producer.outcome_within(CommandId::now(), PATIENCE).await?;
    let warming = Arc::new(AtomicU64::new(0));
    publish_until(&producer, IN_FLIGHT, Instant::now() + WARM_UP, &warming).await?;
    let warmed = warming.load(Ordering::Relaxed);
    caught_up(&worker, warmed).await?;
    let mut connection = stage.connect("bench").await?;
    let published = Arc::new(AtomicU64::new(0));
    let broker = broker_pid(stage)?;
    let cpu = || -> Result<[f64; 3]> {
        Ok([worker.cpu_seconds()?, cpu_seconds(broker)?, cpu_seconds(std::process::id())?])
    };
    let (began, cpu_before) = (Instant::now(), cpu()?);
    let publishing = publish_until(&producer, IN_FLIGHT, began + duration, &published);
    let mut samples = Vec::new();
    let looking = async {
        while began.elapsed() < duration {
            let replay_lag: i64 = sqlx::query_scalar(REPLAY_LAG).fetch_one(&mut connection).await?;
            samples.push(FlowSample {
                at_ms: u64::try_from(began.elapsed().as_millis())?,
                published: published.load(Ordering::Relaxed),
                applied: worker.settled().await? - warmed,
                replay_lag_bytes: replay_lag.unsigned_abs(),
            });
            tokio::time::sleep(LOOK_EVERY).await;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(publishing, looking)?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu_after = cpu()?;
    let published = published.load(Ordering::Relaxed);
    let applied = worker.settled().await? - warmed;
    caught_up(&worker, warmed + published).await?;
    worker.stop().await?;
    let cpu = std::array::from_fn(|who| (cpu_after[who] - cpu_before[who]) / seconds);
    Ok(Flow {
        published_per_second: published as f64 / seconds,
        applied_per_second: applied as f64 / seconds,
        samples,
        cpu,
    })
}

fn broker_pid(stage: &BenchStage) -> Result<u32> {
    stage.stack.nats().pid()
}

async fn caught_up(worker: &BenchWorker, published: u64) -> Result<()> {
    let began = Instant::now();
    while worker.settled().await? < published {
        ensure!(began.elapsed() < PATIENCE, "the worker never caught up\n{}", worker.log());
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

pub(super) async fn run(settings: &BenchSettings) -> Result<ScenarioFindings> {
    let stage = BenchStage::set(Devstack::builder().regions(["home", "away"])).await?;
    stage.database("bench").await?;
    flow(&stage, settings.turn()).await?;
    let (mut published, mut applied) = (Samples::default(), Samples::default());
    let mut cpu: [Samples; 3] = std::array::from_fn(|_| Samples::default());
    let mut last = Vec::new();
    for _ in settings.rounds() {
        let flow = flow(&stage, settings.turn()).await?;
        published.push(flow.published_per_second);
        applied.push(flow.applied_per_second);
        for (samples, used) in cpu.iter_mut().zip(flow.cpu) {
            samples.push(used * 100.0);
        }
        last = flow.samples;
    }
    stage.strike().await?;
    let measure = format!("applied while {IN_FLIGHT} publishes are in flight, {SMALL} B");
    let flow_row = row("flow", measure, "/s", &applied);
    let keeps_up = Some(BenchTarget::RatioAtLeast(0.95));
    let mut rows = vec![against(flow_row, &applied, "published", &published, keeps_up)];
    for (who, samples) in ["worker", "broker", "producers and this program"].iter().zip(&cpu) {
        rows.push(row("flow", format!("of one processor, {who}"), "%", samples));
    }
    let timeline = FlowTimeline { scenario: "flow".to_owned(), samples: last };
    Ok(ScenarioFindings { rows, timeline: Some(timeline), ..ScenarioFindings::default() })
}
