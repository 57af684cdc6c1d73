//! Which dead letters or parked commands are meant.
//!
//! What is chosen is settled when the operation begins: what comes later is not part of it, so an
//! act ends, also when what it touches comes back at once.

use std::time::Duration;

use sqlx::{PgConnection, Postgres, postgres::PgArguments, query::QueryAs, types::Uuid};

use super::{error::OperateError, operator::Operator};

/// How many are listed or shown when nothing else is said: a few screens.
const LIMIT: i64 = 100;
/// How many may be listed at once: a table is put together in memory.
pub const LIMIT_MAX: i64 = 100_000;

/// What an operator says: all that is given must match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// The command's name.
    pub command: Option<String>,
    /// Its key.
    pub key: Option<String>,
    /// Why it is parked or dead-lettered; of a parked one also the code of its last failure.
    pub code: Option<String>,
    /// Parked or dead-lettered before that long.
    pub older_than: Option<Duration>,
    /// Parked or dead-lettered since.
    pub newer_than: Option<Duration>,
    /// One of these command ids, where any is given.
    pub ids: Vec<Uuid>,
    /// One of these sequences, where any is given.
    pub sequences: Vec<i64>,
    /// At most so many.
    pub limit: Option<i64>,
}

/// A filter that was begun: its times are fixed, its stream is known. It remembers how far it was
/// followed.
#[derive(Debug)]
pub struct Chosen {
    /// The last row that was shown or acted on.
    pub(super) after: Cursor,
    /// How many were shown or acted on.
    pub(super) seen: i64,
    filter: Filter,
    stream_id: Option<i32>,
    /// Seconds since 1970, by the database's clock.
    not_after: f64,
    not_before: Option<f64>,
}

/// Where the rows that were done end: stream and sequence.
pub(super) type Cursor = (i32, i64);

/// Before every row.
pub(super) const FIRST: Cursor = (0, 0);

/// A query's condition and order for [`Chosen::bind`]: parameters $1 to $11, of a table called `t`.
/// `$time` is the column of its age, `$code` whether $4 is its code.
macro_rules! chosen {
    ($time:literal, $code:literal) => {
        concat!(
            " ($1::int IS NULL OR t.stream_id = $1)",
            " AND ($2::text IS NULL OR coalesce(t.name, substring(t.subject FROM '^farwrite\\.[^.]+\\.cmd\\.[^.]+\\.(.+)$')) = $2)",
            " AND ($3::text IS NULL OR t.order_key = $3)",
            " AND ($4::text IS NULL OR ", $code, ")",
            " AND t.", $time, " <= to_timestamp($5)",
            " AND ($6::float8 IS NULL OR t.", $time, " >= to_timestamp($6))",
            " AND ($7::uuid[] IS NULL OR t.command_id = ANY ($7))",
            " AND ($8::bigint[] IS NULL OR t.sequence = ANY ($8))",
            " AND (t.stream_id, t.sequence) > ($9::int, $10::bigint)",
            " ORDER BY t.stream_id, t.sequence LIMIT $11 "
        )
    };
}
pub(super) use chosen;

/// A point in time as JSON has it; null where it never comes.
macro_rules! utc {
    ($time:literal) => {
        concat!(
            "CASE WHEN isfinite(",
            $time,
            ") THEN to_char(",
            $time,
            " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') END"
        )
    };
}
pub(super) use utc;

impl Filter {
    /// Whether it says anything: an act on everything wants to be called that.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { command, key, code, older_than, newer_than, ids, sequences, limit: _ } = self;
        let texts = [command, key, code].into_iter().all(Option::is_none);
        let times = older_than.is_none() && newer_than.is_none();
        texts && times && ids.is_empty() && sequences.is_empty()
    }
}

impl Operator {
    /// Fixes what a filter means, in one stream or in all.
    ///
    /// # Errors
    /// When the database knows no such stream, or fails.
    pub async fn choose(
        &mut self,
        filter: Filter,
        stream: Option<&str>,
    ) -> Result<Chosen, OperateError> {
        let stream_id = match stream {
            None => None,
            Some(name) => Some(stream_id(&mut self.connection, name).await?),
        };
        let now: f64 = sqlx::query_scalar("SELECT extract(epoch FROM clock_timestamp())::float8")
            .fetch_one(&mut self.connection)
            .await?;
        let before = |age: Duration| now - age.as_secs_f64();
        Ok(Chosen {
            after: FIRST,
            seen: 0,
            stream_id,
            not_after: filter.older_than.map_or(now, before),
            not_before: filter.newer_than.map(before),
            filter,
        })
    }
}

async fn stream_id(connection: &mut PgConnection, name: &str) -> Result<i32, OperateError> {
    sqlx::query_scalar("SELECT stream_id FROM farwrite.streams WHERE name = $1")
        .bind(name)
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| OperateError::UnknownStream(name.to_owned()))
}

impl Chosen {
    /// How many are to be listed.
    pub(super) fn listed(&self) -> i64 {
        self.filter.limit.unwrap_or(LIMIT)
    }

    /// How many are to be acted on: all, where nothing is said.
    pub(super) fn acted_on(&self) -> i64 {
        self.filter.limit.unwrap_or(i64::MAX)
    }

    /// How many were shown or acted on so far.
    #[must_use]
    pub const fn seen(&self) -> i64 {
        self.seen
    }

    /// Notes that rows up to `last` were shown or acted on.
    pub(super) fn passed(&mut self, last: Cursor, rows: i64) {
        (self.after, self.seen) = (last, self.seen + rows);
    }

    /// Whether single commands were named, which are then expected to be there.
    #[must_use]
    pub fn names_some(&self) -> bool {
        !(self.filter.ids.is_empty() && self.filter.sequences.is_empty())
    }

    /// The ids that were named; `None` where none was, as for the sequences.
    fn ids(&self) -> Option<&[Uuid]> {
        let ids = &self.filter.ids;
        (!ids.is_empty()).then_some(ids)
    }

    fn sequences(&self) -> Option<&[i64]> {
        let sequences = &self.filter.sequences;
        (!sequences.is_empty()).then_some(sequences)
    }

    /// Binds the parameters of [`chosen!`]: at most `limit` rows behind `after`.
    pub(super) fn bind<'q, O>(
        &'q self,
        query: QueryAs<'q, Postgres, O, PgArguments>,
        after: Cursor,
        limit: i64,
    ) -> QueryAs<'q, Postgres, O, PgArguments> {
        query
            .bind(self.stream_id)
            .bind(self.filter.command.as_deref())
            .bind(self.filter.key.as_deref())
            .bind(self.filter.code.as_deref())
            .bind(self.not_after)
            .bind(self.not_before)
            .bind(self.ids())
            .bind(self.sequences())
            .bind(after.0)
            .bind(after.1)
            .bind(limit)
    }
}

/// Sequences by stream, in their order.
pub(super) fn by_stream(keys: &[Cursor]) -> Vec<(i32, Vec<i64>)> {
    let chunks = keys.chunk_by(|a, b| a.0 == b.0);
    chunks.map(|chunk| (chunk[0].0, chunk.iter().map(|key| key.1).collect())).collect()
}
