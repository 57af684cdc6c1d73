//! Becoming the one worker of a database.
//!
//! A takeover mints a random token, the epoch, and writes it into every lane's row. That is the
//! fence (invariant 2): each batch begins by updating its lane's row under the epoch and from the
//! position that it knows, and fails when either differs. Updating the rows also waits for batches
//! in flight, so that the positions that a takeover reads are final. A token and not a counter: a
//! failover rolls a counter back, and the number would be given twice.
//!
//! Every reconnection is a takeover of one's own. When another worker's database may be taken over
//! is the affair of `lease.rs`; what is written here is right whenever it happens.

use farwrite_internal::sabotage;
use farwrite_schemas::Epoch;
use sqlx::{Connection, PgConnection};
use tracing::info;

use crate::{
    config::Config,
    keep::{hint_book::ToldPosition, hints::Hints, horizon::LedgerHorizon},
    primary::{LANE_APPLICATION, PrimaryError, PrimaryStart},
    store::{
        history, lanes,
        owner::{self, FormerOwner},
        parked, server,
        streams::{self, StreamRow},
    },
    stream::{
        error::StreamError,
        key::HASH_VERSION,
        position::{LanePosition, StreamPosition, StreamProgress},
    },
    verdict::Blame,
};

use super::{
    end::ServingEnd,
    takeover::{Claim, Takeover},
};

/// Reads how far the database has come, without taking over.
pub(crate) async fn read_progress(
    connection: &mut PgConnection,
    stream: &str,
) -> Result<StreamProgress, StreamError> {
    let row = registered(connection, stream).await?;
    let lanes = lanes::positions(connection, row.stream_id, None).await?;
    Ok(StreamProgress::of(&lanes, row.low_water, row.highest))
}

/// Checks that the database is as far as the broker was told of it. On one timeline it never goes back:
/// a server that did was put back from an older copy, and positions beyond are given out again.
pub(crate) async fn check_not_put_back(
    connection: &mut PgConnection,
    stream: &str,
    hints: &Hints,
) -> Result<(), ServingEnd> {
    let Some(ToldPosition { epoch, passed: told }) = hints.told else { return Ok(()) };
    let found = read_progress(connection, stream).await?.low_water;
    let timeline = server::timeline(connection).await?;
    if found < told && history::was_on(connection, epoch, timeline).await? {
        return Err(PrimaryError::PutBack { stream: stream.to_owned(), told, found }.into());
    }
    Ok(())
}

async fn registered(connection: &mut PgConnection, stream: &str) -> Result<StreamRow, StreamError> {
    let row = streams::by_name(connection, stream).await?;
    row.ok_or_else(|| StreamError::NotRegistered(stream.to_owned()))
}

/// Takes over as a new epoch, over the session that will stand for the owner.
pub(crate) async fn take_over(
    connection: &mut PgConnection,
    config: &Config,
    wanted: &Claim,
    hints: Hints,
    epoch: Epoch,
) -> Result<Takeover, ServingEnd> {
    let mut tx = connection.begin().await?;
    let (before, identity) = claim(&mut tx, config, epoch, wanted).await?;
    end_other_lanes(&mut tx, epoch).await?;
    let stream = registered(&mut tx, &config.stream).await?;
    let (lanes, progress) = claim_lanes(&mut tx, &stream, config.lanes, epoch).await?;
    // A server that was started anew was ended by nobody's command: a backend that crashes does not
    // end the server.
    let start = PrimaryStart::of(&mut tx).await?;
    let is_restarted = wanted.server.as_ref().is_some_and(|before| *before != start);
    let blameless = (!is_restarted).then_some(&wanted.blameless[..]);
    lanes::exonerate(&mut tx, stream.stream_id, blameless, Blame::None).await?;
    if !is_restarted {
        lanes::exonerate(&mut tx, stream.stream_id, Some(&wanted.ended), Blame::Half).await?;
    }
    // Another process's worker fell, or was stopped, and the server stood: no function did that.
    if before.epoch != wanted.mine && before.server_stood {
        lanes::exonerate_functions(&mut tx, stream.stream_id).await?;
    }
    owner::mark_server(&mut tx, epoch).await?;
    parked::count(&mut tx).await?;
    // This worker may know commands that no worker knew.
    parked::retry_unknown(&mut tx).await?;
    let timeline = server::timeline(&mut tx).await?;
    let flushed_lsn = before.flushed_lsn.as_deref();
    history::begin_epoch(&mut tx, epoch, before.epoch, flushed_lsn, timeline).await?;
    tx.commit().await?;
    let database = config.database.clone();
    let stream_id = stream.stream_id;
    let unclean = before.unclean;
    let StreamProgress { low_water, highest } = progress;
    info!(%epoch, timeline = timeline.0, low_water, high_water = highest.sequence, "took over");
    let horizon = LedgerHorizon::default();
    Ok(Takeover {
        epoch,
        timeline,
        stream_id,
        lanes,
        progress,
        unclean,
        hints,
        horizon,
        database,
        identity,
    })
}

