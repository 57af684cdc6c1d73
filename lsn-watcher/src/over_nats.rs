//! The watcher through a region's `lsn-watcher` program: it says what is waited for and hears how
//! far the replica has come.
//!
//! The program is authoritative and this side keeps saying its interest while it lasts, so nothing
//! needs an acknowledgement: a lost message, a program or a broker that restarts, and an app that
//! comes late only delay. An interest is said
//!
//! - when somebody waits for more than was declared,
//! - when somebody waits only because the mark is not fresh (the program answers every interest),
//! - when somebody waits on a branch of history that is not known or in doubt,
//! - and again at an interval while anybody waits.
//!
//! It is not said while NATS is down: the client would keep it and deliver it late, and the
//! repetition does better.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, Message, connection::State};
use farwrite_schemas::{Epoch, Interest, Lsn, Origin, Progress, Subjects};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep_until};

use crate::{
    ConfigError, EmbeddedConfig, GoneReason,
    board::{Board, Limits},
    branches::Told,
    metrics,
    poll::Audience,
    replica::Sight,
};

/// How to watch through the region's program.
#[derive(Clone, Debug)]
pub struct NatsConfig {
    /// How often an interest is repeated while it lasts. The program forgets one after
    /// [`RegionConfig::TTL`](crate::RegionConfig::TTL).
    pub repeat: Duration,
    /// The most callers that may wait at once; further ones get
    /// [`TooManyWaiters`](crate::WaitError::TooManyWaiters).
    pub max_waiters: usize,
}

impl NatsConfig {
    /// 500 ms: four times within the program's memory, and two messages a second for a wait that
    /// lasts.
    pub const REPEAT: Duration = Duration::from_millis(500);
    /// 20 ms: the answer to an interest costs a message to every app of the region, so a little
    /// more is believed than beside the replica; still less than a server needs to crash and serve
    /// again.
    const FRESH_FOR: Duration = Duration::from_millis(20);
    /// 250 ms: an interest is answered within a round trip inside the region.
    const ANSWER_WITHIN: Duration = Duration::from_millis(250);
    /// 20 ms between two questions about a branch that is in doubt, as long as somebody waits: a
    /// replica whose timeline is not told is proven by a row, at most a second later.
    const DOUBT_INTERVAL: Duration = Duration::from_millis(20);
    /// The least time between two interests of one app, however many callers come: the program
    /// would not poll more often either.
    const LEAST_INTERVAL: Duration = Duration::from_millis(1);

    /// Checks every setting.
    ///
    /// # Errors
    /// With the first setting that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let error = |field, rule| Err(ConfigError { field, rule });
        if self.repeat < Duration::from_millis(10) || self.repeat > Duration::from_secs(1) {
            return error("repeat", "10 ms to 1 s, half of what the program remembers");
        }
        if self.max_waiters == 0 {
            return error("max_waiters", "at least 1");
        }
        Ok(())
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_waiters: self.max_waiters,
            fresh_for: Self::FRESH_FOR,
            // Two repetitions went unanswered, and a half for the way.
            forget_after: self.repeat * 5 / 2,
            answer_within: Self::ANSWER_WITHIN,
        }
    }
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self { repeat: Self::REPEAT, max_waiters: EmbeddedConfig::MAX_WAITERS }
    }
}

pub(crate) struct OverNats {
    client: Client,
    progress_subject: String,
    watch_subject: String,
    board: Arc<Board>,
    repeat: Duration,
    declared: Option<Declared>,
}

/// The last interest that was said, and not yet over.
#[derive(Clone, Debug)]
struct Declared {
    lsn: Lsn,
    epochs: Vec<Epoch>,
    said_at: Instant,
}

impl OverNats {
    pub(crate) fn new(
        client: Client,
        subjects: &Subjects,
        region: &Origin,
        board: Arc<Board>,
        config: NatsConfig,
    ) -> Self {
        Self {
            client,
            progress_subject: subjects.progress(region),
            watch_subject: subjects.watch(region),
            board,
            repeat: config.repeat,
            declared: None,
        }
    }

    /// Runs until the client is closed for good.
    pub(crate) async fn run(mut self) {
        let heard = match self.client.subscribe(self.progress_subject.clone()).await {
            Ok(heard) => heard,
            Err(error) => {
                tracing::error!(%error, "the region's progress cannot be listened to");
                return;
            }
        };
        let mut heard = heard.fuse();
        loop {
            let board = Arc::clone(&self.board);
            // What was heard first: it may end the interest. Then saying it, which is bounded by
            // the least interval. New callers last, since they only make an interest due.
            tokio::select! {
                biased;
                message = heard.next() => match message {
                    Some(message) => self.hear(&message).await,
                    None => break,
                },
                () = until(self.due()) => self.say().await,
                () = board.demanded() => {}
            }
        }
        tracing::warn!("the NATS client was closed: no progress will be heard any more");
    }

    /// When to say the interest; `None` while nobody waits.
    fn due(&mut self) -> Option<Instant> {
        let Some(wanted) = self.board.wanted() else {
            self.declared = None;
            return None;
        };
        let Some(declared) = &self.declared else { return Some(Instant::now()) };
        let is_news = wanted.highest > declared.lsn
            || wanted.renew_after.is_some_and(|moment| declared.said_at < moment)
            || wanted.epochs.iter().any(|epoch| !declared.epochs.contains(epoch));
        let pause = if is_news {
            NatsConfig::LEAST_INTERVAL
        } else if wanted.epochs.is_empty() {
            self.repeat
        } else {
            NatsConfig::DOUBT_INTERVAL
        };
        Some(declared.said_at + pause)
    }

    async fn say(&mut self) {
        let Some(wanted) = self.board.wanted() else { return };
        let (lsn, epochs) = (wanted.highest, wanted.epochs);
        let (said_at, asked) = (Instant::now(), epochs.clone());
        self.declared = Some(Declared { lsn, epochs: asked, said_at });
        if self.client.connection_state() != State::Connected {
            return self.board.lost(GoneReason::NatsDown).await;
        }
        self.board.way_is_open();
        self.board.asking();
        let Ok(interest) = serde_json::to_vec(&Interest { lsn, epochs }) else { return };
        metrics::interest();
        if let Err(error) = self.client.publish(self.watch_subject.clone(), interest.into()).await {
            tracing::warn!(%error, "an interest could not be published");
        }
    }

    async fn hear(&self, message: &Message) {
        let progress: Progress = match serde_json::from_slice(&message.payload) {
            Ok(progress) => progress,
            Err(error) => {
                tracing::warn!(%error, "a message of progress could not be read");
                return;
            }
        };
        let Progress { replayed, server_start_us, in_recovery, timeline, branches, unreadable } =
            progress;
        if replayed.is_none() && in_recovery {
            return self.board.lost(GoneReason::ToldByWatcher).await;
        }
        let sight = Sight { replayed, timeline, server_start_us, in_recovery };
        self.board.saw(sight).await;
        let is_present = self.board.server_start_us() == Some(server_start_us);
        if is_present && (!branches.is_empty() || unreadable.is_some()) {
            let unreadable = unreadable.map(Into::into);
            self.board.told(Told { branches, unreadable }).await;
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
