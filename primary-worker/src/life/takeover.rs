//! A takeover, and what a worker claims when it takes over: data, and little else.

use farwrite_schemas::{Bookmark, DatabaseName, Epoch, Lsn, Timeline};

use crate::{
    keep::{hints::Hints, horizon::LedgerHorizon},
    primary::PrimaryStart,
    stream::position::{LanePosition, StreamProgress},
};

/// A takeover that was committed: the right to apply, until another worker takes over.
#[derive(Clone, Debug)]
pub(crate) struct Takeover {
    /// The fence of every batch.
    pub(crate) epoch: Epoch,
    /// The primary's timeline; bookmarks carry it.
    pub(crate) timeline: Timeline,
    /// The database's row of the stream.
    pub(crate) stream_id: i32,
    /// Where each lane stands, by its number.
    pub(crate) lanes: Vec<LanePosition>,
    /// How far the database has come in the stream.
    pub(crate) progress: StreamProgress,
    /// Whether the epoch before ended without a word: the first commands run alone.
    pub(crate) unclean: bool,
    /// How far commands had been applied, as the broker remembers it.
    pub(crate) hints: Hints,
    /// Below which ids are refused.
    pub(crate) horizon: LedgerHorizon,
    pub(crate) database: DatabaseName,
    /// Which database of that name it is.
    pub(crate) identity: String,
}

impl Takeover {
    /// A bookmark for a position of this epoch.
    pub(crate) fn bookmark(&self, lsn: Lsn) -> Bookmark {
        let database = self.database.clone();
        Bookmark { database, timeline: self.timeline, epoch: self.epoch, lsn }
    }
}

/// Who takes over, and what it knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claim {
    /// The epoch of this worker's last takeover: while the database holds it, it is its own.
    pub(crate) mine: Option<Epoch>,
    /// Whether it takes over from an owner that works, too.
    pub(crate) forced: bool,
    /// Lanes whose command ran when the primary became unavailable in a way that is nobody's doing.
    pub(crate) blameless: Vec<u32>,
    /// Lanes whose session was ended while their command ran: by somebody, or by the command itself.
    pub(crate) ended: Vec<u32>,
    /// The server's start at this worker's last takeover.
    pub(crate) server: Option<PrimaryStart>,
}