/// Writes the owner's row. Takeovers queue up here: the second of two that found the database free
/// finds it owned. Answers the one before, and the database's identity.
async fn claim(
    tx: &mut PgConnection,
    config: &Config,
    epoch: Epoch,
    wanted: &Claim,
) -> Result<(FormerOwner, String), ServingEnd> {
    owner::lock(tx).await?;
    let state = owner::state(tx).await?;
    let is_mine = wanted.mine.is_some() && wanted.mine == state.epoch;
    if !state.liveness.is_free() && !is_mine && !wanted.forced {
        return Err(ServingEnd::again("another worker owns this database"));
    }
    let before = owner::former(tx).await?;
    if !sabotage::leaves_out("fence") {
        owner::end_session(tx).await?;
    }
    let identity = owner::claim(tx, &config.database, epoch, &worker_name(), config.lease).await?;
    Ok((before, identity))
}

/// Ends the lane connections of former epochs, this worker's own broken ones too. A stopped process
/// keeps its session, and an open transaction in it keeps a lane's row locked. What they were doing
/// rolls back, and is done again from the position that stands.
pub(crate) async fn end_other_lanes(
    tx: &mut PgConnection,
    epoch: Epoch,
) -> Result<(), sqlx::Error> {
    if sabotage::leaves_out("fence") {
        return Ok(());
    }
    let ended = server::end_other_lanes(tx, LANE_APPLICATION, epoch).await?;
    if ended > 0 {
        info!(ended, "ended the lane connections of a former epoch");
    }
    Ok(())
}

/// Writes the epoch into every lane of the database, and brings the stream's lanes to the wanted
/// number: new rows begin at the lowest old position, where what is read again is known from the
/// ledger. The highest old position is kept with the stream: it still proves what was passed.
async fn claim_lanes(
    tx: &mut PgConnection,
    stream: &StreamRow,
    wanted: u32,
    epoch: Epoch,
) -> Result<(Vec<LanePosition>, StreamProgress), sqlx::Error> {
    lanes::claim_all(tx, epoch).await?;
    let old = lanes::positions(tx, stream.stream_id, Some(stream.generation)).await?;
    let progress = StreamProgress::of(&old, stream.low_water, stream.highest);
    if stream.lanes == wanted && stream.hash_version == HASH_VERSION && old.len() == wanted as usize
    {
        return Ok((old, progress));
    }
    let low_water = progress.low_water;
    let lowest = old.into_iter().map(|lane| lane.position).min_by_key(|lane| lane.sequence);
    let position = lowest.unwrap_or(StreamPosition::unread(low_water));
    let new = vec![LanePosition { position, suspects: Vec::new() }; wanted as usize];
    let generation = stream.generation + 1;
    lanes::replace(tx, stream.stream_id, generation, &new, epoch).await?;
    let highest = progress.highest;
    streams::set_lanes(tx, stream.stream_id, generation, new.len(), HASH_VERSION, highest).await?;
    info!(lanes = wanted, from = low_water, "the number of lanes changed");
    Ok((new, progress))
}

/// Host and process, for people who look at the owner's row.
fn worker_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}:{}", std::process::id())
}
