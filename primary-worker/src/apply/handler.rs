//! Commands that are applied by Rust.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use farwrite_schemas::{Command, CommandId, CommandName, Key, NameError, Origin, Rejection};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use sqlx::PgConnection;

use super::by_name::ByName;

/// What is known about a command beside its body.
#[derive(Clone)]
#[non_exhaustive]
pub struct Meta {
    /// The command id. Derive the ids of rows from it, not from a sequence: after a failover that
    /// lost commits the command is applied again, and a sequence would give other numbers.
    pub id: CommandId,
    /// What it is ordered by.
    pub key: Option<Key>,
    /// The region that published it.
    pub origin: Origin,
    /// What it is called.
    pub name: CommandName,
    /// The version of its body's form.
    pub version: u32,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the stream stored it.
    pub published_at: SystemTime,
    /// What its `Farwrite-Context` says, a JSON object. The setting `farwrite.context` holds the
    /// same while it runs.
    pub context: Option<Box<str>>,
}

impl fmt::Debug for Meta {
    /// Without the context, which may say who acts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, key, origin, name, version, sequence, published_at, context: _ } = self;
        f.debug_struct("Meta")
            .field("id", id)
            .field("key", key)
            .field("origin", origin)
            .field("name", name)
            .field("version", version)
            .field("sequence", sequence)
            .field("published_at", published_at)
            .finish_non_exhaustive()
    }
}

/// Why a handler did not apply a command. Either way none of its effects stay.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// It refuses: the caller is told, and the same command would be refused again.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It wants to be tried again after so long (at most 366 days): it is parked, with what comes
    /// behind it in its key, and no attempt is spent.
    #[error("to be tried again after {} ms", .0.as_millis())]
    Later(Duration),
    /// A statement failed. What is done about it depends on the SQLSTATE: a constraint that the
    /// command violates rejects it, a deadlock is tried again, a lost connection waits.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Applies one kind of command, in the transaction of the batch that it is in.
///
/// It runs at least once and commits exactly once: an attempt that fails, or that shares its fate
/// with another command of its batch, is rolled back and run again. So it has no effects outside
/// `connection`, and it neither commits nor rolls back what it was given (it may `begin` a
/// transaction of its own within: that is a savepoint). Settings (`SET LOCAL`, a role) that it
/// leaves changed would meet other commands: it puts them back.
pub trait Handler<C: Command>: Send + Sync + 'static {
    /// Applies `command` and answers its output.
    ///
    /// # Errors
    /// A rejection, or the error of a statement, which is passed on with `?`.
    fn apply(
        &self,
        connection: &mut PgConnection,
        command: C,
        meta: &Meta,
    ) -> impl Future<Output = Result<C::Output, HandlerError>> + Send;
}

type Applying<'a> = Pin<Box<dyn Future<Output = Result<Box<RawValue>, HandlerError>> + Send + 'a>>;

/// A handler whose command's type is forgotten.
pub(crate) trait AnyHandler: Send + Sync {
    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        body: &'a [u8],
        meta: &'a Meta,
    ) -> Applying<'a>;
}

struct Typed<C, H> {
    handler: H,
    command: std::marker::PhantomData<fn() -> C>,
}

impl<C, H> AnyHandler for Typed<C, H>
where
    C: Command + DeserializeOwned + Send + 'static,
    C::Output: serde::Serialize + Send,
    H: Handler<C>,
{
    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        body: &'a [u8],
        meta: &'a Meta,
    ) -> Applying<'a> {
        Box::pin(async move {
            let command: C = decode(body)?;
            let output = self.handler.apply(connection, command, meta).await?;
            serde_json::value::to_raw_value(&output).map_err(|error| {
                Rejection::new(
                    "bad_output",
                    format!("the output cannot be written as JSON: {error}"),
                )
                .into()
            })
        })
    }
}

/// Another version's body, made into a newer one's.
struct Upcast<Old, New, F> {
    upcast: F,
    newer: Arc<dyn AnyHandler>,
    commands: std::marker::PhantomData<fn(Old) -> New>,
}

impl<Old, New, F> AnyHandler for Upcast<Old, New, F>
where
    Old: DeserializeOwned + Send + 'static,
    New: Command + 'static,
    F: Fn(Old) -> New + Send + Sync,
{
    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        body: &'a [u8],
        meta: &'a Meta,
    ) -> Applying<'a> {
        Box::pin(async move {
            let body = {
                let newer = (self.upcast)(decode(body)?);
                serde_json::to_vec(&newer).map_err(|error| {
                    Rejection::new("bad_body", format!("the newer body cannot be written: {error}"))
                })?
            };
            self.newer.apply(connection, &body, meta).await
        })
    }
}

fn decode<C: DeserializeOwned>(body: &[u8]) -> Result<C, Rejection> {
    serde_json::from_slice(body).map_err(|error| {
        Rejection::new("bad_body", format!("the body is not of the command's form: {error}"))
    })
}

/// A handler cannot be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandlersError {
    /// The command's name does not have a name's form.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is nothing to upcast to.
    #[error("{name} version {version} has no handler to upcast to: add that one first")]
    NoNewer {
        /// The newer command.
        name: &'static str,
        /// Its version.
        version: u32,
    },
}

/// The Rust handlers of a worker, by command name and version.
#[derive(Clone, Default)]
pub struct Handlers {
    by_name: ByName<Arc<dyn AnyHandler>>,
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.entries()).finish()
    }
}

impl Handlers {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the handler of a command's name and version; a later one replaces an earlier one.
    /// Several versions of one command stand side by side.
    ///
    /// # Errors
    /// When the command's name does not have a name's form.
    pub fn register<C, H>(mut self, handler: H) -> Result<Self, HandlersError>
    where
        C: Command + DeserializeOwned + Send + 'static,
        C::Output: serde::Serialize + Send,
        H: Handler<C>,
    {
        let typed = Typed { handler, command: std::marker::PhantomData };
        self.by_name.insert(CommandName::new(C::NAME)?, C::VERSION, Arc::new(typed));
        Ok(self)
    }

    /// Has an older version of a command applied by the newer one's handler, which was added
    /// before: `upcast` makes the one of the other. The output is the newer one's.
    ///
    /// # Errors
    /// When the newer one has no handler, or a name does not have a name's form.
    pub fn register_upcast<Old, New>(
        mut self,
        upcast: impl Fn(Old) -> New + Send + Sync + 'static,
    ) -> Result<Self, HandlersError>
    where
        Old: Command + DeserializeOwned + Send + 'static,
        New: Command + 'static,
    {
        let newer = CommandName::new(New::NAME)?;
        let Some(newer) = self.by_name.get(&newer, New::VERSION).map(Arc::clone) else {
            return Err(HandlersError::NoNewer { name: New::NAME, version: New::VERSION });
        };
        let upcast = Upcast { upcast, newer, commands: std::marker::PhantomData };
        self.by_name.insert(CommandName::new(Old::NAME)?, Old::VERSION, Arc::new(upcast));
        Ok(self)
    }

    pub(crate) fn get(&self, name: &CommandName, version: u32) -> Option<&Arc<dyn AnyHandler>> {
        self.by_name.get(name, version)
    }
}
