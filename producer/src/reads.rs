//! Where an app of this region reads, and when its own writes are visible there.
//!
//! The pool is connected to the very server that the watcher watches. Beside it stands one number,
//! the furthest position that was ever said to be visible to this process. A replica that crashed
//! can come back *behind* it and serve reads at once; its crash ended every connection, so it is
//! enough that each new one is compared with the number before the app gets it. A server that was
//! made anew after a failover is behind it, too; there the number is lowered to where the timeline
//! ended, as the server's own rows say.
//!
//! Reads on the primary are watched in the same way: a server is asked what it is and which branch
//! of history it holds, and not believed for its name. A primary shows its own commits at once, so
//! that this costs one question, and none a moment after another one.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use farwrite_lsn_watcher::{ConfigError, EmbeddedConfig, Reached, WaitError, Watcher};
use farwrite_schemas::{BRANCHES_QUERY, Bookmark, Branch, BranchKnown, BranchRow, Epoch, Lsn};
use sqlx::{
    PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::{Instant, sleep};

use crate::metrics;

/// How long a new connection waits for a replica that came back behind. 5 s: a restarted replica
/// replays what it has on its own disk within that; one that takes longer is better refused, so
/// that the app's own timeout and fallback apply.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How often it is asked meanwhile. Only after a crash of the replica, so that it may be slow.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(20);

/// A promoted replica's replay position stands still, and what it commits itself is past it.
const SHOWN: &str = "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                     ELSE pg_current_wal_lsn() END)::text";

/// The producer was built without a database to read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the producer was built without a database to read from: give it a replica's URL")]
pub struct NoReads;

/// A connection shows less than was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the replica shows {shown} only, and {promised} was visible before: it came back behind its own past"
)]
struct Behind {
    shown: Lsn,
    promised: Lsn,
}

/// Which server reads are meant to go to. What it really is, its watcher finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// A region's replica.
    Replica,
    /// The primary.
    Primary,
}

impl ReadFrom {
    /// As metrics and examples print it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::Primary => "primary",
        }
    }
}

/// Where reads go.
#[derive(Debug)]
pub(crate) enum Reads {
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
    promised: Arc<Promised>,
    meant: ReadFrom,
    /// Whether it was said that the server is not what it was meant to be.
    is_told: AtomicBool,
}

/// The primary, for what is not visible here in time. Its watcher is made when it is first needed:
/// an app whose replica keeps up has no business there.
#[derive(Debug)]
pub(crate) struct Fallback {
    url: String,
    pool: PgPool,
    watcher: Mutex<Option<Watcher>>,
}

/// The furthest position that was said to be visible, and the epoch that it was said of.
#[derive(Debug, Default)]
pub(crate) struct Promised(Mutex<Option<(Lsn, Epoch)>>);

impl Promised {
    fn raise(&self, lsn: Lsn, epoch: Epoch) {
        let mut promised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if promised.is_none_or(|(known, _)| lsn > known) {
            *promised = Some((lsn, epoch));
        }
    }

    fn get(&self) -> Option<(Lsn, Epoch)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A failover has ended the promise's timeline before it: what lies past the end is no more.
    fn lower(&self, from: Lsn, to: Lsn) {
        let mut promised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((lsn, _)) = promised.as_mut().filter(|(lsn, _)| *lsn == from) {
            *lsn = to;
        }
    }
}

impl Here {
    /// The server at `options`, or with the app's own pool.
    pub(crate) fn new(
        watcher: Watcher,
        server: Option<(PgPoolOptions, PgConnectOptions)>,
        meant: ReadFrom,
    ) -> Self {
        let promised = Arc::new(Promised::default());
        let pool = server.map(|(pool, options)| {
            let promised = Arc::clone(&promised);
            let checked = pool.after_connect(move |connection, _| {
                let promised = Arc::clone(&promised);
                Box::pin(async move { catch_up(connection, &promised).await })
            });
            checked.connect_lazy_with(options)
        });
        Self { pool, watcher, promised, meant, is_told: AtomicBool::new(false) }
    }

