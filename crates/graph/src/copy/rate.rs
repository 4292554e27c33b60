//! Not more than so many bytes a second.

use std::{cell::Cell, time::Duration};

use block::{Reactor, Tick};

/// What was not used of this time is made up for.
const BURST: Duration = Duration::from_millis(100);

/// It is looked so often whether it was stopped.
const STEP: Duration = Duration::from_millis(100);

/// A bucket that fills with time.
pub struct Rate {
    per_second: u64,
    /// When all that was granted will have been earned.
    earned: Cell<Tick>,
}

impl Rate {
    /// Of so many bytes a second, at least one.
    pub fn new(per_second: u64) -> Rate {
        Rate {
            per_second: per_second.max(1),
            earned: Cell::default(),
        }
    }

    /// Waits until so many bytes may go, or until it was stopped.
    pub async fn take(&self, reactor: &Reactor, bytes: u64, stopped: impl Fn() -> bool) {
        let mut wait = self.grant(reactor.now(), bytes);
        while !wait.is_zero() && !stopped() {
            let step = wait.min(STEP);
            reactor.sleep(step).await;
            wait -= step;
        }
    }

    fn grant(&self, now: Tick, bytes: u64) -> Duration {
        let begin = self
            .earned
            .get()
            .max(Tick(now.0.saturating_sub(BURST.as_nanos() as u64)));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.per_second);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.earned.set(begin.after(takes));
        self.earned.get().since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn bytes_are_earned() {
        let rate = Rate::new(1000);
        // A tenth of a second is there from the beginning.
        let start = Tick(100 * SECOND);
        assert_eq!(rate.grant(start, 100), Duration::ZERO);
        assert_eq!(rate.grant(start, 500), Duration::from_millis(500));
        assert_eq!(rate.grant(start, 500), Duration::from_secs(1));
        // Time that passes unused is not saved.
        let later = start.after(Duration::from_secs(60));
        assert_eq!(rate.grant(later, 1100), Duration::from_secs(1));
        assert_eq!(
            Rate::new(0).grant(start, u64::MAX),
            Duration::from_nanos(u64::MAX) - start.since(Tick(0))
        );
    }
}
