//! What is done when a command, or the batch around it, fails.
//!
//! One pure function maps what happened to what is done. It is asked only about an attempt whose
//! command ran alone: a batch that fails is first run again in subtransactions, then one by one,
//! and says nothing about the commands in it.
//!
//! | what happened | verdict |
//! |---|---|
//! | class 22 (data), 23 and 44 (constraint), P0001 (raised), an SQLSTATE of the app's own, a handler's rejection | [`Verdict::Reject`] |
//! | class 40 (serialization, deadlock), 54, 55, 57014 (timeout), XX, a violation of Farwrite's own tables | [`Verdict::Retry`] |
//! | class 08, 53, 57P, 58, 25006 (read-only), a lost connection | [`Verdict::Wait`] |
//! | FW001 | [`Verdict::Fenced`] |
//! | everything else (42: no such table or function, FW003, 0A, 25, 28, …) | [`Verdict::DeadLetter`] |
//!
//! Parking with backoff for what may pass (`Retry`, and 42 during a rolling deploy) is not here
//! yet: a `Retry` is tried again at once a few times and then dead-lettered.

use std::borrow::Cow;

/// What is done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The command's own fault: recorded as rejected, answered.
    Reject,
    /// Chance: tried again; dead-lettered when its attempts are used up.
    Retry,
    /// The world's fault: the worker waits and begins again; no command is blamed.
    Wait,
    /// Another worker has taken over: this one stops.
    Fenced,
    /// Nobody can apply it as things are.
    DeadLetter,
}

/// What happened, as far as the verdict needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault<'a> {
    /// PostgreSQL said so.
    Sqlstate {
        /// Five characters.
        code: Cow<'a, str>,
        /// Whether it names a table of the `farwrite` schema.
        farwrites_own: bool,
    },
    /// The connection, or what carries it, failed.
    Connection,
    /// The driver could not encode or decode: a fault of the program, not of the world.
    Driver,
}

impl<'a> Fault<'a> {
    /// Reads a driver's error.
    pub(crate) fn of(error: &'a sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => Self::Sqlstate {
                code: error.code().unwrap_or(Cow::Borrowed("XX000")),
                farwrites_own: is_farwrites_own(error.as_ref()),
            },
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Connection,
            _ => Self::Driver,
        }
    }

    /// What is done about it.
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Connection => Verdict::Wait,
            Self::Driver => Verdict::DeadLetter,
            Self::Sqlstate { farwrites_own: true, .. } => Verdict::Retry,
            Self::Sqlstate { code, .. } => verdict_of(code),
        }
    }
}

fn is_farwrites_own(error: &dyn sqlx::error::DatabaseError) -> bool {
    error
        .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
        .is_some_and(|error| error.schema() == Some(farwrite_schemas::migrations::SCHEMA))
}

/// The table at the head of this file. Classes: PostgreSQL's documentation, appendix A.
fn verdict_of(code: &str) -> Verdict {
    match (code.get(..2).unwrap_or(""), code) {
        (_, "FW001") => Verdict::Fenced,
        (_, "P0001") | ("22" | "23" | "44", _) => Verdict::Reject,
        (_, "57014") | ("40" | "54" | "55" | "XX", _) => Verdict::Retry,
        (_, "25006") | ("08" | "53" | "57" | "58", _) => Verdict::Wait,
        ("FW" | "F0" | "HV" | "P0", _) => Verdict::DeadLetter,
        // PostgreSQL has no other class that begins with a letter or with 5 to 9: what does was
        // chosen by an app, to refuse a command in its own words.
        (class, _) if class.starts_with(|c: char| matches!(c, '5'..='9' | 'A'..='Z')) => {
            Verdict::Reject
        }
        _ => Verdict::DeadLetter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_holds() {
        let table = [
            (
                Verdict::Reject,
                &["22003", "22P02", "23505", "23514", "44000", "P0001", "APP01", "70001"][..],
            ),
            (Verdict::Retry, &["40001", "40P01", "54000", "55P03", "57014", "XX000"]),
            (Verdict::Wait, &["08006", "25006", "53100", "53200", "57P01", "57P03", "58030"]),
            (Verdict::Fenced, &["FW001"]),
            (
                Verdict::DeadLetter,
                &[
                    "FW002", "FW003", "42883", "42P01", "42501", "0A000", "25P02", "28000",
                    "P0004", "F0000", "HV000", "21000", "",
                ],
            ),
        ];
        for (verdict, codes) in table {
            for code in codes {
                assert_eq!(verdict_of(code), verdict, "{code}");
            }
        }
        let own = Fault::Sqlstate { code: "23505".into(), farwrites_own: true };
        assert_eq!(own.verdict(), Verdict::Retry);
        assert_eq!(Fault::Connection.verdict(), Verdict::Wait);
        assert_eq!(Fault::Driver.verdict(), Verdict::DeadLetter);
    }
}
