//! One attempt at a batch: a transaction, from the fence to the commit.
//!
//! Two ways. When every command is a function of the database, the whole batch is one statement
//! (`farwrite.apply`), which is its own transaction. Otherwise the worker opens the transaction,
//! runs the commands one by one, and closes it. Both begin with the fence and end with the ledger,
//! and only a committed attempt gives a [`Committed`]: nothing else can be settled, so that
//! answering before the commit does not compile.

use std::{borrow::Cow, time::Duration};

use farwrite_schemas::{Envelope, Outcome, Rejection};
use sqlx::{Connection, PgConnection, types::Uuid};

use crate::{
    failpoint::Failpoint,
    handler::HandlerError,
    stream::{Anchor, Place},
    takeover::Takeover,
    verdict::{Fault, Verdict},
};

use super::batch::{Item, Work};

/// Commands that share a subtransaction when a batch that failed is run again. Measured: with one
/// in ten rejected, groups of five keep the throughput of a clean run.
const GROUP: i32 = 5;
/// Commands in one transaction when each has a savepoint of its own: more than 64 subtransactions
/// slow down every snapshot, on standbys too.
pub(super) const GUARDED_MAX: usize = 50;
/// How much longer than the server's own limit an attempt may take before its connection is given
/// up: then the server, or the way to it, has gone.
const GRACE: Duration = Duration::from_secs(10);

/// How carefully an attempt is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Care {
    /// Without subtransactions: the first command that fails fails the batch.
    Plain,
    /// With subtransactions: a command's own fault becomes its rejection.
    Guarded,
}

/// Where a lane stands, and under which right it moves on.
pub(super) struct Fence<'a> {
    pub(super) takeover: &'a Takeover,
    pub(super) lane: u32,
    pub(super) from: u64,
    pub(super) to: Place,
    /// Kept where a batch has no message of its own to anchor on.
    pub(super) anchor: Option<&'a Anchor>,
}

/// How one command of a committed batch ended.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) outcome: Outcome,
    /// The ledger knew the id: it was not applied now.
    pub(super) repeated: bool,
}

/// A batch, or the first part of one, that is committed. Only this can be answered for.
pub(super) struct Committed {
    /// The outcomes of the first commands, in order.
    pub(super) settled: Vec<Settled>,
    /// Where the lane stands now.
    pub(super) position: u64,
    _only_after_commit: (),
}

/// Why an attempt did not commit. Nothing of it stays.
#[derive(Debug)]
pub(super) enum Failure {
    /// Somebody else has taken over.
    Fenced,
    /// The primary, or the way to it.
    World(String),
    /// A handler ended the batch's transaction: what it committed is not in the ledger.
    TransactionEnded(String),
    /// A command of it; which one is known only when it was alone.
    Command { verdict: Verdict, rejection: Rejection },
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let fault = Fault::of(&error);
        if fault == (Fault::Sqlstate { code: Cow::Borrowed("FW002"), farwrites_own: false }) {
            return Self::TransactionEnded(error.to_string());
        }
        match fault.verdict() {
            Verdict::Fenced => Self::Fenced,
            Verdict::Wait => Self::World(error.to_string()),
            verdict @ (Verdict::Reject | Verdict::Retry | Verdict::DeadLetter) => {
                Self::Command { verdict, rejection: rejection_of(&error) }
            }
        }
    }
}

impl From<HandlerError> for Failure {
    fn from(error: HandlerError) -> Self {
        match error {
            HandlerError::Rejected(rejection) => {
                Self::Command { verdict: Verdict::Reject, rejection }
            }
            HandlerError::Database(error) => error.into(),
        }
    }
}

/// What is recorded of an error: its code, its message and its constraint; never its detail, which
/// may hold another row's data.
fn rejection_of(error: &sqlx::Error) -> Rejection {
    match error {
        sqlx::Error::Database(error) => Rejection {
            code: error.code().map_or_else(|| "XX000".to_owned(), Cow::into_owned),
            message: error.message().to_owned(),
            constraint: error.constraint().map(ToOwned::to_owned),
        },
        other => Rejection::new("driver", other.to_string()),
    }
}

