//! What a handler reads with and notes into.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// What the request came with.
    asked: Option<Bookmark>,
    noted: Mutex<Noted>,
}

/// What is new since the request came.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted {
    /// What was written, or noted by the app.
    pub(super) written: Option<Bookmark>,
    /// What could be read.
    pub(super) read: Option<Bookmark>,
}

impl Noted {
    /// The later one.
    pub(super) fn latest(&self) -> Option<&Bookmark> {
        match (&self.read, &self.written) {
            (Some(read), Some(written)) if is_passed(written, read) => Some(read),
            (read, written) => written.as_ref().or(read.as_ref()),
        }
    }
}

/// Whether a bookmark is on the timeline of a later one, or is the same.
fn is_passed(bookmark: &Bookmark, later: &Bookmark) -> bool {
    bookmark.database == later.database
        && bookmark.timeline == later.timeline
        && bookmark.lsn <= later.lsn
}

impl Session {
    pub(super) fn new(
        producer: Producer,
        pool: PgPool,
        from: ServerRole,
        is_stale: bool,
        asked: Option<Bookmark>,
    ) -> Self {
        let noted = Mutex::default();
        Self { inner: Arc::new(SessionState { producer, pool, from, is_stale, asked, noted }) }
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

    /// Notes a bookmark. Of two on one timeline the later one stays; otherwise the one that was noted last,
    /// which is of the newer branch.
    pub fn note(&self, bookmark: &Bookmark) {
        let mut noted = self.noted();
        let known = [&self.inner.asked, &noted.written];
        if !known.into_iter().flatten().any(|known| is_passed(bookmark, known)) {
            noted.written = Some(bookmark.clone());
        }
    }

    /// Notes what could be read.
    pub(super) fn note_read(&self, bookmark: &Bookmark) {
        let is_news = !self.inner.asked.as_ref().is_some_and(|known| is_passed(bookmark, known));
        self.noted().read = is_news.then(|| bookmark.clone());
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.inner.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was noted.
    pub(super) fn news(&self) -> Noted {
        self.noted().clone()
    }
}
