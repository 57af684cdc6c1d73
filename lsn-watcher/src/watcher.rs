//! The handle that callers hold.
//!
//! Clones share one board and one task. The task belongs to the last handle: when that is dropped
//! the task is ended, its connection is closed, and every wait that is left ends with
//! [`WaitError::Closed`]. The same happens when the task ends by itself.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use farwrite_internal::Alarm;
use farwrite_schemas::{Lsn, Origin, Subjects};
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    answer::{Reached, WaitError},
    config_error::WatcherConfigError,
    embedded::EmbeddedConfig,
    over_nats::{NatsConfig, RegionSource},
    poll::PollLoop,
    wait_target::WaitTarget,
    waiters::{Board, TimedWait},
};

/// Waits until a replica has replayed a position. Cheap to clone; all clones share one source.
#[derive(Clone, Debug)]
pub struct Watcher {
    shared: Arc<WatcherShared>,
}

#[derive(Debug)]
struct WatcherShared {
    board: Arc<Board>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Watcher {
    /// Watches a replica over a connection of its own.
    ///
    /// A replica that cannot be reached is not an error here: it is tried again whenever somebody
    /// waits.
    ///
    /// # Errors
    /// When a setting breaks its rule.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn embedded(config: EmbeddedConfig) -> Result<Self, WatcherConfigError> {
        let replica = config.replica()?;
        let board = Arc::new(Board::new(config.limits()));
        let polls =
            PollLoop::new(replica, Arc::clone(&board), config.poll_intervals(), Alarm::exact());
        Ok(Self::spawn(board, async move { match polls.run().await {} }))
    }

    /// Watches a region's replica through the region's `lsn-watcher` program.
    ///
    /// The client may be disconnected, and the program need not run yet: waits go on until they
    /// are heard or their time is up.
    ///
    /// # Errors
    /// When a setting breaks its rule.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn over_nats(
        client: async_nats::Client,
        subjects: &Subjects,
        region: &Origin,
        config: NatsConfig,
    ) -> Result<Self, WatcherConfigError> {
        config.validate()?;
        let board = Arc::new(Board::new(config.limits()));
        let source = RegionSource::new(client, subjects, region, Arc::clone(&board), &config);
        Ok(Self::spawn(board, source.run()))
    }

    fn spawn(board: Arc<Board>, source: impl Future<Output = ()> + Send + 'static) -> Self {
        let closing = CloseOnDrop(Arc::clone(&board));
        let task = tokio::spawn(async move {
            let _closing = closing;
            source.await;
        });
        Self { shared: Arc::new(WatcherShared { board, task: Mutex::new(Some(task)) }) }
    }

    /// Waits until the replica shows `target`, a [`Bookmark`](farwrite_schemas::Bookmark) or a
    /// bare [`Lsn`], for at most `timeout`.
    ///
    /// Dropping the future leaves nothing behind. A restart of the replica does not end the wait.
    /// With a `timeout` of zero only a mark that was heard a moment ago can answer.
    ///
    /// # Errors
    /// [`WaitError::TimedOut`] and [`WaitError::ReplicaGone`] when the time is up, with what was
    /// seen; [`WaitError::Superseded`] as soon as it is known, and [`WaitError::Implausible`],
    /// [`WaitError::NotAReplica`], [`WaitError::TooManyWaiters`] and [`WaitError::Closed`] at once.
    ///
    /// # Panics
    /// When it is called outside of a tokio runtime.
    pub fn wait<T: Into<WaitTarget>>(
        &self,
        target: T,
        timeout: Duration,
    ) -> impl Future<Output = Result<Reached, WaitError>> + use<'_, T> {
        TimedWait::new(&self.shared.board, target.into(), timeout)
    }

    /// Tells that somebody will [`wait`](Self::wait) in a moment. A replica that was not asked of late
    /// is asked once, so that it and the way to it are awake by then. Over NATS it does nothing.
    pub fn expect_wait(&self) {
        self.shared.board.expect();
    }

    /// The furthest position seen on the present connection, whenever that was: a hint for logs
    /// and dashboards. Only [`wait`](Self::wait) says what is visible now.
    #[must_use]
    pub fn reached(&self) -> Option<Lsn> {
        self.shared.board.reached()
    }

    /// How many callers wait.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.shared.board.waiters()
    }

    /// How often the source has asked: polls of the replica, or interests said over NATS.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.shared.board.polls()
    }

    /// Ends the watcher for every clone: every wait ends with [`WaitError::Closed`]. Returns when
    /// the task has ended and its connection is closed.
    pub async fn shutdown(&self) {
        self.shared.board.close();
        let task = self.shared.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.abort();
            // Cancelled, as it should be; a panic was reported by the runtime when it happened.
            let _ = timeout(Duration::from_secs(1), task).await;
        }
    }
}

impl Drop for WatcherShared {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

/// Nobody must wait for a source that is no more, however it ended.
struct CloseOnDrop(Arc<Board>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}
