//! The ledger's horizon: below it nothing is known any more.
//!
//! The database is authoritative, and its horizon only rises. This is one takeover's copy, which the
//! takeover itself raises. An id whose time lies below the horizon is refused: whether it was applied
//! nobody can tell. A copy that is behind refuses less, and then the ledger has no partition for the
//! id. So nothing is applied that cannot be recorded.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use sqlx::PgConnection;

use crate::store::ledger;

/// The copy, in Unix milliseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct LedgerHorizon(Arc<AtomicI64>);

impl LedgerHorizon {
    /// Reads it from the database.
    pub(crate) async fn read(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.0.fetch_max(ledger::horizon_ms(connection).await?, Ordering::Relaxed);
        Ok(())
    }

    /// Its time, in Unix milliseconds; 0 while nothing was dropped.
    pub(crate) fn ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}
