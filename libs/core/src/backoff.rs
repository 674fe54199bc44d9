//! How long to pause before something is tried again: one policy, for everything that waits out a failure.

use std::time::Duration;

use ulid::Ulid;

/// Pauses that double with each failure in a row up to a limit, each less up to half of it by chance, so that many
/// who failed at the same moment do not come back at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub longest: Duration,
}

impl Backoff {
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The pause after failure number `failures` in a row, counted from 1.
    pub fn after(&self, failures: u32, random: u64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.first.saturating_mul(1 << doublings).min(self.longest);
        // a thousandth more or less does not matter, an overflow would
        full - full / 2000 * u32::try_from(random % 1000).unwrap_or(0)
    }

    /// A count of failures that begins with none.
    pub fn start(self) -> Retry {
        Retry { backoff: self, failures: 0 }
    }
}

/// Failures in a row of one thing that is tried again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    backoff: Backoff,
    failures: u32,
}

impl Retry {
    /// It went well: the next failure is the first.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed once more: the pause before the next try.
    pub fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.backoff.after(self.failures, chance())
    }

    /// Pauses after one more failure.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.failed()).await;
    }
}

/// A number that nobody can foresee, for [`Backoff::after`].
pub fn chance() -> u64 {
    // the low bits of a new id are random
    Ulid::generate().0 as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

    proptest! {
        #[test]
        fn a_pause_is_between_half_and_all_of_the_doubled_one_and_never_beyond_the_limit(
            first in 0u64..100_000,
            longest in 0u64..10_000_000,
            failures in any::<u32>(),
            random in any::<u64>(),
        ) {
            let backoff = Backoff::new(Duration::from_millis(first), Duration::from_millis(longest));
            let full = u128::from(first) << failures.saturating_sub(1).min(31);
            let full = Duration::from_millis(u64::try_from(full.min(u128::from(longest))).unwrap());
            let pause = backoff.after(failures, random);
            prop_assert!(pause <= full && pause >= full / 2, "{:?} of {:?}", pause, full);
        }
    }

    #[test]
    fn pauses_double_to_their_limit_and_begin_anew_after_success() {
        let full: Vec<_> = (1..=9).map(|failure| BACKOFF.after(failure, 0).as_millis()).collect();
        assert_eq!(full, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        let mut retry = BACKOFF.start();
        for _ in 0..1000 {
            assert!(retry.failed() <= BACKOFF.longest);
        }
        retry.reset();
        assert!(retry.failed() <= BACKOFF.first);
    }

    #[test]
    fn two_that_fail_together_do_not_come_back_together() {
        let pauses: std::collections::BTreeSet<_> = (0..50).map(|_| BACKOFF.start().failed()).collect();
        assert!(pauses.len() > 25, "{pauses:?}");
    }
}
