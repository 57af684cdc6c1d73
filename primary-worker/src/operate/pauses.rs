//! Pauses: a command name or a key whose commands are parked until somebody resumes it.

use farwrite_schemas::{CommandName, Key};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use super::{chunks, error::OperateError, filter::utc, operator::Operator};

/// What is paused.
#[derive(Clone, Debug)]
pub enum PauseTarget {
    /// All commands of a name.
    Name(CommandName),
    /// All commands of a key.
    Key(Key),
}

/// A pause.
#[derive(Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pause {
    /// The name of the paused commands, where a name is paused.
    pub command: Option<String>,
    /// Their key, where a key is paused.
    pub key: Option<String>,
    /// Why, as the operator said.
    pub reason: String,
    /// The role that paused it.
    pub paused_by: String,
    /// When.
    pub paused_at: String,
    /// How long ago.
    pub age_seconds: f64,
}

impl PauseTarget {
    /// Name and key: the one that is paused.
    #[must_use]
    pub fn columns(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Name(name) => (Some(name.as_str()), None),
            Self::Key(key) => (None, Some(key.as_str())),
        }
    }
}

impl Operator {
    /// Pauses it from the next batch on; answers whether it was not paused before.
    ///
    /// # Errors
    /// When a lane stays busy, or the database fails.
    pub async fn pause(
        &mut self,
        target: &PauseTarget,
        reason: &str,
    ) -> Result<bool, OperateError> {
        let (name, key) = target.columns();
        chunks::held(&mut self.connection, async |tx| {
            sqlx::query_scalar::<_, bool>("SELECT farwrite.pause($1, $2, $3)")
                .bind(name)
                .bind(key)
                .bind(reason)
                .fetch_one(tx)
                .await
        })
        .await
    }

    /// Takes a pause back; answers whether there was one.
    ///
    /// # Errors
    /// When a lane stays busy, or the database fails.
    pub async fn resume(&mut self, target: &PauseTarget) -> Result<bool, OperateError> {
        let (name, key) = target.columns();
        chunks::held(&mut self.connection, async |tx| {
            sqlx::query_scalar::<_, bool>("SELECT farwrite.resume($1, $2)")
                .bind(name)
                .bind(key)
                .fetch_one(tx)
                .await
        })
        .await
    }

    /// All pauses, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pauses(&mut self) -> Result<Vec<Pause>, OperateError> {
        let rows: Vec<(Json<Pause>,)> = sqlx::query_as(concat!(
        "SELECT to_json(r) FROM (
             SELECT p.name AS command, p.order_key AS key, p.reason, p.paused_by, ",
        utc!("p.paused_at"),
        " AS paused_at, round(extract(epoch FROM clock_timestamp() - p.paused_at), 3) AS age_seconds
             FROM farwrite.pauses p ORDER BY p.paused_at, p.name, p.order_key) r"
    ))
        .fetch_all(&mut self.connection)
        .await?;
        Ok(rows.into_iter().map(|(pause,)| pause.0).collect())
    }
}
