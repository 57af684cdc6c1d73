//! One call: a command with its id and its time, on which a verb is chosen.
//!
//! Everything that can be done without waiting is done when the verb is called, not when its future
//! is first polled: the deadline starts, the place in the key's queue is taken and the route of the
//! reply is laid. So "in call order" means the order in which the verbs were called, and a future
//! that is dropped unpolled leaves as little behind as one that was half done.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use bytes::Bytes;
use farwrite_schemas::{BODY_MAX_BYTES, Command, CommandId, Fingerprint, Key, KeyError, NameError};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::{
    limits::TIMEOUT_MAX,
    message::{Message, Target, fingerprint},
    producer::{Place, Producer},
    publish::Accepted,
    publish_error::{Known, PublishError, SizeLimit},
    routes::ReplyRoute,
    submit::{Committed, SubmitError},
    turns::Turn,
    write::{Visible, WriteError},
};

/// A command without a Rust type: its name, and its body as JSON. Its output is JSON too.
#[derive(Clone, Debug)]
pub struct RawCommand {
    /// What it is called, such as `order.place`.
    pub name: String,
    /// The version of its body's form; usually 1.
    pub version: u32,
    /// What it is ordered by; `None` where no order is needed.
    pub key: Option<Key>,
    /// Its body, byte for byte: the same JSON written differently is another body to the ledger.
    pub body: Box<RawValue>,
}

/// A command cannot be one.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCommand {
    /// Its name does not have a name's form.
    #[error("its {0}")]
    Name(#[from] NameError),
    /// Its key does not have a key's form.
    #[error("its key: {0}")]
    Key(#[from] KeyError),
    /// Its version is 0 or larger than PostgreSQL's `integer`.
    #[error("its version {0} is not between 1 and 2147483647")]
    Version(u32),
    /// Its type could not be written as JSON.
    #[error("it cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// A command on its way to the wire, without its id.
#[derive(Debug)]
pub(crate) struct Prepared {
    target: Arc<Target>,
    version: u32,
    key: Option<Key>,
    body: Bytes,
}

/// A call that has not chosen its verb. `O` is the command's output.
#[must_use = "choose a verb: publish, submit or write"]
#[derive(Debug)]
pub struct Call<O> {
    producer: Producer,
    id: CommandId,
    timeout: Duration,
    prepared: Result<Prepared, InvalidCommand>,
    output: PhantomData<fn() -> O>,
}

/// A call that has its place: in the count of pending calls and in its key's queue.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) message: Arc<Message>,
    pub(crate) turn: Option<Turn>,
    pub(crate) began: Instant,
    pub(crate) deadline: Instant,
    _place: Place,
}

/// A call that also waits for its reply.
#[derive(Debug)]
pub(crate) struct Awaiting {
    pub(crate) entered: Entered,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) reply: ReplyRoute,
}

impl Producer {
    /// Begins a call for a typed command, with a new id and the default timeout.
    pub fn call<C: Command>(&self, command: &C) -> Call<C::Output> {
        Call::new(self, self.prepare(command))
    }

    /// Begins a call for a command without a Rust type, with a new id and the default timeout.
    pub fn call_raw(&self, command: RawCommand) -> Call<Box<RawValue>> {
        Call::new(self, self.prepare_raw(command))
    }

    fn prepare<C: Command>(&self, command: &C) -> Result<Prepared, InvalidCommand> {
        let body = Bytes::from(serde_json::to_vec(command)?);
        self.address(C::NAME, C::VERSION, command.key()?, body)
    }

    fn prepare_raw(&self, command: RawCommand) -> Result<Prepared, InvalidCommand> {
        let RawCommand { name, version, key, body } = command;
        let body = Bytes::from(String::from(Box::<str>::from(body)));
        self.address(&name, version, key, body)
    }

    fn address(
        &self,
        name: &str,
        version: u32,
        key: Option<Key>,
        body: Bytes,
    ) -> Result<Prepared, InvalidCommand> {
        if version == 0 || i32::try_from(version).is_err() {
            return Err(InvalidCommand::Version(version));
        }
        Ok(Prepared { target: self.inner.targets.of(name)?, version, key, body })
    }
}

impl<O> Call<O> {
    fn new(producer: &Producer, prepared: Result<Prepared, InvalidCommand>) -> Self {
        Self {
            producer: producer.clone(),
            id: CommandId::now(),
            timeout: producer.inner.limits.timeout,
            prepared,
            output: PhantomData,
        }
    }

