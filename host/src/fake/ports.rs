//! Ports in memory: [`FakeTun`] and [`FakeUplink`].
use std::{
    collections::VecDeque,
    io,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use l2::link::FrameAddresses;
use wire::{ethernet::Mac, offload::Offload, packet::PacketBuf};

use crate::{
    tun::{Received, SendError, Tun},
    uplink::{Burst, Uplink},
};

/// A packet and what is left to do for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its metadata.
    pub offload: Offload,
}

impl Packet {
    /// A packet that is complete.
    #[must_use]
    pub fn whole(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            offload: Offload::default(),
        }
    }

    fn of(buf: &PacketBuf) -> Self {
        Self {
            bytes: buf.bytes().to_vec(),
            offload: buf.offload,
        }
    }

    fn load(&self, buf: &mut PacketBuf) -> io::Result<()> {
        let fits = buf.set(&self.bytes);
        buf.offload = self.offload;
        fits.map_err(|_| io::ErrorKind::OutOfMemory.into())
    }
}

/// How often, and why, packets are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The next packet, whatever it is.
    Next(io::ErrorKind),
    /// Every super-segment.
    Segments,
}

/// What the port under test hears and says. `I` comes in, `O` went out.
#[derive(Debug)]
struct Port<I, O> {
    state: Mutex<State<I, O>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<I, O> {
    incoming: VecDeque<Result<I, io::ErrorKind>>,
    sent: VecDeque<O>,
    refusals: Vec<Refusal>,
    woken: bool,
}

impl<I, O> Port<I, O> {
    fn new() -> Self {
        let state = State {
            incoming: VecDeque::new(),
            sent: VecDeque::new(),
            refusals: Vec::new(),
            woken: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// A thread that panicked is what a test may be about.
    fn lock(&self) -> MutexGuard<'_, State<I, O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State<I, O>)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until `look` finds something, or `timeout` has passed.
    fn wait<T>(
        &self,
        timeout: Option<Duration>,
        mut look: impl FnMut(&mut State<I, O>) -> Option<T>,
    ) -> Option<T> {
        let end = timeout.map(|timeout| Instant::now() + timeout);
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&mut state) {
                return Some(found);
            }
            let left = match end {
                Some(end) => end.saturating_duration_since(Instant::now()),
                None => Duration::MAX,
            };
            if left.is_zero() {
                return None;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn recv(
        &self,
        timeout: Option<Duration>,
        load: impl FnOnce(I) -> io::Result<()>,
    ) -> io::Result<Received> {
        let heard = self.wait(timeout, |state| match state.incoming.pop_front() {
            Some(incoming) => Some(Some(incoming)),
            None => std::mem::take(&mut state.woken).then_some(None),
        });
        match heard {
            Some(Some(incoming)) => load(incoming?).map(|()| Received::Packet),
            Some(None) => Ok(Received::Woken),
            None => Ok(Received::TimedOut),
        }
    }

    fn send(&self, buf: &PacketBuf, sent: O) -> Result<(), SendError> {
        let mut refused = Ok(());
        self.change(|state| {
            refused = state.refuse(buf);
            if refused.is_ok() {
                state.sent.push_back(sent);
            }
        });
        refused
    }
}

impl<I, O> State<I, O> {
    fn refuse(&mut self, buf: &PacketBuf) -> Result<(), SendError> {
        let applies = |it: &Refusal| *it != Refusal::Segments || buf.offload.gso.is_some();
        let Some(at) = self.refusals.iter().position(applies) else {
            return Ok(());
        };
        match self.refusals[at] {
            Refusal::Segments => Err(SendError::NoSegmentation),
            Refusal::Next(kind) => {
                self.refusals.remove(at);
                Err(SendError::Refused(kind.into()))
            }
        }
    }
}

/// A virtual interface without a host.
#[derive(Debug)]
pub struct FakeTun(Port<Packet, Packet>);

impl FakeTun {
    /// An interface on which nothing happens.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "as its sibling")]
    pub fn new() -> Self {
        Self(Port::new())
    }

    /// The host sends a packet.
    pub fn from_host(&self, packet: Packet) {
        self.0.change(|state| state.incoming.push_back(Ok(packet)));
    }

    /// The interface fails.
    pub fn fail(&self, kind: io::ErrorKind) {
        self.0.change(|state| state.incoming.push_back(Err(kind)));
    }

    /// The host refuses packets.
    pub fn refuse(&self, refusal: Refusal) {
        self.0.change(|state| state.refusals.push(refusal));
    }

    /// The next packet that the host got, if there is one within `timeout`.
    #[must_use]
    pub fn to_host(&self, timeout: Duration) -> Option<Packet> {
        self.0.wait(Some(timeout), |state| state.sent.pop_front())
    }
}

impl Tun for FakeTun {
    fn name(&self) -> &str {
        "fake0"
    }

    fn recv(&self, buf: &mut PacketBuf, timeout: Option<Duration>) -> io::Result<Received> {
        self.0.recv(timeout, |packet| packet.load(buf))
    }

    fn send(&self, buf: &mut PacketBuf) -> Result<(), SendError> {
        self.0.send(buf, Packet::of(buf))
    }

    fn wake(&self) {
        self.0.change(|state| state.woken = true);
    }
}

/// A link without neighbours.
#[derive(Debug)]
pub struct FakeUplink(Port<(FrameAddresses, Packet), (Mac, Packet)>, AtomicU64);

impl FakeUplink {
    /// A link on which nothing happens.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "as its sibling")]
    pub fn new() -> Self {
        Self(Port::new(), AtomicU64::new(0))
    }

    /// Frames came that nobody received in time.
    pub fn overflow(&self, count: u64) {
        self.1.fetch_add(count, Ordering::Relaxed);
    }

    /// A neighbour sends a frame.
    pub fn from_network(&self, frame: FrameAddresses, packet: Packet) {
        self.0
            .change(|state| state.incoming.push_back(Ok((frame, packet))));
    }

    /// The link fails.
    pub fn fail(&self, kind: io::ErrorKind) {
        self.0.change(|state| state.incoming.push_back(Err(kind)));
    }

    /// The link refuses packets.
    pub fn refuse(&self, refusal: Refusal) {
        self.0.change(|state| state.refusals.push(refusal));
    }

    /// The next packet that left, and for whom, if there is one within `timeout`.
    #[must_use]
    pub fn to_network(&self, timeout: Duration) -> Option<(Mac, Packet)> {
        self.0.wait(Some(timeout), |state| state.sent.pop_front())
    }
}

impl Uplink for FakeUplink {
    fn recv(&self, burst: &mut Burst, timeout: Option<Duration>) -> io::Result<Received> {
        self.0.recv(timeout, |(frame, packet)| {
            let Some(slot) = burst.expected().first_mut() else {
                return Ok(());
            };
            slot.frame = frame;
            slot.readable = Ok(());
            packet.load(&mut slot.buf)?;
            burst.fill(1);
            Ok(())
        })
    }

    fn send(&self, buf: &mut PacketBuf, to: Mac) -> Result<(), SendError> {
        self.0.send(buf, (to, Packet::of(buf)))
    }

    fn overflows(&self) -> u64 {
        self.1.swap(0, Ordering::Relaxed)
    }

    fn wake(&self) {
        self.0.change(|state| state.woken = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{num::NonZeroU16, sync::Arc, thread};
    use wire::{
        offload::{Gso, GsoKind},
        pieces::Pieces,
    };

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn a_wait_ends_for_each_of_its_reasons() {
        let tun = Arc::new(FakeTun::new());
        let mut buf = PacketBuf::new();
        let zero = Some(Duration::ZERO);
        assert!(matches!(tun.recv(&mut buf, zero), Ok(Received::TimedOut)));
        let other = Arc::clone(&tun);
        let waker = thread::spawn(move || other.wake());
        assert!(matches!(tun.recv(&mut buf, None), Ok(Received::Woken)));
        waker.join().unwrap();
        tun.from_host(Packet::whole(b"packet"));
        assert!(matches!(tun.recv(&mut buf, None), Ok(Received::Packet)));
        assert_eq!(buf.bytes(), b"packet");
        tun.fail(io::ErrorKind::BrokenPipe);
        assert!(tun.recv(&mut buf, None).is_err());
    }

    fn super_segment() -> PacketBuf {
        use wire::compose::{Pair, V6, tcp};
        let (src, dst) = (
            "2001:db8::1".parse().unwrap(),
            "2001:db8::2".parse().unwrap(),
        );
        let segment = tcp(Pair::V6(src, dst), (1, 2), 0x10, &[], &[7; 2500]);
        let mut buf = PacketBuf::new();
        buf.set(&V6::new(src, dst, 6).carrying(&segment)).unwrap();
        buf.offload.gso = Some(Gso {
            kind: GsoKind::TcpV6 { ecn: false },
            size: NonZeroU16::new(1000).unwrap(),
            header_len: 60,
        });
        buf
    }

    /// Kernels 6.1 to 6.10 refuse some super-segments with EINVAL.
    #[test]
    fn refused_super_segments_are_divided_from_then_on() {
        let tun = FakeTun::new();
        tun.refuse(Refusal::Segments);
        let mut divide = false;
        for _ in 0..2 {
            let mut buf = super_segment();
            let lost = |error: &io::Error| panic!("lost: {error}");
            let send = |buf: &mut PacketBuf| tun.send(buf);
            crate::tun::send_pieces(Pieces::whole(), &mut buf, &mut divide, send, lost);
            assert!(divide);
            let sizes = [0; 3].map(|_| tun.to_host(SOON).unwrap().bytes.len());
            assert_eq!(sizes, [1060, 1060, 560]);
        }
    }

    #[test]
    fn what_is_lost_is_told_and_the_rest_goes_on() {
        let tun = FakeTun::new();
        tun.refuse(Refusal::Next(io::ErrorKind::WouldBlock));
        let mut buf = super_segment();
        let (mut divide, mut lost) = (true, 0);
        let send = |buf: &mut PacketBuf| tun.send(buf);
        crate::tun::send_pieces(Pieces::whole(), &mut buf, &mut divide, send, |_| lost += 1);
        assert_eq!(lost, 1);
        assert_eq!(tun.to_host(SOON).unwrap().bytes.len(), 1060);
        assert_eq!(tun.to_host(SOON).unwrap().bytes.len(), 560);
        assert!(tun.to_host(Duration::ZERO).is_none());
    }
}
