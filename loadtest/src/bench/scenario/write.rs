//! One write, from the call until the write is visible on the region's replica: without distance
//! and with it, on an idle stack and on a busy one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use farwrite_devstack::Devstack;
use farwrite_producer::{CommandId, Producer};
use hdrhistogram::Histogram;
use tokio::{task::JoinSet, time::Instant};

use super::{
    flow::{WARM_UP, flow},
    settings::{BenchSettings, SMALL, ScenarioFindings},
};
use crate::bench::{
    baseline::{NEXT_POSITION, RemoteApply, RpcAndPoll},
    measure::{BenchTarget, Samples, against, held, histogram, latencies, quantile_ms, row},
    put::Puts,
    stage::{Applier, BenchStage, PATIENCE},
};

const NAME: &str = "write";
/// Writes of one contestant in one round.
const WRITES: usize = 45;
/// The part of the flow that goes on beside the writes.
const LOADED: f64 = 0.3;
/// Under load, the time between two writes. A write does not wait for the last one.
const EVERY: Duration = Duration::from_millis(20);

/// What the writes of one contestant took.
struct Took {
    p50_ms: Samples,
    all: Histogram<u64>,
}

impl Took {
    fn new() -> Self {
        Self { p50_ms: Samples::default(), all: histogram() }
    }

    fn add(&mut self, round: Vec<Duration>) -> Result<()> {
        let mut took = histogram();
        for duration in round {
            took.saturating_record(u64::try_from(duration.as_micros())?);
        }
        self.p50_ms.push(quantile_ms(&took, 0.5));
        Ok(self.all.add(&took)?)
    }
}

async fn ours(producer: &Producer, puts: &mut Puts) -> Result<Duration> {
    let put = puts.next();
    let began = Instant::now();
    producer.write(&put).await?;
    Ok(began.elapsed())
}

/// The weaker verbs, which tell where a write's time goes.
async fn weaker(producer: &Producer, puts: &mut Puts) -> Result<[Duration; 2]> {
    let put = puts.next();
    let began = Instant::now();
    producer.publish(&put).await?;
    let published = began.elapsed();
    let put = puts.next();
    let began = Instant::now();
    producer.submit(&put).await?;
    Ok([published, began.elapsed()])
}

/// Apps write at moments that keep no step with any loop.
async fn pause(random: &mut fastrand::Rng) {
    tokio::time::sleep(Duration::from_micros(random.u64(1_000..60_000))).await;
}

pub(super) async fn run(settings: &BenchSettings) -> Result<ScenarioFindings> {
    let mut findings = ScenarioFindings::default();
    for rtt in [Duration::ZERO, settings.rtt] {
        // The replica tells the primary what its sessions still see. Otherwise a contestant's
        // snapshot would stop the replay of what the primary pruned meanwhile.
        let builder = Devstack::builder().setting("hot_standby_feedback", "on");
        let stage = BenchStage::set(builder.regions(["home", "away"]).rtt(rtt)).await?;
        stage.database("bench").await?;
        stage.primary().execute("bench", NEXT_POSITION).await?;
        stage.stack.replica("away")?.wait_caught_up(stage.primary(), PATIENCE).await?;
        idle(&stage, settings, rtt, &mut findings).await?;
        loaded(&stage, settings, rtt, &mut findings).await?;
        stage.strike().await?;
    }
    Ok(findings)
}

/// Nobody else writes.
async fn idle(
    stage: &BenchStage,
    settings: &BenchSettings,
    rtt: Duration,
    findings: &mut ScenarioFindings,
) -> Result<()> {
    let worker = stage.worker(Applier::Functions, "bench")?;
    let producer = stage.producer("away", "bench").await?;
    producer.outcome_within(CommandId::now(), PATIENCE).await?;
    let mut rpc = RpcAndPoll::set(&stage.stack, "away", "bench", SMALL).await?;
    let url = stage.stack.primary_url_from("away", "bench")?;
    let mut remote = RemoteApply::connect(&url, SMALL).await?;
    let (mut puts, mut random) = (Puts::of(SMALL), fastrand::Rng::new());
    for _ in 0..WRITES / 2 {
        ours(&producer, &mut puts).await?;
    }
    let mut took = [Took::new(), Took::new(), Took::new()];
    let mut steps = [Took::new(), Took::new()];
    let mut apply = Samples::default();
    for _ in settings.rounds() {
        let mut round = [Vec::new(), Vec::new(), Vec::new()];
        let mut weak = [Vec::new(), Vec::new()];
        for _ in 0..WRITES {
            round[0].push(ours(&producer, &mut puts).await?);
            pause(&mut random).await;
            round[1].push(rpc.write().await?);
            pause(&mut random).await;
            let [published, submitted] = weaker(&producer, &mut puts).await?;
            weak[0].push(published);
            weak[1].push(submitted);
            pause(&mut random).await;
        }
        apply.push(worker.apply_p50_ms().await?);
        for (steps, round) in steps.iter_mut().zip(weak) {
            steps.add(round)?;
        }
        RemoteApply::synchronous(stage.primary(), true).await?;
        // The first commit may still meet the old setting.
        remote.write().await?;
        for _ in 0..WRITES {
            round[2].push(remote.write().await?);
            pause(&mut random).await;
        }
        RemoteApply::synchronous(stage.primary(), false).await?;
        // The next commit may still meet this setting, and wait for the replica without need.
        ours(&producer, &mut puts).await?;
        for (took, round) in took.iter_mut().zip(round) {
            took.add(round)?;
        }
    }
    worker.stop().await?;
    let ms = rtt.as_millis();
    let [ours, rpc, remote] = &took;
    let name = |what: &str| format!("{what}, {ms} ms RTT, idle");
    let p50 = || row(NAME, name("p50"), "ms", &ours.p50_ms);
    let p99_ms = Samples::whole(quantile_ms(&ours.all, 0.99));
    let p99 = row(NAME, name("p99"), "ms", &p99_ms);
    let rows = &mut findings.rows;
    if rtt.is_zero() {
        rows.push(held(p50(), &ours.p50_ms, BenchTarget::AtMost(3.0)));
        let target = Some(BenchTarget::RatioAtMost(0.15));
        rows.push(against(p50(), &ours.p50_ms, "rpc-and-poll", &rpc.p50_ms, target));
        rows.push(against(p50(), &ours.p50_ms, "remote_apply", &remote.p50_ms, None));
        rows.push(p99);
    } else {
        let rtt_ms = rtt.as_secs_f64() * 1e3;
        rows.push(held(p50(), &ours.p50_ms, BenchTarget::AtMost(rtt_ms + 3.0)));
        rows.push(held(p99, &p99_ms, BenchTarget::AtMost(rtt_ms + 10.0)));
        let (over, their_over) = (ours.p50_ms.less(rtt_ms), rpc.p50_ms.less(rtt_ms));
        let over_row = row(NAME, name("p50 over the round trip"), "ms", &over);
        let target = Some(BenchTarget::RatioAtMost(0.2));
        rows.push(against(over_row, &over, "rpc-and-poll", &their_over, target));
        let target = Some(BenchTarget::RatioAtMost(0.55));
        rows.push(against(p50(), &ours.p50_ms, "remote_apply", &remote.p50_ms, target));
    }
    for (what, samples) in [
        ("of it publish, p50", &steps[0].p50_ms),
        ("of it submit, p50", &steps[1].p50_ms),
        ("of it applied and committed, p50", &apply),
    ] {
        rows.push(row(NAME, name(what), "ms", samples));
    }
    let scenario = format!("write, {ms} ms RTT");
    for (of, took) in ["farwrite", "rpc-and-poll", "remote_apply"].iter().zip(&took) {
        findings.latencies.push(latencies(&scenario, of, &took.all));
    }
    Ok(())
}

