//! The thread that moves packets: both families come out of the virtual interface and go back into
//! it.

use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use arc_swap::ArcSwap;
use host::{
    clock::Clock,
    tun::{Received, Tun, send_pieces},
};
use nat64::Engine;
use wire::{counters::Counter, packet::PacketBuf, pieces::Pieces, verdict::Verdict};

/// What the worker shares with the rest of the program.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    stop: AtomicBool,
    /// The host's own IPv4 addresses, which no client may reach.
    pub(crate) own_addresses: ArcSwap<Vec<Ipv4Addr>>,
    /// Packets that the host did not take.
    pub(crate) host_refused: Counter,
    /// Packets whose virtio-net header could not be understood.
    pub(crate) unreadable: Counter,
}

/// A running worker.
pub(crate) struct Worker {
    tun: Arc<dyn Tun>,
    shared: Arc<Shared>,
    thread: JoinHandle<io::Result<()>>,
}

impl Worker {
    /// Starts it.
    ///
    /// # Errors
    /// The system's, when it has no more threads.
    pub(crate) fn start(
        engine: Engine,
        tun: Arc<dyn Tun>,
        shared: Arc<Shared>,
        clock: Clock,
    ) -> io::Result<Self> {
        let run = Run {
            engine,
            tun: Arc::clone(&tun),
            shared: Arc::clone(&shared),
            clock,
            segment: false,
        };
        let thread = thread::Builder::new().name("plat".to_owned());
        Ok(Self {
            thread: thread.spawn(move || run.run())?,
            tun,
            shared,
        })
    }

    /// Whether it has ended by itself, which only a failure does.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it.
    ///
    /// # Errors
    /// What had ended it before.
    pub(crate) fn stop(self) -> io::Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.tun.wake();
        self.thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the worker has panicked")))
    }
}

struct Run {
    engine: Engine,
    tun: Arc<dyn Tun>,
    shared: Arc<Shared>,
    clock: Clock,
    segment: bool,
}

impl Run {
    fn run(mut self) -> io::Result<()> {
        let mut buf = PacketBuf::new();
        let shared = Arc::clone(&self.shared);
        let mut own = arc_swap::Cache::new(&shared.own_addresses);
        let mut current = Arc::clone(own.load());
        while !shared.stop.load(Ordering::Relaxed) {
            let timeout = self.engine.poll_timeout().map(|at| self.clock.until(at));
            match self.tun.recv(&mut buf, timeout)? {
                Received::Packet => {
                    if !Arc::ptr_eq(own.load(), &current) {
                        current = Arc::clone(own.load());
                        self.engine.set_own_addresses(current.to_vec());
                    }
                    self.handle(&mut buf);
                }
                Received::Unreadable(error) => {
                    tracing::debug!("a packet cannot be read: {error:?}");
                    shared.unreadable.add(1);
                }
                // A packet does this by itself.
                Received::Woken | Received::TimedOut => {
                    self.engine.handle_timeout(self.clock.now());
                }
            }
        }
        Ok(())
    }

    fn handle(&mut self, buf: &mut PacketBuf) {
        let now = self.clock.now();
        let is_ipv6 = buf.bytes().first().is_some_and(|first| first >> 4 == 6);
        let verdict = if is_ipv6 {
            self.engine.handle_v6(buf, now)
        } else {
            self.engine.handle_v4(buf, now)
        };
        match verdict {
            Verdict::Forward(pieces) => self.send(pieces, buf),
            // Either family goes back the way it came.
            Verdict::Reply(_) => self.send(Pieces::whole(), buf),
            Verdict::Drop(_) => {}
        }
    }

    fn send(&mut self, pieces: Pieces, buf: &mut PacketBuf) {
        let tun = &self.tun;
        let shared = &self.shared;
        let lost = |error: &io::Error| {
            tracing::trace!("the host did not take a packet: {error}");
            shared.host_refused.add(1);
        };
        send_pieces(pieces, buf, &mut self.segment, |buf| tun.send(buf), lost);
    }
}
