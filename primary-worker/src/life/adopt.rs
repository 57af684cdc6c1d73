//! An operator's word that a stream is to be gone on with.
//!
//! A stream that is not the one that the database knows stops the worker (invariant 9): it was made
//! again, put back from an older copy, lost its tail, or lost commands that were not applied. What
//! happened, and what is right, a program cannot know. So the operator says from where to go on,
//! and why; the stream gets a new identity, the database learns it, and every position is set there.
//! What is read again is known from the ledger.
//!
//! Sequences may come again afterwards. What is parked or dead-lettered under such a one gets a
//! number that no stream reaches.

use std::fmt;

use async_nats::jetstream::{self, stream::Info};
use sqlx::{Connection, PgConnection};
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    config::Config,
    primary::{self, PrimaryError, Purpose},
    store::{ledger, owner, streams},
    stream::{
        client,
        error::StreamError,
        find, forecast,
        identity::{IDENTITY_KEY, identity_shown, proof_at},
    },
};

use super::schema;

/// From where the worker goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoOnFrom {
    /// From the oldest message that the stream holds: nothing that is there is left out.
    First,
    /// Behind the newest: nothing that is there is applied.
    Next,
    /// From this sequence.
    Sequence(u64),
}

impl std::str::FromStr for GoOnFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "first" => Ok(Self::First),
            "next" => Ok(Self::Next),
            number => match number.parse() {
                Ok(sequence) if sequence > 0 => Ok(Self::Sequence(sequence)),
                _ => Err(format!("{text:?} is neither first, next nor a sequence")),
            },
        }
    }
}

/// What an operator decided.
#[derive(Clone, Debug)]
pub struct Adoption {
    /// From where to go on; of a stream that is made again from its beginning.
    pub from: GoOnFrom,
    /// The stream is gone: it is made again, numbered on from what the database knows.
    pub recreate: bool,
    /// Why, for those who read `farwrite.operations`.
    pub reason: String,
    /// Only say what would come of it; nothing is changed.
    pub dry_run: bool,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// The stream's name.
    pub stream: String,
    /// The sequence that is read next.
    pub from: u64,
    /// The lowest and the highest position of the database before.
    pub before: (u64, u64),
    /// How many parked commands and dead letters got another number.
    pub renumbered: u64,
    /// The messages from there on whose ids are older than the ledger knows: how many, the first and
    /// the last. They will be refused, for whether they were applied is not known.
    pub too_old: Option<(u64, u64, u64)>,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

impl fmt::Display for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, from, before: (low, high), renumbered, too_old, dry_run } = self;
        let is = if *dry_run { "would be" } else { "is" };
        write!(
            f,
            "stream {stream} {is} adopted: a worker goes on from sequence {from}; before, everything up to {low} was settled, and something up to {high}; {renumbered} parked commands and dead letters were renumbered"
        )?;
        match too_old {
            None => f.write_str("; no message from there on is older than the ledger knows"),
            Some((count, first, last)) => write!(
                f,
                "; {count} messages, between the sequences {first} and {last}, have ids that are older than the ledger knows: they will be dead-lettered as id_too_old, for whether they were applied is not known"
            ),
        }
    }
}

/// A stream was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The primary is not one to work on.
    #[error(transparent)]
    Primary(#[from] PrimaryError),
    /// The stream cannot be worked with.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A worker owns the database.
    #[error("a worker owns this database and works: stop it first")]
    Owned,
    /// There is no stream.
    #[error("stream {0} does not exist: to make it again, numbered on, say --recreate")]
    Missing(String),
    /// There is a stream where one was to be made.
    #[error("stream {0} exists: leave --recreate out to go on with it")]
    Exists(String),
    /// It does not hold that sequence.
    #[error("stream {stream} holds {first} to {last}: go on from {first} to {}, or say first or next", last + 1)]
    NotThere {
        /// Which stream.
        stream: String,
        /// Its first sequence.
        first: u64,
        /// Its last sequence.
        last: u64,
    },
}

impl From<sqlx::Error> for AdoptError {
    fn from(error: sqlx::Error) -> Self {
        Self::Primary(error.into())
    }
}

