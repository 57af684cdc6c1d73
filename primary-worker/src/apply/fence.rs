//! The fence: a lane moves on only under its epoch, and from the position that it knows
//! (invariant 2).

use farwrite_schemas::Epoch;
use sqlx::{Postgres, postgres::PgArguments, query::QueryAs};

use crate::stream::position::{Anchor, StreamPosition};

/// Where a lane stands, and under which right it moves on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fence<'a> {
    pub(crate) stream_id: i32,
    pub(crate) epoch: Epoch,
    pub(crate) lane: u32,
    /// The sequence that the lane's row holds.
    pub(crate) from: u64,
    /// Where the lane stands once the batch is committed.
    pub(crate) to: StreamPosition,
    /// The last message applied once this is committed.
    pub(crate) anchor: Option<&'a Anchor>,
}

impl Fence<'_> {
    /// Binds what the first statement of every batch begins with, as its first six parameters.
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
            .bind(self.to.at_ns)
    }

    /// Binds the same and the anchor, as the first nine parameters.
    pub(crate) fn bind_with_anchor<'q, R>(
        &'q self,
        statement: QueryAs<'q, Postgres, R, PgArguments>,
    ) -> QueryAs<'q, Postgres, R, PgArguments> {
        let anchor = self.anchor;
        self.bind(statement)
            .bind(anchor.map_or(0, |anchor| anchor.sequence.cast_signed()))
            .bind(anchor.map(|anchor| anchor.at_ns))
            .bind(anchor.and_then(|anchor| anchor.id.as_deref()))
    }
}
