//! The writer of a history: one clock, one file, many hands.
//!
//! A client has the start of an operation written before it begins the operation, and the end after
//! it knows the result. So an operation whose end stands before another's start really ended first.
//! The time is taken under the lock that orders the lines, so both orders are the same.

use std::{
    borrow::Cow,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::lines::{
    CommandEnd, CommandEnded, CommandStart, FinalRow, HistoryEvent, HistoryHeader, HistoryOutcome,
    HistoryVerb, ReadEnded, ReadStart, VERSION,
};

/// A command or a read that has begun; its end is written once, or never.
#[derive(Debug)]
#[must_use = "without an end it counts as unknown"]
pub struct Begun<Kind> {
    op: u64,
    kind: std::marker::PhantomData<Kind>,
}

/// See [`Begun`].
#[derive(Debug)]
pub enum CommandOp {}

/// See [`Begun`].
#[derive(Debug)]
pub enum ReadOp {}

impl<Kind> Begun<Kind> {
    const fn new(op: u64) -> Self {
        Self { op, kind: std::marker::PhantomData }
    }

    /// Its number in the history.
    #[must_use]
    pub const fn op(&self) -> u64 {
        self.op
    }
}

/// Writes a history. Clones write the same one. Every method fails when its line cannot be written.
#[derive(Clone)]
pub struct HistoryWriter {
    file: Arc<Mutex<HistoryFile>>,
}

struct HistoryFile {
    out: Box<dyn Write + Send>,
    began: Instant,
    last_op: u64,
}

impl HistoryFile {
    /// The clock starts with the history, and a history of more than half a million years is none.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn next_op(&mut self) -> u64 {
        self.last_op += 1;
        self.last_op
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }
}

impl HistoryWriter {
    /// Begins a file; its folder is made, and one of the same name is replaced.
    pub fn create(path: &Path, seed: u64, started: &str) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Self::new(BufWriter::new(File::create(path)?), seed, started)
    }

    /// Begins a history; `started` is a time in words (RFC 3339).
    pub fn new(out: impl Write + Send + 'static, seed: u64, started: &str) -> io::Result<Self> {
        let mut file = HistoryFile { out: Box::new(out), began: Instant::now(), last_op: 0 };
        file.line(&HistoryHeader {
            farwrite_history: VERSION,
            seed,
            started: Cow::Borrowed(started),
        })?;
        Ok(Self { file: Arc::new(Mutex::new(file)) })
    }

    /// A client is about to send a command.
    pub fn start_command(
        &self,
        verb: HistoryVerb,
        (client, region): (&str, &str),
        id: Uuid,
        key: &str,
        body: &Value,
    ) -> io::Result<Begun<CommandOp>> {
        let mut file = self.file();
        let (t_us, op) = (file.now(), file.next_op());
        let [client, region, key] = [client, region, key].map(Cow::Borrowed);
        let body = Some(body);
        file.line(&CommandStart { t_us, op, start: verb, client, region, id, key, body })?;
        Ok(Begun::new(op))
    }

    /// A command's caller has the answer, and knows whether their region was told to show the
    /// command.
    pub fn end_command(
        &self,
        begun: Begun<CommandOp>,
        end: CommandEnd,
        visible: bool,
    ) -> io::Result<()> {
        self.timed(|t_us| CommandEnded { t_us, op: begun.op, end, visible })
    }

    /// A client is about to read a key; with `bookmark`, what it knows was told to be visible.
    pub fn start_read(
        &self,
        (client, region): (&str, &str),
        key: &str,
        bookmark: bool,
    ) -> io::Result<Begun<ReadOp>> {
        let mut file = self.file();
        let (t_us, op) = (file.now(), file.next_op());
        let [client, region, key] = [client, region, key].map(Cow::Borrowed);
        file.line(&ReadStart { t_us, op, client, region, key, bookmark })?;
        Ok(Begun::new(op))
    }

    /// A read saw `n` effects of its key, `last` the highest of them.
    pub fn end_read(&self, begun: Begun<ReadOp>, n: u64, last: Option<Uuid>) -> io::Result<()> {
        self.timed(|t_us| ReadEnded::Read { t_us, op: begun.op, n, last })
    }

    /// A read saw nothing, or its client could not keep the bookmark of what it saw.
    pub fn fail_read(&self, begun: Begun<ReadOp>) -> io::Result<()> {
        self.timed(|t_us| ReadEnded::Failed { t_us, op: begun.op })
    }

    /// A client was told that its bookmark lies on a lost branch, or gave its bookmark up for
    /// another branch's.
    pub fn superseded(&self, client: &str) -> io::Result<()> {
        self.timed(|t_us| HistoryEvent::Superseded { t_us, client: Cow::Borrowed(client) })
    }

    /// A fault is about to begin.
    pub fn fault(&self, kind: &str, what: &str) -> io::Result<()> {
        let [kind, what] = [kind, what].map(Cow::Borrowed);
        self.timed(|t_us| HistoryEvent::Fault { t_us, kind, what })
    }

    /// The earliest fault of a kind is over.
    pub fn healed(&self, kind: &str, what: &str) -> io::Result<()> {
        let [kind, what] = [kind, what].map(Cow::Borrowed);
        self.timed(|t_us| HistoryEvent::Healed { t_us, kind: Some(kind), what })
    }

    /// A row of the ledger, once all has settled.
    pub fn outcome(&self, id: Uuid, outcome: HistoryOutcome) -> io::Result<()> {
        self.file().line(&FinalRow::Outcome { id, outcome })
    }

    /// A row of the app's table, once all has settled: the `n`th of its key.
    pub fn effect(&self, key: &str, n: u64, id: Uuid) -> io::Result<()> {
        self.file().line(&FinalRow::Effect { key: Cow::Borrowed(key), n, id })
    }

    /// A message of the stream, as the runner's own reader copied it.
    pub fn message(&self, sequence: u64, id: Uuid, key: &str) -> io::Result<()> {
        self.file().line(&FinalRow::Message { sequence, id, key: Cow::Borrowed(key) })
    }

    /// The last line: only now is the history complete.
    pub fn finish(self) -> io::Result<()> {
        let mut file = self.file();
        file.line(&FinalRow::End)?;
        file.out.flush()
    }

    /// Writes a line with the time of now.
    fn timed<L: Serialize>(&self, line: impl FnOnce(u64) -> L) -> io::Result<()> {
        let mut file = self.file();
        let line = line(file.now());
        file.line(&line)
    }

    /// A panic between two lines spoils none of them.
    fn file(&self) -> MutexGuard<'_, HistoryFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for HistoryWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HistoryWriter").field("last_op", &self.file().last_op).finish()
    }
}
