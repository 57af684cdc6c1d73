//! The laws, and what is found when a history is held against them.

use std::fmt;

use serde::Serialize;
use uuid::Uuid;

/// What a history must not show. `docs/chaos.md` has a sentence on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Law {
    /// An accepted command has no outcome.
    OutcomeMissing,
    /// A command has several.
    OutcomeTwice,
    /// A command's outcome is another one than its caller was told.
    OutcomeChanged,
    /// A command was answered, and expired.
    OutcomeExpiredLater,
    /// A refused command has an outcome or an effect.
    OutcomeOfRefused,
    /// An applied command has no effect.
    EffectMissing,
    /// A command has several.
    EffectTwice,
    /// An effect of a command that was not applied, or was never sent.
    EffectUnasked,
    /// A key's effects are not in the stream's order.
    OrderStream,
    /// A command overtook one that was accepted before it was sent.
    OrderAcknowledged,
    /// A command overtook one whose call the same region's app had dropped before.
    OrderDropped,
    /// A key's effects are not numbered 1, 2, 3.
    OrderGap,
    /// A read shows less than its client wrote.
    ReadStale,
    /// A read shows less than its client was told to be visible there.
    VisibleTooEarly,
    /// A read shows less than its client has read.
    ReadBack,
    /// A read shows what was never there.
    ReadUnknown,
}

impl Law {
    /// All of them, in the order in which they are judged.
    pub const ALL: [Self; 16] = [
        Self::OutcomeMissing,
        Self::OutcomeTwice,
        Self::OutcomeChanged,
        Self::OutcomeExpiredLater,
        Self::OutcomeOfRefused,
        Self::EffectMissing,
        Self::EffectTwice,
        Self::EffectUnasked,
        Self::OrderStream,
        Self::OrderAcknowledged,
        Self::OrderDropped,
        Self::OrderGap,
        Self::ReadStale,
        Self::VisibleTooEarly,
        Self::ReadBack,
        Self::ReadUnknown,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OutcomeMissing => "outcome_missing",
            Self::OutcomeTwice => "outcome_twice",
            Self::OutcomeChanged => "outcome_changed",
            Self::OutcomeExpiredLater => "outcome_expired_later",
            Self::OutcomeOfRefused => "outcome_of_refused",
            Self::EffectMissing => "effect_missing",
            Self::EffectTwice => "effect_twice",
            Self::EffectUnasked => "effect_unasked",
            Self::OrderStream => "order_stream",
            Self::OrderAcknowledged => "order_acknowledged",
            Self::OrderDropped => "order_dropped",
            Self::OrderGap => "order_gap",
            Self::ReadStale => "read_stale",
            Self::VisibleTooEarly => "visible_too_early",
            Self::ReadBack => "read_back",
            Self::ReadUnknown => "read_unknown",
        }
    }
}

/// A law that was broken, and by what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LawViolation {
    /// Which one.
    pub law: Law,
    /// What is wrong, in one sentence.
    pub sentence: String,
    /// The commands that it is about.
    pub ids: Vec<Uuid>,
    /// Their keys.
    pub keys: Vec<String>,
    /// The operations that it is about, by their numbers in the history.
    pub ops: Vec<u64>,
}

impl fmt::Display for LawViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law.as_str(), self.sentence)
    }
}

/// How often a law was held against something, and how often it was broken. A law that nothing was
/// held against says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Which one.
    pub law: Law,
    /// Commands, effects, keys or reads.
    pub times: u64,
    /// How many of them broke it.
    pub broken: u64,
}

/// What has been found until now.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) judged: [Judged; Law::ALL.len()],
    pub(crate) violations: Vec<LawViolation>,
}

impl Findings {
    pub(crate) fn new() -> Self {
        let judged = Law::ALL.map(|law| Judged { law, times: 0, broken: 0 });
        Self { judged, violations: Vec::new() }
    }

    /// Judges once; the sentence is made only for a violation.
    pub(crate) fn judge(&mut self, law: Law, holds: bool, broken: impl FnOnce() -> Broken) {
        if let Some(judged) = self.judged.iter_mut().find(|judged| judged.law == law) {
            judged.times += 1;
            judged.broken += u64::from(!holds);
        }
        if !holds {
            let Broken { sentence, ids, keys, ops } = broken();
            self.violations.push(LawViolation { law, sentence, ids, keys, ops });
        }
    }
}

/// A violation whose law the judge knows.
#[derive(Debug, Default)]
pub(crate) struct Broken {
    pub(crate) sentence: String,
    pub(crate) ids: Vec<Uuid>,
    pub(crate) keys: Vec<String>,
    pub(crate) ops: Vec<u64>,
}
