//! One call: a command with its id and its time, on which a verb is chosen.
//!
//! Everything that can be done without waiting is done when the verb is called, not when its future
//! is first polled: the deadline starts, the place in the key's queue is taken and the route of the
//! reply is laid. So "in call order" means the order in which the verbs were called, and a future
//! that is dropped unpolled leaves as little behind as one that was half done.

use std::{
    marker::PhantomData,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use farwrite_schemas::{
    BODY_MAX_BYTES, CONTEXT_MAX_BYTES, Command, CommandId, Fingerprint, Key, KeyError, NameError,
    Origin,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::{
    limits::TIMEOUT_MAX,
    link::routes::ReplyRoute,
    outbox::{
        message::{Message, Target, fingerprint},
        publish::Accepted,
        publish_error::{Known, PublishError, SizeLimit},
        terms::{self, Moment, Terms, Wishes},
        turns::Turn,
    },
    producer::{Place, Producer},
    submit::{Committed, SubmitError},
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
    /// A time lies before 1970 or behind the year 2262.
    #[error("the time for its header {header} does not lie between 1970 and the year 2262")]
    Time {
        /// The header that would carry it.
        header: &'static str,
    },
    /// It expired before it was sent, by this machine's clock. An earlier attempt under its id may
    /// have been accepted all the same: ask for its outcome.
    #[error("it expired at {expires_at_ms} (Unix milliseconds), before it was sent")]
    Expired {
        /// When, in Unix milliseconds.
        expires_at_ms: u64,
    },
    /// It would always have expired when its time comes.
    #[error(
        "it would expire at {expires_at_ms}, and not be applied before {not_before_ms} (Unix milliseconds)"
    )]
    ExpiresFirst {
        /// When it expires, in Unix milliseconds.
        expires_at_ms: u64,
        /// When it is to be applied at the earliest, in Unix milliseconds.
        not_before_ms: u64,
    },
    /// Its context is no JSON object, or too large.
    #[error("its context is not a JSON object of at most {CONTEXT_MAX_BYTES} bytes")]
    Context,
    /// Its type, or that of its context, could not be written as JSON.
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
    wishes: Wishes,
    also_in: Vec<Origin>,
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
            wishes: Wishes::default(),
            also_in: Vec::new(),
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

    /// Has the command applied before this time or never: when its turn comes later, by the
    /// database's clock, it ends as expired, without effects.
    ///
    /// The verb refuses an expiry that has passed, or that comes before the command may be applied
    /// at all. So a retry of a command that was sent before can be refused here, though the first
    /// attempt was accepted: [`Producer::outcome`] tells.
    pub fn expires_at(self, time: SystemTime) -> Self {
        self.wishing(|wishes| wishes.expires = Some(Moment::At(time)))
    }

    /// The same, counted from the call of the verb.
    pub fn expires_in(self, duration: Duration) -> Self {
        self.wishing(|wishes| wishes.expires = Some(Moment::In(duration)))
    }

    /// Has the command applied at this time at the earliest, by the database's clock. Until then it
    /// is parked, and has no place in its key's order: what comes later with its key overtakes it,
    /// and it takes its place behind what is there when it is due.
    ///
    /// A `submit` or `write` waits no longer for it: when its own time is up first it ends as timed
    /// out, the command stays accepted and is applied when it is due. `publish` is the verb for
    /// what is not due soon; its outcome can be asked for by its id.
    pub fn not_before(self, time: SystemTime) -> Self {
        self.wishing(|wishes| wishes.not_before = Some(Moment::At(time)))
    }

    /// The same, counted from the call of the verb.
    pub fn delay(self, duration: Duration) -> Self {
        self.wishing(|wishes| wishes.not_before = Some(Moment::In(duration)))
    }

    /// Says of the caller what row-level security and triggers may want to know: something that
    /// is written as a JSON object of at most [`CONTEXT_MAX_BYTES`]. The command finds it in the
    /// setting `farwrite.context`, where the worker allows its members (`context-allow`);
    /// otherwise it is rejected. It does not tell one command from another: the same id with
    /// another context is the same command.
    pub fn context(mut self, context: impl Serialize) -> Self {
        match terms::context(context) {
            Ok(context) => self.wishing(|wishes| wishes.context = Some(context)),
            Err(error) => {
                self.prepared = self.prepared.and(Err(error));
                self
            }
        }
    }

    /// Has a `write` wait until these regions show the command's effects, too, within the call's
    /// time; see [`Producer::wait_in`]. Those that do not are named in
    /// [`WriteError::NotEverywhere`]. The other verbs do not look at it.
    pub fn visible_in(mut self, regions: impl IntoIterator<Item = Origin>) -> Self {
        self.also_in = regions.into_iter().collect();
        self
    }

    /// The same for every region that the producer was told of
    /// ([`Builder::regions`](crate::Builder::regions)).
    pub fn visible_everywhere(self) -> Self {
        let regions = self.producer.inner.regions.clone();
        self.visible_in(regions)
    }

    fn wishing(mut self, wish: impl FnOnce(&mut Wishes)) -> Self {
        wish(&mut self.wishes);
        self
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
        let Self { producer, id, timeout, wishes, prepared, .. } = self;
        let entered = checked(id, prepared, wishes)
            .and_then(|(prepared, terms)| enter(&producer, id, timeout, prepared, terms, None));
        async move { producer.inner.publish(&mut entered?).await }
    }

    /// The same for a call whose reply is awaited: the route is laid before anything is sent.
    fn enter_awaiting(self) -> Result<Awaiting, PublishError> {
        let Self { producer, id, timeout, wishes, prepared, .. } = self;
        let (prepared, terms) = checked(id, prepared, wishes)?;
        let Prepared { target, version, key, body } = &prepared;
        let fingerprint = fingerprint(target, *version, key.as_ref(), body);
        let inner = &producer.inner;
        let inbox = inner.inbox.for_reply(fingerprint);
        let entered = enter(&producer, id, timeout, prepared, terms, Some(inbox))?;
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
        async move { producer.inner.submit(awaiting?, || {}).await?.committed() }
    }

    /// Writes: answers when this region's replica shows the command's effects. Where reads go to
    /// the primary, that is as soon as they are committed.
    ///
    /// # Errors
    /// See [`WriteError`]; one that comes after the commit carries the output and the bookmark.
    pub fn write(self) -> impl Future<Output = Result<Visible<O>, WriteError<O>>> + use<O> {
        let producer = self.producer.clone();
        let id = self.id;
        let also_in = self.also_in.clone();
        let awaiting = producer.inner.reads.shows_writes().then(|| self.enter_awaiting());
        async move {
            let awaiting = awaiting.ok_or(WriteError::NoReads { id })?;
            producer.inner.write(awaiting.map_err(SubmitError::from)?, &also_in).await
        }
    }
}

fn checked(
    id: CommandId,
    prepared: Result<Prepared, InvalidCommand>,
    wishes: Wishes,
) -> Result<(Prepared, Terms), PublishError> {
    let invalid = |source| PublishError::Invalid { id, source };
    let prepared = prepared.map_err(invalid)?;
    let terms = wishes.terms(SystemTime::now()).map_err(invalid)?;
    let bytes = prepared.body.len();
    if bytes > BODY_MAX_BYTES {
        let (limit, known) = (SizeLimit::Body, Known::NotAccepted);
        return Err(PublishError::TooLarge { id, bytes, limit, known });
    }
    Ok((prepared, terms))
}

fn enter(
    producer: &Producer,
    id: CommandId,
    timeout: Duration,
    prepared: Prepared,
    terms: Terms,
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
    let message = Arc::new(Message { id, target, version, key, body, terms, reply });
    Ok(Entered { message, turn, began, deadline: began + timeout, _place: place })
}
