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

use crate::store::owner::{self, OwnerLiveness, OwnerState};

use super::end::ServingEnd;

/// How often a worker that stands by looks: a hand-over takes this and the takeover itself.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often an owner speaks in the time of a lease: four times may be lost or late.
const SPEAKS_PER_LEASE: u32 = 5;

/// Waits until the database is free. Answers at once whether it had to wait.
pub(crate) async fn stand_by(
    connection: &mut PgConnection,
    mut standing_by: impl FnMut(),
) -> Result<bool, sqlx::Error> {
    let mut waited = false;
    let mut looks = interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        let OwnerState { liveness, worker, silent_seconds, .. } = owner::state(connection).await?;
        if liveness.is_free() {
            if waited || liveness == OwnerLiveness::Silent {
                info!(state = ?liveness, worker, silent_seconds, "the owner is away: taking over");
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

/// Holds the lease over the session that took over, until it is lost.
pub(crate) async fn hold(
    mut connection: PgConnection,
    epoch: Epoch,
    lease: Duration,
) -> ServingEnd {
    let mut speaks = interval(lease / SPEAKS_PER_LEASE);
    loop {
        speaks.tick().await;
        let known = match timeout(lease, owner::epoch(&mut connection)).await {
            Ok(Ok(known)) => known,
            Ok(Err(error)) => return ServingEnd::again_of("the lease", error),
            Err(_) => return ServingEnd::again_of("the lease", "no answer within the lease"),
        };
        if known != Some(epoch) && !sabotage::leaves_out("fence") {
            warn!(%epoch, "the lease is lost");
            return ServingEnd::Taken;
        }
    }
}
