//! Reading, and waiting until what was written can be read.

use std::time::Duration;

use farwrite_schemas::{Bookmark, Origin};
use sqlx::{PgConnection, PgPool};

use crate::{
    producer::Producer,
    reads::{
        elsewhere::ElsewhereError,
        position,
        read_at::{ReadAt, ReadAtError},
        role::NoReads,
        wait::BookmarkError,
    },
};

impl Producer {
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
        self.parts.reads.pool()
    }

    /// Waits until this region's replica has replayed a bookmark, from wherever it came, within the
    /// default timeout. Where reads go to the primary it has been reached already, unless a failover
    /// lost it.
    ///
    /// Waiting here, and not on a watcher of your own, also binds the pool of [`Producer::reads`]:
    /// it refuses connections to a replica that came back behind what was said to be visible.
    ///
    /// # Errors
    /// When the bookmark is another database's, or is not reached in time.
    pub async fn wait(&self, bookmark: &Bookmark) -> Result<(), BookmarkError> {
        self.wait_within(bookmark, self.parts.limits.timeout).await
    }

    /// [`Producer::wait`] with another timeout, at most [`TIMEOUT_MAX`](crate::TIMEOUT_MAX).
    ///
    /// # Errors
    /// When the bookmark is another database's, or is not reached in time.
    pub async fn wait_within(
        &self,
        bookmark: &Bookmark,
        timeout: Duration,
    ) -> Result<(), BookmarkError> {
        self.parts.reads.wait(bookmark, timeout).await
    }

    /// Waits until a bookmark is visible in each of some regions, within the default timeout. Each
    /// must have a watcher that runs as a program.
    ///
    /// # Errors
    /// When the bookmark is another database's, or a region is missing: the error names them.
    pub async fn wait_in(
        &self,
        bookmark: &Bookmark,
        regions: &[Origin],
    ) -> Result<(), ElsewhereError> {
        self.wait_in_within(bookmark, regions, self.parts.limits.timeout).await
    }

    /// [`Producer::wait_in`] with another timeout, at most [`TIMEOUT_MAX`](crate::TIMEOUT_MAX).
    ///
    /// # Errors
    /// When the bookmark is another database's, or a region is missing: the error names them.
    pub async fn wait_in_within(
        &self,
        bookmark: &Bookmark,
        regions: &[Origin],
        timeout: Duration,
    ) -> Result<(), ElsewhereError> {
        self.parts.reads.check_database(bookmark)?;
        self.parts.others.wait(bookmark, regions, timeout).await
    }

    /// A pool that shows what a bookmark stands for: this region's, if that has reached it within
    /// [`Limits::read_budget`](crate::Limits::read_budget), else the primary's, and it says which.
    ///
    /// Without a primary ([`ReplicaReads::or_primary`](crate::ReplicaReads::or_primary)) the budget is the whole
    /// timeout.
    ///
    /// # Errors
    /// When the bookmark is another database's, or no server shows it: the error says what was seen
    /// of each.
    pub async fn read_at(&self, bookmark: &Bookmark) -> Result<ReadAt<'_>, ReadAtError> {
        self.parts.reads.read_at(bookmark).await
    }

    /// A bookmark of what was just read on a connection. A reader that waits for it elsewhere sees at
    /// least that, so that an app which hops between regions never goes back in time.
    ///
    /// Ask after the read, on the same connection. `None` where no worker has ever taken over.
    ///
    /// # Errors
    /// The database's. The user needs `USAGE` on the schema `farwrite` and `SELECT` on its tables
    /// `history` and `owner`.
    pub async fn bookmark(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Option<Bookmark>, sqlx::Error> {
        Ok(position::ask(connection, self.parts.reads.database()).await?.bookmark)
    }
}
