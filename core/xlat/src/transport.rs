//! What translation does to TCP, UDP and their like: the checksum follows the addresses
//! (RFC 7915 §4.5, §5.5), the ports follow the mapping, the virtio-net metadata follows both.

use core::net::{Ipv4Addr, Ipv6Addr};

use wire::{
    checksum::{Delta, Sum, never_zero},
    field::{get_u16, set_u16},
    offload::{ChecksumState, GsoKind, Offload},
    packet::PacketBuf,
    pieces::{begin_checksum, complete_checksum},
    protocol,
    transport::{DST_PORT_AT, SRC_PORT_AT, Tcp, tcp, udp},
};

use crate::{mapping::Rewrite, reason::DropReason};

/// Where the checksum of a protocol lies whose checksum covers the addresses.
pub(crate) const fn checksum_at(number: u8) -> Option<usize> {
    match number {
        protocol::TCP => Some(tcp::CHECKSUM_AT),
        protocol::UDP | protocol::UDP_LITE | protocol::DCCP => Some(udp::CHECKSUM_AT),
        _ => None,
    }
}

/// The bytes of a transport header that translation reads: a first fragment must have them.
pub(crate) const fn header_needed(number: u8) -> usize {
    match number {
        protocol::TCP => tcp::HEADER_LEN,
        protocol::UDP | protocol::UDP_LITE | protocol::DCCP => udp::HEADER_LEN,
        _ => 0,
    }
}

/// A protocol number that is forwarded as it is would mean something else in the other family:
/// an extension header, or the ICMP of the family it came from.
pub(crate) const fn changes_meaning(number: u8) -> bool {
    const IGMP: u8 = 2;
    const NO_NEXT_HEADER: u8 = 59;
    matches!(
        number,
        protocol::ICMP
            | IGMP
            | protocol::ICMPV6
            | protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | NO_NEXT_HEADER
            | protocol::DESTINATION_OPTIONS
            | protocol::MOBILITY
            | protocol::HIP
            | protocol::SHIM6
    )
}

/// A pair of addresses of each family, as words of a pseudo-header.
pub(crate) fn v4_sum(src: Ipv4Addr, dst: Ipv4Addr) -> Sum {
    Sum::of(&src.octets()).bytes(&dst.octets())
}

/// See [`v4_sum`].
pub(crate) fn v6_sum(src: Ipv6Addr, dst: Ipv6Addr) -> Sum {
    Sum::of(&src.octets()).bytes(&dst.octets())
}

/// Whether a checksum field holds a whole checksum or a pseudo-header's sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Complete,
    Partial,
}

/// Gives the transport header at the front of `segment` its new ports and lets its checksum follow
/// the change of addresses. Touches only what is there: a quoted packet may end anywhere.
pub(crate) fn rewrite(
    segment: &mut [u8],
    number: u8,
    addresses: Delta,
    rewrite: Rewrite,
    field: Field,
) {
    let Some(at) = checksum_at(number) else {
        return;
    };
    let delta = match rewrite {
        Rewrite::Ports { src, dst } => {
            let delta = replace_word(segment, SRC_PORT_AT, src, addresses);
            replace_word(segment, DST_PORT_AT, dst, delta)
        }
        Rewrite::None | Rewrite::Identifier(_) => addresses,
    };
    let Some(old) = get_u16(segment, at) else {
        return;
    };
    let new = match field {
        // Ports are not part of the pseudo-header.
        Field::Partial => addresses.apply_partial(old),
        // To these zero is a checksum like any other.
        Field::Complete if matches!(number, protocol::TCP | protocol::DCCP) => delta.apply(old),
        // No checksum stays no checksum: only a quoted packet comes here with one.
        Field::Complete if old == 0 => 0,
        Field::Complete => never_zero(delta.apply(old)),
    };
    set_u16(segment, at, new);
}

/// Writes a word, if there is one to write over, and says how the checksum changes.
fn replace_word(bytes: &mut [u8], at: usize, new: u16, delta: Delta) -> Delta {
    match get_u16(bytes, at) {
        Some(old) => {
            set_u16(bytes, at, new);
            delta.word(old, new)
        }
        None => delta,
    }
}

/// Rewrites the identifier of an echo at the front of `message`.
pub(crate) fn rewrite_identifier(message: &mut [u8], rewrite: Rewrite, delta: Delta) -> Delta {
    match rewrite {
        Rewrite::Identifier(new) => replace_word(message, wire::icmp::IDENTIFIER_AT, new, delta),
        Rewrite::None | Rewrite::Ports { .. } => delta,
    }
}

/// The shape of a packet, as far as its size decides about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// The length of one packet on the wire: of a segment, if this is a super-segment.
    pub(crate) segment_len: usize,
    /// Everything before the payload of TCP or UDP, if this is a super-segment.
    headers_len: usize,
    /// How many packets on the wire this stands for.
    pub(crate) segments: usize,
}

