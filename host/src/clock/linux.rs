//! `CLOCK_BOOTTIME`.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

pub(super) fn since_boot() -> Duration {
    // The clock exists since Linux 2.6.39, so this cannot fail.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}
