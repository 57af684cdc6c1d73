//! One client: writes and reads wherever it is, and writes down what it was told.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use farwrite_producer::{
    Bookmark, Command, Key, KeyError, Known, Producer, PublishError, SubmitError, WriteError,
};
use fastrand::Rng;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use farwrite_checker::{Begun, CommandEnd, HistoryVerb, ReadOp};

use super::{
    pauses::Pauses,
    stage::{Shared, now_ms},
};

/// Keys are few, so that clients meet.
const KEYS: u32 = 6;
/// How long a client tries to learn whether its command was accepted.
const RESOLVE_WITHIN: Duration = Duration::from_secs(60);
/// How long one read may take.
const READ_WITHIN: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Put {
    #[serde(skip)]
    key: String,
    #[serde(flatten)]
    body: Value,
}

impl Command for Put {
    const NAME: &'static str = "chaos.put";
    type Output = i64;
    fn key(&self) -> Result<Option<Key>, KeyError> {
        Key::new(&self.key).map(Some)
    }
}

/// What a call told.
struct Told {
    end: CommandEnd,
    visible: bool,
    bookmark: Option<Bookmark>,
}

impl Told {
    const fn only(end: CommandEnd) -> Self {
        Self { end, visible: false, bookmark: None }
    }

    fn with(end: CommandEnd, bookmark: Bookmark) -> Self {
        Self { end, visible: false, bookmark: Some(bookmark) }
    }
}

pub(super) struct Client {
    name: String,
    stage: Shared,
    pauses: Pauses,
    random: Rng,
    /// What it carries from region to region.
    bookmark: Option<Bookmark>,
    acknowledged: u64,
}

impl Client {
    pub(super) fn new(number: u32, stage: Shared, pauses: Pauses, random: Rng) -> Self {
        let name = format!("client {number}");
        Self { name, stage, pauses, random, bookmark: None, acknowledged: 0 }
    }

    /// Works until the time is up; answers how many commands were acknowledged.
    pub(super) async fn run(mut self, until: Instant) -> Result<u64> {
        while Instant::now() < until {
            let place = self.random.usize(..self.stage.producers.len());
            let (region, producer) = self.stage.producers[place].clone();
            let stage = Arc::clone(&self.stage);
            let _open = stage.gate.read().await;
            match self.random.u32(..100) {
                0..15 => self.command(HistoryVerb::Publish, region, &producer).await?,
                15..40 => self.command(HistoryVerb::Submit, region, &producer).await?,
                40..65 => self.command(HistoryVerb::Write, region, &producer).await?,
                _ => self.read(region, &producer).await?,
            }
            // Clients think now and then.
            tokio::time::sleep(Duration::from_millis(self.random.u64(..20))).await;
        }
        Ok(self.acknowledged)
    }

    fn key(&mut self) -> String {
        format!("key {}", self.random.u32(..KEYS))
    }

    async fn command(
        &mut self,
        verb: HistoryVerb,
        region: &str,
        producer: &Producer,
    ) -> Result<()> {
        let (id, key) = (self.stage.new_id(), self.key());
        let body = match self.random.u32(..100) {
            0..5 => json!({ "refuse": true }),
            5..15 => json!({ "fail_until": now_ms() + self.random.i64(30..100) }),
            _ => json!({}),
        };
        // Some have a time of which nobody takes notice, some one that may well pass.
        let expires = match self.random.u32(..100) {
            0..10 => Some(Duration::from_secs(3_600)),
            10..15 => Some(Duration::from_millis(self.random.u64(20..2_000))),
            _ => None,
        };
        let history = self.stage.history.clone();
        let begun = history.start_command(verb, (&self.name, region), id.uuid(), &key, &body)?;
        let put = Put { key, body };
        let began = Instant::now();
        let expires_at = expires.map(|after| std::time::SystemTime::now() + after);
        // A publish that may have been stored is sent again under its id until it is known.
        let mut is_in_doubt = false;
        let told = loop {
            let mut call = producer.call(&put).id(id);
            if let Some(time) = expires_at {
                call = call.expires_at(time);
            }
            let told = match verb {
                HistoryVerb::Publish => published(call.publish().await.map(drop)),
                HistoryVerb::Submit => match call.submit().await {
                    Ok(done) => Told::with(CommandEnd::Applied, done.bookmark),
                    Err(error) => submitted(error),
                },
                HistoryVerb::Write => match call.write().await {
                    Ok(done) => {
                        let told = Told::with(CommandEnd::Applied, done.bookmark);
                        Told { visible: true, ..told }
                    }
                    Err(WriteError::NotVisible { committed, .. }) => {
                        Told::with(CommandEnd::Applied, committed.bookmark)
                    }
                    Err(WriteError::Submit(error)) => submitted(error),
                    Err(WriteError::NotEverywhere { visible, .. }) => {
                        Told::with(CommandEnd::Applied, visible.bookmark)
                    }
                    Err(WriteError::NoReads { .. }) => Told::only(CommandEnd::Refused),
                },
            };
            match told.end {
                CommandEnd::Unknown if began.elapsed() < RESOLVE_WITHIN => is_in_doubt = true,
                // A call knows nothing of the one before it under the same id.
                CommandEnd::Refused if is_in_doubt => break Told::only(CommandEnd::Unknown),
                _ => break told,
            }
        };
        history.end_command(begun, told.end, told.visible)?;
        if told.end.is_acceptance() {
            self.acknowledged += 1;
        }
        if told.end.told().is_some() {
            self.pauses.answered();
        }
        match told.bookmark {
            Some(bookmark) => self.note(bookmark),
            None => Ok(()),
        }
    }

