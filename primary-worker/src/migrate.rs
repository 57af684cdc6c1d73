//! Preparing a database and a stream: `primary-worker migrate`.

use farwrite_schemas::migrations;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};
use tracing::info;

use crate::{
    config::Config,
    hints,
    primary::{self, PrimaryError, Purpose},
    stream::{self, StreamError},
};

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
    let mut connection = primary::connect(config, &Purpose::Control).await?;
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

/// Checks that the schema is at this program's version.
pub(crate) async fn check_migrated(connection: &mut PgConnection) -> Result<(), PrimaryError> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(migrations::TABLE)
        .fetch_one(&mut *connection)
        .await?;
    let found: i64 = if exists {
        sqlx::query_scalar(
            "SELECT coalesce(max(version), 0) FROM farwrite.migrations WHERE success",
        )
        .fetch_one(&mut *connection)
        .await?
    } else {
        0
    };
    let needed = newest();
    if found < needed { Err(PrimaryError::NotMigrated { found, needed }) } else { Ok(()) }
}

fn newest() -> i64 {
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
