//! Whether the stream is the one whose positions the database holds.
//!
//! A sequence alone proves nothing: a stream that was made again counts from 1, and a store that
//! was put back from an older copy keeps its name and its time of creation and uses sequences a
//! second time. So the database keeps the stream's time of creation, the random id in its
//! metadata, and with each position the time and the id of the message there. All of it is compared
//! before anything is read (invariant 9), after each takeover and at each consumer: of the positions
//! the highest, which proves what lies below. Trimming never removes its message.
//!
//! What is found changed is written down, and refused from then on: after some more commands the
//! sequences would look right again. An operator's `adopt-stream` ends that.

use async_nats::jetstream::{
    Context,
    stream::{Info, Stream},
};
use farwrite_internal::sabotage;
use farwrite_schemas::headers;
use sqlx::PgConnection;
use tokio::time::sleep;
use tracing::warn;
use uuid::Uuid;

use crate::{config::Config, store::streams};

use super::{
    error::StreamError,
    position::{MessageProof, StreamPosition, StreamProgress},
    stored::{headers_of, stored},
};

/// How often a replicated stream is looked at again, once a second, before it is called changed: a
/// leader that was cut off from the others, and does not know it yet, shows what the stream was.
/// JetStream's leaders notice within ten seconds.
const LOOKS_AGAIN: u32 = 12;

/// The key of the stream's metadata that holds its identity.
pub(crate) const IDENTITY_KEY: &str = "farwrite-identity";

/// What makes a stream itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    name: String,
    created: String,
    id: Uuid,
}

/// The identity that a stream shows.
fn of(info: &Info) -> Result<Identity, StreamError> {
    let name = info.config.name.clone();
    let id = info.config.metadata.get(IDENTITY_KEY).and_then(|id| Uuid::try_parse(id).ok());
    let Some(id) = id else {
        return Err(StreamError::Contract {
            stream: name,
            broken: vec![format!(
                "its metadata has no {IDENTITY_KEY} (a UUID): it was not made by `farwrite worker migrate`; add one"
            )],
        });
    };
    Ok(Identity { name, created: info.created.to_string(), id })
}

/// The random id in a stream's metadata; empty where it has none.
pub(crate) fn identity_of(stream: &Stream) -> String {
    stream.cached_info().config.metadata.get(IDENTITY_KEY).cloned().unwrap_or_default()
}

/// The identity that the database knows.
async fn known(connection: &mut PgConnection, stream: &str) -> Result<Identity, StreamError> {
    let known = streams::identity(connection, stream).await?;
    let (created, id) = known.ok_or_else(|| StreamError::NotRegistered(stream.to_owned()))?;
    Ok(Identity { name: stream.to_owned(), created, id })
}

impl Identity {
    /// Compares with what the stream shows.
    pub(crate) fn check(&self, info: &Info) -> Result<(), StreamError> {
        let shown = of(info)?;
        if *self == shown {
            return Ok(());
        }
        Err(self.unknown(format!(
            "it was created {} with the identity {}, the database knows one created {} with {}",
            shown.created, shown.id, self.created, self.id
        )))
    }

    /// Compares identity, extent, and the message at the highest position. Answers what the stream says of
    /// itself.
    pub(crate) async fn verify(
        &self,
        context: &Context,
        stream: &Stream,
        progress: &StreamProgress,
    ) -> Result<Info, StreamError> {
        let mut looks = 0;
        loop {
            let info = stream.get_info().await;
            let info = info.map_err(|error| StreamError::jetstream(&self.name, error))?;
            self.check(&info)?;
            let Err(reason) = self.compare(context, &info, progress).await? else {
                return Ok(info);
            };
            if info.config.num_replicas < 2 || looks == LOOKS_AGAIN {
                return Err(StreamError::Changed { stream: self.name.clone(), reason });
            }
            if looks == 0 {
                warn!(
                    stream = self.name,
                    reason, "perhaps a leader that was replaced: looking again"
                );
            }
            looks += 1;
            sleep(std::time::Duration::from_secs(1)).await;
        }
    }

    /// Compares with the positions that the database holds; the inner error is what differs.
    async fn compare(
        &self,
        context: &Context,
        info: &Info,
        progress: &StreamProgress,
    ) -> Result<Result<(), String>, StreamError> {
        if let Err(reason) = check_extent(info, progress) {
            return Ok(Err(reason));
        }
        if sabotage::leaves_out("anchor") {
            return Ok(Ok(()));
        }
        check_proof(context, &self.name, progress.highest).await
    }

    fn unknown(&self, reason: String) -> StreamError {
        StreamError::Unknown { stream: self.name.clone(), reason }
    }
}

