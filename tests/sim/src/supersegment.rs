//! Super-segments: several TCP segments in one packet, as hosts hand them to their interfaces and
//! routers pass them on. Joined and taken apart by code that shares nothing with the product's.

use wire::{
    compose,
    offload::{ChecksumState, Gso, GsoKind, Offload},
};

use crate::inspect::TCP;

const FIN: u8 = 1;
const SYN_RST_URG: u8 = 2 | 4 | 32;
/// Offsets in the TCP header.
const SEQUENCE: usize = 4;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;

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

/// Where things are in a TCP packet of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    is_v4: bool,
    tcp_at: usize,
    data_at: usize,
}

impl Shape {
    /// `None` for anything but a whole TCP packet without options or extension headers of IP.
    fn of(bytes: &[u8]) -> Option<Self> {
        let is_v4 = bytes[0] == 0x45;
        let (tcp_at, protocol, is_whole) = if is_v4 {
            (20, bytes[9], bytes[6] & 0x3f == 0 && bytes[7] == 0)
        } else {
            (40, bytes[6], bytes[0] >> 4 == 6)
        };
        let header = bytes
            .get(tcp_at + 12)
            .filter(|_| is_whole && protocol == TCP)?;
        let data_at = tcp_at + usize::from(header >> 4) * 4;
        Some(Self {
            is_v4,
            tcp_at,
            data_at,
        })
    }

    fn sequence(self, bytes: &[u8]) -> u32 {
        let at = self.tcp_at + SEQUENCE;
        u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }

    /// The folded sum of the pseudo-header, not inverted.
    fn pseudo_header_sum(self, bytes: &[u8]) -> u16 {
        let addresses = if self.is_v4 { 12..20 } else { 8..40 };
        let len = ((bytes.len() - self.tcp_at) as u32).to_be_bytes();
        !compose::checksum(&[&bytes[addresses], &[0, TCP], &len])
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

    /// What its virtio-net header says.
    pub(crate) fn offload(&self) -> Offload {
        let (Some(size), Some(shape)) = (self.size, Shape::of(&self.bytes)) else {
            return Offload::default();
        };
        let kind = if shape.is_v4 {
            GsoKind::TcpV4 { ecn: false }
        } else {
            GsoKind::TcpV6 { ecn: false }
        };
        Offload {
            checksum: ChecksumState::Partial {
                start: shape.tcp_at as u16,
                field: CHECKSUM as u16,
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
        let at = shape.tcp_at + CHECKSUM;
        let prepared = u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
        let right = shape.pseudo_header_sum(&self.bytes);
        assert_eq!(prepared % 0xffff, right % 0xffff, "prepared checksum");
        let (headers, data) = self.bytes.split_at(shape.data_at);
        let chunks = data.chunks(size.into());
        let count = chunks.len();
        let segment = |(n, chunk): (usize, &[u8])| {
            let mut bytes = [headers, chunk].concat();
            let sequence = shape
                .sequence(headers)
                .wrapping_add((n * usize::from(size)) as u32);
            let at = shape.tcp_at + SEQUENCE;
            bytes[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
            if n + 1 < count {
                bytes[shape.tcp_at + FLAGS] &= !FIN;
            }
            if shape.is_v4 {
                let id = u16::from_be_bytes([bytes[4], bytes[5]]).wrapping_add(n as u16);
                bytes[4..6].copy_from_slice(&id.to_be_bytes());
            }
            shape.write_lengths(&mut bytes);
            let at = shape.tcp_at + CHECKSUM;
            let pseudo = shape.pseudo_header_sum(&bytes).to_be_bytes();
            bytes[at..at + 2].fill(0);
            let sum = compose::checksum(&[&pseudo, &bytes[shape.tcp_at..]]);
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            bytes
        };
        chunks.enumerate().map(segment).collect()
    }

    /// Adds the next segment of the same connection. False if it is none that can be.
    fn join(&mut self, next: &[u8]) -> bool {
        let (Some(shape), Some(other)) = (Shape::of(&self.bytes), Shape::of(next)) else {
            return false;
        };
        let size = match self.size {
            Some(size) => usize::from(size),
            None => self.bytes.len() - shape.data_at,
        };
        let (len, more) = (self.bytes.len() - shape.data_at, next.len() - other.data_at);
        let expected = shape.sequence(&self.bytes).wrapping_add(len as u32);
        let flags = [self.bytes[shape.tcp_at + FLAGS], next[other.tcp_at + FLAGS]];
        let same = |range: std::ops::Range<usize>| self.bytes[range.clone()] == next[range];
        // Addresses; ports; the acknowledgement, and what else is not the segment's own.
        let fits = shape == other
            && shape.is_v4
            && same(6..10)
            && same(12..24)
            && same(28..33)
            && other.sequence(next) == expected
            && (flags[0] | flags[1]) & SYN_RST_URG == 0
            && flags[0] & FIN == 0
            && size > 0
            && len.is_multiple_of(size)
            && (1..=size).contains(&more)
            && self.bytes.len() + more <= 60_000;
        if !fits {
            return false;
        }
        self.size = Some(size as u16);
        self.bytes.extend(&next[other.data_at..]);
        self.bytes[shape.tcp_at + FLAGS] |= flags[1];
        shape.write_lengths(&mut self.bytes);
        let prepared = shape.pseudo_header_sum(&self.bytes).to_be_bytes();
        let at = shape.tcp_at + CHECKSUM;
        self.bytes[at..at + 2].copy_from_slice(&prepared);
        true
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
}
