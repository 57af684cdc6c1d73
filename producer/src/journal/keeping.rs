//! An open journal: entered by publishes through their holds, read by `reconcile`.

use std::{io, sync::Arc, thread::JoinHandle};

use farwrite_schemas::{CommandId, Origin, Subjects};
use tokio::sync::watch;

use super::{
    book::{EnteredEntry, JournalBook, Listed, StoredAt},
    clock::now_ms,
    file::JournalFile,
    journal_error::{JournalError, Unjournaled},
    journal_state::JournalState,
    open_book::{OpenBook, SharedBook},
    record::{self, Damage},
    recovery::{JournalOwner, recover},
    settings::{FileSync, Journal, JournalPlace},
    writer::{JournalWriter, WrittenUpTo},
};
use crate::{
    metrics,
    outbox::{message::Message, target::Destinations},
};

/// An open journal. Dropping it writes what is still to be written, and blocks meanwhile.
#[derive(Debug)]
pub(crate) struct Keeping {
    shared: Arc<SharedBook>,
    writing: Option<Writing>,
    recovered: usize,
    damage: Damage,
}

#[derive(Debug)]
struct Writing {
    written: watch::Receiver<WrittenUpTo>,
    thread: Option<JoinHandle<()>>,
}

impl Keeping {
    /// Opens the journal of a producer.
    pub(crate) async fn open(
        journal: Journal,
        subjects: &Subjects,
        origin: &Origin,
    ) -> Result<Self, JournalError> {
        let book = JournalBook::new(journal.limits);
        let keeping = match journal.place {
            JournalPlace::Memory => Self {
                shared: Arc::new(SharedBook::new(book, false)),
                writing: None,
                recovered: 0,
                damage: Damage::default(),
            },
            JournalPlace::File { path, sync } => {
                let owner =
                    JournalOwner { database: subjects.database().clone(), origin: origin.clone() };
                let targets = Destinations::new(subjects.clone(), origin.clone());
                let at = path.clone();
                let reading = tokio::task::spawn_blocking(move || {
                    let (file, bytes) = JournalFile::open(&path)?;
                    Self::recover(file, &bytes, book, sync, &owner, &targets)
                });
                let io = |error| Err(JournalError::Io { path: at, cause: error });
                reading.await.unwrap_or_else(|error| io(error.into()))?
            }
        };
        let state = keeping.state();
        metrics::journal_changed((0, 0), (state.commands, state.bytes));
        Ok(keeping)
    }

    fn recover(
        file: JournalFile,
        bytes: &[u8],
        mut book: JournalBook,
        sync: FileSync,
        owner: &JournalOwner,
        targets: &Destinations,
    ) -> Result<Self, JournalError> {
        let damage = recover(bytes, owner, targets, &mut book);
        let damage = damage.map_err(|strange| file.strange(strange))?;
        let recovered = book.len();
        metrics::journal_opened(damage.torn_bytes, damage.damaged_bytes);
        if damage != Damage::default() {
            let Damage { torn_bytes, damaged_bytes } = damage;
            tracing::warn!(recovered, torn_bytes, damaged_bytes, "the journal was not whole");
        }
        let shared = Arc::new(SharedBook::new(book, true));
        let (sender, written) = watch::channel(WrittenUpTo::default());
        let mut first = Vec::new();
        record::append(&mut first, &owner.head(), &[]);
        let mut writer = JournalWriter::new(Arc::clone(&shared), file, first, sync, sender);
        // Without what is gone and what was torn: what was read is known to be whole.
        writer.rewrite_all().map_err(|source| writer.file.error(source))?;
        let path = writer.file.path().to_owned();
        let thread = std::thread::Builder::new().name("farwrite-journal".to_owned());
        let thread = thread.spawn(move || writer.run());
        let thread = thread.map_err(|source| JournalError::Io { path, cause: source })?;
        let writing = Some(Writing { written, thread: Some(thread) });
        Ok(Self { shared, writing, recovered, damage })
    }

    /// Notes a command that is about to be sent; says which number has to be
    /// [`written`](Self::written) before it is.
    pub(super) fn note(&self, message: &Arc<Message>) -> Result<u64, Unjournaled> {
        self.change(|state| {
            let now_ms = now_ms();
            let EnteredEntry { number, is_new } = state.book.enter(message, now_ms)?;
            if is_new {
                state.note_sent(message, now_ms);
            }
            Ok(number)
        })
    }

    /// Begins another publish of an entry. False where it is gone or under way.
    pub(super) fn claim(&self, id: CommandId) -> bool {
        self.change(|state| state.book.claim(id))
    }

    /// Returns when the entry of this number is in the file; at once where there is none.
    pub(super) async fn written(&self, number: u64) -> Result<(), Unjournaled> {
        let Some(writing) = &self.writing else { return Ok(()) };
        let mut written = writing.written.clone();
        let is_told = |written: &WrittenUpTo| written.up_to.max(written.failed_up_to) >= number;
        let failed = |error| Err(Unjournaled::Failed(error));
        match written.wait_for(is_told).await {
            Ok(written) if written.up_to >= number => Ok(()),
            Ok(written) => failed(written.error.clone().unwrap_or_else(ended)),
            Err(_) => failed(ended()),
        }
    }

    pub(super) fn stored(&self, id: CommandId, stored: StoredAt) {
        self.change(|state| {
            if state.book.stored(id, stored.clone()) {
                state.note_stored(id, &stored);
            }
        });
    }

    pub(super) fn leave(&self, id: CommandId, maybe_stored: bool) {
        self.change(|state| {
            if state.book.leave(id, maybe_stored, now_ms()) {
                state.note_gone(id, false);
            }
        });
    }

    /// The outcome of a command is known.
    pub(crate) fn end(&self, id: CommandId) {
        self.change(|state| {
            if state.book.end(id) {
                state.note_gone(id, true);
            }
        });
    }

    /// A command is not to be looked after any more. False when it is not here.
    pub(crate) fn forget(&self, id: CommandId) -> bool {
        self.change(|state| {
            let was_here = state.book.remove(id).is_some();
            if was_here {
                state.note_gone(id, false);
            }
            was_here
        })
    }

    /// All entries, in the order in which they were sent.
    pub(crate) fn list(&self) -> Vec<Listed> {
        self.shared.state().book.list()
    }

    pub(crate) fn state(&self) -> JournalState {
        let state = self.shared.state();
        JournalState {
            commands: state.book.len(),
            bytes: state.book.bytes(),
            recovered: self.recovered,
            torn_bytes: self.damage.torn_bytes,
            damaged_bytes: self.damage.damaged_bytes,
        }
    }

    /// Changes the book, tells its new size, and wakes the writer.
    fn change<T>(&self, change: impl FnOnce(&mut OpenBook) -> T) -> T {
        let mut state = self.shared.state();
        let before = (state.book.len(), state.book.bytes());
        let result = change(&mut state);
        metrics::journal_changed(before, (state.book.len(), state.book.bytes()));
        let has_out = state.has_out();
        drop(state);
        if has_out {
            self.shared.wake_writer();
        }
        result
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        let JournalState { commands, bytes, .. } = self.state();
        metrics::journal_changed((commands, bytes), (0, 0));
        self.shared.close();
        let thread = self.writing.as_mut().and_then(|writing| writing.thread.take());
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the journal's writer has panicked");
        }
    }
}

/// The writer is not there any more: it has panicked.
fn ended() -> Arc<io::Error> {
    Arc::new(io::Error::other("the journal's writer has ended"))
}
