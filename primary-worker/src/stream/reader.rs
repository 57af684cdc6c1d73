//! Reading the command stream, in order and without acknowledgements.
//!
//! The position is PostgreSQL's, so the consumer is a mere cursor: ephemeral, in memory, without
//! acknowledgements, begun where the database says. It has a name of its own, because an unnamed
//! one is refused under tight permissions, and a new one each time, so that a former worker that
//! wakes up cannot disturb its successor's.
//!
//! Each consumer is made anew on what the broker holds by then, so the stream is compared once more
//! before anything is read from it: identity, extent, and the message at the highest position, which
//! is another lane's perhaps. A broker that came back with an older copy of its store re-uses
//! sequences, and would go unnoticed.
//!
//! A full subscription drops messages with no more than an event, so every message's sequence is
//! compared with the one that was expected: a hole makes a new consumer. When the new one shows
//! the same hole, the stream itself has one, and that stops the worker. Or the message is there and
//! the client cannot read it (`unreadable.rs`): then it is asked for by its sequence.

use std::{pin::pin, sync::atomic::Ordering, time::Duration};

use async_nats::{
    connection::State,
    jetstream::{
        self, Context, ErrorCode,
        consumer::{AckPolicy, Consumer, DeliverPolicy, pull},
        stream::ConsumerErrorKind,
    },
};
use tokio::time::MissedTickBehavior;
use tokio_stream::{Stream, StreamExt};
use tracing::{info, warn};

use crate::metrics;

use super::{
    client::has_ended,
    delivery::Delivery,
    error::StreamError,
    identity::Identity,
    position::StreamProgress,
    sink::{Sink, Verified},
    stored::{is_unreadable, stored},
    unreadable::{PULL_MAX_MESSAGES, Unreadable},
};

