//! Repetitions of a measure, their median, and what they are held against.

use hdrhistogram::Histogram;

use super::report::{BenchRow, Latencies};

/// The number of repetitions from which a median is judged by a target.
pub(super) const JUDGED_FROM: usize = 7;
/// The parts of a distribution that a report has.
const PARTS: [f64; 13] =
    [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0];

/// What repetitions of one measure brought.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    values: Vec<f64>,
    /// True for one value of a whole run, such as a percentile over everything.
    is_whole: bool,
}

impl Samples {
    pub(super) const fn new() -> Self {
        Self { values: Vec::new(), is_whole: false }
    }

    /// A figure that one run has as a whole.
    pub(super) fn whole(value: f64) -> Self {
        Self { values: vec![value], is_whole: true }
    }

    pub(super) fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    /// The middle value; the lower of two middle values; NaN without values.
    pub(super) fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get((sorted.len().max(1) - 1) / 2).copied().unwrap_or(f64::NAN)
    }

    /// The same samples, each less by a constant.
    pub(super) fn less(&self, by: f64) -> Self {
        Self {
            values: self.values.iter().map(|value| value - by).collect(),
            is_whole: self.is_whole,
        }
    }

    fn spread(&self) -> Option<(f64, f64)> {
        let lowest = self.values.iter().copied().reduce(f64::min)?;
        let highest = self.values.iter().copied().reduce(f64::max)?;
        (self.values.len() > 1).then_some((lowest, highest))
    }

    fn is_judged(&self) -> bool {
        self.is_whole || self.values.len() >= JUDGED_FROM
    }
}

/// What a measure is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum BenchTarget {
    /// Of the ratio to the baseline.
    RatioAtLeast(f64),
    /// Of the ratio to the baseline.
    RatioAtMost(f64),
    /// Of the value itself.
    AtMost(f64),
}

impl BenchTarget {
    fn text(self, unit: &str) -> String {
        let unit = if unit.starts_with('/') { unit.to_owned() } else { format!(" {unit}") };
        let unit = unit.trim_end();
        match self {
            Self::RatioAtLeast(bound) => format!("≥ {bound} × baseline"),
            Self::RatioAtMost(bound) => format!("≤ {bound} × baseline"),
            Self::AtMost(bound) => format!("≤ {bound}{unit}"),
        }
    }

    fn is_met(self, value: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::RatioAtLeast(bound) => Some(ratio? >= bound),
            Self::RatioAtMost(bound) => Some(ratio? <= bound),
            Self::AtMost(bound) => Some(value <= bound),
        }
    }
}

/// A measure of a scenario.
pub(super) fn row(
    scenario: &str,
    measure: impl Into<String>,
    unit: &str,
    ours: &Samples,
) -> BenchRow {
    BenchRow {
        scenario: scenario.to_owned(),
        measure: measure.into(),
        value: ours.median(),
        unit: unit.to_owned(),
        spread: ours.spread(),
        baseline: None,
        baseline_value: None,
        baseline_spread: None,
        ratio: None,
        target: None,
        met: None,
    }
}

/// The same beside a baseline, held against a target or none.
pub(super) fn against(
    mut row: BenchRow,
    ours: &Samples,
    baseline: &str,
    theirs: &Samples,
    target: Option<BenchTarget>,
) -> BenchRow {
    let value = theirs.median();
    row.baseline = Some(baseline.to_owned());
    row.baseline_value = Some(value);
    row.baseline_spread = theirs.spread();
    row.ratio = (value > 0.0).then(|| row.value / value);
    if let Some(target) = target {
        let is_judged = ours.is_judged() && theirs.is_judged();
        row.target = Some(target.text(&row.unit));
        row.met = target.is_met(row.value, row.ratio).filter(|_| is_judged);
    }
    row
}

/// The same held against a number.
pub(super) fn held(mut row: BenchRow, ours: &Samples, target: BenchTarget) -> BenchRow {
    row.target = Some(target.text(&row.unit));
    row.met = target.is_met(row.value, row.ratio).filter(|_| ours.is_judged());
    row
}

/// Durations in microseconds, up to a minute.
pub(super) fn histogram() -> Histogram<u64> {
    const MINUTE_US: u64 = 60_000_000;
    // The histogram accepts these constant bounds.
    Histogram::new_with_bounds(1, MINUTE_US, 3).unwrap_or_else(|_| unreachable!("constant bounds"))
}

/// A part of a distribution, in milliseconds.
pub(super) fn quantile_ms(histogram: &Histogram<u64>, part: f64) -> f64 {
    histogram.value_at_quantile(part) as f64 / 1e3
}

/// A distribution for the report.
pub(super) fn latencies(scenario: &str, of: &str, histogram: &Histogram<u64>) -> Latencies {
    Latencies {
        scenario: scenario.to_owned(),
        of: of.to_owned(),
        count: histogram.len(),
        points: PARTS.iter().map(|part| (*part, quantile_ms(histogram, *part))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        let mut samples = Samples::default();
        values.iter().for_each(|value| samples.push(*value));
        samples
    }

    #[test]
    fn a_median_is_the_middle_whatever_the_order() {
        assert_eq!(samples(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(samples(&[4.0, 1.0]).median(), 1.0);
        assert!(samples(&[]).median().is_nan());
        assert_eq!(samples(&[3.0, 1.0]).spread(), Some((1.0, 3.0)));
    }

    #[test]
    fn a_target_is_judged_by_seven_repetitions_or_a_whole_run_and_by_no_fewer() {
        let (ours, theirs) = (samples(&[20.0; 7]), samples(&[10.0; 7]));
        let judge = |ours: &Samples, theirs: &Samples, target| {
            let row = row("s", "m", "/s", ours);
            against(row, ours, "b", theirs, Some(target)).met
        };
        assert_eq!(judge(&ours, &theirs, BenchTarget::RatioAtLeast(2.0)), Some(true));
        assert_eq!(judge(&ours, &theirs, BenchTarget::RatioAtLeast(2.1)), Some(false));
        assert_eq!(judge(&ours, &theirs, BenchTarget::RatioAtMost(2.0)), Some(true));
        assert_eq!(judge(&ours, &theirs, BenchTarget::RatioAtMost(1.9)), Some(false));
        assert_eq!(judge(&samples(&[20.0; 6]), &theirs, BenchTarget::RatioAtLeast(2.0)), None);
        assert_eq!(judge(&Samples::whole(20.0), &theirs, BenchTarget::AtMost(19.0)), Some(false));
        let nothing = samples(&[0.0; 7]);
        assert_eq!(
            judge(&ours, &nothing, BenchTarget::RatioAtLeast(2.0)),
            None,
            "no ratio to nothing"
        );
    }
}
