//! Networks in a box: network namespaces with routers, servers and links of every quality, for
//! tests, the demo and the benchmarks.
//!
//! Everything is held by this process: namespaces by descriptor, threads, child processes and
//! directories by guards. When it ends, even by a panic or a signal, nothing is left but the
//! captures of a test that failed. SIGKILL alone leaves the directories.

#![expect(
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a lab that cannot be built fails its test"
)]

pub mod advertiser;
pub mod capture;
pub mod counters;
pub mod dns;
pub mod flood;
pub mod frames;
pub mod impair;
pub mod namespace;
pub mod openmetrics;
pub mod pair;
pub mod process;
pub mod scratch;
pub mod second;
pub mod servers;
pub mod state;
pub mod stun;
pub mod systemd;
pub mod tayga;
pub mod terminal;
pub mod tools;
pub mod topology;
pub mod wiring;

use std::{
    thread,
    time::{Duration, Instant},
};

/// Waits until `condition` holds, looking often. False if it does not within `timeout`.
pub fn eventually(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + timeout;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
