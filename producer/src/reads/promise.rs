//! What was said to be visible, and which server the connections of a pool are to.
//!
//! Beside the pool stands one position, the furthest that was ever said to be visible to this
//! process. A replica that crashed can come back *behind* it and serve reads at once, and the address may
//! be a load balancer's, with another replica behind it. So a connection is given out without a question
//! only where it is known to be to the very start of a server that showed the position.
//!
//! A pool does not say which connection is which, but how old each is. So a pool has one home: the start of
//! a server that its connections are to.
//!
//! ```text
//! a new connection                          an older one, before it is given out
//! to the home         => compared           made after the pool moved, home showed the position => kept
//! to what is watched  => the pool moves     made after the pool moved, home did not              => compared
//! to another one      => refused, for a     made before, or about then                           => asked which
//!                        while; then compared, and the pool moves      server it is, later replaced
//! ```
//!
//! What is compared shows the position, or is waited for, and holds its branch of history. The latter is asked
//! only where the server has not shown another position of the branch before.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use farwrite_lsn_watcher::Reached;
use farwrite_schemas::{Epoch, Lsn};

/// For how long a server that the watcher heard is taken for the one that is there: a watcher that is
/// asked hears it many times in that time.
const FRESH: Duration = Duration::from_secs(1);
/// For how long other servers than the watched one are refused, in the hope that the next connection is
/// to it. Beyond, they are taken for what can be had.
const PATIENCE: Duration = Duration::from_secs(1);
/// When a pool says how old a connection is, it counts from a moment after the connection was asked which server
/// it is to. No process is held for so long between the two.
const MARGIN: Duration = Duration::from_secs(10);

/// The furthest position that was said to be visible, and which server the pool's connections are to.
#[derive(Debug, Default)]
pub(crate) struct Promise(Mutex<PromiseState>);

#[derive(Debug, Default)]
struct PromiseState {
    furthest: Option<Furthest>,
    watched: Option<WatchedStart>,
    home: Option<Home>,
    /// The start of a server that has proven last which epoch it holds.
    proven: Option<(i64, Epoch)>,
    strangers: Option<Strangers>,
}

/// The furthest position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Furthest {
    pub(super) lsn: Lsn,
    /// Of the bookmark that it was said of.
    pub(super) epoch: Epoch,
    /// The start of the server that showed it last, in microseconds since 1970.
    shown_on_us: i64,
}

/// The start of the server that the watcher heard last.
#[derive(Clone, Copy, Debug)]
struct WatchedStart {
    us: i64,
    heard_at: Instant,
}

/// The start of the server that the pool's connections are to.
#[derive(Clone, Copy, Debug)]
struct Home {
    us: i64,
    /// When the pool moved to it from another one.
    moved_at: Option<Instant>,
}

/// New connections to other servers than the watched one, since one to that was made last.
#[derive(Clone, Copy, Debug)]
struct Strangers {
    first: Instant,
    last: Instant,
}

/// What a new connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// To the pool's home: to be compared.
    Home,
    /// To a server of which nothing is known: to be compared, and then the pool moves.
    Unknown,
    /// To another server than the watched one: refused.
    Stranger,
}

/// What an older connection is, before it is given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its server showed everything that was promised.
    Kept,
    /// Its server is to be asked.
    Asked,
    /// It may be to another server than the pool's home, and there is time to make a new one.
    Replaced,
}

impl PromiseState {
    /// The start of the server that the watcher hears.
    fn watched(&self, now: Instant) -> Option<i64> {
        let is_fresh =
            |watched: &WatchedStart| now.saturating_duration_since(watched.heard_at) <= FRESH;
        self.watched.filter(is_fresh).map(|watched| watched.us)
    }

    fn move_to(&mut self, us: i64, now: Instant) {
        let moved_at = self.home.map(|_| now);
        self.home = Some(Home { us, moved_at });
    }
}

