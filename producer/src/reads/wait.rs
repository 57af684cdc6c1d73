//! What is visible where this producer reads, and waiting for it.
//!
//! A bookmark is checked first: another database's position says nothing about this one's.

use std::time::Duration;

use farwrite_lsn_watcher::{Reached, WaitError};
use farwrite_schemas::{Bookmark, DatabaseName};
use sqlx::PgPool;

use crate::{
    limits::TIMEOUT_MAX,
    reads::{
        patience::Patience,
        role::NoReads,
        servers::{Fallback, ReadServers},
    },
};

/// Why a bookmark was not reached here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BookmarkError {
    /// It belongs to another database.
    #[error("the bookmark belongs to the database {theirs}, and this producer to {ours}")]
    OtherDatabase {
        /// The bookmark's.
        theirs: DatabaseName,
        /// The producer's.
        ours: DatabaseName,
    },
    /// The producer was built without a replica, a watcher or reads on the primary.
    #[error("the producer has no reads to wait for")]
    NoReads,
    /// The replica was not seen to reach it.
    #[error(transparent)]
    Wait(Box<WaitError>),
}

/// The reads of one producer.
#[derive(Debug)]
pub(crate) struct Reads {
    servers: ReadServers,
    database: DatabaseName,
    pub(super) patience: Patience,
    /// How long the server next door has where there is another one to read.
    pub(crate) budget: Duration,
    /// How long it has where there is none.
    pub(super) timeout: Duration,
}

impl Reads {
    pub(crate) fn new(
        servers: ReadServers,
        database: DatabaseName,
        budget: Duration,
        timeout: Duration,
    ) -> Self {
        Self { servers, database, patience: Patience::default(), budget, timeout }
    }

    pub(crate) const fn database(&self) -> &DatabaseName {
        &self.database
    }

    pub(crate) fn pool(&self) -> Result<&PgPool, NoReads> {
        self.servers.pool()
    }

    /// What is read when a server is too late.
    pub(crate) const fn fallback(&self) -> Option<&Fallback> {
        self.servers.fallback()
    }

    /// Whether reads are meant to go to the primary.
    pub(crate) const fn are_on_primary(&self) -> bool {
        self.servers.are_on_primary()
    }

    /// Whether there is a place where a write can be visible.
    pub(crate) const fn show_writes(&self) -> bool {
        self.servers.show_writes()
    }

    /// Tells that somebody will wait in a moment.
    pub(crate) fn expect_wait(&self) {
        self.servers.expect_wait();
    }

    /// Waits until a bookmark is visible, for at most `timeout`.
    pub(crate) async fn wait(
        &self,
        bookmark: &Bookmark,
        timeout: Duration,
    ) -> Result<(), BookmarkError> {
        self.check(bookmark)?;
        let waited = self.wait_unchecked(bookmark, timeout.min(TIMEOUT_MAX)).await;
        waited.map(drop).map_err(|error| BookmarkError::Wait(Box::new(error)))
    }

    /// The same for a bookmark that is this database's.
    pub(crate) async fn wait_unchecked(
        &self,
        bookmark: &Bookmark,
        timeout: Duration,
    ) -> Result<Reached, WaitError> {
        self.servers.wait(bookmark, timeout).await
    }

    /// Whether a bookmark is of this database, and there is something to wait for.
    pub(crate) fn check(&self, bookmark: &Bookmark) -> Result<(), BookmarkError> {
        self.check_database(bookmark)?;
        if self.show_writes() { Ok(()) } else { Err(BookmarkError::NoReads) }
    }

    /// Whether a bookmark is of this database.
    pub(crate) fn check_database(&self, bookmark: &Bookmark) -> Result<(), BookmarkError> {
        let ours = &self.database;
        if bookmark.database != *ours {
            let (theirs, ours) = (bookmark.database.clone(), ours.clone());
            return Err(BookmarkError::OtherDatabase { theirs, ours });
        }
        Ok(())
    }
}
