//! Which IPv6 address the CLAT takes: in which /64 (RFC 6724), and with which interface identifier.

use core::{cmp::Reverse, net::Ipv6Addr};

use pref64::{Length, Pref64};
use wire::checksum::Sum;

use crate::mapping::Instance;

/// An IPv6 address that the host itself has on the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The address.
    pub address: Ipv6Addr,
    /// The length of the network it is in.
    pub prefix_len: u8,
    /// Not deprecated and not tentative.
    pub preferred: bool,
}

/// The /64 out of which the CLAT should take its address to reach hosts under `prefix`: not a
/// deprecated one (rule 3), of the same label (rule 6), the longest match (rule 8). Between equals
/// the lowest is taken: systems list addresses in no lasting order.
///
/// The one in use stays unless rule 3 or rule 6 speaks for another one. A longer match is no reason
/// to move: every connection would end with the address, and another prefix is not another host.
///
/// `None` if the host has no address in a /64 but link-local ones.
#[must_use]
pub fn choose_network(
    addresses: &[HostAddress],
    prefix: Pref64,
    in_use: Option<Ipv6Addr>,
) -> Option<Ipv6Addr> {
    let destination = prefix.address();
    let best = addresses
        .iter()
        .filter(|it| it.prefix_len == 64 && is_candidate(it.address))
        .min_by_key(|it| {
            let network = network_of(it.address);
            (
                !it.preferred,
                label(it.address) != label(destination),
                Some(network) != in_use.map(network_of),
                Reverse(common_bits(network, destination)),
                network,
            )
        })?;
    Some(network_of(best.address))
}

/// The /64 that `address` is in.
#[must_use]
pub fn network_of(address: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)
}

fn is_candidate(address: Ipv6Addr) -> bool {
    !address.is_unicast_link_local()
        && !address.is_multicast()
        && !address.is_loopback()
        && !address.is_unspecified()
}

fn common_bits(a: Ipv6Addr, b: Ipv6Addr) -> u32 {
    (a.to_bits() ^ b.to_bits()).leading_zeros()
}

/// The label of the default policy table (RFC 6724 §2.1), by longest match.
fn label(address: Ipv6Addr) -> u8 {
    const TABLE: [(u128, u32, u8); 9] = [
        (1, 128, 0),
        (0xffff << 32, 96, 4),
        (0, 96, 3),
        (0x2001 << 112, 32, 5),
        (0x2002 << 112, 16, 2),
        (0x3ffe << 112, 16, 12),
        (0xfec0 << 112, 10, 11),
        (0xfc00 << 112, 7, 13),
        (0, 0, 1),
    ];
    let bits = address.to_bits();
    let entry = TABLE
        .iter()
        .find(|(prefix, len, _)| *len == 0 || (bits ^ prefix) >> (128 - len) == 0);
    entry.map_or(1, |(_, _, label)| *label)
}

/// An address in `network` (a /64) that makes translation between it and `prefix` neutral to
/// checksums for every destination: the last 16 bits make up for everything else. The 48 bits
/// before them are the high bits of `random`.
///
/// Neutrality holds under a prefix of /96 or /32, which leave the IPv4 address word-aligned. Under
/// others, and after the prefix has changed, checksums are updated as for any address.
///
/// `None` if the identifier is one that hosts must not use (RFC 5453): try another `random`.
#[must_use]
pub fn neutral_address(
    network: Ipv6Addr,
    instance: Instance,
    prefix: Pref64,
    random: u64,
) -> Option<Ipv6Addr> {
    let head = network.to_bits() | u128::from(random & !0xffff);
    let have = Sum::of(&head.to_be_bytes()).fold();
    let want = Sum::of(&instance.host().octets()).fold();
    let missing = i64::from(want) - i64::from(have) - i64::from(prefix.word_sum());
    let last = u16::try_from(missing.rem_euclid(0xffff)).unwrap_or_default();
    let address = Ipv6Addr::from_bits(head | u128::from(last));
    (!is_reserved_identifier(address)).then_some(address)
}

