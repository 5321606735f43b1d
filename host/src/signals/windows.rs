//! The events of a Windows console. None of them can mean "report".

use std::io;

use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown,
};

use super::{Signals, Told};

/// Ctrl-C, Ctrl-Break, a closed console and the machine's shutdown end the program.
#[derive(Debug)]
pub struct HostSignals {
    interrupt: CtrlC,
    interrupt_harder: CtrlBreak,
    console_closed: CtrlClose,
    shut_down: CtrlShutdown,
}

impl HostSignals {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self {
            interrupt: ctrl_c()?,
            interrupt_harder: ctrl_break()?,
            console_closed: ctrl_close()?,
            shut_down: ctrl_shutdown()?,
        })
    }
}

impl Signals for HostSignals {
    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.interrupt.recv() => Told::End,
            _ = self.interrupt_harder.recv() => Told::End,
            _ = self.console_closed.recv() => Told::End,
            _ = self.shut_down.recv() => Told::End,
        }
    }
}
