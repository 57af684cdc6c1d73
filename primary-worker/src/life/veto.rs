//! A word in the broker about who serves: against two primaries.
//!
//! The fence is a row, and keeps two workers of one primary apart. After a failover the old primary
//! may still live, with a worker that is cut off from the news: it would go on, and answer from a
//! branch of history that is lost. So each takeover leaves a record in the broker (epoch, timeline, identity),
//! by compare-and-set, and every worker looks at it. It is a veto and never a position: a worker
//! steps back from a record that is not its own, and while it cannot be read for some seconds it
//! answers nobody and trims nothing.
//!
//! The record, and the stream that holds it, may be deleted, or put back from an older copy together with
//! the commands: the worker that serves writes it again. A record of an earlier takeover of this very
//! database is no other worker's, while the database's owner is this one. A
//! worker that comes to take over and finds none, where there was a takeover before, leaves the one that
//! serves, perhaps on another primary, the time to do so.
//!
//! A worker that comes to take over is kept back by a record that its own history does not hold, unless
//! its timeline is newer: then that takeover was lost in the failover, together with its commits. A
//! record of another database keeps it back always: the worker of a copy must not take the original's
//! place. An operator's word changes that (`adopt_database.rs`).

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        self, Context, ErrorCode, message::PublishMessage, stream::LastRawMessageErrorKind,
    },
};
use farwrite_schemas::{Epoch, Subjects};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use crate::{
    config::Config,
    keep::hints_stream::HintsStream,
    metrics,
    primary::{PrimaryError, PrimaryServer, Purpose},
    store::{
        history,
        owner::{self, DatabaseIdentity},
        server,
    },
    stream::error::StreamError,
};

use super::{end::ServingEnd, may_answer::MayAnswer, takeover::Takeover};

/// How often the record is read.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long one reading may take.
const WITHIN: Duration = Duration::from_secs(2);
/// How long a worker that finds no record waits for the one that serves to write it again.
const WRITTEN_AGAIN_WITHIN: Duration = Duration::from_secs(5);
/// How long it may be unreadable before nobody is answered any more.
const SILENCE: Duration = Duration::from_secs(5);

/// Who serves, as the broker has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServedRecord {
    /// Of the takeover; zeros where an operator named a database that had none.
    pub(crate) epoch: Epoch,
    pub(crate) timeline: u32,
    /// Of the database, as in `farwrite.owner`.
    pub(crate) identity: String,
}

/// A record, and its sequence: 0 where there is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served {
    record: Option<ServedRecord>,
    sequence: u64,
    /// Whether the stream that holds it is gone.
    is_gone: bool,
}

/// The broker names a database or a takeover that this server does not hold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Vetoed {
    #[error(
        "a worker has served timeline {served} (epoch {epoch}), this server is on timeline {own} and its history lacks that takeover: it is a lost branch, or the server was put back from a copy. \
         Nothing is applied here. If it is the primary all the same, run `farwrite worker adopt-database`"
    )]
    LostBranch { served: u32, own: u32, epoch: Epoch },
    #[error(
        "a worker has served another database of this name: that one is {served}, and this one is {own} (system identifier, database, table, incarnation). \
         Nothing is applied here. A copy has a NATS account of its own; if this database takes the other one's place, run `farwrite worker adopt-database --replace`"
    )]
    OtherDatabase { served: String, own: String },
}

/// The broker's side.
#[derive(Clone)]
pub(crate) struct Veto {
    context: Context,
    stream: String,
    subject: String,
    hints: HintsStream,
}

impl Veto {
    pub(crate) fn new(client: &Client, config: &Config) -> Self {
        let subjects = Subjects::new(config.database.clone());
        let (subject, stream) = (subjects.served(&config.stream), config.hints_stream());
        let hints = HintsStream::new(client, config);
        Self { context: jetstream::new(client.clone()), stream, subject, hints }
    }

    /// The stream that holds the record and the hints.
    pub(crate) fn hints(&self) -> HintsStream {
        self.hints.clone()
    }

