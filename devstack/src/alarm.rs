//! The moment at which something leaves a link.
//!
//! A timer of the kernel's is exact where the runtime's rounds up to the next millisecond. Still the
//! waiter runs some time after it has rung, since its processor slept; and what came in was noticed
//! as much later than it came. Both are taken out of the delay, though never more than a tenth of it:
//! a link is as long as it says, on the average, and not by the way it was built longer.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio_timerfd::Delay;

/// More than this is no waking but a busy machine, which is nobody's distance.
const LATE_MAX: Duration = Duration::from_micros(300);

/// One timer, for one waiter at a time.
pub(crate) struct Alarm {
    delay: Delay,
    /// How long after it has rung the waiter runs, of late.
    late: Duration,
}

impl Alarm {
    /// Within a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { delay: Delay::new(Instant::now())?, late: Duration::ZERO })
    }

    /// Waits until `due`, which is so long after something was noticed; not at all where it has
    /// passed.
    pub(crate) async fn sleep_until(&mut self, due: Instant, delay: Duration) -> io::Result<()> {
        let early = (self.late * 2).min(delay / 10);
        let Some(aim) = due.checked_sub(early).filter(|aim| *aim > Instant::now()) else {
            return Ok(());
        };
        self.delay.reset(aim);
        (&mut self.delay).await?;
        self.late = (self.late * 7 + aim.elapsed().min(LATE_MAX)) / 8;
        Ok(())
    }
}
