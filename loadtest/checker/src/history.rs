//! A history in memory: what was done, what was told, and what was there in the end.
//!
//! The memory grows with the number of operations, not with their bodies. The reader refuses what
//! would make a judgement worthless: an unknown word, an operation that ends twice, an event after
//! the end state, a file that does not say that it is complete.

use uuid::Uuid;

use crate::{
    lines::{CommandEnd, HistoryOutcome, HistoryVerb},
    names::{Name, NameTable},
};

/// A moment on the one clock. Of two lines of the same microsecond the earlier line was earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HistoryMoment {
    pub(crate) t_us: u64,
    pub(crate) line: u64,
}

/// One sending of a command.
#[derive(Debug)]
pub(crate) struct HistoryCommand {
    pub(crate) op: u64,
    pub(crate) verb: HistoryVerb,
    pub(crate) client: Name,
    pub(crate) region: Name,
    /// Which of the fates.
    pub(crate) fate: usize,
    pub(crate) key: Name,
    pub(crate) start: HistoryMoment,
    /// None when its client was killed.
    pub(crate) end: Option<CommandAnswer>,
}

/// What the caller of a command was told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommandAnswer {
    pub(crate) at: HistoryMoment,
    pub(crate) end: CommandEnd,
    pub(crate) visible: bool,
}

impl HistoryCommand {
    pub(crate) const fn is_accepted(&self) -> bool {
        matches!(self.end, Some(told) if told.end.is_acceptance())
    }

    pub(crate) const fn is_refused(&self) -> bool {
        matches!(self.end, Some(CommandAnswer { end: CommandEnd::Refused, .. }))
    }

    pub(crate) const fn is_dropped(&self) -> bool {
        matches!(self.end, Some(CommandAnswer { end: CommandEnd::Dropped, .. }))
    }

    pub(crate) const fn told(&self) -> Option<HistoryOutcome> {
        match self.end {
            Some(told) => told.end.told(),
            None => None,
        }
    }
}

/// One read of a key.
#[derive(Debug)]
pub(crate) struct HistoryRead {
    pub(crate) op: u64,
    pub(crate) client: Name,
    pub(crate) region: Name,
    pub(crate) key: Name,
    pub(crate) bookmark: bool,
    pub(crate) start: HistoryMoment,
    /// None when its client was killed.
    pub(crate) end: Option<HistoryMoment>,
    /// None when it failed.
    pub(crate) seen: Option<SeenEffects>,
}

/// What a read saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeenEffects {
    pub(crate) n: u64,
    pub(crate) last: Option<Uuid>,
}

/// Everything about one id.
#[derive(Debug)]
pub(crate) struct CommandFate {
    pub(crate) id: Uuid,
    /// Which of the commands.
    pub(crate) commands: Vec<usize>,
    pub(crate) outcomes: Vec<HistoryOutcome>,
    pub(crate) effects: Vec<Effect>,
    /// Its first one in the stream.
    pub(crate) sequence: Option<u64>,
}

/// A row of the app's own table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) key: Name,
    pub(crate) n: u64,
}

impl CommandFate {
    /// The number of the first effect under a key. A second effect is a fault of its own.
    pub(crate) fn number(&self, key: Name) -> Option<u64> {
        self.effects.iter().filter(|effect| effect.key == key).map(|effect| effect.n).min()
    }
}

/// A fault, from its line to the line that says that it is over. A fault without such a line was
/// over at once.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: String,
    pub(crate) began: HistoryMoment,
    pub(crate) healed: Option<HistoryMoment>,
}

/// A complete history.
#[derive(Debug)]
pub struct History {
    pub(crate) seed: u64,
    pub(crate) started: String,
    pub(crate) lines: u64,
    pub(crate) names: NameTable,
    pub(crate) commands: Vec<HistoryCommand>,
    pub(crate) reads: Vec<HistoryRead>,
    pub(crate) fates: Vec<CommandFate>,
    /// Which clients' sessions ended, and when.
    pub(crate) superseded: Vec<(Name, HistoryMoment)>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) messages: u64,
}
