//! A wait with a deadline.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Sleep;

use super::{board::Board, wait::Wait};
use crate::{
    answer::{Reached, WaitError},
    metrics,
    wait_target::WaitTarget,
};

pin_project_lite::pin_project! {
    /// A wait with a deadline. Written out, because the compiler would keep the parts of an `async`
    /// block twice. The wait is boxed, because a runtime rounds the size of a task up by more than a
    /// box costs (measured over a task with a deadline alone: 130 bytes instead of 194).
    #[derive(Debug)]
    pub(crate) struct TimedWait<'a> {
        wait: Box<Wait<'a>>,
        #[pin]
        deadline: Sleep,
    }
}

impl<'a> TimedWait<'a> {
    pub(crate) fn new(board: &'a Board, target: WaitTarget, timeout: Duration) -> Self {
        let wait = Box::new(Wait::new(board, target));
        // What no clock can express is as good as for ever.
        let longest = Duration::from_hours(24 * 365);
        Self { wait, deadline: tokio::time::sleep(timeout.min(longest)) }
    }
}

impl Future for TimedWait<'_> {
    type Output = Result<Reached, WaitError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut polled = Pin::new(&mut **this.wait).poll(context);
        if polled.is_pending() && this.deadline.poll(context).is_ready() {
            polled = Poll::Ready(Err(this.wait.missed()));
        }
        if let Poll::Ready(result) = &polled {
            metrics::wait_ended(result, this.wait.began().elapsed());
        }
        polled
    }
}