    /// Gives the command an id of the caller's: one that was used before, to try again without a
    /// second effect, or one that is derived from something natural.
    pub fn id(self, id: CommandId) -> Self {
        Self { id, ..self }
    }

    /// Gives the call another time, from the verb to its answer; at most [`TIMEOUT_MAX`].
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: timeout.min(TIMEOUT_MAX), ..self }
    }

    /// The id that the command has or will have.
    #[must_use]
    pub const fn command_id(&self) -> CommandId {
        self.id
    }

    /// Publishes: answers when the stream has stored the command.
    ///
    /// # Errors
    /// See [`PublishError`]; every error says what is known of the command.
    pub fn publish(self) -> impl Future<Output = Result<Accepted, PublishError>> + use<O> {
        let producer = self.producer.clone();
        let entered = self.enter();
        async move { producer.inner.publish(&mut entered?).await }
    }

    /// Checks the command and takes its place.
    fn enter(self) -> Result<Entered, PublishError> {
        let Self { producer, id, timeout, prepared, .. } = self;
        let prepared = checked(id, prepared)?;
        enter(&producer, id, timeout, prepared, None)
    }

    /// The same for a call whose reply is awaited: the route is laid before anything is sent.
    fn enter_awaiting(self) -> Result<Awaiting, PublishError> {
        let Self { producer, id, timeout, prepared, .. } = self;
        let prepared = checked(id, prepared)?;
        let Prepared { target, version, key, body } = &prepared;
        let fingerprint = fingerprint(target, *version, key.as_ref(), body);
        let inner = &producer.inner;
        let inbox = inner.inbox.for_reply(fingerprint);
        let entered = enter(&producer, id, timeout, prepared, Some(inbox))?;
        Ok(Awaiting { entered, fingerprint, reply: inner.routes.expect_reply(id, fingerprint) })
    }
}

impl<O: DeserializeOwned> Call<O> {
    /// Submits: answers when the primary has committed the command's outcome.
    ///
    /// # Errors
    /// See [`SubmitError`]; every error says how far the command is known to have come.
    pub fn submit(self) -> impl Future<Output = Result<Committed<O>, SubmitError>> + use<O> {
        let producer = self.producer.clone();
        let awaiting = self.enter_awaiting();
        async move { producer.inner.submit(awaiting?).await?.committed() }
    }

    /// Writes: answers when this region's replica shows the command's effects. Where reads go to
    /// the primary, that is as soon as they are committed.
    ///
    /// # Errors
    /// See [`WriteError`]; one that comes after the commit carries the output and the bookmark.
    pub fn write(self) -> impl Future<Output = Result<Visible<O>, WriteError<O>>> + use<O> {
        let producer = self.producer.clone();
        let id = self.id;
        let awaiting = producer.inner.reads.shows_writes().then(|| self.enter_awaiting());
        async move {
            let awaiting = awaiting.ok_or(WriteError::NoReads { id })?;
            producer.inner.write(awaiting.map_err(SubmitError::from)?).await
        }
    }
}

fn checked(
    id: CommandId,
    prepared: Result<Prepared, InvalidCommand>,
) -> Result<Prepared, PublishError> {
    let prepared = prepared.map_err(|source| PublishError::Invalid { id, source })?;
    let bytes = prepared.body.len();
    if bytes > BODY_MAX_BYTES {
        let (limit, known) = (SizeLimit::Body, Known::NotAccepted);
        return Err(PublishError::TooLarge { id, bytes, limit, known });
    }
    Ok(prepared)
}

fn enter(
    producer: &Producer,
    id: CommandId,
    timeout: Duration,
    prepared: Prepared,
    reply: Option<Box<str>>,
) -> Result<Entered, PublishError> {
    let began = Instant::now();
    let inner = &producer.inner;
    let place = Place::take(inner)
        .ok_or(PublishError::TooManyPending { id, limit: inner.limits.max_pending })?;
    let Prepared { target, version, key, body } = prepared;
    let turn =
        key.as_ref().map(|key| inner.turns.enter(key)).transpose().map_err(|_| {
            PublishError::TooManyBlockedKeys { id, blocked: inner.turns.counts().1 }
        })?;
    let message = Arc::new(Message { id, target, version, key, body, reply });
    Ok(Entered { message, turn, began, deadline: began + timeout, _place: place })
}