    /// Reads the record.
    async fn read(&self) -> Result<Served, String> {
        let reading = async {
            let stream = match self.context.get_stream_no_info(&self.stream).await {
                Ok(stream) => stream,
                Err(error) => return Err(error.to_string()),
            };
            match stream.get_last_raw_message_by_subject(&self.subject).await {
                Ok(message) => Ok(Served {
                    // What cannot be read was written by a newer program: it is somebody's.
                    record: Some(serde_json::from_slice(&message.payload).unwrap_or(
                        ServedRecord {
                            epoch: Epoch(uuid::Uuid::nil()),
                            timeline: u32::MAX,
                            identity: String::new(),
                        },
                    )),
                    sequence: message.sequence,
                    is_gone: false,
                }),
                Err(error) => match error.kind() {
                    LastRawMessageErrorKind::NoMessageFound => Ok(Served::default()),
                    LastRawMessageErrorKind::JetStream(answer)
                        if answer.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                    {
                        Ok(Served { is_gone: true, ..Served::default() })
                    }
                    _ => Err(error.to_string()),
                },
            }
        };
        timeout(WITHIN, reading).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    /// Reads the record before a takeover; where one is expected and there is none, a second time.
    ///
    /// # Errors
    /// JetStream's. It may pass.
    pub(crate) async fn look(&self, is_expected: bool) -> Result<Served, StreamError> {
        let error = |reason| StreamError::jetstream(&self.stream, reason);
        let mut served = self.read().await.map_err(error)?;
        if served.record.is_none() && is_expected {
            warn!(
                stream = self.stream,
                "the record of who serves is gone: a worker that serves elsewhere has {} s to write it again",
                WRITTEN_AGAIN_WITHIN.as_secs()
            );
            sleep(WRITTEN_AGAIN_WITHIN).await;
            served = self.read().await.map_err(error)?;
        }
        if served.is_gone {
            self.hints.make_again().await?;
        }
        Ok(served)
    }

    /// Writes the record of a takeover that is committed, if nobody has written one since. False
    /// when somebody has.
    pub(crate) async fn claim(
        &self,
        served: Served,
        record: &ServedRecord,
    ) -> Result<bool, StreamError> {
        let payload = serde_json::to_vec(record).unwrap_or_default();
        let message = PublishMessage::build()
            .payload(payload.into())
            .expected_last_subject_sequence(served.sequence);
        let error = |reason: String| StreamError::jetstream(&self.stream, reason);
        let publish = self.context.send_publish(self.subject.clone(), message).await;
        let publish = publish.map_err(|reason| error(reason.to_string()))?;
        match timeout(WITHIN, publish).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(reason))
                if reason.kind() == jetstream::context::PublishErrorKind::WrongLastSequence =>
            {
                Ok(false)
            }
            Ok(Err(reason)) => Err(error(reason.to_string())),
            Err(_) => Err(error("no answer in time".to_owned())),
        }
    }

    /// Writes the record again where it is gone. When somebody else was faster, the next look tells.
    async fn write_again(&self, served: Served, own: &ServedRecord) -> Result<Served, String> {
        if served.is_gone {
            self.hints.make_again().await.map_err(|error| error.to_string())?;
        } else {
            metrics::hints_made_again();
        }
        warn!(stream = self.stream, epoch = %own.epoch, "the record of who serves was gone: it is written again");
        self.claim(Served::default(), own).await.map_err(|error| error.to_string())?;
        self.read().await
    }

    /// Whether a record was this one's predecessor's: of an earlier takeover of this database, whose owner
    /// is still this one.
    async fn is_earlier(
        record: &ServedRecord,
        own: &ServedRecord,
        server: &PrimaryServer,
    ) -> Result<bool, PrimaryError> {
        if record.identity != own.identity {
            return Ok(false);
        }
        let mut connection = server.connect(&Purpose::Control).await?;
        Ok(history::holds(&mut connection, record.epoch).await?
            && owner::epoch(&mut connection).await? == Some(own.epoch))
    }

    /// Watches the record of a takeover until it is another one's.
    pub(crate) async fn watch(
        &self,
        own: ServedRecord,
        may_answer: MayAnswer,
        server: &PrimaryServer,
    ) -> ServingEnd {
        let epoch = own.epoch;
        let mut read_at = Instant::now();
        loop {
            sleep(LOOK_EVERY).await;
            let read = match self.read().await {
                Ok(served) if served.record.is_none() => self.write_again(served, &own).await,
                read => read,
            };
            match read {
                Ok(Served { record: Some(record), sequence, .. }) if record.epoch != epoch => {
                    may_answer.set(false);
                    if Self::is_earlier(&record, &own, server).await.unwrap_or(false) {
                        warn!(%epoch, earlier = %record.epoch, "the broker names an earlier takeover: perhaps it lost what came after it");
                        let served = Served { sequence, ..Served::default() };
                        // Where that fails, the next look tells.
                        let _ = self.claim(served, &own).await;
                        continue;
                    }
                    let ServedRecord { epoch: other, timeline, identity } = record;
                    warn!(%epoch, %other, timeline, identity, "the broker names another worker");
                    return ServingEnd::Taken;
                }
                Ok(_) => {
                    read_at = Instant::now();
                    may_answer.set(true);
                }
                Err(reason) if read_at.elapsed() >= SILENCE => {
                    if may_answer.now() {
                        warn!(
                            stream = self.stream,
                            reason, "the record of who serves cannot be read"
                        );
                    }
                    may_answer.set(false);
                }
                Err(_) => {}
            }
        }
    }
}

impl ServedRecord {
    pub(crate) fn of(takeover: &Takeover) -> Self {
        let Takeover { epoch, timeline, identity, .. } = takeover;
        Self { epoch: *epoch, timeline: timeline.0, identity: identity.clone() }
    }
}

impl Served {
    /// The database that the broker names, if it is another one.
    pub(crate) fn other_than(&self, here: &DatabaseIdentity) -> Option<&str> {
        self.record.as_ref().map(|record| &*record.identity).filter(|named| !here.is(named))
    }

    /// Whether a server may be taken over: it is the database that the record names, and its history
    /// holds the recorded takeover or is newer. `forced` is an operator's word on the second.
    pub(crate) async fn allows(
        &self,
        connection: &mut PgConnection,
        here: &DatabaseIdentity,
        forced: bool,
    ) -> Result<Result<(), Vetoed>, sqlx::Error> {
        let Some(ServedRecord { epoch, timeline: served, .. }) = self.record else {
            return Ok(Ok(()));
        };
        if let Some(other) = self.other_than(here) {
            let own = here.recorded.as_ref().unwrap_or(&here.home).clone();
            return Ok(Err(Vetoed::OtherDatabase { served: other.to_owned(), own }));
        }
        let own = server::timeline(connection).await?.0;
        if forced || own > served || epoch.0.is_nil() || history::holds(connection, epoch).await? {
            return Ok(Ok(()));
        }
        Ok(Err(Vetoed::LostBranch { served, own, epoch }))
    }
}
