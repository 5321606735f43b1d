//! [`Pieces`]: one translated packet that leaves as several.
//!
//! Two things split a packet: fragmentation (RFC 791 §3.2, RFC 8200 §4.5) and the segmentation of a
//! super-segment that cannot leave as one. Both work in the packet's own buffer, without a copy of
//! the payload: the pieces are made in order, and the header of the next one is written over the
//! end of the one before, *which must have been sent by then*.
//!
//! ```text
//! |headers|..payload 0..|..payload 1..|..payload 2..|
//! |<----- piece 0 ----->|
//!               |headers|..payload 1..|                 written over what was payload 0
//!                             |headers|..payload 2..|
//! ```

use crate::{
    checksum::{Sum, never_zero, pseudo_v4, pseudo_v6},
    field::{get_u16, set_u16, set_u32},
    ipv4::{self, Ipv4},
    ipv6::{self, FragmentHeader, Ipv6},
    offload::{ChecksumState, GsoKind, Offload},
    packet::PacketBuf,
    protocol,
    transport::{Tcp, sctp, tcp, udp},
};

/// The longest header that is repeated: IPv4 with options and TCP with options.
const MAX_HEADERS: usize = ipv4_max() + tcp::MAX_HEADER_LEN;

const fn ipv4_max() -> usize {
    60
}

/// The packets to send for one packet, in order.
///
/// [`Self::next`] loads one after the other into the buffer that the verdict was given for.
#[derive(Debug)]
#[must_use]
pub struct Pieces(State);

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a verdict lives on the stack for one packet; a box would allocate"
)]
enum State {
    Done,
    Whole,
    Split {
        segments: Option<Segmenter>,
        fragments: Option<Fragmenter>,
        limit: Option<Limit>,
    },
}

/// How long a packet may be before it is fragmented.
#[derive(Clone, Copy, Debug)]
struct Limit {
    mtu: usize,
    id: u32,
}

/// A packet that was to be split does not have the shape for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsplittable;

impl Pieces {
    /// The packet as it is.
    pub const fn whole() -> Self {
        Self(State::Whole)
    }

    /// Nothing to send (yet): the packet is kept elsewhere.
    pub const fn none() -> Self {
        Self(State::Done)
    }

    /// Whether nothing is to be sent.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        matches!(self.0, State::Done)
    }

    /// Whether this is one packet that leaves as it is.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        matches!(self.0, State::Whole)
    }

    /// Fragments of at most `mtu` bytes each.
    ///
    /// An IPv6 packet that has no Fragment Header yet gets one with `id`; one that has it directly
    /// behind the fixed header is divided further and keeps its own, like an IPv4 packet.
    /// The packet's checksum must be complete and it must not be a super-segment.
    ///
    /// # Errors
    /// [`Unsplittable`] if the packet is malformed, no payload fits into `mtu`, or it is a fragment
    /// that reaches past the longest datagram.
    pub fn fragments(buf: &PacketBuf, mtu: u16, id: u32) -> Result<Self, Unsplittable> {
        let limit = Limit {
            mtu: usize::from(mtu),
            id,
        };
        Ok(Self(State::Split {
            segments: None,
            fragments: Some(Fragmenter::start(buf, limit)?),
            limit: None,
        }))
    }

    /// The segments of a super-segment, each complete with its checksum.
    ///
    /// # Errors
    /// [`Unsplittable`] if the packet is no super-segment or its headers are malformed.
    pub fn segments(buf: &PacketBuf) -> Result<Self, Unsplittable> {
        Ok(Self(State::Split {
            segments: Some(Segmenter::start(buf)?),
            fragments: None,
            limit: None,
        }))
    }

    /// The segments of a super-segment, those of more than `mtu` bytes fragmented. The fragments of
    /// IPv6 segment number n get the Identification `first_id + n`, in the 16 bits that it would
    /// have had in IPv4.
    ///
    /// # Errors
    /// [`Unsplittable`] if the packet is no super-segment, its headers are malformed, or no payload
    /// fits into `mtu`.
    pub fn fragmented_segments(
        buf: &PacketBuf,
        mtu: u16,
        first_id: u16,
    ) -> Result<Self, Unsplittable> {
        let limit = Limit {
            mtu: usize::from(mtu),
            id: first_id.into(),
        };
        // What cannot be fragmented as a whole cannot be in segments; those would be lost unseen.
        Fragmenter::start(buf, limit)?;
        Ok(Self(State::Split {
            segments: Some(Segmenter::start(buf)?),
            fragments: None,
            limit: Some(limit),
        }))
    }

    /// Loads the next piece into `buf`, which must be the buffer that the pieces were made for and
    /// untouched but for headers put before the last piece. False when there is none left.
    #[must_use]
    pub fn next(&mut self, buf: &mut PacketBuf) -> bool {
        match &mut self.0 {
            State::Done => false,
            State::Whole => {
                self.0 = State::Done;
                true
            }
            State::Split {
                segments,
                fragments,
                limit,
            } => loop {
                if let Some(fragmenter) = fragments {
                    if fragmenter.next(buf) {
                        return true;
                    }
                    *fragments = None;
                }
                if !segments
                    .as_mut()
                    .is_some_and(|segmenter| segmenter.next(buf))
                {
                    self.0 = State::Done;
                    return false;
                }
                let Some(limit) = limit.as_mut() else {
                    return true;
                };
                let this = *limit;
                limit.id = (limit.id + 1) & 0xffff;
                if buf.len() <= this.mtu {
                    return true;
                }
                *fragments = Fragmenter::start(buf, this).ok();
            },
        }
    }
}

