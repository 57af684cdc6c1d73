//! A timer that is exact below a millisecond, where the system has one.
//!
//! The runtime's timer ticks every millisecond and rounds up. That is as long as a commit takes to
//! show on a replica next door. On Linux a timer of the kernel's is exact to some ten microseconds.
//! Elsewhere, and where the process has no descriptor left, the runtime's timer has to do: it rings
//! up to two milliseconds late, and nothing else changes.

use tokio::time::{Instant, sleep_until};
#[cfg(target_os = "linux")]
use tokio_timerfd::Delay;

/// One timer, for one waiter at a time.
pub struct Alarm(Timer);

enum Timer {
    Runtime,
    #[cfg(target_os = "linux")]
    Kernel(Delay),
}

impl std::fmt::Debug for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alarm").field("is_exact", &self.is_exact()).finish()
    }
}

impl Alarm {
    /// The most exact timer of this system. To be made within a runtime.
    #[must_use]
    pub fn exact() -> Self {
        #[cfg(target_os = "linux")]
        match Delay::new(std::time::Instant::now()) {
            Ok(delay) => return Self(Timer::Kernel(delay)),
            Err(error) => warn_inexact(&error),
        }
        Self::of_runtime()
    }

    /// The runtime's timer: for tests, whose time may stand still.
    #[must_use]
    pub const fn of_runtime() -> Self {
        Self(Timer::Runtime)
    }

    /// Whether it is exact below a millisecond.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        !matches!(self.0, Timer::Runtime)
    }

    /// Returns at that time; at once where it has passed.
    pub async fn at(&mut self, due: Instant) {
        #[cfg(target_os = "linux")]
        if let Timer::Kernel(delay) = &mut self.0 {
            delay.reset(due.into_std());
            match delay.await {
                Ok(()) => return,
                Err(error) => {
                    warn_inexact(&error);
                    *self = Self::of_runtime();
                }
            }
        }
        sleep_until(due).await;
    }
}

#[cfg(target_os = "linux")]
fn warn_inexact(error: &std::io::Error) {
    tracing::warn!(%error, "there is no exact timer: the runtime's rings up to 2 ms late");
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_rings_at_its_time_again_and_again_and_after_it_was_dropped() {
        let mut alarm = Alarm::exact();
        assert!(alarm.is_exact());
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
