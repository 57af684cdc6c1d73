//! The thread that writes a journal's file.
//!
//! ```text
//! records ─▶ out (under the book's lock) ─▶ taken all together ─▶ written [─▶ synced] ─▶ told
//!                                             │
//!                                             └─ mostly dead, or the last write failed:
//!                                                the whole book is written anew instead
//! ```
//!
//! A thread and not a task, because writing blocks. What waits together is written together.
//! The book is the truth: after a write that failed the file may lack records, so the next one
//! writes all of it anew, to a new file; a sync that failed is not repeated on the old one.

use std::{
    fs::File,
    io::{self, Write},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use farwrite_schemas::CommandId;
use tokio::sync::watch;

use super::{
    book::{JournalBook, StoredAt},
    file::JournalFile,
    open_book::{SharedBook, append_sent, append_stored},
    settings::FileSync,
};
use crate::{metrics, outbox::message::Message};

/// What may be dead in a file before it is worth writing it anew: 1 MiB, some milliseconds.
const DEAD_BYTES: u64 = 1 << 20;

/// How far the file has come, in the entries' numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct WrittenUpTo {
    /// Entries up to this one are in it.
    pub(super) up_to: u64,
    /// Those up to this one, and behind `up_to`, are not, because of `error`.
    pub(super) failed_up_to: u64,
    pub(super) error: Option<Arc<io::Error>>,
}

/// One entry, to be written anew.
struct CopiedEntry {
    message: Arc<Message>,
    sent_at_ms: u64,
    stored: Option<StoredAt>,
    overtaken: bool,
}

enum WriterStep {
    Append { bytes: Vec<u8>, up_to: u64 },
    Rewrite { copied: Vec<CopiedEntry>, up_to: u64 },
    Sync,
    Close,
}

/// The thread's own.
#[derive(Debug)]
pub(super) struct JournalWriter {
    shared: Arc<SharedBook>,
    pub(super) file: JournalFile,
    /// The file's first record.
    owner: Vec<u8>,
    sync: FileSync,
    written: watch::Sender<WrittenUpTo>,
    unsynced_since: Option<Instant>,
    is_broken: bool,
}

impl JournalWriter {
    pub(super) const fn new(
        shared: Arc<SharedBook>,
        file: JournalFile,
        owner: Vec<u8>,
        sync: FileSync,
        written: watch::Sender<WrittenUpTo>,
    ) -> Self {
        Self { shared, file, owner, sync, written, unsynced_since: None, is_broken: false }
    }

    /// Writes until nothing more comes.
    pub(super) fn run(mut self) {
        loop {
            let (done, up_to) = match self.next() {
                WriterStep::Append { bytes, up_to } => (self.append(&bytes, up_to), up_to),
                WriterStep::Rewrite { copied, up_to } => (self.rewrite(&copied), up_to),
                WriterStep::Sync => (self.sync(), self.written.borrow().up_to),
                WriterStep::Close => return self.close(),
            };
            match done {
                Ok(()) => self.written.send_modify(|written| written.up_to = up_to),
                Err(error) => self.fail(error, up_to),
            }
        }
    }

    /// Waits for the next thing to do.
    fn next(&self) -> WriterStep {
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
                    WriterStep::Rewrite { copied: copied(&state.book), up_to }
                } else {
                    WriterStep::Append { bytes: out, up_to }
                };
            }
            if state.is_closing {
                return WriterStep::Close;
            }
            state = match self.until_sync() {
                None => self.shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(time) if time.is_zero() => return WriterStep::Sync,
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
            FileSync::BeforePublish => None,
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

    fn rewrite(&mut self, copied: &[CopiedEntry]) -> io::Result<()> {
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
        let done = if self.is_broken { self.rewrite_all() } else { self.sync() };
        if let Err(error) = done {
            metrics::journal_failed();
            tracing::error!(%error, "the journal could not be brought to disk when it was closed");
        }
    }
}

fn copied(book: &JournalBook) -> Vec<CopiedEntry> {
    let entries = book.entries().map(|entry| CopiedEntry {
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
    copied: &[CopiedEntry],
    lengths: &mut Vec<(CommandId, u64, Option<u64>)>,
) -> io::Result<()> {
    let mut out = io::BufWriter::new(file);
    out.write_all(owner)?;
    let mut record = Vec::new();
    for CopiedEntry { message, sent_at_ms, stored, overtaken } in copied {
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
            record,
            recovery::{JournalOwner, recover},
            settings::JournalLimits,
        },
        outbox::{message::tests::message, target::tests::targets},
    };

    #[test]
    fn after_a_write_that_failed_the_next_one_writes_the_whole_book() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let owner = JournalOwner {
            database: DatabaseName::new("shop").unwrap(),
            origin: Origin::new("jfk").unwrap(),
        };
        let mut first = Vec::new();
        record::append(&mut first, &owner.head(), &[]);
        let shared = Arc::new(SharedBook::new(JournalBook::new(JournalLimits::default()), true));
        let (file, _) = JournalFile::open(&path).unwrap();
        let (sender, written) = watch::channel(WrittenUpTo::default());
        let sync = FileSync::default();
        let mut writer = JournalWriter::new(Arc::clone(&shared), file, first, sync, sender);
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
        let WriterStep::Append { bytes, up_to } = writer.next() else { panic!("no append") };
        let error = writer.append(&bytes, up_to).unwrap_err();
        writer.fail(error, up_to);
        assert_eq!((written.borrow().up_to, written.borrow().failed_up_to), (0, 1));
        // Its publisher gives up. The next write mends what the file lacks, and what it has too much.
        let mut state = shared.state();
        assert!(state.book.leave(refused, false, 2));
        state.note_gone(refused, false);
        drop(state);
        let kept = enter();
        shared.close();
        writer.run();
        assert_eq!(written.borrow().up_to, 2);
        let bytes = std::fs::read(&path).unwrap();
        let mut book = JournalBook::new(JournalLimits::default());
        recover(&bytes, &owner, &targets(), &mut book).unwrap();
        let ids: Vec<CommandId> = book.entries().map(|entry| entry.message.id).collect();
        assert_eq!(ids, [kept]);
    }
}
