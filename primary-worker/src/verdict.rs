//! What is done when a command, or the batch around it, fails.
//!
//! One pure function maps what happened to what is done, over every kind, with no wildcard. It is
//! asked about an attempt whose command ran alone: a batch that fails is first run again in
//! subtransactions, then one by one, and says nothing about the commands in it. The database's
//! `farwrite.is_own_fault` repeats the first row as far as the code alone tells it; a test compares the two.
//! `docs/failures.md` is this table for users.
//!
//! Some codes say nothing of whose fault it is: a row that a policy refuses has the code of a missing privilege.
//! There PostgreSQL's word for where it raised the error decides, a routine or a file of its source, and never
//! the message, which is in the server's language.
//!
//! | what happened | verdict |
//! |---|---|
//! | class 20, 21, 22 (data), 23 (constraint), 27, 44; P0001 (raised), P0002, P0003; an SQLSTATE of the app's own; a handler's refusal; a body not of its form | [`Verdict::Reject`] |
//! | 42501 of a row-level policy; 42601 of a type's text (`tsquery`, `jsonpath`, `ltree`); 54000, 54001 (a row, an index row, a `tsvector` too large; nested too deeply) | [`Verdict::Reject`] |
//! | class 40 (serialization, deadlock), the rest of 54, 55 (locks), 57014 (timeout), 72, HV (foreign data); a violation of Farwrite's own tables; a handler that panicked | [`Verdict::Retry`] |
//! | the ledger holds the id already, recorded by another batch meanwhile | [`Verdict::Again`] |
//! | class 08, 53, 57, 58, 25006 (read-only), 54000 of transaction ids that are used up, as an ERROR | [`Verdict::Wait`] |
//! | a lost connection, also by FATAL and PANIC of any class | [`Verdict::Blame`] |
//! | FATAL 57P01: an administrator, a shutdown or the command itself ended the session | [`Verdict::Ended`] |
//! | 53200 (out of memory), as an ERROR | [`Verdict::Overdraw`] |
//! | FW003 (no function; a command without handler or function is parked before it is tried); the rest of class 42, 3D, 3F (no such table, schema, privilege); 23514 of a partition that is missing; 2200H (a sequence is used up) | [`Verdict::Park`] |
//! | 0A000, 42804, 42P18, class XX (a stale plan, or what it says) | [`Verdict::Refresh`] |
//! | a handler or function asks to be tried later | [`Verdict::Later`] |
//! | FW001 | [`Verdict::Fenced`] |
//! | FW002: a handler ended the transaction | [`Verdict::Broken`] |
//! | classes 00 to 03, 09, 0B to 0Z, 10, 24, the rest of 25, 26, 28, 2B, 2D, 2F, 34, 38, 39, 3B, F0, the rest of P0; a class that nobody knows; the driver's own errors | [`Verdict::DeadLetter`] |

use std::{borrow::Cow, time::Duration};

use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// Whether a failure with this SQLSTATE is the command's own fault, wherever it was raised: it is rejected,
/// and its caller told. `docs/failures.md` has the whole table.
#[must_use]
pub fn is_own_fault(sqlstate: &str) -> bool {
    let state = Sqlstate::of(sqlstate);
    state.verdict() == Verdict::Reject && state != Sqlstate::TooLarge
}

/// Files of PostgreSQL's source, and of its extensions, that read a type's text, and call what they do not
/// understand a syntax error.
const TEXT_FILES: [&str; 15] = [
    "tsquery.c",
    "tsvector.c",
    "tsvector_parser.c",
    "to_tsany.c",
    "jsonpath.c",
    "jsonpath_scan.l",
    "jsonpath_gram.y",
    "ltree_io.c",
    "ltxtquery_io.c",
    "hstore_io.c",
    "_int_bool.c",
    "cubescan.l",
    "cubeparse.y",
    "segscan.l",
    "segparse.y",
];
/// Files that give out transaction ids.
const TRANSACTION_FILES: [&str; 3] = ["varsup.c", "multixact.c", "xact.c"];

