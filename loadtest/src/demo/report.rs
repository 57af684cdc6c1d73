//! What the demo found out: printed, and written as JSON. All that is printed comes from the
//! report, so the JSON holds every figure.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::{
    judge::{DemoVerdict, StreamCount},
    tally::{Quantiles, RegionTally},
    text::{counted, grouped, say},
};
use crate::kit::write_file;

/// Everything that a run found out.
#[derive(Debug, Serialize)]
pub(super) struct DemoReport {
    pub(super) input: DemoInput,
    pub(super) regions: Vec<RegionReport>,
    pub(super) pace: DemoTimes,
    pub(super) duplicates: Duplicates,
    pub(super) verdicts: Vec<DemoVerdict>,
}

/// What was replayed, and where.
#[derive(Debug, Serialize)]
pub(super) struct DemoInput {
    pub(super) file: String,
    pub(super) rows: usize,
    pub(super) departed: usize,
    pub(super) cancelled: usize,
    pub(super) handler: &'static str,
    pub(super) rtt_ms: u64,
    pub(super) in_flight: usize,
    /// The region whose app waits through the watcher program; the others watch themselves.
    pub(super) watched_over_nats: Option<String>,
}

/// What the app of one region did.
#[derive(Debug, Serialize)]
pub(super) struct RegionReport {
    region: String,
    commands: u64,
    published: u64,
    submitted: u64,
    written: u64,
    stale_reads: u64,
    duplicates_sent: u64,
    accepted_ms: Option<Quantiles>,
    committed_ms: Option<Quantiles>,
    visible_ms: Option<Quantiles>,
}

/// How long it took.
#[derive(Debug, Serialize)]
pub(super) struct DemoTimes {
    /// Until the servers and programs ran.
    pub(super) start_s: f64,
    /// From the first command to the answer of the last one.
    pub(super) publish_s: f64,
    /// Until everything was settled, copies after the duplicate window with it.
    pub(super) settle_s: f64,
    /// Commands per second while they were published.
    pub(super) commands_per_s: u64,
}

/// What became of the commands that were published twice.
#[derive(Debug, Serialize)]
pub(super) struct Duplicates {
    pub(super) sent: u64,
    pub(super) suppressed_by_broker: u64,
    pub(super) suppressed_by_ledger: u64,
    pub(super) stream: StreamCount,
}

impl RegionReport {
    /// The figures of a tally.
    pub(super) fn of(region: &str, tally: &RegionTally) -> Self {
        let [published, submitted, written] = tally.commands();
        let [accepted_ms, committed_ms, visible_ms] = tally.quantiles();
        Self {
            region: region.to_owned(),
            commands: published + submitted + written,
            published,
            submitted,
            written,
            stale_reads: tally.stale,
            duplicates_sent: tally.suppressed + tally.stored,
            accepted_ms,
            committed_ms,
            visible_ms,
        }
    }
}

impl DemoReport {
    /// The verdicts that are counted and not compared: reads after writes, and duplicates.
    pub(super) fn judge_counts(&mut self) {
        let (reads, stale) = self.regions.iter().fold((0, 0), |(reads, stale), region| {
            (reads + region.written, stale + region.stale_reads)
        });
        let Duplicates { suppressed_by_broker: broker, suppressed_by_ledger: ledger, .. } =
            self.duplicates;
        let stored_twice = self.duplicates.stream.messages - self.duplicates.stream.distinct_ids;
        let verdict = |claim, holds, found| DemoVerdict { claim, holds, found, faults: Vec::new() };
        self.verdicts.extend([
            verdict(
                "no stale read after write",
                stale == 0,
                format!("{} of {} stale", grouped(stale), counted(reads, "read")),
            ),
            verdict(
                "duplicates suppressed by the broker",
                broker > 0,
                format!("{}, published again at once", grouped(broker)),
            ),
            verdict(
                "duplicates suppressed by the ledger",
                ledger > 0,
                format!("{}, the stream holds {}", grouped(ledger), grouped(stored_twice)),
            ),
        ]);
    }

    /// The claims that do not hold.
    pub(super) fn failed(&self) -> Vec<&'static str> {
        let failed = self.verdicts.iter().filter(|verdict| !verdict.holds);
        failed.map(|verdict| verdict.claim).collect()
    }

    /// Prints all but the last line.
    pub(super) fn print(&self) {
        let DemoTimes { publish_s, settle_s, commands_per_s, .. } = self.pace;
        say(format_args!(
            "{} answered in {publish_s:.1} s ({} a second), everything settled after {settle_s:.1} s",
            counted(self.input.rows, "command"),
            grouped(commands_per_s)
        ));
        say("");
        say("region     commands  duplicates    accepted ms     committed ms       visible ms");
        say("                           sent    p50      p99     p50      p99     p50      p99");
        for region in &self.regions {
            let [accepted, committed, visible] =
                [region.accepted_ms, region.committed_ms, region.visible_ms].map(pair);
            say(format_args!(
                "{:<10} {:>8}  {:>10} {accepted} {committed} {visible}",
                region.region,
                grouped(region.commands),
                grouped(region.duplicates_sent)
            ));
        }
        say(format_args!(
            "latencies under load: up to {} commands in flight, and one of each aircraft and region",
            self.input.in_flight
        ));
        if let Some(region) = &self.input.watched_over_nats {
            say(format_args!(
                "{region} waits through its watcher, by way of the NATS server in {}",
                self.regions.first().map_or("", |region| &region.region)
            ));
        }
        say("");
        for DemoVerdict { claim, holds, found, faults } in &self.verdicts {
            let word = if *holds { "ok" } else { "FAIL" };
            say(format_args!("{word:<4}  {claim:<48}  {found}"));
            for fault in faults {
                say(format_args!("        {fault}"));
            }
        }
        say("");
    }
}

fn pair(quantiles: Option<Quantiles>) -> String {
    match quantiles {
        Some(Quantiles { p50, p99 }) => format!("{p50:>7.1} {p99:>8.1}"),
        None => format!("{:>7} {:>8}", "-", "-"),
    }
}

/// The JSON file: how the demo ended, and the report where it came to one.
#[derive(Serialize)]
struct DemoEnding<'a> {
    demo: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(flatten)]
    report: Option<&'a DemoReport>,
}

/// Writes that the demo has not ended. A path that cannot be written is found before minutes are
/// spent, and the file of an earlier run is gone.
pub(super) fn begin_json(path: &Path) -> Result<()> {
    write_json(path, Some("it was ended before it could say anything"), None)
}

/// Writes the JSON file in place of an earlier run's.
pub(super) fn write_json(
    path: &Path,
    reason: Option<&str>,
    report: Option<&DemoReport>,
) -> Result<()> {
    let demo = if reason.is_some() { "FAIL" } else { "PASS" };
    let mut text = serde_json::to_string_pretty(&DemoEnding { demo, reason, report })?;
    text.push('\n');
    write_file(path, &text)
}
