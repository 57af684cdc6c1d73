//! How a command ended, and the messages that tell it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Bookmark, CommandId, Fingerprint};

/// How a command ended. Recorded in the ledger with the effects, and final.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Its effects are committed; this is what it answers.
    Applied {
        /// The command's own output, JSON.
        output: Box<RawValue>,
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

/// The outcome of one command with a position that makes it visible: what the worker sends to the
/// command's inbox, and answers when it is asked for an id.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Whose outcome it is.
    pub id: CommandId,
    /// How it ended.
    pub outcome: Outcome,
    /// At or behind the commit that holds the outcome.
    pub bookmark: Bookmark,
}

/// A reply is not of the form that this version reads.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// It is not JSON, or a part has another type.
    #[error("the reply is not of a reply's form: {0}")]
    Json(#[from] serde_json::Error),
    /// A part that this outcome needs is missing.
    #[error("the reply has the outcome {outcome:?} but no {missing}")]
    Incomplete {
        /// The outcome's name.
        outcome: String,
        /// The missing part.
        missing: &'static str,
    },
    /// The outcome's name is not known.
    #[error(
        "the reply has the outcome {0:?}, which this version does not know: upgrade the producer"
    )]
    UnknownOutcome(String),
}

/// The wire form of a reply: flat, so that a client of any language reads it at a glance.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    id: CommandId,
    outcome: &'a str,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    output: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rejection: Option<Rejection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dead_letter: Option<DeadLetter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bookmark: Option<Bookmark>,
}

impl Outcome {
    /// Its word: `applied`, `rejected`, `expired` or `dead_lettered`, in the database, on the wire
    /// and as a metric's label.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Applied { .. } => "applied",
            Self::Rejected(_) => "rejected",
            Self::Expired => "expired",
            Self::DeadLettered(_) => "dead_lettered",
        }
    }

    /// Puts an outcome together from the ledger's two columns: its word and its answer (JSON).
    ///
    /// # Errors
    /// When the word is unknown or the answer is not of the word's form.
    pub fn from_ledger(word: &str, answer: Option<String>) -> Result<Self, ReplyError> {
        let answer = answer.unwrap_or_else(|| "null".to_owned());
        match word {
            "applied" => Ok(Self::Applied { output: RawValue::from_string(answer)? }),
            "rejected" => Ok(Self::Rejected(serde_json::from_str(&answer)?)),
            "expired" => Ok(Self::Expired),
            "dead_lettered" => Ok(Self::DeadLettered(serde_json::from_str(&answer)?)),
            other => Err(ReplyError::UnknownOutcome(other.to_owned())),
        }
    }

    /// The ledger's answer column for this outcome: JSON, or `None` where there is nothing to say.
    #[must_use]
    pub fn ledger_answer(&self) -> Option<String> {
        match self {
            Self::Applied { output } => Some(output.get().to_owned()),
            Self::Rejected(rejection) => serde_json::to_string(rejection).ok(),
            Self::Expired => None,
            Self::DeadLettered(dead_letter) => serde_json::to_string(dead_letter).ok(),
        }
    }
}

impl Reply {
    /// Writes the reply as JSON.
    ///
    /// # Errors
    /// Never in practice: every part has a JSON form.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut wire = Wire {
            id: self.id,
            outcome: self.outcome.word(),
            output: None,
            rejection: None,
            dead_letter: None,
            bookmark: Some(self.bookmark.clone()),
        };
        match &self.outcome {
            Outcome::Applied { output } => wire.output = Some(output),
            Outcome::Rejected(rejection) => wire.rejection = Some(rejection.clone()),
            Outcome::Expired => {}
            Outcome::DeadLettered(dead_letter) => wire.dead_letter = Some(dead_letter.clone()),
        }
        serde_json::to_vec(&wire)
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// When it is not of the form that this version reads; the error says which part.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReplyError> {
        match OutcomeAnswer::decode(bytes)? {
            OutcomeAnswer::Known(reply) => Ok(reply),
            OutcomeAnswer::Pending(_) => Err(ReplyError::UnknownOutcome("pending".to_owned())),
        }
    }
}

/// The question for the outcome of a command.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct OutcomeRequest {
    /// Whose outcome.
    pub id: CommandId,
    /// What the asker published under that id, where it knows: the answer is `id_reused` when the
    /// ledger holds another command under it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "fingerprint_as_uuid")]
    pub fingerprint: Option<Fingerprint>,
}

