//! One command as a lane would run it, in a transaction that somebody else rolls back.

use farwrite_schemas::Outcome;
use sqlx::PgConnection;

use crate::{config::Config, stream::delivery::Delivery};

use super::{
    failure::{FailedCommand, Failure},
    functions::Functions,
    handler::Handlers,
    item::BatchItem,
    judge::{self, Next, Refreshed},
    resolve::Resolver,
    staged,
    work::{CommandWork, Park},
};

/// What a try of one command came to; nothing of it is recorded.
pub(crate) enum TrialAttempt {
    /// It would end so.
    Ended(Outcome),
    /// It would be parked.
    Parked(Park),
}

/// Runs one command alone, in the transaction that is open, as a lane would with what it took from
/// its queue.
pub(crate) async fn attempt_for_trial(
    connection: &mut PgConnection,
    delivery: Delivery,
    config: &Config,
    handlers: &Handlers,
) -> Result<TrialAttempt, Failure> {
    let mut functions = Functions::default();
    functions.refresh(connection).await?;
    // A trial knows of no ledger.
    let resolver = Resolver { config, handlers, functions: &functions, horizon_ms: 0 };
    let Some(work) = resolver.work_of(&delivery, None, true) else {
        return Err(Failure::internal("a command has no work"));
    };
    let mut item = BatchItem::new(delivery, work, None, None);
    if !item.work.is_settled() {
        let failure = match staged::run_alone(connection, &item).await {
            Ok(outcome) => return Ok(TrialAttempt::Ended(outcome)),
            // If the connection does not live on, rolling the trial back fails.
            Err(Failure::Unavailable { reason: rejection, own: Some(verdict), .. }) => {
                Failure::Command(FailedCommand { verdict, rejection, member: None })
            }
            Err(failure) => failure,
        };
        match failure {
            Failure::Command(failed) => {
                // As if it had failed once before: what follows is decided, not tried again.
                item.attempts = 1;
                let refreshed = Refreshed::default();
                let (verdict, rejection) = (failed.verdict, failed.rejection.clone());
                if judge::judge(&mut item, failed, config, &refreshed) == Next::Refresh {
                    let again = FailedCommand { verdict, rejection, member: None };
                    judge::judge(&mut item, again, config, &refreshed);
                }
            }
            failure => return Err(failure),
        }
    }
    Ok(match item.work {
        CommandWork::Park(park) => TrialAttempt::Parked(park),
        CommandWork::Reject(rejection) => TrialAttempt::Ended(Outcome::Rejected(rejection)),
        CommandWork::DeadLetter { letter, .. } => {
            TrialAttempt::Ended(Outcome::DeadLettered(letter))
        }
        CommandWork::Atomic { refused: Some(refused), .. } => {
            TrialAttempt::Ended(Outcome::Rejected(refused.rejection))
        }
        CommandWork::Function(_)
        | CommandWork::Handler(_)
        | CommandWork::Atomic { refused: None, .. } => {
            return Err(Failure::internal("a command that failed was not judged"));
        }
    })
}
