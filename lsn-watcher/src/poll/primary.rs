//! A primary as the server that is asked: up to where it shows its own commits.
//!
//! A commit is logged, flushed and sent to the replicas before the primary's own snapshots hold it: in
//! between its backend waits for a synchronous standby, or is merely held. A position is told only
//! when everything has ended that was under way when it had been flushed. So a reader who has seen
//! something on a replica does not go back in time on the primary.
//!
//! What is under way cannot be told from what only writes for long. So what has been under way for
//! longer than any commit ([`LONG`]) no longer counts, unless its backend is seen waiting for a
//! synchronous standby, which takes the right to see that (`pg_read_all_stats`).

use std::{collections::HashMap, num::ParseIntError, time::Duration};

use farwrite_schemas::{Lsn, Timeline};
use sqlx::{AssertSqlSafe, PgConnection, Row};
use tokio::time::Instant;

/// Longer than a backend that nothing holds takes from its commit's flush to its visibility, which are
/// microseconds, also on a processor that is shared by many.
const LONG: Duration = Duration::from_millis(100);

/// The flushed position with its timeline, and *after* it what is under way: the snapshot, the last
/// transaction id that was given out as the distance from the first (3), and, where something is under
/// way for long, the ids of those that wait for a synchronous standby, modulo 2^32. Each statement has
/// a snapshot of its own; one round trip. The timeline is in the name of the file that is written: the
/// control file is stale until the next checkpoint.
fn question(must_know_syncing: bool, history: i64) -> String {
    let syncing = if must_know_syncing {
        "(SELECT coalesce(string_agg(backend_xid::text, ','), '') FROM pg_stat_activity
          WHERE wait_event = 'SyncRep' AND backend_xid IS NOT NULL)"
    } else {
        "NULL::text"
    };
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY;
         SELECT p::text, ('x' || left(pg_walfile_name(p), 8))::bit(32)::int,
                {history} <> 0 AND pg_table_is_visible({history}::oid) IS NULL FROM pg_current_wal_flush_lsn() p;
         SELECT pg_current_snapshot()::text, age('3'::xid), {syncing};
         COMMIT"
    )
}

/// What a primary said of its transactions at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct UnderWay {
    /// The ids below `from` that are under way.
    below: Vec<u64>,
    /// From here on nothing is shown.
    from: u64,
    /// From here on nothing had begun. What lies between is under way, or was when it was asked.
    next: u64,
    /// Those that wait for a synchronous standby, modulo 2^32, if that was asked for.
    syncing: Option<Vec<u32>>,
}

impl UnderWay {
    fn read(snapshot: &str, age: i32, syncing: Option<&str>) -> Result<Self, ParseIntError> {
        let mut parts = snapshot.splitn(3, ':').skip(1);
        let from: u64 = parts.next().unwrap_or_default().parse()?;
        let below = parts.next().unwrap_or_default().split_terminator(',').map(str::parse);
        let below = below.collect::<Result<_, _>>()?;
        let syncing = syncing.map(|ids| ids.split_terminator(',').map(str::parse).collect());
        // The age is of the last id that was given out, in 32 bits.
        let next = age.cast_unsigned().wrapping_add(3 + 1);
        let next = from + u64::from(next.wrapping_sub(from as u32));
        Ok(Self { below, from, next, syncing: syncing.transpose()? })
    }

    /// What is under way below an id. All that is at `from` or past it counts as one.
    fn before(&self, id: u64) -> impl Iterator<Item = u64> {
        let below = self.below.iter().copied().filter(move |one| *one < id);
        below.chain(Some(self.from).filter(|from| *from < id))
    }

    /// Whether one of them waits for a synchronous standby, as far as that was asked.
    fn may_be_committing(&self, id: u64) -> bool {
        let Some(syncing) = &self.syncing else { return true };
        let past = self.next - self.from;
        syncing.iter().any(|&one| {
            let is_past = u64::from(one.wrapping_sub(self.from as u32)) < past;
            one == id as u32 || (id == self.from && is_past)
        })
    }
}

/// Follows a primary's commits, over one connection.
#[derive(Debug, Default)]
pub(crate) struct ShownCommits {
    /// Up to here everything is shown.
    to: Option<Lsn>,
    /// A flushed position, and the first id that had not begun after it had been flushed.
    awaited: Option<(Lsn, u64)>,
    /// Since when what is under way has been seen.
    since: HashMap<u64, Instant>,
}

