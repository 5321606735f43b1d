//! From the host to the network, by a link.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use clat_core::Outbound;
use host::{
    tun::{Received, SendError, Tun, send_pieces},
    uplink::{MAX_BURST, SMALL, Uplink},
};
use l2::{DropReason, next_hop::Nudge};
use wire::{ethernet::Mac, packet::PacketBuf, pieces::Pieces, verdict::Verdict};

use super::shared::{Event, Followed, OUT, Shared, send_to_host};

/// From the host to the network.
pub(super) struct OutboundThread {
    engine: Outbound,
    tun: Arc<dyn Tun>,
    uplink: Arc<dyn Uplink>,
    shared: Arc<Shared>,
    nudge: Nudge,
    segment: bool,
    waiting: Waiting,
}

/// Small packets that are translated, and leave with one system call as soon as the host has no
/// more. Behind them lies the buffer that the next packet is received into.
pub(super) struct Waiting {
    bufs: Box<[PacketBuf]>,
    count: usize,
    to: Mac,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self {
            bufs: (0..MAX_BURST).map(|_| PacketBuf::new()).collect(),
            count: 0,
            to: Mac([0; 6]),
        }
    }

    /// The buffer behind those that wait.
    pub(super) fn free(&mut self) -> &mut PacketBuf {
        &mut self.bufs[self.count]
    }

    /// Lets the packet in the free buffer wait too, if it is small and goes where the others go.
    pub(super) fn takes(&mut self, to: Mac) -> bool {
        let packet = &self.bufs[self.count];
        let is_small = packet.len() <= SMALL && packet.offload.gso.is_none();
        let takes = is_small && (self.count == 0 || self.to == to);
        if takes {
            self.count += 1;
            self.to = to;
        }
        takes
    }

    pub(super) fn is_full(&self) -> bool {
        self.count == self.bufs.len()
    }

    /// Those that wait, which then wait no more, and the buffer behind them.
    pub(super) fn take(&mut self) -> (&mut [PacketBuf], Option<&mut PacketBuf>) {
        let (waiting, behind) = self.bufs.split_at_mut(self.count);
        self.count = 0;
        (waiting, behind.first_mut())
    }
}

impl OutboundThread {
    pub(super) fn new(
        engine: Outbound,
        (tun, uplink): (Arc<dyn Tun>, Arc<dyn Uplink>),
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            engine,
            tun,
            uplink,
            shared,
            nudge: Nudge::default(),
            segment: false,
            waiting: Waiting::new(),
        }
    }

    pub(super) fn run(mut self) -> Outbound {
        let shared = Arc::clone(&self.shared);
        let mut settings = Followed::new(&shared);
        self.engine.configure(settings.current());
        while !shared.stopped() {
            // While packets wait, only what is there already may join them.
            let patience = (self.waiting.count != 0).then_some(Duration::ZERO);
            match self.tun.recv(self.waiting.free(), patience) {
                Ok(Received::Packet) => {
                    if let Some(changed) = settings.changed() {
                        self.engine.configure(changed);
                    }
                    self.handle();
                }
                Ok(Received::Unreadable(error)) => {
                    tracing::debug!("a packet of the host cannot be read: {error:?}");
                    shared.stats.unreadable[OUT].add(1);
                }
                Ok(Received::Woken | Received::TimedOut) => self.flush(),
                Err(error) => {
                    shared.tell(Event::Failed(format!("the virtual interface: {error}")));
                    break;
                }
            }
        }
        self.flush();
        self.engine
    }

    /// Translates the packet in the free buffer.
    fn handle(&mut self) {
        let now = self.shared.clock.now();
        match self.engine.handle_host(self.waiting.free(), now) {
            Verdict::Forward(pieces) => match self.next_hop(now) {
                Ok(to) if pieces.is_whole() && self.waiting.takes(to) => {
                    if self.waiting.is_full() {
                        self.flush();
                    }
                }
                Ok(to) => self.send(pieces, to),
                Err(reason) => self.shared.stats.dropped[OUT].count(reason),
            },
            Verdict::Reply(_) => {
                let (pieces, buf) = (Pieces::whole(), self.waiting.free());
                send_to_host(&*self.tun, &self.shared, pieces, buf, &mut self.segment);
            }
            Verdict::Drop(_) => {}
        }
    }

    /// Where to send a packet.
    fn next_hop(&mut self, now: Instant) -> Result<Mac, DropReason> {
        self.shared.address.usable()?;
        let next_hop = self.shared.next_hop.load();
        let next_hop = next_hop.as_ref().ok_or(DropReason::NoNextHop)?;
        if self.nudge.due(next_hop.mac.is_some(), now) {
            self.shared.tell(Event::Nudge(next_hop.router));
        }
        next_hop.mac.ok_or(DropReason::NextHopUnresolved)
    }

    /// Sends what waits.
    fn flush(&mut self) {
        let to = self.waiting.to;
        let (waiting, _) = self.waiting.take();
        send_waiting(&*self.uplink, &self.shared, waiting, to);
    }

    /// Sends what waits, then the packet behind it.
    fn send(&mut self, pieces: Pieces, to: Mac) {
        let waiting_for = self.waiting.to;
        let (uplink, shared) = (&*self.uplink, &self.shared);
        let (waiting, Some(buf)) = self.waiting.take() else {
            return;
        };
        send_waiting(uplink, shared, waiting, waiting_for);
        let lost = |error: &io::Error| shared.lost_at_link(error);
        let send = |buf: &mut PacketBuf| uplink.send(buf, to);
        send_pieces(pieces, buf, &mut self.segment, send, lost);
    }
}

fn send_waiting(uplink: &dyn Uplink, shared: &Shared, waiting: &mut [PacketBuf], to: Mac) {
    match waiting {
        [] => {}
        // One packet alone goes the shorter way.
        [one] => {
            if let Err(SendError::Refused(error)) = uplink.send(one, to) {
                shared.lost_at_link(&error);
            }
        }
        several => uplink.send_burst(several, to, &mut |error| shared.lost_at_link(error)),
    }
}
