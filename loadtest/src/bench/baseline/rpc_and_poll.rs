//! The way of fly_postgres, written from its description. A request goes to the primary's region,
//! which runs the statement and asks for the log's position by a second query. A loop beside the
//! replica calls a procedure that looks every 50 ms, and wakes the waiters.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use async_nats::Client;
use farwrite_devstack::{Devstack, Postgres};
use farwrite_schemas::Lsn;
use futures_util::StreamExt;
use sqlx::PgConnection;
use tokio::{sync::Mutex, sync::watch, task::AbortHandle, time::Instant};

use crate::bench::put::{ItemPut, Puts};

/// Where the primary's region is asked.
const SUBJECT: &str = "bench.rpc";

/// The procedure that looks every 50 ms, made on the primary.
pub(in crate::bench) const NEXT_POSITION: &str = "
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
    END $$;";

/// The loop beside the replica: one for everyone, its ticker running freely.
pub(in crate::bench) struct PollingLoop {
    seen: watch::Receiver<(Lsn, Option<Instant>)>,
    task: AbortHandle,
}

impl Drop for PollingLoop {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PollingLoop {
    /// `database` has [`NEXT_POSITION`].
    pub(in crate::bench) async fn start(replica: &Postgres, database: &str) -> Result<Self> {
        let mut connection = replica.connect(database).await?;
        let (tell, seen) = watch::channel((Lsn::default(), None));
        let task = tokio::spawn(async move {
            let mut known: Option<String> = None;
            loop {
                let next = sqlx::query_scalar("SELECT next_position($1, 2)").bind(&known);
                match next.fetch_one(&mut connection).await {
                    Ok(Some(next)) => {
                        let next: String = next;
                        let Ok(lsn) = next.parse() else { return };
                        tell.send_replace((lsn, Some(Instant::now())));
                        known = Some(next);
                    }
                    Ok(None) => {}
                    // The closed channel tells the waiters.
                    Err(_) => return,
                }
            }
        });
        Ok(Self { seen, task: task.abort_handle() })
    }

    /// When the loop told of a position.
    pub(in crate::bench) async fn reached(&self, lsn: Lsn) -> Result<Instant> {
        let mut seen = self.seen.clone();
        let (_, at) = *seen.wait_for(|(seen, _)| *seen >= lsn).await.context("the polling loop")?;
        at.context("a position without a time")
    }
}

/// An app in a region that calls the primary's region and waits for its replica.
pub(in crate::bench) struct RpcAndPoll {
    client: Client,
    polling: PollingLoop,
    puts: Puts,
    server: AbortHandle,
}

impl Drop for RpcAndPoll {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl RpcAndPoll {
    pub(in crate::bench) async fn set(
        stack: &Devstack,
        region: &str,
        database: &str,
        body_bytes: usize,
    ) -> Result<Self> {
        let server = tokio::spawn(serve(
            async_nats::connect(stack.nats().url()).await?,
            stack.primary().connect(database).await?,
        ));
        let client = async_nats::connect(stack.nats_url(region)?).await?;
        let polling = PollingLoop::start(stack.replica(region)?, database).await?;
        let server = server.abort_handle();
        let mut this = Self { client, polling, puts: Puts::of(body_bytes), server };
        // The server's subscription may not be there for the first.
        while this.write().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(this)
    }

    /// One upsert; it is visible on the replica when this returns.
    pub(in crate::bench) async fn write(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let body = serde_json::to_vec(&self.puts.next())?;
        let answer = self.client.request(SUBJECT, body.into()).await?;
        let lsn: Lsn = std::str::from_utf8(&answer.payload)?.parse()?;
        self.polling.reached(lsn).await?;
        Ok(began.elapsed())
    }
}

/// Beside the primary: the statement, then the position.
async fn serve(client: Client, connection: PgConnection) -> Result<()> {
    let mut requests = client.subscribe(SUBJECT).await?;
    let connection = Arc::new(Mutex::new(connection));
    while let Some(request) = requests.next().await {
        let put: ItemPut = serde_json::from_slice(&request.payload)?;
        let mut connection = connection.lock().await;
        put.store(&mut connection).await?;
        let lsn: String = sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text")
            .fetch_one(&mut *connection)
            .await?;
        let reply = request.reply.context("a request without a reply subject")?;
        client.publish(reply, lsn.into()).await?;
    }
    Ok(())
}
