//! The tap: packets that somebody looks at, with what became of them.
//!
//! While nobody looks, a worker reads one flag per batch. Otherwise it copies the beginnings of the
//! packets that are meant into a queue of bounded length and size, and never waits for whoever
//! reads it: what does not fit is lost and counted.

mod ends;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use control::plat::{CaptureFilter, Ends, Side};
use host::tun::SendError;
use nat64::{Why, dispatch::Passage};
use pref64::prefix::Pref64;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use wire::{packet::PacketBuf, verdict::Reason};

/// Packets that wait for whoever captures.
const WAITING: usize = 4096;

/// Their bytes together.
const WAITING_BYTES: usize = 8 << 20;

/// Where a capture is put for all workers to see.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    on: AtomicBool,
    capture: Mutex<Option<Arc<Capture>>>,
}

impl Tap {
    /// Begins, unless somebody captures already.
    pub(crate) fn begin(&self, capture: &Arc<Capture>) -> bool {
        let mut place = self.capture.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_some() {
            return false;
        }
        *place = Some(Arc::clone(capture));
        self.on.store(true, Ordering::Release);
        true
    }

    /// Ends.
    pub(crate) fn end(&self) {
        self.on.store(false, Ordering::Release);
        *self.capture.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn current(&self) -> Option<Arc<Capture>> {
        if !self.on.load(Ordering::Relaxed) {
            return None;
        }
        let place = self.capture.lock().unwrap_or_else(PoisonError::into_inner);
        place.clone()
    }
}

/// What is captured, and where to.
#[derive(Debug)]
pub(crate) struct Capture {
    filter: CaptureFilter,
    snaplen: usize,
    queue: Sender<Captured>,
    bytes: AtomicUsize,
    lost: AtomicU64,
}

/// A packet that arrived or left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Captured {
    /// When, in nanoseconds since 1970.
    pub(crate) at: u64,
    pub(crate) side: Side,
    pub(crate) outbound: bool,
    pub(crate) len: usize,
    /// As many as were wanted.
    pub(crate) bytes: Vec<u8>,
    pub(crate) comment: Option<String>,
}

impl Capture {
    /// A capture, and where its packets come out.
    pub(crate) fn new(filter: CaptureFilter, snaplen: usize) -> (Arc<Self>, Receiver<Captured>) {
        let (queue, packets) = channel(WAITING);
        let capture = Self {
            filter,
            snaplen,
            queue,
            bytes: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
        };
        (Arc::new(capture), packets)
    }

    /// How many packets found no place so far.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Says that a packet was taken out.
    pub(crate) fn taken(&self, packet: &Captured) {
        self.bytes.fetch_sub(packet.bytes.len(), Ordering::Relaxed);
    }

    fn put(&self, packet: Captured) {
        let len = packet.bytes.len();
        let before = self.bytes.fetch_add(len, Ordering::Relaxed);
        if before + len > WAITING_BYTES || self.queue.try_send(packet).is_err() {
            self.bytes.fetch_sub(len, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn packet(&self, buf: &PacketBuf, outbound: bool) -> Captured {
        let bytes = buf.bytes();
        let is_ipv6 = bytes.first().is_some_and(|first| first >> 4 == 6);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Captured {
            at: u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX),
            side: if is_ipv6 { Side::V6 } else { Side::V4 },
            outbound,
            len: bytes.len(),
            bytes: bytes[..bytes.len().min(self.snaplen)].to_vec(),
            comment: None,
        }
    }
}

fn named(why: Why) -> (&'static str, &'static str) {
    match why {
        Why::State(why) => (why.code(), why.explain()),
        Why::Translation(why) => (why.code(), why.explain()),
    }
}

/// One worker's look at the packets that it moves: one after the other, each from its arrival until
/// it is said what became of it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    capture: Option<Arc<Capture>>,
    /// What servers' addresses are read out of.
    prefixes: Vec<Pref64>,
    /// The packet that arrived, if it may be meant, and those that it left as.
    story: Vec<Captured>,
    ends: Vec<Ends>,
    /// It is not meant, whatever becomes of it.
    excluded: bool,
    /// Somebody has told of its arrival already.
    told: bool,
    dropped: bool,
}

impl Watch {
    /// Looks whether somebody captures, with the prefixes as they are now. Once per batch.
    pub(super) fn look(&mut self, tap: &Tap, prefixes: &[Pref64]) {
        self.capture = tap.current();
        if self.capture.is_some() {
            self.prefixes.clear();
            self.prefixes.extend_from_slice(prefixes);
        }
    }

