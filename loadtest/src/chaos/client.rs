//! One client: each call goes to a region by chance, and the history gets what the client was told.

use std::{
    borrow::Cow,
    sync::{Arc, PoisonError},
    time::Duration,
};

use anyhow::{Result, ensure};
use farwrite_producer::{Bookmark, Command, CommandId, Key, Producer, RawCommand};
use farwrite_schemas::ATOMIC_NAME;
use fastrand::Rng;
use serde::Serialize;
use serde_json::{Value, json, value::to_raw_value};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use farwrite_checker::{Begun, CommandEnd, HistoryVerb, ReadOp};

use super::{
    answer::CallAnswer,
    app::{PASSING_ERRORS, PATIENCE},
    pauses::Pauses,
    schedule::CallShares,
    stage::{ChaosStage, now_ms},
};

/// Keys are few, so that clients meet.
const KEYS: u32 = 6;
/// How long a client tries to learn whether its command was accepted.
const RESOLVE_WITHIN: Duration = Duration::from_secs(60);
/// How long one read may take.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// Before so many of a hundred submits an atomic batch is published.
const BATCHES_PERCENT: u32 = 10;
/// Of a hundred calls, so many are dropped when they have not ended soon.
const DROPPED_PERCENT: u32 = 8;
/// How soon at most, in microseconds: about as long as a message takes over a link.
const DROPPED_WITHIN_US: u64 = 30_000;
/// How soon a read that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(10);

#[derive(Serialize)]
struct ChaosPut {
    #[serde(skip)]
    key: String,
    #[serde(flatten)]
    body: Value,
}

impl Command for ChaosPut {
    const NAME: &'static str = "chaos.put";
    type Output = i64;
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.key.as_str().into())
    }
}

pub(super) struct Client {
    name: String,
    stage: Arc<ChaosStage>,
    pauses: Pauses,
    calls: CallShares,
    random: Rng,
    /// What the client carries from region to region.
    bookmark: Option<Bookmark>,
    acknowledged: u64,
}

impl Client {
    pub(super) fn new(
        number: u32,
        stage: Arc<ChaosStage>,
        pauses: Pauses,
        calls: CallShares,
        random: Rng,
    ) -> Self {
        let name = format!("client {number}");
        Self { name, stage, pauses, calls, random, bookmark: None, acknowledged: 0 }
    }

    /// Works until the time is up; answers how many commands were acknowledged.
    pub(super) async fn run(mut self, until: Instant) -> Result<u64> {
        while Instant::now() < until {
            let stage = Arc::clone(&self.stage);
            let _open = stage.gate.read().await;
            let CallShares { publish, submit, write, .. } = self.calls;
            let chance = self.random.u32(..100);
            if chance < publish {
                self.command(HistoryVerb::Publish).await?;
            } else if chance < publish + submit {
                if self.random.u32(..100) < BATCHES_PERCENT {
                    self.batch().await?;
                }
                self.command(HistoryVerb::Submit).await?;
            } else if chance < publish + submit + write {
                self.command(HistoryVerb::Write).await?;
            } else {
                self.read().await?;
            }
            // Clients think now and then.
            tokio::time::sleep(Duration::from_millis(self.random.u64(..20))).await;
        }
        Ok(self.acknowledged)
    }

    /// A region by chance, and the app's producer there.
    fn somewhere(&mut self) -> (&'static str, Producer) {
        self.stage.producers[self.random.usize(..self.stage.producers.len())].clone()
    }

    fn key(&mut self) -> String {
        format!("key {}", self.random.u32(..KEYS))
    }

