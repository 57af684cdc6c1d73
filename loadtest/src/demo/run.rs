//! One run of the demo: the file is read, everything is started, the file is replayed and judged.
//!
//! A file with a bad row is refused before anything is started. A later failure ends the demo with
//! `demo: FAIL` and the reason. No process and no folder stays behind in any case.

use std::{sync::atomic::AtomicUsize, time::Instant};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    file::FlightsFile,
    judge,
    plan::DemoPlan,
    publish::{IN_FLIGHT, Replay},
    report::{self, DemoInput, DemoReport, DemoTimes, Duplicates, RegionReport},
    settings::{DemoSettings, HandlerKind},
    settled,
    stage::{self, DemoStage},
    text::{counted, grouped, say, told},
};
use crate::kit::counter;

/// The worker's counter of commands whose id the ledger knew.
const SUPPRESSED: &str = "farwrite_worker_duplicates_suppressed_total";

/// Runs the demo and prints how it ended; true when every verdict holds.
pub(super) async fn run(settings: &DemoSettings) -> bool {
    let played = match report::begin_json(&settings.json) {
        // Signals first: dropping the play is what cleans up.
        Ok(()) => tokio::select! {
            biased;
            error = interrupted() => Err(error),
            played = play(settings) => played,
        },
        Err(error) => Err(error),
    };
    let (reason, report) = match played {
        Ok(report) => {
            let failed = report.failed();
            let reason =
                (!failed.is_empty()).then(|| format!("it does not hold: {}", failed.join("; ")));
            (reason, Some(report))
        }
        Err(error) => (Some(told(&error)), None),
    };
    let written = report::write_json(&settings.json, reason.as_deref(), report.as_ref());
    let reason = reason.or_else(|| written.err().map(|error| told(&error)));
    match &reason {
        None => say("demo: PASS"),
        Some(reason) => {
            // The reason stands in the last line; what belongs to it (rows, a log) before it.
            let (reason, details) = reason.split_once('\n').unwrap_or((reason, ""));
            if !details.is_empty() {
                say(details);
            }
            say(format_args!("demo: FAIL: {reason}"));
        }
    }
    reason.is_none()
}

async fn interrupted() -> anyhow::Error {
    let signals = signal(SignalKind::interrupt())
        .and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)));
    match signals {
        Ok((mut interrupt, mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            anyhow::anyhow!("interrupted")
        }
        Err(error) => anyhow::Error::new(error).context("signals cannot be heard"),
    }
}

async fn play(settings: &DemoSettings) -> Result<DemoReport> {
    settings.validate()?;
    let file = FlightsFile::read(&settings.flights)?;
    let plan = DemoPlan::new(&settings.regions);
    let departed = file.rows.iter().filter(|row| row.departed()).count();
    let input = DemoInput {
        file: file.name.clone(),
        rows: file.rows.len(),
        departed,
        cancelled: file.rows.len() - departed,
        handler: settings.handler.as_str(),
        rtt_ms: u64::try_from(settings.rtt.as_millis()).unwrap_or(u64::MAX),
        in_flight: IN_FLIGHT,
        watched_over_nats: stage::watched(&settings.regions).cloned(),
    };
    introduce(&input, &plan, settings.handler);
    let began = Instant::now();
    let stage = DemoStage::set(settings).await?;
    let start_s = began.elapsed().as_secs_f64();
    say(format_args!("servers, programs and apps run after {start_s:.1} s; publishing"));
    let report = tokio::select! {
        biased;
        error = stage.program_ended() => return Err(error),
        report = replay(&stage, &file, &plan, input, start_s) => report?,
    };
    stage.strike().await?;
    report.print();
    Ok(report)
}

fn introduce(input: &DemoInput, plan: &DemoPlan, handler: HandlerKind) {
    say(format_args!(
        "{}: {}, {} of them cancelled",
        input.file,
        counted(input.rows, "departure"),
        grouped(input.cancelled)
    ));
    let (primary, replicas) = plan.regions.split_first().map_or(("", &[][..]), |(a, b)| (a, b));
    let replicas = match replicas {
        [] => "no replica regions".to_owned(),
        far => format!("replicas in {}, {} ms of round trip away", far.join(" and "), input.rtt_ms),
    };
    say(format_args!("primary in {primary}, {replicas}"));
    for (airport, region) in plan.strangers() {
        say(format_args!("no region is named after {airport}: it publishes in {region}"));
    }
    let what = match handler {
        HandlerKind::Sql => "functions of the database",
        HandlerKind::Rust => "handlers in Rust",
    };
    say(format_args!("applied by {}, {what}", handler.program()));
}

/// Publishes, waits until everything is settled, and has it judged.
async fn replay(
    stage: &DemoStage,
    file: &FlightsFile,
    plan: &DemoPlan,
    input: DemoInput,
    start_s: f64,
) -> Result<DemoReport> {
    let started = AtomicUsize::new(0);
    let mut replay = Replay::new(file, plan, &stage.producers, &started)?;
    let rows = input.rows;
    let messages =
        rows + (0..rows).filter(|index| DemoPlan::copies(*index, rows).after_window).count();
    let mut primary = stage.primary().await?;
    let progress = settled::show_progress(stage.primary().await?, messages as u64, rows, &started);

    let began = Instant::now();
    let publishing = async {
        replay.publish().await?;
        let publish_s = began.elapsed().as_secs_f64();
        replay.publish_late_copies().await?;
        let client = stage.nats().await?;
        let context = async_nats::jetstream::new(client.clone());
        let last = context.get_stream(DemoStage::stream()).await?.cached_info().state.last_sequence;
        let settled = settled::wait_settled(&mut primary, last).await;
        if let Err(error) = settled {
            bail!("{}\nthe end of the worker's log:\n{}", told(&error), stage.worker_log());
        }
        Ok((publish_s, client))
    };
    let (publish_s, client) = tokio::select! {
        error = progress => return Err(error.context("asking the primary for the lanes' positions")),
        published = publishing => published?,
    };
    let settle_s = began.elapsed().as_secs_f64();
    let suppressed_by_ledger = counter(stage.worker_metrics(), SUPPRESSED).await?;

    let Replay { tallies, ids, .. } = replay;
    let stream = judge::load(&mut primary, &client, &DemoStage::stream(), file, plan, &ids).await?;
    let verdicts = judge::verdicts(&mut primary).await.context("judging")?;
    let regions: Vec<RegionReport> = plan
        .regions
        .iter()
        .zip(&tallies)
        .map(|(region, tally)| RegionReport::of(region, tally))
        .collect();
    let suppressed_by_broker = tallies.iter().map(|tally| tally.suppressed).sum();
    let stored: u64 = tallies.iter().map(|tally| tally.stored).sum();
    let commands_per_s = (rows as f64 / publish_s) as u64;
    let mut report = DemoReport {
        input,
        regions,
        pace: DemoTimes { start_s, publish_s, settle_s, commands_per_s },
        duplicates: Duplicates {
            sent: suppressed_by_broker + stored,
            suppressed_by_broker,
            suppressed_by_ledger,
            stream,
        },
        verdicts,
    };
    report.judge_counts();
    Ok(report)
}
