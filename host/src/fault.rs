//! Points at which a test kills the process, or has the system refuse something, to see what is left
//! then.
//!
//! A point costs nothing and does nothing unless the feature `fault-points` is on, which it is in no
//! program that is shipped. Then the environment variable `OPENCLAT_FAULT_POINT` says at which
//! [`point`] the process dies, as by `kill -9`, and `OPENCLAT_FAULT_REFUSAL` which [`refusal`] is one,
//! both counted from 1. A test that counts up until nothing happens any more has tried every one.

#[cfg(feature = "fault-points")]
pub use on::{point, refusal};

/// The process has come to the point `name`.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn point(_name: &str) {}

/// The system is about to be asked for something that takes a privilege.
///
/// # Errors
/// `PermissionDenied`, if a test wants it.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn refusal() -> std::io::Result<()> {
    Ok(())
}

#[cfg(feature = "fault-points")]
mod on {
    use std::{
        env, io,
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    /// "Operation not permitted", on every Unix.
    const EPERM: i32 = 1;

    /// What is counted, until it is as many as the environment says.
    struct Countdown {
        wanted: LazyLock<Option<u64>>,
        passed: AtomicU64,
    }

    impl Countdown {
        /// The number of this time, if it is the wanted one.
        fn is_over(&self) -> Option<u64> {
            let passed = self.passed.fetch_add(1, Ordering::SeqCst) + 1;
            self.wanted.filter(|wanted| *wanted == passed)
        }
    }

    fn from_environment(name: &str) -> Option<u64> {
        env::var(name).ok()?.parse().ok()
    }

    /// The process has come to the point `name`: its last one, if that is wanted.
    pub fn point(name: &str) {
        static POINTS: Countdown = Countdown {
            wanted: LazyLock::new(|| from_environment("OPENCLAT_FAULT_POINT")),
            passed: AtomicU64::new(0),
        };
        if let Some(number) = POINTS.is_over() {
            eprintln!("fault point {number}: {name}");
            die();
        }
    }

    /// The system is about to be asked for something that takes a privilege.
    ///
    /// # Errors
    /// `PermissionDenied`, if that is wanted.
    pub fn refusal() -> io::Result<()> {
        static REFUSALS: Countdown = Countdown {
            wanted: LazyLock::new(|| from_environment("OPENCLAT_FAULT_REFUSAL")),
            passed: AtomicU64::new(0),
        };
        if let Some(number) = REFUSALS.is_over() {
            eprintln!("fault refusal {number}");
            return Err(io::Error::from_raw_os_error(EPERM));
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn die() -> ! {
        // SAFETY: a signal to this process itself; no memory is touched.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        loop {
            std::thread::park();
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn die() -> ! {
        std::process::abort()
    }
}
