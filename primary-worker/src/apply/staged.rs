//! A batch in stages, in one transaction: open it (fence, and all that is known), sort it, run what
//! is to be run, record. For Rust handlers, for commands that end without being run, and while
//! something of the lane waits.

use std::{collections::HashMap, panic::AssertUnwindSafe, time::Instant};

use farwrite_schemas::{CommandId, Fingerprint, Outcome, Rejection};
use futures_util::FutureExt;
use serde_json::value::RawValue;
use sqlx::{Connection, FromRow, PgConnection, Row, postgres::PgRow, types::Uuid};

use crate::{
    failpoint::Failpoint,
    lane::{batch::Item, run::last_of_stream},
    stream::{delivery::Place, identity::storable, key::line},
    verdict::{Happened, Verdict},
};

use super::{
    atomic::Outputs,
    attempt::{
        Care, Committed, Failure, Fence, GROUP, GUARDED_MAX, Manner, OnlyAfterCommit, Settled,
    },
    columns::Columns,
    handler::{AnyHandler, Meta},
    park::Parking,
    sort::{self, Facts, Fate, ParkedNow},
    work::Work,
};

/// Puts settings and role back, which one command must not leave to the next.
pub(crate) async fn reset(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("RESET ROLE; RESET ALL").execute(connection).await?;
    Ok(())
}

/// The same, and checks what was deferred: between commands that have nothing to do with each
/// other.
async fn tidy(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let statements = "SET CONSTRAINTS ALL IMMEDIATE; RESET ROLE; RESET ALL";
    sqlx::raw_sql(statements).execute(connection).await?;
    Ok(())
}

pub(crate) async fn attempt(
    connection: &mut PgConnection,
    items: &[Item],
    fence: &Fence<'_>,
    manner: Manner,
) -> Result<Committed, Failure> {
    // With a savepoint each, no more commands than subtransactions that do no harm.
    let (items, to, last) = match items.get(..GUARDED_MAX) {
        Some(part) if manner.care == Care::Guarded && part.len() < items.len() => {
            let to = part.last().map_or(fence.to, |item| stay_or(fence, item));
            // The last one that this transaction applies, not the last of those that are left.
            (part, to, last_of_stream(part))
        }
        _ => (items, fence.to, None),
    };
    let fence = &Fence { to, anchor: last.as_ref().or(fence.anchor), ..*fence };
    let mut tx = connection.begin().await?;
    // Before the database reads its clock: what is counted from here is never too little.
    let read_at = Instant::now();
    let (xid, facts) = open(&mut tx, items, fence).await?;
    let fates = sort::sort(items, &facts, manner.bounds).map_err(|sort::Full| Failure::Full)?;
    let nothing = vec![None; items.len()];
    let clock = Some(Clock { now_ns: facts.now_ns, read_at });
    let (care, outputs) = (manner.care, HashMap::new());
    let mut outcomes = Outcomes { items, care, clock, outcomes: nothing, outputs };
    outcomes.run(&mut tx, &fates).await?;
    let Outcomes { outcomes: mut ended, outputs, .. } = outcomes;
    let mut ledger = Ledger::default();
    let mut parking = Parking::default();
    let mut settled = Vec::with_capacity(items.len());
    for (index, (item, fate)) in items.iter().zip(fates).enumerate() {
        let outcome = match fate {
            Fate::Run => ended[index].take(),
            Fate::Settle(outcome) => Some(outcome),
            Fate::Known(outcome) => {
                parking.leave(item);
                settled.push(Settled::Ended { outcome, repeated: true });
                continue;
            }
            Fate::Nothing => {
                settled.push(Settled::Untouched);
                continue;
            }
            Fate::Park(park) => {
                settled.push(Settled::Parked(park.reason.word()));
                parking.park(item, &park);
                continue;
            }
        };
        let Some(outcome) = outcome else { return Err(not_run()) };
        if let Outcome::DeadLettered(letter) = &outcome {
            dead_letter(&mut tx, item, letter, fence).await?;
        }
        ledger.record(item, &outcome);
        if let Work::Atomic { atomic, refused } = &item.work {
            let outputs = outputs.get(&index);
            let parts = atomic.ended(&mut tx, &outcome, outputs, refused.as_ref()).await?;
            for (id, fingerprint, outcome) in parts {
                ledger.push(item, id, fingerprint, &outcome);
            }
        }
        parking.leave(item);
        settled.push(Settled::Ended { outcome, repeated: false });
    }
    parking.write(&mut tx, fence).await?;
    ledger.close(&mut tx, &xid, fence).await?;
    Failpoint::BeforeCommit.pass();
    tx.commit().await?;
    let only_after_commit = OnlyAfterCommit::committed();
    let is_paused = !(facts.paused_names.is_empty() && facts.paused_keys.is_empty());
    let waits = is_paused || parking.remaining(facts.parked_commands) > 0;
    Ok(Committed { settled, position: to, waits, _only_after_commit: only_after_commit })
}

