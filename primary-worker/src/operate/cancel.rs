//! Cancelling a command that has not ended.

use farwrite_schemas::CommandId;

use super::{chunks, error::OperateError, operator::Operator};

impl Operator {
    /// Cancels a command that has not ended: it is recorded as rejected, and will not be applied.
    /// Answers how it had ended before; `None` when it is cancelled.
    ///
    /// # Errors
    /// When a lane stays busy, or the database fails.
    pub async fn cancel(
        &mut self,
        id: CommandId,
        reason: &str,
    ) -> Result<Option<String>, OperateError> {
        chunks::held(&mut self.connection, async |tx| {
            sqlx::query_scalar::<_, Option<String>>("SELECT farwrite.cancel($1, $2)")
                .bind(id.uuid())
                .bind(reason)
                .fetch_one(tx)
                .await
        })
        .await
    }
}
