//! Cancelling a command that has not ended.

use farwrite_schemas::CommandId;
use serde_json::json;
use sqlx::PgConnection;

use super::{End, OperateError, chunks, print::Printer};

pub(super) async fn cancel(
    connection: &mut PgConnection,
    id: CommandId,
    reason: &str,
    printer: &mut Printer,
) -> Result<End, OperateError> {
    let ended = chunks::held(connection, async |tx| {
        sqlx::query_scalar::<_, Option<String>>("SELECT farwrite.cancel($1, $2)")
            .bind(id.uuid())
            .bind(reason)
            .fetch_one(tx)
            .await
    })
    .await?;
    let object = json!({ "act": "cancel", "id": id, "cancelled": ended.is_none(), "ended": ended });
    let text = match &ended {
        None => format!("{id} is cancelled: it is recorded as rejected, and will not be applied"),
        Some(ended) => format!("{id} was not cancelled: it had ended before, as {ended}"),
    };
    printer.say(&object, &text)?;
    Ok(if ended.is_none() { End::Done } else { End::Partly })
}