/// Runs one command, in the transaction that is open, and records nothing.
pub(crate) async fn run_alone(tx: &mut PgConnection, item: &Item) -> Result<Outcome, Failure> {
    let items = std::slice::from_ref(item);
    let (outcomes, outputs) = (vec![None], HashMap::new());
    let mut running = Outcomes { items, care: Care::Plain, clock: None, outcomes, outputs };
    running.run(tx, &[Fate::Run]).await?;
    // What a commit would check; and the next one may defer again.
    sqlx::raw_sql("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
        .execute(tx)
        .await?;
    running.outcomes.pop().flatten().ok_or_else(not_run)
}

/// Where the lane stands after this item: parked ones do not move it.
fn stay_or(fence: &Fence<'_>, item: &Item) -> Place {
    if item.parked.is_some() { fence.to } else { item.delivery.place() }
}

const CALL_ALL: &str = "SELECT outcomes, answers FROM farwrite.call_all($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
const CALL_GUARDED: &str = "SELECT outcomes, answers FROM farwrite.call_guarded($15, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";

/// A command that was to be run has no outcome: a fault of this program.
fn not_run() -> Failure {
    Failure::internal("a command was not run")
}

/// What `farwrite.open_batch` answers; an array without elements is null.
struct Opened {
    xid: String,
    now_ns: i64,
    outcomes: Vec<Option<String>>,
    answers: Vec<Option<String>>,
    parked: i64,
    parked_ids: Option<Vec<Uuid>>,
    parked_fingerprints: Option<Vec<Uuid>>,
    parked_sequences: Option<Vec<i64>>,
    parked_ahead: Option<Vec<i64>>,
    held_key_queues: Option<Vec<String>>,
    held_commands: Option<Vec<i64>>,
    paused_names: Option<Vec<String>>,
    paused_keys: Option<Vec<String>>,
}

impl FromRow<'_, PgRow> for Opened {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            xid: row.try_get("xid")?,
            now_ns: row.try_get("now_ns")?,
            outcomes: row.try_get("outcomes")?,
            answers: row.try_get("answers")?,
            parked: row.try_get("parked")?,
            parked_ids: row.try_get("parked_ids")?,
            parked_fingerprints: row.try_get("parked_fingerprints")?,
            parked_sequences: row.try_get("parked_sequences")?,
            parked_ahead: row.try_get("parked_ahead")?,
            held_key_queues: row.try_get("held_key_queues")?,
            held_commands: row.try_get("held_commands")?,
            paused_names: row.try_get("paused_names")?,
            paused_keys: row.try_get("paused_keys")?,
        })
    }
}

impl Opened {
    fn parked(&mut self) -> HashMap<Uuid, ParkedNow> {
        let count = |numbers: Option<Vec<i64>>| {
            numbers.unwrap_or_default().into_iter().map(i64::unsigned_abs)
        };
        let ids = self.parked_ids.take().unwrap_or_default();
        let fingerprints = self.parked_fingerprints.take().unwrap_or_default();
        let places = count(self.parked_sequences.take()).zip(count(self.parked_ahead.take()));
        (ids.into_iter().zip(fingerprints).zip(places))
            .map(|((id, fingerprint), (sequence, ahead))| {
                (id, ParkedNow { fingerprint, sequence, ahead })
            })
            .collect()
    }
}

