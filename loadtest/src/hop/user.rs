//! One user: writes in one region, reads in another, and remembers what they saw.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Result, ensure};
use farwrite_producer::{
    Bookmark, Command, CommandId, Key, KeyError, Producer, Reached, ReadAt, ReadFrom, WriteError,
};
use fastrand::Rng;
use serde::Serialize;
use tokio::time::Instant;

use super::{Report, stage::PATIENCE};

#[derive(Serialize)]
struct RaiseNumber {
    #[serde(skip)]
    user: u32,
    n: i64,
}

impl Command for RaiseNumber {
    const NAME: &'static str = "number.raise";
    type Output = i64;
    fn key(&self) -> Result<Option<Key>, KeyError> {
        Key::new(key(self.user)).map(Some)
    }
}

fn key(user: u32) -> String {
    format!("user {user}")
}

/// What a read showed.
#[derive(Debug)]
#[expect(dead_code, reason = "told as a whole of a read that showed less than it should")]
struct Read {
    own: i64,
    others: i64,
    /// Where, and at which bookmark.
    region: usize,
    at: Bookmark,
    from: ReadFrom,
    reached: Reached,
    /// Its own bookmark.
    bookmark: Option<Bookmark>,
    ended: Instant,
}

pub(super) struct User {
    number: u32,
    users: u32,
    producers: Arc<[Producer]>,
    random: Rng,
    /// What they carry from request to request, as a cookie would.
    bookmark: Option<Bookmark>,
    written: i64,
    /// What they have read of others, and what there was to know of the read.
    seen: HashMap<u32, Read>,
    report: Report,
}

impl User {
    pub(super) fn new(number: u32, users: u32, producers: Arc<[Producer]>, random: Rng) -> Self {
        let (seen, report) = (HashMap::new(), Report::default());
        Self { number, users, producers, random, bookmark: None, written: 0, seen, report }
    }

    pub(super) async fn hop(mut self, until: Instant) -> Result<Report> {
        while Instant::now() < until {
            if self.random.u32(..4) == 0 {
                self.write().await?;
            }
            self.read().await?;
        }
        Ok(self.report)
    }

    fn somewhere(&mut self) -> usize {
        self.random.usize(..self.producers.len())
    }

    async fn write(&mut self) -> Result<()> {
        let (id, n) = (CommandId::now(), self.written + 1);
        let command = RaiseNumber { user: self.number, n };
        let began = Instant::now();
        // A user whose request fails sends it again, wherever they are by then.
        let bookmark = loop {
            let region = self.somewhere();
            let error = match self.producers[region].call(&command).id(id).write().await {
                Ok(visible) => break visible.bookmark,
                Err(WriteError::NotVisible { committed, .. }) => break committed.bookmark,
                Err(error) => error,
            };
            self.report.retries += 1;
            ensure!(began.elapsed() < PATIENCE, "a write gets nowhere: {error}");
        };
        self.written = n;
        self.report.writes += 1;
        self.note(bookmark);
        Ok(())
    }

    /// Of two on one branch the later stays; otherwise the new one, of the newer branch.
    fn note(&mut self, bookmark: Bookmark) {
        let is_known =
            self.bookmark.as_ref().is_some_and(|known| known.later_of(&bookmark) == Some(known));
        if !is_known {
            self.bookmark = Some(bookmark);
        }
    }

    async fn read(&mut self) -> Result<()> {
        let Some(bookmark) = self.bookmark.clone() else { return Ok(()) };
        let other = self.random.u32(..self.users);
        let began = Instant::now();
        let read = loop {
            let region = self.somewhere();
            let error = match self.read_at(region, &bookmark, other).await {
                Ok(read) => break read,
                Err(error) => error,
            };
            self.report.retries += 1;
            ensure!(began.elapsed() < PATIENCE, "a read gets nowhere: {error:#}");
        };
        self.report.reads += 1;
        self.report.on_primary += u64::from(read.from == ReadFrom::Primary);
        let is_stale = read.own < self.written;
        let before = self.seen.get(&other).filter(|before| read.others < before.others);
        let went_back = before.is_some();
        if is_stale || went_back {
            let (user, written) = (self.number, self.written);
            println!("user {user} wrote {written} and read {read:?}, having read {before:?}");
        }
        self.report.stale += u64::from(is_stale);
        self.report.went_back += u64::from(went_back);
        if let Some(bookmark) = &read.bookmark {
            self.note(bookmark.clone());
        }
        if !went_back {
            self.seen.insert(other, read);
        }
        Ok(())
    }

    async fn read_at(&self, region: usize, at: &Bookmark, other: u32) -> Result<Read> {
        let producer = &self.producers[region];
        let ReadAt { pool, from, reached } = producer.read_at(at).await?;
        let mut connection = pool.acquire().await?;
        let numbers: Vec<(String, i64)> =
            sqlx::query_as("SELECT key, n FROM numbers WHERE key = ANY ($1)")
                .bind(vec![key(self.number), key(other)])
                .fetch_all(&mut *connection)
                .await?;
        let bookmark = producer.bookmark(&mut connection).await?;
        let numbers: HashMap<String, i64> = numbers.into_iter().collect();
        let of = |user| numbers.get(&key(user)).copied().unwrap_or(0);
        let (own, others) = (of(self.number), of(other));
        let (at, ended) = (at.clone(), Instant::now());
        Ok(Read { own, others, region, at, from, reached, bookmark, ended })
    }
}
