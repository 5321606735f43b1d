//! Fragments in both directions (RFC 7915 §4.1, §5.1.1).

use super::*;
use wire::ipv6::FragmentHeader;

fn fragment_header(packet: &[u8]) -> (FragmentHeader, u8, &[u8]) {
    let packet = Ipv6::new_checked(packet).unwrap();
    let upper = packet.upper().unwrap();
    let header = upper.fragment.expect("a Fragment Header");
    (header, upper.protocol, packet.from_offset(upper.offset))
}

#[test]
fn xlat_4_1_01_large_packets_without_df_are_fragmented_to_the_lowest_mtu() {
    let data = noise(1472);
    let packets = to_v6(&udp4(&data, |header| header.id = 0x4242)).packets();
    let lengths: Vec<_> = packets.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1280, 296]);
    let mut joined = Vec::new();
    for (packet, offset) in packets.iter().zip([0, 154]) {
        let (header, protocol, payload) = fragment_header(packet);
        assert_eq!(header.id, 0x4242);
        assert_eq!(header.fragment.offset, offset);
        assert_eq!(header.fragment.more, offset == 0);
        assert_eq!(protocol, 17);
        joined.extend_from_slice(payload);
    }
    assert_eq!(joined, compose::udp(PAIR6, 40000, 53, &data));
}

/// The limit is compared with the packet before 8 bytes are reserved for a Fragment Header.
#[test]
fn xlat_4_1_01_the_limit_is_for_the_packet_without_fragment_header() {
    for (len, pieces) in [(1259, 1), (1260, 1), (1261, 2)] {
        let packets = to_v6(&udp4(&noise(len - 28), |_| ())).packets();
        assert_eq!(packets.len(), pieces, "{len}");
        assert!(packets.iter().all(|packet| packet.len() <= 1280));
    }
}

#[test]
fn xlat_4_1_01_the_lowest_mtu_can_be_raised_up_to_the_link() {
    let lengths = |lowest_ipv6_mtu, ipv6_mtu| -> Vec<usize> {
        let config = Config {
            lowest_ipv6_mtu,
            ipv6_mtu,
            ..config()
        };
        let fate = to_v6_with(config, STATELESS, &udp4(&noise(1472), |_| ()));
        fate.packets().iter().map(Vec::len).collect()
    };
    assert_eq!(lengths(1500, 9000), [1496, 80]);
    assert_eq!(lengths(1520, 9000), [1520]);
    assert_eq!(lengths(9000, 1500), [1496, 80]);
}

#[test]
fn xlat_4_1_02_a_small_packet_without_df_has_no_fragment_header() {
    let packet = to_v6(&udp4(b"x", |_| ())).packet();
    assert_eq!(Ipv6::new_checked(&packet).unwrap().next_header(), 17);
}

#[test]
fn xlat_4_1_09_fragments_stay_fragments() {
    let mut first = V4::new(HOST4, PEER4, 17);
    (first.id, first.mf) = (0xbeef, true);
    let datagram = compose::udp(PAIR4, 40000, 53, &noise(72));
    let packet = to_v6(&first.carrying(&datagram)).packet();
    let (header, protocol, payload) = fragment_header(&packet);
    assert_eq!((header.id, protocol), (0xbeef, 17));
    assert_eq!(
        header.fragment,
        wire::ipv4::Fragment {
            offset: 0,
            more: true
        }
    );
    // The checksum of the whole datagram is not known, but it changes as if it were.
    assert_eq!(payload, compose::udp(PAIR6, 40000, 53, &noise(72)));

    for (offset, mf) in [(185, true), (370, false)] {
        let mut later = first.clone();
        (later.offset, later.mf) = (offset, mf);
        let packet = to_v6(&later.carrying(&noise(80))).packet();
        let (header, _, payload) = fragment_header(&packet);
        assert_eq!(header.fragment, wire::ipv4::Fragment { offset, more: mf });
        assert_eq!(payload, noise(80), "later fragments are untouched");
    }
}

