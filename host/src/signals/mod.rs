//! What people and service managers tell a program while it runs.

use std::future::Future;

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::HostSignals;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::HostSignals;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Take everything back and end.
    End,
    /// Say what was counted so far.
    Report,
    /// The terminal is gone, or the configuration is to be read again: what it means is the
    /// program's to say.
    HangUp,
}

/// Where signals come from. They are listened for before anything is changed, so that none of them
/// leaves changes behind.
pub trait Signals {
    /// The next signal. May be dropped while it waits: nothing is lost.
    fn next(&mut self) -> impl Future<Output = Told>;
}
