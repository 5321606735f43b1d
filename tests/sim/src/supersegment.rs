//! Super-segments: several TCP segments, or UDP datagrams of one size, in one packet, as hosts hand
//! them to their interfaces and routers pass them on. Joined and taken apart by code that shares nothing with the product's.

use wire::{
    compose,
    offload::{ChecksumState, Gso, GsoKind, Offload},
};

use crate::inspect::{TCP, UDP};

const FIN: u8 = 1;
const SYN_RST_URG: u8 = 2 | 4 | 32;
/// Offsets in the TCP header.
const SEQUENCE: usize = 4;
const FLAGS: usize = 13;
/// Of what a UDP header says its datagram is long.
const LENGTH: usize = 4;
const UDP_HEADER: usize = 8;

/// A packet on its way, which may stand for several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    /// Of a super-segment: payload bytes per segment.
    pub(crate) size: Option<u16>,
}

impl From<Vec<u8>> for Packet {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, size: None }
    }
}

/// Where things are in a TCP or UDP packet of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    is_v4: bool,
    is_tcp: bool,
    /// The transport header.
    at: usize,
    data_at: usize,
}

impl Shape {
    /// `None` for anything but a whole TCP or UDP packet without options or extension headers of IP.
    fn of(bytes: &[u8]) -> Option<Self> {
        let is_v4 = bytes[0] == 0x45;
        let (at, protocol, is_whole) = if is_v4 {
            (20, bytes[9], bytes[6] & 0x3f == 0 && bytes[7] == 0)
        } else {
            (40, bytes[6], bytes[0] >> 4 == 6)
        };
        let header_len = match protocol {
            TCP => usize::from(bytes.get(at + 12)? >> 4) * 4,
            UDP => UDP_HEADER,
            _ => return None,
        };
        is_whole.then_some(Self {
            is_v4,
            is_tcp: protocol == TCP,
            at,
            data_at: at + header_len,
        })
    }

    /// Of the checksum in the transport header.
    fn checksum(self) -> usize {
        if self.is_tcp { 16 } else { 6 }
    }

    fn sequence(self, bytes: &[u8]) -> u32 {
        let at = self.at + SEQUENCE;
        u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }

    /// The folded sum of the pseudo-header, not inverted.
    fn pseudo_header_sum(self, bytes: &[u8]) -> u16 {
        let addresses = if self.is_v4 { 12..20 } else { 8..40 };
        let len = ((bytes.len() - self.at) as u32).to_be_bytes();
        let protocol = if self.is_tcp { TCP } else { UDP };
        !compose::checksum(&[&bytes[addresses], &[0, protocol], &len])
    }

    fn write_lengths(self, bytes: &mut [u8]) {
        if self.is_v4 {
            let total = (bytes.len() as u16).to_be_bytes();
            bytes[2..4].copy_from_slice(&total);
            bytes[10..12].fill(0);
            let sum = compose::checksum(&[&bytes[..20]]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            let payload = ((bytes.len() - 40) as u16).to_be_bytes();
            bytes[4..6].copy_from_slice(&payload);
        }
        if !self.is_tcp {
            let (at, len) = (self.at + LENGTH, (bytes.len() - self.at) as u16);
            bytes[at..at + 2].copy_from_slice(&len.to_be_bytes());
        }
    }
}

impl Packet {
    /// The longest packet on the wire that this stands for.
    pub(crate) fn longest(&self) -> usize {
        match (self.size, Shape::of(&self.bytes)) {
            (Some(size), Some(shape)) => self.bytes.len().min(shape.data_at + usize::from(size)),
            _ => self.bytes.len(),
        }
    }

    /// Whether it stands for datagrams.
    pub(crate) fn is_udp(&self) -> bool {
        Shape::of(&self.bytes).is_some_and(|it| !it.is_tcp)
    }

    /// What its virtio-net header says.
    pub(crate) fn offload(&self) -> Offload {
        let (Some(size), Some(shape)) = (self.size, Shape::of(&self.bytes)) else {
            return Offload::default();
        };
        let kind = match (shape.is_tcp, shape.is_v4) {
            (true, true) => GsoKind::TcpV4 { ecn: false },
            (true, false) => GsoKind::TcpV6 { ecn: false },
            (false, _) => GsoKind::Udp,
        };
        Offload {
            checksum: ChecksumState::Partial {
                start: shape.at as u16,
                field: shape.checksum() as u16,
            },
            gso: size.try_into().ok().map(|size| Gso {
                kind,
                size,
                header_len: shape.data_at as u16,
            }),
            reassembled: false,
        }
    }

