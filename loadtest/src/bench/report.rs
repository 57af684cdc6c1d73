//! What a run of the benchmark found: the data behind the table, the JSON and the pictures.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Everything of one run. Figures of one report compare with each other and with no other's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Where it ran.
    pub machine: Machine,
    /// What ran, by name.
    pub versions: BTreeMap<String, String>,
    /// How the servers were set, and how long each scenario ran.
    pub settings: BTreeMap<String, String>,
    /// One for each measure and baseline.
    pub rows: Vec<Row>,
    /// Whole distributions, for those measures that are latencies.
    pub latencies: Vec<Latencies>,
    /// What a run under load looked like, where that scenario ran.
    pub timeline: Option<Timeline>,
}

/// The machine, as it says of itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's model.
    pub cpu: String,
    /// How many processors there are.
    pub cores: usize,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// How long 8 kB and an fdatasync take where the servers' folders are: the median, in
    /// microseconds.
    pub fdatasync_us: f64,
}

/// One measure, beside one baseline or none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The scenario's name.
    pub scenario: String,
    /// What was measured.
    pub measure: String,
    /// The median of the repetitions.
    pub value: f64,
    /// Of `value` and `baseline_value`: `/s`, `ms`, `B`, …
    pub unit: String,
    /// The smallest and the largest of the repetitions.
    pub spread: Option<(f64, f64)>,
    /// What it is compared with.
    pub baseline: Option<String>,
    /// The baseline's median.
    pub baseline_value: Option<f64>,
    /// The baseline's smallest and largest.
    pub baseline_spread: Option<(f64, f64)>,
    /// `value` over `baseline_value`.
    pub ratio: Option<f64>,
    /// What it is held against, for a reader.
    pub target: Option<String>,
    /// Whether that was reached.
    pub met: Option<bool>,
}

/// One distribution.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latencies {
    /// The scenario's name.
    pub scenario: String,
    /// Whose: `farwrite` or a baseline.
    pub of: String,
    /// How many were measured.
    pub count: u64,
    /// Pairs of a part (0.5 is the median) and milliseconds, growing.
    pub points: Vec<(f64, f64)>,
}

/// Samples of one run, from its begin to its end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Timeline {
    /// The scenario's name.
    pub scenario: String,
    /// In the order of time.
    pub samples: Vec<Moment>,
}

/// What was so at one moment.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Moment {
    /// Since the run began, in milliseconds.
    pub at_ms: u64,
    /// Commands published so far.
    pub published: u64,
    /// Commands applied so far.
    pub applied: u64,
    /// How far the replica's replay was behind the primary, in bytes of the log.
    pub replay_lag_bytes: u64,
}

impl Timeline {
    /// Commands that were published and not applied yet, at each moment.
    pub fn backlog(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.samples.iter().map(|at| (at.at_ms, at.published.saturating_sub(at.applied)))
    }
}

impl Report {
    /// Writes it as JSON; a missing folder is made.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        write(path, &serde_json::to_string_pretty(self)?)
    }
}

/// Writes a file, and the folders on the way to it.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    std::fs::write(path, text).with_context(|| path.display().to_string())
}
