//! How long a fault lasts.

use std::{ops::Range, time::Duration};

use fastrand::Rng;

/// Waits so many milliseconds, by chance.
pub(super) async fn last(random: &mut Rng, ms: Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.u64(ms))).await;
}
