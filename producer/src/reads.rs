//! Where an app of this region reads, and when its own writes are visible there.
//!
//! The pool is connected to the very server that the watcher watches. Beside it stands one number,
//! the furthest position that was ever said to be visible to this process. A replica that crashed
//! can come back *behind* it and serve reads at once; its crash ended every connection, so it is
//! enough that each new one is compared with the number before the app gets it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use farwrite_lsn_watcher::{WaitError, Watcher};
use farwrite_schemas::{Bookmark, Lsn};
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

/// Where reads go.
#[derive(Debug)]
pub(crate) enum Reads {
    /// Nowhere: a producer that only publishes and submits.
    Nowhere,
    /// To the primary: what is committed is visible.
    Primary(PgPool),
    /// To this region's replica. Without a pool the app has its own.
    Replica { pool: Option<PgPool>, watcher: Watcher, promised: Arc<Promised> },
}

/// The furthest position that was said to be visible.
#[derive(Debug, Default)]
pub(crate) struct Promised(AtomicU64);

impl Promised {
    fn raise(&self, lsn: Lsn) {
        self.0.fetch_max(lsn.0, Ordering::SeqCst);
    }

    fn lsn(&self) -> Lsn {
        Lsn(self.0.load(Ordering::SeqCst))
    }
}

impl Reads {
    /// Reads on the replica at `options`, or with the app's own pool.
    pub(crate) fn replica(
        watcher: Watcher,
        replica: Option<(PgPoolOptions, PgConnectOptions)>,
    ) -> Self {
        let promised = Arc::new(Promised::default());
        let pool = replica.map(|(pool, options)| {
            let promised = Arc::clone(&promised);
            let checked = pool.after_connect(move |connection, _| {
                let promised = Arc::clone(&promised);
                Box::pin(async move { catch_up(connection, &promised).await })
            });
            checked.connect_lazy_with(options)
        });
        Self::Replica { pool, watcher, promised }
    }

    /// The pool, where there is one.
    pub(crate) fn pool(&self) -> Result<&PgPool, NoReads> {
        match self {
            Self::Nowhere | Self::Replica { pool: None, .. } => Err(NoReads),
            Self::Primary(pool) | Self::Replica { pool: Some(pool), .. } => Ok(pool),
        }
    }

    /// Whether there is a place where a write can be visible.
    pub(crate) const fn shows_writes(&self) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Primary(_) | Self::Replica { .. } => true,
        }
    }

    /// Waits until a bookmark is visible.
    pub(crate) async fn wait(
        &self,
        bookmark: &Bookmark,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        if let Self::Replica { watcher, promised, .. } = self {
            let reached = watcher.wait(bookmark, timeout).await?;
            promised.raise(reached.lsn);
        }
        Ok(())
    }
}

/// Lets a new connection pass once it shows what was promised.
async fn catch_up(connection: &mut PgConnection, promised: &Promised) -> Result<(), sqlx::Error> {
    let began = Instant::now();
    loop {
        let promised = promised.lsn();
        if promised == Lsn::default() {
            return Ok(());
        }
        let shown: Option<String> = sqlx::query_scalar(SHOWN).fetch_one(&mut *connection).await?;
        // A standby that has replayed nothing yet has no position.
        let shown = match shown.as_deref().map(str::parse) {
            Some(Ok(shown)) => shown,
            Some(Err(error)) => return Err(sqlx::Error::Decode(Box::new(error))),
            None => Lsn::default(),
        };
        if shown >= promised {
            return Ok(());
        }
        if began.elapsed() >= CATCH_UP {
            metrics::read_refused();
            let behind = Behind { shown, promised };
            tracing::warn!(%behind, "a connection to the replica was refused");
            return Err(sqlx::Error::Configuration(Box::new(behind)));
        }
        sleep(CATCH_UP_PAUSE).await;
    }
}
