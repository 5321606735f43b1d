//! Points at which a test kills the process, to see what it leaves behind.
//!
//! A point costs nothing and does nothing unless the feature `fault-points` is on, which it is in no
//! program that is shipped. Then the environment variable `OPENCLAT_FAULT_POINT` says how many
//! points are passed before the process dies, as by `kill -9`. A test that counts up from 1 until
//! the program ends by itself has killed it at every point.

/// The process has come to the point `name`.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn point(_name: &str) {}

/// The process has come to the point `name`: its last one, if that is wanted.
#[cfg(feature = "fault-points")]
pub fn point(name: &str) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };
    static LAST: LazyLock<Option<u64>> = LazyLock::new(|| {
        let wanted = std::env::var("OPENCLAT_FAULT_POINT").ok();
        wanted.and_then(|it| it.parse().ok())
    });
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let passed = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
    if *LAST == Some(passed) {
        eprintln!("fault point {passed}: {name}");
        die();
    }
}

#[cfg(all(feature = "fault-points", target_os = "linux"))]
fn die() -> ! {
    // SAFETY: a signal to this process itself; no memory is touched.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    loop {
        std::thread::park();
    }
}

#[cfg(all(feature = "fault-points", not(target_os = "linux")))]
fn die() -> ! {
    std::process::abort()
}