/// The length of one packet on the wire of a packet of `len` bytes whose transport header starts at
/// `at`; as [`settle`] measures it, before that.
pub(crate) fn segment_len(buf: &PacketBuf, len: usize, at: usize, number: u8) -> usize {
    let Some(gso) = buf.offload.gso else {
        return len;
    };
    let transport = buf.bytes().get(at..).unwrap_or_default();
    let header_len = if number == protocol::TCP {
        Tcp::new_checked(transport).map_or(tcp::HEADER_LEN, |it| it.header_len())
    } else {
        udp::HEADER_LEN
    };
    len.min(at + header_len + usize::from(gso.size.get()))
}

/// Checks the offload metadata of a packet of IP `version` against the packet, measures it, and
/// brings its checksum into the state that its new self leaves in: finished if nobody else will
/// finish it, partial on a super-segment. The transport header starts at `at`.
pub(crate) fn settle(
    buf: &mut PacketBuf,
    version: u8,
    at: usize,
    number: u8,
    is_fragment: bool,
) -> Result<Shape, DropReason> {
    let is_ours = !is_fragment && is_partial_at(buf, at, number);
    if starts_before(&buf.offload, at) {
        // Finishing it would change the headers that have been judged.
        return Err(DropReason::BadOffload);
    }
    let Some(gso) = buf.offload.gso else {
        if !is_ours {
            complete_checksum(buf).map_err(|_| DropReason::BadOffload)?;
        }
        return Ok(Shape {
            segment_len: buf.len(),
            headers_len: 0,
            segments: 1,
        });
    };
    let right_kind = match gso.kind {
        GsoKind::TcpV4 { .. } => version == 4 && number == protocol::TCP,
        GsoKind::TcpV6 { .. } => version == 6 && number == protocol::TCP,
        GsoKind::Udp => number == protocol::UDP,
    };
    let is_partial = matches!(buf.offload.checksum, ChecksumState::Partial { .. });
    if !right_kind || is_fragment || is_partial != is_ours {
        return Err(DropReason::BadOffload);
    }
    let transport = buf.bytes().get(at..).unwrap_or_default();
    let transport_len = if number == protocol::TCP {
        Tcp::new_checked(transport)
            .ok_or(DropReason::TruncatedTransport)?
            .header_len()
    } else {
        udp::HEADER_LEN
    };
    if !is_partial && !lacks_checksum(transport, number) {
        begin_checksum(buf).map_err(|_| DropReason::TruncatedTransport)?;
    }
    let headers_len = at + transport_len;
    let payload = buf.len().saturating_sub(headers_len);
    let size = usize::from(gso.size.get());
    Ok(Shape {
        segment_len: buf.len().min(headers_len + size),
        headers_len,
        segments: payload.div_ceil(size).max(1),
    })
}

/// Whether the checksum that is still to be finished is that of the transport header at `at`.
fn is_partial_at(buf: &PacketBuf, at: usize, number: u8) -> bool {
    let ChecksumState::Partial { start, field } = buf.offload.checksum else {
        return false;
    };
    usize::from(start) == at && Some(usize::from(field)) == checksum_at(number)
}

/// Whether the checksum that is still to be finished covers, or even lies in, what comes before
/// the transport header at `at`.
fn starts_before(offload: &Offload, at: usize) -> bool {
    matches!(offload.checksum, ChecksumState::Partial { start, .. } if usize::from(start) < at)
}

/// Whether this is UDP without a checksum, about which others decide.
fn lacks_checksum(transport: &[u8], number: u8) -> bool {
    number == protocol::UDP && get_u16(transport, udp::CHECKSUM_AT) == Some(0)
}

/// The metadata of a translated packet, whose transport header moved from `old_at` to `new_at`.
pub(crate) fn moved(offload: Offload, shape: &Shape, old_at: usize, new_at: usize) -> Offload {
    let short = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    let checksum = match offload.checksum {
        ChecksumState::Partial { field, .. } => ChecksumState::Partial {
            start: short(new_at),
            field,
        },
        ChecksumState::Complete => ChecksumState::Complete,
        ChecksumState::Verified => ChecksumState::Verified,
    };
    let gso = offload.gso.map(|gso| wire::offload::Gso {
        kind: gso.kind.other_family(),
        size: gso.size,
        header_len: short(shape.headers_len + new_at - old_at.min(shape.headers_len)),
    });
    Offload {
        checksum,
        gso,
        reassembled: offload.reassembled,
    }
}

/// The state of the checksum field that [`rewrite`] has to keep.
pub(crate) fn field_of(offload: &Offload) -> Field {
    match offload.checksum {
        ChecksumState::Partial { .. } => Field::Partial,
        ChecksumState::Complete | ChecksumState::Verified => Field::Complete,
    }
}
