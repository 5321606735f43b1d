//! From one worker to another: packets that one read and that belong to the other's shard.
//!
//! A buffer changes hands, its bytes stay where they are: whoever passes a packet on takes an empty
//! buffer for it. All of them are made at the start; when there is none left, or the other worker
//! has too many waiting, the packet cannot be passed on.
//!
//! A worker that waits for its queue of the interface is woken. It says so before it looks a last
//! time, and whoever adds a packet looks at that afterwards: one of the two sees the other.

use std::{
    num::NonZeroU8,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
};

use crossbeam_queue::ArrayQueue;
use host::tun::Tun;
use nat64::dispatch::Passage;
use wire::packet::PacketBuf;

/// Packets that may wait for one worker.
const WAITING: usize = 256;

/// What one worker shows the others.
struct Desk {
    /// What waits for it.
    ring: ArrayQueue<(PacketBuf, Passage)>,
    asleep: AtomicBool,
    tun: Arc<dyn Tun>,
}

/// All workers, to each other.
pub(super) struct Peers {
    desks: Vec<Desk>,
    /// Empty buffers.
    spare: ArrayQueue<PacketBuf>,
    /// One number for each; it goes up while the worker is alive.
    beats: Arc<[AtomicU64]>,
}

impl Peers {
    /// For one worker per queue of the interface.
    pub(super) fn new(queues: &[Arc<dyn Tun>]) -> Self {
        let desks: Vec<_> = queues
            .iter()
            .map(|tun| Desk {
                ring: ArrayQueue::new(WAITING),
                asleep: AtomicBool::new(false),
                tun: Arc::clone(tun),
            })
            .collect();
        // One worker passes nothing on.
        let buffers = if desks.len() > 1 {
            WAITING * desks.len()
        } else {
            0
        };
        let spare = ArrayQueue::new(buffers.max(1));
        for _ in 0..buffers {
            // It has room for as many as there are.
            let _ = spare.push(PacketBuf::new());
        }
        let beats = desks.iter().map(|_| AtomicU64::new(0)).collect();
        Self {
            desks,
            spare,
            beats,
        }
    }

    /// How often each worker has looked after things.
    pub(super) fn beats(&self) -> Arc<[AtomicU64]> {
        Arc::clone(&self.beats)
    }

    /// Whether it could be passed on: then `buf` is another buffer, and the packet is gone.
    pub(super) fn pass_on(&self, buf: &mut PacketBuf, passage: Passage) -> bool {
        let Some(desk) = self.desks.get(passage.to.index()) else {
            return false;
        };
        let Some(mut packet) = self.spare.pop() else {
            return false;
        };
        std::mem::swap(buf, &mut packet);
        if let Err((mut packet, _)) = desk.ring.push((packet, passage)) {
            std::mem::swap(buf, &mut packet);
            self.put_back(packet);
            return false;
        }
        fence(Ordering::SeqCst);
        if desk.asleep.load(Ordering::Relaxed) && desk.asleep.swap(false, Ordering::Relaxed) {
            desk.tun.wake();
        }
        true
    }

    /// An empty buffer, for the next packet that somebody passes on.
    pub(super) fn put_back(&self, buf: PacketBuf) {
        // There are never more than there is room for.
        let _ = self.spare.push(buf);
    }

    pub(super) fn wake_all(&self) {
        for desk in &self.desks {
            desk.tun.wake();
        }
    }
}

/// One worker's own place among its peers.
pub(super) struct Seat {
    pub(super) peers: Arc<Peers>,
    index: usize,
}

impl Seat {
    /// The seats of all of them.
    pub(super) fn all(peers: &Arc<Peers>) -> impl Iterator<Item = Self> {
        let peers = Arc::clone(peers);
        (0..peers.desks.len()).map(move |index| Self {
            peers: Arc::clone(&peers),
            index,
        })
    }

    fn desk(&self) -> Option<&Desk> {
        self.peers.desks.get(self.index)
    }

    /// The next packet that another worker passed on.
    pub(super) fn next(&self) -> Option<(PacketBuf, Passage)> {
        self.desk()?.ring.pop()
    }

    /// Whether the worker may wait for its queue: it will be woken for what is passed on from now
    /// on. If not, something is there already.
    pub(super) fn lie_down(&self) -> bool {
        let Some(desk) = self.desk() else {
            return true;
        };
        desk.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if desk.ring.is_empty() {
            return true;
        }
        self.get_up();
        false
    }

    pub(super) fn get_up(&self) {
        if let Some(desk) = self.desk() {
            desk.asleep.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn beat(&self) {
        if let Some(own) = self.peers.beats.get(self.index) {
            // Nobody else writes it.
            let beats = own.load(Ordering::Relaxed);
            own.store(beats.wrapping_add(1), Ordering::Relaxed);
        }
    }
}

/// How many workers there are to be: as many as the machine has processors for, up to `most`, or
/// what was `wanted`, up to `most` that make sense for the pool.
pub(crate) fn how_many(wanted: Option<NonZeroU8>, most: NonZeroU8) -> NonZeroU8 {
    /// More were never measured.
    const BY_ITSELF: u8 = 8;

    let wanted = wanted.unwrap_or_else(|| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let processors = u8::try_from(processors).unwrap_or(u8::MAX);
        NonZeroU8::new(processors.min(BY_ITSELF)).unwrap_or(NonZeroU8::MIN)
    });
    wanted.min(most)
}