/// Compares the stream's extent with the positions that the database holds.
fn check_extent(info: &Info, progress: &StreamProgress) -> Result<(), String> {
    let StreamProgress { low_water, highest: StreamPosition { sequence: highest, .. } } = progress;
    let state = &info.state;
    let first = if state.messages == 0 { state.last_sequence + 1 } else { state.first_sequence };
    if state.last_sequence < *highest {
        Err(format!(
            "it ends at sequence {}, and commands up to {highest} are applied or passed: its tail is lost, and with it what was not applied from {} on",
            state.last_sequence,
            low_water + 1
        ))
    } else if first > low_water + 1 {
        Err(format!(
            "it begins at sequence {first}, and commands from {} to {} are not applied: they are gone from it",
            low_water + 1,
            first - 1
        ))
    } else {
        Ok(())
    }
}

/// Finds out whether a stream is the one whose positions the database holds; nothing may be read
/// before this. Answers the identity, for later comparisons.
pub(crate) async fn verify(
    connection: &mut PgConnection,
    context: &Context,
    stream: &Stream,
    progress: &StreamProgress,
) -> Result<Identity, StreamError> {
    let name = &stream.cached_info().config.name;
    let known = known(connection, name).await?;
    check_not_refused(connection, name).await?;
    known.verify(context, stream, progress).await?;
    Ok(known)
}

/// What proves the message that a stream holds at a sequence; `None` where it holds none.
pub(crate) async fn proof_at(
    context: &Context,
    stream: &str,
    sequence: u64,
) -> Result<Option<MessageProof>, StreamError> {
    let stored = stored(context, stream, sequence).await;
    let message = stored.map_err(|reason| StreamError::jetstream(stream, reason))?;
    Ok(message.map(|message| {
        let at_ns = i64::try_from(message.time.unix_timestamp_nanos()).unwrap_or(i64::MAX);
        // As the reader reads it: of several ids the first, and none of what cannot be read.
        let headers = headers_of(&message).unwrap_or_default();
        let id = headers.iter().find(|(name, _)| name == headers::COMMAND_ID);
        MessageProof::of(at_ns, id.map(|(_, id)| id.as_str()))
    }))
}

/// Compares the message at the highest position with the one that the stream holds there.
async fn check_proof(
    context: &Context,
    stream: &str,
    highest: StreamPosition,
) -> Result<Result<(), String>, StreamError> {
    let StreamPosition { sequence, message: Some(passed) } = highest else { return Ok(Ok(())) };
    let Some(shown) = proof_at(context, stream, sequence).await? else {
        return Ok(Err(format!("it no longer holds the message {sequence}, which was passed")));
    };
    if shown == passed {
        return Ok(Ok(()));
    }
    let id = |proof: MessageProof| proof.id.map_or("none".to_owned(), |id| id.to_string());
    Ok(Err(format!(
        "its message {sequence} is another one than the one that was applied or passed (time {} and {} ns, id {} and {}): its tail was lost, and its sequences were used again",
        shown.at_ns,
        passed.at_ns,
        id(shown),
        id(passed),
    )))
}

/// When a stream was created, and its identity, as the database keeps them.
pub(crate) fn identity_shown(info: &Info) -> Result<(String, Uuid), StreamError> {
    let Identity { created, id, .. } = of(info)?;
    Ok((created, id))
}

/// Checks that a stream is the one that the database knows; its positions are not compared.
pub(crate) async fn check_identity(
    connection: &mut PgConnection,
    info: &Info,
) -> Result<(), StreamError> {
    known(connection, &info.config.name).await?.check(info)
}

/// The same; and that it was not refused.
pub(crate) async fn check_known(
    connection: &mut PgConnection,
    info: &Info,
) -> Result<(), StreamError> {
    check_identity(connection, info).await?;
    check_not_refused(connection, &info.config.name).await
}

/// Checks that a stream was not found changed before, or that an operator has adopted it since.
async fn check_not_refused(connection: &mut PgConnection, name: &str) -> Result<(), StreamError> {
    match streams::refusal(connection, name).await? {
        Some((at, reason)) => Err(StreamError::Refused { stream: name.to_owned(), at, reason }),
        None => Ok(()),
    }
}

/// Writes the identity of a stream down that the database does not know yet, or checks that it is
/// the one that it knows.
pub(crate) async fn register(
    connection: &mut PgConnection,
    config: &Config,
    info: &Info,
) -> Result<(), StreamError> {
    let identity = of(info)?;
    // A stream that was trimmed before this database knew it begins where it begins.
    let low_water = info.state.first_sequence.saturating_sub(1);
    streams::register(connection, &config.stream, &identity.created, identity.id, low_water)
        .await?;
    known(connection, &config.stream).await?.check(info)
}
