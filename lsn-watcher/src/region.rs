//! One watcher for a region: polls the replica while the region's apps are interested, and tells
//! all of them at once how far it has come.
//!
//! The replica is authoritative, and this holds nothing that must survive: apps repeat their
//! interest, so a watcher that starts anew knows within half a second what is wanted. What it
//! costs does not grow with the number of waiters: of all interests it keeps the highest, for a
//! short time, and each advance is one message.
//!
//! - An interest is answered with a fresh look at the replica, whatever it asks for; looks keep to
//!   the pace, so many interests share one answer.
//! - When the replica cannot be asked it says so (a [`Progress`] without a position), at once and
//!   then a few times a second while somebody is interested. Apps forget their mark then.
//! - A server that is no replica (it was promoted, or there is only a primary) is told as such: it
//!   shows its own commits, and whose bookmarks they are its history says.
//! - Nothing is sent while NATS is down: a position that is delivered late is worth less than the
//!   one that is asked for next.
//!
//! Two of these may run for one region; apps hear both (see `mark.rs`).

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::{Client, connection::State as NatsState};
use farwrite_internal::{Alarm, Health};
use farwrite_schemas::{Epoch, INTEREST_MAX_EPOCHS, Interest, Lsn, Origin, Progress, Subjects};
use futures_util::StreamExt;
use tokio::{sync::Notify, time::Instant};

use crate::{
    ConfigError, EmbeddedConfig, GoneReason,
    branches::Told,
    metrics,
    poll::{Audience, Demand, PollLoop},
    replica::Sight,
    service,
    wishes::Wishes,
};

/// The replica, as the watcher's health names it.
const REPLICA: &str = "the replica";

/// What a region's watcher watches, and for whom.
#[derive(Clone, Debug)]
pub struct RegionConfig {
    /// The database, as the subjects name it.
    pub subjects: Subjects,
    /// The region.
    pub region: Origin,
    /// Its replica, and how to poll it. `max_waiters` has no meaning here.
    pub replica: EmbeddedConfig,
    /// How long an interest lasts that is not repeated.
    pub ttl: Duration,
}

impl RegionConfig {
    /// 2 s: four repetitions of an app's interest, so that three may be lost; and when an app
    /// dies, at most twice that many seconds of polling for nobody.
    pub const TTL: Duration = Duration::from_secs(2);

    /// Checks every setting.
    ///
    /// # Errors
    /// With the first setting that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.ttl < Duration::from_millis(100) {
            return Err(ConfigError { field: "ttl", rule: "at least 100 ms" });
        }
        self.replica.validate()
    }
}

/// Why a region's watcher ended.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// A setting breaks its rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The watch subject cannot be subscribed to.
    #[error("cannot listen to the region's interests: {0}")]
    Subscribe(#[from] async_nats::SubscribeError),
    /// The NATS client was closed for good.
    #[error("the NATS client was closed")]
    NatsClosed,
}

/// Between two messages that say that the replica cannot be asked: it is no news to those who
/// heard it, and an app that comes learns it within a quarter of a second.
const UNREACHABLE_INTERVAL: Duration = Duration::from_millis(250);

/// Before the region's service is begun anew.
const SERVICE_PAUSE: Duration = Duration::from_secs(1);

/// Watches for a region until it fails; dropping the future stops it.
///
/// # Errors
/// When a setting is wrong, or NATS is closed. A replica or a NATS server that cannot be reached is
/// not an error: both are tried again.
pub async fn watch_region(
    client: Client,
    config: RegionConfig,
    health: Health,
) -> Result<Infallible, RegionError> {
    config.validate()?;
    let replica = config.replica.replica()?;
    let interests = client.subscribe(config.subjects.watch(&config.region)).await?;
    let region = Arc::new(Region {
        client: client.clone(),
        health,
        progress_subject: config.subjects.progress(&config.region),
        state: Mutex::new(State::new(config.ttl)),
        demanded: Notify::new(),
    });
    let polls = PollLoop::new(replica, Arc::clone(&region), config.replica.pace, Alarm::exact());
    // Interests first, which are cheap and say what to poll for; then the polls.
    tokio::select! {
        biased;
        () = region.listen(interests) => Err(RegionError::NatsClosed),
        never = polls.run() => match never {},
        never = serve(client, &config) => match never {},
    }
}

/// Keeps the region's service going: apps do without it, other regions' do not.
async fn serve(client: Client, config: &RegionConfig) -> Infallible {
    loop {
        let end = service::serve(client.clone(), &config.subjects, &config.region).await;
        tracing::warn!(%end, "beginning it anew");
        tokio::time::sleep(SERVICE_PAUSE).await;
    }
}

struct Region {
    client: Client,
    health: Health,
    progress_subject: String,
    state: Mutex<State>,
    demanded: Notify,
}

