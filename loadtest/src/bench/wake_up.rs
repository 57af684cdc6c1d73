//! How long after a replica has replayed a commit its waiters are woken: Farwrite's watcher and the
//! way of fly_postgres, side by side, on the same commits.
//!
//! When the replica has really replayed it, a third connection tells that asks all the time. The
//! other way is written from its description: a procedure on the replica that looks every 50 ms
//! whether the position has changed and then returns it, called in a loop.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use farwrite_devstack::{Devstack, Postgres};
use farwrite_lsn_watcher::{EmbeddedConfig, Pace, Watcher};
use farwrite_schemas::Lsn;
use sqlx::PgConnection;
use tokio::{sync::watch, task::AbortHandle, time::Instant};

use super::quantile;

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A loop on the replica that looks every 50 ms.
const PROCEDURE: &str = "
    CREATE FUNCTION next_position(known text, patience float8) RETURNS text LANGUAGE plpgsql AS $$
    DECLARE
        waited float8 := 0;
    BEGIN
        WHILE waited <= patience LOOP
            IF known IS NULL OR pg_last_wal_replay_lsn() > known::pg_lsn THEN
                RETURN pg_last_wal_replay_lsn()::text;
            END IF;
            PERFORM pg_sleep(0.05);
            waited := waited + 0.05;
        END LOOP;
        RETURN NULL;
    END $$;
    CREATE TABLE commits (n serial);";

/// Microseconds from the replay to the wake-up.
#[derive(Clone, Copy, Debug)]
pub struct WakeUpReport {
    /// How many commits were waited for.
    pub commits: usize,
    /// Farwrite's watcher: median, 95th and 99th percentile.
    pub ours: [f64; 3],
    /// The loop of 50 ms.
    pub loop_50_ms: [f64; 3],
}

/// What one pace costs and brings.
#[derive(Clone, Copy, Debug)]
pub struct PaceReport {
    /// The interval between two polls.
    pub interval: Duration,
    /// Polls a second while somebody waits.
    pub polls_per_second: f64,
    /// Of one core, what the replica's backend used, in percent.
    pub backend_cpu: f64,
    /// Microseconds from the replay to the wake-up: median, 95th and 99th percentile.
    pub lag: [f64; 3],
}

/// Tells positions as they are seen.
struct Source {
    seen: watch::Receiver<(Lsn, Option<Instant>)>,
    task: AbortHandle,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Source {
    /// When a position was first seen.
    async fn reached(&self, lsn: Lsn) -> Result<Instant> {
        let mut seen = self.seen.clone();
        let (_, at) = *seen.wait_for(|(seen, _)| *seen >= lsn).await?;
        at.context("a position without a time")
    }

    async fn of(replica: &Postgres, way: Way) -> Result<Self> {
        let mut connection = replica.connect("postgres").await?;
        let (tell, seen) = watch::channel((Lsn::default(), None));
        let task = tokio::spawn(async move {
            let mut known = Lsn::default();
            while let Ok(lsn) = way.next(&mut connection, known).await {
                known = lsn;
                tell.send_replace((lsn, Some(Instant::now())));
            }
        });
        Ok(Self { seen, task: task.abort_handle() })
    }
}

/// How positions are seen.
#[derive(Clone, Copy)]
enum Way {
    /// By asking all the time.
    Asking,
    /// By calling the procedure.
    Calling,
}

impl Way {
    /// The next position after one.
    async fn next(self, connection: &mut PgConnection, known: Lsn) -> Result<Lsn> {
        loop {
            match self {
                Self::Asking => {
                    let lsn = position(connection, "SELECT pg_last_wal_replay_lsn()::text").await?;
                    if lsn > known {
                        return Ok(lsn);
                    }
                }
                Self::Calling => {
                    let next: Option<String> = sqlx::query_scalar("SELECT next_position($1, 2)")
                        .bind((known > Lsn::default()).then(|| known.to_string()))
                        .fetch_one(&mut *connection)
                        .await?;
                    if let Some(next) = next {
                        return Ok(next.parse()?);
                    }
                }
            }
        }
    }
}

async fn position(connection: &mut PgConnection, sql: &'static str) -> Result<Lsn> {
    let text: String = sqlx::query_scalar(sql).fetch_one(connection).await?;
    Ok(text.parse()?)
}

/// An app that commits on the primary, at moments that have nothing to do with anybody's loop.
struct Writer {
    connection: PgConnection,
    random: fastrand::Rng,
}

impl Writer {
    async fn new(primary: &Postgres) -> Result<Self> {
        let connection = primary.connect("postgres").await?;
        Ok(Self { connection, random: fastrand::Rng::new() })
    }

