//! `CLOCK_MONOTONIC`, which goes on while a Mac sleeps. ([`Instant`](std::time::Instant) is the one
//! that stops.)

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

pub(super) fn since_boot() -> Duration {
    // The clock exists since macOS 10.12, so this cannot fail.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}
