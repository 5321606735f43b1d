//! Packet sizes: MTUs in ICMP errors, Don't Fragment, and what does not fit (RFC 7915 §4.1, §4.2,
//! §5.1, §5.2).

use wire::{compose, ipv4::Ipv4};
use xlat::{Config, mtu};

use crate::{
    packets::{Became, HOST4, HOST6, PEER4, PEER6, config, translate_with},
    vectors,
};

#[test]
fn xlat_4_2_02_mtu_in_packet_too_big() {
    for (arguments, wanted) in vectors::<Vec<((u16, u16, u16, u16), u32)>>("mtu46") {
        let (mtu, len, ipv6, ipv4) = arguments;
        let made = mtu::packet_too_big(mtu, len, ipv6, ipv4);
        assert_eq!(made, wanted, "{arguments:?}");
    }
}

#[test]
fn xlat_5_2_02_mtu_in_fragmentation_needed() {
    for (arguments, wanted) in vectors::<Vec<((u32, u16, u16), u16)>>("mtu64") {
        let (mtu, ipv4, ipv6) = arguments;
        let made = mtu::fragmentation_needed(mtu, mtu::GROWTH, ipv4, ipv6);
        assert_eq!(made, wanted, "{arguments:?}");
    }
}

/// Lengths of the IPv4 packet that comes out.
#[test]
fn xlat_5_1_02_dont_fragment() {
    for (len, wanted) in vectors::<Vec<(usize, u8)>>("df64") {
        let pair = compose::Pair::V6(PEER6, HOST6);
        let datagram = compose::udp(pair, 53, 40000, &vec![0; len - 28]);
        let packet = compose::V6::new(PEER6, HOST6, 17).carrying(&datagram);
        let Became::Packet(packet) = translate_with(config(), &packet) else {
            panic!("{len}");
        };
        let header = Ipv4::new_checked(&packet).unwrap();
        assert_eq!(usize::from(header.total_len()), len);
        assert_eq!(header.dont_fragment(), wanted == 1, "{len}");
    }
}

#[test]
fn xlat_4_1_03_fragmentation_needed() {
    for ((len, ipv6_mtu), wanted) in vectors::<Vec<((usize, u16), Option<u16>)>>("frag_needed46") {
        let pair = compose::Pair::V4(HOST4, PEER4);
        let datagram = compose::udp(pair, 40000, 53, &vec![0; len - 28]);
        let mut header = compose::V4::new(HOST4, PEER4, 17);
        header.df = true;
        let config = Config {
            ipv6_mtu,
            ..config()
        };
        match (translate_with(config, &header.carrying(&datagram)), wanted) {
            (Became::Packet(packet), None) => assert_eq!(packet.len(), len + 20),
            (Became::Answer(error), Some(mtu)) => {
                assert_eq!(error[20..22], [3, 4], "{len}");
                assert_eq!(error[26..28], mtu.to_be_bytes(), "{len}");
            }
            (became, _) => panic!("{len} at {ipv6_mtu}: {became:?}"),
        }
    }
}
