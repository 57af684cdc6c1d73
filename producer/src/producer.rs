//! The producer itself: what its calls share. The verbs are in `call.rs`.

use std::{fmt, sync::Arc};

use async_nats::Client;
use farwrite_schemas::{CommandId, Origin};
use tokio::sync::Mutex;

use crate::{
    journal::{JournalState, Keeping},
    limits::Limits,
    link::nats::NatsLink,
    outbox::{finish::Finisher, send::Outbox},
    pending::PendingCalls,
    questions::ask::Questions,
    reads::{elsewhere::OtherRegions, wait::Reads},
};

/// What an app holds: cheap to clone, and all clones are one producer. Its calls are futures that
/// own what they need, so that they can be spawned. The last clone takes the inbox down.
#[derive(Clone)]
pub struct Producer {
    pub(crate) parts: Arc<Parts>,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("database", self.parts.reads.database())
            .field("origin", &self.parts.origin)
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}

/// What a producer is made of. Each part owns its state.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) origin: Origin,
    pub(crate) limits: Limits,
    /// The regions that a call waits for where it says "everywhere".
    pub(crate) regions: Vec<Origin>,
    pub(crate) calls: Arc<PendingCalls>,
    pub(crate) link: Arc<NatsLink>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) _finisher: Finisher,
    pub(crate) questions: Questions,
    pub(crate) reads: Arc<Reads>,
    pub(crate) others: OtherRegions,
    pub(crate) journal: Option<Arc<Keeping>>,
    /// One `reconcile` at a time.
    pub(crate) reconciling: Mutex<()>,
}

/// What a producer holds at a moment. All zero when no call is pending and no key is blocked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
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
    /// What the journal holds; `None` where the producer was built without one.
    #[must_use]
    pub fn journal(&self) -> Option<JournalState> {
        self.parts.journal.as_ref().map(|journal| journal.state())
    }

    /// Takes a command out of the journal, so that it is not sent again. For the commands that a
    /// [`ReconcileReport`](crate::ReconcileReport) leaves to the app. False when the command is not
    /// in the journal.
    pub fn forget(&self, id: CommandId) -> bool {
        self.parts.journal.as_ref().is_some_and(|journal| journal.forget(id))
    }

    /// The connection to NATS.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.parts.link.client
    }

    /// The region that this producer publishes from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.parts.origin
    }

    /// What is held at this moment.
    #[must_use]
    pub fn pending(&self) -> Pending {
        let Parts { calls, link, outbox, .. } = &*self.parts;
        let (answers, replies) = link.routes.waiting();
        let (keys, blocked_keys) = outbox.turns.counts();
        let (calls, in_flight) = (calls.count(), outbox.in_flight());
        Pending { calls, in_flight, answers, replies, keys, blocked_keys }
    }
}