impl Promise {
    fn state(&self) -> std::sync::MutexGuard<'_, PromiseState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A position of an epoch was seen.
    pub(crate) fn raise(&self, reached: &Reached, epoch: Epoch) {
        let &Reached { lsn, server_start_us: us, .. } = reached;
        let mut state = self.state();
        state.watched = Some(WatchedStart { us, heard_at: Instant::now() });
        if state.furthest.is_none_or(|known| lsn > known.lsn) {
            state.furthest = Some(Furthest { lsn, epoch, shown_on_us: us });
        }
    }

    /// What a connection is that was made just now.
    pub(super) fn arrival(&self, us: i64, now: Instant) -> Arrival {
        let mut state = self.state();
        let watched = state.watched(now);
        if watched == Some(us) {
            state.strangers = None;
        }
        if state.home.is_some_and(|home| home.us == us) {
            return Arrival::Home;
        }
        if watched == Some(us) || (state.home.is_none() && state.furthest.is_none()) {
            state.move_to(us, now);
            return Arrival::Home;
        }
        if watched.is_none() {
            return Arrival::Unknown;
        }
        let is_recent = |known: &Strangers| now.saturating_duration_since(known.last) <= PATIENCE;
        let first = state.strangers.filter(is_recent).map_or(now, |known| known.first);
        state.strangers = Some(Strangers { first, last: now });
        if now.saturating_duration_since(first) < PATIENCE {
            Arrival::Stranger
        } else {
            Arrival::Unknown
        }
    }

    /// A server of which nothing was known shows what was promised: the pool moves to it.
    pub(super) fn moves_to(&self, us: i64, now: Instant) {
        self.state().move_to(us, now);
    }

    /// What a connection is that was made at `made_at`.
    pub(super) fn standing(&self, made_at: Instant, now: Instant) -> Standing {
        let state = self.state();
        let Some(furthest) = state.furthest else { return Standing::Kept };
        let Some(home) = state.home else { return Standing::Asked };
        if let Some(moved_at) = home.moved_at
            && made_at <= moved_at + MARGIN
        {
            let there_is_time = now > moved_at + MARGIN;
            return if there_is_time { Standing::Replaced } else { Standing::Asked };
        }
        if furthest.shown_on_us == home.us { Standing::Kept } else { Standing::Asked }
    }

    /// Whether a start is the pool's home.
    pub(super) fn is_home(&self, us: i64) -> bool {
        self.state().home.is_none_or(|home| home.us == us)
    }

    /// Whether the watcher hears another server than this one.
    pub(super) fn watches_another(&self, us: i64, now: Instant) -> bool {
        self.state().watched(now).is_some_and(|watched| watched != us)
    }

    /// The furthest position, if there is one and what a connection shows reaches it.
    ///
    /// # Errors
    /// The position that is missing.
    pub(super) fn compare(&self, shown: Lsn) -> Result<Option<Furthest>, Furthest> {
        match self.state().furthest {
            Some(furthest) if shown < furthest.lsn => Err(furthest),
            furthest => Ok(furthest),
        }
    }

    /// Whether a server is known to hold the position's branch of history.
    pub(super) fn is_held(&self, furthest: &Furthest, us: i64) -> bool {
        let proven = self.state().proven;
        furthest.shown_on_us == us || proven == Some((us, furthest.epoch))
    }

    /// A server showed a position, and holds its branch.
    pub(super) fn was_shown(&self, shown: &Furthest, us: i64) {
        let mut state = self.state();
        state.proven = Some((us, shown.epoch));
        if let Some(furthest) = state.furthest.as_mut().filter(|known| known.lsn <= shown.lsn) {
            furthest.shown_on_us = us;
        }
    }

