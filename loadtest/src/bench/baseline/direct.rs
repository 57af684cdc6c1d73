//! Straight to the primary, on connections that are held: one prepared upsert a transaction, or a
//! batch.
//!
//! PostgreSQL's own way to read one's writes is a synchronous replica that applies before the
//! commit returns.

use std::time::Duration;

use anyhow::{Context, Result};
use farwrite_devstack::Postgres;
use sqlx::{Connection, PgConnection};
use tokio::{task::JoinSet, time::Instant};

use super::batched;
use crate::bench::put::Puts;

/// What a transaction holds.
#[derive(Clone, Copy)]
pub(in crate::bench) enum Transaction {
    /// One prepared upsert.
    Upsert,
    /// A batch of commands (`batched`). Each connection has keys of its own, or they would deadlock.
    Batch,
}

/// Connections that are open and warm, and what each puts.
pub(in crate::bench) struct Direct {
    connections: Vec<(PgConnection, Puts)>,
    transaction: Transaction,
}

impl Direct {
    pub(in crate::bench) async fn connect(
        primary: &Postgres,
        database: &str,
        connections: u32,
        body_bytes: usize,
        transaction: Transaction,
    ) -> Result<Self> {
        let mut open = Vec::new();
        for number in 0..connections {
            let mut connection = primary.connect(database).await?;
            let puts = Puts::of(body_bytes);
            let mut puts = match transaction {
                Transaction::Upsert => puts,
                Transaction::Batch => puts.share(number, connections),
            };
            puts.next().store(&mut connection).await?;
            open.push((connection, puts));
        }
        Ok(Self { connections: open, transaction })
    }

    /// Upserts on all of them for so long; how many a second.
    pub(in crate::bench) async fn run(&mut self, duration: Duration) -> Result<f64> {
        let began = Instant::now();
        let transaction = self.transaction;
        let mut tasks = JoinSet::new();
        for (mut connection, mut puts) in self.connections.drain(..) {
            tasks.spawn(async move {
                let mut done = 0_u64;
                while began.elapsed() < duration {
                    done += match transaction {
                        Transaction::Upsert => {
                            puts.next().store(&mut connection).await?;
                            1
                        }
                        Transaction::Batch => batched::apply(&mut connection, &mut puts).await?,
                    };
                }
                anyhow::Ok((connection, puts, done))
            });
        }
        let mut total = 0;
        while let Some(done) = tasks.join_next().await {
            let (connection, puts, done) = done??;
            self.connections.push((connection, puts));
            total += done;
        }
        Ok(total as f64 / began.elapsed().as_secs_f64())
    }
}

/// A region's app on a connection to the primary, whose commits wait for its replica.
///
/// Only this session waits for the replica.
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
