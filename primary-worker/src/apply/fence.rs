//! The fence: a lane moves on only under its epoch, and from the position that it knows
//! (invariant 2).

use farwrite_schemas::Epoch;
use sqlx::{Postgres, postgres::PgArguments, query::QueryAs};

use crate::stream::position::StreamPosition;

/// Where a lane stands, and under which right it moves on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fence {
    pub(crate) stream_id: i32,
    pub(crate) epoch: Epoch,
    pub(crate) lane: u32,
    /// The sequence that the lane's row holds.
    pub(crate) from: u64,
    /// Where the lane stands once the batch is committed.
    pub(crate) to: StreamPosition,
}

impl Fence {
    /// Binds what the first statement of every batch begins with, as its first seven parameters.
    pub(crate) fn bind<'q, R>(
        &self,
        statement: QueryAs<'q, Postgres, R, PgArguments>,
    ) -> QueryAs<'q, Postgres, R, PgArguments> {
        statement
            .bind(self.stream_id)
            .bind(self.lane.cast_signed())
            .bind(self.epoch.0)
            .bind(self.from.cast_signed())
            .bind(self.to.sequence.cast_signed())
            .bind(self.to.message.map(|message| message.at_ns))
            .bind(self.to.message.and_then(|message| message.id))
    }
}
