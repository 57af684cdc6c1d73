//! What a run of the benchmark found: the data behind the table, the JSON and the pictures.

use std::collections::BTreeMap;

use serde::Serialize;

/// Everything of one run. Figures of one report compare with each other and with no other's.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct BenchReport {
    /// Where it ran.
    pub(super) machine: Machine,
    /// What ran, by name.
    pub(super) versions: BTreeMap<String, String>,
    /// How the servers were set, and how long each scenario ran.
    pub(super) settings: BTreeMap<String, String>,
    /// One for each measure and baseline.
    pub(super) rows: Vec<BenchRow>,
    /// Whole distributions, for those measures that are latencies.
    pub(super) latencies: Vec<Latencies>,
    /// What a run under load looked like, where that scenario ran.
    pub(super) timeline: Option<FlowTimeline>,
}

/// The machine, as it says of itself.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Machine {
    /// The processor's model.
    pub(super) cpu: String,
    /// How many processors there are.
    pub(super) cores: usize,
    /// Its memory, in bytes.
    pub(super) memory_bytes: u64,
    /// The kernel's release.
    pub(super) kernel: String,
    /// How long 8 kB and an fdatasync take where the servers' folders are: the median, in
    /// microseconds.
    pub(super) fdatasync_us: f64,
}

/// One measure, beside one baseline or none.
#[derive(Clone, Debug, Serialize)]
pub(super) struct BenchRow {
    /// The scenario's name.
    pub(super) scenario: String,
    /// What was measured.
    pub(super) measure: String,
    /// The median of the repetitions.
    pub(super) value: f64,
    /// Of `value` and `baseline_value`: `/s`, `ms`, `B`, …
    pub(super) unit: String,
    /// The smallest and the largest of the repetitions.
    pub(super) spread: Option<(f64, f64)>,
    /// What it is compared with.
    pub(super) baseline: Option<String>,
    /// The baseline's median.
    pub(super) baseline_value: Option<f64>,
    /// The baseline's smallest and largest.
    pub(super) baseline_spread: Option<(f64, f64)>,
    /// `value` over `baseline_value`.
    pub(super) ratio: Option<f64>,
    /// What it is held against, for a reader.
    pub(super) target: Option<String>,
    /// Whether that was reached.
    pub(super) met: Option<bool>,
}

/// One distribution.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Latencies {
    /// The scenario's name.
    pub(super) scenario: String,
    /// Whose: `farwrite` or a baseline.
    pub(super) of: String,
    /// How many were measured.
    pub(super) count: u64,
    /// Pairs of a part (0.5 is the median) and milliseconds, growing.
    pub(super) points: Vec<(f64, f64)>,
}

/// Samples of one run, from the start to the end.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct FlowTimeline {
    /// The scenario's name.
    pub(super) scenario: String,
    /// In the order of time.
    pub(super) samples: Vec<FlowSample>,
}

/// The state at one moment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct FlowSample {
    /// Since the run began, in milliseconds.
    pub(super) at_ms: u64,
    /// Commands published so far.
    pub(super) published: u64,
    /// Commands applied so far.
    pub(super) applied: u64,
    /// How far the replica's replay was behind the primary, in bytes of the log.
    pub(super) replay_lag_bytes: u64,
}

impl FlowTimeline {
    /// Commands that were published and not applied yet, at each moment.
    pub(super) fn backlog(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.samples.iter().map(|at| (at.at_ms, at.published.saturating_sub(at.applied)))
    }
}
