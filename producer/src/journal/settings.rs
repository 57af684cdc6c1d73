//! Where a journal is, when its file is synced, and how much it may hold. Given by the app; opened by
//! `keeping.rs`.

use std::{path::PathBuf, time::Duration};

use crate::limits::LimitError;

/// Where a producer writes down what it sent, until the outcome is known. Given to
/// [`Builder::journal`](crate::Builder::journal); looked after by
/// [`Producer::reconcile`](crate::Producer::reconcile).
///
/// Bodies, keys and contexts are in it, as they were published, and never in a log.
///
/// ```no_run
/// use farwrite_producer::{Builder, Journal, JournalLimits};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let journal = Journal::file("/var/lib/shop/farwrite.journal", JournalLimits::default());
/// let producer = Builder::from_env()?.journal(journal).connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a journal does nothing until a builder has it"]
pub struct Journal {
    pub(crate) place: JournalPlace,
    pub(crate) limits: JournalLimits,
}

#[derive(Clone, Debug)]
pub(crate) enum JournalPlace {
    Memory,
    File { path: PathBuf, sync: FileSync },
}

impl Journal {
    /// A journal that ends with the producer: for a stream that may lose what it acknowledged, and
    /// an app that outlives that.
    pub const fn in_memory(limits: JournalLimits) -> Self {
        Self { place: JournalPlace::Memory, limits }
    }

    /// A journal in a file of its own, which survives a crash of the process, and one of the
    /// machine as far as [`FileSync`] says. The file is made where it is missing, for this user
    /// alone (mode 0600); its folder must exist and be writable. One producer at a time has it: a
    /// second one is refused, by a lock on `<path>.lock`.
    ///
    /// All of it is in memory too. On disk it takes up to three times
    /// [`JournalLimits::max_bytes`] for a moment, while it is written anew without what is gone.
    pub fn file(path: impl Into<PathBuf>, limits: JournalLimits) -> Self {
        Self { place: JournalPlace::File { path: path.into(), sync: FileSync::default() }, limits }
    }

    /// When a journal in a file is brought to the disk itself. A journal in memory has no use for it.
    pub fn sync(mut self, when: FileSync) -> Self {
        if let JournalPlace::File { sync, .. } = &mut self.place {
            *sync = when;
        }
        self
    }
}

/// When a journal's file is synced to disk. However it is: before a publish goes out, its entry has
/// been written to the file, so that a crash of the process loses none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileSync {
    /// So long after the first write at the latest, without a publish waiting for it: a crash of
    /// the machine may lose that much. Every second is the default: what a journal is for takes a
    /// second accident, the stream's, within that second.
    Every(Duration),
    /// Before every publish; those that wait together share one sync. As slow as the disk.
    BeforePublish,
}

impl Default for FileSync {
    fn default() -> Self {
        Self::Every(Duration::from_secs(1))
    }
}

/// How much a journal may hold. When it is full, a publish fails with
/// [`PublishError::JournalFull`](crate::PublishError::JournalFull), and nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "give it to a journal"]
pub struct JournalLimits {
    pub(crate) max_commands: usize,
    pub(crate) max_bytes: usize,
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self { max_commands: 100_000, max_bytes: 64 << 20 }
    }
}

impl JournalLimits {
    /// Commands that were sent and whose outcome is not known. 100,000: a minute of a busy region,
    /// many times what lies between two runs of `reconcile`.
    pub const fn max_commands(self, max_commands: usize) -> Self {
        Self { max_commands, ..self }
    }

    /// Bytes that they hold, in memory and in the file each: bodies, keys, contexts and some
    /// hundred bytes a command. 64 MiB, as for blocked keys.
    pub const fn max_bytes(self, max_bytes: usize) -> Self {
        Self { max_bytes, ..self }
    }

    /// Checks every limit.
    ///
    /// # Errors
    /// With the first limit that breaks its rule.
    pub(crate) fn validate(&self) -> Result<(), LimitError> {
        let rules = [
            ("journal max_commands", self.max_commands > 0),
            ("journal max_bytes", self.max_bytes > 0),
        ];
        match rules.into_iter().find(|(_, holds)| !holds) {
            Some((field, _)) => Err(LimitError { field, rule: "greater than zero" }),
            None => Ok(()),
        }
    }
}
