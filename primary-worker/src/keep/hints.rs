//! How far commands had been applied, kept in the broker: a hint, never a truth.
//!
//! A failover can take commits back; then the commands come again from the stream, and the time of
//! one may have passed meanwhile though it was applied in time before. So the worker tells the
//! broker about once a second how far it has come and when, and a command that comes again and was
//! certainly settled before its time is applied, also when the clock says that its time has passed
//! (invariant 8). Where the
//! samples do not tell, the clock decides; so a command that had expired is never applied for a
//! hint's sake. A sample ends before the first parked command that has such a time: lanes pass what
//! is parked, and it is not settled.
//!
//! The samples are the last message on their subject of a small stream (`hints_stream`). Without it, or
//! when it cannot be read, the worker works without hints and says so.

use std::{collections::VecDeque, time::Duration};

use async_nats::jetstream::{self, stream::Stream};
use farwrite_schemas::Subjects;
use tracing::{info, warn};

use crate::{
    config::Config,
    stream::{delivery::Delivery, identity::identity_of},
};

use super::hint_book::{HintBook, HintSample, ToldPosition};

/// How long reading or writing them may take.
pub(crate) const WITHIN: Duration = Duration::from_secs(2);

/// The samples that the broker had at the takeover, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints {
    pub(crate) samples: VecDeque<HintSample>,
    /// How far the database was when it was told of last.
    pub(crate) told: Option<ToldPosition>,
}

impl Hints {
    /// Reads what the broker remembers; nothing when it cannot be read.
    pub(crate) async fn read(
        client: &async_nats::Client,
        stream: &Stream,
        config: &Config,
    ) -> Self {
        let reading = async {
            let context = jetstream::new(client.clone());
            let hints =
                context.get_stream(config.hints_stream()).await.map_err(|e| e.to_string())?;
            let last = hints.get_last_raw_message_by_subject(&hints_subject(config)).await;
            match last {
                Ok(message) => serde_json::from_slice(&message.payload).map_err(|e| e.to_string()),
                // Nothing was ever written.
                Err(error) if error.to_string().contains("no message found") => {
                    Ok(HintBook::default())
                }
                Err(error) => Err(error.to_string()),
            }
        };
        let book: Result<HintBook, String> =
            tokio::time::timeout(WITHIN, reading).await.unwrap_or(Err("no answer".to_owned()));
        match book {
            Ok(book) if book.identity == identity_of(stream) => {
                Self { samples: book.samples, told: book.told }
            }
            Ok(_) => Self::default(),
            Err(reason) => {
                warn!(
                    reason,
                    "no hints: after a failover, commands that had an expiry may expire the second time"
                );
                Self::default()
            }
        }
    }

    /// When a command is no longer to be applied, in Unix nanoseconds; `None` when it has no such
    /// time, or was certainly settled before it.
    pub(crate) fn expiry_of(&self, delivery: &Delivery) -> Option<i64> {
        let expires_ns = delivery.expires_ns()?;
        if self.was_settled(delivery.sequence, expires_ns) {
            let sequence = delivery.sequence;
            info!(sequence, "applied before its expiry once: it does not expire now");
            return None;
        }
        Some(expires_ns)
    }

    /// Whether everything up to `sequence` was settled before this time.
    fn was_settled(&self, sequence: u64, before_ns: i64) -> bool {
        let index = self.samples.partition_point(|sample| sample.sequence < sequence);
        self.samples.get(index).is_some_and(|sample| sample.at_ns < before_ns)
    }
}

/// The subject of the samples.
pub(crate) fn hints_subject(config: &Config) -> String {
    Subjects::new(config.database.clone()).hint(&config.stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sequence: u64, at_ns: i64) -> HintSample {
        HintSample { sequence, at_ns, passed: sequence }
    }

    #[test]
    fn only_what_was_certainly_settled_before_its_time_is_spared() {
        let hints = Hints { samples: [sample(10, 100), sample(20, 200)].into(), told: None };
        assert!(hints.was_settled(10, 101));
        assert!(!hints.was_settled(10, 100));
        // Settled some time between the samples: perhaps after 150.
        assert!(!hints.was_settled(15, 150));
        assert!(hints.was_settled(15, 201));
        assert!(!hints.was_settled(21, i64::MAX));
    }
}
