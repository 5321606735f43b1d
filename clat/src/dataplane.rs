//! The threads that move packets: one per direction, each with its half of the engine.
//!
//! They share with the supervisor the settings and the next hop, which they read with every packet,
//! and tell it what happens by a channel. Nothing else connects them.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use clat_core::{Inbound, Outbound, Settings, engine::DirectionStats};
use host::{clock::Clock, tun::Tun, uplink::Uplink};
use l2::{DropReason, NextHop, link};
use tokio::sync::mpsc::UnboundedSender;

use inbound::InboundThread;
use outbound::OutboundThread;
use routed::RoutedThread;
pub(crate) use shared::{Event, LinkStats};
use shared::{IN, Shared};

mod inbound;
mod outbound;
mod routed;
mod shared;

/// The engine, in its two halves. Lives on when the threads are restarted.
#[derive(Debug)]
pub(crate) struct Engine {
    outbound: Outbound,
    inbound: Inbound,
    stats: Arc<LinkStats>,
}

impl Engine {
    /// An engine with `settings`; the keys should be random.
    pub(crate) fn new(settings: &Settings, keys: (u64, u64)) -> Self {
        Self {
            outbound: Outbound::new(settings, keys.0),
            inbound: Inbound::new(settings, keys.1),
            stats: Arc::default(),
        }
    }

    fn configure(&mut self, settings: &Settings) {
        self.outbound.configure(settings);
        self.inbound.configure(settings);
    }

    /// What it counted: out, in, and at the link.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            outbound: self.outbound.stats(),
            inbound: self.inbound.stats(),
            link: Arc::clone(&self.stats),
        }
    }
}

/// What was counted.
#[derive(Clone, Debug)]
pub(crate) struct Stats {
    pub(crate) outbound: Arc<DirectionStats>,
    pub(crate) inbound: Arc<DirectionStats>,
    pub(crate) link: Arc<LinkStats>,
}

/// Running threads.
pub(crate) struct Dataplane {
    shared: Arc<Shared>,
    ports: Ports,
    threads: Threads,
}

/// What the threads wait for packets from.
#[derive(Clone)]
struct Ports {
    tun: Arc<dyn Tun>,
    uplink: Option<Arc<dyn Uplink>>,
}

enum Threads {
    Link {
        out: JoinHandle<Outbound>,
        r#in: JoinHandle<Inbound>,
    },
    Routed(JoinHandle<Engine>),
}

impl Dataplane {
    /// Starts with an address on a link, which is checked for duplicates first.
    ///
    /// # Errors
    /// The system's, when it has no more threads.
    pub(crate) fn start_on_link(
        engine: Engine,
        tun: Arc<dyn Tun>,
        uplink: Arc<dyn Uplink>,
        link: link::Config,
        settings: Settings,
        (clock, events): (Clock, UnboundedSender<Event>),
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(settings, &engine, clock, events));
        let ports = Ports {
            tun: Arc::clone(&tun),
            uplink: Some(Arc::clone(&uplink)),
        };
        let both = (tun, uplink);
        let out = OutboundThread::new(engine.outbound, both.clone(), Arc::clone(&shared));
        let r#in = InboundThread::new(engine.inbound, both, Arc::clone(&shared), link);
        Self::start_pair(out, r#in, shared, ports)
    }

    fn start_pair(
        out: OutboundThread,
        r#in: InboundThread,
        shared: Arc<Shared>,
        ports: Ports,
    ) -> io::Result<Self> {
        let out = spawn("clat-out", &shared, move || out.run())?;
        match spawn("clat-in", &shared, move || r#in.run()) {
            Ok(r#in) => Ok(Self {
                shared,
                ports,
                threads: Threads::Link { out, r#in },
            }),
            Err(error) => {
                // The other one must not run on, unseen.
                shared.stop(&ports);
                let _ = out.join();
                Err(error)
            }
        }
    }

    /// Starts with an address that is routed to this host: both families pass the virtual
    /// interface, and there is nothing to check.
    ///
    /// # Errors
    /// The system's, when it has no more threads.
    pub(crate) fn start_routed(
        engine: Engine,
        tun: Arc<dyn Tun>,
        settings: Settings,
        (clock, events): (Clock, UnboundedSender<Event>),
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(settings, &engine, clock, events));
        shared.address.set(Ok(()));
        shared.tell(Event::Assigned);
        let ports = Ports {
            tun: Arc::clone(&tun),
            uplink: None,
        };
        let thread = RoutedThread::new(engine, tun, Arc::clone(&shared));
        let thread = spawn("clat", &shared, move || thread.run())?;
        Ok(Self {
            shared,
            ports,
            threads: Threads::Routed(thread),
        })
    }

    /// Uses `settings` from the next packet on. Their address must be the one it started with.
    pub(crate) fn configure(&self, settings: Settings) {
        self.shared.settings.store(Arc::new(settings));
    }

    /// Sends through `next_hop` from the next packet on.
    pub(crate) fn set_next_hop(&self, next_hop: Option<NextHop>) {
        self.shared.next_hop.store(next_hop.map(Arc::new));
    }

    /// Counts what the link has lost before it could be received.
    pub(crate) fn count_overflows(&self) {
        if let Some(uplink) = &self.ports.uplink {
            let lost = uplink.overflows();
            self.shared.stats.dropped[IN].add(DropReason::QueueOverflow, lost);
        }
    }

    /// Ends the threads. `None` if one of them has panicked and its half of the engine is lost.
    pub(crate) fn stop(self) -> Option<Engine> {
        self.shared.stop(&self.ports);
        self.count_overflows();
        match self.threads {
            Threads::Link { out, r#in } => {
                // Both, even if the first has panicked: nothing of them may go on.
                let (out, r#in) = (out.join(), r#in.join());
                Some(Engine {
                    outbound: out.ok()?,
                    inbound: r#in.ok()?,
                    stats: Arc::clone(&self.shared.stats),
                })
            }
            Threads::Routed(thread) => thread.join().ok(),
        }
    }
}

fn spawn<T: Send + 'static>(
    name: &'static str,
    shared: &Arc<Shared>,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let watch = PanicWatch {
        shared: Arc::clone(shared),
        name,
    };
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _watch = watch;
        run()
    })
}

/// Tells the supervisor of a thread that panics: nothing passes any more, and nobody would know.
struct PanicWatch {
    shared: Arc<Shared>,
    name: &'static str,
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if thread::panicking() {
            let name = self.name;
            self.shared.tell(Event::Failed(format!(
                "the thread {name} has failed; please report this"
            )));
        }
    }
}

#[cfg(test)]
mod tests;