/// What is done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The command's own fault: recorded as rejected, answered.
    Reject,
    /// Chance: tried again, then parked with growing pauses; dead-lettered when its attempts are
    /// used up.
    Retry,
    /// Tried again at once, without an attempt spent: what another batch recorded is known now.
    Again,
    /// The primary is unavailable, if it is: the lane looks whether its connection lives on and takes
    /// writes. If it does, the failure is its command's own, and this is [`Verdict::Retry`]. Else
    /// the worker waits and begins again, and no command is blamed.
    Wait,
    /// The primary is unavailable, unless one command ran alone and this happens to it three times
    /// over. That command is dead-lettered, or it would take the primary down for ever.
    Blame,
    /// The same after six times: PostgreSQL does not tell who ended the session.
    Ended,
    /// The primary's memory is used up: like [`Verdict::Wait`], but where the connection lives on, the
    /// third attempt alone is the last.
    Overdraw,
    /// Not known here yet: parked until a deploy or a migration brings what is missing;
    /// dead-lettered after a longer time.
    Park,
    /// Cured by a new session, which has no plans of before; what is not is parked, or tried again as by
    /// chance where it is an internal error.
    Refresh,
    /// Parked for so long; no attempt is spent.
    Later(Duration),
    /// Another worker has taken over: this one stops.
    Fenced,
    /// A handler broke its promise: the worker stops.
    Broken,
    /// Nobody can apply it as things are.
    DeadLetter,
}

/// How much a command is to blame for the end of its connection, if it ran alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Not at all.
    None,
    /// Perhaps.
    Half,
    /// As far as is known.
    Full,
}

/// What happened, as far as the verdict needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    /// PostgreSQL said so.
    Sqlstate(Sqlstate),
    /// One of Farwrite's own functions said so.
    Farwrite(OwnCode),
    /// A constraint of Farwrite's own tables was violated: never a command's fault.
    OwnTables,
    /// The ledger's key refused an outcome: another batch recorded this id first.
    LedgerKey,
    /// The connection, or what carries it, failed, or PostgreSQL ended the session.
    ConnectionLost,
    /// PostgreSQL ended the session because somebody asked for it.
    SessionEnded,
    /// The driver could not encode or decode: a fault of the program, not of the primary.
    Driver,
    /// A handler refused, or the body is not of its form.
    Refused,
    /// A handler wants to be asked again after so long.
    AskedLater(Duration),
    /// A handler panicked.
    Panicked,
}

/// Whether this is a violation of the primary key of a table of the ledger.
fn is_ledger_key(code: &str, error: &PgDatabaseError) -> bool {
    code == "23505" && error.table().is_some_and(|table| table.starts_with("ledger"))
}

/// Farwrite's own SQLSTATEs, where Farwrite raised them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnCode {
    /// FW001
    Fenced,
    /// FW002
    TransactionEnded,
    /// FW003
    NoFunction,
    /// FW010
    TryLater(Duration),
}

/// PostgreSQL's classes of errors (its documentation, appendix A), and the codes in them that are
/// told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sqlstate {
    /// 00, 01, 02, 03: no error of a statement, raised as one.
    NoError,
    /// 08
    Connection,
    /// 09, 0B, 0F, 0L, 0P, 0Z, 10, 24, 26, 2B, 2F, 34, 38, 39, 3B: a routine is at fault.
    Routine,
    /// 0A
    NotSupported,
    /// 20, 21, 22, 27: the data does not fit. 42601 where it is a type's text that is wrong.
    Data,
    /// 23, 44. 42501 where a row-level policy refuses a row.
    Constraint,
    /// 23514 where no partition takes a row, 2200H where a sequence is used up: a deploy is late.
    Upkeep,
    /// 25006
    ReadOnly,
    /// The rest of 25
    TransactionState,
    /// 28
    Authorization,
    /// 2D: a COMMIT or ROLLBACK where none may be.
    TransactionTermination,
    /// 3D, 3F: no such database or schema.
    NoSchema,
    /// 40
    Rollback,
    /// 42: no such table, column, function or privilege, or a syntax error.
    Definition,
    /// 42804, 42P18: types do not match, as after a change of a table that a plan still knows.
    Types,
    /// 53200
    OutOfMemory,
    /// The rest of 53: disk, connections.
    Resources,
    /// 54000, 54001: a value, a row or an index row is too large, or nested too deeply.
    TooLarge,
    /// 54000 where transaction ids are used up: nothing can be written.
    Wraparound,
    /// The rest of 54
    ProgramLimit,
    /// 55
    ObjectState,
    /// 57014: a timeout, or cancelled by an operator.
    Canceled,
    /// The rest of 57: shutting down, starting up.
    Shutdown,
    /// 58
    System,
    /// 72
    Snapshot,
    /// F0
    ConfigFile,
    /// HV
    ForeignData,
    /// P0001, P0002, P0003: raised by a function, or its SELECT INTO STRICT found the wrong number.
    Raised,
    /// The rest of P0
    Plpgsql,
    /// XX
    Internal,
    /// A class from 5 to 9 or I to Z that is not PostgreSQL's: an app chose it.
    AppsOwn,
    /// Any other.
    Unlisted,
}

