//! The signals of Unix.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Signals, Told};

/// SIGTERM and SIGINT end the program, SIGUSR1 has it report; SIGHUP is [`Told::HangUp`].
#[derive(Debug)]
pub struct HostSignals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    report: Signal,
}

impl HostSignals {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            report: signal(SignalKind::user_defined1())?,
        })
    }
}

impl Signals for HostSignals {
    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hang_up.recv() => Told::HangUp,
            _ = self.report.recv() => Told::Report,
        }
    }
}
