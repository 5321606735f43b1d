//! ICMP message types (RFC 792, RFC 4443) and the 8-byte header both families share.

use crate::field::get_u16;

/// Type, code, checksum and four bytes that mean something else in every type.
pub const HEADER_LEN: usize = 8;
/// Where the type lies.
pub const TYPE_AT: usize = 0;
/// Where the code lies.
pub const CODE_AT: usize = 1;
/// Where the checksum lies.
pub const CHECKSUM_AT: usize = 2;
/// Where the identifier of an echo lies.
pub const IDENTIFIER_AT: usize = 4;

/// ICMPv4 types and the codes of Destination Unreachable.
pub mod v4 {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Source quench (obsolete).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;

    /// Host unreachable.
    pub const HOST_UNREACHABLE: u8 = 1;
    /// Protocol unreachable.
    pub const PROTOCOL_UNREACHABLE: u8 = 2;
    /// Port unreachable.
    pub const PORT_UNREACHABLE: u8 = 3;
    /// Fragmentation needed and DF set; carries the next-hop MTU (RFC 1191).
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Source route failed.
    pub const SOURCE_ROUTE_FAILED: u8 = 5;
    /// Communication administratively prohibited.
    pub const PROHIBITED: u8 = 13;

    /// Whether messages of this type report an error about another packet (RFC 1122 §3.2.2).
    #[must_use]
    pub const fn is_error(kind: u8) -> bool {
        matches!(
            kind,
            UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM
        )
    }
}

/// ICMPv6 types and codes.
pub mod v6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Router solicitation.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbor solicitation.
    pub const NEIGHBOR_SOLICITATION: u8 = 135;
    /// Neighbor advertisement.
    pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;

    /// No route to destination.
    pub const NO_ROUTE: u8 = 0;
    /// Communication administratively prohibited.
    pub const PROHIBITED: u8 = 1;
    /// Address unreachable.
    pub const ADDRESS_UNREACHABLE: u8 = 3;
    /// Port unreachable.
    pub const PORT_UNREACHABLE: u8 = 4;

    /// Whether messages of this type report an error about another packet (RFC 4443 §2.1).
    #[must_use]
    pub const fn is_error(kind: u8) -> bool {
        kind < 128
    }
}

/// An ICMP message whose first 8 bytes are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// The type ([`v4`], [`v6`]).
    pub kind: u8,
    /// The code.
    pub code: u8,
    /// The checksum.
    pub checksum: u16,
    /// Bytes 4 to 7.
    pub rest: [u8; 4],
}

impl Icmp {
    /// Reads the header; `None` if fewer than 8 bytes are there.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let &[kind, code, c0, c1, r0, r1, r2, r3] = bytes.first_chunk::<HEADER_LEN>()?;
        Some(Self {
            kind,
            code,
            checksum: u16::from_be_bytes([c0, c1]),
            rest: [r0, r1, r2, r3],
        })
    }

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let [c0, c1] = self.checksum.to_be_bytes();
        let [r0, r1, r2, r3] = self.rest;
        [self.kind, self.code, c0, c1, r0, r1, r2, r3]
    }

    /// The identifier of an echo request or reply.
    #[must_use]
    pub fn identifier(&self) -> u16 {
        get_u16(&self.rest, 0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The assigned types (IANA); RFC 1122 §3.2.2 and RFC 4443 §2.1 say which are errors.
    #[test]
    fn errors_are_told_from_other_messages() {
        let errors: Vec<_> = (0..=255).filter(|kind| v4::is_error(*kind)).collect();
        assert_eq!(errors, [3, 4, 5, 11, 12]);
        assert!((0..=255).all(|kind| v6::is_error(kind) == (kind < 128)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_too_short_or_a_header(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            match Icmp::parse(&bytes) {
                Some(header) => {
                    prop_assert_eq!(&header.to_bytes()[..], &bytes[..HEADER_LEN]);
                    prop_assert_eq!(Some(header.identifier()), get_u16(&bytes, IDENTIFIER_AT));
                }
                None => prop_assert!(bytes.len() < HEADER_LEN),
            }
        }
    }
}