/// Headers that are repeated before every piece.
#[derive(Clone, Copy, Debug)]
struct Headers {
    bytes: [u8; MAX_HEADERS],
    len: usize,
}

impl Headers {
    fn copy(packet: &[u8], len: usize) -> Option<Self> {
        let mut bytes = [0; MAX_HEADERS];
        bytes.get_mut(..len)?.copy_from_slice(packet.get(..len)?);
        Some(Self { bytes, len })
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// Divides the payload of a packet into fragments.
#[derive(Debug)]
struct Fragmenter {
    family: Family,
    headers: Headers,
    /// Of the first fragment, when the packet already was one.
    base: ipv4::Fragment,
    /// Storage offsets of the payload that is left.
    position: usize,
    end: usize,
    /// Where the payload started.
    origin: usize,
    /// Payload bytes per fragment: a multiple of 8.
    chunk: usize,
}

impl Fragmenter {
    fn start(buf: &PacketBuf, limit: Limit) -> Result<Self, Unsplittable> {
        match buf.bytes().first().map(|byte| byte >> 4) {
            Some(4) => Self::start_v4(buf, limit),
            Some(6) => Self::start_v6(buf, limit),
            _ => Err(Unsplittable),
        }
    }

    fn start_v4(buf: &PacketBuf, limit: Limit) -> Result<Self, Unsplittable> {
        let packet = Ipv4::new_embedded(buf.bytes()).map_err(|_| Unsplittable)?;
        let headers = Headers::copy(buf.bytes(), packet.header_len()).ok_or(Unsplittable)?;
        let base = packet.fragment();
        Self::new(buf, Family::V4, headers, packet.header_len(), base, limit)
    }

    fn start_v6(buf: &PacketBuf, limit: Limit) -> Result<Self, Unsplittable> {
        let packet = Ipv6::new_embedded(buf.bytes()).map_err(|_| Unsplittable)?;
        if packet.next_header() == protocol::FRAGMENT {
            let upper = packet.upper().map_err(|_| Unsplittable)?;
            let base = upper.fragment.ok_or(Unsplittable)?.fragment;
            let len = ipv6::HEADER_LEN + ipv6::FRAGMENT_HEADER_LEN;
            let headers = Headers::copy(buf.bytes(), len).ok_or(Unsplittable)?;
            return Self::new(buf, Family::V6, headers, len, base, limit);
        }
        let mut headers = Headers::copy(buf.bytes(), ipv6::HEADER_LEN).ok_or(Unsplittable)?;
        let fragment_header = FragmentHeader {
            fragment: ipv4::Fragment::default(),
            id: limit.id,
        };
        headers.bytes[6] = protocol::FRAGMENT;
        headers.len += ipv6::FRAGMENT_HEADER_LEN;
        headers.as_mut_slice()[ipv6::HEADER_LEN..]
            .copy_from_slice(&fragment_header.to_bytes(packet.next_header()));
        let base = ipv4::Fragment::default();
        Self::new(buf, Family::V6, headers, ipv6::HEADER_LEN, base, limit)
    }

    fn new(
        buf: &PacketBuf,
        family: Family,
        headers: Headers,
        payload_at: usize,
        base: ipv4::Fragment,
        limit: Limit,
    ) -> Result<Self, Unsplittable> {
        let (start, end) = buf.window();
        let chunk = limit.mtu.saturating_sub(headers.len) / 8 * 8;
        if chunk == 0 || !base.holds(end - start - payload_at) {
            return Err(Unsplittable);
        }
        Ok(Self {
            family,
            headers,
            base,
            position: start + payload_at,
            end,
            origin: start + payload_at,
            chunk,
        })
    }

    fn next(&mut self, buf: &mut PacketBuf) -> bool {
        if self.position >= self.end {
            return false;
        }
        let piece_end = (self.position + self.chunk).min(self.end);
        let offset = u16::try_from((self.position - self.origin) / 8).unwrap_or(u16::MAX);
        let fragment = ipv4::Fragment {
            offset: self.base.offset.saturating_add(offset),
            more: self.base.more || piece_end < self.end,
        };
        self.write_header(piece_end - self.position, fragment);
        buf.set_piece(self.headers.as_slice(), self.position, piece_end);
        buf.offload = Offload::default();
        self.position = piece_end;
        true
    }

    fn write_header(&mut self, payload: usize, fragment: ipv4::Fragment) {
        let len = u16::try_from(self.headers.len + payload).unwrap_or(u16::MAX);
        let headers = self.headers.as_mut_slice();
        match self.family {
            Family::V4 => {
                const MORE: u16 = 0x2000;
                set_u16(headers, 2, len);
                let flags = if fragment.more { MORE } else { 0 };
                set_u16(headers, 6, flags | fragment.offset);
                rewrite_header_checksum(headers);
            }
            Family::V6 => {
                set_u16(headers, 4, len - 40);
                set_u16(
                    headers,
                    ipv6::HEADER_LEN + 2,
                    fragment.offset << 3 | u16::from(fragment.more),
                );
            }
        }
    }
}

fn rewrite_header_checksum(header: &mut [u8]) {
    set_u16(header, 10, 0);
    let checksum = Sum::of(header).checksum();
    set_u16(header, 10, checksum);
}

/// Divides a super-segment into segments.
#[derive(Debug)]
struct Segmenter {
    family: Family,
    tcp: bool,
    headers: Headers,
    transport_at: usize,
    /// Storage offsets of the payload that is left.
    position: usize,
    end: usize,
    size: usize,
    index: u16,
    /// The flags of the TCP header as it came.
    flags: u8,
    sequence: u32,
    first_id: u16,
}

impl Segmenter {
    fn start(buf: &PacketBuf) -> Result<Self, Unsplittable> {
        let gso = buf.offload.gso.ok_or(Unsplittable)?;
        let bytes = buf.bytes();
        let (family, protocol, transport_at, first_id) = network_layer(bytes)?;
        let transport = bytes.get(transport_at..).ok_or(Unsplittable)?;
        let is_tcp = !matches!(gso.kind, GsoKind::Udp);
        let (len, flags, sequence) = match (is_tcp, protocol) {
            (true, protocol::TCP) => {
                let segment = Tcp::new_checked(transport).ok_or(Unsplittable)?;
                (segment.header_len(), segment.flags(), segment.sequence())
            }
            (false, protocol::UDP) if transport.len() >= udp::HEADER_LEN => (udp::HEADER_LEN, 0, 0),
            _ => return Err(Unsplittable),
        };
        let headers = Headers::copy(bytes, transport_at + len).ok_or(Unsplittable)?;
        let (start, end) = buf.window();
        Ok(Self {
            family,
            tcp: is_tcp,
            transport_at,
            position: start + headers.len,
            end,
            headers,
            size: usize::from(gso.size.get()),
            index: 0,
            flags,
            sequence,
            first_id,
        })
    }

    fn next(&mut self, buf: &mut PacketBuf) -> bool {
        if self.position >= self.end {
            return false;
        }
        let piece_end = (self.position + self.size).min(self.end);
        self.write_network_header(piece_end - self.position);
        self.write_transport_header(piece_end - self.position, piece_end == self.end);
        buf.set_piece(self.headers.as_slice(), self.position, piece_end);
        self.write_checksum(buf);
        buf.offload = Offload::default();
        self.position = piece_end;
        self.index = self.index.wrapping_add(1);
        true
    }

    fn write_network_header(&mut self, payload: usize) {
        let len = u16::try_from(self.headers.len + payload).unwrap_or(u16::MAX);
        let headers = &mut self.headers.bytes[..self.transport_at];
        match self.family {
            Family::V4 => {
                set_u16(headers, 2, len);
                set_u16(headers, 4, self.first_id.wrapping_add(self.index));
                rewrite_header_checksum(headers);
            }
            Family::V6 => set_u16(headers, 4, len - 40),
        }
    }

    fn write_transport_header(&mut self, payload: usize, is_last: bool) {
        let transport = &mut self.headers.bytes[self.transport_at..self.headers.len];
        if self.tcp {
            let mut flags = self.flags;
            if !is_last {
                flags &= !(tcp::FIN | tcp::PSH);
            }
            if self.index != 0 {
                flags &= !tcp::CWR;
            }
            transport[tcp::FLAGS_AT] = flags;
            let size = u32::try_from(self.size).unwrap_or_default();
            let sent = u32::from(self.index).wrapping_mul(size);
            set_u32(
                transport,
                tcp::SEQUENCE_AT,
                self.sequence.wrapping_add(sent),
            );
            set_u16(transport, tcp::CHECKSUM_AT, 0);
        } else {
            let len = u16::try_from(udp::HEADER_LEN + payload).unwrap_or(u16::MAX);
            set_u16(transport, udp::LENGTH_AT, len);
            set_u16(transport, udp::CHECKSUM_AT, 0);
        }
    }

    fn write_checksum(&self, buf: &mut PacketBuf) {
        let packet = buf.bytes_mut();
        let (network, transport) = packet.split_at_mut(self.transport_at);
        let number = if self.tcp {
            protocol::TCP
        } else {
            protocol::UDP
        };
        let sum = pseudo_header(self.family, network, number, transport.len()).bytes(transport);
        if self.tcp {
            set_u16(transport, tcp::CHECKSUM_AT, sum.checksum());
        } else {
            set_u16(transport, udp::CHECKSUM_AT, never_zero(sum.checksum()));
        }
    }
}

/// Family, upper protocol, its offset, and the IPv4 Identification.
fn network_layer(bytes: &[u8]) -> Result<(Family, u8, usize, u16), Unsplittable> {
    if let Ok(packet) = Ipv4::new_embedded(bytes) {
        let at = packet.header_len();
        return Ok((Family::V4, packet.protocol(), at, packet.id()));
    }
    let packet = Ipv6::new_embedded(bytes).map_err(|_| Unsplittable)?;
    let upper = packet.upper().map_err(|_| Unsplittable)?;
    Ok((Family::V6, upper.protocol, upper.offset, 0))
}

fn pseudo_header(family: Family, network: &[u8], number: u8, len: usize) -> Sum {
    let src_dst = match family {
        Family::V4 => network.get(12..20),
        Family::V6 => network.get(8..40),
    };
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    Sum::of(src_dst.unwrap_or_default())
        .long(len)
        .word(u16::from(number))
}

/// Finishes a partial checksum in software, for packets that leave the kernel's care (fragments,
/// ports without offload). Does nothing to a complete one.
///
/// For SCTP the kernel means its CRC32c, although the virtio-net header cannot say so.
///
/// # Errors
/// [`Unsplittable`] if the metadata points outside the packet.
pub fn complete_checksum(buf: &mut PacketBuf) -> Result<(), Unsplittable> {
    let ChecksumState::Partial { start, field } = buf.offload.checksum else {
        return Ok(());
    };
    let (start, field) = (usize::from(start), usize::from(field));
    let is_sctp = field == sctp::CHECKSUM_AT && is_sctp_at(buf.bytes(), start);
    let covered = buf.bytes_mut().get_mut(start..).ok_or(Unsplittable)?;
    if is_sctp {
        sctp::write_checksum(covered).ok_or(Unsplittable)?;
    } else {
        finish_checksum(covered, field).ok_or(Unsplittable)?;
    }
    buf.offload.checksum = ChecksumState::Complete;
    Ok(())
}

/// The field holds the pseudo-header's sum, so it is part of what is summed. A result of zero is
/// legal as 0xffff everywhere, and required for UDP.
fn finish_checksum(covered: &mut [u8], field: usize) -> Option<()> {
    get_u16(covered, field)?;
    let checksum = never_zero(Sum::of(covered).checksum());
    set_u16(covered, field, checksum);
    Some(())
}

fn is_sctp_at(bytes: &[u8], at: usize) -> bool {
    network_layer(bytes)
        .is_ok_and(|(_, number, offset, _)| number == protocol::SCTP && offset == at)
}

/// Leaves the checksum of a TCP or UDP packet to whoever segments it: the opposite of
/// [`complete_checksum`]. The kernel takes no super-segment with a complete one.
///
/// # Errors
/// [`Unsplittable`] if the packet is malformed or of another protocol.
pub fn begin_checksum(buf: &mut PacketBuf) -> Result<(), Unsplittable> {
    let (family, number, at, _) = network_layer(buf.bytes())?;
    let field = match number {
        protocol::TCP => tcp::CHECKSUM_AT,
        protocol::UDP => udp::CHECKSUM_AT,
        _ => return Err(Unsplittable),
    };
    let short = |n: usize| u16::try_from(n).map_err(|_| Unsplittable);
    let checksum = ChecksumState::Partial {
        start: short(at)?,
        field: short(field)?,
    };
    let packet = buf.bytes_mut();
    let (network, transport) = packet.split_at_mut_checked(at).ok_or(Unsplittable)?;
    let sum = pseudo_header(family, network, number, transport.len());
    set_u16(transport, field, sum.fold());
    buf.offload.checksum = checksum;
    Ok(())
}

/// Whether the transport checksum of the packet in `bytes` is right, computed from
/// scratch. `None` if it has none that is known here: a fragment, a UDP datagram over IPv4 without
/// one, another protocol.
#[must_use]
pub fn transport_checksum_ok(bytes: &[u8]) -> Option<bool> {
    let (pseudo, number, transport) = if let Ok(packet) = Ipv4::new_embedded(bytes) {
        if packet.fragment().is_fragment() {
            return None;
        }
        let len = packet.payload_len();
        let pseudo = pseudo_v4(
            packet.src().octets(),
            packet.dst().octets(),
            packet.protocol(),
            len,
        );
        (pseudo, packet.protocol(), packet.payload())
    } else {
        let packet = Ipv6::new_embedded(bytes).ok()?;
        let upper = packet.upper().ok()?;
        if upper
            .fragment
            .is_some_and(|header| header.fragment.is_fragment())
        {
            return None;
        }
        let transport = packet.from_offset(upper.offset);
        let len = u32::try_from(transport.len()).ok()?;
        let (src, dst) = (packet.src().octets(), packet.dst().octets());
        (
            pseudo_v6(src, dst, upper.protocol, len),
            upper.protocol,
            transport,
        )
    };
    match number {
        protocol::ICMP => Some(Sum::of(transport).checksum() == 0),
        protocol::UDP if get_u16(transport, udp::CHECKSUM_AT) == Some(0) => None,
        protocol::TCP | protocol::UDP | protocol::ICMPV6 => {
            Some(pseudo.bytes(transport).checksum() == 0)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
