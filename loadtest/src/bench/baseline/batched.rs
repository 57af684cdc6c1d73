//! Batches straight to the primary: what Farwrite's worker would do if it had nothing else to do.
//!
//! A transaction a batch, with a row for each id, by which a repetition is known, and the app's
//! function called for what is new. The rest of a command's cost is what the stream, the fence and
//! the lane's position, the ledger's outcomes, tidying between commands and the answers take. Each
//! connection has keys of its own, or they would deadlock.

use std::time::Duration;

use anyhow::{Result, ensure};
use farwrite_devstack::Postgres;
use farwrite_primary_worker::Config;
use sqlx::PgConnection;
use tokio::{task::JoinSet, time::Instant};
use uuid::Uuid;

use crate::bench::put::Puts;

/// Connections that are open, and what each puts.
pub(in crate::bench) struct Batched(Vec<(PgConnection, Puts)>);

impl Batched {
    pub(in crate::bench) async fn connect(
        primary: &Postgres,
        database: &str,
        connections: u32,
        body_bytes: usize,
    ) -> Result<Self> {
        let mut open = Vec::new();
        for number in 0..connections {
            let puts = Puts::of(body_bytes).share(number, connections);
            open.push((primary.connect(database).await?, puts));
        }
        Ok(Self(open))
    }

    /// Puts on all of them for so long; how many a second.
    pub(in crate::bench) async fn run(&mut self, duration: Duration) -> Result<f64> {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for (mut connection, mut puts) in self.0.drain(..) {
            tasks.spawn(async move {
                let mut done = 0;
                while began.elapsed() < duration {
                    done += apply(&mut connection, &mut puts).await?;
                }
                anyhow::Ok((connection, puts, done))
            });
        }
        let mut total = 0;
        while let Some(done) = tasks.join_next().await {
            let (connection, puts, done) = done??;
            self.0.push((connection, puts));
            total += done;
        }
        Ok(total as f64 / began.elapsed().as_secs_f64())
    }
}

/// One batch, as many commands as in the worker's; how many were applied.
async fn apply(connection: &mut PgConnection, puts: &mut Puts) -> Result<i64> {
    let ids: Vec<Uuid> = (0..Config::BATCH_MAX_COMMANDS).map(|_| Uuid::now_v7()).collect();
    let bodies = ids.iter().map(|_| serde_json::to_string(&puts.next()));
    let bodies = bodies.collect::<Result<Vec<_>, _>>()?;
    let applied: i64 = sqlx::query_scalar(
        "WITH new AS (
             INSERT INTO bench.seen SELECT unnest($1) ON CONFLICT DO NOTHING RETURNING id
         )
         SELECT count(bench.put(body::jsonb)) FROM unnest($1, $2) AS u (id, body) JOIN new USING (id)",
    )
    .bind(&ids)
    .bind(bodies)
    .fetch_one(connection)
    .await?;
    ensure!(usize::try_from(applied)? == ids.len(), "{applied} of {} were applied", ids.len());
    Ok(applied)
}
