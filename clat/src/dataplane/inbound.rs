//! From the network to the host, by a link, and everything that keeps the address.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clat_core::Inbound;
use host::{
    tun::{Received, Tun},
    uplink::{Burst, Slot, Uplink},
};
use l2::{
    DropReason, Link,
    link::{self, FrameAddresses},
};
use wire::{ethernet::Mac, offload::OffloadError, packet::PacketBuf, verdict::Verdict};

use super::shared::{Event, Followed, IN, Shared, send_to_host};

/// How long a claim waits before it starts over, when a probe could not be sent.
const PROBE_AGAIN: Duration = Duration::from_secs(1);

/// From the network to the host, and everything that keeps the address.
pub(super) struct InboundThread {
    engine: Inbound,
    tun: Arc<dyn Tun>,
    uplink: Arc<dyn Uplink>,
    shared: Arc<Shared>,
    link: Link,
    claim: link::Config,
    segment: bool,
}

impl InboundThread {
    pub(super) fn new(
        engine: Inbound,
        (tun, uplink): (Arc<dyn Tun>, Arc<dyn Uplink>),
        shared: Arc<Shared>,
        claim: link::Config,
    ) -> Self {
        Self {
            engine,
            tun,
            uplink,
            link: Link::new(claim, shared.clock.now()),
            shared,
            claim,
            segment: false,
        }
    }

    pub(super) fn run(mut self) -> Inbound {
        let mut burst = Burst::new();
        let shared = Arc::clone(&self.shared);
        let mut settings = Followed::new(&shared);
        self.engine.configure(settings.current());
        while !shared.stopped() {
            self.keep_address(burst.spare());
            let now = shared.clock.now();
            let timeout = self.link.poll_timeout(now).map(|at| shared.clock.until(at));
            match self.uplink.recv(&mut burst, timeout) {
                Ok(Received::Packet) => {
                    if let Some(changed) = settings.changed() {
                        self.engine.configure(changed);
                    }
                    for slot in burst.received() {
                        self.take(slot);
                    }
                }
                Ok(Received::Unreadable(error)) => self.unreadable(error),
                Ok(Received::Woken | Received::TimedOut) => {}
                Err(error) => {
                    shared.tell(Event::Failed(format!("the link: {error}")));
                    break;
                }
            }
        }
        self.engine
    }

    /// Sends what duplicate address detection has to send, and passes on what it found.
    fn keep_address(&mut self, buf: &mut PacketBuf) {
        let now = self.shared.clock.now();
        if let Some(transmit) = self.link.handle_timeout(buf, now)
            && let Err(error) = self.uplink.send(buf, transmit.to)
        {
            tracing::debug!("a neighbour discovery message was not sent: {error:?}");
            self.shared.stats.dropped[IN].count(DropReason::LinkFailed);
            self.claim_again(now);
        }
        if let Some(event) = self.link.poll_event() {
            self.shared.address.set(self.link.usable());
            self.shared.tell(match event {
                l2::Event::Assigned => Event::Assigned,
                l2::Event::Duplicate(by) => Event::Duplicate(by),
            });
        }
    }

    /// A probe that did not leave proves nothing. An announcement is only a courtesy.
    fn claim_again(&mut self, now: Instant) {
        if self.link.usable() == Err(DropReason::AddressTentative) {
            let claim = link::Config {
                delay: PROBE_AGAIN,
                ..self.claim
            };
            self.link = Link::new(claim, now);
        }
    }

    fn take(&mut self, slot: &mut Slot) {
        match slot.readable {
            Ok(()) => self.handle(slot.frame, &mut slot.buf),
            Err(error) => self.unreadable(error),
        }
    }

    fn unreadable(&self, error: OffloadError) {
        tracing::debug!("a frame cannot be read: {error:?}");
        self.shared.stats.unreadable[IN].add(1);
    }

    fn handle(&mut self, frame: FrameAddresses, buf: &mut PacketBuf) {
        let now = self.shared.clock.now();
        match self.link.receive(frame, buf, now) {
            l2::Received::Packet => self.translate(frame, buf, now),
            l2::Received::Reply(transmit) => {
                self.shared.stats.neighbour_answers.add(1);
                self.send_back(buf, transmit.to);
            }
            l2::Received::Nothing => {}
            l2::Received::Drop(reason) => self.shared.stats.dropped[IN].count(reason),
        }
    }

    fn translate(&mut self, frame: FrameAddresses, buf: &mut PacketBuf, now: Instant) {
        match self.engine.handle_net(buf, now) {
            Verdict::Forward(pieces) => {
                send_to_host(&*self.tun, &self.shared, pieces, buf, &mut self.segment);
            }
            // The router that the packet came through knows the way back.
            Verdict::Reply(_) => self.send_back(buf, frame.src),
            Verdict::Drop(_) => {}
        }
    }

    fn send_back(&self, buf: &mut PacketBuf, to: Mac) {
        if self.uplink.send(buf, to).is_err() {
            self.shared.stats.dropped[IN].count(DropReason::LinkFailed);
        }
    }
}