/// What the region's apps want and what they were told.
#[derive(Debug)]
struct State {
    wishes: Wishes,
    /// When the highest wish was raised last.
    youngest: Instant,
    /// An interest came that no look at the replica has answered yet.
    asked: bool,
    /// Epochs whose branch somebody asked about since the history was read last.
    epochs: Vec<Epoch>,
    /// The replica's last answer, on its present connection.
    seen: Option<Sight>,
    /// The replica could not be asked the last time.
    is_away: bool,
    /// What the apps were told last; `None` after they were told that it cannot be asked.
    told: Option<Sight>,
    server_start_us: i64,
    unreachable_told_at: Option<Instant>,
}

impl State {
    fn new(ttl: Duration) -> Self {
        let now = Instant::now();
        Self {
            wishes: Wishes::new(ttl, now),
            youngest: now,
            asked: false,
            epochs: Vec::new(),
            seen: None,
            is_away: false,
            told: None,
            server_start_us: 0,
            unreachable_told_at: None,
        }
    }

    /// Notes an interest; what to tell at once if the replica is known to be away.
    fn interest(&mut self, interest: &Interest, now: Instant) -> Option<Progress> {
        if self.wishes.add(interest.lsn, now) {
            self.youngest = now;
        }
        for epoch in interest.epochs.iter().take(INTEREST_MAX_EPOCHS) {
            if self.epochs.len() < INTEREST_MAX_EPOCHS && !self.epochs.contains(epoch) {
                self.epochs.push(*epoch);
            }
        }
        self.asked = true;
        if self.is_away { self.unreachable(now) } else { None }
    }

    fn demand(&mut self, now: Instant) -> Option<Demand> {
        let highest = self.wishes.highest(now)?;
        let reached = self.seen.and_then(|sight| sight.replayed);
        let is_reached = reached.is_some_and(|reached| reached >= highest);
        (self.asked || !is_reached)
            .then_some(Demand { youngest: self.youngest, at_once: self.asked })
    }

    /// Notes an answer of the replica; what to tell.
    fn saw(&mut self, sight: Sight, now: Instant) -> Option<Progress> {
        self.seen = Some(sight);
        self.is_away = false;
        self.server_start_us = sight.server_start_us;
        self.unreachable_told_at = None;
        let is_wanted = self.wishes.highest(now).is_some();
        let is_news = self.told != Some(sight);
        if !(self.asked || is_news && is_wanted) {
            return None;
        }
        self.asked = false;
        self.told = Some(sight);
        // The history will be read next, and told together with this.
        let is_to_come = sight.replayed.is_some() && !self.epochs.is_empty();
        (!is_to_come).then(|| sight.into())
    }

    /// Notes that the history was read; what to tell.
    fn told(&mut self, told: Told) -> Option<Progress> {
        self.epochs.clear();
        let sight = self.seen?;
        let unreadable = told.unreadable.map(|why| why.to_string());
        Some(Progress { branches: told.branches, unreadable, ..sight.into() })
    }

    /// Notes that the replica could not be asked; what to tell.
    fn lost(&mut self, now: Instant) -> Option<Progress> {
        (self.seen, self.told, self.is_away) = (None, None, true);
        self.wishes.highest(now)?;
        self.unreachable(now)
    }

    fn unreachable(&mut self, now: Instant) -> Option<Progress> {
        let told_at = self.unreachable_told_at;
        if told_at.is_some_and(|then| now.duration_since(then) < UNREACHABLE_INTERVAL) {
            return None;
        }
        self.unreachable_told_at = Some(now);
        let server_start_us = self.server_start_us;
        let sight = Sight { replayed: None, timeline: None, server_start_us, in_recovery: true };
        Some(sight.into())
    }
}

impl Region {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears interests until the client is closed for good.
    async fn listen(&self, mut interests: async_nats::Subscriber) {
        while let Some(message) = interests.next().await {
            let interest: Interest = match serde_json::from_slice(&message.payload) {
                Ok(interest) => interest,
                Err(error) => {
                    tracing::warn!(%error, "an interest could not be read");
                    continue;
                }
            };
            metrics::interest();
            let to_tell = self.lock().interest(&interest, Instant::now());
            self.demanded.notify_one();
            self.broadcast(to_tell).await;
        }
    }

    async fn broadcast(&self, progress: Option<Progress>) {
        let Some(progress) = progress else { return };
        if self.client.connection_state() != NatsState::Connected {
            return;
        }
        let Ok(payload) = serde_json::to_vec(&progress) else { return };
        metrics::broadcast();
        if let Err(error) = self.client.publish(self.progress_subject.clone(), payload.into()).await
        {
            tracing::warn!(%error, "progress could not be published");
        }
    }
}

impl Audience for Region {
    fn demand(&self) -> Option<Demand> {
        self.lock().demand(Instant::now())
    }

