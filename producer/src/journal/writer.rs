//! The thread that writes a journal's file.
//!
//! ```text
//! records ─▶ out (under the book's lock) ─▶ taken all together ─▶ written [─▶ synced] ─▶ told
//!                                             │
//!                                             └─ mostly dead, or the last write failed:
//!                                                the whole book is written anew instead
//! ```
//!
//! A thread and not a task, because writing blocks. Whatever waits together is written together.
//! The book is the truth: after a write that failed the file may lack records, so the next one
//! writes all of it anew, to a new file; a sync that failed is not repeated on the old one.

use std::{
    fs::File,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use farwrite_schemas::CommandId;
use tokio::sync::watch;

use super::{
    FileSync,
    book::{Book, Stored},
    file::JournalFile,
    record::{self, Head, Sent},
};
use crate::{metrics, outbox::message::Message};

/// What may be dead in a file before it is worth writing it anew: 1 MiB, some milliseconds.
const DEAD_BYTES: u64 = 1 << 20;

/// What whoever publishes and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

/// The book, and what of it is still to be written.
#[derive(Debug)]
pub(super) struct State {
    pub(super) book: Book,
    out: Vec<u8>,
    has_file: bool,
    is_closing: bool,
}

impl Shared {
    pub(super) fn new(book: Book, has_file: bool) -> Self {
        let state = State { book, out: Vec::new(), has_file, is_closing: false };
        Self { state: Mutex::new(state), wake: Condvar::new() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something to write.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.state().is_closing = true;
        self.wake();
    }
}

impl State {
    pub(super) const fn has_out(&self) -> bool {
        !self.out.is_empty()
    }

    /// Writes down that a command is about to be sent.
    pub(super) fn note_sent(&mut self, message: &Message, at_ms: u64) {
        if self.has_file {
            let bytes = append_sent(&mut self.out, message, at_ms, false);
            self.book.wrote(message.id, Some(bytes), None);
        }
    }

    /// Writes down that one was acknowledged.
    pub(super) fn note_stored(&mut self, id: CommandId, at: &Stored) {
        if self.has_file {
            let bytes = append_stored(&mut self.out, id, at);
            self.book.wrote(id, None, Some(bytes));
        }
    }

    /// Writes down that one is not looked after any more.
    pub(super) fn note_gone(&mut self, id: CommandId, ended: bool) {
        if self.has_file {
            record::append(&mut self.out, &Head::Gone { id, ended }, &[]);
        }
    }
}

fn append_sent(out: &mut Vec<u8>, message: &Message, at_ms: u64, overtaken: bool) -> u64 {
    let sent = Sent {
        id: message.id,
        at_ms,
        name: message.target.name.as_str().into(),
        version: message.version,
        key: message.key.as_ref().map(|key| key.as_str().into()),
        expires_at_ms: message.terms.expires_at_ms,
        not_before_ms: message.terms.not_before_ms,
        context: message.terms.context.as_deref().map(Into::into),
        overtaken,
    };
    record::append(out, &Head::Sent(sent), &message.body)
}

fn append_stored(out: &mut Vec<u8>, id: CommandId, at: &Stored) -> u64 {
    let Stored { at_ms, stream, sequence } = at;
    let (at_ms, stream, sequence) = (*at_ms, stream.as_str().into(), *sequence);
    record::append(out, &Head::Stored { id, at_ms, stream, sequence }, &[])
}

/// How far the file has come, in the entries' numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    /// Entries up to this one are in it.
    pub(super) up_to: u64,
    /// Those up to this one, and behind `up_to`, are not, because of `error`.
    pub(super) failed_up_to: u64,
    pub(super) error: Option<Arc<io::Error>>,
}

/// One entry, to be written anew.
struct Copied {
    message: Arc<Message>,
    sent_at_ms: u64,
    stored: Option<Stored>,
    overtaken: bool,
}

enum Step {
    Append { bytes: Vec<u8>, up_to: u64 },
    Rewrite { copied: Vec<Copied>, up_to: u64 },
    Sync,
    Close,
}

/// The thread's own.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    pub(super) file: JournalFile,
    /// The file's first record.
    owner: Vec<u8>,
    sync: FileSync,
    written: watch::Sender<Written>,
    unsynced_since: Option<Instant>,
    is_broken: bool,
}

