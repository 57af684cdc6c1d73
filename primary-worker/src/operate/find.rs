//! How a command ended, or what it waits for: from the primary, or from any replica.

use farwrite_schemas::CommandId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::types::Json;

use super::{body::json_of, error::OperateError, filter::utc, operator::Operator};

/// What the database knows of a command.
#[derive(Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FoundCommand {
    /// The command id.
    pub id: CommandId,
    /// How it ended, or `parked`.
    pub status: String,
    /// What it answered, where it was applied.
    pub output: Option<Box<RawValue>>,
    /// Why not, or why not yet.
    pub error: Option<Box<RawValue>>,
    /// How often it was tried alone, or 1.
    pub attempts: Option<i32>,
    /// The stream that it came from.
    pub stream: Option<String>,
    /// Its sequence there.
    pub sequence: Option<i64>,
    /// When the stream stored it.
    pub published_at: Option<String>,
    /// When its outcome was committed.
    pub settled_at: Option<String>,
    /// Why it is parked.
    pub reason: Option<String>,
    /// When it is tried next; `None` where somebody has to resume it.
    pub due_at: Option<String>,
}

const OUTCOME: &str = concat!(
    "SELECT to_json(r) FROM (
         SELECT $1::uuid AS id, o.status, CASE WHEN o.status = 'applied' THEN o.answer END AS output,
             CASE WHEN o.status <> 'applied' THEN o.answer END AS error, o.attempts, o.stream,
             nullif(o.sequence, 0) AS sequence, ",
    utc!("o.published_at"),
    " AS published_at, ",
    utc!("o.settled_at"),
    " AS settled_at, o.reason, ",
    utc!("o.due_at"),
    " AS due_at FROM farwrite.outcome_of($1) o) r"
);

impl Operator {
    /// How a command ended, or what it waits for; `None` where this server does not know it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(&mut self, id: CommandId) -> Result<Option<FoundCommand>, OperateError> {
        let row: Option<(Json<FoundCommand>,)> =
            sqlx::query_as(OUTCOME).bind(id.uuid()).fetch_optional(&mut self.connection).await?;
        let Some((Json(mut found),)) = row else { return Ok(None) };
        for json in [&mut found.output, &mut found.error] {
            *json = json.take().and_then(|json| json_of(json.get().as_bytes()));
        }
        Ok(Some(found))
    }
}
