//! How a command ended, or what it waits for: from the primary, or from any replica.

use farwrite_schemas::CommandId;
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use sqlx::{PgConnection, types::Json};

use super::{
    End, OperateError,
    dead_letters::or_dash,
    filter::utc,
    is_replica,
    print::{Printer, json_of, plain},
};

/// What the database knows, as it is printed.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    id: CommandId,
    status: String,
    /// What it answered, where it was applied.
    output: Option<Box<RawValue>>,
    /// Why not, or why not yet.
    error: Option<Box<RawValue>>,
    attempts: Option<i32>,
    stream: Option<String>,
    sequence: Option<i64>,
    published_at: Option<String>,
    settled_at: Option<String>,
    /// Why it is parked.
    reason: Option<String>,
    due_at: Option<String>,
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

pub(super) async fn outcome(
    connection: &mut PgConnection,
    id: CommandId,
    printer: &mut Printer,
) -> Result<End, OperateError> {
    let row: Option<(Json<Known>,)> =
        sqlx::query_as(OUTCOME).bind(id.uuid()).fetch_optional(&mut *connection).await?;
    let Some((Json(mut known),)) = row else {
        let text = unknown(id, is_replica(connection).await?);
        printer.say(&json!({ "id": id, "status": "unknown" }), &text)?;
        return Ok(End::Partly);
    };
    for part in [&mut known.output, &mut known.error] {
        *part = part.take().and_then(|json| json_of(json.get().as_bytes()));
    }
    printer.say(&known, &known.in_full())?;
    Ok(End::Done)
}

fn unknown(id: CommandId, is_replica: bool) -> String {
    let mut text = format!(
        "{id} is not known here. It may be in the stream and not read yet (see `status`), or was never accepted, \
         or ended longer ago than the ledger keeps (ledger-keep-hours)."
    );
    if is_replica {
        text.push_str(" This is a replica, which may be behind the primary: ask there.");
    }
    text
}

impl Known {
    fn in_full(&self) -> String {
        let json = |json: &Option<Box<RawValue>>| json.as_ref().map(|json| plain(json.get()));
        let lines = [
            ("id", Some(self.id.to_string())),
            ("status", Some(self.status.clone())),
            ("output", json(&self.output)),
            ("error", json(&self.error)),
            ("reason", self.reason.clone()),
            ("due", self.due_at.clone()),
            ("attempts", Some(or_dash(self.attempts.as_ref()))),
            ("stream", self.stream.clone()),
            ("sequence", self.sequence.map(|sequence| sequence.to_string())),
            ("published", self.published_at.clone()),
            ("settled", self.settled_at.clone()),
        ];
        let lines = lines.into_iter().filter_map(|(name, value)| Some((name, value?)));
        lines.map(|(name, value)| format!("{name:<11}{value}\n")).collect()
    }
}
