//! The messages that tell how a command ended, or that it has not.
//!
//! Their wire form is one flat JSON object, so that a client of any language reads it at a glance.
//! A reader passes over members that it does not know, and does without those that are not there:
//!
//! | member | in | |
//! |---|---|---|
//! | `id` | every message | the command id |
//! | `outcome` | every message | `applied`, `rejected`, `expired`, `dead_lettered`, or `pending` |
//! | `output` | `applied` | the command's own output; missing means `null`, unless there is `output_bytes` |
//! | `output_bytes` | `applied` | the output is that long, too long for a message: read it from the ledger |
//! | `rejection` | `rejected` | `code`, `message`, `constraint` |
//! | `dead_letter` | `dead_lettered` | `reason`, `message` |
//! | `bookmark` | all but `pending` | a position at or behind the commit |
//! | `attempts`, `stream`, `sequence`, `published_at_ms`, `settled_at_ms` | answers to a question | the ledger's [`Record`] |
//! | `parked` | `pending` | why and how the command waits: [`Parked`] |

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Bookmark, CommandId, DeadLetter, Fingerprint, Outcome, Rejection, outcome::shortened};

/// What the ledger holds beside the outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// How often it was tried alone, or 1.
    pub attempts: u32,
    /// The stream that it came from; `None` for one that was cancelled before it came.
    pub stream: Option<String>,
    /// Its place there.
    pub sequence: Option<u64>,
    /// The stream's time of it, in Unix milliseconds.
    pub published_at_ms: Option<i64>,
    /// When the transaction began that settled it, by the database's clock, in Unix milliseconds.
    pub settled_at_ms: i64,
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
    /// What else the ledger holds. A reply to an inbox goes without: whoever waits there has no
    /// use for it.
    pub record: Option<Record>,
}

/// How a command waits that was accepted and could not be applied yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// Stable, such as `scheduled`, `unknown_command` or `paused`.
    pub reason: String,
    /// How often it was tried alone.
    pub attempts: u32,
    /// When it, or what waits before it in its key, is tried next, in Unix milliseconds; `None`
    /// while nothing is planned, as for a pause.
    pub due_at_ms: Option<i64>,
    /// How its last attempt failed, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<LastError>,
}

/// How the last attempt at a parked command failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// Stable: an SQLSTATE of PostgreSQL, or a code of Farwrite's own.
    pub code: String,
    /// For people.
    pub message: String,
}

/// A command that has not ended, as far as the worker knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotEnded {
    /// Which command.
    pub id: CommandId,
    /// How it waits, where it is parked. Otherwise it was not applied yet, or never accepted, or
    /// it is older than the ledger keeps.
    pub parked: Option<Parked>,
}