/// The fence and the look-ups: answers the transaction's id and what is known.
async fn open(
    tx: &mut PgConnection,
    items: &[Item],
    fence: &Fence<'_>,
) -> Result<(String, Facts), Failure> {
    let entries = || {
        let entry = |(index, item): (usize, &_)| Some((index, Item::ledger_entry(item)?));
        items.iter().enumerate().filter_map(entry)
    };
    let ids: Vec<Uuid> = entries().map(|(_, (id, _))| id.uuid()).collect();
    let fingerprints: Vec<Uuid> = entries().map(|(_, (_, print))| print.as_uuid()).collect();
    let lines: Vec<String> =
        items.iter().filter_map(|item| Some(line(item.delivery.envelope.as_ref().ok()?))).collect();
    let anchor = fence.anchor;
    let statement = sqlx::query_as(
        "SELECT xid, now_ns, outcomes, answers, parked, parked_ids, parked_fingerprints, parked_sequences, parked_ahead,
                held_key_queues, held_commands, paused_names, paused_keys
         FROM farwrite.open_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    );
    let mut opened: Opened = fence
        .bind(statement)
        .bind(anchor.map_or(0, |anchor| anchor.sequence.cast_signed()))
        .bind(anchor.map(|anchor| anchor.at_ns))
        .bind(anchor.and_then(|anchor| anchor.id.as_deref()))
        .bind(&ids)
        .bind(&fingerprints)
        .bind(&lines)
        .fetch_one(tx)
        .await?;
    let mut known = vec![None; items.len()];
    let answers = opened.outcomes.iter().zip(&opened.answers);
    for ((index, _), (outcome, answer)) in entries().zip(answers) {
        if let Some(word) = outcome {
            let outcome = Outcome::from_ledger(word, answer.clone());
            known[index] = Some(outcome.map_err(Failure::unreadable)?);
        }
    }
    let held = opened.held_commands.take().unwrap_or_default();
    let facts = Facts {
        now_ns: opened.now_ns,
        known,
        parked: opened.parked(),
        parked_commands: opened.parked.unsigned_abs(),
        held: (opened.held_key_queues.take().unwrap_or_default().into_iter())
            .zip(held.into_iter().map(i64::unsigned_abs))
            .collect(),
        paused_names: opened.paused_names.take().unwrap_or_default().into_iter().collect(),
        paused_keys: opened.paused_keys.take().unwrap_or_default().into_iter().collect(),
    };
    Ok((opened.xid, facts))
}

/// The database's clock, read when the batch was opened, and carried on.
#[derive(Clone, Copy)]
struct Clock {
    now_ns: i64,
    read_at: Instant,
}

impl Clock {
    /// Whether a command's time has passed by now: a companion before it may have taken long.
    fn is_past(&self, item: &Item) -> bool {
        let since = i64::try_from(self.read_at.elapsed().as_nanos()).unwrap_or(i64::MAX);
        let now_ns = self.now_ns.saturating_add(since);
        item.expires_ns.is_some_and(|expires_ns| expires_ns <= now_ns)
    }
}

/// The outcomes of a batch, as they come.
struct Outcomes<'a> {
    items: &'a [Item],
    care: Care,
    /// None where nothing expires: a trial.
    clock: Option<Clock>,
    outcomes: Vec<Option<Outcome>>,
    /// The outputs of the parts of atomic batches that were applied.
    outputs: HashMap<usize, Outputs>,
}

