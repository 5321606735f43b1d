//! Packets of hosts with an explicit mapping, and to them (RFC 7757).

use core::net::Ipv6Addr;
use std::time::Instant;

use wire::{ipv4::Ipv4, ipv6::Ipv6, packet::PacketBuf, verdict::Verdict};

use super::Engine;
use crate::{
    dispatch::Passage,
    incoming_tuple::Refused,
    reason::Why,
    stateless::{Claim, Way},
    tuple::Endpoint6,
};

impl Engine {
    /// Whether a client's packet is translated without state. Of what goes to a client by the pool,
    /// parts are put together first: they do not say which client.
    pub(super) fn claim(&self, buf: &PacketBuf) -> Claim {
        match self.stateless.claims_v6(buf.bytes()) {
            Claim::Yes if self.is_part_for_pool(buf) => Claim::WhenWhole,
            claim @ (Claim::Yes | Claim::No | Claim::WhenWhole) => claim,
        }
    }

    fn is_part_for_pool(&self, buf: &PacketBuf) -> bool {
        let Ok(packet) = Ipv6::new_embedded(buf.bytes()) else {
            return false;
        };
        let fragment = packet.upper().ok().and_then(|upper| upper.fragment);
        fragment.is_some_and(|header| header.fragment.is_fragment())
            && self.is_in_pool(packet.dst())
    }

    /// Whether an IPv6 address stands for one of the pool.
    fn is_in_pool(&self, address: Ipv6Addr) -> bool {
        let address = self.stateless.siit.to_v4(address);
        address.is_ok_and(|it| self.tables.pool().contains(it))
    }

    /// A packet of a host with an explicit mapping, or an ICMPv6 error about a packet to it: both
    /// addresses are mapped without state (RFC 7757 §3.3.2).
    pub(super) fn mapped_host_packet(
        &mut self,
        buf: &mut PacketBuf,
        now: Instant,
    ) -> Result<Verdict<Why>, Passage> {
        let destination = Ipv6::new_embedded(buf.bytes()).map(|packet| packet.dst());
        let Ok(destination) = destination else {
            return Ok(Verdict::Drop(xlat::DropReason::MalformedIpv6.into()));
        };
        if let Err(Refused { why, answer }) = self.check_mapped_destination(destination) {
            return Ok(match answer {
                Some(message) => self.v6_to_v4.reply(buf, why, message, now),
                None => Verdict::Drop(why),
            });
        }
        let comes_back = self.stateless.siit.hairpins(destination) || self.is_in_pool(destination);
        let mapping = self.stateless.to_v4();
        if comes_back {
            let verdict = self.v6_to_here.translate(buf, &mapping, now);
            return self.come_back(buf, verdict, now);
        }
        let verdict = self.v6_to_v4.translate(buf, &mapping, now);
        if matches!(verdict, Verdict::Forward(_)) {
            self.stats.from_v6.stateless.add(1);
        }
        Ok(verdict.map_reason(Why::from))
    }

    /// Where a host with a mapping may not send to, as any client. What the table names itself, it
    /// may.
    fn check_mapped_destination(&self, destination: Ipv6Addr) -> Result<(), Refused> {
        if self.stateless.has_v6(destination) {
            return Ok(());
        }
        let endpoint = Endpoint6 {
            address: destination,
            id: 0,
        };
        let (remote, prefix) = self.remote(endpoint)?;
        self.check_destination(remote.address, prefix)
    }

    /// The IPv4 packet in the buffer goes to a host with a mapping: it is translated back at once,
    /// and reaches that host with its sender's IPv4 address under the prefix (RFC 7757 §4.2.2, RFC
    /// 6146 §3.8).
    pub(super) fn turn_around(
        &mut self,
        buf: &mut PacketBuf,
        now: Instant,
    ) -> Result<Verdict<Why>, Passage> {
        let verdict = self.enter_mapped_host(buf, Way::TurnedAround, now);
        let Verdict::Reply(why) = verdict else {
            return Ok(verdict);
        };
        // What is told is told in IPv4, to an address that stands for the sender.
        if !self.is_to_mapped_host(buf) {
            return self.tell_client(buf, why, now);
        }
        Ok(match self.enter_mapped_host(buf, Way::TurnedAround, now) {
            Verdict::Forward(_) => Verdict::Reply(why),
            Verdict::Reply(_) | Verdict::Drop(_) => Verdict::Drop(why),
        })
    }

    /// Whether the IPv4 packet in the buffer goes to a host with an explicit mapping.
    pub(super) fn is_to_mapped_host(&self, buf: &PacketBuf) -> bool {
        let packet = Ipv4::new_embedded(buf.bytes());
        packet.is_ok_and(|it| self.stateless.has_v4(it.dst()))
    }

    /// An IPv4 packet to a host with an explicit mapping (RFC 7757 §3.3.1).
    pub(super) fn enter_mapped_host(
        &mut self,
        buf: &mut PacketBuf,
        way: Way,
        now: Instant,
    ) -> Verdict<Why> {
        let mapping = self.stateless.to_v6(buf.bytes(), way);
        let verdict = self.v4_to_v6.translate(buf, &mapping, now);
        if matches!(verdict, Verdict::Forward(_)) {
            let stats = match way {
                Way::FromOutside => &self.stats.from_v4,
                Way::TurnedAround => &self.stats.from_v6,
            };
            stats.stateless.add(1);
        }
        verdict.map_reason(Why::from)
    }
}
