//! Does what an operator's subcommand asks for.

use std::process::ExitCode;

use clap::ArgMatches;
use tokio::runtime::Builder;

use crate::worker::operate::{Letter, OperateError, Operator, WaitingCommand};

use super::{
    super::{
        runtime::{FAILED, UNUSABLE, run_on, start_log},
        settings::{needed, text},
    },
    acts,
    flags::{innermost, operation},
    operation::{Operation, OperationEnd},
    print::Printer,
    records, status,
};

/// Why an operation did not succeed.
#[derive(Debug, thiserror::Error)]
enum OperationError {
    #[error(transparent)]
    Operate(#[from] OperateError),
    #[error("printing: {0}")]
    Output(#[from] std::io::Error),
}

/// Does what was chosen, or says which flag is not usable.
pub(crate) fn start(subcommand: &str, matches: &ArgMatches) -> Result<ExitCode, String> {
    let operation = operation(subcommand, matches).ok_or("choose a command")??;
    let matches = innermost(matches);
    let database_url = needed(matches, "database-url")?;
    start_log(matches)?;
    let work = async {
        match run(operation, matches, &database_url).await {
            Ok(OperationEnd::Done) => ExitCode::SUCCESS,
            Ok(OperationEnd::Partly) => ExitCode::from(FAILED),
            // Nobody reads any more.
            Err(OperationError::Output(_)) => ExitCode::from(FAILED),
            Err(OperationError::Operate(error)) => {
                eprintln!("error: {error}");
                ExitCode::from(if error.is_configuration() { UNUSABLE } else { FAILED })
            }
        }
    };
    Ok(run_on(Builder::new_current_thread(), work))
}

async fn run(
    operation: Operation,
    matches: &ArgMatches,
    database_url: &str,
) -> Result<OperationEnd, OperationError> {
    let printer = Printer { json: matches.get_flag("json") };
    let stream = matches.try_contains_id("stream").ok().and_then(|_| text(matches, "stream"));
    let stream = stream.as_deref();
    let mut operator = if operation.is_act() {
        Operator::acting(database_url).await?
    } else {
        Operator::asking(database_url).await?
    };
    let operator = &mut operator;
    Ok(match operation {
        Operation::ListDeadLetters(filter) => {
            let chosen = operator.choose(filter, stream).await?;
            records::list(&operator.list::<Letter>(&chosen).await?, printer)?
        }
        Operation::ListParked(filter) => {
            let chosen = operator.choose(filter, stream).await?;
            records::list(&operator.list::<WaitingCommand>(&chosen).await?, printer)?
        }
        Operation::ShowDeadLetters(filter) => {
            let mut chosen = operator.choose(filter, stream).await?;
            while let Some(letter) = operator.show::<Letter>(&mut chosen).await? {
                records::show(&letter, printer)?;
            }
            records::shown::<Letter>(&chosen)
        }
        Operation::ShowParked(filter) => {
            let mut chosen = operator.choose(filter, stream).await?;
            while let Some(parked) = operator.show::<WaitingCommand>(&mut chosen).await? {
                records::show(&parked, printer)?;
            }
            records::shown::<WaitingCommand>(&chosen)
        }
        Operation::Requeue { filter, reason } => {
            let mut chosen = operator.choose(filter, stream).await?;
            let (mut done, mut left) = (0, 0);
            while let Some(requeued) = operator.requeue(&mut chosen, &reason).await? {
                acts::left(&requeued.left, printer)?;
                done += requeued.done;
                left += requeued.left.len();
            }
            acts::requeued(&chosen, done, left, printer)?
        }
        Operation::Discard { filter, reason } => {
            let mut chosen = operator.choose(filter, stream).await?;
            let done = operator.discard(&mut chosen, &reason).await?;
            acts::done::<Letter>("discard", "discarded", &chosen, done, printer)?
        }
        Operation::Release { filter, reason } => {
            let mut chosen = operator.choose(filter, stream).await?;
            let done = operator.release(&mut chosen, &reason).await?;
            acts::done::<WaitingCommand>("release", "released", &chosen, done, printer)?
        }
        Operation::Pause { target, reason } => {
            acts::paused(&target, operator.pause(&target, &reason).await?, printer)?
        }
        Operation::Resume { target } => {
            acts::resumed(&target, operator.resume(&target).await?, printer)?
        }
        Operation::Pauses => acts::pauses(&operator.pauses().await?, printer)?,
        Operation::Cancel { id, reason } => {
            acts::cancelled(id, operator.cancel(id, &reason).await?.as_deref(), printer)?
        }
        Operation::Find { id } => match operator.find(id).await? {
            Some(found) => records::found(&found, printer)?,
            None => records::not_found(id, operator.is_replica().await?, printer)?,
        },
        Operation::Status { nats_url } => {
            status::print(&operator.status(&nats_url, stream).await?, printer)?
        }
    })
}
