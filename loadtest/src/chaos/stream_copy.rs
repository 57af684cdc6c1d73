//! A copy of the stream: what was stored, in which order, before it was trimmed. The copy's reader
//! shares nothing with the worker's.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, DeliverPolicy, pull},
};
use futures_util::StreamExt;
use tokio::{sync::Mutex, task::JoinHandle, time::timeout};
use uuid::Uuid;

use super::{
    app::{DATABASE, PATIENCE},
    stage::ChaosStage,
};

/// Id and key of each message, by sequence.
type Messages = BTreeMap<u64, (Uuid, String)>;

pub(super) struct StreamCopy {
    messages: Arc<Mutex<Messages>>,
    reading: JoinHandle<()>,
    context: jetstream::Context,
}

impl StreamCopy {
    pub(super) async fn begin(stage: &ChaosStage) -> Result<Self> {
        let client = async_nats::connect(stage.stack.nats().url()).await?;
        let context = jetstream::new(client);
        let messages = Arc::default();
        let reading = tokio::spawn(read(context.clone(), Arc::clone(&messages)));
        Ok(Self { messages, reading, context })
    }

    /// Everything up to the stream's end.
    pub(super) async fn finish(self) -> Result<Messages> {
        let name = format!("farwrite-{DATABASE}");
        let last = self.context.get_stream(&name).await?.cached_info().state.last_sequence;
        let copied = async {
            while self.messages.lock().await.last_key_value().is_none_or(|(key, _)| *key < last) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, copied).await.context("the stream was not copied to its end")?;
        self.reading.abort();
        let messages = std::mem::take(&mut *self.messages.lock().await);
        ensure!(messages.last_key_value().is_some_and(|(key, _)| *key == last), "copied too much");
        Ok(messages)
    }
}

/// Reads for ever, from where it was.
async fn read(context: jetstream::Context, messages: Arc<Mutex<Messages>>) {
    loop {
        let next = messages.lock().await.last_key_value().map_or(1, |(key, _)| key + 1);
        // After any error the reading begins anew.
        let _ = read_from(&context, next, &messages).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn read_from(
    context: &jetstream::Context,
    start_sequence: u64,
    messages: &Mutex<Messages>,
) -> Result<()> {
    let stream = context.get_stream(format!("farwrite-{DATABASE}")).await?;
    let consumer = stream
        .create_consumer(pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence },
            ack_policy: AckPolicy::None,
            memory_storage: true,
            ..pull::Config::default()
        })
        .await?;
    loop {
        let mut batch = consumer.fetch().max_messages(500).messages().await?;
        let mut is_empty = true;
        while let Some(message) = timeout(Duration::from_secs(2), batch.next()).await? {
            let message = message.map_err(anyhow::Error::from_boxed)?;
            let sequence = message.info().map_err(anyhow::Error::from_boxed)?.stream_sequence;
            let header = |name: &str| message.headers.as_ref()?.get(name).map(|v| v.to_string());
            let id = header("Nats-Msg-Id").context("no id")?.parse()?;
            let key = header("Farwrite-Key").unwrap_or_default();
            messages.lock().await.insert(sequence, (id, key));
            is_empty = false;
        }
        if is_empty {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
