//! What a waiter weighs: many tasks that wait for a position, beside as many that wait for nothing.
//!
//! Each kind is weighed in a process of its own, by what the system says of its memory. A process
//! keeps freed memory for its next allocation.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use farwrite_devstack::Devstack;
use farwrite_lsn_watcher::{EmbeddedConfig, Watcher};
use farwrite_schemas::Lsn;
use tokio::{task::JoinSet, time::Instant};

use super::settings::ScenarioFindings;
use crate::bench::{
    measure::{BenchTarget, Samples, held, row},
    stage::{PATIENCE, resident_bytes},
};

/// What is weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) enum Weighed {
    /// Tasks that wait for nothing, with a deadline.
    Bare,
    /// Tasks that wait for a position, with a deadline.
    Waiting,
}

impl Weighed {
    /// Both.
    pub(in crate::bench) const ALL: [Self; 2] = [Self::Bare, Self::Waiting];

    /// As the command line says it.
    #[must_use]
    pub(in crate::bench) const fn as_str(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Waiting => "waiting",
        }
    }
}

/// How many wait.
const WAITERS: u64 = 100_000;
/// Repetitions.
const ROUNDS: usize = 3;

/// Weighs both, some times.
pub(super) async fn run() -> Result<ScenarioFindings> {
    let (mut over, mut woken) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        let (bare, _) = child(WAITERS, Weighed::Bare).await?;
        let (waiting, woken_in) = child(WAITERS, Weighed::Waiting).await?;
        over.push(waiting.saturating_sub(bare) as f64);
        woken.push(woken_in.as_secs_f64() * 1e3);
    }
    // A weight is a count and not a time: three that agree are enough.
    let (over, woken) = (Samples::whole(over.median()), Samples::whole(woken.median()));
    let weight = row("waiters", format!("{WAITERS} waiters, each over a bare task"), "B", &over);
    let wake = row("waiters", format!("{WAITERS} waiters, all woken"), "ms", &woken);
    Ok(ScenarioFindings {
        rows: vec![
            held(weight, &over, BenchTarget::AtMost(150.0)),
            held(wake, &woken, BenchTarget::AtMost(150.0)),
        ],
        ..ScenarioFindings::default()
    })
}

async fn child(waiters: u64, what: Weighed) -> Result<(u64, Duration)> {
    let this = std::env::current_exe()?;
    let mut command = Command::new(this);
    let count = waiters.to_string();
    command.args(["bench-weigh", what.as_str(), &count]);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.success(), "weighing {} failed: {err}", what.as_str());
    let mut numbers = out.split_whitespace().map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(bytes)), Some(Ok(us))) => Ok((bytes, Duration::from_micros(us))),
        _ => bail!("weighing {} printed {out:?}", what.as_str()),
    }
}

/// Weighs one kind: bytes of one, and microseconds until all were woken.
///
/// # Errors
/// When a server does not start, or a waiter is not woken, or one is left.
pub(in crate::bench) async fn weigh(waiters: u64, what: Weighed) -> Result<(u64, u64)> {
    let stack = Devstack::builder().regions(["home", "away"]).start().await?;
    let replica = stack.replica("away")?;
    let count = usize::try_from(waiters)?;
    let config = EmbeddedConfig::new(replica.url("postgres")).max_waiters(count);
    let watcher = Watcher::embedded(config)?;
    replica.wait_caught_up(stack.primary(), PATIENCE).await?;
    replica.pause_replay().await?;
    let mut primary = stack.primary().connect("postgres").await?;
    sqlx::query("CREATE TABLE committed ()").execute(&mut primary).await?;
    let text: String = sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text")
        .fetch_one(&mut primary)
        .await?;
    let lsn: Lsn = text.parse()?;
    // The first waiter's own cost is not counted to the others.
    let first = watcher.wait(Lsn(1), PATIENCE).await;
    first.context("the first wait")?;
    let before = resident_bytes(std::process::id())?;
    let mut tasks = JoinSet::new();
    for _ in 0..waiters {
        match what {
            Weighed::Bare => {
                tasks.spawn(async move {
                    tokio::time::timeout(PATIENCE, std::future::pending()).await.unwrap_or(false)
                });
            }
            Weighed::Waiting => {
                let watcher = watcher.clone();
                tasks.spawn(async move { watcher.wait(lsn, PATIENCE).await.is_ok() });
            }
        }
    }
    let expected = if what == Weighed::Waiting { count } else { 0 };
    let began = Instant::now();
    // Bare tasks need a moment to be polled once, too.
    while watcher.waiters() < expected || began.elapsed() < Duration::from_secs(2) {
        ensure!(began.elapsed() < PATIENCE, "{} of {count} wait", watcher.waiters());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let bytes = (resident_bytes(std::process::id())?.saturating_sub(before)) / waiters.max(1);
    let mut woken_us = 0;
    if what == Weighed::Waiting {
        replica.resume_replay().await?;
        let began = Instant::now();
        while let Some(woken) = tasks.join_next().await {
            ensure!(woken?, "a waiter was not woken");
        }
        woken_us = u64::try_from(began.elapsed().as_micros())?;
        ensure!(watcher.waiters() == 0, "{} waiters are left", watcher.waiters());
    }
    tasks.abort_all();
    drop(watcher);
    stack.shutdown().await?;
    Ok((bytes, woken_us))
}
