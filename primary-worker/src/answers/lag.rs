//! How far behind the worker is: what the stream has and no lane has passed.
//!
//! The stream is asked first and the lanes' positions are read after it, so that what is applied
//! meanwhile never counts. The lowest position counts for all lanes: a lane with nothing to do is
//! moved along twice a second, so under load the number of commands is up to half a second's worth
//! too high, and it goes to 0 when nothing is left.
//!
//! Of a stream that is not the one whose positions the database holds, or has lost what was passed,
//! there is no lag: the answer says what is wrong with it.
//!
//! However many ask, JetStream and the database are asked at most once a second.

use std::{
    future::Future,
    time::{Duration, Instant, SystemTime},
};

use async_nats::{jetstream::stream::RawMessageErrorKind, service::endpoint::Endpoint};
use farwrite_schemas::{Lag, Subjects};
use futures_util::StreamExt;
use sqlx::PgConnection;
use tokio::sync::Mutex;
use tracing::warn;

use crate::{
    config::Config,
    life::take_over::read_progress,
    store::lanes,
    stream::{error::StreamError, sink::Verified},
};

use super::service_error::service_error;

/// How long an answer is good for.
const FRESH: Duration = Duration::from_secs(1);
/// How long JetStream may take; JetStream's own limit for a request is longer.
const JETSTREAM_WITHIN: Duration = Duration::from_secs(2);

/// Measures the lag of one stream.
pub(crate) struct LagGauge<'a> {
    stream: &'a Verified,
    stream_id: i32,
    commands: String,
}

/// Why it could not be measured.
enum LagUnknown {
    Sql(sqlx::Error),
    JetStream(String),
}

impl<'a> LagGauge<'a> {
    pub(crate) fn new(stream: &'a Verified, config: &Config, stream_id: i32) -> Self {
        let commands = Subjects::new(config.database.clone()).all_commands();
        Self { stream, stream_id, commands }
    }

    /// Answers until the database fails.
    pub(crate) async fn answer_all(
        &self,
        mut questions: Endpoint,
        connection: &Mutex<PgConnection>,
    ) -> sqlx::Error {
        let mut last: Option<(Instant, Lag)> = None;
        while let Some(request) = questions.next().await {
            let measured = match last {
                Some((at, lag)) if at.elapsed() < FRESH => Ok((at, lag)),
                _ => self.measure(connection).await.map(|lag| (Instant::now(), lag)),
            };
            let answer = match measured {
                Ok((at, lag)) => {
                    last = Some((at, lag));
                    serde_json::to_vec(&lag).map_err(|error| error.to_string())
                }
                Err(LagUnknown::JetStream(reason)) => Err(reason),
                Err(LagUnknown::Sql(error)) => return error,
            };
            let answer = answer.map(Into::into);
            let answer = answer.map_err(|reason| service_error(503, &reason));
            if let Err(error) = request.respond(answer).await {
                warn!(%error, "the lag could not be told");
            }
        }
        // The service's other endpoint ends with it, and says so.
        std::future::pending().await
    }

    async fn measure(&self, connection: &Mutex<PgConnection>) -> Result<Lag, LagUnknown> {
        let progress = read_progress(&mut *connection.lock().await, self.name()).await;
        let progress = progress.map_err(|error| match error {
            StreamError::Sql(error) => LagUnknown::Sql(error),
            error => unmeasured(error),
        })?;
        let Verified { context, stream, identity, .. } = self.stream;
        let info = async { identity.verify(context, stream, &progress).await.map_err(unmeasured) };
        let last_sequence = in_time(info).await?.state.last_sequence;
        let low_water = lanes::low_water(&mut *connection.lock().await, self.stream_id).await;
        let low_water = low_water.map_err(LagUnknown::Sql)?;
        let commands = last_sequence.saturating_sub(low_water);
        let seconds = if commands == 0 { 0.0 } else { in_time(self.age_after(low_water)).await? };
        Ok(Lag { commands, seconds })
    }

    fn name(&self) -> &str {
        &self.stream.stream.cached_info().config.name
    }

    /// How long the first message behind a sequence has been in the stream.
    async fn age_after(&self, sequence: u64) -> Result<f64, LagUnknown> {
        let stream = &self.stream.stream;
        let oldest = stream.get_first_raw_message_by_subject(&self.commands, sequence + 1).await;
        match oldest {
            Ok(message) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let now = now.unwrap_or_default().as_secs_f64();
                Ok((now - message.time.unix_timestamp_nanos() as f64 / 1e9).max(0.0))
            }
            // Trimmed meanwhile: it was applied long ago.
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(0.0),
            Err(error) => Err(unmeasured(error)),
        }
    }
}

/// JetStream's answer, or what to say without it.
async fn in_time<T>(asking: impl Future<Output = Result<T, LagUnknown>>) -> Result<T, LagUnknown> {
    let late = |_| unmeasured("no answer in time");
    tokio::time::timeout(JETSTREAM_WITHIN, asking).await.map_err(late)?
}

fn unmeasured(reason: impl std::fmt::Display) -> LagUnknown {
    LagUnknown::JetStream(format!("JetStream: {reason}"))
}
