//! The producer itself: what its calls share, and the shortcuts for calls without options.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_nats::{Client, Subject, connection::State};
use farwrite_schemas::{Command, CommandId, Origin, Subjects};
use sqlx::PgPool;
use tokio::sync::{Mutex, Semaphore};

use crate::{
    journal::{JournalState, Keeping},
    limits::Limits,
    link::{inbox::Inbox, routes::Routes},
    outbox::{
        gather::Gatherer, message::Targets, publish::Accepted, publish_error::PublishError,
        turns::Turns,
    },
    reads::{
        read_at::Patience,
        servers::{NoReads, Reads},
    },
    submit::{Committed, SubmitError},
    write::{Visible, WriteError},
};

/// What an app holds: cheap to clone, and all clones are one producer. Its calls are futures that
/// own what they need, so that they can be spawned. The last clone takes the inbox down.
#[derive(Clone, Debug)]
pub struct Producer {
    pub(crate) inner: Arc<Inner>,
}

/// What all calls share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) client: Client,
    pub(crate) subjects: Subjects,
    pub(crate) origin: Origin,
    pub(crate) outcome_subject: Subject,
    pub(crate) lag_subject: Subject,
    pub(crate) targets: Targets,
    pub(crate) inbox: Inbox,
    pub(crate) routes: Arc<Routes>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) in_flight: Semaphore,
    /// `None` where every command is published alone.
    pub(crate) gatherer: Option<Gatherer>,
    pub(crate) pending: AtomicUsize,
    pub(crate) limits: Limits,
    pub(crate) reads: Reads,
    pub(crate) patience: Patience,
    pub(crate) regions: Vec<Origin>,
    pub(crate) journal: Option<Arc<Keeping>>,
    /// One `reconcile` at a time.
    pub(crate) reconciling: Mutex<()>,
}

/// What a producer holds at a moment. All zero when no call is pending and no key is blocked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Calls of any verb.
    pub calls: usize,
    /// Publishes that wait for their acknowledgement.
    pub in_flight: usize,
    /// Messages and questions whose answer is awaited. A batch counts as one, and until it is
    /// answered, though its calls were dropped.
    pub answers: usize,
    /// Submits and writes whose reply is awaited.
    pub replies: usize,
    /// Keys with calls, or blocked.
    pub keys: usize,
    /// Keys that an unresolved publish blocks.
    pub blocked_keys: usize,
}

impl Producer {
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

    /// The pool for this region's reads: on its replica, or on the primary where the producer was
    /// built so. It connects when it is first used.
    ///
    /// What a `write` or [`Producer::wait`] said to be visible is visible on every connection of
    /// it, also after the replica crashed and came back behind. It sets no timeouts: a reader that
    /// may be dropped needs a `statement_timeout`, because a dropped query runs on.
    ///
    /// # Errors
    /// When the producer was built without a database to read from.
    pub fn reads(&self) -> Result<&PgPool, NoReads> {
        self.inner.reads.pool()
    }

    /// What the journal holds; `None` where the producer was built without one.
    #[must_use]
    pub fn journal(&self) -> Option<JournalState> {
        self.inner.journal.as_ref().map(|journal| journal.state())
    }

    /// Takes a command out of the journal, whatever becomes of it: it will not be sent again. For
    /// what a [`ReconcileReport`](crate::ReconcileReport) leaves to the app. False when it is not
    /// in the journal.
    pub fn forget(&self, id: CommandId) -> bool {
        self.inner.journal.as_ref().is_some_and(|journal| journal.forget(id))
    }

    /// The connection to NATS.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// The region that this producer publishes from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.inner.origin
    }

    /// What is held at this moment.
    #[must_use]
    pub fn pending(&self) -> Pending {
        let inner = &self.inner;
        let (answers, replies) = inner.routes.waiting();
        let (keys, blocked_keys) = inner.turns.counts();
        Pending {
            calls: inner.pending.load(Ordering::SeqCst),
            in_flight: inner.limits.max_in_flight - inner.in_flight.available_permits(),
            answers,
            replies,
            keys,
            blocked_keys,
        }
    }
}

impl Inner {
    /// The outcome of a command was heard, and is final: the journal need not keep it any longer.
    pub(crate) fn forget_ended(&self, id: CommandId) {
        if let Some(journal) = &self.journal {
            journal.end(id);
        }
    }

    /// Whether NATS is connected at this moment.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }
}

/// A place among the pending calls.
#[derive(Debug)]
pub(crate) struct Place(Arc<Inner>);

impl Place {
    /// Takes a place; `None` when all are taken.
    pub(crate) fn take(inner: &Arc<Inner>) -> Option<Self> {
        let limit = inner.limits.max_pending;
        let one_more = |pending| (pending < limit).then_some(pending + 1);
        let taken = inner.pending.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        taken.is_ok().then(|| Self(Arc::clone(inner)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::SeqCst);
    }
}
