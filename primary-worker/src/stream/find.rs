//! Finding the stream, and making it.

use async_nats::{
    Client,
    jetstream::{
        self, Context, ErrorCode,
        context::GetStreamErrorKind,
        stream::{self, Info, Stream},
    },
};
use farwrite_schemas::Subjects;

use crate::config::Config;

use super::{contract, error::StreamError};

/// Makes the stream, or checks the one that is there.
pub(crate) async fn create_or_check(client: &Client, config: &Config) -> Result<Info, StreamError> {
    let context = jetstream::new(client.clone());
    let subjects = Subjects::new(config.database.clone());
    let wanted = contract::new_stream(config, &subjects);
    let stream = context
        .get_or_create_stream(wanted)
        .await
        .map_err(|error| StreamError::jetstream(&config.stream, error))?;
    let failed = |error: &dyn std::fmt::Display| StreamError::jetstream(&config.stream, error);
    let info = stream.get_info().await.map_err(|error| failed(&error))?;
    contract::check(&info.config, &subjects)?;
    let (found, wanted) = (info.config.max_bytes, config.new_stream.max_bytes);
    if found <= 0 || found >= wanted {
        return Ok(info);
    }
    // An operator who raised it further knew why.
    let raised = stream::Config { max_bytes: wanted, ..info.config };
    tracing::info!(found, wanted, "the stream's limit is raised");
    context.update_stream(raised).await.map_err(|error| failed(&error))
}

/// Finds the stream and checks its settings.
pub(crate) async fn find(context: &Context, config: &Config) -> Result<Stream, StreamError> {
    let stream = context
        .get_stream(&config.stream)
        .await
        .map_err(|error| StreamError::jetstream(&config.stream, error))?;
    contract::check(&stream.cached_info().config, &Subjects::new(config.database.clone()))?;
    Ok(stream)
}

/// Looks for the stream; `None` where there is none. Its settings are not checked.
pub(crate) async fn look_for(client: &Client, name: &str) -> Result<Option<Stream>, StreamError> {
    match jetstream::new(client.clone()).get_stream(name).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(kind)
                if kind.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(None)
            }
            _ => Err(StreamError::jetstream(name, error)),
        },
    }
}

/// Makes a stream again that is gone, numbered on.
pub(crate) async fn recreate(
    client: &Client,
    config: &Config,
    first_sequence: u64,
) -> Result<Info, StreamError> {
    let subjects = Subjects::new(config.database.clone());
    let wanted = stream::Config {
        first_sequence: Some(first_sequence),
        ..contract::new_stream(config, &subjects)
    };
    let created = jetstream::new(client.clone()).create_stream(wanted).await;
    let created = created.map_err(|error| StreamError::jetstream(&config.stream, error))?;
    Ok(created.cached_info().clone())
}

/// Checks a stream's settings.
pub(crate) fn check_contract(info: &Info, config: &Config) -> Result<(), StreamError> {
    contract::check(&info.config, &Subjects::new(config.database.clone()))
}
