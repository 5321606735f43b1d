//! A clock for lifetimes.

use std::time::{Duration, Instant};

/// Gives times that advance while the machine sleeps, as lifetimes of prefixes and sessions do.
///
/// They are [`Instant`]s, but not those of [`Instant::now`]: compare them only with each other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    at_origin: Duration,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
            at_origin: since_boot(),
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.origin + since_boot().saturating_sub(self.at_origin)
    }

    /// How long it is until `then`; zero if it has passed.
    #[must_use]
    pub fn until(&self, then: Instant) -> Duration {
        then.saturating_duration_since(self.now())
    }
}

/// Time since the machine was started, sleep included.
#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    use nix::time::{ClockId, clock_gettime};

    // The clock exists since Linux 2.6.39, so this cannot fail.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on() {
        let clock = Clock::start();
        let first = clock.now();
        std::thread::sleep(Duration::from_millis(20));
        let passed = clock.now() - first;
        assert!(passed >= Duration::from_millis(19), "{passed:?}");
        assert!(clock.until(first).is_zero());
        assert!(clock.until(first + Duration::from_secs(60)) > Duration::from_secs(50));
    }
}
