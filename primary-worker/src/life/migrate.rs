//! Preparing a database and a stream: `farwrite worker migrate`, and looking whether that is to be
//! done.

use sqlx::{Connection, PgConnection};
use tracing::info;

use crate::{
    config::Config,
    keep::hints_stream,
    primary::{self, PrimaryError, Purpose},
    stream::{client, error::StreamError, find, identity},
};

use super::{
    install,
    schema::{self, Found, FunctionsFound, PROTOCOL},
};

/// Preparing did not succeed; what was done before stays, and running it again goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The server is not a primary that a worker can work on.
    #[error(transparent)]
    Primary(#[from] PrimaryError),
    /// A migration failed.
    #[error("the farwrite schema: {0}")]
    Schema(sqlx::migrate::MigrateError),
    /// The stream could not be made, or is not one to work with.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

impl From<sqlx::migrate::MigrateError> for MigrateError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Schema(error)
    }
}

/// Brings the `farwrite` schema to this program's version, makes the stream where it is missing,
/// and writes the stream's identity down. May be run at any time, also beside a running worker.
///
/// # Errors
/// When the server is not a writable primary, a migration fails, or the stream exists with
/// settings that break the contract.
pub async fn migrate(config: &Config) -> Result<(), MigrateError> {
    let (_, mut connection) =
        primary::find(&config.database_url, config.statement_timeout, &Purpose::Control).await?;
    primary::check_server(&mut connection).await?;
    let functions = install::bring_up(&mut connection).await?;
    info!(version = schema::newest(), ?functions, "the farwrite schema is up to date");
    let client = client::connect(&config.nats_url).await?;
    let stream = find::create_or_check(&client, config).await?;
    identity::register(&mut connection, config, &stream).await?;
    hints_stream::create(&client, config).await?;
    connection.close().await.map_err(PrimaryError::from)?;
    info!(stream = config.stream, "the stream is ready");
    Ok(())
}

/// What `migrate` would find.
#[derive(Debug)]
#[non_exhaustive]
pub struct Checked {
    /// The newest step that the database has; 0 for none.
    pub found: i64,
    /// The newest step that this program knows.
    pub needed: i64,
    /// The lowest protocol of workers that the schema allows, where it says so.
    pub required_protocol: Option<i32>,
    /// The protocol that this program speaks.
    pub spoken_protocol: i32,
    /// The steps that are to be applied: number and what they bring.
    pub pending: Vec<(i64, String)>,
    /// The functions.
    pub functions: FunctionsFound,
    /// The stream, or why it cannot be judged.
    pub stream: Result<StreamFound, StreamError>,
}

/// What became of looking for the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamFound {
    /// It keeps the contract, and the database knows it.
    Ready,
    /// There is none.
    Missing,
    /// It keeps the contract, and the database was never told of it.
    NotRegistered,
}

impl Checked {
    /// Whether `migrate` has something to do.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        let stream = matches!(self.stream, Ok(StreamFound::Missing | StreamFound::NotRegistered));
        stream || !self.pending.is_empty() || self.functions == FunctionsFound::Pending
    }

    /// Whether the schema refuses workers of this program.
    #[must_use]
    pub fn is_too_new(&self) -> bool {
        self.required_protocol.is_some_and(|required| required > self.spoken_protocol)
    }
}

/// Looks at what `migrate` would do, and does nothing of it.
///
/// # Errors
/// When the server is not a writable primary, or a step that was applied is another one here. What
/// is wrong with the stream, or NATS being away, is part of the answer.
pub async fn check(config: &Config) -> Result<Checked, MigrateError> {
    let (_, mut connection) =
        primary::find(&config.database_url, config.statement_timeout, &Purpose::Control).await?;
    primary::check_server(&mut connection).await?;
    let found = Found::read(&mut connection).await.map_err(PrimaryError::from)?;
    let checked = Checked {
        found: found.version(),
        needed: schema::newest(),
        required_protocol: found.required_protocol,
        spoken_protocol: PROTOCOL,
        pending: found.pending()?,
        functions: found.functions(),
        stream: check_stream(&mut connection, config, !found.is_empty()).await,
    };
    connection.close().await.map_err(PrimaryError::from)?;
    Ok(checked)
}

async fn check_stream(
    connection: &mut PgConnection,
    config: &Config,
    has_schema: bool,
) -> Result<StreamFound, StreamError> {
    let client = client::connect(&config.nats_url).await?;
    let Some(stream) = find::look_for(&client, &config.stream).await? else {
        return Ok(StreamFound::Missing);
    };
    let info = stream.cached_info();
    find::check_contract(info, config)?;
    if !has_schema {
        return Ok(StreamFound::NotRegistered);
    }
    match identity::check_known(connection, info).await {
        Ok(()) => Ok(StreamFound::Ready),
        Err(StreamError::NotRegistered(_)) => Ok(StreamFound::NotRegistered),
        Err(error) => Err(error),
    }
}
