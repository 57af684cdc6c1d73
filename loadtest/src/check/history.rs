//! A history in memory: what was done, what was told, and what was there in the end.
//!
//! It grows with the number of operations, not with their bodies. Reading it refuses whatever would
//! make a judgement worthless: a word that is not known, an operation that ends twice, an end state
//! that is followed by more, a file that does not say that it is complete.

use uuid::Uuid;

use super::{
    line::{CommandEnd, Outcome, Verb},
    names::{Name, Names},
};

/// A place on the one clock. Of two lines of the same microsecond the earlier line was earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    pub(super) t_us: u64,
    pub(super) line: u64,
}

/// One sending of a command.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) op: u64,
    pub(super) verb: Verb,
    pub(super) client: Name,
    pub(super) region: Name,
    /// Which of the fates.
    pub(super) fate: usize,
    pub(super) key: Name,
    pub(super) start: Moment,
    /// None when its client was killed.
    pub(super) end: Option<Told>,
}

/// What the caller of a command was told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) at: Moment,
    pub(super) end: CommandEnd,
    pub(super) visible: bool,
}

impl Command {
    pub(super) const fn is_accepted(&self) -> bool {
        matches!(self.end, Some(told) if told.end.is_acceptance())
    }

    pub(super) const fn is_refused(&self) -> bool {
        matches!(self.end, Some(Told { end: CommandEnd::Refused, .. }))
    }

    pub(super) const fn told(&self) -> Option<Outcome> {
        match self.end {
            Some(told) => told.end.told(),
            None => None,
        }
    }
}

/// One read of a key.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) op: u64,
    pub(super) client: Name,
    pub(super) region: Name,
    pub(super) key: Name,
    pub(super) bookmark: bool,
    pub(super) start: Moment,
    /// None when its client was killed.
    pub(super) end: Option<Moment>,
    /// None when it failed.
    pub(super) seen: Option<Seen>,
}

/// What a read saw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) n: u64,
    pub(super) last: Option<Uuid>,
}

/// Everything about one id.
#[derive(Debug)]
pub(super) struct Fate {
    pub(super) id: Uuid,
    /// Which of the commands.
    pub(super) commands: Vec<usize>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) effects: Vec<Effect>,
    /// Its first one in the stream.
    pub(super) sequence: Option<u64>,
}

/// A row of the app's own table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effect {
    pub(super) key: Name,
    pub(super) n: u64,
}

impl Fate {
    /// Its first effect under a key: a second one is a fault of its own, and of nothing else.
    pub(super) fn place(&self, key: Name) -> Option<u64> {
        self.effects.iter().filter(|effect| effect.key == key).map(|effect| effect.n).min()
    }
}

/// A fault, from its line to the one that says that it is over. One of which none says so was over
/// at once.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: String,
    pub(super) began: Moment,
    pub(super) healed: Option<Moment>,
}

/// A complete history.
#[derive(Debug)]
pub struct History {
    pub(super) seed: u64,
    pub(super) started: String,
    pub(super) lines: u64,
    pub(super) names: Names,
    pub(super) commands: Vec<Command>,
    pub(super) reads: Vec<Read>,
    pub(super) fates: Vec<Fate>,
    /// Which clients' sessions ended, and when.
    pub(super) superseded: Vec<(Name, Moment)>,
    pub(super) faults: Vec<Fault>,
    pub(super) messages: u64,
}
