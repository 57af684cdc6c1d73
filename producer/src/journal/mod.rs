//! The journal: what this producer sent and does not yet know the outcome of.
//!
//! JetStream acknowledges a publish and may lose it all the same: a server that syncs every two
//! minutes and loses its power, a stream that is put back from an older copy. The stream cannot say
//! what it lost; whoever sent it can. So every command is written down before it goes out, with all
//! that is needed to publish the same message again, and forgotten when its outcome is known. What
//! lies between is looked after by [`Producer::reconcile`](crate::Producer::reconcile).
//!
//! ```text
//! publish ─▶ sent ─▶ stored (acknowledged) ─▶ gone: the outcome was heard
//!              │        ▲                        ▲
//!              │        └── sent again ──────────┤
//!              └─ not accepted, for certain ─────┘
//! ```
//!
//! The ledger is authoritative, and the journal only a reminder to ask it: an entry too many costs a
//! question, never a second effect. So only the entry itself is waited for, before the publish;
//! that it was acknowledged, or is gone, is written behind.
//!
//! The state ([`book`]) is in memory in both forms; the file ([`writer`], [`record`]) is read when
//! it is opened and otherwise only written. Not here: asking and sending again (`reconcile`).

mod book;
mod file;
mod keeping;
mod kept;
mod record;
mod recovery;
#[cfg(test)]
mod tests;
mod writer;

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

pub(crate) use book::{Listed, Stored};
pub(crate) use keeping::Keeping;
pub(crate) use kept::Kept;

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
    pub(crate) place: Place,
    pub(crate) limits: JournalLimits,
}

#[derive(Clone, Debug)]
pub(crate) enum Place {
    Memory,
    File { path: PathBuf, sync: FileSync },
}

impl Journal {
    /// A journal that ends with the producer: for a stream that may lose what it acknowledged, and
    /// an app that outlives that.
    pub const fn in_memory(limits: JournalLimits) -> Self {
        Self { place: Place::Memory, limits }
    }

    /// A journal in a file of its own, which survives a crash of the process, and one of the
    /// machine as far as [`FileSync`] says. The file is made where it is missing, for this user
    /// alone (mode 0600); its folder must exist and be writable. One producer at a time has it: a
    /// second one is refused, by a lock on `<path>.lock`.
    ///
    /// All of it is in memory too. On disk it takes up to three times
    /// [`JournalLimits::max_bytes`] for a moment, while it is written anew without what is gone.
    pub fn file(path: impl Into<PathBuf>, limits: JournalLimits) -> Self {
        Self { place: Place::File { path: path.into(), sync: FileSync::default() }, limits }
    }

    /// When a journal in a file is brought to the disk itself. A journal in memory has no use for it.
    pub fn sync(mut self, when: FileSync) -> Self {
        if let Place::File { sync, .. } = &mut self.place {
            *sync = when;
        }
        self
    }
}

/// When a journal's file is synced to disk. However it is: before a publish goes out, its entry has
/// been written to the file, so that a crash of the process loses none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSync {
    /// When the operating system likes to: a crash of the machine may lose about the last half
    /// minute.
    Never,
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

/// How much a journal may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLimits {
    /// Commands that were sent and whose outcome is not known. 100,000: a minute of a busy region,
    /// many times what lies between two runs of `reconcile`.
    pub max_commands: usize,
    /// Bytes that they hold, in memory and in the file each: bodies, keys, contexts and some
    /// hundred bytes a command. 64 MiB, as for blocked keys.
    pub max_bytes: usize,
    /// What happens to a publish that finds no room.
    pub when_full: WhenFull,
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self { max_commands: 100_000, max_bytes: 64 << 20, when_full: WhenFull::Refuse }
    }
}

impl JournalLimits {
    /// Checks every limit.
    ///
    /// # Errors
    /// With the first limit that breaks its rule.
    pub fn validate(&self) -> Result<(), LimitError> {
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

/// What happens when a journal is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The publish fails with [`PublishError::JournalFull`](crate::PublishError::JournalFull), and
    /// nothing is sent.
    #[default]
    Refuse,
    /// The oldest entry is forgotten, and counted
    /// (`farwrite_producer_journal_dropped_total`): should the stream lose it, nobody will know.
    DropOldest,
}

/// What a journal holds at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalState {
    /// Commands that were sent and whose outcome is not known here.
    pub commands: usize,
    /// Bytes that count against [`JournalLimits::max_bytes`].
    pub bytes: usize,
    /// Commands that were found in the file when it was opened.
    pub recovered: usize,
    /// Bytes at the end of the file that were no whole record when it was opened: what a crash
    /// interrupted. It was not published, unless the machine crashed (see [`FileSync`]).
    pub torn_bytes: u64,
    /// Bytes before others that are whole, and that could not be read: the file was damaged. They
    /// may have held commands.
    pub damaged_bytes: u64,
}

/// Why a journal could not be opened. Nothing was changed in the file.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another producer, of this process or another, has it.
    #[error("the journal {path} is in use by another producer: give every producer its own")]
    InUse {
        /// Where it is.
        path: PathBuf,
    },
    /// There is something else.
    #[error(
        "the file {path} is not a journal, or its first record is damaged: move it away, or put the journal elsewhere"
    )]
    NotAJournal {
        /// Where it is.
        path: PathBuf,
    },
    /// It is another producer's: its commands belong to another database or another region.
    #[error(
        "the journal {path} holds commands for the database {database} from {origin}: give this producer its own, and reconcile that one with a producer of its database and region"
    )]
    OtherOwner {
        /// Where it is.
        path: PathBuf,
        /// Whose database.
        database: String,
        /// Which region.
        origin: String,
    },
    /// It holds a record that is whole, and that this version cannot read.
    #[error("the journal {path} has a record that this version cannot read ({reason}): upgrade")]
    Unreadable {
        /// Where it is.
        path: PathBuf,
        /// What is wrong; never the record's content.
        reason: String,
    },
    /// The file cannot be read or written.
    #[error("the journal {path}: {source}")]
    Io {
        /// Where it is.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Why a command could not be written down, and so was not sent.
#[derive(Clone, Debug)]
pub(crate) enum Unjournaled {
    /// There is no room.
    Full { commands: usize, bytes: usize },
    /// The file cannot be written.
    Failed(Arc<io::Error>),
}

impl fmt::Display for JournalState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands, {} bytes", self.commands, self.bytes)
    }
}

/// The time of this machine's clock, in Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    since.ok().and_then(|since| u64::try_from(since.as_millis()).ok()).unwrap_or_default()
}