impl Sqlstate {
    /// Reads a code of five characters.
    pub(crate) fn of(code: &str) -> Self {
        match (code.get(..2).unwrap_or(""), code) {
            ("00" | "01" | "02" | "03", _) => Self::NoError,
            ("08", _) => Self::Connection,
            (
                "09" | "0B" | "0F" | "0L" | "0P" | "0Z" | "10" | "24" | "26" | "2B" | "2F" | "34"
                | "38" | "39" | "3B",
                _,
            ) => Self::Routine,
            ("0A", _) => Self::NotSupported,
            ("22", "2200H") => Self::Upkeep,
            ("20" | "21" | "22" | "27", _) => Self::Data,
            ("23" | "44", _) => Self::Constraint,
            ("25", "25006") => Self::ReadOnly,
            ("25", _) => Self::TransactionState,
            ("28", _) => Self::Authorization,
            ("2D", _) => Self::TransactionTermination,
            ("3D" | "3F", _) => Self::NoSchema,
            ("40", _) => Self::Rollback,
            ("42", "42804" | "42P18") => Self::Types,
            ("42", _) => Self::Definition,
            ("53", "53200") => Self::OutOfMemory,
            ("53", _) => Self::Resources,
            ("54", "54000" | "54001") => Self::TooLarge,
            ("54", _) => Self::ProgramLimit,
            ("55", _) => Self::ObjectState,
            ("57", "57014") => Self::Canceled,
            ("57", _) => Self::Shutdown,
            ("58", _) => Self::System,
            ("72", _) => Self::Snapshot,
            ("F0", _) => Self::ConfigFile,
            ("HV", _) => Self::ForeignData,
            ("P0", "P0001" | "P0002" | "P0003") => Self::Raised,
            ("P0", _) => Self::Plpgsql,
            ("XX", _) => Self::Internal,
            (class, _) if class.starts_with(|c: char| matches!(c, '5'..='9' | 'I'..='Z')) => {
                Self::AppsOwn
            }
            _ => Self::Unlisted,
        }
    }

    /// The same with PostgreSQL's word for where it raised the error: a routine and a file of its source.
    fn raised_in(code: &str, routine: &str, file: &str) -> Self {
        match (code, routine) {
            ("42501", "ExecWithCheckOptions") => Self::Constraint,
            ("23514", "ExecFindPartition") => Self::Upkeep,
            ("42601", _) if TEXT_FILES.contains(&file) => Self::Data,
            ("54000", _) if TRANSACTION_FILES.contains(&file) => Self::Wraparound,
            _ => Self::of(code),
        }
    }