#[test]
fn xlat_4_1_09_a_fragment_too_big_for_the_lowest_mtu_is_divided() {
    let mut header = V4::new(HOST4, PEER4, 17);
    (header.id, header.offset, header.mf) = (7, 185, true);
    let packets = to_v6(&header.carrying(&noise(1480))).packets();
    let mut joined = Vec::new();
    for packet in &packets {
        assert!(packet.len() <= 1280);
        let (header, _, payload) = fragment_header(packet);
        assert_eq!(usize::from(header.fragment.offset) * 8, 1480 + joined.len());
        assert!(header.fragment.more);
        assert_eq!(header.id, 7);
        joined.extend_from_slice(payload);
    }
    assert_eq!(joined, noise(1480));
}

#[test]
fn xlat_1_2_01_fragmented_icmp_is_not_translated() {
    let echo = compose::icmp4(8, 0, [0; 4], &noise(72));
    let mut header = V4::new(HOST4, PEER4, 1);
    header.mf = true;
    let dropped = Fate::Dropped(DropReason::FragmentedIcmp);
    assert_eq!(to_v6(&header.carrying(&echo)), dropped);
    (header.mf, header.offset) = (false, 10);
    assert_eq!(to_v6(&header.carrying(&echo)), dropped);
    let echo = compose::icmp6(PEER6, HOST6, 128, 0, [0; 4], &noise(72));
    let packet = V6::new(PEER6, HOST6, 44).carrying(&compose::fragment(58, 0, true, 1, &echo));
    assert_eq!(to_v4(&packet), dropped);
}

/// A large echo that is fragmented only here is whole when it is translated.
#[test]
fn a_large_echo_is_translated_and_then_fragmented() {
    let echo = compose::icmp4(8, 0, [0x46, 0x40, 0, 1], &noise(1400));
    let packets = to_v6(&V4::new(HOST4, PEER4, 1).carrying(&echo)).packets();
    assert_eq!(packets.len(), 2);
    let joined: Vec<u8> = packets
        .iter()
        .flat_map(|packet| fragment_header(packet).2.to_vec())
        .collect();
    let wanted = compose::icmp6(HOST6, PEER6, 128, 0, [0x46, 0x40, 0, 1], &noise(1400));
    assert_eq!(joined, wanted);
}

#[test]
fn xlat_5_1_1_01_fragment_headers_become_ipv4_fragments() {
    for (offset, more) in [(0, true), (185, true), (185, false)] {
        let datagram = compose::udp(BACK6, 53, 40000, &noise(72));
        let payload = compose::fragment(17, offset, more, 0xcafe_beef, &datagram);
        let packet = to_v4(&V6::new(PEER6, HOST6, 44).carrying(&payload)).packet();
        let header = Ipv4::new_checked(&packet).unwrap();
        assert_eq!(header.id(), 0xbeef);
        assert!(!header.dont_fragment());
        assert_eq!(header.fragment(), wire::ipv4::Fragment { offset, more });
        let wanted = match offset {
            0 => compose::udp(BACK4, 53, 40000, &noise(72)),
            _ => datagram,
        };
        assert_eq!(header.payload(), wanted);
    }
}

#[test]
fn xlat_5_1_1_01_an_atomic_fragment_is_a_whole_packet_without_df() {
    // Large enough that DF would be set without the Fragment Header.
    let datagram = compose::udp(BACK6, 53, 40000, &noise(1400));
    let payload = compose::fragment(17, 0, false, 0x0001_0002, &datagram);
    let packet = to_v4(&V6::new(PEER6, HOST6, 44).carrying(&payload)).packet();
    let header = Ipv4::new_checked(&packet).unwrap();
    assert_eq!(header.id(), 2);
    assert!(!header.dont_fragment() && !header.fragment().is_fragment());
    assert_eq!(
        header.payload(),
        compose::udp(BACK4, 53, 40000, &noise(1400))
    );
    // An echo in an atomic fragment is whole too.
    let echo = compose::icmp6(PEER6, HOST6, 128, 0, [1; 4], b"ping");
    let payload = compose::fragment(58, 0, false, 1, &echo);
    let packet = to_v4(&V6::new(PEER6, HOST6, 44).carrying(&payload)).packet();
    assert_eq!(packet[20..], compose::icmp4(8, 0, [1; 4], b"ping"));
}

