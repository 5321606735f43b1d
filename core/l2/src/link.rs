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
    /// Routers are to be told at once.
    Announcing,
    /// In use. `challenged` is when somebody last claimed the address too.
    Assigned { challenged: Option<Instant> },
    /// Given up.
    Duplicate,
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
            State::Announcing | State::Assigned { .. } => Ok(()),
            State::Tentative { .. } => Err(DropReason::AddressTentative),
            State::Duplicate => Err(DropReason::AddressDuplicate),
        }
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Tentative { next, .. } => Some(next),
            State::Announcing => Some(now),
            State::Assigned { .. } | State::Duplicate => None,
        }
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.event.take()
    }

    /// Does what is due. If it returns a [`Transmit`], `buf` holds the packet.
    pub fn handle_timeout(&mut self, buf: &mut PacketBuf, now: Instant) -> Option<Transmit> {
        match self.state {
            State::Tentative { sent, next } if next <= now => {
                if sent < self.config.probes {
                    self.state = State::Tentative {
                        sent: sent + 1,
                        next: now + PROBE_WAIT,
                    };
                    return self.write_probe(buf);
                }
                self.state = State::Announcing;
                self.event = Some(Event::Assigned);
                self.handle_timeout(buf, now)
            }
            State::Announcing => {
                self.state = State::Assigned { challenged: None };
                self.write_advertisement(buf, ALL_ROUTERS, false, Mac::of_multicast(ALL_ROUTERS))
            }
            State::Tentative { .. } | State::Assigned { .. } | State::Duplicate => None,
        }
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
        let is_probe = envelope.src.is_unspecified();
        match self.state {
            State::Tentative { .. } if !is_probe => Received::Nothing,
            State::Tentative { .. } => {
                // A bridge or an access point may send our own probe back to us.
                let ours = message.nonce == Some(self.config.nonce) || frame.src == self.config.mac;
                if !ours {
                    self.give_up(frame.src);
                }
                Received::Nothing
            }
            State::Duplicate => Received::Drop(DropReason::AddressDuplicate),
            State::Announcing | State::Assigned { .. } if is_probe => {
                let to = Mac::of_multicast(ALL_NODES);
                replied(self.write_advertisement(buf, ALL_NODES, false, to))
            }
            State::Announcing | State::Assigned { .. } => {
                let to = message.source_link_layer.unwrap_or(frame.src);
                replied(self.write_advertisement(buf, envelope.src, true, to))
            }
        }
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
        match self.state {
            State::Tentative { .. } => self.give_up(claimed_by),
            State::Duplicate => {}
            State::Announcing => {
                self.state = State::Assigned {
                    challenged: Some(now),
                }
            }
            State::Assigned { challenged } => {
                let again = challenged
                    .is_some_and(|at| now.saturating_duration_since(at) < DEFEND_INTERVAL);
                if again {
                    self.give_up(claimed_by);
                } else {
                    // Once may be a mistake: say whose it is and see.
                    self.state = State::Assigned {
                        challenged: Some(now),
                    };
                    let to = Mac::of_multicast(ALL_NODES);
                    return replied(self.write_advertisement(buf, ALL_NODES, false, to));
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

    fn write_advertisement(
        &self,
        buf: &mut PacketBuf,
        dst: Ipv6Addr,
        solicited: bool,
        to: Mac,
    ) -> Option<Transmit> {
        let advertisement = NeighborAdvertisement {
            target: self.config.address,
            router: false,
            solicited,
            override_cache: true,
            target_link_layer: Some(self.config.mac),
        };
        advertisement.write(buf, self.config.address, dst).ok()?;
        Some(Transmit { to })
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
