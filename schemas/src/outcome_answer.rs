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
//! | `attempts`, `stream`, `sequence`, `published_at_ms`, `settled_at_ms` | answers to a question | the ledger's [`LedgerRecord`](crate::LedgerRecord) |
//! | `parked` | `pending` | why and how the command waits: [`ParkedCommand`] |

use crate::{
    id::CommandId, outcome::shortened, record::ParkedCommand, reply::Reply,
    reply_error::ReplyError, reply_wire::ReplyWire,
};

/// What stands in the place of the outcome while there is none.
const PENDING: &str = "pending";

/// A command that has not ended, as far as the worker knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotEnded {
    /// Which command.
    pub id: CommandId,
    /// How it waits, where it is parked. Otherwise it was not applied yet, or never accepted, or
    /// it is older than the ledger keeps.
    pub parked: Option<ParkedCommand>,
}

impl NotEnded {
    /// A command that nothing is known of.
    #[must_use]
    pub const fn unknown(id: CommandId) -> Self {
        Self { id, parked: None }
    }
}

/// The answer to an [`OutcomeRequest`](crate::OutcomeRequest).
#[derive(Clone, Debug)]
pub enum OutcomeAnswer {
    /// It ended, as this reply says.
    Known(Reply),
    /// It has not ended.
    Pending(NotEnded),
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
                let mut wire = ReplyWire::new(*id, PENDING);
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
        let wire: ReplyWire<'_> = serde_json::from_slice(bytes)?;
        if wire.outcome == PENDING {
            return Ok(Self::Pending(NotEnded { id: wire.id, parked: wire.parked }));
        }
        Reply::from_wire(wire).map(Self::Known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{outcome_request::OutcomeRequest, record::LastError};

    const APPLIED: &str = include_str!("../fixtures/reply-applied.v1.json");
    const REJECTED: &str = include_str!("../fixtures/reply-rejected.v1.json");
    const EXPIRED: &str = include_str!("../fixtures/reply-expired.v1.json");
    const DEAD_LETTERED: &str = include_str!("../fixtures/reply-dead-lettered.v1.json");
    const ANSWER_PENDING: &str = include_str!("../fixtures/answer-pending.v1.json");
    const RECORD: &str = include_str!("../fixtures/answer-record.v1.json");
    const CANCELLED: &str = include_str!("../fixtures/answer-cancelled.v1.json");
    const LARGE: &str = include_str!("../fixtures/reply-applied-large.v1.json");
    const PARKED: &str = include_str!("../fixtures/answer-parked.v1.json");
    const REQUEST: &str = include_str!("../fixtures/outcome-request.v1.json");

    #[test]
    fn every_answer_is_written_as_it_was_read() {
        let all = [
            APPLIED,
            REJECTED,
            EXPIRED,
            DEAD_LETTERED,
            ANSWER_PENDING,
            RECORD,
            CANCELLED,
            LARGE,
            PARKED,
        ];
        for text in all {
            let answer = OutcomeAnswer::decode(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(answer.encode().unwrap()).unwrap(), text.trim());
            assert_eq!(answer.encode_within(text.len()).unwrap(), answer.encode().unwrap());
        }
        let request: OutcomeRequest = serde_json::from_str(REQUEST).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), REQUEST.trim());
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
        for text in [APPLIED, REJECTED, EXPIRED, DEAD_LETTERED, ANSWER_PENDING, RECORD, PARKED] {
            let later = text.trim().replacen('{', "{\"later\":{\"than\":[1e999]},", 1);
            let answer = OutcomeAnswer::decode(later.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(answer.encode().unwrap()).unwrap(), text.trim());
        }
    }

    #[test]
    fn a_long_error_is_shortened_for_a_message() {
        let id = Reply::decode(RECORD.as_bytes()).unwrap().id;
        let error = Some(LastError { code: "x".into(), message: "x".repeat(10_000) });
        let parked = ParkedCommand { reason: "retry".into(), attempts: 1, due_at_ms: None, error };
        let answer = OutcomeAnswer::Pending(NotEnded { id, parked: Some(parked) });
        assert!(answer.encode_within(3_000).unwrap().len() <= 3_000);
    }
}
