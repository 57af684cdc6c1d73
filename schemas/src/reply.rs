//! The outcome of one command as a message. Its members: see [`OutcomeAnswer`](crate::OutcomeAnswer).

use serde_json::value::RawValue;

use crate::{
    bookmark::Bookmark, id::CommandId, outcome::Outcome, record::LedgerRecord,
    reply_error::ReplyError, reply_wire::ReplyWire,
};

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
    /// What else the ledger holds. A reply to an inbox goes without: the caller that waits
    /// there has no use for it.
    pub record: Option<LedgerRecord>,
}

impl Reply {
    /// Writes the reply as JSON.
    ///
    /// # Errors
    /// Never in practice: every part has a JSON form.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut wire = ReplyWire::new(self.id, self.outcome.as_str());
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
        Self::from_wire(serde_json::from_slice(bytes)?)
    }

    pub(crate) fn from_wire(mut wire: ReplyWire<'_>) -> Result<Self, ReplyError> {
        let record = wire.record();
        let missing =
            |missing| ReplyError::Incomplete { outcome: wire.outcome.to_owned(), missing };
        let outcome = match wire.outcome {
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
        Ok(Self { id: wire.id, outcome, bookmark, record })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Rejection;

    const APPLIED: &str = include_str!("../fixtures/reply-applied.v1.json");
    const REJECTED: &str = include_str!("../fixtures/reply-rejected.v1.json");
    const EXPIRED: &str = include_str!("../fixtures/reply-expired.v1.json");
    const DEAD_LETTERED: &str = include_str!("../fixtures/reply-dead-lettered.v1.json");
    const RECORD: &str = include_str!("../fixtures/answer-record.v1.json");

    #[test]
    fn the_ledgers_columns_give_the_outcome_back() {
        for text in [APPLIED, REJECTED, EXPIRED, DEAD_LETTERED] {
            let outcome = Reply::decode(text.as_bytes()).unwrap().outcome;
            let again = Outcome::from_ledger(outcome.as_str(), outcome.ledger_answer()).unwrap();
            assert_eq!(again.as_str(), outcome.as_str());
            assert_eq!(again.ledger_answer(), outcome.ledger_answer());
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
