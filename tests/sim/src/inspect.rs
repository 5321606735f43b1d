//! Packets read by code that shares nothing with the product's: every length, every checksum.

use std::net::IpAddr;

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};
use wire::compose;

/// Protocol numbers, and the next header that says that a Fragment Header follows.
pub const ICMP: u8 = 1;
/// See [`ICMP`].
pub const TCP: u8 = 6;
/// See [`ICMP`].
pub const UDP: u8 = 17;
/// See [`ICMP`].
pub const FRAGMENT: u8 = 44;
/// See [`ICMP`].
pub const ICMPV6: u8 = 58;

/// A packet whose lengths and IPv4 header checksum are right.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Time to live, or hop limit.
    pub hop_limit: u8,
    /// What the payload is.
    pub protocol: u8,
    /// Don't Fragment. Always in IPv6.
    pub dont_fragment: bool,
    /// Where the payload belongs, if it is a fragment.
    pub fragment: Option<Place>,
    /// What follows the IP header and the Fragment Header.
    pub payload: &'a [u8],
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of its datagram.
    pub id: u32,
    /// In bytes.
    pub offset: usize,
    /// Others follow.
    pub more: bool,
}

impl<'a> Seen<'a> {
    /// Reads a packet.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(packet: &'a [u8]) -> Result<Self, String> {
        match packet.first().map(|byte| byte >> 4) {
            Some(4) => Self::read_v4(packet),
            Some(6) => Self::read_v6(packet),
            other => Err(format!("IP version {other:?}")),
        }
    }

    fn read_v4(packet: &'a [u8]) -> Result<Self, String> {
        let header = Ipv4HeaderSlice::from_slice(packet).map_err(|error| error.to_string())?;
        expect("total length", header.total_len().into(), packet.len())?;
        let sum = compose::checksum(&[header.slice()]);
        expect("IPv4 header checksum", sum.into(), 0)?;
        let place = Place {
            id: header.identification().into(),
            offset: usize::from(header.fragments_offset().value()) * 8,
            more: header.more_fragments(),
        };
        Ok(Self {
            src: header.source_addr().into(),
            dst: header.destination_addr().into(),
            hop_limit: header.ttl(),
            protocol: header.protocol().0,
            dont_fragment: header.dont_fragment(),
            fragment: (place.more || place.offset > 0).then_some(place),
            payload: &packet[header.slice().len()..],
        })
    }

    fn read_v6(packet: &'a [u8]) -> Result<Self, String> {
        let header = Ipv6HeaderSlice::from_slice(packet).map_err(|error| error.to_string())?;
        let payload = &packet[40..];
        expect(
            "payload length",
            header.payload_length().into(),
            payload.len(),
        )?;
        let mut seen = Self {
            src: header.source_addr().into(),
            dst: header.destination_addr().into(),
            hop_limit: header.hop_limit(),
            protocol: header.next_header().0,
            dont_fragment: true,
            fragment: None,
            payload,
        };
        if seen.protocol == FRAGMENT {
            let Some((bytes, rest)) = payload.split_first_chunk::<8>() else {
                return Err("Fragment Header cut off".into());
            };
            let [next, _, hi, lo, id @ ..] = *bytes;
            let place = Place {
                id: u32::from_be_bytes(id),
                offset: usize::from(u16::from_be_bytes([hi, lo]) & !7),
                more: lo & 1 != 0,
            };
            seen.protocol = next;
            seen.fragment = (place.more || place.offset > 0).then_some(place);
            seen.payload = rest;
        }
        Ok(seen)
    }

    /// Whether the transport checksum is right; `None` where there is none to check: in fragments,
    /// and in protocols that are not known here.
    #[must_use]
    pub fn transport_is_right(&self) -> Option<bool> {
        if self.fragment.is_some() {
            return None;
        }
        let checksum_at = match self.protocol {
            ICMP | ICMPV6 => 2,
            TCP => 16,
            UDP => 6,
            _ => return None,
        };
        let field = self.payload.get(checksum_at..checksum_at + 2)?;
        if self.protocol == UDP {
            let len = u16::from_be_bytes([self.payload[4], self.payload[5]]);
            if field == [0, 0] {
                return Some(self.src.is_ipv4());
            }
            if usize::from(len) != self.payload.len() {
                return None;
            }
        }
        let pseudo = self.pseudo_header();
        Some(compose::checksum(&[&pseudo, self.payload]) == 0)
    }

    fn pseudo_header(&self) -> Vec<u8> {
        let len = (self.payload.len() as u32).to_be_bytes();
        match (self.src, self.dst) {
            _ if self.protocol == ICMP => Vec::new(),
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let number = [0, self.protocol];
                [&src.octets()[..], &dst.octets(), &number, &len[2..]].concat()
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let number = [0, 0, 0, self.protocol];
                [&src.octets()[..], &dst.octets(), &len, &number].concat()
            }
            _ => Vec::new(),
        }
    }
}

fn expect(what: &str, is: usize, should: usize) -> Result<(), String> {
    if is == should {
        Ok(())
    } else {
        Err(format!("{what} is {is}, not {should}"))
    }
}

/// Reads a packet in which everything must be right.
///
/// # Errors
/// What is wrong with it.
pub fn right(packet: &[u8]) -> Result<Seen<'_>, String> {
    let seen = Seen::read(packet)?;
    match seen.transport_is_right() {
        Some(false) => Err(format!("checksum of protocol {} is wrong", seen.protocol)),
        Some(true) | None => Ok(seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use wire::compose::{Pair, V4, V6};

    #[test]
    fn what_is_wrong_is_seen() {
        let (a, b) = (Ipv4Addr::new(192, 0, 0, 1), Ipv4Addr::new(8, 8, 8, 8));
        let (c, d) = (Ipv6Addr::LOCALHOST, Ipv6Addr::from_bits(2));
        let v4 = V4::new(a, b, UDP).carrying(&compose::udp(Pair::V4(a, b), 1, 2, b"abc"));
        let v6 = V6::new(c, d, TCP).carrying(&compose::tcp(Pair::V6(c, d), (1, 2), 2, &[], b"x"));
        let echo = V6::new(c, d, ICMPV6).carrying(&compose::icmp6(c, d, 128, 0, [1; 4], b"y"));
        // Not covered by any checksum in IPv6: traffic class, flow label and hop limit. And where
        // protocol or UDP length change, it is not known what should be right.
        for (packet, uncovered) in [
            (&v4, &[24, 25][..]),
            (&v6, &[1, 2, 3, 6, 7]),
            (&echo, &[1, 2, 3, 6, 7]),
        ] {
            assert!(right(packet).is_ok());
            for at in (0..packet.len()).filter(|at| !uncovered.contains(at)) {
                let mut wrong = packet.clone();
                wrong[at] ^= 0x10;
                assert!(right(&wrong).is_err(), "{at}");
            }
            let longer = [&packet[..], &[0]].concat();
            assert!(right(&longer).is_err());
        }
    }
}
