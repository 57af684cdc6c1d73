//! What a region's app has done and how long it took.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency that is told apart, in microseconds: an hour.
const LONGEST_US: u64 = 3_600_000_000;

/// One thing that a region's app has seen.
#[derive(Clone, Copy, Debug)]
pub(super) enum CallEvent {
    /// A `publish` was accepted.
    Accepted(Duration),
    /// A `submit` was committed.
    Committed(Duration),
    /// A `write` was visible, and the read that followed at once found its row, or did not.
    Visible(Duration, ReadBack),
    /// A copy of a command that was published before.
    Copied(CopyFate),
}

/// What a read after a write found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadBack {
    /// The row.
    Own,
    /// Not the row.
    Stale,
}

/// What became of a copy at the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyFate {
    /// The broker knew the id, and dropped the copy.
    Suppressed,
    /// The broker stored the copy: the ledger has to know the id.
    Stored,
}

/// The tally of one region.
#[derive(Debug)]
pub(super) struct RegionTally {
    accepted_us: Histogram<u64>,
    committed_us: Histogram<u64>,
    visible_us: Histogram<u64>,
    /// Reads that did not find what was written before.
    pub(super) stale: u64,
    /// Copies that the broker dropped.
    pub(super) suppressed: u64,
    /// Copies that the broker stored.
    pub(super) stored: u64,
}

/// Two quantiles in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Quantiles {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

impl RegionTally {
    /// Nothing yet.
    ///
    /// # Errors
    /// Never: the histogram's bounds are constants.
    pub(super) fn new() -> Result<Self, hdrhistogram::CreationError> {
        let histogram = || Histogram::new_with_max(LONGEST_US, 3);
        Ok(Self {
            accepted_us: histogram()?,
            committed_us: histogram()?,
            visible_us: histogram()?,
            stale: 0,
            suppressed: 0,
            stored: 0,
        })
    }

    /// Counts an event.
    pub(super) fn count(&mut self, event: CallEvent) {
        let us = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        match event {
            CallEvent::Accepted(took) => self.accepted_us.saturating_record(us(took)),
            CallEvent::Committed(took) => self.committed_us.saturating_record(us(took)),
            CallEvent::Visible(took, read) => {
                self.visible_us.saturating_record(us(took));
                self.stale += u64::from(read == ReadBack::Stale);
            }
            CallEvent::Copied(CopyFate::Suppressed) => self.suppressed += 1,
            CallEvent::Copied(CopyFate::Stored) => self.stored += 1,
        }
    }

    /// How many commands were published, submitted and written, copies apart.
    pub(super) fn commands(&self) -> [u64; 3] {
        [self.accepted_us.len(), self.committed_us.len(), self.visible_us.len()]
    }

    /// The latencies of the three; `None` where there was none.
    pub(super) fn quantiles(&self) -> [Option<Quantiles>; 3] {
        [&self.accepted_us, &self.committed_us, &self.visible_us].map(|histogram| {
            let ms = |quantile| {
                let us = histogram.value_at_quantile(quantile) as f64;
                (us / 100.0).round() / 10.0
            };
            (!histogram.is_empty()).then(|| Quantiles { p50: ms(0.5), p99: ms(0.99) })
        })
    }
}
