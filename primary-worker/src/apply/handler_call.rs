//! Running a Rust handler in the transaction that is open.

use std::panic::AssertUnwindSafe;

use farwrite_schemas::Rejection;
use futures_util::FutureExt;
use serde_json::value::RawValue;
use sqlx::PgConnection;

use crate::verdict::Happened;

use super::{
    failure::Failure,
    handler::{AnyHandler, Meta},
    session,
};

/// Runs a handler, with its context set. A panic in it is a failure like another.
pub(crate) async fn apply_handler(
    connection: &mut PgConnection,
    handler: &dyn AnyHandler,
    body: &[u8],
    meta: &Meta,
) -> Result<Box<RawValue>, Failure> {
    session::set_context(connection, meta.context.as_deref()).await?;
    let applying = handler.apply(connection, body, meta);
    match AssertUnwindSafe(applying).catch_unwind().await {
        Ok(output) => Ok(output?),
        Err(_) => {
            let message = "the handler panicked; the worker's log says where";
            Err(Failure::of(Happened::Panicked, Rejection::new("panicked", message)))
        }
    }
}
