//! A clock for lifetimes.

use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux::since_boot;

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
use macos::since_boot;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows::since_boot;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on() {
        let clock = Clock::start();
        let first = clock.now();
        std::thread::sleep(Duration::from_millis(50));
        let passed = clock.now() - first;
        // Less one step of the coarsest of the systems' clocks.
        assert!(passed >= Duration::from_millis(33), "{passed:?}");
        assert!(clock.until(first).is_zero());
        assert!(clock.until(first + Duration::from_secs(60)) > Duration::from_secs(50));
    }
}
