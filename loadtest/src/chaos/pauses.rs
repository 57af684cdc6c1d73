//! The gaps between answers to clients, and the faults that lay in them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long after the end of a fault a gap still counts to it.
const AFTERMATH: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Default)]
pub(super) struct Pauses(Arc<Mutex<Times>>);

#[derive(Debug, Default)]
struct Times {
    answers: Vec<Instant>,
    faults: Vec<(&'static str, Instant, Instant)>,
}

impl Pauses {
    /// A client heard how its command ended.
    pub(super) fn answered(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).answers.push(Instant::now());
    }

    /// A fault that began then is over.
    pub(super) fn fault(&self, kind: &'static str, began: Instant) {
        let fault = (kind, began, Instant::now() + AFTERMATH);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).faults.push(fault);
    }

    /// The longest gap around any fault of each kind, in milliseconds.
    pub(super) fn longest(&self) -> BTreeMap<&'static str, u64> {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answers = times.answers.clone();
        answers.sort_unstable();
        let mut longest = BTreeMap::new();
        for &(kind, began, over) in &times.faults {
            let gaps = answers.windows(2).filter(|gap| gap[0] < over && gap[1] > began);
            let gap = gaps.map(|gap| gap[1] - gap[0]).max().unwrap_or_default();
            let ms = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
            let known: &mut u64 = longest.entry(kind).or_default();
            *known = ms.max(*known);
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_for_the_faults_that_lay_in_it() {
        let pauses = Pauses::default();
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        {
            let mut times = pauses.0.lock().unwrap_or_else(PoisonError::into_inner);
            times.answers = vec![at(10), at(0), at(500), at(520), at(9_000)];
            times.faults =
                vec![("one", at(20), at(400)), ("two", at(501), at(510)), ("one", at(0), at(5))];
        }
        assert_eq!(pauses.longest(), [("one", 490), ("two", 20)].into());
    }
}
