//! The arithmetic of packet sizes between the families (RFC 7915 §4.2, §5.2).

use wire::ipv6;

/// The sizes that links had when routers did not yet say theirs (RFC 1191 table 7-1).
const PLATEAUS: [u16; 11] = [
    65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68,
];

/// How much longer an IPv6 header is than an IPv4 header without options.
pub const GROWTH: u16 = 20;

/// [`GROWTH`], and a Fragment Header.
pub const GROWTH_FRAGMENT: u16 = GROWTH + 8;

/// The largest plateau below the length of the packet that did not fit.
#[must_use]
pub fn plateau_below(total_len: u16) -> u16 {
    let smaller = PLATEAUS.into_iter().find(|plateau| *plateau < total_len);
    smaller.unwrap_or(68)
}

/// The MTU of a Packet Too Big made of an ICMPv4 Fragmentation Needed with `mtu`, about a packet of
/// `total_len` bytes (RFC 7915 §4.2).
#[must_use]
pub fn packet_too_big(mtu: u16, total_len: u16, ipv6_mtu: u16, ipv4_mtu: u16) -> u32 {
    let mtu = match mtu {
        0 => plateau_below(total_len),
        said => said,
    };
    let over_ipv6 = u32::from(mtu) + u32::from(GROWTH);
    over_ipv6
        .min(u32::from(ipv6_mtu))
        .min(u32::from(ipv4_mtu) + u32::from(GROWTH))
        .max(u32::from(ipv6::MIN_MTU))
}

/// The MTU of a Fragmentation Needed made of an ICMPv6 Packet Too Big with `mtu` (RFC 7915 §5.2).
///
/// `growth` is what translation to IPv6 adds to the packet in error: [`GROWTH`], or
/// [`GROWTH_FRAGMENT`] if it has a Fragment Header. An MTU under 1280 is not one that an IPv6 link
/// can have (RFC 8200 §5), so it counts as 1280.
#[must_use]
pub fn fragmentation_needed(mtu: u32, growth: u16, ipv4_mtu: u16, ipv6_mtu: u16) -> u16 {
    let mtu = mtu.clamp(u32::from(ipv6::MIN_MTU), 0xffff);
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    mtu.min(ipv6_mtu).saturating_sub(growth).min(ipv4_mtu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xlat_4_2_02_packet_too_big_from_fragmentation_needed() {
        for (arguments, wanted) in [
            ((1400, 1500, 1500, 1500), 1420),
            ((576, 1500, 1500, 1500), 1280),
            ((1261, 1500, 1500, 1500), 1281),
            ((65535, 65535, 9000, 1500), 1520),
            ((0, 1500, 9000, 9000), 1512),
            ((0, 1492, 9000, 9000), 1280),
            ((0, 2003, 9000, 9000), 2022),
            ((0, 9000, 9000, 9000), 8186),
        ] {
            let (mtu, len, ipv6, ipv4) = arguments;
            assert_eq!(
                packet_too_big(mtu, len, ipv6, ipv4),
                wanted,
                "{arguments:?}"
            );
        }
    }

    #[test]
    fn xlat_4_2_02_plateaus() {
        for (len, wanted) in [
            (65535, 32000),
            (1492, 1006),
            (1493, 1492),
            (68, 68),
            (20, 68),
        ] {
            assert_eq!(plateau_below(len), wanted);
        }
    }

    #[test]
    fn xlat_5_2_02_fragmentation_needed_from_packet_too_big() {
        for ((mtu, ipv4, ipv6), wanted) in [
            ((1400, 1500, 1500), 1380),
            ((1280, 1500, 1500), 1260),
            ((9000, 9000, 1500), 1480),
            ((9000, 1500, 9000), 1500),
            ((1300, 1279, 1500), 1279),
            ((u32::MAX, 65535, 65535), 65515),
            ((0, 1500, 1500), 1260),
        ] {
            assert_eq!(fragmentation_needed(mtu, GROWTH, ipv4, ipv6), wanted);
        }
        assert_eq!(
            fragmentation_needed(1400, GROWTH_FRAGMENT, 1500, 1500),
            1372
        );
        assert_eq!(
            fragmentation_needed(9000, GROWTH_FRAGMENT, 1500, 1500),
            1472
        );
    }
}