    /// A packet as a translator leaves it.
    ///
    /// # Panics
    /// If its virtio-net header does not describe it.
    pub(crate) fn left(bytes: Vec<u8>, offload: Offload) -> Self {
        let packet = Self {
            size: offload.gso.map(|gso| gso.size.get()),
            bytes,
        };
        if packet.size.is_some() {
            let described = packet.offload();
            assert_eq!(
                (offload.checksum, offload.gso),
                (described.checksum, described.gso)
            );
        } else {
            let is_partial = matches!(offload.checksum, ChecksumState::Partial { .. });
            assert!(!is_partial, "a checksum that nobody will complete");
        }
        packet
    }

    /// The packets that it stands for, as an interface without offloads sends them.
    ///
    /// # Panics
    /// If its checksum was not prepared for that.
    pub(crate) fn split(&self) -> Vec<Vec<u8>> {
        let (Some(size), Some(shape)) = (self.size, Shape::of(&self.bytes)) else {
            return vec![self.bytes.clone()];
        };
        let at = shape.at + shape.checksum();
        let prepared = u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
        let right = shape.pseudo_header_sum(&self.bytes);
        assert_eq!(prepared % 0xffff, right % 0xffff, "prepared checksum");
        let (headers, data) = self.bytes.split_at(shape.data_at);
        let chunks = data.chunks(size.into());
        let count = chunks.len();
        let segment = |(n, chunk): (usize, &[u8])| {
            let mut bytes = [headers, chunk].concat();
            if shape.is_tcp {
                let sequence = shape
                    .sequence(headers)
                    .wrapping_add((n * usize::from(size)) as u32);
                let at = shape.at + SEQUENCE;
                bytes[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
                if n + 1 < count {
                    bytes[shape.at + FLAGS] &= !FIN;
                }
            }
            if shape.is_v4 {
                let id = u16::from_be_bytes([bytes[4], bytes[5]]).wrapping_add(n as u16);
                bytes[4..6].copy_from_slice(&id.to_be_bytes());
            }
            shape.write_lengths(&mut bytes);
            let pseudo = shape.pseudo_header_sum(&bytes).to_be_bytes();
            bytes[at..at + 2].fill(0);
            let sum = compose::checksum(&[&pseudo, &bytes[shape.at..]]);
            // No checksum at all would be written as none (RFC 768).
            let sum = if sum == 0 && !shape.is_tcp {
                0xffff
            } else {
                sum
            };
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            bytes
        };
        chunks.enumerate().map(segment).collect()
    }

    /// Adds the next segment of the same connection, or the next datagram of the same size between
    /// the same ports. False if it is none that can be.
    fn join(&mut self, next: &[u8]) -> bool {
        let (Some(shape), Some(other)) = (Shape::of(&self.bytes), Shape::of(next)) else {
            return false;
        };
        let size = match self.size {
            Some(size) => usize::from(size),
            None => self.bytes.len() - shape.data_at,
        };
        let (len, more) = (self.bytes.len() - shape.data_at, next.len() - other.data_at);
        let same = |range: std::ops::Range<usize>| self.bytes[range.clone()] == next[range];
        // Don't Fragment, time to live and protocol; addresses and ports.
        let fits = shape == other
            && shape.is_v4
            && same(6..10)
            && same(12..24)
            && size > 0
            && len.is_multiple_of(size)
            && (1..=size).contains(&more)
            && self.bytes.len() + more <= 60_000;
        let follows = match shape.is_tcp {
            true => self.is_continued(shape, next),
            false => [&self.bytes, next].iter().all(|it| it[26..28] != [0; 2]),
        };
        if !fits || !follows {
            return false;
        }
        self.size = Some(size as u16);
        self.bytes.extend(&next[other.data_at..]);
        if shape.is_tcp {
            self.bytes[shape.at + FLAGS] |= next[other.at + FLAGS];
        }
        shape.write_lengths(&mut self.bytes);
        let prepared = shape.pseudo_header_sum(&self.bytes).to_be_bytes();
        let at = shape.at + shape.checksum();
        self.bytes[at..at + 2].copy_from_slice(&prepared);
        true
    }

    /// Whether a segment of the same shape begins where this one ends.
    fn is_continued(&self, shape: Shape, next: &[u8]) -> bool {
        let len = self.bytes.len() - shape.data_at;
        let expected = shape.sequence(&self.bytes).wrapping_add(len as u32);
        let flags = [self.bytes[shape.at + FLAGS], next[shape.at + FLAGS]];
        // The acknowledgement, and what else is not the segment's own.
        self.bytes[28..33] == next[28..33]
            && shape.sequence(next) == expected
            && (flags[0] | flags[1]) & SYN_RST_URG == 0
            && flags[0] & FIN == 0
    }
}

/// IPv4 packets, in order, with those joined that can be.
pub(crate) fn joined(packets: Vec<Vec<u8>>) -> Vec<Packet> {
    let mut joined: Vec<Packet> = Vec::new();
    for packet in packets {
        let is_in = joined.last_mut().is_some_and(|last| last.join(&packet));
        if !is_in {
            joined.push(packet.into());
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect;
    use std::net::Ipv4Addr;
    use wire::compose::{Pair, V4};

    fn segment(sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        let (a, b) = (Ipv4Addr::new(192, 0, 0, 1), Ipv4Addr::new(8, 8, 8, 8));
        let mut tcp = compose::tcp(Pair::V4(a, b), (1, 2), flags, &[], data);
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        tcp[16..18].fill(0);
        let len = [0, TCP, 0, tcp.len() as u8];
        let sum = compose::checksum(&[&a.octets(), &b.octets(), &len, &tcp]);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let header = V4 {
            df: true,
            id: sequence as u16 / 4,
            ..V4::new(a, b, TCP)
        };
        header.carrying(&tcp)
    }

    #[test]
    fn what_is_joined_comes_apart_again() {
        let parts = vec![
            segment(0, 16, b"abcd"),
            segment(4, 16, b"efgh"),
            segment(8, 17, b"ij"),
        ];
        let whole = joined(parts.clone());
        assert_eq!(whole.len(), 1);
        assert_eq!((whole[0].size, whole[0].longest()), (Some(4), 44));
        assert_eq!(whole[0].split(), parts);
        for part in &parts {
            assert!(inspect::right(part).is_ok());
        }
    }

    #[test]
    fn what_does_not_belong_together_stays_apart() {
        let first = || segment(0, 16, b"abcd");
        for other in [
            segment(5, 16, b"efgh"),
            segment(4, 18, b"efgh"),
            segment(4, 16, b"efghi"),
            segment(4, 16, b""),
        ] {
            assert_eq!(joined(vec![first(), other]).len(), 2);
        }
        let last = segment(0, 17, b"abcd");
        assert_eq!(joined(vec![last, segment(4, 16, b"efgh")]).len(), 2);
        let short = vec![first(), segment(4, 16, b"ef"), segment(6, 16, b"gh")];
        assert_eq!(joined(short).len(), 2);
    }

    fn datagram(id: u16, data: &[u8]) -> Vec<u8> {
        let (a, b) = (Ipv4Addr::new(192, 0, 0, 1), Ipv4Addr::new(8, 8, 8, 8));
        let header = V4 {
            df: true,
            id,
            ..V4::new(a, b, UDP)
        };
        header.carrying(&compose::udp(Pair::V4(a, b), 1, 2, data))
    }

    #[test]
    fn datagrams_of_one_size_are_joined_and_come_apart_again() {
        let parts = vec![
            datagram(0, b"abcd"),
            datagram(1, b"efgh"),
            datagram(2, b"ij"),
        ];
        let whole = joined(parts.clone());
        assert_eq!(whole.len(), 1);
        assert_eq!((whole[0].size, whole[0].longest()), (Some(4), 32));
        assert_eq!(whole[0].split(), parts);
        let mut without_checksum = datagram(1, b"efgh");
        without_checksum[26..28].fill(0);
        for other in [
            datagram(1, b"efghi"),
            segment(4, 16, b"efgh"),
            without_checksum,
        ] {
            assert_eq!(joined(vec![datagram(0, b"abcd"), other]).len(), 2);
        }
    }
}