    async fn commit(&mut self) -> Result<Lsn> {
        tokio::time::sleep(Duration::from_micros(self.random.u64(20_000..120_000))).await;
        sqlx::query("INSERT INTO commits DEFAULT VALUES").execute(&mut self.connection).await?;
        position(&mut self.connection, "SELECT pg_current_wal_flush_lsn()::text").await
    }
}

async fn stack() -> Result<Devstack> {
    let stack = Devstack::builder().regions(["home", "away"]).start().await?;
    stack.primary().execute("postgres", PROCEDURE).await?;
    stack.replica("away")?.wait_caught_up(stack.primary(), PATIENCE).await?;
    Ok(stack)
}

fn quantiles(mut lags: Vec<Duration>) -> [f64; 3] {
    lags.sort();
    [0.5, 0.95, 0.99].map(|part| quantile(&lags, part))
}

/// Measures both ways on the same commits.
///
/// # Errors
/// When a server does not start or answer.
pub async fn run(commits: usize) -> Result<WakeUpReport> {
    let stack = stack().await?;
    let replica = stack.replica("away")?;
    let (truth, other) =
        (Source::of(replica, Way::Asking).await?, Source::of(replica, Way::Calling).await?);
    let watcher = Watcher::embedded(EmbeddedConfig::new(replica.url("postgres")))?;
    let mut writer = Writer::new(stack.primary()).await?;
    let (mut ours, mut loop_50_ms) = (Vec::new(), Vec::new());
    for _ in 0..commits {
        let lsn = writer.commit().await?;
        let waiting = async {
            watcher.wait(lsn, PATIENCE).await?;
            anyhow::Ok(Instant::now())
        };
        let (replayed, our, their) =
            tokio::try_join!(truth.reached(lsn), waiting, other.reached(lsn))?;
        ours.push(our.saturating_duration_since(replayed));
        loop_50_ms.push(their.saturating_duration_since(replayed));
    }
    drop((truth, other, watcher));
    stack.shutdown().await?;
    Ok(WakeUpReport { commits, ours: quantiles(ours), loop_50_ms: quantiles(loop_50_ms) })
}

/// Measures what each of some paces costs, and how soon it tells.
///
/// # Errors
/// When a server does not start or answer, or a pace is not allowed.
pub async fn paces(intervals: &[Duration], commits: usize) -> Result<Vec<PaceReport>> {
    let stack = stack().await?;
    let replica = stack.replica("away")?;
    let mut reports = Vec::new();
    for interval in intervals.iter().copied() {
        let pace = Pace { eager: interval, calm: interval, patient: interval, ..Pace::default() };
        let config = EmbeddedConfig { pace, ..EmbeddedConfig::new(replica.url("postgres")) };
        let watcher = Watcher::embedded(config)?;
        // Somebody always waits, so that it always polls; the cost is measured by itself.
        let waiting = Arc::new(watcher.clone());
        let always = tokio::spawn(async move { waiting.wait(Lsn(u64::MAX), PATIENCE * 60).await });
        let (cpu, polls, began) = (backend_cpu(replica).await?, watcher.polls(), Instant::now());
        tokio::time::sleep(Duration::from_secs(5)).await;
        let seconds = began.elapsed().as_secs_f64();
        let backend_cpu = (backend_cpu(replica).await? - cpu) / seconds * 100.0;
        let polls_per_second = (watcher.polls() - polls) as f64 / seconds;
        let truth = Source::of(replica, Way::Asking).await?;
        let mut writer = Writer::new(stack.primary()).await?;
        let mut lags = Vec::new();
        for _ in 0..commits {
            let lsn = writer.commit().await?;
            let waiting = async {
                watcher.wait(lsn, PATIENCE).await?;
                anyhow::Ok(Instant::now())
            };
            let (replayed, woken) = tokio::try_join!(truth.reached(lsn), waiting)?;
            lags.push(woken.saturating_duration_since(replayed));
        }
        always.abort();
        watcher.shutdown().await;
        let lag = quantiles(lags);
        reports.push(PaceReport { interval, polls_per_second, backend_cpu, lag });
    }
    stack.shutdown().await?;
    Ok(reports)
}

/// Seconds of CPU that the watcher's backend has used.
async fn backend_cpu(replica: &Postgres) -> Result<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let mut connection = replica.connect("postgres").await?;
    let pid: i32 = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'farwrite lsn-watcher'",
    )
    .fetch_one(&mut connection)
    .await
    .context("the watcher's backend")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/pid/stat")?;
    let ticks = |index| fields.split_whitespace().nth(index)?.parse::<f64>().ok();
    let ticks = ticks(11).zip(ticks(12)).map(|(user, system)| user + system);
    Ok(ticks.context("/proc/pid/stat")? / TICKS_PER_SECOND)
}
