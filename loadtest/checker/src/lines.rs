//! The lines of a history: their words and their shapes, one definition for the writer and the
//! reader. `docs/chaos.md` says what each means.
//!
//! An unknown field is passed over. An unknown word is an error: a checker that passes over what it
//! does not understand finds nothing.

use std::borrow::Cow;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::Value;
use uuid::Uuid;

/// The version of the form.
pub(crate) const VERSION: u32 = 1;

/// How a command was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryVerb {
    /// The caller waits until the stream has stored it.
    Publish,
    /// The caller waits until the primary has committed it.
    Submit,
    /// The caller waits until their region shows it.
    Write,
}

/// What became of a command, by the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryOutcome {
    /// Its effect is committed.
    Applied,
    /// Its own fault; it has no effect.
    Rejected,
    /// Its time had passed.
    Expired,
    /// It could not be applied.
    DeadLettered,
}

impl HistoryOutcome {
    /// As the history writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::DeadLettered => "dead_lettered",
        }
    }
}

/// What the caller of a command was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandEnd {
    /// The stream has stored it.
    Accepted,
    /// The stream has not stored it, and will not.
    Refused,
    /// Nothing is known.
    Unknown,
    /// The app dropped the call, and knows nothing. The app goes on.
    Dropped,
    /// Its outcome.
    Applied,
    /// Its outcome.
    Rejected,
    /// Its outcome.
    Expired,
    /// Its outcome.
    DeadLettered,
    /// It was committed on a branch of history that was lost.
    Superseded,
}

impl CommandEnd {
    /// The outcome that was told, if one was.
    #[must_use]
    pub const fn told(self) -> Option<HistoryOutcome> {
        match self {
            Self::Applied => Some(HistoryOutcome::Applied),
            Self::Rejected => Some(HistoryOutcome::Rejected),
            Self::Expired => Some(HistoryOutcome::Expired),
            Self::DeadLettered => Some(HistoryOutcome::DeadLettered),
            Self::Accepted | Self::Refused | Self::Unknown | Self::Dropped | Self::Superseded => {
                None
            }
        }
    }

    /// Whether it says, or implies, that the stream has stored the command.
    #[must_use]
    pub const fn is_acceptance(self) -> bool {
        !matches!(self, Self::Refused | Self::Unknown | Self::Dropped)
    }
}

impl From<HistoryOutcome> for CommandEnd {
    fn from(outcome: HistoryOutcome) -> Self {
        match outcome {
            HistoryOutcome::Applied => Self::Applied,
            HistoryOutcome::Rejected => Self::Rejected,
            HistoryOutcome::Expired => Self::Expired,
            HistoryOutcome::DeadLettered => Self::DeadLettered,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct HistoryHeader<'a> {
    pub(crate) farwrite_history: u32,
    pub(crate) seed: u64,
    #[serde(borrow)]
    pub(crate) started: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct CommandStart<'a> {
    pub(crate) t_us: u64,
    pub(crate) op: u64,
    pub(crate) start: HistoryVerb,
    #[serde(borrow)]
    pub(crate) client: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) region: Cow<'a, str>,
    pub(crate) id: Uuid,
    #[serde(borrow)]
    pub(crate) key: Cow<'a, str>,
    /// For people; nothing is judged by it.
    #[serde(skip_deserializing)]
    pub(crate) body: Option<&'a Value>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct CommandEnded {
    pub(crate) t_us: u64,
    pub(crate) op: u64,
    pub(crate) end: CommandEnd,
    #[serde(default)]
    pub(crate) visible: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "start", rename = "read")]
pub(crate) struct ReadStart<'a> {
    pub(crate) t_us: u64,
    pub(crate) op: u64,
    #[serde(borrow)]
    pub(crate) client: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) region: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) key: Cow<'a, str>,
    pub(crate) bookmark: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub(crate) enum ReadEnded {
    Read { t_us: u64, op: u64, n: u64, last: Option<Uuid> },
    Failed { t_us: u64, op: u64 },
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum HistoryEvent<'a> {
    Superseded {
        t_us: u64,
        #[serde(borrow)]
        client: Cow<'a, str>,
    },
    Fault {
        t_us: u64,
        #[serde(borrow)]
        kind: Cow<'a, str>,
        #[serde(borrow, default)]
        what: Cow<'a, str>,
    },
    /// Without a kind, everything is.
    Healed {
        t_us: u64,
        #[serde(borrow)]
        kind: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        what: Cow<'a, str>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "final", rename_all = "snake_case")]
pub(crate) enum FinalRow<'a> {
    Outcome {
        id: Uuid,
        outcome: HistoryOutcome,
    },
    Effect {
        #[serde(borrow)]
        key: Cow<'a, str>,
        n: u64,
        id: Uuid,
    },
    Message {
        sequence: u64,
        id: Uuid,
        #[serde(borrow)]
        key: Cow<'a, str>,
    },
    End,
}

/// Any line.
pub(crate) enum HistoryLine<'a> {
    Header(HistoryHeader<'a>),
    Command(CommandStart<'a>),
    CommandEnd(CommandEnded),
    Read(ReadStart<'a>),
    ReadEnd(ReadEnded),
    Event(HistoryEvent<'a>),
    Final(FinalRow<'a>),
}

/// What tells lines apart.
#[derive(Deserialize)]
struct LineShape<'a> {
    farwrite_history: Option<IgnoredAny>,
    #[serde(borrow)]
    start: Option<Cow<'a, str>>,
    #[serde(borrow)]
    end: Option<Cow<'a, str>>,
    event: Option<IgnoredAny>,
    r#final: Option<IgnoredAny>,
}

impl<'a> HistoryLine<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self> {
        let shape: LineShape<'_> = parsed(text)?;
        let LineShape { farwrite_history: header, start, end, event, r#final } = shape;
        Ok(match (header, start.as_deref(), end.as_deref(), event, r#final) {
            (Some(_), None, None, None, None) => Self::Header(parsed(text)?),
            (None, Some("read"), None, None, None) => Self::Read(parsed(text)?),
            (None, Some(_), None, None, None) => Self::Command(parsed(text)?),
            (None, None, Some("read" | "failed"), None, None) => Self::ReadEnd(parsed(text)?),
            (None, None, Some(_), None, None) => Self::CommandEnd(parsed(text)?),
            (None, None, None, Some(_), None) => Self::Event(parsed(text)?),
            (None, None, None, None, Some(_)) => Self::Final(parsed(text)?),
            _ => bail!(
                "it is of no kind that is known: a line has one of farwrite_history, start, end, event, final"
            ),
        })
    }
}

/// The text is one line of many, so an error names the column only.
fn parsed<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        let said = error.to_string();
        match said.rsplit_once(" at line ") {
            Some((said, _)) => anyhow::anyhow!("{said} (column {})", error.column()),
            None => anyhow::anyhow!(said),
        }
    })
}
