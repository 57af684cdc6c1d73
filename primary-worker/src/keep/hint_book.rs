//! The samples of how far commands had been applied, and which of them are kept: data and its
//! arithmetic.

use std::collections::VecDeque;

use farwrite_schemas::Epoch;
use serde::{Deserialize, Serialize};

/// Samples that are kept: they lie the farther apart the older they are, and reach back to the
/// beginning.
const SAMPLES_MAX: usize = 128;

/// At this time, everything up to this sequence (inclusive) was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HintSample {
    pub(crate) sequence: u64,
    pub(crate) at_ns: i64,
    /// The same, where a parked command counts as settled: it is in the database.
    #[serde(default)]
    pub(crate) passed: u64,
}

/// What the broker holds.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct HintBook {
    /// Whose sequences these are: another stream's say nothing.
    pub(crate) identity: String,
    pub(crate) samples: VecDeque<HintSample>,
    /// Who told it last, and up to where its own database had everything (inclusive) settled or parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) told: Option<ToldPosition>,
}

/// How far the database of an epoch was. On the epoch's timeline it is never less again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToldPosition {
    pub(crate) epoch: Epoch,
    pub(crate) passed: u64,
}

impl HintBook {
    /// Adds a sample; false when nothing was settled since the last.
    pub(crate) fn add(&mut self, sample: HintSample) -> bool {
        // After a failover the positions are lower: what was sampled before still holds, until the
        // same sequences are reached again.
        let sample = match self.samples.back() {
            Some(last) if last.sequence >= sample.sequence && last.passed >= sample.passed => {
                return false;
            }
            Some(last) => HintSample {
                sequence: sample.sequence.max(last.sequence),
                passed: sample.passed.max(last.passed),
                ..sample
            },
            None => sample,
        };
        self.samples.push_back(sample);
        if self.samples.len() > SAMPLES_MAX {
            self.thin_out(sample.at_ns);
        }
        true
    }

    /// Up to where everything (inclusive) was settled, or parked, before this time.
    pub(crate) fn settled_before(&self, before_ns: i64) -> u64 {
        let index = self.samples.partition_point(|sample| sample.at_ns <= before_ns);
        let last = index.checked_sub(1).and_then(|last| self.samples.get(last));
        last.map_or(0, |sample| sample.passed)
    }

    /// Drops the sample whose neighbours lie closest together for its age.
    fn thin_out(&mut self, now_ns: i64) {
        let at = |index: usize| self.samples[index].at_ns;
        let density = |index: usize| {
            let gap_ns = at(index + 1) - at(index - 1);
            gap_ns as f64 / (now_ns - at(index) + 1) as f64
        };
        let inner = 1..self.samples.len() - 1;
        if let Some(index) = inner.min_by(|&a, &b| density(a).total_cmp(&density(b))) {
            self.samples.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_bounded_and_lie_farther_apart_the_older_they_are() {
        let mut book = HintBook::default();
        for n in 1..10_000 {
            let sample = |at_ns| HintSample { sequence: n, at_ns, passed: n };
            assert!(book.add(sample(n as i64)));
            assert!(!book.add(sample(n as i64 + 1)));
            assert!(book.samples.len() <= SAMPLES_MAX);
        }
        let sequences: Vec<u64> = book.samples.iter().map(|sample| sample.sequence).collect();
        assert!(sequences.is_sorted());
        assert_eq!(sequences.last(), Some(&9_999));
        let gap_at = |age: u64| {
            let index = sequences.partition_point(|sequence| *sequence < 10_000 - age);
            sequences[index] - sequences[index - 1]
        };
        assert_eq!(gap_at(2), 1);
        assert!(gap_at(100) <= 10 && gap_at(5_000) <= 500, "{sequences:?}");
    }
}
