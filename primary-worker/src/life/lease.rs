//! Who is alive: when a worker stands by, and when it takes over.
//!
//! Any number of workers may run for a database. One owns it, and asks the primary over a session
//! that stands for it, several times a lease, whether it still does; the primary's own note of when
//! that session last spoke is the lease. So it is measured by no clock but the primary's, survives
//! a process that was stopped (which keeps its session and says nothing), and writes nothing: an idle
//! database stays idle. The others look a few times a second.
//!
//! None of this is about safety: a worker that wrongly takes over, or wrongly believes that it owns
//! the database, is stopped by the fence.
//!
//! ```text
//! alive => released   the owner ended in good order          => taken over at once
//!       => gone       its session ended: it died, or the server is a new one => at once
//!       => silent     nothing was heard for a lease           => then
//! ```

use std::time::Duration;

use farwrite_internal::sabotage;
use farwrite_schemas::Epoch;
use sqlx::PgConnection;
use tokio::time::{interval, timeout};
use tracing::{info, warn};
use uuid::Uuid;

/// How often a worker that stands by looks: a hand-over takes this and the takeover itself.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often an owner speaks in the time of a lease: four times may be lost or late.
const SPEAKS_PER_LEASE: u32 = 5;

/// What the primary says of the owner.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) state: OwnerState,
    /// Its takeover's; `None` where nobody has ever taken over.
    pub(crate) epoch: Option<Epoch>,
    /// Host and process, for people.
    worker: String,
    silent_seconds: f64,
}

/// How an owner fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnerState {
    /// Nobody has ever taken over.
    None,
    /// It ended in good order.
    Released,
    /// Its session is no more.
    Gone,
    /// Its session has said nothing for a lease.
    Silent,
    /// It works.
    Alive,
}

impl OwnerState {
    /// Whether somebody else may take over.
    pub(crate) fn is_free(self) -> bool {
        match self {
            Self::None | Self::Released | Self::Gone | Self::Silent => true,
            Self::Alive => false,
        }
    }

    fn of(word: &str) -> Self {
        match word {
            "none" => Self::None,
            "released" => Self::Released,
            "gone" => Self::Gone,
            "silent" => Self::Silent,
            // A word that this program does not know is no reason to take over.
            _ => Self::Alive,
        }
    }
}

/// Asks the primary how the owner fares.
pub(crate) async fn owner(connection: &mut PgConnection) -> Result<Owner, sqlx::Error> {
    let (state, epoch, worker, silent): (String, Option<Uuid>, Option<String>, Option<f64>) =
        sqlx::query_as("SELECT state, epoch, worker, silent_seconds FROM farwrite.owner_state()")
            .fetch_one(connection)
            .await?;
    Ok(Owner {
        state: OwnerState::of(&state),
        epoch: epoch.map(Epoch),
        worker: worker.unwrap_or_default(),
        silent_seconds: silent.unwrap_or_default(),
    })
}

/// Waits until the database is free. Answers at once whether it had to wait.
pub(crate) async fn stand_by(
    connection: &mut PgConnection,
    mut standing_by: impl FnMut(),
) -> Result<bool, sqlx::Error> {
    let mut waited = false;
    let mut looks = interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        let Owner { state, worker, silent_seconds, .. } = owner(connection).await?;
        if state.is_free() {
            if waited || state == OwnerState::Silent {
                info!(?state, worker, silent_seconds, "the owner is away: taking over");
            }
            return Ok(waited);
        }
        if !waited {
            info!(worker, "another worker owns this database: standing by");
            standing_by();
            waited = true;
        }
    }
}

/// Why a lease ended.
#[derive(Debug)]
pub(crate) enum LeaseEnd {
    /// Somebody else owns the database.
    Taken,
    /// The primary, or the way to it, failed.
    World(String),
}

/// Holds the lease over the session that took over, until it is lost.
pub(crate) async fn hold(mut connection: PgConnection, epoch: Epoch, lease: Duration) -> LeaseEnd {
    let mut speaks = interval(lease / SPEAKS_PER_LEASE);
    loop {
        speaks.tick().await;
        let asking =
            sqlx::query_scalar("SELECT epoch FROM farwrite.owner").fetch_optional(&mut connection);
        let known: Option<Uuid> = match timeout(lease, asking).await {
            Ok(Ok(known)) => known,
            Ok(Err(error)) => return LeaseEnd::World(error.to_string()),
            Err(_) => return LeaseEnd::World("no answer within the lease".to_owned()),
        };
        if known.map(Epoch) != Some(epoch) && !sabotage::leaves_out("fence") {
            warn!(%epoch, "the lease is lost");
            return LeaseEnd::Taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_that_nobody_works_lets_another_take_over() {
        for (word, is_free) in [
            ("none", true),
            ("released", true),
            ("gone", true),
            ("silent", true),
            ("alive", false),
            ("a word of tomorrow", false),
        ] {
            assert_eq!(OwnerState::of(word).is_free(), is_free, "{word}");
        }
    }
}