impl Outcomes<'_> {
    /// Runs what is to be run, in order; functions that follow each other in one statement.
    async fn run(&mut self, tx: &mut PgConnection, fates: &[Fate]) -> Result<(), Failure> {
        let mut functions = Vec::new();
        for (index, item) in self.items.iter().enumerate() {
            if !matches!(fates.get(index), Some(Fate::Run)) {
                continue;
            }
            if matches!(item.work, Work::Function(_)) {
                functions.push(index);
                continue;
            }
            self.run_functions(tx, &mut functions).await?;
            // Functions look at the database's clock themselves.
            if !item.work.is_ended() && self.clock.is_some_and(|clock| clock.is_past(item)) {
                self.outcomes[index] = Some(Outcome::Expired);
                continue;
            }
            if let (Work::Atomic { atomic, refused: None }, Ok(envelope)) =
                (&item.work, &item.delivery.envelope)
            {
                let outputs = atomic.run(tx, item, envelope).await?;
                let output = atomic.output(&outputs)?;
                self.outcomes[index] = Some(Outcome::Applied { output });
                self.outputs.insert(index, outputs);
                continue;
            }
            let outcome = match self.care {
                Care::Plain => step(tx, item).await?,
                Care::Guarded => guarded_step(tx, item).await?,
            };
            self.outcomes[index] = Some(outcome);
            if matches!(item.work, Work::Handler(_)) && self.items.len() > 1 {
                tidy(tx).await?;
            }
        }
        self.run_functions(tx, &mut functions).await
    }

    async fn run_functions(
        &mut self,
        tx: &mut PgConnection,
        indexes: &mut Vec<usize>,
    ) -> Result<(), Failure> {
        if indexes.is_empty() {
            return Ok(());
        }
        let columns = Columns::of(indexes.iter().map(|index| &self.items[*index]));
        let nothing: Vec<Option<String>> = vec![None; indexes.len()];
        let statement = match self.care {
            Care::Plain => CALL_ALL,
            Care::Guarded => CALL_GUARDED,
        };
        let mut statement =
            sqlx::query_as::<_, (Vec<Option<String>>, Vec<Option<String>>)>(statement)
                .bind(columns.functions)
                .bind(columns.ids)
                .bind(columns.names)
                .bind(columns.versions)
                .bind(columns.keys)
                .bind(columns.origins)
                .bind(columns.sequences)
                .bind(columns.at_ns)
                .bind(&columns.bodies)
                .bind(columns.bodies.starts())
                .bind(columns.expires_ns)
                .bind(columns.contexts)
                .bind(&nothing)
                .bind(&nothing);
        if self.care == Care::Guarded {
            statement = statement.bind(GROUP);
        }
        let (outcomes, answers) = statement.fetch_one(&mut *tx).await?;
        // Both tidy between their own commands; a single one has companions too.
        if indexes.len() == 1 && self.items.len() > 1 {
            tidy(tx).await?;
        }
        for (index, (outcome, answer)) in indexes.drain(..).zip(outcomes.into_iter().zip(answers)) {
            if let Some(word) = outcome {
                let outcome = Outcome::from_ledger(&word, answer).map_err(Failure::unreadable)?;
                self.outcomes[index] = Some(outcome);
            }
        }
        Ok(())
    }
}

/// One command in a savepoint of its own, where its own fault becomes its rejection.
async fn guarded_step(tx: &mut PgConnection, item: &Item) -> Result<Outcome, Failure> {
    let mut savepoint = tx.begin().await?;
    let failed = match step(&mut savepoint, item).await {
        Ok(outcome) => {
            savepoint.commit().await?;
            return Ok(outcome);
        }
        Err(Failure::Command(failed)) if failed.verdict == Verdict::Reject => failed,
        Err(failure) => return Err(failure),
    };
    savepoint.rollback().await?;
    // A constraint that may be deferred was perhaps checked too early, for a companion's sake: only
    // the lone run is definitive. A trigger refuses with whatever code it likes.
    let may_be_deferred: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE condeferrable AND (contype = 't' OR conname = $1))",
    )
    .bind(&failed.rejection.constraint)
    .fetch_one(tx)
    .await?;
    if may_be_deferred {
        return Err(Failure::Command(failed));
    }
    Ok(Outcome::Rejected(failed.rejection))
}

/// One command, in the transaction that is open.
async fn step(connection: &mut PgConnection, item: &Item) -> Result<Outcome, Failure> {
    match (&item.work, &item.delivery.envelope) {
        (Work::Reject(rejection), _) => Ok(Outcome::Rejected(rejection.clone())),
        (Work::DeadLetter { letter, .. }, _) => Ok(Outcome::DeadLettered(letter.clone())),
        (Work::Atomic { refused: Some(refused), .. }, _) => {
            Ok(Outcome::Rejected(refused.rejection.clone()))
        }
        (Work::Handler(handler), Ok(_)) => {
            let Some(meta) = item.meta() else { return Err(not_run()) };
            let body = item.delivery.body();
            let output = apply_handler(connection, handler.as_ref(), body, &meta).await?;
            Ok(Outcome::Applied { output })
        }
        (Work::Function(_) | Work::Park(_) | Work::Atomic { refused: None, .. }, _)
        | (Work::Handler(_), Err(_)) => Err(not_run()),
    }
}

