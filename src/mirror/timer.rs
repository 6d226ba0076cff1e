//! One timer for all the waits of a session.
//!
//! A timer made for each wait costs two system calls beside its own work: the
//! runtime wakes itself whenever a timer is set that ends before all others.
//! A mirrored write would pay that twice. Here the timer of an earlier wait is
//! left to run out; only a wait that is still on by then sets it again, to its
//! own end, which is later.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The limit of a wait was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expired;

/// A timer used by one wait at a time.
#[derive(Default)]
pub struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Does `work`, for at most `limit`. It is pinned by the caller: moved into
    /// here it would have a place of its own in every future on the way.
    ///
    /// # Errors
    /// [`Expired`], and `work` is not finished.
    pub async fn within<F: Future>(
        &mut self,
        limit: Duration,
        mut work: Pin<&mut F>,
    ) -> Result<F::Output, Expired> {
        let until = Instant::now() + limit;
        std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll_end(until, cx).map(|()| Err(Expired)),
        })
        .await
    }

    fn poll_end(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        if sleep.deadline() > until {
            sleep.as_mut().reset(until);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= until {
                return Poll::Ready(());
            }
            // It was an earlier wait's.
            sleep.as_mut().reset(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use tokio::time::sleep;

    const STEP: Duration = Duration::from_millis(40);

    #[tokio::test]
    async fn each_wait_has_its_own_end() {
        let mut timer = Timer::default();
        let began = Instant::now();
        assert_eq!(timer.within(5 * STEP, pin!(async { 7 })).await, Ok(7));
        assert_eq!(timer.within(STEP, pin!(sleep(STEP / 4))).await, Ok(()));
        assert_eq!(timer.within(2 * STEP, pin!(sleep(STEP))).await, Ok(()));
        let again = Instant::now();
        let never = pin!(std::future::pending::<()>());
        assert_eq!(timer.within(3 * STEP, never).await, Err(Expired));
        assert!(again.elapsed() >= 3 * STEP, "the earlier end was not taken");
        let shorter = Instant::now();
        let never = pin!(std::future::pending::<()>());
        assert_eq!(timer.within(STEP, never).await, Err(Expired));
        assert!(shorter.elapsed() >= STEP && began.elapsed() > 5 * STEP);
    }

    #[tokio::test]
    async fn a_shorter_wait_is_not_held_up_by_a_longer_one() {
        let mut timer = Timer::default();
        let long = timer.within(1_000 * STEP, pin!(sleep(STEP / 4))).await;
        assert_eq!(long, Ok(()));
        let began = Instant::now();
        let never = pin!(std::future::pending::<()>());
        assert_eq!(timer.within(STEP, never).await, Err(Expired));
        assert!(began.elapsed() < 500 * STEP);
    }
}