/// How often JetStream says that it is there while it has nothing to deliver.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long one pull request stands.
const EXPIRES: Duration = Duration::from_secs(20);
/// When JetStream forgets a consumer that nobody pulls from.
const INACTIVE: Duration = Duration::from_secs(60);
/// How often it is asked whether the client has connected again: what was on the way is lost, and a
/// quiet stream would not show it.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// First and longest pause before another consumer is made.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What the names of consumers begin with, and how many of their characters name the takeover.
pub(crate) const NAMES_BEGIN: &str = "farwrite-";
const NAME_OF_TAKEOVER: usize = NAMES_BEGIN.len() + 8;
/// How long deleting consumers of former takeovers may take.
const DELETE_WITHIN: Duration = Duration::from_secs(3);

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReaderEnd {
    /// What takes the messages has gone: the worker is stopping.
    #[error("nobody takes what is read")]
    Closed,
    /// The client is of no further use.
    #[error("the NATS client has ended, perhaps by a message that it cannot read")]
    ClientEnded,
    /// The stream is not one to go on with.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Reads a stream from a position on.
pub(crate) struct StreamReader {
    context: Context,
    stream: jetstream::stream::Stream,
    identity: Identity,
    name: String,
    next: u64,
    /// Bytes of one pull: no less than any message, which would never come.
    pull_max_bytes: usize,
    consumers: u32,
    unreadable: Unreadable,
}

/// How one consumer ended.
enum ConsumerEnd {
    /// It failed or fell silent: another one may do.
    Broken(String),
    /// The sequence after the expected one came first.
    Gap { found: u64 },
    /// The next message is one that cannot be read.
    Unreadable,
    /// Nobody takes what is read.
    Closed,
    /// The stream is not the one that was read before.
    Other(StreamError),
}

impl StreamReader {
    /// Reads from `next` on; `name` begins the names of its consumers.
    pub(crate) fn new(
        Verified { context, stream, identity, unreadable }: Verified,
        name: String,
        next: u64,
        pull_max_bytes: usize,
    ) -> Self {
        Self { context, stream, identity, name, next, pull_max_bytes, consumers: 0, unreadable }
    }

    /// Reads until nobody takes what is read, the client ends, or the stream turns out to be another
    /// one.
    pub(crate) async fn run(mut self, sink: &mut impl Sink) -> ReaderEnd {
        let mut pause = PAUSE.0;
        let mut ended_at = None;
        let info = self.stream.cached_info();
        let (name, last) = (&info.config.name, info.state.last_sequence);
        if let Err(reason) = self.unreadable.look(&self.context, name, last).await {
            return ReaderEnd::Stream(StreamError::jetstream(name, reason));
        }
        loop {
            let before = self.next;
            let end = self.read_one_consumer(sink).await;
            let client_ended = has_ended(&self.context.client());
            if client_ended {
                self.unreadable.suspect(self.next);
            }
            let is_known = matches!(end, ConsumerEnd::Unreadable);
            let mut gap = None;
            match end {
                ConsumerEnd::Closed => return ReaderEnd::Closed,
                _ if client_ended => return ReaderEnd::ClientEnded,
                ConsumerEnd::Other(error) => return ReaderEnd::Stream(error),
                ConsumerEnd::Unreadable => {}
                ConsumerEnd::Broken(reason) => {
                    warn!(next = self.next, reason, "reading is interrupted");
                    sink.reading(Some(&reason));
                }
                ConsumerEnd::Gap { found } => {
                    warn!(next = self.next, found, "messages were skipped: reading again");
                    gap = Some(found);
                }
            }
            metrics::reader_restarted();
            let looks = is_known || ended_at.replace(self.next) == Some(self.next);
            if looks && let Err(end) = self.look(sink, gap).await {
                return end;
            }
            if is_known && self.next > before {
                continue;
            }
            pause = if self.next > before { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks at the next message, and at those behind it as long as they cannot be read, and hands these
    /// on as what they are. Where a consumer skipped to `gap`, there must be something.
    async fn look(&mut self, sink: &mut impl Sink, gap: Option<u64>) -> Result<(), ReaderEnd> {
        loop {
            let name = &self.stream.cached_info().config.name;
            match (stored(&self.context, name, self.next).await, gap) {
                (Ok(Some(raw)), _) if is_unreadable(&raw) => {
                    warn!(next = self.next, "a message cannot be read, and is no command");
                    self.unreadable.know(self.next);
                    if !sink.take(Delivery::unread(raw)).await {
                        return Err(ReaderEnd::Closed);
                    }
                    self.next += 1;
                }
                (Ok(None), Some(found)) if found > self.next => {
                    return Err(ReaderEnd::Stream(self.hole(found)));
                }
                (Ok(_), _) => {
                    self.unreadable.acquit(self.next);
                    return Ok(());
                }
                (Err(reason), _) => {
                    warn!(next = self.next, reason, "asking for the message");
                    return Ok(());
                }
            }
        }
    }

    fn hole(&self, found: u64) -> StreamError {
        StreamError::Changed {
            stream: self.stream.cached_info().config.name.clone(),
            reason: format!(
                "sequences {} to {} are missing from it, and their commands were not applied",
                self.next,
                found - 1
            ),
        }
    }

    /// Reads through one consumer, up to the next message that cannot be read: that one must not be
    /// pulled.
    async fn read_one_consumer(&mut self, sink: &mut impl Sink) -> ConsumerEnd {
        let until = self.unreadable.first(self.next);
        if until == Some(self.next) {
            return ConsumerEnd::Unreadable;
        }
        self.consumers += 1;
        let name = format!("{}-{}", self.name, self.consumers);
        let config = pull::Config {
            name: Some(name.clone()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.next },
            ack_policy: AckPolicy::None,
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = match self.stream.create_consumer(config).await {
            Ok(consumer) => consumer,
            Err(error) => {
                let is_full = matches!(error.kind(), ConsumerErrorKind::JetStream(ref error)
                    if error.error_code() == ErrorCode::MAXIMUM_CONSUMERS_LIMIT);
                // Perhaps by those of a worker that fell.
                if is_full {
                    self.delete_others().await;
                }
                return ConsumerEnd::Broken(format!("creating a consumer: {error}"));
            }
        };
        let progress = StreamProgress { low_water: self.next - 1, highest: sink.highest() };
        match self.identity.verify(&self.context, &self.stream, &progress).await {
            Ok(_) => {}
            Err(error) if error.may_pass() => return ConsumerEnd::Broken(error.to_string()),
            Err(error) => return ConsumerEnd::Other(error),
        }
        sink.reading(None);
        let end = match until {
            None => self.pull(&consumer, sink).await,
            Some(until) => self.pull_until(until, &consumer, sink).await,
        };
        // Best effort: JetStream forgets it by itself.
        let _ =
            tokio::time::timeout(Duration::from_secs(1), self.stream.delete_consumer(&name)).await;
        end
    }

    /// Deletes the consumers of former takeovers, which JetStream keeps for a while. Best effort.
    async fn delete_others(&self) {
        let own: String = self.name.chars().take(NAME_OF_TAKEOVER).collect();
        let deleting = async {
            let mut names = self.stream.consumer_names();
            while let Some(Ok(name)) = names.next().await {
                if name.starts_with(NAMES_BEGIN) && !name.starts_with(&own) {
                    info!(name, "deleting the consumer of a former takeover");
                    let _ = self.stream.delete_consumer(&name).await;
                }
            }
        };
        let _ = tokio::time::timeout(DELETE_WITHIN, deleting).await;
    }

    async fn pull(
        &mut self,
        consumer: &Consumer<pull::Config>,
        sink: &mut impl Sink,
    ) -> ConsumerEnd {
        let messages = consumer
            .stream()
            .max_messages_per_batch(PULL_MAX_MESSAGES)
            .max_bytes_per_batch(self.pull_max_bytes)
            .heartbeat(HEARTBEAT)
            .expires(EXPIRES)
            .messages()
            .await;
        match messages {
            Ok(messages) => self.forward(messages, sink).await,
            Err(error) => ConsumerEnd::Broken(format!("pulling: {error}")),
        }
    }

    /// Pulls no further than to the message before `until`.
    async fn pull_until(
        &mut self,
        until: u64,
        consumer: &Consumer<pull::Config>,
        sink: &mut impl Sink,
    ) -> ConsumerEnd {
        while self.next < until {
            let before = self.next;
            let left = usize::try_from(until - self.next).unwrap_or(usize::MAX);
            let batch = consumer.batch().max_messages(left.min(PULL_MAX_MESSAGES));
            let batch = batch.max_bytes(self.pull_max_bytes);
            let end = match batch.heartbeat(HEARTBEAT).expires(EXPIRES).messages().await {
                Ok(messages) => self.forward(messages, sink).await,
                Err(error) => return ConsumerEnd::Broken(format!("pulling: {error}")),
            };
            // A batch that brought what was asked for ends, too.
            if !matches!(end, ConsumerEnd::Broken(_)) || self.next == before {
                return end;
            }
        }
        ConsumerEnd::Unreadable
    }

    async fn forward<E: std::fmt::Display>(
        &mut self,
        messages: impl Stream<Item = Result<jetstream::Message, E>>,
        sink: &mut impl Sink,
    ) -> ConsumerEnd {
        info!(next = self.next, "reading");
        let mut messages = pin!(messages);
        let statistics = self.context.client().statistics();
        let connects = || statistics.connects.load(Ordering::Relaxed);
        let connected = connects();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // A message that is there already is taken without a look at the clock.
            let next = tokio::select! {
                biased;
                next = messages.next() => Some(next),
                _ = looks.tick() => None,
            };
            if connects() != connected {
                return ConsumerEnd::Broken("connected again: something may be lost".to_owned());
            }
            let message = match next {
                Some(Some(message)) => message,
                Some(None) => return ConsumerEnd::Broken("the subscription ended".to_owned()),
                None => {
                    // What ends this loop is the new connection.
                    if self.context.client().connection_state() == State::Disconnected {
                        sink.reading(Some("NATS is not connected"));
                    }
                    continue;
                }
            };
            let message = match message {
                Ok(message) => message,
                Err(error) => return ConsumerEnd::Broken(error.to_string()),
            };
            let (sequence, at_ns, pending) = match message.info() {
                Ok(info) => {
                    let at_ns = i64::try_from(info.published.unix_timestamp_nanos());
                    (info.stream_sequence, at_ns.unwrap_or(i64::MAX), info.pending)
                }
                Err(error) => {
                    return ConsumerEnd::Broken(format!("a message without its place: {error}"));
                }
            };
            if sequence != self.next {
                return ConsumerEnd::Gap { found: sequence };
            }
            sink.remaining(pending);
            if !sink.take(Delivery::read(message.message, sequence, at_ns)).await {
                return ConsumerEnd::Closed;
            }
            self.next = sequence + 1;
        }
    }
}
