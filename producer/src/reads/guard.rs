//! A pool that gives out no connection that shows less than was promised.
//!
//! What a connection is says [`Promise`]. Here its server is asked: which start of a server it is and what it
//! shows, in one question, and about the branch of history only where nothing is known of the server.
//!
//! A server that was made anew after a failover is behind the promise, too. There the promise is
//! lowered to where the timeline ended, as the server's own rows say.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use farwrite_internal::sabotage;
use farwrite_schemas::{BRANCHES_QUERY, Branch, BranchKnown, BranchRow, Epoch, Lsn};
use sqlx::{PgConnection, postgres::PgPoolOptions};
use tokio::time::sleep;

use crate::{
    metrics,
    reads::promise::{Arrival, Furthest, Promise, Standing},
};

/// How long a connection waits for a replica that came back behind. 5 s: a restarted replica
/// replays what it has on its own disk within that; one that takes longer is better refused, so
/// that the app's own timeout and fallback apply.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How often it is asked meanwhile. Only after a crash of the replica, so that it may be slow.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(20);

/// The start of the server, in microseconds since 1970, and what it shows. A promoted replica's replay position
/// stands still, and what it commits itself is past it.
const LOOK: &str = "SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
    (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text";

/// Rows that another database wrote.
const OTHER_DATABASE: &str = "FW004";

/// Why a connection is not given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error(
        "the replica shows {shown} only, and {promised} was visible before: it came back behind its own past"
    )]
    Behind { shown: Lsn, promised: Lsn },
    #[error(
        "the server (started at {start_us} us) is another one than the watched one: connect the app and its watcher to one replica, or expect that connections are made again until they meet"
    )]
    Stranger { start_us: i64 },
    #[error(
        "the server (started at {start_us} us) does not hold the history of what was visible before: it is another database, or on a branch that a failover lost"
    )]
    OtherHistory { start_us: i64 },
}

impl Refused {
    fn error(self) -> sqlx::Error {
        metrics::read_refused();
        tracing::warn!(reason = %self, "a connection to a server was refused");
        sqlx::Error::Configuration(Box::new(self))
    }
}

/// Gives a pool its guard.
pub(crate) fn guard(promise: &Arc<Promise>, pool: PgPoolOptions) -> PgPoolOptions {
    if sabotage::leaves_out("pool") {
        return pool;
    }
    let (new, old) = (Arc::clone(promise), Arc::clone(promise));
    let pool = pool.after_connect(move |connection, _| {
        let promise = Arc::clone(&new);
        Box::pin(async move { admit(&promise, connection).await })
    });
    pool.before_acquire(move |connection, metadata| {
        let promise = Arc::clone(&old);
        Box::pin(async move {
            let now = Instant::now();
            let made_at = now.checked_sub(metadata.age).unwrap_or(now);
            match promise.standing(made_at, now) {
                Standing::Kept => Ok(true),
                Standing::Asked => pass(&promise, connection).await,
                Standing::Replaced => Ok(false),
            }
        })
    })
}

/// Lets a new connection in.
async fn admit(promise: &Promise, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let (start_us, shown) = look(connection).await?;
    match promise.arrival(start_us, Instant::now()) {
        Arrival::Stranger => Err(Refused::Stranger { start_us }.error()),
        Arrival::Home => catch_up(promise, connection, start_us, shown).await,
        Arrival::Unknown => {
            catch_up(promise, connection, start_us, shown).await?;
            promise.moves_to(start_us, Instant::now());
            Ok(())
        }
    }
}

/// Whether an older connection may be given out.
async fn pass(promise: &Promise, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let (start_us, shown) = look(connection).await?;
    if !promise.is_home(start_us) {
        return Ok(false);
    }
    catch_up(promise, connection, start_us, shown).await.map(|()| true)
}

/// Lets a connection pass once it shows what was promised.
async fn catch_up(
    promise: &Promise,
    connection: &mut PgConnection,
    start_us: i64,
    mut shown: Lsn,
) -> Result<(), sqlx::Error> {
    let began = Instant::now();
    loop {
        let Furthest { lsn, epoch, .. } = match promise.compare(shown) {
            Ok(None) => return Ok(()),
            Ok(Some(furthest)) => {
                if !promise.is_held(&furthest, start_us) && !holds(connection, furthest.epoch).await
                {
                    return Err(Refused::OtherHistory { start_us }.error());
                }
                promise.was_shown(&furthest, start_us);
                return Ok(());
            }
            Err(missing) => missing,
        };
        if let Some(end) = end_of(connection, epoch).await
            && end < lsn
        {
            promise.lower(lsn, end);
            continue;
        }
        let now = Instant::now();
        let is_in_vain = promise.watches_another(start_us, now);
        if is_in_vain || now.saturating_duration_since(began) >= CATCH_UP {
            return Err(Refused::Behind { shown, promised: lsn }.error());
        }
        sleep(CATCH_UP_PAUSE).await;
        (_, shown) = look(connection).await?;
    }
}

/// The start of the server, and what it shows.
async fn look(connection: &mut PgConnection) -> Result<(i64, Lsn), sqlx::Error> {
    let (start_us, shown): (i64, Option<String>) =
        sqlx::query_as(LOOK).fetch_one(connection).await?;
    // A standby that has replayed nothing yet has no position.
    let shown = shown.map_or(Ok(Lsn::default()), |text| text.parse());
    Ok((start_us, shown.map_err(|error| sqlx::Error::Decode(Box::new(error)))?))
}

/// What this server's history says of an epoch.
async fn branch(
    connection: &mut PgConnection,
    epoch: Epoch,
) -> Result<Option<BranchKnown>, sqlx::Error> {
    let rows: Vec<BranchRow> =
        sqlx::query_as(BRANCHES_QUERY).bind(vec![epoch.0]).fetch_all(connection).await?;
    let branch = rows.into_iter().next().map(|row| Branch::from_row(row, Lsn::default()));
    let branch = branch.transpose().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(branch.map(|branch| branch.known))
}

/// Whether this server holds an epoch, as far as the user may see that.
async fn holds(connection: &mut PgConnection, epoch: Epoch) -> bool {
    match branch(connection, epoch).await {
        Ok(known) => matches!(known, Some(BranchKnown::Held { .. })),
        Err(error) => {
            let code = error.as_database_error().and_then(|error| error.code());
            code.is_some_and(|code| code != OTHER_DATABASE)
        }
    }
}

/// Where an epoch's timeline ended on this server, if it did and the user may see it.
async fn end_of(connection: &mut PgConnection, epoch: Epoch) -> Option<Lsn> {
    match branch(connection, epoch).await.ok()?? {
        BranchKnown::Held { ends, .. } => ends,
        BranchKnown::Absent { .. } | BranchKnown::Elsewhere { .. } => None,
    }
}
