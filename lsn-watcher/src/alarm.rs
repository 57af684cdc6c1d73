//! The moment of the next question.
//!
//! The runtime's timer ticks every millisecond and rounds up, which is as long as a commit takes to
//! show on a replica next door. On Linux a timer of the kernel's is exact to some ten microseconds.
//! Elsewhere, and where the process has no descriptor left for it, the runtime's has to do: then
//! questions come up to two milliseconds late, and nothing else changes. Unit tests take it for the
//! loop, since their time stands still.

use tokio::time::{Instant, sleep_until};
#[cfg(target_os = "linux")]
use tokio_timerfd::Delay;

/// One timer, for one waiter at a time.
pub(crate) enum Alarm {
    /// The runtime's.
    Runtime,
    /// The kernel's.
    #[cfg(target_os = "linux")]
    Kernel(Delay),
}

impl Alarm {
    /// The most exact one that can be had. To be made within a runtime.
    #[cfg(target_os = "linux")]
    pub(crate) fn new() -> Self {
        match Delay::new(std::time::Instant::now()) {
            Ok(delay) => Self::Kernel(delay),
            Err(error) => Self::inexact(&error),
        }
    }

    /// The most exact one that can be had.
    #[cfg(not(target_os = "linux"))]
    pub(crate) const fn new() -> Self {
        Self::Runtime
    }

    /// Returns at that time; at once where it has passed.
    pub(crate) async fn at(&mut self, due: Instant) {
        #[cfg(target_os = "linux")]
        if let Self::Kernel(delay) = self {
            delay.reset(due.into_std());
            match delay.await {
                Ok(()) => return,
                Err(error) => *self = Self::inexact(&error),
            }
        }
        sleep_until(due).await;
    }

    #[cfg(target_os = "linux")]
    fn inexact(error: &std::io::Error) -> Self {
        tracing::warn!(%error, "no exact timer can be had: the replica is asked a little later");
        Self::Runtime
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_rings_at_its_time_again_and_again_and_after_it_was_dropped() {
        let mut alarm = Alarm::new();
        assert!(matches!(alarm, Alarm::Kernel(_)));
        for us in [0, 300, 50, 700] {
            let due = Instant::now() + Duration::from_micros(us);
            alarm.at(due).await;
            assert!(Instant::now() >= due);
            let far = Instant::now() + Duration::from_secs(3_600);
            let abandoned = tokio::time::timeout(Duration::from_millis(1), alarm.at(far)).await;
            assert!(abandoned.is_err());
        }
    }
}
