//! The threads that move packets, and the only way to their tables.
//!
//! Every worker owns its engine alone: nobody else may look into it, and no lock is on the way of a
//! packet. Whoever wants to know or change something sends an order ([`Orders::each`]), which the
//! worker carries out between two batches of packets.

mod orders;
mod run;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use host::{clock::Clock, tun::Tun};
use nat64::Engine;
use wire::counters::Counter;

pub(crate) use orders::{Orders, Unanswered};
use run::Run;

/// What the workers share with the rest of the program.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    stop: AtomicBool,
    /// Packets that the host did not take.
    pub(crate) host_refused: Counter,
    /// Packets whose virtio-net header could not be understood.
    pub(crate) unreadable: Counter,
}

/// Running workers.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    orders: Orders,
    tun: Arc<dyn Tun>,
    thread: JoinHandle<io::Result<()>>,
}

impl Workers {
    /// Starts them.
    ///
    /// # Errors
    /// The system's, when it has no more threads.
    pub(crate) fn start(
        engine: Engine,
        tun: Arc<dyn Tun>,
        shared: Arc<Shared>,
        clock: Clock,
    ) -> io::Result<Self> {
        let (orders, inbox) = orders::line(&tun);
        let run = Run::new(engine, Arc::clone(&tun), Arc::clone(&shared), inbox, clock);
        let thread = thread::Builder::new().name("plat".to_owned());
        Ok(Self {
            thread: thread.spawn(move || run.run())?,
            orders: Orders::new(vec![orders]),
            tun,
            shared,
        })
    }

    /// The way to the tables of all workers.
    pub(crate) fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// Whether one has ended by itself, which only a failure does.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends them.
    ///
    /// # Errors
    /// What had ended one before.
    pub(crate) fn stop(self) -> io::Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.tun.wake();
        self.thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the worker has panicked")))
    }
}

#[cfg(test)]
mod tests;
