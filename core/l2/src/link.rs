//! [`Link`]: one address on one link, from its first probe to its last answer.

use core::{net::Ipv6Addr, time::Duration};
use std::time::Instant;

use wire::{
    ethernet::Mac,
    icmp::v6,
    ipv6::Ipv6,
    ndp::{
        ALL_NODES, ALL_ROUTERS, Envelope, Invalid, NeighborAdvertisement, NeighborSolicitation,
        solicited_node,
    },
    packet::PacketBuf,
    protocol,
};

use crate::DropReason;

/// How long an answer to a probe is waited for (RFC 4861 §10: RetransTimer).
pub const PROBE_WAIT: Duration = Duration::from_secs(1);

/// How often routers are told of the new address, [`PROBE_WAIT`] apart: multicast gets lost on
/// Wi-Fi (RFC 9131 §6.1.2: MAX_NEIGHBOR_ADVERTISEMENT).
pub const ANNOUNCEMENTS: u8 = 3;

/// Two claims of our address within this time end its use.
pub const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// How the address is claimed.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The address to claim.
    pub address: Ipv6Addr,
    /// The interface's own link-layer address.
    pub mac: Mac,
    /// How many probes find nobody before the address is ours (DupAddrDetectTransmits, 1).
    pub probes: u8,
    /// A random value, to tell our own probes from those of others (RFC 7527).
    pub nonce: [u8; 6],
    /// How long the first probe waits: random, up to a second, when many hosts may start at once
    /// (RFC 4862 §5.4.2).
    pub delay: Duration,
}

/// Who a frame was from and for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameAddresses {
    /// Source.
    pub src: Mac,
    /// Destination.
    pub dst: Mac,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Received {
    /// The buffer holds an IPv6 packet for the address.
    Packet,
    /// The buffer now holds an answer, to be sent to this link-layer address.
    Reply(Transmit),
    /// It was understood and needs no answer.
    Nothing,
    /// It went no further.
    Drop(DropReason),
}

/// A packet in a buffer is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Transmit {
    /// The link-layer address to send it to.
    pub to: Mac,
}

/// What the owner of the link should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nobody else has the address: it may be used.
    Assigned,
    /// This host has it: choose another.
    Duplicate(Mac),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Probes are being sent; the next step is due at `next`.
    Tentative { sent: u8, next: Instant },
    /// In use. `challenged` is when somebody last claimed the address too.
    Assigned {
        announcements: Announcements,
        challenged: Option<Instant>,
    },
    /// Given up.
    Duplicate,
}

/// What routers are still to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Announcements {
    left: u8,
    next: Instant,
}

/// One address on one link.
#[derive(Debug)]
pub struct Link {
    config: Config,
    state: State,
    event: Option<Event>,
}

