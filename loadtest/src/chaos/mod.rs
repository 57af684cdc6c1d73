//! Chaos: clients write and read in three regions while everything that can fail does, by a seeded
//! schedule; and a history of all of it is judged by the checker, which knows nothing of this.
//!
//! Two schedules run beside each other: one for the workers, one for servers and links. Each fault
//! is written into the history before it begins and after it is over. When the time is up everything
//! is mended, what was accepted settles, and the end state is dumped behind the history: the ledger,
//! the app's own rows, and the stream as a reader of its own copied it.

mod broker;
mod client;
mod ending;
mod failover;
mod flags;
mod pauses;
mod report;
mod sabotage;
mod schedule;
mod stage;
mod stream_copy;
mod workers;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use farwrite_checker::HistoryWriter;

use client::Client;
use ending::End;
use pauses::Pauses;
use schedule::Tally;
use stage::Stage;
use stream_copy::StreamCopy;

pub use flags::{as_told, command};
pub use report::{Report, print};
pub use schedule::Kind;

/// What to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What every choice is drawn from.
    pub seed: u64,
    /// How long clients write and read.
    pub duration: Duration,
    /// How many clients there are.
    pub clients: u32,
    /// Which faults there are; all but those that end in an operator's decision when empty.
    pub kinds: Vec<Kind>,
    /// Where the history goes.
    pub history: PathBuf,
    /// Where the programs are.
    pub programs: PathBuf,
}

/// Runs one seed, and judges it.
///
/// # Errors
/// When servers or programs do not start, or a fault cannot be made or mended: then there is no
/// verdict.
pub async fn run(settings: &Settings) -> Result<Report> {
    let started = format!("seed {}, {} s", settings.seed, settings.duration.as_secs());
    let history = HistoryWriter::create(&settings.history, settings.seed, &started)?;
    let mut random = fastrand::Rng::with_seed(settings.seed);
    let kinds = Kind::chosen(&settings.kinds);
    let stage = Arc::new(Stage::set(settings, history.clone(), random.fork()).await?);
    // Of a stream that is put back there is no one copy.
    let is_restored = kinds.contains(&Kind::BrokerRestore);
    let copy = if is_restored { None } else { Some(StreamCopy::begin(&stage).await?) };
    let until = Instant::now() + settings.duration;
    let calm = CancellationToken::new();
    let pauses = Pauses::default();
    let mut clients = JoinSet::new();
    for number in 0..settings.clients {
        let client = Client::new(number, Arc::clone(&stage), pauses.clone(), random.fork());
        clients.spawn(client.run(until));
    }
    let hopping = async {
        let mut acknowledged = 0;
        while let Some(ended) = clients.join_next().await {
            acknowledged += ended.context("a client failed")??;
        }
        anyhow::Ok(acknowledged)
    };
    let timing = async {
        tokio::time::sleep_until(until).await;
        calm.cancel();
        anyhow::Ok(())
    };
    let tally = Tally::default();
    let servers = schedule::run(
        &stage,
        schedule::Track::Servers,
        &kinds,
        random.fork(),
        &calm,
        &tally,
        &pauses,
    );
    let workers = schedule::run(
        &stage,
        schedule::Track::Workers,
        &kinds,
        random.fork(),
        &calm,
        &tally,
        &pauses,
    );
    let (acknowledged, (), (), ()) = tokio::try_join!(hopping, timing, servers, workers)?;
    let End { applied, unsettled } = ending::settle_and_dump(&stage, copy, &history).await?;
    let reapplied = stage.reapplied();
    history.finish()?;
    let longest_pause_ms = pauses.longest();
    let stage = Arc::into_inner(stage).context("somebody still works")?;
    stage.strike().await?;
    let file = settings.history.clone();
    let judged = tokio::task::spawn_blocking(move || farwrite_checker::check_file(&file)).await??;
    let faults: BTreeMap<_, _> = tally.into_counts();
    Ok(Report {
        seed: settings.seed,
        faults,
        acknowledged,
        applied,
        reapplied,
        longest_pause_ms,
        unsettled,
        judged,
    })
}
