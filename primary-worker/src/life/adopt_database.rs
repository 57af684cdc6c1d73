//! An operator's word that a database is to be gone on with.
//!
//! The rows of Farwrite name the database that wrote them, and the broker names the one that serves. A
//! dump, a copy or an upgraded cluster holds the rows of another one; a physical clone looks like the
//! original after a failover. Which of them is the app's database a program cannot know. So the operator
//! says it. The database gets an incarnation of its own where its rows are another one's, and the broker
//! names this one from now on.
//!
//! Positions and the ledger stay: the worker goes on from there in the stream. Bookmarks of the database
//! before are superseded.

use std::fmt;

use farwrite_schemas::Epoch;
use sqlx::{Connection, PgConnection};
use tracing::info;
use uuid::Uuid;

use crate::{
    config::Config,
    primary::{self, PrimaryError, Purpose},
    store::{owner, server},
    stream::{client, error::StreamError},
};

use super::{
    schema,
    veto::{ServedRecord, Veto},
};

/// What an operator decided.
#[derive(Clone, Debug)]
pub struct DatabaseAdoption {
    /// It is another database than the one whose rows it holds, though the server says the same: a
    /// physical clone, or one that was put back from a copy.
    pub new_incarnation: bool,
    /// It takes the place of the database that the broker names.
    pub replace: bool,
    /// Why, for those who read `farwrite.operations`.
    pub reason: String,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct AdoptedDatabase {
    /// The identity of the database now.
    pub identity: String,
    /// What its rows said before; `None` where no worker had taken over.
    pub before: Option<String>,
}

impl fmt::Display for AdoptedDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, before } = self;
        write!(f, "the database is {identity}, and the broker names it")?;
        match before {
            Some(before) if before != identity => {
                write!(f, "; before, it was {before}, and bookmarks of that are superseded")
            }
            _ => Ok(()),
        }
    }
}

/// A database was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptDatabaseError {
    /// The primary is not one to work on.
    #[error(transparent)]
    Primary(#[from] PrimaryError),
    /// The broker cannot be asked or told. Saying it again does no harm.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A worker owns the database.
    #[error("a worker owns this database and works: stop it first")]
    Owned,
    /// The broker names another database.
    #[error(
        "the broker names another database of this name, {0}: its worker stops when this one takes its place. If that is meant, say --replace"
    )]
    Served(String),
    /// Somebody took over meanwhile.
    #[error("a worker took over meanwhile: stop it, and say it again")]
    Overtaken,
}

impl From<sqlx::Error> for AdoptDatabaseError {
    fn from(error: sqlx::Error) -> Self {
        Self::Primary(error.into())
    }
}

/// Makes this the database that a worker goes on with, and has the broker name it.
///
/// # Errors
/// When a worker works on it, the broker names another one, or the primary or NATS failed. Nothing is
/// changed then, unless the broker could not be told: say it again.
pub async fn adopt_database(
    config: &Config,
    adoption: &DatabaseAdoption,
) -> Result<AdoptedDatabase, AdoptDatabaseError> {
    let within = config.statement_timeout;
    let (_, mut connection) =
        primary::find(&config.database_url, within, &Purpose::Control).await?;
    primary::check_server(&mut connection).await?;
    schema::check_migrated(&mut connection).await?;
    check_unowned(&mut connection).await?;
    let client = client::connect(&config.nats_url).await?;
    let veto = Veto::new(&client, config);
    let served = veto.look(true).await?;
    let mut here = owner::identity(&mut connection).await?;
    let before = here.recorded.clone();
    if adoption.new_incarnation || !here.is_own() {
        // What it will be nobody knows yet: the broker cannot name it.
        here.recorded = Some(String::new());
    }
    if let Some(other) = served.other_than(&here).filter(|_| !adoption.replace) {
        return Err(AdoptDatabaseError::Served(other.to_owned()));
    }
    let mut tx = connection.begin().await?;
    owner::lock(&mut tx).await?;
    check_unowned(&mut tx).await?;
    let identity = owner::adopt(&mut tx, adoption.new_incarnation, &adoption.reason).await?;
    let epoch = owner::epoch(&mut tx).await?.unwrap_or(Epoch(Uuid::nil()));
    let timeline = server::timeline(&mut tx).await?.0;
    tx.commit().await?;
    let record = ServedRecord { epoch, timeline, identity: identity.clone() };
    if !veto.claim(served, &record).await? {
        return Err(AdoptDatabaseError::Overtaken);
    }
    let adopted = AdoptedDatabase { identity, before };
    info!(%adopted, reason = adoption.reason);
    Ok(adopted)
}

async fn check_unowned(connection: &mut PgConnection) -> Result<(), AdoptDatabaseError> {
    let state = owner::state(connection).await?;
    if state.liveness.is_free() { Ok(()) } else { Err(AdoptDatabaseError::Owned) }
}
