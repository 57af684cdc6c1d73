//! Filling a stream as fast as the broker takes it: JetStream's atomic batches, one after another.
//!
//! Afterwards the stream holds what producers would have put there.

use anyhow::{Context, Result, bail, ensure};
use async_nats::{HeaderMap, Subject, jetstream, jetstream::response::Response};
use bytes::Bytes;
use farwrite_schemas::{CommandId, headers};
use serde::Deserialize;

/// The server's limit of messages in an atomic batch.
const AT_ONCE: usize = 1_000;

/// A message that is to lie in a stream.
pub(super) struct Filling {
    pub(super) subject: Subject,
    pub(super) key: Option<String>,
    pub(super) body: Bytes,
}

#[derive(Deserialize)]
struct BatchAnswer {
    count: Option<usize>,
}

/// Stores all of them, in their order, each with an id of its own.
pub(super) async fn fill(
    context: &jetstream::Context,
    messages: impl IntoIterator<Item = Filling>,
) -> Result<u64> {
    let client = context.client();
    let mut messages = messages.into_iter().peekable();
    let (mut batch, mut place, mut stored) = (CommandId::now().to_string(), 0_usize, 0_u64);
    while let Some(Filling { subject, key, body }) = messages.next() {
        place += 1;
        let mut map = HeaderMap::new();
        map.insert(headers::COMMAND_ID, CommandId::now().to_string());
        if let Some(key) = key {
            map.insert(headers::KEY, key);
        }
        map.insert("Nats-Batch-Id", batch.as_str());
        map.insert("Nats-Batch-Sequence", place.to_string());
        if place < AT_ONCE && messages.peek().is_some() {
            client.publish_with_headers(subject, map, body).await?;
            continue;
        }
        map.insert("Nats-Batch-Commit", "1");
        let answer = client.request_with_headers(subject, map, body).await?;
        let answer: Response<BatchAnswer> = serde_json::from_slice(&answer.payload)
            .with_context(|| String::from_utf8_lossy(&answer.payload).into_owned())?;
        match answer {
            Response::Ok(BatchAnswer { count }) => {
                ensure!(count == Some(place), "{count:?} stored")
            }
            Response::Err { error } => bail!("the broker refused a batch: {error}"),
        }
        stored += u64::try_from(place)?;
        (batch, place) = (CommandId::now().to_string(), 0);
    }
    Ok(stored)
}