impl ShownCommits {
    /// Asks up to where everything is shown, and on which timeline that is; `None` where the table with
    /// the oid `history` (0 for none) is no more.
    pub(crate) async fn ask(
        &mut self,
        connection: &mut PgConnection,
        history: i64,
    ) -> Result<Option<(Option<Lsn>, Option<Timeline>)>, sqlx::Error> {
        let question = question(self.must_know_syncing(), history);
        let rows = sqlx::raw_sql(AssertSqlSafe(question)).fetch_all(connection).await?;
        let [position, under_way] = &rows[..] else { return Err(sqlx::Error::RowNotFound) };
        if position.try_get::<bool, _>(2)? {
            return Ok(None);
        }
        let (flushed, timeline) = (position.try_get::<&str, _>(0)?, position.try_get::<i32, _>(1)?);
        let (snapshot, age) = (under_way.try_get(0)?, under_way.try_get(1)?);
        let under_way = UnderWay::read(snapshot, age, under_way.try_get(2)?).map_err(unreadable)?;
        let shown = self.heard(flushed.parse().map_err(unreadable)?, &under_way);
        Ok(Some((shown, Some(Timeline(timeline.unsigned_abs())))))
    }

    /// Whether it must be asked who waits for a synchronous standby: something is under way for long.
    fn must_know_syncing(&self) -> bool {
        self.since.values().any(|since| since.elapsed() >= LONG)
    }

    /// The primary had flushed up to `flushed`, and then said what is under way. Up to where it shows
    /// everything.
    fn heard(&mut self, flushed: Lsn, under_way: &UnderWay) -> Option<Lsn> {
        let now = Instant::now();
        let known = std::mem::take(&mut self.since);
        self.since = under_way
            .before(under_way.next)
            .map(|id| (id, known.get(&id).copied().unwrap_or(now)))
            .collect();
        let counts = |id: u64| {
            let is_long = self.since.get(&id).is_some_and(|since| now - *since >= LONG);
            !is_long || under_way.may_be_committing(id)
        };
        // What was awaited, and then what is flushed by now.
        let newest = (flushed, under_way.next);
        for (position, id) in self.awaited.take().into_iter().chain([newest]) {
            if under_way.before(id).any(counts) {
                self.awaited = Some((position, id));
                break;
            }
            self.to = self.to.max(Some(position));
        }
        self.to
    }
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last id that was given out, and what is under way.
    fn said(snapshot: &str, last: u64, syncing: Option<&str>) -> UnderWay {
        UnderWay::read(snapshot, (last as u32).wrapping_sub(3).cast_signed(), syncing).unwrap()
    }

    #[test]
    fn ids_have_64_bits_and_are_told_in_32() {
        let base = (5 << 32) - 10;
        let under_way =
            said(&format!("{}:{base}:{},{}", base - 9, base - 9, base - 4), base + 20, None);
        assert_eq!(under_way.below, [base - 9, base - 4]);
        assert_eq!((under_way.from, under_way.next), (base, base + 21));
        let quiet = said("100:100:", 99, None);
        assert_eq!((quiet.from, quiet.next, quiet.below.len()), (100, 100, 0));
        assert!(UnderWay::read("100", 1, None).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_position_is_shown_once_everything_has_ended_that_was_under_way() {
        let mut shown = ShownCommits::default();
        assert_eq!(shown.heard(Lsn(10), &said("100:100:", 99, None)), Some(Lsn(10)), "quiet");
        assert_eq!(
            shown.heard(Lsn(20), &said("100:100:", 100, None)),
            Some(Lsn(10)),
            "one has begun"
        );
        // Others come, and go on without end.
        assert_eq!(shown.heard(Lsn(30), &said("100:102:100", 102, None)), Some(Lsn(10)));
        assert_eq!(
            shown.heard(Lsn(40), &said("102:102:", 102, None)),
            Some(Lsn(20)),
            "the first ended"
        );
        assert_eq!(shown.heard(Lsn(50), &said("103:104:103", 103, None)), Some(Lsn(40)));
        assert_eq!(
            shown.heard(Lsn(60), &said("105:105:", 104, None)),
            Some(Lsn(60)),
            "quiet again"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_writes_for_long_holds_nobody_up_unless_it_waits_for_a_standby() {
        let mut shown = ShownCommits::default();
        let both = |syncing| said("100:102:100", 102, syncing);
        assert_eq!(shown.heard(Lsn(10), &both(None)), None);
        tokio::time::advance(LONG).await;
        assert!(shown.must_know_syncing());
        assert_eq!(shown.heard(Lsn(10), &both(None)), None, "not asked yet");
        assert_eq!(shown.heard(Lsn(10), &both(Some("100"))), None, "below");
        assert_eq!(shown.heard(Lsn(10), &both(Some("102"))), None, "past what is shown");
        assert_eq!(shown.heard(Lsn(10), &both(Some("103"))), Some(Lsn(10)), "after it");
        // Later positions, too; but what comes is waited for.
        let three = said("100:103:100", 103, Some(""));
        assert_eq!(shown.heard(Lsn(20), &three), Some(Lsn(10)));
        assert_eq!(shown.heard(Lsn(20), &said("100:104:100", 103, Some(""))), Some(Lsn(20)));
        assert_eq!(shown.heard(Lsn(30), &said("104:104:", 103, None)), Some(Lsn(30)));
        assert!(!shown.must_know_syncing());
    }
}
