//! The consumer that a team writes in an afternoon: a durable pull consumer with explicit
//! acknowledgements. Each message has a transaction, with a row by which a repetition is known.
//! Several consumers run at a time.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use async_nats::jetstream::{self, AckKind, Message, consumer::pull};
use farwrite_devstack::Devstack;
use farwrite_schemas::headers;
use futures_util::StreamExt;
use sqlx::{Connection, PgConnection};
use tokio::{sync::Mutex, task::JoinSet, time::Instant};
use uuid::Uuid;

use super::queue;
use crate::bench::{
    fill::{Filling, fill},
    put::{ItemPut, Puts},
};

/// Of the stream and of its subject.
const QUEUE: &str = "afternoon";

/// The queue and its consumers.
pub(in crate::bench) struct OneByOne {
    context: jetstream::Context,
    messages: Arc<Mutex<pull::Stream>>,
    connections: Vec<PgConnection>,
    body_bytes: usize,
}

impl OneByOne {
    /// Makes the queue, and connects so many consumers to a database.
    pub(in crate::bench) async fn set(
        stack: &Devstack,
        database: &str,
        consumers: usize,
        body_bytes: usize,
    ) -> Result<Self> {
        let (context, stream) = queue::make(stack, QUEUE).await?;
        let config = pull::Config {
            durable_name: Some(QUEUE.to_owned()),
            max_ack_pending: 10_000,
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let messages = consumer.stream().max_messages_per_batch(500).messages().await?;
        let mut connections = Vec::new();
        for _ in 0..consumers {
            connections.push(stack.primary().connect(database).await?);
        }
        Ok(Self { context, messages: Arc::new(Mutex::new(messages)), connections, body_bytes })
    }

    /// Fills the queue with so many, and consumes them all; how many a second.
    pub(in crate::bench) async fn run(&mut self, commands: u64) -> Result<f64> {
        let mut puts = Puts::of(self.body_bytes);
        let messages = (0..commands).map(|_| Filling {
            subject: QUEUE.into(),
            key: None,
            body: puts.next().body(),
        });
        fill(&self.context, messages).await?;
        let left = Arc::new(std::sync::atomic::AtomicU64::new(commands));
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for mut connection in self.connections.drain(..) {
            let (messages, left) = (Arc::clone(&self.messages), Arc::clone(&left));
            tasks.spawn(async move {
                use std::sync::atomic::Ordering::Relaxed;
                while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                    let message = messages.lock().await.next().await.context("the consumer")??;
                    apply(&mut connection, &message).await?;
                    message.ack_with(AckKind::Ack).await.map_err(anyhow::Error::from_boxed)?;
                }
                anyhow::Ok(connection)
            });
        }
        while let Some(connection) = tasks.join_next().await {
            self.connections.push(connection??);
        }
        Ok(commands as f64 / began.elapsed().as_secs_f64())
    }
}

async fn apply(connection: &mut PgConnection, message: &Message) -> Result<()> {
    let id: Uuid = queue::header(message, headers::COMMAND_ID)?.parse()?;
    let put: ItemPut = serde_json::from_slice(&message.payload)?;
    let mut transaction = connection.begin().await?;
    let seen = sqlx::query("INSERT INTO bench.seen VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(id)
        .execute(&mut *transaction)
        .await?;
    if seen.rows_affected() == 1 {
        put.store(&mut transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// About how many commands the consumer handles in a time.
pub(in crate::bench) fn commands_for(duration: Duration) -> u64 {
    const ABOUT_PER_SECOND: f64 = 10_000.0;
    (duration.as_secs_f64() * ABOUT_PER_SECOND) as u64
}
