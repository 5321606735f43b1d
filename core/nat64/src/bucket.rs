//! [`Bucket`]: how often something may be done, as a token bucket.
//!
//! It is kept as the time at which the bucket will be full again, so that nobody has to fill it and
//! it is one number: taking one puts that time off by what one takes to come back. In any time `t`
//! no more is taken than [`Rate::burst`] and what comes back in `t`.

use core::time::Duration;

/// How much a bucket holds, and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// What comes back in a second; more than 10^9 is without a limit.
    pub(crate) per_second: usize,
    /// What it holds; at least 1.
    pub(crate) burst: usize,
}

impl Rate {
    /// Nanoseconds until one comes back.
    fn interval(self) -> u64 {
        1_000_000_000 / (self.per_second as u64).max(1)
    }
}

/// What of it is left. A new one is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// When it is full again, in nanoseconds from the start.
    full: u64,
}

impl Bucket {
    /// Whether nothing is left at `now`, a time since the start.
    pub(crate) fn is_empty(self, rate: Rate, now: Duration) -> bool {
        let others = (rate.burst as u64).saturating_sub(1);
        let latest = nanos(now).saturating_add(rate.interval().saturating_mul(others));
        self.full > latest
    }

    /// Takes one.
    pub(crate) fn take(&mut self, rate: Rate, now: Duration) {
        self.full = self.full.max(nanos(now)).saturating_add(rate.interval());
    }

    /// Goes on with another rate. At most all that it holds then is missing.
    pub(crate) fn turn_to(&mut self, rate: Rate, now: Duration) {
        let whole = rate.interval().saturating_mul(rate.burst as u64);
        self.full = self.full.min(nanos(now).saturating_add(whole));
    }

    /// The emptier one of both.
    pub(crate) fn min(self, other: Self) -> Self {
        Self {
            full: self.full.max(other.full),
        }
    }
}

/// Enough for 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against one in which tokens are counted, in parts of 10^9.
        #[test]
        fn natb_6888_01_equals_a_bucket_that_is_filled(
            per_second in prop::sample::select(vec![1usize, 2, 5, 10, 1000, 1_000_000]),
            burst in 1usize..20,
            steps in proptest::collection::vec((0u64..3_000_000_000, 1usize..40), 1..60),
        ) {
            const ONE: u64 = 1_000_000_000;
            let rate = Rate { per_second, burst };
            let (mut bucket, mut now) = (Bucket::default(), 0);
            let mut level = burst as u64 * ONE;
            for (pause, tries) in steps {
                now += pause;
                level = (level + pause * per_second as u64).min(burst as u64 * ONE);
                for _ in 0..tries {
                    let now = Duration::from_nanos(now);
                    prop_assert_eq!(bucket.is_empty(rate, now), level < ONE);
                    if level >= ONE {
                        bucket.take(rate, now);
                        level -= ONE;
                    }
                }
            }
        }
    }

    #[test]
    fn without_a_limit_it_is_never_empty() {
        let rate = Rate {
            per_second: usize::MAX,
            burst: usize::MAX,
        };
        let mut bucket = Bucket::default();
        for _ in 0..1000 {
            bucket.take(rate, Duration::ZERO);
            assert!(!bucket.is_empty(rate, Duration::ZERO));
        }
    }
}
