//! Routers between the translators: they count hops, and packets that do not fit do not pass.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::compose::{self, V4, V6};

use crate::inspect::{ICMP, ICMPV6, Seen};

/// Quoted of an IPv6 packet, so that the error is one of 1280 bytes.
const QUOTED_V6: usize = 1280 - 40 - 8;
/// Quoted of an IPv4 packet, so that the error is one of 576 bytes.
const QUOTED_V4: usize = 576 - 20 - 8;

/// What a router does with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Routed {
    /// On they go: several, if it was fragmented.
    On(Vec<Vec<u8>>),
    /// An error to the sender.
    Back(Vec<u8>),
    /// Nothing: nobody may be told.
    Lost,
}

/// An IPv6 router, whose next link takes `mtu` bytes.
pub(crate) fn route_v6(own: Ipv6Addr, mtu: usize, packet: &[u8]) -> Routed {
    let Ok(seen) = Seen::read(packet) else {
        return Routed::Lost;
    };
    let (kind, rest) = if seen.hop_limit <= 1 {
        (3, 0)
    } else if packet.len() > mtu {
        (2, mtu as u32)
    } else {
        let mut packet = packet.to_vec();
        packet[7] -= 1;
        return Routed::On(vec![packet]);
    };
    let IpAddr::V6(sender) = seen.src else {
        return Routed::Lost;
    };
    let is_error = seen.protocol == ICMPV6 && seen.payload.first().is_none_or(|kind| *kind < 128);
    if is_error {
        return Routed::Lost;
    }
    let quote = &packet[..packet.len().min(QUOTED_V6)];
    let error = compose::icmp6(own, sender, kind, 0, rest.to_be_bytes(), quote);
    Routed::Back(V6::new(own, sender, ICMPV6).carrying(&error))
}

/// An IPv4 router, whose next link takes `mtu` bytes.
pub(crate) fn route_v4(own: Ipv4Addr, mtu: usize, packet: &[u8]) -> Routed {
    let Ok(seen) = Seen::read(packet) else {
        return Routed::Lost;
    };
    let (kind, code, rest) = if seen.hop_limit <= 1 {
        (11, 0, 0)
    } else if packet.len() <= mtu || !seen.dont_fragment {
        return Routed::On(in_fragments(&one_hop_on(packet), mtu));
    } else {
        (3, 4, mtu as u32)
    };
    let IpAddr::V4(sender) = seen.src else {
        return Routed::Lost;
    };
    let is_later = seen.fragment.is_some_and(|place| place.offset > 0);
    let is_error = seen.protocol == ICMP && !is_later && !matches!(seen.payload[0], 0 | 8);
    if is_error || is_later {
        return Routed::Lost;
    }
    let quote = &packet[..packet.len().min(QUOTED_V4)];
    let error = compose::icmp4(kind, code, rest.to_be_bytes(), quote);
    Routed::Back(V4::new(own, sender, ICMP).carrying(&error))
}

/// An IPv4 packet with one hop less to live.
pub(crate) fn one_hop_on(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[8] -= 1;
    with_checksum(packet)
}

fn with_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    let header_len = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = compose::checksum(&[&packet[..header_len]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// An IPv4 packet in as many as it takes. Options stay in the first, as those that are not to be
/// copied do.
pub(crate) fn in_fragments(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    if packet.len() <= mtu {
        return vec![packet.to_vec()];
    }
    let header_len = usize::from(packet[0] & 15) * 4;
    let (header, payload) = packet.split_at(header_len);
    let flags = u16::from_be_bytes([header[6], header[7]]);
    let (before, more) = (flags & 0x1fff, flags & 0x2000 != 0);
    let step = (mtu - header_len) / 8 * 8;
    let count = payload.len().div_ceil(step);
    let fragment = |(n, part): (usize, &[u8])| {
        let is_first = n == 0;
        let mut header = header[..if is_first { header_len } else { 20 }].to_vec();
        header[0] = 0x40 | (header.len() / 4) as u8;
        let offset = before + (n * step / 8) as u16;
        let more = u16::from(more || n + 1 < count) << 13;
        header[6..8].copy_from_slice(&(offset | more).to_be_bytes());
        let total = ((header.len() + part.len()) as u16).to_be_bytes();
        header[2..4].copy_from_slice(&total);
        with_checksum([&header[..], part].concat())
    };
    payload.chunks(step).enumerate().map(fragment).collect()
}