    async fn command(&mut self, verb: HistoryVerb) -> Result<()> {
        let (region, producer) = self.somewhere();
        let (id, key) = (self.stage.new_id(), self.key());
        let body = match self.random.u32(..100) {
            0..5 => json!({ "refuse": true }),
            5..15 => {
                let code = PASSING_ERRORS[self.random.usize(..PASSING_ERRORS.len())];
                json!({ "fail_until": now_ms() + self.random.i64(30..100), "code": code })
            }
            _ => json!({}),
        };
        // Some expire late, so that no command notices; some soon, so that the time may pass.
        let expires = match self.random.u32(..100) {
            0..10 => Some(Duration::from_secs(3_600)),
            10..15 => Some(Duration::from_millis(self.random.u64(20..2_000))),
            _ => None,
        };
        let history = self.stage.history.clone();
        let begun = history.start_command(verb, (&self.name, region), id.uuid(), &key, &body)?;
        let put = ChaosPut { key, body };
        let began = Instant::now();
        let expires_at = expires.map(|after| std::time::SystemTime::now() + after);
        // Some apps give a call up, with its message still here, on its way, or stored.
        let drops = (self.random.u32(..100) < DROPPED_PERCENT)
            .then(|| Duration::from_micros(self.random.u64(..DROPPED_WITHIN_US)));
        // A publish that may have been stored is sent again under its id until it is known.
        let mut is_in_doubt = false;
        let told = loop {
            let mut call = producer.call(&put).id(id);
            if let Some(time) = expires_at {
                call = call.expires_at(time);
            }
            let calling = async {
                match verb {
                    HistoryVerb::Publish => CallAnswer::published(call.publish().await.map(drop)),
                    HistoryVerb::Submit => CallAnswer::submitted(call.submit().await),
                    HistoryVerb::Write => CallAnswer::written(call.write().await),
                }
            };
            let told = match drops {
                Some(within) => match timeout(within, calling).await {
                    Ok(told) => told,
                    Err(_) => break CallAnswer::only(CommandEnd::Dropped),
                },
                None => calling.await,
            };
            match told.end {
                CommandEnd::Unknown if began.elapsed() < RESOLVE_WITHIN => is_in_doubt = true,
                // A call knows nothing of the one before it under the same id.
                CommandEnd::Refused if is_in_doubt => break CallAnswer::only(CommandEnd::Unknown),
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

    /// Publishes an atomic batch, and one of its commands alone under another key as well: another
    /// lane may have that one while the batch runs. Whichever is first has the effect.
    async fn batch(&mut self) -> Result<()> {
        let (region, producer) = self.somewhere();
        let (key, other) = (self.key(), self.key());
        let slow = json!({ "sleep_ms": self.random.u32(..150) });
        let members = [(self.stage.new_id(), slow), (self.stage.new_id(), json!({}))];
        let whole = self.stage.new_id();
        {
            let mut batches = self.stage.batches.lock().unwrap_or_else(PoisonError::into_inner);
            batches.wholes.insert(whole.uuid());
            batches.members.extend(members.iter().map(|(id, _)| id.uuid()));
        }
        let history = self.stage.history.clone();
        let who = (self.name.as_str(), region);
        let begin = |(id, body): &(CommandId, Value)| {
            history.start_command(HistoryVerb::Publish, who, id.uuid(), &key, body)
        };
        let begun = members.iter().map(begin).collect::<Result<Vec<_>, _>>()?;
        let commands: Vec<Value> = members
            .iter()
            .map(|(id, body)| json!({ "id": id, "name": ChaosPut::NAME, "body": body }))
            .collect();
        let body = to_raw_value(&json!({ "commands": commands }))?;
        let batch = RawCommand::new(ATOMIC_NAME, body).key(Key::new(&key)?);
        let published = producer.call_raw(batch).id(whole).publish().await;
        let told = CallAnswer::published(published.map(drop));
        for begun in begun {
            history.end_command(begun, told.end, false)?;
        }
        let [_, (id, body)] = members;
        if told.end != CommandEnd::Accepted || other == key {
            return Ok(());
        }
        self.acknowledged += 2;
        let begun = history.start_command(HistoryVerb::Publish, who, id.uuid(), &other, &body)?;
        let put = ChaosPut { key: other, body };
        // The broker may know the id already: that it is accepted was told above.
        let _ = producer.call(&put).id(id).publish().await;
        history.end_command(begun, CommandEnd::Unknown, false)?;
        Ok(())
    }

    /// Of two positions on one timeline the later stays. There is one failover at a time here, so a
    /// timeline's number identifies it. What the client knew of another timeline may be lost.
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

    async fn read(&mut self) -> Result<()> {
        let (key, began) = (self.key(), Instant::now());
        let history = self.stage.history.clone();
        let Some(bookmark) = self.bookmark.clone() else { return Ok(()) };
        if self.random.u32(..100) < self.calls.unbound_reads {
            let (region, producer) = self.somewhere();
            let begun = history.start_read((&self.name, region), &key, false)?;
            let Ok(pool) = producer.reads() else { return Ok(history.fail_read(begun)?) };
            return self.finish_read(begun, &producer, pool, &key).await;
        }
        // A client whose read fails reads in another region.
        loop {
            let (region, producer) = self.somewhere();
            match timeout(READ_WITHIN, producer.read_at(&bookmark)).await {
                Ok(Ok(read)) => {
                    let begun = history.start_read((&self.name, region), &key, true)?;
                    return self.finish_read(begun, &producer, read.pool, &key).await;
                }
                Ok(Err(error)) if error.is_superseded() => {
                    self.bookmark = None;
                    return Ok(history.superseded(&self.name)?);
                }
                Ok(Err(error)) => {
                    ensure!(began.elapsed() < PATIENCE, "a read gets nowhere: {error}");
                }
                Err(_) => ensure!(began.elapsed() < PATIENCE, "a read gets nowhere"),
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
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
                // A read that tells of another branch belongs to no session: its client learns of both at once.
                self.note(seen_at)?;
                Ok(history.end_read(begun, n, last)?)
            }
            // The client cannot keep what it saw, so the read binds no later read.
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
