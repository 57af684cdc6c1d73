//! What the database knows of commands, as `farwrite.outcomes_of` tells it: for the worker, which
//! answers questions from it, and for a producer, which reads its replica when nobody answers.

use uuid::Uuid;

use crate::{
    fingerprint::Fingerprint,
    id::CommandId,
    outcome::{Outcome, Rejection},
    record::{LastError, LedgerRecord, ParkedCommand},
    reply_error::ReplyError,
};

/// Asks what is known of some commands: one parameter, the ids (`uuid[]`), and an [`OutcomeRow`]
/// for each id that something is known of.
pub const OUTCOMES_QUERY: &str = "\
    SELECT command_id, status, answer::text, fingerprint, attempts, stream, sequence,
           floor(extract(epoch FROM published_at) * 1000)::bigint,
           floor(extract(epoch FROM settled_at) * 1000)::bigint,
           reason,
           CASE WHEN isfinite(due_at) THEN floor(extract(epoch FROM due_at) * 1000)::bigint END
    FROM farwrite.outcomes_of($1)";

/// A row of [`OUTCOMES_QUERY`], in the order of its columns.
pub type OutcomeRow = (
    Uuid,
    String,
    Option<String>,
    Option<Uuid>,
    i32,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<i64>,
);

/// What the database knows of a command.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Which command.
    pub id: CommandId,
    /// Of the command that was published under the id; `None` where it is about any of them: a
    /// message that was no command, or the cancellation of a command that is still to come.
    pub fingerprint: Option<Fingerprint>,
    /// How it ended, or waits.
    pub status: CommandStatus,
}

/// How a command ended, or waits.
#[derive(Clone, Debug)]
pub enum CommandStatus {
    /// It ended.
    Ended {
        /// How.
        outcome: Outcome,
        /// What else the ledger holds.
        record: Option<LedgerRecord>,
    },
    /// It is parked.
    Parked(ParkedCommand),
}

impl CommandStatus {
    /// Whether it has ended, and how is not told yet.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        matches!(self, Self::Parked(parked) if parked.is_unconfirmed())
    }
}

impl Recorded {
    /// Reads a row.
    ///
    /// # Errors
    /// When the status is unknown or the answer is not of its form.
    pub fn from_row(row: OutcomeRow) -> Result<Self, ReplyError> {
        let (
            id,
            status,
            answer,
            fingerprint,
            attempts,
            stream,
            sequence,
            published_at_ms,
            settled_at_ms,
            reason,
            due_at_ms,
        ) = row;
        let attempts = attempts.unsigned_abs();
        let status = if status == "parked" || status == ParkedCommand::UNCONFIRMED {
            let error = answer.as_deref().map(serde_json::from_str::<LastError>).transpose()?;
            let reason = reason.unwrap_or_default();
            CommandStatus::Parked(ParkedCommand { reason, attempts, due_at_ms, error })
        } else {
            let record = settled_at_ms.map(|settled_at_ms| LedgerRecord {
                attempts,
                stream,
                sequence: sequence.map(i64::unsigned_abs),
                published_at_ms,
                settled_at_ms,
            });
            CommandStatus::Ended { outcome: Outcome::from_ledger(&status, answer)?, record }
        };
        Ok(Self {
            id: CommandId::from_uuid(id),
            fingerprint: fingerprint.filter(|hash| !hash.is_nil()).map(Fingerprint::from_uuid),
            status,
        })
    }

    /// What is so for somebody who published a command with that fingerprint, where that is known:
    /// another command under the id has been refused, or will be.
    #[must_use]
    pub fn status_for(self, fingerprint: Option<Fingerprint>) -> CommandStatus {
        match (self.fingerprint, fingerprint) {
            (Some(recorded), Some(asked)) if recorded != asked => {
                CommandStatus::Ended { outcome: Outcome::Rejected(id_reused()), record: None }
            }
            _ => self.status,
        }
    }
}

/// What a command is told whose id belongs to another one.
fn id_reused() -> Rejection {
    Rejection::new(
        "id_reused",
        "this command id was used for another command (its name, version, key or body differs); nothing was applied",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(status: &str, answer: Option<&str>, fingerprint: u128) -> OutcomeRow {
        let fingerprint = Some(Uuid::from_u128(fingerprint));
        let answer = answer.map(ToOwned::to_owned);
        let stream = Some("S".to_owned());
        let id = Uuid::from_u128(1);
        let (status, settled) = (status.to_owned(), (status != "parked").then_some(9));
        let reason = (status == "parked").then(|| "paused".to_owned());
        (id, status, answer, fingerprint, 2, stream, Some(7), Some(8), settled, reason, None)
    }

    #[test]
    fn a_row_is_read_as_what_it_says() {
        let recorded = Recorded::from_row(row("applied", Some("{\"a\": 1}"), 5)).unwrap();
        let CommandStatus::Ended { outcome: Outcome::Applied { output }, record } = recorded.status
        else {
            panic!("it was applied");
        };
        assert_eq!(output.get(), "{\"a\": 1}");
        let stream = Some("S".to_owned());
        let (sequence, published_at_ms) = (Some(7), Some(8));
        let expected =
            LedgerRecord { attempts: 2, stream, sequence, published_at_ms, settled_at_ms: 9 };
        assert_eq!(record, Some(expected));
        let error = "{\"code\":\"55P03\",\"message\":\"m\",\"constraint\":\"c\"}";
        let recorded = Recorded::from_row(row("parked", Some(error), 5)).unwrap();
        let CommandStatus::Parked(parked) = recorded.status else { panic!("it is parked") };
        assert_eq!((parked.reason.as_str(), parked.attempts), ("paused", 2));
        assert_eq!(parked.error.unwrap().code, "55P03");
        assert!(Recorded::from_row(row("lost", None, 5)).is_err());
        assert!(Recorded::from_row(row("rejected", None, 5)).is_err());
    }

    #[test]
    fn another_command_under_the_id_is_told_so_and_a_cancellation_is_everybodys() {
        let fingerprint = |number| Some(Fingerprint::from_uuid(Uuid::from_u128(number)));
        let status = |recorded: u128, asked| {
            let recorded = Recorded::from_row(row("expired", None, recorded)).unwrap();
            match recorded.status_for(asked) {
                CommandStatus::Ended { outcome, .. } => outcome.as_str(),
                CommandStatus::Parked(_) => "parked",
            }
        };
        assert_eq!(status(5, None), "expired");
        assert_eq!(status(5, fingerprint(5)), "expired");
        assert_eq!(status(5, fingerprint(6)), "rejected");
        assert_eq!(status(0, fingerprint(6)), "expired", "zeros match everything");
    }
}
