//! Waiting for packets, in a way that another thread can end.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};

/// Ends the wait of a thread, from another one.
#[derive(Clone, Debug)]
pub(crate) struct Waker(Arc<EventFd>);

impl Waker {
    /// A waker that nobody has used.
    ///
    /// # Errors
    /// The system's, when it is out of descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(Arc::new(EventFd::from_flags(flags)?)))
    }

    /// Ends the current wait, or the next one if there is none.
    pub(crate) fn wake(&self) {
        // Only fails when the counter is full, and then the waiter is awake anyway.
        let _ = self.0.write(1);
    }

    fn reset(&self) {
        let _ = self.0.read();
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// There is something to read.
    Readable,
    /// Somebody called [`Waker::wake`].
    ByWaker,
    /// The time is up.
    TimedOut,
}

/// Waits until `fd` is readable, `waker` is used, or `timeout` has passed.
///
/// # Errors
/// The system's, or the descriptor's own when it is in error and has nothing to read.
pub(crate) fn until_readable(
    fd: BorrowedFd<'_>,
    waker: &Waker,
    timeout: Option<Duration>,
) -> io::Result<Woken> {
    let mut fds = [
        PollFd::new(fd, PollFlags::POLLIN),
        PollFd::new(waker.0.as_fd(), PollFlags::POLLIN),
    ];
    let timeout = match timeout {
        // Rounded up: waking too early would only mean waiting again.
        Some(timeout) => {
            PollTimeout::try_from(timeout + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
        }
        None => PollTimeout::NONE,
    };
    match poll(&mut fds, timeout) {
        Ok(0) => return Ok(Woken::TimedOut),
        Ok(_) => {}
        Err(nix::Error::EINTR) => return Ok(Woken::TimedOut),
        Err(error) => return Err(error.into()),
    }
    if fds[1].any().unwrap_or(false) {
        waker.reset();
        return Ok(Woken::ByWaker);
    }
    Ok(Woken::Readable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_wait_ends_for_each_of_its_reasons() {
        let (one, other) = UnixDatagram::pair().unwrap();
        let waker = Waker::new().unwrap();
        let wait = |timeout| until_readable(one.as_fd(), &waker, timeout).unwrap();
        assert_eq!(wait(Some(Duration::from_millis(5))), Woken::TimedOut);
        waker.wake();
        waker.wake();
        assert_eq!(wait(None), Woken::ByWaker);
        assert_eq!(wait(Some(Duration::ZERO)), Woken::TimedOut);
        other.send(b"x").unwrap();
        assert_eq!(wait(None), Woken::Readable);
    }
}