#[test]
fn xlat_5_1_1_02_an_extension_header_behind_a_fragment_header_drops() {
    for (next, dropped) in [(60, true), (0, true), (43, true), (51, true), (50, false)] {
        for offset in [0, 185] {
            let mut header = vec![17, 0];
            header.extend([0; 38]);
            let payload = compose::fragment(next, offset, true, 1, &header);
            let fate = to_v4(&V6::new(PEER6, HOST6, 44).carrying(&payload));
            let is_dropped = fate == Fate::Dropped(DropReason::ExtensionAfterFragment);
            assert_eq!(is_dropped, dropped, "{next} {offset}: {fate:?}");
        }
    }
}

#[test]
fn a_first_fragment_without_its_transport_header_is_dropped() {
    let mut header = V4::new(HOST4, PEER4, 6);
    header.mf = true;
    let dropped = Fate::Dropped(DropReason::TruncatedTransport);
    assert_eq!(to_v6(&header.carrying(&noise(16))), dropped);
    let payload = compose::fragment(6, 0, true, 1, &noise(16));
    let packet = V6::new(PEER6, HOST6, 44).carrying(&payload);
    assert_eq!(to_v4(&packet), dropped);
}

/// A datagram that was reassembled on the way is fragmented again instead of being refused.
#[test]
fn xlat_5_1_1_03_a_reassembled_packet_is_fragmented_again() {
    let datagram = compose::udp(BACK6, 53, 40000, &noise(8192));
    let payload = compose::fragment(17, 0, false, 0x7777_4242, &datagram);
    let mut buf = loaded(&V6::new(PEER6, HOST6, 44).carrying(&payload));
    buf.offload.reassembled = true;
    let verdict = V6ToV4::new(config(), 1).translate(&mut buf, &STATELESS, origin());
    let packets = fate(verdict, &mut buf).packets();
    let mut joined = Vec::new();
    for packet in &packets {
        let header = Ipv4::new_checked(packet).unwrap();
        assert!(packet.len() <= 1500 && header.id() == 0x4242);
        assert_eq!(usize::from(header.fragment().offset) * 8, joined.len());
        joined.extend_from_slice(header.payload());
    }
    assert_eq!(joined, compose::udp(BACK4, 53, 40000, &noise(8192)));
}

/// Found by simulation: a host that was told to send smaller fragments did, in vain, because the
/// CLAT put them together and made larger ones up to the raised limit.
#[test]
fn xlat_4_1_01_a_reassembled_packet_leaves_in_fragments_that_every_link_takes() {
    let raised = Config {
        lowest_ipv6_mtu: 1500,
        ..config()
    };
    let packets = |reassembled| {
        let mut buf = loaded(&udp4(&noise(1400), |_| ()));
        buf.offload.reassembled = reassembled;
        let mut translator = V4ToV6::new(raised.clone(), 1);
        let verdict = translator.translate(&mut buf, &STATELESS, origin());
        fate(verdict, &mut buf).packets()
    };
    assert_eq!(packets(false).len(), 1);
    let fragments = packets(true);
    assert_eq!(fragments.len(), 2);
    assert!(fragments.iter().all(|it| it.len() <= 1280 && it[6] == 44));
}

/// Such a fragment cannot be part of any datagram, and its pieces would overlap the front of one.
#[test]
fn a_fragment_past_the_longest_datagram_is_dropped() {
    let malformed = Fate::Dropped(DropReason::FragmentMalformed);
    let fragment4 = |offset, len| {
        let mut header = V4::new(HOST4, PEER4, 17);
        (header.offset, header.mf) = (offset, true);
        to_v6(&header.carrying(&noise(len)))
    };
    assert_eq!(fragment4(8191, 8), malformed);
    assert_eq!(fragment4(8020, 1400), malformed);
    assert_eq!(fragment4(8016, 1400).packets().len(), 2);
    let fragment6 = |offset, len| {
        let payload = compose::fragment(17, offset, true, 1, &noise(len));
        to_v4(&V6::new(PEER6, HOST6, 44).carrying(&payload))
    };
    assert_eq!(fragment6(8191, 8), malformed);
    assert_eq!(fragment6(8016, 1400).packets().len(), 1);
}
