//! Asking how far behind the worker is.

use std::time::Duration;

use farwrite_schemas::Lag;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    backoff, limits::TIMEOUT_MAX, link::question::Unanswered, metrics, questions::ask::Questions,
};

/// The header in which a NATS service says why it does not answer.
const SERVICE_ERROR: &str = "Nats-Service-Error";

/// Why nobody said how far behind the worker is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LagError {
    /// No worker serves this database.
    #[error("no worker answered the question how far behind it is")]
    NoWorker,
    /// NATS was not connected when the time was up.
    #[error("no connection to NATS to ask how far behind the worker is")]
    NoConnection,
    /// The connection's credentials do not allow it.
    #[error("not permitted to use {subject:?} to ask how far behind the worker is")]
    NotPermitted {
        /// What is not permitted.
        subject: String,
    },
    /// The worker could not find out.
    #[error("the worker does not know how far behind it is: {reason}")]
    Unknown {
        /// The worker's words.
        reason: String,
    },
    /// The time was up.
    #[error("no answer in time to the question how far behind the worker is")]
    TimedOut,
    /// As many calls are pending as may be.
    #[error("{limit} calls are pending, which is the limit: the worker was not asked")]
    TooManyPending {
        /// The limit.
        limit: usize,
    },
    /// The NATS client was closed for good.
    #[error("the NATS client was closed: the worker was not asked")]
    Closed,
}

impl Questions {
    /// Asks how far behind the worker is, for at most `timeout`.
    pub(crate) async fn lag(&self, timeout: Duration) -> Result<Lag, LagError> {
        let deadline = Instant::now() + timeout.min(TIMEOUT_MAX);
        let limit = self.calls.limit();
        let _call = self.calls.enter().ok_or(LagError::TooManyPending { limit })?;
        let mut last = None;
        let asking = self.ask_for_lag(&mut last);
        match timeout_at(deadline, asking).await {
            Ok(answered) => answered,
            Err(_) if !self.link.is_connected() => Err(LagError::NoConnection),
            Err(_) => Err(last.unwrap_or(LagError::TimedOut)),
        }
    }

    async fn ask_for_lag(&self, last: &mut Option<LagError>) -> Result<Lag, LagError> {
        let mut backoff = backoff::publishing();
        loop {
            *last = Some(match self.link.question(&self.lag_subject, Vec::new()).await {
                Ok(message) => match serde_json::from_slice(&message.payload) {
                    Ok(lag) => return Ok(lag),
                    Err(error) => {
                        let reason =
                            message.headers.as_ref().and_then(|map| map.get(SERVICE_ERROR));
                        if reason.is_none() {
                            metrics::unreadable_reply();
                        }
                        let unreadable = || format!("its answer cannot be read: {error}");
                        let reason = reason.map_or_else(unreadable, ToString::to_string);
                        LagError::Unknown { reason }
                    }
                },
                Err(Unanswered::NoService) => LagError::NoWorker,
                Err(Unanswered::NotPermitted(subject)) => {
                    return Err(LagError::NotPermitted { subject: subject.to_string() });
                }
                Err(Unanswered::Closed) => return Err(LagError::Closed),
                Err(Unanswered::NotConnected | Unanswered::Silence | Unanswered::Unreadable) => {
                    LagError::TimedOut
                }
            });
            sleep(backoff.next_pause()).await;
        }
    }
}
