//! How long a worker pauses before it begins again.
//!
//! Pauses double while nothing comes of it, apart for two ways to fail. Where no takeover succeeds, the
//! primary or the broker is away, and nobody's command could be applied. Where takeovers succeed and
//! service ends again, each costs a row of the history and holds up every key, so they must become
//! rare. Yet most keys may be well, so the pause stays within what an innocent key may be held up.
//! Progress begins the pauses anew: a batch was committed, or service was steady.

use std::time::Duration;

use farwrite_internal::Backoff;

/// The first pause of each kind.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause while no takeover succeeds.
const AWAY_MAX: Duration = Duration::from_secs(5);
/// The longest pause after a takeover. With the next takeover an innocent key waits less than 2 s.
const SERVED_MAX: Duration = Duration::from_millis(1_500);
/// Service for so long is progress, though there may have been nothing to do.
const STEADY: Duration = Duration::from_secs(10);

/// What came of one beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// No service.
    ToNothing,
    /// Service.
    ToService {
        /// Whether it committed a batch.
        committed: bool,
        /// How long it lasted.
        lasted: Duration,
    },
}

/// The pauses of a worker.
#[derive(Debug)]
pub(crate) struct Pauses {
    away: Backoff,
    served: Backoff,
}

impl Default for Pauses {
    fn default() -> Self {
        let (away, served) = (Backoff::new(FIRST, AWAY_MAX), Backoff::new(FIRST, SERVED_MAX));
        Self { away, served }
    }
}

impl Pauses {
    /// The pause after a beginning that came to this.
    pub(crate) fn next(&mut self, came: Came) -> Duration {
        let Came::ToService { committed, lasted } = came else { return self.away.next_pause() };
        self.away.reset();
        if committed || lasted >= STEADY {
            self.served.reset();
        }
        self.served.next_pause()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_there_is_progress_and_stay_short_after_a_takeover() {
        let mut pauses = Pauses::default();
        let service = |committed, seconds| Came::ToService {
            committed,
            lasted: Duration::from_secs(seconds),
        };
        let longest = |pauses: &mut Pauses, came| {
            (0..20).map(|_| pauses.next(came)).max().unwrap_or_default()
        };
        let away = longest(&mut pauses, Came::ToNothing);
        assert!(away > AWAY_MAX / 2 && away <= AWAY_MAX, "{away:?}");
        let served = longest(&mut pauses, service(false, 0));
        assert!(served > SERVED_MAX / 2 && served <= SERVED_MAX, "{served:?}");
        assert!(pauses.next(Came::ToNothing) <= FIRST, "a takeover had succeeded");
        for progress in [service(true, 0), service(false, 10)] {
            longest(&mut pauses, service(false, 0));
            assert!(longest(&mut pauses, progress) <= FIRST);
        }
    }
}
