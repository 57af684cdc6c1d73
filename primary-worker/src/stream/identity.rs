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

use super::{
    IDENTITY_KEY, StreamError,
    unreadable::{headers_of, stored},
};

/// What makes a stream itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    name: String,
    pub(super) created: String,
    pub(super) id: Uuid,
}

/// A message that was applied: if the stream holds another one in its place, it is another stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Anchor {
    /// Its place.
    pub(crate) sequence: u64,
    /// The stream's time of it, in nanoseconds since 1970.
    pub(crate) at_ns: i64,
    /// Its message id, if it had one.
    pub(crate) id: Option<String>,
}

/// How far the database has come in a stream.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    /// Everything up to here (inclusive) is settled.
    pub(crate) low_water: u64,
    /// Something up to here (inclusive) is settled.
    pub(crate) high_water: u64,
    /// The last message that was applied, if one was.
    pub(crate) anchor: Option<Anchor>,
}

/// The identity that a stream shows.
pub(super) fn of(info: &Info) -> Result<Identity, StreamError> {
    let name = info.config.name.clone();
    let id = info.config.metadata.get(IDENTITY_KEY).and_then(|id| Uuid::try_parse(id).ok());
    let Some(id) = id else {
        return Err(StreamError::Contract {
            stream: name,
            broken: vec![format!(
                "its metadata has no {IDENTITY_KEY} (a UUID): it was not made by `primary-worker migrate`; add one"
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
pub(super) async fn known(
    connection: &mut PgConnection,
    stream: &str,
) -> Result<Identity, StreamError> {
    let row: Option<(String, Uuid)> =
        sqlx::query_as("SELECT created, identity FROM farwrite.streams WHERE name = $1")
            .bind(stream)
            .fetch_optional(connection)
            .await?;
    let (created, id) = row.ok_or_else(|| StreamError::NotRegistered(stream.to_owned()))?;
    Ok(Identity { name: stream.to_owned(), created, id })
}

impl Identity {
    /// Compares with what the stream shows.
    pub(super) fn check(&self, info: &Info) -> Result<(), StreamError> {
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
    pub(super) async fn verify(
        &self,
        context: &Context,
        stream: &Stream,
        position: &Position,
    ) -> Result<(), StreamError> {
        let info = stream.get_info().await;
        let info = info.map_err(|error| StreamError::jetstream(&self.name, error))?;
        self.check(&info)?;
        self.check_extent(&info, position)?;
        if sabotage::leaves_out("anchor") {
            return Ok(());
        }
        check_anchor(self, context, position.anchor.as_ref()).await
    }

    fn unknown(&self, reason: String) -> StreamError {
        StreamError::Unknown { stream: self.name.clone(), reason }
    }

    /// Compares the stream's extent with the positions that the database holds.
    fn check_extent(&self, info: &Info, position: &Position) -> Result<(), StreamError> {
        let state = &info.state;
        let first =
            if state.messages == 0 { state.last_sequence + 1 } else { state.first_sequence };
        if state.last_sequence < position.high_water {
            Err(self.unknown(format!(
                "it ends at sequence {}, and commands up to {} are applied: its tail is lost",
                state.last_sequence, position.high_water
            )))
        } else if first > position.low_water + 1 {
            Err(self.unknown(format!(
                "it begins at sequence {first}, and commands from {} to {} are not applied: they are gone from it",
                position.low_water + 1,
                first - 1
            )))
        } else {
            Ok(())
        }
    }
}

/// Compares identity, extent and anchor; nothing may be read before this. Answers the identity, for
/// whoever compares again.
pub(crate) async fn verify(
    connection: &mut PgConnection,
    context: &Context,
    stream: &Stream,
    position: &Position,
) -> Result<Identity, StreamError> {
    let known = known(connection, &stream.cached_info().config.name).await?;
    known.verify(context, stream, position).await?;
    Ok(known)
}

/// What a message brought, as PostgreSQL can hold it: its texts have no character of code zero.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Compares the last message that was applied with the one that the stream holds in its place. Its id is
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
