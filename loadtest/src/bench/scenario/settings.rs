//! How long and how often a scenario measures, with which bodies, and what it found.

use std::{io::IsTerminal, time::Duration};

use crate::bench::report::{BenchRow, FlowTimeline, Latencies};

/// Body sizes that are measured.
pub(super) const BODY_BYTES: [usize; 2] = [256, 2_048];
/// Where there is one size.
pub(super) const SMALL: usize = BODY_BYTES[0];

/// How long and how often.
#[derive(Clone, Debug)]
pub(in crate::bench) struct BenchSettings {
    /// How long one contestant runs in one round, where a scenario goes by time.
    pub(in crate::bench) seconds: u64,
    /// How often contestants alternate; seven or more make a median that targets are judged by.
    pub(in crate::bench) rounds: usize,
    /// The round trip of the far region.
    pub(in crate::bench) rtt: Duration,
    /// Commands in a stream that is drained; some scenarios take a part of them.
    pub(in crate::bench) commands: u64,
}

impl BenchSettings {
    /// The rounds, each told on a terminal when it begins.
    pub(in crate::bench) fn rounds(&self) -> impl Iterator<Item = usize> + use<> {
        let (rounds, shows) = (self.rounds, std::io::stderr().is_terminal());
        (0..rounds).inspect(move |round| {
            if shows {
                eprint!("\r  round {} of {rounds} ", round + 1);
            }
        })
    }

    pub(in crate::bench) const fn turn(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// What a scenario found.
#[derive(Debug, Default)]
pub(in crate::bench) struct ScenarioFindings {
    pub(in crate::bench) rows: Vec<BenchRow>,
    pub(in crate::bench) latencies: Vec<Latencies>,
    pub(in crate::bench) timeline: Option<FlowTimeline>,
}
