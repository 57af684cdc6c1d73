//! What a scenario runs on: real servers, databases with the benchmark's app, and workers.

use std::{net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use farwrite_devstack::{Devstack, DevstackBuilder, Postgres, Program};
use farwrite_primary_worker::Config;
use farwrite_producer::{Limits, Producer, ReadsFrom};
use sqlx::PgConnection;
use tokio::time::Instant;

use crate::kit::{free_address, program, quantile, run_to_end, total};

/// How long anything may take that must happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// Commands that a worker settled, by outcome.
const SETTLED: &str = "farwrite_worker_commands_total";
/// From a batch's first statement to its commit.
const APPLY: &str = "farwrite_worker_apply_seconds";
/// Room for a million commands of two kilobytes.
const STREAM_MAX_BYTES: &str = "8589934592";

/// Which worker applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applier {
    /// `farwrite worker`, with functions of the database.
    Functions,
    /// `bench-worker`, with a handler in Rust.
    Rust,
}

impl Applier {
    const fn program(self) -> &'static str {
        match self {
            Self::Functions => "farwrite",
            Self::Rust => "bench-worker",
        }
    }
}

/// Servers, and the programs that were built beside this one.
pub(super) struct BenchStage {
    pub(super) stack: Devstack,
    worker: PathBuf,
    bench_worker: PathBuf,
}

impl BenchStage {
    pub(super) async fn set(builder: DevstackBuilder) -> Result<Self> {
        // A missing program should not cost the start of a stack.
        let worker = program(Applier::Functions.program())?;
        let bench_worker = program(Applier::Rust.program())?;
        Ok(Self { stack: builder.start().await?, worker, bench_worker })
    }

    /// A database with Farwrite's schema, its stream, and the benchmark's app.
    pub(super) async fn database(&self, name: &str) -> Result<()> {
        let primary = self.stack.primary();
        primary.create_database(name).await?;
        let mut command = self.command(Applier::Functions, "migrate", name);
        command.args(["--stream-max-bytes", STREAM_MAX_BYTES]);
        run_to_end(&self.stack, command, "migrate", PATIENCE).await?;
        primary.execute(name, include_str!("../../bench/app.sql")).await?;
        for region in &self.stack.regions()[1..] {
            self.stack.replica(region)?.wait_caught_up(primary, PATIENCE).await?;
        }
        Ok(())
    }

    fn command(&self, applier: Applier, subcommand: &str, database: &str) -> Command {
        let program = if applier == Applier::Rust { &self.bench_worker } else { &self.worker };
        let mut command = Command::new(program);
        command.args(["worker", subcommand, "--database", database]);
        command.args(["--database-url", &self.stack.primary().url(database)]);
        command.args(["--nats-url", &self.stack.nats().url()]);
        command
    }

    /// Starts a worker with its defaults. The environment does not change those that the report
    /// names.
    pub(super) fn worker(&self, applier: Applier, database: &str) -> Result<BenchWorker> {
        let metrics = free_address()?;
        let mut command = self.command(applier, "run", database);
        command.args(["--metrics-addr", &metrics.to_string()]);
        command.args(["--lanes", &Config::LANES.to_string()]);
        command.args(["--batch-max-commands", &Config::BATCH_MAX_COMMANDS.to_string()]);
        Ok(BenchWorker { program: self.stack.spawn(command, applier.program())?, metrics })
    }

    /// The producer of an app in a region: beside the broker, or over the region's link.
    pub(super) async fn producer(&self, region: &str, database: &str) -> Result<Producer> {
        let is_home = region == self.stack.primary_region();
        let nats = if is_home { self.stack.nats().url() } else { self.stack.nats_url(region)? };
        let builder = Producer::builder(database.parse()?, region.parse()?)
            .nats_url(nats)
            .limits(Limits::default().timeout(PATIENCE));
        let builder = match self.stack.replica(region) {
            Ok(replica) => builder.reads(ReadsFrom::replica(replica.url(database))),
            Err(_) => builder.reads(ReadsFrom::primary(self.stack.primary().url(database))),
        };
        builder.connect().await.with_context(|| format!("the app of {region}"))
    }

    pub(super) fn primary(&self) -> &Postgres {
        self.stack.primary()
    }

    pub(super) async fn connect(&self, database: &str) -> Result<PgConnection> {
        self.stack.primary().connect(database).await
    }

    /// How many puts all appliers have applied together.
    pub(super) async fn puts(&self, database: &str) -> Result<u64> {
        let mut connection = self.connect(database).await?;
        let puts: i64 = sqlx::query_scalar("SELECT coalesce(sum(n), 0)::bigint FROM bench.items")
            .fetch_one(&mut connection)
            .await?;
        Ok(puts.unsigned_abs())
    }

    pub(super) async fn strike(self) -> Result<()> {
        self.stack.shutdown().await
    }
}

/// A worker that runs.
pub(super) struct BenchWorker {
    program: Program,
    metrics: SocketAddr,
}

impl BenchWorker {
    /// Waits until the worker serves its metrics.
    pub(super) async fn tells(&self) -> Result<()> {
        let began = Instant::now();
        while self.settled().await.is_err() {
            self.check()?;
            ensure!(began.elapsed() < PATIENCE, "the worker tells nothing\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Commands that it has settled.
    pub(super) async fn settled(&self) -> Result<u64> {
        total(self.metrics, SETTLED).await
    }

    /// Milliseconds from a batch's first statement to its commit, of late: the median.
    pub(super) async fn apply_p50_ms(&self) -> Result<f64> {
        let seconds = quantile(self.metrics, APPLY, "0.5").await?;
        Ok(seconds.context("the worker has applied nothing")? * 1e3)
    }

    /// The most memory that it has had in use.
    pub(super) fn peak_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.program.pid()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
        Ok(kibibytes.context("VmHWM in /proc/pid/status")?.parse::<u64>()? * 1_024)
    }

    /// Seconds of a processor that it has used.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.program.pid())
    }

    pub(super) fn check(&self) -> Result<()> {
        let status = self.program.status()?;
        ensure!(status.is_none(), "the worker ended\n{}", self.log());
        Ok(())
    }

    pub(super) fn log(&self) -> String {
        self.program.log_tail()
    }

    pub(super) async fn stop(self) -> Result<()> {
        let status = self.program.terminate(PATIENCE).await?;
        ensure!(status.success(), "the worker ended with {status}\n{}", self.log());
        Ok(())
    }
}

/// Memory that a process has in use.
pub(super) fn resident_bytes(pid: u32) -> Result<u64> {
    const PAGE_BYTES: u64 = 4_096;
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = statm.split_whitespace().nth(1).context("/proc/pid/statm")?.parse()?;
    Ok(pages * PAGE_BYTES)
}

/// Seconds of a processor that a process has used.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/pid/stat")?;
    let ticks = |index| fields.split_whitespace().nth(index)?.parse::<f64>().ok();
    let ticks = ticks(11).zip(ticks(12)).map(|(user, system)| user + system);
    Ok(ticks.context("/proc/pid/stat")? / TICKS_PER_SECOND)
}
