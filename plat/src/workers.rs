//! The threads that move packets, and the only way to their tables.
//!
//! Every worker has a queue of the virtual interface and a shard of the NAT64, which it owns alone:
//! nobody else may look into it, and no lock is on the way of a packet. A packet that came by the
//! queue of one worker and belongs to the shard of another goes over a ring to that one. Whoever
//! wants to know or change something sends an order ([`Orders::each`]), which the workers carry out
//! between two batches of packets.

mod orders;
mod ring;
mod run;
pub(crate) mod tap;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use host::{clock::Clock, tun::Tun};
use nat64::{Engine, stats::Stats};

pub(crate) use orders::{Orders, Unanswered};
pub(crate) use ring::how_many;
use ring::{Peers, Seat};
use run::Run;
use tap::Tap;

/// A count of what happens seldom, by any thread.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    fn one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The count so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the workers share with the rest of the program.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    stop: AtomicBool,
    /// Where packets are looked at.
    pub(crate) tap: Tap,
    /// Packets that the host did not take.
    pub(crate) host_refused: Count,
    /// Packets whose virtio-net header could not be understood.
    pub(crate) unreadable: Count,
}

/// Running workers.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    orders: Orders,
    peers: Arc<Peers>,
    stats: Vec<Stats>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Workers {
    /// Starts one for each shard, with a queue of the interface each.
    ///
    /// # Errors
    /// The system's, when it has no more threads.
    pub(crate) fn start(
        shards: Vec<Engine>,
        queues: &[Arc<dyn Tun>],
        shared: Arc<Shared>,
        clock: Clock,
    ) -> io::Result<Self> {
        let peers = Arc::new(Peers::new(queues));
        let mut lines = Vec::new();
        let mut workers = Self {
            stats: shards.iter().map(Engine::stats).collect(),
            threads: Vec::new(),
            orders: Orders::new(Vec::new()),
            peers: Arc::clone(&peers),
            shared: Arc::clone(&shared),
        };
        for ((engine, tun), seat) in shards.into_iter().zip(queues).zip(Seat::all(&peers)) {
            let (line, inbox) = orders::line(tun);
            lines.push(line);
            let run = Run::new(
                engine,
                Arc::clone(tun),
                Arc::clone(&shared),
                seat,
                inbox,
                clock,
            );
            let name = format!("plat-{}", workers.threads.len());
            let started = thread::Builder::new().name(name).spawn(move || run.run());
            match started {
                Ok(thread) => workers.threads.push(thread),
                Err(error) => {
                    // Those that run already are not left behind.
                    let _ = workers.stop();
                    return Err(error);
                }
            }
        }
        workers.orders = Orders::new(lines);
        Ok(workers)
    }

    /// The way to the tables of all workers.
    pub(crate) fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// What all of them counted, as it is now.
    pub(crate) fn stats(&self) -> Stats {
        Stats::sum(&self.stats)
    }

    /// What counts, of each of them.
    pub(crate) fn shard_stats(&self) -> Vec<Stats> {
        self.stats.clone()
    }

    /// The pulse of the workers.
    pub(crate) fn pulse(&self) -> Pulse {
        Pulse::new(self.peers.beats())
    }

    /// Whether one has ended by itself, which only a failure does.
    pub(crate) fn has_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Ends them.
    ///
    /// # Errors
    /// What had ended one before.
    pub(crate) fn stop(self) -> io::Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.peers.wake_all();
        let mut ended = Ok(());
        for thread in self.threads {
            let result = thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a worker has panicked")));
            ended = ended.and(result);
        }
        ended
    }
}

/// Whether the workers are alive.
#[derive(Clone, Debug)]
pub(crate) struct Pulse {
    beats: Arc<[AtomicU64]>,
    last: Vec<u64>,
}

impl Pulse {
    fn new(beats: Arc<[AtomicU64]>) -> Self {
        Self {
            last: vec![0; beats.len()],
            beats,
        }
    }

    /// The numbers of the workers that did nothing since the last call. A healthy one does
    /// something every second, also when there is nothing to do; ask every three, or less often.
    pub(crate) fn missing(&mut self) -> Vec<usize> {
        let now: Vec<_> = self
            .beats
            .iter()
            .map(|it| it.load(Ordering::Relaxed))
            .collect();
        let before = std::mem::replace(&mut self.last, now);
        let pairs = before.iter().zip(&self.last).enumerate();
        pairs.filter(|(_, (a, b))| a == b).map(|(n, _)| n).collect()
    }
}

#[cfg(test)]
mod tests;
