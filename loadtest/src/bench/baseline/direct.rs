//! Straight to the primary: one prepared upsert a transaction, on connections that are held.
//!
//! The same with a synchronous replica that applies before the commit returns is PostgreSQL's own
//! way to read one's writes.

use std::time::Duration;

use anyhow::{Context, Result};
use farwrite_devstack::Postgres;
use sqlx::{Connection, PgConnection};
use tokio::{task::JoinSet, time::Instant};

use crate::bench::put::Puts;

/// Connections that are open and warm.
pub(in crate::bench) struct Direct {
    connections: Vec<PgConnection>,
    body_bytes: usize,
}

impl Direct {
    pub(in crate::bench) async fn connect(
        primary: &Postgres,
        database: &str,
        connections: usize,
        body_bytes: usize,
    ) -> Result<Self> {
        let mut open = Vec::new();
        for _ in 0..connections {
            let mut connection = primary.connect(database).await?;
            Puts::of(body_bytes).next().store(&mut connection).await?;
            open.push(connection);
        }
        Ok(Self { connections: open, body_bytes })
    }

    /// Upserts on all of them for so long; how many a second.
    pub(in crate::bench) async fn run(&mut self, duration: Duration) -> Result<f64> {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for mut connection in self.connections.drain(..) {
            let mut puts = Puts::of(self.body_bytes);
            tasks.spawn(async move {
                let mut done = 0_u64;
                while began.elapsed() < duration {
                    puts.next().store(&mut connection).await?;
                    done += 1;
                }
                anyhow::Ok((connection, done))
            });
        }
        let mut total = 0;
        while let Some(done) = tasks.join_next().await {
            let (connection, done) = done??;
            self.connections.push(connection);
            total += done;
        }
        Ok(total as f64 / began.elapsed().as_secs_f64())
    }
}

/// A region's app on a connection to the primary, whose commits wait for its replica.
///
/// While it is there, the replica is synchronous; other sessions are not to wait for it.
pub(in crate::bench) struct RemoteApply {
    connection: PgConnection,
    puts: Puts,
}

impl RemoteApply {
    /// `url` leads to the primary over the region's link; the replica is the only one.
    pub(in crate::bench) async fn connect(url: &str, body_bytes: usize) -> Result<Self> {
        let mut connection = PgConnection::connect(url).await.context("the primary")?;
        sqlx::query("SET synchronous_commit = 'remote_apply'").execute(&mut connection).await?;
        let mut this = Self { connection, puts: Puts::of(body_bytes) };
        this.write().await?;
        Ok(this)
    }

    /// One upsert; it is visible on the replica when this returns.
    pub(in crate::bench) async fn write(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.puts.next().store(&mut self.connection).await?;
        Ok(began.elapsed())
    }

    /// Lets commits wait for the standbys, or no longer.
    pub(in crate::bench) async fn synchronous(primary: &Postgres, on: bool) -> Result<()> {
        let names = if on { "*" } else { "" };
        primary
            .execute("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"))
            .await?;
        primary.execute("postgres", "SELECT pg_reload_conf()").await
    }
}