/// Runs a handler, with its context set. A panic in it is a failure like another.
pub(crate) async fn apply_handler(
    connection: &mut PgConnection,
    handler: &dyn AnyHandler,
    body: &[u8],
    meta: &Meta,
) -> Result<Box<RawValue>, Failure> {
    if let Some(context) = &meta.context {
        sqlx::query("SELECT set_config('farwrite.context', $1, true)")
            .bind(&**context)
            .execute(&mut *connection)
            .await?;
    }
    let applying = handler.apply(connection, body, meta);
    match AssertUnwindSafe(applying).catch_unwind().await {
        Ok(output) => Ok(output?),
        Err(_) => {
            let message = "the handler panicked; the worker's log says where";
            Err(Failure::of(Happened::Panicked, Rejection::new("panicked", message)))
        }
    }
}

/// What of a batch goes into the ledger, as parallel arrays.
#[derive(Default)]
struct Ledger {
    ids: Vec<Uuid>,
    fingerprints: Vec<Uuid>,
    sequences: Vec<i64>,
    at_ns: Vec<i64>,
    attempts: Vec<i32>,
    outcomes: Vec<&'static str>,
    answers: Vec<Option<String>>,
}

impl Ledger {
    fn record(&mut self, item: &Item, outcome: &Outcome) {
        if let Some((id, fingerprint)) = item.ledger_entry() {
            self.push(item, id, fingerprint, outcome);
        }
    }

    fn push(&mut self, item: &Item, id: CommandId, fingerprint: Fingerprint, outcome: &Outcome) {
        self.ids.push(id.uuid());
        self.fingerprints.push(fingerprint.as_uuid());
        self.sequences.push(item.delivery.sequence.cast_signed());
        self.at_ns.push(item.delivery.at_ns);
        self.attempts.push(item.attempts.max(1).cast_signed());
        self.outcomes.push(outcome.as_str());
        self.answers.push(outcome.ledger_answer());
    }

    /// Writes it, if the transaction is still the one that was opened.
    async fn close(
        &self,
        tx: &mut PgConnection,
        xid: &str,
        fence: &Fence<'_>,
    ) -> Result<(), Failure> {
        sqlx::query("SELECT farwrite.close_batch($1, $2, $3, $4, $5, $6, $7, $8, $9)")
            .bind(xid)
            .bind(fence.takeover.stream_id)
            .bind(&self.ids)
            .bind(&self.fingerprints)
            .bind(&self.sequences)
            .bind(&self.at_ns)
            .bind(&self.attempts)
            .bind(&self.outcomes)
            .bind(&self.answers)
            .execute(tx)
            .await?;
        Ok(())
    }
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
    let id =
        item.delivery.message_id().and_then(|id| id.parse::<farwrite_schemas::CommandId>().ok());
    let envelope = item.delivery.envelope.as_ref().ok();
    sqlx::query(
        "INSERT INTO farwrite.dead_letters (stream_id, sequence, command_id, reason, message, subject, headers, body, published_at, name, order_key)
         VALUES ($1, $2, $3, $4, $5, $6, $7::json, $8, to_timestamp($9 / 1e9), $10, $11) ON CONFLICT DO NOTHING",
    )
    .bind(fence.takeover.stream_id)
    .bind(item.delivery.sequence.cast_signed())
    .bind(id.map(|id| id.uuid()))
    .bind(&letter.reason)
    .bind(storable(&letter.message))
    .bind(storable(message.subject.as_str()))
    .bind(item.delivery.headers_json())
    .bind(message.payload.as_ref())
    .bind(item.delivery.at_ns)
    .bind(envelope.map(|envelope| envelope.name.as_str()))
    .bind(envelope.and_then(|envelope| envelope.key.as_ref()).map(|key| key.as_str()))
    .execute(connection)
    .await?;
    Ok(())
}
