//! How a command ended.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::reply_error::ReplyError;

/// Longest text of a rejection or a dead letter in a message that would be too large otherwise, in
/// bytes: enough to say what is wrong.
const SHORT_MESSAGE_MAX_BYTES: usize = 1_000;

/// How a command ended. Recorded in the ledger with the effects, and final.
///
/// A match on it must name every way to end, and another way would break every reader on the wire.
/// So it is exhaustive.
#[derive(Clone)]
pub enum Outcome {
    /// Its effects are committed; this is what it answers.
    Applied {
        /// The command's own output, JSON.
        output: Box<RawValue>,
    },
    /// The same in a message, where the output is larger than a message may be: it is left out,
    /// and a caller that needs it reads it from the ledger. Never in the ledger itself.
    AppliedLarge {
        /// The output's length.
        output_bytes: u64,
    },
    /// Its own fault: it had no effect, and would have none another time.
    Rejected(Rejection),
    /// Its time had passed before it could be applied.
    Expired,
    /// Nobody could apply it; an operator can look at it.
    DeadLettered(DeadLetter),
}

/// Why a command was rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("rejected ({code}): {message}")]
pub struct Rejection {
    /// Stable: an SQLSTATE of PostgreSQL (`23505`), a code of Farwrite's own (`id_reused`) or one
    /// that a handler chose.
    pub code: String,
    /// For people. It holds no other row's data.
    pub message: String,
    /// The constraint that was violated, where one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<String>,
}

impl Rejection {
    /// A refusal with a code that the app's callers know.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), constraint: None }
    }
}

/// Why a command was dead-lettered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("dead-lettered ({reason}): {message}")]
pub struct DeadLetter {
    /// Stable, such as `unknown_command` or `not_json`.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Without the output, which may hold anything.
impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied { output } => {
                f.debug_struct("Applied").field("output_bytes", &output.get().len()).finish()
            }
            Self::AppliedLarge { output_bytes } => {
                f.debug_struct("AppliedLarge").field("output_bytes", output_bytes).finish()
            }
            Self::Rejected(rejection) => f.debug_tuple("Rejected").field(rejection).finish(),
            Self::Expired => f.write_str("Expired"),
            Self::DeadLettered(letter) => f.debug_tuple("DeadLettered").field(letter).finish(),
        }
    }
}

impl Outcome {
    /// Its name: `applied`, `rejected`, `expired` or `dead_lettered`, in the database, on the wire
    /// and as a metric's label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Applied { .. } | Self::AppliedLarge { .. } => "applied",
            Self::Rejected(_) => "rejected",
            Self::Expired => "expired",
            Self::DeadLettered(_) => "dead_lettered",
        }
    }

    /// Puts an outcome together from the ledger's two columns: its name and its answer (JSON). Of an
    /// output that was left out, the number of its bytes (`#bytes`) stands in place of it.
    ///
    /// # Errors
    /// When the name is unknown or the answer is not of its form.
    pub fn from_ledger(name: &str, answer: Option<String>) -> Result<Self, ReplyError> {
        let answer = answer.unwrap_or_else(|| "null".to_owned());
        if let ("applied", Some(Ok(output_bytes))) =
            (name, answer.strip_prefix('#').map(str::parse))
        {
            return Ok(Self::AppliedLarge { output_bytes });
        }
        match name {
            "applied" => Ok(Self::Applied { output: RawValue::from_string(answer)? }),
            "rejected" => Ok(Self::Rejected(serde_json::from_str(&answer)?)),
            "expired" => Ok(Self::Expired),
            "dead_lettered" => Ok(Self::DeadLettered(serde_json::from_str(&answer)?)),
            other => Err(ReplyError::UnknownOutcome(other.to_owned())),
        }
    }

    /// The ledger's answer column for this outcome: JSON, or `None` where there is nothing to say,
    /// or it was left out.
    #[must_use]
    pub fn ledger_answer(&self) -> Option<String> {
        match self {
            Self::Applied { output } => Some(output.get().to_owned()),
            Self::Rejected(rejection) => serde_json::to_string(rejection).ok(),
            Self::Expired | Self::AppliedLarge { .. } => None,
            Self::DeadLettered(dead_letter) => serde_json::to_string(dead_letter).ok(),
        }
    }

    /// The same for a message that would be too large with all of it: without the output, and with
    /// the beginning of what is for people.
    pub(crate) fn shortened(&self) -> Self {
        match self {
            Self::Applied { output } => {
                Self::AppliedLarge { output_bytes: output.get().len() as u64 }
            }
            Self::AppliedLarge { output_bytes } => {
                Self::AppliedLarge { output_bytes: *output_bytes }
            }
            Self::Rejected(rejection) => Self::Rejected(Rejection {
                code: shortened(&rejection.code),
                message: shortened(&rejection.message),
                constraint: rejection.constraint.as_deref().map(shortened),
            }),
            Self::Expired => Self::Expired,
            Self::DeadLettered(DeadLetter { reason, message }) => Self::DeadLettered(DeadLetter {
                reason: shortened(reason),
                message: shortened(message),
            }),
        }
    }
}

/// The beginning of a text, and a mark where something was cut off.
pub(crate) fn shortened(text: &str) -> String {
    if text.len() <= SHORT_MESSAGE_MAX_BYTES {
        return text.to_owned();
    }
    let end = (0..=SHORT_MESSAGE_MAX_BYTES).rev().find(|&end| text.is_char_boundary(end));
    format!("{}…", &text[..end.unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_not_shown() {
        let output = RawValue::from_string("\"secret\"".to_owned()).unwrap();
        assert_eq!(format!("{:?}", Outcome::Applied { output }), "Applied { output_bytes: 8 }");
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        let cut = shortened(&"é".repeat(SHORT_MESSAGE_MAX_BYTES));
        assert_eq!(cut.chars().count(), SHORT_MESSAGE_MAX_BYTES / 2 + 1);
        assert!(cut.ends_with("é…"));
    }
}
