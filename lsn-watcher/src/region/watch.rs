//! One watcher for a region: it polls the replica while the region's apps are interested, and tells all
//! of them at once how far the replica has come.
//!
//! The replica is authoritative. Nothing here must survive: apps repeat their interest, so a watcher
//! that starts anew knows within half a second what is wanted. The cost does not grow with the number
//! of waiters: the watcher keeps the highest of all interests, for a short time, and each advance is
//! one message.
//!
//! - An interest is answered with a fresh look at the replica, also where its position was reached.
//!   Looks keep to the intervals, so many interests share one answer.
//! - A replica that cannot be asked is told as a [`ReplicaProgress`] without a position: at once, and
//!   then a few times a second while somebody is interested. Apps forget their mark then.
//! - A server that is no replica (it was promoted, or there is only a primary) is told as such. It
//!   shows its own commits, and its history says which bookmarks are on its branch.
//! - Nothing is sent while NATS is down. A position that is delivered late is worth less than the next
//!   one.
//!
//! Two watchers may run for one region; apps hear both (see `visible/mark.rs`).

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::{Client, connection::State};
use farwrite_internal::{Alarm, Health};
use farwrite_schemas::{Epoch, Interest, ReplicaProgress};
use futures_util::StreamExt;
use tokio::{sync::Notify, time::Instant};

use super::{
    config::{RegionConfig, RegionError},
    service,
    state::RegionState,
};
use crate::{
    answer::GoneReason,
    metrics,
    poll::{Audience, Demand, HistoryAnswer, PollLoop, ServerReport},
};

/// The replica, as the watcher's health names it.
const REPLICA: &str = "the replica";

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
    let region = Arc::new(RegionWatch {
        client: client.clone(),
        health,
        progress_subject: config.subjects.progress(&config.region),
        state: Mutex::new(RegionState::new(config.ttl)),
        demanded: Notify::new(),
    });
    let polls = PollLoop::new(
        replica,
        Arc::clone(&region),
        config.replica.poll_intervals(),
        Alarm::exact(),
    );
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

struct RegionWatch {
    client: Client,
    health: Health,
    progress_subject: String,
    state: Mutex<RegionState>,
    demanded: Notify,
}

impl RegionWatch {
    fn lock(&self) -> MutexGuard<'_, RegionState> {
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

    async fn broadcast(&self, progress: Option<ReplicaProgress>) {
        let Some(progress) = progress else { return };
        if self.client.connection_state() != State::Connected {
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

impl Audience for RegionWatch {
    fn demand(&self) -> Option<Demand> {
        self.lock().demand(Instant::now())
    }

    async fn demanded(&self) {
        self.demanded.notified().await;
    }

    fn asking(&self) {}

    async fn saw(&self, report: ServerReport) {
        self.health.over("waiting");
        self.health.over(REPLICA);
        let to_tell = self.lock().saw(report, Instant::now());
        if let Some(lsn) = report.replayed {
            metrics::replayed(lsn);
        }
        self.broadcast(to_tell).await;
    }

    fn epochs(&self) -> Vec<Epoch> {
        self.lock().epochs.clone()
    }

    async fn told(&self, answer: HistoryAnswer) {
        let to_tell = self.lock().told(answer);
        self.broadcast(to_tell).await;
    }

    async fn lost(&self, reason: GoneReason) {
        self.health.over("waiting");
        self.health.trouble(REPLICA, reason.to_string());
        let to_tell = self.lock().lost(Instant::now());
        self.broadcast(to_tell).await;
    }
}