/// While commands flow at 30 % of the full rate. Writes start at a fixed rate. A late write delays
/// no other, and its lateness counts.
async fn loaded(
    stage: &BenchStage,
    settings: &BenchSettings,
    rtt: Duration,
    findings: &mut ScenarioFindings,
) -> Result<()> {
    let full = flow(stage, settings.turn()).await?;
    let rate = full.published_per_second.min(full.applied_per_second) * LOADED;
    let worker = stage.worker(Applier::Functions, "bench")?;
    let producer = stage.producer("away", "bench").await?;
    producer.outcome_within(CommandId::now(), PATIENCE).await?;
    let home = stage.producer("home", "bench").await?;
    let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = tokio::spawn(publish_at(home, rate, Arc::clone(&stop), Arc::clone(&published)));
    at_a_fixed_rate(&producer, WARM_UP).await?;
    published.store(0, Ordering::Relaxed);
    let began = Instant::now();
    let mut took = Took::new();
    for _ in settings.rounds() {
        took.add(at_a_fixed_rate(&producer, settings.turn()).await?)?;
    }
    let published_per_second =
        published.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    load.await??;
    worker.stop().await?;
    let ms = rtt.as_millis();
    let part = published_per_second / (rate / LOADED) * 100.0;
    let name = |what: &str| format!("{what}, {ms} ms RTT, at {part:.0} % of flow");
    findings.rows.push(row(NAME, name("p50"), "ms", &took.p50_ms));
    let p99_ms = Samples::whole(quantile_ms(&took.all, 0.99));
    findings.rows.push(row(NAME, name("p99"), "ms", &p99_ms));
    findings.latencies.push(latencies(
        &format!("write, {ms} ms RTT"),
        "farwrite, under load",
        &took.all,
    ));
    Ok(())
}

/// From the moment at which each was due.
async fn at_a_fixed_rate(producer: &Producer, duration: Duration) -> Result<Vec<Duration>> {
    let mut writes = JoinSet::new();
    let mut puts = Puts::of(SMALL);
    let (began, mut due) = (Instant::now(), Instant::now());
    while began.elapsed() < duration {
        let (producer, put, was_due) = (producer.clone(), puts.next(), due);
        writes.spawn(async move {
            producer.write(&put).await?;
            anyhow::Ok(was_due.elapsed())
        });
        due += EVERY;
        tokio::time::sleep_until(due).await;
    }
    let mut took = Vec::new();
    while let Some(done) = writes.join_next().await {
        took.push(done??);
    }
    Ok(took)
}

/// Publishes so many a second, in small groups.
async fn publish_at(
    producer: Producer,
    rate: f64,
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
) -> Result<()> {
    const GROUP_EVERY: Duration = Duration::from_millis(5);
    let mut puts = Puts::of(SMALL);
    let mut publishes = JoinSet::new();
    let (began, mut sent) = (Instant::now(), 0_u64);
    let mut ticks = tokio::time::interval(GROUP_EVERY);
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let due = (began.elapsed().as_secs_f64() * rate) as u64;
        while sent < due {
            let publish = producer.publish(&puts.next());
            let published = Arc::clone(&published);
            publishes.spawn(async move {
                publish.await?;
                published.fetch_add(1, Ordering::Relaxed);
                anyhow::Ok(())
            });
            sent += 1;
        }
        while let Some(done) = publishes.try_join_next() {
            done??;
        }
    }
    while let Some(done) = publishes.join_next().await {
        done??;
    }
    Ok(())
}
