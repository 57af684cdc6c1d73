//! Preparing a database and a stream: `primary-worker migrate`, and looking whether that is to be
//! done.
//!
//! **Which worker runs on which schema.** A worker needs every step that it knows, and runs on a
//! schema with more of them: a step either leaves older workers be, or raises
//! `farwrite.requires_protocol()`, and then they refuse to start. So the schema goes first.

use farwrite_schemas::migrations;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};
use tracing::info;

use crate::{
    config::Config,
    keep::hints,
    primary::{self, PrimaryError, Purpose},
    stream::{self, StreamError},
};

/// The protocol between a worker and the schema that this program speaks. It is raised, here and
/// in `farwrite.requires_protocol()` by a migration, when a worker without the change would fail
/// on the new schema or do wrong on it: a function that it calls is gone or means something else,
/// or a row that it writes lacks what others rely on. What only adds does not raise it.
pub(crate) const PROTOCOL: i32 = 2;

/// Preparing did not succeed; what was done before stays, and running it again goes on.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The server is not a primary that a worker can work on.
    #[error(transparent)]
    Primary(#[from] PrimaryError),
    /// A migration failed.
    #[error("the farwrite schema: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// The stream could not be made, or is not one to work with.
    #[error(transparent)]
    Stream(#[from] StreamError),
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
    migrator().run(&mut connection).await?;
    info!(version = newest(), "the farwrite schema is up to date");
    let client = stream::connect(&config.nats_url).await?;
    let stream = stream::create_or_check(&client, config).await?;
    stream::register(&mut connection, config, &stream).await?;
    hints::create(&client, config).await?;
    connection.close().await.map_err(PrimaryError::from)?;
    info!(stream = config.stream, "the stream is ready");
    Ok(())
}

/// What `migrate` would find.
#[derive(Debug)]
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
    /// The stream, or why it cannot be judged.
    pub stream: Result<StreamFound, StreamError>,
}

/// What became of looking for the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        stream || !self.pending.is_empty()
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
    let applied = applied(&mut connection).await.map_err(PrimaryError::from)?;
    let mut pending = Vec::new();
    for step in migrator().iter() {
        match applied.iter().find(|(version, _)| *version == step.version) {
            None => pending.push((step.version, step.description.to_string())),
            Some((_, checksum)) if *checksum != *step.checksum => {
                return Err(sqlx::migrate::MigrateError::VersionMismatch(step.version).into());
            }
            Some(_) => {}
        }
    }
    let required_protocol = required_protocol(&mut connection).await.map_err(PrimaryError::from)?;
    let checked = Checked {
        found: applied.iter().map(|(version, _)| *version).max().unwrap_or(0),
        needed: newest(),
        required_protocol,
        spoken_protocol: PROTOCOL,
        stream: check_stream(&mut connection, config, !applied.is_empty()).await,
        pending,
    };
    connection.close().await.map_err(PrimaryError::from)?;
    Ok(checked)
}

async fn check_stream(
    connection: &mut PgConnection,
    config: &Config,
    has_schema: bool,
) -> Result<StreamFound, StreamError> {
    let client = stream::connect(&config.nats_url).await?;
    let Some(stream) = stream::look_for(&client, &config.stream).await? else {
        return Ok(StreamFound::Missing);
    };
    let info = stream.cached_info();
    stream::check_contract(info, config)?;
    if !has_schema {
        return Ok(StreamFound::NotRegistered);
    }
    match stream::check_identity(connection, info).await {
        Ok(()) => Ok(StreamFound::Ready),
        Err(StreamError::NotRegistered(_)) => Ok(StreamFound::NotRegistered),
        Err(error) => Err(error),
    }
}

/// Checks that this program can work on the schema, and answers its version.
pub(crate) async fn check_migrated(connection: &mut PgConnection) -> Result<i64, PrimaryError> {
    let applied = applied(connection).await?;
    let found = applied.iter().map(|(version, _)| *version).max().unwrap_or(0);
    let needed = newest();
    if found < needed {
        return Err(PrimaryError::NotMigrated { found, needed });
    }
    match required_protocol(connection).await? {
        Some(required) if required > PROTOCOL => {
            Err(PrimaryError::TooNew { required, spoken: PROTOCOL })
        }
        _ => Ok(found),
    }
}

/// The steps that the database has: number and checksum.
async fn applied(connection: &mut PgConnection) -> Result<Vec<(i64, Vec<u8>)>, sqlx::Error> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(migrations::TABLE)
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        return Ok(Vec::new());
    }
    sqlx::query_as("SELECT version, checksum FROM farwrite.migrations WHERE success")
        .fetch_all(connection)
        .await
}

/// The lowest protocol of workers that the schema allows; `None` where it is too old to say.
async fn required_protocol(connection: &mut PgConnection) -> Result<Option<i32>, sqlx::Error> {
    let exists: bool =
        sqlx::query_scalar("SELECT to_regprocedure('farwrite.requires_protocol()') IS NOT NULL")
            .fetch_one(&mut *connection)
            .await?;
    if !exists {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT farwrite.requires_protocol()").fetch_one(connection).await.map(Some)
}

/// The newest step that this program knows.
pub(crate) fn newest() -> i64 {
    migrations::ALL.iter().map(|migration| migration.version).max().unwrap_or(0)
}

fn migrator() -> Migrator {
    let steps = migrations::ALL.iter().map(|step| {
        let sql = AssertSqlSafe(step.sql).into_sql_str();
        Migration::new(step.version, step.description.into(), MigrationType::Simple, sql, false)
    });
    let mut migrator = Migrator::with_migrations(steps.collect());
    migrator.dangerous_set_table_name(migrations::TABLE);
    migrator.create_schema(migrations::SCHEMA);
    // A newer program may have been here: its steps are not ours to judge.
    migrator.set_ignore_missing(true);
    migrator
}