impl Writer {
    pub(super) const fn new(
        shared: Arc<Shared>,
        file: JournalFile,
        owner: Vec<u8>,
        sync: FileSync,
        written: watch::Sender<Written>,
    ) -> Self {
        Self { shared, file, owner, sync, written, unsynced_since: None, is_broken: false }
    }

    /// Writes until nothing more comes.
    pub(super) fn run(mut self) {
        loop {
            let (done, up_to) = match self.next() {
                Step::Append { bytes, up_to } => (self.append(&bytes, up_to), up_to),
                Step::Rewrite { copied, up_to } => (self.rewrite(&copied), up_to),
                Step::Sync => (self.sync(), self.written.borrow().up_to),
                Step::Close => return self.close(),
            };
            match done {
                Ok(()) => self.written.send_modify(|written| written.up_to = up_to),
                Err(error) => self.fail(error, up_to),
            }
        }
    }

    /// Waits for the next thing to do.
    fn next(&self) -> Step {
        let mut state = self.shared.state();
        loop {
            if state.has_out() {
                let out = std::mem::take(&mut state.out);
                let length = self.file.length() + out.len() as u64;
                let live = self.owner.len() as u64 + state.book.file_bytes();
                let dead = length.saturating_sub(live);
                let is_mostly_dead = dead > DEAD_BYTES && dead > live;
                let up_to = state.book.last_number();
                return if self.is_broken || is_mostly_dead {
                    Step::Rewrite { copied: copied(&state.book), up_to }
                } else {
                    Step::Append { bytes: out, up_to }
                };
            }
            if state.is_closing {
                return Step::Close;
            }
            state = match self.until_sync() {
                None => self.shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(time) if time.is_zero() => return Step::Sync,
                Some(time) => {
                    let waited = self.shared.wake.wait_timeout(state, time);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// How long the next sync may wait; `None` where none is due.
    fn until_sync(&self) -> Option<Duration> {
        match self.sync {
            FileSync::Every(time) => Some(time.saturating_sub(self.unsynced_since?.elapsed())),
            FileSync::Never | FileSync::BeforePublish => None,
        }
    }

    fn append(&mut self, bytes: &[u8], up_to: u64) -> io::Result<()> {
        self.file.append(bytes)?;
        self.unsynced_since.get_or_insert_with(Instant::now);
        let has_new = up_to > self.written.borrow().up_to;
        if self.sync == FileSync::BeforePublish && has_new { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.unsynced_since = None;
        self.file.sync()
    }

    /// Writes all that is there to a new file.
    pub(super) fn rewrite_all(&mut self) -> io::Result<()> {
        let (copied, up_to) = {
            let state = self.shared.state();
            (copied(&state.book), state.book.last_number())
        };
        self.rewrite(&copied)?;
        self.written.send_modify(|written| written.up_to = up_to);
        Ok(())
    }

    fn rewrite(&mut self, copied: &[Copied]) -> io::Result<()> {
        let mut lengths = Vec::with_capacity(copied.len());
        self.file.replace(|file| write_anew(file, &self.owner, copied, &mut lengths))?;
        let mut state = self.shared.state();
        for (id, sent, stored) in lengths {
            state.book.wrote(id, Some(sent), stored);
        }
        drop(state);
        metrics::journal_rewritten();
        self.is_broken = false;
        self.unsynced_since = None;
        Ok(())
    }

    /// Says that what is not in the file yet could not be written, and writes anew the next time.
    fn fail(&mut self, error: io::Error, up_to: u64) {
        metrics::journal_failed();
        tracing::error!(%error, "the journal cannot be written");
        self.is_broken = true;
        self.unsynced_since = None;
        self.written.send_modify(|written| {
            written.failed_up_to = up_to;
            written.error = Some(Arc::new(error));
        });
    }

    fn close(mut self) {
        let done = match (self.is_broken, self.sync) {
            (true, _) => self.rewrite_all(),
            (false, FileSync::Never) => Ok(()),
            (false, FileSync::Every(_) | FileSync::BeforePublish) => self.sync(),
        };
        if let Err(error) = done {
            metrics::journal_failed();
            tracing::error!(%error, "the journal could not be brought to disk when it was closed");
        }
    }
}

fn copied(book: &Book) -> Vec<Copied> {
    let entries = book.entries().map(|entry| Copied {
        message: Arc::clone(&entry.message),
        sent_at_ms: entry.sent_at_ms,
        stored: entry.stored.clone(),
        overtaken: entry.overtaken,
    });
    entries.collect()
}

/// Writes the file of a book, and says how long each entry's records are.
fn write_anew(
    file: &mut File,
    owner: &[u8],
    copied: &[Copied],
    lengths: &mut Vec<(CommandId, u64, Option<u64>)>,
) -> io::Result<()> {
    let mut out = io::BufWriter::new(file);
    out.write_all(owner)?;
    let mut record = Vec::new();
    for Copied { message, sent_at_ms, stored, overtaken } in copied {
        record.clear();
        let sent = append_sent(&mut record, message, *sent_at_ms, *overtaken);
        let stored = stored.as_ref().map(|at| append_stored(&mut record, message.id, at));
        out.write_all(&record)?;
        lengths.push((message.id, sent, stored));
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use farwrite_schemas::{DatabaseName, Origin};

    use super::*;
    use crate::{
        journal::{
            JournalLimits,
            recovery::{Owner, recover},
        },
        outbox::{message::tests::message, target::tests::targets},
    };

    #[test]
    fn after_a_write_that_failed_the_next_one_writes_the_whole_book() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let owner = Owner {
            database: DatabaseName::new("shop").unwrap(),
            origin: Origin::new("jfk").unwrap(),
        };
        let mut first = Vec::new();
        record::append(&mut first, &owner.head(), &[]);
        let shared = Arc::new(Shared::new(Book::new(JournalLimits::default()), true));
        let (file, _) = JournalFile::open(&path).unwrap();
        let (sender, written) = watch::channel(Written::default());
        let never = FileSync::Never;
        let mut writer = Writer::new(Arc::clone(&shared), file, first, never, sender);
        writer.rewrite_all().unwrap();
        writer.file.break_off();

        let enter = || {
            let message = message(Some("k"), "{}");
            let mut state = shared.state();
            state.book.enter(&message, 1).unwrap();
            state.note_sent(&message, 1);
            message.id
        };
        let refused = enter();
        let Step::Append { bytes, up_to } = writer.next() else { panic!("no append") };
        let error = writer.append(&bytes, up_to).unwrap_err();
        writer.fail(error, up_to);
        assert_eq!((written.borrow().up_to, written.borrow().failed_up_to), (0, 1));
        // Whoever published it gives up; what the file lacks and has too much is mended.
        let mut state = shared.state();
        assert!(state.book.leave(refused, false, 2));
        state.note_gone(refused, false);
        drop(state);
        let kept = enter();
        shared.close();
        writer.run();
        assert_eq!(written.borrow().up_to, 2);
        let bytes = std::fs::read(&path).unwrap();
        let mut book = Book::new(JournalLimits::default());
        recover(&bytes, &owner, &targets(), &mut book).unwrap();
        let ids: Vec<CommandId> = book.entries().map(|entry| entry.message.id).collect();
        assert_eq!(ids, [kept]);
    }
}
