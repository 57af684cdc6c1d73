//! What there is in a world, at one moment.

use crate::world::Faults;

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// By command.
    pub calls: Vec<Call>,
    /// Messages on their way to the broker, by command.
    pub air: Vec<u8>,
    /// The stream.
    pub stream: Stream,
    /// The database that serves.
    pub primary: Database,
    /// Its replica.
    pub replica: Option<Database>,
    /// A copy of it that came alive elsewhere.
    pub copy: Option<Database>,
    /// The workers that serve.
    pub workers: Vec<Option<Serving>>,
    /// The cluster of the database that took over first, as the broker remembers it.
    pub named: Option<u8>,
    /// Outcomes that callers were told, with their bookmarks.
    pub told: Vec<Told>,
    /// Takeovers so far, anywhere: no epoch is given twice.
    pub epochs: u8,
    /// What may still happen.
    pub left: Faults,
}

/// A call of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Not made yet.
    ToCome,
    /// Its message is out.
    Out,
    /// Its message is out, and its caller has gone.
    Dropped,
    /// It is known to be stored.
    Known,
}

/// The stream of commands, as the broker holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stream {
    /// By sequence, from 1. Those that were trimmed are kept for the laws.
    pub messages: Vec<Message>,
    /// Messages up to here (inclusive) are trimmed.
    pub trimmed: u8,
    /// How often the broker lost its end.
    pub era: u8,
}

/// A message of the stream. Its era stands for its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// Its command.
    pub command: u8,
    /// When it was stored.
    pub era: u8,
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Database {
    /// Which cluster it is in: what its server says of itself.
    pub cluster: u8,
    /// The server's timeline.
    pub timeline: u8,
    /// Where the timeline before ended, once it was promoted.
    pub promoted_at: Option<u8>,
    /// How many commits there were.
    pub lsn: u8,
    /// What commands did, in order.
    pub effects: Vec<Effect>,
    /// The ids that the ledger knows.
    pub ledger: Vec<u8>,
    /// Ids up to here (inclusive) are refused: the ledger may have forgotten them.
    pub horizon: u8,
    /// For the laws: the ledger has forgotten ids up to here (inclusive).
    pub forgotten: u8,
    /// Where each lane stands.
    pub lanes: Vec<LaneRow>,
    /// Commands that wait, in order.
    pub parked: Vec<u8>,
    /// One row a takeover.
    pub history: Vec<Takeover>,
    /// The stream was found to be another one: nothing is read before an operator adopts it.
    pub refused: bool,
}

/// What one command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Effect {
    /// The id.
    pub id: u8,
    /// The command that ran, or the batch.
    pub command: u8,
}

/// Where a lane stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LaneRow {
    /// Everything of the lane up to here (inclusive) is settled or parked.
    pub position: u8,
    /// The message there.
    pub proof: Option<Message>,
}

/// A row of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Takeover {
    /// The fence.
    pub epoch: u8,
    /// The timeline that its commits are on.
    pub timeline: u8,
    /// Where the timeline before it ended, if it ended.
    pub left_at: Option<u8>,
    /// The cluster that it was written in.
    pub cluster: u8,
}

/// Which database a worker serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// The primary.
    Primary,
    /// The copy.
    Copy,
}

/// A worker that serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Serving {
    /// Which database.
    pub server: Server,
    /// Its takeover.
    pub epoch: u8,
    /// The era in which it compared the stream last.
    pub era: u8,
    /// How far it has read.
    pub read_to: LaneRow,
    /// What it has read and not applied, by lane: sequences and messages.
    pub queues: Vec<Vec<(u8, Message)>>,
    /// An atomic batch that runs: its lane, and what the ledger knew of its parts.
    pub open: Option<(u8, Vec<u8>)>,
}

/// What a caller was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Told {
    /// Of which id.
    pub id: u8,
    /// The takeover.
    pub epoch: u8,
    /// The bookmark's timeline.
    pub timeline: u8,
    /// The bookmark's position.
    pub lsn: u8,
    /// The cluster that told it.
    pub cluster: u8,
}

impl Database {
    /// The epoch that may write.
    #[must_use]
    pub fn owner(&self) -> Option<u8> {
        self.history.last().map(|takeover| takeover.epoch)
    }

    /// Whether an id has ended, or is refused.
    #[must_use]
    pub fn knows(&self, id: u8) -> bool {
        self.ledger.contains(&id) || id <= self.horizon
    }

    /// The furthest lane.
    #[must_use]
    pub fn highest(&self) -> LaneRow {
        self.lanes.iter().copied().max_by_key(|lane| lane.position).unwrap_or_default()
    }

    /// Up to where every lane has come.
    #[must_use]
    pub fn low_water(&self) -> u8 {
        self.lanes.iter().map(|lane| lane.position).min().unwrap_or(0)
    }
}

impl State {
    /// A worker's database.
    #[must_use]
    pub fn database(&self, server: Server) -> Option<&Database> {
        match server {
            Server::Primary => Some(&self.primary),
            Server::Copy => self.copy.as_ref(),
        }
    }

    pub(crate) fn database_mut(&mut self, server: Server) -> Option<&mut Database> {
        match server {
            Server::Primary => Some(&mut self.primary),
            Server::Copy => self.copy.as_mut(),
        }
    }
}