    /// Waits until a bookmark is visible.
    async fn wait(&self, bookmark: &Bookmark, timeout: Duration) -> Result<Reached, WaitError> {
        let reached = self.watcher.wait(bookmark, timeout).await?;
        self.promised.raise(reached.lsn, bookmark.epoch);
        let is_other = reached.in_recovery != (self.meant == ReadFrom::Replica);
        metrics::reads_role(self.meant, is_other);
        if is_other && !self.is_told.swap(true, Ordering::Relaxed) {
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
    pub(crate) fn new(url: String, pool: PgPool) -> Self {
        Self { url, pool, watcher: Mutex::new(None) }
    }

    fn watcher(&self) -> Result<Watcher, ConfigError> {
        let mut made = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = &*made {
            return Ok(watcher.clone());
        }
        let watcher = Watcher::embedded(EmbeddedConfig::new(&self.url))?;
        *made = Some(watcher.clone());
        Ok(watcher)
    }

    /// Waits until the primary shows a bookmark, which it does at once unless it is another one
    /// than the bookmark's.
    pub(crate) async fn wait(
        &self,
        bookmark: &Bookmark,
        timeout: Duration,
    ) -> Result<(&PgPool, Reached), WaitError> {
        // The URL was checked when the producer was built.
        let watcher = self.watcher().map_err(|_| WaitError::Closed)?;
        Ok((&self.pool, watcher.wait(bookmark, timeout).await?))
    }
}

impl Reads {
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
        matches!(self, Self::Somewhere { here: Here { meant: ReadFrom::Primary, .. }, .. })
    }

    /// Whether there is a place where a write can be visible.
    pub(crate) const fn shows_writes(&self) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Somewhere { .. } => true,
        }
    }

    /// Tells that somebody will wait in a moment. A primary is asked one question, and no more.
    pub(crate) fn expect_wait(&self) {
        if let Self::Somewhere { here, .. } = self
            && here.meant == ReadFrom::Replica
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

/// Lets a new connection pass once it shows what was promised.
async fn catch_up(connection: &mut PgConnection, promised: &Promised) -> Result<(), sqlx::Error> {
    let began = Instant::now();
    loop {
        let Some((lsn, epoch)) = promised.get() else { return Ok(()) };
        let shown: Option<String> = sqlx::query_scalar(SHOWN).fetch_one(&mut *connection).await?;
        // A standby that has replayed nothing yet has no position.
        let shown = match shown.as_deref().map(str::parse) {
            Some(Ok(shown)) => shown,
            Some(Err(error)) => return Err(sqlx::Error::Decode(Box::new(error))),
            None => Lsn::default(),
        };
        if shown >= lsn {
            return Ok(());
        }
        if let Some(end) = end_of(connection, epoch).await
            && end < lsn
        {
            promised.lower(lsn, end);
            continue;
        }
        if began.elapsed() >= CATCH_UP {
            metrics::read_refused();
            let behind = Behind { shown, promised: lsn };
            tracing::warn!(%behind, "a connection to the replica was refused");
            return Err(sqlx::Error::Configuration(Box::new(behind)));
        }
        sleep(CATCH_UP_PAUSE).await;
    }
}

/// Where an epoch's timeline ended on this server, if it did and the user may see it.
async fn end_of(connection: &mut PgConnection, epoch: Epoch) -> Option<Lsn> {
    let rows: Result<Vec<BranchRow>, _> =
        sqlx::query_as(BRANCHES_QUERY).bind(vec![epoch.0]).fetch_all(connection).await;
    match Branch::from_row(rows.ok()?.pop()?).ok()?.known {
        BranchKnown::Held { ends, .. } => ends,
        BranchKnown::Absent { .. } => None,
    }
}
