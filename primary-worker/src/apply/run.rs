//! BatchRun the commands of a staged batch, in the transaction that is open.

use std::{collections::HashMap, time::Instant};

use farwrite_schemas::Outcome;
use sqlx::{Connection, PgConnection};

use crate::{store, verdict::Verdict};

use super::{
    columns::Columns,
    facts::ItemFate,
    failure::Failure,
    handler_call::apply_handler,
    item::BatchItem,
    manner::{Care, GROUP},
    members::Outputs,
    session,
    work::CommandWork,
};

/// A command that was to be run has no outcome: a fault of this program.
pub(crate) const NOT_RUN: &str = "a command was not run";

/// Calls functions in order; the first failure fails the statement.
const CALL_ALL: &str = "SELECT outcomes, answers FROM farwrite.call_all($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
/// Calls functions in groups, each in a subtransaction.
const CALL_GUARDED: &str = "SELECT outcomes, answers FROM farwrite.call_guarded($15, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";

/// The database's clock, read when the batch was opened, and carried on.
#[derive(Clone, Copy)]
pub(crate) struct BatchClock {
    pub(crate) now_ns: i64,
    pub(crate) read_at: Instant,
}

impl BatchClock {
    /// Whether a command's time has passed by now: a companion before it may have taken long.
    fn is_past(&self, item: &BatchItem) -> bool {
        let since = i64::try_from(self.read_at.elapsed().as_nanos()).unwrap_or(i64::MAX);
        let now_ns = self.now_ns.saturating_add(since);
        item.expires_ns.is_some_and(|expires_ns| expires_ns <= now_ns)
    }
}

/// The outcomes of a batch, as they come.
pub(crate) struct BatchRun<'a> {
    pub(crate) items: &'a [BatchItem],
    pub(crate) care: Care,
    /// None where nothing expires: a trial.
    pub(crate) clock: Option<BatchClock>,
    pub(crate) outcomes: Vec<Option<Outcome>>,
    /// The outputs of the members of atomic batches that were applied.
    pub(crate) outputs: HashMap<usize, Outputs>,
}

impl BatchRun<'_> {
    /// Runs what is to be run, in order; functions that follow each other in one statement.
    pub(crate) async fn run(
        &mut self,
        tx: &mut PgConnection,
        fates: &[ItemFate],
    ) -> Result<(), Failure> {
        let mut functions = Vec::new();
        for (index, item) in self.items.iter().enumerate() {
            if !matches!(fates.get(index), Some(ItemFate::Run)) {
                continue;
            }
            if matches!(item.work, CommandWork::Function(_)) {
                functions.push(index);
                continue;
            }
            self.run_functions(tx, &mut functions).await?;
            // Functions look at the database's clock themselves.
            if !item.work.is_ended() && self.clock.is_some_and(|clock| clock.is_past(item)) {
                self.outcomes[index] = Some(Outcome::Expired);
                continue;
            }
            if let (CommandWork::Atomic { atomic, refused: None }, Ok(envelope)) =
                (&item.work, &item.delivery.envelope)
            {
                let outputs = atomic.run(tx, item, envelope).await?;
                let output = atomic.output(&outputs.outputs)?;
                self.outcomes[index] = Some(Outcome::Applied { output });
                self.outputs.insert(index, outputs);
                continue;
            }
            let outcome = match self.care {
                Care::Plain => step(tx, item).await?,
                Care::Guarded => guarded_step(tx, item).await?,
            };
            self.outcomes[index] = Some(outcome);
            if matches!(item.work, CommandWork::Handler(_)) && self.items.len() > 1 {
                session::tidy(tx).await?;
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
            session::tidy(tx).await?;
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
async fn guarded_step(tx: &mut PgConnection, item: &BatchItem) -> Result<Outcome, Failure> {
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
    // the lone run is definitive. A trigger chooses its own code.
    let constraint = failed.rejection.constraint.as_deref();
    if store::server::may_be_deferred(tx, constraint).await? {
        return Err(Failure::Command(failed));
    }
    Ok(Outcome::Rejected(failed.rejection))
}

/// One command, in the transaction that is open.
async fn step(connection: &mut PgConnection, item: &BatchItem) -> Result<Outcome, Failure> {
    match (&item.work, &item.delivery.envelope) {
        (CommandWork::Reject(rejection), _) => Ok(Outcome::Rejected(rejection.clone())),
        (CommandWork::DeadLetter { letter, .. }, _) => Ok(Outcome::DeadLettered(letter.clone())),
        (CommandWork::Atomic { refused: Some(refused), .. }, _) => {
            Ok(Outcome::Rejected(refused.rejection.clone()))
        }
        (CommandWork::Handler(handler), Ok(_)) => {
            let Some(meta) = item.meta() else { return Err(Failure::internal(NOT_RUN)) };
            let body = item.delivery.body();
            let output = apply_handler(connection, handler.as_ref(), body, &meta).await?;
            Ok(Outcome::Applied { output })
        }
        (
            CommandWork::Function(_)
            | CommandWork::Park(_)
            | CommandWork::Atomic { refused: None, .. },
            _,
        )
        | (CommandWork::Handler(_), Err(_)) => Err(Failure::internal(NOT_RUN)),
    }
}
