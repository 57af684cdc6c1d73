//! The command stream: what it must be, which one it is, and reading it.

pub(crate) mod contract;
pub(crate) mod delivery;
pub(crate) mod identity;
pub(crate) mod key;
pub(crate) mod reader;
pub(crate) mod unreadable;

use std::time::Duration;

use async_nats::{ConnectOptions, jetstream::stream::Info};
use farwrite_schemas::{NatsCredentials, NatsServers, Subjects};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::config::Config;

use identity::Identity;
pub(crate) use identity::verify;

/// The key of the stream's metadata that holds its identity.
pub(crate) const IDENTITY_KEY: &str = "farwrite-identity";

/// How long JetStream may take to answer a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// The stream cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// NATS cannot be reached.
    #[error("NATS at {url}: {reason}")]
    Connect {
        /// Where, without credentials.
        url: String,
        /// What the client says.
        reason: String,
    },
    /// JetStream answered with an error, or not at all.
    #[error("JetStream, stream {stream}: {reason}")]
    JetStream {
        /// The stream's name.
        stream: String,
        /// What was asked and what was answered.
        reason: String,
    },
    /// A setting would lose commands that are not applied yet.
    #[error("stream {stream} breaks the contract: {}", broken.join("; "))]
    Contract {
        /// The stream's name.
        stream: String,
        /// Each setting, with what to change.
        broken: Vec<String>,
    },
    /// It is not the stream whose positions the database holds.
    #[error(
        "stream {stream} is not the one that this database knows: {reason}. \
             Nothing more is read from it. Find out what happened to the stream before anything else; \
             then `primary-worker adopt-stream` says from where to go on"
    )]
    Unknown {
        /// The stream's name.
        stream: String,
        /// What differs.
        reason: String,
    },
    /// The database was never told of it.
    #[error("stream {0} is not registered in this database: run `primary-worker migrate`")]
    NotRegistered(String),
    /// The database failed while the stream was registered.
    #[error("the primary: {0}")]
    Sql(#[from] sqlx::Error),
}

impl StreamError {
    /// Whether it may pass by itself, and waiting is right.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::JetStream { .. } => true,
            Self::Sql(error) => crate::verdict::Happened::of(error).verdict().may_pass(),
            Self::Contract { .. } | Self::Unknown { .. } | Self::NotRegistered(_) => false,
        }
    }

    pub(crate) fn jetstream(stream: &str, reason: impl std::fmt::Display) -> Self {
        Self::JetStream { stream: stream.to_owned(), reason: reason.to_string() }
    }
}

/// Connects to NATS; afterwards the client reconnects by itself, for ever.
pub(crate) async fn connect(url: &str) -> Result<async_nats::Client, StreamError> {
    let servers = NatsServers::parse(url);
    let options = match servers.credentials.clone() {
        Some(NatsCredentials::Password { user, password }) => {
            ConnectOptions::with_user_and_password(user, password)
        }
        Some(NatsCredentials::Token(token)) => ConnectOptions::with_token(token),
        None => ConnectOptions::new(),
    };
    options
        .name("farwrite primary-worker")
        // A request that comes while a cluster elects is dropped in silence; the client waits 10 s.
        .request_timeout(Some(REQUEST_TIMEOUT))
        .event_callback(|event| async move { tracing::info!(%event, "NATS") })
        .connect(&servers.urls)
        .await
        .map_err(|error| StreamError::Connect {
            url: servers.to_string(),
            reason: error.to_string(),
        })
}

/// Makes the stream, or checks the one that is there.
pub(crate) async fn create_or_check(
    client: &async_nats::Client,
    config: &Config,
) -> Result<async_nats::jetstream::stream::Info, StreamError> {
    let context = async_nats::jetstream::new(client.clone());
    let subjects = Subjects::new(config.database.clone());
    let wanted = contract::new_stream(config, &subjects);
    let stream = context
        .get_or_create_stream(wanted)
        .await
        .map_err(|error| StreamError::jetstream(&config.stream, error))?;
    let info =
        stream.get_info().await.map_err(|error| StreamError::jetstream(&config.stream, error))?;
    contract::check(&info.config, &subjects)?;
    Ok(info)
}

/// Finds the stream and checks its settings.
pub(crate) async fn find(
    context: &async_nats::jetstream::Context,
    config: &Config,
) -> Result<async_nats::jetstream::stream::Stream, StreamError> {
    let stream = context
        .get_stream(&config.stream)
        .await
        .map_err(|error| StreamError::jetstream(&config.stream, error))?;
    contract::check(&stream.cached_info().config, &Subjects::new(config.database.clone()))?;
    Ok(stream)
}

/// Looks for the stream; `None` where there is none. Its settings are not checked.
pub(crate) async fn look_for(
    client: &async_nats::Client,
    name: &str,
) -> Result<Option<async_nats::jetstream::stream::Stream>, StreamError> {
    use async_nats::jetstream::{ErrorCode, context::GetStreamErrorKind};
    match async_nats::jetstream::new(client.clone()).get_stream(name).await {
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
    client: &async_nats::Client,
    config: &Config,
    first_sequence: u64,
) -> Result<Info, StreamError> {
    let subjects = Subjects::new(config.database.clone());
    let wanted = async_nats::jetstream::stream::Config {
        first_sequence: Some(first_sequence),
        ..contract::new_stream(config, &subjects)
    };
    let created = async_nats::jetstream::new(client.clone()).create_stream(wanted).await;
    let created = created.map_err(|error| StreamError::jetstream(&config.stream, error))?;
    Ok(created.cached_info().clone())
}

/// When a stream was created, and its identity, as the database keeps them.
pub(crate) fn identity_shown(info: &Info) -> Result<(String, Uuid), StreamError> {
    let Identity { created, id, .. } = identity::of(info)?;
    Ok((created, id))
}

/// Checks a stream's settings.
pub(crate) fn check_contract(
    info: &async_nats::jetstream::stream::Info,
    config: &Config,
) -> Result<(), StreamError> {
    contract::check(&info.config, &Subjects::new(config.database.clone()))
}

/// Checks that a stream is the one that the database knows; its positions are not compared.
pub(crate) async fn check_identity(
    connection: &mut PgConnection,
    info: &async_nats::jetstream::stream::Info,
) -> Result<(), StreamError> {
    identity::known(connection, &info.config.name).await?.check(info)
}

/// Writes the identity of a stream down that the database does not know yet, or checks that it is
/// the one that it knows.
pub(crate) async fn register(
    connection: &mut PgConnection,
    config: &Config,
    info: &async_nats::jetstream::stream::Info,
) -> Result<(), StreamError> {
    let identity = identity::of(info)?;
    sqlx::query(
        "INSERT INTO farwrite.streams (name, created, identity, low_water)
         VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO NOTHING",
    )
    .bind(&config.stream)
    .bind(&identity.created)
    .bind(identity.id)
    // A stream that was trimmed before this database knew it begins where it begins.
    .bind(info.state.first_sequence.saturating_sub(1) as i64)
    .execute(&mut *connection)
    .await?;
    identity::known(connection, &config.stream).await?.check(info)
}