impl NotEnded {
    /// A command that nothing is known of.
    #[must_use]
    pub const fn unknown(id: CommandId) -> Self {
        Self { id, parked: None }
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

/// The answer to an [`OutcomeRequest`].
#[derive(Clone, Debug)]
pub enum OutcomeAnswer {
    /// It ended, as this reply says.
    Known(Reply),
    /// It has not ended.
    Pending(NotEnded),
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

/// The wire form of every answer.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    id: CommandId,
    outcome: &'a str,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    output: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rejection: Option<Rejection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dead_letter: Option<DeadLetter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bookmark: Option<Bookmark>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    published_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settled_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parked: Option<Parked>,
}

impl<'a> Wire<'a> {
    const fn new(id: CommandId, outcome: &'a str) -> Self {
        Self {
            id,
            outcome,
            output: None,
            output_bytes: None,
            rejection: None,
            dead_letter: None,
            bookmark: None,
            attempts: None,
            stream: None,
            sequence: None,
            published_at_ms: None,
            settled_at_ms: None,
            parked: None,
        }
    }

    fn record(&mut self) -> Option<Record> {
        Some(Record {
            attempts: self.attempts?,
            stream: self.stream.take(),
            sequence: self.sequence,
            published_at_ms: self.published_at_ms,
            settled_at_ms: self.settled_at_ms?,
        })
    }
}

impl Reply {
    /// Writes the reply as JSON.
    ///
    /// # Errors
    /// Never in practice: every part has a JSON form.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut wire = Wire::new(self.id, self.outcome.word());
        match &self.outcome {
            Outcome::Applied { output } => wire.output = Some(output),
            Outcome::AppliedLarge { output_bytes } => wire.output_bytes = Some(*output_bytes),
            Outcome::Rejected(rejection) => wire.rejection = Some(rejection.clone()),
            Outcome::Expired => {}
            Outcome::DeadLettered(dead_letter) => wire.dead_letter = Some(dead_letter.clone()),
        }
        wire.bookmark = Some(self.bookmark.clone());
        if let Some(record) = &self.record {
            wire.attempts = Some(record.attempts);
            wire.stream.clone_from(&record.stream);
            wire.sequence = record.sequence;
            wire.published_at_ms = record.published_at_ms;
            wire.settled_at_ms = Some(record.settled_at_ms);
        }
        serde_json::to_vec(&wire)
    }

    /// Writes the reply for a message that holds at most so many bytes: where the whole reply is
    /// longer, it goes without the output, or with the beginning of a long text.
    ///
    /// # Errors
    /// Never in practice: every part has a JSON form.
    pub fn encode_within(&self, max_bytes: usize) -> Result<Vec<u8>, serde_json::Error> {
        let is_hopeless =
            matches!(&self.outcome, Outcome::Applied { output } if output.get().len() > max_bytes);
        if !is_hopeless {
            let whole = self.encode()?;
            if whole.len() <= max_bytes {
                return Ok(whole);
            }
        }
        Self {
            id: self.id,
            outcome: self.outcome.shortened(),
            bookmark: self.bookmark.clone(),
            record: self.record.clone(),
        }
        .encode()
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

impl OutcomeAnswer {
    /// Whose outcome it is about.
    #[must_use]
    pub const fn id(&self) -> CommandId {
        match self {
            Self::Known(reply) => reply.id,
            Self::Pending(not_ended) => not_ended.id,
        }
    }

    /// Writes the answer as JSON.
    ///
    /// # Errors
    /// Never in practice: every part has a JSON form.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Self::Known(reply) => reply.encode(),
            Self::Pending(NotEnded { id, parked }) => {
                let mut wire = Wire::new(*id, "pending");
                wire.parked.clone_from(parked);
                serde_json::to_vec(&wire)
            }
        }
    }

    /// Writes the answer for a message that holds at most so many bytes; see
    /// [`Reply::encode_within`].
    ///
    /// # Errors
    /// Never in practice: every part has a JSON form.
    pub fn encode_within(&self, max_bytes: usize) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Self::Known(reply) => reply.encode_within(max_bytes),
            Self::Pending(NotEnded { id, parked }) => {
                let whole = self.encode()?;
                if whole.len() <= max_bytes {
                    return Ok(whole);
                }
                let mut parked = parked.clone();
                if let Some(error) = parked.as_mut().and_then(|parked| parked.error.as_mut()) {
                    error.message = shortened(&error.message);
                }
                Self::Pending(NotEnded { id: *id, parked }).encode()
            }
        }
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// When it is not of the form that this version reads; the error says which part.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReplyError> {
        let mut wire: Wire<'_> = serde_json::from_slice(bytes)?;
        let record = wire.record();
        let missing =
            |missing| ReplyError::Incomplete { outcome: wire.outcome.to_owned(), missing };
        let outcome = match wire.outcome {
            "pending" => {
                return Ok(Self::Pending(NotEnded { id: wire.id, parked: wire.parked }));
            }
            "applied" => match (wire.output, wire.output_bytes) {
                (Some(output), _) => Outcome::Applied { output: output.to_owned() },
                (None, Some(output_bytes)) => Outcome::AppliedLarge { output_bytes },
                // A missing output and `null` are the same to serde, and to a reader.
                (None, None) => Outcome::Applied { output: RawValue::NULL.to_owned() },
            },
            "rejected" => Outcome::Rejected(wire.rejection.ok_or(missing("rejection"))?),
            "expired" => Outcome::Expired,
            "dead_lettered" => {
                Outcome::DeadLettered(wire.dead_letter.ok_or(missing("dead_letter"))?)
            }
            other => return Err(ReplyError::UnknownOutcome(other.to_owned())),
        };
        let bookmark = wire.bookmark.ok_or(missing("bookmark"))?;
        Ok(Self::Known(Reply { id: wire.id, outcome, bookmark, record }))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const APPLIED: &str = include_str!("../fixtures/reply-applied.v1.json");
    const REJECTED: &str = include_str!("../fixtures/reply-rejected.v1.json");
    const EXPIRED: &str = include_str!("../fixtures/reply-expired.v1.json");
    const DEAD_LETTERED: &str = include_str!("../fixtures/reply-dead-lettered.v1.json");
    const PENDING: &str = include_str!("../fixtures/answer-pending.v1.json");
    const RECORD: &str = include_str!("../fixtures/answer-record.v1.json");
    const CANCELLED: &str = include_str!("../fixtures/answer-cancelled.v1.json");
    const LARGE: &str = include_str!("../fixtures/reply-applied-large.v1.json");
    const PARKED: &str = include_str!("../fixtures/answer-parked.v1.json");
    const REQUEST: &str = include_str!("../fixtures/outcome-request.v1.json");

