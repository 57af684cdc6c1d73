//! How far commands had been applied, kept in the broker: a hint, never a truth.
//!
//! A failover can take commits back; then the commands come again from the stream, and the time of
//! one may have passed meanwhile though it was applied in time before. So the worker tells the
//! broker about once a second how far it has come and when, and a command that comes again and was
//! certainly settled before its time is applied whatever the clock says (invariant 8). Where the
//! samples do not tell, the clock decides; so a command that had expired is never applied for a
//! hint's sake. A sample ends before the first parked command that has such a time: lanes pass what
//! is parked, and it is not settled.
//!
//! The samples are the last message of a small stream of their own, which `migrate` makes. Without
//! it, or when it cannot be read, the worker works without hints and says so.

use std::{collections::VecDeque, time::Duration};

use async_nats::jetstream::{
    self,
    stream::{Config as StreamConfig, DiscardPolicy, Stream},
};
use farwrite_schemas::Subjects;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use tracing::{info, warn};

use crate::{
    config::Config,
    stream::{StreamError, delivery::Delivery, identity::identity_of},
};

/// How often the broker is told.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// Samples that are kept: they lie the farther apart the older they are, and reach back to the
/// beginning.
const SAMPLES_MAX: usize = 128;
/// How long reading or writing them may take.
const WITHIN: Duration = Duration::from_secs(2);

/// At this time, everything up to this sequence (inclusive) was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sample {
    sequence: u64,
    at_ns: i64,
    /// The same, where a parked command counts as settled: it is in the database.
    #[serde(default)]
    passed: u64,
}

/// What the broker holds.
#[derive(Default, Serialize, Deserialize)]
struct Book {
    /// Whose sequences these are: another stream's say nothing.
    identity: String,
    samples: VecDeque<Sample>,
}