/// Whether translation between `clat` and `prefix` leaves checksums as they are.
#[must_use]
pub fn is_neutral(clat: Ipv6Addr, instance: Instance, prefix: Pref64) -> bool {
    let aligned = matches!(prefix.length(), Length::L96 | Length::L32);
    let clat = Sum::of(&clat.octets()).fold();
    let host = Sum::of(&instance.host().octets()).fold();
    let sum = u32::from(clat) + u32::from(prefix.word_sum());
    aligned && sum % 0xffff == u32::from(host) % 0xffff
}

/// RFC 5453 and the IANA registry: subnet-router anycast, proxy mobile IPv6, subnet anycast.
fn is_reserved_identifier(address: Ipv6Addr) -> bool {
    let [.., a, b, c, d] = address.segments();
    let identifier = u64::from(a) << 48 | u64::from(b) << 32 | u64::from(c) << 16 | u64::from(d);
    identifier == 0
        || (0x0200_5eff_fe00_0000..=0x0200_5eff_feff_ffff).contains(&identifier)
        || (0xfdff_ffff_ffff_ff80..=0xfdff_ffff_ffff_ffff).contains(&identifier)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;

    fn host(address: &str, preferred: bool) -> HostAddress {
        HostAddress {
            address: address.parse().unwrap(),
            prefix_len: 64,
            preferred,
        }
    }

    fn chosen(addresses: &[HostAddress], prefix: &str) -> Option<String> {
        let network = choose_network(addresses, prefix.parse().unwrap(), None)?;
        Some(network.to_string())
    }

    #[test]
    fn clat_c_01_no_unique_local_source_toward_a_global_prefix() {
        let addresses = [
            host("fd00:1:2:3::10", true),
            host("2001:db8:1:2::10", true),
            host("fe80::10", true),
        ];
        let global = Some("2001:db8:1:2::".to_owned());
        let local = Some("fd00:1:2:3::".to_owned());
        assert_eq!(chosen(&addresses, "2001:db8:64::/96"), global);
        assert_eq!(chosen(&addresses, "64:ff9b::/96"), global);
        assert_eq!(chosen(&addresses, "fd00:64::/96"), local);
        // The label comes before the longest match: 2001::/32 is Teredo's.
        let teredo = [host("2001:0:1:2::10", true), host("2620:0:1:2::10", true)];
        let wanted = Some("2620:0:1:2::".to_owned());
        assert_eq!(chosen(&teredo, "2001:db8:64::/96"), wanted);
        // Better a source of another label than none.
        assert_eq!(chosen(&addresses[..1], "64:ff9b::/96"), local);
        assert_eq!(chosen(&addresses[2..], "64:ff9b::/96"), None);
        assert_eq!(chosen(&[], "64:ff9b::/96"), None);
    }

    #[test]
    fn clat_c_01_the_longest_match_and_no_deprecated_address() {
        let addresses = [
            host("2001:db8:8000::1", true),
            host("2001:db8:1:2::1", true),
            host("2001:db8:65::1", false),
        ];
        let wanted = Some("2001:db8:1:2::".to_owned());
        assert_eq!(chosen(&addresses, "2001:db8:64::/96"), wanted);
        let wanted = Some("2001:db8:65::".to_owned());
        assert_eq!(chosen(&addresses[2..], "2001:db8:64::/96"), wanted);
        // Addresses from DHCPv6 say nothing of the network they are in.
        let single = HostAddress {
            prefix_len: 128,
            ..addresses[1]
        };
        assert_eq!(chosen(&[single], "2001:db8:64::/96"), None);
    }

    /// Systems list the newest address first, and privacy extensions make new ones every day.
    #[test]
    fn clat_c_01_the_order_of_addresses_does_not_matter() {
        let mut addresses = [
            host("2001:db8:1:3::1", true),
            host("2001:db8:1:2::1", true),
            host("fd00:1:2:3::1", true),
        ];
        for _ in 0..addresses.len() {
            let wanted = Some("2001:db8:1:2::".to_owned());
            assert_eq!(chosen(&addresses, "64:ff9b::/96"), wanted);
            addresses.rotate_left(1);
        }
        // What is in use stays, but for a source of another label.
        let keep = |in_use: &str, prefix: &str| {
            let in_use = Some(in_use.parse().unwrap());
            choose_network(&addresses, prefix.parse().unwrap(), in_use).map(|it| it.to_string())
        };
        let (second, third) = ("2001:db8:1:2::", "2001:db8:1:3::");
        assert_eq!(keep("2001:db8:1:3::464", "64:ff9b::/96").unwrap(), third);
        let longer = keep("2001:db8:1:3::464", "2001:db8:1:2::/96");
        assert_eq!(longer.unwrap(), third);
        assert_eq!(keep("fd00:1:2:3::464", "64:ff9b::/96").unwrap(), second);
        assert_eq!(keep("2001:db8:9:9::464", "64:ff9b::/96").unwrap(), second);
    }

    /// Rule 3: where a network is renumbered, the old one often leads nowhere any more (RFC 9096
    /// §3.5 has routers say so by deprecating it).
    #[test]
    fn clat_c_01_what_is_in_use_and_deprecated_stays_only_if_all_are() {
        let choose = |other: bool| {
            let addresses = [
                host("2001:db8:1:2::1", false),
                host("2001:db8:64:3::1", other),
            ];
            let in_use = Some("2001:db8:1:2::464".parse().unwrap());
            choose_network(&addresses, "2001:db8:64::/96".parse().unwrap(), in_use).unwrap()
        };
        assert_eq!(choose(true).to_string(), "2001:db8:64:3::");
        assert_eq!(choose(false).to_string(), "2001:db8:1:2::");
    }

    /// RFC 6724 §2.1, the default policy table.
    #[test]
    fn clat_c_01_labels() {
        for (address, wanted) in [
            ("::1", 0),
            ("2620::1", 1),
            ("64:ff9b::1", 1),
            ("2002::1", 2),
            ("::2", 3),
            ("::ffff:1.2.3.4", 4),
            ("2001::1", 5),
            ("2001:db8::1", 1),
            ("fec0::1", 11),
            ("3ffe::1", 12),
            ("fd00::1", 13),
        ] {
            assert_eq!(label(address.parse().unwrap()), wanted, "{address}");
        }
    }

    /// Vector 11.3.
    #[test]
    fn the_neutral_address_of_the_checklist() {
        let address = neutral_address(
            "2001:db8:1:2::".parse().unwrap(),
            Instance::FIRST,
            "2001:db8:64::/96".parse().unwrap(),
            0x0246_c1a7_0001_ffff,
        );
        assert_eq!(address.unwrap().to_string(), "2001:db8:1:2:246:c1a7:1:a039");
    }

    /// RFC 6052 §4.1: other lengths put the IPv4 address across words, and neutrality is out of
    /// reach. The address is an ordinary one then, and nobody takes it for neutral.
    #[test]
    fn addr_4_1_01_some_lengths_cannot_be_neutral() {
        let network: Ipv6Addr = "2001:db8:1:2::".parse().unwrap();
        for length in [Length::L40, Length::L48, Length::L56, Length::L64] {
            let prefix = Pref64::masked("2001:db8:122:344::".parse().unwrap(), length).unwrap();
            let clat = neutral_address(network, Instance::FIRST, prefix, 0x0246_c1a7_0001_0000);
            let clat = clat.unwrap();
            assert_eq!(network_of(clat), network);
            assert!(!is_neutral(clat, Instance::FIRST, prefix));
            let peer = Ipv4Addr::new(198, 51, 100, 10);
            let v6 = Sum::of(&clat.octets()).bytes(&prefix.embed(peer).octets());
            let v4 = Sum::of(&Instance::FIRST.host().octets()).bytes(&peer.octets());
            assert_ne!(v6.fold() % 0xffff, v4.fold() % 0xffff, "{prefix}");
        }
    }

    /// The last 16 bits are given, so a reserved identifier can only be avoided by another
    /// `random` (RFC 5453).
    #[test]
    fn addr_4_1_01_a_reserved_identifier_is_not_returned() {
        let prefix: Pref64 = "64:ff9b::/96".parse().unwrap();
        // Networks whose sum leaves exactly the reserved last word.
        for (random, last) in [
            (0, 0),
            (0xfdff_ffff_ffff_0000, 0xff80),
            (0xfdff_ffff_ffff_0000, 0xfffe),
            (0x0200_5eff_fe00_0000, 0x5213),
            (0x0200_5eff_fe77_0000, 0x1234),
        ] {
            let host = Sum::of(&Instance::FIRST.host().octets()).fold();
            let rest = Sum::of(&(0x2001_0db8_u128 << 96 | u128::from(random)).to_be_bytes()).fold();
            let fill = (i64::from(host) - i64::from(rest) - last).rem_euclid(0xffff);
            let network = 0x2001_0db8_u128 << 96 | u128::try_from(fill).unwrap() << 64;
            let network = Ipv6Addr::from_bits(network);
            let made = neutral_address(network, Instance::FIRST, prefix, random);
            assert_eq!(made, None, "{random:x} {last:x}");
            assert!(neutral_address(network, Instance::FIRST, prefix, !random).is_some());
        }
    }

    #[test]
    fn reserved_identifiers_are_not_used() {
        for reserved in [
            "::",
            "::fdff:ffff:ffff:ff80",
            "::fdff:ffff:ffff:ffff",
            "::200:5eff:fe00:0",
            "::200:5eff:fe00:5213",
            "::200:5eff:feff:ffff",
        ] {
            assert!(
                is_reserved_identifier(reserved.parse().unwrap()),
                "{reserved}"
            );
        }
        for free in [
            "::1",
            "::fdff:ffff:ffff:ff7f",
            "::fe00:0:0:0",
            "::200:5eff:fdff:ffff",
            "::200:5eff:ff00:0",
            "::246:c1a7:1:a039",
        ] {
            assert!(!is_reserved_identifier(free.parse().unwrap()), "{free}");
        }
    }

    proptest! {
        /// For any destination, what a checksum covers sums to the same in both families.
        #[test]
        fn addr_4_1_01_a_neutral_address_leaves_checksums_alone(
            network in any::<u64>(),
            random in any::<u64>(),
            prefix in any::<u128>(),
            long in any::<bool>(),
            instance in 0u8..3,
            peer in any::<u32>(),
        ) {
            let length = if long { Length::L96 } else { Length::L32 };
            let prefix = (prefix >> 3 | 1 << 125) & !(0xff << 56);
            let prefix = Pref64::masked(Ipv6Addr::from_bits(prefix), length).unwrap();
            let network = Ipv6Addr::from_bits(u128::from(network) << 64);
            let instance = Instance::new(instance).unwrap();
            let clat = neutral_address(network, instance, prefix, random);
            prop_assume!(clat.is_some());
            let clat = clat.unwrap();
            prop_assert_eq!(clat.to_bits() >> 64, network.to_bits() >> 64);
            prop_assert!(is_neutral(clat, instance, prefix));
            let peer = Ipv4Addr::from_bits(peer);
            let v6 = Sum::of(&clat.octets()).bytes(&prefix.embed(peer).octets()).fold();
            let v4 = Sum::of(&instance.host().octets()).bytes(&peer.octets()).fold();
            prop_assert_eq!(v6 % 0xffff, v4 % 0xffff);
        }
    }
}
