//! Where an app of this region reads, and when its own writes are visible there.
//!
//! The pool is connected to the very server that the watcher watches, and gives out no connection
//! that shows less than was said to be visible: see [`Promise`]. So does the pool of the primary.
//!
//! Reads on the primary are watched in the same way: a server is asked what it is and which branch
//! of history it holds, and not believed for its name. A primary shows what was committed at
//! once, so that this costs one question, and none a moment after another one.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use farwrite_lsn_watcher::{EmbeddedConfig, Reached, WaitError, Watcher, WatcherConfigError};
use farwrite_schemas::Bookmark;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    metrics,
    reads::{
        guard::guard,
        promise::Promise,
        role::{NoReads, ServerRole},
    },
};

/// Where reads go.
#[derive(Debug)]
pub(crate) enum ReadServers {
    /// Nowhere: a producer that only publishes and submits.
    Nowhere,
    /// To one server, and to the primary where that one is too late.
    Somewhere { here: Here, fallback: Option<Fallback> },
}

/// The server that is read. Without a pool the app has its own.
#[derive(Debug)]
pub(crate) struct Here {
    pool: Option<PgPool>,
    watcher: Watcher,
    promise: Arc<Promise>,
    meant: ServerRole,
    mismatch_logged: AtomicBool,
}

/// The primary, for what is not visible here in time. Its watcher is made when it is first needed:
/// an app whose replica keeps up has no business there.
#[derive(Debug)]
pub(crate) struct Fallback {
    url: String,
    pool: PgPool,
    promise: Arc<Promise>,
    watcher: Mutex<Option<Watcher>>,
}

impl Here {
    /// The server at `options`, or with the app's own pool.
    pub(crate) fn new(
        watcher: Watcher,
        server: Option<(PgPoolOptions, PgConnectOptions)>,
        meant: ServerRole,
    ) -> Self {
        let promise = Arc::new(Promise::default());
        let pool = server.map(|(pool, options)| guard(&promise, pool).connect_lazy_with(options));
        Self { pool, watcher, promise, meant, mismatch_logged: AtomicBool::new(false) }
    }

    /// Waits until a bookmark is visible.
    async fn wait(&self, bookmark: &Bookmark, timeout: Duration) -> Result<Reached, WaitError> {
        let reached = self.watcher.wait(bookmark, timeout).await?;
        self.promise.raise(&reached, bookmark.epoch);
        let is_other = reached.in_recovery != (self.meant == ServerRole::Replica);
        metrics::reads_role(self.meant.as_str(), is_other);
        if is_other && !self.mismatch_logged.swap(true, Ordering::Relaxed) {
            let meant = self.meant;
            tracing::warn!(
                ?meant,
                in_recovery = reached.in_recovery,
                "the server that is read is not what it was said to be; what it shows is told all the same"
            );
        }
        Ok(reached)
    }
}

impl Fallback {
    pub(crate) fn new(url: String, pool: PgPoolOptions, options: PgConnectOptions) -> Self {
        let promise = Arc::new(Promise::default());
        let pool = guard(&promise, pool).connect_lazy_with(options);
        Self { url, pool, promise, watcher: Mutex::new(None) }
    }

    fn watcher(&self) -> Result<Watcher, WatcherConfigError> {
        let mut made = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = &*made {
            return Ok(watcher.clone());
        }
        let watcher = Watcher::embedded(EmbeddedConfig::new(&self.url))?;
        *made = Some(watcher.clone());
        Ok(watcher)
    }

    /// Waits until the primary shows a bookmark, which it does at once unless it is another one
    /// than the bookmark's, or a replica was ahead of it.
    pub(crate) async fn wait(
        &self,
        bookmark: &Bookmark,
        timeout: Duration,
    ) -> Result<(&PgPool, Reached), WaitError> {
        // The URL was checked when the producer was built.
        let watcher = self.watcher().map_err(|_| WaitError::Closed)?;
        let reached = watcher.wait(bookmark, timeout).await?;
        self.promise.raise(&reached, bookmark.epoch);
        Ok((&self.pool, reached))
    }
}

impl ReadServers {
    pub(crate) fn pool(&self) -> Result<&PgPool, NoReads> {
        match self {
            Self::Nowhere => Err(NoReads),
            Self::Somewhere { here, .. } => here.pool.as_ref().ok_or(NoReads),
        }
    }

    /// What is read when a server is too late.
    pub(crate) const fn fallback(&self) -> Option<&Fallback> {
        match self {
            Self::Nowhere => None,
            Self::Somewhere { fallback, .. } => fallback.as_ref(),
        }
    }

    /// Whether reads are meant to go to the primary.
    pub(crate) const fn are_on_primary(&self) -> bool {
        matches!(self, Self::Somewhere { here: Here { meant: ServerRole::Primary, .. }, .. })
    }

    /// Whether there is a place where a write can be visible.
    pub(crate) const fn show_writes(&self) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Somewhere { .. } => true,
        }
    }

    /// Tells that somebody will wait in a moment. A primary is asked one question, and no more.
    pub(crate) fn expect_wait(&self) {
        if let Self::Somewhere { here, .. } = self
            && here.meant == ServerRole::Replica
        {
            here.watcher.expect_wait();
        }
    }

    /// Waits until a bookmark is visible where reads go. A producer without reads never gets here.
    pub(crate) async fn wait(
        &self,
        bookmark: &Bookmark,
        timeout: Duration,
    ) -> Result<Reached, WaitError> {
        match self {
            Self::Nowhere => Err(WaitError::Closed),
            Self::Somewhere { here, .. } => here.wait(bookmark, timeout).await,
        }
    }
}