/// Attempts a batch once.
pub(super) async fn attempt(
    connection: &mut PgConnection,
    items: &[Item],
    fence: &Fence<'_>,
    care: Care,
    statement_timeout: Duration,
) -> Result<Committed, Failure> {
    let functions: Option<Vec<i32>> = items
        .iter()
        .map(|item| match &item.work {
            Work::Function(function) => Some(function.number),
            Work::Handler(_) | Work::Reject(_) | Work::DeadLetter { .. } => None,
        })
        .collect();
    let attempt = async {
        match functions {
            Some(functions) => one_statement(connection, items, &functions, fence, care).await,
            None => stepwise(connection, items, fence, care).await,
        }
    };
    // The server ends a statement that takes too long. When even that does not arrive, the
    // connection is given up with whatever it was doing: the fence decides what came of it.
    let statements = if items.len() > 1 { 10 } else { 2 };
    let limit = statement_timeout * statements + GRACE;
    tokio::time::timeout(limit, attempt)
        .await
        .unwrap_or_else(|_| Err(Failure::World(format!("no answer for {} s", limit.as_secs()))))
}

/// A batch of function commands, as one statement.
async fn one_statement(
    connection: &mut PgConnection,
    items: &[Item],
    functions: &[i32],
    fence: &Fence<'_>,
    care: Care,
) -> Result<Committed, Failure> {
    let columns = Columns::of(items);
    let statement = sqlx::query_as(
        "SELECT done, outcomes, answers, repeated FROM farwrite.apply(
             $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
    )
    .bind(fence.takeover.stream_id)
    .bind(fence.lane.cast_signed())
    .bind(fence.takeover.epoch.0)
    .bind(fence.from.cast_signed())
    .bind(fence.to.sequence.cast_signed())
    .bind(fence.to.at_ns)
    .bind(columns.at_ns)
    .bind(if care == Care::Plain { 0 } else { GROUP })
    .bind(columns.ids)
    .bind(columns.fingerprints)
    .bind(columns.sequences)
    .bind(functions)
    .bind(columns.names)
    .bind(columns.versions)
    .bind(columns.keys)
    .bind(columns.origins)
    .bind(columns.bodies);
    type Row = (i32, Vec<Option<String>>, Vec<Option<String>>, Vec<bool>);
    let (done, outcomes, answers, repeated): Row = if Failpoint::BeforeCommit.is_armed() {
        // The same statement in a transaction that is held open, so that a test can die within.
        let mut tx = connection.begin().await?;
        let row = statement.fetch_one(&mut *tx).await?;
        Failpoint::BeforeCommit.pass();
        tx.commit().await?;
        row
    } else {
        // Reads to the end of the answer, the commit included: sqlx does so to see what a deferred
        // constraint says.
        statement.fetch_one(connection).await?
    };
    let done = usize::try_from(done).unwrap_or(0).min(items.len());
    let settled = (outcomes.into_iter().zip(answers).zip(repeated).take(done))
        .map(|((outcome, answer), repeated)| {
            let outcome = Outcome::from_ledger(outcome.as_deref().unwrap_or(""), answer);
            outcome
                .map(|outcome| Settled { outcome, repeated })
                .map_err(|error| Failure::World(error.to_string()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let to =
        if done == items.len() { fence.to } else { end_of(&items[..done]).unwrap_or(fence.to) };
    Ok(Committed { settled, position: to.sequence, _only_after_commit: () })
}

/// Where the last of these commands is.
fn end_of(items: &[Item]) -> Option<Place> {
    items.last().map(|item| item.delivery.place())
}

/// The columns of a batch, as parallel arrays.
#[derive(Default)]
struct Columns<'a> {
    at_ns: Vec<i64>,
    ids: Vec<Uuid>,
    fingerprints: Vec<Uuid>,
    sequences: Vec<i64>,
    names: Vec<&'a str>,
    versions: Vec<i32>,
    keys: Vec<Option<&'a str>>,
    origins: Vec<&'a str>,
    bodies: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    /// Messages that are no commands have no place in columns, and are not in such batches.
    fn of(items: &'a [Item]) -> Self {
        let mut columns = Self::default();
        for Item { delivery, .. } in items {
            let Ok(envelope) = &delivery.envelope else { continue };
            columns.at_ns.push(delivery.at_ns);
            columns.ids.push(envelope.id.uuid());
            columns.fingerprints.push(envelope.fingerprint.as_uuid());
            columns.sequences.push(delivery.sequence.cast_signed());
            columns.names.push(envelope.name.as_str());
            columns.versions.push(envelope.version.cast_signed());
            columns.keys.push(envelope.key.as_ref().map(|key| key.as_str()));
            columns.origins.push(envelope.origin.as_str());
            columns.bodies.push(text(delivery.body()));
        }
        columns
    }
}

/// A body that was checked to be UTF-8 when it was decoded.
fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).unwrap_or("")
}

/// A batch whose commands the worker runs one by one.
async fn stepwise(
    connection: &mut PgConnection,
    items: &[Item],
    fence: &Fence<'_>,
    care: Care,
) -> Result<Committed, Failure> {
    // With a savepoint each, no more commands than subtransactions that do no harm.
    let (items, to) = match items.get(..GUARDED_MAX) {
        Some(part) if care == Care::Guarded && part.len() < items.len() => (part, end_of(part)),
        _ => (items, Some(fence.to)),
    };
    let to = to.unwrap_or(fence.to);
    let mut tx = connection.begin().await?;
    let mut ledger = Ledger::of(items);
    let (xid, known) = open(&mut tx, items, &ledger, fence, to).await?;
    let mut settled = Vec::with_capacity(items.len());
    let mut places = known.into_iter();
    for (index, item) in items.iter().enumerate() {
        let known = if item.ledger_entry().is_some() { places.next().flatten() } else { None };
        if let Some(outcome) = known {
            settled.push(Settled { outcome, repeated: true });
            continue;
        }
        let outcome = match care {
            Care::Plain => step(&mut tx, item, fence).await?,
            Care::Guarded => guarded_step(&mut tx, item, fence).await?,
        };
        ledger.record(index, &outcome);
        settled.push(Settled { outcome, repeated: false });
    }
    close(&mut tx, &xid, &ledger, fence).await?;
    Failpoint::BeforeCommit.pass();
    tx.commit().await?;
    Ok(Committed { settled, position: to.sequence, _only_after_commit: () })
}

/// What of a batch goes through the ledger, as parallel arrays.
struct Ledger {
    /// For each of them, which item it is.
    items: Vec<usize>,
    ids: Vec<Uuid>,
    fingerprints: Vec<Uuid>,
    sequences: Vec<i64>,
    outcomes: Vec<Option<&'static str>>,
    answers: Vec<Option<String>>,
}

impl Ledger {
    fn of(items: &[Item]) -> Self {
        let entries = || {
            items
                .iter()
                .enumerate()
                .filter_map(|(index, item)| Some((index, item, item.ledger_entry()?)))
        };
        Self {
            items: entries().map(|(index, ..)| index).collect(),
            ids: entries().map(|(_, _, (id, _))| id.uuid()).collect(),
            fingerprints: entries().map(|(_, _, (_, fingerprint))| fingerprint.as_uuid()).collect(),
            sequences: entries().map(|(_, item, _)| item.delivery.sequence.cast_signed()).collect(),
            outcomes: entries().map(|_| None).collect(),
            answers: entries().map(|_| None).collect(),
        }
    }

    fn record(&mut self, item: usize, outcome: &Outcome) {
        if let Ok(place) = self.items.binary_search(&item) {
            self.outcomes[place] = Some(outcome.word());
            self.answers[place] = outcome.ledger_answer();
        }
    }
}

/// The fence and the look-up: answers the transaction's id and what the ledger knows already.
async fn open(
    tx: &mut PgConnection,
    items: &[Item],
    ledger: &Ledger,
    fence: &Fence<'_>,
    to: Place,
) -> Result<(String, Vec<Option<Outcome>>), Failure> {
    let own = items.last().map(|item| Anchor {
        sequence: item.delivery.sequence,
        at_ns: item.delivery.at_ns,
        id: item.delivery.message_id().map(ToOwned::to_owned),
    });
    let anchor = own.as_ref().or(fence.anchor);
    let (xid, outcomes, answers): (String, Vec<Option<String>>, Vec<Option<String>>) = sqlx::query_as(
        "SELECT xid, outcomes, answers FROM farwrite.open_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(fence.takeover.stream_id)
    .bind(fence.lane.cast_signed())
    .bind(fence.takeover.epoch.0)
    .bind(fence.from.cast_signed())
    .bind(to.sequence.cast_signed())
    .bind(to.at_ns)
    .bind(anchor.map_or(0, |anchor| anchor.sequence.cast_signed()))
    .bind(anchor.map(|anchor| anchor.at_ns))
    .bind(anchor.and_then(|anchor| anchor.id.as_deref()))
    .bind(&ledger.ids)
    .bind(&ledger.fingerprints)
    .fetch_one(tx)
    .await?;
    let known = outcomes.into_iter().zip(answers).map(|(outcome, answer)| match outcome {
        Some(word) => Outcome::from_ledger(&word, answer)
            .map(Some)
            .map_err(|error| Failure::World(error.to_string())),
        None => Ok(None),
    });
    Ok((xid, known.collect::<Result<_, _>>()?))
}

/// The ledger, and whether the transaction is still the one that was opened.
async fn close(
    tx: &mut PgConnection,
    xid: &str,
    ledger: &Ledger,
    fence: &Fence<'_>,
) -> Result<(), Failure> {
    sqlx::query("SELECT farwrite.close_batch($1, $2, $3, $4, $5, $6, $7)")
        .bind(xid)
        .bind(fence.takeover.stream_id)
        .bind(&ledger.ids)
        .bind(&ledger.fingerprints)
        .bind(&ledger.sequences)
        .bind(&ledger.outcomes)
        .bind(&ledger.answers)
        .execute(tx)
        .await?;
    Ok(())
}

/// One command in a savepoint of its own, where its own fault becomes its rejection.
async fn guarded_step(
    tx: &mut PgConnection,
    item: &Item,
    fence: &Fence<'_>,
) -> Result<Outcome, Failure> {
    let mut savepoint = tx.begin().await?;
    match step(&mut savepoint, item, fence).await {
        Ok(outcome) => {
            savepoint.commit().await?;
            Ok(outcome)
        }
        Err(Failure::Command { verdict: Verdict::Reject, rejection }) => {
            savepoint.rollback().await?;
            Ok(Outcome::Rejected(rejection))
        }
        Err(failure) => Err(failure),
    }
}

/// One command, in the transaction that is open.
async fn step(
    connection: &mut PgConnection,
    item: &Item,
    fence: &Fence<'_>,
) -> Result<Outcome, Failure> {
    match (&item.work, &item.delivery.envelope) {
        (Work::Reject(rejection), _) => Ok(Outcome::Rejected(rejection.clone())),
        (Work::DeadLetter { letter, .. }, _) => {
            dead_letter(connection, item, letter, fence).await?;
            Ok(Outcome::DeadLettered(letter.clone()))
        }
        (Work::Handler(handler), Ok(_)) => {
            let Some(meta) = item.meta() else { return Err(no_envelope()) };
            let output = handler.apply(connection, item.delivery.body(), &meta).await?;
            Ok(Outcome::Applied { output })
        }
        (Work::Function(function), Ok(envelope)) => {
            call(connection, function.number, envelope, item).await
        }
        (Work::Handler(_) | Work::Function(_), Err(_)) => Err(no_envelope()),
    }
}

/// A message that is no command was given to a handler: a fault of this program.
fn no_envelope() -> Failure {
    let rejection = Rejection::new("internal", "a message that is no command reached a handler");
    Failure::Command { verdict: Verdict::DeadLetter, rejection }
}

async fn call(
    connection: &mut PgConnection,
    function: i32,
    envelope: &Envelope,
    item: &Item,
) -> Result<Outcome, Failure> {
    let answer: Option<String> = sqlx::query_scalar(
        "SELECT farwrite.call($1, $2::jsonb, ROW($3, $4, $5, $6, $7, $8, to_timestamp($9 / 1e9))::farwrite.meta)",
    )
    .bind(function)
    .bind(text(item.delivery.body()))
    .bind(envelope.id.uuid())
    .bind(envelope.name.as_str())
    .bind(envelope.version.cast_signed())
    .bind(envelope.key.as_ref().map(|key| key.as_str()))
    .bind(envelope.origin.as_str())
    .bind(item.delivery.sequence.cast_signed())
    .bind(item.delivery.at_ns)
    .fetch_one(connection)
    .await?;
    Outcome::from_ledger("applied", answer).map_err(|error| Failure::World(error.to_string()))
}

/// Keeps a message that nobody can apply, with its raw bytes. One that is read again after the
/// number of lanes changed is there already.
async fn dead_letter(
    connection: &mut PgConnection,
    item: &Item,
    letter: &farwrite_schemas::DeadLetter,
    fence: &Fence<'_>,
) -> Result<(), sqlx::Error> {
    let message = &item.delivery.message;
    let headers: Vec<(&str, &str)> = message
        .headers
        .iter()
        .flat_map(|headers| headers.iter())
        .flat_map(|(name, values)| {
            values.iter().map(|value| (AsRef::<str>::as_ref(name), value.as_str()))
        })
        .collect();
    let id =
        item.delivery.message_id().and_then(|id| id.parse::<farwrite_schemas::CommandId>().ok());
    sqlx::query(
        "INSERT INTO farwrite.dead_letters (stream_id, sequence, command_id, reason, message, subject, headers, body, published_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, to_timestamp($9 / 1e9)) ON CONFLICT DO NOTHING",
    )
    .bind(fence.takeover.stream_id)
    .bind(item.delivery.sequence.cast_signed())
    .bind(id.map(|id| id.uuid()))
    .bind(&letter.reason)
    .bind(&letter.message)
    .bind(message.subject.as_str())
    .bind(sqlx::types::Json(headers))
    .bind(message.payload.as_ref())
    .bind(item.delivery.at_ns)
    .execute(connection)
    .await?;
    Ok(())
}

/// Moves a lane that has nothing to do along to what was read past it: only the fence, committed.
pub(super) async fn move_along(
    connection: &mut PgConnection,
    fence: &Fence<'_>,
) -> Result<(), Failure> {
    let anchor = fence.anchor;
    sqlx::query("SELECT farwrite.fence($1, $2, $3, $4, $5, $6, $7, $8, $9)")
        .bind(fence.takeover.stream_id)
        .bind(fence.lane.cast_signed())
        .bind(fence.takeover.epoch.0)
        .bind(fence.from.cast_signed())
        .bind(fence.to.sequence.cast_signed())
        .bind(fence.to.at_ns)
        .bind(anchor.map_or(0, |anchor| anchor.sequence.cast_signed()))
        .bind(anchor.map(|anchor| anchor.at_ns))
        .bind(anchor.and_then(|anchor| anchor.id.as_deref()))
        .execute(connection)
        .await?;
    Ok(())
}
