//! The commit that follows a burst.
//!
//! A position that was handed out can, now and then, lie inside another session's record; a
//! replica reaches it only when somebody writes again. So when commits stop, one commit of nothing
//! follows within 200 ms; while a burst lasts, one a second. Without commits there is none: an idle
//! database stays idle.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use farwrite_schemas::Epoch;
use sqlx::PgConnection;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{metrics, store::owner};

/// How long commits must have stopped, looked at in steps of this: a commit is followed by a
/// heartbeat after one to two of them, which is within 200 ms.
const QUIET: Duration = Duration::from_millis(90);

/// How long a burst may last without a heartbeat. What a replica can prove of its branch when it
/// cannot tell its timeline is what the last heartbeat noted.
const LONGEST: Duration = Duration::from_secs(1);

/// Tells the heartbeat that something was committed.
#[derive(Default)]
pub(crate) struct Pulse {
    committed: AtomicBool,
    /// Whether there was any commit.
    ever: AtomicBool,
    wake: Notify,
}

impl Pulse {
    /// Something was committed.
    pub(crate) fn committed(&self) {
        if !self.committed.swap(true, Ordering::Relaxed) {
            self.ever.store(true, Ordering::Relaxed);
            self.wake.notify_one();
        }
    }

    /// Whether anything was committed since the takeover.
    pub(crate) fn has_committed(&self) -> bool {
        self.ever.load(Ordering::Relaxed)
    }

    /// Waits for a commit, and then until there were none for a while, or it has lasted for long.
    async fn burst_ended(&self) {
        while !self.committed.swap(false, Ordering::Relaxed) {
            self.wake.notified().await;
        }
        let began = Instant::now();
        loop {
            tokio::time::sleep(QUIET).await;
            if began.elapsed() >= LONGEST || !self.committed.swap(false, Ordering::Relaxed) {
                return;
            }
        }
    }
}

/// Beats after each burst, until it is asked to stop, and then once more.
pub(crate) async fn run(
    pulse: &Pulse,
    epoch: Epoch,
    mut connection: PgConnection,
    stop: CancellationToken,
) -> Result<(), sqlx::Error> {
    loop {
        let stopping = tokio::select! {
            biased;
            () = pulse.burst_ended() => false,
            () = stop.cancelled() => true,
        };
        owner::heartbeat(&mut connection, epoch).await?;
        metrics::heartbeat();
        if stopping {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_followed_once_and_within_200_ms() {
        let pulse = Arc::new(Pulse::default());
        let waiting = tokio::spawn({
            let pulse = Arc::clone(&pulse);
            async move {
                pulse.burst_ended().await;
                tokio::time::Instant::now()
            }
        });
        let mut last = tokio::time::Instant::now();
        for _ in 0..20 {
            pulse.committed();
            last = tokio::time::Instant::now();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let ended = waiting.await.unwrap();
        assert!(ended > last && ended - last <= Duration::from_millis(200), "{:?}", ended - last);
        let idle = tokio::time::timeout(Duration::from_secs(3_600), pulse.burst_ended()).await;
        assert!(idle.is_err(), "a heartbeat without a commit");
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_that_lasts_is_interrupted_once_a_second_and_followed_all_the_same() {
        let pulse = Arc::new(Pulse::default());
        let beating = tokio::spawn({
            let pulse = Arc::clone(&pulse);
            async move {
                let mut beats = Vec::new();
                while let Ok(()) =
                    tokio::time::timeout(Duration::from_secs(60), pulse.burst_ended()).await
                {
                    beats.push(Instant::now());
                }
                beats
            }
        });
        let mut last = Instant::now();
        for _ in 0..500 {
            pulse.committed();
            last = Instant::now();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let beats = beating.await.unwrap();
        assert!((5..=6).contains(&beats.len()), "{} heartbeats in 5 s", beats.len());
        assert!(beats.last().is_some_and(|beat| *beat > last), "none after the last commit");
    }
}
