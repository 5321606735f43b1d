//! Ethernet II headers, and the mapping of IPv6 multicast onto them (RFC 2464 §7).

use core::{fmt, net::Ipv6Addr};

use crate::field::get_u16;

/// The header: destination, source, type.
pub const HEADER_LEN: usize = 14;

/// The type of an IPv6 packet.
pub const IPV6: u16 = 0x86dd;

/// A 48-bit link-layer address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Where packets for the multicast address `group` go.
    #[must_use]
    pub fn of_multicast(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }

    /// Whether this is a group address (broadcast included).
    #[must_use]
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
    /// What the frame carries ([`IPV6`]).
    pub ethertype: u16,
}

impl Header {
    /// Reads the header of a frame; `None` if it is shorter than one.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        Some(Self {
            dst: Mac(*frame.first_chunk()?),
            src: Mac(*frame.get(6..)?.first_chunk()?),
            ethertype: get_u16(frame, 12)?,
        })
    }

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..6].copy_from_slice(&self.dst.0);
        bytes[6..12].copy_from_slice(&self.src.0);
        bytes[12..].copy_from_slice(&self.ethertype.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_written_as_everywhere() {
        let mac = Mac([0x02, 0, 0xab, 0xcd, 0xef, 9]);
        assert_eq!(mac.to_string(), "02:00:ab:cd:ef:09");
        assert_eq!(format!("{mac:?}"), "02:00:ab:cd:ef:09");
    }

    proptest! {
        #[test]
        fn any_bytes_are_too_short_or_a_header(frame in prop::collection::vec(any::<u8>(), 0..40)) {
            match Header::parse(&frame) {
                Some(header) => prop_assert_eq!(&header.to_bytes()[..], &frame[..HEADER_LEN]),
                None => prop_assert!(frame.len() < HEADER_LEN),
            }
        }
    }

    #[test]
    fn a_header_reads_as_it_was_written() {
        let header = Header {
            dst: Mac::of_multicast("ff02::1:ff00:464".parse().unwrap()),
            src: Mac([2, 0, 0, 0, 0, 1]),
            ethertype: IPV6,
        };
        assert_eq!(header.dst.to_string(), "33:33:ff:00:04:64");
        assert!(header.dst.is_group() && !header.src.is_group());
        assert_eq!(Header::parse(&header.to_bytes()), Some(header));
        assert_eq!(Header::parse(&header.to_bytes()[..13]), None);
    }
}
