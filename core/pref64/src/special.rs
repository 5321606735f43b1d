//! IPv4 addresses that are not ordinary destinations: the IANA special-purpose registry (RFC 6890)
//! and multicast.

use core::net::Ipv4Addr;

/// What an address is, when it is not an ordinary global unicast address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    /// `0.0.0.0/8`: this network (RFC 791).
    ThisNetwork,
    /// `10/8`, `172.16/12`, `192.168/16` (RFC 1918).
    Private,
    /// `100.64/10`: between a carrier's NAT and its subscribers (RFC 6598).
    SharedAddressSpace,
    /// `127/8`.
    Loopback,
    /// `169.254/16`, where clouds put their metadata services (RFC 3927).
    LinkLocal,
    /// `192.0.0.0/24` but for two anycast addresses (RFC 6890); `192.0.0.0/29` is the CLAT's own
    /// (RFC 7335).
    ProtocolAssignments,
    /// `192.0.2/24`, `198.51.100/24`, `203.0.113/24` (RFC 5737).
    Documentation,
    /// `198.18/15` (RFC 2544).
    Benchmarking,
    /// `224/4`.
    Multicast,
    /// `240/4` (RFC 1112).
    Reserved,
    /// `255.255.255.255`.
    Broadcast,
}

impl Special {
    /// What `address` is; `None` for an ordinary one.
    #[must_use]
    pub const fn of(address: Ipv4Addr) -> Option<Self> {
        Some(match address.octets() {
            [0, ..] => Self::ThisNetwork,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Self::Private,
            [100, 64..=127, ..] => Self::SharedAddressSpace,
            [127, ..] => Self::Loopback,
            [169, 254, ..] => Self::LinkLocal,
            // PCP anycast (RFC 7723) and TURN anycast (RFC 8155) are globally reachable.
            [192, 0, 0, 9 | 10] => return None,
            [192, 0, 0, _] => Self::ProtocolAssignments,
            [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Self::Documentation,
            [198, 18..=19, ..] => Self::Benchmarking,
            [224..=239, ..] => Self::Multicast,
            [255, 255, 255, 255] => Self::Broadcast,
            [240..=255, ..] => Self::Reserved,
            _ => return None,
        })
    }
}

/// Whether the registry says "Globally Reachable" (RFC 6052 §3.1 forbids the others under the
/// well-known prefix).
#[must_use]
pub const fn is_global(address: Ipv4Addr) -> bool {
    Special::of(address).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_is_more_than_reserved() {
        let of = |text: &str| Special::of(text.parse().unwrap());
        assert_eq!(of("255.255.255.255"), Some(Special::Broadcast));
        assert_eq!(of("255.255.255.254"), Some(Special::Reserved));
    }

    /// The list of ADDR-3.1-03, each range by its first and last address.
    #[test]
    fn addr_3_1_03_the_registry_of_non_global_addresses() {
        let ranges = [
            ("0.0.0.0", "0.255.255.255"),
            ("10.0.0.0", "10.255.255.255"),
            ("100.64.0.0", "100.127.255.255"),
            ("127.0.0.0", "127.255.255.255"),
            ("169.254.0.0", "169.254.255.255"),
            ("172.16.0.0", "172.31.255.255"),
            ("192.0.0.0", "192.0.0.8"),
            ("192.0.0.11", "192.0.0.255"),
            ("192.0.2.0", "192.0.2.255"),
            ("192.168.0.0", "192.168.255.255"),
            ("198.18.0.0", "198.19.255.255"),
            ("198.51.100.0", "198.51.100.255"),
            ("203.0.113.0", "203.0.113.255"),
            ("224.0.0.0", "255.255.255.255"),
        ];
        let bits = |text: &str| text.parse::<Ipv4Addr>().unwrap().to_bits();
        let mut inside = 0u64;
        for (first, last) in ranges {
            let (first, last) = (bits(first), bits(last));
            for address in [first, last, first.midpoint(last)] {
                assert!(!is_global(Ipv4Addr::from_bits(address)));
            }
            for address in [first.wrapping_sub(1), last.wrapping_add(1)] {
                let listed = ranges
                    .iter()
                    .any(|(a, b)| (bits(a)..=bits(b)).contains(&address));
                assert_eq!(!is_global(Ipv4Addr::from_bits(address)), listed);
            }
            inside += u64::from(last - first) + 1;
        }
        // One address in 251 of the whole space, so that no further range slipped in.
        let stride = 251;
        let counted = (0..u32::MAX / stride)
            .filter(|n| !is_global(Ipv4Addr::from_bits(n * stride)))
            .count() as u64;
        assert!(counted.abs_diff(inside / u64::from(stride)) < 20);
        assert!(is_global(Ipv4Addr::new(192, 0, 0, 9)));
        assert!(is_global(Ipv4Addr::new(192, 0, 0, 10)));
        let multicast = |text: &str| Special::of(text.parse().unwrap()) == Some(Special::Multicast);
        assert!(multicast("224.0.0.0") && multicast("239.255.255.255"));
        assert!(!multicast("240.0.0.0") && !multicast("223.255.255.255"));
    }
}