    const fn verdict(self) -> Verdict {
        match self {
            Self::Data | Self::Constraint | Self::Raised | Self::AppsOwn | Self::TooLarge => {
                Verdict::Reject
            }
            Self::Rollback
            | Self::ProgramLimit
            | Self::ObjectState
            | Self::Canceled
            | Self::Snapshot
            | Self::ForeignData => Verdict::Retry,
            Self::Connection
            | Self::ReadOnly
            | Self::Resources
            | Self::Shutdown
            | Self::System
            | Self::Wraparound => Verdict::Wait,
            Self::OutOfMemory => Verdict::Overdraw,
            Self::NoSchema | Self::Definition | Self::Upkeep => Verdict::Park,
            Self::NotSupported | Self::Types | Self::Internal => Verdict::Refresh,
            Self::NoError
            | Self::Routine
            | Self::TransactionState
            | Self::Authorization
            | Self::TransactionTermination
            | Self::ConfigFile
            | Self::Plpgsql
            | Self::Unlisted => Verdict::DeadLetter,
        }
    }
}

impl Happened {
    /// Reads a driver's error.
    pub(crate) fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or(Cow::Borrowed("XX000"));
                let postgres = error.try_downcast_ref::<PgDatabaseError>();
                let is_own = |error: &&PgDatabaseError| {
                    error.schema() == Some(farwrite_schemas::sql::SCHEMA)
                };
                match postgres.filter(is_own) {
                    Some(own) if is_ledger_key(&code, own) => Self::LedgerKey,
                    Some(own) => Self::own(&code, own.detail()),
                    None => {
                        let routine = postgres.and_then(PgDatabaseError::routine);
                        let file = postgres.and_then(PgDatabaseError::file);
                        let (routine, file) = (routine.unwrap_or(""), file.unwrap_or(""));
                        Self::Sqlstate(Sqlstate::raised_in(&code, routine, file))
                    }
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::ConnectionLost,
            _ => Self::Driver,
        }
    }

    /// Reads the error of a session that was open: what is fatal has ended it, whatever its class.
    pub(crate) fn in_session(error: &sqlx::Error) -> Self {
        let postgres = match error {
            sqlx::Error::Database(error) => error.try_downcast_ref::<PgDatabaseError>(),
            _ => None,
        };
        match postgres.map(|error| (error.severity(), error.code())) {
            Some((PgSeverity::Fatal, "57P01")) => Self::SessionEnded,
            Some((PgSeverity::Fatal | PgSeverity::Panic, _)) => Self::ConnectionLost,
            _ => Self::of(error),
        }
    }

    /// Only what names the schema `farwrite` is Farwrite's own: an app's function may raise any
    /// code, and must not stop the worker by it.
    fn own(code: &str, detail: Option<&str>) -> Self {
        Self::Farwrite(match code {
            "FW001" => OwnCode::Fenced,
            "FW002" => OwnCode::TransactionEnded,
            "FW003" => OwnCode::NoFunction,
            "FW010" => {
                let ms = detail.and_then(|detail| detail.parse().ok()).unwrap_or(1_000);
                OwnCode::TryLater(Duration::from_millis(ms))
            }
            _ => return Self::OwnTables,
        })
    }

    /// What is done about it.
    pub(crate) const fn verdict(self) -> Verdict {
        match self {
            Self::Sqlstate(state) => state.verdict(),
            Self::Farwrite(OwnCode::Fenced) => Verdict::Fenced,
            Self::Farwrite(OwnCode::TransactionEnded) => Verdict::Broken,
            Self::Farwrite(OwnCode::NoFunction) => Verdict::Park,
            Self::Driver => Verdict::DeadLetter,
            Self::Farwrite(OwnCode::TryLater(wait)) | Self::AskedLater(wait) => {
                Verdict::Later(wait)
            }
            Self::LedgerKey => Verdict::Again,
            Self::OwnTables | Self::Panicked => Verdict::Retry,
            Self::ConnectionLost => Verdict::Blame,
            Self::SessionEnded => Verdict::Ended,
            Self::Refused => Verdict::Reject,
        }
    }
}

