//! Comparing a stream with the positions that the database holds, while a worker may move them.

use async_nats::jetstream::{Context, stream::Stream};
use sqlx::PgConnection;

use crate::stream::{
    error::StreamError,
    identity::{self, Identity},
};

use super::take_over::read_progress;

/// How often a stream is compared while another worker moves the positions, and trims behind them.
const LOOKS_MAX: u32 = 5;

/// Checks that a stream is the one that the database knows, and holds what was passed.
pub(crate) async fn compare(
    connection: &mut PgConnection,
    context: &Context,
    stream: &Stream,
) -> Result<Identity, StreamError> {
    let name = &stream.cached_info().config.name;
    let mut looks = 1;
    loop {
        let progress = read_progress(connection, name).await?;
        match identity::verify(connection, context, stream, &progress).await {
            Err(StreamError::Changed { .. })
                if looks < LOOKS_MAX && read_progress(connection, name).await? != progress =>
            {
                looks += 1;
            }
            compared => return compared,
        }
    }
}
