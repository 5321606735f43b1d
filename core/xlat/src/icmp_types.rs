//! Which ICMP message becomes which (RFC 7915 §4.2 and §5.2, figures 3 and 6).

use wire::icmp::{v4, v6};

/// What an ICMP type and code become in the other family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Becomes {
    /// An echo request or reply of this type.
    Echo(u8),
    /// An error.
    Error {
        /// The new type.
        kind: u8,
        /// The new code.
        code: u8,
        /// What bytes 4 to 7 hold.
        field: Field,
    },
    /// Nothing: silent drop.
    Nothing,
}

/// What bytes 4 to 7 of a translated error hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Zero, but for the length of an RFC 4884 structure.
    Unused,
    /// The MTU.
    Mtu,
    /// The place of the error in the header, translated.
    Pointer,
    /// This place, whatever the original said.
    FixedPointer(u8),
}

/// An ICMPv4 type and code in ICMPv6.
#[must_use]
pub const fn v4_to_v6(kind: u8, code: u8) -> Becomes {
    let (kind, code, field) = match (kind, code) {
        (v4::ECHO_REQUEST, 0) => return Becomes::Echo(v6::ECHO_REQUEST),
        (v4::ECHO_REPLY, 0) => return Becomes::Echo(v6::ECHO_REPLY),
        (v4::UNREACHABLE, 0 | 1 | 5..=8 | 11 | 12) => {
            (v6::UNREACHABLE, v6::NO_ROUTE, Field::Unused)
        }
        (v4::UNREACHABLE, v4::PROTOCOL_UNREACHABLE) => {
            // Unrecognised next header, pointing at the IPv6 Next Header field.
            (v6::PARAMETER_PROBLEM, 1, Field::FixedPointer(6))
        }
        (v4::UNREACHABLE, v4::PORT_UNREACHABLE) => {
            (v6::UNREACHABLE, v6::PORT_UNREACHABLE, Field::Unused)
        }
        (v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED) => (v6::PACKET_TOO_BIG, 0, Field::Mtu),
        (v4::UNREACHABLE, 9 | 10 | v4::PROHIBITED | 15) => {
            (v6::UNREACHABLE, v6::PROHIBITED, Field::Unused)
        }
        (v4::TIME_EXCEEDED, 0 | 1) => (v6::TIME_EXCEEDED, code, Field::Unused),
        (v4::PARAMETER_PROBLEM, 0 | 2) => (v6::PARAMETER_PROBLEM, 0, Field::Pointer),
        _ => return Becomes::Nothing,
    };
    Becomes::Error { kind, code, field }
}

/// An ICMPv6 type and code in ICMPv4.
#[must_use]
pub const fn v6_to_v4(kind: u8, code: u8) -> Becomes {
    let (kind, code, field) = match (kind, code) {
        (v6::ECHO_REQUEST, 0) => return Becomes::Echo(v4::ECHO_REQUEST),
        (v6::ECHO_REPLY, 0) => return Becomes::Echo(v4::ECHO_REPLY),
        (v6::UNREACHABLE, 0 | 2 | 3) => (v4::UNREACHABLE, v4::HOST_UNREACHABLE, Field::Unused),
        // Communication with destination host administratively prohibited.
        (v6::UNREACHABLE, v6::PROHIBITED) => (v4::UNREACHABLE, 10, Field::Unused),
        (v6::UNREACHABLE, v6::PORT_UNREACHABLE) => {
            (v4::UNREACHABLE, v4::PORT_UNREACHABLE, Field::Unused)
        }
        (v6::PACKET_TOO_BIG, 0) => (v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED, Field::Mtu),
        (v6::TIME_EXCEEDED, 0 | 1) => (v4::TIME_EXCEEDED, code, Field::Unused),
        (v6::PARAMETER_PROBLEM, 0) => (v4::PARAMETER_PROBLEM, 0, Field::Pointer),
        (v6::PARAMETER_PROBLEM, 1) => (v4::UNREACHABLE, v4::PROTOCOL_UNREACHABLE, Field::Unused),
        _ => return Becomes::Nothing,
    };
    Becomes::Error { kind, code, field }
}