impl Verdict {
    /// Whether waiting and beginning again is right for who is not a command: a connection, a
    /// takeover.
    pub(crate) const fn may_pass(self) -> bool {
        match self {
            Self::Again
            | Self::Wait
            | Self::Blame
            | Self::Ended
            | Self::Overdraw
            | Self::Retry
            | Self::Refresh
            | Self::Later(_) => true,
            Self::Reject | Self::Park | Self::Fenced | Self::Broken | Self::DeadLetter => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of the table that has SQLSTATEs.
    const TABLE: &[(Verdict, &[&str])] = &[
        (
            Verdict::Reject,
            &[
                "20000", "21000", "22003", "22P02", "23505", "23514", "27000", "44000", "54000",
                "54001", "P0001", "P0002", "P0003", "70001", "91234", "KO001", "ZZ999",
            ],
        ),
        (
            Verdict::Retry,
            &["40001", "40P01", "54011", "54023", "55P03", "55006", "57014", "72000", "HV00N"],
        ),
        (Verdict::Wait, &["08006", "25006", "53100", "53300", "57P01", "57P03", "57000", "58030"]),
        (Verdict::Overdraw, &["53200"]),
        (Verdict::Park, &["42883", "42P01", "42703", "42501", "42601", "3D000", "3F000", "2200H"]),
        (Verdict::Refresh, &["0A000", "42804", "42P18", "XX000", "XX001"]),
        (
            Verdict::DeadLetter,
            &[
                "00000", "01000", "02000", "03000", "09000", "0B000", "0F000", "0L000", "0P000",
                "0Z000", "10608", "24000", "25001", "25P02", "26000", "28000", "28P01", "2B000",
                "2D000", "2F000", "34000", "38000", "39000", "3B000", "F0000", "P0000", "P0004",
                "AB123", "4Z000", "",
            ],
        ),
    ];

    #[test]
    fn every_row_of_the_table_holds() {
        for (verdict, codes) in TABLE {
            for code in *codes {
                let happened = Happened::Sqlstate(Sqlstate::of(code));
                assert_eq!(happened.verdict(), *verdict, "{code}");
            }
        }
        let second = Duration::from_secs(1);
        for (happened, verdict) in [
            (Happened::own("FW001", None), Verdict::Fenced),
            (Happened::own("FW002", None), Verdict::Broken),
            (Happened::own("FW003", None), Verdict::Park),
            (Happened::own("FW010", Some("1000")), Verdict::Later(second)),
            (Happened::own("23505", None), Verdict::Retry),
            (Happened::LedgerKey, Verdict::Again),
            (Happened::ConnectionLost, Verdict::Blame),
            (Happened::SessionEnded, Verdict::Ended),
            (Happened::Driver, Verdict::DeadLetter),
            (Happened::Refused, Verdict::Reject),
            (Happened::AskedLater(second), Verdict::Later(second)),
            (Happened::Panicked, Verdict::Retry),
        ] {
            assert_eq!(happened.verdict(), verdict, "{happened:?}");
        }
    }

    #[test]
    fn where_it_was_raised_tells_whose_fault_a_code_is() {
        for (code, routine, file, verdict) in [
            ("42501", "ExecWithCheckOptions", "execMain.c", Verdict::Reject),
            ("42501", "aclcheck_error", "aclchk.c", Verdict::Park),
            ("42601", "pushOperator", "tsquery.c", Verdict::Reject),
            ("42601", "scanner_yyerror", "scan.l", Verdict::Park),
            ("42601", "", "", Verdict::Park),
            ("23514", "ExecFindPartition", "execPartition.c", Verdict::Park),
            ("23514", "ExecConstraints", "execMain.c", Verdict::Reject),
            ("54000", "index_form_tuple_context", "indextuple.c", Verdict::Reject),
            ("54000", "GetNewTransactionId", "varsup.c", Verdict::Wait),
        ] {
            let state = Sqlstate::raised_in(code, routine, file);
            assert_eq!(state.verdict(), verdict, "{code} in {routine}");
        }
    }

    #[test]
    fn an_apps_own_use_of_farwrites_codes_is_a_refusal_in_no_known_class() {
        // Without the schema's name FW001 is a code like any other.
        assert_eq!(Happened::Sqlstate(Sqlstate::of("FW001")).verdict(), Verdict::DeadLetter);
    }
}
