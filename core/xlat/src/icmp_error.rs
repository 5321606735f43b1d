//! ICMP errors of our own: whether a packet may be answered with one (RFC 1812 §4.3.2.7,
//! RFC 4443 §2.4 e), and the error itself, made in the packet's own buffer.

use core::net::{Ipv4Addr, Ipv6Addr};

use wire::{
    checksum::{Sum, pseudo_v6},
    field::set_u16,
    icmp::{self, Icmp, v4, v6},
    ipv4::{self, Ipv4},
    ipv6::{self, Ipv6},
    offload::Offload,
    packet::{NoRoom, PacketBuf},
    protocol,
};

use crate::v4_to_v6::{is_broadcast_or_multicast, is_illegal_source};

/// The most an ICMPv4 error may be long (RFC 1812 §4.3.2.3).
pub const MAX_V4: usize = 576;

/// The most an ICMPv6 error may be long (RFC 4443 §2.4 c).
pub const MAX_V6: usize = 1280;

/// The hop limit of our errors.
const HOP_LIMIT: u8 = 64;

/// Precedence "internetwork control", as routers send their errors (RFC 1812 §4.3.2.5).
const CONTROL: u8 = 0xc0;

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The type.
    pub kind: u8,
    /// The code.
    pub code: u8,
    /// Bytes 4 to 7: MTU, pointer, or zero.
    pub rest: [u8; 4],
}

impl Message {
    /// A message that says nothing in bytes 4 to 7.
    #[must_use]
    pub const fn plain(kind: u8, code: u8) -> Self {
        Self {
            kind,
            code,
            rest: [0; 4],
        }
    }

    /// ICMPv4 Fragmentation Needed, with the MTU that fits (RFC 1191 §4).
    #[must_use]
    pub const fn fragmentation_needed(mtu: u16) -> Self {
        let [high, low] = mtu.to_be_bytes();
        Self {
            kind: v4::UNREACHABLE,
            code: v4::FRAGMENTATION_NEEDED,
            rest: [0, 0, high, low],
        }
    }

    /// ICMPv6 Packet Too Big, with the MTU that fits (RFC 4443 §3.2).
    #[must_use]
    pub const fn packet_too_big(mtu: u32) -> Self {
        Self {
            kind: v6::PACKET_TOO_BIG,
            code: 0,
            rest: mtu.to_be_bytes(),
        }
    }

    /// Whether path MTU discovery lives by it: ICMPv4 Fragmentation Needed or ICMPv6 Packet Too Big.
    /// Neither type and code means anything else in the other family.
    #[must_use]
    pub const fn tells_size(&self) -> bool {
        matches!(
            (self.kind, self.code),
            (v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED) | (v6::PACKET_TOO_BIG, _)
        )
    }
}

/// Whether an IPv4 packet may be answered with an ICMP error.
#[must_use]
pub fn may_answer_v4(bytes: &[u8]) -> bool {
    let Ok(packet) = Ipv4::new_embedded(bytes) else {
        return false;
    };
    let is_icmp_error = packet.protocol() == protocol::ICMP
        && packet
            .payload()
            .first()
            .is_none_or(|kind| v4::is_error(*kind));
    packet.fragment().is_first()
        && !is_icmp_error
        && !is_illegal_source(packet.src())
        && !is_broadcast_or_multicast(packet.dst())
}

/// Whether an IPv6 packet may be answered with an ICMPv6 error.
#[must_use]
pub fn may_answer_v6(bytes: &[u8]) -> bool {
    let Ok(packet) = Ipv6::new_embedded(bytes) else {
        return false;
    };
    let is_error_or_redirect = match packet.upper() {
        Ok(upper) if upper.protocol == protocol::ICMPV6 => {
            let later_fragment = upper
                .fragment
                .is_some_and(|header| !header.fragment.is_first());
            let kind = packet.from_offset(upper.offset).first();
            later_fragment || kind.is_none_or(|kind| v6::is_error(*kind) || *kind == v6::REDIRECT)
        }
        // Behind a broken chain of extension headers there may be anything.
        Ok(_) => false,
        Err(_) => true,
    };
    let src = packet.src();
    let anonymous = src.is_unspecified() || src.is_multicast() || src.is_loopback();
    !is_error_or_redirect && !anonymous && !packet.dst().is_multicast()
}

/// Replaces the IPv4 packet in `buf` by an ICMPv4 error about it, from `src` to its sender. `id` is
/// the Identification of the error's own packet.
///
/// # Errors
/// [`NoRoom`] if the buffer has no headroom left.
pub fn write_v4(
    buf: &mut PacketBuf,
    message: Message,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    id: u16,
) -> Result<(), NoRoom> {
    buf.truncate(MAX_V4 - ipv4::HEADER_LEN - icmp::HEADER_LEN);
    let total_len = ipv4::HEADER_LEN + icmp::HEADER_LEN + buf.len();
    let outer = ipv4::Fields {
        tos: CONTROL,
        total_len: u16::try_from(total_len).map_err(|_| NoRoom)?,
        id,
        dont_fragment: false,
        fragment: ipv4::Fragment::default(),
        ttl: HOP_LIMIT,
        protocol: protocol::ICMP,
        src,
        dst,
    };
    prepend(buf, &outer.to_bytes(), message)?;
    let covered = &mut buf.bytes_mut()[ipv4::HEADER_LEN..];
    let checksum = Sum::of(covered).checksum();
    set_u16(covered, icmp::CHECKSUM_AT, checksum);
    Ok(())
}

/// Replaces the IPv6 packet in `buf` by an ICMPv6 error about it, from `src` to its sender.
///
/// # Errors
/// [`NoRoom`] if the buffer has no headroom left.
pub fn write_v6(
    buf: &mut PacketBuf,
    message: Message,
    src: Ipv6Addr,
    dst: Ipv6Addr,
) -> Result<(), NoRoom> {
    buf.truncate(MAX_V6 - ipv6::HEADER_LEN - icmp::HEADER_LEN);
    let payload_len = u16::try_from(icmp::HEADER_LEN + buf.len()).map_err(|_| NoRoom)?;
    let outer = ipv6::Fields {
        traffic_class: 0,
        payload_len,
        next_header: protocol::ICMPV6,
        hop_limit: HOP_LIMIT,
        src,
        dst,
    };
    prepend(buf, &outer.to_bytes(), message)?;
    let covered = &mut buf.bytes_mut()[ipv6::HEADER_LEN..];
    let pseudo = pseudo_v6(
        src.octets(),
        dst.octets(),
        protocol::ICMPV6,
        payload_len.into(),
    );
    let checksum = pseudo.bytes(covered).checksum();
    set_u16(covered, icmp::CHECKSUM_AT, checksum);
    Ok(())
}

fn prepend(buf: &mut PacketBuf, outer: &[u8], message: Message) -> Result<(), NoRoom> {
    let header = Icmp {
        kind: message.kind,
        code: message.code,
        checksum: 0,
        rest: message.rest,
    };
    buf.replace_front(0, &header.to_bytes())?;
    buf.replace_front(0, outer)?;
    buf.offload = Offload::default();
    Ok(())
}
