//! `farwrite worker migrate`, and what it would do (`--check`).

use std::process::ExitCode;

use tracing::error;

use crate::worker::{self, Config, FunctionsFound, MigrateError, StreamError, StreamFound};

use super::super::runtime::{FAILED, UNUSABLE};

/// Status 4: the stream is not the one that the database knows.
pub(super) const OTHER_STREAM: u8 = 4;
/// Status 5 of `--check`: there is something to do.
const PENDING: u8 = 5;

pub(super) async fn migrate(config: &Config) -> ExitCode {
    match worker::migrate(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "migrate");
            status_of(&error)
        }
    }
}

fn status_of(error: &MigrateError) -> ExitCode {
    match error {
        MigrateError::Stream(error) => status_of_stream(error),
        MigrateError::Primary(error) if !error.may_pass() => ExitCode::from(UNUSABLE),
        _ => ExitCode::from(FAILED),
    }
}

pub(super) fn status_of_stream(error: &StreamError) -> ExitCode {
    ExitCode::from(match error {
        error if error.is_other_stream() => OTHER_STREAM,
        StreamError::Contract { .. } | StreamError::NotRegistered(_) => UNUSABLE,
        _ => FAILED,
    })
}

pub(super) async fn check(config: &Config) -> ExitCode {
    let checked = match worker::check(config).await {
        Ok(checked) => checked,
        Err(error) => {
            error!(%error, "migrate --check");
            return status_of(&error);
        }
    };
    let required =
        checked.required_protocol.map_or("any".to_owned(), |protocol| protocol.to_string());
    println!("schema    version {} (this program's: {})", checked.found, checked.needed);
    println!("protocol  {required} is required (this program speaks {})", checked.spoken_protocol);
    for (version, description) in &checked.pending {
        println!("pending   {version} {description}");
    }
    match checked.functions {
        FunctionsFound::Ready => println!("functions this program's"),
        FunctionsFound::Pending => println!("functions pending: migrate installs this program's"),
        FunctionsFound::Newer => println!("functions a newer program's: they stay"),
    }
    let stream = match &checked.stream {
        Ok(StreamFound::Ready) => {
            "is there, keeps the contract, and is the one that the database knows".to_owned()
        }
        Ok(StreamFound::Missing) => "is missing: migrate makes it".to_owned(),
        Ok(_) => "is there and keeps the contract; migrate tells the database of it".to_owned(),
        Err(error) => error.to_string(),
    };
    println!("stream    {}: {stream}", config.stream_name());
    if checked.is_too_new() {
        println!("the schema is too new for workers of this program: upgrade them");
        return ExitCode::from(UNUSABLE);
    }
    match checked.stream {
        Err(error) => status_of_stream(&error),
        Ok(_) if checked.is_pending() => {
            println!("migrate has something to do");
            ExitCode::from(PENDING)
        }
        Ok(_) => {
            println!("up to date");
            ExitCode::SUCCESS
        }
    }
}