mod fingerprint_as_uuid {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use uuid::Uuid;

    use crate::Fingerprint;

    #[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref)] // serde's signature
    pub(super) fn serialize<S: Serializer>(
        fingerprint: &Option<Fingerprint>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        fingerprint.map(Fingerprint::as_uuid).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Fingerprint>, D::Error> {
        Ok(Option::<Uuid>::deserialize(deserializer)?.map(Fingerprint::from_uuid))
    }
}

/// The answer to an [`OutcomeRequest`].
#[derive(Clone, Debug)]
pub enum OutcomeAnswer {
    /// It ended, as this reply says.
    Known(Reply),
    /// Neither ledger nor dead letters know the id: it was not applied yet, or never accepted, or
    /// it is older than the ledger keeps.
    Pending(CommandId),
}

impl OutcomeAnswer {
    /// Writes the answer as JSON.
    ///
    /// # Errors
    /// Never in practice: every part has a JSON form.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Self::Known(reply) => reply.encode(),
            Self::Pending(id) => {
                serde_json::to_vec(&serde_json::json!({"id": id, "outcome": "pending"}))
            }
        }
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// When it is not of the form that this version reads; the error says which part.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReplyError> {
        let wire: Wire<'_> = serde_json::from_slice(bytes)?;
        let missing =
            |missing| ReplyError::Incomplete { outcome: wire.outcome.to_owned(), missing };
        let outcome = match wire.outcome {
            "pending" => return Ok(Self::Pending(wire.id)),
            "applied" => {
                // A missing output and `null` are the same to serde, and to a reader.
                let output = wire.output.map_or_else(null, ToOwned::to_owned);
                Outcome::Applied { output }
            }
            "rejected" => Outcome::Rejected(wire.rejection.ok_or(missing("rejection"))?),
            "expired" => Outcome::Expired,
            "dead_lettered" => {
                Outcome::DeadLettered(wire.dead_letter.ok_or(missing("dead_letter"))?)
            }
            other => return Err(ReplyError::UnknownOutcome(other.to_owned())),
        };
        let bookmark = wire.bookmark.ok_or(missing("bookmark"))?;
        Ok(Self::Known(Reply { id: wire.id, outcome, bookmark }))
    }
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPLIED: &str = include_str!("../fixtures/reply-applied.v1.json");
    const REJECTED: &str = include_str!("../fixtures/reply-rejected.v1.json");
    const EXPIRED: &str = include_str!("../fixtures/reply-expired.v1.json");
    const DEAD_LETTERED: &str = include_str!("../fixtures/reply-dead-lettered.v1.json");
    const PENDING: &str = include_str!("../fixtures/answer-pending.v1.json");
    const REQUEST: &str = include_str!("../fixtures/outcome-request.v1.json");

    #[test]
    fn every_answer_is_written_as_it_was_read() {
        for text in [APPLIED, REJECTED, EXPIRED, DEAD_LETTERED, PENDING] {
            let answer = OutcomeAnswer::decode(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(answer.encode().unwrap()).unwrap(), text.trim());
        }
        let request: OutcomeRequest = serde_json::from_str(REQUEST).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), REQUEST.trim());
    }

    #[test]
    fn the_ledgers_columns_give_the_outcome_back() {
        for text in [APPLIED, REJECTED, EXPIRED, DEAD_LETTERED] {
            let outcome = Reply::decode(text.as_bytes()).unwrap().outcome;
            let again = Outcome::from_ledger(outcome.word(), outcome.ledger_answer()).unwrap();
            assert_eq!(format!("{again:?}"), format!("{outcome:?}"));
        }
    }

    #[test]
    fn what_is_no_reply_says_which_part() {
        let id = "\"id\":\"0192f5c0-8a7b-7cc3-b1a2-c3d4e5f60718\"";
        let error = |text: &str| Reply::decode(text.as_bytes()).unwrap_err().to_string();
        assert!(error("{}").contains("missing field"));
        assert!(error(&format!("{{{id},\"outcome\":\"rejected\"}}")).contains("no rejection"));
        assert!(error(&format!("{{{id},\"outcome\":\"applied\"}}")).contains("no bookmark"));
        assert!(error(&format!("{{{id},\"outcome\":\"lost\"}}")).contains("lost"));
    }
}