impl Link {
    /// Starts to claim the address.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            config,
            state: State::Tentative {
                sent: 0,
                next: now + config.delay,
            },
            event: None,
        }
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        self.config.address
    }

    /// Whether packets may be sent from the address, and why not.
    ///
    /// # Errors
    /// [`DropReason::AddressTentative`] or [`DropReason::AddressDuplicate`].
    pub fn usable(&self) -> Result<(), DropReason> {
        match self.state {
            State::Assigned { .. } => Ok(()),
            State::Tentative { .. } => Err(DropReason::AddressTentative),
            State::Duplicate => Err(DropReason::AddressDuplicate),
        }
    }

    /// When [`Self::handle_timeout`] wants to be called next; never before `now`.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let next = match self.state {
            State::Tentative { next, .. } => Some(next),
            State::Assigned { announcements, .. } => {
                (announcements.left > 0).then_some(announcements.next)
            }
            State::Duplicate => None,
        };
        next.map(|next| next.max(now))
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.event.take()
    }

    /// Does what is due. If it returns a [`Transmit`], `buf` holds the packet.
    pub fn handle_timeout(&mut self, buf: &mut PacketBuf, now: Instant) -> Option<Transmit> {
        match &mut self.state {
            State::Tentative { sent, next } if *next <= now => {
                if *sent < self.config.probes {
                    *sent += 1;
                    *next = now + PROBE_WAIT;
                    return self.write_probe(buf);
                }
                self.assign(now);
                self.handle_timeout(buf, now)
            }
            State::Assigned { announcements, .. }
                if announcements.left > 0 && announcements.next <= now =>
            {
                announcements.left -= 1;
                announcements.next = now + PROBE_WAIT;
                self.write_announcement(buf)
            }
            State::Tentative { .. } | State::Assigned { .. } | State::Duplicate => None,
        }
    }

    fn assign(&mut self, now: Instant) {
        self.state = State::Assigned {
            announcements: Announcements {
                left: ANNOUNCEMENTS,
                next: now,
            },
            challenged: None,
        };
        self.event = Some(Event::Assigned);
    }

    /// Takes a frame whose IPv6 packet is in `buf`.
    pub fn receive(
        &mut self,
        frame: FrameAddresses,
        buf: &mut PacketBuf,
        now: Instant,
    ) -> Received {
        let Ok(packet) = Ipv6::new_checked(buf.bytes()) else {
            return Received::Drop(DropReason::MalformedFrame);
        };
        let envelope = Envelope {
            src: packet.src(),
            dst: packet.dst(),
            hop_limit: packet.hop_limit(),
        };
        if packet.next_header() == protocol::ICMPV6 {
            match packet.payload().first() {
                Some(&v6::NEIGHBOR_SOLICITATION) => {
                    return match NeighborSolicitation::new_checked(&envelope, packet.payload()) {
                        Ok(message) => self.solicited(frame, envelope, message, buf),
                        Err(invalid) => dropped(invalid),
                    };
                }
                Some(&v6::NEIGHBOR_ADVERTISEMENT) => {
                    return match NeighborAdvertisement::new_checked(&envelope, packet.payload()) {
                        Ok(message) => self.advertised(frame, message, buf, now),
                        Err(invalid) => dropped(invalid),
                    };
                }
                _ => {}
            }
        }
        if envelope.dst != self.config.address || frame.dst != self.config.mac {
            return Received::Drop(DropReason::NotForUs);
        }
        match self.usable() {
            Ok(()) => Received::Packet,
            Err(reason) => Received::Drop(reason),
        }
    }

    /// Somebody asks for the address, or probes whether it is free (RFC 4861 §7.2.4; RFC 4862
    /// §5.4.3).
    fn solicited(
        &mut self,
        frame: FrameAddresses,
        envelope: Envelope,
        message: NeighborSolicitation,
        buf: &mut PacketBuf,
    ) -> Received {
        let for_us = frame.dst == self.config.mac || frame.dst.is_group();
        if message.target != self.config.address || !for_us {
            return Received::Drop(DropReason::NotForUs);
        }
        // No host has such an address, and the answer would go to everybody.
        if envelope.src.is_multicast() {
            return Received::Drop(DropReason::InvalidNeighborDiscovery);
        }
        let is_probe = envelope.src.is_unspecified();
        if is_probe && self.is_own_probe(frame, message) {
            return Received::Nothing;
        }
        match self.state {
            State::Tentative { .. } => {
                if is_probe {
                    self.give_up(frame.src);
                }
                Received::Nothing
            }
            State::Duplicate => Received::Drop(DropReason::AddressDuplicate),
            State::Assigned { .. } if is_probe => {
                replied(self.write_advertisement(buf, ALL_NODES, Mac::of_multicast(ALL_NODES)))
            }
            State::Assigned { .. } => {
                let told = message.source_link_layer.filter(|mac| !mac.is_group());
                replied(self.write_advertisement(buf, envelope.src, told.unwrap_or(frame.src)))
            }
        }
    }

    /// A bridge or an access point may send our own probe back to us, at once or later. That is no
    /// conflict (RFC 7527 §4.2). Nor is it a reason to probe longer, as §4.1 has it: where it
    /// happens, it happens always, and the address would never be ours.
    fn is_own_probe(&self, frame: FrameAddresses, probe: NeighborSolicitation) -> bool {
        probe.nonce == Some(self.config.nonce) || frame.src == self.config.mac
    }

    /// Somebody says that the address is theirs (RFC 4862 §5.4.4).
    fn advertised(
        &mut self,
        frame: FrameAddresses,
        message: NeighborAdvertisement,
        buf: &mut PacketBuf,
        now: Instant,
    ) -> Received {
        if message.target != self.config.address {
            return Received::Drop(DropReason::NotForUs);
        }
        let claimed_by = message.target_link_layer.unwrap_or(frame.src);
        if claimed_by == self.config.mac {
            return Received::Nothing;
        }
        match &mut self.state {
            State::Tentative { .. } => self.give_up(claimed_by),
            State::Duplicate => {}
            State::Assigned { challenged, .. } => {
                let again = challenged
                    .is_some_and(|at| now.saturating_duration_since(at) < DEFEND_INTERVAL);
                if again {
                    self.give_up(claimed_by);
                } else {
                    // Once may be a mistake: say whose it is and see.
                    *challenged = Some(now);
                    let to = Mac::of_multicast(ALL_NODES);
                    return replied(self.write_advertisement(buf, ALL_NODES, to));
                }
            }
        }
        Received::Nothing
    }

    fn give_up(&mut self, other: Mac) {
        self.state = State::Duplicate;
        self.event = Some(Event::Duplicate(other));
    }

    fn write_probe(&self, buf: &mut PacketBuf) -> Option<Transmit> {
        let group = solicited_node(self.config.address);
        let probe = NeighborSolicitation {
            target: self.config.address,
            source_link_layer: None,
            nonce: Some(self.config.nonce),
        };
        probe.write(buf, Ipv6Addr::UNSPECIFIED, group).ok()?;
        Some(Transmit {
            to: Mac::of_multicast(group),
        })
    }

    /// The answer to a question, or to a claim (RFC 4861 §7.2.4): what anybody else said before is
    /// wrong.
    fn write_advertisement(&self, buf: &mut PacketBuf, dst: Ipv6Addr, to: Mac) -> Option<Transmit> {
        let advertisement = NeighborAdvertisement {
            solicited: !dst.is_multicast(),
            override_cache: true,
            ..self.advertisement()
        };
        advertisement.write(buf, self.config.address, dst).ok()?;
        Some(Transmit { to })
    }

    /// Nobody has asked, so an entry that a router has is not replaced (RFC 9131 §6.1.2).
    fn write_announcement(&self, buf: &mut PacketBuf) -> Option<Transmit> {
        let advertisement = self.advertisement();
        advertisement
            .write(buf, self.config.address, ALL_ROUTERS)
            .ok()?;
        Some(Transmit {
            to: Mac::of_multicast(ALL_ROUTERS),
        })
    }

    fn advertisement(&self) -> NeighborAdvertisement {
        NeighborAdvertisement {
            target: self.config.address,
            router: false,
            solicited: false,
            override_cache: false,
            target_link_layer: Some(self.config.mac),
        }
    }
}

fn dropped(_: Invalid) -> Received {
    Received::Drop(DropReason::InvalidNeighborDiscovery)
}

fn replied(transmit: Option<Transmit>) -> Received {
    match transmit {
        Some(transmit) => Received::Reply(transmit),
        None => Received::Nothing,
    }
}

#[cfg(test)]
mod tests;