    /// Of two positions on one timeline the later stays. There is one failover at a time here, so a
    /// timeline's number tells it; what the client knew of another may be lost.
    fn note(&mut self, bookmark: Bookmark) -> Result<()> {
        let Some(known) = &self.bookmark else {
            self.bookmark = Some(bookmark);
            return Ok(());
        };
        if known.timeline.0 > bookmark.timeline.0 {
            // A late answer from before: what the client knew then may be lost.
            return Ok(self.stage.history.superseded(&self.name)?);
        }
        if known.timeline.0 < bookmark.timeline.0 {
            self.stage.history.superseded(&self.name)?;
        }
        if known.timeline.0 < bookmark.timeline.0 || known.lsn < bookmark.lsn {
            self.bookmark = Some(bookmark);
        }
        Ok(())
    }

    async fn read(&mut self, region: &str, producer: &Producer) -> Result<()> {
        let key = self.key();
        let history = self.stage.history.clone();
        let Some(bookmark) = self.bookmark.clone() else { return Ok(()) };
        if self.random.u32(..4) == 0 {
            // Without a word about what it knows: whatever the region shows.
            let begun = history.start_read((&self.name, region), &key, false)?;
            let Ok(pool) = producer.reads() else { return Ok(history.fail_read(begun)?) };
            return self.finish_read(begun, producer, pool, &key).await;
        }
        let read = match timeout(READ_WITHIN, producer.read_at(&bookmark)).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => {
                if error.is_superseded() {
                    self.bookmark = None;
                    history.superseded(&self.name)?;
                }
                return Ok(());
            }
            Err(_) => return Ok(()),
        };
        let begun = history.start_read((&self.name, region), &key, true)?;
        self.finish_read(begun, producer, read.pool, &key).await
    }

    /// Reads, and keeps the bookmark of what was seen.
    async fn finish_read(
        &mut self,
        begun: Begun<ReadOp>,
        producer: &Producer,
        pool: &sqlx::PgPool,
        key: &str,
    ) -> Result<()> {
        let history = self.stage.history.clone();
        let reading = async {
            let mut connection = pool.acquire().await?;
            let seen = look(&mut *connection, key).await?;
            Ok::<_, sqlx::Error>((seen, producer.bookmark(&mut connection).await?))
        };
        match timeout(READ_WITHIN, reading).await {
            Ok(Ok(((n, last), Some(seen_at)))) => {
                history.end_read(begun, n, last)?;
                self.note(seen_at)
            }
            // What was seen cannot be kept, so it binds nobody.
            Ok(Ok((_, None)) | Err(_)) | Err(_) => Ok(history.fail_read(begun)?),
        }
    }
}

/// The number of effects of a key, and the last.
async fn look<'c>(
    executor: impl sqlx::PgExecutor<'c>,
    key: &str,
) -> Result<(u64, Option<Uuid>), sqlx::Error> {
    let row: Option<(i64, Uuid)> =
        sqlx::query_as("SELECT n, id FROM effects WHERE key = $1 ORDER BY n DESC LIMIT 1")
            .bind(key)
            .fetch_optional(executor)
            .await?;
    Ok(row.map_or((0, None), |(n, id)| (n.unsigned_abs(), Some(id))))
}

fn published(result: Result<(), PublishError>) -> Told {
    Told::only(match result {
        Ok(()) => CommandEnd::Accepted,
        Err(error) => match error.known() {
            Known::NotAccepted => CommandEnd::Refused,
            Known::MaybeAccepted => CommandEnd::Unknown,
        },
    })
}

fn submitted(error: SubmitError) -> Told {
    match error {
        SubmitError::Publish(error) => published(Err(error)),
        SubmitError::TimedOut { .. } => Told::only(CommandEnd::Accepted),
        SubmitError::Rejected { bookmark, .. } => Told::with(CommandEnd::Rejected, bookmark),
        SubmitError::Expired { bookmark, .. } => Told::with(CommandEnd::Expired, bookmark),
        SubmitError::DeadLettered { bookmark, .. } => {
            Told::with(CommandEnd::DeadLettered, bookmark)
        }
        SubmitError::OutputNotRead { bookmark, .. } | SubmitError::Output { bookmark, .. } => {
            Told::with(CommandEnd::Applied, bookmark)
        }
    }
}
