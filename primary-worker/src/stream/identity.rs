//! Whether the stream is the one whose positions the database holds.
//!
//! A sequence alone proves nothing: a stream that was made again counts from 1, and a store that
//! was put back from an older copy keeps its name and its time of creation and uses sequences a
//! second time. So the database keeps the stream's time of creation, the random id in its
//! metadata, and an anchor: the last applied message's sequence, time and message id. All of it is
//! compared before anything is read (invariant 9), after each takeover and at each consumer.

use async_nats::jetstream::{
    Context,
    stream::{Info, Stream},
};
use farwrite_internal::sabotage;
use farwrite_schemas::headers;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    config::Config,
    store::{streams, text::storable},
};

use super::{
    error::StreamError,
    position::{Anchor, StreamProgress},
    stored::{headers_of, stored},
};

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

    /// Compares identity, extent and anchor.
    pub(crate) async fn verify(
        &self,
        context: &Context,
        stream: &Stream,
        progress: &StreamProgress,
    ) -> Result<(), StreamError> {
        let info = stream.get_info().await;
        let info = info.map_err(|error| StreamError::jetstream(&self.name, error))?;
        self.check(&info)?;
        self.check_extent(&info, progress)?;
        if sabotage::leaves_out("anchor") {
            return Ok(());
        }
        check_anchor(self, context, progress.anchor.as_ref()).await
    }

    fn unknown(&self, reason: String) -> StreamError {
        StreamError::Unknown { stream: self.name.clone(), reason }
    }

    /// Compares the stream's extent with the positions that the database holds.
    fn check_extent(&self, info: &Info, progress: &StreamProgress) -> Result<(), StreamError> {
        let state = &info.state;
        let first =
            if state.messages == 0 { state.last_sequence + 1 } else { state.first_sequence };
        if state.last_sequence < progress.high_water {
            Err(self.unknown(format!(
                "it ends at sequence {}, and commands up to {} are applied: its tail is lost",
                state.last_sequence, progress.high_water
            )))
        } else if first > progress.low_water + 1 {
            Err(self.unknown(format!(
                "it begins at sequence {first}, and commands from {} to {} are not applied: they are gone from it",
                progress.low_water + 1,
                first - 1
            )))
        } else {
            Ok(())
        }
    }
}

/// Compares identity, extent and anchor; nothing may be read before this. Answers the identity, for
/// later comparisons.
pub(crate) async fn verify(
    connection: &mut PgConnection,
    context: &Context,
    stream: &Stream,
    progress: &StreamProgress,
) -> Result<Identity, StreamError> {
    let known = known(connection, &stream.cached_info().config.name).await?;
    known.verify(context, stream, progress).await?;
    Ok(known)
}

/// Compares the last message that was applied with the one that the stream holds there. Its id is
/// read as the reader does: of several the first, and none of a message that cannot be read.
async fn check_anchor(
    known: &Identity,
    context: &Context,
    anchor: Option<&Anchor>,
) -> Result<(), StreamError> {
    let Some(anchor) = anchor else { return Ok(()) };
    let stored = stored(context, &known.name, anchor.sequence).await;
    let message = stored.map_err(|reason| StreamError::jetstream(&known.name, reason))?;
    let message = message.ok_or_else(|| {
        known.unknown(format!(
            "it no longer holds the message {} that was applied last",
            anchor.sequence
        ))
    })?;
    let at_ns = i64::try_from(message.time.unix_timestamp_nanos()).unwrap_or(i64::MAX);
    let headers = headers_of(&message).unwrap_or_default();
    let id = headers.iter().find(|(name, _)| name == headers::COMMAND_ID);
    let id = id.map(|(_, id)| storable(id));
    if at_ns == anchor.at_ns && id == anchor.id {
        return Ok(());
    }
    Err(known.unknown(format!(
        "its message {} is another one than the one that was applied (time {} and {} ns, id {} and {})",
        anchor.sequence,
        at_ns,
        anchor.at_ns,
        id.as_deref().unwrap_or("none"),
        anchor.id.as_deref().unwrap_or("none"),
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
