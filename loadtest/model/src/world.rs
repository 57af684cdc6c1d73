//! Worlds: what is in them, and how often what may fail.

/// A command of a world. Its place in the list of commands is the order of calls.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Its id. Ids grow with their time.
    pub id: u8,
    /// Its key, which chooses the lane.
    pub key: u8,
    /// The ids of an atomic batch's parts; empty for a single command.
    pub parts: &'static [u8],
    /// Whether it is parked when it comes, and tried again later.
    pub waits: bool,
}

/// A single command.
const fn single(id: u8, key: u8) -> Command {
    Command { id, key, parts: &[], waits: false }
}

/// How often a thing may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A publish is sent again.
    pub resends: u8,
    /// A caller drops its call.
    pub drops: u8,
    /// A worker dies.
    pub crashes: u8,
    /// A worker takes over.
    pub takeovers: u8,
    /// The primary is lost, and the replica promoted.
    pub failovers: u8,
    /// The broker loses the end of its stream.
    pub losses: u8,
    /// The ledger drops its oldest day.
    pub days: u8,
    /// An operator adopts the stream, from its first message on.
    pub adoptions: u8,
    /// The database is copied, and the copy comes alive.
    pub copies: u8,
    /// Somebody else writes into a database.
    pub writes: u8,
    /// The stream is trimmed.
    pub trims: u8,
}

/// A defect that the protocol once had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// An atomic batch asks the ledger again when it ends, and leaves out of its record what is known by then.
    BatchAsksTwice,
    /// The ledger's horizon is not kept with the database.
    NoHorizon,
    /// A lane looks at what waits in itself only.
    WaitingUnseen,
    /// A lane that is moved along keeps no proof of the message that it stands at.
    NoProof,
    /// A dropped call no longer holds its key, and nobody follows its message up.
    DropFreesKey,
    /// Nothing says which database it is.
    NoIdentity,
    /// The stream is trimmed behind the primary alone.
    TrimsAhead,
    /// A bookmark's branch is not compared.
    NoBranch,
    /// The ledger is not looked at.
    NoLedger,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::BatchAsksTwice,
        Self::NoHorizon,
        Self::WaitingUnseen,
        Self::NoProof,
        Self::DropFreesKey,
        Self::NoIdentity,
        Self::TrimsAhead,
        Self::NoBranch,
        Self::NoLedger,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BatchAsksTwice => "batch-asks-twice",
            Self::NoHorizon => "no-horizon",
            Self::WaitingUnseen => "waiting-unseen",
            Self::NoProof => "no-proof",
            Self::DropFreesKey => "drop-frees-key",
            Self::NoIdentity => "no-identity",
            Self::TrimsAhead => "trims-ahead",
            Self::NoBranch => "no-branch",
            Self::NoLedger => "no-ledger",
        }
    }

    /// The world in which it shows.
    #[must_use]
    pub const fn world(self) -> World {
        match self {
            Self::BatchAsksTwice => ATOMIC,
            Self::NoHorizon => ADOPTION,
            Self::WaitingUnseen => ONE_ID,
            Self::NoProof => LOST_TAIL,
            Self::DropFreesKey => DROPPED,
            Self::NoIdentity => COPY,
            Self::TrimsAhead | Self::NoBranch => FAILOVER,
            Self::NoLedger => TAKEOVER,
        }
    }
}

impl World {
    /// Whether bookmarks, and so positions of the log, matter in it.
    #[must_use]
    pub const fn has_bookmarks(&self) -> bool {
        self.faults.failovers > 0 || self.faults.copies > 0
    }

    /// Whether it has a replica.
    #[must_use]
    pub const fn has_replica(&self) -> bool {
        self.faults.failovers > 0
    }
}

/// A bounded world.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// Its name.
    pub name: &'static str,
    /// What is published.
    pub commands: &'static [Command],
    /// How many lanes there are.
    pub lanes: u8,
    /// How many workers there are.
    pub workers: u8,
    /// How often what may happen.
    pub faults: Faults,
}

