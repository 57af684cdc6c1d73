//! Why a journal could not be opened, and why a command could not be written down. Types without
//! logic.

use std::{io, path::PathBuf, sync::Arc};

/// Why a journal could not be opened. Nothing was changed in the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    #[error("the journal {path}: {cause}")]
    Io {
        /// Where it is.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
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
