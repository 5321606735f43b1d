//! Whole packets, through [`V4ToV6`] and [`V6ToV4`] with the mapping of the checklist:
//! 192.0.0.1 = 2001:db8:1:2::464, and 2001:db8:64::/96 for everybody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use clat_core::mapping::{ClatMapping, Instance};
use pref64::siit::NonGlobal;
use serde::Deserialize;
use wire::{
    ipv4::Ipv4,
    ipv6::Ipv6,
    packet::{HEADROOM, PacketBuf},
    protocol,
    verdict::Verdict,
};
use xlat::{Config, V4ToV6, V6ToV4};

use crate::{from_hex, vectors};

pub(crate) const HOST4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);
pub(crate) const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 0x464);
pub(crate) const PEER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
pub(crate) const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0xc633, 0x640a);

#[derive(Deserialize)]
struct Packet {
    r#in: String,
    out: String,
}

/// What became of a packet.
#[derive(Debug)]
pub(crate) enum Became {
    Packet(Vec<u8>),
    Answer(Vec<u8>),
}

/// The translator of the checklist.
pub(crate) fn config() -> Config {
    Config::new(
        Instance::FIRST.translator(),
        "2001:db8:1:2::fe".parse().unwrap(),
    )
}

fn mapping() -> ClatMapping {
    ClatMapping {
        host: HOST4,
        clat: HOST6,
        prefix: "2001:db8:64::/96".parse().unwrap(),
        retained: Vec::new(),
        wkp_non_global: NonGlobal::Translate,
    }
}

/// Translates a packet into one, in a buffer that is full of something else.
pub(crate) fn translate_with(config: Config, packet: &[u8]) -> Became {
    let mut buf = PacketBuf::new();
    buf.receive_area(HEADROOM).fill(0xa5);
    buf.set(packet).unwrap();
    let now = Instant::now();
    let verdict = if packet[0] >> 4 == 4 {
        V4ToV6::new(config, 1).translate(&mut buf, &mapping(), now)
    } else {
        V6ToV4::new(config, 1).translate(&mut buf, &mapping(), now)
    };
    match verdict {
        Verdict::Forward(mut pieces) => {
            assert!(pieces.next(&mut buf));
            let first = buf.bytes().to_vec();
            assert!(!pieces.next(&mut buf), "one packet");
            Became::Packet(first)
        }
        Verdict::Reply(_) => Became::Answer(buf.bytes().to_vec()),
        // No vector is lost without a word.
        Verdict::Drop(reason) => panic!("dropped: {reason}"),
    }
}

/// The packet without its Identification, which a generator chooses, and without the header
/// checksum that covers it (and is verified).
fn masked(packet: &[u8]) -> Vec<u8> {
    assert!(Ipv4::new_checked(packet).is_ok());
    let mut packet = packet.to_vec();
    packet[4..6].fill(0);
    packet[10..12].fill(0);
    packet
}

fn check(name: &str) {
    let mut packets: BTreeMap<String, Packet> = vectors("packets");
    let vector = packets.remove(name).expect("a packet of this name");
    let wanted = from_hex(&vector.out);
    let input = from_hex(&vector.r#in);
    let Became::Packet(packet) = translate_with(config(), &input) else {
        panic!("{name} did not pass");
    };
    if chooses_identification(&input) {
        assert_eq!(masked(&packet), masked(&wanted), "{name}");
    } else {
        assert_eq!(packet, wanted, "{name}");
    }
}

/// Whether the Identification of what comes out is the generator's: an IPv6 packet without a
/// Fragment Header brings none.
fn chooses_identification(packet: &[u8]) -> bool {
    Ipv6::new_checked(packet).is_ok_and(|it| it.next_header() != protocol::FRAGMENT)
}

/// A test for every group of packets, and [`HANDLED`], the names of them all. `#[test]` is written
/// where it is used, so that `cargo xtask conformance` finds them.
macro_rules! packet_tests {
    ($($(#[$attribute:meta])+ fn $test:ident() { $($name:literal)+ })+) => {
        $(
            $(#[$attribute])+
            fn $test() {
                $(check($name);)+
            }
        )+

        const HANDLED: &[&str] = &[$($($name,)+)+];
    };
}

packet_tests! {
    #[test]
    fn xlat_4_1_05_udp_headers() { "UDP46" }
    #[test]
    fn xlat_4_1_08_options_are_ignored() { "UDP46-options" }
    #[test]
    fn xlat_4_1_09_a_fragment() { "FRAG46-middle" }
    #[test]
    fn xlat_4_1_02_tcp_without_fragment_header() { "TCP46-SYN" }
    #[test]
    fn xlat_4_2_01_echo_request() { "ECHO46" }
    #[test]
    fn xlat_4_2_01_protocol_unreachable() { "PROTOUNREACH46" }
    #[test]
    fn xlat_4_2_02_fragmentation_needed() { "FRAGNEEDED46" }
    #[test]
    fn xlat_4_5_01_a_checksum_of_zero_is_sent_as_ffff() { "UDP46-ffff" }
    #[test]
    fn xlat_4_5_02_a_missing_checksum_is_computed() { "UDP46-zerocsum" }
    #[test]
    fn xlat_5_1_01_udp_headers() { "UDP64" }
    #[test]
    fn xlat_5_1_1_01_fragments() { "FRAG64-last" "FRAG64-atomic" }
    #[test]
    fn xlat_5_2_01_echo_reply() { "ECHO64" }
    #[test]
    fn xlat_5_2_02_packet_too_big() { "PTB64" }
    #[test]
    fn xlat_6791_01_time_exceeded_from_an_untranslatable_router() { "TIMEX64" }
}

#[test]
fn every_packet_is_handled() {
    let packets: BTreeMap<String, Packet> = vectors("packets");
    let names: BTreeSet<_> = packets.keys().map(String::as_str).collect();
    assert_eq!(names, HANDLED.iter().copied().collect());
}
