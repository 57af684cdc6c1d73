//! An operator's connection to the database.

use std::time::Duration;

use sqlx::PgConnection;

use crate::{
    life::schema,
    primary::{self, Purpose},
};

use super::error::OperateError;

/// How long one statement of an operator's may run: reading a million parked commands takes
/// seconds.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// What an operator asks for and does, over one connection.
#[derive(Debug)]
pub struct Operator {
    pub(super) connection: PgConnection,
    /// The schema's version there.
    pub(super) schema_version: i64,
}

impl Operator {
    /// Connects for questions: to the primary, or to a replica, which may be behind.
    ///
    /// # Errors
    /// When there is no server that can be asked, or its schema is not this program's.
    pub async fn asking(database_url: &str) -> Result<Self, OperateError> {
        Self::connect(database_url, false).await
    }

    /// Connects for acts: to the primary.
    ///
    /// # Errors
    /// When there is no primary, or its schema is not this program's.
    pub async fn acting(database_url: &str) -> Result<Self, OperateError> {
        Self::connect(database_url, true).await
    }

    async fn connect(database_url: &str, acts: bool) -> Result<Self, OperateError> {
        let (_, mut connection) =
            primary::find(database_url, STATEMENT_TIMEOUT, &Purpose::Operator).await?;
        if acts {
            primary::check_server(&mut connection).await?;
        }
        let schema_version = schema::check_migrated(&mut connection).await?;
        Ok(Self { connection, schema_version })
    }

    /// Whether the server is a replica, and what it says may be behind the primary.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_replica(&mut self) -> Result<bool, OperateError> {
        let asked = sqlx::query_scalar("SELECT pg_is_in_recovery()");
        Ok(asked.fetch_one(&mut self.connection).await?)
    }
}
