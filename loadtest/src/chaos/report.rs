//! What a run came to, for people and as JSON.

use std::{collections::BTreeMap, fmt::Write};

use serde::{Serialize, Serializer};

use farwrite_checker::CheckReport;

/// What one seed came to.
#[derive(Debug, Serialize)]
pub struct ChaosReport {
    /// The seed.
    pub seed: u64,
    /// How often each fault was made.
    pub faults: BTreeMap<&'static str, u64>,
    /// Commands of which a client was told that they are accepted, or how they ended.
    pub acknowledged: u64,
    /// Commands that ended as applied.
    pub applied: u64,
    /// Commands whose commit a failover lost, and which were applied again.
    pub reapplied: u64,
    /// The longest time without any answer to any client around a fault, by its kind.
    pub longest_pause_ms: BTreeMap<&'static str, u64>,
    /// Why the run failed even if no law was broken: commands without an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsettled: Option<String>,
    /// What the checker found.
    #[serde(rename = "violations", serialize_with = "violations")]
    pub judged: CheckReport,
}

impl ChaosReport {
    /// Whether nothing was violated, everything came to its end, and something was judged.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.judged.is_well() && self.unsettled.is_none() && self.acknowledged > 0
    }
}

fn violations<S: Serializer>(judged: &CheckReport, serializer: S) -> Result<S::Ok, S::Error> {
    judged.violations.serialize(serializer)
}

/// A table of several seeds, and the verdict.
#[must_use]
pub fn print(reports: &[ChaosReport]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:>6} {:>7} {:>13} {:>9} {:>10} {:>11}",
        "seed", "faults", "acknowledged", "applied", "reapplied", "violations"
    );
    for report in reports {
        let ChaosReport { seed, faults, acknowledged, applied, reapplied, judged, .. } = report;
        let faults: u64 = faults.values().sum();
        let violations = judged.violations.len();
        let _ = writeln!(
            text,
            "{seed:>6} {faults:>7} {acknowledged:>13} {applied:>9} {reapplied:>10} {violations:>11}"
        );
    }
    let mut kinds: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for report in reports {
        for (kind, count) in &report.faults {
            kinds.entry(kind).or_default().0 += count;
        }
        for (kind, ms) in &report.longest_pause_ms {
            let longest = &mut kinds.entry(kind).or_default().1;
            *longest = ms.max(longest).to_owned();
        }
    }
    let _ = writeln!(text, "\n{:<18} {:>6} {:>17}", "fault", "times", "longest pause");
    for (kind, (count, ms)) in kinds {
        let _ = writeln!(text, "{kind:<18} {count:>6} {ms:>14} ms");
    }
    for unsettled in reports.iter().filter_map(|report| report.unsettled.as_ref()) {
        let _ = writeln!(text, "{unsettled}");
    }
    for violation in reports.iter().flat_map(|report| &report.judged.violations).take(50) {
        let _ = writeln!(text, "{violation}");
    }
    let is_well = !reports.is_empty() && reports.iter().all(ChaosReport::is_well);
    let _ = write!(text, "\nchaos: {}", if is_well { "PASS" } else { "FAIL" });
    text
}
