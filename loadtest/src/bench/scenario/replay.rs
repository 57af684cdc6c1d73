//! A replica, an app that commits, and an observer that knows when a commit was really replayed.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use farwrite_devstack::{Devstack, Postgres};
use farwrite_schemas::Lsn;
use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

use crate::bench::{
    baseline::NEXT_POSITION,
    stage::{PATIENCE, cpu_seconds},
};

pub(super) async fn stack() -> Result<Devstack> {
    let stack = Devstack::builder().regions(["home", "away"]).start().await?;
    let primary = stack.primary();
    primary.execute("postgres", NEXT_POSITION).await?;
    primary.execute("postgres", "CREATE TABLE commits (n serial)").await?;
    stack.replica("away")?.wait_caught_up(primary, PATIENCE).await?;
    Ok(stack)
}

/// Asks a replica all the time how far it has replayed, on a thread of its own.
pub(super) struct Truth {
    seen: Arc<Mutex<Vec<(Lsn, Instant)>>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Truth {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Truth {
    /// The pause between two questions. Without the pause the observer would take half of a
    /// processor from the measured programs.
    const PAUSE: Duration = Duration::from_micros(50);

    pub(super) fn of(replica: &Postgres) -> Self {
        let (seen, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let this = Self { seen, stop };
        let (seen, stop) = (Arc::clone(&this.seen), Arc::clone(&this.stop));
        let url = replica.url("postgres");
        std::thread::spawn(move || {
            let asking = async {
                let mut connection = PgConnection::connect(&url).await?;
                let mut known = Lsn::default();
                while !stop.load(Ordering::Relaxed) {
                    let lsn =
                        position(&mut connection, "SELECT pg_last_wal_replay_lsn()::text").await?;
                    if lsn > known {
                        known = lsn;
                        seen.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push((lsn, Instant::now()));
                    }
                    std::thread::sleep(Self::PAUSE);
                }
                anyhow::Ok(())
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            // A caller that asks for a moment that was not seen gets an error.
            if let Ok(runtime) = runtime {
                drop(runtime.block_on(asking));
            }
        });
        this
    }

    /// When a position was first seen.
    pub(super) async fn reached(&self, lsn: Lsn) -> Result<Instant> {
        let began = Instant::now();
        loop {
            {
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                let place = seen.partition_point(|(seen, _)| *seen < lsn);
                if let Some((_, at)) = seen.get(place) {
                    return Ok(*at);
                }
            }
            anyhow::ensure!(began.elapsed() < PATIENCE, "{lsn} is never replayed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn position(connection: &mut PgConnection, sql: &'static str) -> Result<Lsn> {
    let text: String = sqlx::query_scalar(sql).fetch_one(connection).await?;
    Ok(text.parse()?)
}

/// An app that commits on the primary.
pub(super) struct CommitWriter {
    connection: PgConnection,
    random: fastrand::Rng,
}

impl CommitWriter {
    pub(super) async fn new(primary: &Postgres) -> Result<Self> {
        let connection = primary.connect("postgres").await?;
        Ok(Self { connection, random: fastrand::Rng::new() })
    }

    /// Commits at a moment that keeps no step with any loop.
    pub(super) async fn commit_some_time(&mut self) -> Result<Lsn> {
        tokio::time::sleep(Duration::from_micros(self.random.u64(20_000..120_000))).await;
        self.commit().await
    }

    pub(super) async fn commit(&mut self) -> Result<Lsn> {
        sqlx::query("INSERT INTO commits DEFAULT VALUES").execute(&mut self.connection).await?;
        position(&mut self.connection, "SELECT pg_current_wal_flush_lsn()::text").await
    }
}

/// Seconds of a processor that the watcher's backend has used.
pub(super) async fn backend_cpu(replica: &Postgres) -> Result<f64> {
    let mut connection = replica.connect("postgres").await?;
    let pid: i32 = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'farwrite watcher'",
    )
    .fetch_one(&mut connection)
    .await
    .context("the watcher's backend")?;
    cpu_seconds(pid.cast_unsigned())
}

/// Microseconds between two moments; none where the second came first.
pub(super) fn lag_us(replayed: Instant, woken: Instant) -> u64 {
    let lag = woken.saturating_duration_since(replayed).as_micros();
    u64::try_from(lag).unwrap_or(u64::MAX)
}