/// Has the database go on with the stream as it is, or makes it again.
///
/// # Errors
/// When a worker owns the database, the stream is not there, or is not one to work with. Nothing is
/// changed in the database then.
pub async fn adopt_stream(config: &Config, adoption: &Adoption) -> Result<Adopted, AdoptError> {
    let within = config.statement_timeout;
    let (_, mut connection) =
        primary::find(&config.database_url, within, &Purpose::Operator).await?;
    primary::check_server(&mut connection).await?;
    schema::check_migrated(&mut connection).await?;
    check_unowned(&mut connection).await?;
    let positions = streams::positions(&mut connection, &config.stream).await?;
    let (stream_id, low, high) =
        positions.ok_or_else(|| StreamError::NotRegistered(config.stream.clone()))?;
    let client = client::connect(&config.nats_url).await?;
    let found = find::look_for(&client, &config.stream).await?;
    let mut too_old = None;
    let info = match (found, adoption.recreate) {
        (None, true) if adoption.dry_run => {
            let (stream, before) = (config.stream.clone(), (low, high));
            return Ok(Adopted {
                stream,
                from: high + 1,
                before,
                renumbered: 0,
                too_old,
                dry_run: true,
            });
        }
        (None, false) => return Err(AdoptError::Missing(config.stream.clone())),
        (Some(_), true) => return Err(AdoptError::Exists(config.stream.clone())),
        (None, true) => find::recreate(&client, config, high + 1).await?,
        (Some(found), false) => {
            find::check_contract(found.cached_info(), config)?;
            let from = next_sequence(found.cached_info(), adoption.from)?;
            let horizon_ms = ledger::horizon_ms(&mut connection).await?;
            too_old = forecast::too_old(&found, from, horizon_ms).await?;
            if adoption.dry_run {
                let (stream, before) = (config.stream.clone(), (low, high));
                return Ok(Adopted { stream, from, before, renumbered: 0, too_old, dry_run: true });
            }
            if let Some((count, first, last)) = too_old {
                warn!(
                    count,
                    first,
                    last,
                    "messages with ids that are older than the ledger knows will be refused"
                );
            }
            give_identity(&client, found.cached_info()).await?
        }
    };
    let from = next_sequence(&info, adoption.from)?;
    // What an operator calls right is proven from now on like anything else that was passed.
    let context = jetstream::new(client.clone());
    let before = match from {
        1 => None,
        _ => proof_at(&context, &config.stream, from - 1).await?,
    };
    let mut tx = connection.begin().await?;
    owner::lock(&mut tx).await?;
    check_unowned(&mut tx).await?;
    let identity = identity_shown(&info)?;
    let renumbered =
        streams::adopt(&mut tx, stream_id, from, before, identity, &adoption.reason).await?;
    tx.commit().await?;
    let (stream, before) = (config.stream.clone(), (low, high));
    let adopted = Adopted { stream, from, before, renumbered, too_old, dry_run: false };
    info!(%adopted, reason = adoption.reason);
    Ok(adopted)
}

async fn check_unowned(connection: &mut PgConnection) -> Result<(), AdoptError> {
    let state = owner::state(connection).await?;
    if state.liveness.is_free() { Ok(()) } else { Err(AdoptError::Owned) }
}

/// Gives a stream that is there a new identity: programs that knew the stream know it no longer, and
/// hints that belong to sequences which come again are worth nothing.
async fn give_identity(client: &async_nats::Client, info: &Info) -> Result<Info, AdoptError> {
    let mut config = info.config.clone();
    config.metadata.insert(IDENTITY_KEY.to_owned(), Uuid::new_v4().to_string());
    let updated = jetstream::new(client.clone()).update_stream(config).await;
    updated.map_err(|error| StreamError::jetstream(&info.config.name, error).into())
}

/// The sequence that is read next.
fn next_sequence(info: &Info, from: GoOnFrom) -> Result<u64, AdoptError> {
    let state = &info.state;
    let last = state.last_sequence;
    let first = if state.messages == 0 { last + 1 } else { state.first_sequence };
    match from {
        GoOnFrom::First => Ok(first),
        GoOnFrom::Next => Ok(last + 1),
        GoOnFrom::Sequence(sequence) if (first..=last + 1).contains(&sequence) => Ok(sequence),
        GoOnFrom::Sequence(_) => {
            Err(AdoptError::NotThere { stream: info.config.name.clone(), first, last })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_go_on_is_a_word_or_a_sequence() {
        assert_eq!("first".parse(), Ok(GoOnFrom::First));
        assert_eq!("next".parse(), Ok(GoOnFrom::Next));
        assert_eq!("17".parse(), Ok(GoOnFrom::Sequence(17)));
        for wrong in ["", "0", "-1", "last"] {
            assert!(wrong.parse::<GoOnFrom>().is_err(), "{wrong:?}");
        }
    }
}