    async fn demanded(&self) {
        self.demanded.notified().await;
    }

    /// Any: of what the apps wait for only the highest is known.
    fn next(&self) -> Option<Lsn> {
        self.lock().seen?.replayed.map(|Lsn(replayed)| Lsn(replayed.saturating_add(1)))
    }

    fn asking(&self) {}

    async fn saw(&self, sight: Sight) {
        self.health.over("waiting");
        self.health.over(REPLICA);
        let to_tell = self.lock().saw(sight, Instant::now());
        if let Some(lsn) = sight.replayed {
            metrics::replayed(lsn);
        }
        self.broadcast(to_tell).await;
    }

    fn epochs(&self) -> Vec<Epoch> {
        self.lock().epochs.clone()
    }

    async fn told(&self, told: Told) {
        let to_tell = self.lock().told(told);
        self.broadcast(to_tell).await;
    }

    async fn lost(&self, reason: GoneReason) {
        self.health.over("waiting");
        self.health.trouble(REPLICA, reason.to_string());
        let to_tell = self.lock().lost(Instant::now());
        self.broadcast(to_tell).await;
    }
}

#[cfg(test)]
mod tests {
    use farwrite_schemas::{Branch, BranchKnown};
    use sqlx::types::Uuid;

    use super::*;

    fn sight(lsn: u64) -> Sight {
        let replayed = Some(Lsn(lsn));
        Sight { replayed, timeline: None, server_start_us: 1, in_recovery: true }
    }

    fn interest(lsn: u64) -> Interest {
        Interest { lsn: Lsn(lsn), epochs: Vec::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn polls_for_a_wish_until_it_is_reached_and_tells_each_advance_once() {
        let mut state = State::new(RegionConfig::TTL);
        let now = Instant::now();
        assert_eq!((state.saw(sight(5), now), state.demand(now)), (None, None), "nobody asked");
        assert_eq!(state.interest(&interest(7), now), None);
        assert_eq!(state.demand(now), Some(Demand { youngest: now, at_once: true }));
        assert_eq!(state.saw(sight(5), now), Some(sight(5).into()), "the interest is answered");
        assert_eq!(state.demand(now), Some(Demand { youngest: now, at_once: false }));
        assert_eq!(state.saw(sight(5), now), None, "no news");
        assert_eq!(state.saw(sight(6), now), Some(sight(6).into()));
        assert_eq!(state.saw(sight(9), now), Some(sight(9).into()));
        assert_eq!(state.demand(now), None, "reached");
        // An interest in what was reached is answered by a new look all the same.
        assert_eq!(state.interest(&interest(7), now), None);
        assert!(state.demand(now).is_some());
        assert_eq!(state.saw(sight(9), now), Some(sight(9).into()));
        assert_eq!(state.demand(now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_that_is_not_repeated_ends_the_polling() {
        let mut state = State::new(RegionConfig::TTL);
        let now = Instant::now();
        state.interest(&interest(7), now);
        assert!(state.demand(now + RegionConfig::TTL).is_some());
        assert_eq!(state.demand(now + 3 * RegionConfig::TTL), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_is_away_is_told_at_once_and_then_now_and_again() {
        let mut state = State::new(RegionConfig::TTL);
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let away: Progress = Sight { replayed: None, ..sight(0) }.into();
        let told = |progress: &Progress| Some(progress.clone());
        state.saw(sight(5), now);
        assert_eq!(state.lost(at(0)), None, "nobody is interested");
        assert_eq!(state.interest(&interest(7), at(0)), told(&away));
        assert_eq!(state.lost(at(50)), None, "told a moment ago");
        assert_eq!(state.interest(&interest(8), at(100)), None);
        assert_eq!(state.lost(at(250)), told(&away));
        assert_eq!(state.saw(sight(3), at(300)), Some(sight(3).into()), "back, and behind");
        assert_eq!(state.lost(at(301)), told(&away), "lost again: at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_history_that_is_asked_for_is_told_with_the_position() {
        let mut state = State::new(RegionConfig::TTL);
        let now = Instant::now();
        let epoch = Epoch(Uuid::from_u128(7));
        state.interest(&Interest { lsn: Lsn(7), epochs: vec![epoch, epoch] }, now);
        assert_eq!(state.epochs, [epoch]);
        assert_eq!(state.saw(sight(5), now), None, "together with the history");
        let known = BranchKnown::Absent { absent_at: Lsn(5) };
        let branches = vec![Branch { epoch, known }];
        let told = Told { branches: branches.clone(), unreadable: None };
        assert_eq!(state.told(told), Some(Progress { branches, ..sight(5).into() }));
        assert!(state.epochs.is_empty());
        let promoted = Sight { in_recovery: false, ..sight(6) };
        assert_eq!(state.saw(promoted, now), Some(promoted.into()));
    }
}