const NONE: Faults = Faults {
    resends: 0,
    drops: 0,
    crashes: 0,
    takeovers: 2,
    failovers: 0,
    losses: 0,
    days: 0,
    adoptions: 0,
    copies: 0,
    writes: 0,
    trims: 0,
};

/// Three commands of two keys.
const THREE: &[Command] = &[single(1, 0), single(2, 1), single(3, 0)];

/// Workers that take over from each other.
pub const TAKEOVER: World = World {
    name: "takeover",
    commands: THREE,
    lanes: 2,
    workers: 2,
    faults: Faults { resends: 1, ..NONE },
};

/// An atomic batch, and one of its parts alone under another key.
pub const ATOMIC: World = World {
    name: "atomic",
    commands: &[Command { id: 3, key: 0, parts: &[1, 2], waits: false }, single(1, 1)],
    lanes: 2,
    workers: 2,
    faults: Faults { resends: 1, crashes: 1, ..NONE },
};

/// One id under two keys, the first of which waits.
pub const ONE_ID: World = World {
    name: "one-id",
    commands: &[Command { id: 1, key: 0, parts: &[], waits: true }, single(1, 1), single(2, 0)],
    lanes: 2,
    workers: 1,
    faults: Faults { resends: 1, crashes: 1, ..NONE },
};

/// Callers that drop their calls.
pub const DROPPED: World = World {
    name: "dropped",
    commands: &[single(1, 0), single(2, 0), single(3, 1)],
    lanes: 2,
    workers: 1,
    faults: Faults { resends: 1, drops: 2, crashes: 1, ..NONE },
};

/// A ledger that forgets, and an operator who adopts the stream from its first message on.
pub const ADOPTION: World = World {
    name: "adoption",
    commands: THREE,
    lanes: 2,
    workers: 1,
    faults: Faults { resends: 1, crashes: 1, days: 2, adoptions: 1, ..NONE },
};

/// A broker that loses the end of its stream.
pub const LOST_TAIL: World = World {
    name: "lost-tail",
    commands: THREE,
    lanes: 2,
    workers: 1,
    faults: Faults { crashes: 1, losses: 1, ..NONE },
};

/// A failover that may lose commits, behind which the stream is trimmed.
pub const FAILOVER: World = World {
    name: "failover",
    commands: &[single(1, 0), single(2, 1)],
    lanes: 2,
    workers: 1,
    faults: Faults { failovers: 1, writes: 1, trims: 1, ..NONE },
};

/// A copy of the database that comes alive.
pub const COPY: World = World {
    name: "copy",
    commands: &[single(1, 0), single(2, 1)],
    lanes: 2,
    workers: 2,
    faults: Faults { copies: 1, writes: 1, ..NONE },
};

/// The small worlds: every state of all of them in seconds.
pub const SMALL: [World; 8] =
    [TAKEOVER, ATOMIC, ONE_ID, DROPPED, ADOPTION, LOST_TAIL, FAILOVER, COPY];

/// The same with two workers, three commands and more that fails: every state of all of them in minutes.
pub const LARGE: [World; 8] = [
    World { faults: Faults { resends: 1, crashes: 1, takeovers: 3, ..NONE }, ..TAKEOVER },
    World {
        commands: &[
            Command { id: 3, key: 0, parts: &[1, 2], waits: false },
            single(1, 1),
            single(2, 1),
        ],
        ..ATOMIC
    },
    World { workers: 2, ..ONE_ID },
    World { workers: 2, ..DROPPED },
    World { workers: 2, ..ADOPTION },
    World {
        workers: 2,
        faults: Faults { crashes: 1, losses: 1, adoptions: 1, ..NONE },
        ..LOST_TAIL
    },
    World { commands: THREE, ..FAILOVER },
    World { faults: Faults { crashes: 1, copies: 1, writes: 2, ..NONE }, ..COPY },
];