    /// A failover has ended the promise's timeline before it: what lies past the end is no more.
    pub(super) fn lower(&self, from: Lsn, to: Lsn) {
        if let Some(furthest) = self.state().furthest.as_mut().filter(|known| known.lsn == from) {
            furthest.lsn = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::types::Uuid;

    use super::*;

    const EPOCH: Epoch = Epoch(Uuid::from_u128(7));

    fn raise(promise: &Promise, lsn: u64, server_start_us: i64) {
        promise.raise(&Reached::new(Lsn(lsn), true, server_start_us, Duration::ZERO), EPOCH);
    }

    #[test]
    fn connections_of_one_server_are_given_out_without_a_question() {
        let (promise, now) = (Promise::default(), Instant::now());
        assert_eq!(promise.standing(now, now), Standing::Kept, "nothing was promised");
        assert_eq!(promise.arrival(1, now), Arrival::Home);
        raise(&promise, 100, 1);
        assert_eq!(promise.standing(now, now), Standing::Kept);
        assert_eq!(promise.arrival(1, now), Arrival::Home);
        raise(&promise, 200, 1);
        assert_eq!(promise.standing(now, now), Standing::Kept, "another position");
    }

    #[test]
    fn a_restarted_server_is_asked_and_its_first_connections_are_replaced_once() {
        let (promise, now) = (Promise::default(), Instant::now());
        promise.arrival(1, now);
        raise(&promise, 100, 1);
        let later = now + 2 * FRESH;
        assert_eq!(promise.arrival(2, later), Arrival::Unknown);
        assert_eq!(promise.compare(Lsn(90)).map_err(|missing| missing.lsn), Err(Lsn(100)));
        let shown = promise.compare(Lsn(100)).unwrap().unwrap();
        assert!(promise.is_held(&shown, 1) && !promise.is_held(&shown, 2));
        promise.was_shown(&shown, 2);
        promise.moves_to(2, later);
        assert_eq!(promise.standing(later, later), Standing::Asked);
        let settled = later + MARGIN + Duration::from_millis(1);
        assert_eq!(promise.standing(later, settled), Standing::Replaced);
        assert_eq!(promise.standing(settled, settled), Standing::Kept);
        raise(&promise, 300, 1);
        assert_eq!(promise.standing(settled, settled), Standing::Asked, "a late word of before");
        let shown = promise.compare(Lsn(300)).unwrap().unwrap();
        assert!(promise.is_held(&shown, 2), "the same epoch");
        promise.was_shown(&shown, 2);
        assert_eq!(promise.standing(settled, settled), Standing::Kept);
    }

    #[test]
    fn another_server_than_the_watched_one_is_refused_while_that_one_is_heard() {
        let (promise, now) = (Promise::default(), Instant::now());
        promise.arrival(1, now);
        raise(&promise, 100, 1);
        let now = Instant::now();
        assert_eq!(promise.arrival(2, now), Arrival::Stranger);
        assert_eq!(promise.arrival(1, now), Arrival::Home);
        assert_eq!(promise.arrival(2, now), Arrival::Stranger);
        assert_eq!(promise.standing(now, now), Standing::Kept, "none was let in");
        assert!(promise.watches_another(2, now) && !promise.watches_another(1, now));
    }

    #[test]
    fn a_pool_moves_to_what_is_watched_and_to_what_alone_can_be_had() {
        let (promise, now) = (Promise::default(), Instant::now());
        promise.arrival(2, now);
        raise(&promise, 100, 1);
        let now = Instant::now();
        assert_eq!(promise.standing(now, now), Standing::Asked, "its home showed nothing");
        assert_eq!(promise.arrival(1, now), Arrival::Home);
        assert_eq!(promise.standing(now, now), Standing::Asked, "perhaps one to the home before");
        assert!(!promise.is_home(2) && promise.is_home(1));
        // The watched one is heard, and no connection to it can be had.
        assert_eq!(promise.arrival(2, now), Arrival::Stranger);
        let later = now + PATIENCE;
        promise.state().watched = Some(WatchedStart { us: 1, heard_at: later });
        assert_eq!(promise.arrival(2, later), Arrival::Unknown);
        let much_later = later + 2 * PATIENCE;
        promise.state().watched = Some(WatchedStart { us: 1, heard_at: much_later });
        assert_eq!(promise.arrival(2, much_later), Arrival::Stranger, "long after the last one");
    }
}
