//! Packets put together from parts, for tests and small tools: every length and checksum right
//! unless said otherwise. Checksums are summed here by a plain loop of their own, so that tests do
//! not check the product with itself.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::protocol;

/// The addresses a transport checksum covers.
#[derive(Clone, Copy, Debug)]
pub enum Pair {
    /// IPv4 source and destination.
    V4(Ipv4Addr, Ipv4Addr),
    /// IPv6 source and destination.
    V6(Ipv6Addr, Ipv6Addr),
}

impl Pair {
    fn pseudo_header(self, number: u8, len: usize) -> Vec<u8> {
        let len = (len as u32).to_be_bytes();
        match self {
            Self::V4(src, dst) => {
                [&src.octets()[..], &dst.octets(), &[0, number], &len[2..]].concat()
            }
            Self::V6(src, dst) => {
                [&src.octets()[..], &dst.octets(), &len, &[0, 0, 0, number]].concat()
            }
        }
    }
}

/// The inverted one's complement sum, word by word.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        if sum > 0xffff {
            sum = sum - 0x1_0000 + 1;
        }
    }
    !(sum as u16)
}

fn put_checksum(mut bytes: Vec<u8>, at: usize, pseudo_header: &[u8], udp: bool) -> Vec<u8> {
    let sum = checksum(&[pseudo_header, &bytes]);
    let sum = if udp && sum == 0 { 0xffff } else { sum };
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// An IPv4 packet to be.
#[derive(Clone, Debug)]
pub struct V4 {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Protocol.
    pub protocol: u8,
    /// Type of service.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Don't Fragment.
    pub df: bool,
    /// More Fragments.
    pub mf: bool,
    /// Fragment offset in units of 8 bytes.
    pub offset: u16,
    /// Time to live.
    pub ttl: u8,
    /// Options, a multiple of 4 bytes.
    pub options: Vec<u8>,
}

impl V4 {
    /// A packet with TTL 64 and nothing else set.
    #[must_use]
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8) -> Self {
        Self {
            src,
            dst,
            protocol,
            tos: 0,
            id: 0,
            df: false,
            mf: false,
            offset: 0,
            ttl: 64,
            options: Vec::new(),
        }
    }

    /// The packet with `payload`.
    #[must_use]
    pub fn carrying(&self, payload: &[u8]) -> Vec<u8> {
        self.claiming(payload, payload.len())
    }

    /// The packet with `payload`, claiming that there are `len` bytes of it: as ICMP errors quote.
    #[must_use]
    pub fn claiming(&self, payload: &[u8], len: usize) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let total = ((header_len + len) as u16).to_be_bytes();
        let flags = u16::from(self.df) << 14 | u16::from(self.mf) << 13 | self.offset;
        let mut header = vec![0x40 | (header_len / 4) as u8, self.tos];
        header.extend(total);
        header.extend(self.id.to_be_bytes());
        header.extend(flags.to_be_bytes());
        header.extend([self.ttl, self.protocol, 0, 0]);
        header.extend(self.src.octets());
        header.extend(self.dst.octets());
        header.extend(&self.options);
        [&put_checksum(header, 10, &[], false)[..], payload].concat()
    }
}

/// An IPv6 packet to be.
#[derive(Clone, Debug)]
pub struct V6 {
    /// Source.
    pub src: Ipv6Addr,
    /// Destination.
    pub dst: Ipv6Addr,
    /// Next header.
    pub next: u8,
    /// Traffic class.
    pub class: u8,
    /// Flow label.
    pub flow: u32,
    /// Hop limit.
    pub hop_limit: u8,
}

impl V6 {
    /// A packet with hop limit 64 and nothing else set.
    #[must_use]
    pub fn new(src: Ipv6Addr, dst: Ipv6Addr, next: u8) -> Self {
        Self {
            src,
            dst,
            next,
            class: 0,
            flow: 0,
            hop_limit: 64,
        }
    }

    /// The packet with `payload`.
    #[must_use]
    pub fn carrying(&self, payload: &[u8]) -> Vec<u8> {
        self.claiming(payload, payload.len())
    }

    /// The packet with `payload`, claiming that there are `len` bytes of it: as ICMP errors quote.
    #[must_use]
    pub fn claiming(&self, payload: &[u8], len: usize) -> Vec<u8> {
        let first = 6 << 28 | u32::from(self.class) << 20 | self.flow;
        let mut header = first.to_be_bytes().to_vec();
        header.extend((len as u16).to_be_bytes());
        header.extend([self.next, self.hop_limit]);
        header.extend(self.src.octets());
        header.extend(self.dst.octets());
        [&header[..], payload].concat()
    }
}

/// A Fragment Header before `payload`.
#[must_use]
pub fn fragment(next: u8, offset: u16, more: bool, id: u32, payload: &[u8]) -> Vec<u8> {
    let offset_more = (offset << 3 | u16::from(more)).to_be_bytes();
    [&[next, 0][..], &offset_more, &id.to_be_bytes(), payload].concat()
}

/// A UDP datagram.
#[must_use]
pub fn udp(pair: Pair, src_port: u16, dst_port: u16, data: &[u8]) -> Vec<u8> {
    let len = 8 + data.len();
    let mut bytes = Vec::with_capacity(len);
    for word in [src_port, dst_port, len as u16, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(data);
    put_checksum(bytes, 6, &pair.pseudo_header(protocol::UDP, len), true)
}

/// A TCP segment of sequence 0x01020304 that acknowledges 0x05060708; `options` is a multiple of 4
/// bytes.
#[must_use]
pub fn tcp(pair: Pair, ports: (u16, u16), flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
    let offset = (5 + options.len() / 4) as u8;
    let mut bytes = Vec::new();
    bytes.extend(ports.0.to_be_bytes());
    bytes.extend(ports.1.to_be_bytes());
    bytes.extend([1, 2, 3, 4, 5, 6, 7, 8, offset << 4, flags]);
    bytes.extend([0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(options);
    bytes.extend(data);
    let pseudo_header = pair.pseudo_header(protocol::TCP, bytes.len());
    put_checksum(bytes, 16, &pseudo_header, false)
}

/// An ICMPv4 message.
#[must_use]
pub fn icmp4(kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
    let bytes = [&[kind, code, 0, 0][..], &rest, data].concat();
    put_checksum(bytes, 2, &[], false)
}

/// An ICMPv6 message.
#[must_use]
pub fn icmp6(
    src: Ipv6Addr,
    dst: Ipv6Addr,
    kind: u8,
    code: u8,
    rest: [u8; 4],
    data: &[u8],
) -> Vec<u8> {
    let bytes = [&[kind, code, 0, 0][..], &rest, data].concat();
    let pseudo_header = Pair::V6(src, dst).pseudo_header(protocol::ICMPV6, bytes.len());
    put_checksum(bytes, 2, &pseudo_header, false)
}
