//! What a worker that goes on from a sequence will refuse for the age of its id: counted before an
//! operator adopts the stream. Only headers are read.

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::Stream,
};
use farwrite_schemas::{CommandId, headers};
use futures_util::StreamExt;

use super::error::StreamError;

/// Messages pulled at once.
const PULL: usize = 1_000;

/// How many messages from a sequence on have an id below the horizon, and the first and the last of
/// their sequences; `None` for none.
pub(crate) async fn too_old(
    stream: &Stream,
    from: u64,
    horizon_ms: i64,
) -> Result<Option<(u64, u64, u64)>, StreamError> {
    let state = &stream.cached_info().state;
    let (name, last) = (stream.cached_info().config.name.clone(), state.last_sequence);
    if horizon_ms == 0 || state.messages == 0 || from > last {
        return Ok(None);
    }
    let failed = |error: &dyn std::fmt::Display| StreamError::JetStream {
        stream: name.clone(),
        reason: error.to_string(),
    };
    let consumer = stream
        .create_consumer(pull::Config {
            name: Some(format!("farwrite-forecast-{}", uuid::Uuid::new_v4())),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
            ack_policy: AckPolicy::None,
            headers_only: true,
            memory_storage: true,
            ..pull::Config::default()
        })
        .await
        .map_err(|error| failed(&error))?;
    let mut found: Option<(u64, u64, u64)> = None;
    let mut at = from.saturating_sub(1);
    while at < last {
        let batch = consumer.fetch().max_messages(PULL).messages().await;
        let mut batch = batch.map_err(|error| failed(&error))?;
        let before = at;
        while let Some(message) = batch.next().await {
            let message = message.map_err(|error| failed(&error))?;
            at = message.info().map_err(|error| failed(&error))?.stream_sequence;
            let id = message.headers.as_ref().and_then(|all| all.get(headers::COMMAND_ID));
            let id = id.and_then(|id| id.as_str().parse::<CommandId>().ok());
            let ms = id.and_then(CommandId::unix_ms);
            if ms.is_some_and(|ms| i128::from(ms) < i128::from(horizon_ms)) {
                let (count, first, _) = found.unwrap_or((0, at, at));
                found = Some((count + 1, first, at));
            }
        }
        // The stream's end may have been purged meanwhile.
        if at == before {
            break;
        }
    }
    Ok(found)
}
