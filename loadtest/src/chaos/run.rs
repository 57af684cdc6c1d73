//! One run of one seed: the clients, the tracks of faults beside them, the end state, the verdict.

use std::sync::Arc;

use anyhow::{Context, Result};
use farwrite_checker::{HistoryWriter, check_file};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    client::Client,
    ending::{self, ChaosEnd},
    fault::{FaultKind, FaultTrack},
    faults::{FaultCounts, Faults},
    pauses::Pauses,
    report::ChaosReport,
    settings::ChaosSettings,
    stage::ChaosStage,
    stream_copy::StreamCopy,
};

/// Runs one seed, and judges it.
///
/// # Errors
/// When servers or programs do not start, or a fault cannot be made or mended: then there is no
/// verdict.
pub async fn run(settings: &ChaosSettings) -> Result<ChaosReport> {
    let started = format!("seed {}, {} s", settings.seed, settings.duration.as_secs());
    let history = HistoryWriter::create(&settings.history, settings.seed, &started)?;
    let mut random = fastrand::Rng::with_seed(settings.seed);
    let stage = Arc::new(ChaosStage::set(history.clone(), random.fork()).await?);
    // A stream that is put back has no single copy.
    let is_restored = settings.faults().contains(&FaultKind::BrokerRestore);
    let copy = if is_restored { None } else { Some(StreamCopy::begin(&stage).await?) };
    let until = Instant::now() + settings.duration;
    let pauses = Pauses::default();
    let mut clients = JoinSet::new();
    for number in 0..settings.clients {
        let (stage, calls) = (Arc::clone(&stage), settings.schedule.calls());
        let client = Client::new(number, stage, pauses.clone(), calls, random.fork());
        clients.spawn(client.run(until));
    }
    let calling = async {
        let mut acknowledged = 0;
        while let Some(ended) = clients.join_next().await {
            acknowledged += ended.context("a client failed")??;
        }
        anyhow::Ok(acknowledged)
    };
    let faults = Faults {
        settings,
        stage: &stage,
        calm: CancellationToken::new(),
        counts: FaultCounts::default(),
        pauses: &pauses,
    };
    let timing = async {
        tokio::time::sleep_until(until).await;
        faults.calm.cancel();
        anyhow::Ok(())
    };
    let servers = faults.run(FaultTrack::Servers, random.fork());
    let workers = faults.run(FaultTrack::Workers, random.fork());
    let (acknowledged, (), (), ()) = tokio::try_join!(calling, timing, servers, workers)?;
    let faults = faults.counts.into_counts();
    let ChaosEnd { applied, unsettled } = ending::settle_and_dump(&stage, copy, &history).await?;
    let reapplied = stage.reapplied();
    history.finish()?;
    let longest_pause_ms = pauses.longest();
    let stage = Arc::into_inner(stage).context("somebody still works")?;
    stage.strike().await?;
    let file = settings.history.clone();
    let judged = tokio::task::spawn_blocking(move || check_file(&file)).await??;
    Ok(ChaosReport {
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