    /// A packet is about to be handled.
    pub(super) fn arrives(&mut self, buf: &PacketBuf) {
        let Some(capture) = &self.capture else {
            return;
        };
        self.ends.clear();
        ends::read(buf.bytes(), &self.prefixes, &mut self.ends);
        self.excluded = capture.filter.excludes(&self.ends);
        if !self.excluded {
            self.story.push(capture.packet(buf, false));
        }
    }

    /// A packet of which another worker has told that it arrived.
    pub(super) fn goes_on(&mut self, buf: &PacketBuf) {
        self.arrives(buf);
        self.told = true;
    }

    /// The packet, or a part of it, leaves.
    pub(super) fn leaves(&mut self, buf: &PacketBuf) {
        if let Some(capture) = self.capture.as_ref().filter(|_| !self.excluded) {
            ends::read(buf.bytes(), &self.prefixes, &mut self.ends);
            self.story.push(capture.packet(buf, true));
        }
    }

    /// What the system said to what left last.
    pub(super) fn sent(&mut self, result: &Result<(), SendError>) {
        if self.capture.is_none() {
            return;
        }
        match result {
            Ok(()) => {}
            // It leaves in parts instead.
            Err(SendError::NoSegmentation) => {
                self.story.pop();
            }
            Err(SendError::Refused(error)) => {
                self.dropped = true;
                self.say(format_args!("lost: the host did not take it: {error}"));
            }
        }
    }

    /// It does not pass.
    pub(super) fn drops(&mut self, why: Why) {
        if self.capture.is_some() {
            self.dropped = true;
            let (code, sentence) = named(why);
            self.say(format_args!("dropped: {code}: {sentence}"));
        }
    }

    /// It does not pass, and its sender is told.
    pub(super) fn replies(&mut self, why: Why) {
        if self.capture.is_some() {
            self.dropped = true;
            let (code, sentence) = named(why);
            self.say(format_args!(
                "dropped, and its sender was told: {code}: {sentence}"
            ));
        }
    }

    /// Another worker goes on with it. As it arrived, it is that one's to tell of.
    pub(super) fn goes_elsewhere(&mut self, passage: Passage) {
        if passage.is_untouched() {
            self.forget();
        } else if self.capture.is_some() {
            self.say(format_args!("passed on, to be sent by another worker"));
        }
    }

    /// That was all.
    pub(super) fn over(&mut self) {
        let Some(capture) = &self.capture else {
            return;
        };
        if self.told && !self.dropped && !self.story.is_empty() {
            self.story.remove(0);
        }
        if let [only] = &mut self.story[..]
            && !only.outbound
            && only.comment.is_none()
        {
            only.comment = Some("kept: it waits for the other fragments".to_owned());
        }
        if capture.filter.wants(&self.ends, self.dropped) {
            self.story.drain(..).for_each(|it| capture.put(it));
        }
        self.forget();
    }

    fn forget(&mut self) {
        self.story.clear();
        self.ends.clear();
        (self.excluded, self.told, self.dropped) = (false, false, false);
    }

    fn say(&mut self, comment: std::fmt::Arguments<'_>) {
        if let Some(packet) = self.story.last_mut() {
            packet.comment = Some(comment.to_string());
        }
    }
}
