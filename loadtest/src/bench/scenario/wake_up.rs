//! How long after the replay of a commit its waiters run. One waiter is compared with the loop of
//! 50 ms, on the same commits. A crowd waits for many positions.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use farwrite_devstack::Devstack;
use farwrite_lsn_watcher::{EmbeddedConfig, Watcher};
use tokio::{task::JoinSet, time::Instant};

use super::{
    replay::{CommitWriter, Truth, backend_cpu, lag_us, stack},
    settings::ScenarioFindings,
};
use crate::bench::{
    baseline::PollingLoop,
    measure::{BenchTarget, Samples, against, held, histogram, latencies, quantile_ms, row},
    stage::PATIENCE,
};

const NAME: &str = "wake-up";
/// Commits that one waiter waits for.
const COMMITS: usize = 150;
/// How many wait at once in the crowd, and for each commit.
const CROWD: usize = 10_000;
const EACH: usize = 20;
/// Commits of the crowd: as many wake-ups as make a 99th percentile.
const CROWD_COMMITS: usize = 3_000;
/// The replica holds commits back for this long, and commits come this often on average, so that a
/// crowd gathers.
const HELD_BACK: Duration = Duration::from_millis(1_500);
const COMMIT_EVERY: Duration = Duration::from_millis(3);
/// Without waiters, for so long.
const IDLE: Duration = Duration::from_secs(2);

pub(super) async fn run() -> Result<ScenarioFindings> {
    let stack = stack().await?;
    let mut findings = ScenarioFindings::default();
    alone(&stack, &mut findings).await?;
    crowd(&stack, &mut findings).await?;
    stack.shutdown().await?;
    Ok(findings)
}

async fn alone(stack: &Devstack, findings: &mut ScenarioFindings) -> Result<()> {
    let replica = stack.replica("away")?;
    let (truth, other) = (Truth::of(replica), PollingLoop::start(replica, "postgres").await?);
    let watcher = Watcher::embedded(EmbeddedConfig::new(replica.url("postgres")))?;
    let mut writer = CommitWriter::new(stack.primary()).await?;
    let (mut ours, mut theirs) = (histogram(), histogram());
    for _ in 0..COMMITS {
        let lsn = writer.commit_some_time().await?;
        let waiting = async {
            watcher.wait(lsn, PATIENCE).await?;
            anyhow::Ok(Instant::now())
        };
        let (our, their) = tokio::try_join!(waiting, other.reached(lsn))?;
        let replayed = truth.reached(lsn).await?;
        ours.saturating_record(lag_us(replayed, our));
        theirs.saturating_record(lag_us(replayed, their));
    }
    let p50 = |took| Samples::whole(quantile_ms(took, 0.5));
    let (our, their) = (p50(&ours), p50(&theirs));
    let row = row(NAME, "p50, one waiter", "ms", &our);
    let target = Some(BenchTarget::RatioAtMost(0.05));
    findings.rows.push(against(row, &our, "loop of 50 ms", &their, target));
    findings.latencies.push(latencies(NAME, "farwrite, one waiter", &ours));
    findings.latencies.push(latencies(NAME, "loop of 50 ms", &theirs));
    watcher.shutdown().await;
    Ok(())
}

async fn crowd(stack: &Devstack, findings: &mut ScenarioFindings) -> Result<()> {
    let replica = stack.replica("away")?;
    let held_back =
        format!("ALTER SYSTEM SET recovery_min_apply_delay = {}", HELD_BACK.as_millis());
    replica.execute("postgres", &held_back).await?;
    replica.execute("postgres", "SELECT pg_reload_conf()").await?;
    let truth = Truth::of(replica);
    let config = EmbeddedConfig::new(replica.url("postgres")).max_waiters(2 * CROWD);
    let watcher = Watcher::embedded(config)?;
    let mut writer = CommitWriter::new(stack.primary()).await?;
    // The first wait connects.
    watcher.wait(writer.commit().await?, PATIENCE).await?;
    let (began, cpu, polls) = (Instant::now(), backend_cpu(replica).await?, watcher.polls());
    let (mut tasks, mut most) = (JoinSet::new(), 0);
    let (mut random, mut due) = (fastrand::Rng::new(), Instant::now());
    for _ in 0..CROWD_COMMITS {
        // The moments keep no step with any loop.
        due += COMMIT_EVERY.mul_f64(random.f64() * 2.0);
        tokio::time::sleep_until(due).await;
        let lsn = writer.commit().await?;
        for _ in 0..EACH {
            let watcher = watcher.clone();
            tasks.spawn(async move {
                watcher.wait(lsn, PATIENCE).await?;
                anyhow::Ok((lsn, Instant::now()))
            });
        }
        most = most.max(watcher.waiters());
    }
    let mut woken = Vec::new();
    while let Some(done) = tasks.join_next().await {
        woken.push(done??);
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu = (backend_cpu(replica).await? - cpu) / seconds * 100.0;
    let polls_per_second = (watcher.polls() - polls) as f64 / seconds;
    ensure!(watcher.waiters() == 0, "{} waiters are left", watcher.waiters());
    let mut took = histogram();
    for (lsn, at) in woken {
        took.saturating_record(lag_us(truth.reached(lsn).await?, at));
    }
    drop(truth);
    // No waiter is left; a poll that was due may still come.
    tokio::time::sleep(IDLE / 4).await;
    let before = watcher.polls();
    tokio::time::sleep(IDLE).await;
    let idle = watcher.polls() - before;
    watcher.shutdown().await;
    let most = u32::try_from(most).context("waiters")?;
    let whole = |value| Samples::whole(value);
    let (p50, p99) = (whole(quantile_ms(&took, 0.5)), whole(quantile_ms(&took, 0.99)));
    let name = |what: &str| format!("{what}, up to {most} waiters, {} positions", CROWD_COMMITS);
    let rows = &mut findings.rows;
    rows.push(held(row(NAME, name("p50"), "ms", &p50), &p50, BenchTarget::AtMost(0.8)));
    rows.push(held(row(NAME, name("p99"), "ms", &p99), &p99, BenchTarget::AtMost(2.5)));
    let cpu = whole(cpu);
    let measure = format!("of one processor on the replica, {polls_per_second:.0} polls/s");
    rows.push(held(row(NAME, measure, "%", &cpu), &cpu, BenchTarget::AtMost(5.0)));
    let idle = whole(idle as f64);
    let measure = format!("in {} s without waiters", IDLE.as_secs());
    rows.push(held(row(NAME, measure, "polls", &idle), &idle, BenchTarget::AtMost(0.0)));
    findings.latencies.push(latencies(NAME, &format!("farwrite, {most} waiters"), &took));
    Ok(())
}
