//! Batches from a stream: a worker that keeps a row for each id and gives none of Farwrite's other
//! promises. It looks at nothing but the key and the id. The difference to Farwrite's figure is the
//! cost of Farwrite.
//!
//! A message goes to one of as many connections as there are lanes, by its key; otherwise batches
//! would deadlock.

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{
    self, Message,
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream,
};
use bytes::Bytes;
use farwrite_devstack::Devstack;
use farwrite_primary_worker::Config;
use farwrite_schemas::headers;
use futures_util::StreamExt;
use sqlx::PgConnection;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use uuid::Uuid;

use super::{batched, queue};
use crate::bench::{
    fill::{Filling, fill},
    put::Puts,
};

/// Of the stream and of its subject.
const STREAM: &str = "bare";

/// The stream, and connections to what its messages are written to.
pub(in crate::bench) struct FromStream {
    stream: stream::Stream,
    context: jetstream::Context,
    connections: Vec<PgConnection>,
    body_bytes: usize,
}

impl FromStream {
    pub(in crate::bench) async fn set(
        stack: &Devstack,
        database: &str,
        body_bytes: usize,
    ) -> Result<Self> {
        let (context, stream) = queue::make(stack, STREAM).await?;
        let mut connections = Vec::new();
        for _ in 0..Config::LANES {
            connections.push(stack.primary().connect(database).await?);
        }
        Ok(Self { stream, context, connections, body_bytes })
    }

    /// Fills the stream with so many, and writes them all; how many a second.
    pub(in crate::bench) async fn run(&mut self, commands: u64) -> Result<f64> {
        let first = self.stream.info().await?.state.last_sequence + 1;
        let mut puts = Puts::of(self.body_bytes);
        let messages = (0..commands).map(|_| {
            let put = puts.next();
            Filling { subject: STREAM.into(), body: put.body(), key: Some(put.key) }
        });
        fill(&self.context, messages).await?;
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: first },
            ack_policy: AckPolicy::None,
            memory_storage: true,
            ..Default::default()
        };
        let consumer = self.stream.create_consumer(config).await?;
        let mut messages = consumer.stream().max_messages_per_batch(1_000).messages().await?;
        let (mut inlets, mut writers) = (Vec::new(), JoinSet::new());
        for connection in self.connections.drain(..) {
            let (inlet, queue) = mpsc::channel(2 * Config::BATCH_MAX_COMMANDS);
            inlets.push(inlet);
            writers.spawn(write(connection, queue));
        }
        let began = Instant::now();
        for _ in 0..commands {
            let message = messages.next().await.context("the consumer")??;
            let inlet = inlet_of(&message, inlets.len())?;
            if inlets[inlet].send(message).await.is_err() {
                break; // The writer says why.
            }
        }
        drop(inlets);
        let mut written = 0;
        while let Some(writer) = writers.join_next().await {
            let (connection, wrote) = writer??;
            self.connections.push(connection);
            written += wrote;
        }
        let took = began.elapsed();
        ensure!(written == commands, "{written} of {commands} were written");
        Ok(commands as f64 / took.as_secs_f64())
    }
}

/// Writes the waiting messages as one batch, until no more come; how many were written.
async fn write(
    mut connection: PgConnection,
    mut queue: mpsc::Receiver<Message>,
) -> Result<(PgConnection, u64)> {
    let (mut batch, mut written) = (Vec::new(), 0);
    while queue.recv_many(&mut batch, Config::BATCH_MAX_COMMANDS).await > 0 {
        let id = |message| Ok(queue::header(message, headers::COMMAND_ID)?.parse()?);
        let ids = batch.iter().map(id);
        let ids = ids.collect::<Result<Vec<Uuid>>>()?;
        let bodies: Vec<&Bytes> = batch.iter().map(|message| &message.payload).collect();
        written += batched::store(&mut connection, &ids, &bodies).await?;
        batch.clear();
    }
    Ok((connection, written))
}

/// The connection that a message goes to.
fn inlet_of(message: &Message, inlets: usize) -> Result<usize> {
    let key = queue::header(message, headers::KEY)?.bytes();
    let hash = key.fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    Ok(hash as usize % inlets)
}
