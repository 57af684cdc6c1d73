//! What a handler reads with and notes into.

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::PgPool;

use crate::{Bookmark, Committed, Producer, ServerRole, Visible};

/// One request's view of the database; in the request's extensions.
#[derive(Clone, Debug)]
pub struct Session {
    inner: Arc<SessionState>,
}

#[derive(Debug)]
struct SessionState {
    producer: Producer,
    pool: PgPool,
    from: ServerRole,
    is_stale: bool,
    newest: Mutex<Newest>,
}

#[derive(Debug, Default)]
struct Newest {
    bookmark: Option<Bookmark>,
    is_news: bool,
}

impl Session {
    pub(super) fn new(
        producer: Producer,
        pool: PgPool,
        from: ServerRole,
        is_stale: bool,
        bookmark: Option<Bookmark>,
    ) -> Self {
        let newest = Mutex::new(Newest { bookmark, is_news: false });
        Self { inner: Arc::new(SessionState { producer, pool, from, is_stale, newest }) }
    }

    /// The pool to read with: it shows what the request's bookmark stands for.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.inner.pool
    }

    /// Which server the pool reads.
    #[must_use]
    pub fn from(&self) -> ServerRole {
        self.inner.from
    }

    /// Whether the pool may show less than the user has seen: [`Late::Stale`](super::Late::Stale).
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.inner.is_stale
    }

    /// The producer to write with.
    #[must_use]
    pub fn producer(&self) -> &Producer {
        &self.inner.producer
    }

    /// Notes what was written: the user's next request sees it, wherever it arrives.
    pub fn wrote<O>(&self, visible: &Visible<O>) {
        self.note(&visible.bookmark);
    }

    /// Notes what was committed, and is perhaps not visible here yet.
    pub fn committed<O>(&self, committed: &Committed<O>) {
        self.note(&committed.bookmark);
    }

    /// Notes a bookmark. Of two on one branch of history the later one stays; otherwise the one that
    /// was noted last, which is of the newer branch.
    pub fn note(&self, bookmark: &Bookmark) {
        let mut newest = self.inner.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known =
            newest.bookmark.as_ref().is_some_and(|known| known.later_of(bookmark) == Some(known));
        if !is_known {
            *newest = Newest { bookmark: Some(bookmark.clone()), is_news: true };
        }
    }

    /// What was noted, if anything was.
    pub(super) fn news(&self) -> Option<Bookmark> {
        let newest = self.inner.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.bookmark.clone().filter(|_| newest.is_news)
    }
}
