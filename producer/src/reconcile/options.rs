//! How a journal is reconciled.

use std::time::Duration;

use crate::limits::{LimitError, TIMEOUT_MAX};

/// How [`Producer::reconcile`](crate::Producer::reconcile) goes about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "give it to `Producer::reconcile`"]
pub struct ReconcileOptions {
    pub(crate) min_age: Duration,
    pub(crate) max_age: Duration,
    pub(crate) concurrency: usize,
    pub(crate) timeout: Duration,
    pub(crate) overtaken: Overtaken,
}

impl Default for ReconcileOptions {
    fn default() -> Self {
        Self {
            min_age: Duration::from_secs(10),
            max_age: Duration::from_secs(6 * 86_400),
            concurrency: 64,
            timeout: Duration::from_secs(10),
            overtaken: Overtaken::default(),
        }
    }
}

/// What becomes of a lost command when a later one of its key was not lost: it may have been
/// applied already. Either way it is named in
/// [`ReconcileReport::overtaken`](crate::ReconcileReport::overtaken).
///
/// Only this producer's own commands are known. What other producers sent with the key has no order
/// towards it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overtaken {
    /// It is sent again at once, and applied behind the later one: nothing accepted is lost.
    #[default]
    SendAgain,
    /// It stays in the journal, and the app decides: by sending another command and
    /// [`Producer::forget`](crate::Producer::forget), or by running with
    /// [`SendAgain`](Self::SendAgain). While it is not known whether the later one is lost too, it
    /// is held back. For commands that would undo what came later.
    Leave,
}

/// Why nothing was reconciled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
    /// The producer was built without a journal.
    #[error("the producer has no journal to reconcile: build it with Builder::journal")]
    NoJournal,
    /// An option breaks its rule.
    #[error(transparent)]
    Option(#[from] LimitError),
}

impl ReconcileOptions {
    /// Commands whose last publish ended less long ago are left alone. 10 s: a healthy worker has
    /// applied them long before, so that younger ones are not worth a question.
    pub const fn min_age(self, min_age: Duration) -> Self {
        Self { min_age, ..self }
    }

    /// Commands that were sent first longer ago are not sent again: the ledger may have forgotten
    /// them, and a derived id would have a second effect. 6 days: less than the 7 that the ledger
    /// keeps unless the worker is told otherwise (`--ledger-keep-hours`); keep it below that. By this
    /// machine's clock, as all ages here.
    pub const fn max_age(self, max_age: Duration) -> Self {
        Self { max_age, ..self }
    }

    /// Questions, and keys that are sent again, at one time. 64: as many questions as the worker
    /// answers together.
    pub const fn concurrency(self, concurrency: usize) -> Self {
        Self { concurrency, ..self }
    }

    /// How long the worker, the database and each publish may take. 10 s, as a call may.
    pub const fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// What becomes of a lost command that a later one of its key has overtaken.
    pub const fn overtaken(self, overtaken: Overtaken) -> Self {
        Self { overtaken, ..self }
    }

    /// Checks every option.
    ///
    /// # Errors
    /// With the first one that breaks its rule.
    pub(crate) fn validate(&self) -> Result<(), LimitError> {
        let positive = "greater than zero";
        let rules = [
            ("reconcile concurrency", self.concurrency > 0, positive),
            ("reconcile timeout", !self.timeout.is_zero(), positive),
            ("reconcile timeout", self.timeout <= TIMEOUT_MAX, "at most a day"),
            ("reconcile max_age", self.max_age > self.min_age, "longer than min_age"),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((field, _, rule)) => Err(LimitError { field, rule }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_option_that_breaks_its_rule() {
        let good = ReconcileOptions::default();
        assert_eq!(good.validate(), Ok(()));
        let none = good.clone().concurrency(0);
        assert_eq!(none.validate().unwrap_err().field, "reconcile concurrency");
        let crossed = good.clone().max_age(good.min_age);
        assert_eq!(crossed.validate().unwrap_err().rule, "longer than min_age");
    }
}