/// The IPv6 header byte that stands for an IPv4 header byte.
#[must_use]
pub const fn pointer_v4_to_v6(pointer: u8) -> Option<u8> {
    Some(match pointer {
        0 => 0,        // version, IHL > version, traffic class
        1 => 1,        // type of service > traffic class, flow label
        2 | 3 => 4,    // total length > payload length
        8 => 7,        // time to live > hop limit
        9 => 6,        // protocol > next header
        12..=15 => 8,  // source
        16..=19 => 24, // destination
        _ => return None,
    })
}

/// The IPv4 header byte that stands for an IPv6 header byte.
#[must_use]
pub const fn pointer_v6_to_v4(pointer: u32) -> Option<u8> {
    Some(match pointer {
        0 => 0,
        1 => 1,
        4 | 5 => 2,
        6 => 9,
        7 => 8,
        8..=23 => 12,
        24..=39 => 16,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(becomes: Becomes) -> Option<(u8, u8)> {
        match becomes {
            Becomes::Echo(kind) => Some((kind, 0)),
            Becomes::Error { kind, code, .. } => Some((kind, code)),
            Becomes::Nothing => None,
        }
    }

    /// Table 3a of the checklist, written down a second time, against all 65 536 pairs.
    #[test]
    fn xlat_4_2_01_every_icmpv4_type_and_code() {
        let listed = |kind: u8, code: u8| -> Option<(u8, u8)> {
            match (kind, code) {
                (8, 0) => Some((128, 0)),
                (0, 0) => Some((129, 0)),
                (3, code) if [0, 1, 5, 6, 7, 8, 11, 12].contains(&code) => Some((1, 0)),
                (3, 2) => Some((4, 1)),
                (3, 3) => Some((1, 4)),
                (3, 4) => Some((2, 0)),
                (3, code) if [9, 10, 13, 15].contains(&code) => Some((1, 1)),
                (11, code) if code < 2 => Some((3, code)),
                (12, code) if [0, 2].contains(&code) => Some((4, 0)),
                _ => None,
            }
        };
        for kind in 0..=255 {
            for code in 0..=255 {
                assert_eq!(
                    pair(v4_to_v6(kind, code)),
                    listed(kind, code),
                    "{kind}/{code}"
                );
            }
        }
    }

    /// Table 4a of the checklist, written down a second time, against all 65 536 pairs.
    #[test]
    fn xlat_5_2_01_every_icmpv6_type_and_code() {
        let listed = |kind: u8, code: u8| -> Option<(u8, u8)> {
            match (kind, code) {
                (128, 0) => Some((8, 0)),
                (129, 0) => Some((0, 0)),
                (1, code) if [0, 2, 3].contains(&code) => Some((3, 1)),
                (1, 1) => Some((3, 10)),
                (1, 4) => Some((3, 3)),
                (2, 0) => Some((3, 4)),
                (3, code) if code < 2 => Some((11, code)),
                (4, 0) => Some((12, 0)),
                (4, 1) => Some((3, 2)),
                _ => None,
            }
        };
        for kind in 0..=255 {
            for code in 0..=255 {
                assert_eq!(
                    pair(v6_to_v4(kind, code)),
                    listed(kind, code),
                    "{kind}/{code}"
                );
            }
        }
    }

    #[test]
    fn only_what_has_a_place_in_the_header_carries_a_pointer() {
        let field = |becomes| match becomes {
            Becomes::Error { field, .. } => Some(field),
            Becomes::Echo(_) | Becomes::Nothing => None,
        };
        assert_eq!(field(v4_to_v6(3, 2)), Some(Field::FixedPointer(6)));
        assert_eq!(field(v4_to_v6(3, 4)), Some(Field::Mtu));
        assert_eq!(field(v4_to_v6(12, 0)), Some(Field::Pointer));
        assert_eq!(field(v4_to_v6(3, 3)), Some(Field::Unused));
        assert_eq!(field(v6_to_v4(2, 0)), Some(Field::Mtu));
        assert_eq!(field(v6_to_v4(4, 0)), Some(Field::Pointer));
        assert_eq!(field(v6_to_v4(4, 1)), Some(Field::Unused));
    }
}