    #[test]
    fn every_answer_is_written_as_it_was_read() {
        let all =
            [APPLIED, REJECTED, EXPIRED, DEAD_LETTERED, PENDING, RECORD, CANCELLED, LARGE, PARKED];
        for text in all {
            let answer = OutcomeAnswer::decode(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(answer.encode().unwrap()).unwrap(), text.trim());
            assert_eq!(answer.encode_within(text.len()).unwrap(), answer.encode().unwrap());
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
    fn what_else_is_known_is_read_where_it_is_there() {
        assert_eq!(Reply::decode(APPLIED.as_bytes()).unwrap().record, None);
        let record = Reply::decode(RECORD.as_bytes()).unwrap().record.unwrap();
        assert_eq!((record.attempts, record.sequence), (2, Some(4_711)));
        assert_eq!(record.stream.as_deref(), Some("farwrite-shop"));
        assert!(record.published_at_ms.unwrap() < record.settled_at_ms);
        let record = Reply::decode(CANCELLED.as_bytes()).unwrap().record.unwrap();
        assert_eq!((record.stream, record.sequence, record.published_at_ms), (None, None, None));
        let OutcomeAnswer::Pending(not_ended) = OutcomeAnswer::decode(PARKED.as_bytes()).unwrap()
        else {
            panic!("it is parked");
        };
        let parked = not_ended.parked.unwrap();
        assert_eq!((parked.reason.as_str(), parked.attempts), ("retry", 3));
        assert_eq!((parked.due_at_ms, parked.error.unwrap().code.as_str()), (None, "55P03"));
    }

    #[test]
    fn members_that_a_reader_does_not_know_are_passed_over() {
        for text in [APPLIED, REJECTED, EXPIRED, DEAD_LETTERED, PENDING, RECORD, PARKED] {
            let later = text.trim().replacen('{', "{\"later\":{\"than\":[1e999]},", 1);
            let answer = OutcomeAnswer::decode(later.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(answer.encode().unwrap()).unwrap(), text.trim());
        }
    }

    #[test]
    fn what_is_too_large_for_a_message_goes_without_its_bulk() {
        let output = RawValue::from_string(format!("\"{}\"", "x".repeat(9_998))).unwrap();
        let mut reply = Reply::decode(RECORD.as_bytes()).unwrap();
        let record = reply.record.clone();
        reply.outcome = Outcome::Applied { output };
        for max_bytes in [1_000, 10_001] {
            let told = Reply::decode(&reply.encode_within(max_bytes).unwrap()).unwrap();
            assert!(matches!(told.outcome, Outcome::AppliedLarge { output_bytes: 10_000 }));
            assert_eq!((told.bookmark, told.record), (reply.bookmark.clone(), record.clone()));
        }
        reply.outcome = Outcome::Rejected(Rejection::new("P0001", "x".repeat(10_000)));
        let short = reply.encode_within(3_000).unwrap();
        assert!(short.len() <= 3_000);
        let Outcome::Rejected(rejection) = Reply::decode(&short).unwrap().outcome else {
            panic!("it is a rejection");
        };
        assert_eq!(rejection.code, "P0001");
        let error = Some(LastError { code: "x".into(), message: "x".repeat(10_000) });
        let parked = Parked { reason: "retry".into(), attempts: 1, due_at_ms: None, error };
        let answer = OutcomeAnswer::Pending(NotEnded { id: reply.id, parked: Some(parked) });
        assert!(answer.encode_within(3_000).unwrap().len() <= 3_000);
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
