//! The moment at which something leaves a link.
//!
//! An exact timer still rings late: its waiter's processor slept. And what came in was noticed as much
//! later than it came. Both are taken out of the delay, though never more than a tenth of it. So a
//! link is as long as it says on the average, and not longer by the way that it was built.

use std::time::{Duration, Instant};

use farwrite_internal::Alarm;

/// What is later than this was held up by a busy machine. It is no property of the timer.
const LATE_MAX: Duration = Duration::from_micros(300);

/// One timer, for one direction of a connection.
pub(crate) struct LinkTimer {
    alarm: Alarm,
    /// How long after it has rung the waiter runs, of late.
    late: Duration,
}

impl LinkTimer {
    /// To be made within a runtime.
    pub(crate) fn new() -> Self {
        Self { alarm: Alarm::exact(), late: Duration::ZERO }
    }

    /// Waits until `due`, which is `delay` after something was noticed. Does not wait where `due` has
    /// passed.
    pub(crate) async fn sleep_until(&mut self, due: Instant, delay: Duration) {
        let early = (self.late * 2).min(delay / 10);
        let Some(aim) = due.checked_sub(early).filter(|aim| *aim > Instant::now()) else { return };
        self.alarm.at(aim.into()).await;
        self.late = (self.late * 7 + aim.elapsed().min(LATE_MAX)) / 8;
    }
}
