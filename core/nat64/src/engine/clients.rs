//! Who may use the NAT64, and who was refused something.

use core::net::Ipv6Addr;
use std::time::{Duration, Instant};

use wire::{icmp::v6, ipv6::Ipv6, packet::PacketBuf, protocol};
use xlat::icmp_error::Message;

use super::Engine;
use crate::{
    incoming_tuple::{Refused, refused},
    network6::Network6,
    reason::{DropReason, Why},
};

/// Types of ICMPv6 from this one on are no errors (RFC 4443 §2.1).
const FIRST_INFORMATIONAL: u8 = 128;

/// A subscriber that was refused something: for want of room, or because it is not one of `clients`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedSubscriber {
    /// Its network.
    pub subscriber: Network6,
    /// How many packets were refused.
    pub packets: u64,
    /// When the first one was, to the second.
    pub first: Instant,
    /// When the last one was, to the second.
    pub last: Instant,
    /// Why, the last time.
    pub why: DropReason,
}

impl Engine {
    /// The subscribers that this shard refused something, those refused most first: up to 256 for
    /// want of room, and up to 256 /64 that are not ours.
    #[must_use]
    pub fn refused(&self) -> Vec<RefusedSubscriber> {
        let at = |tick: u32| self.epoch + Duration::from_secs(tick.into());
        let all = self.tables.subscribers.refused();
        let all = all.chain(self.strangers.iter());
        let mut all: Vec<_> = all
            .map(|(subscriber, it)| RefusedSubscriber {
                subscriber,
                packets: it.packets,
                first: at(it.first),
                last: at(it.last),
                why: it.why,
            })
            .collect();
        all.sort_by_key(|it| (core::cmp::Reverse(it.packets), it.subscriber));
        all
    }

    /// Whether a packet's sender may use us. A host with an explicit mapping may by that. ICMPv6
    /// errors come from any router on the way; they make no state, and pass only if they are about a
    /// session of a client's.
    pub(super) fn check_client(&self, packet: &Ipv6<'_>) -> Result<(), Refused> {
        let src = packet.src();
        if may_use(&self.clients, src) || self.stateless.has_v6(src) || is_error(packet) {
            return Ok(());
        }
        let message = Message::plain(v6::UNREACHABLE, v6::PROHIBITED);
        Err(refused(DropReason::ClientRefused, message))
    }

    /// Remembers the network of a packet's sender who may not use us.
    pub(super) fn note_stranger(&mut self, buf: &PacketBuf, why: Why, now: Instant) {
        if why != Why::State(DropReason::ClientRefused) {
            return;
        }
        if let Ok(packet) = Ipv6::new_checked(buf.bytes()) {
            let network = Network6::around(packet.src(), 64);
            self.strangers
                .note(network, DropReason::ClientRefused, self.tick(now));
        }
    }
}

/// Whether `client` is one of `clients`, which are everybody if there are none.
pub(super) fn may_use(clients: &[Network6], client: Ipv6Addr) -> bool {
    clients.is_empty() || clients.iter().any(|it| it.contains(client))
}

fn is_error(packet: &Ipv6<'_>) -> bool {
    let Ok(upper) = packet.upper() else {
        return false;
    };
    let is_part = upper.fragment.is_some_and(|it| it.fragment.is_fragment());
    let kind = packet.from_offset(upper.offset).first();
    upper.protocol == protocol::ICMPV6
        && !is_part
        && kind.is_some_and(|kind| *kind < FIRST_INFORMATIONAL)
}