/// The samples that the broker had at the takeover, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints {
    samples: VecDeque<Sample>,
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
            let hints = context.get_stream(name(config)).await.map_err(|e| e.to_string())?;
            let last = hints.get_last_raw_message_by_subject(&subject(config)).await;
            match last {
                Ok(message) => serde_json::from_slice(&message.payload).map_err(|e| e.to_string()),
                // Nothing was ever written.
                Err(error) if error.to_string().contains("no message found") => Ok(Book::default()),
                Err(error) => Err(error.to_string()),
            }
        };
        let book: Result<Book, String> =
            tokio::time::timeout(WITHIN, reading).await.unwrap_or(Err("no answer".to_owned()));
        match book {
            Ok(book) if book.identity == identity_of(stream) => Self { samples: book.samples },
            Ok(_) => Self::default(),
            Err(reason) => {
                warn!(
                    reason,
                    "no hints: after a failover, commands that had an expiry may expire the second time; run `primary-worker migrate`"
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

/// Makes the stream that holds the samples, and the name of who serves, or brings it up to date.
pub(crate) async fn create(
    client: &async_nats::Client,
    config: &Config,
) -> Result<(), StreamError> {
    let subjects = Subjects::new(config.database.clone());
    let wanted = StreamConfig {
        name: name(config),
        subjects: vec![subject(config), subjects.served(&config.stream)],
        description: Some("How far Farwrite's commands had been applied, and by whom".to_owned()),
        max_messages_per_subject: 1,
        discard: DiscardPolicy::Old,
        num_replicas: config.new_stream.replicas,
        max_bytes: 1 << 20,
        ..StreamConfig::default()
    };
    // One of an older version had one subject less.
    let created = jetstream::new(client.clone()).create_or_update_stream(wanted).await;
    created
        .map(drop)
        .map_err(|error| StreamError::JetStream { stream: name(config), reason: error.to_string() })
}

/// Tells the broker how far the worker has come.
pub(crate) struct Keeper {
    context: jetstream::Context,
    subject: String,
    book: Book,
}

impl Keeper {
    /// Goes on from what the broker had at the takeover.
    pub(crate) fn new(
        client: &async_nats::Client,
        stream: &Stream,
        config: &Config,
        hints: &Hints,
    ) -> Self {
        let book = Book { identity: identity_of(stream), samples: hints.samples.clone() };
        Self { context: jetstream::new(client.clone()), subject: subject(config), book }
    }

    /// Takes a sample, and tells the broker when it is a new one. What the broker says is not
    /// waited for: the next one repeats it all.
    pub(crate) async fn tick(
        &mut self,
        connection: &mut PgConnection,
        stream_id: i32,
    ) -> Result<(), sqlx::Error> {
        let row: Option<(i64, i64, i64)> = sqlx::query_as(
            "SELECT min(l.sequence), least(min(l.sequence), (SELECT min(p.sequence) - 1 FROM farwrite.parked p
                                            WHERE p.stream_id = $1 AND p.headers::text ILIKE '%farwrite-expires-at%')),
                    (extract(epoch FROM clock_timestamp()) * 1e9)::bigint
             FROM farwrite.lanes l WHERE l.stream_id = $1 HAVING count(*) > 0",
        )
        .bind(stream_id)
        .fetch_optional(connection)
        .await?;
        let Some((passed, sequence, at_ns)) = row else { return Ok(()) };
        let (passed, sequence) = (passed.unsigned_abs(), sequence.unsigned_abs());
        if !self.book.add(Sample { sequence, at_ns, passed }) {
            return Ok(());
        }
        let payload = serde_json::to_vec(&self.book).unwrap_or_default();
        let publish = self.context.publish(self.subject.clone(), payload.into());
        if !matches!(tokio::time::timeout(WITHIN, publish).await, Ok(Ok(_))) {
            warn!("the hint of how far commands are applied was not sent");
        }
        Ok(())
    }
}

impl Keeper {
    /// Up to where everything (inclusive) was settled, or parked, before this time.
    pub(crate) fn settled_before(&self, before_ns: i64) -> u64 {
        let samples = &self.book.samples;
        let index = samples.partition_point(|sample| sample.at_ns <= before_ns);
        index.checked_sub(1).and_then(|last| samples.get(last)).map_or(0, |sample| sample.passed)
    }
}

impl Book {
    /// Adds a sample; false when nothing was settled since the last.
    fn add(&mut self, sample: Sample) -> bool {
        // After a failover the positions are lower: what was sampled before still holds, until the
        // same sequences are reached again.
        let sample = match self.samples.back() {
            Some(last) if last.sequence >= sample.sequence && last.passed >= sample.passed => {
                return false;
            }
            Some(last) => Sample {
                sequence: sample.sequence.max(last.sequence),
                passed: sample.passed.max(last.passed),
                ..sample
            },
            None => sample,
        };
        self.samples.push_back(sample);
        if self.samples.len() > SAMPLES_MAX {
            self.thin_out(sample.at_ns);
        }
        true
    }

    /// Drops the sample whose neighbours lie closest together for its age.
    fn thin_out(&mut self, now_ns: i64) {
        let at = |index: usize| self.samples[index].at_ns;
        let density = |index: usize| {
            let gap_ns = at(index + 1) - at(index - 1);
            gap_ns as f64 / (now_ns - at(index) + 1) as f64
        };
        let inner = 1..self.samples.len() - 1;
        if let Some(index) = inner.min_by(|&a, &b| density(a).total_cmp(&density(b))) {
            self.samples.remove(index);
        }
    }
}

pub(crate) fn name(config: &Config) -> String {
    format!("{}-hints", config.stream)
}

fn subject(config: &Config) -> String {
    Subjects::new(config.database.clone()).hint(&config.stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(samples: &[(u64, i64)]) -> Book {
        let samples =
            samples.iter().map(|&(sequence, at_ns)| Sample { sequence, at_ns, passed: sequence });
        let samples = samples.collect();
        Book { identity: String::new(), samples }
    }

    #[test]
    fn only_what_was_certainly_settled_before_its_time_is_spared() {
        let hints = Hints { samples: book(&[(10, 100), (20, 200)]).samples };
        assert!(hints.was_settled(10, 101));
        assert!(!hints.was_settled(10, 100));
        // Settled some time between the samples: perhaps after 150.
        assert!(!hints.was_settled(15, 150));
        assert!(hints.was_settled(15, 201));
        assert!(!hints.was_settled(21, i64::MAX));
    }

    #[test]
    fn samples_are_bounded_and_lie_farther_apart_the_older_they_are() {
        let mut book = Book::default();
        for n in 1..10_000 {
            let sample = |at_ns| Sample { sequence: n, at_ns, passed: n };
            assert!(book.add(sample(n as i64)));
            assert!(!book.add(sample(n as i64 + 1)));
            assert!(book.samples.len() <= SAMPLES_MAX);
        }
        let sequences: Vec<u64> = book.samples.iter().map(|sample| sample.sequence).collect();
        assert!(sequences.is_sorted());
        assert_eq!(sequences.last(), Some(&9_999));
        let gap_at = |age: u64| {
            let index = sequences.partition_point(|sequence| *sequence < 10_000 - age);
            sequences[index] - sequences[index - 1]
        };
        assert_eq!(gap_at(2), 1);
        assert!(gap_at(100) <= 10 && gap_at(5_000) <= 500, "{sequences:?}");
    }
}
