//! Trying commands out: for the tests of those who write handlers and functions.

use std::time::{Duration, SystemTime};

use farwrite_schemas::{
    Command, CommandId, DatabaseName, Key, KeyError, NameError, Origin, Outcome, Rejection,
    Subjects, headers,
};
use sqlx::{Connection, PgConnection, PgTransaction};

use crate::{
    apply::{
        failure::Failure,
        handler::Handlers,
        trial::{TrialAttempt, attempt_for_trial},
    },
    config::Config,
    life::schema::check_migrated,
    primary::PrimaryError,
    stream::delivery::Delivery,
};

/// Runs commands as a worker would, in a transaction that is rolled back: what a handler or a
/// function of the database does, and the outcome that the worker would record.
///
/// The database needs the `farwrite` schema and the functions; no worker, no NATS.
///
/// ```no_run
/// # use farwrite_primary_worker::{Handlers, Trial, Tried};
/// # use farwrite_schemas::{Command, Outcome};
/// # async fn example(mut connection: sqlx::PgConnection, handlers: Handlers, order: impl Command)
/// #     -> Result<(), Box<dyn std::error::Error>> {
/// let mut trial = Trial::begin(&mut connection).await?;
/// let tried = trial.run(&handlers, &order).await?;
/// assert!(matches!(tried, Tried::Ended(Outcome::Applied { .. })), "{tried:?}");
/// let orders: i64 =
///     sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(trial.connection()).await?;
/// assert_eq!(orders, 1);
/// // When it is dropped, everything is as it was.
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Trial<'a> {
    tx: PgTransaction<'a>,
    sequence: u64,
}

/// What a command came to.
#[derive(Debug)]
#[non_exhaustive]
pub enum Tried {
    /// It would end so.
    Ended(Outcome),
    /// It would be parked, and tried again.
    Parked {
        /// Why: `retry`, `not_ready`, `unknown_command` or `later`.
        reason: &'static str,
        /// For how long.
        wait: Option<Duration>,
        /// What went wrong.
        error: Option<Rejection>,
    },
}

/// A command could not be tried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrialError {
    /// The database failed; it was no doing of the command's, or took its backend down.
    #[error("the database: {0}")]
    Database(String),
    /// The driver failed.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The database is not one to try commands in: most often, `migrate` was not run there.
    #[error(transparent)]
    Primary(#[from] PrimaryError),
    /// A handler or function ended the transaction. What it committed is not rolled back.
    #[error("the transaction was ended by the command: {0}")]
    TransactionEnded(String),
    /// The command's name does not have a name's form.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The command's key does not have a key's form.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The command cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl<'a> Trial<'a> {
    /// Begins: nothing that follows stays.
    ///
    /// # Errors
    /// When the database fails, or its `farwrite` schema is not one for this program.
    pub async fn begin(connection: &'a mut PgConnection) -> Result<Self, TrialError> {
        let mut tx = connection.begin().await?;
        check_migrated(&mut tx).await?;
        Ok(Self { tx, sequence: 0 })
    }

    /// The connection, inside the trial: to prepare rows, and to look at effects.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Runs a command with a new id. One that is refused leaves nothing; the effects of one that is
    /// applied are there for the next.
    ///
    /// # Errors
    /// When the database fails, or the command is none.
    pub async fn run<C: Command>(
        &mut self,
        handlers: &Handlers,
        command: &C,
    ) -> Result<Tried, TrialError> {
        let key = command.key().map(Key::new).transpose()?;
        let body = serde_json::to_vec(command)?;
        self.run_raw(handlers, C::NAME, C::VERSION, key.as_ref().map(Key::as_str), body).await
    }

    /// Runs a command without a Rust type, with a new id: its name, version, key and body (JSON).
    ///
    /// # Errors
    /// When the database fails, or the name is none.
    pub async fn run_raw(
        &mut self,
        handlers: &Handlers,
        name: &str,
        version: u32,
        key: Option<&str>,
        body: impl Into<Vec<u8>>,
    ) -> Result<Tried, TrialError> {
        self.sequence += 1;
        let database = DatabaseName::new("trial")?;
        let subject =
            Subjects::new(database.clone()).command(&Origin::new("trial")?, &name.parse()?);
        let mut header_lines = vec![
            (headers::COMMAND_ID.to_owned(), CommandId::now().to_string()),
            (headers::VERSION.to_owned(), version.to_string()),
        ];
        header_lines.extend(key.map(|key| (headers::KEY.to_owned(), key.to_owned())));
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let at_ns = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        let delivery = Delivery::kept(subject, header_lines, body.into(), self.sequence, at_ns);
        let config = Config::new(database, "", "");
        let mut savepoint = self.tx.begin().await?;
        let attempted = attempt_for_trial(&mut savepoint, delivery, &config, handlers).await;
        let is_applied = matches!(attempted, Ok(TrialAttempt::Ended(Outcome::Applied { .. })));
        if is_applied {
            savepoint.commit().await?
        } else {
            savepoint.rollback().await?
        }
        Ok(match attempted? {
            TrialAttempt::Ended(outcome) => Tried::Ended(outcome),
            TrialAttempt::Parked(park) => {
                let reason = park.reason.as_str();
                Tried::Parked { reason, wait: park.wait, error: park.error }
            }
        })
    }
}

impl From<Failure> for TrialError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::TransactionEnded(reason) => Self::TransactionEnded(reason),
            Failure::Unavailable { reason, .. } => Self::Database(reason.message),
            Failure::Fenced | Failure::Full => {
                Self::Database("an answer that only a lane gets".to_owned())
            }
            Failure::Command(failed) => Self::Database(failed.rejection.to_string()),
        }
    }
}
