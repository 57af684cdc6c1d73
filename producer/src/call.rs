//! One call: a command with its id and its time, on which a verb is chosen.
//!
//! Everything that can be done without waiting is done when the verb is called, not when its future
//! is first polled: the deadline starts, the place in the key's queue is taken and the route of the
//! reply is laid. So "in call order" means the order in which the verbs were called, and a future
//! that is dropped unpolled leaves as little behind as one that was half done.

use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use farwrite_schemas::{Command, CommandId, Key, Origin};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    limits::TIMEOUT_MAX,
    outbox::{
        accepted::Accepted,
        invalid::InvalidCommand,
        prepared::Prepared,
        publish_error::PublishError,
        terms::{self, CallTerms, CallTime},
    },
    producer::Producer,
    raw_command::RawCommand,
    submit::{Awaiting, Committed},
    submit_error::SubmitError,
    write::{Visible, WriteError},
};

/// A call that has not chosen its verb. `O` is the command's output.
#[must_use = "choose a verb: publish, submit or write"]
pub struct Call<O> {
    producer: Producer,
    id: CommandId,
    timeout: Duration,
    wishes: CallTerms,
    also_in: Vec<Origin>,
    prepared: Result<Prepared, InvalidCommand>,
    output: PhantomData<fn() -> O>,
}

/// Without the command, which is the app's.
impl<O> fmt::Debug for Call<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, timeout, also_in, .. } = self;
        f.debug_struct("Call")
            .field("id", id)
            .field("timeout", timeout)
            .field("also_in", also_in)
            .finish_non_exhaustive()
    }
}

impl Producer {
    /// Begins a call for a typed command, with a new id and the default timeout.
    pub fn call<C: Command>(&self, command: &C) -> Call<C::Output> {
        Call::new(self, prepare(self, command))
    }

    /// Begins a call for a command without a Rust type, with a new id and the default timeout.
    pub fn call_raw(&self, command: RawCommand) -> Call<Box<RawValue>> {
        let RawCommand { name, version, key, body } = command;
        let body = Bytes::from(String::from(Box::<str>::from(body)));
        Call::new(self, self.parts.outbox.prepare(&name, version, key, body))
    }

    /// Publishes a command with a new id and the default timeout. See
    /// [`Call::publish`](crate::Call::publish).
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn publish<C: Command>(
        &self,
        command: &C,
    ) -> impl Future<Output = Result<Accepted, PublishError>> + use<C> {
        self.call(command).publish()
    }

    /// Submits a command with a new id and the default timeout. See
    /// [`Call::submit`](crate::Call::submit).
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit<C: Command>(
        &self,
        command: &C,
    ) -> impl Future<Output = Result<Committed<C::Output>, SubmitError>> + use<C> {
        self.call(command).submit()
    }

    /// Writes a command with a new id and the default timeout. See
    /// [`Call::write`](crate::Call::write).
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn write<C: Command>(
        &self,
        command: &C,
    ) -> impl Future<Output = Result<Visible<C::Output>, WriteError<C::Output>>> + use<C> {
        self.call(command).write()
    }
}

fn prepare<C: Command>(producer: &Producer, command: &C) -> Result<Prepared, InvalidCommand> {
    let body = Bytes::from(serde_json::to_vec(command)?);
    let key = command.key().map(Key::new).transpose()?;
    producer.parts.outbox.prepare(C::NAME, C::VERSION, key, body)
}

impl<O> Call<O> {
    fn new(producer: &Producer, prepared: Result<Prepared, InvalidCommand>) -> Self {
        Self {
            producer: producer.clone(),
            id: CommandId::now(),
            timeout: producer.parts.limits.timeout,
            wishes: CallTerms::default(),
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
        self.wishing(|wishes| wishes.expires = Some(CallTime::At(time)))
    }

    /// The same, counted from the call of the verb.
    pub fn expires_in(self, duration: Duration) -> Self {
        self.wishing(|wishes| wishes.expires = Some(CallTime::In(duration)))
    }

    /// Has the command applied at this time at the earliest, by the database's clock. Until then it
    /// is parked, and has no place in its key's order: what comes later with its key overtakes it,
    /// and it takes its place behind what is there when it is due.
    ///
    /// A `submit` or `write` waits no longer for it: when its own time is up first it ends as timed
    /// out, the command stays accepted and is applied when it is due. `publish` is the verb for
    /// what is not due soon; its outcome can be asked for by its id.
    pub fn not_before(self, time: SystemTime) -> Self {
        self.wishing(|wishes| wishes.not_before = Some(CallTime::At(time)))
    }

    /// The same, counted from the call of the verb.
    pub fn delay(self, duration: Duration) -> Self {
        self.wishing(|wishes| wishes.not_before = Some(CallTime::In(duration)))
    }

    /// Says of the caller what row-level security and triggers may want to know: something that
    /// is written as a JSON object of at most [`CONTEXT_MAX_BYTES`](crate::CONTEXT_MAX_BYTES). The command finds it in the
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
        let regions = self.producer.parts.regions.clone();
        self.visible_in(regions)
    }

    fn wishing(mut self, wish: impl FnOnce(&mut CallTerms)) -> Self {
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
        let outbox = &producer.parts.outbox;
        let entered = Prepared::checked(id, prepared, wishes)
            .and_then(|(prepared, terms)| outbox.enter(id, timeout, prepared, terms, None));
        async move { producer.parts.outbox.publish(&mut entered?).await }
    }

    /// Enters with a call whose reply is awaited: the route is laid before anything is sent.
    fn enter_awaiting(self) -> Result<Awaiting, PublishError> {
        let Self { producer, id, timeout, wishes, prepared, .. } = self;
        let parts = &producer.parts;
        let (prepared, terms) = Prepared::checked(id, prepared, wishes)?;
        let fingerprint = prepared.fingerprint();
        let inbox = parts.link.inbox.for_reply(fingerprint);
        let entered = parts.outbox.enter(id, timeout, prepared, terms, Some(inbox))?;
        let reply = parts.link.routes.expect_reply(id, fingerprint);
        Ok(Awaiting { entered, fingerprint, reply })
    }
}

impl<O: DeserializeOwned> Call<O> {
    /// Submits: answers when the primary has committed the command's outcome.
    ///
    /// # Errors
    /// See [`SubmitError`]; every error says how far the command is known to have come.
    pub fn submit(self) -> impl Future<Output = Result<Committed<O>, SubmitError>> + use<O> {
        let parts = Arc::clone(&self.producer.parts);
        let awaiting = self.enter_awaiting();
        async move { parts.submit(awaiting?, || {}).await?.committed() }
    }

    /// Writes: answers when this region's replica shows the command's effects. Where reads go to
    /// the primary, that is as soon as they are committed.
    ///
    /// # Errors
    /// See [`WriteError`]; one that comes after the commit carries the output and the bookmark.
    pub fn write(self) -> impl Future<Output = Result<Visible<O>, WriteError<O>>> + use<O> {
        let parts = Arc::clone(&self.producer.parts);
        let id = self.id;
        let also_in = self.also_in.clone();
        let awaiting = parts.reads.show_writes().then(|| self.enter_awaiting());
        async move {
            let awaiting = awaiting.ok_or(WriteError::NoReads { id })?;
            parts.write(awaiting.map_err(SubmitError::from)?, &also_in).await
        }
    }
}
